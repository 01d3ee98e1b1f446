package trail

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"slices"
	"sync"
)

// chunkBytes is how much of a segment is read at a time; maxChunks is how many
// chunks of a segment are in memory at once.
const (
	chunkBytes = 256 << 10
	maxChunks  = 6
)

// chunkSize returns how much of f to read at a time.
func chunkSize(f fs.File) int {
	info, err := f.Stat()
	if err != nil {
		return chunkBytes
	}
	return int(min(max(info.Size(), 4096), chunkBytes))
}

// A scan reads one segment that is as it should be, which nearly all are, as
// fast as that can be done. It judges alike whoever helps, and names no damage:
// when anything is not as it should be it says so, and a walker that reads the
// segment in order finds out what.
//
// Chunks are read in order, by whoever is free. What can be told of a chunk by
// itself is done by who read it; then one goroutine adds the chunks to the tree,
// in order.
type scan struct {
	mu     sync.Mutex
	src    frames   // stands behind the last chunk that was taken
	next   int64    // number of the record that begins the next chunk
	ended  bool     // no chunk follows
	failed bool     // something is not as it should be
	queue  []*chunk // taken and not yet added, in order
	free   []*chunk
	made   int
	size   int // of a chunk
}

// A chunk is a run of whole frames.
type chunk struct {
	data  []byte
	off   int64 // of data in the segment
	first int64 // number of its first record
	found []found
	notes []noted // of the checkpoints among them

	done    chan struct{} // closed when the rest is known
	bad     bool
	retired int64
}

// A found is what a frame shows by itself.
type found struct {
	start, end int // in data
	checkpoint bool
	hash       Hash
	time       int64
}

// A noted is a checkpoint, and the hash of its note.
type noted struct {
	c    Checkpoint
	hash Hash
}

// take reads the next chunk. It returns nil if there is none, or if too many
// have been taken.
func (s *scan) take() *chunk {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil
	}
	var c *chunk
	switch n := len(s.free); {
	case n > 0:
		c, s.free = s.free[n-1], s.free[:n-1]
	case s.made < maxChunks:
		c = &chunk{data: make([]byte, 0, s.size)}
		s.made++
	default:
		return nil
	}
	s.failed = !s.read(c)
	if s.ended = s.failed || len(c.found) == 0; s.ended {
		return nil
	}
	s.queue = append(s.queue, c)
	return c
}

// read fills c with as many whole frames as there is room for, or with one. It
// reports whether what it has seen looks like frames.
func (s *scan) read(c *chunk) bool {
	*c = chunk{data: c.data[:0], off: s.src.off, first: s.next, found: c.found[:0], notes: c.notes[:0], done: make(chan struct{})}
	f := &s.src
	c.data = append(c.data, f.buf[f.at:f.limit]...) // what was read too much
	for {
		n, err := io.ReadFull(f.r, c.data[len(c.data):cap(c.data)])
		c.data = c.data[:len(c.data)+n]
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !end {
			return false
		}
		at, ok := s.split(c)
		if !ok || end && at < len(c.data) {
			return false
		}
		if at == 0 && !end {
			c.data = slices.Grow(c.data, headerBytes+MaxRecord)
			continue
		}
		f.buf = append(f.buf[:0], c.data[at:]...)
		f.at, f.limit = 0, len(f.buf)
		f.off += int64(at)
		c.data = c.data[:at]
		return true
	}
}

// split finds the whole frames in c and returns where they end.
func (s *scan) split(c *chunk) (int, bool) {
	at := 0
	for len(c.data)-at >= headerBytes {
		head := c.data[at : at+headerBytes]
		checkpoint := string(head[:4]) == tagCheckpoint
		n := binary.LittleEndian.Uint32(head[4:])
		if !checkpoint && string(head[:4]) != tagRecord || n > MaxRecord || head[headerBytes-1] != 0 {
			return at, false
		}
		end := at + headerBytes + int(n)
		if end > len(c.data) {
			break
		}
		c.found = append(c.found, found{start: at, end: end, checkpoint: checkpoint})
		if !checkpoint {
			s.next++
		}
		at = end
	}
	return at, true
}

// help inspects chunks until there is none to take.
func (s *scan) help(i *inspector) {
	for c := s.take(); c != nil; c = s.take() {
		i.inspect(c)
	}
}

// pop returns the first chunk that has not been added, once it was inspected. It
// returns nil if there is none, or, unless it is to wait, none inspected.
func (s *scan) pop(wait bool) *chunk {
	s.mu.Lock()
	if len(s.queue) == 0 {
		s.mu.Unlock()
		return nil
	}
	c := s.queue[0]
	s.mu.Unlock()
	if wait {
		<-c.done
	}
	select {
	case <-c.done:
	default:
		return nil
	}
	s.mu.Lock()
	s.queue = slices.Delete(s.queue, 0, 1)
	s.mu.Unlock()
	return c
}

// release makes room for another chunk.
func (s *scan) release(c *chunk) {
	s.mu.Lock()
	s.free = append(s.free, c)
	s.mu.Unlock()
}

// stop makes take return nothing more.
func (s *scan) stop() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
}

// over reports whether all chunks have been added, or something is not as it
// should be.
func (s *scan) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed || s.ended && len(s.queue) == 0
}

// An inspector does with a chunk what can be done without those before it. It
// is for one goroutine.
type inspector struct {
	hasher hasher
	times  clock
	number []byte
}

func (i *inspector) inspect(c *chunk) {
	defer close(c.done)
	seq := c.first
	for n := range c.found {
		f := &c.found[n]
		frame := c.data[f.start:f.end]
		f.hash = *i.hasher.of(frame[headerBytes-1:])
		payload := frame[headerBytes:]
		if c.bad = !bytes.Equal(f.hash[:sumBytes], frame[8:8+sumBytes]); c.bad {
			return
		}
		if f.checkpoint {
			x, err := parseCheckpoint(payload)
			if c.bad = err != nil; c.bad {
				return
			}
			c.notes = append(c.notes, noted{x, *i.hasher.of(payload)})
			continue
		}
		i.number = recordPrefix(i.number[:0], seq)
		if c.bad = !bytes.HasPrefix(payload, i.number); c.bad {
			return
		}
		f.time = i.times.in(payload)
		c.retired = max(c.retired, retiredIn(payload))
		seq++
	}
}

// An adder adds chunks to the tree, in order.
type adder struct {
	w    *walker // of which it uses what has been seen
	x    *indexCheck
	pins []int64 // sizes that are pinned, in order
	out  *seen
	end  int64 // of the chunks added
}

// add reports whether c continues what was added before.
func (a *adder) add(c *chunk) bool {
	if c.bad {
		return false
	}
	notes := c.notes
	for n := range c.found {
		f := &c.found[n]
		off := c.off + int64(f.start)
		if f.checkpoint {
			if a.w.follow(&notes[0].c, &notes[0].hash, off, c.off+int64(f.end)) != nil {
				return false
			}
			notes = notes[1:]
			continue
		}
		a.pin()
		a.w.stored = a.w.tree.extend(&a.w.hasher, f.hash, a.w.stored[:0])
		if !a.x.record(off, f.time, a.w.stored) {
			return false
		}
	}
	a.out.retired = max(a.out.retired, c.retired)
	a.end = c.off + int64(len(c.data))
	return true
}

// pin notes the root if the size is one that is pinned.
func (a *adder) pin() {
	for len(a.pins) > 0 && a.pins[0] <= a.w.tree.n {
		if a.pins[0] == a.w.tree.n {
			a.out.roots[a.w.tree.n] = a.w.tree.root()
		}
		a.pins = a.pins[1:]
	}
}

// scan reads segment p. It reports whether all of it is as it should be, as far
// as that can be told without the others. It offers itself to who would help.
func (v *Verifier) scan(ctx context.Context, fsys fs.FS, p part, wanted chan<- *scan) (_ seen, ok bool) {
	f, err := fsys.Open(p.segmentName())
	if err != nil {
		return seen{}, false
	}
	defer closeRead(f)
	w := newWalker(f, p.segmentName(), p.first)
	w.roots = false
	size := cmp.Or(v.chunk, chunkSize(f))
	w.buf = make([]byte, min(size, 4096)) // for the beginning
	if w.begin() != nil {
		return seen{}, false
	}
	x, err := openIndexCheck(fsys, p)
	if err != nil {
		return seen{}, false
	}
	defer x.close()
	out := seen{start: w.tree, opening: w.opening, roots: make(map[int64]Hash)}
	a := adder{w: w, x: x, out: &out, end: w.off}
	for _, c := range bySize(v.Pinned) {
		a.pins = append(a.pins, c.Size)
	}
	s := &scan{src: w.frames, next: p.first, size: size}
	defer s.stop()
	var i inspector
	for !s.over() {
		if ctx.Err() != nil {
			return seen{}, false
		}
		select {
		case wanted <- s:
		default:
		}
		c := s.take()
		if c != nil {
			i.inspect(c)
		}
		for c = s.pop(c == nil); c != nil; c = s.pop(false) {
			if !a.add(c) {
				return seen{}, false
			}
			s.release(c)
		}
	}
	a.pin()
	if s.failed || w.last.Size != w.tree.n || w.sealed != a.end || w.last.Root != w.tree.root() || !x.ends(w.tree.n, a.end) || v.checkSigned(w, p.first) != nil {
		return seen{}, false
	}
	out.bytes, out.end, out.last = a.end, w.tree, w.last
	return out, true
}
