package firewall

import (
	"net/netip"
)

// A Step is a rule, or the policy of a chain, that a packet met and that
// mattered: it decided, changed the packet, or could not be understood.
type Step struct {
	Hook  string // "prerouting", "input", "forward", "output", "postrouting" or "ingress"
	Table string // such as "ip filter (iptables-nft)" or "inet hardshell"
	Chain string
	Rule  string // as the system lists it; "policy drop" for that of a chain
	Does  string // such as "drop", "translates the destination to 172.17.0.2:80", "is not understood: …"
}

// A Decision is what becomes of a packet, and why.
type Decision struct {
	Fate Fate

	// Local says that it is, or would have been, delivered to a process on
	// this machine rather than sent on. Out is the interface by which it
	// leaves otherwise. Both are undetermined if it was dropped before its
	// route was chosen.
	Local bool
	Out   string

	// To is where it ends up: its destination, translated.
	To netip.AddrPort

	// Steps are the rules that made the decision, in order. Where the fate is
	// unknown they include those that are not understood.
	Steps []Step

	// Why says, where Fate is unknown, what is not understood.
	Why string
}
