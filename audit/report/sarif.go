package report

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/harden"
)

// The section numbers in this file are those of SARIF 2.1.0 Plus Errata 01.
const (
	sarifVersion = "2.1.0"
	sarifSchema  = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

	// fingerprintKey names how a fingerprint is computed; see §3.27.17. A
	// change of the computation needs a new number.
	fingerprintKey = "hardshellFinding/v1"
)

type (
	sarifLog struct {
		Version string     `json:"version"`
		Schema  string     `json:"$schema"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool        sarifTool         `json:"tool"`
		Invocations []sarifInvocation `json:"invocations"`
		Results     []sarifResult     `json:"results"`
		Properties  map[string]any    `json:"properties,omitempty"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name           string      `json:"name"`
		InformationURI string      `json:"informationUri"`
		Rules          []sarifRule `json:"rules"`
	}
	sarifRule struct { // §3.49
		ID            string         `json:"id"`
		Short         *sarifText     `json:"shortDescription,omitempty"`
		Full          *sarifText     `json:"fullDescription,omitempty"`
		Help          *sarifText     `json:"help,omitempty"`
		Configuration sarifConfig    `json:"defaultConfiguration"`
		Properties    map[string]any `json:"properties"`
	}
	sarifConfig struct {
		Level string `json:"level"`
	}
	sarifInvocation struct { // §3.20
		Start         string              `json:"startTimeUtc"`
		End           string              `json:"endTimeUtc"`
		Successful    bool                `json:"executionSuccessful"`
		Notifications []sarifNotification `json:"toolExecutionNotifications"`
	}
	sarifNotification struct { // §3.58
		Level      string         `json:"level"`
		Message    sarifText      `json:"message"`
		Rule       *sarifRuleRef  `json:"associatedRule,omitempty"`
		Properties map[string]any `json:"properties"`
	}
	sarifRuleRef struct {
		ID    string `json:"id"`
		Index int    `json:"index"`
	}
	sarifResult struct { // §3.27
		RuleID       string             `json:"ruleId"`
		RuleIndex    int                `json:"ruleIndex"`
		Kind         string             `json:"kind"`
		Level        string             `json:"level"`
		Message      sarifText          `json:"message"`
		Locations    []sarifLocation    `json:"locations"`
		Fingerprints map[string]string  `json:"partialFingerprints"`
		Suppressions []sarifSuppression `json:"suppressions"` // §3.27.23: for all results or for none
		Properties   map[string]any     `json:"properties"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifLocation struct {
		Physical *sarifPhysical `json:"physicalLocation,omitempty"`
		Logical  []sarifLogical `json:"logicalLocations"`
	}
	sarifPhysical struct {
		Artifact struct {
			URI string `json:"uri"`
		} `json:"artifactLocation"`
	}
	sarifLogical struct { // §3.33
		Name string `json:"name"`
		Full string `json:"fullyQualifiedName"`
		Kind string `json:"kind"`
	}
	sarifSuppression struct { // §3.35
		Kind          string `json:"kind"`
		Status        string `json:"status"`
		Justification string `json:"justification"`
	}
)

// SARIF writes r in the Static Analysis Results Interchange Format, version
// 2.1.0, as one run. Every check is a rule, and every finding a result. A
// finding that is waived has a suppression. Properties hold what has no place
// in the format, such as the point, the evidence and the score.
//
// What is unknown is no result: the run is marked as not successful, with a
// notification for each check, each point without checks, and each failing
// check that could not examine everything. What passes or is not applicable is
// a rule without results; a consumer that disregards the kind of a result would
// otherwise raise an alert for it.
//
// Fingerprints depend on the check, the kind of finding and the subject, so
// that a finding keeps its identity when its message changes.
func SARIF(w io.Writer, r *audit.Report) error {
	run := sarifRun{
		Tool: sarifTool{sarifDriver{
			Name:           "hardshell",
			InformationURI: "https://github.com/managemyclaw/hardshell",
			Rules:          make([]sarifRule, 0, len(r.Results)),
		}},
		Results:    []sarifResult{},
		Properties: map[string]any{"score": r.Score},
	}
	inv := sarifInvocation{
		Start:         utc(r.Started),
		End:           utc(r.Started.Add(r.Elapsed)),
		Successful:    true,
		Notifications: []sarifNotification{},
	}
	prints := make(map[string]int)
	for i := range r.Results {
		res := &r.Results[i]
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, toRule(res))
		for k := range res.Findings {
			run.Results = append(run.Results, toSARIF(res, i, k, prints))
		}
		switch res.Status {
		case harden.StatusPass, harden.StatusNotApplicable, harden.StatusWaived:
		case harden.StatusFail:
			if res.Detail != "" {
				inv.notify(res, i, "not everything was examined: "+res.Detail)
			}
		default:
			inv.notify(res, i, fmt.Sprintf("unknown (%s): %s", orElse(string(res.Reason), "no reason"), res.Detail))
		}
	}
	groups := byPoint(r)
	for i, p := range r.Points {
		if why := unexplained(p, groups[i+1]); why != "" {
			inv.Successful = false
			inv.Notifications = append(inv.Notifications, sarifNotification{
				Level:      "error",
				Message:    message(fmt.Sprintf("point %d, %s, is unknown: %s", i+1, harden.Point(i+1).Title(), why)),
				Properties: map[string]any{"point": i + 1, "reason": p.Reason},
			})
		}
	}
	run.Invocations = []sarifInvocation{inv}

	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(sarifLog{sarifVersion, sarifSchema, []sarifRun{run}}); err != nil {
		return fmt.Errorf("report: encode SARIF: %w", err)
	}
	return flush(w, "SARIF", ascii(&b, jsonEscape))
}

// notify says that a check could not look, or not everywhere.
func (inv *sarifInvocation) notify(r *audit.Result, index int, text string) {
	inv.Successful = false
	inv.Notifications = append(inv.Notifications, sarifNotification{
		Level:      "error",
		Message:    message(text),
		Rule:       &sarifRuleRef{r.Info.ID, index},
		Properties: map[string]any{"point": int(r.Info.Point), "reason": r.Reason},
	})
}

func toRule(r *audit.Result) sarifRule {
	tags := []string{"security", r.Info.Point.Slug()}
	rule := sarifRule{
		ID:            r.Info.ID,
		Configuration: sarifConfig{sarifLevel(r.Info.Severity)},
		Properties: map[string]any{
			"tags":              tags, // §3.8.2
			"security-severity": securitySeverity(r.Info.Severity),
			"point":             int(r.Info.Point),
			"status":            r.Status,
			"requires":          r.Info.Requires,
		},
	}
	if len(r.Info.Refs) > 0 {
		rule.Properties["refs"] = r.Info.Refs
	}
	if r.Info.Title != "" {
		m := message(r.Info.Title)
		rule.Short, rule.Help = &m, &m
	}
	if r.Info.Doc != "" {
		m := message(r.Info.Doc)
		rule.Full, rule.Help = &m, &m
	}
	return rule
}

func toSARIF(r *audit.Result, index, k int, prints map[string]int) sarifResult {
	f := &r.Findings[k]
	severity := severityOf(r, f)
	text := f.Message
	if f.Subject != "" {
		text = f.Subject + ": " + text
	}
	if f.Remedy != "" {
		text += "\nRemedy: " + f.Remedy
	}
	res := sarifResult{
		RuleID:       r.Info.ID,
		RuleIndex:    index,
		Kind:         "fail",
		Level:        sarifLevel(severity),
		Message:      message(text),
		Locations:    []sarifLocation{location(f.Subject)},
		Fingerprints: map[string]string{fingerprintKey: fingerprint(r.Info.ID, f, prints)},
		Suppressions: []sarifSuppression{},
		Properties: map[string]any{
			"point":             int(r.Info.Point),
			"severity":          severity,
			"security-severity": securitySeverity(severity),
			"evidence":          evidenceToJSON(f.Evidence),
		},
	}
	if f.ID != "" {
		res.Properties["findingId"] = f.ID
	}
	if w, ok := r.Waiver(k); ok {
		res.Suppressions = append(res.Suppressions, sarifSuppression{"external", "accepted", justification(w)})
	}
	return res
}

// location names the subject, and the file if it is one. A result must have a
// location for a consumer to show it.
func location(subject string) sarifLocation {
	var loc sarifLocation
	if strings.HasPrefix(subject, "/") {
		loc.Physical = new(sarifPhysical)
		loc.Physical.Artifact.URI = (&url.URL{Scheme: "file", Path: subject}).String()
	}
	full := orElse(subject, "host")
	name := full
	if i := strings.LastIndexByte(strings.TrimRight(full, "/"), '/'); i >= 0 && i < len(full)-1 {
		name = full[i+1:]
	}
	loc.Logical = []sarifLogical{{name, full, "resource"}}
	return loc
}

// fingerprint identifies a finding from one audit to the next. Findings that
// cannot be told apart are numbered.
func fingerprint(check string, f *harden.Finding, prints map[string]int) string {
	h := sha256.New()
	for _, part := range []string{check, f.ID, f.Subject} {
		fmt.Fprintf(h, "%d:%s", len(part), part) // no two lists of parts look the same
	}
	sum := hex.EncodeToString(h.Sum(nil)[:16])
	prints[sum]++
	if n := prints[sum]; n > 1 {
		return fmt.Sprintf("%s:%d", sum, n)
	}
	return sum
}

// message makes text a plain text message. Braces are doubled, as §3.11.5
// demands. A bracket and a parenthesis that would make a link (§3.11.6) are
// put apart: no link is ours.
func message(text string) sarifText {
	return sarifText{messageEscaper.Replace(orElse(text, "(nothing)"))} // §3.11.8: not empty
}

var messageEscaper = strings.NewReplacer("{", "{{", "}", "}}", "](", "] (")

// sarifLevel maps a severity to §3.27.10.
func sarifLevel(s harden.Severity) string {
	switch {
	case s >= harden.SeverityHigh:
		return "error"
	case s >= harden.SeverityLow && s < harden.SeverityMedium:
		return "note"
	}
	return "warning" // also if none is stated
}

// securitySeverity maps a severity to the number from 0.0 to 10.0 that GitHub
// reads as critical above 9.0, high from 7.0, medium from 4.0, and low below.
func securitySeverity(s harden.Severity) string {
	switch {
	case s >= harden.SeverityCritical:
		return "9.5"
	case s >= harden.SeverityHigh:
		return "8.0"
	case s >= harden.SeverityMedium:
		return "5.5"
	case s >= harden.SeverityLow:
		return "2.0"
	}
	return "5.5"
}

// utc formats t as §3.9 demands.
func utc(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
