package harden

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/managemyclaw/hardshell/harden/host"
)

// DefaultTimeout is how long [Evaluate] gives a check by default.
const DefaultTimeout = 30 * time.Second

// grace is how long a check has to return once its context is done.
const grace = 250 * time.Millisecond

// A Result is a verdict and how it came about. Fields may be added in later
// versions.
type Result struct {
	Info     Info
	Status   Status
	Reason   Reason     // why it is unknown; empty for every other status
	Detail   string     // Reason or inapplicability in words, or what could not be examined beside a failure
	Level    Level      // of the evidence for a pass
	Findings []Finding  // of a failure, the worst first
	Evidence []Evidence // of a pass
	Started  time.Time
	Elapsed  time.Duration
}

// Evaluate runs one check in isolation and never panics. timeout bounds it;
// zero or less means [DefaultTimeout].
//
// The result is unknown if the check lacks a privilege that it needs, returns
// an error, panics, takes too long, or passes on evidence weaker than it
// requires. A check that ignores its context is abandoned: its goroutine goes
// on until it returns, and what it returns is ignored.
func Evaluate(ctx context.Context, v *host.View, c Check, timeout time.Duration) Result {
	res := Result{Started: time.Now()}
	info, err := infoOf(c)
	res.Info = info
	var verdict Verdict
	if err == nil {
		verdict, err = run(ctx, v, c, info, timeout)
	}
	res.Elapsed = time.Since(res.Started)
	res.Status, res.Level, res.Detail = verdict.status, verdict.level, verdict.note
	res.Findings, res.Evidence = slices.Clone(verdict.findings), slices.Clone(verdict.evidence)

	switch {
	case verdict.status == StatusFail:
		for i := range res.Findings {
			if f := &res.Findings[i]; f.Severity == SeverityUnspecified {
				f.Severity = info.Severity
			}
		}
		slices.SortStableFunc(res.Findings, func(a, b Finding) int { return int(b.Severity - a.Severity) })
		if err != nil { // seen is seen; say what was not
			_, res.Detail = explain(err)
		}
		return res
	case err != nil:
	case verdict.status == StatusUnknown:
		err = errUndecided
	case verdict.status == StatusPass && verdict.level < info.Requires:
		err = &LevelError{Got: verdict.level, Requires: info.Requires}
	}
	if err != nil {
		res.Status, res.Level = StatusUnknown, LevelDeclared
		res.Reason, res.Detail = explain(err)
	}
	return res
}

func infoOf(c Check) (info Info, err error) {
	defer recoverTo(&err)
	if c == nil {
		return Info{}, errors.New("harden: nil check")
	}
	return c.Info(), nil
}

func run(ctx context.Context, v *host.View, c Check, info Info, timeout time.Duration) (Verdict, error) {
	if v == nil {
		v = &host.View{}
	}
	if missing := v.Granted.Missing(info.Needs); missing != 0 {
		return Verdict{}, &PrivilegeError{Missing: missing}
	}
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ctx, release := shareUnlessShared(ctx)
	defer release()

	type answer struct {
		verdict Verdict
		err     error
	}
	done := make(chan answer, 1) // buffered: an abandoned check can still finish
	go func() {
		var a answer
		defer func() { done <- a }()
		defer recoverTo(&a.err)
		a.verdict, a.err = c.Run(ctx, v)
	}()
	select {
	case a := <-done:
		return a.verdict, a.err
	case <-ctx.Done():
		// A check that obeys is about to say how far it got; what it has seen
		// fail counts.
		last := time.NewTimer(grace)
		defer last.Stop()
		select {
		case a := <-done:
			return a.verdict, a.err
		case <-last.C:
			return Verdict{}, fmt.Errorf("check abandoned: %w", ctx.Err())
		}
	}
}

// explain names the reason for an error of a check, and words it. The methods
// of the error are the check's code too, and may panic.
func explain(err error) (reason Reason, detail string) {
	defer func() {
		if p := recover(); p != nil {
			reason, detail = ReasonPanic, fmt.Sprintf("panic in the error of the check: %v", p)
		}
	}()
	return reasonFor(err), err.Error()
}

// recoverTo is deferred; it turns a panic into a [*PanicError] in *err.
func recoverTo(err *error) {
	if p := recover(); p != nil {
		*err = &PanicError{Value: p, Stack: debug.Stack()}
	}
}
