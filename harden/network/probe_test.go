package network

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/firewall/ufw"
	"github.com/managemyclaw/hardshell/harden"
)

// seer is a vantage that sees what a function says.
type seer func(netip.AddrPort) (Reach, error)

func (seer) Name() string { return "elsewhere" }

func (s seer) Probe(_ context.Context, _ string, to netip.AddrPort) (Reach, error) { return s(to) }

// What is tried beats what is followed on paper, and silence alone is no proof.
func TestProbes(t *testing.T) {
	always := func(r Reach) seer { return func(netip.AddrPort) (Reach, error) { return r, nil } }
	only := func(port uint16, r, rest Reach) seer {
		return func(to netip.AddrPort) (Reach, error) {
			if to.Port() == port {
				return r, nil
			}
			return rest, nil
		}
	}
	for _, tt := range []struct {
		name  string
		v     Vantage
		allow []firewall.Allow
		want  harden.Status
		level harden.Level
	}{
		{"refused", always(ReachRefused), nil, good, harden.LevelProbed},
		{"open, whatever the rules say", only(8080, ReachOpen, ReachSilent), nil, bad, 0},
		{"nothing but silence", always(ReachSilent), nil, good, harden.LevelInspected},
		{"silence, and an allowed port answers", only(443, ReachOpen, ReachSilent), []firewall.Allow{{Port: firewall.Port{Protocol: firewall.TCP, Number: 443}}}, good, harden.LevelProbed},
		{"could not try", seer(func(netip.AddrPort) (Reach, error) { return ReachUnknown, errors.New("no network") }), nil, good, harden.LevelInspected},
	} {
		c, m := &Config{Vantages: []Vantage{tt.v}, Allow: tt.allow}, machine(t, closed4)
		v, err := c.judgePublished(t.Context(), m)
		if v.Status() != tt.want || v.Level() != tt.level || err != nil {
			t.Errorf("%s: got %v at %v (%v) %+v; want %v at %v", tt.name, v.Status(), v.Level(), err, v.Findings(), tt.want, tt.level)
		}
	}
}

// A rule names nothing if it says neither port, nor sender, nor an interface
// that does not lead outside.
func TestUFWRules(t *testing.T) {
	m := machine(t, closed4)
	for rule, want := range map[string]bool{
		"allow any any 0.0.0.0/0 any 0.0.0.0/0 in":            true,
		"limit any any 0.0.0.0/0 any 0.0.0.0/0 in":            true,
		"allow tcp any 0.0.0.0/0 any 0.0.0.0/0 in":            true,
		"allow tcp any 0.0.0.0/0 any 0.0.0.0/0 in_eth0":       true,
		"allow any any 0.0.0.0/0 any 0.0.0.0/0 in_tailscale0": false,
		"allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in":             false,
		"allow tcp 1:65535 0.0.0.0/0 any 0.0.0.0/0 in":        true,
		"allow udp any 0.0.0.0/0 53 0.0.0.0/0 in":             true,
		"allow any any 0.0.0.0/0 any 10.0.0.0/8 in":           false,
		"allow esp any 0.0.0.0/0 any 0.0.0.0/0 in":            false,
	} {
		if got := anything(t, &m, rule); got != want {
			t.Errorf("%s: %t", rule, got)
		}
	}
}

func anything(t *testing.T, m *Machine, tuple string) bool {
	t.Helper()
	r, err := ufw.ParseTuple(tuple, false)
	if err != nil {
		t.Fatal(err)
	}
	return m.anything(r)
}
