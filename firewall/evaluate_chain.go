package firewall

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

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
