// Package trailtest checks implementations of [trail.Recorder].
package trailtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// A Subject is a Recorder under test.
type Subject struct {
	// New returns a Recorder that keeps nothing yet.
	New func() (trail.Recorder, error)

	// Kept returns what the Recorder keeps, in order, as somebody would find
	// it who comes after a crash: not from the memory of the Recorder. The
	// Recorder is not used any more.
	Kept func(trail.Recorder) ([]trail.Event, error)
}

// A rule is what a Recorder must keep, and why.
type rule struct {
	name, why string
	check     func(context.Context, Subject) error
}

var rules = []rule{
	{"durable", "when Record returns nil the event is kept, every field of it, in the order of the calls", durable},
	{"invalid", "an event that is not valid is refused, with ErrInvalidEvent, and does not stop the next", invalid},
	{"canceled", "if ctx is done before the call, the event is not kept and the error says so", canceled},
	{"concurrent", "Record may be called concurrently, and each event is kept once", concurrent},
	{"not changed", "Record neither changes the event nor keeps what it refers to", notChanged},
}

// Test returns an error that names each rule which s breaks, and why it
// matters.
func Test(ctx context.Context, s Subject) error {
	var errs []error
	for _, r := range rules {
		if err := r.check(ctx, s); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w (%s)", r.name, err, r.why))
		}
	}
	return errors.Join(errs...)
}

// Run is [Test] with a subtest for each rule.
func Run(t *testing.T, s Subject) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			if err := r.check(t.Context(), s); err != nil {
				t.Errorf("%v\n%s", err, r.why)
			}
		})
	}
}

// sample returns an event with every field.
func sample(n int) trail.Event {
	return trail.Event{
		Kind: trail.KindToolCall, Time: time.Date(2026, 3, 1, 12, 0, n, 5, time.UTC),
		Actor: "agent/inbox", Agent: "inbox", Subject: "mailbox/ann", Tool: "GMAIL_SEND_EMAIL",
		Arguments: trail.Arguments{Digest: "sha256:00", View: []byte(`{"to":"ann@example.com"}`)},
		Decision:  trail.DecisionAllow, Outcome: trail.OutcomeOK, Message: "two\nlines, \"quoted\", ünd 日本",
		ID: fmt.Sprint(n), RequestID: "r", SessionID: "s", RunID: "u", ToolCallID: "c", AccountID: "ca", LogID: "log",
		Attrs: map[string]string{"a": "1", "b": "2"},
	}
}

func durable(ctx context.Context, s Subject) error {
	r, err := s.New()
	if err != nil {
		return err
	}
	var want []trail.Event
	for n := range 20 {
		e := sample(n)
		if n%2 == 1 {
			e = trail.Event{Kind: trail.KindDrill, Time: e.Time, ID: e.ID}
		}
		if err := r.Record(ctx, e); err != nil {
			return err
		}
		want = append(want, e)
	}
	got, err := s.Kept(r)
	if err != nil {
		return err
	}
	return same(got, want)
}

func same(got, want []trail.Event) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d events are kept, of %d", len(got), len(want))
	}
	for i := range want {
		if !want[i].Time.Equal(got[i].Time) {
			return fmt.Errorf("event %d: the time is %v, and was %v", i, got[i].Time, want[i].Time)
		}
		got[i].Time = want[i].Time
		if !reflect.DeepEqual(got[i], want[i]) {
			return fmt.Errorf("event %d is %+v, and was %+v", i, got[i], want[i])
		}
	}
	return nil
}

func invalid(ctx context.Context, s Subject) error {
	r, err := s.New()
	if err != nil {
		return err
	}
	for name, change := range map[string]func(*trail.Event){
		"without a kind":    func(e *trail.Event) { e.Kind = "" },
		"a malformed kind":  func(e *trail.Event) { e.Kind = "Tool Call" },
		"a decision":        func(e *trail.Event) { e.Decision = "maybe" },
		"an outcome":        func(e *trail.Event) { e.Outcome = "fine" },
		"a year":            func(e *trail.Event) { e.Time = time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC) },
		"a view of no JSON": func(e *trail.Event) { e.Arguments.View = []byte("{") },
	} {
		e := sample(0)
		change(&e)
		if err := r.Record(ctx, e); !errors.Is(err, trail.ErrInvalidEvent) {
			return fmt.Errorf("%s: the error is %v", name, err)
		}
	}
	want := []trail.Event{sample(1)}
	if err := r.Record(ctx, want[0]); err != nil {
		return fmt.Errorf("a valid event afterwards: %w", err)
	}
	got, err := s.Kept(r)
	if err != nil {
		return err
	}
	return same(got, want)
}

func canceled(ctx context.Context, s Subject) error {
	r, err := s.New()
	if err != nil {
		return err
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := r.Record(gone, sample(0)); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("the error is %v", err)
	}
	got, err := s.Kept(r)
	if err != nil {
		return err
	}
	return same(got, nil)
}

func concurrent(ctx context.Context, s Subject) error {
	r, err := s.New()
	if err != nil {
		return err
	}
	const writers, each = 8, 25
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				errs[w] = errors.Join(errs[w], r.Record(ctx, sample(w*each+i)))
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	got, err := s.Kept(r)
	if err != nil {
		return err
	}
	seen := make(map[string]int)
	for _, e := range got {
		seen[e.ID]++
	}
	for n := range writers * each {
		if c := seen[fmt.Sprint(n)]; c != 1 {
			return fmt.Errorf("event %d is kept %d times", n, c)
		}
	}
	if len(got) != writers*each {
		return fmt.Errorf("%d events are kept, of %d", len(got), writers*each)
	}
	return nil
}

func notChanged(ctx context.Context, s Subject) error {
	r, err := s.New()
	if err != nil {
		return err
	}
	e := sample(0)
	e.Message = "token ghp_0123456789abcdefghijABCDEFGHIJ012345" // a Recorder may redact, in a copy
	view, attrs := slices.Clone(e.Arguments.View), maps.Clone(e.Attrs)
	if err := r.Record(ctx, e); err != nil {
		return err
	}
	if string(e.Arguments.View) != string(view) || !maps.Equal(e.Attrs, attrs) {
		return errors.New("it changed the event")
	}
	clear(e.Arguments.View)
	e.Attrs["a"] = "changed afterwards"
	got, err := s.Kept(r)
	if err != nil {
		return err
	}
	if len(got) != 1 || got[0].Attrs["a"] != "1" || string(got[0].Arguments.View) != string(view) {
		return fmt.Errorf("it kept what the caller changed afterwards: %+v", got)
	}
	return nil
}
