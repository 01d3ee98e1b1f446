package access

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// trailRemedied gives the checks of the trails that have one their remedy.
func trailRemedied(c Config, check harden.Check) harden.Check {
	switch check.Info().ID {
	case "access.trail_pinned":
		return trailRemedy{check, func(ctx context.Context, v *host.View) (harden.Plan, error) { return planPins(ctx, c, v) }}
	case "access.trail_private":
		return trailRemedy{check, func(ctx context.Context, v *host.View) (harden.Plan, error) { return planModes(ctx, c, v) }}
	}
	return check
}

// A trailRemedy is a check with a remedy on the machine itself.
type trailRemedy struct {
	harden.Check
	plan func(context.Context, *host.View) (harden.Plan, error)
}

// Plan implements [harden.Remediator].
func (r trailRemedy) Plan(ctx context.Context, v *host.View) (harden.Plan, error) {
	return r.plan(ctx, v)
}

// Unwrap returns the check without its remedy.
func (r trailRemedy) Unwrap() harden.Check { return r.Check }

// planPins pins the logs that have grown beyond their checkpoint. Nothing is
// pinned anew that does not extend what was, for that would cover up what the
// checkpoint is there to show.
func planPins(ctx context.Context, c Config, v *host.View) (harden.Plan, error) {
	var p harden.Plan
	for _, t := range c.Trails {
		key, err := t.keyOf(v)
		if err != nil {
			return harden.Plan{}, err
		}
		log, err := t.logOf(v)
		if err != nil {
			return harden.Plan{}, err
		}
		pinned, err := t.pinOf(v, key)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			p.Manual = append(p.Manual, "for the trail "+t.Name+", "+pinRemedy)
			continue
		case errors.Is(err, trail.ErrCheckpoint):
			p.Manual = append(p.Manual, fmt.Sprintf("%s is no checkpoint of the trail %s: %s", t.Pin, t.Name, lookInto))
			continue
		case err != nil:
			return harden.Plan{}, err
		}
		sum, err := (&trail.Verifier{Key: key, Live: true, Pinned: []trail.Checkpoint{*pinned}}).Verify(ctx, log)
		if _, damaged := errors.AsType[*trail.DamageError](err); damaged {
			p.Manual = append(p.Manual, fmt.Sprintf("the trail %s is damaged, and is not pinned: %s", t.Name, lookInto))
			continue
		}
		if err != nil {
			return harden.Plan{}, err
		}
		if sum.Checkpoint.Size > pinned.Size {
			before, err := v.ReadFile(t.Pin)
			if err != nil {
				return harden.Plan{}, err
			}
			p.Actions = append(p.Actions, harden.EditFile{
				Path: t.Pin, Summary: fmt.Sprintf("pin the trail %s, which extends what is pinned", t.Name), Before: before, After: []byte(sum.Checkpoint.Note()), Perm: 0o600,
			})
		}
	}
	if len(p.Actions) > 0 {
		p.Notes = []string{"a checkpoint is worth as much as the place where it is: keep a copy on another machine"}
	}
	return p, nil
}

// planModes takes others' permissions away.
func planModes(ctx context.Context, c Config, v *host.View) (harden.Plan, error) {
	guards, err := NewTrailGuardSource(c).List(ctx, v)
	if err != nil {
		return harden.Plan{}, err
	}
	var p harden.Plan
	for _, g := range guards {
		if g.Err != nil {
			return harden.Plan{}, g.Err
		}
		for _, e := range g.Log {
			if e.Mode.Perm()&0o077 != 0 && (e.Mode.IsRegular() || e.Mode.IsDir()) {
				p.Actions = append(p.Actions, modeAction{e.Path, e.Mode.Perm(), e.Mode.Perm() &^ 0o077})
			}
		}
		for _, beside := range []struct {
			guard     *Guard
			forbidden fs.FileMode
		}{{g.Secret, 0o077}, {g.Pin, 0o022}, {g.Key, 0o022}} {
			if beside.guard == nil || len(beside.guard.Entries) == 0 {
				continue
			}
			if e := beside.guard.Entries[0]; e.Mode.IsRegular() && e.Mode.Perm()&beside.forbidden != 0 {
				p.Actions = append(p.Actions, modeAction{e.Path, e.Mode.Perm(), e.Mode.Perm() &^ beside.forbidden})
				if beside.guard == g.Secret {
					p.Notes = append(p.Notes, "others could read "+e.Path+": consider the key known, and begin another log once you have looked who has used it")
				}
			}
		}
		verdict, err := judgeTrailGuard(ctx, g)
		if err != nil {
			return harden.Plan{}, err
		}
		for _, f := range verdict.Findings() {
			if f.ID != "access.trail_private.mode" {
				p.Manual = append(p.Manual, f.Message+": "+f.Remedy)
			}
		}
	}
	return p, nil
}

// A modeAction changes the permissions of a file or directory.
type modeAction struct {
	path     string
	from, to fs.FileMode
}

// Change implements [harden.Action].
func (a modeAction) Change() harden.Change {
	return harden.Change{Subject: a.path, Summary: "take others' permissions away", Before: fmt.Sprintf("mode: %04o", a.from), After: fmt.Sprintf("mode: %04o", a.to)}
}

// Apply implements [harden.Action].
func (a modeAction) Apply(ctx context.Context, h *host.Host) error {
	return chmod(ctx, h, a.path, a.from, a.to)
}

// Revert implements [harden.Action].
func (a modeAction) Revert(ctx context.Context, h *host.Host) error {
	return chmod(ctx, h, a.path, a.to, a.from)
}

func chmod(ctx context.Context, h *host.Host, name string, from, to fs.FileMode) error {
	info, err := h.Lstat(name)
	if err != nil {
		return err
	}
	if info.Mode().Perm() != from || info.Mode()&fs.ModeSymlink != 0 {
		return fmt.Errorf("access: %s has mode %04o: %w", name, info.Mode().Perm(), harden.ErrStale)
	}
	_, err = h.Change(ctx, host.Command{Name: "chmod", Args: []string{"--", fmt.Sprintf("%04o", to), name}})
	return err
}
