package killswitch

import (
	"fmt"
	"time"
)

// A target is a [Target] that has been looked through: its names are known, so
// that nothing of others has to be asked for them when it counts.
type target struct {
	Target
	rungs       []rung
	observers   []watched
	lookTimeout time.Duration
}

type rung struct {
	actuators []named
	patience  time.Duration // zero: the rest of the target's time
	noWait    bool
}

type named struct {
	Actuator
	name string
}

type watched struct {
	Observer
	name string
}

// checkTargets looks through targets.
func checkTargets(targets []Target, lookTimeout time.Duration) ([]*target, error) {
	seen := make(map[string]bool)
	all := make([]*target, 0, len(targets))
	for i, t := range targets {
		if !isDotted(t.Name) {
			return nil, fmt.Errorf("killswitch: Targets[%d]: %q is no name: use lower-case words joined by dots", i, bounded(t.Name, maxName))
		}
		if seen[t.Name] {
			return nil, fmt.Errorf("killswitch: target %s is there twice", t.Name)
		}
		seen[t.Name] = true
		c, err := checkTarget(t)
		if err != nil {
			return nil, fmt.Errorf("killswitch: target %s: %w", t.Name, err)
		}
		c.lookTimeout = lookTimeout
		all = append(all, c)
	}
	return all, nil
}

func checkTarget(t Target) (c *target, err error) {
	// Names are asked of those who may not be ready to say them.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %s", foreign(fmt.Sprint(p), maxDetail))
		}
	}()
	switch {
	case len(t.Ladder) == 0:
		return nil, fmt.Errorf("it has no ladder: nothing would stop it")
	case len(t.Observers) == 0:
		return nil, fmt.Errorf("it has no observer: nobody would confirm that it is off")
	case t.Timeout < 0:
		return nil, fmt.Errorf("its Timeout is negative")
	}
	c = &target{Target: t}
	c.Timeout = orDefault(t.Timeout, DefaultTimeout)
	seen := make(map[string]bool)
	for i, r := range t.Ladder {
		if len(r.Actuators) == 0 {
			return nil, fmt.Errorf("rung %d has no actuator", i+1)
		}
		if r.Patience < 0 && r.Patience != NoWait {
			return nil, fmt.Errorf("rung %d: its Patience is negative", i+1)
		}
		k := rung{patience: r.Patience, noWait: r.Patience == NoWait}
		if k.patience == 0 && i < len(t.Ladder)-1 {
			k.patience = DefaultPatience
		}
		for _, a := range r.Actuators {
			if a == nil {
				return nil, fmt.Errorf("rung %d: an actuator is nil", i+1)
			}
			name := a.Name()
			if !isDotted(name) {
				return nil, fmt.Errorf("rung %d: %q is no name of an actuator: use lower-case words joined by dots", i+1, bounded(name, maxName))
			}
			k.actuators = append(k.actuators, named{a, name})
		}
		c.rungs = append(c.rungs, k)
	}
	var patience time.Duration
	for _, k := range c.rungs {
		patience += max(k.patience, 0)
	}
	if patience > c.Timeout {
		return nil, fmt.Errorf("its ladder may take %v, and its Timeout is %v: the last rungs would not be tried", patience, c.Timeout)
	}
	for _, o := range t.Observers {
		if o == nil {
			return nil, fmt.Errorf("an observer is nil")
		}
		name := o.Name()
		if !isDotted(name) {
			return nil, fmt.Errorf("%q is no name of an observer: use lower-case words joined by dots", bounded(name, maxName))
		}
		if seen[name] {
			return nil, fmt.Errorf("observer %s is there twice", name)
		}
		seen[name] = true
		for _, r := range c.rungs {
			for _, a := range r.actuators {
				if same(a.Actuator, o) {
					return nil, fmt.Errorf("%s is its own observer: give the observer a client, a connection or a way of looking of its own", name)
				}
			}
		}
		c.observers = append(c.observers, watched{o, name})
	}
	return c, nil
}

// same reports whether an actuator and an observer are one value.
func same(a Actuator, o Observer) (is bool) {
	defer func() { _ = recover() }() // of types that cannot be compared
	return any(a) == any(o)
}

// until returns how long a rung may take that begins so long before the end of
// the target.
func (r rung) until(left time.Duration) time.Duration {
	if r.noWait || r.patience == 0 {
		return left
	}
	return min(r.patience, left)
}
