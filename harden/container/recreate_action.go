package container

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// recreate is the action that recreates one container.
type recreate struct {
	r                    *Recreator
	id, name, subject    string
	hardening            Hardening
	before, after        string
	unfinished           bool // a transaction that was cut off comes first
	unfinishedSince      time.Time
	unfinishedIsVerified bool
}

// resume returns the action that undoes or finishes a transaction, and then
// does what it was to do.
func (r *Recreator) resume(j *journal) *recreate {
	return &recreate{
		r: r, name: j.Name, subject: "container/" + j.Name, before: j.Before, after: j.After,
		unfinished: true, unfinishedSince: j.Started, unfinishedIsVerified: j.verified(),
	}
}

// Change implements [harden.Action].
func (a *recreate) Change() harden.Change {
	c := harden.Change{Subject: a.subject, Summary: "recreate it hardened", Before: a.before, After: a.after}
	if a.unfinished {
		first := "undo"
		if a.unfinishedIsVerified {
			first = "finish"
		}
		c.Summary = fmt.Sprintf("%s what was begun at %s and cut off, and recreate it hardened", first, a.unfinishedSince.UTC().Format(time.RFC3339))
	}
	return c
}

// Apply implements [harden.Action].
func (a *recreate) Apply(ctx context.Context, h *host.Host) error {
	if err := a.r.valid(); err != nil {
		return err
	}
	if err := a.r.apply(ctx, h, a); err != nil {
		return fmt.Errorf("recreate %s: %w", a.subject, err)
	}
	return nil
}

// Revert implements [harden.Action].
func (a *recreate) Revert(ctx context.Context, _ *host.Host) error {
	err := a.r.withJournal(ctx, a.name, func(f journalFile, j *journal) error {
		switch {
		case j == nil:
			return errors.New("nothing is written down that could be reverted")
		case j.Step == stepCommit:
			return errors.New("it was committed, and can no longer be reverted")
		}
		info, err := a.r.Control.Info(ctx)
		if err != nil {
			return err
		}
		return a.r.undo(ctx, info, f, j)
	})
	if err != nil {
		return fmt.Errorf("revert %s: %w", a.subject, err)
	}
	return nil
}

// Commit implements [harden.Committer].
func (a *recreate) Commit(ctx context.Context, _ *host.Host) error {
	err := a.r.withJournal(ctx, a.name, func(f journalFile, j *journal) error {
		switch {
		case j == nil:
			return nil
		case !j.verified():
			return errors.New("it was not applied")
		}
		return a.r.commit(ctx, f, j)
	})
	if err != nil {
		return fmt.Errorf("commit %s: %w", a.subject, err)
	}
	return nil
}

var _ harden.Committer = (*recreate)(nil)

// A heldLock is that of a journal whose transaction is applied here, and
// neither committed nor reverted yet.
type heldLock struct {
	file journalFile
	lock *os.File
}

// withJournal calls do with the journal of a container, or nil, under its
// lock, and releases the lock, also one that has been held: whatever do leaves
// undone is left to the next run.
func (r *Recreator) withJournal(ctx context.Context, name string, do func(journalFile, *journal) error) error {
	if err := r.valid(); err != nil {
		return err
	}
	r.mu.Lock()
	h, ok := r.held[name]
	delete(r.held, name)
	r.mu.Unlock()
	if !ok {
		info, err := r.Control.Info(ctx)
		if err != nil {
			return err
		}
		h.file = r.journalFile(info, name)
		if h.lock, err = r.take(h.file); err != nil {
			return err
		}
	}
	j, err := h.file.load()
	if err == nil {
		err = do(h.file, j)
	}
	return errors.Join(err, unlockFile(h.lock))
}

func (r *Recreator) take(f journalFile) (*os.File, error) {
	r.mu.Lock() // keeps peek from looking just now
	defer r.mu.Unlock()
	lock, err := lockFile(f.lock())
	if err != nil {
		return nil, fmt.Errorf("container: lock: %w", err)
	}
	return lock, nil
}

func (r *Recreator) hold(name string, h heldLock) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held == nil {
		r.held = make(map[string]heldLock)
	}
	r.held[name] = h
}

func (r *Recreator) apply(ctx context.Context, h *host.Host, a *recreate) (err error) {
	if err := os.MkdirAll(r.StateDir, 0o700); err != nil {
		return err
	}
	info, err := r.Control.Info(ctx)
	if err != nil {
		return err
	}
	f := r.journalFile(info, a.name)
	lock, err := r.take(f)
	if err != nil {
		return err
	}
	applied := false
	defer func() {
		if applied {
			r.hold(a.name, heldLock{f, lock})
		} else {
			err = errors.Join(err, unlockFile(lock))
		}
	}()

	j, err := f.load()
	if err != nil {
		return err
	}
	if (j != nil) != a.unfinished {
		return fmt.Errorf("another run came between: %w", harden.ErrStale)
	}
	if j != nil {
		done := j.verified()
		if err := r.settle(ctx, info, f, j); err != nil {
			return err
		}
		if done {
			return nil
		}
		a = a.withID("")
	}
	j, c, err := r.begin(ctx, h, a)
	if err != nil {
		return err
	}
	j.EngineID, j.EngineHost = info.ID, info.Host
	before := r.judge(ctx, h, j.OldID)
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := r.transact(ctx, h, info, f, j, c, before); err != nil {
		undo := r.undo(ctx, info, f, j)
		if undo != nil {
			return fmt.Errorf("%w; %w, run the remedy again to go on with it: %w", err, harden.ErrUnfinished, undo)
		}
		return fmt.Errorf("%w (everything was undone)", err)
	}
	applied = true
	return nil
}

func (a *recreate) withID(id string) *recreate {
	b := *a
	b.id, b.hardening = id, Hardening{}
	return &b
}

// begin looks at the container again and writes the plan of the transaction.
func (r *Recreator) begin(ctx context.Context, h *host.Host, a *recreate) (*journal, *Container, error) {
	fresh, done := harden.Share(ctx)
	defer done()
	found, err := r.named(cmp.Or(a.id, a.name)).All(fresh, &h.View)
	switch {
	case errors.Is(err, ErrNoContainer):
		return nil, nil, fmt.Errorf("%w: %w", harden.ErrStale, err)
	case err != nil:
		return nil, nil, err
	case len(found) != 1 || found[0].Name != a.name:
		return nil, nil, fmt.Errorf("it has another name now: %w", harden.ErrStale)
	}
	c := found[0]
	advice := Harden(c, r.Profile)
	before, after := advice.Hardening.describe(&c.Settings)
	if before != a.before || after != a.after || a.id != "" && !reflect.DeepEqual(advice.Hardening, a.hardening) {
		return nil, nil, harden.ErrStale
	}
	others, err := r.Control.Containers(ctx)
	if err != nil {
		return nil, nil, err
	}
	if joined := joinedTo(&c.Settings, others); len(joined) > 0 {
		return nil, nil, fmt.Errorf("%s in its namespaces: %w", strings.Join(joined, " and "), harden.ErrStale)
	}
	if err := r.mayStart(ctx, c.Name); err != nil {
		return nil, nil, err
	}
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails
	tx := hex.EncodeToString(random[:])
	j := &journal{
		Schema: journalSchema, Transaction: tx, Started: time.Now().UTC().Truncate(time.Second),
		Name: c.Name, Temp: c.Name + "-hardened-" + tx, Aside: asideName(c.Name, tx),
		OldID: c.ID, Policy: c.RestartPolicy,
		Hardening: advice.Hardening, Before: before, After: after, Leaves: advice.Leaves,
	}
	j.Hardening.Volumes = slices.Clone(j.Hardening.Volumes)
	for i := range j.Hardening.Volumes {
		v := &j.Hardening.Volumes[i]
		v.Name = c.Name + strings.ReplaceAll(volumeSafe(v.Path), "/", "_") + "_" + tx
	}
	for _, dest := range j.Hardening.Chown {
		for _, m := range c.Mounts {
			if m.Destination != dest {
				continue
			}
			t, err := r.files(c.Engine).find(&c, m)
			if err != nil {
				return nil, nil, fmt.Errorf("the files in %s: %w", dest, err)
			}
			j.Trees = append(j.Trees, t)
		}
	}
	return j, &c, nil
}

func asideName(name, tx string) string { return name + "-before-hardening-" + tx }

// volumeSafe replaces what the name of a volume must not have.
func volumeSafe(name string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("_.-/", c) {
			return c
		}
		return '-'
	}, name)
}

func (r *Recreator) mayStart(ctx context.Context, name string) error {
	if r.MayStart == nil {
		return nil
	}
	if err := r.MayStart(ctx, name); err != nil {
		return fmt.Errorf("container/%s must not be started: %w", name, err)
	}
	return nil
}
