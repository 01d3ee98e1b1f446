package network

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/network/tailscale"
)

// DefaultKeyExpiry is how long before the end of the tailnet's key a check
// begins to say so.
const DefaultKeyExpiry = 7 * 24 * time.Hour

// An Engine is a container engine that can also describe its networks, as that
// of package docker can.
type Engine interface {
	container.Engine

	// Networks describes all networks of the engine.
	Networks(ctx context.Context) ([]container.EngineNetwork, error)
}

// A Dialer connects from the machine that is looked at, to one of its own
// addresses. [net.Dialer] is one for the machine that the process runs on.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// A Config says what of a machine to look at, and what of it may be reached.
// The zero Config has access to nothing, so that all of its checks are unknown.
// Its fields must not be changed once it is in use.
type Config struct {
	// Engine runs the machine's containers. Nil means that it has none that
	// anybody knows of: what the engine publishes cannot be judged then.
	Engine Engine

	// Containers are the agent's. Use the source that the checks of package
	// container are bound to. Nil means every container of Engine that runs.
	Containers *harden.Source[container.Container]

	// Ports are those of the gateway's, on which it listens if it runs
	// without a container.
	Ports []uint16

	// Publish are the addresses besides loopback that the gateway may listen
	// on, such as the machine's own address in a tailnet.
	Publish []netip.Prefix

	// Allow lists what of the engine's ports may be reached from outside, and
	// from where. Empty means nothing.
	Allow []firewall.Allow

	// Tailscale asks the machine's tailscaled. Nil means that it cannot be
	// asked.
	Tailscale *tailscale.Client

	// KeyExpiry is how long before its end the key of the tailnet is called
	// near it. Zero means DefaultKeyExpiry, negative never.
	KeyExpiry time.Duration

	// AgentUsers are the names or numbers of the users of this machine that
	// the agent runs as, besides those of its containers.
	AgentUsers []string

	// Dial connects to the machine's own addresses, to see which of its
	// sockets speak SSH. Nil means that this cannot be seen.
	Dial Dialer

	// Vantages are places from which to try.
	Vantages []Vantage

	// Remedy, if set, lets the checks that have one remedy what they find.
	Remedy *Remedy
}

// Local returns the Config of the machine that the process runs on, for an
// engine on it, which may be nil.
func Local(e Engine) Config {
	return Config{Engine: e, Tailscale: new(tailscale.Client), Dial: new(net.Dialer)}
}

// allows reports whether a sender may reach a port of the machine.
func (c *Config) allows(port firewall.Port, src netip.Addr, in string) bool {
	return slices.ContainsFunc(c.Allow, func(a firewall.Allow) bool {
		return a.Port == port && (a.In == "" || a.In == in) &&
			(len(a.From) == 0 || slices.ContainsFunc(a.From, func(p netip.Prefix) bool { return p.Contains(src) }))
	})
}

// mayListen reports whether the gateway may listen on an address.
func (c *Config) mayListen(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsLoopback() || slices.ContainsFunc(c.Publish, func(p netip.Prefix) bool { return p.Contains(a) })
}
