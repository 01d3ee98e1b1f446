package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/managemyclaw/hardshell/firewall/egress"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/container/docker"
	"github.com/managemyclaw/hardshell/harden/container/halt"
	"github.com/managemyclaw/hardshell/killswitch"
)

// A canary is what stands for the agent.
type canary struct{ container, user, agent, token string }

func (c *canary) add(fs *flag.FlagSet) {
	fs.StringVar(&c.container, "canary", "", "`NAME` of a running container that is stopped in place of the agent's; best on a network\nof its own, since who shares its bridge is cut off with it meanwhile")
	fs.StringVar(&c.user, "canary-user", "", "`USER` at Composio whose accounts are revoked in place of all")
	fs.StringVar(&c.agent, "canary-agent", "", "`NAME` of an agent in the policy whom the gateway denies in place of the agent")
	fs.StringVar(&c.token, "canary-token-file", "", "`FILE` with a token of that agent's")
}

// label tells the lock that holds the canary from the one that holds the agent.
func (c canary) label() string { return lockLabel("canary", c.container) }

// standsFor returns an error if what is to stand for the agent is the agent.
func (p *program) standsFor(ctx context.Context, agent string, c canary) error {
	if len(p.containers) == 0 {
		return usageError("say which container is the agent's, with --container")
	}
	if c.agent == agent {
		return usageError("--canary-agent: that is the agent itself")
	}
	settings, err := p.inspectCanary(ctx, c)
	if err != nil {
		return err
	}
	for _, name := range append(slices.Clone(p.containers), agent) {
		found, err := p.engine.Containers(ctx, name)
		switch {
		case errors.Is(err, container.ErrNoContainer):
		case err != nil:
			return err
		case slices.ContainsFunc(found, func(s container.Settings) bool { return s.ID == settings.ID }):
			return usageError("--canary: that is the agent's own container: name one that stands for it, or drill what is real with --real")
		}
	}
	return nil
}

func (p *program) inspectCanary(ctx context.Context, c canary) (*container.Settings, error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	found, err := p.engine.Containers(ctx, c.container)
	if err != nil {
		return nil, fmt.Errorf("--canary: %w", err)
	}
	return &found[0], nil
}

// startCanary starts a canary that does not run. It is nobody's agent.
func (p *program) startCanary(ctx context.Context, c canary) error {
	settings, err := p.inspectCanary(ctx, c)
	if err != nil || settings.Running() {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	return p.engine.Start(ctx, settings.ID)
}

// targets are what stands for the agent's: the same as those of kill, but that
// what is done to them is undone.
func (s *rehearsal) targets(ctx context.Context) error {
	settings, err := s.inspectCanary(ctx, s.canary)
	if err != nil {
		return err
	}
	s.Targets = s.gear.containers(s.program, []string{s.canary.container}, s.through)
	s.gear.lock.Label = s.canary.label()
	s.cutter = &cutter{Lock: s.gear.lock}
	present := &halt.Tracker{Agent: halt.Agent{Names: []string{settings.ID}}, Engine: s.engine, DataRoot: s.engineRoot()}
	s.cleanup = append(s.cleanup, func() { present.Close() })
	s.cutter.undo.Source, s.cutter.undo.NetNS, s.cutter.undo.Label = workloads(present, releaseTime), s.netns, s.gear.lock.Label
	for i := range s.Targets {
		for _, rung := range s.Targets[i].Ladder {
			for j, a := range rung.Actuators {
				switch a := a.(type) {
				case *egress.Lock:
					rung.Actuators[j] = s.cutter
				case *halt.KeepDown:
					rung.Actuators[j] = &spared{a, s.engine, settings.ID, settings.RestartPolicy}
				case *halt.Rung:
					if a.Step == halt.StepDisconnect {
						rung.Actuators[j] = &detour{a, s.engine, settings}
					}
				}
			}
		}
	}
	if s.canary.user != "" {
		t, err := s.composioTarget([]string{s.canary.user})
		if err != nil || t == nil {
			return errors.Join(usageError("--canary-user: give also --composio-key-file"), err)
		}
		s.Targets = append(s.Targets, *t)
	}
	if s.canary.agent != "" {
		t, err := s.gatewayTarget(s.canary.agent, s.canary.token)
		if err != nil || t == nil {
			return errors.Join(usageError("--canary-agent: give also --canary-token-file and --gateway-url"), err)
		}
		t.Ladder[0].Actuators[0] = &brief{t.Ladder[0].Actuators[0].(*denial)}
		s.Targets = append(s.Targets, *t)
	}
	return nil
}

// inOrder has each target go off by what is done to it: of a container that has
// ended, the network is off, and the processes are frozen, whatever was done.
func (s *rehearsal) inOrder() {
	var first []string
	for _, t := range s.Targets {
		if t.Name == egressTarget || t.Name == frozenTarget || t.Name == restartsTarget {
			first = append(first, t.Name)
		}
	}
	s.After = map[string][]string{processesTarget: first}
}

// A cutter cuts a canary off the network.
type cutter struct {
	*egress.Lock

	do   func(context.Context) error // in place of the lock's own; or nil
	undo egress.Lock                 // what is undone is so by the engine that there is
}

// Do implements [killswitch.Actuator].
func (c *cutter) Do(ctx context.Context) error {
	if c.do != nil {
		return c.do(ctx)
	}
	return c.Lock.Do(ctx)
}

// Release implements [killswitch.Releaser].
func (c *cutter) Release(ctx context.Context) error { return c.undo.Release(ctx) }

// spared is what switches a canary's restart policy off for as long as the drill
// takes. To have it back starts nothing.
type spared struct {
	*halt.KeepDown

	engine *docker.Engine
	id     string
	policy string
}

// Release implements [killswitch.Releaser].
func (s *spared) Release(ctx context.Context) error {
	return restorePolicy(ctx, s.engine, s.id, s.policy)
}

// restorePolicy gives a container its restart policy back once the engine knows
// that it has ended: before, that would start it again.
func restorePolicy(ctx context.Context, e *docker.Engine, id, policy string) error {
	if policy == "" || policy == "no" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, policyTime)
	defer cancel()
	for {
		found, err := e.Containers(ctx, id)
		if err != nil {
			return fmt.Errorf("its restart policy was %s, and is switched off: %w", policy, err)
		}
		if !found[0].Running() {
			return e.SetRestartPolicy(ctx, id, policy)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("its restart policy was %s, and is switched off as long as it runs", policy)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// policyTime is more than an engine takes to notice that a container has ended.
const policyTime = 5 * time.Second

// A detour takes a canary off its networks for as long as the drill takes.
type detour struct {
	*halt.Rung

	engine *docker.Engine
	canary *container.Settings // as it was
}

// Release implements [killswitch.Releaser].
func (d *detour) Release(ctx context.Context) error {
	found, err := d.engine.Containers(ctx, d.canary.ID)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range d.canary.Networks {
		if !slices.ContainsFunc(found[0].Networks, func(on container.Network) bool { return on.Name == n.Name }) {
			errs = append(errs, d.engine.Connect(ctx, d.canary.ID, n.Name))
		}
	}
	return errors.Join(errs...)
}

// brief is the denial of a canary, which is over when the drill is.
type brief struct{ *denial }

// Release implements [killswitch.Releaser]. The second secret of a canary is no
// secret: it is in the state directory.
func (b *brief) Release(ctx context.Context) error {
	state, err := b.fence.State(b.agent)
	if err != nil || !state.Engaged() {
		return err
	}
	name := filepath.Join(b.p.stateDir, "canary.secret")
	if !killswitch.HasResetSecret(b.p.stateDir, b.agent) {
		secret := killswitch.GenerateResetSecret()
		if err := writeAtomic(name, secret+"\n", 0o600); err != nil {
			return err
		}
		if err := killswitch.SetResetSecret(b.p.stateDir, b.agent, secret); err != nil {
			return err
		}
	}
	secret, _, err := readSecret(name)
	if err != nil {
		return err
	}
	s, err := killswitch.New(killswitch.Config{Agent: b.agent, Dir: b.p.stateDir, Trail: b.p.trail(), Targets: []killswitch.Target{{
		Name: "canary", Ladder: []killswitch.Rung{one(b.denial)}, Observers: []killswitch.Observer{harmless{}},
	}}})
	if err != nil {
		return err
	}
	return s.Reset(ctx, state.Epoch, secret.Reveal())
}

// harmless is what there is to see of an agent that is only a name.
type harmless struct{}

func (harmless) Name() string                                         { return "canary.name" }
func (harmless) Remaining(context.Context) (map[string]string, error) { return nil, nil } //nolint:nilnil // there is none
