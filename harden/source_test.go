package harden_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// A ruling is what a judge says about one subject.
type ruling struct {
	name    string
	verdict harden.Verdict
	err     error
	panics  bool
}

func judge(_ context.Context, r ruling) (harden.Verdict, error) {
	if r.panics {
		panic("oh")
	}
	return r.verdict, r.err
}

func rulings(rs ...ruling) *harden.Source[ruling] {
	return &harden.Source[ruling]{
		Name:    "rulings",
		List:    func(context.Context, *host.View) ([]ruling, error) { return rs, nil },
		Subject: func(r ruling) string { return r.name },
	}
}

func eachInfo(l harden.Level) harden.Info {
	i := info("test.each")
	i.Requires = l
	return i
}

func TestEach(t *testing.T) {
	var (
		good      = ruling{name: "good", verdict: pass(harden.LevelInspected)}
		probed    = ruling{name: "probed", verdict: pass(harden.LevelProbed)}
		weak      = ruling{name: "weak", verdict: pass(harden.LevelDeclared)}
		bad       = ruling{name: "bad", verdict: harden.Fail(harden.Finding{Message: "wrong"})}
		badAndErr = ruling{name: "both", verdict: harden.Fail(harden.Finding{Message: "wrong"}), err: errLook}
		none      = ruling{name: "none", verdict: harden.NotApplicable("stopped")}
		denied    = ruling{name: "denied", err: fs.ErrPermission}
		passErr   = ruling{name: "hasty", verdict: pass(harden.LevelProbed), err: errLook}
		silent    = ruling{name: "silent"}
		crash     = ruling{name: "crash", panics: true}
	)
	for _, tt := range []struct {
		name     string
		rulings  []ruling
		status   harden.Status
		reason   harden.Reason
		level    harden.Level
		findings []string
		detail   string
	}{
		{"no subject is no pass", nil, harden.StatusUnknown, harden.ReasonNoSubject, 0, nil, "nothing to examine: no rulings"},
		{"all pass", []ruling{good, good}, harden.StatusPass, "", harden.LevelInspected, nil, ""},
		{"the weakest decides the level", []ruling{probed, good, probed}, harden.StatusPass, "", harden.LevelInspected, nil, ""},
		{"the first is the weakest", []ruling{good, probed}, harden.StatusPass, "", harden.LevelInspected, nil, ""},
		{"one is too weak", []ruling{probed, weak}, harden.StatusUnknown, harden.ReasonEvidence, 0, nil, "weak: the evidence is only declared, and the check requires inspected"},
		{"one fails", []ruling{good, bad, good}, harden.StatusFail, "", 0, []string{"bad"}, ""},
		{"a failure outweighs what is unknown", []ruling{denied, bad, crash}, harden.StatusFail, "", 0, []string{"bad"}, "denied: permission denied; crash: panic: oh"},
		{"a failure with an error", []ruling{badAndErr, good}, harden.StatusFail, "", 0, []string{"both"}, "both: cannot look"},
		{"all failures are kept", []ruling{bad, good, badAndErr}, harden.StatusFail, "", 0, []string{"bad", "both"}, ""},
		{"one is unknown", []ruling{good, denied}, harden.StatusUnknown, harden.ReasonPrivilege, 0, nil, "denied: permission denied"},
		{"one passes with an error", []ruling{good, passErr}, harden.StatusUnknown, harden.ReasonError, 0, nil, "hasty: cannot look"},
		{"one has no verdict", []ruling{silent, good}, harden.StatusUnknown, harden.ReasonUndecided, 0, nil, "silent: the check returned no verdict"},
		{"one crashes", []ruling{crash, good}, harden.StatusUnknown, harden.ReasonPanic, 0, nil, "crash: panic: oh"},
		{"none applies", []ruling{none, none}, harden.StatusNotApplicable, "", 0, nil, "none: stopped"},
		{"some apply", []ruling{none, good, none}, harden.StatusPass, "", harden.LevelInspected, nil, ""},
		{"some apply and one is unknown", []ruling{none, denied}, harden.StatusUnknown, harden.ReasonPrivilege, 0, nil, "denied: permission denied"},
		{"too many to name", []ruling{denied, denied, denied, denied, denied, denied, denied}, harden.StatusUnknown, harden.ReasonPrivilege, 0, nil, "denied: permission denied; denied: permission denied; denied: permission denied; denied: permission denied; denied: permission denied; and 2 more"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := harden.Evaluate(t.Context(), nil, harden.Each(eachInfo(harden.LevelInspected), rulings(tt.rulings...), judge), 0)
			assert.Equal(t, tt.status, res.Status)
			assert.Equal(t, tt.reason, res.Reason)
			assert.Equal(t, tt.level, res.Level)
			var subjects []string
			for _, f := range res.Findings {
				subjects = append(subjects, f.Subject)
			}
			assert.Equal(t, tt.findings, subjects)
			if tt.detail != "" {
				assert.Equal(t, tt.detail, res.Detail)
			}
		})
	}
}

// TestEachAgainstOracle joins random verdicts and compares with the rules as
// one would write them down: any failure, else anything unknown, else any
// pass, else not applicable.
func TestEachAgainstOracle(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	kinds := []func(harden.Level) (ruling, harden.Status){
		func(l harden.Level) (ruling, harden.Status) { return ruling{verdict: pass(l)}, harden.StatusPass },
		func(harden.Level) (ruling, harden.Status) { return ruling{verdict: fail}, harden.StatusFail },
		func(harden.Level) (ruling, harden.Status) {
			return ruling{verdict: fail, err: errLook}, harden.StatusFail
		},
		func(harden.Level) (ruling, harden.Status) {
			return ruling{verdict: harden.NotApplicable("none")}, harden.StatusNotApplicable
		},
		func(harden.Level) (ruling, harden.Status) { return ruling{}, harden.StatusUnknown },
		func(harden.Level) (ruling, harden.Status) { return ruling{err: errLook}, harden.StatusUnknown },
		func(l harden.Level) (ruling, harden.Status) {
			return ruling{verdict: pass(l), err: errLook}, harden.StatusUnknown
		},
		func(harden.Level) (ruling, harden.Status) { return ruling{panics: true}, harden.StatusUnknown },
	}
	for range 3000 {
		requires := harden.Level(rnd.IntN(3))
		var rs []ruling
		count := make(map[harden.Status]int)
		weakest := harden.LevelProbed
		few := rnd.Perm(len(kinds))[:1+rnd.IntN(3)] // so that every mixture is likely
		for range rnd.IntN(6) {
			l := harden.Level(rnd.IntN(3))
			r, status := kinds[few[rnd.IntN(len(few))]](l)
			if status == harden.StatusPass && l < requires {
				status = harden.StatusUnknown
			} else if status == harden.StatusPass {
				weakest = min(weakest, l)
			}
			count[status]++
			rs = append(rs, r)
		}
		want, level := harden.StatusUnknown, harden.LevelDeclared
		switch {
		case count[harden.StatusFail] > 0:
			want = harden.StatusFail
		case count[harden.StatusUnknown] > 0 || len(rs) == 0:
		case count[harden.StatusPass] > 0:
			want, level = harden.StatusPass, weakest
		default:
			want = harden.StatusNotApplicable
		}
		res := harden.Evaluate(t.Context(), nil, harden.Each(eachInfo(requires), rulings(rs...), judge), 0)
		require.Equal(t, want, res.Status, "%+v", rs)
		require.Equal(t, level, res.Level, "%+v", rs)
		require.Len(t, res.Findings, count[harden.StatusFail])
		if want == harden.StatusPass {
			require.Len(t, res.Evidence, count[harden.StatusPass])
		}
	}
}

func TestEachNamesSubjects(t *testing.T) {
	src := rulings(
		ruling{name: "a", verdict: harden.Fail(harden.Finding{Message: "m"}, harden.Finding{Subject: "a/file"})},
		ruling{name: "", verdict: harden.Fail(harden.Finding{Message: "m"})},
	)
	src.Subject = func(r ruling) string {
		if r.name == "" {
			panic("nameless")
		}
		return r.name
	}
	res := harden.Evaluate(t.Context(), nil, harden.Each(eachInfo(0), src, judge), 0)
	require.Len(t, res.Findings, 3)
	assert.Equal(t, "a", res.Findings[0].Subject)
	assert.Equal(t, "a/file", res.Findings[1].Subject)
	assert.Equal(t, "one of the rulings (naming it: panic: nameless)", res.Findings[2].Subject)
}

// A judge that was stopped half-way has not seen the rest: what it found
// stays, and what it did not see is no pass.
func TestEachCanceledHalfWay(t *testing.T) {
	for _, first := range []struct {
		ruling
		status harden.Status
	}{
		{ruling{name: "first", verdict: pass(0)}, harden.StatusUnknown},
		{ruling{name: "first", verdict: fail}, harden.StatusFail},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		judged := 0
		c := harden.Each(eachInfo(0), rulings(first.ruling, first.ruling), func(ctx context.Context, r ruling) (harden.Verdict, error) {
			judged++
			cancel()
			return judge(ctx, r)
		})
		v, err := c.Run(ctx, &host.View{})
		assert.Equal(t, 1, judged)
		require.ErrorIs(t, err, context.Canceled)
		if first.status == harden.StatusFail {
			assert.Equal(t, harden.StatusFail, v.Status())
		} else {
			assert.Equal(t, harden.Verdict{}, v)
		}
	}
}

// counted is a source that counts how often it is listed, at some length.
func counted(n *atomic.Int64, takes time.Duration) *harden.Source[int] {
	return &harden.Source[int]{
		Name: "numbers",
		List: func(ctx context.Context, _ *host.View) ([]int, error) {
			n.Add(1)
			select {
			case <-time.After(takes):
				return []int{1, 2}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
		Subject: func(i int) string { return fmt.Sprint("number/", i) },
	}
}

func passes(context.Context, int) (harden.Verdict, error) { return pass(0), nil }

func TestShareListsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n, other atomic.Int64
		src, src2 := counted(&n, time.Second), counted(&other, time.Second)
		evaluate := func(ctx context.Context, v *host.View, src *harden.Source[int]) {
			res := harden.Evaluate(ctx, v, harden.Each(eachInfo(0), src, passes), time.Minute)
			assert.Equal(t, harden.StatusPass, res.Status, res.Detail)
		}
		v := new(host.View)
		ctx, done := harden.Share(t.Context())
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { evaluate(ctx, v, src) })
		}
		wg.Wait()
		assert.EqualValues(t, 1, n.Load())

		evaluate(ctx, v, src2)
		assert.EqualValues(t, 1, other.Load(), "another source has its own list")
		evaluate(ctx, new(host.View), src)
		assert.EqualValues(t, 2, n.Load(), "another machine has its own list")
		done()

		ctx, done = harden.Share(t.Context())
		evaluate(ctx, v, src)
		assert.EqualValues(t, 3, n.Load(), "another audit lists anew")
		done()

		evaluate(t.Context(), v, src)
		evaluate(t.Context(), v, src)
		assert.EqualValues(t, 5, n.Load(), "outside an audit every evaluation lists")
	})
}

// A source that is made from another finds the facts of the same audit.
func TestSourcesOfSources(t *testing.T) {
	var n atomic.Int64
	inner := counted(&n, 0)
	outer := func() *harden.Source[int] {
		return &harden.Source[int]{Name: "squares", List: inner.All, Subject: func(i int) string { return fmt.Sprint(i) }}
	}
	ctx, done := harden.Share(t.Context())
	defer done()
	for range 3 {
		assert.Equal(t, harden.StatusPass, harden.Evaluate(ctx, nil, harden.Each(eachInfo(0), inner, passes), 0).Status)
	}
	v := new(host.View)
	n.Store(0)
	for range 3 {
		all, err := outer().All(ctx, v)
		require.NoError(t, err)
		assert.Equal(t, []int{1, 2}, all)
	}
	assert.EqualValues(t, 1, n.Load())
}

func TestListFailures(t *testing.T) {
	for _, tt := range []struct {
		name   string
		list   func(context.Context, *host.View) ([]int, error)
		reason harden.Reason
		detail string
	}{
		{"an error", func(context.Context, *host.View) ([]int, error) { return []int{1}, errLook }, harden.ReasonError, "list numbers: cannot look"},
		{"a refusal", func(context.Context, *host.View) ([]int, error) { return nil, fs.ErrPermission }, harden.ReasonPrivilege, "list numbers: permission denied"},
		{"a panic", func(context.Context, *host.View) ([]int, error) { panic("oh") }, harden.ReasonPanic, "list numbers: panic: oh"},
		{"nothing", func(context.Context, *host.View) ([]int, error) { return nil, nil }, harden.ReasonNoSubject, "nothing to examine: no numbers"},
		{"hangs", func(ctx context.Context, _ *host.View) ([]int, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, harden.ReasonTimeout, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := &harden.Source[int]{Name: "numbers", List: tt.list, Subject: func(int) string { return "n" }}
				shared, done := harden.Share(t.Context())
				defer done()
				for _, ctx := range []context.Context{t.Context(), shared, shared} {
					res := harden.Evaluate(ctx, nil, harden.Each(eachInfo(0), src, passes), time.Second)
					assert.Equal(t, harden.StatusUnknown, res.Status)
					assert.Equal(t, tt.reason, res.Reason, res.Detail)
					if tt.detail != "" {
						assert.Equal(t, tt.detail, res.Detail)
					}
				}
			})
		})
	}
}

// A listing ends with the audit, not with the check that asked first and lost
// patience: the others still get their facts.
func TestFirstAskerDoesNotPoisonTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		src := counted(&n, 10*time.Second)
		ctx, done := harden.Share(t.Context())
		defer done()
		v := new(host.View)
		hasty := harden.Evaluate(ctx, v, harden.Each(eachInfo(0), src, passes), time.Second)
		assert.Equal(t, harden.ReasonTimeout, hasty.Reason)
		patient := harden.Evaluate(ctx, v, harden.Each(eachInfo(0), src, passes), time.Minute)
		assert.Equal(t, harden.StatusPass, patient.Status, patient.Detail)
		assert.Equal(t, 9*time.Second, patient.Elapsed)
		assert.EqualValues(t, 1, n.Load())
	})
}

// The end of an audit stops a listing that still runs; a goroutine left behind
// would keep the bubble from ending.
func TestEndOfAuditStopsListing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		src := counted(&n, time.Hour)
		start := time.Now()
		ctx, done := harden.Share(context.Background())
		res := harden.Evaluate(ctx, nil, harden.Each(eachInfo(0), src, passes), time.Second)
		assert.Equal(t, harden.ReasonTimeout, res.Reason)
		done()
		synctest.Wait()
		assert.Equal(t, time.Second, time.Since(start))
		_, err := src.All(ctx, nil)
		assert.True(t, errors.Is(err, context.Canceled), "%v", err)
	})
}

// A listing that hangs costs an audit one time-out, not one for each check,
// even if it is deaf.
func TestSharedListingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		src := counted(new(atomic.Int64), 0)
		src.List = func(context.Context, *host.View) ([]int, error) {
			<-release
			return []int{1}, nil
		}
		ctx, done := harden.Share(t.Context())
		defer done()
		v, start := new(host.View), time.Now()
		for _, patience := range []time.Duration{time.Second, time.Hour, time.Hour} {
			res := harden.Evaluate(ctx, v, harden.Each(eachInfo(0), src, passes), patience)
			assert.Equal(t, harden.StatusUnknown, res.Status)
			assert.Equal(t, harden.ReasonTimeout, res.Reason)
		}
		assert.Equal(t, harden.DefaultTimeout, time.Since(start))
	})
}
