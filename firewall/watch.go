package firewall

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Watcher keeps a policy kept: it asks again and again what the policy is and
// whether the kernel keeps it, and, if it shall, has the kernel do so again.
//
// Its fields may be set before Run and not changed thereafter.
type Watcher struct {
	Backend Backend

	// Source says what the policy is at the moment, such as one made anew
	// of what the engine publishes. It must return when its context ends.
	Source func(ctx context.Context) (Policy, error)

	// Interval is the time between two looks; zero means DefaultInterval.
	// After errors it is doubled each time, up to MaxBackoff, and a Trigger
	// does not shorten it below Interval.
	Interval time.Duration

	// Trigger, if it is not nil, causes a look at once: send to it when the
	// engine has started a container or made a network. Looks are not queued:
	// what is sent while one is under way causes one more. If it is
	// closed, the Interval is what remains.
	Trigger <-chan struct{}

	// Repair has drift repaired. Otherwise it is only reported.
	Repair bool

	// Report, if it is not nil, is called after each look that found drift or
	// went wrong, and after the first that did neither again. It must not
	// block: while it runs, nothing is watched.
	Report func(Drift)
}

// Times of a [Watcher].
const (
	DefaultInterval = 30 * time.Second
	MaxBackoff      = 5 * time.Minute
)

// settle is the time between a trigger and the look. Engines make a network
// and start containers in many steps, each with an event of its own.
const settle = 20 * time.Millisecond

// A Drift is what a look of a [Watcher] came to.
type Drift struct {
	Time time.Time

	// Lines are the differences that were found; see [Backend].
	Lines []string

	// Repaired says that there were some and there are none any more: that has been
	// looked at too.
	Repaired bool

	// Err is why there is no answer, or no repair. The kernel may then keep
	// the policy or not.
	Err error
}

// Run watches until ctx ends, and returns its error. It looks at once when it is
// called.
func (w *Watcher) Run(ctx context.Context) error {
	if w.Backend == nil || w.Source == nil {
		return errors.New("firewall: watch: no backend, or no source of policies")
	}
	interval := w.Interval
	if interval <= 0 {
		interval = DefaultInterval
	}
	trigger := w.Trigger
	wait, troubled := interval, false
	for {
		d := w.look(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		bad := d.Err != nil || len(d.Lines) > 0
		if w.Report != nil && (bad || troubled) {
			w.Report(d)
		}
		troubled = bad && !d.Repaired
		if d.Err != nil {
			wait = min(2*wait, max(MaxBackoff, interval))
		} else {
			wait = interval
		}
		if err := w.pause(ctx, &trigger, wait, interval, d.Err != nil); err != nil {
			return err
		}
	}
}

// pause waits for the next look: for the time to come, or for a trigger, which after an
// error does not count before the shortest time is over.
func (w *Watcher) pause(ctx context.Context, trigger *<-chan struct{}, wait, shortest time.Duration, failed bool) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	began := time.Now()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	case _, ok := <-*trigger:
		if !ok {
			*trigger = nil // never again
			return w.pause(ctx, trigger, wait, shortest, failed)
		}
	}
	left := settle
	if failed {
		left = max(settle, shortest-time.Since(began))
	}
	timer.Reset(left)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		case _, ok := <-*trigger: // the look to come is for these too
			if !ok {
				*trigger = nil
			}
		}
	}
}

// look looks once.
func (w *Watcher) look(ctx context.Context) Drift {
	d := Drift{Time: time.Now()}
	p, err := w.Source(ctx)
	if err == nil {
		err = p.Validate() // a source that is wrong must not reach the kernel
	}
	if err != nil {
		d.Err = fmt.Errorf("firewall: watch: policy: %w", err)
		return d
	}
	lines, err := w.Backend.Drift(ctx, p)
	d.Lines = slices.Clone(lines)
	if err != nil {
		d.Err = fmt.Errorf("firewall: watch: %s: %w", w.Backend.Name(), err)
		// Who cannot look can perhaps still repair: both may differ in what
		// they need, and to apply what is applied changes nothing.
	}
	if !w.Repair || err == nil && len(lines) == 0 {
		return d
	}
	if err := w.Backend.Apply(ctx, p); err != nil {
		d.Err = errors.Join(d.Err, fmt.Errorf("firewall: watch: repair: %w", err))
		return d
	}
	left, err := w.Backend.Drift(ctx, p)
	switch {
	case err != nil:
		d.Err = errors.Join(d.Err, fmt.Errorf("firewall: watch: after the repair: %w", err))
	case len(left) > 0:
		d.Err = errors.Join(d.Err, fmt.Errorf("firewall: watch: after the repair it still differs: %q", left))
	default:
		d.Repaired, d.Err = true, nil
	}
	return d
}
