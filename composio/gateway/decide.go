package gateway

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/composio"
)

// A request is one request of an agent at one of the doors.
type request struct {
	id       string
	door     string
	agent    *agent // nil until authenticated
	token    TokenHash
	book     *book // the policy when it came in
	standing *standing
}

const (
	doorREST = "rest"
	doorMCP  = "mcp"
)

func newRequest(door string) *request { return &request{id: "gw_" + rand.Text(), door: door} }

// An ask is a call as the agent wants it. What it leaves out is the policy's to
// fill in, except for the version at the REST door, where leaving it out means
// the latest.
type ask struct {
	slug      string
	version   string
	versioned bool // the door has versions
	userID    string
	accountID string
	arguments map[string]any
}

// A done is what came of a call that was let through.
type done struct {
	slug string
	res  composio.Result
	err  error
}

// perform executes what the agent asks for, which may be several calls in one.
// Denials that it returns are recorded.
func (g *Gateway) perform(ctx context.Context, rq *request, q ask) (done, *denial) {
	asked := []ask{q}
	nested := q.slug == multiExecute && rq.agent.MultiExecute
	if nested {
		var d *denial
		switch {
		case q.versioned && q.version != multiVersion:
			d = deny(ReasonVersion, "the gateway has %s at version %s alone", multiExecute, multiVersion)
		case q.userID != "" && q.userID != rq.agent.UserID, q.accountID != "":
			d = deny(ReasonAccount, "the agent does not choose the user or the account: leave them out")
		default:
			asked, d = unpack(q.arguments)
		}
		if d != nil {
			return done{}, g.refuse(ctx, rq, []ask{q}, nil, d).recorded()
		}
	}
	all, d := g.execute(ctx, rq, asked)
	switch {
	case d != nil:
		return done{}, d.recorded()
	case nested:
		return together(all), nil
	}
	return all[0], nil
}

// judge decides whether the policy of a allows q.
func (a *agent) judge(q ask) (*tool, *denial) {
	t, ok := a.tools[q.slug]
	switch {
	case !ok || !validSlug(q.slug):
		return nil, deny(ReasonTool, "the agent may not use tool %s", quote(q.slug))
	case q.versioned && q.version == "":
		return nil, deny(ReasonVersion, "no version of %s is given, which would mean the latest: give %s", q.slug, t.Grant.Version)
	case q.versioned && q.version != t.Grant.Version:
		return nil, deny(ReasonVersion, "the agent may use %s at version %s alone", q.slug, t.Grant.Version)
	case q.userID != "" && q.userID != a.UserID:
		return nil, deny(ReasonAccount, "the agent does not act for this user: leave user_id out, or give its own")
	case q.accountID != "" && q.accountID != t.account:
		return nil, deny(ReasonAccount, "the agent may not use this account: leave it out")
	}
	if err := matchObject(t.arguments, q.arguments, ""); err != nil {
		return nil, deny(ReasonArguments, "%s: %v", q.slug, err)
	}
	return t, nil
}

// call returns what is sent on for q: nothing in it is the agent's but the
// arguments, which are written anew.
func (a *agent) call(t *tool, q ask) (composio.Call, error) {
	arguments := q.arguments
	if arguments == nil {
		arguments = map[string]any{}
	}
	raw, err := json.Marshal(arguments)
	if err != nil {
		return composio.Call{}, err
	}
	data, err := composio.NewData(json.RawMessage(raw))
	if err != nil {
		return composio.Call{}, err
	}
	return composio.Call{Tool: t.Slug, Version: t.Grant.Version, UserID: a.UserID, AccountID: t.account, Arguments: data}, nil
}

// halted returns why the agent may do nothing at all at the moment, nil if it
// may.
func (g *Gateway) halted(ctx context.Context, agent string, s *standing) *denial {
	g.mu.Lock()
	closing := g.closing
	g.mu.Unlock()
	if closing {
		return deny(ReasonClosed, "the gateway is closing")
	}
	if d := s.halted(); d != nil {
		return d
	}
	if err := g.fenced(ctx, agent); err != nil {
		return deny(ReasonFenced, "the agent has been stopped, or whether it has cannot be told")
	}
	return nil
}

// stillAllowed judges once more, right before a call is sent on, if the policy
// has changed since.
func (g *Gateway) stillAllowed(rq *request, t *tool, q ask) *denial {
	now := g.book.Load()
	if now == rq.book {
		return nil
	}
	a := now.agents[rq.agent.name]
	if a == nil || !slices.Contains(a.Tokens, rq.token) {
		return deny(ReasonUnauthenticated, "the token is no longer valid")
	}
	again, d := a.judge(q)
	if d != nil {
		return d
	}
	if again.Grant.Version != t.Grant.Version || again.account != t.account || again.class != t.class || a.UserID != rq.agent.UserID || a.upstream != rq.agent.upstream {
		return deny(ReasonTool, "the policy has changed in the meantime: ask again")
	}
	return nil
}

// execute is the one way to a tool. It returns either a denial, and then the
// agent gets nothing, or what came of each call.
func (g *Gateway) execute(ctx context.Context, rq *request, asked []ask) ([]done, *denial) {
	if d := g.halted(ctx, rq.agent.name, rq.standing); d != nil {
		return nil, g.refuse(ctx, rq, asked, nil, d)
	}
	tools := make([]*tool, len(asked))
	calls := make([]composio.Call, len(asked))
	denials := make([]*denial, len(asked))
	var first *denial
	for i, q := range asked {
		if tools[i], denials[i] = rq.agent.judge(q); denials[i] == nil {
			var err error
			if calls[i], err = rq.agent.call(tools[i], q); err != nil {
				denials[i] = deny(ReasonArguments, "%s: the arguments cannot be sent on", q.slug)
			}
		}
		if first == nil {
			first = denials[i]
		}
	}
	if first != nil {
		return nil, g.refuse(ctx, rq, asked, denials, first)
	}
	trip, d := rq.standing.reserve(rq.agent, tools, rq.id, time.Now())
	if trip != nil {
		g.tripped(ctx, *trip)
	}
	if d != nil {
		return nil, g.refuse(ctx, rq, asked, nil, d)
	}
	if !g.begin() {
		return nil, g.refuse(ctx, rq, asked, nil, deny(ReasonClosed, "the gateway is closing"))
	}
	events := make([]trail.Event, len(asked))
	for i, q := range asked {
		e := rq.event(g, i, q.slug, q.arguments)
		e.Decision, e.Outcome, e.AccountID = trail.DecisionAllow, trail.OutcomeBegin, tools[i].account
		e.Attrs["class"], e.Attrs["version"] = tools[i].class.String(), tools[i].Grant.Version
		events[i] = e
		if err := g.ledger.record(ctx, e); err != nil {
			// It may have been kept all the same.
			for _, e := range events[:i+1] {
				_ = g.ledger.note(ctx, notExecuted(e, "it could not be recorded"))
			}
			g.work.Done()
			return nil, deny(ReasonUnrecorded, "the call cannot be recorded, so it is not carried out")
		}
	}
	return g.carryOut(ctx, rq, asked, tools, calls, events)
}

// carryOut executes calls whose intent is recorded. It returns as soon as the
// agent is halted; the executions go on until they are recorded.
func (g *Gateway) carryOut(ctx context.Context, rq *request, asked []ask, tools []*tool, calls []composio.Call, events []trail.Event) ([]done, *denial) {
	type outcomes struct {
		done []done
		halt *denial
	}
	finished := make(chan outcomes, 1)
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer g.work.Done()
		var all outcomes
		for i := range calls {
			if all.halt == nil {
				all.halt = g.mayStill(ctx, rq, tools[i], asked[i])
			}
			if all.halt != nil {
				_ = g.ledger.note(ctx, notExecuted(events[i], all.halt.message))
				continue
			}
			var d done
			if d, all.halt = g.send(ctx, rq, calls[i]); all.halt != nil {
				_ = g.ledger.note(ctx, notExecuted(events[i], all.halt.message))
				continue
			}
			_ = g.ledger.note(ctx, outcome(events[i], d.res, d.err))
			all.done = append(all.done, d)
		}
		finished <- all
	}()
	defer cancel()
	poll := time.NewTicker(fencePoll)
	defer poll.Stop()
	for {
		select {
		case all := <-finished:
			// What came in after the fence is not handed out.
			if d := g.halted(ctx, rq.agent.name, rq.standing); d != nil {
				return nil, d
			}
			if all.halt != nil && len(all.done) == 0 {
				return nil, all.halt
			}
			for _, q := range asked[len(all.done):] {
				all.done = append(all.done, done{slug: q.slug, err: all.halt})
			}
			return all.done, nil
		case <-poll.C:
			if d := g.halted(ctx, rq.agent.name, rq.standing); d != nil && d.reason != ReasonClosed {
				return nil, d // and cancel what is under way
			}
		}
	}
}

// mayStill asks, right before a call is sent on, all that may have changed
// since it was judged.
func (g *Gateway) mayStill(ctx context.Context, rq *request, t *tool, q ask) *denial {
	if err := g.ledger.flush(ctx); err != nil {
		return deny(ReasonUnrecorded, "what happened before could not be recorded, so nothing more is carried out")
	}
	if d := g.stillAllowed(rq, t, q); d != nil {
		return d
	}
	// Last, so that nothing takes time between the fence and the call.
	return g.halted(ctx, rq.agent.name, rq.standing)
}

// send executes a call at the agent's upstream, once. It returns soon after its
// time is up, whatever the upstream does. A denial is that the call was not sent
// on, and never will be.
func (g *Gateway) send(ctx context.Context, rq *request, call composio.Call) (done, *denial) {
	ctx, cancel := context.WithTimeoutCause(ctx, g.cfg.CallTimeout, fmt.Errorf("no answer within %v: %w", g.cfg.CallTimeout, context.DeadlineExceeded))
	defer cancel()
	type answer struct {
		done
		halt *denial
	}
	got := make(chan answer, 1)
	var settled atomic.Bool // that the call is sent on, or that it will not be
	go func() {
		a := answer{done: done{slug: call.Tool}}
		defer func() {
			if r := recover(); r != nil {
				a.err = errors.New("gateway: the upstream crashed")
			}
			got <- a
		}()
		// On a busy machine it may have taken a while to get here.
		if a.halt = g.lastLook(ctx, rq); a.halt == nil && settled.CompareAndSwap(false, true) {
			a.res, a.err = rq.agent.upstream.Execute(ctx, call)
		}
	}()
	select {
	case a := <-got:
		return a.done, a.halt
	case <-ctx.Done():
	}
	if settled.CompareAndSwap(false, true) {
		return done{}, deny(ReasonFenced, "the agent has been stopped, or whether it has cannot be told")
	}
	const grace = 250 * time.Millisecond // to say what became of it
	select {
	case a := <-got:
		return a.done, a.halt
	case <-time.After(grace):
		return done{slug: call.Tool, err: context.Cause(ctx)}, nil
	}
}

// lastLook asks the fence without a bound of its own, and thus without a way
// between its answer and the call: send does not wait for it.
func (g *Gateway) lastLook(ctx context.Context, rq *request) (d *denial) {
	if d := rq.standing.halted(); d != nil {
		return d
	}
	fenced := deny(ReasonFenced, "the agent has been stopped, or whether it has cannot be told")
	defer func() {
		if recover() != nil {
			d = fenced
		}
	}()
	if g.cfg.Fence.Fenced(ctx, rq.agent.name) != nil || ctx.Err() != nil {
		return fenced
	}
	if rq.standing.held.Load() { // while the fence was asked
		return rq.standing.halted()
	}
	return nil
}

func notExecuted(e trail.Event, why string) trail.Event {
	e.Time = time.Time{}
	e.Arguments.View = nil
	e.Outcome, e.Message = trail.OutcomeError, "it was not carried out: "+why
	return e
}

// refuse records that calls are denied, each for its own reason, or all for
// why, which it returns.
func (g *Gateway) refuse(ctx context.Context, rq *request, asked []ask, own []*denial, why *denial) *denial {
	for i, q := range asked {
		d := why
		if own != nil {
			if d = own[i]; d == nil {
				d = deny(ReasonTogether, "another call in the same request is denied")
			}
		}
		e := rq.event(g, i, q.slug, q.arguments)
		e.Decision, e.Message = trail.DecisionDeny, d.message
		e.Attrs["reason"] = string(d.reason)
		_ = g.ledger.note(ctx, e)
	}
	return why
}

// tripped tells the world that a breaker has tripped. The trail must not keep
// it from doing so.
func (g *Gateway) tripped(ctx context.Context, t Trip) {
	if f := g.cfg.OnTrip; f != nil {
		tracked := g.begin()
		go func() {
			if tracked {
				defer g.work.Done()
			}
			defer func() {
				if r := recover(); r != nil {
					g.cfg.Logger.Error("gateway: Config.OnTrip crashed", "agent", t.Agent)
				}
			}()
			f(t)
		}()
	}
	_ = g.ledger.note(ctx, trail.Event{
		Kind: KindTrip, Time: t.Time, Actor: "hardshell", Agent: t.Agent, Subject: "agent/" + t.Agent, Tool: t.Tool, RequestID: t.RequestID,
		Outcome: trail.OutcomeOK, Message: "more destructive calls than " + t.Limit.String(),
	})
}
