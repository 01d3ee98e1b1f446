package harden

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/harden/host"
)

// ErrNoRecorder reports a [Fixer] without a trail: nothing is changed
// unrecorded.
var ErrNoRecorder = errors.New("harden: no trail: set Fixer.Trail, to trail.Discard to do without one")

// DefaultRevertTimeout is how long a [Fixer] gives the undoing of a plan.
const DefaultRevertTimeout = 2 * time.Minute

// A Fixer applies plans as transactions. Its fields must not be changed once
// it is in use; its methods may then be called concurrently for different
// subjects.
type Fixer struct {
	// Trail records each change before and after it is made. Required. If it
	// refuses a record, no further change is made and those made are undone;
	// the undoing itself goes on whatever the trail says.
	Trail trail.Recorder

	// Timeout bounds the check that verifies a plan. Zero means
	// [DefaultTimeout].
	Timeout time.Duration

	// RevertTimeout bounds the undoing. Zero means [DefaultRevertTimeout].
	RevertTimeout time.Duration
}

// A FixError reports a plan that was not carried through.
type FixError struct {
	ID       string // of the check
	Err      error  // why
	Reverted bool   // whether the machine is as it was before
	Revert   error  // why it is not
}

func (e *FixError) Error() string {
	if e.Reverted {
		return fmt.Sprintf("harden: fix %s: %v (everything was undone)", e.ID, e.Err)
	}
	return fmt.Sprintf("harden: fix %s: %v; UNDOING FAILED: %v", e.ID, e.Err, e.Revert)
}

// Unwrap returns the causes.
func (e *FixError) Unwrap() []error {
	if e.Revert == nil {
		return []error{e.Err}
	}
	return []error{e.Err, e.Revert}
}

// A CommitError reports a plan that was carried through and verified, and left
// something behind that should have been cleared away.
type CommitError struct {
	ID  string // of the check
	Err error
}

func (e *CommitError) Error() string {
	return fmt.Sprintf("harden: fix %s: the change holds, but was not cleaned up after: %v", e.ID, e.Err)
}

// Unwrap returns the cause.
func (e *CommitError) Unwrap() error { return e.Err }

// Apply takes the actions of p in order and then runs r again, whose result it
// returns. If r passes, the actions are committed. Otherwise Apply reverts
// what it did, last action first, also when ctx has ended, and returns a
// [*FixError]. An action that panicked is reverted as well, for it may have got
// half-way; if it refuses, the FixError says that undoing failed.
//
// The check examines the machine anew, also in a context of [Share].
func (f *Fixer) Apply(ctx context.Context, h *host.Host, r Remediator, p Plan) (Result, error) {
	if f.Trail == nil {
		return Result{}, ErrNoRecorder
	}
	info, err := infoOf(r)
	if err != nil {
		return Result{}, err
	}
	if h == nil {
		h = new(host.Host)
	}
	id := info.ID
	var done []Action
	for _, a := range p.Actions {
		err := ctx.Err()
		if err == nil {
			err = f.record(ctx, trail.KindRemedyApply, id, a, trail.OutcomeBegin, nil)
		}
		if err != nil {
			return Result{}, f.revert(ctx, h, id, done, err)
		}
		err = contain(func() error { return a.Apply(ctx, h) })
		if _, panicked := errors.AsType[*PanicError](err); err == nil || panicked {
			done = append(done, a) // before recording: a lost record must not lose the action
		}
		if err := errors.Join(err, f.recordOutcome(ctx, trail.KindRemedyApply, id, a, err)); err != nil {
			return Result{}, f.revert(ctx, h, id, done, err)
		}
	}
	res := evaluateAnew(ctx, &h.View, r, f.Timeout)
	if res.Status != StatusPass {
		return res, f.revert(ctx, h, id, done, notEffective(res))
	}
	// From here on nothing is undone: the change has proved good.
	ctx = context.WithoutCancel(ctx)
	var left []error
	for _, a := range done {
		if c, ok := a.(Committer); ok {
			err := contain(func() error { return c.Commit(ctx, h) })
			left = append(left, err, f.record(ctx, trail.KindRemedyCommit, id, a, outcome(err), err))
		}
	}
	if err := errors.Join(left...); err != nil {
		return res, &CommitError{ID: id, Err: err}
	}
	return res, nil
}

// evaluateAnew evaluates c on facts that are listed now, whatever is shared.
func evaluateAnew(ctx context.Context, v *host.View, c Check, timeout time.Duration) Result {
	ctx, done := Share(ctx)
	defer done()
	return Evaluate(ctx, v, c, timeout)
}

func notEffective(res Result) error {
	err := fmt.Errorf("not effective: the check is still %v", res.Status)
	if res.Detail != "" {
		err = fmt.Errorf("%w: %s", err, res.Detail)
	}
	for _, f := range res.Findings {
		err = fmt.Errorf("%w; %s: %s", err, f.Subject, f.Message)
	}
	return err
}

// revert undoes the actions in done. Unlike Apply it goes on if the trail is
// unavailable: a machine left half changed is worse than a gap in the trail.
func (f *Fixer) revert(ctx context.Context, h *host.Host, id string, done []Action, cause error) error {
	timeout := f.RevertTimeout
	if timeout <= 0 {
		timeout = DefaultRevertTimeout
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()

	failed := make([]error, len(done))
	for i, a := range slices.Backward(done) {
		failed[i] = contain(func() error { return a.Revert(ctx, h) })
	}
	lost := []error{cause}
	for i, a := range slices.Backward(done) { // now that the machine is safe
		lost = append(lost, f.record(ctx, trail.KindRemedyRevert, id, a, outcome(failed[i]), failed[i]))
	}
	if errors.Is(cause, ErrUnfinished) {
		failed = append(failed, cause)
	}
	err := errors.Join(failed...)
	return &FixError{ID: id, Err: errors.Join(lost...), Reverted: err == nil, Revert: err}
}

func (f *Fixer) record(ctx context.Context, kind trail.Kind, id string, a Action, outcome trail.Outcome, cause error) error {
	e := trail.Event{Kind: kind, Time: time.Now(), Actor: "hardshell", ID: id, Outcome: outcome}
	err := contain(func() error {
		c := a.Change()
		e.Subject, e.Message = c.Subject, c.Summary
		return nil
	})
	if cause != nil {
		_, e.Message = explain(cause)
	}
	if err = errors.Join(err, contain(func() error { return f.Trail.Record(ctx, e) })); err != nil {
		return fmt.Errorf("harden: record %s: %w", kind, err)
	}
	return nil
}

// recordTimeout bounds the record of what has been done, which is made also
// when the caller has gone.
const recordTimeout = 10 * time.Second

func (f *Fixer) recordOutcome(ctx context.Context, kind trail.Kind, id string, a Action, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	return f.record(ctx, kind, id, a, outcome(err), err)
}

func outcome(err error) trail.Outcome {
	if err != nil {
		return trail.OutcomeError
	}
	return trail.OutcomeOK
}

// contain calls f and turns a panic into an error.
func contain(f func() error) (err error) {
	defer recoverTo(&err)
	return f()
}

// A Proposal is what can be done about one failing check.
type Proposal struct {
	Result Result // what the check says now
	Check  Remediator
	Plan   Plan
	Err    error // why there is no plan
}

// Propose evaluates checks and plans for those that fail and have a remedy. It
// changes nothing. An action that an earlier proposal has already, because one
// change satisfies several checks, is left out of the later ones.
func Propose(ctx context.Context, v *host.View, timeout time.Duration, checks ...Check) []Proposal {
	ctx, done := Share(ctx)
	defer done()
	var all []Proposal
	seen := make(map[Change]bool)
	for _, c := range checks {
		r, ok := withRemedy(c)
		if !ok {
			continue
		}
		p := Proposal{Check: r, Result: Evaluate(ctx, v, c, timeout)}
		if p.Result.Status != StatusFail {
			continue
		}
		p.Plan, p.Err = plan(ctx, v, r)
		var changes []Change
		p.Plan.Actions = slices.DeleteFunc(slices.Clone(p.Plan.Actions), func(a Action) bool {
			var ch Change
			if err := contain(func() error { ch = a.Change(); return nil }); err != nil {
				p.Err = errors.Join(p.Err, fmt.Errorf("harden: describe an action: %w", err))
				return false
			}
			changes = append(changes, ch)
			return seen[ch]
		})
		for _, ch := range changes {
			seen[ch] = true
		}
		all = append(all, p)
	}
	return all
}

// remedied is a check with the remedy of one that it wraps.
type remedied struct {
	Check

	remedy Remediator
}

func (r remedied) Plan(ctx context.Context, v *host.View) (Plan, error) { return r.remedy.Plan(ctx, v) }

// withRemedy returns c as a Remediator that is judged by c itself, which may
// ask more than the check whose remedy it has.
func withRemedy(c Check) (Remediator, bool) {
	if r, ok := c.(Remediator); ok {
		return r, true
	}
	r, ok := AsRemediator(c)
	return remedied{c, r}, ok
}

func planAnew(ctx context.Context, v *host.View, r Remediator) (Plan, error) {
	ctx, done := Share(ctx)
	defer done()
	return plan(ctx, v, r)
}

func plan(ctx context.Context, v *host.View, r Remediator) (p Plan, err error) {
	defer recoverTo(&err)
	return r.Plan(ctx, v)
}

// A Fix is what was done about one failing check.
type Fix struct {
	Before  Result // what the check said
	After   Result // what it says now; equal to Before if nothing was done
	Plan    Plan
	Changed bool  // the plan was applied and holds
	Err     error // what went wrong: a [*FixError], a [*CommitError] or why there is no plan
}

// Fix goes through checks in order. For each that fails and has a remedy it
// makes a plan for the machine as it is by then, shows it to approve, and
// applies it if approve returns true; a nil approve approves everything. One
// fix that fails does not stop the next, unless undoing it failed: then Fix
// stops, for the machine is in nobody's intended state. A plan whose changes
// have failed for an earlier check is not tried again. The checks share what
// they look at until something is changed, as in [Share]; plans are made of the
// machine as it is.
func (f *Fixer) Fix(ctx context.Context, h *host.Host, approve func(Result, Plan) bool, checks ...Check) ([]Fix, error) {
	if f.Trail == nil {
		return nil, ErrNoRecorder
	}
	if err := Validate(checks...); err != nil {
		return nil, err
	}
	if h == nil {
		h = new(host.Host)
	}
	var all []Fix
	var failed []failedPlan
	// What is looked at is looked at once for all checks, until something is
	// changed.
	facts, done := Share(ctx)
	defer func() { done() }()
	for _, c := range checks {
		r, ok := withRemedy(c)
		if !ok {
			continue
		}
		if err := ctx.Err(); err != nil {
			return all, fmt.Errorf("harden: fix: %w", err)
		}
		fix := Fix{Before: Evaluate(facts, &h.View, c, f.Timeout)}
		fix.After = fix.Before
		if fix.Before.Status != StatusFail {
			continue
		}
		fix.Plan, fix.Err = planAnew(ctx, &h.View, r)
		changes := changesOf(fix.Plan)
		if fix.Err == nil {
			fix.Err = triedBefore(fix.Before.Info.ID, changes, failed)
		}
		if fix.Err == nil && len(fix.Plan.Actions) > 0 && (approve == nil || approve(fix.Before, fix.Plan)) {
			var after Result
			after, fix.Err = f.Apply(ctx, h, r, fix.Plan)
			done()
			facts, done = Share(ctx)
			_, leftover := errors.AsType[*CommitError](fix.Err)
			fix.Changed = fix.Err == nil || leftover
			if fix.Changed {
				fix.After = after
			} else {
				failed = append(failed, failedPlan{fix.Before.Info.ID, changes})
			}
		}
		all = append(all, fix)
		if fe, ok := errors.AsType[*FixError](fix.Err); ok && !fe.Reverted {
			return all, fe
		}
	}
	return all, nil
}

// A failedPlan is what was to be changed for a check, in vain.
type failedPlan struct {
	id      string
	changes []Change
}

// triedBefore is an error if the same changes have failed.
func triedBefore(id string, changes []Change, failed []failedPlan) error {
	for _, f := range failed {
		if len(changes) > 0 && slices.Equal(f.changes, changes) {
			return &FixError{ID: id, Err: fmt.Errorf("not tried: the same change has failed for %s", f.id), Reverted: true}
		}
	}
	return nil
}

// changesOf describes the actions of a plan; nil if one cannot be described.
func changesOf(p Plan) []Change {
	var all []Change
	for _, a := range p.Actions {
		if contain(func() error { all = append(all, a.Change()); return nil }) != nil {
			return nil
		}
	}
	return all
}
