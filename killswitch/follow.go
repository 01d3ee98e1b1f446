package killswitch

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// followFactor is how much longer than a look the rest is between two.
	followFactor = 20

	// comebacks is how often what is on again when all have come to their end is
	// stopped again. After that it is for Hold.
	comebacks = 2

	// maxTried is how many attempts a receipt has of a target; of more, the
	// last ones.
	maxTried = 200
)

// following keeps off what was confirmed while others are still being stopped:
// the stop of one target may undo that of another, and an engine that was told
// late starts again what was killed.
type following struct {
	*kill

	since    func() time.Duration
	pen      *pen
	climbing atomic.Int64  // targets that have not come to their end
	all      chan struct{} // closed once all have
}

// climb stops a target, of which tried is what was tried before.
func (f *following) climb(ctx context.Context, i int, before *TargetResult, tried []Attempt) {
	set := func(r TargetResult) {
		r.Tried = slices.Concat(tried, r.Tried)
		r.Tried = r.Tried[max(0, len(r.Tried)-maxTried):]
		f.set(i, r)
	}
	set(f.targets[i].safely(ctx, f.since, before, func(r TargetResult) {
		set(r)
		f.pen.write(f.snapshot)
	}))
}

// follow looks at a target that has come to its end, at intervals until all have
// and then once more, and stops it again if it is back.
func (f *following) follow(ctx context.Context, i int) {
	wait := f.s.cfg.Interval
	for left := comebacks; ; {
		f.mu.Lock()
		r := f.receipt.Targets[i]
		f.mu.Unlock()
		if r.State != Confirmed {
			return // more than its ladder cannot be done
		}
		late := false
		timer := time.NewTimer(wait)
		select {
		case <-f.all:
			late = true
		case <-timer.C:
		}
		timer.Stop()
		began := f.since()
		r = f.targets[i].lookAgain(ctx, f.since, r)
		wait = max(f.s.cfg.Interval, followFactor*(f.since()-began))
		switch {
		case r.State == Failed && (!late || left > 0):
			if late {
				left--
			}
			f.mu.Lock()
			f.receipt.Returned++
			f.mu.Unlock()
			f.climb(ctx, i, &r, r.Tried)
			continue
		case late:
			f.set(i, r)
			return
		case r.State != Confirmed:
			continue // it could not be seen, and is looked at again
		}
		f.set(i, r)
	}
}

// lookAgain returns what is known of a target that was confirmed, once its
// observers have looked again.
func (t *target) lookAgain(ctx context.Context, since func() time.Duration, r TargetResult) TargetResult {
	r.Objects, r.Observers = slices.Clone(r.Objects), slices.Clone(r.Observers)
	for i, s := range t.looks(ctx, 2) { // a second one if the first does not come to its end
		l := &r.Observers[i]
		l.Looks++
		l.Last, l.Remaining, l.Error, l.Abandoned = max(since(), 1), len(s.remaining), s.problem, s.abandoned
		if s.clean() {
			continue
		}
		r.ConfirmedAfter = 0
		if r.State == Confirmed {
			r.State = Unconfirmed
		}
		if len(s.remaining) > 0 {
			r.State = Failed
		}
		known := make(map[string]bool)
		for j := range r.Objects {
			o := &r.Objects[j]
			known[o.Name] = true
			switch status, on := s.remaining[o.Name]; {
			case on:
				*o = ObjectResult{Name: o.Name, State: Failed, Status: status}
			case s.problem != "" && o.State == Confirmed:
				*o = ObjectResult{Name: o.Name}
			}
		}
		for name, status := range s.remaining {
			if !known[name] {
				r.Objects = append(r.Objects, ObjectResult{Name: name, State: Failed, Status: status})
			}
		}
	}
	slices.SortFunc(r.Objects, func(a, b ObjectResult) int { return strings.Compare(a.Name, b.Name) })
	return r
}
