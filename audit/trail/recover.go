package trail

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// A Recovery is what [Open] cut off the end of a log. The zero Recovery means
// that nothing was.
type Recovery struct {
	Bytes int64 // at the end, after the last checkpoint

	// Records is how many whole records were among them. They had not been
	// acknowledged, unless Config.Salvage was needed.
	Records int64

	// File is where the bytes are kept, in the directory of the log.
	File string

	// Salvaged says that damage was cut off, and not merely an unfinished
	// write: see Config.Salvage.
	Salvaged bool
}

// Kinds of events that a log writes about itself.
const (
	ownKinds      = "trail."
	kindRecovered = Kind(ownKinds + "recover")
	kindRetired   = Kind(ownKinds + "retire")
)

func recoverEvent(r Recovery) Event {
	e := Event{
		Kind: kindRecovered, Actor: "hardshell", Outcome: OutcomeOK,
		Message: "an unfinished write was cut off",
		Attrs:   map[string]string{"bytes": strconv.FormatInt(r.Bytes, 10), "records": strconv.FormatInt(r.Records, 10), "file": r.File},
	}
	if r.Salvaged {
		e.Message = "damage was cut off, and with it records that may have been acknowledged"
	}
	return e
}

func openStore(dir string, key *Key, c Config) (_ *store, err error) {
	if _, err := listParts(os.DirFS(dir)); err != nil {
		return nil, fmt.Errorf("%w in %s", err, dir) // before making a lock where no log is
	}
	s, err := lockStore(dir, key, c)
	if err != nil {
		return nil, err
	}
	if err := s.open(c); err != nil {
		return nil, errors.Join(fmt.Errorf("trail: open %s: %w", dir, err), s.close())
	}
	return s, nil
}

func (s *store) open(c Config) error {
	if err := s.sweep(); err != nil {
		return err
	}
	parts, err := listParts(os.DirFS(s.dir))
	if err != nil {
		return err
	}
	for i, p := range parts[:len(parts)-1] {
		if err := s.checkSealed(p, parts[i+1].first); err != nil {
			return err
		}
	}
	if err := s.openLast(parts[len(parts)-1], c.Salvage); err != nil {
		return err
	}
	return s.checkPinned(c.Pinned)
}

// sweep removes what a crash has left half made.
func (s *store) sweep() error {
	names, err := filepath.Glob(filepath.Join(s.dir, "*"+tempExt))
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// checkSealed looks whether the records of p reach to the segment that begins
// with record next, and makes its index anew if there is none.
func (s *store) checkSealed(p part, next int64) error {
	if !p.index {
		x, err := s.rebuild(p)
		if err != nil {
			return err
		}
		if err := writeFile(s.dir, p.indexName(), x.encode()); err != nil {
			return err
		}
	}
	f, err := os.Open(filepath.Join(s.dir, p.indexName()))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	x, err := readIndex(f, info.Size())
	if err != nil || x.first != p.first {
		return &DamageError{Kind: DamageIndex, First: p.first, Last: p.first - 1, File: p.indexName(), Detail: fmt.Sprint("it cannot be read: remove it, and it is made anew: ", err)}
	}
	if end := x.first + x.count; end != next {
		return &DamageError{Kind: DamageMissing, First: min(end, next), Last: max(end, next) - 1, File: p.segmentName(), Detail: fmt.Sprintf("the next segment begins with record %d", next)}
	}
	if !p.segment {
		return nil
	}
	info, err = os.Stat(filepath.Join(s.dir, p.segmentName()))
	if err == nil && info.Size() != x.size {
		err = &DamageError{Kind: DamageEdited, First: p.first, Last: next - 1, File: p.segmentName(), Detail: fmt.Sprintf("%d bytes, and it was complete with %d", info.Size(), x.size)}
	}
	return err
}

// rebuild makes the index of a complete segment anew.
func (s *store) rebuild(p part) (*index, error) {
	f, err := os.Open(filepath.Join(s.dir, p.segmentName()))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	w, x := indexing(f, p)
	if err := w.run(noContext); err != nil {
		return nil, err
	}
	x.size = w.sealed
	return x, s.checkSigned(w)
}

// indexing returns a walker through segment p that makes its index.
func indexing(r io.Reader, p part) (*walker, *index) {
	w, x := newWalker(r, p.segmentName(), p.first), newIndex(p.first)
	var times clock
	w.visit = func(_, off int64, _ Hash, stored []Hash, payload []byte) error {
		x.add(off, times.in(payload), stored)
		return nil
	}
	return w, x
}

// checkSigned looks whether the checkpoint that w has come to is signed.
func (s *store) checkSigned(w *walker) error {
	if w.last.Origin != s.key.Origin() {
		return fmt.Errorf("%w: the log is %q, and the key is for %q", ErrKey, w.last.Origin, s.key.Origin())
	}
	_, err := ParseCheckpoint(w.last.note, s.key.Public())
	if err == nil {
		return nil
	}
	if _, first := ParseCheckpoint(w.opening.note, s.key.Public()); first != nil {
		return fmt.Errorf("%w: it did not sign the log: %w", ErrKey, err)
	}
	return w.damage(DamageSignature, w.opening.Size, w.last.Size-1, w.sealed, err.Error())
}

// openLast opens the last segment for writing, and cuts off what is not whole.
func (s *store) openLast(p part, salvage bool) error {
	f, err := os.OpenFile(filepath.Join(s.dir, p.segmentName()), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	s.file = segmentFile{f}
	if p.index {
		return &DamageError{Kind: DamageMissing, First: p.first, Last: p.first - 1, File: p.segmentName(), Detail: "it is complete, and the next segment is gone"}
	}
	w, x := indexing(f, p)
	var good walker // as it was at the last sound checkpoint
	from, to := x.from, x.to
	w.covered = func(c Checkpoint) error {
		if salvage { // the last may be a forgery, so look at each
			if _, err := ParseCheckpoint(c.note, s.key.Public()); err != nil {
				return w.damage(DamageSignature, good.last.Size, c.Size-1, good.sealed, err.Error())
			}
		}
		good, from, to = *w, x.from, x.to
		return nil
	}
	indexed, handed, handedTo := w.visit, int64(-1), ""
	w.visit = func(seq, off int64, h Hash, stored []Hash, payload []byte) error {
		if to := handedIn(payload); to != "" {
			handed, handedTo = seq, to
		}
		return indexed(seq, off, h, stored, payload)
	}
	err = w.run(noContext)
	damage, bad := errors.AsType[*DamageError](err)
	switch {
	case err != nil && !bad:
		return err
	case bad && damage.Kind != DamageTorn && (!salvage || good.sealed == 0):
		return err
	}
	if err := s.checkSigned(&good); err != nil {
		return err
	}
	if handed >= 0 && handed == good.last.Size-1 {
		return fmt.Errorf("%w: to %s", ErrHandedOver, handedTo)
	}
	s.tree, s.last, s.size, s.active = good.tree, good.last, good.sealed, x
	x.cut(good.last.Size, from, to)
	if !bad {
		return nil
	}
	s.recovered.Salvaged = damage.Kind != DamageTorn
	s.recovered.Records = max(w.tree.n, w.last.Size) - good.last.Size
	return s.cutOff(f, p)
}

// cutOff keeps the bytes after s.size in a file of their own.
func (s *store) cutOff(f *os.File, p part) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	tail := make([]byte, info.Size()-s.size)
	if _, err := f.ReadAt(tail, s.size); err != nil {
		return err
	}
	s.recovered.Bytes = int64(len(tail))
	base := strings.TrimSuffix(p.segmentName(), segmentExt)
	s.recovered.File = fmt.Sprintf("%s-%d%s", base, s.size, tornExt)
	for i := 2; ; i++ {
		if _, err := os.Lstat(filepath.Join(s.dir, s.recovered.File)); err != nil {
			break
		}
		s.recovered.File = fmt.Sprintf("%s-%d-%d%s", base, s.size, i, tornExt)
	}
	if err := writeFile(s.dir, s.recovered.File, tail); err != nil {
		return fmt.Errorf("keep what was cut off: %w", err)
	}
	if err := f.Truncate(s.size); err != nil {
		return err
	}
	return f.Sync()
}

// checkPinned looks whether the log extends the checkpoints.
func (s *store) checkPinned(pinned []Checkpoint) error {
	if len(pinned) == 0 {
		return nil
	}
	hashes, err := openHashes(noContext, os.DirFS(s.dir), s.active)
	if err != nil {
		return err
	}
	defer hashes.close()
	file := part{first: s.active.first}.segmentName()
	for _, c := range bySize(pinned) {
		if c.Size > s.last.Size {
			return &DamageError{Kind: DamageTruncated, First: s.last.Size, Last: c.Size - 1, File: file, Offset: s.size, Detail: fmt.Sprintf("the log has %d records, and a checkpoint is pinned of %d", s.last.Size, c.Size)}
		}
		root, err := tlog.TreeHash(c.Size, hashes)
		if err != nil {
			return err
		}
		if root != c.Root || c.Origin != s.last.Origin {
			return &DamageError{Kind: DamageRewritten, First: 0, Last: c.Size - 1, File: file, Detail: fmt.Sprintf("it does not extend the checkpoint that is pinned, of %d records", c.Size)}
		}
	}
	return nil
}
