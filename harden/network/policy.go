package network

import (
	"cmp"
	"slices"

	"github.com/managemyclaw/hardshell/firewall"
)

// PolicyFor returns the policy that lets nothing of what m's engine exposes be
// reached from outside, but what allow lists.
func PolicyFor(m *Machine, allow []firewall.Allow) firewall.Policy {
	p := firewall.Policy{Allow: slices.Clone(allow)}
	for _, n := range m.Networks {
		if n.Driver == "bridge" && n.Interface != "" {
			p.Networks = append(p.Networks, firewall.Network{Name: n.Name, Interface: n.Interface, Prefixes: slices.Clone(n.Prefixes)})
		}
	}
	for _, s := range m.Running {
		for _, port := range s.Ports {
			if proto, ok := protocolOf(port.Protocol); ok && port.Host != 0 {
				p.Published = append(p.Published, firewall.Port{Protocol: proto, Number: port.Host})
			}
		}
	}
	slices.SortFunc(p.Published, func(a, b firewall.Port) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Number, b.Number))
	})
	p.Published = slices.Compact(p.Published)
	return p
}
