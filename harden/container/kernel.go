package container

import "net/netip"

// Kernel is what the kernel shows of a container.
type Kernel struct {
	// Processes are the threads of every process of the container: those in
	// its cgroup or its process namespace, however they got there.
	Processes []Process

	// UID and GID are those of Settings.User in the container's passwd and
	// group files. They are negative if the files do not say.
	UID, GID int64

	// Trees are the mount trees of the container's mount namespaces, the
	// first process's first.
	Trees []Tree

	// Cgroup holds the limits of the container's cgroup.
	Cgroup Cgroup

	// Devices are the device nodes in its /dev beyond what every container
	// has, as "c 1:11 /dev/kmsg".
	Devices []string

	// DeviceRules are the rules of the device controller, such as
	// "c 1:3 rwm". It is nil where the kernel does not show them (cgroup v2).
	DeviceRules []string

	// Sockets are the unix sockets of processes outside the container that
	// its mount trees reach.
	Sockets []ReachableSocket

	// SocketsErr says why Sockets may not be all.
	SocketsErr error
}

// A Process is one thread of a process; credentials are a thread's own.
// See proc(5).
type Process struct {
	PID, TID int // as this machine numbers them
	Name     string

	UIDs, GIDs [4]uint32 // real, effective, saved, file system; as this machine numbers them
	Groups     []uint32

	CapInh, CapPrm, CapEff, CapBnd, CapAmb uint64

	NoNewPrivs bool
	Seccomp    int    // 0 none, 1 strict, 2 filter
	Label      string // of AppArmor or SELinux; empty if there is neither

	Namespaces map[string]uint64 // inode numbers by kind: "pid", "mnt", "net", …
}

// A Tree is the mount tree of one mount namespace. See proc(5) on mountinfo.
type Tree struct {
	Source string // where it was read, such as "/proc/4711/mountinfo"
	Mounts []MountPoint
}

// A MountPoint is one line of mountinfo.
type MountPoint struct {
	Device    string // "major:minor" of the file system
	Root      string // what of it is mounted here
	Path      string // where, in the container
	ReadOnly  bool
	Options   []string // of the mount
	Super     []string // of the file system
	Shared    bool     // propagates back to the host
	Slave     bool     // receives from the host
	FSType    string
	HostPaths []string // where the same files are on the host; nil if nowhere
}

// Cgroup holds limits. A negative number means that there is none, zero that
// the kernel did not say.
type Cgroup struct {
	Path   string // such as "/docker/4f0c…"
	Memory int64  // bytes
	Pids   int64
	// Sources are the files that say so.
	MemorySource, PidsSource string
}

// A ReachableSocket is a unix socket in a container's mount tree.
type ReachableSocket struct {
	HostPath string // where its owner has it
	Path     string // where the container has it
	Owner    string // program that listens, such as "dockerd"; empty if not known
	PID      int    // of the owner; zero if not known
	Engine   bool   // it is known to be the socket of an engine or of a credential agent
}

// Machine is what the machine of a container shows beside it.
type Machine struct {
	// Namespaces are those of the machine's first process and of the engine,
	// by kind.
	Namespaces map[string][]uint64

	// Listeners are the TCP and UDP sockets that accept packets in the
	// network namespaces of the engine and of the machine.
	Listeners    []Listener
	ListenersErr error

	DockerGroups []uint32 // ids of groups that may use an engine's socket
	LSM          string   // "apparmor", "selinux" or ""
	MemTotal     int64    // bytes; zero if not known
	PidMax       int64

	// Masked are the paths that exist on the machine of those that engines
	// hide from containers, ReadOnly those that they make read-only.
	Masked, ReadOnly []string
}

// A Listener is a socket that accepts packets from outside.
type Listener struct {
	Protocol string // "tcp", "tcp6", "udp", "udp6"
	Addr     netip.AddrPort
	PID      int // zero if not known
	Name     string
}
