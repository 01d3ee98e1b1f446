package iptables

import (
	"fmt"
	"slices"
	"strings"
)

// A ruleset is what iptables-save prints: for each table and chain its rules,
// without -A and the name.
type ruleset map[string]map[string][]string

// parseSave reads what iptables-save prints.
func parseSave(text string) (ruleset, error) {
	rs := make(ruleset)
	var table map[string][]string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
		case line == "COMMIT":
			table = nil
		case line[0] == '*':
			table = make(map[string][]string)
			rs[line[1:]] = table
		case table == nil:
			return nil, fmt.Errorf("iptables-save: %q is in no table", line)
		case line[0] == ':':
			name, _, _ := strings.Cut(line[1:], " ")
			if _, ok := table[name]; !ok {
				table[name] = nil
			}
		default:
			rest, ok := strings.CutPrefix(line, "-A ")
			name, rule, _ := strings.Cut(rest, " ")
			if !ok {
				return nil, fmt.Errorf("iptables-save: %q is neither a chain nor a rule", line)
			}
			table[name] = append(table[name], rule)
		}
	}
	if table != nil {
		return nil, fmt.Errorf("iptables-save: the output ends within a table")
	}
	return rs, nil
}

func (rs ruleset) has(table, chain string) bool {
	_, ok := rs[table][chain]
	return ok
}

// jumps returns where in a chain there are rules that jump to another one,
// beginning with 1, and whether the first rule of all does so unconditionally.
func (rs ruleset) jumps(table, parent, name string) (at []int, first bool) {
	for i, rule := range rs[table][parent] {
		fields := strings.Fields(rule)
		k := slices.Index(fields, name)
		if k > 0 && (fields[k-1] == "-j" || fields[k-1] == "-g") {
			at = append(at, i+1)
			first = first || i == 0 && rule == "-j "+name
		}
	}
	return at, first
}

// mentions reports whether a rule of the table jumps to the chain at all.
func (rs ruleset) mentions(table, name string) bool {
	for _, rules := range rs[table] {
		for _, rule := range rules {
			if fields := strings.Fields(rule); slices.Contains(fields, name) {
				return true
			}
		}
	}
	return false
}

// normal returns a rule in a form that does not depend on the order in which
// a version of iptables prints conditions: the target, and each option with its
// values, sorted. It is for rules that we have made, which have no
// quotes and negate nothing; others are left as they are.
func normal(rule string) string {
	words := strings.Fields(rule)
	if strings.ContainsAny(rule, `"'!`) {
		return rule
	}
	var options []string
	for i := 0; i < len(words); {
		k := i + 1
		for k < len(words) && !strings.HasPrefix(words[k], "-") {
			k++
		}
		option := words[i:k]
		i = k
		switch {
		case option[0] == "-m":
			continue // the options that follow belong to it, and to no other
		case option[0] == "--ctstate" && len(option) == 2:
			states := strings.Split(option[1], ",")
			slices.Sort(states)
			option = []string{option[0], strings.Join(states, ",")}
		case option[0] == "-p" && len(option) == 2:
			if name, ok := protocolNames[option[1]]; ok {
				option = []string{option[0], name}
			}
		}
		options = append(options, strings.Join(option, " "))
	}
	slices.Sort(options)
	return strings.Join(options, " ")
}

// protocolNames are for versions of iptables that print numbers.
var protocolNames = map[string]string{"6": "tcp", "17": "udp", "132": "sctp", "58": "ipv6-icmp", "icmpv6": "ipv6-icmp"}

// drift compares what the kernel has with one of our chains.
func (c chain) drift(rs ruleset) []string {
	if !rs.has(c.table, c.name) {
		return []string{fmt.Sprintf("%s: chain %s is missing", c.table, c.name)}
	}
	var lines []string
	differ := func(format string, args ...any) {
		lines = append(lines, c.table+": "+fmt.Sprintf(format, args...))
	}
	have := rs[c.table][c.name]
	for i := range max(len(have), len(c.rules)) {
		switch {
		case i >= len(have):
			differ("chain %s lacks rule %d: %s", c.name, i+1, c.rules[i])
		case i >= len(c.rules):
			differ("chain %s has a rule %d that does not belong there: %s", c.name, i+1, have[i])
		case normal(have[i]) != normal(c.rules[i]):
			differ("chain %s: rule %d is %s, want %s", c.name, i+1, have[i], c.rules[i])
		}
	}
	switch at, first := rs.jumps(c.table, c.parent, c.name); {
	case len(at) == 0:
		differ("chain %s does not jump to %s", c.parent, c.name)
	case !first:
		differ("chain %s does not jump to %s at once, but in rule %d, or not always", c.parent, c.name, at[0])
	case len(at) > 1:
		differ("chain %s jumps to %s %d times", c.parent, c.name, len(at))
	}
	return lines
}
