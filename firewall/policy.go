package firewall

import (
	"context"
	"net/netip"
)

// A Policy says what of a machine with a container engine may be reached from
// outside. The zero Policy allows nothing and knows of no engine.
//
// It governs what the engine exposes: published ports, however they are served
// (address translation or a proxy process), the addresses of the containers
// themselves, and ports published on loopback, which engines before Docker 28
// let neighbours reach. It says nothing of the machine's other services, which
// are UFW's business, and never stops what the containers or the machine begin
// themselves, answers included.
//
// A Policy is a value that encodes as JSON, so that it can be kept and put back
// when the machine starts.
type Policy struct {
	// Allow lists what may be reached. Everything else that the engine
	// exposes may not.
	Allow []Allow `json:"allow"`

	// Networks are the engine's.
	Networks []Network `json:"networks"`

	// Published are the ports of the machine that the engine publishes at
	// present, those on loopback included. Ports published later are closed
	// as well unless they are served by a proxy process; see
	// the backends for what each can do.
	Published []Port `json:"published"`

	// Others are interfaces that are named as an engine names its own,
	// docker… or br-…, and are not, such as a bridge br-lan of virtual
	// machines. What is sent on to them is left alone, and what comes by
	// them comes from outside.
	//
	// It matters for networks that are made after the policy: what is sent
	// on to an interface with such a name is closed before anyone has
	// listed it in Networks.
	Others []string `json:"others,omitempty"`

	// Strict closes whatever is sent on by address translation and is not
	// allowed, to wherever. Without it, a port that is published later on a
	// network that is made later, with an interface that the engine was told
	// to call something else than docker… or br-…, is open until the policy
	// lists it. With it, what others translate is closed too: forwards to
	// virtual machines, other engines' ports, the services of a cluster.
	Strict bool `json:"strict,omitempty"`
}

// An Allow lets one port of the machine be reached.
type Allow struct {
	Port // of the machine, not of the container

	// From are the senders that may; empty means anyone, of both families.
	From []netip.Prefix `json:"from,omitempty"`

	// In is the interface that they must come in by, such as "tailscale0".
	// Empty means any.
	In string `json:"in,omitempty"`
}

// A Port is a port of the machine.
type Port struct {
	Protocol Protocol `json:"protocol"` // TCP, UDP or SCTP
	Number   uint16   `json:"port"`
}

// A Network is a network of a container engine.
type Network struct {
	Name string `json:"name"` // such as "bridge", for people

	// Interface is that of the machine which leads there, such as "docker0";
	// at most 15 bytes. What comes by it is taken to come from a container,
	// and is not restricted.
	Interface string `json:"interface"`

	Prefixes []netip.Prefix `json:"prefixes"` // of the containers, of both families
}

// A Backend makes the kernel keep a [Policy]. Its methods may be called one at
// a time.
type Backend interface {
	// Name is a short name, such as "nftables".
	Name() string

	// Apply makes the kernel keep p, in place of the policy of an earlier
	// Apply, in which no moment is less strict than both. It touches no rules but its own.
	// Applying what is applied changes nothing. If it returns an error it has
	// changed nothing, or the error says what.
	Apply(ctx context.Context, p Policy) error

	// Remove takes away what Apply has made. If there is nothing, it does
	// nothing.
	Remove(ctx context.Context) error

	// Drift says how the kernel's rules differ from what Apply would have
	// made of p, a line for each difference; none means that p holds. It changes nothing.
	Drift(ctx context.Context, p Policy) ([]string, error)
}
