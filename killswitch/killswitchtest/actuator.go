package killswitchtest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/killswitch"
)

// An ActuatorSubject is an actuator to test, and the real thing that it stops.
type ActuatorSubject struct {
	// New returns an actuator that has not been used: what another process
	// would make. Required.
	New func() (killswitch.Actuator, error)

	// Start has the thing run that the actuator stops, also after it was
	// stopped and released. It does nothing if it runs. Required.
	Start func(context.Context) error

	// Running reports whether the thing runs, and is not what the actuator
	// stops it by: a process that is frozen, or whose packets are dropped,
	// does not. It asks neither the actuator nor an observer. Required.
	Running func(context.Context) (bool, error)

	// Clear undoes what the actuator did, for the next rule. Nil means that
	// Start does all that is needed.
	Clear func(context.Context) error

	// Stuck returns an actuator of which something that it depends on does
	// not answer. Required, unless NoStuck says why there is no such thing.
	Stuck   func() (killswitch.Actuator, error)
	NoStuck string

	// Within is how long an action may take, and its effect. Zero means
	// [DefaultWithin].
	Within time.Duration
}

// TestActuator tests s by every rule. The error joins a [*RuleError] for each
// that s breaks.
func TestActuator(ctx context.Context, s ActuatorSubject) error {
	return testAll(ctx, actuatorRules, s)
}

// RunActuator tests s in one subtest for each rule.
func RunActuator(t *testing.T, s ActuatorSubject) {
	t.Helper()
	runAll(t, actuatorRules, s)
}

var actuatorRules = []rule[ActuatorSubject]{
	{"name", "Name must be lower-case words joined by dots, and always the same", func(_ context.Context, s ActuatorSubject) error {
		a, err := s.New()
		if err != nil {
			return err
		}
		return named(a.Name)
	}},
	{"unarmed", "Do must work before Arm, and have the effect", func(ctx context.Context, s ActuatorSubject) error {
		a, err := s.begin(ctx)
		if err != nil {
			return err
		}
		return s.stops(ctx, a)
	}},
	{"armed", "Arm must do nothing to the thing, may be repeated, and Do must work after it", armed},
	{"idempotent", "Do may be called again after it succeeded, in this process or another", func(ctx context.Context, s ActuatorSubject) error {
		a, err := s.begin(ctx)
		if err != nil {
			return err
		}
		if err := s.stops(ctx, a); err != nil {
			return err
		}
		if err := s.stops(ctx, a); err != nil {
			return fmt.Errorf("again: %w", err)
		}
		other, err := s.New()
		if err != nil {
			return err
		}
		if err := s.stops(ctx, other); err != nil {
			return fmt.Errorf("by another: %w", err)
		}
		return nil
	}},
	{"repeated", "Do must work again when the thing is back, also in the same process", func(ctx context.Context, s ActuatorSubject) error {
		a, err := s.begin(ctx)
		if err != nil {
			return err
		}
		for n := range 3 {
			if err := s.stops(ctx, a); err != nil {
				return fmt.Errorf("time %d: %w", n+1, err)
			}
			if err := s.clear(ctx); err != nil {
				return err
			}
			if err := s.start(ctx); err != nil {
				return err
			}
		}
		return nil
	}},
	{"cut off", "Do must return soon when its context is done, and work afterwards", func(ctx context.Context, s ActuatorSubject) error {
		a, err := s.begin(ctx)
		if err != nil {
			return err
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if err := bounded(gone, func() { _ = a.Do(gone) }); err != nil {
			return err
		}
		return s.stops(ctx, a)
	}},
	{"deadline", "Do must return soon after its context is done, also if what it depends on does not answer", stuckActuator},
	{"concurrent", "Do may be called concurrently", func(ctx context.Context, s ActuatorSubject) error {
		a, err := s.begin(ctx)
		if err != nil {
			return err
		}
		err = together(func() error {
			err := a.Do(ctx)
			if armer, ok := a.(killswitch.Armer); ok {
				_ = armer.Arm(ctx)
			}
			return err
		})
		return errors.Join(err, s.off(ctx))
	}},
	{"release", "Release must undo the step, start nothing, and be idempotent", released},
}

func (s ActuatorSubject) within() time.Duration {
	if s.Within == 0 {
		return DefaultWithin
	}
	return s.Within
}

func (s ActuatorSubject) clear(ctx context.Context) error {
	if s.Clear == nil {
		return nil
	}
	if err := s.Clear(ctx); err != nil {
		return fmt.Errorf("fixture: Clear: %w", err)
	}
	return nil
}

// start starts the thing, which must then run.
func (s ActuatorSubject) start(ctx context.Context) error {
	if err := s.Start(ctx); err != nil {
		return fmt.Errorf("fixture: Start: %w", err)
	}
	return s.wait(ctx, true, errors.New("fixture: the thing does not run after Start"))
}

// begin starts the thing and returns a new actuator.
func (s ActuatorSubject) begin(ctx context.Context) (killswitch.Actuator, error) {
	if err := s.clear(ctx); err != nil {
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	return s.New()
}

// stops has a stop the thing.
func (s ActuatorSubject) stops(ctx context.Context, a killswitch.Actuator) error {
	doing, cancel := context.WithTimeout(ctx, s.within())
	defer cancel()
	var err error
	if e := bounded(doing, func() { err = a.Do(doing) }); e != nil {
		return e
	}
	if err != nil {
		return fmt.Errorf("the error of Do is %w", err)
	}
	return s.off(ctx)
}

func (s ActuatorSubject) off(ctx context.Context) error {
	return s.wait(ctx, false, fmt.Errorf("the thing still runs %v after Do returned nil", s.within()))
}

func (s ActuatorSubject) wait(ctx context.Context, want bool, failure error) error {
	for end := time.Now().Add(s.within()); ; time.Sleep(5 * time.Millisecond) {
		is, err := s.Running(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("fixture: Running: %w", err)
		case is == want:
			return nil
		case time.Now().After(end):
			return failure
		}
	}
}

func armed(ctx context.Context, s ActuatorSubject) error {
	a, err := s.begin(ctx)
	if err != nil {
		return err
	}
	armer, ok := a.(killswitch.Armer)
	if !ok {
		return skipped("it has nothing to prepare")
	}
	for range 2 {
		if err := armer.Arm(ctx); err != nil {
			return fmt.Errorf("the error of Arm is %w", err)
		}
	}
	if is, err := s.Running(ctx); err != nil || !is {
		return errors.Join(errors.New("the thing does not run after Arm"), err)
	}
	return s.stops(ctx, a)
}

func stuckActuator(ctx context.Context, s ActuatorSubject) error {
	if s.Stuck == nil {
		if s.NoStuck == "" {
			return errors.New("fixture: Stuck is nil: say in NoStuck why nothing can be")
		}
		return skipped(s.NoStuck)
	}
	a, err := s.Stuck()
	if err != nil {
		return err
	}
	doing, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	var said error
	if err := bounded(doing, func() { said = a.Do(doing) }); err != nil {
		return err
	}
	if said == nil {
		return errors.New("Do returned nil, though what it depends on did not answer")
	}
	return nil
}

func released(ctx context.Context, s ActuatorSubject) error {
	a, err := s.begin(ctx)
	if err != nil {
		return err
	}
	r, ok := a.(killswitch.Releaser)
	if !ok {
		return skipped("there is nothing to release")
	}
	if err := s.stops(ctx, a); err != nil {
		return err
	}
	first := r.Release(ctx)
	if is, err := s.Running(ctx); err != nil || is {
		return errors.Join(errors.New("the thing runs again after Release, which starts nothing"), err)
	}
	if first != nil {
		return skipped("it said what would go on, and left it: " + first.Error())
	}
	if err := r.Release(ctx); err != nil {
		return fmt.Errorf("again: %w", err)
	}
	if err := s.Start(ctx); err != nil {
		return fmt.Errorf("fixture: Start after Release: %w", err)
	}
	if err := s.wait(ctx, true, errors.New("the thing does not run when it is started after Release")); err != nil {
		return err
	}
	return s.stops(ctx, a)
}
