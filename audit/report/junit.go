package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/harden"
)

// JUnit has no standard. These elements and attributes are the ones on which
// the Ant task that invented the format and the readers in Jenkins and GitLab
// agree.
type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Name    string       `xml:"name,attr"`
		Time    string       `xml:"time,attr"`
		Suites  []junitSuite `xml:"testsuite"`
		junitCounts
	}
	junitSuite struct {
		Name      string `xml:"name,attr"`
		Timestamp string `xml:"timestamp,attr"`
		Time      string `xml:"time,attr"`
		junitCounts
		Cases []junitCase `xml:"testcase"`
	}
	junitCounts struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Errors   int `xml:"errors,attr"`
		Skipped  int `xml:"skipped,attr"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitProblem `xml:"failure"`
		Error   *junitProblem `xml:"error"`
		Skipped *junitProblem `xml:"skipped"`
		Out     string        `xml:"system-out,omitempty"`
	}
	junitProblem struct {
		Message string `xml:"message,attr,omitempty"`
		Type    string `xml:"type,attr,omitempty"`
		Text    string `xml:",chardata"`
	}
)

// JUnit writes r as a JUnit XML report: a suite for each of the 14 points and
// one for the checks of none, with a test case for each check. A failure is a
// <failure>, an unknown an <error>; <skipped> are only what is not applicable
// or waived. A point that is unknown although none of its checks is, such as
// one that no check covers, has a test case of its own, with an <error>.
//
// Bytes that XML 1.0 cannot hold, such as control characters, are replaced by
// U+FFFD.
func JUnit(w io.Writer, r *audit.Report) error {
	groups := byPoint(r)
	doc := junitSuites{Name: "hardshell", Time: seconds(r.Elapsed)}
	for i, p := range r.Points {
		point := harden.Point(i + 1)
		s := newSuite(r, fmt.Sprintf("%d %s", i+1, point.Title()), point.Slug(), groups[i+1])
		if why := unexplained(p, groups[i+1]); why != "" {
			s.add(junitCase{
				Class: point.Slug(),
				Name:  fmt.Sprintf("point %d: %s", i+1, point.Title()),
				Time:  seconds(0),
				Error: &junitProblem{Message: why, Type: string(p.Reason)},
			})
		}
		doc.add(s)
	}
	if len(groups[0]) > 0 {
		doc.add(newSuite(r, "Outside the 14 points", harden.PointNone.Slug(), groups[0]))
	}
	var b bytes.Buffer
	b.WriteString(xml.Header)
	enc := xml.NewEncoder(&b)
	enc.Indent("", "  ")
	if err := enc.Encode(doc); err != nil {
		return fmt.Errorf("report: encode JUnit: %w", err)
	}
	b.WriteByte('\n')
	return flush(w, "JUnit", ascii(&b, xmlEscape))
}

func (d *junitSuites) add(s junitSuite) {
	d.Suites = append(d.Suites, s)
	d.Tests += s.Tests
	d.Failures += s.Failures
	d.Errors += s.Errors
	d.Skipped += s.Skipped
}

func newSuite(r *audit.Report, name, class string, results []*audit.Result) junitSuite {
	s := junitSuite{Name: name, Timestamp: r.Started.UTC().Format("2006-01-02T15:04:05")}
	var elapsed time.Duration
	for _, res := range results {
		elapsed += res.Elapsed
		s.add(toCase(class, res))
	}
	s.Time = seconds(elapsed)
	return s
}

func (s *junitSuite) add(c junitCase) {
	s.Cases = append(s.Cases, c)
	s.Tests++
	switch {
	case c.Failure != nil:
		s.Failures++
	case c.Error != nil:
		s.Errors++
	case c.Skipped != nil:
		s.Skipped++
	}
}

func toCase(class string, r *audit.Result) junitCase {
	c := junitCase{Class: class, Name: r.Info.ID + ": " + r.Info.Title, Time: seconds(r.Elapsed)}
	switch r.Status {
	case harden.StatusPass:
		c.Out = junitEvidence("", r.Evidence)
	case harden.StatusFail:
		c.Failure = &junitProblem{Message: countFindings(len(r.Findings)), Text: junitFindings(r)}
		if len(r.Findings) > 0 {
			c.Failure.Type = severityOf(r, &r.Findings[0]).String() // the worst is first
		}
	case harden.StatusNotApplicable:
		c.Skipped = &junitProblem{Message: "not applicable: " + r.Detail}
	case harden.StatusWaived:
		c.Skipped = &junitProblem{Message: "waived: " + countFindings(len(r.Findings)), Text: junitFindings(r)}
	default:
		c.Error = &junitProblem{Message: orElse(r.Detail, "unknown"), Type: string(r.Reason), Text: junitFindings(r)}
	}
	return c
}

func countFindings(n int) string {
	if n == 1 {
		return "1 finding"
	}
	return strconv.Itoa(n) + " findings"
}

// junitFindings lists what a check found, one line each and what belongs to it
// indented below.
func junitFindings(r *audit.Result) string {
	var b strings.Builder
	for i := range r.Findings {
		f := &r.Findings[i]
		fmt.Fprintf(&b, "%s %s: %s\n", severityOf(r, f), f.Subject, f.Message)
		if w, ok := r.Waiver(i); ok {
			fmt.Fprintf(&b, "  %s\n", justification(w))
		}
		if f.Remedy != "" {
			fmt.Fprintf(&b, "  remedy: %s\n", f.Remedy)
		}
		b.WriteString(junitEvidence("  ", f.Evidence))
	}
	if len(r.Findings) > 0 && r.Detail != "" {
		fmt.Fprintf(&b, "not examined: %s\n", r.Detail)
	}
	return b.String()
}

func junitEvidence(indent string, evidence []harden.Evidence) string {
	var b strings.Builder
	for _, e := range evidence {
		fmt.Fprintf(&b, "%s%s: %s", indent, e.Source, e.Observed)
		if e.Expected != "" {
			fmt.Fprintf(&b, "; expected: %s", e.Expected)
		}
		fmt.Fprintf(&b, " (%v)\n", e.Level)
	}
	return b.String()
}

// justification says who answers for a violation, why and until when.
func justification(w audit.Waiver) string {
	return fmt.Sprintf("waived by %s until %s: %s", w.Owner, w.Expires.UTC().Format(time.RFC3339), w.Reason)
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 3, 64) }
