package firewall

import (
	"net/netip"
	"strings"
)

// A tuple is one direction of a connection as connection tracking knows it.
type tuple struct {
	src, dst     value
	sport, dport value
}

// tuples returns what is known of the connection's two directions: addresses as
// the side that asked wrote them, and as the side that answers will.
func (f *flow) tuples() (original, reply tuple) {
	original, reply = f.directions()
	switch f.packet.Protocol {
	case TCP, UDP, SCTP:
	default: // others have something else in place of the ports
		for _, t := range []*tuple{&original, &reply} {
			t.sport, t.dport = unknownValue.numeric(), unknownValue.numeric()
		}
	}
	return original, reply
}

func (f *flow) directions() (original, reply tuple) {
	p := f.packet
	unknown := tuple{src: unknownValue, dst: unknownValue, sport: unknownValue.numeric(), dport: unknownValue.numeric()}
	if p.Reply {
		reply = tuple{src: address(p.Src), dst: address(p.Dst), sport: number(p.SrcPort), dport: number(p.DstPort)}
		return unknown, reply
	}
	original = tuple{src: address(p.Src), dst: address(p.Dst), sport: number(p.SrcPort), dport: number(p.DstPort)}
	if p.State == StateNew {
		reply = tuple{src: address(f.dst), sport: f.port(false), dst: f.source(), dport: f.port(true)}
		return original, reply
	}
	reply = unknown
	reply.src, reply.sport = original.dst, original.dport
	if p.NAT.IsValid() {
		reply.src = address(p.NAT.Addr().Unmap())
		if p.NAT.Port() != 0 {
			reply.sport = number(p.NAT.Port())
		}
	}
	return original, reply
}

// connState is the state that rules see.
func (f *flow) connState() ConnState {
	switch f.track {
	case tracked:
		return f.packet.State
	case untracked:
		return StateUntracked
	}
	return StateInvalid // not seen by connection tracking, or not taken on by it
}

// Bits of ct->status (linux/netfilter/nf_conntrack_common.h).
const (
	ctExpected  = 1 << 0
	ctSeenReply = 1 << 1
	ctAssured   = 1 << 2
	ctConfirmed = 1 << 3
	ctSNAT      = 1 << 4
	ctDNAT      = 1 << 5
	ctDying     = 1 << 9
)

// connStatus is what is known of the connection's status.
func (f *flow) connStatus() value {
	v := value{unk: ^uint64(0)}
	set := func(bit uint64, t tri) {
		if t == maybe {
			return
		}
		v.unk &^= bit
		if t == yes {
			v.n |= bit
		}
	}
	set(ctSNAT, f.snat)
	set(ctDNAT, f.dnat)
	set(ctDying, no)
	switch f.packet.State {
	case StateNew:
		set(ctExpected, no)
		set(ctSeenReply, no)
		set(ctAssured, no)
		set(ctConfirmed, triOf(f.confirmed))
	case StateEstablished:
		set(ctSeenReply, yes)
		set(ctConfirmed, yes)
	}
	return v
}

// A conntrackMatch is what -m conntrack or -m state asks for.
type conntrackMatch struct {
	states    []string
	notStates bool
	rest      []func(*flow) tri
}

var connStates = map[string]ConnState{
	"NEW": StateNew, "ESTABLISHED": StateEstablished, "RELATED": StateRelated, "INVALID": StateInvalid, "UNTRACKED": StateUntracked,
}

var connStatuses = map[string]uint64{
	"NONE": 0, "EXPECTED": ctExpected, "SEEN_REPLY": ctSeenReply, "ASSURED": ctAssured, "CONFIRMED": ctConfirmed,
}

// match does as net/netfilter/xt_conntrack.c: of a packet without a connection
// nothing but the state counts, and without a question about it the answer is no.
func (m *conntrackMatch) match(f *flow) tri {
	all := yes
	if m.states != nil {
		state := f.connState()
		in := no
		for _, s := range m.states {
			switch s {
			case "SNAT":
				in = in.or(triOf(f.track == tracked).and(f.snat))
			case "DNAT":
				in = in.or(triOf(f.track == tracked).and(f.dnat))
			default:
				in = in.or(triOf(connStates[s] == state))
			}
		}
		all = in.flip(m.notStates)
	}
	if f.track != tracked {
		return all.and(triOf(m.states != nil))
	}
	for _, ask := range m.rest {
		all = all.and(ask(f))
	}
	return all
}

func (m *conntrackMatch) option(o, v string, inverted, v6 bool) bool {
	ask := func(match func(*flow) tri) {
		m.rest = append(m.rest, func(f *flow) tri { return match(f).flip(inverted) })
	}
	part := func(pick func(original, reply tuple) value) func(*flow) value {
		return func(f *flow) value { return pick(f.tuples()) }
	}
	addr := func(get func(*flow) value) bool {
		test, ok := maskedAddress(v, v6)
		if ok {
			ask(func(f *flow) tri {
				a := get(f)
				if a.unknown {
					return maybe
				}
				return triOf(test(a.addr))
			})
		}
		return ok
	}
	port := func(get func(*flow) value) bool {
		p, ok := portRange(v)
		if ok {
			ask(func(f *flow) tri { return p.match(get(f)) })
		}
		return ok
	}
	switch o {
	case "--ctstate", "--state":
		for s := range strings.SplitSeq(v, ",") {
			if _, ok := connStates[s]; !ok && s != "SNAT" && s != "DNAT" {
				return false
			}
			m.states = append(m.states, s)
		}
		m.notStates = inverted
		return true
	case "--ctproto":
		p, ok := protocolNumber(v, v6)
		if ok {
			ask(isProtocol(p))
		}
		return ok
	case "--ctdir":
		if v != "ORIGINAL" && v != "REPLY" {
			return false
		}
		ask(func(f *flow) tri { return triOf(f.packet.Reply == (v == "REPLY")) })
		return true
	case "--ctorigsrc":
		return addr(part(func(o, _ tuple) value { return o.src }))
	case "--ctorigdst":
		return addr(part(func(o, _ tuple) value { return o.dst }))
	case "--ctreplsrc":
		return addr(part(func(_, r tuple) value { return r.src }))
	case "--ctrepldst":
		return addr(part(func(_, r tuple) value { return r.dst }))
	case "--ctorigsrcport":
		return port(part(func(o, _ tuple) value { return o.sport }))
	case "--ctorigdstport":
		return port(part(func(o, _ tuple) value { return o.dport }))
	case "--ctreplsrcport":
		return port(part(func(_, r tuple) value { return r.sport }))
	case "--ctrepldstport":
		return port(part(func(_, r tuple) value { return r.dport }))
	case "--ctstatus":
		mask := uint64(0)
		for s := range strings.SplitSeq(v, ",") {
			bit, ok := connStatuses[s]
			if !ok {
				return false
			}
			mask |= bit
		}
		ask(func(f *flow) tri {
			s := f.connStatus()
			if s.n&mask != 0 {
				return yes
			}
			if s.unk&mask != 0 {
				return maybe
			}
			return no
		})
		return true
	}
	return false
}

// validTarget reports whether a translation leads to an address of the packet's
// family.
func (f *flow) validTarget(a netip.Addr) bool { return a.IsValid() && a.Is4() == f.is4() }
