package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/composio/gateway"
	"github.com/managemyclaw/hardshell/killswitch"
)

// fence returns the fence of the state directory, which the gateway, harden,
// standby and the kill switch share.
func (p *program) fence() (*killswitch.Fence, error) {
	f, err := killswitch.OpenFence(filepath.Join(p.stateDir, "fence"))
	if err != nil {
		return nil, fmt.Errorf("%w (name another directory with --state-dir)", err)
	}
	return f, nil
}

// mayStart keeps harden from starting a container of an agent that is stopped:
// by the agent's name, and by the container's.
func (p *program) mayStart(ctx context.Context, container string) error {
	fence, err := p.fence()
	if err != nil {
		return err
	}
	if agent, err := p.agentName(); err == nil && agent != container {
		if err := fence.Fenced(ctx, agent); err != nil {
			return err
		}
	}
	return fence.Fenced(ctx, container)
}

// A tripwire remembers for a gateway whose breaker has tripped, and lets them go
// on once the fence has been released after it.
type tripwire struct {
	fence *killswitch.Fence

	mu     sync.Mutex
	epochs map[string]uint64 // by agent
}

// trip engages the fence for good. The agent is stopped even if it cannot be
// made durable: as long as the process lives.
func (w *tripwire) trip(ctx context.Context, agent, why string) (epoch uint64, err error) {
	epoch, err = w.fence.Engage(ctx, agent, why)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.epochs == nil {
		w.epochs = make(map[string]uint64)
	}
	w.epochs[agent] = epoch
	return epoch, err
}

// released returns the agents that may go on.
func (w *tripwire) released() (agents []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for agent, epoch := range w.epochs {
		if state, err := w.fence.State(agent); err == nil && !state.Engaged() && state.Epoch >= epoch {
			agents = append(agents, agent)
		}
	}
	return agents
}

// watch resets the gateway for agents that were reset, until ctx ends.
func (w *tripwire) watch(ctx context.Context, g *gateway.Gateway, say func(format string, args ...any)) {
	for tick := time.Tick(fenceEvery); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
		for _, agent := range w.released() {
			if err := g.Reset(ctx, agent); err != nil {
				say("agent %s stays stopped: %v", agent, err)
				continue
			}
			w.mu.Lock()
			delete(w.epochs, agent)
			w.mu.Unlock()
			say("agent %s was reset, and may go on", agent)
		}
	}
}

// syncDir makes the names in a directory durable, which Windows does by itself.
func syncDir(name string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
