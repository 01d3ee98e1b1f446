package killswitch_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/killswitch"
	"github.com/managemyclaw/hardshell/killswitch/killswitchtest"
)

// A kill engages the fence before anything acts, stops every target, and its
// receipt says so to whoever has the public key.
func TestFire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		egress, accounts := killswitchtest.NewThing("container/openclaw"), killswitchtest.NewThing("ca_1", "ca_2")
		cfg := config(t, target("egress", egress), target("accounts", accounts))
		var s *killswitch.Switch
		for _, tg := range cfg.Targets {
			a := tg.Ladder[0].Actuators[0].(*killswitchtest.Actuator)
			a.Before = func() {
				other, err := killswitch.OpenFence(cfg.Dir + "/fence")
				if err != nil || !errors.Is(other.Fenced(t.Context(), "inbox"), killswitch.ErrEngaged) {
					t.Errorf("%s acts before the fence holds for others", a.Called)
				}
			}
		}
		s = newSwitch(t, cfg)
		if err := s.Fence().Fenced(t.Context(), "inbox"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Arm(t.Context()); err != nil { // the observers know what there is
			t.Fatal(err)
		}
		gone, cancel := context.WithCancel(killswitch.WithRequester(t.Context(), "operator/ann"))
		cancel()
		r, err := s.Fire(gone, "it deletes mail")
		if err != nil {
			t.Fatal(err)
		}
		if !r.Off() || !r.Clear() || r.Epoch != 1 || r.Reason != "it deletes mail" || r.Request.By != "operator/ann" || !r.Fence.Durable || !r.Trail.Recorded {
			t.Errorf("got %+v", r)
		}
		if len(egress.On())+len(accounts.On()) > 0 {
			t.Error("something is still on")
		}
		if got := result(t, r, "accounts").Objects; len(got) != 2 || got[0].Name != "ca_1" || got[1].State != killswitch.Confirmed || got[1].ConfirmedAfter <= 0 {
			t.Errorf("objects: %+v", got)
		}
		data, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range [][]byte{data, must(json.Marshal(stored(t, cfg.Dir)))} {
			if got, err := killswitch.VerifyReceipt(doc, testKey().Public()); err != nil || !got.Off() || got.Signature != r.Signature {
				t.Errorf("verified: %v, %v", got, err)
			}
		}
		events := cfg.Trail.(*recorder).kinds(trail.KindKill)
		if len(events) != 2 || events[0].Outcome != trail.OutcomeBegin || events[1].Outcome != trail.OutcomeOK || events[1].ID != "1" || events[0].Actor != "operator/ann" {
			t.Errorf("trail: %+v", events)
		}
		if err := s.Fence().Fenced(t.Context(), "inbox"); !errors.Is(err, killswitch.ErrEngaged) {
			t.Errorf("afterwards: %v", err)
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Whatever one actuator does, the next rung is tried in time, and what is not
// off is not confirmed.
func TestLadder(t *testing.T) {
	for _, fault := range append([]killswitchtest.Fault{""}, killswitchtest.Faults...) {
		t.Run("the first rung "+string(fault), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				thing := killswitchtest.NewThing("a")
				tg := target("egress", thing)
				tg.Ladder = []killswitch.Rung{
					{Actuators: []killswitch.Actuator{&killswitchtest.Actuator{Called: "first", Thing: thing, Fault: fault}}, Patience: 2 * time.Second},
					{Actuators: []killswitch.Actuator{&killswitchtest.Actuator{Called: "second", Thing: thing}}},
				}
				r, err := newSwitch(t, config(t, tg)).Fire(t.Context(), "test")
				thing.Let()
				if err != nil || !r.Off() {
					t.Fatal(r, err)
				}
				res := result(t, r, "egress")
				want, after := []string{"first", "second"}, 2*time.Second
				switch fault {
				case "", killswitchtest.Alleges:
					want, after = []string{"first"}, 0
				case killswitchtest.Fails, killswitchtest.Panics, killswitchtest.Exits:
					after = 0
				}
				var tried []string
				for _, a := range res.Tried {
					tried = append(tried, a.Actuator)
				}
				if !slices.Equal(tried, want) {
					t.Errorf("tried %q, want %q", tried, want)
				}
				if got := res.ConfirmedAfter; got < after || got > after+10*time.Millisecond {
					t.Errorf("confirmed after %v, want %v", got, after)
				}
				if first := res.Tried[0]; first.Abandoned != (fault == killswitchtest.Hangs) || (first.Error == "") != (fault == "" || fault == killswitchtest.Lies || fault == killswitchtest.Alleges) {
					t.Errorf("the first: %+v", first)
				}
			})
		})
	}
}

// A rung that is not waited for is begun with the next one.
func TestNoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		thing := killswitchtest.NewThing("a")
		tg := target("agent", thing)
		tg.Ladder = append([]killswitch.Rung{{
			Actuators: []killswitch.Actuator{&killswitchtest.Actuator{Called: "soft", Thing: thing, Fault: killswitchtest.Waits}}, Patience: killswitch.NoWait,
		}}, tg.Ladder...)
		r, err := newSwitch(t, config(t, tg)).Fire(t.Context(), "test")
		if err != nil || r.Elapsed > 10*time.Millisecond || len(result(t, r, "agent").Tried) != 2 {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// An actuator whose effect shows late is confirmed when it shows; one that is
// undone again is not.
func TestNothingButTheLastLookConfirms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		thing := killswitchtest.NewThing("a")
		slow := killswitchtest.NewThing() // does nothing
		tg := target("agent", thing)
		tg.Ladder = []killswitch.Rung{{Actuators: []killswitch.Actuator{
			&killswitchtest.Actuator{Called: "works", Thing: thing},
			// It returns later, after it has started the thing again.
			&killswitchtest.Actuator{Called: "undoes", Thing: slow, Before: func() {
				time.Sleep(3 * time.Second)
				if len(thing.On()) > 0 {
					t.Error("it was not off in between")
				}
				(&killswitchtest.Actuator{Thing: thing}).Release(context.Background())
				thing.Start("a")
			}},
		}}}
		r, err := newSwitch(t, config(t, tg)).Fire(t.Context(), "test")
		if res := result(t, r, "agent"); !errors.Is(err, killswitch.ErrUnconfirmed) || res.State != killswitch.Failed || res.ConfirmedAfter != 0 {
			t.Errorf("%v, %v", r, err)
		}
	})
}

// What was confirmed is looked at again when all else has come to its end: what
// is back by then, as a container that an engine starts again which was told too
// late, is stopped again, and is not off if it cannot be.
func TestWhatComesBackMeanwhile(t *testing.T) {
	for name, tt := range map[string]struct {
		back  bool
		fault killswitchtest.Fault // from then on
		acts  int
		want  killswitch.State
	}{
		"it does not":             {want: killswitch.Confirmed, acts: 1},
		"it is stopped again":     {back: true, want: killswitch.Confirmed, acts: 2},
		"it is not stopped again": {back: true, fault: killswitchtest.Lies, want: killswitch.Failed, acts: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				quick, slow := killswitchtest.NewThing("a", "b"), killswitchtest.NewThing("c")
				first, last := target("first", quick), target("last", slow)
				first.Timeout = 2 * time.Second
				stop := first.Ladder[0].Actuators[0].(*killswitchtest.Actuator)
				last.Ladder[0].Actuators[0].(*killswitchtest.Actuator).Before = func() {
					time.Sleep(2 * time.Second)
					if len(quick.On()) > 0 {
						t.Error("it was not off in between")
					}
					if !tt.back {
						return
					}
					if err := stop.Release(context.Background()); err != nil {
						t.Error(err)
					}
					stop.Fault = tt.fault
					quick.Start("a")
				}
				r, err := newSwitch(t, config(t, first, last)).Fire(t.Context(), "test")
				res := result(t, r, "first")
				if off := tt.want == killswitch.Confirmed; res.State != tt.want || r.Off() != off || off != (err == nil) || off != (len(quick.On()) == 0) || states(r)["last"] != killswitch.Confirmed {
					t.Errorf("%+v, %v", r, err)
				}
				if stop.Calls() != tt.acts || len(res.Tried) != tt.acts || r.Returned != tt.acts-1 {
					t.Errorf("it was stopped %d times, and %d are said", stop.Calls(), len(res.Tried))
				}
				if again := res.ConfirmedAfter >= 2*time.Second; again != (tt.back && res.State == killswitch.Confirmed) {
					t.Errorf("%v after %v", res.State, res.ConfirmedAfter)
				}
			})
		})
	}
}

// While another target hangs, for as long as it may, what was confirmed is kept
// off, however often it comes back.
func TestKeptOffWhileAnotherHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent, mail := killswitchtest.NewThing("a"), killswitchtest.NewThing("m")
		first, slow := target("first", agent), target("slow", mail)
		slow.Timeout = 15 * time.Minute
		slow.Ladder[0].Actuators[0].(*killswitchtest.Actuator).Fault = killswitchtest.Waits
		s := newSwitch(t, config(t, first, slow))
		receipts := make(chan *killswitch.Receipt)
		go func() {
			r, _ := s.Fire(t.Context(), "test")
			receipts <- r
		}()
		for range 10 {
			time.Sleep(time.Minute)
			if on := agent.On(); len(on) > 0 {
				t.Fatalf("%v is on", on)
			}
			if err := first.Ladder[0].Actuators[0].(*killswitchtest.Actuator).Release(context.Background()); err != nil {
				t.Error(err)
			}
			agent.Start("a")
			time.Sleep(2 * time.Second)
			if on := agent.On(); len(on) > 0 {
				t.Fatalf("%v has come back, and stays", on)
			}
		}
		r := <-receipts
		if res := result(t, r, "first"); res.State != killswitch.Confirmed || len(res.Tried) != 11 || r.Returned != 10 || res.ConfirmedAfter < 10*time.Minute {
			t.Errorf("%+v", res)
		}
		if states(r)["slow"] == killswitch.Confirmed || r.Off() {
			t.Errorf("%v", r)
		}
	})
}

// A faultless thing among others that have faults, alone and in pairs, ends as
// it should and in time; and nothing is called confirmed that is on.
func TestEverythingThatCanFail(t *testing.T) {
	type fault struct {
		part string
		kind killswitchtest.Fault
	}
	var all []fault
	for _, part := range []string{"a.actuator", "a.observer", "b.actuator", "b.observer"} {
		for _, k := range killswitchtest.Faults {
			if strings.HasSuffix(part, "actuator") && k == killswitchtest.Alleges {
				continue
			}
			all = append(all, fault{part, k})
		}
	}
	for _, k := range []killswitchtest.Fault{killswitchtest.Fails, killswitchtest.Waits, killswitchtest.Hangs, killswitchtest.Panics} {
		all = append(all, fault{"trail", k})
	}
	for _, op := range []string{"create", "sync", "rename", "syncdir", "mark", "lock"} {
		all = append(all, fault{"disk." + op, killswitchtest.Fails}, fault{"disk." + op, killswitchtest.Hangs})
	}
	run := func(t *testing.T, faults ...fault) {
		synctest.Test(t, func(t *testing.T) {
			let := make(chan struct{})
			things := map[string]*killswitchtest.Thing{"a": killswitchtest.NewThing("a1", "a2"), "b": killswitchtest.NewThing("b1"), "c": killswitchtest.NewThing("c1")}
			faulty := make(map[string]killswitchtest.Fault)
			for _, f := range faults {
				faulty[f.part] = f.kind
			}
			var targets []killswitch.Target
			for _, name := range []string{"a", "b", "c"} {
				targets = append(targets, killswitch.Target{
					Name:   name,
					Ladder: []killswitch.Rung{{Actuators: []killswitch.Actuator{&killswitchtest.Actuator{Called: name + ".actuator", Thing: things[name], Fault: faulty[name+".actuator"]}}}},
					Observers: []killswitch.Observer{
						&killswitchtest.Observer{Called: name + ".observer", Thing: things[name], Fault: faulty[name+".observer"]},
						&killswitchtest.Observer{Called: name + ".other", Thing: things[name]},
					},
					Timeout: 5 * time.Second,
				})
			}
			cfg := config(t, targets...)
			cfg.Trail = &recorder{fault: faulty["trail"], let: let}
			cfg.FenceTimeout = 0
			s := newSwitch(t, cfg)
			s.SetStep(func(op, _ string) error {
				switch faulty["disk."+op] {
				case killswitchtest.Fails:
					return errors.New("the disk was told to fail")
				case killswitchtest.Hangs:
					<-let
				}
				return nil
			})
			began := time.Now()
			r, err := s.Fire(t.Context(), "test")
			took := time.Since(began)
			if err := s.Fence().Fenced(t.Context(), "inbox"); !errors.Is(err, killswitch.ErrEngaged) {
				t.Errorf("the fence: %v", err)
			}
			close(let)
			for _, thing := range things {
				thing.Let()
			}
			if r == nil {
				t.Fatal("no receipt")
			}
			if took > 15*time.Second {
				t.Errorf("it took %v", took)
			}
			for name, thing := range things {
				res := result(t, r, name)
				clean := faulty[name+".actuator"] == "" && (faulty[name+".observer"] == "" || faulty[name+".observer"] == killswitchtest.Lies)
				on := len(thing.On())
				switch {
				case res.State == killswitch.Confirmed && (on > 0 || !clean):
					t.Errorf("%s is confirmed, with %d on", name, on)
				case clean && (res.State != killswitch.Confirmed || on > 0):
					t.Errorf("%s is %v, with %d on", name, res.State, on)
				case clean && res.ConfirmedAfter > time.Second:
					t.Errorf("%s was confirmed after %v", name, res.ConfirmedAfter)
				}
				for _, o := range res.Objects {
					if o.State == killswitch.Confirmed && slices.Contains(thing.On(), o.Name) {
						t.Errorf("%s is confirmed, and on", o.Name)
					}
				}
				if faulty[name+".actuator"] == killswitchtest.Hangs && !res.Tried[0].Abandoned {
					t.Errorf("%s: its actuator hangs, and is not said to be abandoned: %+v", name, res.Tried)
				}
			}
			if _, ok := faulty["trail"]; ok == r.Trail.Recorded || ok != errors.Is(err, killswitch.ErrTrail) {
				t.Errorf("trail: %+v, %v", r.Trail, err)
			}
			if _, err := killswitch.VerifyReceipt(must(json.Marshal(r)), testKey().Public()); err != nil {
				t.Error(err)
			}
			fine := !slices.ContainsFunc(faults, func(f fault) bool {
				return !harmless(f.part, f.kind) && (f.kind != killswitchtest.Lies || !strings.HasSuffix(f.part, "observer"))
			})
			if fine != (err == nil) {
				t.Errorf("%v: %v", faults, err)
			}
			time.Sleep(time.Hour) // until everything that hung has come to its end
		})
	}
	for i, f := range all {
		t.Run(fmt.Sprint(f.part, " ", f.kind), func(t *testing.T) { run(t, f) })
		for _, g := range all[i+1:] {
			// What a pair does with b, it does with a.
			if f.part == g.part || strings.HasPrefix(f.part, "disk.") || strings.HasPrefix(f.part, "b.") || testing.Short() {
				continue
			}
			t.Run(fmt.Sprint(f.part, " ", f.kind, " and ", g.part, " ", g.kind), func(t *testing.T) { run(t, f, g) })
		}
	}
}

// harmless reports whether a kill is as it should be without a part: a lock,
// and what is only tried when all else has failed.
func harmless(part string, kind killswitchtest.Fault) bool {
	return part == "disk.mark" || part == "disk.lock" && kind == killswitchtest.Fails
}

// A thousand who fire at once cause one kill, and each gets a receipt.
func TestManyFireAtOnce(t *testing.T) {
	const many = 1000
	thing := killswitchtest.NewThing("a")
	tg := target("agent", thing)
	act := tg.Ladder[0].Actuators[0].(*killswitchtest.Actuator)
	all := make(chan struct{})
	act.Before = func() { <-all }
	cfg := config(t, tg)
	s := newSwitch(t, cfg)
	var wg sync.WaitGroup
	var begun sync.WaitGroup
	begun.Add(many)
	receipts := make([]*killswitch.Receipt, many)
	for i := range many {
		wg.Go(func() {
			begun.Done()
			r, err := s.Fire(t.Context(), fmt.Sprint("reason ", i))
			if err != nil {
				t.Error(err)
			}
			receipts[i] = r
		})
	}
	begun.Wait()
	time.Sleep(100 * time.Millisecond) // all of them are waiting, or about to
	close(all)
	wg.Wait()
	if n := act.Calls(); n > 2 {
		t.Errorf("it was stopped %d times", n)
	}
	for i, r := range receipts {
		if r.Epoch != 1 || !r.Off() || r.Request.Reason != fmt.Sprint("reason ", i) || r.Request.Time.IsZero() {
			t.Fatalf("receipt %d: %+v", i, r)
		}
		if _, err := killswitch.VerifyReceipt(must(json.Marshal(r)), testKey().Public()); err != nil {
			t.Fatal(err)
		}
	}
	asked := make(map[string]bool)
	for _, e := range cfg.Trail.(*recorder).kinds(trail.KindKill) {
		if e.Outcome == trail.OutcomeBegin {
			asked[e.Message] = true
		}
	}
	if len(asked) != many {
		t.Errorf("the trail has %d of the reasons", len(asked))
	}
}

// Fired again, a kill goes on in its epoch: what was confirmed is looked at,
// and acted upon only if it is back; the rest is tried again.
func TestFireAgain(t *testing.T) {
	for name, again := range map[string]func(*killswitch.Switch, killswitch.Config) *killswitch.Switch{
		"in the same process": func(s *killswitch.Switch, _ killswitch.Config) *killswitch.Switch { return s },
		"in another process": func(_ *killswitch.Switch, cfg killswitch.Config) *killswitch.Switch {
			return must(killswitch.New(cfg))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				good, bad := killswitchtest.NewThing("g"), killswitchtest.NewThing("b")
				cfg := config(t, target("good", good), target("bad", bad))
				fine := cfg.Targets[0].Ladder[0].Actuators[0].(*killswitchtest.Actuator)
				broken := cfg.Targets[1].Ladder[0].Actuators[0].(*killswitchtest.Actuator)
				broken.Fault = killswitchtest.Fails
				s := newSwitch(t, cfg)
				first, err := s.Fire(t.Context(), "the first")
				if !errors.Is(err, killswitch.ErrUnconfirmed) || states(first)["bad"] != killswitch.Failed || states(first)["good"] != killswitch.Confirmed {
					t.Fatal(first, err)
				}
				time.Sleep(time.Minute)
				broken.Fault = ""
				s = again(s, cfg)
				r, err := s.Fire(t.Context(), "the second")
				if err != nil || !r.Off() || r.Epoch != 1 || r.Runs != 2 || r.Reason != "the first" || r.Request.Reason != "the second" || !r.Fired.Equal(first.Fired) {
					t.Errorf("%+v, %v", r, err)
				}
				if g := result(t, r, "good"); fine.Calls() != 1 || !g.Reobserved || g.ConfirmedAfter != result(t, first, "good").ConfirmedAfter {
					t.Errorf("good: %d calls, %+v", fine.Calls(), g)
				}
				if b := result(t, r, "bad"); b.ConfirmedAfter < time.Minute {
					t.Errorf("bad: %+v", b)
				}
				// It comes back.
				if err := fine.Release(t.Context()); err != nil {
					t.Fatal(err)
				}
				good.Start("g")
				r, err = s.Fire(t.Context(), "the third")
				if g := result(t, r, "good"); err != nil || g.Reobserved || g.State != killswitch.Confirmed || fine.Calls() != 2 || g.ConfirmedAfter < time.Minute {
					t.Errorf("back: %+v, %v", r, err)
				}
			})
		})
	}
}

// What an actuator cannot stop, and no observer sees, is open in the receipt;
// text from elsewhere is bounded, and holds no secret.
func TestOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		thing := killswitchtest.NewThing("a", "token")
		tg := target("accounts", thing)
		tg.Ladder[0].Actuators[0].(*killswitchtest.Actuator).Spares = []string{"token"}
		tg.Observers = []killswitch.Observer{looker(func() (map[string]string, error) { return nil, nil })}
		r, err := newSwitch(t, config(t, tg)).Fire(t.Context(), "a token: ghp_0123456789abcdefghijABCDEFGHIJ012345"+strings.Repeat(" x", 5000))
		res := result(t, r, "accounts")
		if err != nil || !r.Off() || r.Clear() || len(res.Open) != 1 || res.Open[0] != (killswitch.Open{What: "token", Why: "it cannot be stopped", Said: "accounts.stop"}) {
			t.Errorf("%+v, %v", r, err)
		}
		if strings.Contains(r.Reason, "0123456789abcdef") || len(r.Reason) > killswitch.MaxReason {
			t.Errorf("reason: %d bytes, %q", len(r.Reason), r.Reason)
		}
	})
}

type looker func() (map[string]string, error)

func (looker) Name() string                                           { return "look" }
func (l looker) Remaining(context.Context) (map[string]string, error) { return l() }

// An observer that returns an error confirms nothing, whatever it returns
// beside it.
func TestAnErrorConfirmsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for want, remaining := range map[killswitch.State]map[string]string{
			killswitch.Unconfirmed: nil,
			killswitch.Failed:      {"a": "on"},
		} {
			tg := target("agent", killswitchtest.NewThing())
			tg.Observers = []killswitch.Observer{looker(func() (map[string]string, error) { return remaining, errors.New("half seen") })}
			r, err := newSwitch(t, config(t, tg)).Fire(t.Context(), "test")
			if states(r)["agent"] != want || !errors.Is(err, killswitch.ErrUnconfirmed) {
				t.Errorf("%v, %v", r, err)
			}
		}
	})
}

func TestNewRefuses(t *testing.T) {
	thing := killswitchtest.NewThing("a")
	for name, c := range map[string]struct {
		change func(*killswitch.Config)
		want   string
	}{
		"no agent":        {func(c *killswitch.Config) { c.Agent = "" }, "Config.Agent"},
		"a path":          {func(c *killswitch.Config) { c.Agent = "../inbox" }, "Config.Agent"},
		"no directory":    {func(c *killswitch.Config) { c.Dir = "" }, "Config.Dir"},
		"no targets":      {func(c *killswitch.Config) { c.Targets = nil }, "Config.Targets"},
		"no trail":        {func(c *killswitch.Config) { c.Trail = nil }, "trail.Discard"},
		"an empty key":    {func(c *killswitch.Config) { c.Key = new(killswitch.Key) }, "Config.Key"},
		"a negative time": {func(c *killswitch.Config) { c.Interval = -1 }, "Config.Interval is negative"},
		"two of a name":   {func(c *killswitch.Config) { c.Targets = append(c.Targets, c.Targets[0]) }, "twice"},
		"a strange name":  {func(c *killswitch.Config) { c.Targets[0].Name = "Egress!" }, "lower-case words"},
		"no ladder":       {func(c *killswitch.Config) { c.Targets[0].Ladder = nil }, "no ladder"},
		"an empty rung":   {func(c *killswitch.Config) { c.Targets[0].Ladder[0].Actuators = nil }, "rung 1 has no actuator"},
		"a nil actuator":  {func(c *killswitch.Config) { c.Targets[0].Ladder[0].Actuators[0] = nil }, "nil"},
		"a nameless one":  {func(c *killswitch.Config) { c.Targets[0].Ladder[0].Actuators[0] = &killswitchtest.Actuator{} }, "no name"},
		"no observer":     {func(c *killswitch.Config) { c.Targets[0].Observers = nil }, "no observer"},
		"one observer twice": {func(c *killswitch.Config) {
			c.Targets[0].Observers = append(c.Targets[0].Observers, c.Targets[0].Observers[0])
		}, "twice"},
		"its own observer": {func(c *killswitch.Config) {
			b := both{c.Targets[0].Ladder[0].Actuators[0]}
			c.Targets[0].Ladder[0].Actuators[0] = b
			c.Targets[0].Observers[0] = b
		}, "own observer"},
		"a ladder too long":  {func(c *killswitch.Config) { c.Targets[0].Ladder[0].Patience = time.Hour }, "would not be tried"},
		"a name that panics": {func(c *killswitch.Config) { c.Targets[0].Observers[0] = (*killswitchtest.Observer)(nil) }, "panic"},
	} {
		cfg := config(t, target("agent", thing))
		c.change(&cfg)
		if _, err := killswitch.New(cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type both struct{ killswitch.Actuator }

func (both) Remaining(context.Context) (map[string]string, error) { return nil, nil }
