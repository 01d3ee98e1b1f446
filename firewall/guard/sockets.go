package guard

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/internal/procfs"
)

// A flow is a connection as one end of it sees it.
type flow struct {
	Local  netip.AddrPort `json:"local"`
	Remote netip.AddrPort `json:"remote"`
}

const tcpEstablished = 1 // of proc_pid_net(5)

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// flows returns the connections of TCP that are in any state but LISTEN. One
// that is not yet established is as little new later as one that is.
func (g *Guard) flows(ctx context.Context) ([]flow, error) {
	all, err := readSockets(ctx, g.Run)
	if err != nil {
		return nil, err
	}
	flows := []flow{}
	for _, s := range all {
		if s.State != procfs.TCPListen {
			flows = append(flows, flow{unmap(s.Local), unmap(s.Remote)})
		}
	}
	return flows, nil
}

// sockets returns the established connections of TCP, and where there are
// listeners.
func (g *Guard) sockets(ctx context.Context) (established []flow, listening []netip.AddrPort, err error) {
	all, err := readSockets(ctx, g.Run)
	for _, s := range all {
		switch s.State {
		case tcpEstablished:
			established = append(established, flow{unmap(s.Local), unmap(s.Remote)})
		case procfs.TCPListen:
			listening = append(listening, unmap(s.Local))
		}
	}
	return established, listening, err
}

func readSockets(ctx context.Context, run firewall.Runner) ([]procfs.InetSocket, error) {
	var all []procfs.InetSocket
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		out, err := run.Run(ctx, nil, "cat", name)
		if exit, ok := errors.AsType[*firewall.ExitError](err); ok && name == "/proc/net/tcp6" && strings.Contains(exit.Stderr, "No such file") {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("guard: look at connections: %w", err)
		}
		sockets, err := procfs.ParseInet(out)
		if err != nil {
			return nil, fmt.Errorf("guard: %s: %w", name, err)
		}
		all = append(all, sockets...)
	}
	return all, nil
}

// Sessions returns the connections from other machines that are established to
// the given ports of TCP, such as those that sshd listens on: whoever changes
// the firewall is likely to be on one of them. A session by Tailscale's own SSH
// server is not among them.
func Sessions(ctx context.Context, run firewall.Runner, ports ...uint16) ([]Connection, error) {
	all, err := readSockets(ctx, run)
	if err != nil {
		return nil, err
	}
	var sessions []Connection
	for _, s := range all {
		local, remote := unmap(s.Local), unmap(s.Remote)
		if s.State == tcpEstablished && slices.Contains(ports, local.Port()) && !remote.Addr().IsLoopback() && remote.Addr() != local.Addr() {
			sessions = append(sessions, Connection{Client: remote, Server: local})
		}
	}
	return sessions, nil
}

// tailnet are the addresses that Tailscale gives to machines.
var tailnet = []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("fd7a:115c:a1e0::/48")}

// Tailscale reports whether c is one between machines of a tailnet, by its addresses.
func (c Connection) Tailscale() bool {
	return slices.ContainsFunc(tailnet, func(p netip.Prefix) bool { return p.Contains(c.Client.Addr().Unmap()) })
}

// Allow returns what must be allowed first for c, and a later one like it, to
// get through: the port of the server from the address of the client, or from the tailnet's
// interface if it comes by Tailscale.
func (c Connection) Allow() firewall.Allow {
	a := firewall.Allow{Port: firewall.Port{Protocol: firewall.TCP, Number: c.Server.Port()}}
	if c.Tailscale() {
		a.In = "tailscale0"
		return a
	}
	client := c.Client.Addr().Unmap()
	a.From = []netip.Prefix{netip.PrefixFrom(client, client.BitLen())}
	return a
}
