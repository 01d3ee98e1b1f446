package gateway

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/managemyclaw/hardshell/composio"
)

// A Trip is a breaker that has tripped.
type Trip struct {
	Agent     string
	Time      time.Time
	Limit     Limit  // that was exceeded
	RequestID string // of the call that exceeded it
	Tool      string // that it was to
}

// A standing is how an agent is doing: it outlives the policy that it is under.
type standing struct {
	mu      sync.Mutex
	active  int // calls under way
	windows map[composio.Class]*window
	attempt window // calls of destructive tools
	trip    *Trip
	stopped string // why Deny was called; "" if it was not
	holds   int    // how often a Halt was told to

	// held says that a Halt has. It is set without waiting for mu.
	held atomic.Bool
}

func newStanding() *standing { return &standing{windows: make(map[composio.Class]*window)} }

// A window holds the times of calls in the latest span.
type window struct {
	times []time.Time
}

// room reports whether n more calls at now keep within l, and otherwise how
// long it takes until they would, if ever.
func (w *window) room(l Limit, now time.Time, n int) (wait time.Duration, ok bool) {
	i := 0
	for i < len(w.times) && now.Sub(w.times[i]) >= l.Per {
		i++
	}
	w.times = append(w.times[:0], w.times[i:]...)
	over := len(w.times) + n - l.Calls
	switch {
	case over <= 0:
		return 0, true
	case over > len(w.times):
		return l.Per, false // never: there are more of them than the limit
	}
	return l.Per - now.Sub(w.times[over-1]), false
}

func (w *window) add(now time.Time, n int) {
	for range n {
		w.times = append(w.times, now)
	}
}

// halted returns why the agent may do nothing at all, nil if it may.
func (s *standing) halted() *denial {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.haltedLocked()
}

func (s *standing) haltedLocked() *denial {
	switch {
	case s.trip != nil:
		return deny(ReasonTripped, "the agent has made more destructive calls than it may (%v), and is denied everything until a person resets its breaker", s.trip.Limit)
	case s.stopped != "" || s.held.Load():
		return deny(ReasonStopped, "the agent was stopped")
	}
	return nil
}

// reserve takes the room that the calls need, or none of it. A trip that it
// causes is returned.
//
// What counts for the breaker is each destructive call that the policy allows,
// also one that is then too much for its rate: an agent that is held back by
// its rate and goes on is what the breaker is for.
func (s *standing) reserve(a *agent, tools []*tool, id string, now time.Time) (*Trip, *denial) {
	count := make(map[composio.Class]int)
	for _, t := range tools {
		count[t.class]++
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.haltedLocked(); d != nil {
		return nil, d
	}
	if n := count[composio.ClassDestructive]; n > 0 {
		if _, ok := s.attempt.room(a.Breaker, now, n); !ok {
			s.trip = &Trip{Agent: a.name, Time: now, Limit: a.Breaker, RequestID: id}
			for _, t := range tools {
				if t.class == composio.ClassDestructive {
					s.trip.Tool = t.Slug
				}
			}
			return s.trip, s.haltedLocked()
		}
		s.attempt.add(now, n)
	}
	for class := composio.ClassRead; class <= composio.ClassDestructive; class++ {
		limit, ok := a.Rates[class]
		if !ok || count[class] == 0 {
			continue
		}
		if s.windows[class] == nil {
			s.windows[class] = new(window)
		}
		if wait, ok := s.windows[class].room(limit, now, count[class]); !ok {
			d := deny(ReasonRate, "there are too many calls of class %v: the agent may make %v", class, limit)
			d.after = wait
			return nil, d
		}
	}
	for class, n := range count {
		if _, ok := a.Rates[class]; ok {
			s.windows[class].add(now, n)
		}
	}
	return nil, nil
}
