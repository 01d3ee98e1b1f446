package network

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/harden/container"
)

// The policy closes the engine's networks and ports, and leaves alone the
// bridges of others, unless they may be the engine's.
func TestPolicyFor(t *testing.T) {
	m := &Machine{
		Routing: &firewall.Routing{Interfaces: []firewall.Interface{
			{Name: "eth0"},
			{Name: "docker0"},
			{Name: "br-agent"},
			{Name: "br-lan"},
			{Name: "virbr0"},
			{Name: "br-0123456789ab"},
			{Name: "docker1"},
			{Name: "dockerette"},
		}},
		Networks: []container.EngineNetwork{
			{Name: "bridge", Driver: "bridge", Interface: "docker0", Prefixes: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")}},
			{Name: "agent", Driver: "bridge", Interface: "br-agent"},
			{Name: "lan", Driver: "macvlan", Parent: "eth0"},
		},
		Running: []container.Settings{
			{Ports: []container.Port{{Protocol: "tcp", Host: 8080}, {Protocol: "tcp", Host: 8080, HostIP: "::"}, {Protocol: "udp", Host: 53}}},
			{Ports: []container.Port{{Protocol: "tcp", Container: 80}}}, // exposed, not published
		},
	}
	allow := []firewall.Allow{{Port: firewall.Port{Protocol: firewall.TCP, Number: 443}}}
	p := PolicyFor(m, allow)
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	var interfaces []string
	for _, n := range p.Networks {
		interfaces = append(interfaces, n.Interface)
	}
	if want := []string{"docker0", "br-agent"}; !slices.Equal(interfaces, want) {
		t.Errorf("networks %q", interfaces)
	}
	if want := []string{"br-lan", "dockerette"}; !slices.Equal(p.Others, want) {
		t.Errorf("others %q", p.Others)
	}
	if len(p.Published) != 2 || len(p.Allow) != 1 {
		t.Errorf("published %v, allowed %v", p.Published, p.Allow)
	}
	if p := PolicyFor(&Machine{Networks: m.Networks}, nil); len(p.Others) != 0 || len(p.Networks) != 2 {
		t.Errorf("without routing: %+v", p)
	}
}
