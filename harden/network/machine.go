package network

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/network/tailscale"
)

// A Machine is what a machine shows of its network. It is shared between
// checks and must not be changed. Each part has an error beside it that says
// why it is missing, or may not be all.
type Machine struct {
	// Namespace is the network namespace that all of this is about: that of
	// the process that looked.
	Namespace uint64

	// Listeners are the sockets that accept connections, and the UDP sockets
	// that take datagrams from anyone.
	Listeners    []Listener
	ListenersErr error

	// Routing and Rules are the machine's interfaces and routes, and its
	// packet filters, in the kernel.
	Routing *firewall.Routing
	Rules   *firewall.Ruleset
	PathErr error

	// Localnet are the interfaces over which the kernel takes packets for
	// 127.0.0.0/8; see route_localnet in the kernel's ip-sysctl.rst.
	Localnet map[string]bool

	// Host is the firewall of the machine's own services.
	Host    HostFirewall
	HostErr error

	// Tailnet is what tailscaled says.
	Tailnet    *tailscale.State
	TailnetErr error

	// Operator is the user whom tailscaled lets change its preferences, as a
	// number, where Tailnet names one and the machine knows it.
	Operator *uint32

	// Banners are the TCP ports beyond loopback that speak SSH.
	Banners    []Banner
	BannersErr error

	// Engine and what follows are empty where the Config has no engine.
	// EngineErr says why they are not known, or not this namespace's.
	Engine    container.EngineInfo
	Running   []container.Settings      // all containers
	Networks  []container.EngineNetwork // all networks
	EngineErr error

	// Inside are the ports on which something listens in the containers'
	// own network namespaces, by the container's id. A container that could
	// not be looked into is not there.
	Inside map[string][]firewall.Port

	// Agents are the agent's containers.
	Agents    []container.Container
	AgentsErr error

	// named are the addresses and source ports that the rules name: those
	// from which they may do otherwise than from others.
	named      []netip.Addr
	namedPorts []uint16
}

// A Listener is a socket that accepts packets.
type Listener struct {
	Protocol firewall.Protocol
	Addr     netip.AddrPort
	Both     bool // an IPv6 socket on all addresses, which may take IPv4 too
	PID      int  // of a process that holds it; zero if none was found
	Name     string
	File     string // which shows it, such as "/proc/self/net/tcp6"
}

// A Banner is a TCP port that speaks SSH.
type Banner struct {
	Addr  netip.AddrPort // unspecified for all addresses
	Text  string         // such as "SSH-2.0-OpenSSH_9.2p1"
	Owner string         // of the socket; empty if it is not known
}

// Subject names the machine in reports.
func (m *Machine) Subject() string { return "network" }

var errNotLooked = errors.New("nobody has looked")

// path says why the way of a packet cannot be followed, if it cannot.
func (m *Machine) path() error {
	if m.PathErr == nil && (m.Routing == nil || m.Rules == nil) {
		return errNotLooked
	}
	return m.PathErr
}

// firewall says why the machine's firewall is not known, if it is not.
func (m *Machine) firewall() error {
	if m.HostErr == nil && m.Host.UFW == nil {
		return errNotLooked
	}
	return m.HostErr
}

// sockets says why the sockets may not be all, if they may not.
func (m *Machine) sockets() error {
	if m.ListenersErr == nil && m.Namespace == 0 {
		return errNotLooked
	}
	return m.ListenersErr
}

// tailnet reports whether an address is the machine's own in its tailnet.
// That it is in 100.64.0.0/10 says little: providers use that range too.
func (m *Machine) tailnet(a netip.Addr) bool {
	return m.Tailnet != nil && slices.Contains(m.Tailnet.Status.Addrs, a.Unmap())
}

// bridge returns the engine's network of which an interface is.
func (m *Machine) bridge(name string) (container.EngineNetwork, bool) {
	i := slices.IndexFunc(m.Networks, func(n container.EngineNetwork) bool { return n.Interface != "" && n.Interface == name })
	if i < 0 {
		return container.EngineNetwork{}, false
	}
	return m.Networks[i], true
}

// outside returns the interfaces by which packets from outside come in: all
// that are up, other than loopback, the engine's own, the tailnet's, and those
// that are ports of a bridge, which is then an interface itself.
func (m *Machine) outside() []firewall.Interface {
	var all []firewall.Interface
	for _, i := range m.Routing.Interfaces {
		_, engines := m.bridge(i.Name)
		tailnet := slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool { return m.tailnet(p.Addr()) })
		loopback := i.Name == "lo" || len(i.Addrs) > 0 && !slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool { return !p.Addr().IsLoopback() })
		if i.Up && i.Master == "" && !engines && !tailnet && !loopback {
			all = append(all, i)
		}
	}
	return all
}

// own returns the addresses of the machine that a packet from outside may be
// for: all but those on loopback interfaces alone.
func (m *Machine) own() []netip.Addr {
	var all []netip.Addr
	for _, i := range m.Routing.Interfaces {
		for _, p := range i.Addrs {
			if a := p.Addr().WithZone(""); !a.IsLoopback() && !slices.Contains(all, a) {
				all = append(all, a)
			}
		}
	}
	return all
}

// has reports whether the machine has addresses of a family that anybody
// outside could send to.
func (m *Machine) has(v6 bool) bool {
	return slices.ContainsFunc(m.own(), func(a netip.Addr) bool { return a.Is6() == v6 })
}

// listening returns the socket that would take a packet for an address of the
// machine, if there is one.
func (m *Machine) listening(proto firewall.Protocol, to netip.AddrPort) (Listener, bool) {
	for _, l := range m.Listeners {
		if l.Protocol != proto || l.Addr.Port() != to.Port() {
			continue
		}
		a := l.Addr.Addr().Unmap()
		switch {
		case a == to.Addr():
		case a.IsUnspecified() && (a.Is4() == to.Addr().Is4() || l.Both && to.Addr().Is4()):
		default:
			continue
		}
		return l, true
	}
	return Listener{}, false
}

// protocolOf translates an engine's name of a protocol.
func protocolOf(name string) (firewall.Protocol, bool) {
	switch strings.ToLower(name) {
	case "tcp":
		return firewall.TCP, true
	case "udp":
		return firewall.UDP, true
	case "sctp":
		return firewall.SCTP, true
	}
	return 0, false
}
