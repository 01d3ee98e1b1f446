package killswitchtest_test

import (
	"context"
	"fmt"

	"github.com/managemyclaw/hardshell/killswitch"
	"github.com/managemyclaw/hardshell/killswitch/killswitchtest"
)

// An actuator that says it has done it, and has not, breaks the rule that asks
// for an effect.
func ExampleTestActuator() {
	thing := killswitchtest.NewThing("agent")
	err := killswitchtest.TestActuator(context.Background(), killswitchtest.ActuatorSubject{
		New: func() (killswitch.Actuator, error) {
			return &killswitchtest.Actuator{Called: "agent.stop", Thing: thing, Fault: killswitchtest.Lies}, nil
		},
		Start:   func(context.Context) error { thing.Start("agent"); return nil },
		Running: func(context.Context) (bool, error) { return len(thing.On()) > 0, nil },
		NoStuck: "it depends on nothing",
		Within:  1,
	})
	fmt.Println(err != nil)
	// Output: true
}

// An observer is tested on the thing that it looks at.
func ExampleTestObserver() {
	thing := killswitchtest.NewThing("agent")
	observer := func(fault killswitchtest.Fault) func() (killswitch.Observer, error) {
		return func() (killswitch.Observer, error) {
			return &killswitchtest.Observer{Called: "agent.look", Thing: thing, Fault: fault}, nil
		}
	}
	fmt.Println(killswitchtest.TestObserver(context.Background(), killswitchtest.ObserverSubject{
		New:     observer(""),
		Start:   func(context.Context) error { thing.Start("agent"); return nil },
		Stop:    func(context.Context) error { thing.Stop(); return nil },
		Running: func(context.Context) (bool, error) { return len(thing.On()) > 0, nil },
		NoBreak: "it looks at memory",
		Blind:   observer(killswitchtest.Fails),
		Stuck:   observer(killswitchtest.Waits),
	}))
	// Output: <nil>
}
