package report

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/harden"
)

// DefaultWidth is how many columns [Text] uses by default.
const DefaultWidth = 80

// minWidth is the least that leaves room beside the indentation.
const minWidth = 40

// Limits of what is shown unless TextOptions.Full.
const (
	maxGroups   = 5   // findings of one check that say different things
	maxSubjects = 3   // of findings that say the same
	maxRemedies = 2   // of one point
	maxChecks   = 5   // outside the 14 points
	maxChars    = 300 // of one piece of text
)

// Text writes r for people, without colour, in [DefaultWidth] columns: what
// fails or is unknown first, with why and what to do, then a line for each area
// saying what holds, and the score last, where a terminal leaves it in view.
//
// Findings that say the same of many subjects are joined, and long lists are
// cut, so that a machine with ten thousand containers gives as many lines as
// one with ten. Foreign text is made harmless: control characters, escape
// sequences and changes of the direction of writing are shown as escapes.
func Text(w io.Writer, r *audit.Report) error { return TextOptions{}.Encode(w, r) }

// TextOptions say how to write text. The zero value is what [Text] does. Colour
// and width are for the caller to find out.
type TextOptions struct {
	// Color marks text with the colours of ANSI terminals (ECMA-48 SGR).
	Color bool

	// Full adds every point, every check with its evidence, and the checks
	// outside the 14 points, and cuts nothing.
	Full bool

	// Width is the number of columns. Zero or less means [DefaultWidth];
	// fewer than 40 count as 40.
	Width int
}

// Encode writes r as [Text] does, with the options in o.
func (o TextOptions) Encode(w io.Writer, r *audit.Report) error {
	if o.Width <= 0 {
		o.Width = DefaultWidth
	}
	o.Width = max(o.Width, minWidth)
	t := &text{TextOptions: o, report: r, results: byPoint(r)}
	t.problems()
	t.areas()
	if o.Full {
		t.rest()
	}
	t.score()
	return flush(w, "text", &t.out)
}

// An area is a line of the summary: points that are one concern to a user.
type area struct {
	name   string
	points []harden.Point
}

var areas = []area{
	{"Docker", []harden.Point{harden.PointNonRoot, harden.PointReadOnlyFS, harden.PointCapDropAll, harden.PointNoSocketMount, harden.PointNoNewPrivileges}},
	{"Firewall", []harden.Point{harden.PointLocalhost, harden.PointUFW, harden.PointDockerUser, harden.PointTailscale}},
	{"OAuth", []harden.Point{harden.PointComposioOAuth, harden.PointVault}},
	{"Permissions", []harden.Point{harden.PointToolAllowlists}},
	{"Kill switch", []harden.Point{harden.PointKillSwitch}},
	{"Audit log", []harden.Point{harden.PointAuditTrail}},
}

// holds says what is true of a point that passes.
var holds = [harden.NumPoints + 1]string{
	harden.PointNonRoot:         "no root process",
	harden.PointReadOnlyFS:      "read-only filesystem",
	harden.PointCapDropAll:      "no capabilities",
	harden.PointNoSocketMount:   "no engine socket",
	harden.PointNoNewPrivileges: "no new privileges",
	harden.PointLocalhost:       "gateway bound to this machine",
	harden.PointUFW:             "UFW denies by default",
	harden.PointDockerUser:      "published ports filtered",
	harden.PointTailscale:       "way in over Tailscale only",
	harden.PointComposioOAuth:   "agent holds no credential",
	harden.PointVault:           "credentials encrypted",
	harden.PointAuditTrail:      "every action recorded, and the record verified",
	harden.PointKillSwitch:      "armed and rehearsed",
	harden.PointToolAllowlists:  "only the tools that were named",
}

// whyUnknown puts a reason in words, unless the detail of the result does, and
// says what to do about it.
func whyUnknown(r harden.Reason) (why, remedy string) {
	switch r {
	case harden.ReasonPrivilege:
		return "not allowed to look", "Run the audit as root."
	case harden.ReasonTimeout:
		return "looking took too long", "Find out what hangs, or allow more time."
	case harden.ReasonCanceled:
		return "the audit was stopped", "Let the audit run to its end."
	case harden.ReasonTool:
		return "a program that is needed is not installed", "Install it, and run the audit again."
	case harden.ReasonPanic:
		return "the check crashed", "Report the crash to the author of the check."
	case harden.ReasonEvidence:
		return "", "Let the audit reach the running system: a setting alone proves nothing."
	case harden.ReasonNoSubject:
		return "there was nothing to examine", "Start what is to be examined, or correct its name."
	case harden.ReasonUndecided:
		return "the check came to no verdict", "Report this to the author of the check."
	case harden.ReasonNotImplemented:
		return "", "Add a check for this point to the audit."
	case harden.ReasonUnsupported:
		return "cannot be determined on this system", "Examine this by hand."
	}
	return "could not look", "Remove the cause, and run the audit again."
}

// ANSI colours.
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

// text is the state of one encoding.
type text struct {
	TextOptions
	report  *audit.Report
	results [harden.NumPoints + 1][]*audit.Result
	out     bytes.Buffer
}

// paint wraps s in a colour.
func (t *text) paint(color, s string) string {
	if !t.Color || color == "" {
		return s
	}
	return "\x1b[" + color + "m" + s + "\x1b[0m"
}

// line writes body, which is clean, behind a lead of ours, wrapped, and indented
// on the following lines to where it began.
func (t *text) line(lead, leadColor, body, bodyColor string) {
	if body == "" {
		return
	}
	indent := utf8.RuneCountInString(lead) // the marks are narrow
	for i, s := range wrap(body, t.Width-indent) {
		if i == 0 {
			blank := len(lead) - len(strings.TrimLeft(lead, " "))
			t.out.WriteString(lead[:blank])
			if mark := strings.TrimRight(lead[blank:], " "); mark != "" {
				t.out.WriteString(t.paint(leadColor, mark))
				t.out.WriteString(lead[blank+len(mark):])
			}
		} else {
			t.out.WriteString(strings.Repeat(" ", indent))
		}
		t.out.WriteString(t.paint(bodyColor, s))
		t.out.WriteByte('\n')
	}
}

func (t *text) gap() {
	if t.out.Len() > 0 {
		t.out.WriteByte('\n')
	}
}

// clean is the function clean with the limit that applies.
func (t *text) clean(s string) string {
	if t.Full {
		return clean(s, 0)
	}
	return clean(s, maxChars)
}

func mark(s harden.Status) (sign, color string) {
	switch s {
	case harden.StatusPass:
		return "✓", green
	case harden.StatusFail:
		return "✗", red
	case harden.StatusNotApplicable:
		return "-", dim
	case harden.StatusWaived:
		return "~", cyan
	}
	return "?", yellow
}

// head writes the line of a point.
func (t *text) head(p audit.PointResult, point harden.Point) {
	sign, color := mark(p.Status)
	title := point.Title()
	if p.Status == harden.StatusNotApplicable || p.Status == harden.StatusWaived {
		title += " (" + words(p.Status) + ")"
	}
	t.line(fmt.Sprintf("%s %2d ", sign, int(point)), color, title, bold)
}

func words(s harden.Status) string { return strings.ReplaceAll(s.String(), "_", " ") }

// problems writes the points that fail, and then those that are unknown.
// Unknown points with the same cause, such as a missing privilege, share it.
func (t *text) problems() {
	for i, p := range t.report.Points {
		if p.Status == harden.StatusFail {
			t.gap()
			t.head(p, harden.Point(i+1))
			t.out.Write(t.body(p, t.results[i+1]))
		}
	}
	var bodies [][]byte
	sharing := make(map[string][]int)
	for i, p := range t.report.Points {
		switch p.Status {
		case harden.StatusPass, harden.StatusFail, harden.StatusNotApplicable, harden.StatusWaived:
			continue
		}
		body := t.body(p, t.results[i+1])
		if _, ok := sharing[string(body)]; !ok {
			bodies = append(bodies, body)
		}
		sharing[string(body)] = append(sharing[string(body)], i)
	}
	for _, body := range bodies {
		t.gap()
		for _, i := range sharing[string(body)] {
			t.head(t.report.Points[i], harden.Point(i+1))
		}
		t.out.Write(body)
	}
	if !t.Full { // rest writes them
		t.otherProblems()
	}
}

// otherProblems writes the checks outside the 14 points that fail or are
// unknown: they do not score, and they do spoil the audit.
func (t *text) otherProblems() {
	failing, unknown := t.others()
	list := slices.Concat(failing, unknown)
	more := 0
	if len(list) > maxChecks+1 {
		more, list = len(list)-maxChecks, list[:maxChecks]
	}
	var body []byte
	for i, r := range list {
		next := t.body(audit.PointResult{Status: r.Status}, []*audit.Result{r})
		if i == 0 || !bytes.Equal(next, body) { // or else they share it
			t.out.Write(body)
			t.gap()
		}
		body = next
		sign, color := mark(r.Status)
		t.line(sign+"    ", color, t.clean(r.Info.ID)+": "+t.clean(r.Info.Title), bold)
	}
	t.out.Write(body)
	if more > 0 {
		t.gap()
		t.line("     ", "", "and "+count(more)+" more outside the 14 points", dim)
	}
}

// others returns the checks outside the 14 points that fail, and those that are
// unknown.
func (t *text) others() (failing, unknown []*audit.Result) {
	for _, r := range t.results[harden.PointNone] {
		switch r.Status {
		case harden.StatusPass, harden.StatusNotApplicable, harden.StatusWaived:
		case harden.StatusFail:
			failing = append(failing, r)
		default:
			unknown = append(unknown, r)
		}
	}
	return failing, unknown
}

// body returns what is to be said below the line of a point.
func (t *text) body(p audit.PointResult, results []*audit.Result) []byte {
	b := &text{TextOptions: t.TextOptions, report: t.report}
	if why := unexplained(p, results); why != "" {
		b.unknown(p.Reason, why)
	}
	if t.Full {
		for _, r := range results {
			b.check(r)
		}
		return b.out.Bytes()
	}
	var (
		groups   groups
		open     distinct // what was not seen
		remedies distinct
		waived   int
	)
	for _, r := range results {
		switch r.Status {
		case harden.StatusPass, harden.StatusNotApplicable, harden.StatusWaived:
			continue
		case harden.StatusFail:
			groups.add(t, r, &remedies)
			if r.Detail != "" {
				open.add("not examined: " + t.clean(r.Detail))
			}
		default:
			why, remedy := whyUnknown(r.Reason)
			if len(r.Findings) > 0 { // all of them waived
				why = "not examined"
			}
			open.add(t.because(why, r.Detail))
			remedies.add(remedy)
		}
		for i := range r.Findings {
			if _, ok := r.Waiver(i); ok {
				waived++
			}
		}
	}
	b.groups(&groups)
	if waived > 0 {
		b.line("     ~ ", cyan, count(waived)+" waived", "")
	}
	b.distinct("     ? ", yellow, &open, maxGroups)
	b.distinct("     → ", green, &remedies, maxRemedies)
	return b.out.Bytes()
}

// unknown writes why a point is unknown that no result explains.
func (t *text) unknown(reason harden.Reason, detail string) {
	why, remedy := whyUnknown(reason)
	t.line("     ? ", yellow, t.because(why, detail), "")
	t.line("     → ", green, remedy, "")
}

func (t *text) because(why, detail string) string {
	detail = t.clean(detail)
	switch {
	case detail == "" && why == "":
		return "no reason is known"
	case detail == "":
		return why
	case why == "":
		return detail
	}
	return why + ": " + detail
}

// A group is what several findings of a point say alike.
type group struct {
	severity harden.Severity
	message  string
	subjects []string
}

// groups are the findings of a point, joined by what they say, the worst first.
type groups struct {
	list  []*group
	index map[string]*group
}

func (g *groups) add(t *text, r *audit.Result, remedies *distinct) {
	if g.index == nil {
		g.index = make(map[string]*group)
	}
	remedy := false
	for i := range r.Findings {
		f := &r.Findings[i]
		if _, ok := r.Waiver(i); ok {
			continue // what makes it fail is the rest
		}
		severity, message := severityOf(r, f), t.clean(f.Message)
		key := severity.String() + " " + message
		at := g.index[key]
		if at == nil {
			at = &group{severity: severity, message: message}
			g.index[key] = at
			g.list = append(g.list, at)
		}
		if !slices.Contains(at.subjects, f.Subject) { // two checks of a point may say the same
			at.subjects = append(at.subjects, f.Subject)
		}
		if f.Remedy != "" {
			remedy = true
			remedies.add(t.clean(f.Remedy))
		}
	}
	if !remedy {
		remedies.add(t.clean(r.Info.Doc))
	}
}

// groups writes the findings of a point, cut.
func (t *text) groups(g *groups) {
	slices.SortStableFunc(g.list, func(a, b *group) int { return int(b.severity - a.severity) })
	rest := 0
	for i, g := range g.list {
		if i >= maxGroups {
			rest += len(g.subjects)
			continue
		}
		t.line("     • ", severityColor(g.severity), t.finding(g.subjects, g.message, g.severity), "")
	}
	if rest > 0 {
		t.line("       ", "", "and "+count(rest)+" more", dim)
	}
}

// finding puts findings that say the same of several subjects in a sentence.
func (t *text) finding(subjects []string, message string, severity harden.Severity) string {
	var names []string
	for _, s := range subjects {
		if len(names) == maxSubjects {
			break
		}
		if s = t.clean(s); s != "" {
			names = append(names, s)
		}
	}
	list := strings.Join(names, ", ")
	if rest := len(subjects) - len(names); rest > 0 && len(names) > 0 {
		list += " and " + count(rest) + " more"
	}
	if message == "" {
		message = "is not as it should be"
	}
	if list != "" {
		message = list + ": " + message
	}
	if severity != harden.SeverityUnspecified {
		message += " [" + severity.String() + "]"
	}
	return message
}

func severityColor(s harden.Severity) string {
	if s > harden.SeverityUnspecified && s < harden.SeverityHigh {
		return yellow
	}
	return red
}

// distinct is a list of different texts in the order of their coming.
type distinct struct {
	list []string
	seen map[string]bool
}

func (l *distinct) add(s string) {
	if l.seen == nil {
		l.seen = make(map[string]bool)
	}
	if s != "" && !l.seen[s] {
		l.seen[s] = true
		l.list = append(l.list, s)
	}
}

// distinct writes a list, cut to limit entries unless that saves only one.
func (t *text) distinct(lead, color string, l *distinct, limit int) {
	for i, s := range l.list {
		if i == limit && len(l.list) > limit+1 {
			t.line(strings.Repeat(" ", utf8.RuneCountInString(lead)), "", "and "+count(len(l.list)-i)+" more", dim)
			return
		}
		t.line(lead, color, s, "")
	}
}

// check writes a check in full.
func (t *text) check(r *audit.Result) {
	sign, color := mark(r.Status)
	how := words(r.Status)
	switch r.Status {
	case harden.StatusPass:
		how += ", " + r.Level.String()
	case harden.StatusFail, harden.StatusWaived, harden.StatusNotApplicable:
	default:
		if r.Reason != "" {
			how += ", " + t.clean(string(r.Reason))
		}
	}
	t.line("     "+sign+" ", color, fmt.Sprintf("%s: %s (%s, %s)", t.clean(r.Info.ID), t.clean(r.Info.Title), how, brief(r.Elapsed)), "")
	var remedies distinct
	for i := range r.Findings {
		f := &r.Findings[i]
		severity := severityOf(r, f)
		t.line("       • ", severityColor(severity), t.finding([]string{f.Subject}, t.clean(f.Message), severity), "")
		t.evidence("           ", f.Evidence)
		if w, ok := r.Waiver(i); ok {
			t.line("         ~ ", cyan, t.clean(justification(w)), "")
		} else if f.Remedy != "" {
			remedies.add(t.clean(f.Remedy))
		} else {
			remedies.add(t.clean(r.Info.Doc))
		}
	}
	t.evidence("       ", r.Evidence)
	switch {
	case r.Status == harden.StatusUnknown:
		why, remedy := whyUnknown(r.Reason)
		t.line("       ? ", yellow, t.because(why, r.Detail), "")
		remedies.add(remedy)
	case r.Detail == "":
	case r.Status == harden.StatusFail:
		t.line("       ? ", yellow, "not examined: "+t.clean(r.Detail), "")
	default:
		t.line("       ", "", t.clean(r.Detail), "")
	}
	for _, s := range remedies.list {
		t.line("       → ", green, s, "")
	}
}

func (t *text) evidence(indent string, evidence []harden.Evidence) {
	for _, e := range evidence {
		s := t.clean(e.Source) + ": " + t.clean(e.Observed)
		if e.Expected != "" {
			s += "; expected: " + t.clean(e.Expected)
		}
		t.line(indent, "", s+" ("+e.Level.String()+")", dim)
	}
}

// areas writes the summary.
func (t *text) areas() {
	t.gap()
	width := 0
	for _, a := range areas {
		width = max(width, cells(a.name))
	}
	row := func(s harden.Status, name, body string) {
		sign, color := mark(s)
		t.line(fmt.Sprintf("%s %-*s  ", sign, width, name), color, body, "")
	}
	for _, a := range areas {
		status, body := t.area(a)
		row(status, a.name, body)
	}
	if failing, unknown := t.others(); len(failing)+len(unknown) > 0 {
		status, parts := harden.StatusUnknown, []string(nil)
		if len(failing) > 0 {
			status = harden.StatusFail
			parts = append(parts, "fail: "+t.ids(failing))
		}
		if len(unknown) > 0 {
			parts = append(parts, "unknown: "+t.ids(unknown))
		}
		row(status, "Others", strings.Join(parts, " · "))
	}
}

// area says what holds of an area and what does not.
func (t *text) area(a area) (harden.Status, string) {
	by := make(map[harden.Status][]string)
	for _, p := range a.points {
		status := t.report.Points[p-1].Status
		switch status {
		case harden.StatusPass:
			by[status] = append(by[status], holds[p])
		case harden.StatusFail, harden.StatusWaived, harden.StatusNotApplicable:
			by[status] = append(by[status], p.Title())
		default:
			by[harden.StatusUnknown] = append(by[harden.StatusUnknown], p.Title())
		}
	}
	worst := harden.StatusNotApplicable
	var parts []string
	for _, s := range []harden.Status{harden.StatusFail, harden.StatusUnknown, harden.StatusPass, harden.StatusWaived, harden.StatusNotApplicable} {
		list := by[s]
		if len(list) == 0 {
			continue
		}
		part := strings.Join(list, ", ")
		switch {
		case len(list) == len(a.points) && s == harden.StatusPass:
		case len(a.points) == 1:
			part = words(s)
		case s == harden.StatusPass:
			part = "holds: " + part
		default:
			part = words(s) + ": " + part
		}
		if len(parts) == 0 {
			worst = s
		}
		parts = append(parts, part)
	}
	return worst, strings.Join(parts, " · ")
}

func (t *text) ids(results []*audit.Result) string {
	var names []string
	for i, r := range results {
		if !t.Full && i == maxChecks && len(results) > maxChecks+1 {
			return strings.Join(names, ", ") + " and " + count(len(results)-i) + " more"
		}
		names = append(names, t.clean(r.Info.ID))
	}
	return strings.Join(names, ", ")
}

// rest writes the points that are no problem and the checks of none.
func (t *text) rest() {
	for i, p := range t.report.Points {
		switch p.Status {
		case harden.StatusPass, harden.StatusNotApplicable, harden.StatusWaived:
			t.gap()
			t.head(p, harden.Point(i+1))
			t.out.Write(t.body(p, t.results[i+1]))
		}
	}
	if others := t.results[harden.PointNone]; len(others) > 0 {
		t.gap()
		t.line("", "", "Outside the 14 points", bold)
		for _, r := range others {
			t.check(r)
		}
	}
}

// score writes the last line.
func (t *text) score() {
	s := t.report.Score
	var parts []string
	say := func(n int, what string) {
		if n > 0 {
			parts = append(parts, count(n)+" "+what)
		}
	}
	say(s.Failed, "fail")
	say(s.Unknown, "unknown")
	say(s.Waived, "waived")
	say(s.NotApplicable, "not applicable")
	failing, unknown := t.others()
	say(len(failing), plural(len(failing), "check outside the points fails", "checks outside the points fail"))
	say(len(unknown), plural(len(unknown), "check outside the points unknown", "checks outside the points unknown"))

	color := green
	switch t.report.Worst() {
	case harden.StatusFail:
		color = red
	case harden.StatusUnknown:
		color = yellow
	}
	verdict := strings.Join(parts, ", ")
	switch {
	case s.Passed == harden.NumPoints && t.report.Worst() == harden.StatusPass:
		verdict = "Hardened"
	case verdict == "":
		verdict = "nothing was determined" // the zero Report
	}
	t.gap()
	t.line("▸ ", color, fmt.Sprintf("Security score: %d/%d — %s.", s.Passed, s.Total, verdict), color+";"+bold)
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// count formats n with a comma between thousands.
func count(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// brief rounds a duration to what a person reads.
func brief(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Microsecond).String()
}
