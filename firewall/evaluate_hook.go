package firewall

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

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
