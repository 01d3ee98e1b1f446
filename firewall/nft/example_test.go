package nft_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/firewall/nft"
)

// What is published is closed, but for one port, which one network may reach.
func ExampleBackend_Script() {
	p := firewall.Policy{
		Allow: []firewall.Allow{{
			Port: firewall.Port{Protocol: firewall.TCP, Number: 443},
			From: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		}},
		Networks: []firewall.Network{{
			Name: "bridge", Interface: "docker0", Prefixes: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")},
		}},
		Published: []firewall.Port{
			{Protocol: firewall.TCP, Number: 443},
			{Protocol: firewall.TCP, Number: 18789},
		},
	}
	script, err := new(nft.Backend).Script(p)
	fmt.Println(strings.ReplaceAll(script, "\t", "  "), err)
	// Output:
	// table inet hardshell
	// delete table inet hardshell
	// table inet hardshell {
	//   set inside {
	//     type ifname
	//     elements = { "docker0" }
	//   }
	//   set direct_v4 {
	//     type ipv4_addr
	//     flags interval
	//     elements = { 172.17.0.0/16 }
	//   }
	//   set from_1_v4 {
	//     type ipv4_addr
	//     flags interval
	//     elements = { 192.0.2.0/24 }
	//   }
	//   set allowed_1_tcp {
	//     type inet_service
	//     elements = { 443 }
	//   }
	//   set published_tcp {
	//     type inet_service
	//     elements = { 443, 18789 }
	//   }
	//   chain prerouting {
	//     type filter hook prerouting priority -160; policy accept;
	//     ct state established,related accept
	//     icmpv6 type 133-137 accept
	//     iifname "lo" accept
	//     iifname @inside accept
	//     ip daddr 127.0.0.0/8 counter drop comment "a loopback address, from a neighbour"
	//     ip6 daddr ::1 counter drop comment "a loopback address, from a neighbour"
	//     ip daddr @direct_v4 counter drop comment "the address of a container"
	//     ip saddr @from_1_v4 tcp dport @allowed_1_tcp accept
	//     fib daddr type local tcp dport @published_tcp counter drop comment "a published port"
	//   }
	//   chain forward {
	//     type filter hook forward priority -10; policy accept;
	//     ct state established,related accept
	//     iifname @inside accept
	//     ct status dnat ip saddr @from_1_v4 meta l4proto tcp ct original proto-dst @allowed_1_tcp accept
	//     oifname @inside counter drop comment "a container"
	//     ct status dnat oifname "docker*" counter drop comment "a published port that is not listed"
	//     iifname "docker*" oifname "docker*" accept
	//     oifname "docker*" counter drop comment "a container on a network that is not listed"
	//     ct status dnat oifname "br-*" counter drop comment "a published port that is not listed"
	//     iifname "br-*" oifname "br-*" accept
	//     oifname "br-*" counter drop comment "a container on a network that is not listed"
	//   }
	// }
	//  <nil>
}

// A policy is put into the kernel, and watched.
func ExampleBackend() {
	ctx := context.Background()
	var p firewall.Policy // what may be reached
	b := new(nft.Backend)
	if err := b.Apply(ctx, p); err != nil {
		fmt.Println(err)
		return
	}
	lines, err := b.Drift(ctx, p)
	fmt.Println(lines, err)
}
