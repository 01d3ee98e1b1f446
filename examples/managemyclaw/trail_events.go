package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/harden"
)

// recordTime is how long what has been done may take to be recorded, also when
// the program has been interrupted.
const recordTime = 10 * time.Second

// operator names who runs the program, as far as the environment says.
func (p *program) operator() string {
	name := cmp.Or(p.getenv("SUDO_USER"), p.getenv("USER"), "uid-"+strconv.Itoa(os.Geteuid()))
	return "operator/" + name
}

// done records what came of something, though ctx may have ended.
func (d *diary) done(ctx context.Context, e trail.Event, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	e.Outcome = trail.OutcomeOK
	if err != nil {
		e.Outcome, e.Message = trail.OutcomeError, err.Error()
	}
	return d.Record(ctx, e)
}

// planEvents says what a plan that was shown is to change, and why.
func planEvents(operator string, r harden.Result, plan harden.Plan) []trail.Event {
	const most = 4 << 10 // of a text, to which plans are cut
	var all []trail.Event
	for _, a := range plan.Actions {
		c := a.Change()
		all = append(all, trail.Event{
			Kind: trail.KindRemedyPlan, Actor: operator, Subject: c.Subject, ID: r.Info.ID, Message: c.Summary,
			Attrs: map[string]string{"before": clip(c.Before, most), "after": clip(c.After, most)},
		})
	}
	return all
}

func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// auditEvents says what an audit came to, and which waivers counted.
func auditEvents(operator string, r *audit.Report) (all []trail.Event, waived bool) {
	var fail, unknown []string
	for _, res := range r.Results {
		switch res.Status {
		case harden.StatusFail:
			fail = append(fail, res.Info.ID)
		case harden.StatusUnknown:
			unknown = append(unknown, res.Info.ID)
		}
		for i, f := range res.Findings {
			w, ok := res.Waiver(i)
			if !ok {
				continue
			}
			waived = true
			all = append(all, trail.Event{
				Kind: trail.KindWaiver, Actor: operator, Subject: f.Subject, ID: cmp.Or(f.ID, res.Info.ID), Message: w.Reason,
				Attrs: map[string]string{"waiver": w.String(), "owner": w.Owner, "expires": w.Expires.UTC().Format(time.RFC3339), "finding": f.Message},
			})
		}
	}
	s := r.Score
	return append(all, trail.Event{
		Kind: trail.KindAudit, Actor: operator, Subject: "machine", Outcome: trail.OutcomeOK,
		Message: fmt.Sprintf("%d of %d points pass, %d fail, %d are unknown, %d are waived", s.Passed, s.Total, s.Failed, s.Unknown, s.Waived),
		Attrs:   map[string]string{"status": r.Worst().String(), "fail": strings.Join(fail, " "), "unknown": strings.Join(unknown, " ")},
	}), waived
}

// recordAudit records an audit where there is a trail: what only looks begins
// none. Only that waivers counted has to be on record: without it, what they
// cover is not known to be answered for.
func (p *program) recordAudit(ctx context.Context, r *audit.Report, code int) int {
	d := p.trail()
	if !d.book.exists() {
		return code
	}
	events, waived := auditEvents(p.operator(), r)
	err := d.record(ctx, events...)
	if err == nil {
		return code
	}
	d.say("managemyclaw: the audit was not recorded: %v", err)
	if waived && code == exitPass {
		return exitUnknown
	}
	return code
}
