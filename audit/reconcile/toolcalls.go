package reconcile

import (
	"cmp"
	"iter"
	"math"
	"slices"
	"strings"
)

// An asked is a call that OpenClaw says it has made through the gateway.
type asked struct {
	id           string
	time         int64
	tool         string // Composio's slug
	digest       uint64
	must         bool // that the gateway has it
	found        bool
	agent, whole string // as OpenClaw has them
}

// openclaw compares what the trail has with OpenClaw's own records.
func (x *run) openclaw(seq iter.Seq2[ToolCall, error]) {
	var through []asked
	rows := 0
	read(x, SideOpenClaw, seq, func(tc *ToolCall) {
		t := nanos(tc.Time)
		if t < x.from || t > x.to {
			return
		}
		rows++
		here := x.inWindow(t)
		if here {
			x.rep.ToolCalls++
		}
		c, copied := x.copies[tc.ID]
		if copied && !c.found {
			c.found = true
			x.copies[tc.ID] = c
			if x.inWindow(c.time) {
				x.compareCopy(&c, tc, t)
			}
		} else if copied && here {
			x.found(observed(Duplicate, tc))
		}
		slug, ok := x.throughGateway(tc.Tool)
		switch {
		case ok:
			q := asked{id: tc.ID, time: t, tool: slug, digest: x.digest(tc.Digest), must: tc.Status == StatusOK && len(tc.Nested) == 0, agent: tc.Agent, whole: tc.Tool}
			through = append(through, q)
			for _, n := range tc.Nested {
				q.tool, q.digest, q.must = strings.ToUpper(n.Tool), x.digest(n.Digest), tc.Status == StatusOK
				through = append(through, q)
			}
		case !copied && here:
			x.lacks(observed(Unrecorded, tc), SideTrail, t)
		}
	})
	if n := x.expected(); rows == 0 && n > 0 && x.whole[SideOpenClaw] {
		x.missing(SideOpenClaw, "calls that are recorded", n)
	}
	for id, c := range x.copies {
		if !x.inWindow(c.time) {
			continue
		}
		x.rep.Copies++
		if !c.found {
			x.lacks(Finding{
				Kind: NotFound, Side: SideOpenClaw, Time: at(c.time), Tool: x.text[c.tool], Agent: x.text[c.agent], Records: []int64{c.seq}, ToolCallID: id,
			}, SideOpenClaw, c.time)
		}
	}
	x.gateway(through)
}

// expected returns how many calls the trail has that OpenClaw must have.
func (x *run) expected() int {
	n := 0
	for _, c := range x.copies {
		if x.inWindow(c.time) {
			n++
		}
	}
	for i := range x.calls {
		if c := &x.calls[i]; x.ofOpenClaw(c) && x.inWindow(c.begin) && c.begin <= x.settled {
			n++
		}
	}
	return n
}

// ofOpenClaw reports whether a call must have been made by OpenClaw.
func (x *run) ofOpenClaw(c *call) bool {
	return len(x.Servers) > 0 && c.tool != 0 && (len(x.Agents) == 0 || slices.Contains(x.Agents, x.text[c.agent]))
}

// throughGateway returns Composio's name of a tool that OpenClaw calls through
// the gateway.
func (x *run) throughGateway(tool string) (slug string, ok bool) {
	for _, server := range x.Servers {
		if slug, ok := strings.CutPrefix(tool, server+"__"); ok {
			return strings.ToUpper(slug), true
		}
	}
	return "", false
}

func observed(k Kind, tc *ToolCall) Finding {
	return Finding{Kind: k, Side: SideOpenClaw, Time: tc.Time, Tool: tc.Tool, Agent: tc.Agent, ToolCallID: tc.ID}
}

// compareCopy compares a copy with what it was copied from.
func (x *run) compareCopy(c *copied, tc *ToolCall, t int64) {
	differ := func(k Kind, recorded, now string) {
		f := observed(k, tc)
		f.Time, f.Records, f.Recorded, f.Observed = at(c.time), []int64{c.seq}, recorded, now
		x.found(f)
	}
	if tool := x.text[c.tool]; tool != tc.Tool {
		differ(OtherTool, tool, tc.Tool)
	}
	if c.digest != 0 && tc.Digest != "" && c.digest != x.digest(tc.Digest) {
		differ(OtherArguments, "", tc.Digest)
	}
	if t < c.time-x.slack || t > c.time+x.slack {
		differ(OtherTime, at(c.time).String(), at(t).String())
	}
}

// gateway compares what OpenClaw says it has called through the gateway with
// what the gateway has recorded. They share no id: they are joined by tool and
// arguments, and what is left by tool alone, each in the order of time.
func (x *run) gateway(through []asked) {
	slices.SortStableFunc(through, func(a, b asked) int { return cmp.Compare(a.time, b.time) })
	byTool := make(map[string][]*call)
	for i := range x.calls {
		if c := &x.calls[i]; x.ofOpenClaw(c) {
			byTool[x.text[c.tool]] = append(byTool[x.text[c.tool]], c)
		}
	}
	for _, calls := range byTool {
		slices.SortStableFunc(calls, func(a, b *call) int { return cmp.Compare(a.begin, b.begin) })
	}
	x.claim(through, byTool, func(q *asked, c *call) bool { return q.digest != 0 && q.digest == c.digest })
	x.claim(through, byTool, func(*asked, *call) bool { return true })
	for i := range through {
		q := &through[i]
		if !q.found && q.must && x.inWindow(q.time) {
			x.lacks(Finding{Kind: Unrecorded, Side: SideOpenClaw, Time: at(q.time), Tool: q.whole, Agent: q.agent, ToolCallID: q.id}, SideTrail, q.time)
		}
	}
	for i := range x.calls {
		if c := &x.calls[i]; x.ofOpenClaw(c) && !c.claimed && x.inWindow(c.begin) {
			x.lacks(x.about(NotFound, SideOpenClaw, c), SideOpenClaw, c.begin)
		}
	}
}

// claim joins each call that is not yet with the first that fits.
func (x *run) claim(through []asked, byTool map[string][]*call, fits func(*asked, *call) bool) {
	first := make(map[string]int)
	for i := range through {
		q := &through[i]
		if q.found {
			continue
		}
		calls := byTool[q.tool]
		n := first[q.tool]
		for n < len(calls) && calls[n].begin < q.time-x.slack {
			n++
		}
		first[q.tool] = n
		for _, c := range calls[n:] {
			if c.begin > q.time+x.wait+x.slack {
				break
			}
			if c.claimed || !fits(q, c) {
				continue
			}
			c.claimed, q.found = true, true
			if q.digest != 0 && c.digest != 0 && q.digest != c.digest && x.inWindow(c.begin) {
				f := x.about(OtherArguments, SideOpenClaw, c)
				f.ToolCallID = q.id
				lacking := SideOpenClaw // of the call that fits better, perhaps
				if !x.whole[SideTrail] {
					lacking = SideTrail
				}
				x.lacks(f, lacking, math.MinInt64)
			}
			break
		}
	}
}
