package network

import (
	"cmp"
	"regexp"
	"slices"

	"github.com/managemyclaw/hardshell/firewall"
)

// madeUp matches the names that Docker gives to interfaces by itself.
var madeUp = regexp.MustCompile(`^(docker\d+|docker_gwbridge|br-[0-9a-f]{12})$`)

// PolicyFor returns the policy that lets nothing of what m's engine exposes be
// reached from outside, but what allow lists.
//
// A bridge that is called br-… as the engine calls its own, and is not one of
// its networks, is left alone, such as one of virtual machines. One whose name
// the engine would make up itself (br- and twelve digits of an id) is not: its
// network may be about to be listed.
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
	if m.Routing != nil {
		for _, i := range m.Routing.Interfaces {
			if _, engines := m.bridge(i.Name); !engines && firewall.EngineInterface(i.Name) && !madeUp.MatchString(i.Name) {
				p.Others = append(p.Others, i.Name)
			}
		}
	}
	slices.SortFunc(p.Published, func(a, b firewall.Port) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Number, b.Number))
	})
	p.Published = slices.Compact(p.Published)
	return p
}
