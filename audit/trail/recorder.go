package trail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
)

// A Recorder keeps events. Package trailtest checks that one keeps these rules.
type Recorder interface {
	// Record returns nil when e is durable: it is kept whatever happens to the
	// process, and to the machine. It returns an error if e may not have been
	// kept, one wrapping [ErrInvalidEvent] if e never can be. If ctx is done
	// before the call, e is not kept and the error wraps ctx.Err(); if ctx is
	// done during the call, Record returns soon.
	//
	// Record may be called concurrently. It neither changes e nor what e
	// refers to, and does not use it once it has returned.
	Record(ctx context.Context, e Event) error
}

// Discard is a [Recorder] that keeps nothing: the explicit choice to change a
// machine without a trail.
var Discard Recorder = discard{}

type discard struct{}

func (discard) Record(context.Context, Event) error { return nil }

// Lines is a [Recorder] that writes each event as a line of JSON to W, and
// flushes it to disk where W is a file. It is a plain log: whoever can write
// to W can change it unseen. Its methods may be called concurrently.
type Lines struct {
	W io.Writer

	mu   sync.Mutex
	torn bool // W ends within a line
}

// Record implements [Recorder].
func (l *Lines) Record(ctx context.Context, e Event) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("trail: %w", err)
	}
	if err := e.Validate(); err != nil {
		return err
	}
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("trail: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	line = append(line, '\n')
	if l.torn {
		line = append([]byte{'\n'}, line...)
	}
	if n, err := l.W.Write(line); err != nil {
		l.torn = l.torn || n > 0
		return fmt.Errorf("trail: %w", err)
	}
	l.torn = false
	if f, ok := l.W.(interface{ Sync() error }); ok {
		// A terminal or pipe cannot be synced, and need not be.
		if err := f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
			return fmt.Errorf("trail: %w", err)
		}
	}
	return nil
}
