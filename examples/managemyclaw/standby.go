package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/killswitch"
)

// Times of standby.
const (
	armEvery   = 30 * time.Second
	armedAge   = 5 * time.Minute // after which what was prepared is stale
	fenceEvery = 200 * time.Millisecond
	wayTime    = 3 * time.Second
)

// standby is the command of that name: it keeps the switch armed, completes a
// kill that was begun, by whomever, and keeps the agent down.
func (p *program) standby(ctx context.Context, args []string) (int, error) {
	var (
		once bool
		door remoteFlags
	)
	err := p.parse("standby", args, func(fs *flag.FlagSet) {
		p.switchFlags(fs)
		door.add(fs)
		fs.BoolVar(&once, "once", false, "arm, say what is missing, and end")
	})
	if err != nil {
		return exitUsage, err
	}
	var mu sync.Mutex // what it says comes from several goroutines
	p.stdout, p.stderr = &inTurn{&mu, p.stdout}, &inTurn{&mu, p.stderr}
	s, err := p.openSwitch()
	if err != nil {
		return exitUsage, err
	}
	defer s.close()
	if err := p.firstSecret(s.Agent()); err != nil {
		return exitFail, err
	}
	log := slog.New(slog.NewTextHandler(p.stderr, nil))
	if !once {
		watched, stop := context.WithCancel(ctx)
		var watching sync.WaitGroup
		defer func() { stop(); watching.Wait() }()
		watching.Go(func() { s.reflex(watched, p.trail(), log) })
	}
	// Before anything that might start it.
	if err := s.Fence().Fenced(ctx, s.Agent()); err != nil {
		fmt.Fprintf(p.stdout, "%s is stopped: %s\n", s.Agent(), printable(err.Error()))
	}
	if r, err := s.Resume(ctx); r != nil {
		fmt.Fprintf(p.stdout, "%s is stopped, and is kept down: %s\n", s.Agent(), printable(r.String()))
		if err != nil {
			fmt.Fprintf(p.stderr, "%s\n", printable(err.Error()))
		}
	}
	armed, err := s.Arm(ctx)
	if err != nil {
		return exitFail, err
	}
	p.sayArmed(armed)
	if once {
		if len(armed.Findings) > 0 {
			return exitFail, nil
		}
		return exitPass, nil
	}
	lease, err := p.lease(ctx, s, door, log)
	if err != nil {
		return exitFail, err
	}
	server, err := p.listen(ctx, s, door, lease, log)
	if err != nil {
		return exitUsage, err
	}
	s.stand(ctx, log)
	return exitPass, server.close()
}

func (p *program) sayArmed(a *killswitch.Armed) {
	for _, t := range a.Targets {
		fmt.Fprintf(p.stdout, "  %-12s %d would act, %d would confirm\n", t.Name, len(t.Actuators), len(t.Observers))
	}
	for _, f := range a.Findings {
		fmt.Fprintf(p.stdout, "  ✗ %s\n", printable(f))
	}
	fmt.Fprintf(p.stdout, "%s armed in %v\n", a.Agent, round(a.Elapsed))
}

// firstSecret makes the second secret, and shows it this once.
func (p *program) firstSecret(agent string) error {
	if killswitch.HasResetSecret(p.stateDir, agent) {
		return nil
	}
	secret := killswitch.GenerateResetSecret()
	err := killswitch.SetResetSecret(p.stateDir, agent, secret)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "The second secret, without which a stopped agent stays stopped, is shown this\nonce. Keep it elsewhere than on this machine:\n\n    %s\n\n", secret)
	return nil
}

// stand keeps the switch armed, and the agent down while it is stopped, until
// ctx ends.
func (s *killSwitch) stand(ctx context.Context, log *slog.Logger) {
	changed := make(chan struct{}, 1)
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { s.tracker.Watch(ctx) })
	running.Go(func() { s.follow(ctx, changed) })
	running.Go(func() { s.Keep(ctx, armEvery, changed) }) //nolint:errcheck // why ctx ended
	for ctx.Err() == nil {
		s.giveWay(ctx)
		if err := s.Hold(ctx); err != nil && ctx.Err() == nil {
			log.Error("the agent is not kept down", "err", err)
		}
		pause(ctx, fenceEvery) // until somebody engages it
	}
}

// giveWay lets another process finish the kill that it has begun: two that
// revoke the same accounts get each other's answers. What was only fenced, as by
// the gateway's breaker, is for this one to stop, at once.
func (s *killSwitch) giveWay(ctx context.Context) {
	for deadline := time.Now().Add(wayTime); time.Now().Before(deadline) && ctx.Err() == nil; pause(ctx, fenceEvery/4) {
		state, err := s.Fence().State(s.Agent())
		if err != nil || !state.Engaged() {
			return
		}
		r, err := killswitch.LastReceipt(s.dir, s.Agent(), killswitch.PublicKey{})
		begun := err == nil && r.Epoch == state.Epoch
		if begun && r.Whole || !begun && time.Since(state.Time) > fenceEvery {
			return
		}
	}
}

// pause waits for a while, or until ctx ends. Another process may change the
// fence at any time, and that is a file: nobody tells.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
