package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/composio"
)

// What a gateway records beside [trail.KindToolCall].
const (
	KindPolicy  trail.Kind = "gateway.policy"  // a policy was taken on or refused
	KindRequest trail.Kind = "gateway.request" // a request was denied that is no call of a tool
	KindTrip    trail.Kind = "gateway.trip"    // a breaker has tripped
	KindStop    trail.Kind = "gateway.stop"    // an agent was stopped
	KindReset   trail.Kind = "gateway.reset"   // an agent may go on
)

// maxOwed bounds the denials that wait to be recorded. Outcomes are bounded by
// the calls under way when the trail failed: none is let through after.
const maxOwed = 1000

// maxView bounds the view of arguments in a record: an agent must not be able
// to send what a trail is too small for. The digest stays.
const maxView = 64 << 10

// A ledger records events, and keeps those that could not be recorded and have
// to be: nothing new is recorded before them.
type ledger struct {
	trail   trail.Recorder
	timeout time.Duration
	log     *slog.Logger

	mu     sync.Mutex
	owed   []trail.Event
	lost   int        // denials that were too many to keep
	making sync.Mutex // good: one at a time

	quiet map[string]*hush // denials that are not all recorded: of who is not known, and of agents that are stopped
}

// A hush counts denials of one kind.
type hush struct {
	recorded window
	unnoted  int // that were too many
}

// record records e after all that is owed. If it returns an error, e is not
// recorded and will not be.
func (l *ledger) record(ctx context.Context, e trail.Event) error {
	if err := l.flush(ctx); err != nil {
		return err
	}
	return l.write(ctx, e)
}

// note records e, or else owes it. The error says that it is owed.
func (l *ledger) note(ctx context.Context, e trail.Event) error {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	err := l.write(ctx, e)
	if err == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Decision == trail.DecisionDeny && len(l.owed) >= maxOwed {
		l.lost++
		return err
	}
	l.owed = append(l.owed, e)
	return err
}

// flush records what is owed.
func (l *ledger) flush(ctx context.Context) error {
	l.mu.Lock()
	n := len(l.owed) + l.lost
	l.mu.Unlock()
	if n == 0 {
		return nil
	}
	l.making.Lock()
	defer l.making.Unlock()
	for {
		l.mu.Lock()
		if l.lost > 0 && len(l.owed) == 0 {
			l.owed = append(l.owed, trail.Event{
				Kind: KindRequest, Time: time.Now(), Actor: "hardshell", Subject: "gateway", Decision: trail.DecisionDeny,
				Message: strconv.Itoa(l.lost) + " denials more were not recorded one by one",
			})
			l.lost = 0
		}
		if len(l.owed) == 0 {
			l.mu.Unlock()
			return nil
		}
		e := l.owed[0]
		l.mu.Unlock()
		err := l.write(ctx, e)
		if errors.Is(err, trail.ErrInvalidEvent) {
			// It never can be recorded as it is, and must not hold up the
			// rest for ever.
			err = l.write(ctx, bare(e))
		}
		if err != nil {
			return err
		}
		l.mu.Lock()
		l.owed = l.owed[1:]
		l.mu.Unlock()
	}
}

// bare returns e with no more than says what it is about.
func bare(e trail.Event) trail.Event {
	return trail.Event{
		Kind: e.Kind, Time: e.Time, Actor: e.Actor, Agent: e.Agent, Tool: e.Tool, ID: e.ID, RequestID: e.RequestID, LogID: e.LogID,
		Decision: e.Decision, Outcome: e.Outcome, Message: "the rest of the event could not be recorded",
	}
}

// write gives e to the trail. That the agent has gone is no reason not to.
func (l *ledger) write(ctx context.Context, e trail.Event) (err error) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), l.timeout, errors.New("the trail does not answer"))
	defer cancel()
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	done := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				done <- fmt.Errorf("the trail crashed: %v", r)
			}
		}()
		done <- l.trail.Record(ctx, e)
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		l.log.LogAttrs(ctx, slog.LevelError, "gateway: an event could not be recorded",
			slog.String("kind", string(e.Kind)), slog.String("id", e.ID), slog.Any("error", err))
	}
	return err
}

// event returns what all records about a call have in common.
func (rq *request) event(g *Gateway, i int, slug string, arguments map[string]any) trail.Event {
	e := trail.Event{
		Kind: trail.KindToolCall, Actor: rq.actor(), Agent: rq.name(), RequestID: rq.id, ID: rq.id + "." + strconv.Itoa(i),
		Attrs: map[string]string{"door": rq.door},
	}
	if validSlug(slug) {
		e.Tool, e.Subject = slug, "tool/"+slug
	} else {
		e.Subject = "tool"
		if slug != "" {
			e.Attrs["asked"] = g.cfg.Redactor.Text(quote(slug))
		}
	}
	if rq.book != nil {
		e.Attrs["policy"] = rq.book.digest
	}
	if arguments != nil {
		if raw, err := json.Marshal(arguments); err == nil {
			// Arguments fail only on what is not JSON.
			e.Arguments, _ = g.cfg.Redactor.Arguments(raw)
			if len(e.Arguments.View) > maxView {
				e.Arguments.View = nil
				e.Attrs["arguments_bytes"] = strconv.Itoa(len(raw))
			}
		}
	}
	return e
}

func (rq *request) actor() string {
	if rq.agent == nil {
		return "unauthenticated"
	}
	return "agent/" + rq.agent.name
}

func (rq *request) name() string {
	if rq.agent == nil {
		return ""
	}
	return rq.agent.name
}

// denied records that a request is denied that is no call, or not yet known to
// be one.
func (g *Gateway) denied(ctx context.Context, rq *request, what string, d *denial) {
	e := trail.Event{
		Kind: KindRequest, Actor: rq.actor(), Agent: rq.name(), RequestID: rq.id, ID: rq.id, Subject: "gateway/" + rq.door,
		Decision: trail.DecisionDeny, Message: d.message,
		Attrs: map[string]string{"door": rq.door, "reason": string(d.reason), "asked": g.cfg.Redactor.Text(quote(what))},
	}
	limit, bounded := strangers, rq.agent == nil
	if d.reason.halts() {
		limit, bounded = knocks, true
	}
	if bounded {
		n, ok := g.ledger.hushed(rq.name(), limit, time.Now())
		if !ok {
			return
		}
		if n > 0 {
			e.Attrs["not_recorded_before"] = strconv.Itoa(n)
		}
	}
	_ = g.ledger.note(ctx, e)
}

// Of denials of those who have no token, so many are recorded, and the rest
// counted: whoever can reach the gateway must not be able to fill the disk. So
// it is with an agent that is stopped and asks for a list of tools again and
// again, or is asked for. What it tries to call is recorded each time.
var (
	strangers = Limit{Calls: 600, Per: time.Minute}
	knocks    = Limit{Calls: 10, Per: time.Minute}
)

// hushed reports whether a denial of a name is to be recorded, and how many have
// not been since the last that was.
func (l *ledger) hushed(name string, limit Limit, now time.Time) (unnoted int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.quiet[name]
	if h == nil {
		if l.quiet == nil {
			l.quiet = make(map[string]*hush)
		}
		h = &hush{}
		l.quiet[name] = h
	}
	if _, ok := h.recorded.room(limit, now, 1); !ok {
		h.unnoted++
		return 0, false
	}
	h.recorded.add(now, 1)
	unnoted, h.unnoted = h.unnoted, 0
	return unnoted, true
}

// outcome completes the record of an execution.
func outcome(e trail.Event, res composio.Result, err error) trail.Event {
	e.Time = time.Time{}
	e.Arguments.View = nil // the record of the intent has it
	e.LogID = res.LogID
	api, isAPI := errors.AsType[*composio.APIError](err)
	switch {
	case err == nil && res.Successful:
		e.Outcome = trail.OutcomeOK
	case err == nil:
		e.Outcome, e.Message = trail.OutcomeError, "the tool was not successful"
	case isAPI && api.Status < 500:
		e.Outcome, e.Message = trail.OutcomeError, "Composio refused the call: "+api.Error()
	default:
		e.Outcome, e.Message = trail.OutcomeUnknown, "whether it was executed is not known"
		if isAPI {
			e.Message += ": " + api.Error()
		}
	}
	return e
}
