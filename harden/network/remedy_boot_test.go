package network

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host/hosttest"
)

var bootUnits = &firewall.Units{
	Restore: []string{"/usr/bin/own", "restore"},
	Watch:   []string{"/usr/bin/own", "watch"},
	Recover: []string{"/usr/bin/own", "recover"},
	Policy:  "/var/lib/own/exposure.json",
}

// Where systemd runs the machine, the policy and the units are written, and then
// enabled; every step that fails leaves everything as it was.
func TestBootActionsWithSystemd(t *testing.T) {
	machine := func() *hosttest.Machine {
		m := new(hosttest.Machine).Dir("/run/systemd/system", 0o755).Dir("/etc/systemd/system", 0o755).Dir("/var/lib/own", 0o700)
		return m.Program("systemctl", hosttest.Reply{Admin: true})
	}
	m := machine()
	actions, notes, err := bootActions(m.View(), bootUnits, firewall.Policy{})
	if err != nil || len(notes) > 0 || len(actions) != 5 {
		t.Fatalf("%d actions, %q, %v", len(actions), notes, err)
	}
	for _, a := range actions {
		if err := a.Apply(t.Context(), m.Host()); err != nil {
			t.Fatal(err)
		}
	}
	text, _ := m.Read("/var/lib/own/exposure.json")
	if _, err := firewall.ParsePolicy([]byte(text)); err != nil {
		t.Errorf("the policy cannot be read back: %v", err)
	}
	for _, name := range []string{"recover", "restore", "watch"} {
		if unit, _ := m.Read("/etc/systemd/system/hardshell-" + name + ".service"); !strings.Contains(unit, "/usr/bin/own \""+name+"\"") {
			t.Errorf("unit %s: %s", name, unit)
		}
	}
	var asked []string
	for _, c := range m.Calls() {
		if c.Op == "change" {
			asked = append(asked, strings.Join(c.Command.Args, " "))
		}
	}
	if want := []string{
		"daemon-reload",
		"enable hardshell-recover.service hardshell-restore.service hardshell-watch.service",
		"restart hardshell-watch.service",
	}; !slices.Equal(asked, want) {
		t.Errorf("systemctl %q", asked)
	}

	// What is there already is not written again.
	again, _, err := bootActions(m.View(), bootUnits, firewall.Policy{})
	if err != nil || len(again) != 1 {
		t.Errorf("again: %d actions, %v", len(again), err)
	}

	fault := errors.New("injected")
	for n := 1; ; n++ {
		m := machine()
		before := m.Snapshot()
		actions, _, err := bootActions(m.View(), bootUnits, firewall.Policy{})
		if err != nil {
			t.Fatal(err)
		}
		m.FailChange(n, fault)
		done := 0
		for ; done < len(actions) && err == nil; done++ {
			err = actions[done].Apply(t.Context(), m.Host())
		}
		if err == nil {
			if n < 5 {
				t.Errorf("only %d changes", n-1)
			}
			break
		}
		for i := done - 2; i >= 0; i-- { // the one that failed has changed nothing
			if err := actions[i].Revert(t.Context(), m.Host()); err != nil {
				t.Errorf("change %d fails: undo %d: %v", n, i, err)
			}
		}
		if diff := before.Diff(m.Snapshot()); diff != "" {
			t.Errorf("change %d fails, and this is left:\n%s", n, diff)
		}
	}
}

// Without systemd a person must know what to run; the policy is saved all the
// same.
func TestBootActionsWithoutSystemd(t *testing.T) {
	m := new(hosttest.Machine).Dir("/var/lib/own", 0o700)
	actions, notes, err := bootActions(m.View(), bootUnits, firewall.Policy{})
	if err != nil || len(actions) != 1 || len(notes) != 1 || !strings.Contains(notes[0], "/usr/bin/own restore") {
		t.Errorf("%d actions, %q, %v", len(actions), notes, err)
	}
	if actions, notes, err = bootActions(m.View(), nil, firewall.Policy{}); err != nil || len(actions) != 0 || len(notes) != 1 {
		t.Errorf("without units: %d actions, %q, %v", len(actions), notes, err)
	}
	m.Deny("/run")
	if _, _, err := bootActions(m.View(), bootUnits, firewall.Policy{}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("who may not look: %v", err)
	}
}

// An action is told apart from others by its change.
func TestEnableUnitsChange(t *testing.T) {
	var a harden.Action = enableUnits{"a.service"}
	if c := a.Change(); c == (enableUnits{"b.service"}).Change() || c.Summary == "" {
		t.Errorf("%+v", c)
	}
}
