package firewall

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// ParseNFT reads what nft -j list ruleset prints (libnftables-json(5)), or nft -j
// list table. Tables that iptables-nft made are among them as tables of
// nftables: [Join] them with the listings of iptables-nft-save, without which
// much of them is not understood.
//
// A listing says what nft makes of the rules in the kernel. Version 1.0.6 leaves
// out the question "ct l3proto" if one about a transport protocol follows it, and
// that about a family before "reject with tcp reset". The second is taken into
// account.
func ParseNFT(data []byte) (*Ruleset, error) {
	var doc struct {
		Objects []map[string]json.RawMessage `json:"nftables"`
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("firewall: listing of nftables: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("firewall: listing of nftables: something follows it")
	}
	if doc.Objects == nil {
		return nil, errors.New(`firewall: listing of nftables: there is no "nftables" in it: is it the output of nft -j?`)
	}
	p := nftParser{tables: make(map[[2]string]*Table)}
	// Rules may name sets and chains that come later.
	for _, pass := range []string{"table", "chain", "set", "rule"} {
		for _, o := range doc.Objects {
			for kind, raw := range o {
				if err := p.object(pass, kind, raw); err != nil {
					return nil, fmt.Errorf("firewall: listing of nftables: %s: %w", kind, err)
				}
			}
		}
	}
	return &Ruleset{tables: p.list}, nil
}

type nftParser struct {
	tables map[[2]string]*Table
	list   []*Table
}

// nftObject has the fields of tables, chains, sets and rules.
type nftObject struct {
	Family string            `json:"family"`
	Name   string            `json:"name"`
	Table  string            `json:"table"`
	Chain  string            `json:"chain"`
	Handle uint64            `json:"handle"`
	Type   any               `json:"type"`
	Hook   string            `json:"hook"`
	Prio   int               `json:"prio"`
	Policy string            `json:"policy"`
	Dev    any               `json:"dev"`
	Flags  any               `json:"flags"`
	Elem   []json.RawMessage `json:"elem"`
	Expr   []json.RawMessage `json:"expr"`
}

func (p *nftParser) object(pass, kind string, raw json.RawMessage) error {
	wanted := kind
	switch kind {
	case "map", "meter":
		wanted = "set"
	case "flowtable":
		wanted = "chain"
	}
	if wanted != pass {
		return nil
	}
	var o nftObject
	if err := json.Unmarshal(raw, &o); err != nil {
		return err
	}
	if kind == "table" {
		if o.Family == "" || o.Name == "" {
			return errors.New("it has no name")
		}
		if p.tables[[2]string{o.Family, o.Name}] != nil {
			return fmt.Errorf("%s %s is there twice", o.Family, o.Name)
		}
		t := &Table{Family: o.Family, Name: o.Name, chains: make(map[string]*Chain), sets: make(map[string]*nftSet)}
		for _, f := range stringsOf(o.Flags) {
			switch f {
			case "dormant":
				t.dormant = true
			case "owner", "persist":
			default: // nft 1.0.6 writes the family in place of the flags
				t.perhaps = true
			}
		}
		p.tables[[2]string{o.Family, o.Name}] = t
		p.list = append(p.list, t)
		return nil
	}
	t := p.tables[[2]string{o.Family, o.Table}]
	if t == nil {
		return fmt.Errorf("%s is in the table %q of family %q, which is not listed", o.Name, o.Table, o.Family)
	}
	switch kind {
	case "flowtable":
		t.flowtables = true
	case "chain":
		return t.addNFTChain(o)
	case "set", "map", "meter":
		t.sets[o.Name] = newNFTSet(o)
	case "rule":
		c := t.chains[o.Chain]
		if c == nil {
			return fmt.Errorf("rule %d is in the chain %q, which is not listed", o.Handle, o.Chain)
		}
		c.Rules = append(c.Rules, compileNFT(t, o.Expr))
	}
	return nil
}

func (t *Table) addNFTChain(o nftObject) error {
	if o.Name == "" || t.chains[o.Name] != nil {
		return fmt.Errorf("chain %q of table %v has no name or is there twice", o.Name, t)
	}
	c := &Chain{Name: o.Name, Hook: o.Hook, Priority: o.Prio, Devices: stringsOf(o.Dev), handle: o.Handle}
	c.Type, _ = o.Type.(string)
	if c.Hook != "" {
		c.Policy = o.Policy
		switch c.Policy {
		case "":
			c.Policy = "accept"
		case "accept", "drop":
		default:
			return fmt.Errorf("chain %s of table %v has the policy %q", o.Name, t, o.Policy)
		}
	}
	t.Chains = append(t.Chains, c)
	t.chains[c.Name] = c
	return nil
}

// stringsOf returns a string, or strings, as a slice.
func stringsOf(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var list []string
		for _, e := range v {
			if s, ok := e.(string); ok {
				list = append(list, s)
			}
		}
		return list
	}
	return nil
}

// decodeAny decodes JSON with numbers as they are written.
func decodeAny(raw json.RawMessage) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	err := dec.Decode(&v)
	return v, err
}

// only returns the key and value of an object that has one key.
func only(v any) (key string, arg any, ok bool) {
	m, isMap := v.(map[string]any)
	if !isMap || len(m) != 1 {
		return "", nil, false
	}
	for k, v := range m {
		key, arg = k, v
	}
	return key, arg, true
}
