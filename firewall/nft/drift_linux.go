package nft

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// drift compares what the kernel holds with t, and returns a line for each
// difference.
func (t *table) drift(have *kernelTable, cgroupID func(string) (uint64, error)) ([]string, error) {
	if have == nil {
		return []string{"there is no table inet " + tableName}, nil
	}
	var lines []string
	differ := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if have.flags&unix.NFT_TABLE_F_DORMANT != 0 {
		differ("table inet %s is dormant: its rules are not applied", tableName)
	} else if have.flags != 0 {
		differ("table inet %s has flags %#x", tableName, have.flags)
	}
	known := make(map[string]bool)
	for _, c := range t.chains {
		known[c.name] = true
		hc := have.chains[c.name]
		if hc == nil {
			differ("chain %s is missing", c.name)
			continue
		}
		if hc.kind != string(nftables.ChainTypeFilter) || hc.hook != hooks[c.hook] || int32(hc.priority) != int32(c.priority) {
			differ("chain %s is of type %q at hook %d with priority %d, want filter at %s (%d) with %d",
				c.name, hc.kind, hc.hook, int32(hc.priority), c.hook, hooks[c.hook], c.priority)
		}
		if hc.policy != uint32(nftables.ChainPolicyAccept) {
			differ("chain %s has policy drop", c.name)
		}
		rules, err := driftRules(c, hc, cgroupID)
		if err != nil {
			return nil, err
		}
		lines = append(lines, rules...)
	}
	for _, name := range have.order {
		if !known[name] {
			differ("chain %s does not belong there", name)
		}
	}
	return append(lines, t.driftSets(have)...), nil
}

// driftRules aligns the rules of a chain: those that are in both, in the same order,
// are as they should be.
func driftRules(c chain, have *kernelChain, cgroupID func(string) (uint64, error)) ([]string, error) {
	same := func(i int, exprs []kernelExpr) (bool, error) {
		want, err := c.rules[i].encode(cgroupID)
		if err != nil || len(want) != len(exprs) {
			return false, err
		}
		for k := range want {
			if !exprs[k].is(want[k]) {
				return false, nil
			}
		}
		return true, nil
	}
	var lines []string
	next := 0 // of have
	for i, r := range c.rules {
		found := -1
		for k := next; k < len(have.rules); k++ {
			ok, err := same(i, have.rules[k])
			if err != nil {
				return nil, err
			}
			if ok {
				found = k
				break
			}
		}
		if found < 0 {
			lines = append(lines, fmt.Sprintf("chain %s lacks, or has elsewhere: %s", c.name, r.text()))
			continue
		}
		for k := next; k < found; k++ {
			lines = append(lines, fmt.Sprintf("chain %s: rule %d does not belong there", c.name, k+1))
		}
		next = found + 1
	}
	for k := next; k < len(have.rules); k++ {
		lines = append(lines, fmt.Sprintf("chain %s: rule %d does not belong there", c.name, k+1))
	}
	return lines, nil
}

func (t *table) driftSets(have *kernelTable) []string {
	var lines []string
	differ := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	known := make(map[string]bool)
	for _, s := range t.sets {
		known[s.name] = true
		hs := have.sets[s.name]
		if hs == nil {
			differ("set %s is missing", s.name)
			continue
		}
		encoded, elements := s.encode(&nftables.Table{})
		var flags uint32
		if encoded.Interval {
			flags = unix.NFT_SET_INTERVAL
		}
		if hs.flags != flags || hs.keyLen != encoded.KeyType.Bytes {
			differ("set %s has flags %#x and keys of %d bytes, want %#x and %d", s.name, hs.flags, hs.keyLen, flags, encoded.KeyType.Bytes)
		}
		want := make(map[string]bool)
		for _, e := range elements {
			key := elementKey(e.Key, e.IntervalEnd)
			want[key] = true
			if !hs.elements[key] {
				differ("set %s lacks %s", s.name, s.element(e.Key, e.IntervalEnd))
			}
		}
		var surplus []string
		for key := range hs.elements {
			if !want[key] {
				n := len(key) - 1
				surplus = append(surplus, s.element([]byte(key[:n]), key[n] == 1))
			}
		}
		slices.Sort(surplus)
		for _, e := range surplus {
			differ("set %s has %s, which does not belong there", s.name, e)
		}
	}
	var names []string
	for name := range have.sets {
		if !known[name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		differ("set %s does not belong there", name)
	}
	return lines
}
