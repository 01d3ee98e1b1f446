package container

import (
	"context"
	"errors"
	"time"
)

// ErrNameTaken reports a name that another container has.
var ErrNameTaken = errors.New("the name is taken by another container")

// A Control is an [Engine] that can also change containers; a [Recreator]
// needs one. Containers are named by their id, or by their name where there is
// no id yet.
//
// Each method either takes effect or does not: after an error it is not known
// which, and the caller looks. A container that does not exist is an error
// wrapping [ErrNoContainer], except where it says otherwise.
type Control interface {
	Engine

	// Clone makes a container like another, hardened by h and with another
	// name, and returns its id. The clone has the same image (by id), volumes
	// (anonymous ones too), networks and settings, other than those that h
	// changes. It is not started and has no restart policy, so that nothing
	// but Start starts it. A name that is taken is an error wrapping
	// [ErrNameTaken]. After an error, a clone may be there under its name.
	Clone(ctx context.Context, id, name string, h Hardening) (string, error)

	// Start starts a container. One that runs is left as it is.
	Start(ctx context.Context, id string) error

	// Stop ends a container: with its stop signal, and by force after grace.
	// Zero grace means the container's own. One that does not run is left as
	// it is.
	Stop(ctx context.Context, id string, grace time.Duration) error

	// Rename gives a container another name. A name that is taken is an error
	// wrapping [ErrNameTaken].
	Rename(ctx context.Context, id, name string) error

	// Remove removes a container that does not run. Its volumes stay. One
	// that does not exist is no error.
	Remove(ctx context.Context, id string) error

	// RemoveVolume removes a volume that no container uses, with what is in
	// it. One that does not exist is no error.
	RemoveVolume(ctx context.Context, name string) error

	// SetRestartPolicy replaces a restart policy; policy is as in
	// [Settings.RestartPolicy].
	SetRestartPolicy(ctx context.Context, id, policy string) error

	// Copy copies the tree at a path of one container to the same path of
	// another, where a volume must be, with owners and modes, also the top's.
	// Neither runs. Where from has no such path, an empty directory is made.
	// Everything below the paths in skip is left out; all that is copied
	// belongs to owner, unless that is nil.
	Copy(ctx context.Context, from, to, path string, skip []string, owner *Owner) error

	// Changed returns the paths at which a container's writable layer differs
	// from its image, in order. Directories that differ only because of what
	// is in them are left out.
	Changed(ctx context.Context, id string) ([]string, error)
}

// An Owner is a user and a group, by number.
type Owner struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
}
