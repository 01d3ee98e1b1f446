package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// trailSegment is the size of a segment of the program's own trail, which is
// what each command reads when it opens it.
const trailSegment = 1 << 20

// trailWait is how long a command waits for another that writes to the trail.
const trailWait = 5 * time.Second

// A diary is a [trail.Recorder] that has its trail open only while it writes.
// Thus a command that waits for something else, as harden does for a second
// session, does not keep others from recording what they do, as kill must.
type diary struct {
	book   book
	config trail.Config
	wait   time.Duration                    // for others who write
	say    func(format string, args ...any) // to who runs the program

	mu sync.Mutex
}

// trail returns the recorder of what this program does. Nothing is made before
// something is recorded.
func (p *program) trail() *diary {
	c := trail.Config{SegmentBytes: trailSegment, Redactor: new(trail.Redactor)}
	if p.composioKey != "" {
		// A key that cannot be read is a problem of whoever needs it.
		if key, _, err := readSecret(p.composioKey); err == nil {
			c.Redactor.Values = []string{key.Reveal()}
		}
	}
	return &diary{book: p.book(programTrail), config: c, wait: trailWait, say: func(format string, args ...any) {
		fmt.Fprintf(p.stderr, "%s\n", printable(fmt.Sprintf(format, args...)))
	}}
}

// Record implements [trail.Recorder].
func (d *diary) Record(ctx context.Context, e trail.Event) error { return d.record(ctx, e) }

// ready makes sure that something can be recorded.
func (d *diary) ready(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	log, _, err := d.open(ctx)
	if err != nil {
		return err
	}
	return log.Close()
}

// record records events, and pins the last.
func (d *diary) record(ctx context.Context, events ...trail.Event) (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	log, public, err := d.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	for _, e := range events {
		if err := log.Record(ctx, e); err != nil {
			return err
		}
	}
	if _, err := log.Witness(ctx, &trail.PinFile{Path: d.book.pin, Key: public}); err != nil {
		d.say("The trail was not pinned: %v", err) // but what happened is recorded
	}
	return nil
}

// open opens the trail, and waits a while for another command that writes to it.
func (d *diary) open(ctx context.Context) (*trail.Log, trail.PublicKey, error) {
	deadline := time.Now().Add(d.wait)
	for {
		if err := ctx.Err(); err != nil {
			return nil, trail.PublicKey{}, fmt.Errorf("trail: %w", err)
		}
		if err := os.MkdirAll(filepath.Dir(d.book.dir), 0o700); err != nil {
			return nil, trail.PublicKey{}, fmt.Errorf("trail: %w (name another directory with --state-dir)", err)
		}
		log, public, made, err := d.book.open(d.config)
		switch busy := errors.Is(err, trail.ErrLocked) || errors.Is(err, fs.ErrExist); {
		case err == nil:
			if err := d.opened(ctx, log, made); err != nil {
				return nil, public, errors.Join(err, log.Close())
			}
			return log, public, nil
		case !busy:
			return nil, public, err
		case time.Now().After(deadline):
			return nil, public, fmt.Errorf("%w: waited %v for another command to be done with it", err, d.wait)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// opened says what was found when the trail was opened, and has a new one begin
// with what was recorded before there was one.
func (d *diary) opened(ctx context.Context, log *trail.Log, made bool) error {
	if cut := log.Recovered(); cut.Bytes > 0 {
		d.say("The trail ended in the middle of a write: %d bytes were cut off and are kept in %s.", cut.Bytes, cut.File)
	}
	if !made {
		return nil
	}
	former := filepath.Join(filepath.Dir(d.book.dir), "trail.jsonl")
	f, err := os.Open(former)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return err
	}
	d.say("What is done is recorded in %s from now on. What was recorded before stays in %s.", d.book.dir, former)
	return log.Record(ctx, trail.Event{
		Kind: trail.KindMessage, Actor: "hardshell", Subject: "file" + filepath.ToSlash(former),
		Message: "what was recorded before this trail was begun is in this file, as it was then",
		Attrs:   map[string]string{"bytes": strconv.FormatInt(n, 10), "sha256": hex.EncodeToString(h.Sum(nil))},
	})
}
