package firewall

import (
	"maps"
	"net/netip"
	"testing"
)

// routingOf reads routing from what ip prints; an entry that is missing is empty.
func routingOf(t *testing.T, outputs installed) *Routing {
	t.Helper()
	all := installed{
		"ip -d -j address show": `[{"ifname":"lo","flags":["UP"],"addr_info":[{"local":"127.0.0.1","prefixlen":8}]},{},
{"ifname":"br0","flags":["UP"],"addr_info":[{"local":"172.17.0.1","prefixlen":16},{"local":"fd00::1","prefixlen":64}]},
{"ifname":"veth1","master":"br0","flags":["UP"],"linkinfo":{"info_slave_kind":"bridge"},"addr_info":[]}]`,
		"ip -4 -d -j route show table all": `[{"dst":"default","gateway":"192.0.2.2","dev":"eth0","metric":100},{"dst":"default","dev":"wlan0","metric":50},
{"type":"blackhole","dst":"10.0.0.0/8"},{"dst":"10.1.0.0/16","dev":"br0"},{"dst":"9.9.9.9","nexthops":[{"dev":"eth0"},{"dev":"wlan0"}]},{"dst":"8.8.8.8","nexthops":[{"dev":"eth0"},{"dev":"eth0"}]},
{"type":"local","dst":"127.0.0.0/8","dev":"lo","table":"local"},{"type":"local","dst":"172.17.0.1","dev":"br0","table":"local"},
{"type":"broadcast","dst":"172.17.255.255","dev":"br0","table":"local"},{"dst":"100.64.0.0/10","dev":"tailscale0","table":"52"},{"type":"throw","dst":"100.64.9.0/24","table":"52"}]`,
		"ip -4 -j rule show":               `[{"priority":0,"src":"all","table":"local"},{"priority":32766,"src":"all","table":"main"},{"priority":32767,"src":"all","table":"default"}]`,
		"ip -6 -d -j route show table all": `[{"type":"local","dst":"fd00::1","dev":"br0","table":"local"},{"dst":"fd00::/64","dev":"br0"}]`,
		"ip -6 -j rule show":               "",
	}
	maps.Copy(all, outputs)
	r, err := ReadRouting(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLookup(t *testing.T) {
	const tailscale = `[{"priority":0,"src":"all","table":"local"},{"priority":5210,"src":"all","fwmark":"0x80000","fwmask":"0xff0000","table":"main"},
{"priority":5270,"src":"all","table":"52"},{"priority":32766,"src":"all","table":"main"}]`
	for _, test := range []struct {
		name, rules, to string
		kind            RouteType
		out             string
	}{
		{"the machine itself", "", "172.17.0.1", RouteLocal, "br0"},
		{"all of loopback", "", "127.1.2.3", RouteLocal, "lo"},
		{"the lower metric", "", "198.51.100.7", RouteUnicast, "wlan0"},
		{"the longer prefix", "", "10.1.2.3", RouteUnicast, "br0"},
		{"a black hole", "", "10.2.2.3", RouteBlackhole, ""},
		{"one of two ways", "", "9.9.9.9", RouteUnknown, ""},
		{"one way twice", "", "8.8.8.8", RouteUnicast, "eth0"},
		{"everybody on the network", "", "172.17.255.255", RouteBroadcast, "br0"},
		{"another table", tailscale, "100.64.0.9", RouteUnicast, "tailscale0"},
		{"a hole in another table", tailscale, "100.64.9.9", RouteUnicast, "wlan0"},
		{"no route", "", "2001:db8::7", RouteNone, ""},
		{"a container", "", "fd00::2", RouteUnicast, "br0"},
		{"a rule that is not understood", `[{"priority":0,"src":"all","table":"local"},{"priority":1,"src":"all","uid_start":0,"uid_end":5,"table":"52"},{"priority":2,"src":"all","table":"main"}]`, "100.64.0.9", RouteUnknown, ""},
		{"a rule that is not understood, and does not matter", `[{"priority":0,"src":"all","table":"local"},{"priority":1,"src":"all","uid_start":0,"uid_end":5,"table":"52"},{"priority":2,"src":"all","table":"main"}]`, "10.1.2.3", RouteUnicast, "br0"},
		{"default routes suppressed", `[{"priority":0,"src":"all","table":"local"},{"priority":1,"src":"all","table":"main","suppress_prefixlen":0},{"priority":2,"src":"all","table":"52"}]`, "198.51.100.7", RouteNone, ""},
		{"a rule for what comes from elsewhere", `[{"priority":0,"src":"all","table":"local"},{"priority":1,"src":"all","iif":"eth0","table":"52"},{"priority":2,"src":"all","table":"main"}]`, "100.64.0.9", RouteUnicast, "wlan0"},
		{"a rule for all but that", `[{"priority":0,"src":"all","table":"local"},{"priority":1,"not":null,"src":"all","iif":"eth0","table":"52"},{"priority":2,"src":"all","table":"main"}]`, "100.64.0.9", RouteUnicast, "tailscale0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			outputs := installed{}
			if test.rules != "" {
				outputs["ip -4 -j rule show"] = test.rules
			}
			r := routingOf(t, outputs)
			if kind, out := r.Lookup(netip.MustParseAddr(test.to)); kind != test.kind || out != test.out {
				t.Errorf("%s: %q by %q, want %q by %q", test.to, kind, out, test.kind, test.out)
			}
		})
	}
	r := routingOf(t, nil)
	if r.master("veth1") != "br0" || !r.bridges("br0") || r.bridges("veth1") {
		t.Error("the bridge is not known")
	}
	for addr, local := range map[string]bool{"172.17.0.1": true, "172.17.0.2": false, "127.0.0.9": true, "fd00::1": true, "fd00::2": false} {
		if r.Local(netip.MustParseAddr(addr)) != local {
			t.Errorf("%s is the machine's: %v", addr, !local)
		}
	}
	var none *Routing
	if kind, _ := none.Lookup(netip.MustParseAddr("192.0.2.1")); kind != RouteUnknown || none.Local(netip.MustParseAddr("192.0.2.1")) {
		t.Error("routing that was not read knows something")
	}
}

// Addresses make routes where none is listed.
func TestRoutingOfAddresses(t *testing.T) {
	for addr, want := range map[string]RouteType{
		"192.0.2.1": RouteLocal, "192.0.2.255": RouteBroadcast, "192.0.2.9": RouteUnicast, "127.0.0.1": RouteLocal,
		"255.255.255.255": RouteBroadcast, "224.0.0.1": RouteMulticast, "::1": RouteLocal, "2001:db8::1": RouteLocal,
	} {
		if got := fuzzRouting.typeOf(netip.MustParseAddr(addr), ""); got != want {
			t.Errorf("%s is %q, want %q", addr, got, want)
		}
	}
	if got := fuzzRouting.typeOf(netip.MustParseAddr("192.0.2.1"), "docker0"); got != RouteUnicast {
		t.Errorf("an address of another interface is %q", got)
	}
	for prefix, last := range map[string]string{"192.0.2.1/24": "192.0.2.255", "10.0.0.1/9": "10.127.255.255", "192.0.2.5/30": "192.0.2.7"} {
		if got := lastOf(netip.MustParsePrefix(prefix)); got != netip.MustParseAddr(last) {
			t.Errorf("last of %s: %v, want %s", prefix, got, last)
		}
	}
}

func TestReadRoutingRefuses(t *testing.T) {
	good := installed{
		"ip -d -j address show": "[]", "ip -4 -d -j route show table all": "[]", "ip -4 -j rule show": "[]",
		"ip -6 -d -j route show table all": "[]", "ip -6 -j rule show": "[]",
	}
	if _, err := ReadRouting(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	for command := range good {
		if command == "ip -6 -j rule show" {
			continue // a kernel without IPv6 has none
		}
		for _, out := range []string{"!failed", "garbage", `[{"ifname":"x","dst":"nonsense","src":"nonsense","addr_info":[{"local":"nonsense"}]}]`} {
			bad := installed{}
			maps.Copy(bad, good)
			bad[command] = out
			if r, err := ReadRouting(t.Context(), bad); err == nil {
				t.Errorf("%s: %q is accepted: %+v", command, out, r)
			}
		}
	}
}
