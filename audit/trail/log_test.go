package trail_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/audit/trail/trailtest"
)

func TestRecorders(t *testing.T) {
	t.Run("Log", func(t *testing.T) {
		worlds := make(map[trail.Recorder]*world)
		trailtest.Run(t, trailtest.Subject{
			New: func() (trail.Recorder, error) {
				w := create(t, trail.Config{SegmentBytes: 4000})
				worlds[w.log] = w
				return w.log, nil
			},
			Kept: func(r trail.Recorder) ([]trail.Event, error) {
				// As after a crash: nothing is closed.
				return allEvents(t, worlds[r])
			},
		})
	})
	t.Run("Lines", func(t *testing.T) {
		names := make(map[trail.Recorder]string)
		trailtest.Run(t, trailtest.Subject{
			New: func() (trail.Recorder, error) {
				f, err := os.CreateTemp(t.TempDir(), "")
				if err != nil {
					return nil, err
				}
				l := &trail.Lines{W: f}
				names[l] = f.Name()
				return l, nil
			},
			Kept: func(r trail.Recorder) ([]trail.Event, error) {
				data, err := os.ReadFile(names[r])
				var list []trail.Event
				for line := range strings.Lines(string(data)) {
					var e trail.Event
					err = errors.Join(err, json.Unmarshal([]byte(line), &e))
					list = append(list, e)
				}
				return list, err
			},
		})
	})
}

func allEvents(t *testing.T, w *world) ([]trail.Event, error) {
	r, err := trail.OpenReader(t.Context(), w.fs(), w.key.Public())
	if err != nil {
		return nil, err
	}
	var list []trail.Event
	for rec, err := range r.Records(t.Context(), trail.Query{}) {
		if err != nil {
			return nil, err
		}
		list = append(list, rec.Event)
	}
	return list, nil
}

// What is recorded is there after any number of openings and segments, in one
// order, and verifies; each checkpoint covers what had been acknowledged.
func TestLogKeepsWhatItAcknowledged(t *testing.T) {
	w := create(t, trail.Config{SegmentBytes: 3000})
	for round := range 5 {
		for i := range 10 {
			n := round*10 + i
			seq, err := w.log.Append(t.Context(), event(n))
			if err != nil || seq != int64(n) {
				t.Fatalf("record %d has number %d: %v", n, seq, err)
			}
			if c := w.log.Checkpoint(); c.Size != int64(n)+1 {
				t.Fatalf("the checkpoint covers %d records, of %d", c.Size, n+1)
			}
		}
		w.close(t)
		w.open(t, trail.Config{SegmentBytes: 3000})
		if r := w.log.Recovered(); r != (trail.Recovery{}) {
			t.Fatalf("%+v was cut off a log that was closed", r)
		}
		if s := w.verify(t); s.Records != int64(round*10+10) || s.Checkpoint.Note() != w.log.Checkpoint().Note() {
			t.Fatalf("%+v", s)
		}
	}
	if s := w.verify(t); s.Segments < 5 {
		t.Errorf("%d segments", s.Segments)
	}
	events, err := allEvents(t, w)
	if err != nil || len(events) != 50 {
		t.Fatal(len(events), err)
	}
	for n, e := range events {
		if want := event(n); e.ID != want.ID || !e.Time.Equal(want.Time) {
			t.Errorf("record %d is %+v", n, e)
		}
	}
}

func TestLogOfManyWriters(t *testing.T) {
	w := create(t, trail.Config{SegmentBytes: 50_000})
	seqs := make([][]int64, 64)
	var wg sync.WaitGroup
	for i := range seqs {
		wg.Go(func() {
			for n := range 20 {
				seq, err := w.log.Append(context.Background(), event(i*100+n))
				if err != nil {
					t.Error(err)
				}
				seqs[i] = append(seqs[i], seq)
			}
		})
	}
	wg.Wait()
	if w.verify(t).Records != 64*20 {
		t.Error("records are missing")
	}
	r := w.reader(t)
	all := slices.Concat(seqs...)
	slices.Sort(all)
	for i, seq := range all {
		if seq != int64(i) {
			t.Fatalf("number %d was given to record %d", seq, i)
		}
	}
	for i := range seqs {
		if !slices.IsSorted(seqs[i]) {
			t.Errorf("writer %d has numbers %v", i, seqs[i])
		}
		rec, err := r.Record(t.Context(), seqs[i][7])
		if err != nil || rec.Event.ID != fmt.Sprint(i*100+7) {
			t.Errorf("record %d is %+v: %v", seqs[i][7], rec, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	other, err := trail.GenerateKey("trail.example.com/test")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := trail.GenerateKey("trail.example.com/other")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		open func(w *world) error
		want error
	}{
		"a log that is in use":          {func(w *world) error { _, err := trail.Open(w.dir, w.key, trail.Config{}); return err }, trail.ErrLocked},
		"to make one where one is":      {func(w *world) error { w.log.Close(); _, err := trail.Create(w.dir, w.key, trail.Config{}); return err }, fs.ErrExist},
		"a directory that is not there": {func(w *world) error { _, err := trail.Open(w.dir+"x", w.key, trail.Config{}); return err }, fs.ErrNotExist},
		"a log that was taken away": {func(w *world) error {
			w.log.Close()
			for name := range w.files(t) {
				os.Remove(filepath.Join(w.dir, name))
			}
			_, err := trail.Open(w.dir, w.key, trail.Config{})
			return err
		}, fs.ErrNotExist},
		"another key of the same name": {func(w *world) error { w.log.Close(); _, err := trail.Open(w.dir, other, trail.Config{}); return err }, trail.ErrKey},
		"the key of another log": {func(w *world) error {
			w.log.Close()
			_, err := trail.Open(w.dir, elsewhere, trail.Config{})
			return err
		}, trail.ErrKey},
		"no key": {func(w *world) error { w.log.Close(); _, err := trail.Open(w.dir, nil, trail.Config{}); return err }, trail.ErrKey},
		"an empty key": {func(w *world) error {
			w.log.Close()
			_, err := trail.Open(w.dir, new(trail.Key), trail.Config{})
			return err
		}, trail.ErrKey},
	} {
		t.Run(name, func(t *testing.T) {
			w := create(t, trail.Config{})
			w.record(t, 0, 3)
			if err := c.open(w); !errors.Is(err, c.want) {
				t.Errorf("the error is %v, want %v", err, c.want)
			}
		})
	}
}

func TestRecordRefuses(t *testing.T) {
	w := create(t, trail.Config{})
	for name, e := range map[string]trail.Event{
		"a record about the log itself": {Kind: "trail.retire", Attrs: map[string]string{"before": "1000"}},
		"a record that is too large":    {Kind: "k", Message: strings.Repeat("x", trail.MaxRecord)},
	} {
		t.Run(name, func(t *testing.T) {
			if err := w.log.Record(t.Context(), e); !errors.Is(err, trail.ErrInvalidEvent) {
				t.Errorf("the error is %v", err)
			}
		})
	}
	w.record(t, 0, 1)
	if w.verify(t).Records != 1 {
		t.Error("something was recorded")
	}
	large := trail.Event{Kind: "k", Message: strings.Repeat("x", trail.MaxRecord-300)}
	if err := w.log.Record(t.Context(), large); err != nil || w.verify(t).Records != 2 {
		t.Error("the largest record:", err)
	}
	w.close(t)
	if err := w.log.Record(t.Context(), event(1)); !errors.Is(err, trail.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if err := w.log.Close(); !errors.Is(err, trail.ErrClosed) {
		t.Errorf("closed twice: %v", err)
	}
}

// Close keeps what callers wait for.
func TestCloseWhileRecording(t *testing.T) {
	for range 20 {
		w := create(t, trail.Config{})
		var kept sync.Map
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				for n := range 100 {
					seq, err := w.log.Append(context.Background(), event(i*1000+n))
					if errors.Is(err, trail.ErrClosed) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					kept.Store(seq, fmt.Sprint(i*1000+n))
				}
			})
		}
		time.Sleep(time.Millisecond)
		w.close(t)
		wg.Wait()
		r := w.reader(t)
		n := int64(0)
		kept.Range(func(seq, id any) bool {
			n++
			rec, err := r.Record(t.Context(), seq.(int64))
			if err != nil || rec.Event.ID != id {
				t.Errorf("record %v is %+v: %v", seq, rec, err)
			}
			return true
		})
		if r.Checkpoint().Size != n {
			t.Errorf("%d records were acknowledged, and %d are kept", n, r.Checkpoint().Size)
		}
	}
}

// Times are recorded as they are given, also when the clock goes back; the
// numbers go on.
func TestClockSteppingBack(t *testing.T) {
	w := create(t, trail.Config{SegmentBytes: 2000})
	for n := range 30 {
		e := event(1000 - 7*n)
		if err := w.log.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	w.close(t)
	w.open(t, trail.Config{SegmentBytes: 2000})
	w.verify(t)
	r := w.reader(t)
	var last trail.Record
	for rec, err := range r.Records(t.Context(), trail.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		if rec.Seq > 0 && (rec.Seq != last.Seq+1 || !rec.Event.Time.Before(last.Event.Time)) {
			t.Errorf("record %d of %v follows record %d of %v", rec.Seq, rec.Event.Time, last.Seq, last.Event.Time)
		}
		last = rec
	}
	since := event(1000 - 7*12).Time
	n := 0
	for rec, err := range r.Records(t.Context(), trail.Query{Since: since}) {
		if err != nil || rec.Event.Time.Before(since) {
			t.Error(rec, err)
		}
		n++
	}
	if n != 13 {
		t.Errorf("%d records since %v", n, since)
	}
}

func TestRecordGivesTheTime(t *testing.T) {
	w := create(t, trail.Config{})
	before := time.Now()
	zone := time.FixedZone("", 3600)
	if err := errors.Join(w.log.Record(t.Context(), trail.Event{Kind: "k"}), w.log.Record(t.Context(), trail.Event{Kind: "k", Time: time.Date(2026, 3, 1, 12, 0, 0, 0, zone)})); err != nil {
		t.Fatal(err)
	}
	events, err := allEvents(t, w)
	if err != nil || events[0].Time.Before(before.Add(-time.Second)) || events[0].Time.After(time.Now()) {
		t.Error(events, err)
	}
	if got := events[1].Time.Format(time.RFC3339); got != "2026-03-01T11:00:00Z" {
		t.Error(got)
	}
}

// What retention removes is gone and provable; what is removed otherwise is
// missing.
func TestRetire(t *testing.T) {
	w := create(t, trail.Config{SegmentBytes: 3000})
	w.record(t, 0, 60)
	before := w.reader(t)
	proof, err := before.Prove(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	pinned := w.log.Checkpoint()
	middle := mustCheckpointAt(t, w, 17)
	n, err := w.log.Retire(t.Context(), trail.Retention{Bytes: 12_000})
	if err != nil || n == 0 || n >= 60 {
		t.Fatal(n, err)
	}
	if again, err := w.log.Retire(t.Context(), trail.Retention{Bytes: 14_000}); err != nil || again != 0 {
		t.Fatal(again, err)
	}
	v := w.verifier()
	v.Pinned = []trail.Checkpoint{pinned, middle}
	s, err := v.Verify(t.Context(), w.fs())
	if err != nil || s.First != n || s.Retired != n || s.Records != 61-n {
		t.Fatalf("%+v, %v", s, err)
	}
	if _, err := v.VerifyRange(t.Context(), w.fs(), 50, 55); err != nil {
		t.Error("a range:", err)
	}
	if rec, err := proof.Check(w.key.Public()); err != nil || rec.Event.ID != "2" {
		t.Error("the proof from before:", err)
	}
	r := w.reader(t)
	if _, err := r.Record(t.Context(), 2); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a retired record: %v", err)
	}
	later, err := r.Prove(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	later.Record = proof.Record
	if _, err := later.Check(w.key.Public()); err != nil {
		t.Error("a proof from after, with the record from before:", err)
	}
	extends, err := r.Consistency(t.Context(), pinned.Size)
	if err != nil || trail.CheckConsistency(pinned, r.Checkpoint(), extends) != nil {
		t.Error("the log does not extend what it was:", err)
	}
	w.record(t, 100, 130)
	w.close(t)
	w.open(t, trail.Config{SegmentBytes: 3000, Pinned: v.Pinned})
	if s := w.verify(t); s.First != n {
		t.Errorf("%+v", s)
	}

	good := w.files(t)
	t.Run("a segment that retention did not name", func(t *testing.T) {
		m := clone(good)
		delete(m, fmt.Sprintf("%020d.seg", n))
		_, err := w.verifier().Verify(t.Context(), m)
		if d := wantDamage(t, err, trail.DamageMissing); d.First != n {
			t.Error(err)
		}
	})
	t.Run("the index of one that it did", func(t *testing.T) {
		m := clone(good)
		delete(m, fmt.Sprintf("%020d.idx", 0))
		_, err := w.verifier().Verify(t.Context(), m)
		if d := wantDamage(t, err, trail.DamageMissing); d.First != 0 {
			t.Error(err)
		}
	})
}

// Of a retired segment only hashes are left, and these are those of the tree.
func TestForgedIndexOfARetiredSegment(t *testing.T) {
	w := create(t, trail.Config{SegmentBytes: 3000})
	w.record(t, 0, 12)
	for keep := int64(20_000); ; keep -= 100 {
		if n, err := w.log.Retire(t.Context(), trail.Retention{Bytes: keep}); err != nil || keep < 0 {
			t.Fatal(err)
		} else if n > 0 {
			break
		}
	}
	w.verify(t)
	m := w.files(t)
	if m["00000000000000000000.seg"] != nil || len(segments(m)) < 2 {
		t.Fatal("it is not the first segment alone that was retired")
	}
	index := m["00000000000000000000.idx"]
	data, err := trail.ForgeIndex(index.Data)
	if err != nil || len(data) != len(index.Data) {
		t.Fatal(err)
	}
	index.Data = data
	_, err = w.verifier().Verify(t.Context(), m)
	wantDamage(t, err, trail.DamageSwapped)
}

func TestRetireByAge(t *testing.T) {
	w := create(t, trail.Config{SegmentBytes: 3000})
	for n := range 40 {
		e := event(n)
		e.Time = time.Now().Add(time.Duration(n-40) * time.Hour)
		if err := w.log.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := w.log.Retire(t.Context(), trail.Retention{}); n != 0 || err != nil {
		t.Errorf("the zero Retention removed %d: %v", n, err)
	}
	n, err := w.log.Retire(t.Context(), trail.Retention{Age: 20 * time.Hour})
	if err != nil || n < 10 || n > 20 {
		t.Fatal(n, err)
	}
	for rec, err := range w.reader(t).Records(t.Context(), trail.Query{}) {
		if err != nil || rec.Seq < n {
			t.Fatal(rec, err)
		}
	}
	w.verify(t)
}

// mustCheckpointAt returns the checkpoint that was signed when there were size
// records, from the log's own files.
func mustCheckpointAt(t *testing.T, w *world, size int) trail.Checkpoint {
	t.Helper()
	for name, f := range w.files(t) {
		if !strings.HasSuffix(name, ".seg") {
			continue
		}
		text := string(f.Data)
		head := fmt.Sprintf("%s\n%d\n", w.key.Origin(), size)
		i := strings.Index(text, head)
		if i < 0 {
			continue
		}
		end := i + strings.Index(text[i:], "\n\n") + 2
		end += strings.Index(text[end:], "\n") + 1
		c, err := trail.ParseCheckpoint(text[i:end], w.key.Public())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	t.Fatal("no such checkpoint")
	return trail.Checkpoint{}
}
