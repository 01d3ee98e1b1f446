// Package filelock keeps other processes from what one of them works at.
package filelock

import "errors"

// ErrHeld reports a lock that somebody else has.
var ErrHeld = errors.New("another process has the lock")
