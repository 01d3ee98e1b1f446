// Package killswitchtest tests whether an actuator or an observer keeps the
// contract of package killswitch, on the real thing that it is for:
//
//	func TestFreezer(t *testing.T) {
//		killswitchtest.RunActuator(t, killswitchtest.ActuatorSubject{
//			New:   func() (killswitch.Actuator, error) { return NewFreezer(cgroup) },
//			Start: start, Running: running,
//			…
//		})
//	}
//
// [TestActuator] and [TestObserver] do the same without a [testing.T].
//
// Each clause of the contract is a rule with a name and a reason; every rule
// is run, and each that is broken is a [*RuleError].
//
// The package also has a [Thing] in memory, with an [Actuator] and an
// [Observer] that fail as they are told to, to test what uses them.
package killswitchtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// DefaultWithin is what the zero Within of a subject means.
const DefaultWithin = 10 * time.Second

// grace is how soon something must return after its context is done.
const grace = 2 * time.Second

// A RuleError reports that a subject breaks a rule.
type RuleError struct {
	Rule string // its name
	Why  string // the clause of the contract
	Err  error  // what was seen
}

func (e *RuleError) Error() string {
	return fmt.Sprintf("%s: %v\n\t(%s)", e.Rule, e.Err, e.Why)
}

// Unwrap returns what was seen.
func (e *RuleError) Unwrap() error { return e.Err }

// A rule is one clause of the contract.
type rule[S any] struct {
	name string
	why  string
	test func(context.Context, S) error
}

// skipped is the error of a rule that does not apply to a subject.
type skipped string

func (s skipped) Error() string { return string(s) }

func (r rule[S]) apply(ctx context.Context, s S) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
		if _, ok := errors.AsType[skipped](err); err != nil && !ok {
			err = &RuleError{Rule: r.name, Why: r.why, Err: err}
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return r.test(ctx, s)
}

func testAll[S any](ctx context.Context, rules []rule[S], s S) error {
	var errs []error
	for _, r := range rules {
		err := r.apply(ctx, s)
		if _, ok := errors.AsType[skipped](err); !ok {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func runAll[S any](t *testing.T, rules []rule[S], s S) {
	t.Helper()
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			err := r.apply(t.Context(), s)
			if why, ok := errors.AsType[skipped](err); ok {
				t.Logf("does not apply: %s", why)
				return
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// bounded calls f in a goroutine, and reports an error if it goes on for too
// long after ctx is done. A panic of f is an error too.
func bounded(ctx context.Context, f func()) error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("it ended its goroutine")
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
			}
			done <- err
		}()
		f()
		err = nil
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(grace):
		return fmt.Errorf("still running %v after its context was done", grace)
	}
}

// together calls f several times at once.
func together(f func() error) error {
	errs := make([]error, 4)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					errs[i] = fmt.Errorf("panic: %v", p)
				}
			}()
			errs[i] = f()
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// named checks what something is called.
func named(name func() string) error {
	first := name()
	for word := range strings.SplitSeq(first, ".") {
		if word == "" || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
			return fmt.Errorf("%q is not lower-case words joined by dots", first)
		}
	}
	for range 3 {
		if again := name(); again != first {
			return fmt.Errorf("got %q, then %q", first, again)
		}
	}
	return nil
}

func words(m map[string]string) string {
	return strings.Join(slices.Sorted(maps.Keys(m)), ", ")
}
