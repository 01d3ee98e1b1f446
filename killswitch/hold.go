package killswitch

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// longPause is the longest time between two attempts of [Switch.Hold] at a
// target that it cannot get off.
const longPause = time.Minute

// Hold keeps the agent down for as long as the fence is engaged. First it does
// what [Switch.Resume] does. Then it has the observers look at intervals of
// [Config.Interval], and tries the ladder of a target again, from the first
// rung, when one sees that something of it is on: at once if the target was
// off before, and otherwise at growing intervals of up to a minute. What it did
// is in the trail, and in the last receipt.
//
// It returns nil when the fence is released, also by another process, or was
// not engaged in the first place; and why ctx ended when it did.
func (s *Switch) Hold(ctx context.Context) error {
	if s.released() {
		return nil
	}
	r, err := s.Resume(ctx)
	if err != nil {
		s.log(ctx, slog.LevelWarn, "the agent is held, and not all is as it should be", "error", problem(err))
	}
	off := make(map[string]bool)
	if r != nil {
		for _, t := range r.Targets {
			off[t.Name] = t.State == Confirmed
		}
	}
	var targets sync.WaitGroup
	for _, t := range s.targets {
		h := &hold{s: s, t: t, off: off[t.Name]}
		targets.Go(func() { h.run(ctx) })
	}
	targets.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// released reports whether the fence is known to be released. A disk that does
// not answer says nothing.
func (s *Switch) released() bool {
	known := make(chan bool, 1)
	go func() {
		state, err := s.fence.State(s.cfg.Agent)
		known <- err == nil && state.Released
	}()
	late := time.NewTimer(s.cfg.FenceTimeout)
	defer late.Stop()
	select {
	case is := <-known:
		return is
	case <-late.C:
		return false
	}
}

// A hold keeps one target off.
type hold struct {
	s *Switch
	t *target

	off   bool // when last looked at
	pause time.Duration
	next  time.Time // when it is tried again if it was not off
}

func (h *hold) run(ctx context.Context) {
	tick := time.NewTicker(h.s.cfg.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if h.s.released() {
			return
		}
		remaining, blind := h.t.glance(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case len(remaining) == 0 && blind == "":
			h.off, h.pause = true, 0
		case len(remaining) == 0 && h.off:
			// It was off, and nobody says that it is back.
		case h.off, !time.Now().Before(h.next):
			h.again(ctx, remaining, blind)
		}
	}
}

// glance has all observers of a target look once, and returns what is on, and
// why nobody could tell about all of it.
func (t *target) glance(ctx context.Context) (remaining map[string]string, blind string) {
	remaining = make(map[string]string)
	for i, s := range t.looks(ctx, 1) {
		maps.Copy(remaining, s.remaining)
		if s.problem != "" && blind == "" {
			blind = t.observers[i].name + ": " + s.problem
		}
	}
	return remaining, blind
}

// looks has all observers of a target look at once, at most so many times if
// they cannot see.
func (t *target) looks(ctx context.Context, most int) []said {
	all := make([]said, len(t.observers))
	var looking sync.WaitGroup
	for i, o := range t.observers {
		looking.Go(func() {
			for range most {
				s := look(ctx, o, t.lookTimeout)
				all[i] = s
				if s.problem == "" || s.abandoned || len(s.remaining) > 0 {
					return
				}
			}
		})
	}
	looking.Wait()
	return all
}

// again stops a target that is not off.
func (h *hold) again(ctx context.Context, remaining map[string]string, blind string) {
	s := h.s
	if !s.enter() {
		return // it is being stopped, or has been released
	}
	defer s.leave()
	began := time.Now()
	state, _ := s.fence.State(s.cfg.Agent)
	already := max(began.Sub(state.Time), 0)
	was := h.off
	res := h.t.safely(ctx, func() time.Duration { return already + time.Since(began) }, nil, nil)
	if h.off = res.State == Confirmed; h.off {
		h.pause = 0
	} else {
		h.pause = min(max(2*h.pause, s.cfg.Interval), longPause)
		h.next = time.Now().Add(h.pause)
	}
	what := blind
	if len(remaining) > 0 {
		what = strings.Join(slices.Sorted(maps.Keys(remaining)), ", ")
	}
	word := "still on"
	if was {
		word = "back"
	}
	e := trail.Event{
		Kind: trail.KindKill, Time: began, Actor: "hardshell", Agent: s.cfg.Agent, Subject: "target/" + h.t.Name,
		ID: strconv.FormatUint(state.Epoch, 10), Message: bounded(fmt.Sprintf("%s: %s", word, what), maxReason),
		Attrs: map[string]string{"target." + h.t.Name: res.State.String(), "hold": word},
	}
	switch e.Outcome = trail.OutcomeUnknown; res.State {
	case Confirmed:
		e.Outcome = trail.OutcomeOK
	case Failed:
		e.Outcome = trail.OutcomeError
	case Unconfirmed:
	}
	recorded := s.record(ctx, e)
	s.log(ctx, slog.LevelWarn, "a target was not off, and was stopped again", "target", h.t.Name, "what", e.Message, "state", res.State.String())
	s.amend(ctx, state.Epoch, func(r *Receipt) {
		if was {
			r.Returned++
		}
		for i := range r.Targets {
			if r.Targets[i].Name == res.Name {
				r.Targets[i] = res
			}
		}
		if recorded != nil {
			r.Trail = TrailResult{Error: problem(recorded)}
		}
	})
}

// enter reports whether Hold may act: not while a kill or a reset is under way.
func (s *Switch) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil || s.resetting {
		return false
	}
	s.acting++
	return true
}

func (s *Switch) leave() {
	s.mu.Lock()
	s.acting--
	s.mu.Unlock()
}

// amend changes the last receipt of an epoch.
func (s *Switch) amend(ctx context.Context, epoch uint64, change func(*Receipt)) {
	s.amending.Lock()
	defer s.amending.Unlock()
	last := s.earlier(epoch)
	if last == nil {
		return
	}
	r := *last
	r.Targets = slices.Clone(r.Targets)
	change(&r)
	_ = r.sign(s.cfg.Key) // it marshals
	s.mu.Lock()
	replaced := s.running == nil && (s.last == nil || s.last == last || s.last.Epoch != epoch)
	if replaced {
		s.last = &r
	}
	s.mu.Unlock()
	if !replaced {
		return // a kill has written another since
	}
	if err := r.store(s.disk, s.cfg.Dir); err != nil {
		s.log(ctx, slog.LevelError, "the receipt cannot be written down", "error", problem(err))
	}
}
