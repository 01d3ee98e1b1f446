package softstop

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
)

// An Observer finds out whether a gateway has work under way. Each time it
// connects anew, and asks both for the lists of sessions and tasks and for the
// gateway's own count of what would keep it from restarting. It is made by
// [NewObserver], and its methods may be called concurrently.
//
// It has the gateway's word, and no more: what a run has left behind without
// the gateway knowing it does not see. So it confirms that there is nothing for
// a restarted gateway to take up again, and never that an agent is off.
type Observer struct {
	at *endpoint

	mu   sync.Mutex
	seen map[string]bool
}

// NewObserver returns an Observer. It does not connect.
func NewObserver(cfg Config) (*Observer, error) {
	e, err := newEndpoint(cfg)
	if err != nil {
		return nil, err
	}
	return &Observer{at: e, seen: make(map[string]bool)}, nil
}

// Name returns "openclaw.sessions".
func (o *Observer) Name() string { return "openclaw.sessions" }

// Remaining returns the sessions and tasks that are under way. A gateway that
// cannot be reached is an error: it may be frozen, or elsewhere, and go on.
func (o *Observer) Remaining(ctx context.Context) (map[string]string, error) {
	ctx, cancel := o.at.within(ctx)
	defer cancel()
	c, err := o.at.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("softstop: observe: %w", err)
	}
	defer c.close()
	left, err := o.look(ctx, c)
	o.note(left)
	if err != nil {
		return left, fmt.Errorf("softstop: observe: %w", err)
	}
	return left, nil
}

func (o *Observer) look(ctx context.Context, c *conn) (map[string]string, error) {
	switch c.hello.Snapshot.Suspension.Phase {
	case phasePrepared:
		// Nobody is told anything else now, and nothing is under way: else it
		// would be another phase.
		return nil, nil
	case phaseAccepting, "":
	default:
		return nil, errors.New("the gateway waits for what is under way, and does not say what that is")
	}
	active, err := c.list(ctx)
	left := active.statuses()
	if r, ok := errors.AsType[*refusedError](err); ok && r.suspended() && r.phase == phasePrepared {
		return nil, nil // it has just been closed
	}
	if err != nil {
		return left, err
	}
	if !c.hello.has("gateway.restart.preflight") {
		return left, nil
	}
	var p struct {
		Safe     *bool     `json:"safe"`
		Blockers []blocker `json:"blockers"`
	}
	if err := c.call(ctx, "gateway.restart.preflight", struct{}{}, &p); err != nil {
		if r, ok := errors.AsType[*refusedError](err); ok && r.suspended() && r.phase == phasePrepared {
			return nil, nil
		}
		return left, err
	}
	if p.Safe == nil {
		return left, errors.New("the gateway's answer to gateway.restart.preflight is not what it should be")
	}
	if !*p.Safe {
		left[objGateway] = lease{Blockers: p.Blockers}.busy()
	}
	return left, nil
}

func (o *Observer) note(left map[string]string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name := range left {
		if len(o.seen) < maxWork {
			o.seen[name] = true
		}
	}
}

// Objects returns the sessions and tasks that have been seen under way.
func (o *Observer) Objects() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return sortedKeys(maps.Clone(o.seen))
}

// Arm looks once, so that [Observer.Objects] knows what is under way. The error
// says that it will not be able to look.
func (o *Observer) Arm(ctx context.Context) error {
	_, err := o.Remaining(ctx)
	return err
}
