package halt_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/container/docker"
	"github.com/managemyclaw/hardshell/harden/container/halt"
	"github.com/managemyclaw/hardshell/internal/lab"
)

// A late engine carries out a change of a policy when it is let.
type late struct {
	*docker.Engine
	before func(context.Context) error // what it does first
	mute   bool                        // it answers nothing else either
}

func (e *late) SetRestartPolicy(ctx context.Context, id, policy string) error {
	if err := e.before(ctx); err != nil {
		return err
	}
	return e.Engine.SetRestartPolicy(ctx, id, policy)
}

func (e *late) List(ctx context.Context) ([]container.Listed, error) {
	if e.mute {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return e.Engine.List(ctx)
}

// An engine that is slow is not one that hangs: what it has not said before the
// processes are killed it may say afterwards, and what it starts meanwhile is
// ended too.
func TestKillWaitsForSlowEngine(t *testing.T) {
	b := start(t, named)
	id := b.run("agent", "--restart=always", lab.AgentImage)
	dead := func(ctx context.Context) error {
		for len(b.truth(id)) > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(5 * time.Millisecond):
			}
		}
		return nil
	}
	revived := false
	e := &late{Engine: b.engine, before: func(ctx context.Context) error {
		if err := dead(ctx); err != nil {
			return err
		}
		// A start that is refused has been undone already.
		_, err := b.Docker(ctx, "start", "agent")
		revived = err == nil
		// It may be seen to run only after the engine has said so, or be dead by then.
		for range 60 {
			if len(b.truth(id)) > 0 {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		return dead(ctx)
	}}
	tracker := &halt.Tracker{Agent: named, Engine: e}
	defer tracker.Close()
	kill := &halt.Kill{Tracker: tracker, EngineTimeout: 4 * time.Second} // and so 6 afterwards
	if err := kill.Arm(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := kill.Do(t.Context()); err != nil {
		t.Error(err)
	}
	t.Log("started meanwhile:", revived)
	b.confirm(b.procs)
	if policy := policyOnDisk(filepath.Join(b.Dir(), "docker/containers", id, "hostconfig.json")); policy != "no" {
		t.Errorf("its policy is %q", policy)
	}
}

// One that hangs is not waited for again, and that it may start the agent is said.
func TestKillNamesWhatEngineMayStart(t *testing.T) {
	b := start(t, named)
	b.run("agent", "--restart=always", lab.AgentImage)
	hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	for name, e := range map[string]*late{
		"all of it":   {Engine: b.engine, before: hang, mute: true},
		"the changes": {Engine: b.engine, before: hang},
	} {
		t.Run(name, func(t *testing.T) {
			tracker := &halt.Tracker{Agent: named, Engine: b.engine}
			if err := tracker.Arm(t.Context()); err != nil {
				t.Fatal(err)
			}
			tracker.Engine = e
			defer tracker.Close()
			began := time.Now()
			err := (&halt.Kill{Tracker: tracker}).Do(t.Context())
			open, ok := errors.AsType[interface {
				error
				Open() map[string]string
			}](err)
			if !ok || !strings.Contains(open.Open()["container/agent"], "always") {
				t.Errorf("got %v", err)
			}
			t.Log("after", time.Since(began))
		})
	}
}
