package harden

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/managemyclaw/hardshell/harden/host"
)

// A Remediator is a [Check] that can say how to make itself pass.
type Remediator interface {
	Check

	// Plan returns the actions that would make the check pass. It changes
	// nothing: a dry run is a plan that is not applied. A plan without
	// actions means that there is nothing to do, or, if it has Manual steps,
	// nothing that a program can do.
	Plan(ctx context.Context, v *host.View) (Plan, error)
}

// AsRemediator finds the first [Remediator] in c's chain. The chain consists of
// c followed by the checks obtained by calling its Unwrap() Check method.
func AsRemediator(c Check) (Remediator, bool) {
	for c != nil {
		if r, ok := c.(Remediator); ok {
			return r, true
		}
		u, ok := c.(interface{ Unwrap() Check })
		if !ok {
			return nil, false
		}
		c = u.Unwrap()
	}
	return nil, false
}

// A Plan is a list of actions to take in order. It is a value: print it, store
// its changes, have it approved. Fields may be added in later versions.
type Plan struct {
	Actions []Action

	// Notes say what a reader of the plan should know, such as a need of the
	// subject for which the plan makes an exception.
	Notes []string

	// Manual says what a person must do, because no program can or should.
	Manual []string
}

// An Action is one reversible change.
//
// An Action carries the state that it expects and the state that it leaves, so
// that Revert works in another process than Apply did.
//
// An action that keeps the former state aside until the change has proved good
// should also implement [Committer].
type Action interface {
	// Change describes the action for people and for the trail. It holds no
	// secret.
	Change() Change

	// Apply makes the change. If it returns an error it must have changed
	// nothing, or the error must wrap [ErrUnfinished]. If the machine is not in the expected state the error must
	// wrap [ErrStale].
	Apply(ctx context.Context, h *host.Host) error

	// Revert undoes the change, under the same rules.
	Revert(ctx context.Context, h *host.Host) error
}

// A Committer is an [Action] with a last step, taken once the change has been
// verified and after which it cannot be reverted, such as removing what was
// kept for Revert.
type Committer interface {
	Action

	// Commit takes the last step. An error means that the change holds but
	// something is left over. Calling it again is safe.
	Commit(ctx context.Context, h *host.Host) error
}

// A Change describes what an [Action] does. It is comparable: two actions with
// equal changes do the same thing.
type Change struct {
	Subject string `json:"subject"`           // such as "/etc/ssh/sshd_config"
	Summary string `json:"summary,omitempty"` // a verb phrase, such as "refuse logins as root"
	Before  string `json:"before"`            // what it changes; may have several lines
	After   string `json:"after"`
}

// EditFile is an [Action] that replaces the contents of a file. Nil Before
// means that the file must not exist; nil After removes it.
type EditFile struct {
	Path          string
	Summary       string
	Before, After []byte
	Perm          fs.FileMode // of a file that does not exist yet; zero means 0o600

	// Secret keeps the contents out of Change.
	Secret bool
}

// Change implements [Action].
func (e EditFile) Change() Change {
	return Change{Subject: e.Path, Summary: e.Summary, Before: e.show(e.Before), After: e.show(e.After)}
}

func (e EditFile) show(data []byte) string {
	switch {
	case data == nil:
		return "(no file)"
	case e.Secret:
		return fmt.Sprintf("(%d bytes, not shown)", len(data))
	}
	return string(data)
}

// Apply implements [Action].
func (e EditFile) Apply(_ context.Context, h *host.Host) error {
	return replaceFile(h, e.Path, e.Before, e.After, e.Perm)
}

// Revert implements [Action].
func (e EditFile) Revert(_ context.Context, h *host.Host) error {
	return replaceFile(h, e.Path, e.After, e.Before, e.Perm)
}

func replaceFile(h *host.Host, name string, from, to []byte, perm fs.FileMode) error {
	now, err := contents(h, name)
	if err != nil {
		return err
	}
	if !same(now, from) {
		return fmt.Errorf("%s: %w", name, ErrStale)
	}
	if perm == 0 {
		perm = 0o600
	}
	err = putFile(h, name, from, to, perm)
	if err == nil {
		return nil
	}
	// It may have failed after the fact, when the change was to be made durable.
	if now, readErr := contents(h, name); readErr == nil && same(now, to) {
		err = errors.Join(err, putFile(h, name, to, from, perm))
	}
	return err
}

// contents returns what is in a file, nil if there is none.
func contents(h *host.Host, name string) ([]byte, error) {
	data, err := h.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err == nil && data == nil:
		return []byte{}, nil
	}
	return data, err
}

func same(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

// putFile changes the contents of a file, or creates or removes it.
func putFile(h *host.Host, name string, from, to []byte, perm fs.FileMode) error {
	switch {
	case to != nil:
		return h.WriteFile(name, to, perm)
	case from != nil:
		return h.Remove(name)
	}
	return nil
}
