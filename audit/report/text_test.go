package report_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/audit/report"
	"github.com/managemyclaw/hardshell/harden"
)

var (
	sgr   = regexp.MustCompile("\x1b\\[[0-9;]+m")
	marks = regexp.MustCompile(`\p{Mn}`) // take no column

	pointLine = regexp.MustCompile(`^. [ 1][0-9] \S`)
)

// Text keeps to its width, ends each line without blanks, and says the same
// with and without colour.
func TestTextLayout(t *testing.T) {
	forRandomReports(t, 25, func(t *testing.T, r *audit.Report) {
		for _, width := range []int{-1, 1, 40, 57, 80, 200} {
			for _, full := range []bool{false, true} {
				o := report.TextOptions{Width: width, Full: full}
				plain := string(encode(t, o.Encode, r))
				o.Color = true
				colored := string(encode(t, o.Encode, r))
				assert.Equal(t, plain, sgr.ReplaceAllString(colored, ""))
				limit := width
				if width <= 0 {
					limit = report.DefaultWidth
				}
				for line := range strings.Lines(plain) {
					line = strings.TrimSuffix(line, "\n")
					if utf8.RuneCountInString(marks.ReplaceAllString(line, "")) > max(limit, 40) || strings.HasSuffix(line, " ") {
						t.Errorf("width %d: %q", limit, line)
					}
				}
				for line := range strings.Lines(colored) {
					if strings.Count(line, "\x1b[")%2 != 0 {
						t.Errorf("colour leaks into the next line: %q", line)
					}
				}
				assert.True(t, strings.HasSuffix(plain, "\n"))
				assert.NotContains(t, plain, "\n\n\n")
			}
		}
	})
}

// The first column is ours: however foreign text is made, it cannot put a line
// of its own there, and a point has the sign of its status.
func TestTextCannotBeForged(t *testing.T) {
	forRandomReports(t, 40, func(t *testing.T, r *audit.Report) {
		for _, o := range []report.TextOptions{{}, {Width: 40}, {Full: true}} {
			signs := make(map[string]int)
			scores := 0
			for line := range strings.Lines(string(encode(t, o.Encode, r))) {
				switch first, _ := utf8.DecodeRuneInString(line); first {
				case '▸':
					scores++
				case '✓', '✗', '?', '~', '-':
					if pointLine.MatchString(line) {
						signs[string(first)]++
					}
				case ' ', '\n', 'O': // "Outside the 14 points"
				default:
					t.Errorf("%q", line)
				}
			}
			assert.Equal(t, 1, scores)
			var want [5]int
			for _, p := range r.Points {
				want[p.Status]++
			}
			assert.Equal(t, want[harden.StatusFail], signs["✗"])
			assert.Equal(t, want[harden.StatusUnknown], signs["?"])
			if o.Full {
				assert.Equal(t, want[harden.StatusPass], signs["✓"], "a line a point")
				assert.Equal(t, want[harden.StatusWaived], signs["~"])
				assert.Equal(t, want[harden.StatusNotApplicable], signs["-"])
			}
		}
	})
}

// Hardened is said only when all of it is true, also outside the points.
func TestHardenedMeansAll(t *testing.T) {
	says := func(r *audit.Report) bool { return strings.Contains(string(encode(t, report.Text, r)), "Hardened") }
	assert.True(t, says(with()))
	assert.False(t, says(new(audit.Report)))
	assert.False(t, says(audit.NewReport(started, 0, nil)))
	for p := harden.PointNone; p <= harden.NumPoints; p++ {
		assert.False(t, says(with(fail(p, harden.Finding{Message: "m"}))), p)
		assert.False(t, says(with(unknown(p, harden.ReasonError, "d"))), p)
		if p != harden.PointNone {
			assert.False(t, says(with(waived(fail(p, harden.Finding{Message: "m"})))), p)
			assert.False(t, says(audit.NewReport(started, 0, append(allPass()[:p-1], allPass()[p:]...))), p)
		}
	}
	forRandomReports(t, 25, func(t *testing.T, r *audit.Report) {
		assert.Equal(t, r.Score.Passed == 14 && r.Worst() == harden.StatusPass, says(r) && !strings.Contains(fmt.Sprint(r.Results), "Hardened"))
	})
}

// Every problem is named with why and what to do; the full text has all of it.
func TestTextSaysWhyAndWhatToDo(t *testing.T) {
	mixed := string(encode(t, report.Text, scenarios[1].report))
	for _, want := range []string{
		"process 4711 (node) runs as root [critical]", `→ Set user: "1000:1000"`,
		"→ Why localhost-binding matters", "iptables-save", "→ Install it", "requires probed",
		"✗ Others       fail: ssh.root_login", "root may log in with a password",
	} {
		assert.Contains(t, mixed, want)
	}
	full := string(encode(t, report.TextOptions{Full: true}.Encode, scenarios[3].report))
	for i := range 200 {
		require.Contains(t, full, fmt.Sprintf("container/worker-%03d: process %d has", i, 1000+i))
		require.Contains(t, full, fmt.Sprintf("Recreate worker-%03d ", i))
	}
	assert.NotContains(t, full, "more")
	for _, reason := range []harden.Reason{
		harden.ReasonError, harden.ReasonPrivilege, harden.ReasonTimeout, harden.ReasonCanceled, harden.ReasonTool, harden.ReasonPanic, harden.ReasonEvidence,
		harden.ReasonNoSubject, harden.ReasonUndecided, harden.ReasonNotImplemented, harden.ReasonUnsupported, "of a later version",
	} {
		for _, detail := range []string{"", "the detail"} {
			s := string(encode(t, report.Text, with(unknown(harden.PointUFW, reason, detail))))
			assert.Regexp(t, `(?m)^     \? \S.*\n     → [A-Z].*\.$`, s)
			assert.Contains(t, s, detail)
		}
	}
}

// Thousands of checks, findings and reasons leave the short text short.
func TestTextStaysShort(t *testing.T) {
	var results []audit.Result
	for i := range 3000 {
		for p := harden.PointNone; p <= harden.NumPoints; p++ {
			r := unknown(p, harden.ReasonError, fmt.Sprint("cause ", i))
			if i%2 == 0 {
				r = fail(p, harden.Finding{Subject: fmt.Sprint("s", i), Message: fmt.Sprint("m", i), Remedy: fmt.Sprint("r", i)})
				r.Detail = fmt.Sprint("hidden ", i)
			}
			results = append(results, r)
		}
	}
	s := string(encode(t, report.Text, audit.NewReport(started, 0, results)))
	assert.Less(t, strings.Count(s, "\n"), 15*20)
	assert.Contains(t, s, "and 1,495 more")
	assert.Contains(t, s, "2,995 more outside the 14 points")
	assert.Contains(t, s, "0/14 — 14 fail, 1,500 checks outside the points fail, 1,500")
}
