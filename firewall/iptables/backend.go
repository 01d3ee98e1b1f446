package iptables

import (
	"errors"
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/firewall"
)

// A Mode says where the rules are.
type Mode int

// Modes.
const (
	// DockerUser is the chain DOCKER-USER alone.
	DockerUser Mode = iota
	// Mangle is the mangle table alone.
	Mangle
	// Both is the mangle table, and DOCKER-USER for each family that has it.
	Both
	// DockerUserIfAny is DOCKER-USER for each family that has it, and nothing
	// where none has. It is for use beside package nft.
	DockerUserIfAny
)

// ErrNoDockerUser says that there is no chain DOCKER-USER, or none that packets
// come to, for IPv4 or for IPv6. Where the engine has none, package nft and the
// mode Mangle do what is needed.
var ErrNoDockerUser = errors.New("the engine has no chain DOCKER-USER")

// ErrLocked says that another process held the lock of iptables,
// /run/xtables.lock, for all of [Backend.Wait].
var ErrLocked = errors.New("another process holds the lock of iptables, /run/xtables.lock")

// Chains of ours.
const (
	preroutingChain = "HARDSHELL-PRE"
	forwardChain    = "HARDSHELL-FWD"
	userChain       = "HARDSHELL-USER"
)

// Backend is a [firewall.Backend] that keeps a policy by iptables. The zero
// Backend puts its rules into DOCKER-USER, in the network namespace of the calling
// process. Its fields may be set before it is first used. Its methods may be called
// concurrently.
//
// It needs CAP_NET_ADMIN and CAP_NET_RAW; without them, errors wrap
// [io/fs.ErrPermission]. Where iptables is not installed they wrap
// [os/exec.ErrNotFound].
//
// Apply changes the tables one after the other, those of IPv4 first. If it
// fails in between, its error says what has been changed.
type Backend struct {
	Mode Mode

	// Precreate makes the chain DOCKER-USER where there is none, for a
	// machine on which the engine has yet to start: engines that have such a
	// chain take it over.
	Precreate bool

	// NetNS is a path to another network namespace to work in, such as
	// /run/netns/NAME or /proc/PID/ns/net. Empty means that of the caller.
	NetNS string

	// Wait is for how long to wait for the lock of iptables, in whole
	// seconds, each time it is needed. Zero means DefaultWait.
	Wait time.Duration

	// Timeout bounds what each program may take. Zero means
	// [firewall.DefaultTimeout].
	Timeout time.Duration

	mu sync.Mutex
}

// DefaultWait is for how long to wait for the lock of iptables.
const DefaultWait = 2 * time.Second

// Name implements [firewall.Backend].
func (b *Backend) Name() string { return "iptables" }

var _ firewall.Backend = (*Backend)(nil)

// chains returns those that shall be, for what there is. Of DOCKER-USER it is the
// caller's to know that it is there.
func (b *Backend) chains(f family, p firewall.Policy, user bool) []chain {
	var out []chain
	if b.Mode == Mangle || b.Mode == Both {
		out = append(out,
			chain{"mangle", "PREROUTING", preroutingChain, f.prerouting(p)},
			chain{"mangle", "FORWARD", forwardChain, f.forward(p)})
	}
	if user {
		out = append(out, chain{"filter", dockerUser, userChain, f.forward(p)})
	}
	return out
}
