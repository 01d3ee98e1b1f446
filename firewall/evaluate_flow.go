package firewall

import (
	"cmp"
	"net/netip"
	"slices"
)

// Priorities of what is not a chain (linux/netfilter_ipv4.h, NF_IP_PRI_*).
const (
	priorityConntrack = -200
	priorityDstNAT    = -100
	prioritySrcNAT    = 100
)

// A flow is a packet on its way through the rules. It is copied to try a chain
// without consequences.
type flow struct {
	rules   *Ruleset
	routing *Routing
	packet  Packet // as it was
	choices *choices
	budget  *int

	hook    string
	in, out string // interfaces as the hook sees them; empty is none

	src, dst     netip.Addr
	srcUnknown   bool // it is masqueraded
	sport, dport uint16
	mark         value

	track            tracking
	connmark         value
	snat, dnat       tri
	srcDone, dstDone bool // its connection has its translation
	confirmed        bool

	touched []string // sets that a rule on the way has changed
	changed bool     // something above has
	steps   []Step
	puzzles []string

	table *Table // where it is
	chain *Chain
}

type tracking uint8

const (
	notYet tracking = iota // before connection tracking has seen it
	tracked
	refused   // it has seen it, and it belongs to no connection
	untracked // a rule has taken it out
)

func newFlow(r *Ruleset, rt *Routing, p Packet) *flow {
	f := &flow{
		rules: r, routing: rt, packet: p,
		src: p.Src, dst: p.Dst, sport: p.SrcPort, dport: p.DstPort,
		mark: number(p.Mark),
	}
	if p.State != StateNew {
		f.connmark = unknownValue.numeric()
		f.snat, f.dnat = maybe, no
		if p.NAT.IsValid() {
			f.dnat = yes
		}
		if p.Reply {
			f.snat, f.dnat = maybe, maybe
		}
	}
	return f
}

func (f *flow) is4() bool { return f.dst.Is4() }

// ending is the fate of a flow that has one; FateAccept means it goes on.
type ending = Fate

// run sends the packet all the way.
func (f *flow) run() Decision {
	d := Decision{}
	d.Fate = f.journey(&d)
	d.To = netip.AddrPortFrom(f.dst, f.dport)
	d.Steps = f.steps
	if d.Fate == FateUnknown && len(f.puzzles) == 0 {
		f.puzzles = append(f.puzzles, "a rule's action is not understood")
	}
	return d
}

func (f *flow) journey(d *Decision) ending {
	if f.packet.In == "" {
		return f.send(d)
	}
	f.in = f.packet.In
	if e := f.arrive(); e != FateAccept {
		return e
	}
	if master := f.routing.master(f.in); master != "" {
		if e := f.bridge(f.in); e != FateAccept {
			return e
		}
		f.in = master
		if e := f.arrive(); e != FateAccept {
			return e
		}
	}
	return f.receive(d)
}

// arrive is what happens at an interface, before the network layer.
func (f *flow) arrive() ending {
	return f.device("ingress", f.in)
}

// receive is the way of a packet from prerouting on.
func (f *flow) receive(d *Decision) ending {
	if e := f.atHook("prerouting"); e != FateAccept {
		return e
	}
	way, e := f.route(f.in)
	if e != FateAccept {
		return e
	}
	if way.local() {
		d.Local = true
		return f.atHook("input")
	}
	f.out, d.Out = way.out, way.out
	if e := f.atHook("forward"); e != FateAccept {
		if e.Closed() && f.packet.State == StateEstablished && f.offloads() &&
			f.choose("flowtable", "its connection may be offloaded, past the rules of the hook forward") {
			return FateAccept
		}
		return e
	}
	return f.leave()
}

// send is the way of a packet of a process on this machine.
func (f *flow) send(d *Decision) ending {
	way, e := f.route("")
	if e != FateAccept {
		return e
	}
	f.out = way.out
	switch way.kind {
	case RouteLocal, RouteAnycast:
		f.out = "lo" // whichever interface has the address
	case RouteBroadcast, RouteMulticast:
		f.puzzle("what the machine itself sends to many goes several ways")
		return FateUnknown
	}
	if e := f.atHook("output"); e != FateAccept {
		return e
	}
	// Rules may have given it another destination or mark, and hence route.
	if way, e = f.route(""); e != FateAccept {
		return e
	}
	f.out = way.out // the rules at output go on seeing the old one
	if !way.local() {
		d.Out = way.out
		return f.leave()
	}
	d.Local = true
	f.out = "lo"
	if e := f.leave(); e != FateAccept {
		return e
	}
	f.confirmed = true
	f.in, f.out = "lo", ""
	if e := f.arrive(); e != FateAccept {
		return e
	}
	return f.receive(d)
}

// leave is the way of a packet whose route is chosen.
func (f *flow) leave() ending {
	if e := f.atHook("postrouting"); e != FateAccept {
		return e
	}
	if f.routing.bridges(f.out) {
		if e := f.bridge(f.out); e != FateAccept {
			return e
		}
	}
	return f.device("egress", f.out)
}

// route asks the machine where the packet goes.
func (f *flow) route(in string) (hop, ending) {
	f.hook, f.table, f.chain = "routing", nil, nil
	if f.routing == nil {
		f.puzzle("the machine's routing was not read")
		return hop{}, FateUnknown
	}
	way := f.routing.lookup(f.src, f.dst, in, f.mark)
	target := "to " + f.dst.String()
	switch way.kind {
	case RouteUnknown:
		f.steps = append(f.steps, Step{Hook: "routing", Rule: target, Does: "is not understood: " + way.why})
		f.puzzle("the route to " + f.dst.String() + ": " + way.why)
		return way, FateUnknown
	case RouteBlackhole:
		f.steps = append(f.steps, Step{Hook: "routing", Rule: target, Does: "drop: blackhole"})
		return way, FateDrop
	case RouteNone, RouteUnreachable, RouteProhibit:
		f.steps = append(f.steps, Step{Hook: "routing", Rule: target, Does: "reject: " + cmp.Or(string(way.kind), "no route")})
		return way, FateReject
	}
	return way, FateAccept
}

func (f *flow) offloads() bool {
	return slices.ContainsFunc(f.rules.tables, func(t *Table) bool { return t.flowtables })
}

// bridge stands for the rules of the bridge family.
func (f *flow) bridge(port string) ending {
	for _, t := range f.rules.tables {
		if t.Family != "bridge" || t.dormant {
			continue
		}
		for _, c := range t.Chains {
			if c.Hook == "" || harmless(t) {
				continue
			}
			f.hook, f.table, f.chain = "bridge "+c.Hook, t, c
			if f.choose("rules of the bridge family", "they may drop what passes "+port) {
				return FateDrop
			}
		}
	}
	return FateAccept
}

// harmless reports whether no rule of the table does anything.
func harmless(t *Table) bool {
	for _, c := range t.Chains {
		if c.Policy == "drop" {
			return false
		}
		for _, r := range c.Rules {
			for _, o := range r.ops {
				if o.never {
					break // what follows is not reached
				}
				if o.match == nil && o.kind != "accept" && o.kind != "return" {
					return false
				}
			}
		}
	}
	return true
}
