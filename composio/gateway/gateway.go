package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// What the zero values of [Config] mean.
const (
	DefaultMaxBodyBytes  = 1 << 20
	DefaultMaxCalls      = 16
	DefaultCallTimeout   = 60 * time.Second
	DefaultBodyTimeout   = 10 * time.Second
	DefaultFenceTimeout  = 250 * time.Millisecond
	DefaultRecordTimeout = 5 * time.Second
)

// A Config configures a [Gateway].
type Config struct {
	// Policy is required.
	Policy *Policy

	// Upstream executes what is allowed. It is required unless PerAgent has
	// every agent.
	Upstream Upstream

	// PerAgent has the upstreams of agents, by name, that do not use
	// Upstream, such as each its own [Session].
	PerAgent map[string]Upstream

	// Fence is required; see [NoFence].
	Fence Fence

	// Trail is required; see [trail.Discard].
	Trail trail.Recorder

	// Redactor removes secrets from arguments before they are recorded. Nil
	// means the zero [trail.Redactor].
	Redactor *trail.Redactor

	// OnTrip, if not nil, is called once each time that a breaker trips, in a
	// goroutine of its own. It is where to fire the kill switch.
	OnTrip func(Trip)

	// Hosts are the names and addresses, without ports, by which agents reach
	// the gateway. Requests for others are denied, so that a web page that
	// has its own name point here (DNS rebinding) gets nothing. Nil means
	// "localhost", "127.0.0.1" and "::1".
	Hosts []string

	// MaxBodyBytes bounds the body of a request. Zero means
	// [DefaultMaxBodyBytes].
	MaxBodyBytes int64

	// MaxCalls bounds how many requests of one agent are under way at a time.
	// Zero means [DefaultMaxCalls].
	MaxCalls int

	// CallTimeout bounds each execution. Zero means [DefaultCallTimeout].
	CallTimeout time.Duration

	// BodyTimeout bounds how long a request's body may take to arrive. Zero
	// means [DefaultBodyTimeout].
	BodyTimeout time.Duration

	// FenceTimeout bounds how long the fence may take to answer; after it,
	// it is engaged. Zero means [DefaultFenceTimeout].
	FenceTimeout time.Duration

	// RecordTimeout bounds how long the trail may take to keep an event.
	// Zero means [DefaultRecordTimeout].
	RecordTimeout time.Duration

	// Logger is told of what goes wrong in the gateway itself. Nil means
	// nobody is.
	Logger *slog.Logger
}

// A Gateway lets through what its policy allows. It is made by [New], and its
// methods may be called concurrently. The server that it runs under should
// bound the time that headers take ([http.Server.ReadHeaderTimeout]).
type Gateway struct {
	cfg       Config
	book      atomic.Pointer[book]
	reloading sync.Mutex

	mu        sync.Mutex // guards what follows
	standings map[string]*standing
	closing   bool
	work      sync.WaitGroup // executions, and what a trip set off

	ledger ledger
}

// New returns a gateway, after it has held the policy against what Composio
// says of its tools. The error says all that is wrong with it.
func New(ctx context.Context, cfg Config) (*Gateway, error) {
	switch {
	case cfg.Fence == nil:
		return nil, errors.New("gateway: Config.Fence is nil: to have none is NoFence")
	case cfg.Trail == nil:
		return nil, errors.New("gateway: Config.Trail is nil: to have none is trail.Discard")
	case cfg.MaxBodyBytes < 0 || cfg.MaxCalls < 0 || cfg.CallTimeout < 0 || cfg.BodyTimeout < 0 || cfg.FenceTimeout < 0 || cfg.RecordTimeout < 0:
		return nil, errors.New("gateway: Config: a bound is negative")
	}
	setDefault(&cfg.MaxBodyBytes, DefaultMaxBodyBytes)
	setDefault(&cfg.MaxCalls, DefaultMaxCalls)
	setDefault(&cfg.CallTimeout, DefaultCallTimeout)
	setDefault(&cfg.BodyTimeout, DefaultBodyTimeout)
	setDefault(&cfg.FenceTimeout, DefaultFenceTimeout)
	setDefault(&cfg.RecordTimeout, DefaultRecordTimeout)
	if cfg.Hosts == nil {
		cfg.Hosts = []string{"localhost", "127.0.0.1", "::1"}
	}
	cfg.Hosts = slices.Clone(cfg.Hosts)
	if cfg.Redactor == nil {
		cfg.Redactor = new(trail.Redactor)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{cfg: cfg, standings: make(map[string]*standing)}
	g.ledger = ledger{trail: cfg.Trail, timeout: cfg.RecordTimeout, log: cfg.Logger}
	if err := g.Reload(ctx, cfg.Policy); err != nil {
		return nil, err
	}
	return g, nil
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Reload replaces the policy, all of it or nothing: if it returns an error, the
// old one holds. Calls that were let through under the old one and have not
// been sent on yet are judged again. Breakers that have tripped stay so.
func (g *Gateway) Reload(ctx context.Context, p *Policy) error {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	b, err := g.verify(ctx, p)
	e := trail.Event{Kind: KindPolicy, Actor: "hardshell", Subject: "gateway/policy", Outcome: trail.OutcomeOK}
	if err != nil {
		e.Outcome, e.Message = trail.OutcomeError, "the policy was refused"
		if p != nil {
			e.Attrs = map[string]string{"refused": p.Digest()}
		}
		_ = g.ledger.note(ctx, e)
		return err
	}
	e.Attrs = map[string]string{"policy": b.digest}
	if err := g.ledger.record(ctx, e); err != nil {
		return fmt.Errorf("gateway: the new policy is not taken on, since that cannot be recorded: %w", err)
	}
	g.book.Store(b)
	return nil
}

// Policy returns the policy that holds.
func (g *Gateway) Policy() *Policy { return g.book.Load().policy }

// Deny stops an agent: it is denied everything, and gets nothing more of what
// is under way, until [Gateway.Reset]. It takes effect before it returns. That
// it cannot be recorded does not keep it from doing so; it is the error.
func (g *Gateway) Deny(ctx context.Context, agent, reason string) error {
	if reason == "" {
		reason = "no reason was given"
	}
	s := g.standing(agent)
	s.mu.Lock()
	s.stopped = reason
	s.mu.Unlock()
	return g.ledger.note(ctx, trail.Event{Kind: KindStop, Actor: "hardshell", Agent: agent, Subject: "agent/" + agent, Outcome: trail.OutcomeOK, Message: g.cfg.Redactor.Text(reason)})
}

// Reset lets an agent go on whose breaker has tripped or that [Gateway.Deny]
// has stopped, once that is recorded. It does not lower the fence.
func (g *Gateway) Reset(ctx context.Context, agent string) error {
	if _, ok := g.book.Load().agents[agent]; !ok {
		return fmt.Errorf("gateway: reset: there is no agent %s", quote(agent))
	}
	if err := g.ledger.record(ctx, trail.Event{Kind: KindReset, Actor: "hardshell", Agent: agent, Subject: "agent/" + agent, Outcome: trail.OutcomeOK}); err != nil {
		return fmt.Errorf("gateway: reset %s: it cannot be recorded, so the agent stays stopped: %w", agent, err)
	}
	s := g.standing(agent)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trip, s.stopped, s.attempt = nil, "", window{}
	return nil
}

// Halted returns why an agent is denied everything, nil if it is not. The fence
// is asked too.
func (g *Gateway) Halted(ctx context.Context, agent string) error {
	if d := g.halted(ctx, agent, g.standing(agent)); d != nil {
		return fmt.Errorf("gateway: agent %s: %w", agent, d)
	}
	return nil
}

// Close denies everything from now on, and waits for the executions that are
// under way and for what they still have to record. If ctx ends first, it
// returns an error that says what is left.
func (g *Gateway) Close(ctx context.Context) error {
	g.mu.Lock()
	g.closing = true
	g.mu.Unlock()
	done := make(chan struct{})
	go func() {
		g.work.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return fmt.Errorf("gateway: close: executions are still under way: %w", context.Cause(ctx))
	}
	if err := g.ledger.flush(ctx); err != nil {
		return fmt.Errorf("gateway: close: outcomes could not be recorded: %w", err)
	}
	return nil
}

func (g *Gateway) standing(agent string) *standing {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.standings[agent]
	if s == nil {
		s = newStanding()
		g.standings[agent] = s
	}
	return s
}

// begin counts a piece of work that Close waits for, unless it is too late.
func (g *Gateway) begin() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing {
		return false
	}
	g.work.Add(1)
	return true
}

// ServeHTTP serves both doors.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) { g.serve(w, r) }
