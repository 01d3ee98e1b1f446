package network

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/firewall/guard"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// A Guard undoes a change of the firewall that nobody confirms. [guard.Guard]
// is one.
type Guard interface {
	Arm(ctx context.Context, c guard.Change) (*guard.Armed, error)
	Applied(ctx context.Context, id string) error
	ConfirmBy(ctx context.Context, id string, try func(context.Context) error) error
	Rollback(ctx context.Context, id string) (guard.Status, error)
	List(ctx context.Context) ([]guard.Status, error)
}

// A Remedy closes what the checks find open, each change as a transaction that
// undoes itself: a [Guard] saves what is there and starts to count before the
// first rule is changed, and puts it back unless a new connection from outside
// has been made and the check passes by then. That holds also if this process
// is killed.
//
// Its fields must not be changed once it is in use.
type Remedy struct {
	// Guard undoes what is not confirmed. Required: without it no remedy
	// changes anything. Its window must be longer than a check takes.
	Guard Guard

	// Confirm makes a new connection from outside, by the way that the operator
	// comes, and returns an error if that fails. It is called when a change
	// has been made. Nil means that somebody confirms by another process (see
	// [guard.Guard.Confirm]), which is then waited for.
	Confirm func(ctx context.Context) error

	// Backend has the kernel keep the policy that closes what the engine
	// exposes. Nil means that a person has to.
	Backend firewall.Backend

	// Touches declares to the guard what Backend changes. Required beside it.
	Touches guard.Change

	// Former is the policy that Backend keeps now, if there is one, so that
	// it can be put back.
	Former *firewall.Policy

	// Boot, if set, has the policy kept over a restart of the machine: its file
	// is written, and where systemd runs the machine, its units are installed
	// and enabled.
	Boot *firewall.Units

	// Keep lists what UFW must let in besides the sessions by SSH that are
	// open when the plan is made, such as everything by tailscale0.
	Keep []firewall.Allow
}

// A mender plans for one check.
type mender func(ctx context.Context, v *host.View, m *Machine) (harden.Plan, error)

// wrap gives those of the checks that have a remedy their remedy.
func (r *Remedy) wrap(c *Config, src *harden.Source[Machine], checks []harden.Check) []harden.Check {
	if r == nil {
		return checks
	}
	menders := map[string]mender{
		"network.localhost_binding":  r.byHand("see the findings: where the gateway listens is a setting of its own, or of its container's"),
		"network.loopback_leak":      r.exposure(c),
		"network.docker_user":        r.exposure(c),
		"network.ufw_enabled":        r.ufw,
		"network.ufw_default_deny":   r.ufw,
		"network.ufw_kernel":         r.ufw,
		"network.ufw_rules":          r.ufw,
		"network.container_egress":   r.byHand("see the findings: the rule is not this program's to change"),
		"network.tailscale_up":       r.byHand("tailscale up"),
		"network.tailscale_funnel":   r.byHand("tailscale funnel reset; a Funnel in the foreground ends with the program that holds it (gateway.tailscale.mode off or serve in openclaw.json)"),
		"network.tailscale_operator": r.byHand("tailscale set --operator= ; and mount no socket of tailscaled into a container"),
		"network.tailscale_prefs":    r.byHand("switch the preferences off that the findings name, with tailscale set"),
		"network.ssh_exposure":       r.byHand("let sshd listen on the tailnet's address alone, or close its port by UFW to all but tailscale0; keep a second session open meanwhile"),
	}
	wrapped := make([]harden.Check, len(checks))
	for i, check := range checks {
		wrapped[i] = check
		if m := menders[check.Info().ID]; m != nil {
			wrapped[i] = &remedied{check, src, m}
		}
	}
	return wrapped
}

// remedied is a check with a remedy.
type remedied struct {
	harden.Check

	src    *harden.Source[Machine]
	mender mender
}

// Unwrap returns the check without the remedy.
func (r *remedied) Unwrap() harden.Check { return r.Check }

func (r *remedied) Plan(ctx context.Context, v *host.View) (harden.Plan, error) {
	ctx, done := harden.Share(ctx)
	defer done()
	if res := harden.Evaluate(ctx, v, r.Check, 0); res.Status != harden.StatusFail {
		return harden.Plan{}, nil
	}
	all, err := r.src.All(ctx, v)
	if err != nil {
		return harden.Plan{}, err
	}
	if len(all) != 1 {
		return harden.Plan{}, fmt.Errorf("network: %w", harden.ErrNoSubject)
	}
	return r.mender(ctx, v, &all[0])
}

func (r *Remedy) byHand(step string) mender {
	return func(context.Context, *host.View, *Machine) (harden.Plan, error) {
		return harden.Plan{Manual: []string{step}}, nil
	}
}

// exposure plans the policy that closes what the engine exposes.
func (r *Remedy) exposure(c *Config) mender {
	return func(ctx context.Context, v *host.View, m *Machine) (harden.Plan, error) {
		if r.Backend == nil || r.Guard == nil {
			return harden.Plan{Manual: []string{"drop new connections from outside in DOCKER-USER, for both families; see the findings for what arrives, and by which rules"}}, nil
		}
		a := &keepPolicy{r: r, Policy: PolicyFor(m, c.Allow), Former: r.Former}
		if err := a.Policy.Validate(); err != nil {
			return harden.Plan{}, fmt.Errorf("network: the policy for this machine: %w", err)
		}
		var err error
		if a.Drift, err = r.Backend.Drift(ctx, a.Policy); err != nil {
			return harden.Plan{}, fmt.Errorf("network: compare with %s: %w", r.Backend.Name(), err)
		}
		if len(a.Drift) == 0 {
			return harden.Plan{Manual: []string{fmt.Sprintf("the policy is kept by %s already, and the findings are beyond it", r.Backend.Name())}}, nil
		}
		after, notes, err := bootActions(v, r.Boot, a.Policy)
		if err != nil {
			return harden.Plan{}, fmt.Errorf("network: keep the policy over a restart: %w", err)
		}
		return harden.Plan{Actions: append([]harden.Action{a}, after...), Notes: append([]string{r.note()}, notes...)}, nil
	}
}

func (r *Remedy) note() string {
	if r.Confirm != nil {
		return "the change undoes itself unless a new connection from outside succeeds after it"
	}
	return "the change undoes itself unless it is confirmed from a new session: keep this one open, and log in a second time"
}

// errUnguarded reports a Remedy that may not change anything.
var errUnguarded = errors.New("network: Remedy.Guard is not set: a firewall is not changed unguarded")

// guarded makes a change under guard, and sees it confirmed.
//
// The guard goes on counting afterwards: what it has saved undoes the change if
// the check that follows does not pass, exactly and also if this process ends
// here. Commit dismisses it.
func (r *Remedy) guarded(ctx context.Context, what string, touches guard.Change, change func(context.Context) error) error {
	if r.Guard == nil {
		return errUnguarded
	}
	touches.What = what
	armed, err := r.Guard.Arm(ctx, touches)
	if err != nil {
		return fmt.Errorf("network: guard the change: %w", err)
	}
	err = change(ctx)
	if err == nil {
		err = r.Guard.Applied(ctx, armed.ID)
	}
	if err == nil {
		err = r.confirmed(ctx, armed.ID)
	}
	if err == nil {
		return nil
	}
	return errors.Join(err, r.undo(ctx, armed.ID))
}

// undo rolls a change back, also when the caller has gone. The error wraps
// [harden.ErrUnfinished] if not all is as it was.
func (r *Remedy) undo(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), harden.DefaultRevertTimeout)
	defer cancel()
	st, err := r.Guard.Rollback(ctx, id)
	switch {
	case errors.Is(err, guard.ErrNotArmed) && r.rolledBack(ctx, id):
		return nil // the watchdog was faster
	case err != nil:
		return fmt.Errorf("network: undo the change: %w: %w", harden.ErrUnfinished, err)
	case st.State != guard.StateRolledBack:
		return fmt.Errorf("network: undo the change: %w: %v, see %s", harden.ErrUnfinished, st, st.Log)
	}
	return nil
}

func (r *Remedy) rolledBack(ctx context.Context, id string) bool {
	all, err := r.Guard.List(ctx)
	for _, st := range all {
		if st.ID == id {
			return err == nil && st.State == guard.StateRolledBack
		}
	}
	return false
}

// pollInterval is how often to look whether somebody has confirmed a change.
const pollInterval = 200 * time.Millisecond

// confirmed returns once a new connection has been made after the change.
func (r *Remedy) confirmed(ctx context.Context, id string) error {
	if r.Confirm != nil {
		if err := r.Confirm(ctx); err != nil {
			return fmt.Errorf("network: no new connection from outside succeeded after the change: %w", err)
		}
		return nil
	}
	for {
		st, err := r.status(ctx, func(st guard.Status) bool { return st.ID == id })
		switch {
		case err != nil:
			return err
		case st.State == guard.StateConfirmed:
			return nil
		case st.State != guard.StateArmed:
			return fmt.Errorf("network: nobody confirmed the change in time: %w", guard.ErrRolledBack)
		}
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// status returns the newest change in the guard's directory that is meant.
func (r *Remedy) status(ctx context.Context, meant func(guard.Status) bool) (guard.Status, error) {
	if r.Guard == nil {
		return guard.Status{}, errUnguarded
	}
	all, err := r.Guard.List(ctx)
	if err != nil {
		return guard.Status{}, fmt.Errorf("network: ask the guard: %w", err)
	}
	for i := len(all) - 1; i >= 0; i-- {
		if meant(all[i]) {
			return all[i], nil
		}
	}
	return guard.Status{}, guard.ErrNotArmed
}

// pending returns the change of that description that the guard still counts
// for, or still has to put back.
func (r *Remedy) pending(ctx context.Context, what string) (guard.Status, error) {
	return r.status(ctx, func(st guard.Status) bool {
		switch st.State {
		case guard.StateArmed, guard.StateUnguarded, guard.StateRollingBack, guard.StateIncomplete:
			return st.What == what
		}
		return false
	})
}

// commit dismisses the guard of a change that has been verified. Confirm has
// been called since the change was made, and nothing was changed after that.
func (r *Remedy) commit(ctx context.Context, what string) error {
	st, err := r.pending(ctx, what)
	if errors.Is(err, guard.ErrNotArmed) {
		return nil // somebody has confirmed it
	}
	if err == nil {
		err = r.Guard.ConfirmBy(ctx, st.ID, func(context.Context) error { return nil })
	}
	if err != nil {
		return fmt.Errorf("network: the guard was not dismissed, and undoes the change: %w", err)
	}
	return nil
}
