package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/firewall/guard"
	"github.com/managemyclaw/hardshell/firewall/ufw"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// ufw plans a UFW that is enabled and denies by default, with the operator's
// way in allowed first.
func (r *Remedy) ufw(ctx context.Context, v *host.View, m *Machine) (harden.Plan, error) {
	s := m.Host.UFW
	switch {
	case r.Guard == nil:
		return harden.Plan{Manual: []string{enableUFW}}, nil
	case errors.Is(m.EngineErr, ErrElsewhere), errors.Is(m.EngineErr, ErrWhere):
		// It is another machine's firewall, as far as the agent is concerned.
		return harden.Plan{Manual: []string{"run this where the engine is: " + m.EngineErr.Error()}}, nil
	case s == nil || !s.Installed:
		return harden.Plan{Manual: []string{"install UFW, and plan again: apt install ufw"}}, nil
	case !s.Enabled && m.Host.other() != "":
		return harden.Plan{Manual: []string{m.Host.other() + " is the firewall, and is not this program's to change: let it deny by default, for IPv4 and IPv6"}}, nil
	}
	wish := ufw.Wish{Allow: slices.Clone(r.Keep)}
	var ports []uint16
	for _, b := range m.Banners {
		ports = append(ports, b.Addr.Port())
	}
	if len(ports) > 0 {
		sessions, err := guard.Sessions(ctx, Programs(v), ports...)
		if err != nil {
			return harden.Plan{}, fmt.Errorf("network: who is logged in: %w", err)
		}
		for _, s := range sessions {
			wish.Allow = append([]firewall.Allow{s.Allow()}, wish.Allow...)
		}
	}
	for _, rule := range s.Rules {
		if rule.Direction == ufw.In && rule.Action.Admits() && m.anything(rule) {
			wish.Remove = append(wish.Remove, rule)
		}
	}
	plan, err := s.Plan(wish)
	if refused(err) {
		return harden.Plan{Manual: []string{err.Error()}}, nil
	}
	if err != nil {
		return harden.Plan{}, err
	}
	if len(plan.Steps) == 0 {
		return harden.Plan{Manual: []string{"UFW is as it should be, and the findings are of rules beside it: see which program made them"}}, nil
	}
	out := harden.Plan{Notes: []string{r.note()}}
	if len(wish.Allow) == 0 {
		out.Notes = append(out.Notes, "nobody is logged in by SSH, and nothing is to be let in: after this the machine is reached from its console, and by what its rules allow already")
	}
	for _, b := range plan.Broader {
		out.Notes = append(out.Notes, "this rule stays, and lets in more than was asked for: "+b.String())
	}
	a := &enable{r: r, Wish: wish, Before: describeUFW(s)}
	for _, step := range plan.Steps {
		a.Steps = append(a.Steps, step.String())
	}
	out.Actions = []harden.Action{a}
	return out, nil
}

// refused reports whether a person must see to it first.
func refused(err error) bool {
	_, jumps := errors.AsType[*ufw.JumpsError](err)
	_, denied := errors.AsType[*ufw.DeniedError](err)
	return jumps || denied
}

func describeUFW(s *ufw.State) string {
	var b strings.Builder
	fmt.Fprintf(&b, "enabled: %t, loaded: %t, and for IPv6: %t\nincoming: %v\n", s.Enabled, s.V4.Active, s.V6.Active, s.Incoming)
	for _, r := range s.Rules {
		fmt.Fprintln(&b, r)
	}
	return strings.TrimSpace(b.String())
}

// enable is the action that makes UFW deny by default.
type enable struct {
	r *Remedy

	Wish   ufw.Wish
	Steps  []string // that were needed when the plan was made
	Before string
}

var _ harden.Committer = (*enable)(nil)

// Change implements [harden.Action].
func (a *enable) Change() harden.Change {
	return harden.Change{
		Subject: "UFW", Summary: "deny what comes in unless a rule allows it",
		Before: a.Before, After: strings.Join(a.Steps, "\n"),
	}
}

// plan reads UFW anew and returns what it takes to make it as wished.
func (a *enable) plan(ctx context.Context, h *host.Host) (*ufw.State, *ufw.Plan, error) {
	if h.FS == nil {
		return nil, nil, host.ErrNoAccess
	}
	s, err := ufw.Read(ctx, h.FS, Programs(&h.View))
	if err != nil {
		return nil, nil, err
	}
	p, err := s.Plan(a.Wish)
	return s, p, err
}

// Apply implements [harden.Action].
func (a *enable) Apply(ctx context.Context, h *host.Host) error {
	s, p, err := a.plan(ctx, h)
	if err != nil {
		return err
	}
	var steps []string
	for _, step := range p.Steps {
		steps = append(steps, step.String())
	}
	if !slices.Equal(steps, a.Steps) || describeUFW(s) != a.Before {
		return fmt.Errorf("network: UFW: %w", harden.ErrStale)
	}
	touches, err := guard.UFW(ctx, Programs(&h.View))
	if err != nil {
		return err
	}
	return a.r.guarded(ctx, what(a.Change()), touches, func(ctx context.Context) error {
		_, err := p.Apply(ctx, h.FS, AdminPrograms(h))
		return err
	})
}

// Revert implements [harden.Action]. Only the guard knows how the rules were
// before: once it is dismissed a person has to decide.
func (a *enable) Revert(ctx context.Context, h *host.Host) error {
	switch st, err := a.r.pending(ctx, what(a.Change())); {
	case err == nil:
		return a.r.undo(ctx, st.ID)
	case !errors.Is(err, guard.ErrNotArmed):
		return err
	}
	_, p, err := a.plan(ctx, h)
	if err != nil {
		return err
	}
	if len(p.Steps) > 0 {
		return fmt.Errorf("network: UFW: %w", harden.ErrStale)
	}
	return fmt.Errorf("network: UFW: %w: the change was confirmed for good, and what was before is no longer kept; ufw disable switches it off", harden.ErrUnfinished)
}

// Commit implements [harden.Committer].
func (a *enable) Commit(ctx context.Context, _ *host.Host) error {
	return a.r.commit(ctx, what(a.Change()))
}
