package network

import (
	"net/netip"
	"testing"

	"github.com/managemyclaw/hardshell/firewall"
)

func TestAllows(t *testing.T) {
	web := firewall.Port{Protocol: firewall.TCP, Number: 443}
	c := &Config{Allow: []firewall.Allow{
		{Port: web, From: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}, In: "eth0"},
	}}
	for _, tt := range []struct {
		port firewall.Port
		src  string
		in   string
		want bool
	}{
		{web, "203.0.113.7", "eth0", true},
		{web, "203.0.113.7", "eth1", false},
		{web, "203.0.114.7", "eth0", false},
		{firewall.Port{Protocol: firewall.UDP, Number: 443}, "203.0.113.7", "eth0", false},
		{firewall.Port{Protocol: firewall.TCP, Number: 444}, "203.0.113.7", "eth0", false},
	} {
		if got := c.allows(tt.port, netip.MustParseAddr(tt.src), tt.in); got != tt.want {
			t.Errorf("%v from %s by %s: %t", tt.port, tt.src, tt.in, got)
		}
	}
	c.Publish = []netip.Prefix{netip.MustParsePrefix("100.64.0.1/32")}
	for addr, want := range map[string]bool{
		"127.0.0.1": true, "::1": true, "::ffff:127.0.0.1": true, "100.64.0.1": true, "::ffff:100.64.0.1": true,
		"192.168.1.5": false, "10.0.0.1": false, "0.0.0.0": false, "::": false, "100.64.0.2": false, "fe80::1": false,
	} {
		if got := c.mayListen(netip.MustParseAddr(addr)); got != want {
			t.Errorf("listening on %s: %t", addr, got)
		}
	}
}

func TestListening(t *testing.T) {
	m := Machine{Listeners: []Listener{listener("[::]:1", "both", 1), listener("0.0.0.0:2", "four", 1), listener("192.0.2.1:3", "one", 1)}}
	for to, want := range map[string]bool{
		"192.0.2.1:1": true, "[2001:db8::1]:1": true, "192.0.2.1:2": true, "[2001:db8::1]:2": false,
		"192.0.2.1:3": true, "192.0.2.2:3": false, "192.0.2.1:4": false,
	} {
		if _, got := m.listening(firewall.TCP, netip.MustParseAddrPort(to)); got != want {
			t.Errorf("%s: %t", to, got)
		}
		if _, got := m.listening(firewall.UDP, netip.MustParseAddrPort(to)); got {
			t.Errorf("%s takes datagrams", to)
		}
	}
}
