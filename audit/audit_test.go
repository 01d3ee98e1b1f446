package audit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// Results come in the order of the checks, whatever the order in which they
// finish, for any number of checks and workers.
func TestResultsInOrder(t *testing.T) {
	for _, workers := range []int{-1, 0, 1, 3, 5000} {
		synctest.Test(t, func(t *testing.T) {
			var checks []harden.Check
			for i := range 2000 {
				checks = append(checks, check(fmt.Sprintf("n.c%d", i), 1, sleeping(time.Duration(i*7919%100)*time.Millisecond)))
			}
			auditor := audit.Auditor{Concurrency: workers}
			rep, err := auditor.Run(t.Context(), nil, checks...)
			require.NoError(t, err)
			require.Len(t, rep.Results, len(checks))
			for i, r := range rep.Results {
				require.Equal(t, checks[i].Info().ID, r.Info.ID)
				require.Equal(t, harden.StatusPass, r.Status)
			}
			assert.Positive(t, rep.Elapsed)
		})
	}
}

func TestConcurrencyIsBounded(t *testing.T) {
	for _, tt := range []struct{ set, want int }{{1, 1}, {3, 3}, {0, audit.DefaultConcurrency}, {-5, audit.DefaultConcurrency}} {
		synctest.Test(t, func(t *testing.T) {
			var now, most atomic.Int64
			var checks []harden.Check
			for i := range 100 {
				checks = append(checks, check(fmt.Sprintf("n.c%d", i), 1, func(ctx context.Context, v *host.View) (harden.Verdict, error) {
					n := now.Add(1)
					defer now.Add(-1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					return sleeping(time.Second)(ctx, v)
				}))
			}
			auditor := audit.Auditor{Concurrency: tt.set}
			_, err := auditor.Run(t.Context(), nil, checks...)
			require.NoError(t, err)
			assert.EqualValues(t, tt.want, most.Load())
		})
	}
}

// No matter how checks end, there is a result for each, and only what looked
// and saw passes.
func TestEveryEndingHasAResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		auditor := audit.Auditor{Timeout: time.Second}
		rep, err := auditor.Run(t.Context(), nil,
			check("e.pass", 1, passing(harden.LevelInspected)),
			check("e.fail", 2, failing(on("x"))),
			check("e.error", 3, erring(errors.New("no"))),
			check("e.panic", 4, func(context.Context, *host.View) (harden.Verdict, error) { panic("oh") }),
			check("e.slow", 5, sleeping(time.Hour)),
			check("e.deaf", 6, func(context.Context, *host.View) (harden.Verdict, error) {
				<-release
				return passing(harden.LevelProbed)(nil, nil)
			}),
			check("e.lazy", 7, func(context.Context, *host.View) (harden.Verdict, error) { return harden.Verdict{}, nil }),
		)
		require.NoError(t, err)
		var got []string
		for _, r := range rep.Results {
			got = append(got, fmt.Sprint(r.Info.ID, " ", r.Status, " ", r.Reason))
		}
		assert.Equal(t, []string{
			"e.pass pass ", "e.fail fail ", "e.error unknown error", "e.panic unknown panic",
			"e.slow unknown timeout", "e.deaf unknown timeout", "e.lazy unknown undecided",
		}, got)
		assert.Equal(t, audit.Score{Passed: 1, Failed: 1, Unknown: 12, Total: 14}, rep.Score)
		assert.Equal(t, 1250*time.Millisecond, rep.Elapsed, "a deaf check gets a moment more")
	})
}

// When the context ends, Run returns at once, what was seen stays, and the rest
// is unknown for the right reason. In the bubble no goroutine may outlive the
// test, so that checks which obey their context leave none.
func TestContextEnds(t *testing.T) {
	for _, tt := range []struct {
		name   string
		ctx    func(context.Context) (context.Context, context.CancelFunc)
		reason harden.Reason
	}{
		{"canceled", func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(90*time.Second, cancel)
			return ctx, cancel
		}, harden.ReasonCanceled},
		{"deadline", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 90*time.Second)
		}, harden.ReasonTimeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := tt.ctx(t.Context())
				defer cancel()
				var ran atomic.Int64
				var checks []harden.Check
				for i := range 1000 {
					checks = append(checks, check(fmt.Sprintf("n.c%d", i), 1, func(ctx context.Context, v *host.View) (harden.Verdict, error) {
						ran.Add(1)
						return sleeping(time.Minute)(ctx, v)
					}))
				}
				auditor := audit.Auditor{Concurrency: 4, Timeout: time.Hour}
				rep, err := auditor.Run(ctx, nil, checks...)
				require.NoError(t, err)
				assert.Equal(t, 90*time.Second, rep.Elapsed)
				assert.EqualValues(t, 8, ran.Load(), "what cannot finish does not begin")
				for i, r := range rep.Results {
					if i < 4 {
						assert.Equal(t, harden.StatusPass, r.Status)
						continue
					}
					require.Equal(t, harden.StatusUnknown, r.Status, i)
					require.Equal(t, tt.reason, r.Reason, i)
					require.NotEmpty(t, r.Detail)
					require.NotEmpty(t, r.Info.Title)
				}
				assert.Equal(t, harden.StatusUnknown, rep.Points[0].Status)
			})
		})
	}
}

func TestFactsAreFetchedOnce(t *testing.T) {
	var listed atomic.Int64
	src := &harden.Source[string]{
		Name:    "things",
		List:    func(context.Context, *host.View) ([]string, error) { listed.Add(1); return []string{"a"}, nil },
		Subject: func(s string) string { return s },
	}
	var checks []harden.Check
	for i := range 20 {
		checks = append(checks, harden.Each(harden.Info{ID: fmt.Sprintf("n.c%d", i), Title: "t"}, src,
			func(context.Context, string) (harden.Verdict, error) { return passing(harden.LevelProbed)(nil, nil) }))
	}
	auditor := audit.Auditor{}
	for _, v := range []*host.View{nil, {}} {
		listed.Store(0)
		rep, err := auditor.Run(t.Context(), v, checks...)
		require.NoError(t, err)
		assert.EqualValues(t, 1, listed.Load())
		assert.Equal(t, harden.StatusPass, rep.Results[19].Status)
	}
}

func TestProgressIsToldOfEachCheckOneAtATime(t *testing.T) {
	var busy sync.Mutex
	var seen []string
	auditor := audit.Auditor{
		Waivers: []audit.Waiver{{ID: "n.c1", Owner: "o", Reason: "r", Expires: time.Now().Add(time.Hour)}},
		Progress: func(r harden.Result) {
			assert.True(t, busy.TryLock(), "one call at a time")
			defer busy.Unlock()
			time.Sleep(time.Millisecond)
			assert.Equal(t, harden.StatusFail, r.Status, "before waivers")
			seen = append(seen, r.Info.ID)
		},
	}
	var checks []harden.Check
	var want []string
	for i := range 30 {
		want = append(want, fmt.Sprintf("n.c%d", i))
		checks = append(checks, check(want[i], 1, failing(on("x"))))
	}
	_, err := auditor.Run(t.Context(), nil, checks...)
	require.NoError(t, err)
	assert.ElementsMatch(t, want, seen)
}

// The error of Run is for what makes the audit meaningless, and only that.
func TestMisconfiguration(t *testing.T) {
	good := audit.Waiver{ID: "a.b", Owner: "o", Reason: "r", Expires: time.Now().Add(time.Hour)}
	ran := false
	ok := check("a.b", 1, func(context.Context, *host.View) (harden.Verdict, error) {
		ran = true
		return harden.Verdict{}, nil
	})
	for _, tt := range []struct {
		situation string
		waivers   []audit.Waiver
		checks    []harden.Check
		want      string
	}{
		{"nil check", nil, []harden.Check{ok, nil}, "nil check"},
		{"same check twice", nil, []harden.Check{ok, ok}, "also that of check 0"},
		{"reserved ID", nil, []harden.Check{ok, check(audit.WaiversID, 0, passing(0))}, `"audit.waivers" is reserved`},
		{"waiver without fields", []audit.Waiver{{ID: "a.b"}}, []harden.Check{ok}, `waiver 1 ("a.b"): field "owner" is missing`},
		{"same waiver twice", []audit.Waiver{good, good}, []harden.Check{ok}, "has the id and scope of waiver 1"},
		{"waiver of the waivers", []audit.Waiver{{ID: audit.WaiversID, Owner: "o", Reason: "r", Expires: good.Expires}}, []harden.Check{ok}, "cannot be waived"},
	} {
		t.Run(tt.situation, func(t *testing.T) {
			auditor := audit.Auditor{Waivers: tt.waivers}
			rep, err := auditor.Run(t.Context(), nil, tt.checks...)
			assert.Nil(t, rep)
			assert.ErrorContains(t, err, "audit: ")
			assert.ErrorContains(t, err, tt.want)
			assert.False(t, ran, "nothing runs before the configuration is known to be sound")
		})
	}

	rep, err := (&audit.Auditor{}).Run(t.Context(), nil)
	require.NoError(t, err, "no check at all is not an error, and no pass either")
	assert.Equal(t, audit.Score{Unknown: 14, Total: 14}, rep.Score)
	assert.Equal(t, harden.StatusUnknown, rep.Worst())
	assert.False(t, slices.ContainsFunc(rep.Points[:], func(p audit.PointResult) bool { return p.Reason != harden.ReasonNotImplemented }))
}
