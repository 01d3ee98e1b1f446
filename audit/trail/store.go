package trail

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/managemyclaw/hardshell/internal/filelock"
)

// A disk is the file of the segment that is written to.
type disk interface {
	WriteAt(p []byte, off int64) (int, error)
	Truncate(size int64) error
	Sync() error // of the data
	Close() error
}

type segmentFile struct{ *os.File }

func (f segmentFile) Sync() error { return syncData(f.File) }

// A store is the files of a log that is open for writing. One goroutine uses
// it at a time.
type store struct {
	dir   string
	key   *Key
	limit int64 // at which a new segment is begun
	lock  *os.File

	file   disk
	size   int64  // of file, up to the last checkpoint
	active *index // of file
	sealed *index // of the segment before, if that could not be written yet
	tree   frontier
	last   Checkpoint

	recovered Recovery

	buf, number []byte
	stored      []Hash
}

func (c *Config) limit() int64 {
	if c.SegmentBytes <= 0 {
		return DefaultSegmentBytes
	}
	return min(c.SegmentBytes, maxSegmentBytes)
}

func lockStore(dir string, key *Key, c Config) (*store, error) {
	if key == nil || key.signer == nil {
		return nil, fmt.Errorf("%w: open %s: there is none", ErrKey, dir)
	}
	lock, err := filelock.Try(filepath.Join(dir, lockName))
	if errors.Is(err, filelock.ErrHeld) {
		err = ErrLocked
	}
	if err != nil {
		return nil, fmt.Errorf("trail: open %s: %w", dir, err)
	}
	return &store{dir: dir, key: key, limit: c.limit(), lock: lock}, nil
}

func createStore(dir string, key *Key, c Config) (*store, error) {
	s, err := lockStore(dir, key, c)
	if err != nil {
		return nil, err
	}
	err = s.create()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("trail: create %s: %w", dir, err), s.close())
	}
	return s, nil
}

func (s *store) create() error {
	if _, err := listParts(os.DirFS(s.dir)); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("there is a log: %w", fs.ErrExist), err)
	}
	var err error
	if s.last, err = s.key.checkpoint(&s.tree, Checkpoint{}); err != nil {
		return err
	}
	return s.begin()
}

// begin begins the segment that continues s.tree.
func (s *store) begin() error {
	data := appendStart(nil, &s.tree, s.last)
	name := part{first: s.tree.n}.segmentName()
	if err := writeFile(s.dir, name, data); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(s.dir, name), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if s.file != nil {
		_ = s.file.Close() // all of it has been synced
	}
	s.file, s.size, s.active = segmentFile{f}, int64(len(data)), newIndex(s.tree.n)
	return nil
}

// rotate begins a new segment if this one is full, and sees to it that those
// before have their index.
func (s *store) rotate() error {
	if s.size >= s.limit && s.tree.n > s.active.first {
		full, size := s.active, s.size
		if err := s.writeIndex(); err != nil {
			return err
		}
		if err := s.begin(); err != nil {
			return err
		}
		full.size = size
		s.sealed = full
	}
	return s.writeIndex()
}

// writeIndex writes the index of the segment that was full last, unless it has
// been. Until then the log can be opened and read without.
func (s *store) writeIndex() error {
	if s.sealed == nil {
		return nil
	}
	if err := writeFile(s.dir, part{first: s.sealed.first}.indexName(), s.sealed.encode()); err != nil {
		return err
	}
	s.sealed = nil
	return nil
}

// commit makes entries durable as the next records, and a checkpoint that
// covers them. On an error none is kept; after one wrapping ErrFailed that is
// not known, and the store cannot be used any more.
func (s *store) commit(entries []entry) error {
	if err := s.rotate(); err != nil {
		return fmt.Errorf("%s: %w", s.dir, err)
	}
	before, from, to := s.tree, s.active.from, s.active.to
	undo := func(err error) error {
		s.tree = before
		s.active.cut(before.n, from, to)
		return fmt.Errorf("%s: %w", s.dir, err)
	}
	buf := s.buf[:0]
	for _, e := range entries {
		s.number = recordPrefix(s.number[:0], s.tree.n)
		off := s.size + int64(len(buf))
		var h Hash
		buf, h = appendFrame(buf, tagRecord, s.number, e.json[1:])
		s.stored = s.tree.add(h, s.stored[:0])
		s.active.add(off, e.time, s.stored)
	}
	c, err := s.key.checkpoint(&s.tree, s.last)
	if err != nil {
		return undo(err)
	}
	buf, _ = appendFrame(buf, tagCheckpoint, []byte(c.note))
	s.buf = buf[:0]
	if cap(s.buf) > maxBatchBytes {
		s.buf = nil
	}
	if _, err := s.file.WriteAt(buf, s.size); err != nil {
		if terr := s.file.Truncate(s.size); terr != nil {
			err = fmt.Errorf("%w: %w; cut it off again: %w", ErrFailed, err, terr)
		}
		return undo(err)
	}
	if err := s.file.Sync(); err != nil {
		return undo(fmt.Errorf("%w: %w", ErrFailed, err))
	}
	s.size += int64(len(buf))
	s.last = c
	return nil
}

func (s *store) close() error {
	var err error
	if s.file != nil {
		err = errors.Join(s.writeIndex(), s.file.Close())
	}
	return errors.Join(err, s.lock.Close())
}
