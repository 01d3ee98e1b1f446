package reconcile

import (
	"cmp"
	"iter"
	"slices"
	"strings"
)

// composio compares what the trail has of executions with what Composio has.
func (x *run) composio(seq iter.Seq2[Execution, error]) {
	rows := 0
	read(x, SideComposio, seq, func(e *Execution) {
		t := nanos(e.Time)
		if !e.Time.IsZero() && (t < x.from || t > x.to) {
			return
		}
		rows++
		if e.Time.IsZero() || x.inWindow(t) {
			x.rep.Executions++
		}
		i, ok := x.byLog[x.hash(e.ID)]
		if e.ID == "" || !ok || x.calls[i].logID != e.ID {
			x.strays = append(x.strays, *e)
			return
		}
		c := &x.calls[i]
		if c.joined {
			x.duplicate(SideComposio, c, e.ID, -1)
			return
		}
		c.joined = true
		if x.inWindow(c.begin) {
			x.compare(c, e)
		}
	})
	recorded := 0
	for i := range x.calls {
		if c := &x.calls[i]; c.logID != "" && x.inWindow(c.begin) && c.end <= x.settled {
			recorded++
		}
	}
	if rows == 0 && recorded > 0 && x.whole[SideComposio] {
		x.missing(SideComposio, "executions that are recorded", recorded)
	}
	x.explain()
	for i := range x.calls {
		c := &x.calls[i]
		if !x.inWindow(c.begin) || c.denied || c.outcome < 0 {
			continue
		}
		if !c.joined && (c.logID != "" || c.result == done) {
			x.lacks(x.about(NotFound, SideComposio, c), SideComposio, c.end)
		}
	}
}

// compare compares a call in the window with its row.
func (x *run) compare(c *call, e *Execution) {
	x.rep.Joined++
	if e.Tool == "" || e.AccountID == "" {
		x.rep.Unstated++
	}
	differ := func(k Kind, recorded, observed string) {
		f := x.about(k, SideComposio, c)
		f.LogID, f.ParentID, f.Recorded, f.Observed = e.ID, e.ParentID, recorded, observed
		x.found(f)
	}
	other := func(k Kind, recorded, observed string) {
		if recorded != "" && observed != "" && recorded != observed {
			differ(k, recorded, observed)
		}
	}
	if tool := x.text[c.tool]; !strings.EqualFold(tool, e.Tool) {
		other(OtherTool, tool, e.Tool)
	}
	other(OtherAccount, x.text[c.account], e.AccountID)
	other(OtherUser, x.Users[x.text[c.agent]], e.UserID)
	begin, end := x.span(c)
	if t := nanos(e.Time); !e.Time.IsZero() && (t < begin-x.slack || t > end+x.slack) {
		differ(OtherTime, at(c.begin).String(), at(t).String())
	}
	switch {
	case c.result == done && e.Status == StatusFailed:
		differ(OtherOutcome, "ok", "failed")
	case c.result == failed && e.Status == StatusOK:
		differ(OtherOutcome, "error", "ok")
	}
}

// explain finds the rows that no record has the id of. Where the answer of a
// call was lost, so was its id: such a call explains one row, of its tool and
// account and within its time. What is left has no record.
func (x *run) explain() {
	byTool := make(map[int32]*lost)
	for i := range x.calls {
		if c := &x.calls[i]; c.logID == "" && !c.denied && c.tool != 0 {
			if byTool[c.tool] == nil {
				byTool[c.tool] = &lost{run: x}
			}
			byTool[c.tool].calls = append(byTool[c.tool].calls, c)
		}
	}
	for _, l := range byTool {
		slices.SortStableFunc(l.calls, func(a, b *call) int { return cmp.Compare(a.begin, b.begin) })
	}
	slices.SortStableFunc(x.strays, func(a, b Execution) int { return a.Time.Compare(b.Time) })
	seen := make(map[string]bool, len(x.strays))
	for i := range x.strays {
		e := &x.strays[i]
		t := nanos(e.Time)
		here := e.Time.IsZero() || x.inWindow(t)
		if e.ID != "" && seen[e.ID] {
			if here {
				x.found(stray(Duplicate, e))
			}
			continue
		}
		seen[e.ID] = true
		if c := byTool[x.names[strings.ToUpper(e.Tool)]].explaining(e, t); c != nil {
			c.joined = true
			if x.inWindow(c.begin) {
				x.compare(c, e)
			}
			c.logID = e.ID // to look it up
			continue
		}
		if here {
			if e.Time.IsZero() {
				t = x.since
			}
			x.lacks(stray(Unrecorded, e), SideTrail, t)
		}
	}
}

func stray(k Kind, e *Execution) Finding {
	return Finding{Kind: k, Side: SideComposio, Time: e.Time, Tool: e.Tool, LogID: e.ID, ParentID: e.ParentID}
}

// Lost are the calls of a tool whose log id is not known, by when they began.
type lost struct {
	*run
	calls  []*call
	begun  int     // so many may have begun by the time that is looked at
	active []*call // of these, those that may explain something still
}

// explaining returns the call that explains e, of time t, nil if there is none:
// of those that may, the one that ends first. Those that are recorded as not
// done come last, and not at all unless Composio says how the execution ended.
// The times that it is asked for only grow.
func (l *lost) explaining(e *Execution, t int64) *call {
	if l == nil || e.Time.IsZero() {
		return nil
	}
	for ; l.begun < len(l.calls); l.begun++ {
		if begin, _ := l.span(l.calls[l.begun]); begin-l.slack > t {
			break
		}
		l.active = append(l.active, l.calls[l.begun])
	}
	var best *call
	keep := l.active[:0]
	for _, c := range l.active {
		_, end := l.span(c)
		if c.joined || end+l.slack < t {
			continue
		}
		keep = append(keep, c)
		if c.account != 0 && e.AccountID != "" && l.text[c.account] != e.AccountID || c.result == failed && e.Status == "" {
			continue
		}
		if best == nil || l.sooner(c, best) {
			best = c
		}
	}
	l.active = keep
	return best
}

func (l *lost) sooner(c, than *call) bool {
	if (c.result == failed) != (than.result == failed) {
		return than.result == failed
	}
	_, end := l.span(c)
	_, other := l.span(than)
	return end < other
}

// span returns when a call was carried out, as far as the trail tells.
func (x *run) span(c *call) (begin, end int64) {
	begin, end = c.begin, c.end
	if c.intent < 0 {
		begin -= x.wait
	}
	if c.outcome < 0 {
		end += x.wait
	}
	return begin, end
}
