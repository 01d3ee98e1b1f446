package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/managemyclaw/hardshell/firewall/guard"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/access"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/host"
)

// harden is the command of that name.
func (p *program) harden(ctx context.Context, args []string) (int, error) {
	err := p.parse("harden", args, func(fs *flag.FlagSet) {
		p.accessFlags(fs)
		fs.BoolVar(&p.plan, "plan", false, "show what would be done, and do nothing")
		fs.BoolVar(&p.console, "console", false, "you are at the machine's console, and changes of its firewall need no new connection\nto confirm them")
		fs.DurationVar(&p.window, "window", guard.DefaultWindow, "time for a new connection to confirm a change of the firewall, before it is undone")
	})
	if err != nil {
		return exitUsage, err
	}
	if p.plan && p.format != "text" && p.format != "json" {
		return exitUsage, usageError(fmt.Sprintf("a plan is text or json, not %s", p.format))
	}
	d, err := p.deployment()
	if err != nil {
		return exitFail, err
	}
	if d.Network.Remedy, err = p.remedy(ctx); err != nil {
		return exitUsage, err
	}
	if client, ok := d.Access.Composio.(access.Changer); ok {
		d.Access.Remedy = &access.Remedy{Composio: client}
	}
	checks := p.withFlags(d.Checks())
	if err := p.choose(ctx, checks); err != nil {
		return exitFail, err
	}
	if p.plan {
		return p.propose(ctx, checks)
	}
	if d.Network.Remedy.Guard == nil {
		fmt.Fprint(p.stderr, "The firewall is left as it is: this is no session by SSH. At the machine's console, say --console.\n\n")
	}
	holds, err := p.fix(ctx, checks)
	if errors.Is(err, context.Canceled) {
		err = errInterrupted
	}
	if err != nil {
		return exitFail, err
	}
	code, err := p.report(ctx, checks)
	if err == nil && !holds {
		code = exitFail
	}
	return code, err
}

// choose makes sure, before anything is changed, that there is an engine which
// has the containers, and that they are meant: an audit looks at all that run,
// but whoever has a database beside the agent does not want it changed.
func (p *program) choose(ctx context.Context, checks []harden.Check) error {
	within, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	found, err := p.engine.Containers(within, p.containers...)
	switch {
	case ctx.Err() != nil:
		return errInterrupted
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the container engine at %s does not answer within %v", p.dockerHost, p.timeout)
	case errors.Is(err, container.ErrNoContainer) && harden.Evaluate(ctx, &host.Local().View, checks[0], p.timeout).Status == harden.StatusFail:
		return nil // a run was cut off while the old container had another name, and is in the plan
	case err != nil:
		return err
	}
	if len(p.containers) == 0 && len(found) > 1 {
		var names []string
		for _, c := range found {
			names = append(names, c.Name)
		}
		return usageError(fmt.Sprintf("%d containers run here: say which are the agent's, with --container %s", len(names), strings.Join(names, ",")))
	}
	return nil
}

// fix does what can be done. It reports whether all that it did holds.
func (p *program) fix(ctx context.Context, checks []harden.Check) (holds bool, err error) {
	if err := os.MkdirAll(p.stateDir, 0o700); err != nil {
		return false, fmt.Errorf("%w (name another directory with --state-dir)", err)
	}
	record := p.trail()
	if err := record.ready(ctx); err != nil {
		return false, fmt.Errorf("nothing is changed, for it cannot be recorded: %w", err)
	}
	width, _ := terminalWidth(p.stderr)
	var unrecorded error
	announce := func(r harden.Result, plan harden.Plan) bool {
		if unrecorded != nil {
			return false
		}
		writePlan(p.stderr, width, plan)
		if unrecorded = record.record(ctx, planEvents(p.operator(), r, plan)...); unrecorded != nil {
			return false // what cannot be recorded is not made
		}
		fmt.Fprint(p.stderr, "\nMaking the change. It is undone unless it proves good, and if you interrupt it.\n\n")
		return true
	}
	fixer := harden.Fixer{Trail: record, Timeout: p.timeout}
	fixes, err := fixer.Fix(ctx, host.Local(), announce, checks...)
	if err = errors.Join(err, unrecorded); unrecorded != nil {
		return false, fmt.Errorf("nothing more is changed, for it cannot be recorded: %w", err)
	}
	holds = err == nil
	for _, fix := range fixes {
		info := fix.Before.Info
		switch {
		case fix.Err != nil:
			fmt.Fprintf(p.stderr, "✗ %s\n", printable(fix.Err.Error()))
			holds = holds && fix.Changed // else it holds, and something was left behind
		case fix.Changed:
			fmt.Fprintf(p.stderr, "✓ %s: done\n", info.ID)
		default: // nothing that a program can do
			fmt.Fprintf(p.stderr, "? %s\n", info.ID)
			writePlan(p.stderr, width, fix.Plan)
		}
	}
	fmt.Fprintln(p.stderr)
	return holds, err
}
