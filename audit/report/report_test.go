package report_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/audit/report"
	"github.com/managemyclaw/hardshell/harden"
)

// randomReport returns a report such as an audit might make, with hostile text.
func randomReport(rnd *rand.Rand) *audit.Report {
	text := func() string {
		pieces := []string{"a", " ", "container/web", "/etc/passwd", "\x1b[31m", "\u202e", "\xff\xfe", "\n✓ ", "\x00", "]]>", "[x](y)", "{0}", "<&\"'", "\u009b", "界", "\U000e0041", "\u2028", "\ufffd", "\ufffe", `\`}
		var b strings.Builder
		for range rnd.IntN(5) {
			b.WriteString(pieces[rnd.IntN(len(pieces))])
		}
		return b.String()
	}
	evidence := func(n int) []harden.Evidence {
		var list []harden.Evidence
		for range n {
			list = append(list, harden.Evidence{Source: text(), Observed: text(), Expected: text(), Level: harden.Level(rnd.IntN(3))})
		}
		return list
	}
	var results []audit.Result
	for i := range rnd.IntN(30) {
		r := audit.Result{Result: harden.Result{
			Info: harden.Info{
				ID: fmt.Sprintf("n.c%d", i), Title: text(), Doc: text(), Point: harden.Point(rnd.IntN(harden.NumPoints + 1)),
				Severity: harden.Severity(4 * rnd.IntN(5)), Requires: harden.Level(rnd.IntN(3)),
			},
			Status: harden.Status(rnd.IntN(5)), Elapsed: time.Duration(rnd.Int64N(1e12)),
		}}
		switch r.Status {
		case harden.StatusPass:
			r.Level = harden.LevelProbed
			r.Evidence = evidence(1 + rnd.IntN(3))
		case harden.StatusUnknown:
			r.Reason, r.Detail = harden.Reason(text()), text()
		case harden.StatusNotApplicable:
			r.Detail = text()
		default:
			for range 1 + rnd.IntN(20) {
				r.Findings = append(r.Findings, harden.Finding{
					ID: text(), Subject: text(), Message: text(), Remedy: text(), Severity: harden.Severity(4 * (1 + rnd.IntN(4))), Evidence: evidence(rnd.IntN(2)),
				})
			}
			if r.Status == harden.StatusFail && rnd.IntN(2) == 0 {
				r.Detail = text()
			}
			if r = waived(r); r.Status == harden.StatusWaived && rnd.IntN(2) == 0 {
				r.Status, r.Waivers = harden.StatusFail, nil
			}
		}
		results = append(results, r)
	}
	return audit.NewReport(started.Add(time.Duration(rnd.Int64N(1e18))), time.Duration(rnd.Int64N(1e15)), results)
}

func forRandomReports(t *testing.T, n int, f func(t *testing.T, r *audit.Report)) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) { f(t, s.report) })
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range n {
		r := randomReport(rnd)
		t.Run(fmt.Sprint("random", i), func(t *testing.T) { f(t, r) })
	}
}

type brokenWriter struct {
	left  int
	err   error
	calls int
}

func (w *brokenWriter) Write(p []byte) (int, error) {
	w.calls++
	n := min(len(p), w.left)
	w.left -= n
	if n < len(p) {
		return n, w.err
	}
	return n, nil
}

// Wherever a writer breaks, also one that does not say so, the caller learns.
func TestBrokenWriter(t *testing.T) {
	boom := errors.New("disk full")
	r := scenarios[1].report
	for _, e := range encoders {
		t.Run(e.name, func(t *testing.T) {
			size := len(encode(t, e.encode, r))
			for n := 0; n < size; n += 1 + size/40 {
				w := &brokenWriter{left: n, err: boom}
				require.ErrorIs(t, e.encode(w, r), boom, n)
				require.Equal(t, 1, w.calls)
			}
			require.ErrorIs(t, e.encode(&brokenWriter{left: size - 1}, r), io.ErrShortWrite)
			require.NoError(t, e.encode(&brokenWriter{left: size, err: boom}, r))
		})
	}
}

// The same report gives the same bytes, in UTF-8, without any character that a
// terminal would obey instead of showing.
func TestOutputIsDeterministicAndHarmless(t *testing.T) {
	forRandomReports(t, 40, func(t *testing.T, r *audit.Report) {
		for _, e := range encoders {
			got := encode(t, e.encode, r)
			assert.Equal(t, got, encode(t, e.encode, r))
			assert.True(t, utf8.Valid(got))
			s := string(got)
			if e.name == "color.txt" {
				s = sgr.ReplaceAllString(s, "")
			}
			for _, c := range s {
				if c != '\n' && !unicode.IsPrint(c) {
					t.Fatalf("%s: %U", e.name, c)
				}
			}
		}
	})
}

// Encoding is linear: twenty times the findings take about that many bytes and
// allocations, or in short text as many lines as before.
func TestEncodersScale(t *testing.T) {
	big := func(n int) *audit.Report {
		return with(fail(harden.PointNonRoot, crowd(n, func(i int) string { return fmt.Sprintf("process %05d runs as root", i) })...))
	}
	small, large := big(100), big(2000)
	for _, e := range encoders {
		assert.Less(t, len(encode(t, e.encode, large)), 21*len(encode(t, e.encode, small)), e.name)
		a := testing.AllocsPerRun(1, func() { _ = e.encode(io.Discard, small) })
		b := testing.AllocsPerRun(1, func() { _ = e.encode(io.Discard, large) })
		assert.Less(t, b, 24*a, e.name)
	}
	lines := bytes.Count(encode(t, report.Text, big(10_000)), []byte("\n"))
	assert.Less(t, lines, 40, "10,000 containers stay readable")
}

func TestInvalidStatusIsAnErrorBeforeAnythingIsWritten(t *testing.T) {
	r := with()
	r.Results[0].Status = 99
	for name, e := range map[string]encoder{"JSON": report.JSON, "SARIF": report.SARIF} {
		var b bytes.Buffer
		require.ErrorContains(t, e(&b, r), "report: encode "+name)
		assert.Empty(t, b.Bytes())
	}
	for _, e := range []encoder{report.Text, report.TextOptions{Full: true}.Encode} {
		assert.NotContains(t, string(encode(t, e, audit.NewReport(started, 0, r.Results))), "Hardened", "what is no status does not pass")
	}
}

// What JSON writes, ParseJSON reads; writing that again gives the same bytes.
func TestJSONRoundTrip(t *testing.T) {
	forRandomReports(t, 60, func(t *testing.T, r *audit.Report) {
		first := encode(t, report.JSON, r)
		var doc map[string]any
		require.NoError(t, json.Unmarshal(first, &doc))
		assert.NotContains(t, string(first), ": null")
		if r.Score.Total == 0 { // the zero report contradicts itself
			_, err := report.ParseJSON(bytes.NewReader(first))
			require.Error(t, err)
			return
		}
		parsed, err := report.ParseJSON(bytes.NewReader(first))
		require.NoError(t, err)
		assert.Equal(t, string(first), string(encode(t, report.JSON, parsed)))
		assert.Equal(t, r.Points, withValidText(r.Points, parsed.Points))
		assert.Equal(t, r.Score, parsed.Score)
		assert.Equal(t, r.Worst(), parsed.Worst())
		for i := range r.Results {
			assert.Equal(t, r.Results[i].Info.ID, parsed.Results[i].Info.ID)
			assert.Len(t, parsed.Results[i].Findings, len(r.Results[i].Findings))
		}
	})
}

// withValidText returns got with the reasons of want, of which encoding makes
// valid UTF-8.
func withValidText(want, got [harden.NumPoints]audit.PointResult) [harden.NumPoints]audit.PointResult {
	for i := range got {
		if string(got[i].Reason) == strings.ToValidUTF8(string(want[i].Reason), "\ufffd") {
			got[i].Reason = want[i].Reason
		}
	}
	return got
}

// A report whose parts contradict each other is refused.
func TestParseJSONRefuses(t *testing.T) {
	good := string(encode(t, report.JSON, scenarios[1].report))
	for _, tt := range []struct{ situation, old, new, want string }{
		{"no JSON", good, "x", "decode JSON"},
		{"nothing", good, "", "EOF"},
		{"another schema", `report/v1"`, `report/v2"`, `schema "hardshell.report/v2"`},
		{"no schema", `"schema": "hardshell.report/v1",`, ``, `schema ""`},
		{"data after it", good, good + "{}", "data after the report"},
		{"a better score", `"passed": 8`, `"passed": 14`, "the score is"},
		{"a better point", "\"title\": \"Non-root user\",\n      \"status\": \"fail\"", "\"title\": \"Non-root user\",\n      \"status\": \"pass\"", "point 1 is pass, and by its results fail"},
		{"points out of order", `"number": 2,`, `"number": 3,`, "point 3 is in place of point 2"},
		{"a point that is none", `"point": 14,`, `"point": 15,`, "point 15 is not between 0 and 14"},
		{"a word that is no status", `"status": "not_applicable"`, `"status": "fine"`, `unknown status "fine"`},
		{"a pass without evidence", `"findings": [],
      "evidence": [
        {
          "source": "/proc/4711/status",
          "observed": "as it should be",
          "expected": "as it should be",
          "level": "inspected"
        }
      ]`, `"findings": [], "evidence": []`, "passes without evidence"},
		{"a pass on too little", `"level": "inspected",
      "requires": "inspected"`, `"level": "declared",
      "requires": "inspected"`, "passes on evidence that is only declared"},
		{"a waiver without an owner", `"owner": "ops@example.com"`, `"owner": ""`, "waiver: field"},
		{"waived by nobody", `"waiver": {`, `"wavier": {`, "nobody answers for finding 0"},
	} {
		t.Run(tt.situation, func(t *testing.T) {
			bad := strings.Replace(good, tt.old, tt.new, 1)
			require.NotEqual(t, good, bad)
			r, err := report.ParseJSON(strings.NewReader(bad))
			assert.Nil(t, r)
			assert.ErrorContains(t, err, tt.want)
		})
	}
	later := strings.Replace(good, `{`, `{"added_later": {"x": [1]},`, 1)
	_, err := report.ParseJSON(strings.NewReader(later))
	assert.NoError(t, err, "members may be added")
}

func FuzzParseJSON(f *testing.F) {
	for _, s := range scenarios {
		f.Add(encode(f, report.JSON, s.report))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := report.ParseJSON(bytes.NewReader(data))
		if err != nil {
			return
		}
		var first, second bytes.Buffer
		if err := report.JSON(&first, r); err != nil {
			t.Skip(err) // a time that JSON can hold and RFC 3339 cannot
		}
		again, err := report.ParseJSON(bytes.NewReader(first.Bytes()))
		if err != nil {
			t.Fatalf("%v\n%s", err, &first)
		}
		if err := report.JSON(&second, again); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Fatalf("%v\n%s\n%s", err, &first, &second)
		}
		for _, e := range encoders {
			if err := e.encode(io.Discard, r); err != nil {
				t.Fatalf("%s: %v", e.name, err)
			}
		}
	})
}

func sarifValidator(t *testing.T) *jsonschema.Schema {
	t.Helper()
	file, err := os.Open("testdata/sarif-schema-2.1.0.json")
	require.NoError(t, err)
	defer file.Close()
	doc, err := jsonschema.UnmarshalJSON(file)
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	require.NoError(t, c.AddResource("sarif.json", doc))
	schema, err := c.Compile("sarif.json")
	require.NoError(t, err)
	return schema
}

type sarifDoc struct {
	Runs []struct {
		Tool struct {
			Driver struct{ Rules []struct{ ID string } }
		}
		Invocations []struct {
			ExecutionSuccessful        bool
			ToolExecutionNotifications []struct{ Message struct{ Text string } }
		}
		Results []struct {
			RuleID, Kind        string
			RuleIndex           int
			Message             struct{ Text string }
			PartialFingerprints map[string]string
			Suppressions        []struct{ Justification string }
			Locations           []struct {
				PhysicalLocation *struct{ ArtifactLocation struct{ URI string } }
				LogicalLocations []struct{ FullyQualifiedName string }
			}
		}
	}
}

// Every SARIF file is valid, has a result for each finding and no other, and
// owns up to what is unknown.
func TestSARIF(t *testing.T) {
	schema := sarifValidator(t)
	forRandomReports(t, 40, func(t *testing.T, r *audit.Report) {
		got := encode(t, report.SARIF, r)
		inst, err := jsonschema.UnmarshalJSON(bytes.NewReader(got))
		require.NoError(t, err)
		require.NoError(t, schema.Validate(inst))

		var doc sarifDoc
		require.NoError(t, json.Unmarshal(got, &doc))
		require.Len(t, doc.Runs, 1)
		run, inv := doc.Runs[0], doc.Runs[0].Invocations[0]
		require.Len(t, run.Tool.Driver.Rules, len(r.Results))

		k, notes := 0, 0
		prints := make(map[string]bool)
		for _, res := range r.Results {
			if res.Status == harden.StatusUnknown || res.Status == harden.StatusFail && res.Detail != "" {
				notes++
			}
			for i, f := range res.Findings {
				s := run.Results[k]
				k++
				assert.Equal(t, "fail", s.Kind)
				assert.Equal(t, run.Tool.Driver.Rules[s.RuleIndex].ID, s.RuleID)
				_, isWaived := res.Waiver(i)
				assert.Equal(t, isWaived, len(s.Suppressions) == 1)
				require.Len(t, s.Locations, 1)
				assert.NotEmpty(t, s.Locations[0].LogicalLocations[0].FullyQualifiedName)
				assert.Equal(t, strings.HasPrefix(f.Subject, "/"), s.Locations[0].PhysicalLocation != nil)
				if p := s.Locations[0].PhysicalLocation; p != nil {
					u, err := url.Parse(p.ArtifactLocation.URI)
					require.NoError(t, err)
					assert.Equal(t, "file", u.Scheme)
					assert.Equal(t, f.Subject, u.Path)
				}
				assert.NotContains(t, s.Message.Text, "](", "no link")
				assert.NotRegexp(t, `(^|[^{])(\{\{)*\{[0-9]`, s.Message.Text, "no placeholder")
				fp := s.PartialFingerprints["hardshellFinding/v1"]
				assert.False(t, prints[fp], "no two findings have one fingerprint")
				prints[fp] = true
			}
		}
		assert.Len(t, run.Results, k, "what is unknown or passes is no result")
		for _, p := range r.Points {
			if p.Status == harden.StatusUnknown && p.Detail != "" || r.Score.Total == 0 {
				notes++
			}
		}
		assert.Len(t, inv.ToolExecutionNotifications, notes)
		assert.Equal(t, notes == 0, inv.ExecutionSuccessful)
	})
}

// A finding keeps its fingerprint when its message or its place in the list
// changes, and loses it with its subject.
func TestSARIFFingerprint(t *testing.T) {
	prints := func(findings ...harden.Finding) map[string]string {
		var doc sarifDoc
		require.NoError(t, json.Unmarshal(encode(t, report.SARIF, with(fail(1, findings...))), &doc))
		m := make(map[string]string)
		for _, r := range doc.Runs[0].Results {
			m[r.Locations[0].LogicalLocations[0].FullyQualifiedName] = r.PartialFingerprints["hardshellFinding/v1"]
		}
		return m
	}
	a, b := harden.Finding{Subject: "a", Message: "pid 1"}, harden.Finding{Subject: "b", Message: "pid 1"}
	first := prints(a, b)
	a.Message = "pid 2"
	assert.Equal(t, first, prints(b, a))
	assert.NotEqual(t, first["a"], first["b"])
}

// Every JUnit file is well-formed, its counts add up, and unknown is an error.
func TestJUnit(t *testing.T) {
	type suites struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Errors   int `xml:"errors,attr"`
		Skipped  int `xml:"skipped,attr"`
		Suites   []struct {
			Name  string `xml:"name,attr"`
			Tests int    `xml:"tests,attr"`
			Cases []struct {
				Failure *struct{} `xml:"failure"`
				Error   *struct{} `xml:"error"`
				Skipped *struct{} `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	forRandomReports(t, 40, func(t *testing.T, r *audit.Report) {
		var doc suites
		require.NoError(t, xml.Unmarshal(encode(t, report.JUnit, r), &doc))
		var want [5]int
		for _, res := range r.Results {
			want[res.Status]++
		}
		total := len(r.Results)
		for _, p := range r.Points {
			if p.Status == harden.StatusUnknown && p.Detail != "" || r.Score.Total == 0 {
				want[harden.StatusUnknown]++
				total++
			}
		}
		assert.Equal(t, total, doc.Tests)
		assert.Equal(t, want[harden.StatusFail], doc.Failures)
		assert.Equal(t, want[harden.StatusUnknown], doc.Errors)
		assert.Equal(t, want[harden.StatusNotApplicable]+want[harden.StatusWaived], doc.Skipped)
		assert.GreaterOrEqual(t, len(doc.Suites), harden.NumPoints)
		var failures, errs, skipped, tests int
		for i, s := range doc.Suites {
			assert.Len(t, s.Cases, s.Tests)
			if i < harden.NumPoints {
				assert.NotEmpty(t, s.Cases, "no point is left out: %s", s.Name)
			}
			for _, c := range s.Cases {
				tests++
				if c.Failure != nil {
					failures++
				}
				if c.Error != nil {
					errs++
				}
				if c.Skipped != nil {
					skipped++
				}
			}
		}
		assert.Equal(t, []int{doc.Tests, doc.Failures, doc.Errors, doc.Skipped}, []int{tests, failures, errs, skipped})
	})
}
