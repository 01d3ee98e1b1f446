package firewall

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
)

// A generator makes random rules and packets out of few values, so that they
// meet often.
type generator struct {
	*rand.Rand
	next uint32 // number of the last packet

	// quiet is for rules that let what the machine itself sends pass, so
	// that its refusals are seen.
	quiet bool
}

func (g *generator) silent(hook string) bool {
	return g.quiet && (strings.EqualFold(hook, "output") || strings.EqualFold(hook, "postrouting"))
}

func pick[T any](g *generator, list ...T) T { return list[g.IntN(len(list))] }

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

var (
	testPorts   = []uint16{22, 53, 80, 443, 1000, 5353, 8080, 8085}
	outsiders4  = []string{"192.0.2.2", "198.51.100.7", "203.0.113.9"}
	outsiders6  = []string{"2001:db8::2", "2001:db8:ffff::7", "2001:db8:eeee::9"}
	containers4 = []string{"172.17.0.2", "172.17.0.3", "172.17.0.4"}
	containers6 = []string{"fd00:d0c::2", "fd00:d0c::3", "fd00:d0c::4"}
)

// packet makes a packet that opens a connection, of which there is no other.
func (g *generator) packet() (Packet, uint32) {
	g.next++
	v6 := g.chance(40)
	outsiders, containers, own, bridge := outsiders4, containers4, machine4, bridge4
	if v6 {
		outsiders, containers, own, bridge = outsiders6, containers6, machine6, bridge6
	}
	out := func() netip.Addr { return netip.MustParseAddr(pick(g, outsiders...)) }
	con := func() netip.Addr { return netip.MustParseAddr(pick(g, containers...)) }
	p := Packet{In: pick(g, "eth0", "eth0", "eth0", "br0", ""), Protocol: pick(g, TCP, TCP, UDP, UDP, ICMP)}
	switch p.In {
	case "eth0":
		p.Src = out()
		p.Dst = pick(g, own, own, bridge, con(), con())
	case "br0":
		p.Src = con()
		p.Dst = pick(g, out(), out(), own, bridge, con())
		if p.Dst == p.Src {
			p.Dst = own
		}
	case "":
		p.Src = pick(g, own, bridge)
		p.Dst = pick(g, out(), con(), con(), own, bridge)
	}
	if p.Protocol == ICMP {
		if v6 {
			p.Protocol = ICMPv6
		}
		return p, g.next
	}
	p.DstPort = pick(g, testPorts...)
	p.SrcPort = uint16(2000 + g.next%60000)
	if p.Protocol == TCP && g.chance(6) {
		p.State = StateInvalid // see flagsOf
	}
	return p, g.next
}

// flagsOf returns the flags of TCP that bring a packet into its state. A SYN
// with a FIN is none that connection tracking takes seriously.
func flagsOf(p Packet) byte {
	switch p.State {
	case StateInvalid:
		return tcpSYN | tcpFIN
	case StateEstablished:
		return tcpACK
	}
	return tcpSYN
}

// not negates an option of iptables once in a while.
func (g *generator) not() string {
	if g.chance(20) {
		return "! "
	}
	return ""
}

func (g *generator) network(v6 bool) string {
	if v6 {
		return pick(g, "2001:db8::/64", "2001:db8::1", "fd00:d0c::/64", "fd00:d0c::2", "2001:db8:ffff::7", "::/1", "2001:db8::/32")
	}
	return pick(g, "192.0.2.0/24", "192.0.2.1", "172.17.0.0/16", "172.17.0.2", "198.51.100.7", "128.0.0.0/1", "172.17.0.1", "0.0.0.3/0.0.0.255")
}

func (g *generator) ports() string {
	switch g.IntN(4) {
	case 0:
		lo := g.IntN(9000)
		return fmt.Sprintf("%d:%d", lo, lo+g.IntN(6000))
	case 1:
		return pick(g, "1000:", ":1000", "1024:65535")
	}
	return fmt.Sprint(pick(g, testPorts...))
}

func (g *generator) portList() string {
	var list []string
	for range 1 + g.IntN(4) {
		list = append(list, strings.Trim(g.ports(), ":"))
	}
	return strings.Join(list, ",")
}

func (g *generator) subset(list ...string) string {
	list = slices.Clone(list)
	g.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return strings.Join(list[:1+g.IntN(min(3, len(list)))], ",")
}

// iptablesMatch makes one question. chain is the built-in chain that the rule is
// in, or "" for one that all may jump to.
func (g *generator) iptablesMatch(v6 bool, table, chain string) string {
	n := g.not()
	switch g.IntN(20) {
	case 0, 1:
		return n + "-s " + g.network(v6)
	case 2, 3:
		return n + "-d " + g.network(v6)
	case 4:
		if chain == "OUTPUT" || chain == "POSTROUTING" {
			return n + "-o " + pick(g, "eth0", "br0", "lo", "br+", "e+")
		}
		return n + "-i " + pick(g, "eth0", "br0", "lo", "br+", "e+")
	case 5:
		if chain == "PREROUTING" || chain == "INPUT" || chain == "" && table == "raw" {
			return ""
		}
		return n + "-o " + pick(g, "eth0", "br0", "lo", "br+", "e+")
	case 6, 7:
		return "-m conntrack " + n + "--ctstate " + g.subset("NEW", "ESTABLISHED", "RELATED", "INVALID", "DNAT", "SNAT", "UNTRACKED")
	case 8:
		return "-m conntrack " + n + "--ctorigdstport " + strings.Trim(g.ports(), ":") + pick(g, "", " --ctdir ORIGINAL", " --ctdir REPLY")
	case 9:
		return "-m conntrack " + n + pick(g, "--ctorigdst ", "--ctorigsrc ", "--ctreplsrc ", "--ctrepldst ") + strings.TrimSuffix(g.network(v6), "/0.0.0.255")
	case 10:
		return "-m conntrack " + n + pick(g, "--ctproto tcp", "--ctstatus NONE,SEEN_REPLY", "--ctstatus EXPECTED", "--ctstatus CONFIRMED", "--ctreplsrcport 80", "--ctorigsrcport 2000:20000", "--ctrepldstport 2000:9000")
	case 11, 12:
		if v6 {
			return "-m addrtype " + n + pick(g, "--dst-type LOCAL", "--src-type LOCAL", "--dst-type UNICAST", "--dst-type MULTICAST")
		}
		s := "-m addrtype " + n + pick(g, "--dst-type ", "--dst-type ", "--src-type ") + g.subset("LOCAL", "UNICAST", "BROADCAST", "MULTICAST")
		if (chain == "PREROUTING" || chain == "INPUT") && g.chance(20) {
			s += " --limit-iface-in"
		}
		return s
	case 13:
		if v6 {
			return "-m iprange " + n + pick(g, "--dst-range fd00:d0c::2-fd00:d0c::3", "--src-range 2001:db8::-2001:db8::ffff")
		}
		return "-m iprange " + n + pick(g, "--dst-range 172.17.0.2-172.17.0.3", "--src-range 192.0.2.2-198.51.100.7")
	case 14, 15:
		return "-m mark " + n + pick(g, "--mark 1", "--mark 0x10/0xf0", "--mark 0", "--mark 0x1/0x1")
	case 16:
		return "-m connmark " + n + pick(g, "--mark 1", "--mark 0x10/0xf0", "--mark 0")
	case 17:
		return "-m comment --comment " + pick(g, `"a \"quoted\" -j DROP"`, "x")
	case 18:
		if g.chance(30) { // what the evaluator cannot know
			return "-m statistic --mode nth --every 2 --packet 0"
		}
	}
	return ""
}

// iptablesTransport makes the questions about a protocol.
func (g *generator) iptablesTransport(v6 bool) string {
	n := g.not()
	switch g.IntN(9) {
	case 0:
		return n + "-p " + pick(g, "tcp", "udp", "132")
	case 1, 2:
		return "-p tcp -m tcp " + n + pick(g, "--dport ", "--dport ", "--sport ") + g.ports()
	case 3:
		return "-p udp -m udp " + n + pick(g, "--dport ", "--sport ") + g.ports()
	case 4, 5:
		return "-p " + pick(g, "tcp", "udp") + " -m multiport " + n + pick(g, "--dports ", "--sports ", "--ports ") + g.portList()
	case 6:
		return "-p tcp -m tcp " + n + pick(g, "--syn", "--tcp-flags FIN,SYN,RST,ACK SYN", "--tcp-flags ALL SYN", "--tcp-flags SYN,ACK SYN,ACK", "--tcp-flags ALL NONE")
	case 7:
		if v6 {
			return "-p ipv6-icmp -m icmp6 " + n + "--icmpv6-type " + pick(g, "128", "129", "135", "128/0")
		}
		return "-p icmp -m icmp " + n + "--icmp-type " + pick(g, "8", "0", "8/0", "any", "3/1")
	}
	return ""
}

func (g *generator) iptablesTarget(v6 bool, table, chain string, others []string) string {
	switch table {
	case "nat":
		if chain == "POSTROUTING" {
			s := pick(g, "MASQUERADE", "ACCEPT", "SNAT --to-source 192.0.2.9", "RETURN", "LOG")
			if v6 {
				s = strings.Replace(s, "192.0.2.9", "2001:db8::9", 1)
			}
			return "-j " + s
		}
		return g.natTarget(v6, chain, others)
	case "raw":
		if g.chance(15) {
			return "-j CT --notrack"
		}
	case "mangle":
		if g.chance(50) {
			return "-j " + pick(g, "MARK --set-xmark 0x1/0xffffffff", "MARK --set-xmark 0x10/0xf0", "MARK --or-mark 0x1", "MARK --xor-mark 0x11", "MARK --and-mark 0xfe",
				"CONNMARK --set-xmark 0x1/0xff", "CONNMARK --save-mark", "CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff")
		}
	}
	if len(others) > 0 && g.chance(35) {
		return pick(g, "-j ", "-j ", "-j ", "-g ") + pick(g, others...)
	}
	verdicts := []string{"ACCEPT", "ACCEPT", "DROP", "RETURN", "LOG", ""}
	if table == "filter" {
		verdicts = append(verdicts, "REJECT", "REJECT", "DROP")
	}
	if v := pick(g, verdicts...); v != "" {
		return "-j " + v
	}
	return ""
}

// natTarget makes a target for PREROUTING and OUTPUT.
func (g *generator) natTarget(v6 bool, chain string, others []string) string {
	if len(others) > 0 && g.chance(40) {
		return "-j " + pick(g, others...)
	}
	if chain == "INPUT" {
		return "-j ACCEPT"
	}
	to := pick(g, containers4...)
	if v6 {
		to = "[" + pick(g, containers6...) + "]"
	}
	if g.chance(15) {
		to = machine4.String()
		if v6 {
			to = "[" + machine6.String() + "]"
		}
	}
	port := fmt.Sprint(pick(g, testPorts...))
	return "-j " + pick(g, "DNAT --to-destination "+to+":"+port, "DNAT --to-destination "+to+":"+port, "DNAT --to-destination "+strings.Trim(to, "[]"),
		"DNAT --to-destination :"+port, "REDIRECT --to-ports "+port, "REDIRECT", "ACCEPT", "RETURN")
}

// iptables makes a whole listing. Built-in chains are in it even if empty, so
// that loading it leaves nothing of an earlier one.
func (g *generator) iptables(v6 bool) string {
	var b strings.Builder
	builtins := map[string][]string{
		"raw": {"PREROUTING", "OUTPUT"}, "mangle": {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"},
		"nat": {"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"}, "filter": {"INPUT", "FORWARD", "OUTPUT"},
	}
	for _, table := range []string{"raw", "mangle", "nat", "filter"} {
		fmt.Fprintf(&b, "*%s\n", table)
		for _, c := range builtins[table] {
			policy := "ACCEPT"
			if (table == "filter" && g.chance(15) || table == "mangle" && g.chance(3)) && !g.silent(c) {
				policy = "DROP"
			}
			fmt.Fprintf(&b, ":%s %s [0:0]\n", c, policy)
		}
		var users []string
		for i := range 3 {
			users = append(users, fmt.Sprintf("U%d", i))
			fmt.Fprintf(&b, ":U%d - [0:0]\n", i)
		}
		rule := func(chain, builtin string, others []string) {
			if table == "nat" && builtin == "" {
				builtin = "OUTPUT?" // reached from PREROUTING and OUTPUT
			}
			target := g.iptablesTarget(v6, table, builtin, others)
			words := []string{"-A", chain}
			for range g.IntN(3) {
				words = append(words, g.iptablesMatch(v6, table, strings.TrimSuffix(builtin, "OUTPUT?")))
			}
			transport := g.iptablesTransport(v6)
			if strings.Contains(target, ":") && strings.Contains(target, "DNAT") && !strings.Contains(target, "-destination fd") ||
				strings.Contains(target, "--to-ports") {
				transport = pick(g, "-p tcp", "-p udp", "-p tcp -m tcp --dport "+g.ports(), "-p udp -m udp --dport "+g.ports())
			}
			words = append(words, transport)
			if strings.Contains(target, "-j REJECT") && strings.HasPrefix(transport, "-p tcp") && g.chance(50) {
				target += " --reject-with tcp-reset"
			}
			words = append(words, target)
			fmt.Fprintln(&b, strings.Join(strings.Fields(strings.Join(words, " ")), " "))
		}
		density := map[string]int{"raw": 2, "mangle": 3, "nat": 4, "filter": 5}[table]
		for _, c := range builtins[table] {
			if c == "INPUT" && table == "nat" || g.silent(c) {
				continue
			}
			for range g.IntN(density + 1) {
				others := users
				if table == "nat" && c == "POSTROUTING" {
					others = nil
				}
				rule(c, c, others)
			}
		}
		for i, c := range users {
			for range g.IntN(density) {
				rule(c, "", users[i+1:])
			}
		}
		fmt.Fprintln(&b, "COMMIT")
	}
	return b.String()
}

// nft makes a script with a few tables of their own.
func (g *generator) nft() string {
	var b strings.Builder
	for i, family := range []string{"inet", pick(g, "ip", "ip6", "inet")} {
		fmt.Fprintf(&b, "table %s t%d {\n", family, i)
		b.WriteString(`	set ports { type inet_service; flags interval; elements = { 20-60, 443, 8000-8080 } }
	set names { type ifname; elements = { "br0", "docker0" } }
	map fates { type inet_service : verdict; elements = { 22 : drop, 53 : accept, 80 : jump u1, 443 : return, 1000 : goto u2 } }
`)
		if family != "ip6" {
			b.WriteString("	set nets4 { type ipv4_addr; flags interval; elements = { 172.17.0.0/30, 192.0.2.1, 198.51.100.0-198.51.100.8 } }\n")
			b.WriteString("	set pairs4 { type ipv4_addr . inet_service; flags interval; elements = { 172.17.0.2 . 80, 192.0.2.0/24 . 1-100 } }\n")
			b.WriteString("	map to4 { type inet_service : ipv4_addr; elements = { 80 : 172.17.0.2, 443 : 172.17.0.3 } }\n")
			b.WriteString("	map ends4 { type inet_service : ipv4_addr . inet_service; elements = { 80 : 172.17.0.2 . 8080, 8085 : 172.17.0.3 . 80 } }\n")
		}
		if family != "ip" {
			b.WriteString("	set nets6 { type ipv6_addr; flags interval; elements = { fd00:d0c::/126, 2001:db8::1 } }\n")
		}
		for u := 3; u > 0; u-- {
			fmt.Fprintf(&b, "	chain u%d {\n", u)
			for range g.IntN(4) {
				fmt.Fprintf(&b, "		%s\n", g.nftRule(family, "", u))
			}
			b.WriteString("	}\n")
		}
		chains := 0
		for _, hook := range []string{"prerouting", "input", "forward", "output", "postrouting"} {
			for range g.IntN(3) {
				if g.silent(hook) {
					continue
				}
				chains++
				fmt.Fprintf(&b, "	chain c%d {\n		type filter hook %s priority %d; policy %s;\n", chains, hook,
					pick(g, -350, -300, -160, -150, -90, -10, 0, 0, 10, 110), pick(g, "accept", "accept", "accept", "accept", "accept", "drop"))
				for range g.IntN(5) {
					fmt.Fprintf(&b, "		%s\n", g.nftRule(family, hook, 0))
				}
				b.WriteString("	}\n")
			}
		}
		for _, hook := range []string{"prerouting", "output", "postrouting"} {
			if !g.chance(50) || g.silent(hook) {
				continue
			}
			prio := -100
			if hook == "postrouting" {
				prio = 100
			}
			chains++
			fmt.Fprintf(&b, "	chain c%d {\n		type nat hook %s priority %d; policy accept;\n", chains, hook, prio+pick(g, 0, 5, -5))
			for range g.IntN(4) {
				fmt.Fprintf(&b, "		%s\n", g.nftNAT(family, hook))
			}
			b.WriteString("	}\n")
		}
		b.WriteString("}\n")
	}
	if g.chance(20) {
		b.WriteString("table netdev n {\n	chain in {\n		type filter hook ingress device \"eth0\" priority 0; policy accept;\n")
		for range 1 + g.IntN(2) {
			fmt.Fprintf(&b, "		%s %s\n", pick(g, "tcp dport 22", "ip saddr 198.51.100.7", "udp dport { 53, 80-90 }", "ip6 daddr 2001:db8::1 meta l4proto tcp", "meta mark 0 ip daddr 172.17.0.3"), pick(g, "drop", "drop", "accept", "meta mark set 1"))
		}
		b.WriteString("	}\n}\n")
	}
	return b.String()
}

func (g *generator) nftMatch(family, hook string) string {
	op := pick(g, "", "", "", "!= ")
	v4, v6 := family != "ip6", family != "ip"
	port := func() string {
		return pick(g, fmt.Sprint(pick(g, testPorts...)), "{ 22, 80-100, 8080 }", "1-1024", "@ports")
	}
	switch g.IntN(19) {
	case 0:
		if v4 {
			return "ip " + pick(g, "saddr ", "daddr ") + op + pick(g, "192.0.2.0/24", "172.17.0.2", "{ 192.0.2.1, 172.17.0.0/24 }", "@nets4", "172.17.0.2-172.17.0.3", "& 255.255.0.0 == 172.17.0.0")
		}
	case 1:
		if v6 {
			return "ip6 " + pick(g, "saddr ", "daddr ") + op + pick(g, "2001:db8::/64", "fd00:d0c::2", "{ 2001:db8::1, fd00:d0c::/64 }", "@nets6")
		}
	case 2, 3:
		return pick(g, "tcp ", "udp ") + pick(g, "dport ", "dport ", "sport ") + op + port()
	case 4:
		return "meta l4proto { tcp, udp } th dport " + op + port()
	case 5:
		return pick(g, "iifname ", "oifname ") + op + pick(g, `"eth0"`, `"br*"`, "@names", `{ "lo", "eth0" }`)
	case 6:
		if hook == "prerouting" || hook == "input" || hook == "forward" {
			return "iif " + op + pick(g, "eth0", "br0", "lo")
		}
	case 7, 8:
		return "ct state " + pick(g, "new", "established,related", "invalid", "{ new, untracked }", "!= new", "! established", "untracked")
	case 9:
		return "ct status " + pick(g, "dnat", "snat", "& (dnat|snat) == dnat", "! dnat", "confirmed", "seen-reply,dnat")
	case 10:
		return "meta l4proto tcp ct original proto-dst " + op + port()
	case 11:
		if v4 {
			return "ct " + pick(g, "original", "reply") + " ip " + pick(g, "daddr", "saddr") + " " + op + pick(g, "192.0.2.1", "172.17.0.2", "172.17.0.0/16")
		}
	case 12, 13:
		return "fib " + pick(g, "daddr", "daddr", "saddr") + " type " + op + pick(g, "local", "unicast", "{ local, broadcast }", "multicast")
	case 14:
		return pick(g, "meta mark ", "ct mark ") + pick(g, "1", "!= 1", "& 0xf0 == 0x10", "0", "{ 1, 16 }", "0-5", "> 0")
	case 15:
		return "tcp flags " + pick(g, "syn / fin,syn,rst,ack", "syn", "!= syn", "& (syn|ack) == syn", "ack", "! ack")
	case 16:
		if v4 && g.chance(50) {
			return "icmp type " + op + pick(g, "echo-request", "{ echo-request, 3 }", "echo-reply")
		}
		if v6 {
			return "icmpv6 type " + op + pick(g, "echo-request", "nd-neighbor-solicit")
		}
	case 17:
		if v4 {
			return "ip " + pick(g, "daddr", "saddr") + " . tcp dport " + op + "@pairs4"
		}
	case 18:
		if family == "inet" {
			return pick(g, "meta nfproto ipv4", "meta nfproto != ipv4", "meta protocol ip6", "ct direction original", "ct direction reply", "meta l4proto != tcp") // and not "ct l3proto", see ParseNFT
		}
		if g.chance(30) {
			return "numgen inc mod 2 0"
		}
	}
	return ""
}

func (g *generator) nftRule(family, hook string, user int) string {
	var words []string
	for range g.IntN(3) {
		words = append(words, g.nftMatch(family, hook))
	}
	if g.chance(15) {
		words = append(words, pick(g, "meta mark set 1", "meta mark set meta mark | 0x10", "ct mark set 1", "meta mark set ct mark", "ct mark set meta mark", "counter", "meta mark set tcp dport map { 22 : 1, 80 : 16 }", "meta nfproto ipv4 meta l4proto tcp", "meta nfproto ipv6"))
		words = append(words, g.nftMatch(family, hook))
	}
	verdicts := []string{"accept", "accept", "drop", "return", "", "counter", "continue", "tcp dport vmap { 22 : drop, 443 : accept, 80 : return }"}
	if user == 0 {
		verdicts = []string{"accept", "drop", "drop", "accept", "jump u1", "jump u2", "goto u3", "jump u3", "tcp dport vmap @fates", `iifname vmap { "eth0" : jump u1, "br0" : accept }`, "", "log"}
	} else {
		for u := user + 1; u <= 3; u++ {
			verdicts = append(verdicts, fmt.Sprintf("jump u%d", u), fmt.Sprintf("goto u%d", u))
		}
	}
	switch hook {
	case "input", "forward", "output":
		verdicts = append(verdicts, "reject", "reject", "meta l4proto tcp reject with tcp reset")
	}
	if (hook == "prerouting" || hook == "output") && g.chance(5) {
		return strings.Join(append(words, "notrack"), " ")
	}
	words = append(words, pick(g, verdicts...))
	if s := strings.Join(strings.Fields(strings.Join(words, " ")), " "); s != "" {
		return s
	}
	return "counter"
}

func (g *generator) nftNAT(family, hook string) string {
	match := g.nftMatch(family, "")
	if hook == "postrouting" {
		return match + " " + pick(g, "masquerade", "accept", "counter masquerade")
	}
	v4, port := family != "ip6", fmt.Sprint(pick(g, testPorts...))
	prefix := ""
	if family == "inet" {
		prefix = "ip "
	}
	rules := []string{"meta l4proto tcp redirect to :" + port, "tcp dport 80 redirect", "accept", "return"}
	if v4 {
		rules = append(rules, "meta nfproto ipv4 tcp dport { 80, 443 } dnat "+prefix+"to tcp dport map @to4", "tcp dport 1000 dnat "+prefix+"to 172.17.0.2:"+port,
			"meta l4proto udp dnat "+prefix+"to 172.17.0.4:53", "meta nfproto ipv4 dnat "+prefix+"to 172.17.0.3",
			"dnat "+prefix+"addr . port to tcp dport map @ends4")
	} else {
		rules = append(rules, "tcp dport 80 dnat to [fd00:d0c::2]:"+port, "dnat to fd00:d0c::3")
	}
	return match + " " + pick(g, rules...)
}
