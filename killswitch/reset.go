package killswitch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// ErrNotOff reports a reset by which something would go on that was to be
// stopped.
var ErrNotOff = errors.New("killswitch: a target is not off, and would go on")

// ErrBusy reports a reset while the agent is being stopped.
var ErrBusy = errors.New("killswitch: the agent is being stopped")

// Reset lets the agent run again. It starts nothing: that is for whoever starts
// agents, whom the fence will let.
//
// It is refused, and the agent stays stopped, unless secret is the one of
// [SetResetSecret] and epoch that of the kill; while a kill is under way; while
// an observer sees that something of a target is on; while an observer cannot
// look at a target of which an actuator is a [Releaser]; if an actuator cannot
// be released; and if the reset cannot be recorded in the trail. Where it is
// cut off, the agent stays stopped too.
//
// The error wraps [ErrSecret], [ErrTooManyAttempts], [ErrEpoch],
// [ErrNotEngaged], [ErrBusy], [ErrNotOff], [ErrTrail] or [ErrNotDurable], or
// says what could not be released.
func (s *Switch) Reset(ctx context.Context, epoch uint64, secret string) error {
	fires, err := s.beginReset()
	if err != nil {
		return err
	}
	defer func() {
		s.mu.Lock()
		s.resetting = false
		s.mu.Unlock()
	}()
	if err := s.checkSecret(ctx, secret); err != nil {
		s.refused(ctx, epoch, err)
		return err
	}
	if err := s.mayReset(ctx, epoch); err != nil {
		s.refused(ctx, epoch, err)
		return err
	}
	if err := s.record(ctx, s.resetEvent(ctx, epoch, trail.OutcomeBegin, "")); err != nil {
		return fmt.Errorf("%w: the reset of %s, which is therefore refused: %w", ErrTrail, s.cfg.Agent, err)
	}
	err = s.release(ctx)
	if err == nil {
		err = s.unfence(ctx, epoch, fires)
	}
	outcome := trail.OutcomeOK
	if err != nil {
		outcome = trail.OutcomeError
	}
	if e := s.record(ctx, s.resetEvent(ctx, epoch, outcome, problem(err))); e != nil {
		// That it began is recorded.
		s.log(ctx, slog.LevelError, "the end of the reset is not in the trail", "error", problem(e))
	}
	if err == nil {
		s.log(ctx, slog.LevelWarn, "the agent may run again", "epoch", epoch)
	}
	return err
}

// beginReset keeps Hold from acting, and returns how many kills there were.
func (s *Switch) beginReset() (fires int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil || s.resetting || s.acting > 0 {
		return 0, fmt.Errorf("%w: %s: wait until that is over", ErrBusy, s.cfg.Agent)
	}
	s.resetting = true
	return s.fires, nil
}

// mayReset returns why not.
func (s *Switch) mayReset(ctx context.Context, epoch uint64) error {
	state, err := s.fence.State(s.cfg.Agent)
	switch {
	case err != nil:
		return fmt.Errorf("killswitch: reset %s: the fence cannot be read: fire once more, which repairs it: %w", s.cfg.Agent, err)
	case state.Released:
		return fmt.Errorf("%w: %s", ErrNotEngaged, s.cfg.Agent)
	case state.Epoch != epoch:
		return fmt.Errorf("%w: %s is stopped in epoch %d, and not %d", ErrEpoch, s.cfg.Agent, state.Epoch, epoch)
	}
	errs := make([]error, len(s.targets))
	var looks sync.WaitGroup
	for i, t := range s.targets {
		looks.Go(func() {
			remaining, blind := t.glance(ctx)
			switch {
			case len(remaining) > 0:
				errs[i] = fmt.Errorf("%w: %s: %s", ErrNotOff, t.Name, bounded(strings.Join(slices.Sorted(maps.Keys(remaining)), ", "), maxDetail))
			case blind != "" && len(t.releasers()) > 0:
				errs[i] = fmt.Errorf("%w: %s: nobody can tell: %s", ErrNotOff, t.Name, blind)
			}
		})
	}
	looks.Wait()
	return errors.Join(errs...)
}

func (t *target) releasers() []namedReleaser {
	var all []namedReleaser
	for _, r := range t.rungs {
		for _, a := range r.actuators {
			if rel, ok := a.Actuator.(Releaser); ok {
				all = append(all, namedReleaser{rel, a.name})
			}
		}
	}
	return all
}

type namedReleaser struct {
	Releaser
	name string
}

// release undoes what would keep the agent from running.
func (s *Switch) release(ctx context.Context) error {
	errs := make([]error, len(s.targets))
	var targets sync.WaitGroup
	for i, t := range s.targets {
		targets.Go(func() { errs[i] = t.release(ctx) })
	}
	targets.Wait()
	return errors.Join(errs...)
}

// release undoes the steps of a target, the last rung first.
func (t *target) release(ctx context.Context) error {
	var errs []error
	ctx, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	for _, r := range slices.Backward(t.releasers()) {
		if said := try(ctx, r.name, r.Release); said.problem != "" {
			errs = append(errs, fmt.Errorf("killswitch: target %s: %s is not released: %s", t.Name, r.name, said.problem))
		}
	}
	return errors.Join(errs...)
}

// unfence releases the fence, last of all. If somebody fired meanwhile, that
// counts.
func (s *Switch) unfence(ctx context.Context, epoch uint64, fires int) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("killswitch: reset %s: %w", s.cfg.Agent, context.Cause(ctx))
	}
	if s.firedSince(fires) {
		return fmt.Errorf("%w: %s: it was fired again", ErrBusy, s.cfg.Agent)
	}
	if err := s.fence.release(ctx, s.cfg.Agent, epoch, "reset of epoch "+strconv.FormatUint(epoch, 10)); err != nil {
		return err
	}
	if s.firedSince(fires) {
		_, err := s.fence.engage(context.WithoutCancel(ctx), FenceState{Agent: s.cfg.Agent, Reason: "fired during a reset", Time: time.Now()}, s.lastEpoch)
		return errors.Join(fmt.Errorf("%w: %s: it was fired again", ErrBusy, s.cfg.Agent), err)
	}
	s.mu.Lock()
	s.last = nil
	s.mu.Unlock()
	return nil
}

func (s *Switch) firedSince(fires int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fires != fires
}

func (s *Switch) resetEvent(ctx context.Context, epoch uint64, outcome trail.Outcome, message string) trail.Event {
	actor := requester(ctx)
	if actor == "" {
		actor = "hardshell"
	}
	return trail.Event{
		Kind: trail.KindReset, Time: time.Now(), Actor: actor, Agent: s.cfg.Agent, Subject: "agent/" + s.cfg.Agent,
		ID: strconv.FormatUint(epoch, 10), Outcome: outcome, Message: bounded(message, maxReason),
	}
}

// refused records a reset that was refused, as far as that can be done.
func (s *Switch) refused(ctx context.Context, epoch uint64, why error) {
	e := s.resetEvent(ctx, epoch, "", problem(why))
	e.Decision = trail.DecisionDeny
	if err := s.record(ctx, e); err != nil {
		s.log(ctx, slog.LevelError, "a reset that was refused is not in the trail", "error", problem(err))
	}
}
