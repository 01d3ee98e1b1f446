package firewall

import (
	"context"
	"errors"
	"net/netip"
)

// A Routing is what a machine knows of the network: its interfaces, its own
// addresses, and where packets for others go.
type Routing struct {
	Interfaces []Interface
	Routes     []Route
}

// An Interface is a network interface of a machine.
type Interface struct {
	Name   string
	Addrs  []netip.Prefix // with the bits of the network, such as 192.0.2.1/24
	Master string         // the bridge that it is a port of, if any
	Up     bool
}

// A Route sends packets for a range of addresses out by an interface.
type Route struct {
	Dst netip.Prefix // 0.0.0.0/0 and ::/0 are the default routes
	Out string
}

// ReadRouting reads the routing of the machine whose programs run runs, with
// those of iproute2.
func ReadRouting(ctx context.Context, run Runner) (*Routing, error) {
	return nil, errors.ErrUnsupported
}
