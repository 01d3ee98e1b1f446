package trail

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Forge rewrites a segment as somebody can who has not the key: edit changes
// the payload of each record, or drops it by returning nil; sums, roots and the
// chain of checkpoints are made to fit, and signatures are copied. If sums is
// false only the sum of each frame is made to fit. With a key, all is signed.
func Forge(data []byte, sums bool, key *Key, edit func(seq int64, payload []byte) []byte) ([]byte, error) {
	f := frames{r: strings.NewReader(string(data))}
	var out []byte
	var tree frontier
	var last Checkpoint
	for {
		fr, err := f.next()
		if err != nil || !fr.sum {
			return out, errors.Join(err)
		}
		switch fr.tag {
		case tagSegment:
			if tree, err = parseStart(fr.payload); err != nil {
				return nil, err
			}
			out, _ = appendFrame(out, tagSegment, fr.payload)
		case tagRecord:
			seq, _ := seqOf(fr.payload)
			payload := edit(seq, append([]byte(nil), fr.payload...))
			if payload == nil {
				continue
			}
			var h Hash
			out, h = appendFrame(out, tagRecord, payload)
			tree.add(h, nil)
		case tagCheckpoint:
			c, err := parseCheckpoint(fr.payload)
			if err != nil {
				return nil, err
			}
			if !sums && key == nil || last.note == "" && key == nil {
				out, _ = appendFrame(out, tagCheckpoint, fr.payload)
				last = c
				continue
			}
			signer := key
			if signer == nil {
				if signer, err = GenerateKey(c.Origin); err != nil { // a signature, if the wrong one
					return nil, err
				}
			}
			if c, err = signer.checkpoint(&tree, last); err != nil {
				return nil, err
			}
			out, _ = appendFrame(out, tagCheckpoint, []byte(c.note))
			last = c
		}
	}
}

// AppendRecord appends the frame of a record.
func AppendRecord(data, payload []byte) []byte {
	data, _ = appendFrame(data, tagRecord, payload)
	return data
}

// AppendCheckpoint appends a checkpoint, signed by key, of the records in data.
func AppendCheckpoint(data []byte, key *Key) ([]byte, error) {
	w := newWalker(strings.NewReader(string(data)), "", 0)
	if err := w.run(noContext); err != nil && !isTorn(err) {
		return nil, err
	}
	c, err := key.checkpoint(&w.tree, w.last)
	if err != nil {
		return nil, err
	}
	data, _ = appendFrame(data, tagCheckpoint, []byte(c.note))
	return data, nil
}

// A FaultyDisk fails at the call with the given number, counted from 0 over all
// methods but Close.
type FaultyDisk struct {
	disk
	Calls int
	Fail  func(call int, method string, p []byte) (n int, err error)
}

func (d *FaultyDisk) fault(method string, p []byte) (int, error) {
	d.Calls++
	return d.Fail(d.Calls-1, method, p)
}

func (d *FaultyDisk) WriteAt(p []byte, off int64) (int, error) {
	if n, err := d.fault("write", p); err != nil {
		m, _ := d.disk.WriteAt(p[:n], off)
		return m, err
	}
	return d.disk.WriteAt(p, off)
}

func (d *FaultyDisk) Truncate(size int64) error {
	if _, err := d.fault("truncate", nil); err != nil {
		return err
	}
	return d.disk.Truncate(size)
}

func (d *FaultyDisk) Sync() error {
	if _, err := d.fault("sync", nil); err != nil {
		return err
	}
	return d.disk.Sync()
}

// Break makes the file that l writes to fail.
func (l *Log) Break(fail func(call int, method string, p []byte) (int, error)) *FaultyDisk {
	d := &FaultyDisk{disk: l.store.file, Fail: fail}
	l.store.file = d
	return d
}

// SyncData is how a Log makes a file durable.
var SyncData = syncData

// SignAnew replaces the signature of the checkpoint of size records, and makes
// the sum of its frame fit.
func SignAnew(data []byte, key *Key, size int64) ([]byte, error) {
	f := frames{r: strings.NewReader(string(data))}
	var out []byte
	for {
		fr, err := f.next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		payload := fr.payload
		if c, err := parseCheckpoint(payload); err == nil && fr.tag == tagCheckpoint && c.Size == size {
			text, _, _ := strings.Cut(c.note, "\n\n")
			signed, err := note.Sign(&note.Note{Text: text + "\n"}, key.signer)
			if err != nil {
				return nil, err
			}
			payload = signed
		}
		out, _ = appendFrame(out, fr.tag, payload)
	}
}

// ForgeIndex makes another index, sound in itself, in which the first record has
// another hash. It must be the index of the first segment.
func ForgeIndex(data []byte) ([]byte, error) {
	old, err := readIndex(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, err
	}
	x := newIndex(0)
	var tree frontier
	for seq := range old.count {
		off, err := old.offset(seq)
		if err != nil {
			return nil, err
		}
		h, err := old.hash(tlog.StoredHashIndex(0, seq))
		if err != nil {
			return nil, err
		}
		if seq == 0 {
			h[0] ^= 1
		}
		x.add(off, old.from, tree.add(h, nil))
	}
	x.size, x.to = old.size, old.to
	return x.encode(), nil
}

// InOrder is Verify, but that each segment is read by a walker and in order.
func (v *Verifier) InOrder(ctx context.Context, fsys fs.FS) (Summary, error) {
	parts, err := listParts(fsys)
	if err != nil {
		return Summary{}, err
	}
	j := joiner{v: v, fsys: fsys, parts: parts}
	for i, p := range parts {
		var s seen
		if p.segment || i == len(parts)-1 {
			s = v.inOrder(ctx, fsys, p)
		}
		j.results = append(j.results, s)
	}
	return j.join(ctx)
}

// Chunks makes v read n bytes at a time.
func (v *Verifier) Chunks(n int) { v.chunk = n }

// Times returns the time in a record as it is read in full, and as it is read by
// one that has read others before.
func Times() func(payload []byte) (full, kept int64) {
	var c clock
	return func(payload []byte) (int64, int64) { return timeIn(payload), c.in(payload) }
}
