package killswitch_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/killswitch"
	"github.com/managemyclaw/hardshell/killswitch/killswitchtest"
)

// exampleSwitch stops an agent that is only in memory.
func exampleSwitch(dir string) (*killswitch.Switch, *killswitchtest.Thing) {
	agent := killswitchtest.NewThing("container/openclaw")
	key, err := killswitch.GenerateKey()
	if err != nil {
		panic(err)
	}
	s, err := killswitch.New(killswitch.Config{
		Agent: "inbox",
		Dir:   dir,
		Targets: []killswitch.Target{{
			Name: "process",
			Ladder: []killswitch.Rung{
				{Actuators: []killswitch.Actuator{&killswitchtest.Actuator{Called: "engine.stop", Thing: agent, Fault: killswitchtest.Fails}}},
				{Actuators: []killswitch.Actuator{&killswitchtest.Actuator{Called: "cgroup.kill", Thing: agent}}},
			},
			Observers: []killswitch.Observer{&killswitchtest.Observer{Called: "proc", Thing: agent}},
		}},
		Trail:    trail.Discard,
		Key:      key,
		Interval: 10 * time.Millisecond,
	})
	if err != nil {
		panic(err)
	}
	return s, agent
}

func exampleDir() (dir string, remove func()) {
	dir, err := os.MkdirTemp("", "killswitch")
	if err != nil {
		panic(err)
	}
	return dir, func() { os.RemoveAll(dir) }
}

func ExampleSwitch_Fire() {
	dir, remove := exampleDir()
	defer remove()
	s, _ := exampleSwitch(dir)
	r, err := s.Fire(context.Background(), "it deletes mail")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r.Off(), r.Epoch, r.Reason)
	for _, t := range r.Targets {
		fmt.Println(t.Name, t.State, t.ConfirmedAfter > 0)
		for _, a := range t.Tried {
			fmt.Println(" ", a.Actuator, a.Error)
		}
	}
	// Output:
	// true 1 it deletes mail
	// process confirmed true
	//   engine.stop it was told to fail
	//   cgroup.kill
}

func ExampleFence() {
	dir, remove := exampleDir()
	defer remove()
	fence, err := killswitch.OpenFence(filepath.Join(dir, "fence"))
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	fmt.Println(fence.Fenced(ctx, "inbox"))
	epoch, err := fence.Engage(ctx, "inbox", "it deletes mail")
	fmt.Println(epoch, err)
	fmt.Println(errors.Is(fence.Fenced(ctx, "inbox"), killswitch.ErrEngaged))
	// Output:
	// <nil>
	// 1 <nil>
	// true
}

func ExampleVerifyReceipt() {
	dir, remove := exampleDir()
	defer remove()
	s, _ := exampleSwitch(dir)
	r, _ := s.Fire(context.Background(), "it deletes mail")
	data, _ := json.MarshalIndent(r, "", "  ")

	// Elsewhere, with the public key alone.
	got, err := killswitch.VerifyReceipt(data, r.Key)
	fmt.Println(got.Agent, got.Off(), err)
	other, _ := killswitch.GenerateKey()
	_, err = killswitch.VerifyReceipt(data, other.Public())
	fmt.Println(errors.Is(err, killswitch.ErrSignature))
	// Output:
	// inbox true <nil>
	// true
}

func ExampleSwitch_Reset() {
	dir, remove := exampleDir()
	defer remove()
	s, agent := exampleSwitch(dir)
	secret := killswitch.GenerateResetSecret() // to be kept by somebody, and not here
	if err := killswitch.SetResetSecret(dir, "inbox", secret); err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	r, _ := s.Fire(ctx, "it deletes mail")
	fmt.Println(s.Reset(ctx, r.Epoch, "a guess"))
	fmt.Println(s.Reset(ctx, r.Epoch, secret), len(agent.On()))
	// Output:
	// killswitch: wrong second secret
	// <nil> 0
}

func ExampleSwitch_Arm() {
	dir, remove := exampleDir()
	defer remove()
	s, _ := exampleSwitch(dir)
	a, err := s.Arm(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, f := range a.Findings {
		fmt.Println(f)
	}
	// Output:
	// target process: engine.stop is not prepared: it was told to fail
	// there is no trail: nobody can tell afterwards what was done
	// no second secret is set: once stopped, the agent could not be reset
}

func ExampleSwitch_Drill() {
	dir, remove := exampleDir()
	defer remove()
	s, agent := exampleSwitch(dir)
	canary := killswitchtest.NewThing("container/canary")
	d, err := s.Drill(context.Background(), killswitch.Rehearsal{
		Variant: "docker-hung",
		Broken:  []string{"engine.stop"},
		Targets: []killswitch.Target{{
			Name: "process",
			Ladder: []killswitch.Rung{
				{Actuators: []killswitch.Actuator{&killswitchtest.Actuator{Called: "engine.stop", Thing: canary, Fault: killswitchtest.Waits}}, Patience: 10 * time.Millisecond},
				{Actuators: []killswitch.Actuator{&killswitchtest.Actuator{Called: "cgroup.kill", Thing: canary}}},
			},
			Observers: []killswitch.Observer{&killswitchtest.Observer{Called: "proc", Thing: canary}},
		}},
	})
	fmt.Println(d.Passed, err, agent.On())
	// Output: true <nil> [container/openclaw]
}

// After a restart: what was begun is completed, and the agent kept down until
// it is reset.
func ExampleSwitch_Hold() {
	dir, remove := exampleDir()
	defer remove()
	before, _ := exampleSwitch(dir)
	if _, err := before.Fence().Engage(context.Background(), "inbox", "it deletes mail"); err != nil {
		fmt.Println(err)
		return
	}
	s, agent := exampleSwitch(dir) // another process
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := s.Hold(ctx)
	fmt.Println(errors.Is(err, context.DeadlineExceeded), agent.On(), s.Status(context.Background()).Targets[0].State)
	// Output: true [] confirmed
}
