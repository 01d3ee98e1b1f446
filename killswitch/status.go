package killswitch

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"sync"
	"time"
)

// A Status is how an agent and its switch are. Its JSON is for programs; it is
// not signed.
type Status struct {
	Agent string    `json:"agent"`
	Time  time.Time `json:"time"`

	Fence      FenceState `json:"fence"` // engaged if it cannot be read
	FenceError string     `json:"fence_error,omitempty"`
	Firing     bool       `json:"firing"` // in this process

	// Receipt is the last, Armed what was armed, and Drill the last of each
	// variant; nil if there is none that is signed as it should be.
	Receipt *Receipt `json:"receipt,omitempty"`
	Armed   *Armed   `json:"armed,omitempty"`
	Drills  []*Drill `json:"drills"`

	ResetSecret bool `json:"reset_secret"` // one is set

	// Targets are what the observers see now. A target that is Confirmed was
	// found off by this look alone.
	Targets []TargetResult `json:"targets"`

	Problems []string `json:"problems"` // what could not be read, in words
}

// Status looks at the fence, at what was written down, and at the targets, for
// at most [Config.LookTimeout]. It changes nothing.
func (s *Switch) Status(ctx context.Context) *Status {
	st := &Status{
		Agent: s.cfg.Agent, Time: time.Now().UTC().Round(0), Problems: []string{}, Drills: []*Drill{},
		ResetSecret: HasResetSecret(s.cfg.Dir, s.cfg.Agent), Targets: make([]TargetResult, len(s.targets)),
	}
	var looks sync.WaitGroup
	for i, t := range s.targets {
		looks.Go(func() { st.Targets[i] = t.now(ctx) })
	}
	note := func(err error) {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			st.Problems = append(st.Problems, problem(err))
		}
	}
	state, err := s.fence.State(s.cfg.Agent)
	st.Fence, st.FenceError = state, problem(err)
	key := s.cfg.Key.Public()
	st.Receipt, err = LastReceipt(s.cfg.Dir, s.cfg.Agent, key)
	note(err)
	st.Armed, err = ReadArmed(s.cfg.Dir, s.cfg.Agent, key)
	note(err)
	drills, err := ReadDrills(s.cfg.Dir, s.cfg.Agent, key)
	note(err)
	for _, d := range slices.Backward(drills) {
		if !slices.ContainsFunc(st.Drills, func(l *Drill) bool { return l.Variant == d.Variant && l.Real == d.Real }) {
			st.Drills = append(st.Drills, d)
		}
	}
	s.mu.Lock()
	st.Firing = s.running != nil
	s.mu.Unlock()
	looks.Wait()
	return st
}

// now has the observers of a target look once.
func (t *target) now(ctx context.Context) TargetResult {
	r, _ := t.on(ctx, nil)
	r.State = Confirmed
	for _, o := range r.Observers {
		switch {
		case o.Remaining > 0:
			r.State = Failed
		case o.Error != "" && r.State == Confirmed:
			r.State = Unconfirmed
		}
	}
	return r
}
