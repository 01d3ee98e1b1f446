package firewall

import (
	"context"
	"errors"
)

// A Ruleset is the packet filter rules of a machine.
type Ruleset struct{}

// Read reads the rules in the kernel of the machine whose programs run runs: those of
// nftables, and those of both flavours of iptables. What is not installed and
// cannot have rules is left out; what cannot be read is an error.
func Read(ctx context.Context, run Runner) (*Ruleset, error) {
	return nil, errors.ErrUnsupported
}

// Evaluate says what becomes of p on a machine with rules r and routing rt. It
// may be called concurrently.
func (r *Ruleset) Evaluate(rt *Routing, p Packet) Decision {
	return Decision{Why: "not implemented"}
}
