package firewall

import (
	"net/netip"
	"strings"
)

// A tri is the answer to a question that may have none.
type tri uint8

const (
	no tri = iota
	yes
	maybe
)

func triOf(b bool) tri {
	if b {
		return yes
	}
	return no
}

func (t tri) not() tri {
	switch t {
	case no:
		return yes
	case yes:
		return no
	}
	return maybe
}

func (t tri) and(u tri) tri {
	switch {
	case t == no || u == no:
		return no
	case t == maybe || u == maybe:
		return maybe
	}
	return yes
}

func (t tri) or(u tri) tri { return t.not().and(u.not()).not() }

// flip inverts t if inverted is true.
func (t tri) flip(inverted bool) tri {
	if inverted {
		return t.not()
	}
	return t
}

// A value is what an expression yields for a packet: an address, a name or a
// number, some bits of which may be unknown, or several of these in a row.
type value struct {
	addr    netip.Addr
	name    string
	isName  bool
	n, unk  uint64  // a number, and its bits that are not known
	parts   []value // of a concatenation
	unknown bool    // nothing is known of it
	absent  bool    // it does not exist, so that no rule asking for it matches
}

var (
	unknownValue = value{unknown: true}
	absentValue  = value{absent: true}
)

func number[T ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~int](n T) value { return value{n: uint64(n)} }
func named(s string) value                                            { return value{name: s, isName: true} }
func address(a netip.Addr) value                                      { return value{addr: a} }

// hides reports whether anything of v is unknown.
func (v value) hides() bool {
	if v.unknown || v.unk != 0 {
		return true
	}
	for _, p := range v.parts {
		if p.hides() {
			return true
		}
	}
	return false
}

// numeric returns v as a number with unknown bits.
func (v value) numeric() value {
	if v.unknown {
		return value{unk: ^uint64(0)}
	}
	return value{n: v.n, unk: v.unk}
}

// A pattern is a value, a range, a prefix or the beginning of a name; or one of
// these for each part of a concatenation.
type pattern struct {
	lo, hi value // equal for one value
	prefix netip.Prefix
	begins string // of a name that goes on
	any    bool
	parts  []pattern
}

func exactly(v value) pattern { return pattern{lo: v, hi: v} }

// interfacePattern is what iptables calls an interface: a "+" at the end stands
// for anything. For nft the sign is "*".
func interfacePattern(name, wildcard string) pattern {
	if begin, ok := strings.CutSuffix(name, wildcard); ok && !strings.HasSuffix(begin, `\`) {
		if begin == "" {
			return pattern{any: true}
		}
		return pattern{begins: begin}
	}
	return exactly(named(strings.ReplaceAll(name, `\*`, "*")))
}

// match says whether v is one of the values that p stands for.
func (p pattern) match(v value) tri {
	if p.any {
		return yes
	}
	if v.unknown {
		return maybe
	}
	if len(p.parts) > 0 {
		if len(v.parts) != len(p.parts) {
			return maybe
		}
		all := yes
		for i := range p.parts {
			all = all.and(p.parts[i].match(v.parts[i]))
		}
		return all
	}
	switch {
	case p.prefix.IsValid():
		return triOf(p.prefix.Contains(v.addr))
	case p.begins != "":
		return triOf(strings.HasPrefix(v.name, p.begins))
	case p.lo.addr.IsValid():
		return triOf(v.addr.IsValid() && v.addr.Is4() == p.lo.addr.Is4() &&
			p.lo.addr.Compare(v.addr) <= 0 && v.addr.Compare(p.hi.addr) <= 0)
	case p.lo.isName:
		return triOf(v.name == p.lo.name)
	case p.lo.n == p.hi.n:
		if (v.n^p.lo.n)&^v.unk != 0 {
			return no
		}
		if v.unk != 0 {
			return maybe
		}
		return yes
	case v.unk != 0:
		return maybe
	}
	return triOf(p.lo.n <= v.n && v.n <= p.hi.n)
}

// An op is one question or action of a rule, in a form that can be executed.
type op struct {
	match func(*flow) tri     // nil for an action
	act   func(*flow) verdict // nil for a question
	kind  string              // of an action, to compare listings: "drop", "jump X"; empty if it has no effect
	blind string              // what is not understood of it
	never bool                // of a question that no packet answers: of a set with nothing in it
}

type verdictKind uint8

const (
	goOn verdictKind = iota // to what comes next in the rule
	accept
	drop
	reject
	jump
	gotoChain
	endChain // return, or the end of it
	skipRule // to the next rule: there is no value to act on
	lost     // what becomes of the packet is not understood
)

type verdict struct {
	kind  verdictKind
	chain string // of jump and gotoChain
	does  string // for the step; empty for none
}
