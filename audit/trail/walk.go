package trail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// A walker reads one segment, and checks in it all that can be checked without
// a key: that each frame is whole, that records are in order, and that each
// checkpoint is of the records before it and names the checkpoint before.
type walker struct {
	frames

	file  string
	first int64 // record that the segment must begin with

	// roots is whether every checkpoint's root is compared with the tree. If
	// not, only those that end many records are, and the last is left to
	// the caller: it names the others by their hashes.
	roots bool

	// visit is told of each record, before the checkpoint that covers it has
	// been seen. payload is valid during the call.
	visit func(seq, off int64, h Hash, stored []Hash, payload []byte) error
	// covered is told of each checkpoint.
	covered func(Checkpoint) error

	tree    frontier   // of the records read
	covers  frontier   // of those that the last checkpoint covers
	opening Checkpoint // the first checkpoint
	last    Checkpoint // the last checkpoint that was read
	note    Hash       // of its note
	sealed  int64      // where it ends
	checked int64      // size of the tree whose root was last compared
	lastOff int64      // of the last record
	stored  []Hash
	number  []byte
	hasher  hasher
}

// manyRecords is after how many the root is compared in any case.
const manyRecords = 256

func newWalker(r io.Reader, file string, first int64) *walker {
	return &walker{frames: frames{r: r}, file: file, first: first, roots: true}
}

// run reads to the end of the segment. It returns a [*DamageError] at the first
// thing that is not as it should be. After DamageTorn, w.last and w.sealed say
// what is good.
func (w *walker) run(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("trail: %s: %w", w.file, err)
	}
	if err := w.begin(); err != nil {
		return err
	}
	for {
		f, err := w.next()
		if errors.Is(err, io.EOF) {
			if w.off > w.sealed {
				return w.damage(DamageTorn, w.last.Size, w.tree.n-1, w.sealed, fmt.Sprintf("%d bytes at the end that no checkpoint covers", w.off-w.sealed))
			}
			return nil
		}
		if errors.Is(err, errTorn) || errors.Is(err, errNoFrame) || err == nil && !f.sum {
			return w.broken(f, err)
		}
		if err != nil {
			return fmt.Errorf("%w: %s", err, w.file)
		}
		if w.tree.n&1023 == 0 {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("trail: %s: %w", w.file, err)
			}
		}
		switch f.tag {
		case tagRecord:
			err = w.record(f)
		case tagCheckpoint:
			err = w.checkpoint(f)
			if err == nil && w.covered != nil {
				err = w.covered(w.last)
			}
		default:
			err = w.damage(DamageSwapped, w.tree.n, w.tree.n, f.off, "a segment begins within another")
		}
		if err != nil {
			return err
		}
	}
}

// begin reads the first two frames.
func (w *walker) begin() error {
	f, err := w.next()
	switch {
	case err == nil && f.sum && f.tag == tagSegment:
	case err == nil || errors.Is(err, io.EOF) || errors.Is(err, errTorn) || errors.Is(err, errNoFrame):
		return w.damage(DamageSwapped, w.first, w.first-1, 0, "the file does not begin as a segment does")
	default:
		return fmt.Errorf("%w: %s", err, w.file)
	}
	if w.tree, err = parseStart(f.payload); err != nil {
		return w.damage(DamageSwapped, w.first, w.first-1, 0, err.Error())
	}
	if w.tree.n != w.first {
		return w.damage(DamageSwapped, w.first, w.first, 0, fmt.Sprintf("it is the segment that begins with record %d", w.tree.n))
	}
	f, err = w.next()
	if err != nil || !f.sum || f.tag != tagCheckpoint {
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, errTorn) && !errors.Is(err, errNoFrame) {
			return fmt.Errorf("%w: %s", err, w.file)
		}
		return w.damage(DamageSignature, w.first, w.first-1, f.off, "the segment does not begin with a checkpoint")
	}
	if w.opening, err = parseCheckpoint(f.payload); err != nil {
		return w.damage(DamageSignature, w.first, w.first-1, f.off, err.Error())
	}
	if w.opening.Size != w.tree.n || w.opening.Root != w.tree.root() {
		return w.damage(DamageSwapped, w.first, w.first-1, f.off, "its start and its first checkpoint differ")
	}
	w.last, w.sealed, w.checked, w.covers, w.note = w.opening, f.end(), w.tree.n, w.tree, w.opening.noteHash()
	if w.covered != nil {
		return w.covered(w.opening)
	}
	return nil
}

func (w *walker) record(f frame) error {
	n := w.tree.n
	w.number = recordPrefix(w.number[:0], n)
	if !bytes.HasPrefix(f.payload, w.number) {
		seq, ok := seqOf(f.payload)
		if !ok || seq == n {
			return w.damage(DamageEdited, n, n, f.off, "it does not say its number")
		}
		return w.misplaced(seq, f.off)
	}
	w.stored = w.tree.extend(&w.hasher, f.hash, w.stored[:0])
	w.lastOff = f.off
	if w.visit != nil {
		return w.visit(n, f.off, f.hash, w.stored, f.payload)
	}
	return nil
}

// misplaced says what is wrong when record seq stands where w.tree.n should:
// that one may be gone, or come later.
func (w *walker) misplaced(seq, off int64) error {
	n := w.tree.n
	if seq < n {
		return w.damage(DamageReordered, n, n, off, fmt.Sprintf("record %d stands here", seq))
	}
	for {
		f, err := w.next()
		if err != nil || f.tag == tagSegment {
			break
		}
		if other, ok := seqOf(f.payload); ok && f.tag == tagRecord && other == n {
			return w.damage(DamageReordered, n, n, off, fmt.Sprintf("record %d stands here, and %d further on", seq, n))
		}
	}
	return w.damage(DamageMissing, n, seq-1, off, fmt.Sprintf("record %d stands here", seq))
}

func (w *walker) checkpoint(f frame) error {
	c, err := parseCheckpoint(f.payload)
	if err != nil {
		return w.damage(DamageSignature, w.last.Size, w.tree.n-1, f.off, err.Error())
	}
	if err := w.follow(&c, w.hasher.of(f.payload), f.off, f.end()); err != nil {
		return err
	}
	w.covers = w.tree
	return nil
}

// follow makes c the last checkpoint, if it is of the records before it and
// names the checkpoint before. note is the hash of its note; it is from off to
// end.
func (w *walker) follow(c *Checkpoint, note *Hash, off, end int64) error {
	from, to := w.last.Size, w.tree.n-1
	switch {
	case c.Origin != w.last.Origin:
		return w.damage(DamageSignature, from, to, off, fmt.Sprintf("a checkpoint of %q", c.Origin))
	case c.Size < w.tree.n:
		return w.damage(DamageReordered, c.Size, w.tree.n-1, off, fmt.Sprintf("a checkpoint of %d records stands here", c.Size))
	case c.Size > w.tree.n:
		return w.damage(DamageMissing, w.tree.n, c.Size-1, off, fmt.Sprintf("a checkpoint of %d records stands here", c.Size))
	case c.prev != w.note:
		return w.damage(DamageSignature, from, to, off, "the checkpoint before it is not the one that it names")
	}
	if w.roots || w.tree.n-w.checked >= manyRecords {
		if c.Root != w.tree.root() {
			return w.damage(DamageEdited, w.checked, to, off, "the records are not those that the checkpoint was signed for")
		}
		w.checked = w.tree.n
	}
	w.last, w.note, w.sealed = *c, *note, end
	return nil
}

// broken says what is wrong with the frame at w.off: it was never written out,
// or a later checkpoint says that it was.
func (w *walker) broken(f frame, cause error) error {
	off, n := f.off, w.tree.n
	detail := "its checksum is wrong"
	if cause != nil {
		detail = cause.Error()
	}
	tail := w.last
	if err := w.resync(cause); err != nil {
		return err
	}
	if w.last.Size == tail.Size {
		return w.damage(DamageTorn, tail.Size, n-1, w.sealed, "what follows is not whole, and no checkpoint covers it: "+detail)
	}
	if f.tag == tagCheckpoint {
		return w.damage(DamageSignature, tail.Size, n-1, off, "the checkpoint is not whole: "+detail)
	}
	return w.damage(DamageEdited, n, n, off, detail)
}

// resync looks in the rest of the file for a checkpoint of more records than
// w.last is of, and makes it w.last.
func (w *walker) resync(cause error) error {
	if cause != nil && w.limit > w.at {
		w.skip(1) // the bad frame has not been consumed
	}
	for {
		if err := w.fill(headerBytes); err != nil {
			return fmt.Errorf("%w: %s", err, w.file)
		}
		if w.limit-w.at < headerBytes {
			return nil
		}
		at := bytes.Index(w.buf[w.at:w.limit], []byte(tagCheckpoint))
		if at < 0 {
			w.skip(w.limit - w.at - len(tagCheckpoint) + 1)
			continue
		}
		w.skip(at)
		f, err := w.next()
		if err != nil && !errors.Is(err, errTorn) && !errors.Is(err, errNoFrame) && !errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: %s", err, w.file)
		}
		if err == nil && f.sum {
			if c, err := parseCheckpoint(f.payload); err == nil && c.Size > w.last.Size && c.Origin == w.last.Origin {
				w.last = c
				return nil
			}
		}
		if err != nil {
			w.skip(1)
		}
	}
}

func (f *frames) skip(n int) {
	f.at += n
	f.off += int64(n)
}

func (w *walker) damage(kind Damage, first, last, off int64, detail string) *DamageError {
	return &DamageError{Kind: kind, First: first, Last: last, File: w.file, Offset: off, Detail: detail}
}
