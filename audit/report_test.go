package audit_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/harden"
)

func result(p harden.Point, s harden.Status, l harden.Level) audit.Result {
	return audit.Result{Result: harden.Result{Info: harden.Info{ID: "a.b", Point: p}, Status: s, Level: l}}
}

// A point is what its results make it, the worst first, and never better.
func TestPointBySituation(t *testing.T) {
	const p, probed = harden.PointNonRoot, harden.PointKillSwitch
	with := func(s harden.Status) audit.Result { return result(p, s, harden.LevelInspected) }
	for _, tt := range []struct {
		situation string
		point     harden.Point
		results   []audit.Result
		status    harden.Status
		reason    harden.Reason
	}{
		{"nothing looks at it", p, nil, harden.StatusUnknown, harden.ReasonNotImplemented},
		{"only other points are looked at", p, []audit.Result{result(2, harden.StatusPass, harden.LevelProbed)}, harden.StatusUnknown, harden.ReasonNotImplemented},
		{"its check passes", p, []audit.Result{with(harden.StatusPass)}, harden.StatusPass, ""},
		{"one fails and one passes", p, []audit.Result{with(harden.StatusPass), with(harden.StatusFail)}, harden.StatusFail, ""},
		{"one fails and one is unknown", p, []audit.Result{{}, with(harden.StatusUnknown), with(harden.StatusFail)}, harden.StatusFail, ""},
		{"one is unknown and one passes", p, []audit.Result{{Result: harden.Result{Info: harden.Info{Point: p}, Reason: harden.ReasonTool}}, with(harden.StatusPass)}, harden.StatusUnknown, harden.ReasonTool},
		{"one is unknown and one is waived", p, []audit.Result{with(harden.StatusWaived), with(harden.StatusUnknown)}, harden.StatusUnknown, ""},
		{"one is waived and one passes", p, []audit.Result{with(harden.StatusPass), with(harden.StatusWaived)}, harden.StatusWaived, ""},
		{"none applies", p, []audit.Result{with(harden.StatusNotApplicable), with(harden.StatusNotApplicable)}, harden.StatusNotApplicable, ""},
		{"one passes and one does not apply", p, []audit.Result{with(harden.StatusNotApplicable), with(harden.StatusPass)}, harden.StatusPass, ""},
		{"a status that is none", p, []audit.Result{with(harden.StatusPass), with(99)}, harden.StatusUnknown, ""},
		{"passes on a declaration alone", p, []audit.Result{result(p, harden.StatusPass, harden.LevelDeclared)}, harden.StatusUnknown, harden.ReasonEvidence},
		{"one of the passes is strong enough", p, []audit.Result{result(p, harden.StatusPass, harden.LevelDeclared), with(harden.StatusPass)}, harden.StatusPass, ""},
		{"the strong evidence is of what does not pass", p, []audit.Result{result(p, harden.StatusPass, harden.LevelDeclared), result(p, harden.StatusNotApplicable, harden.LevelProbed)}, harden.StatusUnknown, harden.ReasonEvidence},
		{"inspected where probed is required", probed, []audit.Result{result(probed, harden.StatusPass, harden.LevelInspected)}, harden.StatusUnknown, harden.ReasonEvidence},
		{"probed where probed is required", probed, []audit.Result{result(probed, harden.StatusPass, harden.LevelProbed)}, harden.StatusPass, ""},
	} {
		t.Run(tt.situation, func(t *testing.T) {
			got := audit.NewReport(time.Time{}, 0, tt.results).Points[tt.point-1]
			assert.Equal(t, tt.point, got.Point)
			assert.Equal(t, tt.status, got.Status)
			assert.Equal(t, tt.reason, got.Reason)
		})
	}
}

// Over random results: the score counts each point once, the points agree with
// an oracle that knows only the definitions, and nothing unknown ever passes.
func TestScoreAddsUp(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		var results []audit.Result
		for range rnd.IntN(40) {
			results = append(results, result(
				harden.Point(rnd.IntN(harden.NumPoints+3)-1), // also some that are no point
				harden.Status(rnd.IntN(7)-1),                 // and no status
				harden.Level(rnd.IntN(3)),
			))
		}
		rep := audit.NewReport(time.Time{}, 0, results)

		s := rep.Score
		assert.Equal(t, harden.NumPoints, s.Total)
		assert.Equal(t, s.Total, s.Passed+s.Failed+s.Unknown+s.NotApplicable+s.Waived)
		passed := 0
		for _, p := range rep.Points {
			n := make(map[harden.Status]int)
			strong := false
			for _, r := range results {
				if r.Info.Point == p.Point {
					n[r.Status]++
					strong = strong || r.Status == harden.StatusPass && r.Level >= p.Point.Level()
				}
			}
			invalid := n[-1] + n[5]
			pass := strong && n[harden.StatusFail]+n[harden.StatusUnknown]+n[harden.StatusWaived]+invalid == 0
			assert.Equal(t, pass, p.Status == harden.StatusPass)
			assert.Equal(t, n[harden.StatusFail] > 0, p.Status == harden.StatusFail)
			assert.Equal(t, p.Status == harden.StatusUnknown && n[harden.StatusUnknown]+invalid == 0, p.Detail != "",
				"a point says why it is unknown exactly when no result does")
			if pass {
				passed++
			}
		}
		assert.Equal(t, passed, s.Passed)

		worst := harden.StatusPass
		for _, r := range results {
			if r.Status == harden.StatusFail {
				worst = harden.StatusFail
			}
		}
		open := s.Unknown > 0
		for _, r := range results {
			open = open || r.Status <= harden.StatusUnknown || r.Status > harden.StatusWaived
		}
		if worst != harden.StatusFail && open {
			worst = harden.StatusUnknown
		}
		assert.Equal(t, worst, rep.Worst())
	}
}

func TestWorst(t *testing.T) {
	var all []audit.Result
	for p := harden.Point(1); p <= harden.NumPoints; p++ {
		all = append(all, result(p, harden.StatusPass, harden.LevelProbed))
	}
	with := func(s harden.Status) harden.Status {
		results := append(all[:len(all):len(all)], result(harden.PointNone, s, 0))
		return audit.NewReport(time.Time{}, 0, results).Worst()
	}
	assert.Equal(t, harden.StatusPass, with(harden.StatusPass))
	assert.Equal(t, harden.StatusPass, with(harden.StatusWaived))
	assert.Equal(t, harden.StatusPass, with(harden.StatusNotApplicable))
	assert.Equal(t, harden.StatusFail, with(harden.StatusFail), "a check outside the points counts")
	assert.Equal(t, harden.StatusUnknown, with(harden.StatusUnknown))
	assert.Equal(t, harden.StatusUnknown, with(-1))
	assert.Equal(t, harden.StatusUnknown, new(audit.Report).Worst(), "the zero report knows nothing")
}
