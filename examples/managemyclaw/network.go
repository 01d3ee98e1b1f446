package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/firewall/guard"
	"github.com/managemyclaw/hardshell/firewall/iptables"
	"github.com/managemyclaw/hardshell/firewall/nft"
	"github.com/managemyclaw/hardshell/harden/network"
)

// network describes what to look at of the machine's network.
func (p *program) network() *network.Config {
	c := network.Local(p.engine)
	c.Allow = p.allow
	return &c
}

// remedy returns what closes the network. Nobody can undo a change from a
// session that it has cut off, and so the firewall is only changed where a new
// session, or somebody at the console, confirms that there still is a way in.
func (p *program) remedy(ctx context.Context) (*network.Remedy, error) {
	session := p.getenv("SSH_CONNECTION")
	if p.console && session != "" {
		return nil, usageError("this is a session by SSH: leave --console out, and confirm the change from a second one")
	}
	r := &network.Remedy{}
	if session == "" && !p.console {
		return r, nil
	}
	former, err := firewall.LoadPolicy(p.policyFile())
	switch {
	case err == nil:
		r.Former = &former
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	g := p.guard()
	r.Guard, r.Backend, r.Touches = g, p.backend(ctx), touches()
	if r.Boot, err = p.boot(); err != nil {
		return nil, err
	}
	r.Confirm = func(context.Context) error { return nil }
	if session != "" {
		r.Confirm = func(ctx context.Context) error { return p.await(ctx, g) }
	}
	return r, nil
}

func (p *program) guard() *guard.Guard {
	return &guard.Guard{Dir: filepath.Join(p.stateDir, "guard"), Run: firewall.Programs{}, Window: p.window}
}

func (p *program) policyFile() string { return filepath.Join(p.stateDir, "exposure.json") }

// backend keeps the policy by nftables, which covers everything, and by
// DOCKER-USER, where people look.
func (p *program) backend(ctx context.Context) firewall.Backend {
	return firewall.Backends(&nft.Backend{EngineCgroup: p.engineCgroup(ctx)}, &iptables.Backend{Mode: iptables.DockerUserIfAny})
}

// touches declares what backend changes.
func touches() guard.Change {
	c := guard.Change{NFTables: []guard.NFTable{{Family: "inet", Name: "hardshell"}}}
	for _, ipv6 := range []bool{false, true} {
		c.Chains = append(c.Chains, guard.Chain{Table: guard.Table{Name: "filter", IPv6: ipv6}, Chain: "HARDSHELL-USER"})
	}
	return c
}

// engineCgroup returns the control group of the engine's service, or "" if the
// engine is not a service with a group of its own: what else is in the group,
// such as a login, must not be closed with it.
func (p *program) engineCgroup(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	info, err := p.engine.Info(ctx)
	if err != nil || info.PID == 0 {
		return ""
	}
	data, err := os.ReadFile("/proc/" + strconv.Itoa(info.PID) + "/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		// The entry of version 2; see cgroups(7).
		if group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::/"); ok && strings.HasSuffix(group, ".service") {
			return group
		}
	}
	return ""
}

// boot describes how the policy is kept over a restart of the machine.
func (p *program) boot() (*firewall.Units, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	state, err := filepath.Abs(p.stateDir)
	if err != nil {
		return nil, err
	}
	command := func(verb string) []string {
		return []string{program, "firewall", verb, "--state-dir", state, "--docker-host", p.dockerHost}
	}
	return &firewall.Units{
		Restore: command("restore"), Watch: command("watch"), Recover: command("recover"),
		Policy: filepath.Join(state, "exposure.json"),
	}, nil
}

// await tells the operator how to confirm the change that has been made, and
// waits until that is done.
func (p *program) await(ctx context.Context, g *guard.Guard) error {
	st, err := g.Status(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stderr, "The change is made. It is undone in %v unless you can still log in:\n"+
		"leave this session open, open a second one, and run there\n\n    managemyclaw confirm --state-dir %s\n\n",
		st.Left.Round(time.Second), p.stateDir)
	for {
		all, err := g.List(ctx)
		if err != nil {
			return err
		}
		for _, now := range all {
			switch {
			case now.ID != st.ID:
			case now.State == guard.StateConfirmed:
				return nil
			case now.State != guard.StateArmed:
				return fmt.Errorf("nobody has confirmed it: %v", now)
			}
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// confirm is the command of that name.
func (p *program) confirm(ctx context.Context, args []string) (int, error) {
	if err := p.parse("confirm", args, nil); err != nil {
		return exitUsage, err
	}
	session := p.getenv("SSH_CONNECTION")
	if session == "" {
		return exitUsage, usageError("this is no session by SSH, and proves nothing: log in anew, and run it there (sudo must keep SSH_CONNECTION)")
	}
	c, err := guard.ParseSSHConnection(session)
	if err != nil {
		return exitUsage, usageError(err.Error())
	}
	record, e := p.trail(), trail.Event{Kind: trail.KindRemedyCommit, Actor: p.operator(), Subject: "firewall", ID: "confirm", Message: "a session from " + c.Client.String() + " shows that there is a way in", Outcome: trail.OutcomeBegin}
	if err := record.Record(ctx, e); err != nil {
		return exitFail, fmt.Errorf("not confirmed, for it cannot be recorded: %w", err)
	}
	err = p.guard().Confirm(ctx, "", c)
	if err := errors.Join(err, record.done(ctx, e, err)); err != nil {
		return exitFail, err
	}
	fmt.Fprintln(p.stdout, "Confirmed. The change stays.")
	return exitPass, nil
}
