package network

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/harden"
)

// maxProbes bounds how many attempts one check makes from one vantage, and
// probesAtOnce how many of them at a time.
const (
	maxProbes    = 64
	probesAtOnce = 32
)

// A probing is what came of trying targets from all vantages.
type probing struct {
	open     violations
	evidence []harden.Evidence
}

// probe tries targets from outside. A vantage that could not try counts
// neither way. One to which nothing of the machine ever answered may be on the
// wrong network altogether, so that its silence is not taken for proof.
func (c *Config) probe(ctx context.Context, id, remedy string, targets []target) probing {
	var tried []target
	for _, t := range targets {
		network := ""
		switch t.proto {
		case firewall.TCP:
			network = "tcp"
		case firewall.UDP:
			network = "udp"
		}
		if network != "" && !t.stand && len(tried) < maxProbes && !t.to.Addr().IsLinkLocalUnicast() &&
			!slices.ContainsFunc(tried, func(o target) bool { return o.to == t.to && o.proto == t.proto }) {
			tried = append(tried, t)
		}
	}
	parts := make([]probing, len(c.Vantages))
	var wg sync.WaitGroup
	for i, vantage := range c.Vantages {
		wg.Go(func() { parts[i] = c.probeFrom(ctx, vantage, id, remedy, tried) })
	}
	wg.Wait()
	var p probing
	for _, part := range parts {
		p.open = append(p.open, part.open...)
		p.evidence = append(p.evidence, part.evidence...)
	}
	return p
}

func (c *Config) probeFrom(ctx context.Context, vantage Vantage, id, remedy string, targets []target) (p probing) {
	reached := make([]Reach, len(targets))
	slots := make(chan struct{}, probesAtOnce)
	var wg sync.WaitGroup
	for i, t := range targets {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			reached[i], _ = vantage.Probe(ctx, t.proto.String(), t.to)
		})
	}
	wg.Wait()
	count := make(map[Reach]int)
	for i, r := range reached {
		t := targets[i]
		count[r]++
		if r != ReachOpen || c.opened(t) {
			continue
		}
		p.open.add(harden.Finding{
			ID: id, Severity: harden.SeverityCritical, Remedy: remedy,
			Message: fmt.Sprintf("%s answers at %s to %s", t.what, t.to, vantage.Name()),
			Evidence: []harden.Evidence{{
				Source: "vantage " + vantage.Name(), Observed: fmt.Sprintf("%s %s: %s", t.proto, t.to, r), Expected: "refused or silent", Level: harden.LevelProbed,
			}},
		})
	}
	closed := count[ReachRefused] + count[ReachSilent]
	if closed == 0 {
		return p
	}
	e := harden.Evidence{
		Source:   "vantage " + vantage.Name(),
		Observed: fmt.Sprintf("%d addresses were tried from there: %d refused, %d silent", closed, count[ReachRefused], count[ReachSilent]),
		Level:    harden.LevelProbed,
	}
	if count[ReachRefused]+count[ReachOpen] == 0 && !c.answers(ctx, vantage, targets) {
		e.Level = harden.LevelInspected
		e.Observed += "; nothing of the machine answers there at all, which proves little"
	}
	p.evidence = append(p.evidence, e)
	return p
}

// opened reports whether somebody may reach a target.
func (c *Config) opened(t target) bool {
	return slices.ContainsFunc(c.Allow, func(a firewall.Allow) bool { return a.Port == t.public })
}

// answers reports whether a port of the machine that may be reached from
// anywhere answers a vantage: the sign that the vantage is where it says it is.
func (c *Config) answers(ctx context.Context, v Vantage, targets []target) bool {
	for _, t := range targets {
		for _, a := range c.Allow {
			if a.Protocol != firewall.TCP || len(a.From) > 0 || a.In != "" {
				continue
			}
			r, err := v.Probe(ctx, "tcp", addrPort(t.to.Addr(), a.Number))
			if err == nil && (r == ReachOpen || r == ReachRefused) {
				return true
			}
		}
		break // one address is enough
	}
	return false
}
