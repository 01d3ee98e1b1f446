package trail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"runtime"
	"sync"

	"golang.org/x/mod/sumdb/tlog"
)

// A Verifier tells whether a log is what was written. It needs neither the
// machine nor the private key, and keeps no more than a few records of each
// segment in memory. The zero Verifier can verify nothing: Key is required. Its
// fields must not be changed once it is in use; its methods may then be called
// concurrently.
type Verifier struct {
	// Key is the public key of the log.
	Key PublicKey

	// Pinned are checkpoints that the log must extend, kept where nobody who
	// can write to the log can change them. Without one, records may be gone
	// from the end, and whoever has the key may have written all of it anew.
	Pinned []Checkpoint

	// Live says that the log is being written to, so that what follows the
	// last checkpoint is not damage: nobody has been told that it is kept.
	Live bool

	// Workers is how many processors are used at once. Zero means all that
	// there are. What is found does not depend on it.
	Workers int

	chunk int // how much is read at a time, for tests; zero means chunkBytes
}

// A Summary is what a [Verifier] has found to be sound.
type Summary struct {
	Key        PublicKey  // by which it was verified
	Checkpoint Checkpoint // the last one: it covers all that follows

	First    int64 // the first record that is there
	Records  int64 // that are there, from First on
	Retired  int64 // that were there, and of which the log says that they were removed; they can still be proved
	Segments int
	Bytes    int64 // read
}

// Verify verifies the log in fsys, such as os.DirFS(dir), or fs.Sub of a tree
// that it is in. The error wraps a
// [*DamageError] if the log is not what was written; any other error says that
// this could not be told. The summary is of what was sound nevertheless.
func (v *Verifier) Verify(ctx context.Context, fsys fs.FS) (Summary, error) {
	return v.VerifyRange(ctx, fsys, 0, math.MaxInt64)
}

// VerifyRange verifies the records from number first up to, and not including,
// end, and those that are in the same segments: that they are in the tree that
// the last checkpoint states. Pinned checkpoints are compared with the tree of
// all records, by the indexes of the segments that are not read.
func (v *Verifier) VerifyRange(ctx context.Context, fsys fs.FS, first, end int64) (Summary, error) {
	if v.Key.IsZero() || v.Key.IsWitness() {
		return Summary{}, fmt.Errorf("%w: verify: without the public key of the log", ErrKey)
	}
	parts, err := listParts(fsys)
	if err == nil && parts[len(parts)-1].index {
		// A segment gets its index once the next has begun, which may have
		// been while the directory was read.
		parts, err = listParts(fsys)
	}
	if err != nil {
		return Summary{}, err
	}
	j := joiner{v: v, fsys: fsys, parts: parts, results: v.readAll(ctx, fsys, parts, first, end)}
	return j.join(ctx)
}

// A seen is what was found in one segment.
type seen struct {
	read          bool     // or left out, because it is not in the range
	start, end    frontier // before its first record, and after its last
	opening, last Checkpoint
	retired       int64          // its records say that those before this one have been removed
	roots         map[int64]Hash // of the sizes that are pinned
	bytes         int64
	err           error
}

func (v *Verifier) readAll(ctx context.Context, fsys fs.FS, parts []part, first, end int64) []seen {
	results := make([]seen, len(parts))
	workers := v.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	next, wanted := make(chan int), make(chan *scan)
	var reading, wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range next {
				results[i] = v.read(ctx, fsys, parts[i], wanted)
				reading.Done()
			}
			// Those who have no segment of their own help the others.
			var in inspector
			for s := range wanted {
				s.help(&in)
			}
		})
	}
	for i, p := range parts {
		// The last part is always read: it has the last checkpoint.
		if i == len(parts)-1 || p.segment && p.first < end && parts[i+1].first > first {
			reading.Add(1)
			next <- i
		}
	}
	close(next)
	reading.Wait()
	close(wanted)
	wg.Wait()
	return results
}

// read reads one segment: first in the fast way, and if it is not as it should
// be, in order, to find out what is wrong.
func (v *Verifier) read(ctx context.Context, fsys fs.FS, p part, wanted chan<- *scan) seen {
	if s, ok := v.scan(ctx, fsys, p, wanted); ok {
		s.read = true
		return s
	}
	return v.inOrder(ctx, fsys, p)
}

// inOrder reads a segment in order, and again to find out where the damage is.
func (v *Verifier) inOrder(ctx context.Context, fsys fs.FS, p part) seen {
	s, err := v.walk(ctx, fsys, p, false)
	damage, bad := errors.AsType[*DamageError](err)
	if bad && (damage.Kind == DamageSignature || damage.Kind == DamageEdited && damage.First < damage.Last) {
		if _, again := v.walk(ctx, fsys, p, true); again != nil {
			err = again
		}
		if damage, bad = errors.AsType[*DamageError](err); bad {
			err = v.narrow(ctx, fsys, p, damage)
		}
	}
	s.read, s.err = true, err
	return s
}

// walk reads a segment, and compares it with its index. If slow, it verifies
// each signature and each root, and not only the last.
func (v *Verifier) walk(ctx context.Context, fsys fs.FS, p part, slow bool) (s seen, err error) {
	f, err := fsys.Open(p.segmentName())
	if err != nil {
		return s, fmt.Errorf("trail: verify: %w", err)
	}
	defer closeRead(f)
	w, x := indexing(f, p)
	index := w.visit
	w.roots = slow
	if n := indexCount(fsys, p); n > 0 {
		x.grow(n)
	}
	s.roots = make(map[int64]Hash)
	pinned := func() {
		for i := range v.Pinned {
			if v.Pinned[i].Size == w.tree.n {
				s.roots[w.tree.n] = w.tree.root()
			}
		}
	}
	w.visit = func(seq, off int64, h Hash, stored []Hash, payload []byte) error {
		pinned()
		s.retired = max(s.retired, retiredIn(payload))
		if !p.index {
			return nil
		}
		return index(seq, off, h, stored, payload)
	}
	var signed int64
	w.covered = func(c Checkpoint) error {
		if c.Size == p.first {
			s.start = w.tree
		}
		if !slow {
			return nil
		}
		from := signed
		signed = c.Size
		return v.checkSigned(w, from)
	}
	err = w.run(ctx)
	pinned()
	s.bytes, s.end, s.opening, s.last = w.off, w.covers, w.opening, w.last
	if damage, bad := errors.AsType[*DamageError](err); bad && damage.Kind == DamageTorn && v.Live {
		err = nil
	}
	if err != nil {
		return s, err
	}
	if s.last.Root != s.end.root() {
		return s, w.damage(DamageEdited, w.checked, s.last.Size-1, w.sealed, "the records are not those that the checkpoint was signed for")
	}
	if err := v.checkSigned(w, p.first); err != nil {
		return s, err
	}
	if p.index {
		x.size = w.sealed
		return s, compareIndex(fsys, p, x)
	}
	return s, nil
}

// checkSigned looks whether the checkpoint that w has come to is signed. If
// not, the records from number first on are in doubt.
func (v *Verifier) checkSigned(w *walker, first int64) error {
	if _, err := ParseCheckpoint(w.last.note, v.Key); err != nil {
		return w.damage(DamageSignature, first, w.last.Size-1, w.sealed, err.Error())
	}
	return nil
}

// indexCount returns how many records a part may have, or 0 if it has no index.
// Nobody has verified it: it says no more than how much memory to set aside,
// which the segment bounds.
func indexCount(fsys fs.FS, p part) int64 {
	if !p.index {
		return 0
	}
	x, err := fs.Stat(fsys, p.indexName())
	if err != nil {
		return 0
	}
	s, err := fs.Stat(fsys, p.segmentName())
	if err != nil {
		return 0
	}
	return min(x.Size()/(4+2*tlog.HashSize), s.Size()/100)
}

// compareIndex compares the index file of a part with what it should be.
func compareIndex(fsys fs.FS, p part, want *index) error {
	got, err := fs.ReadFile(fsys, p.indexName())
	if err != nil {
		return fmt.Errorf("trail: verify: %w", err)
	}
	expected := want.encode()
	if bytes.Equal(got, expected) {
		return nil
	}
	n := min(len(got), len(expected))
	for i := range n {
		if got[i] != expected[i] {
			n = i
			break
		}
	}
	return &DamageError{Kind: DamageIndex, First: p.first, Last: p.first - 1, File: p.indexName(), Offset: int64(n), Detail: "it is not the index of the segment: remove it, and it is made anew"}
}

// narrow names the first record that is not the one in the index, if there is
// an index, and the damage is not narrower yet.
func (v *Verifier) narrow(ctx context.Context, fsys fs.FS, p part, damage *DamageError) error {
	if !p.index || damage.First >= damage.Last {
		return damage
	}
	h := &hashes{active: newIndex(0)}
	defer h.close()
	x, err := h.open(ctx, fsys, p)
	if err != nil || x.first != p.first {
		return damage
	}
	f, err := fsys.Open(p.segmentName())
	if err != nil {
		return damage
	}
	defer closeRead(f)
	w := newWalker(f, p.segmentName(), p.first)
	w.roots = false
	w.visit = func(seq, off int64, h Hash, _ []Hash, _ []byte) error {
		if seq < damage.First || seq >= x.first+x.count {
			return nil
		}
		if want, err := x.hash(tlog.StoredHashIndex(0, seq)); err == nil && want != h {
			return w.damage(damage.Kind, seq, seq, off, damage.Detail+"; it is not the record that the index was made for")
		}
		return nil
	}
	if found, ok := errors.AsType[*DamageError](w.run(ctx)); ok && found.First == found.Last && found.First >= damage.First && found.First <= damage.Last {
		return found
	}
	return damage
}
