package trail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"time"
)

// A Reader reads a log that may be written to at the same time, by this process
// or another. It sees the records that the last checkpoint covered when it was
// opened, or at the last [Reader.Refresh]. Of these it reads only what it needs;
// each record that it returns has the checksum that it was written with, but
// whether it is the one that was written, [Verifier] tells, or a [Proof].
//
// The methods of a Reader may be called concurrently, Refresh excepted.
type Reader struct {
	fsys  fs.FS
	key   PublicKey
	parts []part
	last  Checkpoint
	tail  *index // of the last segment, up to the checkpoint
	size  int64  // of it, in bytes
}

// OpenReader opens the log in fsys, such as os.DirFS(dir), or fs.Sub of a tree
// that it is in. Key must have signed its last checkpoint. It reads the last segment. An unfinished
// write at the end is passed over. The error wraps [io/fs.ErrNotExist] if there
// is no log, and a [*DamageError] if there is damage.
func OpenReader(ctx context.Context, fsys fs.FS, key PublicKey) (*Reader, error) {
	r := &Reader{fsys: fsys, key: key}
	if err := r.Refresh(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// Refresh makes r see the records that have been added.
func (r *Reader) Refresh(ctx context.Context) error {
	parts, err := listParts(r.fsys)
	if err != nil {
		return err
	}
	p := parts[len(parts)-1]
	f, err := r.fsys.Open(p.segmentName())
	if err != nil {
		return fmt.Errorf("trail: read: %w", err)
	}
	defer closeRead(f)
	w, x := indexing(f, p)
	w.roots = false
	from, to := x.from, x.to
	w.covered = func(Checkpoint) error { from, to = x.from, x.to; return nil }
	if err := w.run(ctx); err != nil && !isTorn(err) {
		return err
	}
	c, err := ParseCheckpoint(w.last.note, r.key)
	if err != nil {
		return w.damage(DamageSignature, p.first, w.last.Size-1, w.sealed, err.Error())
	}
	if c.Root != w.covers.root() {
		return w.damage(DamageEdited, p.first, c.Size-1, w.sealed, "the records are not those that the checkpoint was signed for")
	}
	x.cut(c.Size, from, to)
	x.size = w.sealed
	r.parts, r.last, r.tail, r.size = parts, c, x, w.sealed
	return nil
}

// Checkpoint returns the last checkpoint that r has seen.
func (r *Reader) Checkpoint() Checkpoint { return r.last }

// A Query selects records. The zero Query selects all: each field that is set
// narrows the selection.
type Query struct {
	First int64 // the first number
	End   int64 // the number after the last; zero means no end

	Since time.Time // not before
	Until time.Time // before

	Kind     Kind
	Actor    string
	Agent    string
	Tool     string
	Subject  string
	Decision Decision
	Outcome  Outcome
	ID       string // equal to any of the event's ids
}

// Match reports whether q selects rec.
func (q *Query) Match(rec Record) bool {
	e := &rec.Event
	same := func(want, got string) bool { return want == "" || want == got }
	return rec.Seq >= q.First && (q.End == 0 || rec.Seq < q.End) &&
		(q.Since.IsZero() || !e.Time.Before(q.Since)) && (q.Until.IsZero() || e.Time.Before(q.Until)) &&
		same(string(q.Kind), string(e.Kind)) && same(q.Actor, e.Actor) && same(q.Agent, e.Agent) &&
		same(q.Tool, e.Tool) && same(q.Subject, e.Subject) &&
		same(string(q.Decision), string(e.Decision)) && same(string(q.Outcome), string(e.Outcome)) &&
		(q.ID == "" || q.ID == e.ID || q.ID == e.RequestID || q.ID == e.SessionID || q.ID == e.RunID ||
			q.ID == e.ToolCallID || q.ID == e.AccountID || q.ID == e.LogID)
}

// Records returns the records that q selects, in order, and ends after an
// error. Segments that have none from the time asked for are not read, nor are
// records that were retired.
func (r *Reader) Records(ctx context.Context, q Query) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		r.each(ctx, q, func(rec Record, _ []byte, err error) bool { return yield(rec, err) })
	}
}

// each yields the records that q selects, each as it is written too, which is
// valid during the call.
func (r *Reader) each(ctx context.Context, q Query, yield func(Record, []byte, error) bool) {
	for i, p := range r.parts {
		if err := ctx.Err(); err != nil {
			yield(Record{}, nil, fmt.Errorf("trail: read: %w", err))
			return
		}
		end := r.last.Size
		if i+1 < len(r.parts) {
			end = r.parts[i+1].first
		}
		if !p.segment || end <= q.First || q.End > 0 && p.first >= q.End {
			continue
		}
		if !r.segment(ctx, p, q, yield) {
			return
		}
	}
}

// segment yields the records of one segment and reports whether to go on.
func (r *Reader) segment(ctx context.Context, p part, q Query, yield func(Record, []byte, error) bool) bool {
	fail := func(err error) bool {
		yield(Record{}, nil, err)
		return false
	}
	x, done, err := r.indexOf(ctx, p)
	if err != nil {
		return fail(err)
	}
	defer done()
	if !spans(x.from, x.to, q.Since, q.Until) {
		return true
	}
	f, err := r.fsys.Open(p.segmentName())
	if errors.Is(err, fs.ErrNotExist) {
		return true // retired since
	}
	if err != nil {
		return fail(fmt.Errorf("trail: read: %w", err))
	}
	defer closeRead(f)
	seq := max(p.first, q.First)
	end := x.first + x.count
	if seq >= end {
		return true
	}
	off, err := x.offset(seq)
	if err != nil {
		return fail(fmt.Errorf("trail: read: %s: %w", p.indexName(), err))
	}
	at, _, err := atRandom(f, x.size)
	if err != nil {
		return fail(fmt.Errorf("trail: %w: %s", err, p.segmentName()))
	}
	fr := frames{r: io.NewSectionReader(at, off, x.size-off), off: off}
	for seq < end && (q.End == 0 || seq < q.End) {
		if seq&255 == 0 && ctx.Err() != nil {
			return fail(fmt.Errorf("trail: read: %w", ctx.Err()))
		}
		one, err := fr.next()
		if err == nil && one.tag == tagCheckpoint && one.sum {
			continue
		}
		rec := Record{Seq: -1}
		if err == nil && one.sum && one.tag == tagRecord {
			err = rec.UnmarshalJSON(one.payload)
		}
		if err != nil || rec.Seq != seq {
			return fail(&DamageError{Kind: DamageEdited, First: seq, Last: seq, File: p.segmentName(), Offset: one.off, Detail: fmt.Sprint("it cannot be read: ", err)})
		}
		seq++
		if q.Match(rec) && !yield(rec, one.payload, nil) {
			return false
		}
	}
	return true
}

// indexOf returns the index of a part, and what to call when done with it.
func (r *Reader) indexOf(ctx context.Context, p part) (*indexFile, func(), error) {
	h := &hashes{active: newIndex(0)}
	if p.first != r.tail.first {
		x, err := h.open(ctx, r.fsys, p)
		if err == nil && x.first != p.first {
			err = &DamageError{Kind: DamageIndex, First: p.first, Last: p.first - 1, File: p.indexName(), Detail: "it is of another segment"}
		}
		return x, h.close, err
	}
	return r.tail.inMemory(), h.close, nil
}

// Record returns one record.
func (r *Reader) Record(ctx context.Context, seq int64) (Record, error) {
	if seq < 0 || seq >= r.last.Size {
		return Record{}, fmt.Errorf("trail: record %d: the log has %d: %w", seq, r.last.Size, fs.ErrNotExist)
	}
	for rec, err := range r.Records(ctx, Query{First: seq, End: seq + 1}) {
		return rec, err
	}
	return Record{}, fmt.Errorf("trail: record %d has been retired: %w", seq, fs.ErrNotExist)
}

// Tail returns the last n records that q selects, oldest first. It reads
// segments from the end until it has them.
func (r *Reader) Tail(ctx context.Context, q Query, n int) ([]Record, error) {
	end := r.last.Size
	if q.End > 0 {
		end = min(end, q.End)
	}
	var found []Record
	for step := int64(max(n, 256)); end > q.First && len(found) < n; step *= 2 {
		part := q
		part.First, part.End = max(q.First, end-step), end
		var list []Record
		for rec, err := range r.Records(ctx, part) {
			if err != nil {
				return nil, err
			}
			list = append(list, rec)
		}
		found = append(list, found...)
		end = part.First
	}
	return found[max(0, len(found)-n):], nil
}

// Follow is [Reader.Records], and then goes on with those that are added, until
// ctx is done. It looks for them every interval; zero means a second. It
// refreshes r, which must not be used for anything else meanwhile.
func (r *Reader) Follow(ctx context.Context, q Query, interval time.Duration) iter.Seq2[Record, error] {
	if interval <= 0 {
		interval = time.Second
	}
	return func(yield func(Record, error) bool) {
		next := q
		for {
			for rec, err := range r.Records(ctx, next) {
				if err != nil && ctx.Err() != nil {
					return
				}
				if !yield(rec, err) || err != nil {
					return
				}
			}
			next.First = max(next.First, r.last.Size)
			if q.End > 0 && next.First >= q.End {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(interval):
			}
			if err := r.Refresh(ctx); err != nil {
				if ctx.Err() == nil {
					yield(Record{}, err)
				}
				return
			}
		}
	}
}

// tree returns the hashes of the log, which the caller closes.
func (r *Reader) tree(ctx context.Context) (*hashes, error) { return openHashes(ctx, r.fsys, r.tail) }
