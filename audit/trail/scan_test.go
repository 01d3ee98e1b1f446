package trail_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// damageSomehow does something to one file of m, and says what.
func damageSomehow(t *testing.T, w *world, m fstest.MapFS, rnd *rand.Rand) string {
	t.Helper()
	names := slices.Sorted(func(yield func(string) bool) {
		for name := range m {
			if !yield(name) {
				return
			}
		}
	})
	name := names[rnd.IntN(len(names))]
	f := m[name]
	a, b := rnd.IntN(len(f.Data)), rnd.IntN(len(f.Data))
	a, b = min(a, b), max(a, b)
	switch what := rnd.IntN(9); what {
	case 0, 1:
		f.Data[a] ^= 1 << rnd.IntN(8)
		return fmt.Sprintf("%s: a bit of byte %d", name, a)
	case 2:
		f.Data = f.Data[:a]
		return fmt.Sprintf("%s: cut off at %d", name, a)
	case 3:
		f.Data = slices.Delete(f.Data, a, min(b, a+2000))
		return fmt.Sprintf("%s: bytes from %d are gone", name, a)
	case 4:
		f.Data = slices.Insert(f.Data, a, make([]byte, 1+rnd.IntN(40))...)
		return fmt.Sprintf("%s: zeros at %d", name, a)
	case 5:
		f.Data = append(f.Data, f.Data[a:b]...)
		return fmt.Sprintf("%s: bytes %d to %d again at the end", name, a, b)
	case 6:
		other := names[rnd.IntN(len(names))]
		m[name], m[other] = m[other], f
		return fmt.Sprintf("%s and %s exchanged", name, other)
	case 7:
		delete(m, name)
		return name + ": gone"
	default:
		segs := segments(m)
		name = segs[rnd.IntN(len(segs))]
		sums, seq := rnd.IntN(2) == 0, int64(rnd.IntN(400))
		var key *trail.Key
		if rnd.IntN(3) == 0 {
			key, sums = w.key, true
		}
		data, err := trail.Forge(m[name].Data, sums, key, func(n int64, p []byte) []byte {
			switch {
			case n != seq:
			case a%2 == 0:
				return nil
			default:
				return append(p[:len(p)-1:len(p)-1], `,"x":1}`...)
			}
			return p
		})
		if err == nil || errors.Is(err, fs.ErrNotExist) || len(data) > 0 {
			m[name].Data = data
		}
		return fmt.Sprintf("%s: record %d forged: %t, %t", name, seq, sums, key != nil)
	}
}

// However many work on it, and however much is read at a time, what is found is
// what is found by reading in order.
func TestFoundAlike(t *testing.T) {
	n := 80
	switch {
	case long:
		n = 10_000
	case testing.Short():
		n = 30
	}
	w := create(t, trail.Config{SegmentBytes: 40_000})
	w.record(t, 0, 30)
	pinned := []trail.Checkpoint{w.log.Checkpoint()}
	w.bulk(t, 350)
	if _, err := w.log.Retire(t.Context(), trail.Retention{Bytes: 120_000}); err != nil {
		t.Fatal(err)
	}
	pinned = append(pinned, w.log.Checkpoint())
	w.close(t)
	good := w.files(t)
	found := make(map[string]int)
	for i := range n {
		rnd := rand.New(rand.NewPCG(7, uint64(i)))
		m := clone(good)
		what := "nothing"
		if i > 0 {
			what = damageSomehow(t, w, m, rnd)
		}
		v := w.verifier()
		v.Live = rnd.IntN(4) == 0
		v.Pinned = pinned[:rnd.IntN(3)]
		sum, err := v.InOrder(t.Context(), m)
		want := fmt.Sprintf("%+v, %v", sum, err)
		kind := trail.Damage("sound")
		if d, ok := errors.AsType[*trail.DamageError](err); ok {
			kind = d.Kind
		} else if err != nil {
			kind = "error"
		}
		found[string(kind)]++
		for _, workers := range []int{1, 5} {
			for _, chunk := range []int{0, 700} {
				v.Workers = workers
				v.Chunks(chunk)
				sum, err := v.Verify(t.Context(), m)
				if got := fmt.Sprintf("%+v, %v", sum, err); got != want {
					t.Fatalf("%d: %s: with %d workers, and %d bytes at a time:\n%s\nin order:\n%s", i, what, workers, chunk, got, want)
				}
			}
		}
	}
	t.Log(found)
	for _, kind := range []trail.Damage{"sound", trail.DamageEdited, trail.DamageTorn, trail.DamageSwapped, trail.DamageIndex, trail.DamageMissing, trail.DamageSignature} {
		if found[string(kind)] == 0 && n >= 80 {
			t.Errorf("%s: never seen: %v", kind, found)
		}
	}
}

// An unreadable is a file system of which some bytes of a file cannot be read.
type unreadable struct {
	fs.FS
	name string
	from int
}

type unreadableFile struct {
	fs.File
	left int
}

func (u unreadable) Open(name string) (fs.File, error) {
	f, err := u.FS.Open(name)
	if err != nil || name != u.name {
		return f, err
	}
	return &unreadableFile{f, u.from}, nil
}

func (u *unreadableFile) Read(p []byte) (int, error) {
	if u.left == 0 {
		return 0, iotest.ErrTimeout
	}
	n, err := u.File.Read(p[:min(len(p), u.left)])
	u.left -= n
	return n, err
}

// What cannot be read is an error and neither damage nor soundness.
func TestUnreadableIsNotDamage(t *testing.T) {
	w := create(t, trail.Config{SegmentBytes: 20_000})
	w.bulk(t, 200)
	w.close(t)
	m := w.files(t)
	for name, f := range m {
		for range 12 {
			from := rand.IntN(len(f.Data))
			_, err := w.verifier().Verify(t.Context(), unreadable{m, name, from})
			if !errors.Is(err, iotest.ErrTimeout) || !strings.Contains(err.Error(), "trail:") {
				t.Errorf("%s from byte %d: %v", name, from, err)
			}
			if _, ok := errors.AsType[*trail.DamageError](err); ok {
				t.Errorf("%s from byte %d: called damage: %v", name, from, err)
			}
		}
	}
}

// The time of a record is the same whatever was read before.
func FuzzTimeOfRecord(f *testing.F) {
	times := trail.Times()
	for _, seed := range []string{
		`{"seq":0,"v":1,"kind":"tool.call","time":"2026-03-01T12:00:01Z","actor":"a"}`,
		`{"seq":0,"v":1,"kind":"tool.call","time":"2026-03-01T23:59:59.123456789Z"}`,
		`{"seq":0,"v":1,"kind":"a,"time":"2026-03-01T12:00:60Z"}`,
		`{"seq":0,"v":1,"kind":"k","time":"2026-03-01T12:00:01.Z"}`,
		`{"seq":0,"v":1,"kind":"k","time":"2026-03-01T12:00:01+01:00"}`,
		`{"seq":0,"v":1,"kind":"k","time":"1969-12-31T00:00:00Z"}`,
		`{"seq":0,"v":1,"kind":"k","time":"0000-02-29T00:00:00Z"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		for range 2 {
			if full, kept := times(payload); full != kept {
				t.Errorf("%q: %d, and %d by what was kept", payload, full, kept)
			}
		}
	})
}
