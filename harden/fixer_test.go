package harden_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/harden/host/hosttest"
)

var (
	errTrail  = errors.New("trail is down")
	errAction = errors.New("action failed")
	errRevert = errors.New("revert failed")
)

// A remedy is a check with a plan.
type remedy struct {
	harden.Check

	plan func(context.Context, *host.View) (harden.Plan, error)
}

func (r *remedy) Plan(ctx context.Context, v *host.View) (harden.Plan, error) { return r.plan(ctx, v) }

// A step turns one file from off to on, with faults.
type step struct {
	harden.EditFile

	w *workshop
	k int
}

func path(k int) string { return fmt.Sprint("/switch/", k) }

func (s step) Apply(ctx context.Context, h *host.Host) error {
	return s.do("apply", func() error { return s.EditFile.Apply(ctx, h) })
}

func (s step) Revert(ctx context.Context, h *host.Host) error {
	if _, ok := ctx.Deadline(); !ok || ctx.Err() != nil {
		s.w.note("revert without time", s.k)
	}
	return s.do("revert", func() error { return s.EditFile.Revert(ctx, h) })
}

func (s step) do(op string, f func() error) error {
	s.w.note(op, s.k)
	if s.w.cancelIn == fmt.Sprint(op, " ", s.k) {
		defer s.w.cancel()
	}
	switch s.w.faults[fmt.Sprint(op, " ", s.k)] {
	case "error":
		return map[string]error{"apply": errAction, "revert": errRevert}[op]
	case "nil error":
		return (*nilError)(nil)
	case "panic":
		panic(op)
	case "panic half-way":
		_ = f()
		panic(op)
	}
	return f()
}

// A workshop is a machine with switches, a check that wants them all on, and a
// trail, each of which can be told to fail. It notes the order of events.
type workshop struct {
	*hosttest.Machine

	faults   map[string]string // by operation and number of the step
	verify   string            // "", "fails", "panics" or "errs": the check once all is on
	failAt   int               // the record that fails; zero means none
	failAll  bool              // and those after it
	cancelIn string            // the operation during which the caller goes away

	cancel  context.CancelFunc
	records int
	log     []string
}

const steps = 3

func newWorkshop() *workshop {
	w := &workshop{Machine: new(hosttest.Machine), cancel: func() {}}
	for k := range steps {
		w.File(path(k), "off")
	}
	return w
}

func (w *workshop) note(op string, k int) { w.log = append(w.log, fmt.Sprint(op, " ", k)) }

func (w *workshop) remedy() *remedy {
	return &remedy{
		Check: check(func(_ context.Context, v *host.View) (harden.Verdict, error) {
			for k := range steps {
				data, err := v.ReadFile(path(k))
				if err != nil || string(data) != "on" {
					return fail, err
				}
			}
			switch w.verify {
			case "fails":
				return fail, nil
			case "panics":
				panic("verify")
			case "errs":
				return pass(0), errLook
			}
			return pass(0), nil
		}),
		plan: func(context.Context, *host.View) (p harden.Plan, _ error) {
			for k := range steps {
				p.Actions = append(p.Actions, step{
					EditFile: harden.EditFile{Path: path(k), Before: []byte("off"), After: []byte("on")}, w: w, k: k,
				})
			}
			return p, nil
		},
	}
}

// Record implements [trail.Recorder].
func (w *workshop) Record(_ context.Context, e trail.Event) error {
	w.records++
	if w.records == w.failAt || w.failAll && w.failAt > 0 && w.records > w.failAt {
		return errTrail
	}
	w.log = append(w.log, strings.TrimPrefix(string(e.Kind), "remedy.")+" "+string(e.Outcome)+" "+strings.TrimPrefix(e.Subject, "/switch/"))
	return nil
}

func (w *workshop) apply(t *testing.T) (harden.Result, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w.cancel = cancel
	r := w.remedy()
	p, err := r.Plan(ctx, w.View())
	require.NoError(t, err)
	f := harden.Fixer{Trail: w}
	return f.Apply(ctx, w.Host(), r, p)
}

// TestApplyIsATransaction makes everything that can fail fail at every place,
// in every combination, and checks what must hold whatever happens.
func TestApplyIsATransaction(t *testing.T) {
	applyFaults, revertFaults := []string{""}, []string{""}
	for k := range steps {
		for _, fault := range []string{"error", "panic", "panic half-way", "nil error"} {
			applyFaults = append(applyFaults, fmt.Sprint("apply ", k, "=", fault))
		}
		for _, fault := range []string{"error", "panic"} {
			revertFaults = append(revertFaults, fmt.Sprint("revert ", k, "=", fault))
		}
	}
	const allRecords = 2*steps + steps
	for _, verify := range []string{"", "fails", "panics", "errs"} {
		for _, cancelIn := range []string{"", "apply 1", "revert 1"} {
			for _, applyFault := range applyFaults {
				for _, revertFault := range revertFaults {
					if (verify == "panics" || verify == "errs") && applyFault+revertFault != "" {
						continue // as with "fails"
					}
					for n := range allRecords + 1 {
						w := newWorkshop()
						w.verify, w.cancelIn, w.failAt, w.failAll = verify, cancelIn, n, n%2 == 0
						w.faults = make(map[string]string)
						for _, f := range []string{applyFault, revertFault} {
							if op, fault, ok := strings.Cut(f, "="); ok {
								w.faults[op] = fault
							}
						}
						before := w.Snapshot()
						res, err := w.apply(t)
						if bad := violated(w, before.Equal(w.Snapshot()), applyFault, revertFault, res, err); bad != "" {
							t.Fatalf("%s\nverify %q, cancel %q, faults %q %q, record %d fails\nerror: %v\nlog: %q\n%s",
								bad, verify, cancelIn, applyFault, revertFault, n, err, w.log, before.Diff(w.Snapshot()))
						}
					}
				}
			}
		}
	}
}

// violated names an invariant that does not hold.
func violated(w *workshop, unchanged bool, applyFault, revertFault string, res harden.Result, err error) string {
	on := 0
	for k := range steps {
		if s, _ := w.Read(path(k)); s == "on" {
			on++
		}
	}
	fe, failed := errors.AsType[*harden.FixError](err)
	panicked := strings.Contains(applyFault, "panic") && slices.Contains(w.log, applyFault[:len("apply 0")])
	recordFailed := w.failAt > 0 && w.records >= w.failAt
	switch {
	case err == nil && (on != steps || res.Status != harden.StatusPass):
		return "success, and not all is changed and verified"
	case err != nil && !failed:
		return "an error that is no FixError"
	case failed && fe.Reverted && !unchanged:
		return "a claim that all was undone, and it was not"
	case failed && !fe.Reverted && fe.Revert == nil:
		return "undoing failed for no reason"
	case failed && !fe.Reverted && revertFault == "" && !panicked:
		return "undoing failed without a fault"
	case recordFailed && !errors.Is(err, errTrail):
		return "a failed record was swallowed"
	case strings.HasSuffix(applyFault, "=error") && slices.Contains(w.log, applyFault[:len("apply 0")]) && !errors.Is(err, errAction):
		return "the failure of an action was swallowed"
	case w.verify != "" && err == nil:
		return "success without verification"
	}

	var applied, reverted []string
	for i, entry := range w.log {
		op, k, _ := strings.Cut(entry, " ")
		switch {
		case strings.HasPrefix(entry, "revert without time"):
			return "a revert in a context without time left, or without a limit"
		case entry == "apply "+k && len(k) == 1:
			if i == 0 || w.log[i-1] != "apply begin "+k {
				return "a change without a record of its beginning"
			}
			if w.cancelIn != "" && slices.Contains(w.log[:i], w.cancelIn) {
				return "a change begun for a caller that has gone"
			}
			if fault := w.faults[entry]; fault == "" || strings.HasPrefix(fault, "panic") {
				applied = append(applied, k)
			}
		case op == "revert" && len(k) == 1:
			reverted = append(reverted, k)
		case op == "revert" && len(reverted) < len(applied):
			return "records before all is undone"
		case op == "commit" && failed:
			return "a commit of what failed"
		}
	}
	slices.Reverse(applied)
	if failed && !slices.Equal(applied, reverted) {
		return fmt.Sprintf("reverted %v, want %v", reverted, applied)
	}
	if !failed && len(reverted) > 0 {
		return "success, and yet something was undone"
	}
	return ""
}

func TestApplyRecordsInOrder(t *testing.T) {
	w := newWorkshop()
	res, err := w.apply(t)
	require.NoError(t, err)
	assert.Equal(t, harden.StatusPass, res.Status)
	assert.Equal(t, []string{
		"apply begin 0", "apply 0", "apply ok 0",
		"apply begin 1", "apply 1", "apply ok 1",
		"apply begin 2", "apply 2", "apply ok 2",
	}, w.log)

	w = newWorkshop()
	w.faults = map[string]string{"apply 1": "error", "revert 0": "error"}
	_, err = w.apply(t)
	assert.Equal(t, []string{
		"apply begin 0", "apply 0", "apply ok 0",
		"apply begin 1", "apply 1", "apply error 1",
		"revert 0", "revert error 0",
	}, w.log)
	require.ErrorIs(t, err, errAction)
	require.ErrorIs(t, err, errRevert)
	assert.EqualError(t, err, "harden: fix test.check: action failed; UNDOING FAILED: revert failed")
}

func TestApplySaysWhyItIsNotEffective(t *testing.T) {
	w := newWorkshop()
	w.verify = "fails"
	res, err := w.apply(t)
	assert.Equal(t, harden.StatusFail, res.Status)
	assert.EqualError(t, err, "harden: fix test.check: not effective: the check is still fail; subject: message (everything was undone)")
}

func TestApplyWithoutTrail(t *testing.T) {
	w := newWorkshop()
	r := w.remedy()
	p, _ := r.Plan(t.Context(), w.View())
	before := w.Snapshot()
	_, err := new(harden.Fixer).Apply(t.Context(), w.Host(), r, p)
	require.ErrorIs(t, err, harden.ErrNoRecorder)
	_, err = new(harden.Fixer).Fix(t.Context(), w.Host(), nil, r)
	require.ErrorIs(t, err, harden.ErrNoRecorder)
	assert.Empty(t, before.Diff(w.Snapshot()))
}

// blind changes something that is not reached through the host.
type blind struct{ on *bool }

func (blind) Change() harden.Change                          { return harden.Change{Subject: "blind"} }
func (b blind) Apply(context.Context, *host.Host) error      { *b.on = true; return nil }
func (b blind) Revert(_ context.Context, _ *host.Host) error { *b.on = false; return nil }

type shy struct{ blind }

func (shy) Change() harden.Change { panic("shy") }

func TestApplyOddPlans(t *testing.T) {
	f := harden.Fixer{Trail: trail.Discard}
	readsHost := &remedy{Check: check(func(_ context.Context, v *host.View) (harden.Verdict, error) {
		_, err := v.ReadFile("/f")
		return pass(0), err
	})}
	for name, plan := range map[string]func(*bool) []harden.Action{
		"a nil host":                 func(on *bool) []harden.Action { return []harden.Action{blind{on}} },
		"a nil action":               func(on *bool) []harden.Action { return []harden.Action{blind{on}, nil} },
		"an action that cannot tell": func(on *bool) []harden.Action { return []harden.Action{blind{on}, shy{blind{on}}} },
		"no action, and no effect":   func(*bool) []harden.Action { return nil },
		"an action on a missing file": func(on *bool) []harden.Action {
			return []harden.Action{blind{on}, harden.EditFile{Path: "/f", Before: []byte("x")}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			on := false
			_, err := f.Apply(t.Context(), nil, readsHost, harden.Plan{Actions: plan(&on)})
			fe, ok := errors.AsType[*harden.FixError](err)
			require.True(t, ok, "%v", err)
			assert.True(t, fe.Reverted)
			assert.False(t, on)
		})
	}
}

// keeper keeps something aside until it is told that the change is good.
type keeper struct {
	step

	commit func(context.Context) error
}

func (k keeper) Commit(ctx context.Context, _ *host.Host) error {
	k.w.note("commit", k.k)
	return k.commit(ctx)
}

func TestCommit(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(*workshop)
		commit  func(context.Context, *workshop) error
		ok      bool // the change holds
		err     error
		commits int
	}{
		{"all is well", nil, nil, true, nil, steps},
		{"a commit fails", nil, func(context.Context, *workshop) error { return errAction }, true, errAction, steps},
		{"a commit panics", nil, func(context.Context, *workshop) error { panic("oh") }, true, nil, steps},
		{"the caller goes away", nil, func(ctx context.Context, w *workshop) error {
			w.cancel()
			return ctx.Err()
		}, true, nil, steps},
		{"the trail fails then", func(w *workshop) { w.failAt, w.failAll = 2*steps+1, true }, nil, true, errTrail, steps},
		{"the check does not pass", func(w *workshop) { w.verify = "fails" }, nil, false, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorkshop()
			if tt.prepare != nil {
				tt.prepare(w)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w.cancel = cancel
			r := w.remedy()
			p, _ := r.Plan(ctx, w.View())
			for i, a := range p.Actions {
				p.Actions[i] = keeper{a.(step), func(ctx context.Context) error {
					if tt.commit == nil {
						return nil
					}
					return tt.commit(ctx, w)
				}}
			}
			f := harden.Fixer{Trail: w}
			res, err := f.Apply(ctx, w.Host(), r, p)
			commits := 0
			for _, entry := range w.log {
				if strings.HasPrefix(entry, "commit ") && len(entry) == len("commit 0") {
					commits++
				}
			}
			assert.Equal(t, tt.commits, commits)
			state, _ := w.Read(path(0))
			assert.Equal(t, tt.ok, state == "on")
			assert.Equal(t, tt.ok, res.Status == harden.StatusPass)
			_, leftover := errors.AsType[*harden.CommitError](err)
			_, undone := errors.AsType[*harden.FixError](err)
			assert.Equal(t, !tt.ok, undone, "%v", err)
			if tt.err != nil {
				require.ErrorIs(t, err, tt.err)
				assert.True(t, leftover)
			}
			if tt.name == "a commit panics" {
				require.ErrorContains(t, err, "was not cleaned up after: panic: oh")
			} else if tt.ok && tt.err == nil {
				require.NoError(t, err)
			}
		})
	}
}

// slow is an action whose undoing hangs as long as it may.
type slow struct{ blind }

func (slow) Revert(ctx context.Context, _ *host.Host) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestRevertTimeout(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{0: harden.DefaultRevertTimeout, time.Second: time.Second} {
		synctest.Test(t, func(t *testing.T) {
			on, start := false, time.Now()
			f := harden.Fixer{Trail: trail.Discard, RevertTimeout: timeout}
			_, err := f.Apply(t.Context(), new(host.Host), &remedy{Check: returns(fail, nil)}, harden.Plan{Actions: []harden.Action{slow{blind{&on}}}})
			require.ErrorIs(t, err, context.DeadlineExceeded)
			fe, _ := errors.AsType[*harden.FixError](err)
			require.NotNil(t, fe)
			assert.False(t, fe.Reverted)
			assert.Equal(t, want, time.Since(start))
		})
	}
}

// In the course of an audit facts are shared; a Fixer must not verify a change
// by facts from before it.
func TestFixerListsAnew(t *testing.T) {
	m := new(hosttest.Machine).File("/switch", "off")
	src := &harden.Source[string]{
		Name: "switches",
		List: func(_ context.Context, v *host.View) ([]string, error) {
			data, err := v.ReadFile("/switch")
			return []string{string(data)}, err
		},
		Subject: func(string) string { return "switch" },
	}
	r := &remedy{
		Check: harden.Each(info("test.shared"), src, func(_ context.Context, s string) (harden.Verdict, error) {
			if s != "on" {
				return fail, nil
			}
			return pass(0), nil
		}),
		plan: func(ctx context.Context, v *host.View) (harden.Plan, error) {
			all, err := src.All(ctx, v)
			if err != nil || all[0] == "on" {
				return harden.Plan{}, err
			}
			return harden.Plan{Actions: []harden.Action{harden.EditFile{Path: "/switch", Before: []byte(all[0]), After: []byte("on")}}}, nil
		},
	}
	ctx, done := harden.Share(t.Context())
	defer done()
	h := m.Host()
	f := harden.Fixer{Trail: trail.Discard}
	require.Equal(t, harden.StatusFail, harden.Evaluate(ctx, &h.View, r, 0).Status)
	m.File("/switch", "OFF")
	fixes, err := f.Fix(ctx, h, nil, r)
	require.NoError(t, err)
	require.Len(t, fixes, 1)
	require.NoError(t, fixes[0].Err, "the plan is for what is there now")
	assert.True(t, fixes[0].Changed)

	fixes, err = f.Fix(ctx, h, nil, r)
	require.NoError(t, err)
	assert.Empty(t, fixes, "what is right now is not fixed for what it was")
}

// edits is a check that wants a file to say "on", and its remedy.
func edits(id, name string) *remedy {
	return &remedy{
		Check: harden.New(info(id), func(_ context.Context, v *host.View) (harden.Verdict, error) {
			data, err := v.ReadFile(name)
			if err != nil {
				return harden.Verdict{}, err
			}
			if string(data) != "on" {
				return harden.Fail(harden.Finding{Subject: name, Message: "is " + string(data)}), nil
			}
			return pass(0), nil
		}),
		plan: func(_ context.Context, v *host.View) (harden.Plan, error) {
			data, err := v.ReadFile(name)
			return harden.Plan{Actions: []harden.Action{harden.EditFile{Path: name, Before: data, After: []byte("on")}}}, err
		},
	}
}

func TestPropose(t *testing.T) {
	m := new(hosttest.Machine).File("/a", "off").File("/b", "on").File("/c", "off")
	both := edits("both.files", "/c")
	plan := both.plan
	both.plan = func(ctx context.Context, v *host.View) (harden.Plan, error) {
		p, err := plan(ctx, v)
		first, _ := edits("", "/a").plan(ctx, v)
		return harden.Plan{Actions: append(first.Actions, p.Actions...), Notes: []string{"note"}}, err
	}
	crash := edits("crash.plan", "/a")
	crash.plan = func(context.Context, *host.View) (harden.Plan, error) { panic("oh") }
	mute := edits("mute.plan", "/a")
	mute.plan = func(context.Context, *host.View) (harden.Plan, error) {
		return harden.Plan{Actions: []harden.Action{shy{}}}, nil
	}
	before := m.Snapshot()
	got := harden.Propose(t.Context(), m.View(), 0,
		returns(fail, nil), // no remedy
		edits("a.file", "/a"), wrapper{edits("b.file", "/b")}, edits("missing.file", "/missing"), both, crash, mute, nil)
	assert.Empty(t, before.Diff(m.Snapshot()))

	require.Len(t, got, 4)
	subjects := func(p harden.Proposal) (all []string) {
		for _, a := range p.Plan.Actions {
			all = append(all, a.Change().Subject)
		}
		return all
	}
	assert.Equal(t, "a.file", got[0].Result.Info.ID)
	assert.Equal(t, []string{"/a"}, subjects(got[0]))
	assert.Equal(t, []string{"/c"}, subjects(got[1]), "/a is in an earlier proposal")
	assert.Equal(t, []string{"note"}, got[1].Plan.Notes)
	require.ErrorContains(t, got[2].Err, "panic: oh")
	require.ErrorContains(t, got[3].Err, "panic: shy")
}

// What a plan does twice, it does for a reason.
func TestProposeKeepsWhatOnePlanRepeats(t *testing.T) {
	on := false
	r := &remedy{Check: returns(fail, nil), plan: func(context.Context, *host.View) (harden.Plan, error) {
		return harden.Plan{Actions: []harden.Action{blind{&on}, blind{&on}}}, nil
	}}
	got := harden.Propose(t.Context(), nil, 0, r)
	require.Len(t, got, 1)
	assert.Len(t, got[0].Plan.Actions, 2)
}

func TestFix(t *testing.T) {
	files := func() *hosttest.Machine {
		return new(hosttest.Machine).File("/a", "off").File("/b", "off").File("/c", "on")
	}
	f := harden.Fixer{Trail: trail.Discard}
	a, b, c := edits("a.file", "/a"), edits("b.file", "/b"), edits("c.file", "/c")

	t.Run("all that fail, in order", func(t *testing.T) {
		m := files()
		fixes, err := f.Fix(t.Context(), m.Host(), nil, a, returns(fail, nil), c, wrapper{b})
		require.NoError(t, err)
		require.Len(t, fixes, 2)
		for i, id := range []string{"a.file", "b.file"} {
			assert.Equal(t, id, fixes[i].Before.Info.ID)
			assert.Equal(t, harden.StatusFail, fixes[i].Before.Status)
			assert.Equal(t, harden.StatusPass, fixes[i].After.Status)
			assert.True(t, fixes[i].Changed)
		}
	})
	t.Run("only what is approved", func(t *testing.T) {
		m := files()
		fixes, err := f.Fix(t.Context(), m.Host(), func(r harden.Result, p harden.Plan) bool {
			assert.Len(t, p.Actions, 1)
			return r.Info.ID == "b.file"
		}, a, b)
		require.NoError(t, err)
		require.Len(t, fixes, 2)
		assert.False(t, fixes[0].Changed)
		assert.Equal(t, fixes[0].Before, fixes[0].After)
		assert.True(t, fixes[1].Changed)
		got, _ := m.Read("/a")
		assert.Equal(t, "off", got)
	})
	t.Run("one that fails does not stop the next", func(t *testing.T) {
		m := files().FailChange(1, errDisk)
		fixes, err := f.Fix(t.Context(), m.Host(), nil, a, b)
		require.NoError(t, err)
		require.Len(t, fixes, 2)
		require.ErrorIs(t, fixes[0].Err, errDisk)
		assert.False(t, fixes[0].Changed)
		assert.True(t, fixes[1].Changed)
	})
	t.Run("one that cannot be undone stops all", func(t *testing.T) {
		m := files().FailChange(2, errDisk).FailChange(3, errDisk)
		half := edits("a.file", "/a")
		half.plan = func(ctx context.Context, v *host.View) (harden.Plan, error) {
			p, _ := a.plan(ctx, v)
			q, err := b.plan(ctx, v)
			return harden.Plan{Actions: append(p.Actions, q.Actions...)}, err
		}
		fixes, err := f.Fix(t.Context(), m.Host(), nil, half, b)
		fe, ok := errors.AsType[*harden.FixError](err)
		require.True(t, ok)
		assert.False(t, fe.Reverted)
		assert.Len(t, fixes, 1)
	})
	t.Run("what is left over is no failure", func(t *testing.T) {
		m := files()
		w := &workshop{}
		left := edits("a.file", "/a")
		left.plan = func(ctx context.Context, v *host.View) (harden.Plan, error) {
			p, err := a.plan(ctx, v)
			p.Actions[0] = keeper{step{EditFile: p.Actions[0].(harden.EditFile), w: w}, func(context.Context) error { return errAction }}
			return p, err
		}
		fixes, err := f.Fix(t.Context(), m.Host(), nil, left, b)
		require.NoError(t, err)
		require.Len(t, fixes, 2)
		assert.True(t, fixes[0].Changed)
		assert.Equal(t, harden.StatusPass, fixes[0].After.Status)
		require.ErrorIs(t, fixes[0].Err, errAction)
	})
	t.Run("a wrapper that asks more has the last word", func(t *testing.T) {
		m := files()
		fixes, err := f.Fix(t.Context(), m.Host(), nil, strict{a})
		require.NoError(t, err)
		require.Len(t, fixes, 1)
		assert.False(t, fixes[0].Changed)
		got, _ := m.Read("/a")
		assert.Equal(t, "off", got)
	})
	t.Run("manual steps are shown, not approved", func(t *testing.T) {
		manual := &remedy{Check: returns(fail, nil), plan: func(context.Context, *host.View) (harden.Plan, error) {
			return harden.Plan{Manual: []string{"ask"}}, nil
		}}
		fixes, err := f.Fix(t.Context(), files().Host(), func(harden.Result, harden.Plan) bool {
			t.Error("asked to approve nothing")
			return true
		}, manual)
		require.NoError(t, err)
		require.Len(t, fixes, 1)
		assert.Equal(t, []string{"ask"}, fixes[0].Plan.Manual)
	})
	t.Run("a plan that panics", func(t *testing.T) {
		crash := edits("a.file", "/a")
		crash.plan = func(context.Context, *host.View) (harden.Plan, error) { panic("oh") }
		fixes, err := f.Fix(t.Context(), files().Host(), nil, crash, b)
		require.NoError(t, err)
		require.Len(t, fixes, 2)
		require.ErrorContains(t, fixes[0].Err, "panic: oh")
		assert.True(t, fixes[1].Changed)
	})
	t.Run("the caller goes away", func(t *testing.T) {
		m := files()
		ctx, cancel := context.WithCancel(t.Context())
		fixes, err := f.Fix(ctx, m.Host(), func(harden.Result, harden.Plan) bool { cancel(); return false }, a, b)
		require.ErrorIs(t, err, context.Canceled)
		assert.Len(t, fixes, 1)
	})
	t.Run("checks that are not valid", func(t *testing.T) {
		m := files()
		_, err := f.Fix(t.Context(), m.Host(), nil, a, a)
		require.ErrorContains(t, err, "ID is also that of check 0")
		assert.Zero(t, m.Changes())
	})
	t.Run("no host", func(t *testing.T) {
		fixes, err := f.Fix(t.Context(), nil, nil, a)
		require.NoError(t, err)
		assert.Empty(t, fixes)
	})
}

// strict is a check that is never satisfied, around one that has a remedy.
type strict struct{ inner *remedy }

func (s strict) Info() harden.Info { return s.inner.Info() }
func (strict) Run(context.Context, *host.View) (harden.Verdict, error) {
	return fail, nil
}
func (s strict) Unwrap() harden.Check { return s.inner }

// half is an action that leaves the machine between two states.
type half struct{}

func (half) Change() harden.Change { return harden.Change{Subject: "x", Before: "a", After: "b"} }
func (half) Apply(context.Context, *host.Host) error {
	return fmt.Errorf("half: %w", harden.ErrUnfinished)
}

func (half) Revert(context.Context, *host.Host) error { panic("what was not applied is not reverted") }

func (half) Plan(context.Context, *host.View) (harden.Plan, error) {
	return harden.Plan{Actions: []harden.Action{half{}}}, nil
}
func (half) Info() harden.Info { return harden.Info{ID: "test.half", Title: "It is whole"} }
func (half) Run(context.Context, *host.View) (harden.Verdict, error) {
	return harden.Fail(harden.Finding{Subject: "x", Message: "half"}), nil
}

// An action that says that it is neither made nor undone is believed: the
// machine is not as it was, and nothing more is changed.
func TestApplyUnfinished(t *testing.T) {
	f := harden.Fixer{Trail: trail.Discard}
	other := harden.New(harden.Info{ID: "test.other", Title: "Other"}, half{}.Run)
	fixes, err := f.Fix(t.Context(), &host.Host{}, nil, half{}, other)
	fe, ok := errors.AsType[*harden.FixError](err)
	require.True(t, ok, "%v", err)
	assert.False(t, fe.Reverted)
	require.ErrorIs(t, err, harden.ErrUnfinished)
	assert.Len(t, fixes, 1)
}

// Several checks may want the same change. If it fails it is tried once.
func TestFixTriesAChangeOnce(t *testing.T) {
	tried := 0
	remedy := func(id string) harden.Check {
		return stubborn{harden.New(harden.Info{ID: id, Title: id}, half{}.Run), &tried}
	}
	f := harden.Fixer{Trail: trail.Discard}
	fixes, err := f.Fix(t.Context(), &host.Host{}, nil, remedy("test.a"), remedy("test.b"))
	require.NoError(t, err)
	require.Len(t, fixes, 2)
	assert.Equal(t, 1, tried)
	for _, fix := range fixes {
		fe, ok := errors.AsType[*harden.FixError](fix.Err)
		require.True(t, ok, "%v", fix.Err)
		assert.True(t, fe.Reverted)
	}
	assert.ErrorContains(t, fixes[1].Err, "test.a")
}

// stubborn is a check with a remedy that cannot be applied.
type stubborn struct {
	harden.Check

	tried *int
}

func (s stubborn) Plan(context.Context, *host.View) (harden.Plan, error) {
	return harden.Plan{Actions: []harden.Action{refused{tried: s.tried}}}, nil
}

type refused struct{ tried *int }

func (refused) Change() harden.Change { return harden.Change{Subject: "x", Before: "a", After: "b"} }

func (r refused) Apply(context.Context, *host.Host) error {
	*r.tried++
	return errAction
}
func (refused) Revert(context.Context, *host.Host) error { return nil }
