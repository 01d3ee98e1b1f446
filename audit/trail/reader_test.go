package trail_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// mixed returns event n of a mixture.
func mixed(n int) trail.Event {
	e := event(n)
	e.Agent = []string{"inbox", "calendar", "files"}[n%3]
	e.Actor = "agent/" + e.Agent
	e.Tool = []string{"GMAIL_SEND_EMAIL", "SLACK_POST"}[n%2]
	e.LogID = fmt.Sprint("log_", n)
	if n%5 == 0 {
		e.Decision, e.Outcome = trail.DecisionDeny, ""
	}
	if n%11 == 0 {
		e = trail.Event{Kind: trail.KindKill, Time: e.Time, Actor: "operator/ann", Subject: "container/openclaw", Outcome: trail.OutcomeOK, ID: e.ID}
	}
	return e
}

// A query finds what looking at every record finds.
func TestQueries(t *testing.T) {
	w := create(t, trail.Config{SegmentBytes: 8000})
	const total = 120
	for n := range total {
		if err := w.log.Record(t.Context(), mixed(n)); err != nil {
			t.Fatal(err)
		}
	}
	r := w.reader(t)
	for name, q := range map[string]trail.Query{
		"all":                {},
		"an agent":           {Agent: "calendar"},
		"an actor":           {Actor: "operator/ann"},
		"a tool":             {Tool: "SLACK_POST"},
		"denials":            {Decision: trail.DecisionDeny},
		"an outcome":         {Outcome: trail.OutcomeOK},
		"a kind":             {Kind: trail.KindKill},
		"a subject":          {Subject: "container/openclaw"},
		"an id of Composio":  {ID: "log_47"},
		"an id of ours":      {ID: "req_00000031"},
		"since":              {Since: mixed(70).Time},
		"until":              {Until: mixed(50).Time},
		"a time":             {Since: mixed(33).Time, Until: mixed(66).Time},
		"numbers":            {First: 17, End: 93},
		"no numbers":         {First: 500},
		"all of it together": {First: 3, End: 110, Since: mixed(9).Time, Agent: "inbox", Tool: "GMAIL_SEND_EMAIL", Decision: trail.DecisionAllow},
	} {
		t.Run(name, func(t *testing.T) {
			var want, got []int64
			for n := range total {
				rec := trail.Record{Seq: int64(n), Event: mixed(n)}
				if q.Match(rec) {
					want = append(want, rec.Seq)
				}
			}
			for rec, err := range r.Records(t.Context(), q) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, rec.Seq)
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("records %v, want %v", got, want)
			}
			if name != "no numbers" && (len(want) == 0 || name != "all" && len(want) == total) {
				t.Errorf("%d records: the case shows nothing", len(want))
			}
			tail, err := r.Tail(t.Context(), q, 4)
			if err != nil || len(tail) != min(4, len(want)) || len(tail) > 0 && tail[len(tail)-1].Seq != want[len(want)-1] {
				t.Errorf("tail: %v, %v", tail, err)
			}
		})
	}
}

// Follow yields what is there and what comes, across segments, once and in
// order, and ends with its context.
func TestFollow(t *testing.T) {
	w := create(t, trail.Config{SegmentBytes: 2000})
	w.record(t, 0, 10)
	r := w.reader(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() {
		for n := 10; n < 60; n++ {
			if err := w.log.Record(context.Background(), event(n)); err != nil {
				t.Error(err)
			}
		}
	}()
	next := int64(0)
	for rec, err := range r.Follow(ctx, trail.Query{}, time.Millisecond) {
		if err != nil {
			t.Fatal(err)
		}
		if rec.Seq != next {
			t.Fatalf("record %d, want %d", rec.Seq, next)
		}
		if next++; next == 60 {
			cancel()
		}
	}
	if next != 60 || !errors.Is(ctx.Err(), context.Canceled) {
		t.Errorf("%d records: %v", next, ctx.Err())
	}
	n := 0
	for _, err := range w.reader(t).Follow(t.Context(), trail.Query{First: 5, End: 20}, time.Hour) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 15 {
		t.Errorf("%d records of 15", n)
	}
}

// Every record can be proved, and the proof of one proves no other.
func TestProofs(t *testing.T) {
	w := create(t, trail.Config{SegmentBytes: 4000})
	w.record(t, 0, 37)
	r := w.reader(t)
	var last trail.Proof
	for seq := range int64(37) {
		p, err := r.Prove(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var q trail.Proof
		if err := json.Unmarshal(data, &q); err != nil {
			t.Fatal(err)
		}
		rec, err := q.Check(w.key.Public())
		if err != nil || rec.Seq != seq || rec.Event.ID != fmt.Sprint(seq) {
			t.Fatalf("%+v: %v", rec, err)
		}
		last = q
	}
	other, err := trail.GenerateKey(w.key.Origin())
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(p *trail.Proof){
		"another record":         func(p *trail.Proof) { p.Record = []byte(strings.Replace(string(p.Record), "hello", "HELLO", 1)) },
		"another number":         func(p *trail.Proof) { p.Seq-- },
		"a number out of range":  func(p *trail.Proof) { p.Seq = 1 << 40 },
		"a negative number":      func(p *trail.Proof) { p.Seq = -1 },
		"a hash less":            func(p *trail.Proof) { p.Hashes = p.Hashes[1:] },
		"a hash that is another": func(p *trail.Proof) { p.Hashes[0][3] ^= 1 },
		"no record":              func(p *trail.Proof) { p.Record = nil },
		"another checkpoint":     func(p *trail.Proof) { p.Checkpoint = strings.Replace(p.Checkpoint, "\n37\n", "\n38\n", 1) },
		"no checkpoint":          func(p *trail.Proof) { p.Checkpoint = "" },
	} {
		p := last
		p.Hashes = append([]trail.Hash(nil), last.Hashes...)
		change(&p)
		if _, err := p.Check(w.key.Public()); !errors.Is(err, trail.ErrProof) && !errors.Is(err, trail.ErrCheckpoint) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := last.Check(other.Public()); !errors.Is(err, trail.ErrCheckpoint) {
		t.Errorf("another key: %v", err)
	}
	for _, seq := range []int64{-1, 37} {
		if _, err := r.Prove(t.Context(), seq); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("record %d: %v", seq, err)
		}
	}
}

// A reader does not hand out a proof of a record that was changed.
func TestProveOfAChangedRecord(t *testing.T) {
	w := create(t, trail.Config{SegmentBytes: 4000})
	w.record(t, 0, 30)
	w.close(t)
	m := w.files(t)
	forge(t, m, segmentOf(m, 7), false, nil, editRecord(7))
	r, err := trail.OpenReader(t.Context(), m, w.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Prove(t.Context(), 6); err != nil {
		t.Error(err)
	}
	_, err = r.Prove(t.Context(), 7)
	if d := wantDamage(t, err, trail.DamageEdited); d.First != 7 {
		t.Error(err)
	}
}

// Each state of a log extends each before it, and no other.
func TestConsistency(t *testing.T) {
	w := create(t, trail.Config{SegmentBytes: 3000})
	states := []trail.Checkpoint{w.log.Checkpoint()}
	for n := range 25 {
		w.record(t, n, n+1)
		states = append(states, w.log.Checkpoint())
		r := w.reader(t)
		for _, old := range states {
			proof, err := r.Consistency(t.Context(), old.Size)
			if err != nil {
				t.Fatal(err)
			}
			if err := trail.CheckConsistency(old, r.Checkpoint(), proof); err != nil {
				t.Error(err)
			}
			bad := old
			bad.Root[0] ^= 1
			if err := trail.CheckConsistency(bad, r.Checkpoint(), proof); !errors.Is(err, trail.ErrProof) {
				t.Errorf("another tree of %d: %v", old.Size, err)
			}
			if old.Size < r.Checkpoint().Size && old.Size > 0 {
				if err := trail.CheckConsistency(r.Checkpoint(), old, proof); !errors.Is(err, trail.ErrProof) {
					t.Errorf("a shorter log: %v", err)
				}
			}
		}
	}
	other := states[3]
	other.Origin = "trail.example.com/other"
	if err := trail.CheckConsistency(other, states[3], nil); !errors.Is(err, trail.ErrProof) {
		t.Errorf("another log: %v", err)
	}
	if _, err := w.reader(t).Consistency(t.Context(), 26); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// A range is verified against the tree of all records; damage elsewhere is not
// looked for.
func TestVerifyRange(t *testing.T) {
	w := create(t, trail.Config{SegmentBytes: 4000})
	w.record(t, 0, 60)
	w.close(t)
	pinned := mustCheckpointAt(t, w, 13)
	good := w.files(t)
	v := w.verifier()
	v.Pinned = []trail.Checkpoint{pinned}
	all, err := v.Verify(t.Context(), good)
	if err != nil {
		t.Fatal(err)
	}
	s, err := v.VerifyRange(t.Context(), good, 20, 25)
	if err != nil || s.Records == 0 || s.Records >= all.Records || s.Bytes >= all.Bytes {
		t.Fatalf("%+v, %v", s, err)
	}
	m := clone(good)
	m[segmentOf(m, 22)].Data[frameAt(m[segmentOf(m, 22)].Data, `{"seq":22,`)+60] ^= 1
	_, err = v.VerifyRange(t.Context(), m, 20, 25)
	if d := wantDamage(t, err, trail.DamageEdited); d.First != 22 {
		t.Error(err)
	}
	if _, err := v.VerifyRange(t.Context(), m, 50, 60); err != nil {
		t.Errorf("another range: %v", err)
	}
	m = clone(good)
	forge(t, m, segmentOf(m, 22), true, w.key, editRecord(22))
	_, err = v.VerifyRange(t.Context(), m, 22, 23)
	if _, ok := errors.AsType[*trail.DamageError](err); !ok {
		t.Errorf("a segment that was signed again: %v", err)
	}
	m = clone(good)
	index := strings.TrimSuffix(segmentOf(m, 22), ".seg") + ".idx"
	forge(t, m, segmentOf(m, 22), true, w.key, editRecord(22))
	delete(m, index)
	_, err = v.VerifyRange(t.Context(), m, 22, 23)
	if _, ok := errors.AsType[*trail.DamageError](err); !ok {
		t.Errorf("a segment that was signed again, without its index: %v", err)
	}
	v.Pinned[0].Root[0] ^= 1
	_, err = v.VerifyRange(t.Context(), good, 50, 60)
	wantDamage(t, err, trail.DamageRewritten)
}

func TestVerifyNeedsAKey(t *testing.T) {
	w := create(t, trail.Config{})
	if _, err := new(trail.Verifier).Verify(t.Context(), w.fs()); !errors.Is(err, trail.ErrKey) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.verifier().Verify(ctx, w.fs()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := w.verifier().Verify(t.Context(), w.files(t)); err != nil {
		t.Error(err)
	}
	empty := clone(w.files(t))
	clear(empty)
	if _, err := w.verifier().Verify(t.Context(), empty); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// While a log is written to, verifying it as live finds nothing wrong.
func TestVerifyLive(t *testing.T) {
	w := create(t, trail.Config{SegmentBytes: 20_000})
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.bulk(t, 3000)
	}()
	v := w.verifier()
	v.Live = true
	var last int64
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		s, err := v.Verify(t.Context(), w.fs())
		if err != nil {
			t.Fatal(err)
		}
		if s.Checkpoint.Size < last {
			t.Fatalf("%d records after %d", s.Checkpoint.Size, last)
		}
		last = s.Checkpoint.Size
		v.Pinned = []trail.Checkpoint{s.Checkpoint}
		if _, err := trail.OpenReader(t.Context(), w.fs(), w.key.Public()); err != nil {
			t.Fatal(err)
		}
	}
	if last != 3000 {
		t.Errorf("%d records", last)
	}
}
