package firewall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// maxReads is how often the rules are read anew because they changed meanwhile.
const maxReads = 3

// Read reads the rules in the kernel of the machine whose programs run runs: those of
// nftables, and those of both flavours of iptables. What is not installed and
// cannot have rules is left out; what cannot be read is an error. If a program
// is not installed whose rules others may have made in its place,
// [Ruleset.Missing] says so; if none is, the error wraps [exec.ErrNotFound].
//
// Looking changes nothing: iptables-legacy-save lists the tables that exist, and
// does not have the kernel make them.
func Read(ctx context.Context, run Runner) (*Ruleset, error) {
	for n := 1; ; n++ {
		rules, settled, err := readOnce(ctx, run)
		if err != nil || settled || n == maxReads {
			return rules, err
		}
	}
}

// readOnce also reports whether the listings go together.
func readOnce(ctx context.Context, run Runner) (_ *Ruleset, settled bool, err error) {
	r := ruleReader{run: run, found: make(map[string]bool)}
	nft, err := r.list(ctx, "nft", ParseNFT, "-j", "list", "ruleset")
	if err != nil {
		return nil, false, err
	}
	if nft != nil && nft.lacksDetails() {
		text, err := run.Run(ctx, nil, "nft", "list", "ruleset")
		if err != nil {
			return nil, false, fmt.Errorf("firewall: cannot list the rules in the kernel: %w", err)
		}
		nft.addDetails(text)
	}
	ipt := &Ruleset{}
	for _, family := range []string{"ip", "ip6"} {
		part, err := r.iptables(ctx, family)
		if err != nil {
			return nil, false, err
		}
		ipt.tables = append(ipt.tables, part.tables...)
	}
	if len(r.found) == 0 {
		return nil, false, fmt.Errorf("firewall: neither nft nor iptables is installed, so the rules in the kernel cannot be listed: install nftables: %w", exec.ErrNotFound)
	}
	if nft == nil {
		joined, err := Join(ipt)
		if err == nil {
			joined.missing = []string{"nft is not installed: rules that other programs have made in tables of their own are not listed"}
		}
		return joined, true, err
	}
	joined, err := Join(nft, ipt)
	return joined, sameShape(nft, ipt), err
}

type ruleReader struct {
	run   Runner
	found map[string]bool // programs that are installed
}

// list runs a program and parses what it prints. It returns nil if the program
// is not installed.
func (r *ruleReader) list(ctx context.Context, name string, parse func([]byte) (*Ruleset, error), args ...string) (*Ruleset, error) {
	out, err := r.run.Run(ctx, nil, name, args...)
	if errors.Is(err, exec.ErrNotFound) && ctx.Err() == nil {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("firewall: cannot list the rules in the kernel: %w", err)
	}
	rules, err := parse(out)
	if err != nil {
		return nil, fmt.Errorf("%w (from %s)", err, name)
	}
	r.found[name] = true
	return rules, nil
}

// iptables reads both flavours of one family. On a machine with both, programs
// are named after the flavour; on others there is one, which says which it is.
func (r *ruleReader) iptables(ctx context.Context, family string) (*Ruleset, error) {
	all := &Ruleset{}
	prefix := family + "tables"
	legacy, modern := false, false
	for _, name := range []string{prefix + "-nft-save", prefix + "-legacy-save", prefix + "-save"} {
		if legacy && modern {
			break
		}
		isNFT := false
		part, err := r.list(ctx, name, func(data []byte) (*Ruleset, error) {
			isNFT = bytes.Contains(data, []byte("(nf_tables)"))
			return ParseIPTables(family, data)
		})
		if err != nil {
			return nil, err
		}
		if part == nil {
			continue
		}
		switch {
		case strings.Contains(name, "-nft-"):
			modern = true
		case strings.Contains(name, "-legacy-"):
			legacy = true
		case isNFT && modern, !isNFT && legacy:
			continue // seen already
		case isNFT:
			modern = true
		case len(part.tables) > 0:
			legacy = true
		}
		all.tables = append(all.tables, part.tables...)
	}
	if legacy {
		return all, nil
	}
	names, err := r.legacyTables(ctx, family)
	if err != nil {
		return nil, err
	}
	if len(names) > 0 {
		return nil, fmt.Errorf("firewall: the kernel has %s of %s-legacy, and no program that lists them: install iptables: %w",
			strings.Join(names, ", "), prefix, exec.ErrNotFound)
	}
	return all, nil
}

// legacyTables returns the names of the tables of iptables-legacy.
func (r *ruleReader) legacyTables(ctx context.Context, family string) ([]string, error) {
	out, err := r.run.Run(ctx, nil, "cat", "/proc/net/"+family+"_tables_names")
	if exit, ok := errors.AsType[*ExitError](err); ok && strings.Contains(exit.Stderr, "No such file") {
		return nil, nil // the kernel has none
	}
	if err != nil {
		return nil, fmt.Errorf("firewall: cannot tell whether iptables-legacy has tables: %w", err)
	}
	return strings.Fields(string(out)), nil
}
