package killswitch_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/killswitch"
	"github.com/managemyclaw/hardshell/killswitch/killswitchtest"
)

const secret = "correct horse battery staple"

// secretHash is slow to make, as it should be, and so is made once.
var secretHash = sync.OnceValue(func() []byte {
	dir := must(os.MkdirTemp("", "killswitch"))
	defer os.RemoveAll(dir)
	if err := killswitch.SetResetSecret(dir, "inbox", secret); err != nil {
		panic(err)
	}
	return must(os.ReadFile(dir + "/reset/inbox.json"))
})

func setSecret(t testing.TB, dir string) {
	t.Helper()
	check(t, os.MkdirAll(dir+"/reset", 0o700))
	write(t, dir+"/reset/inbox.json", string(secretHash()))
}

// killed returns a switch that has been fired, and what it has stopped.
func killed(t *testing.T) (*killswitch.Switch, killswitch.Config, *killswitchtest.Thing) {
	t.Helper()
	thing := killswitchtest.NewThing("a")
	cfg := config(t, target("agent", thing))
	setSecret(t, cfg.Dir)
	s := newSwitch(t, cfg)
	if _, err := s.Fire(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	return s, cfg, thing
}

// A reset with the second secret and the epoch lets the agent run, starts
// nothing, is in the trail, and cannot be had twice.
func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, cfg, thing := killed(t)
		if thing.Start("a"); len(thing.On()) > 0 {
			t.Error("it can be started")
		}
		if err := s.Reset(killswitch.WithRequester(t.Context(), "operator/ann"), 1, secret); err != nil {
			t.Fatal(err)
		}
		if len(thing.On()) > 0 {
			t.Error("the reset has started something")
		}
		if thing.Start("a"); len(thing.On()) != 1 {
			t.Error("it cannot be started after the reset")
		}
		if err := s.Fence().Fenced(t.Context(), "inbox"); err != nil {
			t.Error(err)
		}
		events := cfg.Trail.(*recorder).kinds(trail.KindReset)
		if len(events) != 2 || events[0].Outcome != trail.OutcomeBegin || events[1].Outcome != trail.OutcomeOK || events[0].ID != "1" || events[0].Actor != "operator/ann" {
			t.Errorf("trail: %+v", events)
		}
		if err := s.Reset(t.Context(), 1, secret); !errors.Is(err, killswitch.ErrNotEngaged) {
			t.Errorf("twice: %v", err)
		}
		if r, err := s.Fire(t.Context(), "again"); err != nil || r.Epoch != 2 || r.Runs != 1 {
			t.Errorf("%+v, %v", r, err)
		}
		if err := s.Reset(t.Context(), 1, secret); !errors.Is(err, killswitch.ErrEpoch) {
			t.Errorf("an old epoch: %v", err)
		}
	})
}

// Whatever speaks against a reset, the agent stays stopped.
func TestResetIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*testing.T, *killswitch.Switch, killswitch.Config, *killswitchtest.Thing)
		secret string
		epoch  uint64
		want   error
	}{
		"a wrong secret":   {secret: "wrong horse battery staple", want: killswitch.ErrSecret},
		"no secret":        {secret: "", want: killswitch.ErrSecret},
		"the next epoch":   {epoch: 2, want: killswitch.ErrEpoch},
		"the epoch before": {epoch: 1<<64 - 1, want: killswitch.ErrEpoch}, // 0
		"none was set": {want: killswitch.ErrSecret, change: func(t *testing.T, _ *killswitch.Switch, cfg killswitch.Config, _ *killswitchtest.Thing) {
			check(t, os.Remove(cfg.Dir+"/reset/inbox.json"))
		}},
		"a record that asks for few rounds": {want: killswitch.ErrSecret, change: func(t *testing.T, _ *killswitch.Switch, cfg killswitch.Config, _ *killswitchtest.Thing) {
			data := string(must(os.ReadFile(cfg.Dir + "/reset/inbox.json")))
			write(t, cfg.Dir+"/reset/inbox.json", strings.Replace(data, "600000", "1", 1))
		}},
		"something is on": {want: killswitch.ErrNotOff, change: func(t *testing.T, _ *killswitch.Switch, cfg killswitch.Config, thing *killswitchtest.Thing) {
			check(t, cfg.Targets[0].Ladder[0].Actuators[0].(*killswitchtest.Actuator).Release(t.Context()))
			thing.Start("a")
		}},
		"nobody can tell": {want: killswitch.ErrNotOff, change: func(_ *testing.T, _ *killswitch.Switch, cfg killswitch.Config, _ *killswitchtest.Thing) {
			cfg.Targets[0].Observers[0].(*killswitchtest.Observer).Fault = killswitchtest.Fails
		}},
		"the trail is down": {want: killswitch.ErrTrail, change: func(_ *testing.T, _ *killswitch.Switch, cfg killswitch.Config, _ *killswitchtest.Thing) {
			cfg.Trail.(*recorder).fault = killswitchtest.Fails
		}},
		"the trail hangs": {want: killswitch.ErrTrail, change: func(_ *testing.T, _ *killswitch.Switch, cfg killswitch.Config, _ *killswitchtest.Thing) {
			cfg.Trail.(*recorder).fault = killswitchtest.Waits
		}},
		"the fence is damaged": {want: killswitch.ErrEngaged, change: func(t *testing.T, _ *killswitch.Switch, cfg killswitch.Config, _ *killswitchtest.Thing) {
			write(t, cfg.Dir+"/fence/inbox", "damaged")
		}},
		"attempts cannot be counted": {want: killswitch.ErrNotDurable, change: func(_ *testing.T, s *killswitch.Switch, _ killswitch.Config, _ *killswitchtest.Thing) {
			s.SetStep(func(op, name string) error {
				if op == "create" && strings.HasSuffix(name, ".attempts.json") {
					return errors.New("no space")
				}
				return nil
			})
		}},
		"the fence cannot be written": {change: func(_ *testing.T, s *killswitch.Switch, _ killswitch.Config, _ *killswitchtest.Thing) {
			s.SetStep(func(op, name string) error {
				if op == "rename" && strings.HasSuffix(name, "fence/inbox") {
					return errors.New("no space")
				}
				return nil
			})
		}},
		"the release cannot be made durable": {change: func(_ *testing.T, s *killswitch.Switch, _ killswitch.Config, _ *killswitchtest.Thing) {
			first := true
			s.SetStep(func(op, name string) error {
				if op == "syncdir" && strings.HasSuffix(name, "fence/") && first {
					first = false
					return errors.New("no space")
				}
				return nil
			})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, cfg, thing := killed(t)
				if c.change != nil {
					c.change(t, s, cfg, thing)
				}
				if name == "the fence is damaged" {
					s = newSwitch(t, cfg) // another process, which does not know better
				}
				with := c.secret
				if with == "" && name != "no secret" {
					with = secret
				}
				epoch := c.epoch + 1
				if c.epoch == 2 {
					epoch = 2
				}
				err := s.Reset(t.Context(), epoch, with)
				if c.want == killswitch.ErrEngaged {
					c.want = nil // it is repaired by another kill
				}
				if err == nil {
					t.Fatal("it was not refused")
				}
				if c.want != nil && !errors.Is(err, c.want) {
					t.Errorf("got %v", err)
				}
				if strings.Contains(err.Error(), with) && with != "" {
					t.Errorf("the error holds the secret: %v", err)
				}
				s.SetStep(nil)
				for who, f := range map[string]*killswitch.Fence{"here": s.Fence(), "elsewhere": openFence(t, cfg.Dir+"/fence")} {
					if err := f.Fenced(t.Context(), "inbox"); !errors.Is(err, killswitch.ErrEngaged) {
						t.Errorf("%s: %v", who, err)
					}
				}
			})
		})
	}
}

// Wrong secrets make each further attempt wait, also the right one, and in
// another process; a record of attempts that is damaged does not help.
func TestGuessing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, cfg, _ := killed(t)
		for range 3 {
			if err := s.Reset(t.Context(), 1, "wrong"); !errors.Is(err, killswitch.ErrSecret) {
				t.Fatal(err)
			}
		}
		for wait := time.Second; wait <= 4*time.Second; wait *= 2 {
			s = newSwitch(t, cfg)
			if err := s.Reset(t.Context(), 1, secret); !errors.Is(err, killswitch.ErrTooManyAttempts) {
				t.Fatal(err)
			}
			time.Sleep(wait)
			if err := s.Reset(t.Context(), 1, "wrong"); !errors.Is(err, killswitch.ErrSecret) {
				t.Fatalf("after %v: %v", wait, err)
			}
		}
		write(t, cfg.Dir+"/reset/inbox.attempts.json", "{")
		if err := s.Reset(t.Context(), 1, secret); !errors.Is(err, killswitch.ErrTooManyAttempts) {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		check(t, s.Reset(t.Context(), 1, secret))
	})
}

// A reset while the agent is being stopped is refused; a kill during a reset
// wins.
func TestResetAndFire(t *testing.T) {
	s, cfg, thing := killed(t)
	act := cfg.Targets[0].Ladder[0].Actuators[0].(*killswitchtest.Actuator)
	check(t, act.Release(t.Context()))
	thing.Start("a")
	act.Before = func() {
		if err := s.Reset(context.Background(), 1, secret); !errors.Is(err, killswitch.ErrBusy) {
			t.Errorf("during a kill: %v", err)
		}
	}
	if _, err := s.Fire(t.Context(), "again"); err != nil {
		t.Error(err)
	}
	act.Before = nil
	var once sync.Once
	done := make(chan struct{})
	s.SetStep(func(op, name string) error {
		if op == "rename" && strings.HasSuffix(name, "fence/inbox") {
			once.Do(func() {
				go func() {
					defer close(done)
					if r, _ := s.Fire(context.Background(), "during the reset"); !r.Off() {
						t.Errorf("the kill: %v", r)
					}
				}()
				time.Sleep(50 * time.Millisecond) // it waits for the disk
			})
		}
		return nil
	})
	if err := s.Reset(t.Context(), 1, secret); !errors.Is(err, killswitch.ErrBusy) {
		t.Errorf("fired during it: %v", err)
	}
	<-done
	if err := s.Fence().Fenced(t.Context(), "inbox"); !errors.Is(err, killswitch.ErrEngaged) {
		t.Errorf("afterwards: %v", err)
	}
	if err := openFence(t, cfg.Dir+"/fence").Fenced(t.Context(), "inbox"); !errors.Is(err, killswitch.ErrEngaged) {
		t.Errorf("elsewhere: %v", err)
	}
}

func TestSetResetSecret(t *testing.T) {
	dir := t.TempDir()
	if err := killswitch.SetResetSecret(dir, "inbox", "short"); err == nil || killswitch.HasResetSecret(dir, "inbox") {
		t.Error(err)
	}
	one, two := killswitch.GenerateResetSecret(), killswitch.GenerateResetSecret()
	if one == two || len(one) < 20 {
		t.Errorf("%q, %q", one, two)
	}
	check(t, killswitch.SetResetSecret(dir, "inbox", one))
	if err := killswitch.SetResetSecret(dir, "inbox", two); !errors.Is(err, os.ErrExist) || !killswitch.HasResetSecret(dir, "inbox") {
		t.Error(err)
	}
	if data := must(os.ReadFile(dir + "/reset/inbox.json")); strings.Contains(string(data), one) {
		t.Error("the secret is kept")
	}
}

// Somebody who releases the fence while the agent is being stopped, by another
// process, has not released it.
func TestReleasedDuringAKill(t *testing.T) {
	thing := killswitchtest.NewThing("a")
	cfg := config(t, target("agent", thing))
	s := newSwitch(t, cfg)
	cfg.Targets[0].Ladder[0].Actuators[0].(*killswitchtest.Actuator).Before = func() {
		check(t, killswitch.Release(openFence(t, cfg.Dir+"/fence"), t.Context(), "inbox", 1, ""))
	}
	r, err := s.Fire(t.Context(), "test")
	if !r.Off() || r.Fence.Durable || !errors.Is(err, killswitch.ErrNotDurable) || !strings.Contains(r.Fence.Error, "released while") {
		t.Errorf("%+v, %v", r, err)
	}
	if st, err := openFence(t, cfg.Dir+"/fence").State("inbox"); err != nil || st.Released || st.Epoch != 2 {
		t.Errorf("%+v, %v", st, err)
	}
}

// Status tells what is, and changes nothing.
func TestStatus(t *testing.T) {
	thing := killswitchtest.NewThing("a")
	cfg := config(t, target("agent", thing))
	s := newSwitch(t, cfg)
	st := s.Status(t.Context())
	if st.Fence.Engaged() || st.Receipt != nil || st.Armed != nil || len(st.Drills) > 0 || st.ResetSecret || len(st.Problems) > 0 || st.Targets[0].State != killswitch.Failed {
		t.Errorf("before: %+v", st)
	}
	setSecret(t, cfg.Dir)
	_, targets := canary()
	must(s.Arm(t.Context()))
	must(s.Drill(t.Context(), killswitch.Rehearsal{Variant: "normal", Targets: targets}))
	_, targets = canary()
	must(s.Drill(t.Context(), killswitch.Rehearsal{Variant: "normal", Targets: targets}))
	must(s.Fire(t.Context(), "test"))
	st = must(killswitch.New(cfg)).Status(t.Context())
	if !st.Fence.Engaged() || !st.Receipt.Off() || st.Armed == nil || len(st.Drills) != 1 || !st.ResetSecret || len(st.Problems) > 0 || st.Targets[0].State != killswitch.Confirmed {
		t.Errorf("after: %+v", st)
	}
	cfg.Key = must(killswitch.GenerateKey())
	if st := newSwitch(t, cfg).Status(t.Context()); st.Receipt != nil || st.Armed != nil || len(st.Drills) > 0 || len(st.Problems) != 3 {
		t.Errorf("with another key: %+v", st)
	}
	write(t, cfg.Dir+"/fence/inbox", "")
	cfg.Targets[0].Observers[0].(*killswitchtest.Observer).Turn(killswitchtest.Fails)
	if st := newSwitch(t, cfg).Status(t.Context()); !st.Fence.Engaged() || st.FenceError == "" || st.Targets[0].State != killswitch.Unconfirmed {
		t.Errorf("damaged: %+v", st)
	}
}
