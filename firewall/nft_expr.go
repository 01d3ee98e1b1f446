package firewall

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// An nftExpr is an expression that yields a value for a packet.
type nftExpr struct {
	load func(*flow) value
	typ  nftType

	blind bool // the value is never known
}

func blindExpr() nftExpr {
	return nftExpr{load: func(*flow) value { return unknownValue }, blind: true}
}

var (
	addressType = nftType{kind: kindAddress}
	nameType    = nftType{kind: kindName}
	numberType  = nftType{}

	protocolType = nftType{symbols: map[string]uint64{
		"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "dccp": 33, "ipv6": 41, "gre": 47, "esp": 50, "ah": 51, "icmpv6": 58, "ipv6-icmp": 58,
		"comp": 108, "sctp": 132, "udplite": 136,
	}}
	familyType    = nftType{symbols: map[string]uint64{"ipv4": 2, "ipv6": 10, "ip": 2, "ip6": 10}}
	etherType     = nftType{symbols: map[string]uint64{"ip": 0x0800, "arp": 0x0806, "ip6": 0x86dd, "vlan": 0x8100}}
	stateType     = nftType{bits: true, symbols: map[string]uint64{"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}}
	statusType    = nftType{bits: true, symbols: map[string]uint64{"expected": ctExpected, "seen-reply": ctSeenReply, "assured": ctAssured, "confirmed": ctConfirmed, "snat": ctSNAT, "dnat": ctDNAT, "dying": ctDying}}
	directionType = nftType{symbols: map[string]uint64{"original": 0, "reply": 1}}
	tcpFlagsType  = nftType{bits: true, symbols: map[string]uint64{"fin": tcpFIN, "syn": tcpSYN, "rst": tcpRST, "psh": tcpPSH, "ack": tcpACK, "urg": tcpURG, "ecn": tcpECE, "cwr": tcpCWR}}
	icmpType      = nftType{symbols: icmpNames}
	icmp6Type     = nftType{symbols: icmp6Names}
	fibType       = nftType{symbols: map[string]uint64{
		"unspec": 0, "unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5, "blackhole": 6, "unreachable": 7, "prohibit": 8,
	}}
)

// stateBits are the states as nftables numbers them (NF_CT_STATE_BIT).
var stateBits = map[ConnState]uint64{StateInvalid: 1, StateEstablished: 2, StateRelated: 4, StateNew: 8, StateUntracked: 64}

// expr compiles an expression. What it does not understand yields a value that
// is not known, so that it does no harm until something rests on it.
func (t *Table) expr(v any) nftExpr {
	if list, ok := v.([]any); ok && len(list) == 0 {
		return blindExpr()
	}
	key, arg, ok := only(v)
	if !ok {
		return blindExpr()
	}
	m, _ := arg.(map[string]any)
	list, _ := arg.([]any)
	switch key {
	case "meta":
		name, _ := arg.(string)
		if m != nil {
			name, _ = m["key"].(string)
		}
		return metaExpr(name)
	case "payload":
		protocol, _ := m["protocol"].(string)
		field, _ := m["field"].(string)
		return payloadExpr(protocol, field)
	case "ct":
		name, _ := m["key"].(string)
		dir, _ := m["dir"].(string)
		family, _ := m["family"].(string)
		return ctExpr(name, dir, family)
	case "fib":
		result, _ := m["result"].(string)
		return fibExpr(result, stringsOf(m["flags"]))
	case "concat":
		e := nftExpr{typ: nftType{kind: kindParts}}
		var parts []nftExpr
		for _, p := range list {
			part := t.expr(p)
			parts = append(parts, part)
			e.typ.parts = append(e.typ.parts, part.typ)
		}
		e.load = func(f *flow) value {
			var all value
			for _, p := range parts {
				v := p.load(f)
				if v.absent {
					return v
				}
				all.parts = append(all.parts, v)
			}
			return all
		}
		return e
	case "&", "|", "^", "<<", ">>":
		return t.binary(key, list)
	case "map":
		return t.mapExpr(m)
	}
	return blindExpr()
}

func metaExpr(key string) nftExpr {
	is := func(t nftType, load func(*flow) value) nftExpr { return nftExpr{load: load, typ: t} }
	switch key {
	case "iifname", "iif":
		return is(nameType, func(f *flow) value { return named(f.in) })
	case "oifname", "oif":
		return is(nameType, func(f *flow) value { return named(f.out) })
	case "mark":
		return is(numberType, func(f *flow) value { return f.mark })
	case "l4proto":
		return is(protocolType, func(f *flow) value { return number(f.packet.Protocol) })
	case "nfproto":
		return is(familyType, func(f *flow) value {
			switch {
			case f.hook == "ingress" || f.hook == "egress":
				return unknownValue
			case f.is4():
				return number(uint8(2))
			}
			return number(uint8(10))
		})
	case "protocol":
		return is(etherType, func(f *flow) value {
			if f.is4() {
				return number(uint16(0x0800))
			}
			return number(uint16(0x86dd))
		})
	}
	return blindExpr()
}

// requires makes an expression absent where a condition does not hold, as nft
// does by a comparison that it does not list.
func (e nftExpr) requires(cond func(*flow) bool) nftExpr {
	load := e.load
	e.load = func(f *flow) value {
		if !cond(f) {
			return absentValue
		}
		return load(f)
	}
	return e
}

func payloadExpr(protocol, field string) nftExpr {
	v4 := func(f *flow) bool { return f.is4() }
	v6 := func(f *flow) bool { return !f.is4() }
	carries := func(p Protocol) func(*flow) bool {
		return func(f *flow) bool { return f.packet.Protocol == p }
	}
	e := blindExpr()
	switch field {
	case "saddr":
		e = nftExpr{load: (*flow).source, typ: addressType}
	case "daddr":
		e = nftExpr{load: func(f *flow) value { return address(f.dst) }, typ: addressType}
	case "sport":
		e = nftExpr{load: func(f *flow) value { return f.port(true) }}
	case "dport":
		e = nftExpr{load: func(f *flow) value { return f.port(false) }}
	case "protocol", "nexthdr":
		e = nftExpr{load: func(f *flow) value { return number(f.packet.Protocol) }, typ: protocolType}
	}
	switch protocol {
	case "ip":
		return e.requires(v4)
	case "ip6":
		if field == "nexthdr" {
			e = blindExpr() // an extension header, perhaps
		}
		return e.requires(v6)
	case "tcp":
		if field == "flags" {
			e = nftExpr{load: (*flow).flags, typ: tcpFlagsType}
		}
		return e.requires(carries(TCP))
	case "udp":
		return e.requires(carries(UDP))
	case "sctp":
		return e.requires(carries(SCTP))
	case "udplite":
		return e.requires(carries(136))
	case "dccp":
		return e.requires(carries(33))
	case "th":
		load := e.load
		e.load = func(f *flow) value {
			switch f.packet.Protocol {
			case TCP, UDP, SCTP, 136, 33:
				return load(f)
			}
			return unknownValue // another protocol's header
		}
		return e
	case "icmp", "icmpv6":
		p, t := ICMP, icmpType
		if protocol == "icmpv6" {
			p, t = ICMPv6, icmp6Type
		}
		switch field {
		case "type":
			e = nftExpr{load: (*flow).icmpType, typ: t}
		case "code":
			e = nftExpr{load: (*flow).icmpCode}
		}
		return e.requires(carries(p)).requires(func(f *flow) bool { return f.is4() == (p == ICMP) })
	case "ether", "vlan", "arp":
		return blindExpr()
	}
	return blindExpr()
}

func ctExpr(key, dir, family string) nftExpr {
	if key == "state" {
		return nftExpr{typ: stateType, load: func(f *flow) value { return number(stateBits[f.connState()]) }}
	}
	e := blindExpr()
	part := func(pick func(tuple) value) func(*flow) value {
		return func(f *flow) value {
			original, reply := f.tuples()
			if dir == "reply" {
				return pick(reply)
			}
			return pick(original)
		}
	}
	short := strings.TrimPrefix(strings.TrimPrefix(key, "ip6 "), "ip ")
	switch short {
	case "status":
		e = nftExpr{typ: statusType, load: (*flow).connStatus}
	case "direction":
		e = nftExpr{typ: directionType, load: func(f *flow) value {
			if f.packet.Reply {
				return number(uint8(1))
			}
			return number(uint8(0))
		}}
	case "mark":
		e = nftExpr{load: func(f *flow) value { return f.connmark }}
	case "protocol":
		e = nftExpr{typ: protocolType, load: func(f *flow) value { return number(f.packet.Protocol) }}
	case "l3proto":
		e = nftExpr{typ: familyType, load: metaFamily}
	case "saddr":
		e = nftExpr{typ: addressType, load: part(func(t tuple) value { return t.src })}
	case "daddr":
		e = nftExpr{typ: addressType, load: part(func(t tuple) value { return t.dst })}
	case "proto-src":
		e = nftExpr{load: part(func(t tuple) value { return t.sport })}
	case "proto-dst":
		e = nftExpr{load: part(func(t tuple) value { return t.dport })}
	}
	switch {
	case strings.HasPrefix(key, "ip6 ") || family == "ip6":
		e = e.requires(func(f *flow) bool { return !f.is4() })
	case strings.HasPrefix(key, "ip ") || family == "ip":
		e = e.requires((*flow).is4)
	}
	return e.requires(func(f *flow) bool { return f.track == tracked })
}

func metaFamily(f *flow) value {
	if f.is4() {
		return number(uint8(2))
	}
	return number(uint8(10))
}

// fibExpr is what the machine's routing says of an address.
func fibExpr(result string, flags []string) nftExpr {
	has := make(map[string]bool)
	for _, f := range flags {
		has[f] = true
	}
	if result != "type" || has["mark"] || has["saddr"] == has["daddr"] {
		return blindExpr()
	}
	return nftExpr{typ: fibType, load: func(f *flow) value {
		if f.routing == nil || has["saddr"] && f.srcUnknown {
			return unknownValue
		}
		device := ""
		switch {
		case has["iif"]:
			device = f.in
		case has["oif"]:
			device = f.out
		}
		a := f.dst
		if has["saddr"] {
			a = f.src
		}
		n, ok := fibType.symbols[string(f.routing.typeOf(a, device))]
		if !ok {
			return unknownValue
		}
		return number(n)
	}}
}

// binary is an operation on bits. The second operand must be a constant.
func (t *Table) binary(operator string, args []any) nftExpr {
	if len(args) < 2 {
		return blindExpr()
	}
	left := t.expr(args[0])
	if left.typ.kind == kindAddress && operator == "&" {
		mask, ok := left.typ.value(args[1])
		if !ok {
			return blindExpr()
		}
		return nftExpr{typ: left.typ, load: func(f *flow) value {
			v := left.load(f)
			if v.absent || v.unknown {
				return v
			}
			a, b := v.addr.AsSlice(), mask.addr.AsSlice()
			if len(a) != len(b) {
				return absentValue
			}
			for i := range a {
				a[i] &= b[i]
			}
			v.addr, _ = netip.AddrFromSlice(a)
			return v
		}}
	}
	if left.typ.kind != kindNumber {
		return blindExpr()
	}
	operand := uint64(0)
	for i, arg := range args[1:] {
		n, ok := left.typ.number(arg)
		if !ok || i > 0 && operator != "|" {
			return blindExpr()
		}
		operand |= n
	}
	return nftExpr{typ: left.typ, load: func(f *flow) value {
		v := left.load(f)
		if v.absent {
			return v
		}
		v = v.numeric()
		switch operator {
		case "&":
			return masked(v, operand)
		case "|":
			return value{n: v.n | operand, unk: v.unk &^ operand}
		case "^":
			return value{n: v.n ^ operand, unk: v.unk}
		case "<<":
			return value{n: v.n << operand & 0xffffffff, unk: v.unk << operand & 0xffffffff}
		}
		return value{n: v.n >> operand, unk: v.unk >> operand}
	}}
}

// mapExpr looks a value up. Values that the map does not have are absent.
func (t *Table) mapExpr(m map[string]any) nftExpr {
	key := t.expr(m["key"])
	elems, ok := t.members(m["data"])
	list, ok2 := compileMembers(elems, key.typ, true)
	if !ok || !ok2 {
		return blindExpr()
	}
	e := nftExpr{typ: guessType(list)}
	values := make([]value, len(list))
	for i, m := range list {
		var ok bool
		if values[i], ok = e.typ.value(m.data); !ok {
			return blindExpr()
		}
	}
	e.load = func(f *flow) value {
		v := key.load(f)
		if v.absent {
			return v
		}
		found, known := find(list, v)
		switch known {
		case no:
			return absentValue
		case maybe:
			return unknownValue
		}
		for i := range list {
			if &list[i] == found {
				return values[i]
			}
		}
		return unknownValue
	}
	return e
}

// guessType tells from the data of a map what it is.
func guessType(list []member) nftType {
	if len(list) == 0 {
		return numberType
	}
	return guessTypeOf(list[0].data)
}

func guessTypeOf(v any) nftType {
	switch v := v.(type) {
	case json.Number:
		return numberType
	case string:
		if _, ok := addressType.value(v); ok {
			return addressType
		}
		return nameType
	}
	if key, arg, ok := only(v); ok && key == "concat" {
		t := nftType{kind: kindParts}
		list, _ := arg.([]any)
		for _, p := range list {
			t.parts = append(t.parts, guessTypeOf(p))
		}
		return t
	}
	return numberType
}

// comparison compiles what a match asks for.
func (t *Table) comparison(m map[string]any) (func(*flow) tri, error) {
	operator, _ := m["op"].(string)
	left := t.expr(m["left"])
	right := m["right"]
	if left.blind {
		return nil, errors.New(textOf(m["left"]))
	}
	var test func(*flow, value) tri
	if elems, ok := t.members(right); ok {
		list, ok := compileMembers(elems, left.typ, false)
		if !ok {
			return nil, fmt.Errorf("a set that %s is compared with", textOf(m["left"]))
		}
		name, _ := right.(string)
		test = func(f *flow, v value) tri {
			if slices.Contains(f.touched, name) {
				return maybe
			}
			_, in := find(list, v)
			return in
		}
		if operator == "in" {
			operator = "=="
		}
	} else if left.typ.bits && (operator == "in" || operator == "!") {
		n, ok := left.typ.number(right)
		if !ok {
			return nil, fmt.Errorf("%s", textOf(right))
		}
		test = func(_ *flow, v value) tri { return exactly(number(uint64(0))).match(masked(v.numeric(), n)).not() }
		if operator == "!" { // none of the flags
			operator = "!="
		} else {
			operator = "=="
		}
	} else {
		p, ok := left.typ.pattern(right)
		if !ok {
			return nil, fmt.Errorf("what %s is compared with", textOf(m["left"]))
		}
		test = func(_ *flow, v value) tri { return p.match(v) }
		switch operator {
		case "<", ">", "<=", ">=":
			if left.typ.kind != kindNumber || p.lo.n != p.hi.n {
				return nil, fmt.Errorf("an order of %s", textOf(m["left"]))
			}
			n := p.lo.n
			test = func(_ *flow, v value) tri {
				if v.unknown || v.unk != 0 {
					return maybe
				}
				switch operator {
				case "<":
					return triOf(v.n < n)
				case ">":
					return triOf(v.n > n)
				case "<=":
					return triOf(v.n <= n)
				}
				return triOf(v.n >= n)
			}
		}
	}
	switch operator {
	case "==", "in", "!=", "<", ">", "<=", ">=":
	default:
		return nil, fmt.Errorf("the operator %q", operator)
	}
	inverted := operator == "!="
	return func(f *flow) tri {
		v := left.load(f)
		if v.absent {
			return no // whatever the operator
		}
		return test(f, v).flip(inverted)
	}, nil
}
