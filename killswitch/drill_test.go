package killswitch_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/killswitch"
	"github.com/managemyclaw/hardshell/killswitch/killswitchtest"
)

// canary is two targets, the first with two rungs.
func canary() (map[string]*killswitchtest.Thing, []killswitch.Target) {
	things := map[string]*killswitchtest.Thing{"agent": killswitchtest.NewThing("canary"), "accounts": killswitchtest.NewThing("ca_canary")}
	agent := target("agent", things["agent"])
	agent.Ladder = append(agent.Ladder, killswitch.Rung{Actuators: []killswitch.Actuator{&killswitchtest.Actuator{Called: "agent.force", Thing: things["agent"]}}})
	return things, []killswitch.Target{agent, target("accounts", things["accounts"])}
}

// A drill passes if everything was seen on before and off after, as its variant
// has it; and by nothing else.
func TestDrill(t *testing.T) {
	stop := func(ts []killswitch.Target, i int) *killswitchtest.Actuator {
		return ts[i].Ladder[0].Actuators[0].(*killswitchtest.Actuator)
	}
	look := func(ts []killswitch.Target, i int) *killswitchtest.Observer {
		return ts[i].Observers[0].(*killswitchtest.Observer)
	}
	for name, c := range map[string]struct {
		variant      string
		broken, lost []string
		change       func(map[string]*killswitchtest.Thing, []killswitch.Target)
		trail        killswitchtest.Fault
		why          string // it does not pass
	}{
		"nothing is broken": {variant: "normal"},
		"the first rung hangs, and the second helps": {
			variant: "docker-hung", broken: []string{"agent.stop"},
			change: func(_ map[string]*killswitchtest.Thing, ts []killswitch.Target) {
				stop(ts, 0).Fault = killswitchtest.Hangs
			},
		},
		"a target is lost, and the others are not": {
			variant: "composio-down", broken: []string{"accounts.stop", "accounts.look"}, lost: []string{"accounts"},
			change: func(_ map[string]*killswitchtest.Thing, ts []killswitch.Target) {
				stop(ts, 1).Fault, look(ts, 1).Fault = killswitchtest.Waits, killswitchtest.Waits
			},
		},
		"the trail is down": {variant: "trail-down", broken: []string{"trail"}, trail: killswitchtest.Fails},

		"a variant in name only":      {variant: "docker-hung", broken: []string{"agent.stop"}, why: "agent.stop is said to be broken, and worked"},
		"a trail that is not down":    {variant: "trail-down", broken: []string{"trail"}, why: "trail is said to be broken, and worked"},
		"what was broken was not met": {variant: "force-fails", broken: []string{"agent.force"}, why: "was not tried"},
		"the trail is down in a normal one": {
			variant: "normal", trail: killswitchtest.Fails, why: "it is not in the trail",
		},
		"it was off already": {
			variant: "normal", why: "before the drill, agent.look said that it was off",
			change: func(things map[string]*killswitchtest.Thing, _ []killswitch.Target) { things["agent"].Stop() },
		},
		"an observer that always says off": {
			variant: "normal", why: "before the drill, accounts.look said that it was off",
			change: func(_ map[string]*killswitchtest.Thing, ts []killswitch.Target) {
				look(ts, 1).Fault = killswitchtest.Lies
			},
		},
		"an observer that always says on": {
			variant: "normal", why: "target accounts: it is failed",
			change: func(_ map[string]*killswitchtest.Thing, ts []killswitch.Target) {
				look(ts, 1).Fault = killswitchtest.Alleges
			},
		},
		"an observer that cannot look": {
			variant: "normal", why: "before the drill, accounts.look could not look",
			change: func(_ map[string]*killswitchtest.Thing, ts []killswitch.Target) {
				look(ts, 1).Fault = killswitchtest.Fails
			},
		},
		"an actuator that does nothing": {
			variant: "normal", why: "target accounts: it is failed",
			change: func(_ map[string]*killswitchtest.Thing, ts []killswitch.Target) {
				stop(ts, 1).Fault = killswitchtest.Lies
			},
		},
		"what is broken fails, and has done it": {
			variant: "docker-hung", broken: []string{"agent.stop"}, why: "nothing was tried but what is said to be broken",
			change: func(things map[string]*killswitchtest.Thing, ts []killswitch.Target) {
				a := stop(ts, 0)
				a.Fault, a.Before = killswitchtest.Waits, func() { things["agent"].Stop() }
			},
		},
		"a lost target that somebody confirms": {
			variant: "composio-down", broken: []string{"accounts.stop"}, lost: []string{"accounts"}, why: "it is confirmed, though its last way is broken",
			change: func(things map[string]*killswitchtest.Thing, ts []killswitch.Target) {
				a := stop(ts, 1)
				a.Fault, a.Before = killswitchtest.Fails, func() { things["accounts"].Stop() }
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				real := killswitchtest.NewThing("real")
				cfg := config(t, target("agent", real))
				rec := &recorder{fault: c.trail}
				cfg.Trail = rec
				s := newSwitch(t, cfg)
				things, targets := canary()
				if c.change != nil {
					c.change(things, targets)
				}
				d, err := s.Drill(t.Context(), killswitch.Rehearsal{Variant: c.variant, Targets: targets, Broken: c.broken, Lost: c.lost})
				for _, thing := range things {
					thing.Let()
				}
				if d == nil {
					t.Fatal(err)
				}
				if passed := c.why == ""; d.Passed != passed || (err == nil) != passed || !passed && !errors.Is(err, killswitch.ErrDrill) || !strings.Contains(strings.Join(d.Why, "\n"), c.why) {
					t.Errorf("passed %t: %q, %v", d.Passed, d.Why, err)
				}
				if len(real.On()) != 1 || s.Fence().Fenced(t.Context(), "inbox") != nil {
					t.Error("the agent was touched")
				}
				if len(d.Targets) > 0 && c.trail == "" && len(rec.kinds(trail.KindDrill)) != 2 {
					t.Errorf("trail: %+v", rec.events)
				}
				if things["agent"].Start("canary"); len(things["agent"].On()) != 1 {
					t.Error("the canary was not released")
				}
				drills, err := killswitch.ReadDrills(cfg.Dir, "inbox", testKey().Public())
				if err != nil || len(drills) != 1 || drills[0].Passed != d.Passed || drills[0].Variant != c.variant {
					t.Errorf("%+v, %v", drills, err)
				}
				time.Sleep(time.Hour)
			})
		})
	}
}

// What would be stopped by what stops another target too must go off by what is
// done to it: the other one waits. It is begun even so if that fails, so that
// the evidence has all of it.
func TestDrillOneAfterTheOther(t *testing.T) {
	for name, c := range map[string]struct {
		fault  killswitchtest.Fault // of what cuts the network
		after  map[string][]string
		passed bool
	}{
		"each by its own":                       {after: map[string][]string{"process": {"network"}}, passed: true},
		"a lock that does nothing":              {fault: killswitchtest.Lies, after: map[string][]string{"process": {"network"}}},
		"a lock that does nothing, all at once": {fault: killswitchtest.Lies, passed: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := config(t, target("agent", killswitchtest.NewThing("a")))
				s := newSwitch(t, cfg)
				wire, life := killswitchtest.NewThing("wire"), killswitchtest.NewThing("life")
				network, process := target("network", wire), target("process", life)
				network.Ladder[0].Actuators[0].(*killswitchtest.Actuator).Fault = c.fault
				kill := process.Ladder[0].Actuators[0].(*killswitchtest.Actuator)
				kill.Before = func() { wire.Stop() } // who is dead sends nothing
				began := time.Now()
				d, err := s.Drill(t.Context(), killswitch.Rehearsal{Variant: "normal", Targets: []killswitch.Target{process, network}, After: c.after})
				if d == nil || d.Passed != c.passed || (err == nil) != c.passed {
					t.Fatalf("%+v, %v", d, err)
				}
				if kill.Calls() == 0 || d.Targets[0].State != killswitch.Confirmed || d.Targets[0].ConfirmedAfter > time.Second {
					t.Errorf("what came after, %v in all: %+v", time.Since(began), d.Targets[0])
				}
				drills, err := killswitch.ReadDrills(cfg.Dir, "inbox", testKey().Public())
				if err != nil || len(drills) != 1 || len(drills[0].After) != len(c.after) {
					t.Errorf("%+v, %v", drills, err)
				}
			})
		})
	}
}

// A drill of the real targets stops the agent, and leaves it stopped.
func TestDrillOfTheRealTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		thing := killswitchtest.NewThing("a")
		cfg := config(t, target("agent", thing))
		s := newSwitch(t, cfg)
		d, err := s.Drill(killswitch.WithRequester(t.Context(), "operator/ann"), killswitch.Rehearsal{Variant: killswitch.VariantNormal, Real: true})
		if err != nil || !d.Passed || !d.Real || d.Epoch != 1 || d.By != "operator/ann" || len(thing.On()) > 0 {
			t.Errorf("%+v, %v", d, err)
		}
		if err := s.Fence().Fenced(t.Context(), "inbox"); !errors.Is(err, killswitch.ErrEngaged) {
			t.Error(err)
		}
		if r := stored(t, cfg.Dir); !r.Off() || r.Reason != "drill: normal" {
			t.Errorf("%+v", r)
		}
		// Now it is off, and a drill would prove nothing.
		if d, err := s.Drill(t.Context(), killswitch.Rehearsal{Variant: killswitch.VariantNormal, Real: true}); !errors.Is(err, killswitch.ErrDrill) || d.Passed {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

// Evidence that was changed, moved or made up is not read.
func TestDrillsThatWereForged(t *testing.T) {
	thing := killswitchtest.NewThing("a")
	cfg := config(t, target("agent", thing))
	s := newSwitch(t, cfg)
	_, targets := canary()
	if _, err := s.Drill(t.Context(), killswitch.Rehearsal{Variant: "normal", Targets: targets}); err != nil {
		t.Fatal(err)
	}
	files := must(filepath.Glob(filepath.Join(cfg.Dir, "drills", "inbox", "*.json")))
	data := string(must(os.ReadFile(files[0])))
	for name, forged := range map[string]string{
		"changed":        strings.Replace(data, `"variant":"normal"`, `"variant":"docker-hung"`, 1),
		"with more":      strings.Replace(data, `"passed":true`, `"passed":true,"more":1`, 1),
		"without":        data[:strings.Index(data, `,"signature"`)] + "}",
		"a flag":         `{"schema":"hardshell.drill/v1","agent":"inbox","variant":"normal","passed":true}`,
		"twice":          strings.Replace(data, `{"schema"`, `{"passed":true,"schema"`, 1),
		"another schema": strings.Replace(data, "hardshell.drill/v1", "hardshell.receipt/v1", 1),
	} {
		write(t, filepath.Join(cfg.Dir, "drills", "inbox", "z.json"), forged)
		drills, err := killswitch.ReadDrills(cfg.Dir, "inbox", testKey().Public())
		if err == nil || len(drills) != 1 {
			t.Errorf("%s: %d drills, %v", name, len(drills), err)
		}
	}
	check(t, os.Remove(filepath.Join(cfg.Dir, "drills", "inbox", "z.json")))
	check(t, os.Rename(filepath.Join(cfg.Dir, "drills", "inbox"), filepath.Join(cfg.Dir, "drills", "other")))
	if drills, err := killswitch.ReadDrills(cfg.Dir, "other", testKey().Public()); err == nil || len(drills) > 0 {
		t.Errorf("another agent's: %v, %v", drills, err)
	}
}

func TestRehearsalsThatMakeNoSense(t *testing.T) {
	s := newSwitch(t, config(t, target("agent", killswitchtest.NewThing("a"))))
	_, targets := canary()
	for name, r := range map[string]killswitch.Rehearsal{
		"no variant":                {Targets: targets},
		"no canary":                 {Variant: "normal"},
		"normal, and broken":        {Variant: "normal", Targets: targets, Broken: []string{"agent.stop"}},
		"a variant without a break": {Variant: "docker-hung", Targets: targets},
		"nobody of the name":        {Variant: "docker-hung", Targets: targets, Broken: []string{"docker"}},
		"no target of the name":     {Variant: "docker-hung", Targets: targets, Broken: []string{"agent.stop"}, Lost: []string{"x"}},
		"after nobody":              {Variant: "normal", Targets: targets, After: map[string][]string{"agent": {"x"}}},
		"nobody after":              {Variant: "normal", Targets: targets, After: map[string][]string{"x": {"agent"}}},
		"after itself":              {Variant: "normal", Targets: targets, After: map[string][]string{"agent": {"agent"}}},
		"after each other":          {Variant: "normal", Targets: targets, After: map[string][]string{"agent": {"accounts"}, "accounts": {"agent"}}},
		"real, one after the other": {Variant: "normal", Real: true, After: map[string][]string{"agent": {}}},
		"everything is lost":        {Variant: "docker-hung", Targets: targets, Broken: []string{"agent.stop"}, Lost: []string{"agent", "accounts"}},
	} {
		if d, err := s.Drill(t.Context(), r); err == nil || d != nil {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
}
