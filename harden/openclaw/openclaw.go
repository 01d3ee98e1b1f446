// Package openclaw is the 14-point profile of an OpenClaw deployment: which
// checks there are of it, and what OpenClaw needs to work once it is locked
// down.
package openclaw

import (
	"context"
	"slices"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/access"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/network"
)

// Where OpenClaw's image keeps what must survive; see "Docker" of its
// documentation.
const (
	StateDir  = "/home/node/.openclaw"
	ConfigDir = "/home/node/.config/openclaw"

	// Port is the gateway's. The next one is that of the sandbox for MCP apps,
	// and the one after it that of the browser control.
	Port = 18789
)

// Profile returns what OpenClaw's image needs. Measured with version 2026.9.6:
// on a read-only root the gateway exits with status 78 unless its cache has a
// writable place, and with status 1 unless /tmp is writable; idle it takes just
// under 1 GiB, and with a limit of 1 GiB it does not last.
func Profile() container.Profile {
	return container.Profile{
		User:     "1000:1000", // node, the image's own user
		Writable: []string{StateDir, ConfigDir},
		Tmpfs:    []container.Tmpfs{{Path: "/tmp", Size: 256 << 20}},
		Env:      []string{"XDG_CACHE_HOME=" + StateDir + "/cache"},
		Memory:   1536 << 20,
		Pids:     512,
	}
}

// A Deployment is an OpenClaw agent on a machine. The zero Deployment has
// nothing to look at. Its fields must not be changed once it is in use.
type Deployment struct {
	// Engine runs the agent's containers.
	Engine container.Engine

	// Containers are the names of the agent's containers. None means every
	// container that runs.
	Containers []string

	// Profile says what the containers may have. Start from [Profile].
	Profile container.Profile

	// Control, if set, lets the checks of containers have a remedy, which
	// recreates a container hardened. It must be of the same engine.
	Control container.Control

	// StateDir is where the remedy writes down what it is about to do. It is
	// required beside Control.
	StateDir string

	// MayStart, if set, is asked before the remedy of a container starts one,
	// such as the fence of a kill switch; see [container.Recreator].
	MayStart func(ctx context.Context, container string) error

	// Network, if set, adds the checks of who can reach the machine, points 6
	// to 9. Start from [network.Local]. What it leaves empty is taken from the
	// rest: the containers, the gateway's ports, where ports may be
	// published, and the engine if it can describe its networks.
	Network *network.Config

	// Access, if set, adds the checks of what the agent holds and may use,
	// points 10 to 14. What it leaves empty is taken from the rest: the
	// containers, where OpenClaw keeps its state, and the variables with its
	// own gateway's token.
	Access *access.Config
}

// Checks returns the checks of the deployment. Points of the framework that
// none of them belongs to are unknown in an audit: nothing looks at them yet.
func (d *Deployment) Checks() []harden.Check {
	var checks []harden.Check
	var src *harden.Source[container.Container]
	if d.Engine != nil {
		src = container.NewSource(d.Engine, d.Containers...)
		checks = container.Checks(src, d.Profile)
	}
	if d.Control != nil && src != nil {
		r := &container.Recreator{Control: d.Control, Source: src, Profile: d.Profile, StateDir: d.StateDir, MayStart: d.MayStart}
		for i, c := range checks {
			checks[i] = r.Remedy(c)
		}
	}
	if d.Network != nil {
		// That of the network looks at the packet filter, which this one cannot.
		checks = slices.DeleteFunc(checks, func(c harden.Check) bool { return c.Info().ID == "container.loopback_leak" })
		checks = append(checks, network.Checks(d.network(src))...)
	}
	if d.Access != nil {
		checks = append(checks, access.Checks(d.access(src))...)
	}
	return checks
}

// access completes the configuration of the checks of what the agent holds.
func (d *Deployment) access(src *harden.Source[container.Container]) access.Config {
	c := *d.Access
	if c.Containers == nil {
		c.Containers = src
	}
	if c.StateDirs == nil {
		c.StateDirs = []string{StateDir}
	}
	if c.Own == nil {
		c.Own = []string{"OPENCLAW_GATEWAY_TOKEN", "OPENCLAW_GATEWAY_PASSWORD"}
	}
	return c
}

// network completes the configuration of the network checks.
func (d *Deployment) network(src *harden.Source[container.Container]) network.Config {
	c := *d.Network
	if c.Engine == nil {
		c.Engine, _ = d.Engine.(network.Engine)
	}
	if c.Containers == nil {
		c.Containers = src
	}
	if c.Ports == nil {
		c.Ports = []uint16{Port, Port + 1, Port + 2}
	}
	if c.Publish == nil {
		c.Publish = d.Profile.Publish
	}
	return c
}
