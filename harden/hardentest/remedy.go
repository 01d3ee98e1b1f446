package hardentest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host/hosttest"
)

const (
	noRemedy  = skipped("the check has no remedy")
	noActions = skipped("the remedy is manual")
)

var errInjected = errors.New("injected failure")

func (s Subject) plan(ctx context.Context, m *hosttest.Machine) (harden.Plan, error) {
	r, ok := harden.AsRemediator(s.Check)
	if !ok {
		return harden.Plan{}, noRemedy
	}
	p, err := r.Plan(ctx, m.View())
	if err != nil {
		return p, fmt.Errorf("plan: %w", err)
	}
	return p, nil
}

// actions returns the plan for m, which must have actions.
func (s Subject) actions(ctx context.Context, m *hosttest.Machine) (harden.Plan, error) {
	p, err := s.plan(ctx, m)
	if err == nil && len(p.Actions) == 0 {
		err = noActions
	}
	return p, err
}

func (s Subject) apply(ctx context.Context, m *hosttest.Machine, p harden.Plan) error {
	r, _ := harden.AsRemediator(s.Check)
	f := harden.Fixer{Trail: trail.Discard, Timeout: timeout}
	_, err := f.Apply(ctx, m.Host(), r, p)
	return err
}

func (s Subject) fix(ctx context.Context, m *hosttest.Machine) (harden.Plan, error) {
	p, err := s.actions(ctx, m)
	if err != nil {
		return p, err
	}
	if err := s.apply(ctx, m, p); err != nil {
		return p, err
	}
	return p, want(s.evaluate(ctx, m), harden.StatusPass)
}

func planned(ctx context.Context, s Subject) error {
	m := s.Bad()
	p, err := s.plan(ctx, m)
	if err != nil {
		return err
	}
	if len(p.Actions)+len(p.Manual) == 0 {
		return errors.New("got neither actions nor manual steps")
	}
	for range crowd {
		again, err := s.plan(ctx, m)
		if err != nil {
			return err
		}
		if !slices.Equal(changes(p), changes(again)) || !slices.Equal(p.Notes, again.Notes) || !slices.Equal(p.Manual, again.Manual) {
			return errors.New("got one plan, then another")
		}
	}
	return nil
}

func changes(p harden.Plan) []harden.Change {
	all := make([]harden.Change, len(p.Actions))
	for i, a := range p.Actions {
		all[i] = a.Change()
	}
	return all
}

func describe(ctx context.Context, s Subject) error {
	p, err := s.actions(ctx, s.Bad())
	if err != nil {
		return err
	}
	for i, a := range p.Actions {
		switch c := a.Change(); {
		case c.Subject == "":
			return fmt.Errorf("action %d: Subject is empty", i)
		case c.Before == c.After:
			return fmt.Errorf("action %d, on %s: Before and After are the same", i, c.Subject)
		case c != a.Change():
			return fmt.Errorf("action %d, on %s: Change differs from one call to the next", i, c.Subject)
		}
	}
	return nil
}

func stale(ctx context.Context, s Subject) error {
	m := s.Bad()
	p, err := s.actions(ctx, m)
	if err != nil {
		return err
	}
	before := m.Snapshot()
	for i, a := range slices.Backward(p.Actions) {
		err := a.Revert(ctx, m.Host())
		if diff := before.Diff(m.Snapshot()); diff != "" {
			return fmt.Errorf("action %d, reverted without having been applied (error: %v), changed\n%s", i, err, diff)
		}
	}
	for _, a := range p.Actions {
		if err := a.Apply(ctx, m.Host()); err != nil {
			return skipped("the plan cannot be applied")
		}
	}
	before = m.Snapshot()
	err = s.apply(ctx, m, p)
	if diff := before.Diff(m.Snapshot()); diff != "" {
		return fmt.Errorf("applying the plan again (error: %v) changed\n%s", err, diff)
	}
	if !errors.Is(err, harden.ErrStale) {
		return fmt.Errorf("applying the plan again: got error %v, want ErrStale", err)
	}
	return nil
}

func atomicity(ctx context.Context, s Subject) error {
	m := s.Bad()
	if _, err := s.actions(ctx, m); err != nil {
		return err
	}
	if _, err := s.fix(ctx, m); err != nil {
		return skipped("the plan cannot be applied")
	}
	var errs []error
	for n := range m.Changes() {
		m := s.Bad()
		p, err := s.actions(ctx, m)
		if err != nil {
			return err
		}
		before := m.Snapshot()
		m.FailChange(n+1, errInjected)
		err = s.apply(ctx, m, p)
		if _, ok := errors.AsType[*harden.CommitError](err); ok {
			continue // it had been verified by then
		}
		diff := before.Diff(m.Snapshot())
		fixErr, ok := errors.AsType[*harden.FixError](err)
		switch {
		case diff != "":
			errs = append(errs, fmt.Errorf("change %d failed (error: %v), and left\n%s", n+1, err, diff))
		case err == nil:
			errs = append(errs, fmt.Errorf("change %d failed, and the action did not say so", n+1))
		case ok && !fixErr.Reverted:
			errs = append(errs, fmt.Errorf("change %d failed: %w", n+1, err))
		}
	}
	return errors.Join(errs...)
}

func revert(ctx context.Context, s Subject) error {
	m := s.Bad()
	p, err := s.actions(ctx, m)
	if err != nil {
		return err
	}
	before := m.Snapshot()
	for _, a := range p.Actions {
		if err := a.Apply(ctx, m.Host()); err != nil {
			return skipped("the plan cannot be applied")
		}
	}
	for i, a := range slices.Backward(p.Actions) {
		if err := a.Revert(ctx, m.Host()); err != nil {
			return fmt.Errorf("action %d: %w", i, err)
		}
	}
	if diff := before.Diff(m.Snapshot()); diff != "" {
		return fmt.Errorf("after reverting, differs from before:\n%s", diff)
	}
	return nil
}
