package nft

import (
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/firewall"
)

// Backend is a [firewall.Backend] that keeps a policy by nftables, in a table
// of its own. The zero Backend is ready for use, on the network namespace of the calling
// process. Its fields may be set before it is first used. Its methods may be
// called concurrently; two Backends of one namespace, in whatever
// processes, replace each other's table, each time as a whole.
//
// It needs CAP_NET_ADMIN; without it, errors wrap [io/fs.ErrPermission]. Where
// the kernel has no nftables they wrap [errors.ErrUnsupported].
type Backend struct {
	// NetNS is a path to another network namespace to work in, such as
	// /run/netns/NAME or /proc/PID/ns/net. Empty means that of the caller.
	NetNS string

	// Timeout bounds what a method takes, beside its context. Zero means
	// DefaultTimeout.
	Timeout time.Duration

	// EngineCgroup is the control group (version 2) of the engine's
	// processes, as a path below the root of the hierarchy, such as
	// "system.slice/docker.service". With it, what listens there can be
	// reached from outside only if it is allowed: proxy processes of ports
	// that the policy does not list yet, and the engine's own API. Swarm,
	// which listens there for other nodes, then needs them allowed.
	//
	// The kernel knows a control group by a number, which a group that is
	// made anew does not keep. So where a service manager removes it with
	// the engine, Apply must follow each start of the engine: until then Drift
	// says so. Where there is no such group, Apply fails.
	EngineCgroup string

	mu sync.Mutex
}

// DefaultTimeout is far more than the kernel needs: a table takes it
// milliseconds.
const DefaultTimeout = 5 * time.Second

// Name implements [firewall.Backend].
func (b *Backend) Name() string { return "nftables" }

var _ firewall.Backend = (*Backend)(nil)
