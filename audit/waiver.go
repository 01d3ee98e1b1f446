package audit

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
	"unicode"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// WaiversID is the ID of the result about the waivers themselves. It cannot be
// waived.
const WaiversID = "audit.waivers"

// A Waiver says that somebody answers for a known violation until a certain
// time. All fields but Scope are required. [ParseWaivers] reads waivers from
// JSON; encoding/json writes them.
type Waiver struct {
	// ID is that of a check, for all its findings, or of a finding.
	ID string `json:"id"`

	// Scope limits the waiver to findings whose Subject matches it as a
	// pattern of [path.Match], such as "container/build-*". Empty means all.
	Scope string `json:"scope,omitempty"`

	Owner   string    `json:"owner"`   // who answers for it
	Reason  string    `json:"reason"`  // why it is bearable
	Expires time.Time `json:"expires"` // when it ceases to count
}

// Validate reports what makes w no waiver at all. The error joins one for each
// field. That w has expired is not an error: an audit reports it.
func (w Waiver) Validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("field %q %s", field, fmt.Sprintf(format, args...)))
	}
	switch {
	case w.ID == "":
		bad("id", "is missing: name the check or finding to waive, such as \"container.read_only\"")
	case strings.ContainsFunc(w.ID, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }):
		bad("id", "is %q: an ID has no spaces or control characters", w.ID)
	case w.ID == WaiversID || strings.HasPrefix(w.ID, WaiversID+"."):
		bad("id", "is %q, which cannot be waived: correct or remove the waivers that it complains about", w.ID)
	}
	if _, err := path.Match(w.Scope, ""); err != nil {
		bad("scope", "is %q, which is no pattern: use *, ? and [a-z], and escape a literal one with \\", w.Scope)
	}
	if strings.TrimSpace(w.Owner) == "" {
		bad("owner", "is missing: name who answers for the violation")
	}
	if strings.TrimSpace(w.Reason) == "" {
		bad("reason", "is missing: say why the violation is bearable")
	}
	switch year := w.Expires.UTC().Year(); {
	case w.Expires.IsZero():
		bad("expires", "is missing: say until when, such as \"2030-12-31\"")
	case year < 0 || year > 9999: // RFC 3339 has four digits
		bad("expires", "is in the year %d: choose one before 10000", year)
	}
	return errors.Join(errs...)
}

// Expired reports whether w counts no longer at the time now.
func (w Waiver) Expired(now time.Time) bool { return !now.Before(w.Expires) }

// reaches reports whether subject is in the scope of w.
func (w Waiver) reaches(subject string) bool {
	if w.Scope == "" {
		return true
	}
	ok, _ := path.Match(w.Scope, subject) // the pattern has been validated
	return ok
}

// String returns the ID and scope, such as "container.read_only for container/web".
func (w Waiver) String() string {
	if w.Scope == "" {
		return w.ID
	}
	return w.ID + " for " + w.Scope
}

type waiverKey struct{ id, scope string }

func validateWaivers(waivers []Waiver) error {
	var errs []error
	seen := make(map[waiverKey]int, len(waivers))
	for i, w := range waivers {
		if err := checkWaiver(seen, i, w); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// checkWaiver validates waiver i, and that no earlier one is for the same.
func checkWaiver(seen map[waiverKey]int, i int, w Waiver) error {
	name := fmt.Sprintf("waiver %d", i+1)
	if w.ID != "" {
		name = fmt.Sprintf("waiver %d (%q)", i+1, w.ID)
	}
	var errs []error
	if err := w.Validate(); err != nil {
		for _, err := range err.(interface{ Unwrap() []error }).Unwrap() {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	key := waiverKey{w.ID, w.Scope}
	if first, ok := seen[key]; ok {
		errs = append(errs, fmt.Errorf("%s: has the id and scope of waiver %d: keep one of them", name, first+1))
	} else {
		seen[key] = i
	}
	return errors.Join(errs...)
}

// applyWaivers marks the findings that waivers cover at the time now, and
// returns results with the one about the waivers appended.
func applyWaivers(ctx context.Context, waivers []Waiver, results []Result, now time.Time) []Result {
	byID := make(map[string][]int, len(waivers))
	for i, w := range waivers {
		byID[w.ID] = append(byID[w.ID], i)
	}
	used := make([]bool, len(waivers))
	for i := range results {
		waive(&results[i], waivers, byID, used, now)
	}

	check := harden.New(waiversInfo, func(context.Context, *host.View) (harden.Verdict, error) {
		return judgeWaivers(waivers, used, results, now)
	})
	// What is known about the waivers does not depend on how the audit ended.
	res := harden.Evaluate(context.WithoutCancel(ctx), nil, check, 0)
	return append(results, Result{Result: res})
}

// waive decides which findings of r are waived, and what that makes of r.
func waive(r *Result, waivers []Waiver, byID map[string][]int, used []bool, now time.Time) {
	all := true
	for i := range r.Findings {
		f := &r.Findings[i]
		candidates := byID[r.Info.ID]
		if f.ID != "" && f.ID != r.Info.ID {
			candidates = append(candidates[:len(candidates):len(candidates)], byID[f.ID]...)
		}
		covered := false
		for _, k := range candidates {
			w := waivers[k]
			if !w.reaches(f.Subject) {
				continue
			}
			used[k] = true
			if covered || w.Expired(now) {
				continue
			}
			covered = true
			if r.Waivers == nil {
				r.Waivers = make([]*Waiver, len(r.Findings))
			}
			r.Waivers[i] = &w
		}
		all = all && covered
	}
	switch {
	case r.Status != harden.StatusFail || len(r.Findings) == 0 || !all:
	case r.Detail != "":
		// What was found is waived, but not everything was examined. The
		// rest is unknown, and nobody can answer for that.
		r.Status, r.Reason = harden.StatusUnknown, harden.ReasonError
	default:
		r.Status = harden.StatusWaived
	}
}

var waiversInfo = harden.Info{
	ID:    WaiversID,
	Title: "Every waiver is in force and covers a finding",
	Doc: "A waiver that has expired covers nothing, and one that covers nothing hides the next violation of its kind. " +
		"Remove the violation or renew the waiver; remove a waiver that is not needed.",
	Severity: harden.SeverityMedium,
}

// judgeWaivers is the check of the waivers themselves. used tells which of
// them covered a finding, or would if they had not expired.
func judgeWaivers(waivers []Waiver, used []bool, results []Result, now time.Time) (harden.Verdict, error) {
	var (
		findings []harden.Finding
		open     []string
	)
	for i, w := range waivers {
		f := harden.Finding{
			Subject: "waiver/" + w.String(),
			Evidence: []harden.Evidence{{
				Source:   fmt.Sprintf("waiver %d", i+1),
				Observed: fmt.Sprintf("expires %s, owner %s", w.Expires.UTC().Format(time.RFC3339), w.Owner),
				Expected: "in force, and covering a finding",
			}},
		}
		switch {
		case w.Expired(now):
			f.ID = WaiversID + ".expired"
			f.Message = fmt.Sprintf("expired on %s; %s answered for it", w.Expires.UTC().Format(time.RFC3339), w.Owner)
			f.Remedy = "Remove the violation, or have its owner renew the waiver."
		case used[i]:
			continue
		case undecided(w, results):
			open = append(open, w.String())
			continue
		default:
			f.ID = WaiversID + ".unmatched"
			f.Message = "covers no finding of this audit"
			f.Remedy = "Remove the waiver, or correct its id and scope."
		}
		findings = append(findings, f)
	}
	var err error
	if len(open) > 0 {
		err = fmt.Errorf("whether these waivers cover anything is unknown, as are the checks they name: %s", strings.Join(open, ", "))
	}
	switch {
	case len(findings) > 0:
		return harden.Fail(findings[0], findings[1:]...), err
	case err != nil:
		return harden.Verdict{}, err
	}
	return harden.Pass(harden.Evidence{
		Source:   "waivers",
		Observed: fmt.Sprintf("%d in force, each covering a finding", len(waivers)),
	}), nil
}

// undecided reports whether w, which covered nothing, might have if every
// check had seen everything. The ID of a finding begins with that of its check
// by convention; if no check goes by it, any might be meant.
func undecided(w Waiver, results []Result) bool {
	named, open, anyOpen := false, false, false
	for i := range results {
		r := &results[i]
		isOpen := r.Status == harden.StatusUnknown || r.Status == harden.StatusFail && r.Detail != ""
		anyOpen = anyOpen || isOpen
		if w.ID == r.Info.ID || strings.HasPrefix(w.ID, r.Info.ID+".") {
			named = true
			open = open || isOpen
		}
	}
	if named {
		return open
	}
	return anyOpen
}
