// Package networktest tests whether a [network.Vantage] keeps its contract.
//
//	func TestMyVantage(t *testing.T) {
//		networktest.Run(t, networktest.Subject{
//			Vantage: mine,
//			Open:    netip.MustParseAddrPort("192.0.2.1:22"),
//			Refused: netip.MustParseAddrPort("192.0.2.1:23"),
//			Silent:  netip.MustParseAddrPort("192.0.2.1:24"),
//		})
//	}
package networktest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/harden/network"
)

// A Subject is a vantage to test, and what it can see.
type Subject struct {
	Vantage network.Vantage

	// Open, Refused and Silent are TCP ports that the vantage reaches, that
	// refuse it, and from which nothing comes back. All are needed.
	Open, Refused, Silent netip.AddrPort
}

// patience is how long a vantage has to return when its context has ended.
const patience = 500 * time.Millisecond

// A rule is a clause of the contract.
type rule struct {
	name, why string
	test      func(context.Context, Subject) error
}

var rules = []rule{
	{"name", "a vantage must have a name, the same every time", func(_ context.Context, s Subject) error {
		if n := s.Vantage.Name(); n == "" || n != s.Vantage.Name() {
			return fmt.Errorf("got %q, then %q", n, s.Vantage.Name())
		}
		return nil
	}},
	{"open", "a port that answers must be open", func(ctx context.Context, s Subject) error { return s.want(ctx, s.Open, network.ReachOpen) }},
	{"refused", "a port that refuses must be refused", func(ctx context.Context, s Subject) error { return s.want(ctx, s.Refused, network.ReachRefused) }},
	{"silent", "silence must be an answer, and no error", func(ctx context.Context, s Subject) error { return s.want(ctx, s.Silent, network.ReachSilent) }},
	{"canceled", "when the caller's time is up the vantage must return soon, with the error of the context and no answer", canceled},
	{"invalid", "an address that is none must be an error", func(ctx context.Context, s Subject) error {
		r, err := s.Vantage.Probe(ctx, "tcp", netip.AddrPort{})
		if err == nil || r != network.ReachUnknown {
			return fmt.Errorf("got %v, %w", r, err)
		}
		return nil
	}},
	{"concurrent", "concurrent calls must not disturb each other", func(ctx context.Context, s Subject) error {
		targets := []netip.AddrPort{s.Open, s.Refused}
		var alone [2]network.Reach
		for i, to := range targets {
			alone[i], _ = s.Vantage.Probe(ctx, "tcp", to)
		}
		errs := make([]error, 12)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				to := targets[i%2]
				if r, err := s.Vantage.Probe(ctx, "tcp", to); r != alone[i%2] {
					errs[i] = fmt.Errorf("%s: got %v (error: %v), and alone %v", to, r, err, alone[i%2])
				}
			})
		}
		wg.Wait()
		i := slices.IndexFunc(errs, func(err error) bool { return err != nil })
		if i < 0 {
			return nil
		}
		return errs[i]
	}},
}

func (s Subject) want(ctx context.Context, to netip.AddrPort, want network.Reach) error {
	got, err := s.Vantage.Probe(ctx, "tcp", to)
	if err != nil || got != want {
		return fmt.Errorf("%s: got %v (error: %v), want %v", to, got, err, want)
	}
	return nil
}

func canceled(ctx context.Context, s Subject) error {
	done, cancel := context.WithCancel(ctx)
	cancel()
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	for _, ctx := range []context.Context{done, short} {
		begun := time.Now()
		r, err := s.Vantage.Probe(ctx, "tcp", s.Silent)
		if !errors.Is(err, ctx.Err()) || ctx.Err() == nil || r != network.ReachUnknown {
			return fmt.Errorf("got %v (error: %v), want unknown and the error of the context", r, err)
		}
		if took := time.Since(begun); took > patience {
			return fmt.Errorf("it took %v", took)
		}
	}
	return nil
}

// A RuleError reports that a vantage breaks a rule.
type RuleError struct {
	Rule string // its name
	Why  string // the clause of the contract
	Err  error  // what was seen
}

func (e *RuleError) Error() string { return fmt.Sprintf("%s: %v (%s)", e.Rule, e.Err, e.Why) }

// Unwrap returns what was seen.
func (e *RuleError) Unwrap() error { return e.Err }

// Test tests s by every rule. The error joins a [*RuleError] for each that s
// breaks.
func Test(ctx context.Context, s Subject) error {
	var errs []error
	for _, r := range rules {
		if err := r.test(ctx, s); err != nil {
			errs = append(errs, &RuleError{r.name, r.why, err})
		}
	}
	return errors.Join(errs...)
}

// Run tests s in one subtest for each rule.
func Run(t *testing.T, s Subject) {
	t.Helper()
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			if err := r.test(t.Context(), s); err != nil {
				t.Error(&RuleError{r.name, r.why, err})
			}
		})
	}
}
