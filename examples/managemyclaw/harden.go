package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// harden is the command of that name.
func (p *program) harden(ctx context.Context, args []string) (int, error) {
	err := p.parse("harden", args, func(fs *flag.FlagSet) {
		fs.BoolVar(&p.plan, "plan", false, "show what would be done, and do nothing")
	})
	if err != nil {
		return failed(err)
	}
	if p.plan && p.format != "text" && p.format != "json" {
		return failed(usageError("a plan is text or json, not %s", p.format))
	}
	d, err := p.deployment()
	if err != nil {
		return failed(err)
	}
	machine := host.Local()
	if p.plan {
		return p.show(harden.Propose(ctx, &machine.View, p.timeout, d.Checks()...))
	}
	if err := os.MkdirAll(p.stateDir, 0o700); err != nil {
		return exitFail, fmt.Errorf("%w (name another directory with --state-dir)", err)
	}
	record, err := os.OpenFile(filepath.Join(p.stateDir, "trail.jsonl"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return exitFail, err
	}
	defer record.Close()

	fixer := harden.Fixer{Trail: &trail.Lines{W: record}, Timeout: p.timeout}
	announce := func(_ harden.Result, plan harden.Plan) bool {
		writePlan(p.stderr, plan)
		return true
	}
	fixes, err := fixer.Fix(ctx, machine, announce, d.Checks()...)
	broken := err != nil
	for _, fix := range fixes {
		id := fix.Before.Info.ID
		switch {
		case fix.Err != nil:
			fmt.Fprintf(p.stderr, "✗ %s: %s\n", id, printable(fix.Err.Error()))
			broken = broken || !fix.Changed
		case fix.Changed:
			fmt.Fprintf(p.stderr, "✓ %s\n", id)
		default: // nothing that a program can do
			fmt.Fprintf(p.stderr, "? %s\n", id)
			writePlan(p.stderr, fix.Plan)
		}
	}
	if err != nil {
		return exitFail, err
	}
	code, err := p.report(ctx, d)
	if err == nil && broken {
		code = exitFail
	}
	return code, err
}

// show writes what could be done.
func (p *program) show(proposals []harden.Proposal) (int, error) {
	code := exitPass
	for _, q := range proposals {
		if q.Err != nil {
			code = exitFail
		}
	}
	if p.format == "json" {
		return code, writePlanJSON(p.stdout, proposals)
	}
	if len(proposals) == 0 {
		fmt.Fprintln(p.stdout, "There is nothing to do.")
	}
	for _, q := range proposals {
		fmt.Fprintf(p.stdout, "%s: %s\n", q.Result.Info.ID, q.Result.Info.Title)
		if q.Err != nil {
			fmt.Fprintf(p.stdout, "  ✗ no plan: %s\n", printable(q.Err.Error()))
			continue
		}
		if len(q.Plan.Actions) == 0 && len(q.Plan.Manual) == 0 {
			fmt.Fprintln(p.stdout, "  by what is planned above")
		}
		writePlan(p.stdout, q.Plan)
	}
	return code, nil
}

// writePlan writes a plan for people.
func writePlan(w io.Writer, plan harden.Plan) {
	for _, a := range plan.Actions {
		c := a.Change()
		fmt.Fprintf(w, "  ▸ %s: %s\n", printable(c.Subject), printable(c.Summary))
		writeLines(w, "    - ", c.Before)
		writeLines(w, "    + ", c.After)
	}
	for _, note := range plan.Notes {
		fmt.Fprintf(w, "    note: %s\n", printable(note))
	}
	for _, step := range plan.Manual {
		fmt.Fprintf(w, "    by hand: %s\n", printable(step))
	}
}

func writeLines(w io.Writer, prefix, text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(w, "%s%s\n", prefix, printable(strings.TrimSuffix(line, "\n")))
	}
}

// printable keeps what a container is named from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) || r == '\n' {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

func writePlanJSON(w io.Writer, proposals []harden.Proposal) error {
	type proposal struct {
		ID      string          `json:"id"`
		Changes []harden.Change `json:"changes"`
		Notes   []string        `json:"notes"`
		Manual  []string        `json:"manual"`
		Error   string          `json:"error,omitempty"`
	}
	out := struct {
		Schema    string     `json:"schema"`
		Proposals []proposal `json:"proposals"`
	}{"hardshell.plan/v1", []proposal{}}
	for _, q := range proposals {
		o := proposal{
			ID: q.Result.Info.ID, Changes: []harden.Change{},
			Notes: append([]string{}, q.Plan.Notes...), Manual: append([]string{}, q.Plan.Manual...),
		}
		for _, a := range q.Plan.Actions {
			o.Changes = append(o.Changes, a.Change())
		}
		if q.Err != nil {
			o.Error = q.Err.Error()
		}
		out.Proposals = append(out.Proposals, o)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}
