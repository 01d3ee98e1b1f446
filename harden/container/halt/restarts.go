package halt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/harden/host"
)

// Restarts is an observer that looks whether something would start the agent
// again: the restart policy of a container, as the engine has written it down,
// or a systemd unit that runs, or that nothing keeps from being started. It asks no engine, and so
// cannot know of a change that the engine has written down, has not carried out
// yet, and may still take back; [KeepDown] returns when there is none of its own.
type Restarts struct {
	// Agent says which containers are meant. Required.
	Agent Agent

	// DataRoot is where the engine keeps its containers. Empty means
	// DefaultDataRoot.
	DataRoot string

	// View is where systemd runs. Nil means that there is none.
	View *host.View

	// Units are looked at besides those that are found.
	Units []Unit

	// UnitTimeout bounds each command of the service manager. Zero means
	// DefaultUnitTimeout.
	UnitTimeout time.Duration

	roll roll
}

// Name returns "container.restarts.off".
func (r *Restarts) Name() string { return "container.restarts.off" }

// Arm looks once, so that containers are known by their ids.
func (r *Restarts) Arm(ctx context.Context) error {
	_, err := r.Remaining(ctx)
	return err
}

// Objects returns the agent's containers that have been seen.
func (r *Restarts) Objects() []string { return r.roll.objects() }

// Remaining returns the containers and units that would start again.
func (r *Restarts) Remaining(ctx context.Context) (map[string]string, error) {
	if err := errors.Join(r.Agent.none(), supported()); err != nil {
		return nil, err
	}
	var l ledger
	var mu sync.Mutex
	var errs []error
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		errs = append(errs, err)
	}
	_, err := within(ctx, func() (none, error) {
		var wg sync.WaitGroup
		wg.Go(func() { fail(r.policies(&l)) })
		if r.View != nil {
			units, err := FindUnits(r.View, r.Agent)
			fail(err)
			for _, u := range append(units, r.Units...) {
				wg.Go(func() { fail(r.unit(ctx, u, &l)) })
			}
		}
		wg.Wait()
		return none{}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("halt: restarts: %w", err)
	}
	return l.open, errors.Join(errs...)
}

func (r *Restarts) policies(l *ledger) error {
	records, err := readRecords(cmp.Or(r.DataRoot, DefaultDataRoot))
	all, policy := make([]who, 0, len(records)), make(map[string]string)
	for _, rec := range records {
		all, policy[rec.id] = append(all, rec.who), rec.policy
	}
	for _, w := range r.roll.admit(r.Agent, all) {
		if p := policy[w.id]; revives(p) {
			l.add(w.object(), fmt.Sprintf("the engine would start it again: its restart policy is %q", p))
		}
	}
	return errors.Join(err, r.roll.unmet(r.Agent))
}

func (r *Restarts) unit(ctx context.Context, u Unit, l *ledger) error {
	s, err := u.state(ctx, r.View.Run, cmp.Or(r.UnitTimeout, DefaultUnitTimeout))
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", u.Object(), err)
	case s.absent(), s.down():
	default:
		l.add(u.Object(), fmt.Sprintf("it is %s, and %s", s["ActiveState"], cmp.Or(s["UnitFileState"], s["LoadState"])))
	}
	return nil
}
