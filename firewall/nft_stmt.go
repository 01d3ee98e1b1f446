package firewall

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// compileNFT makes a rule of the expressions that nft lists.
func compileNFT(t *Table, exprs []json.RawMessage) *Rule {
	c := nftCompiler{table: t, rule: &Rule{}}
	var words []string
	for _, raw := range exprs {
		v, err := decodeAny(raw)
		if err != nil {
			c.blindAction("an expression that is not JSON")
			continue
		}
		words = append(words, statementText(v))
		c.statement(v)
	}
	c.rule.Text = strings.Join(words, " ")
	return c.rule
}

type nftCompiler struct {
	table *Table
	rule  *Rule
	jumps int

	family   bool   // a question about the family is listed
	previous string // statement
}

func (c *nftCompiler) problem(what string) {
	if c.rule.Problem == "" {
		c.rule.Problem = what
	}
}

func (c *nftCompiler) blind(what string) {
	c.problem(what)
	c.rule.ops = append(c.rule.ops, op{match: func(*flow) tri { return maybe }, blind: what})
}

func (c *nftCompiler) blindAction(what string) {
	c.problem(what)
	c.rule.ops = append(c.rule.ops, op{kind: "?", blind: what, act: func(*flow) verdict { return verdict{kind: lost} }})
}

func (c *nftCompiler) do(kind string, act func(*flow) verdict) {
	c.rule.ops = append(c.rule.ops, op{kind: kind, act: act})
}

// statement compiles one element of a rule.
func (c *nftCompiler) statement(v any) {
	key, arg, ok := only(v)
	if !ok {
		if s, isString := v.(string); isString { // "accept" and the like, as old versions wrote it
			key = s
		}
	}
	m, _ := arg.(map[string]any)
	switch key {
	case "match":
		ask, err := c.table.comparison(m)
		if err != nil {
			c.blind(err.Error())
			return
		}
		elems, isSet := c.table.members(m["right"])
		c.rule.ops = append(c.rule.ops, op{match: ask, never: isSet && len(elems) == 0 && m["op"] != "!="})
		c.family = c.family || tellsFamily(m["left"])
	case "accept", "drop", "return", "continue", "jump", "goto", "reject":
		verdict, kind, err := nftVerdict(key, arg)
		if err != nil {
			c.blindAction(err.Error())
			return
		}
		if verdict.chain != "" {
			c.jumpTo(verdict.chain)
		}
		if key == "reject" {
			c.refusable(m)
		}
		if kind != "" {
			c.do(kind, constantly(verdict))
		}
	case "counter", "log", "last", "comment", "ct helper", "ct timeout", "ct expectation", "secmark", "flow", "dup":
	case "limit", "quota", "ct count", "connlimit", "meter":
		if key == "limit" && m == nil || key == "meter" {
			c.blind("a " + key)
			return
		}
		c.blind("a " + key + ", which may be reached")
	case "vmap":
		c.verdictMap(m)
	case "mangle":
		c.mangle(m)
	case "notrack":
		c.do("notrack", (*flow).notrack)
	case "dnat", "redirect", "snat", "masquerade":
		c.nat(key, m)
	case "set", "map":
		c.setStatement(m)
	case "xt":
		name, _ := m["name"].(string)
		if m["type"] == "match" {
			if name != "comment" {
				c.blind("match " + name + " of iptables, which iptables-nft-save may list")
			}
			return
		}
		if m["type"] == "target" && slices.Contains(quietTargets, name) {
			return
		}
		c.blindAction(fmt.Sprintf("target %s of iptables, which iptables-nft-save may list", name))
	default:
		c.blindAction("statement " + statementText(v))
	}
	c.previous = key
}

// refusable asks for the protocol that a refusal implies: nft does not list the
// question if the refusal follows it.
func (c *nftCompiler) refusable(m map[string]any) {
	var ask func(*flow) tri
	switch m["type"] {
	case "tcp reset":
		ask = isProtocol(TCP)
		if c.table.Family != "ip" && c.table.Family != "ip6" && !c.family && c.previous != "counter" {
			// nft 1.0.6 leaves out "meta nfproto", too, before this refusal.
			c.blind("whether it is for one family alone, which nft may not list before a reset")
		}
	case "icmp":
		ask = func(f *flow) tri { return triOf(f.is4()) }
	case "icmpv6":
		ask = func(f *flow) tri { return triOf(!f.is4()) }
	default:
		return
	}
	c.rule.ops = append(c.rule.ops, op{match: ask})
}

// tellsFamily reports whether a listed expression exists in one family alone, or
// asks which it is.
func tellsFamily(left any) bool {
	key, arg, _ := only(left)
	m, _ := arg.(map[string]any)
	switch key {
	case "meta":
		return m["key"] == "nfproto" || m["key"] == "protocol" || arg == "nfproto" || arg == "protocol"
	case "payload":
		return m["protocol"] == "ip" || m["protocol"] == "ip6"
	}
	return false
}

func constantly(v verdict) func(*flow) verdict { return func(*flow) verdict { return v } }

func (c *nftCompiler) jumpTo(chain string) {
	if c.jumps++; c.jumps == 1 {
		c.rule.Jump = chain
	} else if chain != c.rule.Jump {
		c.rule.Jump = ""
	}
}

// nftVerdict makes a verdict of a statement. Its kind is empty if it does nothing.
func nftVerdict(key string, arg any) (v verdict, kind string, err error) {
	switch key {
	case "accept":
		return verdict{kind: accept, does: "accept"}, key, nil
	case "drop":
		return verdict{kind: drop, does: "drop"}, key, nil
	case "reject":
		return verdict{kind: reject, does: "reject"}, key, nil
	case "return":
		return verdict{kind: endChain}, key, nil
	case "continue":
		return verdict{}, "", nil
	case "jump", "goto":
		m, _ := arg.(map[string]any)
		target, _ := m["target"].(string)
		if target == "" {
			break
		}
		v = verdict{kind: jump, chain: target}
		if key == "goto" {
			v.kind = gotoChain
		}
		return v, key + " " + target, nil
	}
	return v, "", fmt.Errorf("verdict %s", statementText(map[string]any{key: arg}))
}

func (c *nftCompiler) verdictMap(m map[string]any) {
	key := c.table.expr(m["key"])
	elems, ok := c.table.members(m["data"])
	list, ok2 := compileMembers(elems, key.typ, true)
	if !ok || !ok2 {
		c.blindAction("map of verdicts " + textOf(m["data"]))
		return
	}
	verdicts := make([]verdict, len(list))
	for i, e := range list {
		name, arg, ok := only(e.data)
		err := errors.New("verdict")
		if ok {
			verdicts[i], _, err = nftVerdict(name, arg)
		}
		if err != nil {
			c.blindAction(err.Error() + " in a map")
			return
		}
		if verdicts[i].chain != "" {
			c.jumpTo(verdicts[i].chain)
		}
	}
	name, _ := m["data"].(string)
	if key.blind {
		c.problem(textOf(m["key"]))
	}
	c.do("vmap", func(f *flow) verdict {
		v := key.load(f)
		if v.absent {
			return verdict{kind: skipRule}
		}
		found, in := find(list, v)
		if slices.Contains(f.touched, name) {
			in = maybe
		}
		switch in {
		case no:
			return verdict{kind: skipRule}
		case maybe:
			return f.anyVerdict(verdicts, textOf(m["key"]))
		}
		for i := range list {
			if &list[i] == found {
				return verdicts[i]
			}
		}
		return verdict{kind: lost}
	})
}

// anyVerdict is one of the verdicts of a map, or none of them, as it is not
// known which.
func (f *flow) anyVerdict(list []verdict, of string) verdict {
	var distinct []verdict
	for _, v := range list {
		if !slices.Contains(distinct, v) {
			distinct = append(distinct, v)
		}
	}
	for _, v := range distinct {
		if f.choose("map of verdicts", of+" is not known") {
			return v
		}
	}
	return verdict{kind: skipRule}
}

// mangle is a statement that sets something: "meta mark set 1".
func (c *nftCompiler) mangle(m map[string]any) {
	key, arg, _ := only(m["key"])
	target, _ := arg.(map[string]any)
	name, _ := target["key"].(string)
	if s, ok := arg.(string); ok {
		name = s
	}
	field, _ := target["field"].(string)
	switch {
	case key == "meta" && name != "mark", key == "ct" && name != "mark" && name != "zone",
		key == "tcp option", key == "exthdr", key == "ct helper":
		return // of no effect on what becomes of it
	case key == "payload" && !slices.Contains([]string{"saddr", "daddr", "sport", "dport", "protocol", "nexthdr", "version", "hdrlength", "frag-off"}, field) && field != "":
		return
	case key != "meta" && key != "ct" || name == "zone":
		c.blindAction("change of " + textOf(m["key"]))
		return
	}
	load := c.table.markValue(m["value"])
	c.do("mark", func(f *flow) verdict {
		v := load(f)
		if v.absent {
			return verdict{kind: skipRule}
		}
		f.changed = true
		v = v.numeric()
		v.n, v.unk = v.n&0xffffffff, v.unk&0xffffffff
		if key == "meta" {
			f.mark = v
			return verdict{does: "sets the mark"}
		}
		if f.track == tracked {
			f.connmark = v
		}
		return verdict{}
	})
}

// markValue is a number or an expression that yields one.
func (t *Table) markValue(v any) func(*flow) value {
	if n, ok := numberType.number(v); ok {
		return func(*flow) value { return number(n) }
	}
	return t.expr(v).load
}

// setStatement adds to a set, or takes from it.
func (c *nftCompiler) setStatement(m map[string]any) {
	if stmts, ok := m["stmt"].([]any); ok {
		for _, s := range stmts {
			if key, _, _ := only(s); key != "counter" {
				c.blind("a " + key + " for each element of a set")
			}
		}
	}
	name, _ := m["set"].(string)
	if s, ok := m["map"].(string); ok {
		name = s
	}
	c.do("", func(f *flow) verdict {
		f.touched, f.changed = append(slices.Clip(f.touched), name), true
		return verdict{}
	})
}

// nat compiles a translation of addresses.
func (c *nftCompiler) nat(kind string, m map[string]any) {
	switch kind {
	case "masquerade":
		c.do(kind, func(f *flow) verdict { return f.fromElsewhere(netip.Addr{}) })
		return
	case "snat":
		a, _ := m["addr"].(string)
		addr, _ := netip.ParseAddr(a)
		c.do(kind, func(f *flow) verdict { return f.fromElsewhere(addr) })
		return
	}
	addr, okA := c.natPart(m["addr"], addressType)
	port, okP := c.natPart(m["port"], numberType)
	if !okA || !okP {
		c.blindAction(kind + " to " + textOf(m))
		return
	}
	family, _ := m["family"].(string)
	c.do(kind, func(f *flow) verdict {
		if family == "ip" && !f.is4() || family == "ip6" && f.is4() {
			return verdict{kind: skipRule}
		}
		a, p := addr(f), port(f)
		if a.absent || p.absent {
			return verdict{kind: skipRule}
		}
		if len(a.parts) == 2 {
			a, p = a.parts[0], a.parts[1]
		}
		if a.unknown || p.hides() || len(a.parts) > 0 {
			return verdict{kind: lost, does: "it rests on what is not known where it translates the destination to"}
		}
		if kind == "redirect" {
			return f.toThisMachine(uint16(p.n))
		}
		if !a.addr.IsValid() {
			a.addr = f.dst
		}
		return f.toAddress(a.addr, uint16(p.n))
	})
}

// natPart is the address or port of a translation: none, one, or a map.
func (c *nftCompiler) natPart(v any, t nftType) (func(*flow) value, bool) {
	if v == nil {
		return func(*flow) value { return value{} }, true
	}
	if key, _, isObject := only(v); isObject {
		if key == "range" || key == "prefix" {
			return nil, false
		}
		e := c.table.expr(v)
		return e.load, !e.blind
	}
	one, ok := t.value(v)
	return func(*flow) value { return one }, ok
}
