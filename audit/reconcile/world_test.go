package reconcile_test

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/managemyclaw/hardshell/audit/reconcile"
	"github.com/managemyclaw/hardshell/audit/trail"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const (
	tolerance = time.Minute
	settle    = 3 * time.Minute
)

// How a call through the gateway went.
type fate int

const (
	sent    fate = iota // executed, and Composio said so
	failed              // executed, without success
	refused             // by Composio, which has no row of it
	lost                // executed, and the answer was lost
	gone                // not executed, and the answer was lost
	denied              // by the gateway
	fates
)

// A call is one true call, and what everybody has of it.
type call struct {
	n     int
	fate  fate
	begin time.Time
	end   time.Time
	tool  string

	intent, outcome *trail.Record
	row             *reconcile.Execution
	asked           *reconcile.ToolCall
	copied          *trail.Record // of asked
}

func (c *call) executed() bool { return c.fate == sent || c.fate == failed || c.fate == lost }

// A world is a true history, before anybody changed anything. Composio's clock
// is not that of the trail.
type world struct {
	rng   *rand.Rand
	calls []*call
	own   []*call // tools of OpenClaw's own
	extra []reconcile.Execution
	want  []finding
}

// A finding is one that must be found, and when it happened: it is to be found
// in the window of that time.
type finding struct {
	at time.Time
	reconcile.Kind
	reconcile.Side
	what string
}

func newWorld(rng *rand.Rand, n int, length time.Duration) *world {
	w := &world{rng: rng}
	skew := time.Duration(rng.Int64N(int64(2*tolerance-2*time.Second))) - tolerance + time.Second
	seq := int64(0)
	for i := range n {
		c := &call{n: i, fate: fate(rng.IntN(int(fates))), begin: start.Add(time.Duration(rng.Int64N(int64(length)))), tool: fmt.Sprintf("TOOL_%d", i)}
		if c.fate == sent {
			c.tool = fmt.Sprintf("GMAIL_%d", rng.IntN(3))
		}
		c.end = c.begin.Add(time.Duration(rng.Int64N(int64(settle - time.Second))))
		e := trail.Event{
			Kind: trail.KindToolCall, ID: fmt.Sprintf("gw_%d.0", i), Time: c.begin, Agent: "inbox", Tool: c.tool, AccountID: "ca_1",
			Decision: trail.DecisionAllow, Outcome: trail.OutcomeBegin, Arguments: trail.Arguments{Digest: fmt.Sprintf("sha256:%064d", i)},
		}
		after := e
		after.Time = c.end
		switch c.fate {
		case sent:
			after.Outcome = trail.OutcomeOK
		case failed, refused:
			after.Outcome = trail.OutcomeError
		case lost, gone:
			after.Outcome = trail.OutcomeUnknown
		case denied:
			e.Decision, e.Outcome = trail.DecisionDeny, ""
		}
		if c.executed() {
			c.row = &reconcile.Execution{
				ID: fmt.Sprint("log_", i), Time: c.begin.Add(skew).Add(time.Duration(rng.Int64N(int64(c.end.Sub(c.begin) + 1)))),
				Tool: c.tool, AccountID: "ca_1", UserID: "ann", Status: reconcile.StatusOK,
			}
			if c.fate == failed {
				c.row.Status = reconcile.StatusFailed
			}
			if c.fate != lost {
				after.LogID = c.row.ID
			}
		}
		c.intent = &trail.Record{Event: e}
		if c.fate != denied {
			c.outcome = &trail.Record{Event: after}
		}
		c.asked = &reconcile.ToolCall{
			ID: fmt.Sprint("oc_", i), Time: c.begin.Add(-time.Second), Agent: "main", Tool: "composio__" + c.tool,
			Digest: e.Arguments.Digest, Status: reconcile.StatusOK,
		}
		if c.fate != sent {
			c.asked.Status = reconcile.StatusFailed
		}
		w.calls = append(w.calls, c)
	}
	for i := range n / 2 {
		t := start.Add(time.Duration(rng.Int64N(int64(length))))
		c := &call{n: i, begin: t, asked: &reconcile.ToolCall{ID: fmt.Sprint("own_", i), Time: t, Agent: "main", Tool: "exec", Digest: fmt.Sprint("sha256:", i)}}
		c.copied = &trail.Record{Event: trail.Event{Kind: reconcile.KindOpenClaw, ID: c.asked.ID, Time: t, Tool: "exec", Arguments: trail.Arguments{Digest: c.asked.Digest}}}
		w.own = append(w.own, c)
	}
	for _, r := range w.records() {
		r.Seq = seq
		seq++
	}
	return w
}

func (w *world) records() []*trail.Record {
	var all []*trail.Record
	for _, c := range slices.Concat(w.calls, w.own) {
		for _, r := range []*trail.Record{c.intent, c.outcome, c.copied} {
			if r != nil {
				all = append(all, r)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b *trail.Record) int { return a.Event.Time.Compare(b.Event.Time) })
	return all
}

// sources returns what a reader of the time would get, Composio's in an order
// of its own.
func (w *world) sources(since, until time.Time) reconcile.Sources {
	in := func(t time.Time) bool { return !t.Before(since) && t.Before(until) }
	var records []trail.Record
	for _, r := range w.records() {
		if in(r.Event.Time) {
			records = append(records, *r)
		}
	}
	rows := slices.DeleteFunc(slices.Clone(w.extra), func(e reconcile.Execution) bool { return !in(e.Time) })
	var asked []reconcile.ToolCall
	for _, c := range slices.Concat(w.calls, w.own) {
		if c.row != nil && in(c.row.Time) {
			rows = append(rows, *c.row)
		}
		if c.asked != nil && in(c.asked.Time) {
			asked = append(asked, *c.asked)
		}
	}
	w.rng.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	w.rng.Shuffle(len(asked), func(i, j int) { asked[i], asked[j] = asked[j], asked[i] })
	return reconcile.Sources{Records: each(records), Executions: each(rows), ToolCalls: each(asked)}
}

func (w *world) expect(at time.Time, k reconcile.Kind, s reconcile.Side, what string) {
	w.want = append(w.want, finding{at, k, s, what})
}

// what names what a finding is about, as the world does.
func what(f reconcile.Finding) string {
	switch {
	case f.Kind == reconcile.Unfinished || f.Kind == reconcile.NoIntent || f.Side == reconcile.SideOpenClaw && f.ToolCallID == "":
		return fmt.Sprint("record ", f.Records[0])
	case f.Side == reconcile.SideOpenClaw && f.Kind != reconcile.OtherArguments:
		return f.ToolCallID
	case f.Side == reconcile.SideOpenClaw:
		return f.ToolCallID
	}
	return f.LogID
}

func broken[T any](seq iter.Seq2[T, error], after int, err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		n := 0
		for v, e := range seq {
			if n++; n > after {
				yield(v, err)
				return
			}
			if !yield(v, e) {
				return
			}
		}
		var none T
		yield(none, err)
	}
}
