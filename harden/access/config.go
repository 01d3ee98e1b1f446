package access

import (
	"context"
	"crypto/sha256"
	"iter"
	"net"
	"net/netip"
	"time"

	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
)

// A Config says what to look at. The zero Config has access to nothing, so that
// all of its checks are unknown. Its fields must not be changed once it is in
// use.
type Config struct {
	// Containers are the agent's. Use the source that the checks of package
	// container are bound to. Without it nothing is known of what the agent
	// holds.
	Containers *harden.Source[container.Container]

	// Detector finds credentials of all kinds, such as that of package
	// gitleaks. [Keys] is used beside it. Nil means Keys alone, with which
	// point 10 can fail and not pass.
	Detector Detector

	// Known are credentials that the agent must not have in any form, such as
	// the gateway's key. Twelve characters of one in a row are found, also in
	// base64, in hexadecimal digits and backwards.
	Known []composio.Secret

	// Tokens are the SHA-256 hashes of the tokens of this module's gateway
	// ("hsg_…") that the agent is meant to have. One that is not among them is a credential like
	// any other.
	Tokens [][sha256.Size]byte

	// Own are the environment variables with the agent's own lock: what others
	// must give to get in, such as OPENCLAW_GATEWAY_TOKEN. What they hold in
	// the environment of a process is no finding; the same value elsewhere is.
	Own []string

	// StateDirs are the directories in the container where OpenClaw keeps its
	// configuration and its databases, beside those that its variables name.
	StateDirs []string

	// Skip are directories in the container that are not read. Every pass
	// says so.
	Skip []string

	// Limits bounds the reading.
	Limits Limits

	// Gateway is where the agent's tools are.
	Gateway Gateway

	// Direct are the addresses at which Composio is, and which the agent must
	// not reach. Nil means [DefaultDirect].
	Direct []Destination

	// Inside connects from the agent's network, such as that of package netns.
	// Nil means that its ways out cannot be tried.
	Inside Inside

	// Composio is asked what it gives away and what it allows; a
	// [composio.Client] is one. Nil means that nobody can be asked.
	Composio Composio

	// Sessions are the ids of the tool-router sessions that were made.
	// Composio lists none.
	Sessions []string

	// Policy reads the gateway's policy anew. Nil means that none is known.
	Policy func(context.Context) (Policy, error)

	// Switches are the kill switches of the agents. None means that nobody
	// knows of one.
	Switches []KillSwitch

	// Guarded are the files on this machine that hold credentials, such as the
	// gateway's key, or decide about them, such as its policy.
	Guarded []GuardedFile

	// Trails are the logs in which what agents do, and what is done about
	// them, is recorded. None means that nobody knows of one.
	Trails []Trail

	// Executions is asked what Composio has executed; a [composio.Client] is
	// one. Nil means that nobody can be asked.
	Executions Executions

	// Window is how far back the trails are compared with that. Zero means
	// DefaultWindow.
	Window time.Duration

	// Remedy, if set, lets checks have one that changes Composio.
	Remedy *Remedy
}

// Limits bounds how much of a container is read. What is beyond is not read,
// and the result is then unknown.
type Limits struct {
	Files int           // zero means DefaultMaxFiles
	Bytes int64         // zero means DefaultMaxBytes
	Time  time.Duration // zero means DefaultMaxTime
}

// What the zero values of [Limits] mean, for each container.
const (
	DefaultMaxFiles = 50_000
	DefaultMaxBytes = 256 << 20
	DefaultMaxTime  = 20 * time.Second
)

func (l Limits) orDefault() Limits {
	if l.Files <= 0 {
		l.Files = DefaultMaxFiles
	}
	if l.Bytes <= 0 {
		l.Bytes = DefaultMaxBytes
	}
	if l.Time <= 0 {
		l.Time = DefaultMaxTime
	}
	return l
}

// A Gateway is the agent's way to tools.
type Gateway struct {
	// URL is where agents reach it, without a path, such as
	// "http://172.17.0.1:7080". Plain http is accepted: the token goes no
	// further than the gateway. Tokens are sent to no other host.
	URL string

	// Aliases are other hosts and ports by which agents know it, such as
	// "gateway:7080".
	Aliases []string

	// Probes are the agents as which to ask.
	Probes []Probe

	// Dial connects to the gateway. Nil means from this machine.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// MCPPath is where its MCP door is. Empty means "/mcp".
	MCPPath string
}

// A Probe is an agent as which the gateway is asked. Give probes a token of
// their own (a policy takes two for an agent), so that the agent's need not be
// known.
type Probe struct {
	Agent string // its name in the policy
	Token composio.Secret
}

// A Destination is an address that the agent must not reach.
type Destination struct {
	Name string // such as "backend.composio.dev"
	Port uint16 // zero means 443

	// Addrs are its addresses. None means those that this machine finds.
	Addrs []netip.Addr
}

// DefaultDirect returns where Composio's public service is.
func DefaultDirect() []Destination {
	return []Destination{{Name: "backend.composio.dev"}, {Name: "connect.composio.dev"}, {Name: "mcp.composio.dev"}}
}

// An Inside connects from the network of a process. Implementations may be
// called concurrently.
type Inside interface {
	// DialFrom connects as a process of the given number would, to an IP
	// address and port, over "tcp". With the number 0 it connects as the
	// machine itself would. The error is that of a [net.Dialer], a
	// *[net.OpError], if it tried, and none if it could not try.
	DialFrom(ctx context.Context, pid int, network, address string) (net.Conn, error)
}

// Composio is what is asked of Composio. A [composio.Client] is one.
type Composio interface {
	Accounts(ctx context.Context, f composio.AccountFilter) iter.Seq2[composio.Account, error]
	ProjectConfig(ctx context.Context) (composio.ProjectConfig, error)
	AuthConfigs(ctx context.Context, toolkits ...string) iter.Seq2[composio.AuthConfig, error]
	MCPServers(ctx context.Context) iter.Seq2[composio.MCPServer, error]
	Session(ctx context.Context, id string) (composio.Session, error)
	Tool(ctx context.Context, slug, version string) (composio.Tool, error)
}

// A Policy is what a gateway's policy lets agents do.
type Policy struct {
	Source string // such as "/etc/hardshell/policy.json"
	Agents map[string]Grants
}

// Grants are the tools that one agent may use, by slug. What is not there is
// denied.
type Grants struct {
	Tools map[string]Grant

	// Multi says that the agent is also offered the tool that wraps calls of
	// the others, each of which is judged.
	Multi bool
}

// A Grant is how a tool may be used.
type Grant struct {
	Version string
	Class   composio.Class // the most dangerous thing that it is known to do
}

// A GuardedFile is a file that the agent must not get at.
type GuardedFile struct {
	Path string

	// Owner is the number of the user who may read and write it, beside root.
	Owner uint32

	// Readable says that others may read it: that it is no secret.
	Readable bool
}
