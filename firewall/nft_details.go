package firewall

import (
	"regexp"
	"slices"
	"strings"
)

// lacksDetails reports whether the listing leaves out what nft 1.0.6, among
// others, writes only without -j: the devices of chains at ingress and egress,
// and the flags of tables.
func (r *Ruleset) lacksDetails() bool {
	return slices.ContainsFunc(r.tables, func(t *Table) bool {
		return t.perhaps || slices.ContainsFunc(t.Chains, (*Chain).lacksDevices)
	})
}

func (c *Chain) lacksDevices() bool {
	return (c.Hook == "ingress" || c.Hook == "egress") && len(c.Devices) == 0
}

var (
	textTable   = regexp.MustCompile(`^table (\S+) (\S+) \{`)
	textFlags   = regexp.MustCompile(`^\tflags ([a-z, ]+);?$`)
	textChain   = regexp.MustCompile(`^\tchain (\S+) \{$`)
	textDevices = regexp.MustCompile(`^\t\ttype \S+ hook (?:ingress|egress) devices? (?:= )?(?:"([^"]+)"|\{([^}]*)\}|([^\s"{]+)) priority `)
)

// addDetails takes them from what nft list ruleset prints.
func (r *Ruleset) addDetails(text []byte) {
	var t *Table
	var c *Chain
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		if m := textTable.FindStringSubmatch(line); m != nil {
			t, c = r.Table(NFTables, m[1], m[2]), nil
			if t != nil {
				t.perhaps = false // unless its flags say so
			}
			continue
		}
		if t == nil {
			continue
		}
		if m := textFlags.FindStringSubmatch(line); m != nil {
			t.dormant = t.dormant || slices.Contains(strings.FieldsFunc(m[1], func(r rune) bool { return r == ',' || r == ' ' }), "dormant")
		}
		if m := textChain.FindStringSubmatch(line); m != nil {
			c = t.chains[m[1]]
		}
		if m := textDevices.FindStringSubmatch(line); m != nil && c != nil && c.lacksDevices() {
			for d := range strings.SplitSeq(m[1]+m[2]+m[3], ",") {
				if d = strings.Trim(d, "\" \t"); d != "" {
					c.Devices = append(c.Devices, d)
				}
			}
		}
	}
}
