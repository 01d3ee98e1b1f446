package trail_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// forgeTail appends a record and a checkpoint that is signed by another key.
func forgeTail(t *testing.T, w *world, data []byte) []byte {
	t.Helper()
	other, err := trail.GenerateKey(w.key.Origin())
	if err != nil {
		t.Fatal(err)
	}
	data = trail.AppendRecord(data, []byte(`{"seq":8,"v":1,"kind":"k","time":"2026-03-01T12:00:00Z"}`))
	data, err = trail.AppendCheckpoint(data, other)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A tampering is something that is done to the files of a log of 30 records in
// several segments, of which the checkpoint of all is pinned, and the one of 20
// too.
type tampering struct {
	name string
	do   func(t *testing.T, w *world, m fstest.MapFS)
	kind trail.Damage
	// first is the first record that is wrong, or -1 if that depends.
	first int64
	// unseen says that it can be found only by what was pinned.
	unseen bool
}

// segmentOf returns the name of the segment that record seq is in.
func segmentOf(m fstest.MapFS, seq int64) string {
	name := ""
	for _, s := range segments(m) {
		var first int64
		fmt.Sscanf(s, "%d.seg", &first)
		if first <= seq {
			name = s
		}
	}
	return name
}

func forge(t *testing.T, m fstest.MapFS, name string, sums bool, key *trail.Key, edit func(int64, []byte) []byte) {
	t.Helper()
	data, err := trail.Forge(m[name].Data, sums, key, edit)
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if bytes.Equal(data, m[name].Data) {
		t.Fatal("nothing was changed")
	}
	m[name].Data = data
}

// editRecord changes the subject of an e-mail in record seq.
func editRecord(seq int64) func(int64, []byte) []byte {
	return func(n int64, payload []byte) []byte {
		if n == seq {
			return bytes.Replace(payload, []byte("hello"), []byte("HELLO"), 1)
		}
		return payload
	}
}

func dropIndexes(m fstest.MapFS) {
	for name := range m {
		if strings.HasSuffix(name, ".idx") {
			delete(m, name)
		}
	}
}

var tamperings = []tampering{
	{"a byte of a record is edited", func(t *testing.T, w *world, m fstest.MapFS) {
		s := m[segmentOf(m, 7)]
		i := bytes.Index(s.Data, []byte(`{"seq":7,`))
		s.Data[i+60] ^= 0x20
	}, trail.DamageEdited, 7, false},
	{"a byte of the last record is edited", func(t *testing.T, w *world, m fstest.MapFS) {
		s := m[segmentOf(m, 29)]
		i := bytes.Index(s.Data, []byte(`{"seq":29,`))
		s.Data[i+60] ^= 0x20
	}, trail.DamageEdited, 29, false},
	{"a record is edited and its checksum made to fit", func(t *testing.T, w *world, m fstest.MapFS) {
		forge(t, m, segmentOf(m, 7), false, nil, editRecord(7))
	}, trail.DamageEdited, 7, false},
	{"a record in the last segment is edited and its checksum made to fit", func(t *testing.T, w *world, m fstest.MapFS) {
		forge(t, m, segmentOf(m, 29), false, nil, editRecord(29))
	}, trail.DamageEdited, 29, false},
	{"a record is edited and the checkpoints made to fit", func(t *testing.T, w *world, m fstest.MapFS) {
		forge(t, m, segmentOf(m, 7), true, nil, editRecord(7))
	}, trail.DamageSignature, -1, false},
	{"a record is edited and the checkpoints made to fit, without indexes", func(t *testing.T, w *world, m fstest.MapFS) {
		dropIndexes(m)
		forge(t, m, segmentOf(m, 29), true, nil, editRecord(29))
	}, trail.DamageSignature, -1, false},
	{"a record is edited and signed again with the key, in one segment", func(t *testing.T, w *world, m fstest.MapFS) {
		dropIndexes(m)
		forge(t, m, segmentOf(m, 7), true, w.key, editRecord(7))
	}, trail.DamageSwapped, -1, false},
	{"the signature of a checkpoint in the middle is replaced", func(t *testing.T, w *world, m fstest.MapFS) {
		other, err := trail.GenerateKey(w.key.Origin())
		if err != nil {
			t.Fatal(err)
		}
		s := m[segmentOf(m, 7)]
		data, err := trail.SignAnew(s.Data, other, 8)
		if err != nil || bytes.Equal(data, s.Data) {
			t.Fatal("nothing was changed", err)
		}
		s.Data = data
	}, trail.DamageSignature, -1, false},
	{"a record is deleted", func(t *testing.T, w *world, m fstest.MapFS) {
		cut(t, m, 7)
	}, trail.DamageMissing, 7, false},
	{"a record is deleted and the checkpoints made to fit", func(t *testing.T, w *world, m fstest.MapFS) {
		forge(t, m, segmentOf(m, 7), true, nil, func(n int64, p []byte) []byte {
			if n == 7 {
				return nil
			}
			return p
		})
	}, trail.DamageMissing, 7, false},
	{"a record and its checkpoint are deleted", func(t *testing.T, w *world, m fstest.MapFS) {
		s := m[segmentOf(m, 7)]
		a := frameAt(s.Data, `{"seq":7,`)
		b := frameAt(s.Data, `{"seq":8,`)
		if b < 0 {
			t.Fatal("record 8 is elsewhere")
		}
		s.Data = append(s.Data[:a:a], s.Data[b:]...)
	}, trail.DamageMissing, 7, false},
	{"two records are exchanged", func(t *testing.T, w *world, m fstest.MapFS) {
		s := m[segmentOf(m, 7)]
		a, b := frameAt(s.Data, `{"seq":6,`), frameAt(s.Data, `{"seq":7,`)
		one, two := frameBytes(s.Data, a), frameBytes(s.Data, b)
		between := s.Data[a+len(one) : b]
		s.Data = bytes.Join([][]byte{s.Data[:a], two, between, one, s.Data[b+len(two):]}, nil)
	}, trail.DamageReordered, 6, false},
	{"a record is there twice", func(t *testing.T, w *world, m fstest.MapFS) {
		s := m[segmentOf(m, 7)]
		a := frameAt(s.Data, `{"seq":7,`)
		one := frameBytes(s.Data, a)
		s.Data = bytes.Join([][]byte{s.Data[:a+len(one)], one, s.Data[a+len(one):]}, nil)
	}, trail.DamageReordered, 8, false},
	{"records are appended", func(t *testing.T, w *world, m fstest.MapFS) {
		s := m[segmentOf(m, 29)]
		s.Data = trail.AppendRecord(s.Data, []byte(`{"seq":30,"v":1,"kind":"k"}`))
	}, trail.DamageTorn, 30, false},
	{"the tail is cut off within a record", func(t *testing.T, w *world, m fstest.MapFS) {
		s := m[segmentOf(m, 29)]
		s.Data = s.Data[:frameAt(s.Data, `{"seq":29,`)+50]
	}, trail.DamageTorn, 29, false},
	{"the tail is cut off after a checkpoint", func(t *testing.T, w *world, m fstest.MapFS) {
		s := m[segmentOf(m, 29)]
		s.Data = s.Data[:frameAt(s.Data, `{"seq":29,`)]
	}, trail.DamageTruncated, 29, true},
	{"a segment in the middle is deleted", func(t *testing.T, w *world, m fstest.MapFS) {
		delete(m, segments(m)[1])
	}, trail.DamageMissing, -1, false},
	{"a segment in the middle is deleted with its index", func(t *testing.T, w *world, m fstest.MapFS) {
		name := segments(m)[1]
		delete(m, name)
		delete(m, strings.TrimSuffix(name, ".seg")+".idx")
	}, trail.DamageMissing, -1, false},
	{"the first segment is deleted", func(t *testing.T, w *world, m fstest.MapFS) {
		delete(m, segments(m)[0])
	}, trail.DamageMissing, 0, false},
	{"the last segment is deleted", func(t *testing.T, w *world, m fstest.MapFS) {
		names := segments(m)
		delete(m, names[len(names)-1])
	}, trail.DamageMissing, 24, false},
	{"the last segment is deleted, and the index of the one before", func(t *testing.T, w *world, m fstest.MapFS) {
		names := segments(m)
		delete(m, names[len(names)-1])
		delete(m, strings.TrimSuffix(names[len(names)-2], ".seg")+".idx")
	}, trail.DamageTruncated, 24, true},
	{"two segments are exchanged", func(t *testing.T, w *world, m fstest.MapFS) {
		names := segments(m)
		m[names[1]], m[names[2]] = m[names[2]], m[names[1]]
	}, trail.DamageSwapped, -1, false},
	{"two segments are exchanged with their indexes", func(t *testing.T, w *world, m fstest.MapFS) {
		names := segments(m)
		m[names[1]], m[names[2]] = m[names[2]], m[names[1]]
		a, b := strings.TrimSuffix(names[1], ".seg")+".idx", strings.TrimSuffix(names[2], ".seg")+".idx"
		m[a], m[b] = m[b], m[a]
	}, trail.DamageSwapped, -1, false},
	{"an index is edited", func(t *testing.T, w *world, m fstest.MapFS) {
		for name := range m {
			if strings.HasSuffix(name, ".idx") {
				m[name].Data[len(m[name].Data)/2] ^= 1
				return
			}
		}
	}, trail.DamageIndex, -1, false},
	{"an old copy is put back", func(t *testing.T, w *world, m fstest.MapFS) {
		old := oldCopies.take(t)
		clear(m)
		maps.Copy(m, old)
	}, trail.DamageTruncated, 20, true},
	{"the whole log is written anew with the key", func(t *testing.T, w *world, m fstest.MapFS) {
		other := rewritten(t, w, 30)
		clear(m)
		maps.Copy(m, other)
	}, trail.DamageRewritten, -1, true},
	{"the whole log is written anew with the key, and made longer", func(t *testing.T, w *world, m fstest.MapFS) {
		other := rewritten(t, w, 60)
		clear(m)
		maps.Copy(m, other)
	}, trail.DamageRewritten, -1, true},
	{"the whole log is written anew with another key", func(t *testing.T, w *world, m fstest.MapFS) {
		key, err := trail.GenerateKey(w.key.Origin())
		if err != nil {
			t.Fatal(err)
		}
		other := rewritten(t, &world{key: key}, 30)
		clear(m)
		maps.Copy(m, other)
	}, trail.DamageSignature, 0, false},
}

// oldCopies holds the files of the log as they were with 20 records.
var oldCopies copies

type copies struct{ m fstest.MapFS }

func (c *copies) take(t *testing.T) fstest.MapFS {
	t.Helper()
	if c.m == nil {
		t.Fatal("there is no old copy")
	}
	return clone(c.m)
}

// rewritten returns a log by the same key in which record 7 is another.
func rewritten(t *testing.T, w *world, n int) fstest.MapFS {
	t.Helper()
	dir := t.TempDir()
	l, err := trail.Create(dir, w.key, trail.Config{SegmentBytes: 4000})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		e := event(i)
		if i == 7 {
			e.Tool = "GMAIL_DELETE_MESSAGE"
		}
		if err := l.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	return (&world{dir: dir}).files(t)
}

// frameAt returns where the frame begins whose payload begins with prefix.
func frameAt(data []byte, prefix string) int {
	i := bytes.Index(data, []byte(prefix))
	if i < 0 {
		return -1
	}
	return i - 16
}

func frameBytes(data []byte, at int) []byte {
	n := int(data[at+4]) | int(data[at+5])<<8 | int(data[at+6])<<16
	return bytes.Clone(data[at : at+16+n])
}

// cut takes record seq out.
func cut(t *testing.T, m fstest.MapFS, seq int64) {
	t.Helper()
	s := m[segmentOf(m, seq)]
	a := frameAt(s.Data, fmt.Sprintf(`{"seq":%d,`, seq))
	s.Data = append(s.Data[:a:a], s.Data[a+len(frameBytes(s.Data, a)):]...)
}

// TestTampering: whatever is done to a log is found, and called what it is.
func TestTampering(t *testing.T) {
	w := create(t, trail.Config{SegmentBytes: 4000})
	w.record(t, 0, 20)
	twenty := w.log.Checkpoint()
	oldCopies.m = w.files(t)
	w.record(t, 20, 30)
	pinned := []trail.Checkpoint{w.log.Checkpoint(), twenty}
	w.close(t)
	good := w.files(t)
	if n := len(segments(good)); n < 4 {
		t.Fatalf("%d segments", n)
	}
	for _, c := range tamperings {
		t.Run(c.name, func(t *testing.T) {
			m := clone(good)
			c.do(t, w, m)
			for _, workers := range []int{1, 4} {
				v := w.verifier()
				v.Workers = workers
				_, err := v.Verify(t.Context(), m)
				if c.unseen {
					if err != nil {
						t.Errorf("without a pinned checkpoint: %v", err)
					}
				} else {
					wantDamage(t, err, c.kind)
				}
				v.Pinned = pinned
				_, err = v.Verify(t.Context(), m)
				kind := c.kind
				if kind == trail.DamageTorn && !strings.Contains(c.name, "appended") {
					kind = trail.DamageTruncated
				}
				d := wantDamage(t, err, kind)
				if c.first >= 0 && d.First != c.first {
					t.Errorf("the first bad record is %d, want %d: %v", d.First, c.first, err)
				}
				if d.Error() == "" || d.File == "" {
					t.Errorf("%#v", d)
				}
			}
		})
	}
}

// flips is how many random changes of one bit are tried.
func flips() int {
	switch {
	case long:
		return 100_000
	case testing.Short():
		return 300
	}
	return 1000
}

// TestFlipBits changes one bit anywhere in any file: all are found.
func TestFlipBits(t *testing.T) {
	w := create(t, trail.Config{SegmentBytes: 3000})
	w.record(t, 0, 17)
	if _, err := w.log.Retire(t.Context(), trail.Retention{Bytes: 8000}); err != nil {
		t.Fatal(err)
	}
	w.close(t)
	good := w.files(t)
	if s, err := w.verifier().Verify(t.Context(), good); err != nil || s.Segments < 2 || s.Retired == 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	var names []string
	total := 0
	for name, f := range good {
		names = append(names, name)
		total += len(f.Data)
	}
	n := flips()
	kinds := make(map[trail.Damage]int)
	var mu sync.Mutex
	var next atomic.Int64
	var wg sync.WaitGroup
	for worker := range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(worker)))
			m := clone(good)
			v := w.verifier()
			v.Workers = 1
			for next.Add(1) <= int64(n) {
				at := rnd.IntN(total)
				for _, name := range names {
					data := m[name].Data
					if at >= len(data) {
						at -= len(data)
						continue
					}
					bit := byte(1) << rnd.IntN(8)
					data[at] ^= bit
					_, err := v.Verify(t.Context(), m)
					if d, ok := errors.AsType[*trail.DamageError](err); ok {
						mu.Lock()
						kinds[d.Kind]++
						mu.Unlock()
					} else {
						t.Errorf("bit %#x of byte %d of %s: %v", bit, at, name, err)
					}
					data[at] ^= bit
					break
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d flips in %d bytes of %d files: %v", n, total, len(names), kinds)
}
