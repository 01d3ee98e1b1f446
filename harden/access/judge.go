package access

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/harden"
)

// violations collects findings.
type violations []harden.Finding

// verdict fails if there are violations, is unknown for err otherwise, and
// passes if neither.
func (v violations) verdict(err error, pass ...harden.Evidence) (harden.Verdict, error) {
	switch {
	case len(v) > 0:
		return harden.Fail(v[0], v[1:]...), err
	case err != nil:
		return harden.Verdict{}, err
	case len(pass) == 0:
		return harden.Verdict{}, nil
	}
	return harden.Pass(pass[0], pass[1:]...), nil
}

func at(level harden.Level, source, observed, expected string) harden.Evidence {
	return harden.Evidence{Source: source, Observed: observed, Expected: expected, Level: level}
}

// some joins texts, saying how many more there are than it shows.
func some(all []string) string {
	const most = 5
	if len(all) <= most {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
}

// unreadError says what was not read; nil if all was.
func unreadError(all []Unread) error {
	var errs []error
	for i, u := range all {
		const most = 3
		if i == most {
			errs = append(errs, fmt.Errorf("and %d more were not read", len(all)-most))
			break
		}
		errs = append(errs, fmt.Errorf("%s was not read: %w", u.Place, u.Err))
	}
	return errors.Join(errs...)
}

// where says where a credential was found.
func (l *Leak) where() string {
	switch {
	case l.Name != "":
		return l.Place + " " + l.Name
	case l.Line > 0:
		return fmt.Sprintf("%s:%d", l.Place, l.Line)
	}
	return l.Place
}

// leaks makes a finding of each credential, naming the places of one that is in
// several.
func leaks(id string, all []Leak, remedy func(*Leak) string) violations {
	type key struct{ rule, mark string }
	var order []key
	byKey := make(map[key][]*Leak)
	for i := range all {
		k := key{all[i].Rule, all[i].Mark}
		if byKey[k] == nil {
			order = append(order, k)
		}
		byKey[k] = append(byKey[k], &all[i])
	}
	var v violations
	for _, k := range order {
		same := byKey[k]
		f := harden.Finding{
			ID: id + "." + strings.ReplaceAll(k.rule, "-", "_"), Severity: severityOf(k.rule), Remedy: remedy(same[0]),
			Message: fmt.Sprintf("a credential (%s, mark %s) is in the %s: %s", k.rule, k.mark, same[0].Kind, same[0].where()),
		}
		var kinds []string
		for i, l := range same {
			if kind := l.Kind.String(); !slices.Contains(kinds, kind) {
				kinds = append(kinds, kind)
			}
			if i < 8 {
				f.Evidence = append(f.Evidence, at(harden.LevelInspected, l.where(), fmt.Sprintf("%s at byte %d", l.Rule, l.At), "no credential"))
			}
		}
		if len(same) > 1 {
			f.Message += fmt.Sprintf(", and in %d more places", len(same)-1)
		}
		v = append(v, f)
	}
	return v
}

func severityOf(rule string) harden.Severity {
	switch rule {
	case RuleKnown, RuleComposioKey, RuleComposioField, RuleMCPURL, RuleOAuthToken, RulePrivateKey:
		return harden.SeverityCritical
	}
	return harden.SeverityUnspecified
}
