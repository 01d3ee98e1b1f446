package remote_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/killswitch"
	"github.com/managemyclaw/hardshell/killswitch/killswitchtest"
	"github.com/managemyclaw/hardshell/killswitch/remote"
)

// What the page says of a real switch is what its fence holds and its observers
// see, and a phone stops a real agent.
func TestStateOf(t *testing.T) {
	dir := t.TempDir()
	thing := killswitchtest.NewThing("container/openclaw")
	s, err := killswitch.New(killswitch.Config{
		Agent: theAgent, Dir: dir, Trail: trail.Discard,
		Targets: []killswitch.Target{{
			Name: "container", Ladder: []killswitch.Rung{{Actuators: []killswitch.Actuator{&killswitchtest.Actuator{Called: "container.kill", Thing: thing}}}},
			Observers: []killswitch.Observer{&killswitchtest.Observer{Called: "container.look", Thing: thing}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := killswitch.OpenFence(dir + "/fence"); err != nil {
		t.Fatal(err)
	}
	state := remote.StateOf(s)
	before, err := state(t.Context())
	if err != nil || before.Stopped || !slices.Contains(before.Lines, "container: on") {
		t.Errorf("%+v %v", before, err)
	}
	w := newWorld(t, func(c *remote.Config) { c.Switch, c.State = s, state })
	p := w.phone()
	p.send("GET", "/"+w.link.Reveal(), nil)
	p.shows(200, "openclaw may run", "container: on")
	p.tap()
	p.tap("reason", "it deletes mail")
	p.shows(200, "openclaw is confirmed off", "container: off", "It cannot be started again before a reset.", "epoch 1): it deletes mail (by the page from")
	if len(thing.On()) > 0 {
		t.Errorf("on: %q", thing.On())
	}
	after, err := state(t.Context())
	if err != nil || !after.Stopped || !slices.ContainsFunc(after.Lines, func(l string) bool { return strings.Contains(l, "epoch 1") }) {
		t.Errorf("%+v %v", after, err)
	}
}
