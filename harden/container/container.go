// Package container judges containers: points 1 to 5 of the framework, the
// container's part of point 6, and the escapes that go with them.
//
// [NewSource] lists the containers of an [Engine] with what the kernel shows of
// each, and [Checks] are the checks over such a source. Each check is a pure
// function of one [Container], so an integrator's own is one too; bind it with
// [harden.Each].
//
// What decides is the kernel: every thread of every process of the container in
// /proc, its mounts, sockets and cgroups. What the engine declares decides only
// where it asks for harm. Where the kernel cannot be seen, because the engine is
// remote or the process may not look, the verdict is unknown.
//
// The package compiles no engine's client; package docker, below it, has the
// one for Docker.
package container

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// An Engine lists containers. Implementations translate from the API of a
// container runtime and may be called concurrently.
//
// An Engine that is refused access returns an error wrapping
// [io/fs.ErrPermission].
type Engine interface {
	// Info describes the engine.
	Info(ctx context.Context) (EngineInfo, error)

	// Containers describes the containers that the names or ids name, in any
	// state, or those that run (paused and restarting ones included) if there
	// are none. A name that no container has is an error wrapping
	// [ErrNoContainer]; a container that vanishes while all are listed is
	// left out.
	Containers(ctx context.Context, names ...string) ([]Settings, error)
}

// EngineInfo describes a container engine.
type EngineInfo struct {
	Name    string // such as "docker"
	Version string // such as "20.10.24+dfsg1"

	// APIVersion is the newest version of its API, such as "1.41". Unlike
	// Version it is the same for all builds of a release.
	APIVersion string

	Host string // where its API is, such as "unix:///run/docker.sock"

	// PID is a process of the engine on this machine, in whose namespaces
	// "host" networking and mounts are. Zero means that it is not known, or
	// that the engine is on another machine.
	PID int

	// Remote says that the engine runs on another machine, so that /proc here
	// shows nothing of its containers.
	Remote bool

	Rootless    bool
	UsernsRemap bool // containers get a user namespace of their own by default

	// SeccompProfile is the profile of a container that asks for none:
	// "default" and "builtin" are the engine's own, "" means none.
	SeccompProfile string

	// CgroupVersion is "1" or "2"; empty if the engine does not say.
	CgroupVersion string

	// DataRoot is where the engine keeps images, containers and volumes. It
	// may be empty.
	DataRoot string

	// ID tells engines apart, however their address is spelt. It may be empty.
	ID string
}

// Settings are what an engine says of one container. They hold no secret: of
// the environment only names, and of the arguments nothing.
type Settings struct {
	ID      string // in full
	Name    string // without a leading slash
	Image   string // as it was asked for, such as "openclaw:local"
	Created time.Time

	State  string // "running", "paused", "restarting", "exited", "created", …
	PID    int    // of its first process, as the engine's machine numbers it; zero if none
	Health string // "healthy", "unhealthy", "starting", or "" without a health check

	HealthCheck *HealthCheck // nil if there is none

	AutoRemove bool // the engine removes it when it stops
	// ManagedBy is what made the container and would make it again, such as
	// "compose project openclaw", "swarm" or "kubernetes". Empty if nothing is
	// known to.
	ManagedBy string

	User     string   // as asked for; empty means that of the image, which is root
	GroupAdd []string // groups added to the user's

	EnvNames []string // names of environment variables, sorted
	// EngineHosts are the values of DOCKER_HOST, CONTAINER_HOST and the like.
	EngineHosts []string

	Privileged     bool
	CapAdd         []string
	CapDrop        []string
	SecurityOpt    []string // a custom seccomp profile is in here as JSON
	MaskedPaths    []string
	ReadonlyPaths  []string
	ReadonlyRootfs bool

	PidMode      string
	IpcMode      string
	NetworkMode  string
	UTSMode      string
	UsernsMode   string
	CgroupnsMode string

	Devices           []string // as "host path:container path:permissions"
	DeviceCgroupRules []string
	DeviceRequests    int // such as GPUs
	Sysctls           map[string]string
	Runtime           string
	CgroupParent      string
	RestartPolicy     string

	Memory     int64 // bytes; zero means no limit
	MemorySwap int64 // bytes of memory and swap together; negative means no limit
	ShmSize    int64 // bytes of /dev/shm; zero means the engine's default
	PidsLimit  int64 // zero or negative means no limit

	Mounts   []Mount
	Ports    []Port
	Networks []Network

	// OwnFiles are the paths on the host of the files that the engine itself
	// mounts into the container: hostname, hosts, resolv.conf.
	OwnFiles []string
}

// Running reports whether the container has processes.
func (s *Settings) Running() bool {
	return s.PID > 0 && (s.State == "running" || s.State == "paused" || s.State == "restarting")
}

// A HealthCheck says how an engine finds out whether a container is well.
type HealthCheck struct {
	Interval, Timeout, StartPeriod time.Duration
	Retries                        int
}

// A Mount is a mount that an engine was asked for.
type Mount struct {
	Type        string // "bind", "volume", "tmpfs", "npipe", "image", "cluster"
	Name        string // of a volume
	Driver      string // of a volume
	Source      string // on the host, as given: symbolic links are not resolved
	Destination string // in the container
	ReadWrite   bool
	Propagation string            // "rprivate", "rshared", …; empty means the default
	Options     map[string]string // of a local volume: type, o, device
	TmpfsSize   int64             // of a tmpfs, in bytes; zero means no limit
	TmpfsOpts   string            // of a tmpfs, as given
}

// A Port is a published port.
type Port struct {
	Container uint16
	Protocol  string // "tcp", "udp" or "sctp"
	HostIP    string // as the engine says; empty, "0.0.0.0" and "::" are every address
	Host      uint16
}

// A Network is a network that a container is attached to.
type Network struct {
	Name    string
	Addrs   []netip.Addr // of the container
	Gateway []netip.Addr
}

// A Container is one container: what its engine declares and what the kernel
// shows. It is shared between checks and must not be changed.
type Container struct {
	Settings
	Engine EngineInfo

	// Host is what the container's machine shows beside it. It is nil if the
	// machine could not be looked at.
	Host *Machine

	// Kernel is what the kernel shows of the container. It is nil if nothing
	// was seen, and KernelErr then says why.
	Kernel    *Kernel
	KernelErr error
}

// Subject names the container in reports, such as "container/openclaw".
func (c *Container) Subject() string {
	if c.Name != "" {
		return "container/" + c.Name
	}
	return "container/" + c.ID[:min(12, len(c.ID))]
}

// A Profile says what a container may have, and what it needs, beyond the
// strictest. The zero Profile allows nothing.
type Profile struct {
	// User is whom the container can run as, such as "1000:1000", where it
	// runs as root now. Empty means that nobody knows: the remedy then asks a
	// person.
	User string

	// Writable are the absolute paths in the container that may be writable
	// mounts: the state that the agent must keep.
	Writable []string

	// Tmpfs are the temporary file systems that it needs besides.
	Tmpfs []Tmpfs

	// Env are variables, as "KEY=value", that it needs to work on a read-only
	// root. They are set where they are not. Not for secrets: plans show them.
	Env []string

	// Memory is the least number of bytes that it needs, and the limit where
	// there is none. Zero means DefaultMemory.
	Memory int64

	// Pids is the limit of processes where there is none. Zero means
	// DefaultPids.
	Pids int64

	// Publish are the addresses besides loopback that ports may be published
	// on, such as the machine's own address in a tailnet.
	Publish []netip.Prefix

	// Sockets are the paths on the host of unix sockets that are meant to be
	// shared with the container. An engine's socket cannot be allowed.
	Sockets []string
}

// Limits for containers that have none; see [Profile].
const (
	DefaultMemory = 2 << 30
	DefaultPids   = 512
	// DefaultTmpfsSize is the size of a tmpfs that names none.
	DefaultTmpfsSize = 64 << 20
)

// A Tmpfs is a temporary file system in a container. It is mounted
// nosuid,nodev,noexec.
type Tmpfs struct {
	Path string
	Size int64 // bytes; zero means DefaultTmpfsSize
}

// writable reports whether path is, or is below, a path that may be writable.
func (p *Profile) writable(path string) bool {
	return slices.ContainsFunc(p.Writable, func(w string) bool { return below(path, w) })
}

// below reports whether path is dir or below it.
func below(path, dir string) bool {
	if dir == "/" {
		return strings.HasPrefix(path, "/")
	}
	dir = strings.TrimSuffix(dir, "/")
	return path == dir || strings.HasPrefix(path, dir+"/")
}
