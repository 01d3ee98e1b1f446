package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// transact takes the steps up to and including the one after which nothing is
// undone any more.
func (r *Recreator) transact(ctx context.Context, h *host.Host, info EngineInfo, f journalFile, j *journal, c *Container, before map[string]harden.Result) error {
	ctl := r.Control
	for _, s := range []struct {
		step step
		do   func() error
	}{
		{stepClone, func() (err error) {
			j.NewID, err = ctl.Clone(ctx, j.OldID, j.Temp, j.Hardening)
			return err
		}},
		{stepPolicy, func() error { return ctl.SetRestartPolicy(ctx, j.OldID, "no") }},
		{stepStop, func() error { return ctl.Stop(ctx, j.OldID, r.Grace) }},
		{stepAside, func() error { return ctl.Rename(ctx, j.OldID, j.Aside) }},
		{stepRename, func() error { return ctl.Rename(ctx, j.NewID, j.Name) }},
		{stepCopy, func() error { return r.copyData(ctx, j, c) }},
		{stepOwners, func() error { return r.giveFiles(info, f, j) }},
		{stepStart, func() error {
			if err := r.mayStart(ctx, j.Name); err != nil {
				return err
			}
			return ctl.Start(ctx, j.NewID)
		}},
		{stepWait, func() error { return r.await(ctx, j.NewID) }},
		{stepVerify, func() error { return r.verify(ctx, h, j, before) }},
		{stepVerified, func() error { return ctl.SetRestartPolicy(ctx, j.NewID, j.Policy) }},
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		j.Step = s.step
		if err := f.save(j); err != nil {
			return err
		}
		if err := s.do(); err != nil {
			return err
		}
	}
	return nil
}

func (r *Recreator) copyData(ctx context.Context, j *journal, c *Container) error {
	for _, v := range j.Hardening.Volumes {
		var skip []string // what has mounts of its own
		for _, m := range c.Mounts {
			if below(path.Clean(m.Destination), v.Path) {
				skip = append(skip, m.Destination)
			}
		}
		for dest := range j.Hardening.Tmpfs {
			if below(dest, v.Path) {
				skip = append(skip, dest)
			}
		}
		if err := r.Control.Copy(ctx, j.OldID, j.NewID, v.Path, skip, j.owner(c)); err != nil {
			return err
		}
	}
	return nil
}

// owner returns to whom what is copied is given, or nil.
func (j *journal) owner(c *Container) *Owner {
	to := j.Hardening.owner()
	if to != nil && c.Kernel.UID == int64(to.UID) {
		return nil
	}
	return to
}

func (r *Recreator) giveFiles(info EngineInfo, f journalFile, j *journal) error {
	to := j.Hardening.owner()
	if to == nil || len(j.Trees) == 0 {
		return nil
	}
	files := r.files(info)
	perTree := make([][]owned, len(j.Trees))
	var all []owned
	for i, t := range j.Trees {
		found, err := files.scan(t, *to)
		if err != nil {
			return err
		}
		for k := range found {
			found[k].Tree = i
		}
		perTree[i] = found
		all = append(all, found...)
	}
	if err := f.saveOwners(all); err != nil { // before the first is changed
		return err
	}
	for i, t := range j.Trees {
		given := slices.Clone(perTree[i])
		for k := range given {
			given[k].Owner, given[k].Mode = *to, 0
		}
		if err := files.set(t, given); err != nil {
			return err
		}
	}
	return nil
}

func (r *Recreator) returnFiles(info EngineInfo, f journalFile, j *journal) error {
	all, err := f.loadOwners()
	if err != nil {
		return err
	}
	files := r.files(info)
	var errs []error
	for i, t := range j.Trees {
		var of []owned
		for _, o := range all {
			if o.Tree == i {
				of = append(of, o)
			}
		}
		if err := files.set(t, of); err != nil {
			errs = append(errs, fmt.Errorf("give files back to their owners: %w", err))
		}
	}
	return errors.Join(errs...)
}

// await waits until a container is well.
func (r *Recreator) await(ctx context.Context, id string) error {
	limit := cmp.Or(r.Settle, DefaultSettle)
	if s, err := r.look(ctx, id); err != nil {
		return err
	} else if hc := s.HealthCheck; hc != nil {
		limit = min(hc.StartPeriod+time.Duration(hc.Retries+1)*(hc.Interval+hc.Timeout)+limit, cmp.Or(r.HealthTimeout, DefaultHealthTimeout))
	}
	end := time.NewTimer(limit)
	defer end.Stop()
	tick := time.NewTicker(cmp.Or(r.poll, 250*time.Millisecond))
	defer tick.Stop()
	over := false
	for {
		s, err := r.look(ctx, id)
		switch {
		case err != nil:
			return err
		case s.State != "running":
			return fmt.Errorf("the new container did not go on running: it is %s", s.State)
		case s.Health == "unhealthy":
			return errors.New("the new container is unhealthy")
		case s.Health == "healthy":
			return nil
		case over && s.HealthCheck == nil:
			return nil
		case over:
			return fmt.Errorf("the new container is still %s after %v", cmp.Or(s.Health, "without a health status"), limit)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the new container: %w", ctx.Err())
		case <-end.C:
			over = true
		case <-tick.C:
		}
	}
}

// look returns what the engine says of one container.
func (r *Recreator) look(ctx context.Context, id string) (Settings, error) {
	all, err := r.Control.Containers(ctx, id)
	if err != nil {
		return Settings{}, err
	}
	if len(all) != 1 {
		return Settings{}, fmt.Errorf("container %s: %w", id, ErrNoContainer)
	}
	return all[0], nil
}

// judge evaluates all checks for one container, on facts of its own.
func (r *Recreator) judge(ctx context.Context, h *host.Host, id string) map[string]harden.Result {
	ctx, done := harden.Share(ctx)
	defer done()
	all := make(map[string]harden.Result)
	for _, c := range Checks(r.named(id), r.Profile) {
		res := harden.Evaluate(ctx, &h.View, c, r.CheckTimeout)
		all[res.Info.ID] = res
	}
	return all
}

// verify compares what the checks say of the new container with what they
// said of the old one.
func (r *Recreator) verify(ctx context.Context, h *host.Host, j *journal, before map[string]harden.Result) error {
	after := r.judge(ctx, h, j.NewID)
	if err := ctx.Err(); err != nil {
		return err
	}
	var wrong []string
	seen := false
	for id, now := range after {
		was := before[id].Status
		left := slices.Contains(j.Leaves, id)
		ok := now.Status == harden.StatusPass || now.Status == harden.StatusNotApplicable
		seen = seen || now.Status == harden.StatusPass
		switch {
		case ok:
		case left && !(was == harden.StatusPass && now.Status == harden.StatusFail):
		case was == harden.StatusUnknown && now.Status == harden.StatusUnknown:
		default:
			why := now.Detail
			for _, f := range now.Findings {
				why = strings.Join([]string{why, f.Message}, "; ")
			}
			wrong = append(wrong, fmt.Sprintf("%s was %v and is %v: %s", id, was, now.Status, strings.TrimPrefix(why, "; ")))
		}
	}
	slices.Sort(wrong)
	switch {
	case len(wrong) > 0:
		return fmt.Errorf("the new container does not pass: %s", strings.Join(wrong, "; "))
	case !seen:
		return errors.New("no check passes for the new container")
	}
	return nil
}

// commit takes what was kept for undoing away, and ends the transaction.
func (r *Recreator) commit(ctx context.Context, f journalFile, j *journal) error {
	j.Step = stepCommit
	if err := f.save(j); err != nil {
		return err
	}
	old, err := r.look(ctx, j.OldID)
	switch {
	case errors.Is(err, ErrNoContainer): // an earlier attempt, or somebody, removed it
		return f.remove()
	case err != nil:
		return err
	}
	changed, err := r.changedOutside(ctx, j.OldID, &old, j.Hardening)
	if err != nil {
		return err
	}
	if len(changed) == 0 { // or else it is kept
		if err := r.Control.Remove(ctx, j.OldID); err != nil {
			return err
		}
	}
	return f.remove()
}

// changedOutside returns the files that a container changed in its writable
// layer and that the new one does not have.
func (r *Recreator) changedOutside(ctx context.Context, id string, s *Settings, h Hardening) ([]string, error) {
	all, err := r.Control.Changed(ctx, id)
	if err != nil {
		return nil, err
	}
	kept := []string{ // temporary, or what engines put there
		"/dev", "/proc", "/sys", "/run", "/tmp", "/var/tmp", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab", "/.dockerenv",
		"/sbin/docker-init", "/usr/sbin/docker-init",
	}
	for _, m := range s.Mounts {
		kept = append(kept, path.Clean(m.Destination))
	}
	for _, v := range h.Volumes {
		kept = append(kept, v.Path)
	}
	for dest := range h.Tmpfs {
		kept = append(kept, dest)
	}
	return slices.DeleteFunc(all, func(name string) bool {
		return slices.ContainsFunc(kept, func(k string) bool {
			return below(name, k) || below(k, name) // or a directory on the way to it
		})
	}), nil
}
