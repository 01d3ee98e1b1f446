package firewall_test

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/managemyclaw/hardshell/firewall"
)

// A policy is kept in a file, and has one form there.
func ExampleParsePolicy() {
	p, err := firewall.ParsePolicy([]byte(`{
		"schema": "hardshell.exposure/v1",
		"allow": [
			{"protocol": "tcp", "port": 443, "from": ["10.0.0.0/9", "10.128.0.0/9"]},
			{"protocol": "tcp", "port": 443, "from": ["10.1.2.3/32"]}
		],
		"networks": [],
		"published": [{"protocol": "tcp", "port": 443}]
	}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	out, err := json.Marshal(p)
	fmt.Println(string(out), err)

	// A field that is misspelt is not one that is empty.
	_, err = firewall.ParsePolicy([]byte(`{"schema": "hardshell.exposure/v1", "allow": [], "network": [], "published": []}`))
	fmt.Println(err)
	// Output:
	// {"schema":"hardshell.exposure/v1","allow":[{"protocol":"tcp","port":443,"from":["10.0.0.0/8"]}],"networks":[],"published":[{"protocol":"tcp","port":443}]} <nil>
	// firewall: policy: no "networks"; write [] if there is none
}

// All mistakes of a policy are reported at once.
func ExamplePolicy_Validate() {
	p := firewall.Policy{
		Allow:    []firewall.Allow{{Port: firewall.Port{Protocol: firewall.ICMP}}},
		Networks: []firewall.Network{{Name: "all", Interface: "br-*", Prefixes: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}},
	}
	fmt.Println(p.Validate())
	// Output:
	// firewall: policy: allow 1 (icmp 0): protocol icmp has no ports; want tcp, udp or sctp
	// firewall: policy: network 1 (all): interface "br-*": want letters, digits and _, and further on also - and dots
	// firewall: policy: network 1 (all): 0.0.0.0/0 is every address
}

// What the units run is up to the program that installs them.
func ExampleUnits() {
	text, err := firewall.Units{
		Restore: []string{"/usr/local/bin/guard", "restore"},
		Watch:   []string{"/usr/local/bin/guard", "watch"},
		Policy:  "/var/lib/guard/policy.json",
	}.RestoreUnit()
	fmt.Println(text, err)
	// Output:
	// [Unit]
	// Description=Restore what may be reached of containers (hardshell)
	// DefaultDependencies=no
	// RequiresMountsFor=/var/lib/guard/policy.json
	// After=local-fs.target systemd-modules-load.service
	// After=nftables.service ufw.service firewalld.service netfilter-persistent.service iptables.service ip6tables.service
	// Wants=network-pre.target
	// Before=network-pre.target docker.service shutdown.target
	// Conflicts=shutdown.target
	// ReloadPropagatedFrom=nftables.service ufw.service
	//
	// [Service]
	// Type=oneshot
	// RemainAfterExit=yes
	// TimeoutStartSec=60
	// ExecStart=/usr/local/bin/guard "restore"
	// ExecReload=/usr/local/bin/guard "restore"
	//
	// [Install]
	// RequiredBy=docker.service
	//  <nil>
}
