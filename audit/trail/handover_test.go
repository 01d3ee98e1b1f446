package trail_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// follows returns the log that w was handed over to.
func follows(t testing.TB, w *world, name string, c trail.Config) *world {
	t.Helper()
	next := &world{key: newKey(t, name), dir: filepath.Join(t.TempDir(), "next")}
	var err error
	if next.log, err = w.log.HandOver(t.Context(), next.dir, next.key, c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = next.log.Close() })
	return next
}

func newKey(t testing.TB, name string) *trail.Key {
	t.Helper()
	key, err := trail.GenerateKey(name)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Whoever trusts the key of any of three logs verifies all of them, and learns
// the other keys.
func TestHandOver(t *testing.T) {
	c := trail.Config{SegmentBytes: 4000}
	one := create(t, c)
	one.record(t, 0, 20)
	two := follows(t, one, "trail.example.com/two", c)
	two.record(t, 20, 33)
	three := follows(t, two, "trail.example.com/three", trail.Config{})
	three.record(t, 33, 40)
	pins := []trail.Checkpoint{three.log.Checkpoint()}
	worlds := []*world{one, two, three}
	var logs []fs.FS
	for _, w := range worlds {
		logs = append(logs, w.fs())
	}
	for i, known := range worlds {
		v := trail.Verifier{Key: known.key.Public(), Pinned: pins, Live: true}
		sums, err := v.VerifyChain(t.Context(), logs...)
		if err != nil {
			t.Fatalf("by key %d: %v", i, err)
		}
		// Each of the first two ends with a record, and each of the last two
		// begins with one.
		for n, want := range []int64{21, 15, 8} {
			if sums[n].Records != want || sums[n].Key != worlds[n].key.Public() {
				t.Errorf("by key %d: log %d: %+v", i, n, sums[n])
			}
		}
	}
	if got, err := allEvents(t, three); err != nil || len(got) != 8 || got[7].ID != "39" {
		t.Error(got, err)
	}
	for _, w := range worlds[:2] {
		if err := w.log.Record(t.Context(), event(1)); !errors.Is(err, trail.ErrClosed) {
			t.Errorf("recorded after the end: %v", err)
		}
		if _, err := trail.Open(w.dir, w.key, trail.Config{}); !errors.Is(err, trail.ErrHandedOver) {
			t.Errorf("opened after the end: %v", err)
		}
	}
	// The last log is as any other.
	three.close(t)
	three.open(t, trail.Config{Pinned: pins})
	three.record(t, 40, 41)
	v := trail.Verifier{Key: three.key.Public(), Pinned: pins}
	if _, err := v.VerifyChain(t.Context(), logs...); err != nil {
		t.Error(err)
	}
	if _, err := v.Verify(t.Context(), three.fs()); err != nil {
		t.Error(err)
	}
}

// What is recorded while a log is handed over is either in it, before its end,
// or its writer is told that it is not.
func TestHandOverUnderLoad(t *testing.T) {
	for range 10 {
		w := create(t, trail.Config{SegmentBytes: 20_000})
		var kept atomic.Int64
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				for n := i; ; n += 16 {
					err := w.log.Record(t.Context(), event(n))
					if errors.Is(err, trail.ErrClosed) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					kept.Add(1)
				}
			})
		}
		for kept.Load() < 100 {
			_ = w.log.Checkpoint()
		}
		next := follows(t, w, "trail.example.com/next", trail.Config{})
		wg.Wait()
		next.close(t)
		v := trail.Verifier{Key: w.key.Public()}
		sums, err := v.VerifyChain(t.Context(), w.fs(), next.fs())
		if err != nil || sums[0].Records != kept.Load()+1 {
			t.Errorf("%d acknowledged, %+v, %v", kept.Load(), sums, err)
		}
	}
}

// A log whose key is lost is continued by another. Who has the new key verifies
// both; who has the old one cannot follow.
func TestSucceed(t *testing.T) {
	old := create(t, trail.Config{SegmentBytes: 3000})
	old.record(t, 0, 12)
	old.close(t)
	next := &world{key: newKey(t, "trail.example.com/next"), dir: filepath.Join(t.TempDir(), "next")}
	var err error
	for range 3 { // to do it again is to open it
		if next.log, err = trail.Succeed(t.Context(), next.dir, next.key, trail.Config{}, old.verifier(), old.fs()); err != nil {
			t.Fatal(err)
		}
		next.record(t, 12, 14)
		next.close(t)
	}
	v := trail.Verifier{Key: next.key.Public()}
	if sums, err := v.VerifyChain(t.Context(), old.fs(), next.fs()); err != nil || sums[1].Records != 7 {
		t.Errorf("%+v, %v", sums, err)
	}
	v.Key = old.key.Public()
	_, err = v.VerifyChain(t.Context(), old.fs(), next.fs())
	wantDamage(t, err, trail.DamageTruncated)

	third := newKey(t, "trail.example.com/third")
	if _, err := trail.Succeed(t.Context(), next.dir, third, trail.Config{}, old.verifier(), old.fs()); !errors.Is(err, trail.ErrKey) {
		t.Errorf("over a log by another key: %v", err)
	}
	other := create(t, trail.Config{})
	other.close(t)
	if _, err := trail.Succeed(t.Context(), next.dir, next.key, trail.Config{}, other.verifier(), other.fs()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a log that continues another: %v", err)
	}
	if _, err := trail.Succeed(t.Context(), t.TempDir(), newKey(t, old.key.Origin()), trail.Config{}, old.verifier(), old.fs()); !errors.Is(err, trail.ErrKey) {
		t.Errorf("under the same name: %v", err)
	}
	damaged := old.files(t)
	damaged[segments(damaged)[1]].Data[700] ^= 1
	if _, err := trail.Succeed(t.Context(), filepath.Join(t.TempDir(), "x"), third, trail.Config{}, old.verifier(), damaged); err == nil {
		t.Error("it vouches for a log that is damaged")
	}
}

// A crash between the end of one log and the beginning of the next is finished
// by Succeed, with the key that was named and no other.
func TestHandOverInterrupted(t *testing.T) {
	old := create(t, trail.Config{})
	old.record(t, 0, 5)
	next := &world{key: newKey(t, "trail.example.com/next"), dir: filepath.Join(t.TempDir(), "file")}
	if err := os.WriteFile(next.dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := old.log.HandOver(t.Context(), next.dir, next.key, trail.Config{}); err == nil {
		t.Fatal("made in a file")
	}
	if _, err := trail.Open(old.dir, old.key, trail.Config{}); !errors.Is(err, trail.ErrHandedOver) {
		t.Fatal(err)
	}
	if _, err := trail.Succeed(t.Context(), filepath.Join(t.TempDir(), "x"), newKey(t, "trail.example.com/thief"), trail.Config{}, old.verifier(), old.fs()); !errors.Is(err, trail.ErrKey) {
		t.Errorf("by another key: %v", err)
	}
	if err := os.Remove(next.dir); err != nil {
		t.Fatal(err)
	}
	// It got as far as an empty log.
	l, err := trail.Create(next.dir, next.key, trail.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if next.log, err = trail.Succeed(t.Context(), next.dir, next.key, trail.Config{}, old.verifier(), old.fs()); err != nil {
		t.Fatal(err)
	}
	next.record(t, 5, 7)
	next.close(t)
	if _, err := old.verifier().VerifyChain(t.Context(), old.fs(), next.fs()); err != nil {
		t.Error(err)
	}
}

// A hand-over that fails on a full or broken disk leaves a log that goes on.
func TestHandOverFails(t *testing.T) {
	w := create(t, trail.Config{})
	w.record(t, 0, 3)
	w.log.Break(func(int, string, []byte) (int, error) { return 0, errFull })
	dir := filepath.Join(t.TempDir(), "next")
	if _, err := w.log.HandOver(t.Context(), dir, newKey(t, "trail.example.com/next"), trail.Config{}); !errors.Is(err, errFull) {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the next log has begun: %v", err)
	}
	w.open(t, trail.Config{})
	w.record(t, 3, 5)
	if _, err := w.log.HandOver(t.Context(), dir, newKey(t, w.key.Origin()), trail.Config{}); !errors.Is(err, trail.ErrKey) {
		t.Errorf("to a log of the same name: %v", err)
	}
	w.record(t, 5, 6)
	if s := w.verify(t); s.Records != 6 {
		t.Errorf("%+v", s)
	}
}

// Whatever is done to logs that were handed over is found: by those who know the
// new key also if it was done by who has stolen the old one.
func TestForgedHandOver(t *testing.T) {
	old := create(t, trail.Config{})
	old.record(t, 0, 10)
	next := follows(t, old, "trail.example.com/next", trail.Config{})
	pinned := []trail.Checkpoint{old.log.Checkpoint()}
	next.record(t, 10, 15)
	next.close(t)
	goodOld, goodNext := old.files(t), next.files(t)

	// thief has the old key, and writes another log with it, of n records, that
	// is handed over to a key of its own.
	thief := func(n int) (fstest.MapFS, fstest.MapFS) {
		w := &world{key: old.key, dir: filepath.Join(t.TempDir(), "old")}
		var err error
		if w.log, err = trail.Create(w.dir, w.key, trail.Config{}); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			e := event(i)
			e.Actor = "operator/mallory"
			if err := w.log.Record(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
		x := follows(t, w, "trail.example.com/next", trail.Config{})
		x.close(t)
		return w.files(t), x.files(t)
	}
	stolen, stolenNext := thief(10)
	longer, _ := thief(30)
	written := clone(goodOld) // after the end, with the old key
	name := segments(written)[0]
	var err error
	written[name].Data = trail.AppendRecord(written[name].Data, []byte(`{"seq":11,"v":1,"kind":"k","time":"2026-03-01T12:00:00Z"}`))
	if written[name].Data, err = trail.AppendCheckpoint(written[name].Data, old.key); err != nil {
		t.Fatal(err)
	}
	before := clone(goodOld)
	data := before[name].Data
	before[name].Data = data[:frameAt(data, `{"seq":10,`)]
	byOther := clone(before) // a hand-over that is not signed by the old key
	mallory := newKey(t, old.key.Origin())
	byOther[name].Data = trail.AppendRecord(byOther[name].Data, fmt.Appendf(nil,
		`{"seq":10,"v":1,"kind":"trail.handover","time":"2026-03-01T12:00:00Z","attrs":{"key":%q}}`, newKey(t, "trail.example.com/next").Public()))
	if byOther[name].Data, err = trail.AppendCheckpoint(byOther[name].Data, mallory); err != nil {
		t.Fatal(err)
	}
	edited := clone(goodOld)
	edited[name].Data[frameAt(data, `{"seq":4,`)+80] ^= 1
	link := clone(goodNext)
	forge(t, link, segments(link)[0], true, nil, func(n int64, p []byte) []byte {
		if n == 0 {
			return append(p[:len(p)-1:len(p)-1], `,"x":1}`...)
		}
		return p
	})
	unlinked := &world{key: next.key, dir: filepath.Join(t.TempDir(), "unlinked")}
	if unlinked.log, err = trail.Create(unlinked.dir, next.key, trail.Config{}); err != nil {
		t.Fatal(err)
	}
	unlinked.record(t, 0, 3)
	unlinked.close(t)

	const unseen, noKey = trail.Damage("unseen"), trail.Damage("no key")
	for what, c := range map[string]struct {
		old, next                  fs.FS
		byNew, byOld, byOldAndPins trail.Damage
	}{
		"nothing": {goodOld, goodNext, unseen, unseen, unseen},
		"a hand-over is forged without the old key":          {byOther, goodNext, trail.DamageSignature, trail.DamageSignature, trail.DamageSignature},
		"the old log is rolled back to before the hand-over": {before, goodNext, trail.DamageTruncated, trail.DamageTruncated, trail.DamageTruncated},
		"the old log is written anew by a thief of its key":  {stolen, goodNext, trail.DamageRewritten, trail.DamageSignature, trail.DamageSignature},
		"it is written anew and made longer":                 {longer, goodNext, trail.DamageRewritten, trail.DamageSignature, trail.DamageSignature},
		"both are written anew by a thief of the old key":    {stolen, stolenNext, trail.DamageSignature, unseen, trail.DamageRewritten},
		"the old log is written to after its end":            {written, goodNext, trail.DamageRewritten, trail.DamageTruncated, trail.DamageTruncated},
		"a record of the old log is edited":                  {edited, goodNext, trail.DamageEdited, trail.DamageEdited, trail.DamageEdited},
		"the link in the new log is edited":                  {goodOld, link, trail.DamageSignature, trail.DamageSignature, trail.DamageSignature},
		"the new log does not say what it continues":         {goodOld, unlinked.fs(), trail.DamageSwapped, trail.DamageSwapped, trail.DamageSwapped},
		"the new log is hidden":                              {goodOld, nil, noKey, trail.DamageTruncated, trail.DamageTruncated},
		"the logs are exchanged":                             {goodNext, goodOld, trail.DamageTruncated, trail.DamageTruncated, trail.DamageTruncated},
	} {
		t.Run(what, func(t *testing.T) {
			logs := []fs.FS{c.old, c.next}
			if c.next == nil {
				logs = logs[:1]
			}
			for who, x := range map[string]struct {
				v    trail.Verifier
				want trail.Damage
			}{
				"by the new key":          {trail.Verifier{Key: next.key.Public()}, c.byNew},
				"by the old key":          {trail.Verifier{Key: old.key.Public()}, c.byOld},
				"by the old key and pins": {trail.Verifier{Key: old.key.Public(), Pinned: pinned}, c.byOldAndPins},
			} {
				_, err := x.v.VerifyChain(t.Context(), logs...)
				switch d, _ := errors.AsType[*trail.DamageError](err); {
				case x.want == unseen && err == nil:
				case x.want == noKey && errors.Is(err, trail.ErrKey):
				case d == nil || d.Kind != x.want:
					t.Errorf("%s: want %q, got %v", who, x.want, err)
				}
			}
		})
	}
}
