package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// A run is one comparison. Times are nanoseconds, names are numbers.
type run struct {
	*Reconciler
	ctx context.Context

	since, until, from, to int64 // the window, and what is read
	settled                int64 // what happened before has settled
	slack, wait            int64 // Tolerance and Settle
	whole                  map[Side]bool

	seed  maphash.Seed
	names map[string]int32
	text  []string

	calls  []call
	byID   map[uint64]int32 // of the event
	byLog  map[uint64]int32
	copies map[string]copied
	strays []Execution // that no call has the id of

	rep *Report
}

// A call is what the trail has of one call through the gateway.
type call struct {
	intent, outcome      int64 // the records; -1 if there is none
	begin, end           int64 // when
	logID                string
	digest               uint64
	tool, account, agent int32
	result               result
	denied               bool
	joined               bool // Composio has it
	claimed              bool // OpenClaw has it
}

type result uint8

const (
	none    result = iota // not known yet
	done                  // carried out
	failed                // not carried out
	unknown               // either
)

// A copied is what the trail has of a call that was copied from OpenClaw.
type copied struct {
	seq, time   int64
	digest      uint64
	tool, agent int32
	found       bool
}

// Run compares. The error says that it could not be begun, or that ctx is done:
// what a source runs into is in the report.
func (r *Reconciler) Run(ctx context.Context, s Sources) (*Report, error) {
	switch {
	case r.Since.IsZero() || !r.Since.Before(r.Until):
		return nil, fmt.Errorf("%w: %v, %v", ErrWindow, r.Since, r.Until)
	case r.Tolerance < 0 || r.Settle < 0 || r.Limit < 0:
		return nil, errors.New("reconcile: Tolerance, Settle and Limit must not be negative")
	case s.Records == nil:
		return nil, errors.New("reconcile: Sources.Records is required: open the trail with trail.OpenReader")
	}
	asOf := r.AsOf
	if asOf.IsZero() {
		asOf = time.Now()
	}
	from, to := r.Range()
	x := &run{
		Reconciler: r, ctx: ctx,
		since: nanos(r.Since), until: nanos(r.Until), from: nanos(from), to: nanos(to),
		settled: nanos(asOf.Add(-r.settle())), slack: int64(r.tolerance()), wait: int64(r.settle()),
		whole: make(map[Side]bool), seed: maphash.MakeSeed(), names: map[string]int32{"": 0}, text: []string{""},
		byID: make(map[uint64]int32), byLog: make(map[uint64]int32), copies: make(map[string]copied),
		rep: &Report{Complete: true, Counts: make(map[Kind]int)},
	}
	read(x, SideTrail, s.Records, x.record)
	if s.Executions != nil {
		x.composio(s.Executions)
	}
	x.trail()
	if s.ToolCalls != nil {
		x.openclaw(s.ToolCalls)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("reconcile: %w", context.Cause(ctx))
	}
	return x.report(), nil
}

// nanos returns t in nanoseconds, the nearest that there is of a time that has
// none.
func nanos(t time.Time) int64 {
	switch s := t.Unix(); {
	case s >= math.MaxInt64/int64(time.Second):
		return math.MaxInt64
	case s <= math.MinInt64/int64(time.Second):
		return math.MinInt64
	}
	return t.UnixNano()
}

func at(nanos int64) time.Time { return time.Unix(0, nanos).UTC() }

// read gives each item of a source to take, and notes whether that was all.
func read[T any](x *run, side Side, seq iter.Seq2[T, error], take func(*T)) {
	x.whole[side] = true
	gap := func(err error) {
		x.whole[side], x.rep.Complete = false, false
		x.rep.Gaps = append(x.rep.Gaps, fmt.Errorf("reconcile: %s: not all could be read: %w", side, err))
	}
	n := 0
	for v, err := range seq {
		if err == nil && n&1023 == 0 {
			err = context.Cause(x.ctx)
		}
		if err != nil {
			gap(err)
			return
		}
		take(&v)
		n++
	}
}

// missing notes that a source has nothing at all of n things that it must
// have.
func (x *run) missing(side Side, what string, n int) {
	x.whole[side], x.rep.Complete = false, false
	x.rep.Gaps = append(x.rep.Gaps, fmt.Errorf("reconcile: %s: it has none of %d %s: it keeps no log, or it is not the one that they are of", side, n, what))
}

func (x *run) hash(s string) uint64 { return maphash.String(x.seed, s) }

func (x *run) name(s string) int32 {
	if n, ok := x.names[s]; ok {
		return n
	}
	n := int32(len(x.text))
	s = strings.Clone(s)
	x.names[s], x.text = n, append(x.text, s)
	return n
}

func (x *run) digest(s string) uint64 {
	if s == "" {
		return 0
	}
	return x.hash(s) | 1
}

func (x *run) inWindow(t int64) bool { return t >= x.since && t < x.until }

// record takes a record of the trail.
func (x *run) record(rec *trail.Record) {
	e := &rec.Event
	t := nanos(e.Time)
	if t < x.from || t > x.to {
		return
	}
	switch e.Kind {
	case KindOpenClaw:
		if _, ok := x.copies[e.ID]; !ok && e.ID != "" {
			x.copies[e.ID] = copied{rec.Seq, t, x.digest(e.Arguments.Digest), x.name(e.Tool), x.name(e.Agent), false}
		}
	case trail.KindToolCall:
		x.call(rec, t)
	}
}

// call takes the intent or the outcome of a call.
func (x *run) call(rec *trail.Record, t int64) {
	e := &rec.Event
	i, known := int32(0), false
	if e.ID != "" {
		i, known = x.byID[x.hash(e.ID)]
	}
	if !known {
		i = int32(len(x.calls))
		x.calls = append(x.calls, call{
			intent: -1, outcome: -1, begin: t, end: t, tool: x.name(e.Tool), account: x.name(e.AccountID), agent: x.name(e.Agent),
			digest: x.digest(e.Arguments.Digest), denied: e.Decision == trail.DecisionDeny,
		})
		if e.ID != "" {
			x.byID[x.hash(e.ID)] = i
		}
	}
	c := &x.calls[i]
	c.begin, c.end = min(c.begin, t), max(c.end, t)
	if e.Outcome == trail.OutcomeBegin {
		if c.intent < 0 {
			c.intent = rec.Seq
		}
		return
	}
	// What could not be recorded in time may be recorded twice.
	if c.outcome < 0 || c.logID == "" && e.LogID != "" {
		c.outcome = rec.Seq
	}
	if e.ID == "" {
		c.intent = rec.Seq // it has no other
	}
	switch e.Outcome {
	case trail.OutcomeOK:
		c.result = done
	case trail.OutcomeError:
		c.result = failed
	case trail.OutcomeUnknown:
		c.result = unknown
	}
	switch {
	case e.LogID == "" || e.LogID == c.logID:
	case c.logID != "":
		x.duplicate(SideTrail, c, e.LogID, rec.Seq)
	default:
		c.logID = e.LogID
		if first, ok := x.byLog[x.hash(e.LogID)]; ok && first != i {
			x.duplicate(SideTrail, c, e.LogID, x.calls[first].outcome)
			c.joined = true // and nothing else of it can be told
		} else {
			x.byLog[x.hash(e.LogID)] = i
		}
	}
}

func (x *run) duplicate(side Side, c *call, logID string, other int64) {
	if !x.inWindow(c.begin) {
		return
	}
	f := x.about(Duplicate, side, c)
	f.LogID = logID
	if other >= 0 && !slices.Contains(f.Records, other) {
		f.Records = append(f.Records, other)
		slices.Sort(f.Records)
	}
	x.found(f)
}

// about returns a finding about a call.
func (x *run) about(k Kind, side Side, c *call) Finding {
	f := Finding{Kind: k, Side: side, Time: at(c.begin), Tool: x.text[c.tool], Agent: x.text[c.agent], LogID: c.logID}
	for _, seq := range []int64{c.intent, c.outcome} {
		if seq >= 0 && !slices.Contains(f.Records, seq) {
			f.Records = append(f.Records, seq)
		}
	}
	return f
}

func (x *run) found(f Finding) {
	x.rep.Counts[f.Kind]++
	x.rep.Findings = append(x.rep.Findings, f)
}

// lacks adds f, which says that a side lacks something that happened at t,
// unless that cannot be told.
func (x *run) lacks(f Finding, lacking Side, t int64) {
	switch {
	case !x.whole[lacking]:
		f.Open = fmt.Sprintf("%s could not be read in full", lacking)
	case t > x.settled:
		f.Open = "it is too recent: look again later"
	default:
		x.found(f)
		return
	}
	x.rep.Undecided++
	x.rep.Open = append(x.rep.Open, f)
}

// trail finds what the trail has by halves.
func (x *run) trail() {
	for i := range x.calls {
		c := &x.calls[i]
		if !x.inWindow(c.begin) {
			continue
		}
		x.rep.Calls++
		switch {
		case c.denied:
		case c.outcome < 0:
			x.lacks(x.about(Unfinished, SideTrail, c), SideTrail, c.begin)
		case c.intent < 0:
			x.lacks(x.about(NoIntent, SideTrail, c), SideTrail, math.MinInt64)
		}
	}
}

func (x *run) report() *Report {
	limit := or(x.Limit, DefaultLimit)
	for _, list := range []*[]Finding{&x.rep.Findings, &x.rep.Open} {
		slices.SortStableFunc(*list, func(a, b Finding) int {
			return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.LogID, b.LogID), cmp.Compare(a.ToolCallID, b.ToolCallID))
		})
		*list = slices.Clip((*list)[:min(limit, len(*list))])
	}
	return x.rep
}
