package egress

import (
	"fmt"
	"regexp"
	"strings"
)

// marks are the names of what a Lock makes, by which it tells its own.
type marks struct {
	table string // of nftables, in every family and namespace

	in, out, forward, group string // chains in the tables of iptables
}

// maxLabel leaves room for it in the name of a chain of iptables, which has at
// most 28 characters (xt_extension_maxnamelen in x_tables.h).
const maxLabel = 8

var labels = regexp.MustCompile(fmt.Sprintf("^[a-z0-9]{0,%d}$", maxLabel))

// marks returns the names of what the Lock makes.
func (l *Lock) marks() (*marks, error) {
	if !labels.MatchString(l.Label) {
		return nil, fmt.Errorf("label %q: it is part of names in the kernel: give 1 to %d letters and digits, a-z and 0-9", l.Label, maxLabel)
	}
	table, chain := "hardshell_kill", "HARDSHELL-KILL-%s"
	if l.Label != "" {
		table += "_" + l.Label
		chain += "-" + strings.ToUpper(l.Label)
	}
	name := func(what string) string { return fmt.Sprintf(chain, what) }
	return &marks{table: table, in: name("IN"), out: name("OUT"), forward: name("FWD"), group: name("CG")}, nil
}
