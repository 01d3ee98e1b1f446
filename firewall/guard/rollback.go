package guard

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// Rollback undoes the change id now, and waits until that is done. The empty id is
// that of the current change. It works also where the watchdog has died, and
// continues a rollback that was cut off. A confirmed change it does not undo, nor
// what has been rolled back entirely: that is an error that wraps
// [ErrNotArmed]. If ctx ends first, the rollback goes on.
func (g *Guard) Rollback(ctx context.Context, id string) (Status, error) {
	st, err := g.status(ctx, id)
	if err != nil {
		return st, err
	}
	dir := filepath.Join(g.Dir, st.ID)
	switch st.State {
	case StateArmed:
		if err := writeFile(filepath.Join(dir, rollbackFile), nil); err != nil {
			return st, err
		}
	case StateRollingBack:
	case StateUnguarded, StateIncomplete:
		mode := "restore"
		if st.Rebooted {
			mode = "restore-files"
		}
		if err := g.launch(ctx, st.ID, mode); err != nil {
			return st, err
		}
	default:
		return st, fmt.Errorf("%w: %v", ErrNotArmed, st)
	}
	return g.awaitOutcome(ctx, st)
}

// awaitOutcome waits until the rollback is over.
func (g *Guard) awaitOutcome(ctx context.Context, st Status) (Status, error) {
	id, began := st.ID, st.State
	for started := time.Now(); ; {
		select {
		case <-ctx.Done():
			return st, fmt.Errorf("guard: %v: %w", st, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
		var err error
		if st, err = g.status(ctx, id); err != nil {
			return st, err
		}
		switch st.State {
		case StateRolledBack:
			return st, nil
		case StateConfirmed:
			return st, fmt.Errorf("%w: %v", ErrNotArmed, st)
		case StateUnguarded, StateIncomplete:
			// Where it was launched anew, it takes a moment to appear.
			if st.State != began || time.Since(started) > startTimeout {
				return st, fmt.Errorf("guard: %v: see %s, mend what is in the way, and call Rollback again", st, st.Log)
			}
		}
	}
}

// Recover undoes what a watchdog can no longer undo: changes that nobody has
// decided upon and whose watchdog has ended, by a kill or with the machine, and
// rollbacks that were cut off. Call it when the machine starts, before what
// reads the files of firewalls: after a restart it puts back files only, since
// rules that were loaded since are not those of before. It returns the status of each in the end.
func (g *Guard) Recover(ctx context.Context) ([]Status, error) {
	all, err := g.List(ctx)
	if err != nil {
		return nil, err
	}
	var done []Status
	var errs []error
	for _, st := range all {
		switch st.State {
		case StateUnguarded, StateIncomplete:
			st, err := g.Rollback(ctx, st.ID)
			done = append(done, st)
			errs = append(errs, err)
		case StateStale, StateConfirmed:
			errs = append(errs, g.Remove(ctx, st.ID))
		}
	}
	return done, errors.Join(errs...)
}
