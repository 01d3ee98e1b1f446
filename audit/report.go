package audit

import (
	"fmt"
	"time"

	"github.com/managemyclaw/hardshell/harden"
)

// A Report is what an audit found. Make one with [Auditor.Run], or with
// [NewReport] from results of several audits. In the zero Report every point
// is unknown. Fields may be added in later versions.
type Report struct {
	Started time.Time
	Elapsed time.Duration
	Score   Score
	Points  [harden.NumPoints]PointResult // Points[0] is point 1
	Results []Result
}

// A Result is what a check came to, and who answers for what it found.
type Result struct {
	harden.Result

	// Waivers says who answers for each finding: Waivers[i] covers
	// Findings[i], and is nil where nobody does. It is empty if none of the
	// findings is waived.
	Waivers []*Waiver
}

// Waiver returns the waiver that covers Findings[i], if one does.
func (r *Result) Waiver(i int) (Waiver, bool) {
	if i < 0 || i >= len(r.Waivers) || r.Waivers[i] == nil {
		return Waiver{}, false
	}
	return *r.Waivers[i], true
}

// A PointResult is the status of one of the 14 points.
type PointResult struct {
	Point  harden.Point
	Status harden.Status

	// Reason says why the point is unknown: the reason of the first of its
	// checks that is, or [harden.ReasonNotImplemented] if it has none, or
	// [harden.ReasonEvidence] if they pass on less than [harden.Point.Level].
	Reason harden.Reason

	// Detail puts Reason in words where no result does.
	Detail string
}

// A Score counts the 14 points by status. The counts add up to Total.
type Score struct {
	Passed        int `json:"passed"`
	Failed        int `json:"failed"`
	Unknown       int `json:"unknown"`
	NotApplicable int `json:"not_applicable"`
	Waived        int `json:"waived"`
	Total         int `json:"total"`
}

// NewReport judges the points and the score by results, which it keeps.
func NewReport(started time.Time, elapsed time.Duration, results []Result) *Report {
	r := &Report{Started: started, Elapsed: elapsed, Results: results}
	var byPoint [harden.NumPoints + 1][]*Result
	for i := range results {
		// A result of no valid point counts for none.
		if p := results[i].Info.Point; p.Valid() {
			byPoint[p] = append(byPoint[p], &results[i])
		}
	}
	for i := range r.Points {
		p := harden.Point(i + 1)
		r.Points[i] = judgePoint(p, byPoint[p])
		r.Score.count(r.Points[i].Status)
	}
	return r
}

// judgePoint joins the results of a point, the worst first.
func judgePoint(p harden.Point, results []*Result) PointResult {
	var (
		failed, waived, passed bool
		unknown                *Result
		level                  harden.Level // of the best evidence
	)
	for _, r := range results {
		switch r.Status {
		case harden.StatusFail:
			failed = true
		case harden.StatusWaived:
			waived = true
		case harden.StatusPass:
			passed = true
			level = max(level, r.Level)
		case harden.StatusNotApplicable:
		default: // StatusUnknown, and whatever is no status at all
			if unknown == nil {
				unknown = r
			}
		}
	}
	res := PointResult{Point: p}
	switch {
	case len(results) == 0:
		res.Reason, res.Detail = harden.ReasonNotImplemented, "not implemented: no check covers this point"
	case failed:
		res.Status = harden.StatusFail
	case unknown != nil:
		res.Reason = unknown.Reason
	case waived:
		res.Status = harden.StatusWaived
	case passed && level < p.Level():
		res.Reason = harden.ReasonEvidence
		res.Detail = fmt.Sprintf("the evidence is only %v, and the point requires %v", level, p.Level())
	case passed:
		res.Status = harden.StatusPass
	default:
		res.Status = harden.StatusNotApplicable
	}
	return res
}

func (s *Score) count(status harden.Status) {
	s.Total++
	switch status {
	case harden.StatusPass:
		s.Passed++
	case harden.StatusFail:
		s.Failed++
	case harden.StatusNotApplicable:
		s.NotApplicable++
	case harden.StatusWaived:
		s.Waived++
	default:
		s.Unknown++
	}
}

// Worst sums the report up in one status, also for the checks outside the 14
// points: [harden.StatusFail] if any result fails, or else
// [harden.StatusUnknown] if any result or point is unknown, or else
// [harden.StatusPass]: all holds, or does not apply, or somebody answers for it.
func (r *Report) Worst() harden.Status {
	worst := harden.StatusPass
	see := func(s harden.Status) {
		switch s {
		case harden.StatusFail:
			worst = harden.StatusFail
		case harden.StatusPass, harden.StatusNotApplicable, harden.StatusWaived:
		default:
			if worst != harden.StatusFail {
				worst = harden.StatusUnknown
			}
		}
	}
	for i := range r.Results {
		see(r.Results[i].Status)
	}
	for _, p := range r.Points {
		see(p.Status)
	}
	return worst
}
