package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/managemyclaw/hardshell/harden"
)

func (j *journal) verified() bool { return j.Step == stepVerified || j.Step == stepCommit }

// cutOff returns the journals of transactions that no process is working on.
func (r *Recreator) cutOff(ctx context.Context) ([]*journal, error) {
	if err := r.valid(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(r.StateDir); errors.Is(err, os.ErrNotExist) {
		return nil, nil // nothing was ever begun
	}
	info, err := r.Control.Info(ctx)
	if err != nil {
		return nil, err
	}
	files, err := r.journals(info)
	if err != nil {
		return nil, err
	}
	var cut []*journal
	for _, f := range files {
		j, err := r.peek(f)
		if err != nil {
			return nil, err
		}
		if j != nil {
			cut = append(cut, j)
		}
	}
	return cut, nil
}

// peek returns a journal, or nil if there is none or it is of a transaction
// that is applied here, and neither committed nor reverted yet.
func (r *Recreator) peek(f journalFile) (*journal, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range r.held {
		if h.file == f {
			return nil, nil
		}
	}
	lock, err := lockFile(f.lock())
	if err != nil {
		return nil, fmt.Errorf("container: %s: %w", f.base, err)
	}
	j, err := f.load()
	return j, errors.Join(err, unlockFile(lock))
}

// Recover undoes or finishes the transactions of this engine that were cut
// off, and reports which containers they were about. What cannot be undone now
// stays written down, and is part of the error.
func (r *Recreator) Recover(ctx context.Context) ([]string, error) {
	cut, err := r.cutOff(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	var errs []error
	for _, j := range cut {
		err := r.withJournal(ctx, j.Name, func(f journalFile, j *journal) error {
			if j == nil {
				return nil
			}
			info, err := r.Control.Info(ctx)
			if err != nil {
				return err
			}
			return r.settle(ctx, info, f, j)
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("recover container/%s: %w", j.Name, err))
			continue
		}
		names = append(names, j.Name)
	}
	return names, errors.Join(errs...)
}

// settle brings a transaction that was cut off to one of its two ends.
func (r *Recreator) settle(ctx context.Context, info EngineInfo, f journalFile, j *journal) error {
	if !j.verified() {
		return r.undo(ctx, info, f, j)
	}
	s, err := r.look(ctx, j.NewID)
	switch {
	case errors.Is(err, ErrNoContainer):
		if _, err := r.look(ctx, j.OldID); err != nil {
			return fmt.Errorf("neither the new container nor the old one is there: %w", err)
		}
		return r.undo(ctx, info, f, j)
	case err != nil:
		return err
	}
	if s.Name != j.Name {
		if err := r.Control.Rename(ctx, j.NewID, j.Name); err != nil {
			return err
		}
	}
	fenced := r.mayStart(ctx, j.Name)
	if fenced == nil {
		if err := r.Control.SetRestartPolicy(ctx, j.NewID, j.Policy); err != nil {
			return err
		}
		if err := r.Control.Start(ctx, j.NewID); err != nil {
			return err
		}
	}
	if err := r.commit(ctx, f, j); err != nil {
		return err
	}
	return fenced
}

// undo brings back the container as it was. It goes on when ctx has ended, and
// can be repeated: it looks at what there is, not at what was done.
func (r *Recreator) undo(ctx context.Context, info EngineInfo, f journalFile, j *journal) error {
	timeout := r.UndoTimeout
	if timeout <= 0 {
		timeout = DefaultUndoTimeout
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()

	saved := j.Step
	j.Step = stepUndo
	if err := f.save(j); err != nil && saved == stepVerified {
		// The journal says that the new container is the one to keep.
		return err
	}
	return r.patiently(ctx, func() error { return r.undoOnce(ctx, info, f, j) })
}

// patiently repeats do while the engine is away, as when it is restarted.
func (r *Recreator) patiently(ctx context.Context, do func() error) error {
	patience := r.patience
	if patience == 0 {
		patience = 30 * time.Second
	}
	end := time.Now().Add(patience)
	pause := 100 * time.Millisecond
	for {
		err := do()
		if err == nil || !errors.Is(err, ErrEngine) || time.Now().Add(pause).After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(pause):
		}
		pause = min(2*pause, 2*time.Second)
	}
}

func (r *Recreator) undoOnce(ctx context.Context, info EngineInfo, f journalFile, j *journal) error {
	old, err := r.look(ctx, j.OldID)
	if errors.Is(err, ErrNoContainer) {
		return r.withoutOld(ctx, f, j)
	}
	if err != nil {
		return err
	}

	// The new one first: while it may run, the old one must not.
	if err := r.discardNew(ctx, j); err != nil {
		return fmt.Errorf("remove the new container: %w", err)
	}
	errs := []error{r.returnFiles(info, f, j)}

	if old.Name != j.Name {
		if err := r.Control.Rename(ctx, j.OldID, j.Name); err != nil {
			errs = append(errs, fmt.Errorf("the old container is there as %s: %w", old.Name, err))
		}
	}
	// It ran, or it would not have been recreated.
	if err := r.mayStart(ctx, j.Name); err != nil {
		// A restart policy would start it all the same. This is an end, too.
		errs = append(errs, r.Control.SetRestartPolicy(ctx, j.OldID, "no"))
		if errors.Join(errs...) == nil {
			errs = append(errs, r.discardVolumes(ctx, j))
		}
		if rest := errors.Join(errs...); rest != nil {
			return errors.Join(err, rest)
		}
		return errors.Join(fmt.Errorf("the container is back, stopped and without its restart policy %q: %w", j.Policy, err), f.remove())
	}
	errs = append(errs, r.Control.SetRestartPolicy(ctx, j.OldID, j.Policy))
	errs = append(errs, r.Control.Start(ctx, j.OldID))
	errs = append(errs, r.discardVolumes(ctx, j))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return f.remove()
}

// discardNew stops and removes the new container, if there is one.
func (r *Recreator) discardNew(ctx context.Context, j *journal) error {
	id := j.NewID
	if id == "" {
		id = j.Temp // it was made, and nobody heard of it
	}
	s, err := r.look(ctx, id)
	if errors.Is(err, ErrNoContainer) {
		return nil
	}
	if err != nil {
		return err
	}
	if s.ID == j.OldID { // cannot be, and must not be removed
		return fmt.Errorf("container %s is the old one", id)
	}
	if s.RestartPolicy != "no" && s.RestartPolicy != "" {
		if err := r.Control.SetRestartPolicy(ctx, s.ID, "no"); err != nil {
			return err
		}
	}
	if err := r.Control.Stop(ctx, s.ID, r.Grace); err != nil {
		return err
	}
	return r.Control.Remove(ctx, s.ID)
}

// discardVolumes removes the volumes that were made for the new container.
// Their names are the transaction's own.
func (r *Recreator) discardVolumes(ctx context.Context, j *journal) error {
	var errs []error
	for _, v := range j.Hardening.Volumes {
		if v.Name != "" {
			errs = append(errs, r.Control.RemoveVolume(ctx, v.Name))
		}
	}
	return errors.Join(errs...)
}

// withoutOld ends a transaction whose old container somebody removed. The new
// one is the last that has its settings and volumes: it is kept, and not
// started, for nothing has shown that it works.
func (r *Recreator) withoutOld(ctx context.Context, f journalFile, j *journal) error {
	id := j.NewID
	if id == "" {
		id = j.Temp
	}
	s, err := r.look(ctx, id)
	switch {
	case errors.Is(err, ErrNoContainer):
		return errors.Join(fmt.Errorf("somebody removed the container, and there is no new one: %w", harden.ErrStale), f.remove())
	case err != nil:
		return err
	}
	if err := r.Control.Stop(ctx, s.ID, r.Grace); err != nil {
		return err
	}
	name := s.Name
	if name != j.Name {
		if err := r.Control.Rename(ctx, s.ID, j.Name); err == nil {
			name = j.Name
		}
	}
	return errors.Join(fmt.Errorf("somebody removed the old container: the new, hardened one is kept, stopped, as %s", name), f.remove())
}
