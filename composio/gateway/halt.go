package gateway

import (
	"context"
	"fmt"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// A Halt keeps an agent from getting anything through a gateway in the same
// process. It is an actuator of a kill switch: it takes effect without the
// fence being read, also when the disk is full or hangs. For a gateway in
// another process the actuator is the [Fence] that both read. Package halted
// has the observer for either.
//
// It is made by [Gateway.Halt], and its methods may be called concurrently.
type Halt struct {
	gateway  *Gateway
	agent    string
	standing *standing
}

// Halt returns the Halt of an agent.
func (g *Gateway) Halt(agent string) *Halt { return &Halt{g, agent, g.standing(agent)} }

// Name returns "composio.gateway.halt".
func (h *Halt) Name() string { return "composio.gateway.halt" }

// Do stops the agent as [Gateway.Deny] does, until [Halt.Release] and not until
// [Gateway.Reset]. It is in effect at once, and before it is recorded: a trail
// that hangs is not waited for longer than ctx allows, and one that fails gets
// the record when it works again.
func (h *Halt) Do(ctx context.Context) error {
	s := h.standing
	before := s.held.Swap(true)
	s.mu.Lock()
	s.holds++
	before = s.held.Swap(true) && before // unless a release came in between
	s.mu.Unlock()
	if _, ok := h.gateway.book.Load().agents[h.agent]; !ok {
		return fmt.Errorf("gateway: halt: there is no agent %s in the policy", quote(h.agent))
	}
	if before {
		return nil
	}
	e := h.event(KindStop)
	e.Message = "the kill switch"
	done := make(chan struct{})
	tracked := h.gateway.begin()
	go func() {
		defer close(done)
		if tracked {
			defer h.gateway.work.Done()
		}
		_ = h.gateway.ledger.note(ctx, e) // is owed if it fails
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	return nil
}

// Release takes back what Do did, once that is recorded, and nothing else: an
// agent whose breaker has tripped, or that [Gateway.Deny] has stopped, stays so,
// and the fence is as it was.
func (h *Halt) Release(ctx context.Context) error {
	s := h.standing
	s.mu.Lock()
	holds := s.holds
	s.mu.Unlock()
	if !s.held.Load() {
		return nil
	}
	if err := h.gateway.ledger.record(ctx, h.event(KindReset)); err != nil {
		return fmt.Errorf("gateway: release %s: it cannot be recorded, so the agent stays stopped: %w", h.agent, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holds != holds {
		return fmt.Errorf("gateway: release %s: it was stopped again in the meantime, and stays so", h.agent)
	}
	s.held.Store(false)
	return nil
}

func (h *Halt) event(kind trail.Kind) trail.Event {
	return trail.Event{Kind: kind, Actor: "hardshell", Agent: h.agent, Subject: "agent/" + h.agent, Outcome: trail.OutcomeOK}
}
