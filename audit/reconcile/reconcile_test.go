package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/reconcile"
	"github.com/managemyclaw/hardshell/audit/trail"
)

// A lie is one thing that somebody changed, and what must be found because of
// it.
var lies = []struct {
	name string
	tell func(w *world, c *call) bool // false if it cannot be told of c
}{
	{"both records are gone", func(w *world, c *call) bool {
		if c.fate == denied {
			return false
		}
		if c.executed() {
			w.expect(c.row.Time, reconcile.Unrecorded, reconcile.SideComposio, c.row.ID)
		}
		if c.fate == sent {
			w.expect(c.asked.Time, reconcile.Unrecorded, reconcile.SideOpenClaw, c.asked.ID)
		}
		c.intent, c.outcome = nil, nil
		return true
	}},
	{"the row is gone", func(w *world, c *call) bool {
		if c.fate != sent && c.fate != failed {
			return false
		}
		w.expect(c.begin, reconcile.NotFound, reconcile.SideComposio, c.row.ID)
		c.row = nil
		return true
	}},
	// Which of two rows of the same tool a call without an id explains cannot be
	// told, so that these are told of calls that have a tool of their own.
	{"the outcome is gone", func(w *world, c *call) bool {
		if c.fate == denied || c.fate == sent {
			return false
		}
		w.expect(c.begin, reconcile.Unfinished, reconcile.SideTrail, fmt.Sprint("record ", c.intent.Seq))
		c.outcome = nil
		return true
	}},
	{"the intent is gone", func(w *world, c *call) bool {
		if c.fate == denied || c.fate == sent || c.end.Sub(c.begin) > settle-10*time.Second {
			return false
		}
		w.expect(c.end, reconcile.NoIntent, reconcile.SideTrail, fmt.Sprint("record ", c.outcome.Seq))
		c.asked, c.intent = nil, nil
		w.expect(c.end, reconcile.NotFound, reconcile.SideOpenClaw, fmt.Sprint("record ", c.outcome.Seq))
		return true
	}},
	{"the row has another tool", func(w *world, c *call) bool {
		if c.fate != sent && c.fate != failed {
			return false
		}
		w.expect(c.begin, reconcile.OtherTool, reconcile.SideComposio, c.row.ID)
		c.row.Tool = "GMAIL_DELETE_MESSAGE"
		return true
	}},
	{"the row has another account", func(w *world, c *call) bool {
		if c.fate != sent && c.fate != failed {
			return false
		}
		w.expect(c.begin, reconcile.OtherAccount, reconcile.SideComposio, c.row.ID)
		c.row.AccountID = "ca_2"
		return true
	}},
	{"the row has another user", func(w *world, c *call) bool {
		if !c.executed() {
			return false
		}
		w.expect(c.begin, reconcile.OtherUser, reconcile.SideComposio, c.row.ID)
		c.row.UserID = "mallory"
		return true
	}},
	{"the row has another time", func(w *world, c *call) bool {
		if c.fate != sent && c.fate != failed {
			return false
		}
		w.expect(c.begin, reconcile.OtherTime, reconcile.SideComposio, c.row.ID)
		c.row.Time = c.end.Add(tolerance + time.Millisecond)
		if w.rng.IntN(2) == 0 {
			c.row.Time = c.begin.Add(-tolerance - time.Millisecond)
		}
		return true
	}},
	{"the row has another outcome", func(w *world, c *call) bool {
		switch c.fate {
		case sent:
			c.row.Status = reconcile.StatusFailed
		case failed:
			c.row.Status = reconcile.StatusOK
		default:
			return false
		}
		w.expect(c.begin, reconcile.OtherOutcome, reconcile.SideComposio, c.row.ID)
		return true
	}},
	{"another action is near it", func(w *world, c *call) bool {
		e := reconcile.Execution{ID: fmt.Sprint("log_x", c.n), Time: c.begin, Tool: "GMAIL_9", AccountID: "ca_1", Status: reconcile.StatusOK}
		w.extra = append(w.extra, e)
		w.expect(e.Time, reconcile.Unrecorded, reconcile.SideComposio, e.ID)
		return true
	}},
	{"an action hides behind it", func(w *world, c *call) bool {
		if c.fate != lost {
			return false
		}
		// The lost call explains one row, and only one: the first.
		e := *c.row
		e.ID += "x"
		e.Time = e.Time.Add(time.Nanosecond)
		w.extra = append(w.extra, e)
		w.expect(e.Time, reconcile.Unrecorded, reconcile.SideComposio, e.ID)
		return true
	}},
	{"there is another row with its id", func(w *world, c *call) bool {
		if c.fate != sent && c.fate != failed {
			return false
		}
		w.extra = append(w.extra, *c.row)
		w.expect(c.begin, reconcile.Duplicate, reconcile.SideComposio, c.row.ID)
		return true
	}},
	{"its record has the id of another call", func(w *world, c *call) bool {
		// A second call claims to be the first one.
		if c.fate != sent {
			return false
		}
		second := trail.Event{Kind: trail.KindToolCall, ID: c.intent.Event.ID + "2", Time: c.end, Agent: "other", Tool: c.tool, Decision: trail.DecisionAllow, Outcome: trail.OutcomeOK, LogID: c.row.ID}
		begin := second
		begin.Outcome, begin.LogID = trail.OutcomeBegin, ""
		w.calls = append(w.calls, &call{n: -1, begin: c.end, intent: &trail.Record{Seq: 1e6 + c.intent.Seq, Event: begin}, outcome: &trail.Record{Seq: 2e6 + c.intent.Seq, Event: second}})
		w.expect(c.end, reconcile.Duplicate, reconcile.SideTrail, c.row.ID)
		return true
	}},
	{"somebody else has the agent's token", func(w *world, c *call) bool {
		if c.fate == sent {
			return false // another call of the same tool would be taken for it
		}
		w.expect(c.begin, reconcile.NotFound, reconcile.SideOpenClaw, fmt.Sprint("record ", c.intent.Seq))
		c.asked = nil
		return true
	}},
	{"the gateway was asked for something else", func(w *world, c *call) bool {
		if c.fate == sent {
			return false
		}
		w.expect(c.begin, reconcile.OtherArguments, reconcile.SideOpenClaw, c.asked.ID)
		c.asked.Digest = "sha256:other"
		return true
	}},
}

// The same of calls that are OpenClaw's own.
var ownLies = []struct {
	name string
	tell func(w *world, c *call)
}{
	{"it was not copied", func(w *world, c *call) {
		w.expect(c.begin, reconcile.Unrecorded, reconcile.SideOpenClaw, c.asked.ID)
		c.copied = nil
	}},
	{"it was removed", func(w *world, c *call) {
		w.expect(c.begin, reconcile.NotFound, reconcile.SideOpenClaw, c.asked.ID)
		c.asked = nil
	}},
	{"another tool is there now", func(w *world, c *call) {
		w.expect(c.begin, reconcile.OtherTool, reconcile.SideOpenClaw, c.asked.ID)
		c.asked.Tool = "read"
	}},
	{"other arguments are there now", func(w *world, c *call) {
		w.expect(c.begin, reconcile.OtherArguments, reconcile.SideOpenClaw, c.asked.ID)
		c.asked.Digest = "sha256:other"
	}},
}

func reconciler(since, until time.Time) *reconcile.Reconciler {
	return &reconcile.Reconciler{
		Since: since, Until: until, AsOf: start.Add(1000 * time.Hour), Tolerance: tolerance, Settle: settle,
		Users: map[string]string{"inbox": "ann"}, Servers: []string{"composio"}, Agents: []string{"inbox"},
	}
}

func run(t testing.TB, w *world, r *reconcile.Reconciler) *reconcile.Report {
	t.Helper()
	rep, err := r.Run(t.Context(), w.sources(r.Range()))
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func keys(findings []reconcile.Finding) []string {
	var all []string
	for _, f := range findings {
		all = append(all, fmt.Sprint(f.Side, " ", f.Kind, " ", what(f)))
	}
	slices.Sort(all)
	return all
}

func (w *world) keys(since, until time.Time) []string {
	var all []string
	for _, f := range w.want {
		if !f.at.Before(since) && f.at.Before(until) {
			all = append(all, fmt.Sprint(f.Side, " ", f.Kind, " ", f.what))
		}
	}
	slices.Sort(all)
	return all
}

// Of a true history nothing is found, wherever the window is. What was changed
// is found, all of it and nothing else, in the window that it happened in.
func TestExactlyWhatWasChanged(t *testing.T) {
	runs := 300
	if s := os.Getenv("HARDSHELL_RECONCILE_RUNS"); s != "" {
		runs, _ = strconv.Atoi(s)
	}
	told := make(map[string]int)
	for seed := range runs {
		rng := rand.New(rand.NewPCG(uint64(seed), 5))
		length := time.Duration(1+rng.IntN(300)) * time.Minute
		w := newWorld(rng, 1+rng.IntN(120), length)
		since := start.Add(time.Duration(rng.Int64N(int64(length)))).Add(-time.Minute)
		until := since.Add(time.Second + time.Duration(rng.Int64N(int64(length))))
		rep := run(t, w, reconciler(since, until))
		if !rep.Clean() || len(rep.Findings) > 0 {
			t.Fatalf("seed %d: a true history: %v, open %v, gaps %v", seed, rep.Findings, rep.Open, rep.Gaps)
		}
		for _, c := range slices.Clone(w.calls) {
			if rng.IntN(8) != 0 {
				continue
			}
			if lie := lies[rng.IntN(len(lies))]; lie.tell(w, c) {
				told[lie.name]++
			}
		}
		for _, c := range w.own {
			if rng.IntN(8) == 0 {
				lie := ownLies[rng.IntN(len(ownLies))]
				lie.tell(w, c)
				told[lie.name]++
			}
		}
		rep = run(t, w, reconciler(since, until))
		want := w.keys(since, until)
		if len(rep.Gaps) > 0 {
			continue // nothing is left on one side; see TestNothingThere
		}
		if got := keys(rep.Findings); !slices.Equal(got, want) {
			t.Fatalf("seed %d: window %v to %v:\nfound %s\nwant  %s", seed, since, until, strings.Join(got, "\n      "), strings.Join(want, "\n      "))
		}
		if rep.Undecided != 0 {
			t.Fatalf("seed %d: open: %v", seed, rep.Open)
		}

		// In pieces.
		var pieces []string
		for from := since; from.Before(until); {
			to := from.Add(time.Duration(1 + rng.Int64N(int64(length))))
			if to.After(until) {
				to = until
			}
			r := run(t, w, reconciler(from, to))
			if len(r.Gaps) > 0 {
				pieces = nil
				break
			}
			pieces = append(pieces, keys(r.Findings)...)
			from = to
		}
		if slices.Sort(pieces); pieces != nil && !slices.Equal(pieces, want) {
			t.Fatalf("seed %d: in pieces:\nfound %s\nwant  %s", seed, strings.Join(pieces, "\n      "), strings.Join(want, "\n      "))
		}
	}
	for _, lie := range lies {
		if told[lie.name] == 0 {
			t.Errorf("never told: %s", lie.name)
		}
	}
}

// What cannot be told yet is open, and no finding: as long as a side may be
// about to show it.
func TestTooRecent(t *testing.T) {
	w := newWorld(rand.New(rand.NewPCG(1, 1)), 1, time.Minute)
	w.calls = w.calls[:0]
	now := start.Add(time.Hour)
	begin := trail.Event{Kind: trail.KindToolCall, ID: "a", Tool: "T", Decision: trail.DecisionAllow, Outcome: trail.OutcomeBegin}
	for _, c := range []struct {
		name    string
		age     time.Duration
		open    bool
		records []trail.Outcome
		row     bool
	}{
		{"a row, just now", time.Second, true, nil, true},
		{"a row, before it had settled", settle - time.Second, true, nil, true},
		{"a row, after it had settled", settle + time.Second, false, nil, true},
		{"a record, just now", time.Second, true, []trail.Outcome{trail.OutcomeBegin, trail.OutcomeOK}, false},
		{"a record, after it had settled", settle + time.Second, false, []trail.Outcome{trail.OutcomeBegin, trail.OutcomeOK}, false},
		{"a call under way", time.Second, true, []trail.Outcome{trail.OutcomeBegin}, false},
		{"a call that never ended", settle + time.Second, false, []trail.Outcome{trail.OutcomeBegin}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var records []trail.Record
			for i, o := range c.records {
				e := begin
				if e.Time, e.Outcome = now.Add(-c.age), o; o == trail.OutcomeOK {
					e.LogID = "log_1"
				}
				records = append(records, trail.Record{Seq: int64(i), Event: e})
			}
			// A row that belongs to nothing here: Composio is not empty.
			rows := []reconcile.Execution{{ID: "log_0", Time: start.Add(-time.Second)}}
			if c.row {
				rows = append(rows, reconcile.Execution{ID: "log_1", Time: now.Add(-c.age), Tool: "T"})
			}
			r := reconciler(start, now.Add(time.Hour))
			r.AsOf = now
			rep, err := r.Run(t.Context(), reconcile.Sources{Records: each(records), Executions: each(rows)})
			if err != nil || !rep.Complete {
				t.Fatal(rep, err)
			}
			if c.open != (rep.Undecided == 1) || c.open == (len(rep.Findings) == 1) {
				t.Errorf("findings %v, open %v", rep.Findings, rep.Open)
			}
			if c.open && rep.Open[0].Open == "" {
				t.Error("it is not said why it is open")
			}
			if rep.Clean() {
				t.Error("clean")
			}
		})
	}
}

// What happens at Since is in the window, and what happens at Until is in the
// next one.
func TestEdges(t *testing.T) {
	for _, c := range []struct {
		name string
		at   time.Duration
		want int
	}{
		{"before", -1, 0}, {"at the beginning", 0, 1}, {"before the end", time.Hour - 1, 1}, {"at the end", time.Hour, 0}, {"after it", time.Hour + 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := reconciler(start, start.Add(time.Hour))
			call := trail.Event{Kind: trail.KindToolCall, ID: "a", Time: start.Add(c.at), Tool: "T", Decision: trail.DecisionAllow, Outcome: trail.OutcomeBegin}
			rep, err := r.Run(t.Context(), reconcile.Sources{
				Records:    each([]trail.Record{{Event: call}}),
				Executions: each([]reconcile.Execution{{ID: "log_1", Time: start.Add(c.at), Tool: "S"}}),
				ToolCalls:  each([]reconcile.ToolCall{{ID: "oc_1", Time: start.Add(c.at), Tool: "exec"}}),
			})
			if err != nil || rep.Counts[reconcile.Unfinished] != c.want || rep.Counts[reconcile.Unrecorded] != 2*c.want {
				t.Errorf("%+v, %v", rep, err)
			}
		})
	}
}

// A side that could not be read in full shows nothing to be missing. What it
// has shown is still true.
func TestBrokenSources(t *testing.T) {
	oops := errors.New("the disk is gone")
	for seed := range 100 {
		rng := rand.New(rand.NewPCG(uint64(seed), 6))
		w := newWorld(rng, 40, time.Hour)
		r := reconciler(start.Add(-time.Hour), start.Add(3*time.Hour))
		for i, c := range slices.Clone(w.calls) {
			if i%4 == 0 {
				lies[rng.IntN(len(lies))].tell(w, c)
			}
		}
		whole := keys(run(t, w, r).Findings)
		s := w.sources(r.Range())
		n := rng.IntN(30)
		var side reconcile.Side
		switch rng.IntN(3) {
		case 0:
			s.Records, side = broken(s.Records, n, oops), reconcile.SideTrail
		case 1:
			s.Executions, side = broken(s.Executions, n, oops), reconcile.SideComposio
		case 2:
			s.ToolCalls, side = broken(s.ToolCalls, n, oops), reconcile.SideOpenClaw
		}
		rep, err := r.Run(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		if rep.Complete || rep.Clean() || !errors.Is(errors.Join(rep.Gaps...), oops) || !strings.Contains(rep.Gaps[0].Error(), string(side)) {
			t.Fatalf("seed %d: complete %v, gaps %v", seed, rep.Complete, rep.Gaps)
		}
		for _, f := range rep.Findings {
			lacks := f.Kind == reconcile.NotFound && f.Side == side || side == reconcile.SideTrail && (f.Kind == reconcile.Unrecorded || f.Kind == reconcile.Unfinished || f.Kind == reconcile.NoIntent) ||
				f.Kind == reconcile.OtherArguments && strings.HasPrefix(f.ToolCallID, "oc_") && side != reconcile.SideComposio
			if lacks {
				t.Errorf("seed %d: %s is broken off: %v", seed, side, f)
			}
		}
		if side != reconcile.SideTrail {
			for _, k := range keys(rep.Findings) {
				if !slices.Contains(whole, k) {
					t.Errorf("seed %d: %s is broken off: %q is not found in all", seed, side, k)
				}
			}
		}
	}
}

// A side that has nothing at all of what is recorded keeps no log, or is
// another project's: that is not the same as a side from which all was removed,
// and cannot be told from it.
func TestNothingThere(t *testing.T) {
	w := newWorld(rand.New(rand.NewPCG(7, 7)), 60, time.Hour)
	r := reconciler(start.Add(-time.Hour), start.Add(3*time.Hour))
	for _, side := range []reconcile.Side{reconcile.SideComposio, reconcile.SideOpenClaw} {
		s := w.sources(r.Range())
		if side == reconcile.SideComposio {
			s.Executions = each[reconcile.Execution](nil)
		} else {
			s.ToolCalls = each[reconcile.ToolCall](nil)
		}
		rep, err := r.Run(t.Context(), s)
		if err != nil || rep.Complete || len(rep.Findings) > 0 || rep.Undecided == 0 {
			t.Errorf("%s: %+v, %v", side, rep, err)
		}
	}
	// Nothing recorded and nothing there is fine.
	rep, err := r.Run(t.Context(), reconcile.Sources{Records: each[trail.Record](nil), Executions: each[reconcile.Execution](nil), ToolCalls: each[reconcile.ToolCall](nil)})
	if err != nil || !rep.Clean() {
		t.Errorf("nothing at all: %+v, %v", rep, err)
	}
}

// What Composio does not state is not compared, and counted.
func TestZeroRetention(t *testing.T) {
	w := newWorld(rand.New(rand.NewPCG(8, 8)), 80, time.Hour)
	for _, c := range w.calls {
		if c.row != nil && c.fate != lost {
			*c.row = reconcile.Execution{ID: c.row.ID, Time: c.row.Time, Status: c.row.Status}
		}
	}
	rep := run(t, w, reconciler(start.Add(-time.Hour), start.Add(3*time.Hour)))
	if !rep.Clean() || rep.Unstated == 0 || rep.Unstated > rep.Joined {
		t.Errorf("%+v", rep)
	}
}

// Records that had to be written twice, because it was not known whether the
// first write was kept, are one call.
func TestRecordedTwice(t *testing.T) {
	begin := trail.Event{Kind: trail.KindToolCall, ID: "a", Time: start, Tool: "T", Decision: trail.DecisionAllow, Outcome: trail.OutcomeBegin}
	end := begin
	end.Outcome, end.LogID = trail.OutcomeOK, "log_1"
	records := []trail.Record{{Seq: 0, Event: begin}, {Seq: 1, Event: begin}, {Seq: 2, Event: end}, {Seq: 3, Event: end}}
	rows := []reconcile.Execution{{ID: "log_1", Time: start, Tool: "T"}}
	rep, err := reconciler(start, start.Add(time.Hour)).Run(t.Context(), reconcile.Sources{Records: each(records), Executions: each(rows)})
	if err != nil || !rep.Clean() || rep.Calls != 1 || rep.Joined != 1 {
		t.Errorf("%+v, %v", rep, err)
	}
	// With another id at Composio they are two executions.
	records[3].Event.LogID = "log_2"
	rep, err = reconciler(start, start.Add(time.Hour)).Run(t.Context(), reconcile.Sources{Records: each(records), Executions: each(rows)})
	if err != nil || rep.Counts[reconcile.Duplicate] != 1 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// A call of several tools in one is as many records.
func TestNested(t *testing.T) {
	var records []trail.Record
	for i, tool := range []string{"A", "B"} {
		e := trail.Event{Kind: trail.KindToolCall, ID: fmt.Sprint("gw.", i), Time: start, Agent: "inbox", Tool: tool, Decision: trail.DecisionAllow, Outcome: trail.OutcomeBegin, Arguments: trail.Arguments{Digest: "sha256:" + tool}}
		after := e
		after.Outcome, after.LogID = trail.OutcomeOK, "log_"+tool
		records = append(records, trail.Record{Seq: int64(2 * i), Event: e}, trail.Record{Seq: int64(2*i + 1), Event: after})
	}
	asked := reconcile.ToolCall{ID: "oc", Time: start, Tool: "composio__COMPOSIO_MULTI_EXECUTE_TOOL", Status: reconcile.StatusOK, Nested: []reconcile.Nested{{Tool: "A", Digest: "sha256:A"}, {Tool: "B", Digest: "sha256:B"}}}
	for n, want := range []int{2, 1, 0} {
		rep, err := reconciler(start, start.Add(time.Hour)).Run(t.Context(), reconcile.Sources{Records: each(records[:4-2*n]), ToolCalls: each([]reconcile.ToolCall{asked})})
		if err != nil || !rep.Complete || rep.Counts[reconcile.Unrecorded] != 2-want || len(rep.Findings) != 2-want {
			t.Errorf("%d of 2 recorded: %+v, %v", want, rep, err)
		}
	}
}

// The limit bounds what is listed and not what is counted.
func TestLimit(t *testing.T) {
	var rows []reconcile.Execution
	for i := range 50 {
		rows = append(rows, reconcile.Execution{ID: fmt.Sprint("log_", 50-i), Time: start.Add(time.Duration(50-i) * time.Second)})
	}
	r := reconciler(start, start.Add(time.Hour))
	r.Limit = 3
	rep, err := r.Run(t.Context(), reconcile.Sources{Records: each[trail.Record](nil), Executions: each(rows)})
	if err != nil || len(rep.Findings) != 3 || rep.Counts[reconcile.Unrecorded] != 50 || rep.Findings[0].LogID != "log_1" {
		t.Errorf("%+v, %v", rep, err)
	}
}

func TestMisconfigured(t *testing.T) {
	records := each[trail.Record](nil)
	for name, r := range map[string]reconcile.Reconciler{
		"no window":       {},
		"no end":          {Since: start},
		"an empty window": {Since: start, Until: start},
		"backwards":       {Since: start.Add(time.Hour), Until: start},
	} {
		if _, err := r.Run(t.Context(), reconcile.Sources{Records: records}); !errors.Is(err, reconcile.ErrWindow) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := reconciler(start, start.Add(time.Hour))
	if _, err := r.Run(t.Context(), reconcile.Sources{}); err == nil {
		t.Error("no records")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Run(ctx, reconcile.Sources{Records: records}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	r.Tolerance = -1
	if _, err := r.Run(t.Context(), reconcile.Sources{Records: records}); err == nil {
		t.Error("a negative tolerance")
	}
}
