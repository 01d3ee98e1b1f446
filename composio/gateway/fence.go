package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Fence says which agents have been stopped.
type Fence interface {
	// Fenced returns nil if agent is known not to be stopped, and otherwise
	// an error that says why it is, or why that cannot be told: both deny.
	// It is called at least twice for every call, and every few milliseconds
	// while one is under way, so it should answer within a millisecond. It
	// may be called concurrently.
	Fenced(ctx context.Context, agent string) error
}

// NoFence is the explicit choice to have no fence: no agent is stopped but by
// [Gateway.Deny] and by its breaker.
var NoFence Fence = noFence{}

type noFence struct{}

func (noFence) Fenced(context.Context, string) error { return nil }

// fencePoll is how often the fence is looked at while a call is under way.
const fencePoll = 2 * time.Millisecond

// fenced asks the fence. One that crashes or does not answer in time is
// engaged.
func (g *Gateway) fenced(ctx context.Context, agent string) error {
	if g.cfg.Fence == NoFence {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.cfg.FenceTimeout)
	defer cancel()
	answer := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				answer <- fmt.Errorf("the fence crashed: %v", r)
			}
		}()
		answer <- g.cfg.Fence.Fenced(ctx, agent)
	}()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return errors.New("the fence does not answer")
	}
}
