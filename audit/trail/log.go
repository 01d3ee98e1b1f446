package trail

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// Errors of a [Log].
var (
	// ErrClosed reports a log that has been closed.
	ErrClosed = errors.New("trail: the log is closed")

	// ErrLocked reports a log that another process, or another part of this
	// one, has open for writing.
	ErrLocked = errors.New("trail: the log is in use: one process at a time may write to it")

	// ErrFailed reports a log that cannot go on because the disk did not
	// confirm a write, so that nobody knows what is on it. Open it again: that
	// looks at what is.
	ErrFailed = errors.New("trail: the log has failed: open it again")
)

// DefaultSegmentBytes is the size at which a [Log] begins a new segment.
const DefaultSegmentBytes = 16 << 20

// maxSegmentBytes keeps offsets within 32 bits; maxBatchBytes bounds what waits
// to be written.
const (
	maxSegmentBytes = 1 << 30
	maxBatchBytes   = 4 << 20
)

// Config says how a [Log] is kept. The zero Config is usable.
type Config struct {
	// SegmentBytes is the size at which a new segment is begun: what opening
	// the log reads, and what retention removes at a time. Zero means
	// DefaultSegmentBytes; the most is 1 GiB.
	SegmentBytes int64

	// Pinned are checkpoints that the log must extend, kept where nobody who
	// can write to the log can change them.
	Pinned []Checkpoint

	// Redactor removes secrets from what is recorded. Nil means the zero
	// Redactor.
	Redactor *Redactor

	// Salvage opens a log whose last segment is damaged within records that
	// may have been acknowledged: it is cut back to the last checkpoint before
	// the damage, and what was cut off is kept beside it. Without it, such a
	// log is not opened.
	Salvage bool
}

// A Log is a [Recorder] that nobody can change unseen: an append-only file of
// records, a Merkle tree over them (RFC 6962), and a signed checkpoint after
// each group of records that was made durable together. Callers wait for the
// write that covers their record, and share it.
//
// Every record that was acknowledged is covered by a signed checkpoint in the
// log. Whoever can write to the directory, but has not the key, can at most
// remove records from the end; whoever has the key can write another log.
// Both are found by comparing with a checkpoint that was pinned elsewhere: see
// [Log.Witness] and [Verifier].
//
// The methods of a Log may be called concurrently. Make one with [Create] or
// [Open].
type Log struct {
	key    *Key
	redact *Redactor
	store  *store // of the goroutine that writes
	wake   chan struct{}
	ended  chan struct{}

	mu      sync.Mutex
	next    *batch // records that wait for the next write
	closed  bool
	failed  error
	durable Checkpoint

	retire sync.Mutex // one at a time
	closer func() error
}

// A batch is records that are made durable together.
type batch struct {
	entries []entry
	bytes   int
	want    int           // how many are waited for, if any
	enough  chan struct{} // closed when there are so many
	taken   chan struct{} // closed when no more can be added
	done    chan struct{} // closed when first and err are set
	first   int64         // number of the first record
	err     error
}

// An entry is an event as it is written, but for its number.
type entry struct {
	json []byte
	time int64
}

func newBatch() *batch {
	return &batch{enough: make(chan struct{}), taken: make(chan struct{}), done: make(chan struct{})}
}

// add adds x and returns its place.
func (b *batch) add(x entry) int {
	b.entries = append(b.entries, x)
	b.bytes += len(x.json)
	if len(b.entries) == b.want {
		close(b.enough)
	}
	return len(b.entries) - 1
}

// Create makes an empty log in dir, which it creates if it is not there, and
// opens it. It returns an error wrapping [io/fs.ErrExist] if there is a log.
func Create(dir string, key *Key, c Config) (*Log, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("trail: create: %w", err)
	}
	s, err := createStore(dir, key, c)
	if err != nil {
		return nil, err
	}
	return newLog(s, key, c), nil
}

// Open opens the log in dir, which [Create] made with the same key. It reads
// the last segment and not the others: [Verifier] does. What a crash has left
// unfinished is cut off; see [Log.Recovered]. Open returns an error wrapping
//
//   - [io/fs.ErrNotExist] if there is no log: none is made, for one may have
//     been taken away;
//   - [ErrLocked] if it is in use;
//   - [ErrKey] if another key signed it;
//   - [ErrHandedOver] if another log continues it;
//   - a [*DamageError] if it is damaged where that is seen, or does not extend
//     a pinned checkpoint.
func Open(dir string, key *Key, c Config) (*Log, error) {
	s, err := openStore(dir, key, c)
	if err != nil {
		return nil, err
	}
	l := newLog(s, key, c)
	if r := s.recovered; r.Bytes > 0 {
		if _, err := l.append(noContext, recoverEvent(r)); err != nil {
			return nil, errors.Join(fmt.Errorf("trail: open: record the recovery: %w", err), l.Close())
		}
	}
	return l, nil
}

func newLog(s *store, key *Key, c Config) *Log {
	l := &Log{
		key: key, redact: c.Redactor, store: s,
		wake: make(chan struct{}, 1), ended: make(chan struct{}),
		next: newBatch(), durable: s.last, closer: s.close,
	}
	if l.redact == nil {
		l.redact = new(Redactor)
	}
	go l.run()
	return l
}

// Record implements [Recorder]. An event without a time gets the present one.
// Its kind must not begin with "trail.".
func (l *Log) Record(ctx context.Context, e Event) error {
	_, err := l.Append(ctx, e)
	return err
}

// Append is [Log.Record], and returns the number of the record. If ctx ends
// while it waits, the record may or may not be kept.
func (l *Log) Append(ctx context.Context, e Event) (int64, error) {
	if strings.HasPrefix(string(e.Kind), ownKinds) {
		return 0, fmt.Errorf("%w: kind %q: only the log itself writes %s*", ErrInvalidEvent, e.Kind, ownKinds)
	}
	return l.append(ctx, e)
}

func (l *Log) append(ctx context.Context, e Event) (int64, error) {
	return l.appendOwn(ctx, l.redact.Event(e))
}

// appendOwn is append of what has no secret.
func (l *Log) appendOwn(ctx context.Context, e Event) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("trail: record %s: %w", e.Kind, err)
	}
	x, err := newEntry(e)
	if err != nil {
		return 0, err
	}
	b, i, err := l.enqueue(ctx, x)
	if err != nil {
		return 0, fmt.Errorf("trail: record %s: %w", e.Kind, err)
	}
	select {
	case <-b.done:
	case <-ctx.Done():
		return 0, fmt.Errorf("trail: record %s: it may or may not be kept: %w", e.Kind, ctx.Err())
	}
	if b.err != nil {
		return 0, fmt.Errorf("trail: record %s: %w", e.Kind, b.err)
	}
	return b.first + int64(i), nil
}

func newEntry(e Event) (entry, error) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC()
	if err := e.Validate(); err != nil {
		return entry{}, err
	}
	data, err := json.Marshal(wire{EventVersion, plain(e)})
	if err != nil {
		return entry{}, fmt.Errorf("%w: %w", ErrInvalidEvent, err)
	}
	if len(data) > MaxRecord-64 {
		return entry{}, fmt.Errorf("%w: %s: %d bytes: the most is %d", ErrInvalidEvent, e.Kind, len(data), MaxRecord-64)
	}
	return entry{data, timeOf(&e)}, nil
}

// enqueue adds x to the next batch and returns its place there. It waits while
// that is full.
func (l *Log) enqueue(ctx context.Context, x entry) (*batch, int, error) {
	for {
		l.mu.Lock()
		b := l.next
		switch {
		case l.closed:
			l.mu.Unlock()
			return nil, 0, ErrClosed
		case l.failed != nil:
			l.mu.Unlock()
			return nil, 0, l.failed
		case b.bytes < maxBatchBytes:
			i := b.add(x)
			l.mu.Unlock()
			if i == 0 {
				l.wake <- struct{}{}
			}
			return b, i, nil
		}
		l.mu.Unlock()
		select {
		case <-b.taken:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}

// run writes batches until the log is closed.
func (l *Log) run() {
	defer close(l.ended)
	expect, patience := 0, time.Duration(0)
	for range l.wake {
		b := l.take(expect, patience)
		start := time.Now()
		b.first, b.err = l.store.tree.n, l.failure()
		if b.err == nil {
			b.err = l.store.commit(b.entries)
		}
		l.mu.Lock()
		l.durable = l.store.last
		if errors.Is(b.err, ErrFailed) {
			l.failed = ErrFailed
		}
		// Those who wait now, and those who are answered now.
		expect = len(b.entries) + len(l.next.entries)
		l.mu.Unlock()
		patience = min(time.Since(start)/4, maxPatience)
		close(b.done)
	}
}

func (l *Log) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// maxPatience bounds how long a write is held back for more records.
const maxPatience = time.Millisecond

// take returns the batch that is to be written now. The callers of the batch
// before have just been answered, and many come back at once: with expect of
// them there the write need not be repeated for the rest. To wait for them a
// fraction of the time of a write costs little, also where they do not come.
func (l *Log) take(expect int, patience time.Duration) *batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.next
	if len(b.entries) < expect && patience > 0 {
		b.want = expect
		l.mu.Unlock()
		enough := time.NewTimer(patience)
		select {
		case <-b.enough:
		case <-enough.C:
		}
		enough.Stop()
		l.mu.Lock()
	}
	l.next = newBatch()
	l.next.entries = make([]entry, 0, len(b.entries))
	close(b.taken)
	return b
}

// Checkpoint returns the last checkpoint: it covers every record that has been
// acknowledged so far.
func (l *Log) Checkpoint() Checkpoint {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.durable
}

// Recovered returns what [Open] had to cut off.
func (l *Log) Recovered() Recovery { return l.store.recovered }

// Close waits for the records that were given to the log, and closes it.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	l.closed = true
	waiting, n := l.next, len(l.next.entries)
	l.mu.Unlock()
	if n > 0 {
		<-waiting.done
	}
	return l.finish()
}

// end records e after everything else, and closes the log.
func (l *Log) end(ctx context.Context, e Event) error {
	x, err := newEntry(e)
	if err = errors.Join(ctx.Err(), err); err != nil {
		return err
	}
	l.mu.Lock()
	if err := l.failed; l.closed || err != nil {
		l.mu.Unlock()
		return cmp.Or(err, ErrClosed)
	}
	l.closed = true
	b := l.next
	i := b.add(x)
	l.mu.Unlock()
	if i == 0 {
		l.wake <- struct{}{}
	}
	<-b.done
	return errors.Join(b.err, l.finish())
}

// finish closes the files once nothing is left to be written.
func (l *Log) finish() error {
	close(l.wake)
	<-l.ended
	if err := l.closer(); err != nil {
		return fmt.Errorf("trail: close: %w", err)
	}
	return nil
}
