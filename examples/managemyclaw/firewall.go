package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/firewall/iptables"
	"github.com/managemyclaw/hardshell/firewall/nft"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/network"
)

// watchInterval is how often the rules are looked at when nothing has happened.
const watchInterval = 5 * time.Second

// firewall is the command of that name: what the units run that keep the policy
// over a restart.
func (p *program) firewall(ctx context.Context, args []string) (int, error) {
	verbs := map[string]func(context.Context) error{"recover": p.recover, "restore": p.restore, "watch": p.watch}
	if len(args) == 0 || verbs[args[0]] == nil {
		return exitUsage, usageError("say what: managemyclaw firewall recover, restore or watch")
	}
	if err := p.parse("firewall "+args[0], args[1:], nil); err != nil {
		return exitUsage, err
	}
	if err := verbs[args[0]](ctx); err != nil {
		return exitFail, err
	}
	return exitPass, nil
}

// recover undoes a change that nobody had confirmed when the machine went down,
// whether that can be recorded or not.
func (p *program) recover(ctx context.Context) error {
	undone, err := p.guard().Recover(ctx)
	e := trail.Event{Kind: trail.KindRemedyRevert, Actor: "hardshell", Subject: "firewall", ID: "firewall recover"}
	var lost error
	for _, st := range undone {
		fmt.Fprintln(p.stdout, printable(st.String()))
		e.Message = st.String()
		lost = errors.Join(lost, p.trail().done(ctx, e, nil))
	}
	if err != nil {
		lost = errors.Join(lost, p.trail().done(ctx, e, err))
	}
	return errors.Join(err, lost)
}

// restore has the kernel keep the policy that was saved. It needs no engine. To
// leave the machine open because it cannot be recorded that it is closed would
// help nobody: that is said, and no more.
func (p *program) restore(ctx context.Context) error {
	b := firewall.Backends(new(nft.Backend), &iptables.Backend{Mode: iptables.DockerUserIfAny})
	policy, err := firewall.Restore(ctx, p.policyFile(), b)
	e := trail.Event{Kind: trail.KindRemedyApply, Actor: "hardshell", Subject: "firewall", ID: "firewall restore", Message: "the policy that was saved"}
	if lost := p.trail().done(ctx, e, err); lost != nil {
		fmt.Fprintf(p.stderr, "managemyclaw: not recorded: %s\n", printable(lost.Error()))
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "%s keeps the policy of %s: %d networks, %d published ports, %d allowed.\n",
		b.Name(), p.policyFile(), len(policy.Networks), len(policy.Published), len(policy.Allow))
	return nil
}

// watch keeps the policy that follows from what the engine publishes, until ctx
// ends. What is allowed is what the saved policy allows.
func (p *program) watch(ctx context.Context) error {
	saved, err := firewall.LoadPolicy(p.policyFile())
	if err != nil {
		return err
	}
	current := func(ctx context.Context) (firewall.Policy, error) {
		ctx, cancel := context.WithTimeout(ctx, p.timeout)
		defer cancel()
		running, err := p.engine.Containers(ctx)
		if errors.Is(err, container.ErrEngine) {
			return saved, nil // it does not run, and publishes nothing
		}
		if err != nil {
			return firewall.Policy{}, err
		}
		networks, err := p.engine.Networks(ctx)
		if err != nil {
			return firewall.Policy{}, err
		}
		now := network.PolicyFor(&network.Machine{Running: running, Networks: networks}, saved.Allow)
		now.Others, now.Strict = saved.Others, saved.Strict
		now = now.Canonical()
		if reflect.DeepEqual(now, saved) {
			return saved, nil
		}
		if err := firewall.SavePolicy(p.policyFile(), now); err != nil {
			fmt.Fprintf(p.stderr, "managemyclaw: %s\n", printable(err.Error())) // it is kept all the same
		}
		saved = now
		return now, nil
	}
	record := p.trail()
	w := &firewall.Watcher{
		Backend:  p.backend(ctx),
		Source:   current,
		Interval: watchInterval,
		Trigger:  p.engine.Changes(ctx),
		Repair:   true,
		Report: func(d firewall.Drift) {
			at := d.Time.UTC().Format(time.RFC3339)
			for _, line := range d.Lines {
				fmt.Fprintf(p.stdout, "%s drift: %s\n", at, printable(line))
			}
			switch {
			case d.Err != nil:
				fmt.Fprintf(p.stdout, "%s not kept: %s\n", at, printable(d.Err.Error()))
			default:
				fmt.Fprintf(p.stdout, "%s kept\n", at)
			}
			if len(d.Lines) == 0 && d.Err == nil {
				return
			}
			e := trail.Event{Kind: trail.KindRemedyApply, Time: d.Time, Actor: "hardshell", Subject: "firewall", ID: "firewall watch", Message: clip("drift: "+strings.Join(d.Lines, "; "), 4<<10)}
			if err := record.done(ctx, e, d.Err); err != nil {
				fmt.Fprintf(p.stderr, "managemyclaw: not recorded: %s\n", printable(err.Error()))
			}
		},
	}
	if err := w.Run(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
