package killswitch_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/killswitch"
	"github.com/managemyclaw/hardshell/killswitch/killswitchtest"
)

// Hold stops what comes back, each time, and ends with the reset.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, cfg, thing := killed(t)
		act := cfg.Targets[0].Ladder[0].Actuators[0].(*killswitchtest.Actuator)
		ended := make(chan error, 1)
		go func() { ended <- s.Hold(t.Context()) }()
		for n := 1; n <= 3; n++ {
			time.Sleep(10 * time.Second)
			if got := act.Calls(); got != n {
				t.Fatalf("it was stopped %d times, want %d", got, n)
			}
			check(t, act.Release(t.Context()))
			thing.Start("a")
			time.Sleep(1100 * time.Millisecond)
			if on := thing.On(); len(on) > 0 {
				t.Fatalf("round %d: %q is on", n, on)
			}
		}
		r := stored(t, cfg.Dir)
		if r.Returned != 3 || !r.Off() || r.Epoch != 1 {
			t.Errorf("%+v", r)
		}
		var back int
		for _, e := range cfg.Trail.(*recorder).kinds(trail.KindKill) {
			if e.Attrs["hold"] == "back" && strings.Contains(e.Message, "a") && e.Outcome == trail.OutcomeOK {
				back++
			}
		}
		if back != 3 {
			t.Errorf("%d are in the trail", back)
		}
		check(t, s.Reset(t.Context(), 1, secret))
		time.Sleep(2 * time.Second)
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("it goes on after the reset")
		}
		// What is started now is left alone.
		thing.Start("a")
		time.Sleep(time.Minute)
		if len(thing.On()) != 1 {
			t.Error("it was stopped after the reset")
		}
		if err := s.Hold(t.Context()); err != nil {
			t.Errorf("nothing to hold: %v", err)
		}
	})
}

// Hold goes on trying what it could not stop, at growing intervals; an observer
// that cannot look says nothing about a target that was off.
func TestHoldTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		thing, other := killswitchtest.NewThing("a"), killswitchtest.NewThing("b")
		cfg := config(t, target("agent", thing), target("other", other))
		act := cfg.Targets[0].Ladder[0].Actuators[0].(*killswitchtest.Actuator)
		act.Fault = killswitchtest.Fails
		s := newSwitch(t, cfg)
		_, err := s.Fire(t.Context(), "test")
		if !errors.Is(err, killswitch.ErrUnconfirmed) {
			t.Fatal(err)
		}
		cfg.Targets[1].Observers[0].(*killswitchtest.Observer).Turn(killswitchtest.Fails)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Hold(ctx) }()
		time.Sleep(time.Hour)
		if n := act.Calls(); n < 40 || n > 70 {
			t.Errorf("it was tried %d times in an hour", n)
		}
		cfg.Targets[1].Observers[0].(*killswitchtest.Observer).Turn("")
		act.Turn("")
		time.Sleep(2 * time.Minute)
		if len(thing.On()) > 0 {
			t.Error("it is on")
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// A damaged fence is repaired, and what it stood for completed.
func TestResumeRepairsTheFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, cfg, thing := killed(t)
		write(t, filepath.Join(cfg.Dir, "fence", "inbox"), "")
		check(t, cfg.Targets[0].Ladder[0].Actuators[0].(*killswitchtest.Actuator).Release(t.Context()))
		thing.Start("a")
		r, err := newSwitch(t, cfg).Resume(t.Context())
		if err != nil || !r.Off() || r.Epoch <= 1 || !strings.Contains(r.Reason, "the last kill was for: test") || len(thing.On()) > 0 {
			t.Errorf("%+v, %v", r, err)
		}
		if st, err := openFence(t, filepath.Join(cfg.Dir, "fence")).State("inbox"); err != nil || st.Released || st.Epoch != r.Epoch {
			t.Errorf("%+v, %v", st, err)
		}
	})
}

// Whatever its receipt was made to be, a kill is whole only if the key says so.
func TestResumeBelievesNoForgedReceipt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, cfg, thing := killed(t)
		other := must(killswitch.GenerateKey())
		forger := cfg
		forger.Key = other
		check(t, cfg.Targets[0].Ladder[0].Actuators[0].(*killswitchtest.Actuator).Release(t.Context()))
		if _, err := newSwitch(t, forger).Fire(t.Context(), "forged"); err != nil {
			t.Fatal(err)
		}
		check(t, cfg.Targets[0].Ladder[0].Actuators[0].(*killswitchtest.Actuator).Release(t.Context()))
		thing.Start("a")
		if _, err := newSwitch(t, cfg).Resume(t.Context()); err != nil || len(thing.On()) > 0 {
			t.Errorf("%v, %q is on", err, thing.On())
		}
	})
}

// Arm tells what would be missing, does nothing to the agent, and another
// process can read it.
func TestArm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		thing := killswitchtest.NewThing("a")
		cfg := config(t, target("agent", thing), target("other", thing))
		setSecret(t, cfg.Dir)
		act := cfg.Targets[0].Ladder[0].Actuators[0].(*killswitchtest.Actuator)
		s := newSwitch(t, cfg)
		a, err := s.Arm(t.Context())
		if err != nil || len(a.Findings) > 0 || len(thing.On()) != 1 || act.Calls() > 0 {
			t.Fatalf("%+v, %v", a, err)
		}
		prepared := time.Now()
		if got := a.Targets[0]; got.Actuators[0].Name != "agent.stop" || !got.Actuators[0].Needed || !got.Actuators[0].Prepared.Equal(prepared) ||
			got.Observers[0].Name != "agent.look" || got.Observers[0].Remaining != 1 || len(got.Objects) != 1 {
			t.Errorf("%+v", got)
		}
		read, err := killswitch.ReadArmed(cfg.Dir, "inbox", testKey().Public())
		if err != nil || len(read.Check(time.Now(), time.Minute)) > 0 {
			t.Errorf("%+v, %v", read, err)
		}
		if got := read.Check(time.Now().Add(time.Hour), time.Minute); len(got) != 3 {
			t.Errorf("an hour later: %q", got)
		}
		if _, err := killswitch.ReadArmed(cfg.Dir, "inbox", must(killswitch.GenerateKey()).Public()); !errors.Is(err, killswitch.ErrSignature) {
			t.Error(err)
		}

		time.Sleep(time.Minute)
		act.Fault = killswitchtest.Fails
		cfg.Targets[1].Observers[0].(*killswitchtest.Observer).Fault = killswitchtest.Fails
		a, err = s.Arm(t.Context())
		if err != nil || len(a.Findings) != 2 || !strings.Contains(a.Findings[0], "agent.stop is not prepared") || !strings.Contains(a.Findings[1], "other.look cannot look") {
			t.Errorf("%q, %v", a.Findings, err)
		}
		if got := a.Targets[0].Actuators[0]; !got.Prepared.Equal(prepared) {
			t.Errorf("the preparation that it still has: %+v", got)
		}

		cfg.Dir, cfg.Key, cfg.Trail, cfg.Targets[0].Lacks = t.TempDir(), nil, trail.Discard, []string{"no kernel rungs: the engine is on another machine"}
		a, err = newSwitch(t, cfg).Arm(t.Context())
		if err != nil || len(a.Findings) != 6 {
			t.Errorf("%q, %v", a.Findings, err)
		}
	})
}

// Keep arms at intervals, and whenever it is told to.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config(t, target("agent", killswitchtest.NewThing("a")))
		s := newSwitch(t, cfg)
		ctx, cancel := context.WithCancel(t.Context())
		changed := make(chan struct{})
		ended := make(chan error, 1)
		go func() { ended <- s.Keep(ctx, time.Minute, changed) }()
		last := func() time.Duration {
			synctest.Wait()
			a, err := killswitch.ReadArmed(cfg.Dir, "inbox", testKey().Public())
			if err != nil {
				t.Fatal(err)
			}
			return time.Since(a.Time).Round(time.Second)
		}
		time.Sleep(10 * time.Second)
		if got := last(); got != 10*time.Second {
			t.Errorf("armed %v ago", got)
		}
		changed <- struct{}{}
		if got := last(); got != 0 {
			t.Errorf("armed %v ago, after it was told to", got)
		}
		time.Sleep(51 * time.Second)
		if got := last(); got != time.Second {
			t.Errorf("armed %v ago, after the interval", got)
		}
		close(changed)
		time.Sleep(59 * time.Second)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := s.Keep(t.Context(), 0, nil); err == nil {
			t.Error("an interval of zero")
		}
	})
}
