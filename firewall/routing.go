package firewall

import (
	"net/netip"
	"slices"
)

// A Routing is what a machine knows of the network: its interfaces, its own
// addresses, and where packets for others go. It must not be changed while it is
// used, and may be used concurrently.
//
// A Routing in which no route has the type [RouteLocal] is taken to have those
// routes that the kernel makes of the interfaces' addresses, and one in which no
// rules are, the kernel's first three.
type Routing struct {
	Interfaces []Interface
	Routes     []Route
	Rules      []RoutingRule // by priority; see ip-rule(8)
}

// An Interface is a network interface of a machine.
type Interface struct {
	Name   string
	Addrs  []netip.Prefix // with the bits of the network, such as 192.0.2.1/24
	Master string         // the bridge that it is a port of, if any
	Up     bool
}

// A Route sends packets for a range of addresses out by an interface.
type Route struct {
	Dst netip.Prefix // 0.0.0.0/0 and ::/0 are the default routes
	Out string

	Type   RouteType // empty is RouteUnicast
	Table  string    // empty is "main"
	Metric int       // of routes for the same range, the lowest counts
}

// A RouteType says what a route does with a packet; see ip-route(8).
type RouteType string

// Types of routes.
const (
	RouteUnicast     RouteType = "unicast"
	RouteLocal       RouteType = "local"     // to this machine
	RouteBroadcast   RouteType = "broadcast" // to this machine and others
	RouteMulticast   RouteType = "multicast"
	RouteAnycast     RouteType = "anycast" // to this machine, as one of several
	RouteBlackhole   RouteType = "blackhole"
	RouteUnreachable RouteType = "unreachable"
	RouteProhibit    RouteType = "prohibit"
	RouteThrow       RouteType = "throw" // as if the table had no route
	RouteNone        RouteType = ""      // there is no route
	RouteUnknown     RouteType = "unknown"
)

// A RoutingRule says which packets take the routes of a table.
type RoutingRule struct {
	Priority   int
	IPv6       bool
	From, To   netip.Prefix // the zero Prefix is any
	In         string       // empty is any
	Mark, Mask uint32
	Not        bool      // it is for the packets that the rest does not describe
	Table      string    // empty if Action says what becomes of them
	Action     RouteType // such as RouteBlackhole

	// SuppressPrefix has routes ignored whose prefix is not longer. Negative
	// is none.
	SuppressPrefix int

	// Unknown names what else it asks for, which is not understood.
	Unknown string
}

// Lookup returns where a packet that a process of the machine sends to an
// address goes: the type of its route, and the interface that it leaves by.
// RouteUnknown means that it rests on routing rules that are not understood.
func (r *Routing) Lookup(to netip.Addr) (RouteType, string) {
	if r == nil {
		return RouteUnknown, ""
	}
	h := r.lookup(netip.Addr{}, to.Unmap(), "", number(uint32(0)))
	return h.kind, h.out
}

// Local reports whether an address is one of the machine's own.
func (r *Routing) Local(a netip.Addr) bool {
	return r != nil && r.typeOf(a.Unmap(), "") == RouteLocal
}

// A hop is where a packet goes next.
type hop struct {
	kind RouteType
	out  string
	why  string // of RouteUnknown
}

// local reports whether a process on this machine gets it.
func (h hop) local() bool {
	switch h.kind {
	case RouteLocal, RouteBroadcast, RouteMulticast, RouteAnycast:
		return true
	}
	return false
}

func (t RouteType) known() bool {
	switch t {
	case RouteUnicast, RouteLocal, RouteBroadcast, RouteMulticast, RouteAnycast, RouteBlackhole, RouteUnreachable, RouteProhibit:
		return true
	}
	return false
}

var (
	limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	zeroNet          = netip.PrefixFrom(netip.AddrFrom4([4]byte{}), 8)
)

// lookup finds the route of a packet that came in by in, or that the machine
// itself sends if in is empty.
func (r *Routing) lookup(src, dst netip.Addr, in string, mark value) hop {
	if dst.IsMulticast() {
		return hop{kind: RouteMulticast, out: in}
	}
	if dst == limitedBroadcast {
		return hop{kind: RouteBroadcast, out: in}
	}
	rules := r.Rules
	if !slices.ContainsFunc(rules, func(u RoutingRule) bool { return u.IPv6 == dst.Is6() }) {
		rules = []RoutingRule{
			{Priority: 0, IPv6: dst.Is6(), Table: "local", SuppressPrefix: -1},
			{Priority: 32766, IPv6: dst.Is6(), Table: "main", SuppressPrefix: -1},
			{Priority: 32767, IPv6: dst.Is6(), Table: "default", SuppressPrefix: -1},
		}
	}
	for i, u := range rules {
		if u.IPv6 != dst.Is6() {
			continue
		}
		m := u.match(src, dst, in, mark)
		if m == no {
			continue
		}
		var way hop
		if u.Table == "" {
			way = hop{kind: u.Action}
		} else if way = r.inTable(u.Table, dst, u.SuppressPrefix); way.kind == RouteNone {
			continue // to the next rule, whether or not it matches
		}
		if !way.kind.known() {
			return hop{kind: RouteUnknown, why: "a route or routing rule of a type that is not understood"}
		}
		if m == maybe {
			// It may be taken or not; if the rest says the same, never mind.
			rest := *r
			rest.Rules = rules[i+1:]
			if !slices.ContainsFunc(rest.Rules, func(u RoutingRule) bool { return u.IPv6 == dst.Is6() }) {
				rest.Rules = []RoutingRule{{IPv6: dst.Is6(), Table: "none", SuppressPrefix: -1}}
			}
			if other := rest.lookup(src, dst, in, mark); other != way {
				why := "a routing rule that looks at the packet's mark, which is not known"
				if u.Unknown != "" {
					why = "a routing rule with " + u.Unknown
				}
				return hop{kind: RouteUnknown, why: why}
			}
		}
		return way
	}
	return hop{kind: RouteNone}
}

func (u RoutingRule) match(src, dst netip.Addr, in string, mark value) tri {
	m := yes
	if u.From.IsValid() && u.From.Bits() > 0 {
		if src.IsValid() {
			m = triOf(u.From.Contains(src))
		} else {
			m = maybe
		}
	}
	if u.To.IsValid() {
		m = m.and(triOf(u.To.Contains(dst)))
	}
	if u.In != "" {
		seen := in
		if in == "" {
			seen = "lo" // what the machine sends comes from there
		}
		m = m.and(triOf(u.In == seen))
	}
	if u.Mask != 0 || u.Mark != 0 {
		m = m.and(exactly(number(u.Mark)).match(masked(mark, uint64(u.Mask))))
	}
	if u.Unknown != "" {
		m = m.and(maybe)
	}
	return m.flip(u.Not)
}

func masked(v value, mask uint64) value { return value{n: v.n & mask, unk: v.unk & mask} }

// routes returns the routes, with those that the kernel makes of addresses.
func (r *Routing) routes() []Route {
	if slices.ContainsFunc(r.Routes, func(t Route) bool { return t.Type == RouteLocal }) {
		return r.Routes
	}
	list := slices.Clone(r.Routes)
	list = append(list,
		Route{Dst: netip.MustParsePrefix("127.0.0.0/8"), Out: "lo", Type: RouteLocal, Table: "local"},
		Route{Dst: netip.MustParsePrefix("::1/128"), Out: "lo", Type: RouteLocal, Table: "local"})
	for _, i := range r.Interfaces {
		for _, p := range i.Addrs {
			a := p.Addr()
			list = append(list,
				Route{Dst: netip.PrefixFrom(a, a.BitLen()), Out: i.Name, Type: RouteLocal, Table: "local"},
				Route{Dst: p.Masked(), Out: i.Name})
			if a.Is4() && p.Bits() < 31 && p.Bits() > 0 {
				list = append(list, Route{Dst: netip.PrefixFrom(lastOf(p), 32), Out: i.Name, Type: RouteBroadcast, Table: "local"})
			}
		}
	}
	return list
}

// inTable finds the longest prefix of a table that has an address.
func (r *Routing) inTable(table string, a netip.Addr, suppress int) hop {
	best, found := Route{}, false
	for _, t := range r.routes() {
		name := t.Table
		if name == "" {
			name = "main"
		}
		if name != table || t.Dst.Addr().Is4() != a.Is4() || !t.Dst.Contains(a) {
			continue
		}
		if !found || t.Dst.Bits() > best.Dst.Bits() || t.Dst.Bits() == best.Dst.Bits() && t.Metric < best.Metric {
			best, found = t, true
		}
	}
	if !found || best.Type == RouteThrow || best.Dst.Bits() <= suppress {
		return hop{kind: RouteNone}
	}
	kind := best.Type
	if kind == "" {
		kind = RouteUnicast
	}
	return hop{kind: kind, out: best.Out}
}

// typeOf says what sort of address a is to the machine, or to one of its
// interfaces, as fib(nft) and addrtype(iptables) do.
func (r *Routing) typeOf(a netip.Addr, device string) RouteType {
	switch {
	case a.IsMulticast():
		return RouteMulticast
	case a == limitedBroadcast, a.Is4() && zeroNet.Contains(a):
		return RouteBroadcast
	}
	if device == "" {
		if h := r.inTable("local", a, -1); h.kind != RouteNone {
			return h.kind
		}
	} else {
		for _, t := range r.routes() {
			if t.Table == "local" && t.Out == device && t.Dst.Contains(a) {
				return t.Type
			}
		}
	}
	if a.Is4() {
		return RouteUnicast
	}
	// For IPv6 the kernel looks for a route.
	switch h := r.lookup(netip.Addr{}, a, "", number(uint32(0))); h.kind {
	case RouteNone:
		return RouteUnreachable
	case RouteLocal: // of another interface
		return RouteUnicast
	default:
		return h.kind
	}
}

// iface returns the interface of that name, or nil.
func (r *Routing) iface(name string) *Interface {
	if r == nil {
		return nil
	}
	for i := range r.Interfaces {
		if r.Interfaces[i].Name == name {
			return &r.Interfaces[i]
		}
	}
	return nil
}

// master returns the bridge that an interface is a port of.
func (r *Routing) master(name string) string {
	if i := r.iface(name); i != nil {
		return i.Master
	}
	return ""
}

// bridges reports whether an interface is a bridge with ports.
func (r *Routing) bridges(name string) bool {
	return r != nil && slices.ContainsFunc(r.Interfaces, func(i Interface) bool { return i.Master == name && name != "" })
}

// primary returns the address of an interface that a redirection leads to: the
// first of IPv4, of IPv6 the first of the scope of the packet's destination.
func (r *Routing) primary(name string, dst netip.Addr) (netip.Addr, bool) {
	i := r.iface(name)
	if i == nil {
		return netip.Addr{}, false
	}
	for _, p := range i.Addrs {
		a := p.Addr()
		if a.Is4() == dst.Is4() && (a.Is4() || a.IsLinkLocalUnicast() == dst.IsLinkLocalUnicast()) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// lastOf returns the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := range b {
		b[i] |= 0xff >> min(max(p.Bits()-8*i, 0), 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
