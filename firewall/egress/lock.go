package egress

import (
	"sync"
)

// A Lock cuts workloads off. It is an actuator of package killswitch, one that
// can be armed and released. Its fields are set before it is first used; its
// methods may be called concurrently. It needs CAP_NET_ADMIN and CAP_SYS_ADMIN;
// without them errors wrap [io/fs.ErrPermission]. On other systems than Linux
// they wrap [errors.ErrUnsupported].
//
// What it does is in the kernel and lasts until Release, the end of the
// namespaces, or the next start of the machine; after one, Do again. It does not
// matter which process does it: Release undoes what the Do of another one did
// whose Label is the same.
type Lock struct {
	// Source lists the workloads. It is asked by Arm, and by Do after what
	// was prepared has been cut.
	Source Source

	// Quick lists them from files and the kernel alone, and asks nobody who
	// takes long to answer, as an engine does that is being stopped. Do asks
	// it in place of the Source, which it asks where there is no Quick, or
	// that fails. What the Source has said last of the bridges of a workload
	// of the same name, and of what is Beyond, still holds; what Quick leaves
	// out is cut off as it was prepared, and nothing more is said of it.
	Quick Source

	// NetNS is a path to the network namespace that is the host's, such as
	// /run/netns/NAME. Empty means that of the caller. With a rootless engine
	// it is that of the process that holds its bridges.
	NetNS string

	// Label tells this Lock from others on the machine, each of which holds
	// what it has cut, whatever the others release: give each agent one of its
	// own, such as "inbox". Those with the same Label are one lock, in whichever
	// process they are. It has up to 8 characters, a to z and 0 to 9, and may be
	// empty.
	Label string

	// IPTables has iptables and ip6tables keep the lock, which nftables does
	// otherwise. They are tried in any case where nftables is missing or
	// refuses. They take milliseconds longer, and let the packet sockets of a
	// workload with CAP_NET_RAW reach its neighbours.
	IPTables bool

	mu       sync.Mutex
	prepared *plan // what Do cuts first; nil before Arm
}

// Name returns "egress.lock".
func (l *Lock) Name() string { return "egress.lock" }
