package killswitchtest_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/killswitch"
	"github.com/managemyclaw/hardshell/killswitch/killswitchtest"
)

// A model is an actuator that keeps the contract, unless it is broken.
type model struct {
	killswitchtest.Actuator
	breaks string

	mu    sync.Mutex
	names int
	armed bool
	done  int
	stuck bool
}

func (m *model) Name() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names++; m.breaks == "name" && m.names > 1 {
		return "agent.other"
	}
	return "agent.stop"
}

func (m *model) Arm(ctx context.Context) error {
	m.mu.Lock()
	m.armed = true
	m.mu.Unlock()
	if m.breaks == "armed" {
		m.Thing.Stop()
	}
	return ctx.Err()
}

func (m *model) Do(ctx context.Context) error {
	m.mu.Lock()
	m.done++
	done, armed := m.done, m.armed
	m.mu.Unlock()
	switch {
	case m.stuck && m.breaks == "deadline":
		time.Sleep(3 * time.Second)
		return ctx.Err()
	case m.stuck && m.breaks == "stuck and content":
		<-ctx.Done()
		return nil
	case m.stuck:
		<-ctx.Done()
		return ctx.Err()
	case m.breaks == "unarmed" && !armed, m.breaks == "does nothing":
		return nil
	case m.breaks == "idempotent" && len(m.Thing.On()) == 0:
		return errors.New("there is nothing to stop")
	case m.breaks == "repeated" && done > 1:
		return nil // it has done it
	case m.breaks == "cut off" && ctx.Err() != nil:
		m.breaks = "does nothing"
	case m.breaks == "concurrent":
		if !m.mu.TryLock() {
			return errors.New("somebody else is at it")
		}
		defer m.mu.Unlock()
		time.Sleep(50 * time.Millisecond)
	case m.breaks == "panics":
		panic("it was told to")
	}
	return m.Actuator.Do(ctx)
}

func (m *model) Release(ctx context.Context) error {
	switch m.breaks {
	case "release":
		err := m.Actuator.Release(ctx)
		m.Thing.Start("a")
		return err
	case "releases nothing":
		return nil
	}
	return m.Actuator.Release(ctx)
}

func actuatorSubject(breaks string) killswitchtest.ActuatorSubject {
	thing := killswitchtest.NewThing("a")
	return killswitchtest.ActuatorSubject{
		New: func() (killswitch.Actuator, error) {
			return &model{Actuator: killswitchtest.Actuator{Thing: thing}, breaks: breaks}, nil
		},
		Start: func(context.Context) error {
			thing.Start("a")
			return nil
		},
		Running: func(context.Context) (bool, error) { return len(thing.On()) > 0, nil },
		Clear: func(ctx context.Context) error {
			return (&killswitchtest.Actuator{Thing: thing}).Release(ctx)
		},
		Stuck: func() (killswitch.Actuator, error) {
			return &model{Actuator: killswitchtest.Actuator{Thing: thing}, breaks: breaks, stuck: true}, nil
		},
		Within: 100 * time.Millisecond,
	}
}

// Each rule finds the actuator that breaks it, and only a correct one passes.
func TestActuatorKit(t *testing.T) {
	killswitchtest.RunActuator(t, actuatorSubject(""))
	for breaks, rule := range map[string]string{
		"": "", "name": "name", "unarmed": "unarmed", "armed": "armed", "idempotent": "idempotent", "repeated": "repeated",
		"cut off": "cut off", "deadline": "deadline", "stuck and content": "deadline", "concurrent": "concurrent", "release": "release",
		"releases nothing": "release", "does nothing": "unarmed", "panics": "unarmed",
	} {
		found(t, breaks, rule, killswitchtest.TestActuator(t.Context(), actuatorSubject(breaks)))
	}
	s := actuatorSubject("")
	s.Stuck = nil
	found(t, "no Stuck", "deadline", killswitchtest.TestActuator(t.Context(), s))
	s.NoStuck = "it depends on nothing"
	found(t, "", "", killswitchtest.TestActuator(t.Context(), s))
}

func found(t *testing.T, breaks, rule string, err error) {
	t.Helper()
	var rules []string
	var errs []error
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		errs = joined.Unwrap()
	}
	for _, err := range errs {
		if e, ok := errors.AsType[*killswitchtest.RuleError](err); ok {
			rules = append(rules, e.Rule)
		}
	}
	switch {
	case rule == "" && err != nil:
		t.Errorf("one that keeps the contract: %v", err)
	case rule != "" && !slices.Contains(rules, rule):
		t.Errorf("broken %q: rule %q does not find it: %v", breaks, rule, err)
	}
}

// A watcher is an observer that keeps the contract, unless it is broken.
type watcher struct {
	killswitchtest.Observer
	breaks string
	engine *sync.RWMutex // what the actuators use; held while it is broken

	mu    sync.Mutex
	names int
	armed bool
	cache map[string]string
	looks int
	blind bool
	stuck bool
}

func (w *watcher) Name() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.names++; w.breaks == "name" {
		return "Agent look"
	}
	return "agent.look"
}

func (w *watcher) Arm(ctx context.Context) error {
	w.mu.Lock()
	w.armed = true
	w.mu.Unlock()
	if w.breaks == "armed" {
		w.Thing.Stop()
	}
	return ctx.Err()
}

func (w *watcher) Remaining(ctx context.Context) (map[string]string, error) {
	w.mu.Lock()
	w.looks++
	looks, armed, cache := w.looks, w.armed, w.cache
	w.mu.Unlock()
	switch {
	case w.stuck && w.breaks == "deadline":
		time.Sleep(3 * time.Second)
		return nil, ctx.Err()
	case w.stuck:
		<-ctx.Done()
		if w.breaks == "stuck and content" {
			return nil, nil
		}
		return nil, ctx.Err()
	case w.blind && w.breaks == "blind":
		return nil, nil
	case w.blind:
		return nil, errors.New("permission denied")
	case w.breaks == "cut off" && ctx.Err() != nil, w.breaks == "on" && !armed, w.breaks == "confirms by itself" && looks > 2:
		return nil, nil
	case w.breaks == "off":
		return map[string]string{"a": "on"}, nil
	case w.breaks == "anew" && cache != nil && len(cache) == 0:
		return cache, nil
	case w.breaks == "pure" && looks > 10:
		w.Thing.Stop()
	case w.breaks == "independent":
		if !w.engine.TryRLock() {
			return nil, nil
		}
		defer w.engine.RUnlock()
	case w.breaks == "concurrent":
		if !w.mu.TryLock() {
			return nil, nil
		}
		defer w.mu.Unlock()
		time.Sleep(30 * time.Millisecond)
		return w.Observer.Remaining(ctx)
	case w.breaks == "panics":
		panic("it was told to")
	}
	m, err := w.Observer.Remaining(ctx)
	if err == nil {
		w.mu.Lock()
		w.cache = m
		w.mu.Unlock()
	}
	return m, err
}

func (w *watcher) Objects() []string {
	if w.breaks == "objects" {
		return w.Thing.On()
	}
	return w.Observer.Objects()
}

func observerSubject(breaks string) killswitchtest.ObserverSubject {
	thing := killswitchtest.NewThing("a")
	engine := new(sync.RWMutex)
	with := func(change func(*watcher)) func() (killswitch.Observer, error) {
		return func() (killswitch.Observer, error) {
			w := &watcher{Observer: killswitchtest.Observer{Thing: thing}, breaks: breaks, engine: engine}
			change(w)
			return w, nil
		}
	}
	return killswitchtest.ObserverSubject{
		New: with(func(*watcher) {}),
		Start: func(context.Context) error {
			thing.Start("a")
			return nil
		},
		Stop: func(context.Context) error {
			thing.Stop()
			return nil
		},
		Running: func(context.Context) (bool, error) { return len(thing.On()) > 0, nil },
		Break: func() (func(), error) {
			engine.Lock()
			return engine.Unlock, nil
		},
		Blind:  with(func(w *watcher) { w.blind = true }),
		Stuck:  with(func(w *watcher) { w.stuck = true }),
		Within: 100 * time.Millisecond,
	}
}

// Each rule finds the observer that breaks it, and only a correct one passes.
func TestObserverKit(t *testing.T) {
	killswitchtest.RunObserver(t, observerSubject(""))
	for breaks, rule := range map[string]string{
		"": "", "name": "name", "on": "on", "confirms by itself": "on", "off": "off", "anew": "anew", "armed": "armed", "blind": "blind",
		"cut off": "cut off", "deadline": "deadline", "stuck and content": "deadline", "pure": "pure", "concurrent": "concurrent",
		"independent": "independent", "objects": "objects", "panics": "on",
	} {
		found(t, breaks, rule, killswitchtest.TestObserver(t.Context(), observerSubject(breaks)))
	}
	for missing, change := range map[string]func(*killswitchtest.ObserverSubject){
		"deadline":    func(s *killswitchtest.ObserverSubject) { s.Stuck = nil },
		"independent": func(s *killswitchtest.ObserverSubject) { s.Break = nil },
		"blind":       func(s *killswitchtest.ObserverSubject) { s.Blind = nil },
	} {
		s := observerSubject("")
		change(&s)
		found(t, "missing", missing, killswitchtest.TestObserver(t.Context(), s))
	}
}

// The fakes do what they are told to.
func TestFaults(t *testing.T) {
	thing := killswitchtest.NewThing("a", "b")
	a := &killswitchtest.Actuator{Called: "stop", Thing: thing, Spares: []string{"b"}}
	o := &killswitchtest.Observer{Called: "look", Thing: thing}
	err := a.Do(t.Context())
	var open interface{ Open() map[string]string }
	if !errors.As(err, &open) || open.Open()["b"] == "" || strings.Join(thing.On(), " ") != "b" {
		t.Errorf("%v, %q", err, thing.On())
	}
	if m, err := o.Remaining(t.Context()); err != nil || len(m) != 1 || m["b"] == "" {
		t.Errorf("%v, %v", m, err)
	}
}
