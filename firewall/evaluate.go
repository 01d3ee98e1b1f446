package firewall

import (
	"net/netip"
	"slices"
	"strings"
)

// A Step is a rule, or the policy of a chain, that a packet met and that
// mattered: it decided, changed the packet, or could not be understood.
type Step struct {
	Hook  string // "prerouting", "input", "forward", "output", "postrouting", "ingress" or "egress"; "routing" is the kernel's own choice
	Table string // such as "ip filter (iptables-nft)" or "inet hardshell"
	Chain string
	Rule  string // as the system lists it; "policy drop" for that of a chain
	Does  string // such as "drop", "translates the destination to 172.17.0.2:80", "is not understood: …"
}

// String returns the step on one line, such as
// "inet hardshell / hl_pre: tcp dport 8080 drop (drop)".
func (s Step) String() string {
	where := s.Hook
	if s.Table != "" {
		where = s.Table + " / " + s.Chain
	}
	return where + ": " + s.Rule + " (" + s.Does + ")"
}

// A Decision is what becomes of a packet, and why.
type Decision struct {
	Fate Fate

	// Local says that it is, or would have been, delivered to a process on
	// this machine rather than sent on. Out is the interface by which it
	// leaves otherwise. Both are undetermined if it was dropped before its
	// route was chosen, or if its fate is unknown.
	Local bool
	Out   string

	// To is where it ends up: its destination, translated. It is the zero
	// AddrPort where that differs with rules that are not understood.
	To netip.AddrPort

	// Steps are the rules that made the decision, in order. Where the fate is
	// unknown they include those that are not understood.
	Steps []Step

	// Why says, where Fate is unknown, what is not understood.
	Why string
}

const (
	// maxWays bounds how many ways are followed through rules that may or may
	// not match.
	maxWays = 1024
	// maxRules bounds how many rules are executed for one packet in all, so
	// that rules whose jumps form a loop, which the kernel would not load, end.
	maxRules = 1 << 21
	// maxDepth bounds how deep jumps go. nf_tables allows 16.
	maxDepth = 128
)

// Evaluate says what becomes of p on a machine with rules r and routing rt. It
// may be called concurrently.
//
// It follows the packet through all hooks of all families in the kernel's order:
// ingress, prerouting, the choice of the route, input or forward, postrouting
// and egress; from output on for a packet that the machine sends, which begins
// again at prerouting if it is for the machine itself. Connection tracking
// begins at priority -200, and addresses are translated at -100 and 100, by the
// first chain that has a translation for a new connection, and as [Packet.NAT]
// says for others. A drop is final, an accept ends only the chain that says it.
//
// A rule whose match is not understood, or rests on what p does not say, is
// followed both ways. If all ways end alike, that is the decision; if all of
// them end closed, but some by a drop and some by a reject, it is a drop.
// Otherwise the fate is unknown, as it is after an action that is not understood.
// Chains of different tables that have the same hook and priority are in an
// order that the kernel does not tell: where it matters, the fate is unknown.
//
// The kernel is Linux 5.7 or later; earlier ones hide at postrouting which
// interface a packet came in by.
//
// What is not a packet filter is left out: reverse path and martian filters, the
// forwarding switch, which is taken to be on, sockets, and IPsec. Rules of the
// bridge family are not understood, and taken to be able to drop whatever comes
// in or leaves by a bridge or a port of one.
func (r *Ruleset) Evaluate(rt *Routing, p Packet) Decision {
	if r == nil {
		return Decision{Why: "the machine's rules were not read"}
	}
	p.Src, p.Dst = p.Src.Unmap(), p.Dst.Unmap()
	if !p.Src.IsValid() || !p.Dst.IsValid() || p.Src.Is4() != p.Dst.Is4() {
		return Decision{Why: "the packet needs a source and a destination of one family"}
	}
	var (
		choices choices
		budget  = maxRules
		first   Decision
		puzzles []string // what is not understood, in the order of meeting it
	)
	for way := 0; ; way++ {
		f := newFlow(r, rt, p)
		f.choices, f.budget = &choices, &budget
		d := f.run()
		for _, s := range f.puzzles {
			if !slices.Contains(puzzles, s) {
				puzzles = append(puzzles, s)
			}
		}
		if way == 0 {
			first = d
		} else {
			for _, s := range d.Steps {
				if !slices.Contains(first.Steps, s) {
					first.Steps = append(first.Steps, s)
				}
			}
			first = agree(first, d)
		}
		if first.Fate == FateUnknown || way == maxWays {
			if way == maxWays {
				puzzles = append(puzzles, "there are too many such rules to follow all ways through them")
			}
			return Decision{Steps: first.Steps, Why: strings.Join(puzzles, "; ")}
		}
		if !choices.next() {
			return first
		}
	}
}

// agree is what is certain if the outcome is a or b.
func agree(a, b Decision) Decision {
	if a.To != b.To {
		if !a.Fate.Closed() || !b.Fate.Closed() {
			a.Fate = FateUnknown
		}
		a.To = netip.AddrPort{}
	}
	switch {
	case a.Fate.Closed() && b.Fate.Closed():
		if a.Fate != b.Fate {
			a.Fate = FateDrop
		}
	case a.Fate != b.Fate, a.Local != b.Local, a.Out != b.Out:
		a.Fate = FateUnknown
	}
	return a
}

// choices enumerates the ways through rules that may or may not match: the
// packet is sent through all rules again for each way, first along no, no, no.
type choices struct {
	taken []bool
	at    int
}

func (c *choices) choose() bool {
	if c.at == len(c.taken) {
		c.taken = append(c.taken, false)
	}
	c.at++
	return c.taken[c.at-1]
}

// next moves on to the next way, if there is one.
func (c *choices) next() bool {
	c.taken = c.taken[:c.at]
	c.at = 0
	for len(c.taken) > 0 {
		last := len(c.taken) - 1
		if !c.taken[last] {
			c.taken[last] = true
			return true
		}
		c.taken = c.taken[:last]
	}
	return false
}
