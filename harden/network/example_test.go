package network_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/harden/network"
)

// What there is to check. On a machine that this process may not look at, all
// of it is unknown.
func ExampleChecks() {
	ctx, done := harden.Share(context.Background())
	defer done()
	for _, c := range network.Checks(network.Config{}) {
		res := harden.Evaluate(ctx, new(host.View), c, 0)
		fmt.Println(int(res.Info.Point), res.Info.ID, res.Status)
	}
	// Output:
	// 6 network.localhost_binding unknown
	// 6 network.loopback_leak unknown
	// 7 network.ufw_enabled unknown
	// 7 network.ufw_default_deny unknown
	// 7 network.ufw_kernel unknown
	// 7 network.ufw_rules unknown
	// 8 network.docker_user unknown
	// 0 network.container_egress unknown
	// 9 network.tailscale_up unknown
	// 9 network.tailscale_funnel unknown
	// 9 network.tailscale_operator unknown
	// 9 network.tailscale_prefs unknown
	// 9 network.ssh_exposure unknown
}

// The policy that closes what an engine exposes, but for one port that one
// network may reach.
func ExamplePolicyFor() {
	m := network.Machine{
		Networks: []container.EngineNetwork{{Name: "bridge", Driver: "bridge", Interface: "docker0", Prefixes: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")}}},
		Running: []container.Settings{{
			Name:  "openclaw",
			Ports: []container.Port{{Container: 18789, Protocol: "tcp", HostIP: "127.0.0.1", Host: 18789}, {Container: 443, Protocol: "tcp", Host: 8443}},
		}},
	}
	p := network.PolicyFor(&m, []firewall.Allow{{
		Port: firewall.Port{Protocol: firewall.TCP, Number: 8443}, From: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")},
	}})
	fmt.Println(p.Networks[0].Interface, p.Published, p.Allow[0].From)
	// Output: docker0 [{tcp 8443} {tcp 18789}] [203.0.113.0/24]
}

// A vantage that connects from another machine, by whatever way there is to
// it: here none.
func ExampleRemote() {
	v := &network.Remote{
		Label: "a server in another network",
		Dial: func(context.Context, string, string) (net.Conn, error) {
			return nil, fmt.Errorf("no way there: %w", net.ErrClosed)
		},
	}
	reach, err := v.Probe(context.Background(), "tcp", netip.MustParseAddrPort("192.0.2.1:18789"))
	fmt.Println(reach, err)
	// Output: unknown network: vantage a server in another network: tcp 192.0.2.1:18789: no way there: use of closed network connection
}
