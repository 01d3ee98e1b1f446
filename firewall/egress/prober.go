package egress

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// A Prober finds out whether workloads are cut off, by trying: it sends packets
// from the network namespace of each, as the workload would, and watches the
// interfaces of the host for them to come out. Nobody outside has to answer. It
// is an observer of package killswitch, and shares nothing with a [Lock]: it
// reads no rules, and uses no part of nftables or iptables. Its fields are set before
// it is first used; its methods may be called concurrently.
//
// What it tries: datagrams, connections, echo requests and frames of packet
// sockets, to the outside, to the host, to neighbours on the same interface and
// to a name server by the engine's resolver; and datagrams from the host to the
// workload. Whether others reach it by a cable that goes past the host it does
// not see.
// It also sees what the workload itself sends in the meantime: as long as any
// packet leaves its network namespace, it is not off, be it dropped later.
//
// A workload in the host's network namespace is tried by sockets that belong to
// its control group; see Helper. One that may use packet sockets there is not
// off while it has a process.
//
// A workload whose network namespace is no longer there, neither under its
// path nor with any process in it, is off.
type Prober struct {
	// Source lists the workloads. Best is one that does not need the
	// engine, which may hang.
	Source Source

	// NetNS is a path to the network namespace that is the host's. Empty
	// means that of the caller.
	NetNS string

	// Canaries are addresses outside that packets are sent to. The host itself
	// must have a way there, or nothing can be concluded. Empty means
	// 198.18.0.1 and 2001:2::1, which are nobody's (RFC 2544, RFC 5180); a
	// family that the host has no route for is then left out.
	Canaries []netip.Addr

	// Window is how long packets are waited for. Zero means DefaultWindow.
	Window time.Duration

	// Helper is a program with its arguments that calls [ServeHelper] and does
	// nothing else, such as the caller's own with a hidden command. It is run in
	// the control group of a workload in the host's network namespace, since a
	// socket belongs to the group that it is made in, and hands its sockets
	// over. Without it nothing can be said of such a workload while it has
	// processes. A group that is frozen cannot be entered: Arm runs the
	// helper beforehand.
	Helper []string

	mu    sync.Mutex
	seen  map[string]nsID       // namespaces by the name of the workload
	names map[string]bool       // of workloads
	held  map[uint64]*delegates // by control group
}

// DefaultWindow is many times what a packet takes through a machine.
const DefaultWindow = 80 * time.Millisecond

// Name returns "egress.probe".
func (p *Prober) Name() string { return "egress.probe" }

// Objects returns the names of the workloads that have been seen.
func (p *Prober) Objects() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.names))
}
