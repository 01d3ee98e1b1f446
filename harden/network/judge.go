package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/harden"
)

var errNoOutside = errors.New("no interface to the outside was found: what comes from there could not be followed")

// A judge is a function of what a machine shows.
type judge func(context.Context, Machine) (harden.Verdict, error)

// violations collects findings.
type violations []harden.Finding

// add adds a finding, or its evidence to one that says the same of the same.
func (v *violations) add(f harden.Finding) {
	for i, o := range *v {
		if o.ID == f.ID && o.Subject == f.Subject && o.Message == f.Message {
			for _, e := range f.Evidence {
				if !slices.Contains(o.Evidence, e) {
					(*v)[i].Evidence = append(slices.Clone((*v)[i].Evidence), e)
				}
			}
			return
		}
	}
	*v = append(*v, f)
}

// see adds evidence to the first finding about a subject.
func (v violations) see(subject string, e harden.Evidence) {
	for i := range v {
		if v[i].Subject == subject {
			v[i].Evidence = append(slices.Clone(v[i].Evidence), e)
			return
		}
	}
}

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

func inspected(source, observed, expected string) harden.Evidence {
	return harden.Evidence{Source: source, Observed: observed, Expected: expected, Level: harden.LevelInspected}
}

func declared(source, observed, expected string) harden.Evidence {
	return harden.Evidence{Source: source, Observed: observed, Expected: expected, Level: harden.LevelDeclared}
}

// some joins texts, saying how many more there are than it shows.
func some(all []string) string {
	const most = 5
	if len(all) <= most {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
}

// joined joins errors, each text once.
func joined(errs []error) error {
	var kept []error
	for _, err := range errs {
		if err != nil && !slices.ContainsFunc(kept, func(k error) bool { return k.Error() == err.Error() }) {
			kept = append(kept, err)
		}
	}
	const most = 3
	if more := len(kept) - most; more > 0 {
		kept = append(kept[:most:most], fmt.Errorf("and %d more", more))
	}
	return errors.Join(kept...)
}

// byWhat puts exposures in order, those of one thing together.
func byWhat(a, b exposure) int {
	return cmp.Or(strings.Compare(a.target.what, b.target.what), a.target.to.Compare(b.target.to))
}
