package halt

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// A Step is what a [Rung] has the engine do.
type Step int

// Steps of the engine's API.
const (
	StepPause Step = iota + 1
	StepDisconnect
	StepKill
	StepStop // with no time to end by itself
	StepRestartPolicy
)

var steps = map[Step]string{
	StepPause: "engine.pause", StepDisconnect: "engine.disconnect", StepKill: "engine.kill",
	StepStop: "engine.stop", StepRestartPolicy: "engine.restarts",
}

// A Rung is an actuator that has the engine itself take a step. It is what
// remains with an engine on another machine or without root, and the next try
// where the kernel's own way did not do.
type Rung struct {
	Tracker *Tracker // Required, with an Engine.
	Step    Step     // Required.
}

// Name returns "engine." and the step, such as "engine.kill".
func (r *Rung) Name() string {
	if name := steps[r.Step]; name != "" {
		return name
	}
	return "engine.none"
}

// Arm asks the engine for the agent's containers.
func (r *Rung) Arm(ctx context.Context) error {
	if err := r.valid(); err != nil {
		return err
	}
	// What a remote engine lacks is said by the actuators that lack it.
	return errors.Join(r.Tracker.askEngine(ctx), r.Tracker.roll.unmet(r.Tracker.Agent))
}

func (r *Rung) valid() error {
	if r.Tracker.Engine == nil {
		return errors.New("halt: there is no engine to ask: set Tracker.Engine")
	}
	if steps[r.Step] == "" {
		return fmt.Errorf("halt: there is no step %d: set Rung.Step", r.Step)
	}
	return r.Tracker.Agent.none()
}

// Do takes the step for all of the agent's containers at once: those that are
// known, while the engine is asked for those that came since.
func (r *Rung) Do(ctx context.Context) error {
	if err := r.valid(); err != nil {
		return err
	}
	var l ledger
	var mu sync.Mutex
	done := make(map[*tracked]bool)
	take := func() {
		each(r.Tracker.list(), func(k *tracked) {
			mu.Lock()
			again := done[k]
			done[k] = true
			mu.Unlock()
			if again {
				return
			}
			if c := k.info(); c.ID != "" {
				if err := r.take(ctx, k, c); err != nil && !notThere(err) {
					l.add(c.Object(), err.Error())
				}
			}
		})
	}
	var wg sync.WaitGroup
	wg.Go(take)
	err := r.Tracker.askEngine(ctx)
	take()
	wg.Wait()
	return errors.Join(l.err(r.Name()), err)
}

func (r *Rung) take(ctx context.Context, k *tracked, c Container) error {
	e := r.Tracker.Engine
	switch r.Step {
	case StepPause:
		return e.Pause(ctx, c.ID)
	case StepKill:
		return e.Kill(ctx, c.ID)
	case StepStop:
		return e.StopNow(ctx, c.ID)
	case StepRestartPolicy:
		return r.Tracker.policyOff(ctx, k)
	case StepDisconnect:
		if c.HostNetwork {
			return errors.New("it is on the machine's own network, from which an engine disconnects nothing: freeze or kill it")
		}
		var errs []error
		for _, n := range c.Networks {
			errs = append(errs, e.Disconnect(ctx, c.ID, n))
		}
		return errors.Join(errs...)
	}
	return nil
}
