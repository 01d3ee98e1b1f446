package host

import (
	"fmt"
	"strings"
)

// A Privilege is a set of things that the operating system must allow. The
// zero Privilege is the empty set: what any process may do.
type Privilege uint32

// Privileges. On Linux each stands for a capability (capabilities(7)); on
// other systems the super-user has them all.
const (
	// ReadFiles is reading files whatever their permissions
	// (CAP_DAC_READ_SEARCH or CAP_DAC_OVERRIDE).
	ReadFiles Privilege = 1 << iota
	// ReadProcesses is examining other users' processes through /proc/PID
	// (CAP_SYS_PTRACE).
	ReadProcesses
	// WriteFiles is writing files whatever their permissions
	// (CAP_DAC_OVERRIDE).
	WriteFiles
	// AdminNetwork is reading and changing packet filters and interfaces
	// (CAP_NET_ADMIN).
	AdminNetwork
	// AdminSystem is entering namespaces and mounting (CAP_SYS_ADMIN).
	AdminSystem
	// SignalProcesses is ending other users' processes (CAP_KILL).
	SignalProcesses
)

// AllPrivileges is the set of all.
const AllPrivileges = ReadFiles | ReadProcesses | WriteFiles | AdminNetwork | AdminSystem | SignalProcesses

var privilegeNames = []string{"read-files", "read-processes", "write-files", "admin-network", "admin-system", "signal-processes"}

// Missing returns the part of need that p lacks.
func (p Privilege) Missing(need Privilege) Privilege { return need &^ p }

// String returns the names in p, such as "read-files+admin-network", or
// "none".
func (p Privilege) String() string {
	if p == 0 {
		return "none"
	}
	var names []string
	for i, name := range privilegeNames {
		if p&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if rest := p &^ AllPrivileges; rest != 0 {
		names = append(names, fmt.Sprintf("%#x", uint32(rest)))
	}
	return strings.Join(names, "+")
}
