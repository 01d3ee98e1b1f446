// Package trail is where hardshell records what it and the agent do.
//
// This package defines what is recorded, [Event], and who takes it,
// [Recorder]. [Lines] writes events as JSON Lines.
package trail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"
)

// An Event is one thing that happened. It must hold no secret: who fills it in
// redacts first. Fields may be added in later versions.
type Event struct {
	Time    time.Time `json:"time"`
	Kind    string    `json:"kind"`              // such as "remedy.apply"
	ID      string    `json:"id,omitempty"`      // what it belongs to, such as the id of a check
	Subject string    `json:"subject,omitempty"` // the object, such as "container/openclaw"
	Outcome string    `json:"outcome"`           // "begin", "ok" or "error"
	Message string    `json:"message,omitempty"` // for people
}

// A Recorder keeps events.
type Recorder interface {
	// Record returns when e is kept, or an error if it is not. It may be
	// called concurrently and should return soon after ctx is done.
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
