package docker

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/network"

	"github.com/managemyclaw/hardshell/harden/container"
)

// bridgeName is the option of a bridge network that names its interface; see
// "Default bridge driver options" of Docker's documentation.
const bridgeName = "com.docker.network.bridge.name"

// Networks describes all networks of the engine, in order of their names.
func (e *Engine) Networks(ctx context.Context) ([]container.EngineNetwork, error) {
	const op = "list networks"
	listed, err := do(ctx, e, op, func(ctx context.Context) ([]network.Summary, error) {
		return e.cli.NetworkList(ctx, network.ListOptions{})
	})
	if err != nil {
		return nil, err
	}
	all := make([]container.EngineNetwork, 0, len(listed))
	for _, n := range listed {
		if n.ID == "" {
			return nil, e.nonsense(op, errNotDocker)
		}
		all = append(all, engineNetwork(n))
	}
	slices.SortStableFunc(all, func(a, b container.EngineNetwork) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func engineNetwork(n network.Summary) container.EngineNetwork {
	out := container.EngineNetwork{ID: n.ID, Name: n.Name, Driver: n.Driver, Scope: n.Scope, Internal: n.Internal}
	switch n.Driver {
	case "bridge":
		out.Interface = n.Options[bridgeName]
		if out.Interface == "" {
			out.Interface = "br-" + n.ID[:min(12, len(n.ID))]
		}
	case "macvlan", "ipvlan":
		out.Parent = n.Options["parent"]
	}
	for _, c := range n.IPAM.Config {
		p, err := netip.ParsePrefix(c.Subnet)
		if err != nil { // the default network of engine 20.10 has a gateway alone for IPv6
			continue
		}
		if p = p.Masked(); !slices.Contains(out.Prefixes, p) {
			out.Prefixes = append(out.Prefixes, p)
		}
	}
	return out
}
