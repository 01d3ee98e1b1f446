package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// propose shows what could be done, and what nobody can say.
func (p *program) propose(ctx context.Context, checks []harden.Check) (int, error) {
	view := &host.Local().View
	now, err := (&audit.Auditor{Timeout: p.timeout, Concurrency: len(checks)}).Run(ctx, view, checks...)
	if err != nil {
		return exitFail, err
	}
	var unknown []harden.Result
	for _, r := range now.Results {
		if r.Status == harden.StatusUnknown {
			unknown = append(unknown, r.Result)
		}
	}
	proposals := append(harden.Propose(ctx, view, p.timeout, checks...), byHand(now.Results, checks)...)
	if ctx.Err() != nil {
		return exitUnknown, errInterrupted
	}
	code := exitPass
	if len(unknown) > 0 {
		code = exitUnknown
	}
	for _, q := range proposals {
		if q.Err != nil || len(q.Plan.Manual) > 0 {
			code = exitFail
		}
	}
	if err := p.recordPlan(ctx, proposals); err != nil {
		return exitFail, err
	}
	if p.format == "json" {
		return code, writeProposalsJSON(p.stdout, proposals, unknown)
	}
	writeProposals(p.stdout, proposals, unknown)
	return code, nil
}

// recordPlan records what is shown, where there is a trail: a plan begins none.
func (p *program) recordPlan(ctx context.Context, proposals []harden.Proposal) error {
	var events []trail.Event
	for _, q := range proposals {
		events = append(events, planEvents(p.operator(), q.Result, q.Plan)...)
	}
	d := p.trail()
	if len(events) == 0 || !d.book.exists() {
		return nil
	}
	return d.record(ctx, events...)
}

// byHand returns what a person must do about checks that fail and have no
// remedy that a program could apply, such as for a credential that an agent has.
func byHand(results []audit.Result, checks []harden.Check) []harden.Proposal {
	var all []harden.Proposal
	for _, r := range results {
		is := func(c harden.Check) bool { return c.Info().ID == r.Info.ID }
		i := slices.IndexFunc(checks, is)
		if r.Status != harden.StatusFail || i < 0 {
			continue
		}
		if _, ok := harden.AsRemediator(checks[i]); ok {
			continue
		}
		q := harden.Proposal{Result: r.Result}
		for _, f := range r.Findings {
			q.Plan.Manual = append(q.Plan.Manual, f.Message+": "+cmp.Or(f.Remedy, "put it right"))
		}
		all = append(all, q)
	}
	return all
}

func writeProposals(w io.Writer, proposals []harden.Proposal, unknown []harden.Result) {
	if len(proposals)+len(unknown) == 0 {
		fmt.Fprintln(w, "There is nothing to do.")
		return
	}
	width, _ := terminalWidth(w)
	var heads, bodies []string
	add := func(mark string, info harden.Info, body string) {
		var head strings.Builder
		wrap(&head, width, mark+" ", info.ID+": "+info.Title)
		heads = append(heads, head.String())
		bodies = append(bodies, body)
	}
	for _, q := range proposals {
		var body strings.Builder
		switch {
		case q.Err != nil:
			wrap(&body, width, "    no plan: ", q.Err.Error())
		case len(q.Plan.Actions) == 0 && len(q.Plan.Manual) == 0:
			fmt.Fprintln(&body, "    by the change above")
		default:
			writePlan(&body, width, q.Plan)
		}
		add("✗", q.Result.Info, body.String())
	}
	for _, r := range unknown {
		var body strings.Builder
		wrap(&body, width, "    not known: ", r.Detail)
		add("?", r.Info, body.String())
	}
	for i, head := range heads {
		fmt.Fprint(w, head)
		if i+1 == len(heads) || bodies[i] != bodies[i+1] { // say it once of all that it is true of
			fmt.Fprint(w, bodies[i])
		}
	}
	fmt.Fprintln(w, "\nThis is a plan. Nothing was changed.")
}

// writePlan writes a plan for people.
func writePlan(w io.Writer, width int, plan harden.Plan) {
	for _, a := range plan.Actions {
		c := a.Change()
		wrap(w, width, "  ▸ ", c.Subject+": "+c.Summary)
		writeChange(w, width, c)
	}
	for _, note := range plan.Notes {
		wrap(w, width, "    note: ", note)
	}
	for _, step := range plan.Manual {
		wrap(w, width, "    by hand: ", step)
	}
}

// writeChange writes what a change is from and to: side by side where each
// line says of one thing, as "thing: state".
func writeChange(w io.Writer, width int, c harden.Change) {
	before, after := lines(c.Before), lines(c.After)
	sideBySide := len(before) == len(after)
	for i := 0; sideBySide && i < len(before); i++ {
		thing, _, ok := strings.Cut(before[i], ": ")
		sideBySide = ok && strings.HasPrefix(after[i], thing+": ")
	}
	if sideBySide {
		for i, line := range before {
			thing, state, _ := strings.Cut(line, ": ")
			wrap(w, width, "    - ", thing+": "+state+" → "+strings.TrimPrefix(after[i], thing+": "))
		}
		return
	}
	for _, line := range before {
		fmt.Fprintf(w, "    - %s\n", printable(line))
	}
	for _, line := range after {
		fmt.Fprintf(w, "    + %s\n", printable(line))
	}
}

func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

func writeProposalsJSON(w io.Writer, proposals []harden.Proposal, unknown []harden.Result) error {
	type proposal struct {
		ID      string          `json:"id"`
		Changes []harden.Change `json:"changes"`
		Notes   []string        `json:"notes"`
		Manual  []string        `json:"manual"`
		Error   string          `json:"error,omitempty"`
	}
	type unknownCheck struct {
		ID     string        `json:"id"`
		Reason harden.Reason `json:"reason"`
		Detail string        `json:"detail"`
	}
	out := struct {
		Schema    string         `json:"schema"`
		Proposals []proposal     `json:"proposals"`
		Unknown   []unknownCheck `json:"unknown"`
	}{"hardshell.plan/v1", []proposal{}, []unknownCheck{}}
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
	for _, r := range unknown {
		out.Unknown = append(out.Unknown, unknownCheck{r.Info.ID, r.Reason, r.Detail})
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}
