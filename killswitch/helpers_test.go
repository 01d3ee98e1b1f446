package killswitch_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/killswitch"
	"github.com/managemyclaw/hardshell/killswitch/killswitchtest"
)

func TestMain(m *testing.M) {
	child() // does not return in a process that is one
	os.Exit(m.Run())
}

// A recorder is a trail that does as it is told.
type recorder struct {
	fault killswitchtest.Fault
	let   chan struct{}

	mu     sync.Mutex
	events []trail.Event
}

func (r *recorder) Record(ctx context.Context, e trail.Event) error {
	switch r.fault {
	case killswitchtest.Fails:
		return errors.New("the trail was told to fail")
	case killswitchtest.Waits:
		<-ctx.Done()
		return ctx.Err()
	case killswitchtest.Hangs:
		<-r.let
	case killswitchtest.Panics:
		panic("the trail was told to panic")
	}
	if err := e.Validate(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
	return nil
}

func (r *recorder) kinds(kind trail.Kind) []trail.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []trail.Event
	for _, e := range r.events {
		if e.Kind == kind {
			all = append(all, e)
		}
	}
	return all
}

// target is a thing that is stopped by one actuator and watched by one
// observer.
func target(name string, thing *killswitchtest.Thing) killswitch.Target {
	return killswitch.Target{
		Name:      name,
		Ladder:    []killswitch.Rung{{Actuators: []killswitch.Actuator{&killswitchtest.Actuator{Called: name + ".stop", Thing: thing}}}},
		Observers: []killswitch.Observer{&killswitchtest.Observer{Called: name + ".look", Thing: thing}},
		Timeout:   10 * time.Second,
	}
}

var testKey = sync.OnceValue(func() *killswitch.Key {
	k, err := killswitch.GenerateKey()
	if err != nil {
		panic(err)
	}
	return k
})

func config(t testing.TB, targets ...killswitch.Target) killswitch.Config {
	return killswitch.Config{
		Agent: "inbox", Dir: t.TempDir(), Targets: targets, Trail: &recorder{}, Key: testKey(),
		FenceTimeout: time.Minute, // however much else the machine has to do
	}
}

func newSwitch(t testing.TB, cfg killswitch.Config) *killswitch.Switch {
	t.Helper()
	s, err := killswitch.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func states(r *killswitch.Receipt) map[string]killswitch.State {
	m := make(map[string]killswitch.State)
	for _, t := range r.Targets {
		m[t.Name] = t.State
	}
	return m
}

func result(t testing.TB, r *killswitch.Receipt, name string) killswitch.TargetResult {
	t.Helper()
	for _, res := range r.Targets {
		if res.Name == name {
			return res
		}
	}
	t.Fatalf("the receipt has no target %s", name)
	return killswitch.TargetResult{}
}

// stored reads the receipt as somebody else would.
func stored(t testing.TB, dir string) *killswitch.Receipt {
	t.Helper()
	r, err := killswitch.LastReceipt(dir, "inbox", testKey().Public())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// verbs prints v in every way.
func verbs(v any) []string {
	shown := []string{fmt.Sprint(slog.AnyValue(v).Resolve())}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		shown = append(shown, fmt.Sprintf(verb, v))
	}
	data, _ := json.Marshal(v)
	return append(shown, string(data))
}
