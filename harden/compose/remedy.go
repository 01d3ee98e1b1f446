package compose

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// Remediate returns [Checks] of a project that is loaded through the view at
// hand, o.FS not being used, each with the remedy of hardening its file as h
// says. Of h only Services and Needs are used; the rest is in o.
//
// The plan of each is the same, one edit of the whole file: a Fixer makes it
// once, after which the other checks pass. Its contents are kept out of the
// plan's description, for compose files hold secrets; the notes say what is
// changed. A check that the edit would not make pass, and a project of several
// files, where a setting of one may be undone by another, have no plan but say
// what a person must do.
//
// The containers that run are as before until "docker compose up" makes them
// again.
func Remediate(o Options, h Hardening) []harden.Check {
	src := Source(o)
	var all []harden.Check
	for _, r := range rules {
		all = append(all, &remedy{harden.Each(r.info, src, r.check), r, o, h})
	}
	return all
}

type remedy struct {
	harden.Check
	rule      rule
	options   Options
	hardening Hardening
}

// Plan implements harden.Remediator.
func (r *remedy) Plan(ctx context.Context, v *host.View) (harden.Plan, error) {
	o := r.options
	o.FS = v.FS
	if len(o.Files) != 1 {
		return harden.Plan{Manual: []string{
			"harden each compose file of " + strings.Join(o.Files, ", ") + " on its own: they are merged, and lists of all of them count",
		}}, nil
	}
	name := o.Files[0]
	before, err := v.ReadFile(name)
	if err != nil {
		return harden.Plan{}, fmt.Errorf("compose: %w", err)
	}
	if passes, err := r.passes(ctx, o, before); err != nil || passes {
		return harden.Plan{}, err
	}
	h := r.hardening
	h.Dir, h.FS, h.ImageUsers, h.BindTo = o.dir(), o.FS, o.ImageUsers, o.BindTo
	if h.Env, err = o.environment(v); err != nil {
		return harden.Plan{}, err
	}
	res, err := Harden(ctx, before, h)
	if err != nil {
		return harden.Plan{}, err
	}
	plan := harden.Plan{Notes: res.Notes, Manual: res.Manual}
	passes, err := r.passes(ctx, o, res.Doc)
	if err != nil {
		return harden.Plan{}, err
	}
	if !passes || string(res.Doc) == string(before) {
		return plan, nil
	}
	var services, changes []string
	for _, c := range res.Changes {
		if !slices.Contains(services, c.Service) {
			services = append(services, c.Service)
		}
		changes = append(changes, c.String())
	}
	plan.Notes = slices.Concat(changes, plan.Notes, []string{"the change takes effect when docker compose up makes the containers again"})
	plan.Actions = []harden.Action{harden.EditFile{
		Path: name, Summary: "harden " + strings.Join(services, ", "), Before: before, After: res.Doc, Secret: true,
	}}
	return plan, nil
}

// passes reports whether the check would pass if the file had these contents.
func (r *remedy) passes(ctx context.Context, o Options, doc []byte) (bool, error) {
	p, err := load(ctx, o, doc)
	if err != nil {
		return false, err
	}
	for _, s := range p.services {
		if rep := r.rule.run(s); len(rep.findings)+len(rep.unknown) > 0 {
			return false, nil
		}
	}
	return true, nil
}
