package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
)

// Addresses that stand for kinds of senders. They are public ones, and not
// those reserved for documentation, which some rules drop as bogus.
var (
	somewhere = []netip.Addr{netip.MustParseAddr("45.33.32.156"), netip.MustParseAddr("2600:3c01::f03c:91ff:fe18:bb2f")}
	private   = []netip.Addr{
		netip.MustParseAddr("10.213.7.9"), netip.MustParseAddr("172.29.213.9"), netip.MustParseAddr("192.168.213.9"),
		netip.MustParseAddr("100.100.213.9"), // shared by providers, RFC 6598
		netip.MustParseAddr("fd5e:a1d5:213::9"),
	}
	linkLocal = netip.MustParseAddr("fe80::213:9")
)

// Ports that a connection may come from: one that the system chose, and those
// that careless rules let in for the sake of answers.
var sourcePorts = []uint16{40123, 53, 20, 67, 123}

// A sender is where a packet from outside may come from.
type sender struct {
	in   string
	addr netip.Addr
	port uint16
	kind string // such as "a public address"
}

// senders returns what a packet of a family may come from, each kind once for
// each interface.
func (m *Machine) senders(v6 bool) []sender {
	var all []sender
	own := m.own()
	for _, i := range m.outside() {
		add := func(a netip.Addr, kind string) {
			taken := slices.Contains(own, a) || slices.ContainsFunc(m.Networks, func(n container.EngineNetwork) bool {
				return n.Driver == "bridge" && slices.ContainsFunc(n.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
			})
			if a.Is6() != v6 || !a.IsValid() || taken || slices.ContainsFunc(all, func(s sender) bool { return s.in == i.Name && s.addr == a }) {
				return
			}
			all = append(all, sender{i.Name, a, sourcePorts[0], kind})
		}
		for _, a := range somewhere {
			add(a, "a public address")
		}
		for _, p := range i.Addrs {
			if a := neighbour(p, own); a.IsValid() {
				add(a, "a neighbour")
			}
		}
		for _, a := range private {
			add(a, "a private address")
		}
		add(linkLocal, "a neighbour")
		for _, a := range m.named[:min(len(m.named), maxNamed)] {
			add(a, "an address that a rule names")
		}
		for n, a := range somewhere {
			if a.Is6() != v6 {
				continue
			}
			for _, port := range slices.Concat(sourcePorts[1:], m.namedPorts) {
				all = append(all, sender{i.Name, somewhere[n], port, "a public address and source port"})
			}
		}
	}
	return all
}

// neighbour returns an address of a network that is not one of the machine's
// own.
func neighbour(p netip.Prefix, own []netip.Addr) netip.Addr {
	for a := p.Masked().Addr().Next(); p.Contains(a); a = a.Next() {
		last := a.Is4() && !p.Contains(a.Next()) // the broadcast address
		if !slices.Contains(own, a) && !last {
			return a
		}
	}
	return netip.Addr{}
}

// A target is what a packet from outside may be for.
type target struct {
	proto firewall.Protocol
	to    netip.AddrPort
	what  string // such as "container/openclaw: published port 8080/tcp"

	// public is the port that Config.Allow would name to open it. The zero
	// Port cannot be opened.
	public firewall.Port

	// delivered are ports that are nobody's: a packet for one counts as having
	// arrived without anybody listening.
	delivered bool

	// stand means that the port stands for others, so that there is nothing
	// to try from outside.
	stand bool
}

// An exposure is a way in.
type exposure struct {
	target target
	packet firewall.Packet
	made   firewall.Decision
}

// A trial is what came of sending packets, in thought, to targets.
type trial struct {
	open    []exposure
	tried   int
	targets int
	closed  *exposure // an example of one that does not arrive, with the rule that stops it
	unknown []error
}

// try sends a packet from every sender to every target, except those that skip,
// if it is not nil, leaves out.
func (c *Config) try(m *Machine, targets []target, skip func(sender, target) bool) trial {
	var t trial
	if len(m.outside()) == 0 {
		t.unknown = append(t.unknown, errNoOutside)
		return t
	}
	if n := len(m.named); n > maxNamed {
		t.unknown = append(t.unknown, fmt.Errorf("the rules name %d addresses, of which only %d were tried", n, maxNamed))
	}
	by := map[bool][]sender{false: m.senders(false), true: m.senders(true)}
	for _, tg := range targets {
		t.targets++
		found, doubts := 0, 0
		for _, s := range by[tg.to.Addr().Is6()] {
			if tg.public.Number != 0 && c.allows(tg.public, s.addr, s.in) {
				continue
			}
			if skip != nil && skip(s, tg) {
				continue
			}
			if s.addr.IsLinkLocalUnicast() && !tg.to.Addr().IsLinkLocalUnicast() && !m.onLink(s.in, tg.to.Addr()) {
				continue // a router does not forward it (RFC 4291, 2.5.6)
			}
			t.tried++
			p := firewall.Packet{In: s.in, Src: s.addr, Dst: tg.to.Addr(), Protocol: tg.proto, SrcPort: s.port, DstPort: tg.to.Port()}
			d := m.Rules.Evaluate(m.Routing, p)
			x := exposure{tg, p, d}
			open, err := m.arrives(x)
			switch {
			case err != nil:
				if doubts++; doubts == 1 {
					t.unknown = append(t.unknown, fmt.Errorf("%s, from %s by %s: %w", tg.what, s.kind, s.in, err))
				}
			case open:
				if found++; found == 1 { // one way in is enough
					t.open = append(t.open, x)
				}
			case t.closed == nil && d.Fate.Closed():
				t.closed = &x
			}
		}
	}
	return t
}

// onLink reports whether an address is of the machine itself, and on an
// interface.
func (m *Machine) onLink(name string, a netip.Addr) bool {
	return slices.ContainsFunc(m.Routing.Interfaces, func(i firewall.Interface) bool {
		return i.Name == name && slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool { return p.Addr().WithZone("") == a })
	})
}

// arrives reports whether a packet reaches anybody.
func (m *Machine) arrives(x exposure) (bool, error) {
	d := x.made
	switch {
	case d.Fate == firewall.FateUnknown:
		return false, fmt.Errorf("what becomes of %v is not known: %s", x.packet, d.Why)
	case d.Fate.Closed():
		return false, nil
	case !d.Local:
		return true, nil
	}
	to := d.To
	if !to.IsValid() {
		to = x.target.to
	}
	switch a := to.Addr(); {
	case a.Is4() && a.IsLoopback() && !m.Localnet[x.packet.In]:
		return false, nil // the kernel drops it, as a martian
	case a.Is6() && a.IsLoopback():
		return false, nil // RFC 4291, 2.5.3
	case x.target.delivered:
		return true, nil
	case m.ListenersErr != nil && m.Listeners == nil:
		return false, fmt.Errorf("who would take %v is not known: %w", x.packet, m.ListenersErr)
	}
	_, taken := m.listening(x.packet.Protocol, to)
	return taken, nil
}

// evidence says of the trial what a pass rests on.
func (t *trial) evidence(of string) harden.Evidence {
	seen := fmt.Sprintf("%d new connections to %d %s were followed through the rules in the kernel, and none arrives", t.tried, t.targets, of)
	if t.closed != nil {
		if by := deciding(t.closed.made); by != "" {
			seen += ", stopped by such rules as " + by
		}
	}
	return harden.Evidence{Source: "packet filter", Observed: seen, Level: harden.LevelInspected}
}

// steps shows how a packet came to its end.
func (x *exposure) steps() []harden.Evidence {
	e := harden.Evidence{Source: "packet filter", Observed: x.packet.String() + " arrives", Expected: "dropped", Level: harden.LevelInspected}
	switch {
	case x.made.Local:
		e.Observed += " at this machine"
	case x.made.To.IsValid():
		e.Observed += " at " + x.made.To.String() + " by " + x.made.Out
	}
	all := []harden.Evidence{e}
	for _, s := range x.made.Steps[max(0, len(x.made.Steps)-maxSteps):] {
		all = append(all, harden.Evidence{Source: s.Table + " / " + s.Chain, Observed: strings.TrimSpace(s.Rule + ": " + s.Does), Level: harden.LevelInspected})
	}
	return all
}

// maxSteps is how many rules evidence shows.
const maxSteps = 8

// deciding names the rule that ended a packet's way.
func deciding(d firewall.Decision) string {
	if len(d.Steps) == 0 {
		return ""
	}
	s := d.Steps[len(d.Steps)-1]
	return fmt.Sprintf("%q in %s / %s", s.Rule, s.Table, s.Chain)
}
