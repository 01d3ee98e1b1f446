package main

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/harden/container/halt"
)

// Times of the reflex.
const (
	reflexEvery = 50 * time.Millisecond
	reflexAfter = time.Second // for who engages the fence to stop the agent himself
	reflexTime  = 5 * time.Second
)

// reflex ends what runs of an agent that is stopped, at once and whoever has
// started it, until ctx ends. An engine that starts with the machine runs
// containers before it answers anybody, and a kill that goes on waits for the
// slowest of its targets: the reflex asks the kernel, and waits for nobody. That
// the agent is off is for Hold to confirm.
func (s *killSwitch) reflex(ctx context.Context, record trail.Recorder, log *slog.Logger) {
	eye := &halt.Processes{Agent: s.tracker.Agent, DataRoot: s.tracker.DataRoot}
	acts := []func(context.Context) error{
		alone((&halt.Kill{Tracker: s.tracker}).Do), alone(s.lock.Do), alone(s.keep.Do),
	}
	var acting sync.WaitGroup
	defer acting.Wait()
	for ctx.Err() == nil {
		pause(ctx, reflexEvery)
		state, err := s.Fence().State(s.Agent())
		if age := time.Since(state.Time); !state.Engaged() || err == nil && age >= 0 && age < reflexAfter {
			continue
		}
		looking, cancel := context.WithTimeout(ctx, reflexTime)
		running, _ := eye.Remaining(looking) // what cannot be seen is for Hold
		cancel()
		if len(running) == 0 || ctx.Err() != nil {
			continue
		}
		what := strings.Join(slices.Sorted(maps.Keys(running)), ", ")
		log.Warn("the agent was started though it is stopped, and is stopped again", "agent", s.Agent(), "what", what)
		var first sync.WaitGroup
		for i, act := range acts {
			wait := &acting
			if i == 0 {
				wait = &first // the next look is to see what it did
			}
			wait.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, reflexTime)
				defer cancel()
				_ = act(ctx) // Hold says what is still on
			})
		}
		acting.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, reflexTime)
			defer cancel()
			_ = record.Record(ctx, trail.Event{
				Kind: trail.KindKill, Time: time.Now(), Actor: "hardshell", Agent: s.Agent(), Subject: "target/" + processesTarget,
				ID: strconv.FormatUint(state.Epoch, 10), Outcome: trail.OutcomeUnknown, Message: "back: " + what, Attrs: map[string]string{"hold": "back"},
			})
		})
		first.Wait()
	}
}

// alone returns act, which does nothing while it is still being done.
func alone(act func(context.Context) error) func(context.Context) error {
	var mu sync.Mutex
	return func(ctx context.Context) error {
		if !mu.TryLock() {
			return nil
		}
		defer mu.Unlock()
		return act(ctx)
	}
}
