// Package hardentest tests whether a check keeps the contract of package
// harden.
//
// [Run] tests a [harden.Check], and its remedy if it is a [harden.Remediator],
// on machines in memory:
//
//	func TestRootLogin(t *testing.T) {
//		hardentest.Run(t, hardentest.Subject{
//			Check: RootLogin{},
//			Good:  machine("PermitRootLogin no\n"),
//			Bad:   machine("PermitRootLogin yes\n"),
//			Reads: []string{"/etc/ssh/sshd_config"},
//		})
//	}
//
// [RunJudge] tests the judge of a [harden.Each], a function of typed facts, on
// values of that type. [Test] and [TestJudge] do the same without a
// [testing.T].
//
// Each clause of the contract is a rule with a name and a reason; every rule
// is run, and each that is broken is a [*RuleError].
package hardentest

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host/hosttest"
)

// Canary is a secret for fixtures to plant where the check will read it: in a
// file, in what a program prints, in a field of a typed subject. A check that
// repeats it breaks the rule "secret".
const Canary = "CANARY-9b1fd2a7-must-not-be-repeated"

// A Subject is a check to test, and the machines to test it on.
type Subject struct {
	// Check is the check. If it is a [harden.Remediator], or wraps one, its
	// remedy is tested too.
	Check harden.Check

	// Good and Bad return a new machine on which the check passes or fails.
	Good, Bad func() *hosttest.Machine

	// Reads lists the absolute paths of the files and directories on the good
	// machine without which the check cannot decide. It is run once without
	// permission for each.
	Reads []string

	// Commands lists the programs without which the check cannot decide. It
	// is run once without each.
	Commands []string

	// NoSecret says why nothing that the check reads could hold a secret, in
	// which case the machines need no [Canary].
	NoSecret string
}

// Test tests s by every rule. The error joins a [*RuleError] for each that s
// breaks.
func Test(s Subject) error { return testAll(checkRules, s) }

// Run tests s in one subtest for each rule.
func Run(t *testing.T, s Subject) {
	t.Helper()
	runAll(t, checkRules, s)
}

// A JudgeSubject is a judge of typed facts, as [harden.Each] takes it, and the
// facts to test it on.
type JudgeSubject[T any] struct {
	Info  harden.Info
	Judge func(context.Context, T) (harden.Verdict, error)

	// Good and Bad are facts that the judge passes or fails. Needed.
	Good, Bad []T

	// Unknown are facts with something missing, for which the judge must give
	// no verdict, such as a container whose processes could not be listed.
	Unknown []T

	// NoSecret says why the facts cannot hold a secret, in which case they
	// need no [Canary].
	NoSecret string
}

// TestJudge tests s by every rule. The error joins a [*RuleError] for each
// that s breaks.
func TestJudge[T any](s JudgeSubject[T]) error { return testAll(judgeRules[T](), s) }

// RunJudge tests s in one subtest for each rule.
func RunJudge[T any](t *testing.T, s JudgeSubject[T]) {
	t.Helper()
	runAll(t, judgeRules[T](), s)
}

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

func (r rule[S]) apply(s S) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
		if _, ok := errors.AsType[skipped](err); err != nil && !ok {
			err = &RuleError{Rule: r.name, Why: r.why, Err: err}
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	return r.test(ctx, s)
}

func testAll[S any](rules []rule[S], s S) error {
	var errs []error
	for _, r := range rules {
		err := r.apply(s)
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
			err := r.apply(s)
			if why, ok := errors.AsType[skipped](err); ok {
				t.Skip(string(why))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

const (
	// timeout bounds one evaluation; only a broken check takes long.
	timeout = 10 * time.Second
	// grace is how soon a check must return after its context is done.
	grace = 2 * time.Second
	// settle is how long a check may take to reach what it waits for.
	settle = 50 * time.Millisecond
)

// returnsSoon calls f, ends its context once waiting reports true or a little
// time has passed, and reports an error if f then goes on. f panicking is an
// error too.
func returnsSoon(ctx context.Context, waiting func() bool, f func(context.Context)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		var err error
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
			}
			done <- err
		}()
		f(ctx)
	}()
	for deadline := time.Now().Add(settle); len(done) == 0 && !waiting() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	cancel()
	select {
	case err := <-done:
		return err
	case <-time.After(grace):
		return fmt.Errorf("still running %v after its context was done", grace)
	}
}
