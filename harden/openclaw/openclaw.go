// Package openclaw is the 14-point profile of an OpenClaw deployment: which
// checks there are of it, and what OpenClaw needs to work once it is locked
// down.
package openclaw

import (
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
)

// Where OpenClaw's image keeps what must survive; see "Docker" of its
// documentation.
const (
	StateDir  = "/home/node/.openclaw"
	ConfigDir = "/home/node/.config/openclaw"

	// Port is the gateway's.
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
}

// Checks returns the checks of the deployment. Points of the framework that
// none of them belongs to are unknown in an audit: nothing looks at them yet.
func (d *Deployment) Checks() []harden.Check {
	if d.Engine == nil {
		return nil
	}
	src := container.NewSource(d.Engine, d.Containers...)
	checks := container.Checks(src, d.Profile)
	if d.Control == nil {
		return checks
	}
	r := &container.Recreator{Control: d.Control, Source: src, Profile: d.Profile, StateDir: d.StateDir}
	for i, c := range checks {
		checks[i] = r.Remedy(c)
	}
	return checks
}
