package network

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
)

// anyPort stands for a port of a container that it does not listen on at the
// moment.
const anyPort = 47119

// judgePublished judges whether a new connection from outside arrives at
// anything that the engine exposes: a published port on each address of the
// machine, however it is served, and each container's own addresses.
func (c *Config) judgePublished(ctx context.Context, m Machine) (harden.Verdict, error) {
	const id = "network.docker_user"
	const remedy = "in DOCKER-USER, drop new connections that come in from outside, for both families; what DOCKER-USER does not see (proxy processes, IPv6 of engines before 27) needs a chain before it"
	if m.EngineErr != nil {
		return harden.Verdict{}, m.EngineErr
	}
	if err := m.path(); err != nil {
		return harden.Verdict{}, err
	}
	var v violations
	var unsure []error
	for _, s := range m.Running {
		for _, n := range s.Networks {
			i := slices.IndexFunc(m.Networks, func(e container.EngineNetwork) bool { return e.Name == n.Name })
			if len(n.Addrs) == 0 {
				continue
			}
			if i < 0 { // it has come since the networks were listed
				unsure = append(unsure, fmt.Errorf("container/%s is on network %s, and what kind that is was not seen", s.Name, n.Name))
				continue
			}
			switch driver := m.Networks[i].Driver; driver {
			case "macvlan", "ipvlan":
				v.add(harden.Finding{
					ID: id + ".bypass", Subject: "container/" + s.Name, Severity: harden.SeverityCritical,
					Message:  fmt.Sprintf("it is on the network of %s itself (%s), where no packet filter of the machine's sees what reaches it", named(m.Networks[i].Parent, "an interface"), driver),
					Remedy:   "put it on a bridge network",
					Evidence: []harden.Evidence{declared("inspect NetworkSettings.Networks", n.Name+": "+driver, "bridge")},
				})
			case "overlay":
				unsure = append(unsure, fmt.Errorf("container/%s is on the overlay network %s, which was not followed", s.Name, n.Name))
			}
		}
	}
	targets := m.exposed()
	if len(targets) == 0 {
		return v.verdict(joined(unsure), inspected("engine", fmt.Sprintf("none of %d containers has an address or a published port", len(m.Running)), ""))
	}
	t := c.try(&m, targets, nil)
	unsure = append(unsure, t.unknown...)
	slices.SortFunc(t.open, byWhat)
	for i, x := range t.open {
		if i > 0 && t.open[i-1].target.what == x.target.what {
			continue // the same by another address
		}
		subject, rest, _ := strings.Cut(x.target.what, ": ")
		v.add(harden.Finding{
			ID: id, Subject: subject, Remedy: remedy, Evidence: x.steps(),
			Message: fmt.Sprintf("%s, is reached from outside (%s)", rest, x.packet),
		})
	}
	p := c.probe(ctx, id, remedy, targets)
	v = append(v, p.open...)
	return v.verdict(joined(unsure), append([]harden.Evidence{t.evidence("addresses and ports that the engine exposes")}, p.evidence...)...)
}

// exposed returns what the engine exposes. Containers on the machine's own
// network are the machine's services.
func (m *Machine) exposed() []target {
	var all []target
	add := func(t target) {
		if !slices.ContainsFunc(all, func(o target) bool { return o.proto == t.proto && o.to == t.to }) {
			all = append(all, t)
		}
	}
	own := m.reachable()
	for _, s := range m.Running {
		subject := "container/" + s.Name
		for _, p := range s.Ports {
			proto, ok := protocolOf(p.Protocol)
			if !ok || p.Host == 0 {
				continue
			}
			at := hostAddress(p)
			what := fmt.Sprintf("%s: port %d/%s, published as %d on %s", subject, p.Container, p.Protocol, p.Host, everywhere(p))
			public := firewall.Port{Protocol: proto, Number: p.Host}
			switch {
			case at.IsLoopback():
			case at.IsUnspecified():
				// Of either family: what an engine says of "every address"
				// does not say by what it is served.
				for _, a := range own {
					add(target{proto: proto, to: addrPort(a, p.Host), what: what, public: public})
				}
			default:
				add(target{proto: proto, to: addrPort(at, p.Host), what: what, public: public})
			}
		}
		if m.Engine.Rootless {
			continue // the containers have no address on this machine
		}
		for _, n := range s.Networks {
			for _, a := range n.Addrs {
				for _, t := range m.direct(s, subject, a) {
					add(t)
				}
			}
		}
	}
	return all
}

// direct returns the ports of a container at its own address.
func (m *Machine) direct(s container.Settings, subject string, a netip.Addr) []target {
	ports := []firewall.Port{{Protocol: firewall.TCP, Number: anyPort}, {Protocol: firewall.UDP, Number: anyPort}}
	ports = append(ports, m.Inside[s.ID]...)
	published := make(map[firewall.Port]container.Port)
	for _, p := range s.Ports {
		if proto, ok := protocolOf(p.Protocol); ok {
			port := firewall.Port{Protocol: proto, Number: p.Container}
			if b, ok := published[port]; !ok || hostAddress(b).IsLoopback() {
				published[port] = p
			}
			ports = append(ports, port)
		}
	}
	var all []target
	for _, p := range ports {
		t := target{proto: p.Protocol, to: addrPort(a, p.Number), what: fmt.Sprintf("%s: port %d/%s at its own address %s", subject, p.Number, p.Protocol, a)}
		t.stand = p.Number == anyPort
		if b, ok := published[p]; ok && !hostAddress(b).IsLoopback() {
			// Allowing the published port may allow the container's own.
			t.public = firewall.Port{Protocol: p.Protocol, Number: b.Host}
		}
		all = append(all, t)
	}
	return all
}

func everywhere(p container.Port) string {
	if a := hostAddress(p); !a.IsUnspecified() {
		return a.String()
	}
	return "every address"
}

// judgeEgress judges whether the containers get answers: a rule that drops all
// that comes in from outside drops those too.
func (c *Config) judgeEgress(_ context.Context, m Machine) (harden.Verdict, error) {
	const id = "network.container_egress"
	if m.EngineErr != nil {
		return harden.Verdict{}, m.EngineErr
	}
	if err := m.path(); err != nil {
		return harden.Verdict{}, err
	}
	var v violations
	var unsure []error
	asked, answered := 0, 0
	for _, s := range m.Running {
		for _, n := range s.Networks {
			i := slices.IndexFunc(m.Networks, func(e container.EngineNetwork) bool {
				return e.Name == n.Name && e.Driver == "bridge" && !e.Internal
			})
			if i < 0 || m.Engine.Rootless {
				continue
			}
			for _, a := range n.Addrs {
				to := somewhere[0]
				if a.Is6() {
					to = somewhere[1]
				}
				out := m.Rules.Evaluate(m.Routing, firewall.Packet{
					In: m.Networks[i].Interface, Src: a, Dst: to, Protocol: firewall.TCP, SrcPort: sourcePorts[0], DstPort: 443,
				})
				if out.Fate != firewall.FateAccept || out.Local || out.Out == "" {
					if out.Fate == firewall.FateUnknown {
						unsure = append(unsure, fmt.Errorf("container/%s: whether it may begin a connection is not known: %s", s.Name, out.Why))
					}
					continue // it may not begin one, which is for others to judge
				}
				asked++
				back := firewall.Packet{
					In: out.Out, Src: to, Dst: m.sourceOf(out.Out, a), Protocol: firewall.TCP, SrcPort: 443, DstPort: sourcePorts[0],
					State: firewall.StateEstablished, Reply: true, NAT: addrPort(a, sourcePorts[0]),
				}
				switch d := m.Rules.Evaluate(m.Routing, back); {
				case d.Fate == firewall.FateUnknown:
					unsure = append(unsure, fmt.Errorf("container/%s: whether it gets answers is not known: %s", s.Name, d.Why))
				case d.Fate.Closed():
					x := exposure{packet: back, made: d}
					ev := x.steps()
					ev[0].Observed, ev[0].Expected = back.String()+", an answer to the container, does not arrive", "let through"
					v.add(harden.Finding{
						ID: id, Subject: "container/" + s.Name, Evidence: ev,
						Message: "it may begin connections, and the answers are dropped: a rule that should stop new connections stops these too",
						Remedy:  "put before it: -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN, or limit it to --ctstate NEW",
					})
				default:
					answered++
				}
			}
		}
	}
	if asked == 0 && len(unsure) == 0 {
		return harden.NotApplicable("no container may begin a connection to the outside"), nil
	}
	return v.verdict(joined(unsure), inspected("packet filter", fmt.Sprintf("answers to connections that containers begin arrive, at %d addresses", answered), ""))
}

// sourceOf returns the address that a container's packets have when they leave
// by an interface.
func (m *Machine) sourceOf(name string, a netip.Addr) netip.Addr {
	for _, i := range m.Routing.Interfaces {
		for _, p := range i.Addrs {
			if b := p.Addr().WithZone(""); i.Name == name && b.Is6() == a.Is6() && !b.IsLinkLocalUnicast() {
				return b
			}
		}
	}
	return a
}
