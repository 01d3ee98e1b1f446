package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/harden"
)

// Schema is the name of the format that [JSON] writes. Members may be added to
// the format under the same name; their meaning does not change.
const Schema = "hardshell.report/v1"

type jsonReport struct {
	Schema    string        `json:"schema"`
	Started   time.Time     `json:"started"`
	ElapsedNS time.Duration `json:"elapsed_ns"`
	Score     audit.Score   `json:"score"`
	Points    []jsonPoint   `json:"points"`
	Results   []jsonResult  `json:"results"`
}

type jsonPoint struct {
	Number int           `json:"number"`
	Slug   string        `json:"slug"`
	Title  string        `json:"title"`
	Status harden.Status `json:"status"`
	Reason harden.Reason `json:"reason,omitempty"`
	Detail string        `json:"detail,omitempty"`
}

type jsonResult struct {
	ID        string         `json:"id"`
	Point     harden.Point   `json:"point"`
	Title     string         `json:"title"`
	Status    harden.Status  `json:"status"`
	Reason    harden.Reason  `json:"reason"`
	Detail    string         `json:"detail"`
	Level     harden.Level   `json:"level"`
	Requires  harden.Level   `json:"requires"`
	Findings  []jsonFinding  `json:"findings"`
	Evidence  []jsonEvidence `json:"evidence"`
	ElapsedNS time.Duration  `json:"elapsed_ns"`
}

type jsonFinding struct {
	ID       string          `json:"id,omitempty"`
	Subject  string          `json:"subject"`
	Message  string          `json:"message"`
	Remedy   string          `json:"remedy,omitempty"`
	Severity harden.Severity `json:"severity"`
	Evidence []jsonEvidence  `json:"evidence"`
	Waiver   *audit.Waiver   `json:"waiver,omitempty"`
}

type jsonEvidence struct {
	Source   string       `json:"source"`
	Observed string       `json:"observed"`
	Expected string       `json:"expected"`
	Level    harden.Level `json:"level"`
}

// JSON writes r in the format [Schema], which [ParseJSON] reads. Arrays are
// never null, and text that is not UTF-8 is made so. A point has a reason and a
// detail if it is unknown, a finding has an id and a remedy if it states them
// and a waiver if one covers it; all other members are always there.
//
// The format leaves out what only the author of a check needs, so that it does
// not survive a round trip: Info.Doc, Refs, Severity and Needs, and when each
// check started. A finding without a severity is written with that of its check.
func JSON(w io.Writer, r *audit.Report) error {
	doc := jsonReport{
		Schema:    Schema,
		Started:   r.Started.UTC(),
		ElapsedNS: r.Elapsed,
		Score:     r.Score,
		Points:    make([]jsonPoint, 0, len(r.Points)),
		Results:   make([]jsonResult, 0, len(r.Results)),
	}
	for i, p := range r.Points {
		point := harden.Point(i + 1)
		doc.Points = append(doc.Points, jsonPoint{
			Number: i + 1,
			Slug:   point.Slug(),
			Title:  point.Title(),
			Status: p.Status,
			Reason: valid(p.Reason),
			Detail: valid(p.Detail),
		})
	}
	for i := range r.Results {
		doc.Results = append(doc.Results, toJSON(&r.Results[i]))
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(doc); err != nil {
		return fmt.Errorf("report: encode JSON: %w", err)
	}
	return flush(w, "JSON", ascii(&b, jsonEscape))
}

func toJSON(r *audit.Result) jsonResult {
	res := jsonResult{
		ID:        valid(r.Info.ID),
		Point:     r.Info.Point,
		Title:     valid(r.Info.Title),
		Status:    r.Status,
		Reason:    valid(r.Reason),
		Detail:    valid(r.Detail),
		Level:     r.Level,
		Requires:  r.Info.Requires,
		Findings:  make([]jsonFinding, 0, len(r.Findings)),
		Evidence:  evidenceToJSON(r.Evidence),
		ElapsedNS: r.Elapsed,
	}
	for i := range r.Findings {
		f := &r.Findings[i]
		jf := jsonFinding{
			ID:       valid(f.ID),
			Subject:  valid(f.Subject),
			Message:  valid(f.Message),
			Remedy:   valid(f.Remedy),
			Severity: severityOf(r, f),
			Evidence: evidenceToJSON(f.Evidence),
		}
		if w, ok := r.Waiver(i); ok {
			jf.Waiver = &audit.Waiver{
				ID:      valid(w.ID),
				Scope:   valid(w.Scope),
				Owner:   valid(w.Owner),
				Reason:  valid(w.Reason),
				Expires: w.Expires.UTC(),
			}
		}
		res.Findings = append(res.Findings, jf)
	}
	return res
}

func evidenceToJSON(list []harden.Evidence) []jsonEvidence {
	out := make([]jsonEvidence, 0, len(list))
	for _, e := range list {
		out = append(out, jsonEvidence{valid(e.Source), valid(e.Observed), valid(e.Expected), e.Level})
	}
	return out
}

// valid makes s UTF-8. encoding/json would, but writes the replacement it makes
// differently from one that was there, so that a round trip changed bytes.
func valid[S ~string](s S) S { return S(strings.ToValidUTF8(string(s), "\ufffd")) }

// ParseJSON reads a report that [JSON] wrote. Members that it does not know
// are ignored, for they may have been added later.
//
// It is strict about what a report means: the schema must be [Schema], each of
// the 14 points must be there once in order, and points and score must be
// those that follow from the results, so that a report whose parts contradict
// each other is refused. That the results are true it cannot tell: sign reports
// that cross a border of trust. The caller bounds how much r yields.
func ParseJSON(r io.Reader) (*audit.Report, error) {
	dec := json.NewDecoder(r)
	var doc jsonReport
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("report: decode JSON: %w", err)
	}
	if doc.Schema != Schema {
		return nil, fmt.Errorf("report: decode JSON: schema %q instead of %q", doc.Schema, Schema)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("report: decode JSON: data after the report")
	}
	results := make([]audit.Result, 0, len(doc.Results))
	for i := range doc.Results {
		res, err := fromJSON(&doc.Results[i])
		if err != nil {
			return nil, fmt.Errorf("report: decode JSON: result %d (%q): %w", i, doc.Results[i].ID, err)
		}
		results = append(results, res)
	}
	rep := audit.NewReport(doc.Started.UTC(), doc.ElapsedNS, results)
	if len(doc.Points) != len(rep.Points) {
		return nil, fmt.Errorf("report: decode JSON: %d points instead of %d", len(doc.Points), len(rep.Points))
	}
	for i, p := range doc.Points {
		switch {
		case p.Number != i+1:
			return nil, fmt.Errorf("report: decode JSON: point %d is in place of point %d", p.Number, i+1)
		case p.Status != rep.Points[i].Status:
			return nil, fmt.Errorf("report: decode JSON: point %d is %v, and by its results %v", p.Number, p.Status, rep.Points[i].Status)
		}
	}
	if doc.Score != rep.Score {
		return nil, fmt.Errorf("report: decode JSON: the score is %+v, and by the results %+v", doc.Score, rep.Score)
	}
	return rep, nil
}

func fromJSON(r *jsonResult) (audit.Result, error) {
	if !r.Point.Valid() {
		return audit.Result{}, fmt.Errorf("point %d is not between 0 and %d", int(r.Point), harden.NumPoints)
	}
	res := audit.Result{Result: harden.Result{
		Info:     harden.Info{ID: r.ID, Point: r.Point, Title: r.Title, Requires: r.Requires},
		Status:   r.Status,
		Reason:   r.Reason,
		Detail:   r.Detail,
		Level:    r.Level,
		Evidence: evidenceFromJSON(r.Evidence),
		Elapsed:  r.ElapsedNS,
	}}
	for i, f := range r.Findings {
		res.Findings = append(res.Findings, harden.Finding{
			ID:       f.ID,
			Subject:  f.Subject,
			Message:  f.Message,
			Remedy:   f.Remedy,
			Severity: f.Severity,
			Evidence: evidenceFromJSON(f.Evidence),
		})
		if f.Waiver == nil {
			continue
		}
		if err := f.Waiver.Validate(); err != nil {
			return audit.Result{}, fmt.Errorf("finding %d: waiver: %w", i, err)
		}
		if res.Waivers == nil {
			res.Waivers = make([]*audit.Waiver, len(r.Findings))
		}
		f.Waiver.Expires = f.Waiver.Expires.UTC()
		res.Waivers[i] = f.Waiver
	}
	return res, contradiction(&res)
}

// contradiction reports a result that no audit comes to.
func contradiction(r *audit.Result) error {
	switch r.Status {
	case harden.StatusPass:
		switch {
		case len(r.Evidence) == 0:
			return errors.New("passes without evidence")
		case r.Level < r.Info.Requires:
			return fmt.Errorf("passes on evidence that is only %v, and requires %v", r.Level, r.Info.Requires)
		case len(r.Findings) > 0:
			return errors.New("passes, and has findings")
		}
	case harden.StatusFail, harden.StatusWaived:
		if len(r.Findings) == 0 {
			return fmt.Errorf("is %v without a finding", r.Status)
		}
	}
	if r.Status != harden.StatusWaived {
		return nil
	}
	for i := range r.Findings {
		if _, ok := r.Waiver(i); !ok {
			return fmt.Errorf("is waived, and nobody answers for finding %d", i)
		}
	}
	return nil
}

func evidenceFromJSON(list []jsonEvidence) []harden.Evidence {
	var out []harden.Evidence
	for _, e := range list {
		out = append(out, harden.Evidence(e))
	}
	return out
}
