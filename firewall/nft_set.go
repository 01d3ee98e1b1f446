package firewall

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// An nftSet is a set or a map of nftables. Its elements are parsed when a rule
// asks for them: what they are depends on what they are compared with.
type nftSet struct {
	elems []any // a value, or a key and a value
	bad   bool  // the elements could not be read
}

func newNFTSet(o nftObject) *nftSet {
	s := &nftSet{}
	for _, raw := range o.Elem {
		v, err := decodeAny(raw)
		if err != nil {
			s.bad = true
		}
		s.elems = append(s.elems, v)
	}
	return s
}

// A member is an element of a set, compiled.
type member struct {
	pattern
	rest bool // "*": whatever is not another element
	data any  // of a map
}

// compileMembers compiles elements of a set whose keys are of a type.
func compileMembers(elems []any, t nftType, withData bool) ([]member, bool) {
	var list []member
	for _, e := range elems {
		var m member
		key := e
		if withData {
			pair, ok := e.([]any)
			if !ok || len(pair) != 2 {
				return nil, false
			}
			key, m.data = pair[0], pair[1]
		}
		if k, arg, ok := only(key); ok && k == "elem" {
			inner, isMap := arg.(map[string]any)
			if !isMap {
				return nil, false
			}
			key = inner["val"]
		}
		if key == "*" {
			m.rest = true
		} else {
			var ok bool
			if m.pattern, ok = t.pattern(key); !ok {
				return nil, false
			}
		}
		list = append(list, m)
	}
	return list, true
}

// find returns the element of v; or maybe, and none, if that rests on what is
// not known.
func find(list []member, v value) (*member, tri) {
	var rest *member
	for i := range list {
		m := &list[i]
		if m.rest {
			rest = m
			continue
		}
		switch m.match(v) {
		case yes:
			return m, yes
		case maybe:
			return nil, maybe
		}
	}
	if rest != nil {
		return rest, yes
	}
	return nil, no
}

// An nftType is how values of an expression are written.
type nftType struct {
	kind    nftKind
	symbols map[string]uint64
	parts   []nftType // of a concatenation
	bits    bool      // values are sets of flags
}

type nftKind uint8

const (
	kindNumber nftKind = iota
	kindAddress
	kindName
	kindParts
)

func (t nftType) number(v any) (uint64, bool) {
	switch v := v.(type) {
	case json.Number:
		n, err := strconv.ParseUint(v.String(), 0, 64)
		return n, err == nil
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	case string:
		if n, ok := t.symbols[strings.ToLower(v)]; ok {
			return n, true
		}
		n, err := strconv.ParseUint(v, 0, 64)
		return n, err == nil
	case []any: // flags
		return t.flags(v)
	}
	if key, arg, ok := only(v); ok && key == "|" {
		if list, ok := arg.([]any); ok {
			return t.flags(list)
		}
	}
	return 0, false
}

func (t nftType) flags(list []any) (uint64, bool) {
	all := uint64(0)
	for _, e := range list {
		n, ok := t.number(e)
		if !ok {
			return 0, false
		}
		all |= n
	}
	return all, t.bits
}

// value parses one value.
func (t nftType) value(v any) (value, bool) {
	switch t.kind {
	case kindAddress:
		s, ok := v.(string)
		a, err := netip.ParseAddr(s)
		return address(a.WithZone("")), ok && err == nil
	case kindName:
		s, ok := v.(string)
		return named(s), ok
	case kindParts:
		_, arg, ok := only(v)
		list, isList := arg.([]any)
		if !ok || !isList || len(list) != len(t.parts) {
			return value{}, false
		}
		var all value
		for i, e := range list {
			part, ok := t.parts[i].value(e)
			if !ok {
				return value{}, false
			}
			all.parts = append(all.parts, part)
		}
		return all, true
	}
	n, ok := t.number(v)
	return number(n), ok
}

// pattern parses a value, a range or a prefix.
func (t nftType) pattern(v any) (pattern, bool) {
	key, arg, isObject := only(v)
	switch {
	case isObject && key == "range":
		ends, ok := arg.([]any)
		if !ok || len(ends) != 2 || t.kind == kindName || t.kind == kindParts {
			return pattern{}, false
		}
		lo, ok := t.value(ends[0])
		hi, ok2 := t.value(ends[1])
		return pattern{lo: lo, hi: hi}, ok && ok2
	case isObject && key == "prefix":
		m, _ := arg.(map[string]any)
		n, ok := m["len"].(json.Number)
		bits, err := strconv.Atoi(n.String())
		if !ok || err != nil {
			return pattern{}, false
		}
		lo, ok := t.value(m["addr"])
		if t.kind == kindAddress && ok {
			p, err := lo.addr.Prefix(bits)
			return pattern{prefix: p}, err == nil
		}
		return pattern{}, false
	case isObject && key == "concat" && t.kind == kindParts:
		list, ok := arg.([]any)
		if !ok || len(list) != len(t.parts) {
			return pattern{}, false
		}
		var p pattern
		for i, e := range list {
			part, ok := t.parts[i].pattern(e)
			if !ok {
				return pattern{}, false
			}
			p.parts = append(p.parts, part)
		}
		return p, true
	case t.kind == kindName:
		s, ok := v.(string)
		return interfacePattern(s, "*"), ok
	case t.kind == kindParts:
		return pattern{}, false
	}
	one, ok := t.value(v)
	return exactly(one), ok
}

// members returns the elements that "@name", {"set": …} or a list stands for.
func (t *Table) members(v any) (elems []any, ok bool) {
	if name, isName := v.(string); isName {
		if s := t.sets[strings.TrimPrefix(name, "@")]; strings.HasPrefix(name, "@") && s != nil {
			return s.elems, !s.bad
		}
		return nil, false
	}
	if key, arg, isObject := only(v); isObject && key == "set" {
		if list, isList := arg.([]any); isList {
			return slices.Clone(list), true
		}
		return []any{arg}, true
	}
	return nil, false
}
