package container

import "net/netip"

// An EngineNetwork is a network of a container engine, as the engine describes
// it.
type EngineNetwork struct {
	ID     string
	Name   string // such as "bridge"
	Driver string // "bridge", "host", "none", "macvlan", "ipvlan", "overlay", …
	Scope  string // "local" or "swarm"

	// Interface is that of the machine through which packets for the
	// containers go, such as "docker0". It is empty where there is none, and
	// not known for drivers other than "bridge".
	Interface string

	// Parent is the interface of the machine to whose own network the
	// containers of a macvlan or ipvlan network belong. It may be empty.
	Parent string

	Prefixes []netip.Prefix // of the containers, of both families
	Internal bool           // without a way out
}
