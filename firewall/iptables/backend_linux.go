package iptables

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strconv"
	"strings"
	"time"

	goiptables "github.com/coreos/go-iptables/iptables"

	"github.com/managemyclaw/hardshell/firewall"
)

// Apply implements [firewall.Backend].
func (b *Backend) Apply(ctx context.Context, p firewall.Policy) error {
	if err := p.Validate(); err != nil {
		return err
	}
	p = p.Canonical()
	return b.do(ctx, "apply", func(s *session) error {
		// What cannot be done is found out before anything is.
		var todo []func() error
		for _, f := range families {
			rs, err := s.save(f)
			if err != nil {
				return err
			}
			user, err := b.user(f, rs)
			if err != nil {
				return err
			}
			want := b.chains(f, p, user)
			todo = append(todo, func() error { return s.install(f, rs, want) })
		}
		for i, change := range todo {
			if err := change(); err != nil {
				if i > 0 {
					err = fmt.Errorf("the rules for IPv4 are changed, those for IPv6 may not be: %w", err)
				}
				return err
			}
		}
		// The effect is what the kernel has.
		lines, err := b.drift(s, p)
		if err == nil && len(lines) > 0 {
			err = fmt.Errorf("the kernel does not have what it was given: %s", strings.Join(lines, "; "))
		}
		return err
	})
}

// Drift implements [firewall.Backend].
func (b *Backend) Drift(ctx context.Context, p firewall.Policy) (lines []string, err error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	p = p.Canonical()
	err = b.do(ctx, "drift", func(s *session) error {
		lines, err = b.drift(s, p)
		return err
	})
	return lines, err
}

func (b *Backend) drift(s *session, p firewall.Policy) (lines []string, err error) {
	for _, f := range families {
		rs, err := s.save(f)
		if err != nil {
			return nil, err
		}
		user, err := b.user(f, rs)
		if err != nil {
			return nil, err
		}
		want := b.chains(f, p, user)
		known := make(map[string]bool)
		for _, c := range want {
			known[c.table+c.name] = true
			for _, line := range c.drift(rs) {
				lines = append(lines, fmt.Sprintf("%v: %s", f, line))
			}
		}
		for _, c := range ours {
			if !known[c.table+c.name] && rs.has(c.table, c.name) {
				lines = append(lines, fmt.Sprintf("%v: %s: chain %s does not belong there", f, c.table, c.name))
			}
		}
	}
	return lines, nil
}

// user reports whether there shall be rules in DOCKER-USER.
func (b *Backend) user(f family, rs ruleset) (bool, error) {
	there := rs.has("filter", dockerUser) && rs.mentions("filter", dockerUser)
	switch {
	case b.Mode == Mangle:
		return false, nil
	case there || b.Precreate:
		return true, nil
	case b.Mode == Both, b.Mode == DockerUserIfAny:
		return false, nil
	case rs.has("filter", dockerUser):
		return false, fmt.Errorf("%v: nothing leads to the chain: %w", f, ErrNoDockerUser)
	}
	return false, fmt.Errorf("%v: %w", f, ErrNoDockerUser)
}

// ours are all chains that any mode makes.
var ours = []chain{
	{table: "mangle", parent: "PREROUTING", name: preroutingChain},
	{table: "mangle", parent: "FORWARD", name: forwardChain},
	{table: "filter", parent: dockerUser, name: userChain},
}

// Remove implements [firewall.Backend].
func (b *Backend) Remove(ctx context.Context) error {
	return b.do(ctx, "remove", func(s *session) error {
		for _, f := range families {
			rs, err := s.save(f)
			if err != nil {
				return err
			}
			for _, c := range ours {
				if err := s.remove(f, rs, c); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// A session is what a method needs to run the programs.
type session struct {
	ctx     context.Context // of the method, which does not outlive it
	run     firewall.Runner
	flavour string // "", "-legacy" or "-nft"
	wait    int    // seconds
	tables  map[family]*goiptables.IPTables
}

// do calls fn on a thread in the namespace, since all of it is of programs that
// inherit theirs.
func (b *Backend) do(ctx context.Context, what string, fn func(*session) error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	wait := b.Wait
	if wait <= 0 {
		wait = DefaultWait
	}
	err := ctx.Err()
	if err == nil {
		err = inNetNS(b.NetNS, func() error {
			s := &session{ctx: ctx, run: firewall.Programs{Timeout: b.Timeout}, wait: max(1, int(wait/time.Second)), tables: make(map[family]*goiptables.IPTables)}
			if err := s.chooseFlavour(); err != nil {
				return err
			}
			return fn(s)
		})
	}
	if err != nil {
		return fmt.Errorf("iptables: %s: %w", what, err)
	}
	return nil
}

// program is such as iptables, iptables-restore or ip6tables-legacy-save.
func (s *session) program(f family, suffix string) string { return f.String() + s.flavour + suffix }

// chooseFlavour finds the flavour that the engine uses: rules of one are in
// the kernel beside those of the other, and chains of one cannot be jumped to
// from the other.
func (s *session) chooseFlavour() error {
	with := ""
	for _, flavour := range []string{"-nft", "-legacy"} {
		out, err := s.run.Run(s.ctx, nil, "iptables"+flavour+"-save")
		if errors.Is(err, exec.ErrNotFound) {
			continue
		}
		if err != nil {
			return explain(err)
		}
		rs, err := parseSave(string(out))
		if err != nil {
			return err
		}
		if !rs.has("filter", "DOCKER") && !rs.has("nat", "DOCKER") {
			continue
		}
		if with != "" {
			return nil // in both: what is called iptables is the one in use
		}
		with = flavour
	}
	s.flavour = with
	return nil
}

func (s *session) save(f family) (ruleset, error) {
	out, err := s.run.Run(s.ctx, nil, s.program(f, "-save"))
	if err != nil {
		return nil, explain(err)
	}
	return parseSave(string(out))
}

// install fills our chains, each table in one transaction, and has their
// parents jump to them first.
func (s *session) install(f family, rs ruleset, want []chain) error {
	var text strings.Builder
	for _, table := range []string{"mangle", "filter"} {
		var lines strings.Builder
		for _, c := range want {
			if c.table != table {
				continue
			}
			if c.parent == dockerUser && !rs.has(table, dockerUser) {
				// Only where there is none: to declare a chain is to flush it.
				fmt.Fprintf(&lines, ":%s - [0:0]\n", dockerUser)
			}
			if filled(rs, c) {
				continue
			}
			fmt.Fprintf(&lines, ":%s - [0:0]\n", c.name)
			for _, rule := range c.rules {
				fmt.Fprintf(&lines, "-A %s %s\n", c.name, rule)
			}
		}
		if lines.Len() > 0 {
			fmt.Fprintf(&text, "*%s\n%sCOMMIT\n", table, lines.String())
		}
	}
	if text.Len() > 0 {
		_, err := s.run.Run(s.ctx, []byte(text.String()), s.program(f, "-restore"), "--noflush", "-w", strconv.Itoa(s.wait))
		if err != nil {
			return explain(err)
		}
	}
	for _, c := range want {
		if err := s.jumpFirst(f, rs, c); err != nil {
			return err
		}
	}
	// What another mode has made would stay otherwise.
	for _, c := range ours {
		wanted := false
		for _, w := range want {
			wanted = wanted || w.name == c.name
		}
		if !wanted {
			if err := s.remove(f, rs, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// filled reports whether the chain holds what it should.
func filled(rs ruleset, c chain) bool {
	have := rs[c.table][c.name]
	if !rs.has(c.table, c.name) || len(have) != len(c.rules) {
		return false
	}
	for i := range have {
		if normal(have[i]) != normal(c.rules[i]) {
			return false
		}
	}
	return true
}

// jumpFirst has the parent jump to the chain before anything else, and once.
func (s *session) jumpFirst(f family, rs ruleset, c chain) error {
	at, first := rs.jumps(c.table, c.parent, c.name)
	if first && len(at) == 1 {
		return nil
	}
	ipt, err := s.goIPTables(f)
	if err != nil {
		return err
	}
	shift := 0
	if !first {
		// Before the others go, so that there always is one.
		if err := ipt.Insert(c.table, c.parent, 1, "-j", c.name); err != nil {
			return explain(err)
		}
		shift = 1
	} else {
		at = at[1:]
	}
	for i := len(at) - 1; i >= 0; i-- { // the last first, as the numbers change
		if err := ipt.DeleteById(c.table, c.parent, at[i]+shift); err != nil {
			return explain(err)
		}
	}
	return nil
}

// remove takes away the jumps to a chain of ours, and the chain.
func (s *session) remove(f family, rs ruleset, c chain) error {
	at, _ := rs.jumps(c.table, c.parent, c.name)
	if len(at) == 0 && !rs.has(c.table, c.name) {
		return nil
	}
	ipt, err := s.goIPTables(f)
	if err != nil {
		return err
	}
	for i := len(at) - 1; i >= 0; i-- {
		if err := ipt.DeleteById(c.table, c.parent, at[i]); err != nil {
			return explain(err)
		}
	}
	if rs.has(c.table, c.name) {
		return explain(ipt.ClearAndDeleteChain(c.table, c.name))
	}
	return nil
}

func (s *session) goIPTables(f family) (*goiptables.IPTables, error) {
	if err := s.ctx.Err(); err != nil {
		return nil, err
	}
	if ipt := s.tables[f]; ipt != nil {
		return ipt, nil
	}
	proto := goiptables.ProtocolIPv4
	if f.v6 {
		proto = goiptables.ProtocolIPv6
	}
	// It takes no context: what bounds it is the time it waits for the lock.
	ipt, err := goiptables.New(goiptables.IPFamily(proto), goiptables.Path(s.program(f, "")), goiptables.Timeout(s.wait))
	if err != nil {
		return nil, err
	}
	s.tables[f] = ipt
	return ipt, nil
}

// explain adds what the caller can do about err, which may be nil.
func explain(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	switch {
	case strings.Contains(text, "Permission denied"), strings.Contains(text, "you must be root"), strings.Contains(text, "Operation not permitted"):
		return fmt.Errorf("run as root, or with CAP_NET_ADMIN and CAP_NET_RAW: %w: %w", fs.ErrPermission, err)
	case strings.Contains(text, "xtables lock"):
		return fmt.Errorf("%w: try again, or raise Wait: %w", ErrLocked, err)
	}
	return err
}
