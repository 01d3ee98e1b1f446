package killswitch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
)

type requesterKey struct{}

// WithRequester returns a context that says who asks for what is done with it,
// such as "operator/ann". It is in receipts and in the trail, and proves
// nothing.
func WithRequester(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, requesterKey{}, foreign(who, maxName))
}

func requester(ctx context.Context) string {
	who, _ := ctx.Value(requesterKey{}).(string)
	return who
}

// Fire stops the agent. It engages the fence, so that nothing starts the agent
// again; then it tries to stop all targets at the same time, each by its
// ladder and on its own deadline, until their observers confirm. It returns
// when all have come to an end, at the latest a little after the longest
// [Target.Timeout].
//
// It ignores the cancellation of ctx, of which it uses the values: what calls
// for a kill is often about to end. Nothing that fails, hangs, panics or lies
// keeps it from trying the rest: not an actuator, an observer, the trail, the
// logger, nor the disk.
//
// Fire may be called any number of times. While a kill is under way a call
// joins it, and gets a receipt of its own with its reason. Afterwards, until
// [Switch.Reset], it goes on in the same epoch: what was confirmed is looked
// at once more, and the rest is tried again.
//
// There always is a receipt. The error is nil if it is [Receipt.Off], written
// down and recorded, and otherwise wraps [ErrUnconfirmed], [ErrNotDurable] and
// [ErrTrail], as many as apply.
func (s *Switch) Fire(ctx context.Context, reason string) (*Receipt, error) {
	return s.fire(ctx, Request{Reason: foreign(reason, maxReason), By: requester(ctx), Time: time.Now()})
}

func (s *Switch) fire(ctx context.Context, req Request) (*Receipt, error) {
	ctx = context.WithoutCancel(ctx)
	s.mu.Lock()
	k, joined := s.running, s.running != nil
	if !joined {
		k = newKill(s, req, s.targets)
		s.running = k
		s.fires++
	}
	k.requests++
	s.mu.Unlock()
	if !joined {
		go k.run(ctx)
		<-k.done
		return k.answer(req, nil)
	}
	recorded := make(chan error, 1)
	go func() {
		<-k.fenced
		recorded <- s.record(ctx, k.event(req, trail.OutcomeBegin))
	}()
	<-k.done
	return k.answer(req, <-recorded)
}

// Resume completes a kill that was cut off, by the end of the process or of the
// machine: if the fence is engaged and there is no receipt of a kill that came
// to its end with everything confirmed, the agent is stopped again, in the same
// epoch and for the same reason. It returns the receipt, which is nil if the
// agent is not stopped. The error is as that of [Switch.Fire].
//
// Call it when the process starts, before anything that could start the agent.
func (s *Switch) Resume(ctx context.Context) (*Receipt, error) {
	state, err := s.fence.State(s.cfg.Agent)
	if err == nil && state.Released {
		return nil, nil
	}
	reason := state.Reason
	if err != nil {
		reason = "the record of the fence cannot be read"
		if r, err := LastReceipt(s.cfg.Dir, s.cfg.Agent, s.cfg.Key.Public()); err == nil {
			reason += "; the last kill was for: " + r.Reason
		}
	} else if r := s.earlier(state.Epoch); r != nil && r.Off() {
		return r, nil
	}
	return s.fire(ctx, Request{Reason: foreign(reason, maxReason), By: "resume", Time: time.Now()})
}

// earlier returns the last receipt of an epoch, or nil.
func (s *Switch) earlier(epoch uint64) *Receipt {
	s.mu.Lock()
	last := s.last
	s.mu.Unlock()
	if last != nil && last.Epoch == epoch {
		return last
	}
	r, err := readReceipt(s.cfg.Dir, s.cfg.Agent, epoch, s.cfg.Key.Public())
	if err != nil {
		return nil
	}
	return r
}

// complain returns what is not as it should be after a kill.
func (r *Receipt) complain(stored error) error {
	var errs []error
	if !r.Off() {
		var names []string
		for _, t := range r.Targets {
			if t.State != Confirmed {
				names = append(names, t.Name+" "+t.State.String())
			}
		}
		errs = append(errs, fmt.Errorf("%w: %s: %s (fire again to go on)", ErrUnconfirmed, r.Agent, strings.Join(names, ", ")))
	}
	if !r.Fence.Durable {
		errs = append(errs, fmt.Errorf("%w: %s", ErrNotDurable, strings.TrimPrefix(r.Fence.Error, ErrNotDurable.Error()+": ")))
	}
	if !r.Trail.Recorded {
		errs = append(errs, fmt.Errorf("%w: the kill of %s: %s", ErrTrail, r.Agent, r.Trail.Error))
	}
	return errors.Join(append(errs, stored)...)
}
