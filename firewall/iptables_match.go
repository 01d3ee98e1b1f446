package firewall

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// address adds the question of -s or -d: an address with a mask, which need
// not be a prefix.
func (c *iptablesCompiler) address(source bool, s string, inverted bool) {
	test, ok := maskedAddress(s, c.v6)
	if !ok {
		c.blind("address " + s)
		return
	}
	c.ask(func(f *flow) tri {
		if source && f.srcUnknown {
			return maybe
		}
		a := f.dst
		if source {
			a = f.src
		}
		return triOf(test(a)).flip(inverted)
	})
}

func maskedAddress(s string, v6 bool) (func(netip.Addr) bool, bool) {
	if p, err := parseRange(s, v6); err == nil && p.Addr().Is6() == v6 {
		return p.Contains, true
	}
	left, right, ok := strings.Cut(s, "/")
	a, err := netip.ParseAddr(left)
	m, err2 := netip.ParseAddr(right)
	if !ok || err != nil || err2 != nil || a.Is6() != v6 || m.Is6() != v6 {
		return nil, false
	}
	want, mask := a.AsSlice(), m.AsSlice()
	return func(b netip.Addr) bool {
		have := b.AsSlice()
		if len(have) != len(want) {
			return false
		}
		for i := range have {
			if (have[i]^want[i])&mask[i] != 0 {
				return false
			}
		}
		return true
	}, true
}

// startModule prepares for the options of a match.
func (c *iptablesCompiler) startModule() {
	switch c.module {
	case "comment", "tcp", "udp", "udplite", "sctp", "icmp", "icmp6", "multiport", "iprange", "mark", "connmark":
	case "conntrack", "state":
		c.conntrack = &conntrackMatch{}
		c.ask(c.conntrack.match)
	case "addrtype":
		c.addrtype = &addrtypeMatch{v6: c.v6}
		c.ask(c.addrtype.match)
	default:
		c.blind("match " + c.module)
		c.skip = true
	}
	switch c.module { // these match only packets of their protocol
	case "tcp":
		c.ask(isProtocol(TCP))
	case "udp":
		c.ask(isProtocol(UDP))
	case "udplite":
		c.ask(isProtocol(136))
	case "sctp":
		c.ask(isProtocol(SCTP))
	case "icmp":
		c.ask(isProtocol(ICMP))
	case "icmp6":
		c.ask(isProtocol(ICMPv6))
	}
}

func isProtocol(p Protocol) func(*flow) tri {
	return func(f *flow) tri { return triOf(f.packet.Protocol == p) }
}

// moduleOption adds the question of an option of the current match.
func (c *iptablesCompiler) moduleOption(o string, inverted bool, value func() string) bool {
	switch c.module {
	case "comment":
		if o == "--comment" {
			value()
			return true
		}
	case "tcp", "udp", "udplite", "sctp":
		return c.transportOption(o, inverted, value)
	case "multiport":
		return c.multiport(o, inverted, value)
	case "icmp", "icmp6":
		if o != "--icmp-type" && o != "--icmpv6-type" {
			return false
		}
		v := value()
		return c.icmpType(v, inverted)
	case "conntrack", "state":
		v := value()
		return c.conntrack.option(o, v, inverted, c.v6)
	case "addrtype":
		return c.addrtype.option(o, inverted, value)
	case "iprange":
		if o != "--src-range" && o != "--dst-range" {
			return false
		}
		lo, hi, ok := strings.Cut(value(), "-")
		if !ok {
			hi = lo
		}
		a, err := netip.ParseAddr(lo)
		b, err2 := netip.ParseAddr(hi)
		if err != nil || err2 != nil {
			return false
		}
		p := pattern{lo: address(a), hi: address(b)}
		c.ask(func(f *flow) tri {
			if o == "--dst-range" {
				return p.match(address(f.dst)).flip(inverted)
			}
			return p.match(f.source()).flip(inverted)
		})
		return true
	case "mark", "connmark":
		n, mask, ok := markAndMask(value())
		if o != "--mark" || !ok {
			return false
		}
		conn := c.module == "connmark"
		c.ask(func(f *flow) tri {
			if !conn {
				return exactly(number(n)).match(masked(f.mark, uint64(mask))).flip(inverted)
			}
			if f.track != tracked {
				return no
			}
			return exactly(number(n)).match(masked(f.connmark, uint64(mask))).flip(inverted)
		})
		return true
	}
	return false
}

// source is the packet's source address as rules see it.
func (f *flow) source() value {
	if f.srcUnknown {
		return unknownValue
	}
	return address(f.src)
}

// port is the packet's port as rules see it.
func (f *flow) port(source bool) value {
	switch {
	case source && f.srcUnknown:
		return unknownValue.numeric()
	case source:
		return number(f.sport)
	}
	return number(f.dport)
}

func markAndMask(s string) (n, mask uint32, ok bool) {
	left, right, has := strings.Cut(s, "/")
	a, err := strconv.ParseUint(left, 0, 32)
	b := uint64(1<<32 - 1)
	if has {
		var err2 error
		if b, err2 = strconv.ParseUint(right, 0, 32); err2 != nil {
			return 0, 0, false
		}
	}
	return uint32(a), uint32(b), err == nil
}

// portRange parses "80" and "80:90", of which either end may be missing.
func portRange(s string) (pattern, bool) {
	left, right, ranged := strings.Cut(s, ":")
	lo, hi := uint64(0), uint64(65535)
	var err, err2 error
	if left != "" || !ranged {
		lo, err = strconv.ParseUint(left, 10, 16)
	}
	if !ranged {
		hi = lo
	} else if right != "" {
		hi, err2 = strconv.ParseUint(right, 10, 16)
	}
	return pattern{lo: number(lo), hi: number(hi)}, err == nil && err2 == nil
}

func (c *iptablesCompiler) transportOption(o string, inverted bool, value func() string) bool {
	switch o {
	case "--sport", "--source-port", "--dport", "--destination-port":
		source := o == "--sport" || o == "--source-port"
		p, ok := portRange(value())
		if !ok {
			return false
		}
		c.ask(func(f *flow) tri { return p.match(f.port(source)).flip(inverted) })
		return true
	case "--tcp-flags", "--syn":
		if c.module != "tcp" {
			return false
		}
		mask, comp := uint64(tcpFIN|tcpSYN|tcpRST|tcpACK), uint64(tcpSYN)
		if o == "--tcp-flags" {
			var ok, ok2 bool
			mask, ok = tcpFlags(value())
			comp, ok2 = tcpFlags(value())
			if !ok || !ok2 {
				return false
			}
		}
		c.ask(func(f *flow) tri { return exactly(number(comp)).match(masked(f.flags(), mask)).flip(inverted) })
		return true
	}
	return false
}

// Flags of TCP (RFC 9293, section 3.1).
const (
	tcpFIN = 1 << iota
	tcpSYN
	tcpRST
	tcpPSH
	tcpACK
	tcpURG
	tcpECE
	tcpCWR
)

var tcpFlagNames = map[string]uint64{
	"FIN": tcpFIN, "SYN": tcpSYN, "RST": tcpRST, "PSH": tcpPSH, "ACK": tcpACK, "URG": tcpURG, "ECE": tcpECE, "CWR": tcpCWR,
	"ALL": tcpFIN | tcpSYN | tcpRST | tcpPSH | tcpACK | tcpURG, "NONE": 0,
}

func tcpFlags(s string) (flags uint64, ok bool) {
	for name := range strings.SplitSeq(s, ",") {
		f, known := tcpFlagNames[name]
		if !known {
			return 0, false
		}
		flags |= f
	}
	return flags, true
}

// flags is what is known of the packet's TCP flags: what opens a connection is
// a SYN, and what belongs to one has an ACK.
func (f *flow) flags() value {
	switch f.packet.State {
	case StateNew:
		return value{n: tcpSYN, unk: tcpECE | tcpCWR}
	case StateEstablished:
		v := value{n: tcpACK, unk: 0xff &^ (tcpACK | tcpSYN)}
		if f.packet.Reply {
			v.unk |= tcpSYN
		}
		return v
	}
	return value{unk: 0xff}
}

func (c *iptablesCompiler) multiport(o string, inverted bool, next func() string) bool {
	var list []pattern
	for s := range strings.SplitSeq(next(), ",") {
		p, ok := portRange(s)
		if !ok {
			return false
		}
		list = append(list, p)
	}
	anyOf := func(port value) tri { return matchAny(list, port) }
	switch o {
	case "--dports", "--destination-ports":
		c.ask(func(f *flow) tri { return anyOf(f.port(false)).flip(inverted) })
	case "--sports", "--source-ports":
		c.ask(func(f *flow) tri { return anyOf(f.port(true)).flip(inverted) })
	case "--ports":
		c.ask(func(f *flow) tri { return anyOf(f.port(true)).or(anyOf(f.port(false))).flip(inverted) })
	default:
		return false
	}
	return true
}

// icmpType adds the question of --icmp-type, a number or a name, with a code
// perhaps.
func (c *iptablesCompiler) icmpType(s string, inverted bool) bool {
	if s == "any" || s == "255" && !c.v6 {
		c.ask(func(*flow) tri { return yes.flip(inverted) })
		return true
	}
	name, codeText, hasCode := strings.Cut(s, "/")
	typ, err := strconv.ParseUint(name, 10, 8)
	if err != nil {
		names := icmpNames
		if c.v6 {
			names = icmp6Names
		}
		n, ok := names[name]
		if !ok {
			return false
		}
		typ = n
	}
	code := uint64(0)
	if hasCode {
		if code, err = strconv.ParseUint(codeText, 10, 8); err != nil {
			return false
		}
	}
	c.ask(func(f *flow) tri {
		m := exactly(number(typ)).match(f.icmpType())
		if hasCode {
			m = m.and(exactly(number(code)).match(f.icmpCode()))
		}
		return m.flip(inverted)
	})
	return true
}

// Types of ICMP by the names that both iptables and nft use (RFC 792, RFC 4443,
// RFC 4861).
var (
	icmpNames = map[string]uint64{
		"echo-reply": 0, "pong": 0, "destination-unreachable": 3, "source-quench": 4, "redirect": 5, "echo-request": 8, "ping": 8,
		"router-advertisement": 9, "router-solicitation": 10, "time-exceeded": 11, "ttl-exceeded": 11, "parameter-problem": 12,
		"timestamp-request": 13, "timestamp-reply": 14, "info-request": 15, "info-reply": 16,
		"address-mask-request": 17, "address-mask-reply": 18,
	}
	icmp6Names = map[string]uint64{
		"destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3, "ttl-exceeded": 3, "parameter-problem": 4,
		"echo-request": 128, "ping": 128, "echo-reply": 129, "pong": 129,
		"mld-listener-query": 130, "mld-listener-report": 131, "mld-listener-done": 132, "mld-listener-reduction": 132,
		"nd-router-solicit": 133, "router-solicitation": 133, "nd-router-advert": 134, "router-advertisement": 134,
		"nd-neighbor-solicit": 135, "neighbour-solicitation": 135, "neighbor-solicitation": 135,
		"nd-neighbor-advert": 136, "neighbour-advertisement": 136, "neighbor-advertisement": 136,
		"nd-redirect": 137, "redirect": 137, "router-renumbering": 138,
		"ind-neighbor-solicit": 141, "ind-neighbor-advert": 142, "mld2-listener-report": 143,
	}
)

func (f *flow) icmpType() value {
	switch {
	case f.packet.ICMPType != 0:
		return number(f.packet.ICMPType)
	case f.packet.State != StateNew:
		return value{unk: 0xff}
	case f.packet.Protocol == ICMPv6:
		return number(uint8(128))
	}
	return number(uint8(8))
}

func (f *flow) icmpCode() value {
	if f.packet.ICMPType != 0 || f.packet.State == StateNew {
		return number(f.packet.ICMPCode)
	}
	return value{unk: 0xff}
}

// An addrtypeMatch is what -m addrtype asks for.
type addrtypeMatch struct {
	v6               bool
	src, dst         []string
	notSrc, notDst   bool
	limitIn, limitTo bool
}

var addressTypes = []string{"UNSPEC", "UNICAST", "LOCAL", "BROADCAST", "ANYCAST", "MULTICAST", "BLACKHOLE", "UNREACHABLE", "PROHIBIT"}

func (m *addrtypeMatch) option(o string, inverted bool, value func() string) bool {
	switch o {
	case "--limit-iface-in":
		m.limitIn = true
		return true
	case "--limit-iface-out":
		m.limitTo = true
		return true
	case "--src-type", "--dst-type":
	default:
		return false
	}
	list := strings.Split(value(), ",")
	for _, s := range list {
		if !slices.Contains(addressTypes, s) {
			return false
		}
	}
	if o == "--src-type" {
		m.src, m.notSrc = list, inverted
	} else {
		m.dst, m.notDst = list, inverted
	}
	return true
}

func (m *addrtypeMatch) match(f *flow) tri {
	device := ""
	switch {
	case m.limitIn:
		device = f.in
	case m.limitTo:
		device = f.out
	}
	all := yes
	if m.src != nil {
		t := maybe
		if !f.srcUnknown {
			t = m.isType(f, f.src, device, m.src)
		}
		all = all.and(t.flip(m.notSrc))
	}
	if m.dst != nil {
		all = all.and(m.isType(f, f.dst, device, m.dst).flip(m.notDst))
	}
	return all
}

// isType does as net/netfilter/xt_addrtype.c.
func (m *addrtypeMatch) isType(f *flow, a netip.Addr, device string, types []string) tri {
	if f.routing == nil {
		return maybe
	}
	if !m.v6 {
		t := f.routing.typeOf(a, device)
		if !t.known() {
			return maybe
		}
		return triOf(slices.Contains(types, strings.ToUpper(string(t))))
	}
	// For IPv6 all that are named must hold, and a local address is unicast.
	has := func(t string) bool { return slices.Contains(types, t) }
	switch {
	case has("MULTICAST") && !a.IsMulticast(),
		has("UNICAST") && (a.IsMulticast() || a.IsUnspecified()),
		has("UNSPEC") && !a.IsUnspecified():
		return no
	}
	if has("LOCAL") || has("ANYCAST") || has("UNREACHABLE") {
		t := f.routing.typeOf(a, device)
		if !t.known() {
			return maybe
		}
		return triOf(has(strings.ToUpper(string(t))))
	}
	if has("BROADCAST") || has("BLACKHOLE") || has("PROHIBIT") {
		return maybe // the kernel refuses such a rule
	}
	return yes
}

// matchAny says whether v is what one of the patterns stands for.
func matchAny(list []pattern, v value) tri {
	m := no
	for _, p := range list {
		if m = m.or(p.match(v)); m == yes {
			return yes
		}
	}
	return m
}
