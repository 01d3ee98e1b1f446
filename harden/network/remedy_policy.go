package network

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/firewall/guard"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// keepPolicy is the action that has a backend keep a policy.
type keepPolicy struct {
	r *Remedy

	Policy firewall.Policy
	Former *firewall.Policy
	Drift  []string // what the kernel lacked of Policy when the plan was made
}

var _ harden.Committer = (*keepPolicy)(nil)

// Change implements [harden.Action].
func (a *keepPolicy) Change() harden.Change {
	return harden.Change{
		Subject: "packet filter (" + a.r.Backend.Name() + ")",
		Summary: "close what the container engine exposes",
		Before:  "missing:\n" + strings.Join(a.Drift, "\n"),
		After:   describe(a.Policy),
	}
}

// describe returns a policy for people.
func describe(p firewall.Policy) string {
	var b strings.Builder
	for _, n := range p.Networks {
		fmt.Fprintf(&b, "closed from outside: network %s (%s) %s\n", n.Name, n.Interface, texts(n.Prefixes))
	}
	for _, port := range p.Published {
		if !slices.ContainsFunc(p.Allow, func(a firewall.Allow) bool { return a.Port == port }) {
			fmt.Fprintf(&b, "closed from outside: published port %d/%s\n", port.Number, port.Protocol)
		}
	}
	for _, a := range p.Allow {
		from, in := "anywhere", ""
		if len(a.From) > 0 {
			from = texts(a.From)
		}
		if a.In != "" {
			in = " by " + a.In
		}
		fmt.Fprintf(&b, "open: port %d/%s, from %s%s\n", a.Number, a.Protocol, from, in)
	}
	return strings.TrimSpace(b.String())
}

func texts(all []netip.Prefix) string {
	s := make([]string, len(all))
	for i, p := range all {
		s[i] = p.String()
	}
	return strings.Join(s, " ")
}

// what names the action to the guard, so that another process finds it.
func what(c harden.Change) string {
	sum := sha256.Sum256([]byte(c.Subject + "\x00" + c.Before + "\x00" + c.After))
	return c.Summary + " " + hex.EncodeToString(sum[:6])
}

// Apply implements [harden.Action].
func (a *keepPolicy) Apply(ctx context.Context, _ *host.Host) error {
	drift, err := a.r.Backend.Drift(ctx, a.Policy)
	if err != nil {
		return fmt.Errorf("network: compare with %s: %w", a.r.Backend.Name(), err)
	}
	if !slices.Equal(drift, a.Drift) {
		return fmt.Errorf("network: the rules of %s: %w", a.r.Backend.Name(), harden.ErrStale)
	}
	return a.r.guarded(ctx, what(a.Change()), a.r.Touches, func(ctx context.Context) error { return a.r.Backend.Apply(ctx, a.Policy) })
}

// Revert implements [harden.Action]. While the guard has what was there before
// it puts back that; later the backend does, as far as it knows.
func (a *keepPolicy) Revert(ctx context.Context, _ *host.Host) error {
	switch st, err := a.r.pending(ctx, what(a.Change())); {
	case err == nil:
		return a.r.undo(ctx, st.ID)
	case !errors.Is(err, guard.ErrNotArmed):
		return err
	}
	drift, err := a.r.Backend.Drift(ctx, a.Policy)
	if err != nil {
		return fmt.Errorf("network: compare with %s: %w", a.r.Backend.Name(), err)
	}
	if len(drift) > 0 {
		return fmt.Errorf("network: the rules of %s: %w", a.r.Backend.Name(), harden.ErrStale)
	}
	if a.Former != nil {
		return a.r.Backend.Apply(ctx, *a.Former)
	}
	return a.r.Backend.Remove(ctx)
}

// Commit implements [harden.Committer].
func (a *keepPolicy) Commit(ctx context.Context, _ *host.Host) error {
	return a.r.commit(ctx, what(a.Change()))
}
