package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/killswitch"
)

// drill is the command of that name: it stops a canary as kill would stop the
// agent, and keeps what was seen for point 13.
func (p *program) drill(ctx context.Context, args []string) (int, error) {
	var (
		c    canary
		name string
		real bool
	)
	err := p.parse("drill", args, func(fs *flag.FlagSet) {
		p.switchFlags(fs)
		c.add(fs)
		fs.StringVar(&name, "variant", killswitch.VariantNormal, variantUsage())
		fs.BoolVar(&real, "real", false, "stop the agent itself: it stays stopped until it is reset")
	})
	switch {
	case err != nil:
		return exitUsage, err
	case p.format != "text" && p.format != "json":
		return exitUsage, usageError("what was seen of a drill is text or json, not " + p.format)
	case (c.container == "") != real:
		return exitUsage, usageError("say what is stopped: a container that stands for the agent's, with --canary, or the agent itself, with --real")
	case real && name != killswitch.VariantNormal:
		return exitUsage, usageError("what is real is drilled as it is: leave --variant out")
	case real:
		return p.drillReal(ctx)
	}
	chosen, err := p.chosen(name, c)
	if err != nil {
		return exitUsage, err
	}
	agent, err := p.agentName()
	if err != nil {
		return exitUsage, err
	}
	if err := p.standsFor(ctx, agent, c); err != nil {
		return exitFail, err
	}
	return p.drillAll(ctx, agent, c, chosen)
}

// drillReal stops the agent.
func (p *program) drillReal(ctx context.Context) (int, error) {
	s, err := p.openSwitch()
	if err != nil {
		return exitUsage, err
	}
	defer s.close()
	drill, err := s.Drill(killswitch.WithRequester(ctx, p.operator()), killswitch.Rehearsal{Variant: killswitch.VariantNormal, Real: true})
	return p.shown(drill, err)
}

// drillAll drills one variant after the other. What is there of the canary is
// used up by the first that stops it for good, and left out of the others.
func (p *program) drillAll(ctx context.Context, agent string, c canary, chosen []*variant) (int, error) {
	code, drills := exitPass, []*killswitch.Drill{}
	var errs []error
	for i, v := range chosen {
		if err := ctx.Err(); err != nil {
			errs = append(errs, fmt.Errorf("%s: not drilled: %w", v.name, err))
			code = exitFail
			break
		}
		with := c
		if len(chosen) > 1 && !v.accounts {
			with.user = ""
		}
		d, err := p.rehearse(ctx, agent, with, v, len(chosen) > 1)
		if d != nil && p.format == "json" && len(chosen) > 1 {
			drills = append(drills, d)
			if !d.Passed {
				code = exitFail
			}
			errs = append(errs, beyond(d, err))
			continue
		}
		if i > 0 && p.format == "text" {
			fmt.Fprintln(p.stdout)
		}
		one, err := p.shown(d, err)
		if err != nil {
			err = fmt.Errorf("%s: %w", v.name, err)
		}
		code, errs = max(code, one), append(errs, err)
	}
	if p.format == "json" && len(chosen) > 1 {
		errs = append(errs, p.writeJSON(drills))
	}
	err := errors.Join(errs...)
	if err != nil {
		code = exitFail
	}
	return code, err
}

// beyond returns what went wrong beside that a drill has not passed, which is
// shown.
func beyond(d *killswitch.Drill, err error) error {
	if !d.Passed && !errors.Is(err, killswitch.ErrNotDurable) {
		return nil
	}
	return err
}

// shown shows a drill, and returns what the program exits with.
func (p *program) shown(d *killswitch.Drill, err error) (int, error) {
	if d == nil {
		return exitFail, err
	}
	err = errors.Join(beyond(d, err), p.writeDrill(d))
	if !d.Passed || err != nil {
		return exitFail, err
	}
	return exitPass, nil
}

// rehearse drills a variant on a canary, which it starts if it is told to and it
// does not run.
func (p *program) rehearse(ctx context.Context, agent string, c canary, v *variant, start bool) (*killswitch.Drill, error) {
	if start {
		if err := p.startCanary(ctx, c); err != nil {
			return nil, fmt.Errorf("start the canary again: %w", err)
		}
	}
	s, err := p.newRehearsal(ctx, agent, c, v)
	if err != nil {
		return nil, err
	}
	defer s.close()
	return s.perform(ctx)
}

// perform stops the canary.
func (s *rehearsal) perform(ctx context.Context) (*killswitch.Drill, error) {
	log := slog.New(slog.NewTextHandler(s.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	key, err := s.switchKey()
	if err != nil {
		log.Warn("what was seen is not signed", "err", err)
	}
	sw, err := killswitch.New(killswitch.Config{Agent: s.agent, Dir: s.stateDir, Targets: s.Targets, Trail: s.recorder, Key: key, Logger: log})
	if err != nil {
		return nil, usageError(err.Error())
	}
	d, err := sw.Drill(killswitch.WithRequester(ctx, s.operator()), s.Rehearsal)
	if d != nil && s.unrecorded {
		err = errors.Join(err, s.trail().Record(context.WithoutCancel(ctx), afterwards(d)))
	}
	return d, err
}

// afterwards is what the trail is told of a drill that it was kept from.
func afterwards(d *killswitch.Drill) trail.Event {
	e := trail.Event{
		Kind: trail.KindDrill, Time: time.Now(), Actor: d.By, Agent: d.Agent, Subject: "agent/" + d.Agent,
		ID: d.Variant, Outcome: trail.OutcomeOK, Message: "drill: " + d.Variant + ", in which nothing was recorded",
	}
	if e.Actor == "" {
		e.Actor = "hardshell"
	}
	if !d.Passed {
		e.Outcome = trail.OutcomeError
	}
	return e
}

func (p *program) writeDrill(d *killswitch.Drill) error {
	if p.format == "json" {
		return p.writeJSON(d)
	}
	var b strings.Builder
	width, _ := terminalWidth(p.stdout)
	what := "a canary"
	if d.Real {
		what = "the agent"
	}
	v := variantOf(d.Variant)
	wrap(&b, width, "Drill ", fmt.Sprintf("%s of %s, %s: %s", d.Variant, what, d.Time.UTC().Format(time.RFC3339), v.what))
	b.WriteByte('\n')
	for _, t := range d.Targets {
		writeTarget(&b, width, t)
	}
	var broken []string
	for _, name := range d.Broken {
		broken = append(broken, name+brokenBy(d, name))
	}
	if len(broken) > 0 {
		wrap(&b, width, "• broken, as it has to be: ", strings.Join(broken, ", "))
	}
	for _, name := range d.Lost {
		wrap(&b, width, "• not to be confirmed here: ", name)
	}
	for _, why := range d.Why {
		wrap(&b, width, "✗ ", why)
	}
	for _, left := range d.Left {
		wrap(&b, width, "• left as it is: ", left)
	}
	if d.Passed {
		b.WriteByte('\n')
		wrap(&b, width, "▸ Passed. ", "That is: "+v.passes+".")
	} else {
		fmt.Fprintln(&b, "\n▸ NOT PASSED.")
	}
	_, err := io.WriteString(p.stdout, b.String())
	return err
}

// brokenBy returns what came of something that was broken, in brackets: the end
// of an error, which says why. All of it is in what was written down.
func brokenBy(d *killswitch.Drill, name string) string {
	var why string
	note := func(text string) {
		if why == "" {
			why = text
		}
	}
	if name == trailName {
		note(d.Trail.Error)
	}
	for _, t := range d.Targets {
		for _, a := range t.Tried {
			if a.Actuator == name {
				note(a.Error)
			}
		}
		for _, o := range t.Observers {
			if o.Observer == name {
				note(o.Error)
			}
		}
	}
	if why == "" {
		return ""
	}
	return " (" + strings.TrimSpace(why[strings.LastIndex(why, ": ")+1:]) + ")"
}
