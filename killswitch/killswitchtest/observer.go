package killswitchtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/killswitch"
)

// An ObserverSubject is an observer to test, and the real thing that it looks
// at.
type ObserverSubject struct {
	// New returns an observer that has not been used. Required.
	New func() (killswitch.Observer, error)

	// Start has the thing run, and Stop ends it, both by other means than the
	// actuators that the observer is used with. They do nothing if that is so
	// already. Required.
	Start, Stop func(context.Context) error

	// Running reports whether the thing runs, by other means than the
	// observer. Required.
	Running func(context.Context) (bool, error)

	// Break breaks what the actuators use that the observer is used with,
	// such as a connection to an engine, until restore is called. Required,
	// unless NoBreak says why there is nothing of the kind.
	Break   func() (restore func(), err error)
	NoBreak string

	// Blind returns an observer that cannot look: without permission, or with
	// what it asks gone. Required.
	Blind func() (killswitch.Observer, error)

	// Stuck returns an observer of which something that it asks does not
	// answer. Required, unless NoStuck says why there is no such thing.
	Stuck   func() (killswitch.Observer, error)
	NoStuck string

	// Within is how long it may take until the truth shows, such as the
	// window in which packets are counted. Zero means [DefaultWithin].
	Within time.Duration
}

// TestObserver tests s by every rule. The error joins a [*RuleError] for each
// that s breaks.
func TestObserver(ctx context.Context, s ObserverSubject) error {
	return testAll(ctx, observerRules, s)
}

// RunObserver tests s in one subtest for each rule.
func RunObserver(t *testing.T, s ObserverSubject) {
	t.Helper()
	runAll(t, observerRules, s)
}

var observerRules = []rule[ObserverSubject]{
	{"name", "Name must be lower-case words joined by dots, and always the same", func(_ context.Context, s ObserverSubject) error {
		o, err := s.New()
		if err != nil {
			return err
		}
		return named(o.Name)
	}},
	{"on", "what runs must remain, also before Arm: nothing is confirmed by having looked", func(ctx context.Context, s ObserverSubject) error {
		o, err := s.begin(ctx)
		if err != nil {
			return err
		}
		for range 3 {
			if err := s.seesOn(ctx, o); err != nil {
				return err
			}
		}
		return nil
	}},
	{"off", "when all of it is off nothing must remain, without an error", func(ctx context.Context, s ObserverSubject) error {
		o, err := s.begin(ctx)
		if err != nil {
			return err
		}
		if err := s.stop(ctx); err != nil {
			return err
		}
		return s.seesOff(ctx, o)
	}},
	{"anew", "every look must be a new one: what is back must remain again", func(ctx context.Context, s ObserverSubject) error {
		o, err := s.begin(ctx)
		if err != nil {
			return err
		}
		for n := range 2 {
			if err := errors.Join(s.seesOn(ctx, o), s.stop(ctx), s.seesOff(ctx, o), s.start(ctx)); err != nil {
				return fmt.Errorf("time %d: %w", n+1, err)
			}
		}
		return s.seesOn(ctx, o)
	}},
	{"armed", "Arm must do nothing to the thing, and change nothing of what is seen", func(ctx context.Context, s ObserverSubject) error {
		o, err := s.begin(ctx)
		if err != nil {
			return err
		}
		armer, ok := o.(killswitch.Armer)
		if !ok {
			return skipped("it has nothing to prepare")
		}
		if err := errors.Join(armer.Arm(ctx), armer.Arm(ctx)); err != nil {
			return fmt.Errorf("the error of Arm is %w", err)
		}
		if err := s.runs(ctx, true); err != nil {
			return err
		}
		return errors.Join(s.seesOn(ctx, o), s.stop(ctx), s.seesOff(ctx, o))
	}},
	{"blind", "one that cannot look must return an error: nothing is not the same as nothing seen", func(ctx context.Context, s ObserverSubject) error {
		if s.Blind == nil {
			return errors.New("fixture: Blind is nil")
		}
		if err := s.start(ctx); err != nil {
			return err
		}
		o, err := s.Blind()
		if err != nil {
			return err
		}
		return confirmsNot(ctx, o, s.within())
	}},
	{"cut off", "one that was cut off must not say that nothing remains", func(ctx context.Context, s ObserverSubject) error {
		o, err := s.begin(ctx)
		if err != nil {
			return err
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		return confirmsNot(gone, o, grace)
	}},
	{"deadline", "Remaining must return soon after its context is done, with an error, also if what it asks does not answer", func(ctx context.Context, s ObserverSubject) error {
		if s.Stuck == nil {
			if s.NoStuck == "" {
				return errors.New("fixture: Stuck is nil: say in NoStuck why nothing can be")
			}
			return skipped(s.NoStuck)
		}
		o, err := s.Stuck()
		if err != nil {
			return err
		}
		return confirmsNot(ctx, o, 50*time.Millisecond)
	}},
	{"pure", "looking must change nothing", func(ctx context.Context, s ObserverSubject) error {
		o, err := s.begin(ctx)
		if err != nil {
			return err
		}
		for range 20 {
			_, _, err = remaining(ctx, o, s.within())
			if err != nil {
				return err
			}
		}
		if err := s.runs(ctx, true); err != nil {
			return err
		}
		if err := s.stop(ctx); err != nil {
			return err
		}
		for range 20 {
			_, _, err = remaining(ctx, o, s.within())
			if err != nil {
				return err
			}
		}
		return s.runs(ctx, false)
	}},
	{"concurrent", "Remaining may be called concurrently", func(ctx context.Context, s ObserverSubject) error {
		o, err := s.begin(ctx)
		if err != nil {
			return err
		}
		if err := together(func() error { return s.seesOn(ctx, o) }); err != nil {
			return err
		}
		if err := s.stop(ctx); err != nil {
			return err
		}
		return together(func() error { return s.seesOff(ctx, o) })
	}},
	{"independent", "what the actuators depend on must not keep an observer from telling the truth", independent},
	{"objects", "Objects must name what was seen, also when it is off, and not wait for anybody", objects},
}

func (s ObserverSubject) within() time.Duration {
	if s.Within == 0 {
		return DefaultWithin
	}
	return s.Within
}

// begin starts the thing and returns a new observer.
func (s ObserverSubject) begin(ctx context.Context) (killswitch.Observer, error) {
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	return s.New()
}

func (s ObserverSubject) start(ctx context.Context) error {
	if err := s.Start(ctx); err != nil {
		return fmt.Errorf("fixture: Start: %w", err)
	}
	return s.await(ctx, true)
}

func (s ObserverSubject) stop(ctx context.Context) error {
	if err := s.Stop(ctx); err != nil {
		return fmt.Errorf("fixture: Stop: %w", err)
	}
	return s.await(ctx, false)
}

func (s ObserverSubject) await(ctx context.Context, want bool) error {
	for end := time.Now().Add(s.within()); ; time.Sleep(5 * time.Millisecond) {
		is, err := s.Running(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("fixture: Running: %w", err)
		case is == want:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("fixture: that it runs is %t, and should be %t", is, want)
		}
	}
}

func (s ObserverSubject) runs(ctx context.Context, want bool) error {
	is, err := s.Running(ctx)
	if err != nil {
		return fmt.Errorf("fixture: Running: %w", err)
	}
	if is != want {
		return fmt.Errorf("that the thing runs is %t, and was %t before", is, want)
	}
	return nil
}

// remaining looks once. broken is what is wrong with how it looked.
func remaining(ctx context.Context, o killswitch.Observer, timeout time.Duration) (m map[string]string, err, broken error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// Not the results: who was left to itself may still write to these.
	var seen map[string]string
	var said error
	if broken = bounded(ctx, func() { seen, said = o.Remaining(ctx) }); broken != nil {
		return nil, nil, broken
	}
	return seen, said, nil
}

func confirmsNot(ctx context.Context, o killswitch.Observer, timeout time.Duration) error {
	m, err, broken := remaining(ctx, o, timeout)
	switch {
	case broken != nil:
		return broken
	case err == nil && len(m) == 0:
		return errors.New("it said that nothing remains, without an error")
	case err == nil:
		return errors.New("it returned no error: there may be more than it says")
	}
	return nil
}

// seesOn has o see that the thing runs. That nothing remains may not be said
// even once.
func (s ObserverSubject) seesOn(ctx context.Context, o killswitch.Observer) error {
	for end := time.Now().Add(s.within()); ; time.Sleep(5 * time.Millisecond) {
		m, err, broken := remaining(ctx, o, s.within())
		switch {
		case broken != nil:
			return broken
		case err == nil && len(m) == 0:
			return errors.New("it said that nothing remains, while the thing runs")
		case err == nil:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("the error of Remaining is %w", err)
		}
	}
}

func (s ObserverSubject) seesOff(ctx context.Context, o killswitch.Observer) error {
	for end := time.Now().Add(s.within()); ; time.Sleep(5 * time.Millisecond) {
		m, err, broken := remaining(ctx, o, s.within())
		switch {
		case broken != nil:
			return broken
		case err == nil && len(m) == 0:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("the thing is off, and remaining is %q, error %v", words(m), err)
		}
	}
}

func independent(ctx context.Context, s ObserverSubject) error {
	if s.Break == nil {
		if s.NoBreak == "" {
			return errors.New("fixture: Break is nil: say in NoBreak why the actuators depend on nothing")
		}
		return skipped(s.NoBreak)
	}
	o, err := s.begin(ctx)
	if err != nil {
		return err
	}
	restore, err := s.Break()
	if err != nil {
		return fmt.Errorf("fixture: Break: %w", err)
	}
	defer restore()
	return errors.Join(s.seesOn(ctx, o), s.stop(ctx), s.seesOff(ctx, o))
}

func objects(ctx context.Context, s ObserverSubject) error {
	o, err := s.begin(ctx)
	if err != nil {
		return err
	}
	l, ok := o.(killswitch.Lister)
	if !ok {
		return skipped("it does not name objects")
	}
	if err := s.seesOn(ctx, o); err != nil {
		return err
	}
	m, err, broken := remaining(ctx, o, s.within())
	if err := errors.Join(err, broken); err != nil {
		return err
	}
	if err := errors.Join(s.stop(ctx), s.seesOff(ctx, o)); err != nil {
		return err
	}
	var all []string
	now, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := bounded(now, func() { all = l.Objects() }); err != nil {
		return err
	}
	for name := range m {
		if !slices.Contains(all, name) {
			return fmt.Errorf("%s remained, and is not among the objects", name)
		}
	}
	return nil
}
