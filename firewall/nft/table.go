package nft

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/managemyclaw/hardshell/firewall"
)

// tableName is the table's, of family inet.
const tableName = "hardshell"

// Priorities of the chains, between those of the kernel and of others: -200 is
// connection tracking, -100 the translation of destinations, 0 is where
// iptables filters.
const (
	preroutingPriority = -160
	filterPriority     = -10
)

// A table is what the kernel shall hold, in terms that can be encoded for it and
// written as text.
type table struct {
	sets   []*set
	chains []chain
}

type set struct {
	name string

	// One of these.
	interfaces []string
	ranges     []addrRange // of one family
	ports      []uint16
}

type addrRange struct{ from, to netip.Addr } // both included

type chain struct {
	name     string
	hook     string // prerouting, input or forward
	priority int
	rules    []rule
}

type rule struct {
	matches []match
	drop    bool   // and count; else accept
	comment string // in what is dropped, why
}

// A match is one condition of a rule.
type match interface{ text() string }

type (
	// matchState is true of answers and what belongs to them.
	matchState struct{}
	// matchTranslated is true of a connection whose destination has been translated.
	matchTranslated struct{}
	// matchLocal is true of an address of this machine.
	matchLocal struct{}
	// matchNeighbours is true of the messages that IPv6 finds neighbours
	// and routers with (RFC 4861), which connection tracking leaves alone.
	matchNeighbours struct{}
	// matchInterface is true of an interface, of those that begin as name
	// does if it ends in a star, or of those in a set.
	matchInterface struct {
		out  bool
		name string
		set  *set
	}
	// matchAddr is true of an address in a prefix or a set.
	matchAddr struct {
		source bool
		prefix netip.Prefix
		set    *set
	}
	// matchPort is true of a destination port in a set. The original one is
	// what it was before it was translated.
	matchPort struct {
		protocol firewall.Protocol
		original bool
		set      *set
	}
	// matchCgroup is true of what a process in a control group listens for.
	matchCgroup struct {
		path  string // below the root, without a slash at either end
		level int
	}
)

// compile makes the table of a policy in canonical form. The same policy makes
// the same table.
func compile(p firewall.Policy, cgroup string) *table {
	var t table
	inside := t.interfaces("inside", interfacesOf(p.Networks))
	others := t.interfaces("others", p.Others)
	direct4, direct6 := t.prefixes("direct", prefixesOf(p.Networks))
	allowed := t.allowed(p.Allow)

	answers := accept(matchState{})
	var fromInside []rule
	if inside != nil {
		fromInside = []rule{accept(matchInterface{set: inside})}
	}

	pre := chain{name: "prerouting", hook: "prerouting", priority: preroutingPriority}
	pre.add(answers, accept(matchNeighbours{}), accept(matchInterface{name: "lo"}))
	pre.add(fromInside...)
	const loopback = "a loopback address, from a neighbour"
	pre.add(
		drop(loopback, matchAddr{prefix: netip.MustParsePrefix("127.0.0.0/8")}),
		drop(loopback, matchAddr{prefix: netip.MustParsePrefix("::1/128")}),
	)
	for _, direct := range []*set{direct4, direct6} {
		if direct != nil {
			pre.add(drop("the address of a container", matchAddr{set: direct}))
		}
	}
	for _, a := range allowed {
		pre.add(accept(append(a.who, matchPort{protocol: a.protocol, set: a.ports})...))
	}
	for _, byProtocol := range split(p.Published, func(port firewall.Port) firewall.Protocol { return port.Protocol }) {
		protocol := byProtocol[0].Protocol
		published := t.ports("published_"+protocol.String(), byProtocol)
		pre.add(drop("a published port", matchLocal{}, matchPort{protocol: protocol, set: published}))
	}

	forward := chain{name: "forward", hook: "forward", priority: filterPriority}
	forward.add(answers)
	forward.add(fromInside...)
	if others != nil {
		forward.add(accept(matchInterface{out: true, set: others}))
	}
	for _, a := range allowed {
		matches := append([]match{matchTranslated{}}, a.who...)
		forward.add(accept(append(matches, matchPort{protocol: a.protocol, original: true, set: a.ports})...))
	}
	if inside != nil {
		forward.add(drop("a container", matchInterface{out: true, set: inside}))
	}
	// Of networks that nobody has listed, what is sent on between their
	// containers must live. The kernel sends it through this hook with both
	// interfaces the same if bridges are filtered.
	names := []string{"docker*", "br-*"}
	for _, name := range names {
		const unlisted = "a container on a network that is not listed"
		to := matchInterface{out: true, name: name}
		if others != nil {
			forward.add(drop(unlisted, matchInterface{set: others}, to))
		}
		forward.add(
			drop("a published port that is not listed", matchTranslated{}, to),
			accept(matchInterface{name: name}, to),
			drop(unlisted, to),
		)
	}
	if p.Strict {
		forward.add(drop("a port that is not allowed, wherever it leads", matchTranslated{}))
	}
	t.chains = []chain{pre, forward}

	if cgroup = strings.Trim(cgroup, "/"); cgroup != "" {
		input := chain{name: "input", hook: "input", priority: filterPriority}
		input.add(answers, accept(matchInterface{name: "lo"}))
		input.add(fromInside...)
		for _, a := range allowed {
			input.add(accept(append(a.who, matchPort{protocol: a.protocol, set: a.ports})...))
		}
		level := strings.Count(cgroup, "/") + 1
		input.add(drop("a port of the engine's own processes", matchCgroup{cgroup, level}))
		t.chains = append(t.chains, input)
	}
	return &t
}

func (c *chain) add(rules ...rule) { c.rules = append(c.rules, rules...) }

func accept(matches ...match) rule { return rule{matches: matches} }

func drop(why string, matches ...match) rule { return rule{matches: matches, drop: true, comment: why} }

// An allowance is ports of one protocol, and who may reach them.
type allowance struct {
	who      []match
	protocol firewall.Protocol
	ports    *set
}

// allowed makes sets of what is allowed, with as few as there are different
// answers to the question who may.
func (t *table) allowed(all []firewall.Allow) []allowance {
	groups := split(all, func(a firewall.Allow) string { return fmt.Sprint(a.In, a.From) })
	var out []allowance
	for i, group := range groups {
		suffix := "_" + strconv.Itoa(i+1)
		var who []match
		if group[0].In != "" {
			who = append(who, matchInterface{name: group[0].In})
		}
		senders := [][]match{who}
		if len(group[0].From) > 0 {
			senders = nil
			from4, from6 := t.prefixes("from"+suffix, group[0].From)
			for _, from := range []*set{from4, from6} {
				if from != nil {
					senders = append(senders, append(who[:len(who):len(who)], matchAddr{source: true, set: from}))
				}
			}
		}
		for _, byProtocol := range split(group, func(a firewall.Allow) firewall.Protocol { return a.Protocol }) {
			var ports []firewall.Port
			for _, a := range byProtocol {
				ports = append(ports, a.Port)
			}
			protocol := ports[0].Protocol
			s := t.ports("allowed"+suffix+"_"+protocol.String(), ports)
			for _, who := range senders {
				out = append(out, allowance{who[:len(who):len(who)], protocol, s})
			}
		}
	}
	return out
}

// split divides all into those with the same key, in the order in which the
// keys come first.
func split[E any, K comparable](all []E, key func(E) K) [][]E {
	index := make(map[K]int)
	var out [][]E
	for _, e := range all {
		i, ok := index[key(e)]
		if !ok {
			i = len(out)
			index[key(e)] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], e)
	}
	return out
}

func interfacesOf(networks []firewall.Network) (names []string) {
	for _, n := range networks {
		names = append(names, n.Interface)
	}
	return names
}

func prefixesOf(networks []firewall.Network) (all []netip.Prefix) {
	for _, n := range networks {
		all = append(all, n.Prefixes...)
	}
	// Networks may overlap, and the kernel wants intervals that do not.
	return firewall.Policy{Networks: []firewall.Network{{Prefixes: all}}}.Canonical().Networks[0].Prefixes
}

func (t *table) add(s *set) *set {
	t.sets = append(t.sets, s)
	return s
}

// interfaces, prefixes and ports return nil for a set without elements.
func (t *table) interfaces(name string, names []string) *set {
	if len(names) == 0 {
		return nil
	}
	return t.add(&set{name: name, interfaces: names})
}

func (t *table) ports(name string, ports []firewall.Port) *set {
	s := &set{name: name}
	for _, p := range ports {
		s.ports = append(s.ports, p.Number)
	}
	return t.add(s)
}

func (t *table) prefixes(name string, all []netip.Prefix) (v4, v6 *set) {
	for _, p := range all { // sorted, and none within another
		s, suffix := &v4, "_v4"
		if p.Addr().Is6() {
			s, suffix = &v6, "_v6"
		}
		if *s == nil {
			*s = t.add(&set{name: name + suffix})
		}
		r := addrRange{p.Addr(), last(p)}
		if n := len((*s).ranges); n > 0 && (*s).ranges[n-1].to.Next() == r.from {
			(*s).ranges[n-1].to = r.to
		} else {
			(*s).ranges = append((*s).ranges, r)
		}
	}
	return v4, v6
}

// last is the last address of p.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// family is "ip" or "ip6".
func family(a netip.Addr) string {
	if a.Is4() {
		return "ip"
	}
	return "ip6"
}
