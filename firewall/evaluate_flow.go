package firewall

import (
	"cmp"
	"fmt"
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
				if o.match == nil && o.kind != "accept" && o.kind != "return" {
					return false
				}
			}
		}
	}
	return true
}

// An entry is what a hook calls: a chain, connection tracking or translation.
type entry struct {
	priority int
	table    *Table
	chain    *Chain
	run      func(*flow) ending // for what is not a chain
}

// sees reports whether chains of a table's family get packets of the flow's.
func (f *flow) sees(t *Table) bool {
	switch t.Family {
	case "inet":
		return true
	case "ip":
		return f.is4()
	case "ip6":
		return !f.is4()
	}
	return false
}

func (f *flow) chainsAt(hook string, nat bool) []entry {
	var list []entry
	for _, t := range f.rules.tables {
		if !f.sees(t) || t.dormant {
			continue
		}
		for _, c := range t.Chains {
			if c.Hook == hook && (c.Type == "nat") == nat {
				list = append(list, entry{priority: c.Priority, table: t, chain: c})
			}
		}
	}
	return list
}

// atHook sends the packet through all that is registered at a hook.
func (f *flow) atHook(hook string) ending {
	f.hook = hook
	list := f.chainsAt(hook, false)
	switch hook {
	case "prerouting", "output":
		list = append(list, entry{priority: priorityConntrack, run: (*flow).conntrack}, entry{priority: priorityDstNAT, run: (*flow).translate})
	case "postrouting", "input":
		list = append(list, entry{priority: prioritySrcNAT, run: (*flow).translate})
	}
	return f.inTurn(list, nil)
}

// device sends it through the chains of an interface.
func (f *flow) device(hook, name string) ending {
	f.hook = hook
	var list []entry
	for _, t := range f.rules.tables {
		if t.dormant || t.Family != "netdev" && t.Family != "inet" {
			continue
		}
		for _, c := range t.Chains {
			if c.Hook == hook && (len(c.Devices) == 0 || slices.ContainsFunc(c.Devices, func(d string) bool {
				return interfacePattern(d, "*").match(named(name)) == yes
			})) {
				list = append(list, entry{priority: c.Priority, table: t, chain: c})
			}
		}
	}
	return f.inTurn(list, nil)
}

// inTurn calls entries by priority, until one ends the packet's way, or done
// says that it is enough.
func (f *flow) inTurn(list []entry, done func(*flow) bool) ending {
	slices.SortStableFunc(list, func(a, b entry) int { return cmp.Compare(a.priority, b.priority) })
	for len(list) > 0 {
		n := 1
		for n < len(list) && list[n].priority == list[0].priority {
			n++
		}
		e := f.anyOrder(list[:n], done)
		if e != FateAccept || done != nil && done(f) {
			return e
		}
		list = list[n:]
	}
	return FateAccept
}

// anyOrder calls entries of equal priority. The kernel calls the one that was
// registered last first, and does not tell which that is, except that within a
// table the higher handle is the younger.
func (f *flow) anyOrder(list []entry, done func(*flow) bool) ending {
	if len(list) == 1 {
		return list[0].call(f)
	}
	// As long as each by itself lets the packet pass, and none changes
	// anything, the order is of no consequence.
	var closed []ending
	quiet := true
	var steps []Step
	for _, e := range list {
		try := *f
		try.changed = false
		try.steps = slices.Clone(f.steps)
		end := e.call(&try)
		f.puzzles = try.puzzles
		quiet = quiet && !try.changed && end != FateUnknown
		if end != FateAccept && !slices.Contains(closed, end) {
			closed = append(closed, end)
		}
		steps = append(steps, try.steps[len(f.steps):]...)
	}
	if quiet && len(closed) == 0 {
		f.steps = append(f.steps, steps...)
		return FateAccept
	}
	rest := slices.Clone(list)
	for len(rest) > 0 {
		next := f.first(rest)
		e := rest[next].call(f)
		if e != FateAccept || done != nil && done(f) {
			return e
		}
		rest = slices.Delete(rest, next, next+1)
	}
	return FateAccept
}

// first chooses which of entries of equal priority the kernel calls next.
func (f *flow) first(list []entry) int {
	for i := range list {
		if i == len(list)-1 {
			return i
		}
		if f.later(list, i) {
			continue
		}
		if f.onlyCandidate(list, i) || f.choose("chains of equal priority", fmt.Sprintf("the order of %s at hook %s is not known", list[i].name(), f.hook)) {
			return i
		}
	}
	return 0
}

// later reports whether another of the list is known to come before the ith.
func (f *flow) later(list []entry, i int) bool {
	return slices.ContainsFunc(list, func(e entry) bool {
		return e.chain != nil && e.table == list[i].table && e.chain.handle > list[i].chain.handle && list[i].chain.handle != 0
	})
}

func (f *flow) onlyCandidate(list []entry, i int) bool {
	for j := range list {
		if j != i && !f.later(list, j) {
			return false
		}
	}
	return true
}

func (e entry) name() string {
	if e.chain == nil {
		return "connection tracking and address translation"
	}
	return e.table.String() + " / " + e.chain.Name
}

func (e entry) call(f *flow) ending {
	if e.chain == nil {
		return e.run(f)
	}
	return f.base(e.table, e.chain)
}

// conntrack is where connection tracking sees the packet.
func (f *flow) conntrack() ending {
	if f.track != notYet {
		return FateAccept
	}
	f.track, f.changed = tracked, true
	switch f.packet.State { // neither of these has a connection
	case StateInvalid:
		f.track = refused
	case StateUntracked:
		f.track = untracked
	}
	return FateAccept
}

// translate is where addresses are translated: destinations at prerouting and
// output, sources at postrouting and input.
func (f *flow) translate() ending {
	if f.track != tracked {
		return FateAccept
	}
	destination := f.hook == "prerouting" || f.hook == "output"
	done := &f.srcDone
	if destination {
		done = &f.dstDone
	}
	if *done {
		return FateAccept
	}
	fresh := f.packet.State == StateNew ||
		f.packet.State == StateRelated && f.packet.Protocol != ICMP && f.packet.Protocol != ICMPv6 && !f.packet.NAT.IsValid()
	if !fresh {
		if destination && f.packet.NAT.IsValid() {
			f.redirect(f.packet.NAT.Addr().Unmap(), f.packet.NAT.Port())
		}
		if !destination && f.snat != no {
			f.srcUnknown = true
		}
		*done = true
		return FateAccept
	}
	mapped := func(f *flow) bool {
		if destination {
			return f.dstDone
		}
		return f.srcDone
	}
	e := f.inTurn(f.chainsAt(f.hook, true), mapped)
	if destination {
		f.dstDone = true
	} else {
		f.srcDone = true
	}
	return e
}

// redirect gives the packet another destination. A zero port leaves its own.
func (f *flow) redirect(to netip.Addr, port uint16) {
	if port == 0 {
		port = f.dport
	}
	f.changed = true
	f.dst, f.dport = to, port
}

// base sends the packet through a chain that a hook calls.
func (f *flow) base(t *Table, c *Chain) ending {
	table, chain := f.table, f.chain
	defer func() { f.table, f.chain = table, chain }()
	f.table, f.chain = t, c
	if c.lacksDevices() && !harmless(t) && !f.choose("devices of the chain", "nft does not tell which devices chain "+c.Name+" of table "+t.String()+" is bound to") {
		return FateAccept
	}
	if t.perhaps && !harmless(t) && !f.choose("flags of the table", "nft does not tell whether table "+t.String()+" is dormant") {
		return FateAccept
	}
	v := f.through(c, 0)
	switch v.kind {
	case accept:
		return FateAccept
	case drop:
		return FateDrop
	case reject:
		return FateReject
	case lost:
		return FateUnknown
	}
	if c.Policy == "drop" {
		f.steps = append(f.steps, Step{Hook: f.hook, Table: t.String(), Chain: c.Name, Rule: "policy drop", Does: "drop"})
		return FateDrop
	}
	return FateAccept
}

// through sends it through a chain and those that it jumps to.
func (f *flow) through(c *Chain, depth int) verdict {
	outer := f.chain
	f.chain = c
	defer func() { f.chain = outer }()
	for _, r := range c.Rules {
		if *f.budget--; *f.budget < 0 || depth > maxDepth {
			f.puzzle("jumps at " + f.table.String() + " / " + c.Name + " go in a circle, or too deep")
			return verdict{kind: lost}
		}
		v := f.apply(r)
		if v.does != "" {
			f.step(r, v.does)
		}
		switch v.kind {
		case goOn, skipRule:
			continue
		case jump, gotoChain:
			next := f.table.Chain(v.chain)
			if next == nil {
				f.step(r, "is not understood: there is no chain "+v.chain)
				f.puzzle(f.at(r) + ": there is no chain " + v.chain)
				return verdict{kind: lost}
			}
			w := f.through(next, depth+1)
			if v.kind == gotoChain || w.kind != endChain {
				return w
			}
		default:
			return v
		}
	}
	return verdict{kind: endChain}
}

// apply executes one rule.
func (f *flow) apply(r *Rule) verdict {
	if r.alt == nil {
		return f.execute(r, r.ops)
	}
	// Two listings of one rule: what one leaves open the other may tell.
	a, whyA := f.matches(r.ops)
	b, whyB := f.matches(r.alt)
	if a != maybe && b != maybe && a != b {
		return f.contradiction(r)
	}
	switch {
	case a == no || b == no:
		return verdict{kind: skipRule}
	case a == maybe && b == maybe:
		if why := cmp.Or(whyA, whyB); !acts(r.ops) && !acts(r.alt) || !f.chooseRule(r, why) {
			return verdict{kind: skipRule}
		}
	}
	kindA, blindA := actions(r.ops)
	kindB, blindB := actions(r.alt)
	if !blindA && !blindB && kindA != kindB {
		return f.contradiction(r)
	}
	if blindA && !blindB {
		return f.perform(r, r.alt)
	}
	return f.perform(r, r.ops)
}

func (f *flow) contradiction(r *Rule) verdict {
	const why = "nft and iptables list it differently"
	f.step(r, "is not understood: "+why)
	f.puzzle(f.at(r) + ": " + why)
	return verdict{kind: lost}
}

// matches says whether all questions of a rule are answered yes.
func (f *flow) matches(ops []op) (all tri, why string) {
	all = yes
	for _, o := range ops {
		if o.match == nil {
			continue
		}
		m := o.match(f)
		if m == maybe {
			why = cmp.Or(why, o.why())
		}
		if all = all.and(m); all == no {
			return no, ""
		}
	}
	return all, why
}

func (o op) why() string {
	return cmp.Or(o.blind, "it rests on what is not known of the packet")
}

func acts(ops []op) bool {
	return slices.ContainsFunc(ops, func(o op) bool { return o.match == nil })
}

// actions is what a rule does in the end, in words that both listings share.
func actions(ops []op) (kind string, blind bool) {
	for _, o := range ops {
		if o.match == nil {
			kind = o.kind
			blind = blind || o.blind != ""
		}
	}
	return kind, blind
}

func (f *flow) perform(r *Rule, ops []op) verdict {
	for _, o := range ops {
		if o.match != nil {
			continue
		}
		v := o.act(f)
		if v.kind != goOn {
			return f.note(r, o, v)
		}
		if v.does != "" {
			f.step(r, v.does)
		}
	}
	return verdict{}
}

// execute executes questions and actions in their order.
func (f *flow) execute(r *Rule, ops []op) verdict {
	for len(ops) > 0 {
		n := slices.IndexFunc(ops, func(o op) bool { return o.match == nil })
		if n < 0 {
			return verdict{kind: skipRule} // nothing is done, whatever the answers
		}
		all, why := f.matches(ops[:n])
		if all == no || all == maybe && !f.chooseRule(r, why) {
			return verdict{kind: skipRule}
		}
		v := ops[n].act(f)
		if v.kind != goOn {
			return f.note(r, ops[n], v)
		}
		if v.does != "" {
			f.step(r, v.does)
		}
		ops = ops[n+1:]
	}
	return verdict{}
}

func (f *flow) note(r *Rule, o op, v verdict) verdict {
	if v.kind == lost {
		why := cmp.Or(v.does, o.why())
		f.puzzle(f.at(r) + ": " + why)
		v.does = "is not understood: " + why
	}
	return v
}

func (f *flow) step(r *Rule, does string) {
	f.steps = append(f.steps, Step{Hook: f.hook, Table: f.table.String(), Chain: f.chain.Name, Rule: r.Text, Does: does})
}

func (f *flow) at(r *Rule) string {
	return fmt.Sprintf("%v / %s: %s", f.table, f.chain.Name, r.Text)
}

func (f *flow) puzzle(s string) {
	if !slices.Contains(f.puzzles, s) {
		f.puzzles = append(f.puzzles, s)
	}
}

// chooseRule follows a rule that may or may not match one way or the other.
func (f *flow) chooseRule(r *Rule, why string) bool {
	f.step(r, "is not understood: "+why)
	f.puzzle(f.at(r) + ": " + why)
	return f.choices.choose()
}

func (f *flow) choose(what, why string) bool {
	s := Step{Hook: f.hook, Rule: what, Does: "is not understood: " + why}
	if f.table != nil {
		s.Table, s.Chain = f.table.String(), f.chain.Name
	}
	f.steps = append(f.steps, s)
	f.puzzle(why)
	return f.choices.choose()
}

// localRedirect is the address that a redirection to this machine leads to
// (net/netfilter/nf_nat_redirect.c).
func (f *flow) localRedirect() (netip.Addr, bool) {
	if f.hook == "output" {
		if f.is4() {
			return netip.AddrFrom4([4]byte{127, 0, 0, 1}), true
		}
		return netip.IPv6Loopback(), true
	}
	return f.routing.primary(f.in, f.dst)
}
