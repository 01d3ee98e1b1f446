package guard

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/firewall"
)

// A Change declares what a change of a firewall touches. What is not declared is
// not put back.
type Change struct {
	// What says in a few words what is changed, for the operator.
	What string `json:"what"`

	// Files are absolute paths of regular files, or of files that are not
	// there and may come to be. Their content, mode and owner are put back.
	Files []string `json:"files,omitempty"`

	// Tables are tables of iptables that are put back whole.
	Tables []Table `json:"tables,omitempty"`

	// Chains are chains of iptables that are put back alone, with the jumps
	// to them from other chains of the table. What others change around
	// them stays.
	Chains []Chain `json:"chains,omitempty"`

	// NFTables are tables of nftables, such as one's own. Those of
	// iptables-nft are Tables.
	NFTables []NFTable `json:"nftables,omitempty"`

	// Sysctls are parameters of the kernel, such as
	// "net/ipv4/conf/all/accept_redirects".
	Sysctls []string `json:"sysctls,omitempty"`
}

// A Table is a table of iptables.
type Table struct {
	Flavour Flavour `json:"flavour"`
	IPv6    bool    `json:"ipv6"`
	Name    string  `json:"name"` // such as "filter"
}

// A Chain is a chain of a table of iptables that is not one of the kernel's own.
type Chain struct {
	Table
	Chain string `json:"chain"` // such as "DOCKER-USER"
}

// An NFTable is a table of nftables.
type NFTable struct {
	Family string `json:"family"` // such as "inet"
	Name   string `json:"name"`
}

// A Flavour is one of the two implementations of iptables. Each has tables of
// its own, and the kernel obeys both.
type Flavour string

// Flavours of iptables.
const (
	Default Flavour = ""       // that of the program iptables, which UFW and Docker run
	NFT     Flavour = "nft"    // iptables-nft
	Legacy  Flavour = "legacy" // iptables-legacy
)

// program is the name of the programs without "-save" and "-restore".
func (t Table) program() string {
	name := "iptables"
	if t.IPv6 {
		name = "ip6tables"
	}
	if t.Flavour != Default {
		name += "-" + string(t.Flavour)
	}
	return name
}

func (t Table) String() string { return t.program() + " table " + t.Name }

// Names go into a script and into the language of the tools.
var (
	nameOK   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$`)
	sysctlOK = regexp.MustCompile(`^[A-Za-z0-9_-]+(/[A-Za-z0-9_.:@-]+)+$`)
)

// Validate reports what is wrong with c.
func (c Change) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("guard: "+format, args...)) }
	if len(c.Files)+len(c.Tables)+len(c.Chains)+len(c.NFTables)+len(c.Sysctls) == 0 {
		bad("the change touches nothing: declare what is to be put back")
	}
	for _, name := range c.Files {
		if !strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") || strings.ContainsRune(name, 0) ||
			slices.ContainsFunc(strings.Split(name[1:], "/"), func(e string) bool { return e == "" || e == "." || e == ".." }) {
			bad("file %q: give the absolute path of a file, without . and ..", name)
		}
	}
	table := func(t Table) {
		if t.Flavour != Default && t.Flavour != NFT && t.Flavour != Legacy {
			bad("table %s: unknown flavour %q of iptables", t.Name, t.Flavour)
		}
		if !slices.Contains([]string{"filter", "nat", "mangle", "raw", "security"}, t.Name) {
			bad("iptables has no table %q", t.Name)
		}
	}
	for _, t := range c.Tables {
		table(t)
	}
	for _, ch := range c.Chains {
		table(ch.Table)
		switch {
		case !nameOK.MatchString(ch.Chain):
			bad("chain %q: its name is not one of iptables", ch.Chain)
		case slices.Contains([]string{"INPUT", "OUTPUT", "FORWARD", "PREROUTING", "POSTROUTING"}, ch.Chain):
			bad("chain %s is the kernel's and has rules of many: declare the table, or the own chain that it jumps to", ch.Chain)
		case slices.Contains(c.Tables, ch.Table):
			bad("chain %s: its table is put back whole already", ch.Chain)
		}
	}
	for _, t := range c.NFTables {
		if !slices.Contains([]string{"ip", "ip6", "inet", "arp", "bridge", "netdev"}, t.Family) || !nameOK.MatchString(t.Name) {
			bad("table %q %q is not one of nftables", t.Family, t.Name)
		}
	}
	for _, key := range c.Sysctls {
		if !sysctlOK.MatchString(key) || strings.Contains(key, "..") {
			bad("parameter %q: write it as net/ipv4/ip_forward", key)
		}
	}
	return errors.Join(errs...)
}

// UFW returns the change that is any change by UFW: its files, the tables
// filter of both families, and the parameters of the kernel that it sets when it is
// enabled.
func UFW(ctx context.Context, run firewall.Runner) (Change, error) {
	c := Change{
		What: "UFW",
		Files: []string{
			"/etc/ufw/ufw.conf", "/etc/default/ufw", "/etc/ufw/user.rules", "/etc/ufw/user6.rules",
			"/etc/ufw/before.rules", "/etc/ufw/before6.rules", "/etc/ufw/after.rules", "/etc/ufw/after6.rules",
		},
		Tables: []Table{{Name: "filter"}, {Name: "filter", IPv6: true}},
	}
	out, err := run.Run(ctx, nil, "cat", "/etc/ufw/sysctl.conf")
	if exit, ok := errors.AsType[*firewall.ExitError](err); ok && strings.Contains(exit.Stderr, "No such file") {
		return c, nil
	} else if err != nil {
		return Change{}, fmt.Errorf("guard: read the parameters that UFW sets: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		key, _, ok := strings.Cut(strings.TrimSpace(line), "=")
		key = strings.TrimSpace(key)
		if !ok || strings.HasPrefix(key, "#") || strings.HasPrefix(key, ";") {
			continue
		}
		if !strings.Contains(key, "/") {
			key = strings.ReplaceAll(key, ".", "/")
		}
		c.Sysctls = append(c.Sysctls, key)
	}
	return c, nil
}

// Join returns the change that is all of changes.
func Join(changes ...Change) Change {
	var all Change
	var what []string
	for _, c := range changes {
		what = append(what, c.What)
		all.Files = appendNew(all.Files, c.Files)
		all.Tables = appendNew(all.Tables, c.Tables)
		all.NFTables = appendNew(all.NFTables, c.NFTables)
		all.Sysctls = appendNew(all.Sysctls, c.Sysctls)
		all.Chains = appendNew(all.Chains, c.Chains)
	}
	all.Chains = slices.DeleteFunc(all.Chains, func(ch Chain) bool { return slices.Contains(all.Tables, ch.Table) })
	all.What = strings.Join(what, ", ")
	return all
}

func appendNew[T comparable](to, from []T) []T {
	for _, x := range from {
		if !slices.Contains(to, x) {
			to = append(to, x)
		}
	}
	return to
}
