package firewall

import (
	"fmt"
	"slices"
	"strconv"
)

// A Ruleset is the packet filter rules of a machine, as nftables, iptables or
// both have put them into the kernel. Make one with [Read], [ParseNFT],
// [ParseIPTables] or [Join]; it does not change afterwards and may be used
// concurrently. A nil Ruleset is that of a machine that was not looked at: what
// it does with a packet is unknown. The zero Ruleset has no rules.
type Ruleset struct {
	tables  []*Table
	missing []string
}

// An Origin says which of the kernel's filters a table is in.
type Origin int

// Origins. Tables of iptables-nft are in the same filter as those of nftables,
// and take turns with them by priority, whereas those of iptables-legacy are in
// one of their own; a chain can only be reached from the table it is in.
const (
	NFTables       Origin = iota // made by nft, or a program like it
	IPTablesNFT                  // made by iptables over nf_tables
	IPTablesLegacy               // made by iptables over x_tables
)

func (o Origin) String() string {
	switch o {
	case NFTables:
		return "nftables"
	case IPTablesNFT:
		return "iptables-nft"
	case IPTablesLegacy:
		return "iptables-legacy"
	}
	return "Origin(" + strconv.Itoa(int(o)) + ")"
}

// A Table is a table of rules. It must not be changed.
type Table struct {
	Origin Origin
	Family string // "ip", "ip6", "inet", "netdev", "bridge" or "arp"
	Name   string
	Chains []*Chain

	chains     map[string]*Chain
	sets       map[string]*nftSet
	dormant    bool // its chains are not called
	perhaps    bool // it may be dormant
	flowtables bool
}

// String returns the table's family and name, and its origin unless that is
// nftables, such as "ip filter (iptables-nft)".
func (t *Table) String() string {
	s := t.Family + " " + t.Name
	if t.Origin != NFTables {
		s += " (" + t.Origin.String() + ")"
	}
	return s
}

// Chain returns the chain of that name, or nil.
func (t *Table) Chain(name string) *Chain { return t.chains[name] }

// A Chain is a list of rules. It must not be changed.
type Chain struct {
	Name string

	// Hook is where packets enter the chain, such as "forward", and Type the
	// sort of chain, such as "filter". Both are empty for a chain that is
	// only jumped to.
	Hook, Type string

	// Priority says when its turn comes at its hook; lower is earlier.
	Priority int

	// Policy is what becomes of packets that reach its end: "accept" or
	// "drop". It is empty for a chain without a hook.
	Policy string

	// Devices are the interfaces that a chain of hook "ingress" or "egress"
	// is bound to. It is empty where the listing does not tell.
	Devices []string

	Rules []*Rule

	handle uint64 // of nftables; 0 is unknown
}

// A Rule is one rule. It must not be changed.
type Rule struct {
	// Text is the rule as the system lists it, without the name of its chain.
	Text string

	// Jump is the chain that it sends packets to, whether or not they come
	// back. It is empty if there is none, or if there are several.
	Jump string

	// Problem says what of the rule is not understood. It is empty if all is.
	Problem string

	ops []op // in the order of execution
	alt []op // the same rule as the other listing has it, if there are two
}

// Tables returns the tables. The slice is the caller's.
func (r *Ruleset) Tables() []*Table {
	if r == nil {
		return nil
	}
	return slices.Clone(r.tables)
}

// Table returns a table, or nil if there is none such.
func (r *Ruleset) Table(o Origin, family, name string) *Table {
	if r == nil {
		return nil
	}
	for _, t := range r.tables {
		if t.Origin == o && t.Family == family && t.Name == name {
			return t
		}
	}
	return nil
}

// Missing says what of the machine's rules could not be listed for want of a
// program that lists it, and may exist, one sentence each.
func (r *Ruleset) Missing() []string {
	if r == nil {
		return nil
	}
	return slices.Clone(r.missing)
}

// Join puts rule sets together that are parts of one machine's, each read by
// another program. A table that both nft and iptables-nft list is one table;
// each of its rules is understood from the listing that says more, and where the
// two contradict each other it is not understood. It fails if two parts hold
// the same table of the same origin.
func Join(parts ...*Ruleset) (*Ruleset, error) {
	joined := &Ruleset{}
	for _, p := range parts {
		if p == nil {
			return nil, fmt.Errorf("firewall: a part of the rules is missing: leave it out of Join if it cannot exist")
		}
		joined.missing = append(joined.missing, p.missing...)
		for _, t := range p.tables {
			if joined.Table(t.Origin, t.Family, t.Name) != nil {
				return nil, fmt.Errorf("firewall: table %v is in two parts: pass each listing to Join once", t)
			}
			joined.tables = append(joined.tables, t)
		}
	}
	var tables []*Table
	for _, t := range joined.tables {
		switch t.Origin {
		case IPTablesNFT:
			if joined.Table(NFTables, t.Family, t.Name) != nil {
				continue // taken with its other half
			}
		case NFTables:
			if other := joined.Table(IPTablesNFT, t.Family, t.Name); other != nil {
				t = mergeTables(t, other)
			}
		}
		tables = append(tables, t)
	}
	joined.tables = tables
	return joined, nil
}

// mergeTables makes one table of the two listings of one. Chains, hooks and
// priorities are nft's: it shows what the kernel has, iptables what it expects.
func mergeTables(nft, ipt *Table) *Table {
	t := *nft
	t.Origin = IPTablesNFT
	t.Chains = nil
	t.chains = make(map[string]*Chain)
	for _, c := range nft.Chains {
		merged := *c
		other := ipt.Chain(c.Name)
		if other != nil && len(other.Rules) == len(c.Rules) {
			merged.Rules = make([]*Rule, len(c.Rules))
			for i := range c.Rules {
				merged.Rules[i] = mergeRules(c.Rules[i], other.Rules[i])
			}
		}
		t.Chains = append(t.Chains, &merged)
		t.chains[c.Name] = &merged
	}
	return &t
}

func mergeRules(nft, ipt *Rule) *Rule {
	r := *ipt
	r.alt = nft.ops
	if nft.Problem == "" || ipt.Problem == "" {
		r.Problem = ""
	}
	if r.Jump == "" {
		r.Jump = nft.Jump
	}
	return &r
}

// sameShape reports whether the two listings of the tables that iptables-nft
// made have the same chains and rules, as they have unless somebody changed the
// rules between the one and the other.
func sameShape(nft, ipt *Ruleset) bool {
	for _, t := range ipt.tables {
		n := nft.Table(NFTables, t.Family, t.Name)
		if n == nil {
			return false
		}
		for _, c := range t.Chains {
			// iptables lists built-in chains that are not in the kernel.
			if other := n.Chain(c.Name); other == nil && len(c.Rules) > 0 || other != nil && len(other.Rules) != len(c.Rules) {
				return false
			}
		}
	}
	return true
}
