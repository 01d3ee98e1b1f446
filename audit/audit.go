// Package audit runs many checks of a machine and scores them.
//
// An [Auditor] runs checks side by side, each in isolation, and makes a
// [Report]: a result for each check, a status for each of the 14 points, and a
// [Score]. Package report writes it as text, JSON, SARIF or JUnit.
//
// The score never flatters. A point passes only when something looked, nothing
// failed, nothing remained unknown, and the evidence is of the level that the
// point demands. A point that nothing looked at is unknown.
//
// A [Waiver] lets somebody answer for a known violation for a limited time. It
// covers what was seen and found wrong, never what could not be seen.
package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// DefaultConcurrency is how many checks an [Auditor] runs at once by default.
// Checks mostly wait: for an engine, for the kernel, for a network.
const DefaultConcurrency = 32

// An Auditor runs checks. The zero Auditor is ready for use. Its fields must
// not be changed while it runs; its methods may be called concurrently.
type Auditor struct {
	// Timeout bounds each check. Zero or less means [harden.DefaultTimeout].
	Timeout time.Duration

	// Concurrency bounds how many checks run at once. Zero or less means
	// [DefaultConcurrency].
	Concurrency int

	// Waivers are the violations that somebody answers for.
	Waivers []Waiver

	// Progress, if not nil, is called with the result of each check when it
	// is there: in the order in which they finish, before waivers, one call
	// at a time. It holds up the audit while it runs.
	Progress func(harden.Result)
}

// Run runs checks against v and returns a report with one result for each, in
// their order. If there are waivers, a result of the check [WaiversID] about
// them follows.
//
// The error is non-nil only for what makes the audit meaningless: malformed or
// repeated checks (see [harden.Validate]) or waivers. What a check runs into
// is part of the report. A machine without access, such as a nil View, gives a
// report in which everything is unknown.
//
// When ctx is done, Run returns soon, and what has not finished is unknown, for
// [harden.ReasonCanceled] or [harden.ReasonTimeout]. A check that obeys its
// context is then at an end or about to be; the goroutine of one that does not
// goes on until it returns.
func (a *Auditor) Run(ctx context.Context, v *host.View, checks ...harden.Check) (*Report, error) {
	if err := harden.Validate(checks...); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	for _, c := range checks {
		if c.Info().ID == WaiversID {
			return nil, fmt.Errorf("audit: the ID %q is reserved", WaiversID)
		}
	}
	if err := validateWaivers(a.Waivers); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if v == nil {
		v = new(host.View) // one for all checks: a Source is shared for each View
	}

	started := time.Now()
	results := a.evaluate(ctx, v, checks)
	if len(a.Waivers) > 0 {
		results = applyWaivers(ctx, a.Waivers, results, time.Now())
	}
	return NewReport(started, time.Since(started), results), nil
}

// evaluate runs all checks with at most a.Concurrency at once. Each worker
// takes the next check that nobody has taken, so that thousands of checks cost
// a handful of goroutines.
func (a *Auditor) evaluate(ctx context.Context, v *host.View, checks []harden.Check) []Result {
	ctx, release := harden.Share(ctx)
	defer release()

	workers := a.Concurrency
	if workers <= 0 {
		workers = DefaultConcurrency
	}
	var (
		results  = make([]Result, len(checks))
		next     atomic.Int64
		progress sync.Mutex
		wg       sync.WaitGroup
	)
	for range min(workers, len(checks)) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(checks) {
					return
				}
				res := a.one(ctx, v, checks[i])
				results[i].Result = res
				if a.Progress != nil {
					progress.Lock()
					a.Progress(res)
					progress.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return results
}

func (a *Auditor) one(ctx context.Context, v *host.View, c harden.Check) harden.Result {
	if err := ctx.Err(); err != nil { // do not begin what cannot be finished
		reason := harden.ReasonCanceled
		if errors.Is(err, context.DeadlineExceeded) {
			reason = harden.ReasonTimeout
		}
		return harden.Result{
			Info:    c.Info(),
			Reason:  reason,
			Detail:  fmt.Sprintf("check not started: %v", err),
			Started: time.Now(),
		}
	}
	return harden.Evaluate(ctx, v, c, a.Timeout)
}
