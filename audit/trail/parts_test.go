package trail

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"testing/fstest"
)

// twoSegments returns a log of 40 records in a segment with its index, and 20 in
// another, and its key. alter may change the frame of a record before it is
// hashed and signed.
func twoSegments(t *testing.T, alter func(seq int64, frame []byte) []byte) (fstest.MapFS, *Key) {
	t.Helper()
	key, err := GenerateKey("trail.example.com/parts")
	if err != nil {
		t.Fatal(err)
	}
	m := make(fstest.MapFS)
	var tree frontier
	var c Checkpoint
	if c, err = key.checkpoint(&tree, c); err != nil {
		t.Fatal(err)
	}
	for _, end := range []int64{40, 60} {
		p := part{first: tree.n}
		data, x := appendStart(nil, &tree, c), newIndex(tree.n)
		for n := tree.n; n < end; n++ {
			frame, h := appendFrame(nil, tagRecord, fmt.Appendf(nil, `{"seq":%d,"v":1,"kind":"k","time":"2026-03-01T12:00:%02dZ"}`, n, n))
			if alter != nil {
				frame = alter(n, frame)
				h = sha256.Sum256(frame[headerBytes-1:])
				copy(frame[8:], h[:sumBytes])
			}
			x.add(int64(len(data)), timeIn(frame[headerBytes:]), tree.add(h, nil))
			data = append(data, frame...)
			if n%5 == 4 {
				if c, err = key.checkpoint(&tree, c); err != nil {
					t.Fatal(err)
				}
				data, _ = appendFrame(data, tagCheckpoint, []byte(c.note))
			}
		}
		m[p.segmentName()] = &fstest.MapFile{Data: data}
		if end < 60 {
			x.size = int64(len(data))
			m[p.indexName()] = &fstest.MapFile{Data: x.encode()}
		}
	}
	return m, key
}

// What is wrong with a record is found also if all that is made of it fits, and
// the key of the log has signed it.
func TestSignedNonsense(t *testing.T) {
	for what, c := range map[string]struct {
		alter func(seq int64, frame []byte) []byte
		kind  Damage
	}{
		"nothing":                {func(_ int64, f []byte) []byte { return f }, ""},
		"a number of another":    {func(n int64, f []byte) []byte { return renumber(n, f, 33, "34") }, DamageMissing},
		"a number that was":      {func(n int64, f []byte) []byte { return renumber(n, f, 33, "32") }, DamageReordered},
		"no number":              {func(n int64, f []byte) []byte { return renumber(n, f, 33, "xx") }, DamageEdited},
		"a node as a record":     {func(n int64, f []byte) []byte { return setByte(n, f, 33, headerBytes-1, 1) }, DamageEdited},
		"a segment in a segment": {func(n int64, f []byte) []byte { return setByte(n, f, 33, 2, 'S') }, DamageSwapped},
	} {
		t.Run(what, func(t *testing.T) {
			m, key := twoSegments(t, c.alter)
			v := Verifier{Key: key.Public()}
			_, err := v.Verify(t.Context(), m)
			d, _ := errors.AsType[*DamageError](err)
			if c.kind == "" && err == nil {
				return
			}
			if d == nil || d.Kind != c.kind || d.First != 33 {
				t.Errorf("want %q at record 33, got %v", c.kind, err)
			}
		})
	}
}

func renumber(n int64, frame []byte, at int64, to string) []byte {
	if n == at {
		return bytes.Replace(frame, fmt.Appendf(nil, `{"seq":%d,`, n), []byte(`{"seq":`+to+`,`), 1)
	}
	return frame
}

func setByte(n int64, frame []byte, at int64, i int, b byte) []byte {
	if n == at {
		frame[i] = b
	}
	return frame
}

// An index that is sound in itself, and not that of its segment, is found,
// whatever in it is another; and so is one whose checksum alone is wrong.
func TestForgedIndex(t *testing.T) {
	good, key := twoSegments(t, nil)
	name := part{}.indexName()
	v := Verifier{Key: key.Public()}
	for i := range good[name].Data {
		m := make(fstest.MapFS)
		for n, f := range good {
			m[n] = &fstest.MapFile{Data: bytes.Clone(f.Data)}
		}
		data := m[name].Data
		data[i] ^= 1
		if end := len(data) - indexSum; i < end {
			data = binary.LittleEndian.AppendUint64(data[:end], indexSumOf(data[:end]))
		}
		_, err := v.Verify(t.Context(), m)
		if d, _ := errors.AsType[*DamageError](err); d == nil || d.Kind != DamageIndex {
			t.Fatalf("byte %d of %d: %v", i, len(data), err)
		}
	}
}

// Chunks are added in the order in which they stand in the segment, and not in
// that in which they were inspected.
func TestChunksAreInOrder(t *testing.T) {
	m, _ := twoSegments(t, nil)
	f, err := m.Open(part{}.segmentName())
	if err != nil {
		t.Fatal(err)
	}
	w := newWalker(f, "", 0)
	w.buf = make([]byte, 700)
	if err := w.begin(); err != nil {
		t.Fatal(err)
	}
	s := &scan{src: w.frames, size: 700}
	var list []*chunk
	for c := s.take(); c != nil; c = s.take() {
		list = append(list, c)
	}
	if len(list) != maxChunks {
		t.Fatalf("%d chunks are taken at once, want %d", len(list), maxChunks)
	}
	var in inspector
	for i := len(list) - 1; i >= 0; i-- {
		if c := s.pop(false); c != nil {
			t.Fatal("what follows a chunk that was not inspected is given out")
		}
		in.inspect(list[i])
	}
	for i, want := range list {
		if got := s.pop(true); got != want {
			t.Fatalf("chunk %d is another", i)
		}
	}
	if s.pop(true) != nil || s.over() {
		t.Error("there is more, and nothing is left")
	}
	s.release(list[0])
	if c := s.take(); c == nil || c.off <= list[1].off {
		t.Error("it does not go on")
	}
}
