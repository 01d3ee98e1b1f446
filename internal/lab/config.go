package lab

import (
	"io"
	"net/netip"
)

// Config says what a lab has. The zero Config is a machine with the dockerd
// found in $PATH and no UFW.
type Config struct {
	// Dockerd is the engine to run; empty means the dockerd in $PATH.
	// Programs beside it (containerd, runc, docker-init, docker-proxy) are
	// preferred to those in $PATH.
	Dockerd string

	// DockerdArgs are further arguments for dockerd. Where the data, the
	// socket and the cgroups are is not theirs to say.
	DockerdArgs []string

	// Runc is an OCI runtime to use in place of the engine's own; empty means
	// the engine's own.
	Runc string

	// UFW gives the host a real UFW, freshly installed and not enabled:
	// run it with l.Host.Command(ctx, "ufw", …).
	UFW bool

	// NoDocker builds the network and the host, and starts no engine.
	NoDocker bool

	// Log receives a line for each step; nil means nothing is logged. What
	// dockerd prints is in a file of its own, see [Lab.DockerdLog].
	Log io.Writer
}

// Addresses of the lab's machines, from the ranges reserved for documentation.
// The same in every lab.
var (
	HostAddr4      = netip.MustParseAddr("192.0.2.1")
	HostAddr6      = netip.MustParseAddr("2001:db8::1")
	InternetAddr4  = netip.MustParseAddr("192.0.2.2")
	InternetAddr6  = netip.MustParseAddr("2001:db8::2")
	NeighbourAddr4 = netip.MustParseAddr("192.0.2.3")
	NeighbourAddr6 = netip.MustParseAddr("2001:db8::3")

	// FarAddr4 and FarAddr6 are the internet machine's too, and not on the
	// host's own network: the host reaches them by its default route.
	FarAddr4 = netip.MustParseAddr("198.51.100.10")
	FarAddr6 = netip.MustParseAddr("2001:db8:ffff::10")
)

// Images that every lab's engine has. All of them hold one static program, the
// agent (see its directory for what it can be told to do), and in all of them
// it listens on [AgentPort] of all addresses unless told otherwise.
const (
	// AgentImage has no USER, so it runs as root, as careless images do.
	AgentImage = "hardshell/agent:lab"
	// UserImage runs as app (1000).
	UserImage = "hardshell/agent-user:lab"
	// ToorImage names a user, toor, whose uid is 0.
	ToorImage = "hardshell/agent-toor:lab"
	// VolumeImage runs as app and declares VOLUME /data.
	VolumeImage = "hardshell/agent-volume:lab"
	// HealthImage runs as root and has a HEALTHCHECK, every second, that fails
	// while /tmp/unwell or /state/unwell exists.
	HealthImage = "hardshell/agent-health:lab"
	// UnwellImage has a HEALTHCHECK that always fails.
	UnwellImage = "hardshell/agent-unwell:lab"
	// PickyImage is as hard to confine as a real agent: it runs as app with
	// HOME=/home/app, exits 1 if /tmp cannot be written, and exits 78 if
	// neither $XDG_CACHE_HOME nor $HOME/.cache can.
	PickyImage = "hardshell/agent-picky:lab"
)

// AgentPort is where the agent in the lab's images listens by default.
const AgentPort = 18789
