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

func addrPort(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

// hostAddress reads the address that a port is published on. None, and what is
// not one, is every address.
func hostAddress(p container.Port) netip.Addr {
	a, err := netip.ParseAddr(p.HostIP)
	if err != nil {
		return netip.IPv4Unspecified()
	}
	return a.Unmap()
}

// judgeLocalhost judges where the agent listens: its containers' published
// ports, the sockets that serve them, its own sockets where it is on the
// machine's network, and the gateway's ports where it runs without a container.
func (c *Config) judgeLocalhost(ctx context.Context, m Machine) (harden.Verdict, error) {
	const id = "network.localhost_binding"
	const remedy = "listen and publish on 127.0.0.1, and reach the gateway through the tailnet or a tunnel"
	var v violations
	var unsure []error
	if err := m.sockets(); err != nil {
		unsure = append(unsure, err)
	}
	if c.Engine != nil && m.EngineErr != nil {
		unsure = append(unsure, m.EngineErr)
	}
	if m.AgentsErr != nil {
		unsure = append(unsure, m.AgentsErr)
	}

	type reason struct{ subject, why string }
	published := make(map[firewall.Port]reason) // of the agent, beyond those whose address is allowed
	beyond := make(map[uint16]bool)             // ports that are in a finding already
	var shown []string
	for _, a := range m.Agents {
		for _, p := range a.Ports {
			proto, ok := protocolOf(p.Protocol)
			at := hostAddress(p)
			where := fmt.Sprintf("%s→%d/%s", addrPort(at, p.Host), p.Container, p.Protocol)
			shown = append(shown, a.Subject()+" on "+where)
			if ok {
				published[firewall.Port{Protocol: proto, Number: p.Host}] = reason{a.Subject(), "its port is published there"}
			}
			if !c.mayListen(at) {
				v.add(harden.Finding{
					ID: id, Subject: a.Subject(), Remedy: remedy,
					Message:  fmt.Sprintf("port %d/%s is published beyond loopback", p.Container, p.Protocol),
					Evidence: []harden.Evidence{declared("inspect NetworkSettings.Ports", where, "127.0.0.1 or ::1")},
				})
				beyond[p.Host] = true
			}
		}
	}
	for _, port := range c.Ports {
		p := firewall.Port{Protocol: firewall.TCP, Number: port}
		if _, ok := published[p]; !ok {
			published[p] = reason{"", "it is a port of the gateway's"}
		}
	}
	members, onHost := agentProcesses(&m)
	loopback, ownerless := 0, 0
	for _, l := range m.Listeners {
		why, ok := published[firewall.Port{Protocol: l.Protocol, Number: l.Addr.Port()}]
		owner := members[l.PID]
		if !ok && l.Protocol == firewall.TCP && l.PID != 0 && owner != "" {
			why, ok = reason{owner, "it is the agent's, on the machine's network"}, true
		}
		switch {
		case l.Addr.Addr().Unmap().IsLoopback():
			if ok {
				loopback++
			}
			continue
		case l.PID == 0 && l.Protocol == firewall.TCP:
			ownerless++
		}
		if !ok || c.mayListen(l.Addr.Addr()) {
			continue
		}
		if beyond[l.Addr.Port()] && why.subject != "" && l.Name == "docker-proxy" {
			v.see(why.subject, inspected(l.File, fmt.Sprintf("%s %s %s", l.Protocol, l.Addr, l.Name), "127.0.0.1 or ::1"))
			continue // it serves the published port
		}
		v.add(harden.Finding{
			ID: id, Subject: why.subject, Remedy: remedy,
			Message:  fmt.Sprintf("%s listens beyond loopback, on %s: %s", named(l.Name, "a socket"), l.Addr, why.why),
			Evidence: []harden.Evidence{inspected(l.File, fmt.Sprintf("%s %s %s", l.Protocol, l.Addr, l.Name), "127.0.0.1 or ::1")},
		})
	}
	if onHost && ownerless > 0 {
		unsure = append(unsure, fmt.Errorf("%d sockets beyond loopback have no owner that could be found, and the agent is on the machine's network", ownerless))
	}

	p := c.probe(ctx, id, remedy, c.gatewayTargets(&m))
	v = append(v, p.open...)
	seen := fmt.Sprintf("of %d sockets none of the agent's is beyond loopback", len(m.Listeners))
	if loopback > 0 {
		seen += fmt.Sprintf("; %d are on it", loopback)
	}
	pass := []harden.Evidence{inspected("/proc/self/net/tcp", seen, "")}
	if len(shown) > 0 {
		pass = append(pass, declared("inspect NetworkSettings.Ports", "published are only "+some(shown), ""))
	}
	return v.verdict(joined(unsure), append(pass, p.evidence...)...)
}

// agentProcesses returns whose container each process of the agent's is that
// is in the machine's network namespace, and whether there is such a
// container.
func agentProcesses(m *Machine) (members map[int]string, onHost bool) {
	members = make(map[int]string)
	for _, a := range m.Agents {
		onHost = onHost || a.NetworkMode == "host"
		if a.Kernel == nil {
			continue
		}
		for _, p := range a.Kernel.Processes {
			if p.Namespaces["net"] == m.Namespace {
				members[p.PID], onHost = a.Subject(), true
			}
		}
	}
	return members, onHost
}

func named(name, otherwise string) string {
	if name == "" {
		return otherwise
	}
	return name
}

// gatewayTargets are the machine's addresses with the agent's ports.
func (c *Config) gatewayTargets(m *Machine) []target {
	if m.Routing == nil {
		return nil
	}
	var all []target
	add := func(port firewall.Port, what string) {
		for _, a := range m.reachable() {
			if !c.mayListen(a) {
				all = append(all, target{proto: port.Protocol, to: addrPort(a, port.Number), what: what, public: port})
			}
		}
	}
	for _, a := range m.Agents {
		for _, p := range a.Ports {
			if proto, ok := protocolOf(p.Protocol); ok {
				add(firewall.Port{Protocol: proto, Number: p.Host}, a.Subject())
			}
		}
	}
	for _, port := range c.Ports {
		add(firewall.Port{Protocol: firewall.TCP, Number: port}, "the gateway's port")
	}
	return all
}

// reachable returns the machine's addresses on interfaces to the outside.
func (m *Machine) reachable() []netip.Addr {
	var all []netip.Addr
	for _, i := range m.outside() {
		for _, p := range i.Addrs {
			if a := p.Addr().WithZone(""); !slices.Contains(all, a) {
				all = append(all, a)
			}
		}
	}
	return all
}

// judgeLeak judges whether what is published on loopback stays there. Engines
// before Docker 28 let a neighbour in (moby#45610), in two ways: by packets for
// 127.0.0.1, and by packets for the container's own address.
func (c *Config) judgeLeak(ctx context.Context, m Machine) (harden.Verdict, error) {
	const id = "network.loopback_leak"
	const remedy = "drop what comes from outside for 127.0.0.0/8 and for the containers' addresses, or update to Docker 28"
	if m.EngineErr != nil {
		return harden.Verdict{}, m.EngineErr
	}
	var targets []target
	var where []string
	for _, s := range m.Running {
		for _, p := range s.Ports {
			at := hostAddress(p)
			proto, ok := protocolOf(p.Protocol)
			if !ok || !at.IsLoopback() {
				continue
			}
			what := fmt.Sprintf("container/%s: port %d/%s, published on %s", s.Name, p.Container, p.Protocol, addrPort(at, p.Host))
			where = append(where, what)
			targets = append(targets, target{proto: proto, to: addrPort(at, p.Host), what: what})
			for _, n := range s.Networks {
				for _, a := range n.Addrs {
					if a.Is6() == at.Is6() {
						targets = append(targets, target{proto: proto, to: addrPort(a, p.Container), what: what})
					}
				}
			}
		}
	}
	if len(targets) == 0 {
		return harden.NotApplicable("no port is published on loopback"), nil
	}
	if m.Engine.Rootless {
		return harden.Pass(inspected("engine", "rootless: its ports are sockets of the machine, and its containers have no address there", "")), nil
	}
	if err := m.path(); err != nil {
		return harden.Verdict{}, err
	}
	var v violations
	t := c.try(&m, targets, nil)
	slices.SortFunc(t.open, byWhat)
	for _, x := range t.open {
		subject, rest, _ := strings.Cut(x.target.what, ": ")
		v.add(harden.Finding{
			ID: id, Subject: subject, Remedy: remedy, Evidence: x.steps(),
			Message: fmt.Sprintf("%s, can be reached by a neighbour on %s, at %s", rest, x.packet.In, x.target.to),
		})
	}
	p := c.probe(ctx, id, remedy, slices.DeleteFunc(targets, func(t target) bool { return t.to.Addr().IsLoopback() }))
	v = append(v, p.open...)
	return v.verdict(joined(t.unknown), append([]harden.Evidence{t.evidence("addresses of " + some(where))}, p.evidence...)...)
}
