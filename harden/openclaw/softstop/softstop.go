package softstop

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Stopper stops what one gateway is doing. It is an actuator of a kill
// switch. It is made by [New], and its methods may be called concurrently.
type Stopper struct {
	at *endpoint

	mu   sync.Mutex
	warm *conn // nil if there is none
}

// New returns a Stopper. It does not connect.
func New(cfg Config) (*Stopper, error) {
	e, err := newEndpoint(cfg)
	if err != nil {
		return nil, err
	}
	return &Stopper{at: e}, nil
}

// Name returns "openclaw.softstop".
func (s *Stopper) Name() string { return "openclaw.softstop" }

// Arm connects beforehand, if the connection from before is not good any more,
// and finds out what the gateway can do. The error says what will be missing.
func (s *Stopper) Arm(ctx context.Context) error {
	ctx, cancel := s.at.within(ctx)
	defer cancel()
	c, err := s.connection(ctx)
	if err != nil {
		return fmt.Errorf("softstop: arm: %w", err)
	}
	var missing []string
	for _, m := range methods {
		if !c.hello.has(m) {
			missing = append(missing, m)
		}
	}
	if missing != nil {
		return fmt.Errorf("softstop: arm: the gateway does not have %s", strings.Join(missing, ", "))
	}
	return nil
}

var methods = []string{"sessions.list", "sessions.abort", "tasks.list", "tasks.cancel", "gateway.suspend.prepare", "gateway.suspend.resume"}

// Close ends the connection that [Stopper.Arm] keeps. The Stopper can be used
// again.
func (s *Stopper) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.warm != nil {
		s.warm.close()
		s.warm = nil
	}
	return nil
}

// Do aborts the runs of all sessions with what waits behind them, cancels all
// tasks, and closes admission in the moment when nothing is under way; if
// something has begun in between it goes on until that has been aborted too. If
// its time is up first, the error has a method Open() that names what was last
// seen under way. Called again, it renews what keeps admission closed.
//
// Nil says that the gateway says so.
func (s *Stopper) Do(ctx context.Context) error {
	ctx, cancel := s.at.within(ctx)
	defer cancel()
	c, err := s.connection(ctx)
	if err != nil {
		return fmt.Errorf("softstop: %w", err)
	}
	err = s.stop(ctx, c)
	if err != nil && !c.alive() && ctx.Err() == nil {
		// The connection was there from before, and was of no use.
		if c, err = s.connection(ctx); err == nil {
			err = s.stop(ctx, c)
		}
	}
	if err != nil {
		return fmt.Errorf("softstop: %w", err)
	}
	return nil
}

// connection returns the one that is there, or a new one.
func (s *Stopper) connection(ctx context.Context) (*conn, error) {
	s.mu.Lock()
	c := s.warm
	s.mu.Unlock()
	if c != nil && c.alive() {
		return c, nil
	}
	fresh, err := s.at.dial(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.warm != c && s.warm != nil && s.warm.alive() {
		fresh.close() // somebody was faster
		return s.warm, nil
	}
	if s.warm != nil {
		s.warm.close()
	}
	s.warm = fresh
	return fresh, nil
}

// The gateway answers thirty requests for a lease a minute, of all who come
// from one address. These are the waits between those of one Do.
var pauses = []time.Duration{0, 20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond}

// stop aborts until the gateway is idle and stays so.
func (s *Stopper) stop(ctx context.Context, c *conn) error {
	open := make(map[string]string) // what was last seen
	for round := 0; ; round++ {
		active, err := c.list(ctx)
		if r, ok := errors.AsType[*refusedError](err); ok && r.suspended() {
			active, err = nil, nil // whose it is, prepare finds out
		}
		if err == nil {
			clear(open)
		}
		maps.Copy(open, active.statuses())
		maps.Copy(open, s.endAll(ctx, c, active))
		if err != nil {
			return s.left(ctx, err, open)
		}
		l, err := c.prepare(ctx)
		r, refused := errors.AsType[*refusedError](err)
		switch {
		case err == nil && l.Status == "ready":
			return nil
		case err == nil && l.Status == "draining":
			// It was idle, and is not any more: open it, or nothing can be
			// aborted.
			open[objGateway] = l.busy()
			if err := c.resume(ctx, l.ID); err != nil {
				return s.left(ctx, err, open)
			}
		case err == nil && l.Status == "busy":
			open[objGateway] = l.busy()
		case err == nil:
			return s.left(ctx, errors.New("the gateway's answer to gateway.suspend.prepare is not what it should be"), open)
		case refused && r.reason == "gateway-suspension-conflict":
			open[objGateway] = "somebody else has it suspended: what is under way cannot be aborted"
			return s.left(ctx, err, open)
		case refused && len(active) > 0:
			open[objGateway] = "still admits work" // try again, as long as there is something to abort
		default:
			open[objGateway] = "still admits work"
			return s.left(ctx, err, open)
		}
		pause := time.NewTimer(pauses[min(round, len(pauses)-1)])
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return s.left(ctx, context.Cause(ctx), open)
		}
	}
}

func (s *Stopper) left(ctx context.Context, err error, open map[string]string) error {
	if len(open) == 0 {
		open[objGateway] = "what is under way is not known"
	}
	return &openError{because(ctx, err), open}
}

// endAll ends all work at once, and returns what could not be, and why.
func (s *Stopper) endAll(ctx context.Context, c *conn, all workList) map[string]string {
	type result struct {
		name string
		err  error
	}
	results := make(chan result)
	limit := make(chan struct{}, 16)
	for name, w := range all {
		go func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			results <- result{name, c.end(ctx, w)}
		}()
	}
	failed := make(map[string]string)
	for range all {
		if r := <-results; r.err != nil {
			failed[r.name] = all[r.name].status + ": " + r.err.Error()
		}
	}
	return failed
}

// Release changes nothing: what keeps admission closed ends by itself within
// two minutes, or with the gateway. While it holds, the error says so: to end it
// would let a gateway that is alive go on with what it has planned, and that is
// for somebody to do who wants it, by [Stopper.Resume]. A gateway that cannot be
// reached holds nothing that would outlast it.
func (s *Stopper) Release(ctx context.Context) error {
	ctx, cancel := s.at.within(ctx)
	defer cancel()
	c, err := s.at.dial(ctx)
	if err != nil {
		return nil //nolint:nilerr // as documented
	}
	defer c.close()
	if p := c.hello.Snapshot.Suspension.Phase; p != phaseAccepting && p != "" {
		return errors.New("softstop: release: the gateway is alive and admits nothing, for two minutes at most: call Resume to have it go on now")
	}
	return nil
}

// Resume has the gateway admit work again at once. What has been aborted stays
// so. If admission is closed for somebody else it is left as it is, and the
// error says so.
func (s *Stopper) Resume(ctx context.Context) error {
	ctx, cancel := s.at.within(ctx)
	defer cancel()
	c, err := s.at.dial(ctx) // its greeting says whether admission is open
	if err != nil {
		return fmt.Errorf("softstop: resume: %w", err)
	}
	defer c.close()
	if p := c.hello.Snapshot.Suspension.Phase; p == phaseAccepting || p == "" {
		return nil
	}
	l, err := c.prepare(ctx) // which renews our lease, and tells its id
	if err != nil {
		return fmt.Errorf("softstop: resume: %w", err)
	}
	if l.ID == "" {
		return nil // it was over by now
	}
	if err := c.resume(ctx, l.ID); err != nil {
		return fmt.Errorf("softstop: resume: %w", err)
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
