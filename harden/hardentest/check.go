package hardentest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/harden/host/hosttest"
)

// checkRules are the contract of a check and of its remedy.
var checkRules = []rule[Subject]{
	{"info", "Info must be valid and the same every time", func(_ context.Context, s Subject) error {
		return validInfo(s.Check)
	}},
	{"good", "the check must pass on the good machine, with evidence of the level that it requires", func(ctx context.Context, s Subject) error {
		res := s.evaluate(ctx, s.Good())
		return errors.Join(want(res, harden.StatusPass), evidenced(res))
	}},
	{"bad", "the check must fail on the bad machine, and say what is wrong with what", func(ctx context.Context, s Subject) error {
		res := s.evaluate(ctx, s.Bad())
		return errors.Join(want(res, harden.StatusFail), explained(res))
	}},
	{"blind", "without access to a machine the result must be unknown", func(ctx context.Context, s Subject) error {
		blind := &host.View{Granted: host.AllPrivileges}
		return want(harden.Evaluate(ctx, blind, s.Check, timeout), harden.StatusUnknown)
	}},
	{"denied", "what may not be read must make the result unknown for lack of privilege: neither absent nor wrong", denied},
	{"tool", "a program that is not installed must make the result unknown for want of the tool", missingTools},
	{"garbled", "a file may hold anything; the check must not panic", garbled},
	{"privilege", "Needs must be the privileges that the check cannot do without, all of them, and known ones", privilege},
	{"canceled", "a check must return soon after its context is done, and conclude nothing from what it did not wait for", canceled},
	{"concurrent", "a check must allow concurrent calls", concurrent},
	{"repeat", "the same machine must get the same result every time", func(ctx context.Context, s Subject) error {
		return s.onBoth(func(m *hosttest.Machine) error {
			return same(func() harden.Result { return s.evaluate(ctx, m) })
		})
	}},
	{"pure", "Run and Plan must change nothing", pure},
	{"secret", "no finding, evidence, error, plan or trail may hold a secret", secret},

	{"idle", "the plan for a machine on which the check passes must be empty", func(ctx context.Context, s Subject) error {
		p, err := s.plan(ctx, s.Good())
		if err == nil && len(p.Actions)+len(p.Manual) > 0 {
			err = fmt.Errorf("got %d actions and the manual steps %q", len(p.Actions), p.Manual)
		}
		return err
	}},
	{"plan", "the plan for a machine on which the check fails must hold actions, or say what a person must do, and be the same every time", planned},
	{"describe", "a change must name its subject, show a difference, and be described the same way every time", describe},
	{"fix", "applying the plan must make the check pass", func(ctx context.Context, s Subject) error {
		_, err := s.fix(ctx, s.Bad())
		return err
	}},
	{"stale", "an action must return ErrStale and change nothing unless the machine is in the state it expects", stale},
	{"atomic", "an action that fails must change nothing: whichever change fails, the machine must be as it was", atomicity},
	{"revert", "reverting the actions must restore the machine exactly", revert},
}

func (s Subject) evaluate(ctx context.Context, m *hosttest.Machine) harden.Result {
	return harden.Evaluate(ctx, m.View(), s.Check, timeout)
}

func (s Subject) onBoth(f func(*hosttest.Machine) error) error {
	var errs []error
	if err := f(s.Good()); err != nil {
		errs = append(errs, fmt.Errorf("on the good machine: %w", err))
	}
	if err := f(s.Bad()); err != nil {
		errs = append(errs, fmt.Errorf("on the bad machine: %w", err))
	}
	return errors.Join(errs...)
}

func validInfo(c harden.Check) error {
	if err := harden.Validate(c); err != nil {
		return err
	}
	if a, b := c.Info(), c.Info(); !reflect.DeepEqual(a, b) {
		return fmt.Errorf("got %+v, then %+v", a, b)
	}
	return nil
}

func want(res harden.Result, status harden.Status) error {
	switch {
	case res.Reason == harden.ReasonPanic:
		return errors.New(res.Detail)
	case res.Status != status:
		return fmt.Errorf("got %s, want %v", words(res), status)
	}
	return nil
}

func words(res harden.Result) string {
	var b strings.Builder
	b.WriteString(res.Status.String())
	if res.Reason != "" {
		fmt.Fprintf(&b, " (%s)", res.Reason)
	}
	if res.Detail != "" {
		fmt.Fprintf(&b, ": %s", res.Detail)
	}
	for _, f := range res.Findings {
		fmt.Fprintf(&b, "; %s: %s", f.Subject, f.Message)
	}
	return b.String()
}

func evidenced(res harden.Result) error {
	for _, e := range res.Evidence {
		if e.Source == "" || e.Observed == "" {
			return fmt.Errorf("evidence without Source or Observed: %+v", e)
		}
	}
	return nil
}

func explained(res harden.Result) error {
	for _, f := range res.Findings {
		if f.Subject == "" || f.Message == "" {
			return fmt.Errorf("finding without Subject or Message: %+v", f)
		}
	}
	return nil
}

func denied(ctx context.Context, s Subject) error {
	var errs []error
	for _, name := range s.Reads {
		if _, err := s.Good().View().Lstat(name); err != nil {
			errs = append(errs, fmt.Errorf("fixture: Reads lists what is not on the good machine: %w", err))
			continue
		}
		res := s.evaluate(ctx, s.Good().Deny(name))
		if res.Status != harden.StatusUnknown || res.Reason != harden.ReasonPrivilege {
			errs = append(errs, fmt.Errorf("without permission for %s: got %s, want unknown (privilege)", name, words(res)))
		}
		// What else is wrong with the bad machine may still be seen.
		res = s.evaluate(ctx, s.Bad().Deny(name))
		if res.Status != harden.StatusUnknown && res.Status != harden.StatusFail {
			errs = append(errs, fmt.Errorf("on the bad machine, without permission for %s: got %s", name, words(res)))
		}
	}
	return errors.Join(errs...)
}

func missingTools(ctx context.Context, s Subject) error {
	var errs []error
	for _, name := range s.Commands {
		res := s.evaluate(ctx, s.Good().Uninstall(name))
		if res.Status != harden.StatusUnknown || res.Reason != harden.ReasonTool {
			errs = append(errs, fmt.Errorf("without the program %s: got %s, want unknown (tool)", name, words(res)))
		}
	}
	return errors.Join(errs...)
}

// garbage is what a file may hold that nobody meant to be there.
var garbage = []string{
	"", "\n", " ", "\x00", "\xff\xfe\n\r\n", "=", "{", "[]", "null", "-1", "99999999999999999999",
	"a\nb c\nd=e\n:", strings.Repeat("x", 1<<16), strings.Repeat("[", 1<<10), strings.Repeat("\n", 1<<10),
}

func garbled(ctx context.Context, s Subject) error {
	for _, name := range s.Reads {
		if _, ok := s.Good().Read(name); !ok {
			continue
		}
		for _, text := range garbage {
			m := s.Good().File(name, text)
			if res := s.evaluate(ctx, m); res.Reason == harden.ReasonPanic {
				return fmt.Errorf("with %.20q in %s: %s", text, name, res.Detail)
			}
			if r, ok := harden.AsRemediator(s.Check); ok {
				_, _ = r.Plan(ctx, m.View()) // a panic is caught above
			}
		}
	}
	return nil
}

func privilege(ctx context.Context, s Subject) error {
	needs := s.Check.Info().Needs
	if unknown := host.AllPrivileges.Missing(needs); unknown != 0 {
		return fmt.Errorf("field Needs holds no privilege by the name of %v: nobody can grant it", unknown)
	}
	m := s.Good()
	m.Lacks = host.AllPrivileges &^ needs
	if res := s.evaluate(ctx, m); res.Status != harden.StatusPass {
		return fmt.Errorf("with no privilege but Needs (%v): got %s, want pass", needs, words(res))
	}
	if needs == 0 {
		return nil
	}
	m = s.Good()
	m.Lacks = needs
	if res := s.evaluate(ctx, m); res.Status != harden.StatusUnknown || res.Reason != harden.ReasonPrivilege {
		return fmt.Errorf("without %v: got %s, want unknown (privilege)", needs, words(res))
	}
	return nil
}

func canceled(ctx context.Context, s Subject) error {
	return s.onBoth(func(m *hosttest.Machine) error {
		m.HangCommands()
		asked := func() bool { return len(m.Calls()) > 0 }
		var v harden.Verdict
		var runErr error
		err := returnsSoon(ctx, asked, func(ctx context.Context) { v, runErr = s.Check.Run(ctx, m.View()) })
		if err != nil {
			return err
		}
		if st := v.Status(); asked() && runErr == nil && (st == harden.StatusPass || st == harden.StatusNotApplicable) {
			return fmt.Errorf("got %v without the output of a program that it ran", st)
		}
		if r, ok := harden.AsRemediator(s.Check); ok {
			asked = func() bool { return false }
			if err := returnsSoon(ctx, asked, func(ctx context.Context) { _, _ = r.Plan(ctx, m.View()) }); err != nil {
				return fmt.Errorf("planning: %w", err)
			}
		}
		return nil
	})
}

const crowd = 16

func concurrent(ctx context.Context, s Subject) error {
	good, bad := s.Good(), s.Bad()
	return together(func() error {
		return errors.Join(
			want(s.evaluate(ctx, good), harden.StatusPass),
			want(s.evaluate(ctx, bad), harden.StatusFail),
		)
	})
}

// together calls f many times at once and returns the first error.
func together(f func() error) error {
	var (
		wg    sync.WaitGroup
		start = make(chan struct{})
		first atomic.Pointer[error]
	)
	for range crowd {
		wg.Go(func() {
			<-start
			if err := f(); err != nil {
				first.CompareAndSwap(nil, &err)
			}
		})
	}
	close(start)
	wg.Wait()
	if err := first.Load(); err != nil {
		return fmt.Errorf("called %d times at once: %w", crowd, *err)
	}
	return nil
}

// same calls f repeatedly and reports a difference between what it returns.
func same(f func() harden.Result) error {
	first := f()
	for range crowd {
		again := f()
		again.Started, again.Elapsed, again.Info = first.Started, first.Elapsed, first.Info
		if !reflect.DeepEqual(first, again) {
			return fmt.Errorf("got %s, then %s, or with other evidence", words(first), words(again))
		}
	}
	return nil
}

func pure(ctx context.Context, s Subject) error {
	return s.onBoth(func(m *hosttest.Machine) error {
		before := m.Snapshot()
		s.evaluate(ctx, m)
		if diff := before.Diff(m.Snapshot()); diff != "" {
			return fmt.Errorf("Run changed\n%s", diff)
		}
		if r, ok := harden.AsRemediator(s.Check); ok {
			_, _ = r.Plan(ctx, m.View())
		}
		if diff := before.Diff(m.Snapshot()); diff != "" {
			return fmt.Errorf("Plan changed\n%s", diff)
		}
		return nil
	})
}

func secret(ctx context.Context, s Subject) error {
	if !s.Good().Contains(Canary) && !s.Bad().Contains(Canary) {
		if s.NoSecret != "" {
			return skipped("no secret: " + s.NoSecret)
		}
		return errors.New("fixture: plant hardentest.Canary on the machines, where the check will read it, or set NoSecret to say why none could be there")
	}
	clean := func(what string, x ...any) error {
		if strings.Contains(fmt.Sprintf("%+v", x), Canary) {
			return fmt.Errorf("the %s repeats the canary", what)
		}
		return nil
	}
	var errs []error
	for _, machine := range []func() *hosttest.Machine{s.Good, s.Bad} {
		errs = append(errs, clean("result", s.evaluate(ctx, machine())))
		for _, name := range s.Reads {
			errs = append(errs,
				clean("result without permission for "+name, s.evaluate(ctx, machine().Deny(name))),
				clean("result of failing to read "+name, s.evaluate(ctx, machine().FailRead(name, fs.ErrInvalid))))
		}
		if r, ok := harden.AsRemediator(s.Check); ok {
			m := machine()
			p, err := r.Plan(ctx, m.View())
			for _, a := range p.Actions {
				errs = append(errs, clean("change", a.Change()))
			}
			var log memory
			f := harden.Fixer{Trail: &log, Timeout: timeout}
			_, first := f.Apply(ctx, m.Host(), r, p)
			_, second := f.Apply(ctx, m.Host(), r, p)
			errs = append(errs, clean("plan", p.Notes, p.Manual, err), clean("error of applying the plan", first, second), clean("trail", log.events))
		}
	}
	return errors.Join(errs...)
}

// memory is a trail for one goroutine.
type memory struct{ events []trail.Event }

func (m *memory) Record(_ context.Context, e trail.Event) error {
	m.events = append(m.events, e)
	return nil
}
