package ufw_test

import (
	"fmt"
	"net/netip"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/firewall/ufw"
)

// The steps to a firewall that lets in the operator's address by SSH and the
// tailnet, and nothing else.
func ExampleState_Plan() {
	state := &ufw.State{Installed: true, Incoming: ufw.Allow, IPv6: true} // as Read returns it
	plan, err := state.Plan(ufw.Wish{Allow: []firewall.Allow{
		{Port: firewall.Port{Protocol: firewall.TCP, Number: 22}, From: []netip.Prefix{netip.MustParsePrefix("198.51.100.7/32")}},
		{In: "tailscale0"},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, step := range plan.Steps {
		fmt.Println(step)
	}
	// Output:
	// ufw allow in from 198.51.100.7 to any port 22 proto tcp
	// ufw allow in on tailscale0 from any to any
	// ufw default deny incoming
	// ufw --force enable
}

func ExampleParseTuple() {
	r, err := ufw.ParseTuple("limit tcp 22 0.0.0.0/0 any 0.0.0.0/0 in_eth0 comment=737368", false)
	fmt.Println(r, err)
	fmt.Println("admits:", r.Action.Admits())
	// Output:
	// limit in on eth0 from any to any port 22 proto tcp comment "ssh" <nil>
	// admits: true
}
