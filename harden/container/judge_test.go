package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

var profile = Profile{Writable: []string{"/state"}}

// good returns a container that every check passes.
func good() Container {
	process := Process{
		PID: 4711, TID: 4711, Name: "agent",
		UIDs: [4]uint32{1000, 1000, 1000, 1000}, GIDs: [4]uint32{1000, 1000, 1000, 1000}, Groups: []uint32{1000},
		NoNewPrivs: true, Seccomp: 2, Label: "docker-default (enforce)",
		Namespaces: map[string]uint64{"pid": 11, "mnt": 12, "net": 13, "ipc": 14, "uts": 15, "user": 1, "cgroup": 17},
	}
	second := process
	second.TID = 4712
	mount := func(device, root, at, fstype string, ro bool, options, super string, host ...string) MountPoint {
		return MountPoint{
			Device: device, Root: root, Path: at, FSType: fstype, ReadOnly: ro,
			Options: strings.Split(options, ","), Super: strings.Split(super, ","), HostPaths: host,
		}
	}
	return Container{
		Settings: Settings{
			ID: strings.Repeat("4f", 32), Name: "openclaw", State: "running", PID: 4711, User: "1000:1000",
			CapDrop: []string{"ALL"}, SecurityOpt: []string{"no-new-privileges:true"},
			MaskedPaths: []string{"/proc/kcore"}, ReadonlyPaths: []string{"/proc/sys"}, ReadonlyRootfs: true,
			CgroupnsMode: "private", Memory: 1 << 30, PidsLimit: 100,
			Mounts:   []Mount{{Type: "volume", Name: "state", Source: "/var/lib/docker/volumes/state/_data", Destination: "/state", ReadWrite: true}},
			Ports:    []Port{{Container: 18789, Protocol: "tcp", HostIP: "127.0.0.1", Host: 18789}},
			OwnFiles: []string{"/var/lib/docker/containers/4f/hosts"},
		},
		Engine: EngineInfo{Name: "docker", Version: "29.0.0", APIVersion: "1.52", SeccompProfile: "builtin", CgroupVersion: "2"},
		Host: &Machine{
			Namespaces: map[string][]uint64{"pid": {1}, "mnt": {2}, "net": {3}, "ipc": {4}, "uts": {5}, "user": {1}, "cgroup": {7}},
			Listeners:  []Listener{{Protocol: "tcp", Addr: netip.MustParseAddrPort("127.0.0.1:18789"), PID: 99, Name: "docker-proxy"}},
			LSM:        "apparmor", MemTotal: 8 << 30, PidMax: 32768, DockerGroups: []uint32{999},
			Masked: []string{"/proc/kcore", "/sys/firmware"}, ReadOnly: []string{"/proc/sys"},
		},
		Kernel: &Kernel{
			Processes: []Process{process, second},
			UID:       1000, GID: 1000,
			Trees: []Tree{{Source: "/proc/4711/mountinfo", Mounts: []MountPoint{
				mount("0:30", "/", "/", "overlay", true, "ro", "rw", "/var/lib/docker/overlay2/x/merged"),
				mount("0:31", "/", "/proc", "proc", false, "rw,nosuid,nodev,noexec", "rw"),
				mount("0:32", "/", "/dev", "tmpfs", false, "rw,nosuid", "rw,size=65536k,mode=755"),
				mount("0:33", "/", "/dev/pts", "devpts", false, "rw,nosuid,noexec", "rw"),
				mount("0:34", "/", "/sys", "sysfs", true, "ro,nosuid,nodev,noexec", "rw"),
				mount("0:35", "/docker/4f", "/sys/fs/cgroup", "cgroup2", true, "ro", "rw", "/sys/fs/cgroup/docker/4f"),
				mount("0:36", "/", "/dev/mqueue", "mqueue", false, "rw", "rw"),
				mount("0:37", "/", "/dev/shm", "tmpfs", false, "rw,nosuid,nodev,noexec", "rw,size=65536k"),
				mount("0:38", "/", "/tmp", "tmpfs", false, "rw,nosuid,nodev,noexec", "rw,size=65536k"),
				mount("8:1", "/var/lib/docker/volumes/state/_data", "/state", "ext4", false, "rw", "rw", "/var/lib/docker/volumes/state/_data"),
				mount("8:1", "/var/lib/docker/containers/4f/hosts", "/etc/hosts", "ext4", false, "rw", "rw", "/var/lib/docker/containers/4f/hosts"),
				mount("0:32", "/null", "/proc/kcore", "tmpfs", false, "rw,nosuid", "rw,size=65536k"),
				mount("0:31", "/sys", "/proc/sys", "proc", true, "ro", "rw"),
				mount("0:39", "/", "/sys/firmware", "tmpfs", true, "ro", "ro"),
			}}},
			Cgroup:  Cgroup{Path: "/docker/4f", Memory: 1 << 30, Pids: 100, MemorySource: "memory.max", PidsSource: "pids.max"},
			Devices: nil,
		},
	}
}

// assess judges containers as an audit would.
func assess(t *testing.T, p Profile, all ...Container) map[string]harden.Result {
	t.Helper()
	src := &harden.Source[Container]{
		Name:    "containers",
		List:    func(_ context.Context, _ *host.View) ([]Container, error) { return all, nil },
		Subject: func(c Container) string { return c.Subject() },
	}
	results := make(map[string]harden.Result)
	checks := Checks(src, p)
	if err := harden.Validate(checks...); err != nil {
		t.Fatal(err)
	}
	for _, c := range checks {
		res := harden.Evaluate(t.Context(), &host.View{}, c, 0)
		if res.Reason == harden.ReasonPanic {
			t.Errorf("%s: %s", res.Info.ID, res.Detail)
		}
		results[res.Info.ID] = res
	}
	return results
}

func TestGood(t *testing.T) {
	for id, res := range assess(t, profile, good()) {
		if res.Status != harden.StatusPass {
			t.Errorf("%s: %v: %s %v", id, res.Status, res.Detail, res.Findings)
		}
		if res.Level < harden.LevelInspected && id != "container.loopback_leak" {
			t.Errorf("%s passes on %v evidence", id, res.Level)
		}
	}
}

// Of a container of which nothing is known nothing passes, and nothing panics.
func TestNothingKnown(t *testing.T) {
	almost := Container{Kernel: &Kernel{}, Host: &Machine{}}
	noHost := good()
	noHost.Host = nil
	noProcess := good()
	noProcess.Kernel.Processes = nil
	noTree := good()
	noTree.Kernel.Trees = nil
	for name, c := range map[string]Container{"zero": {}, "empty": almost, "no host": noHost, "no process": noProcess, "no tree": noTree} {
		for id, res := range assess(t, profile, c) {
			// The version of the engine and what it publishes need no kernel.
			if res.Status == harden.StatusPass && id != "container.loopback_leak" {
				t.Errorf("%s: %s passes: %v", name, id, res.Evidence)
			}
		}
	}
}

// Where the kernel cannot be seen, everything is unknown for the reason that
// the engine's container gives, except what is asked for openly.
func TestUnseen(t *testing.T) {
	for _, why := range []error{ErrRemote, ErrNotRunning, ErrVanished, ErrOtherProcess, &harden.PrivilegeError{Missing: host.ReadProcesses}} {
		c := good()
		c.Kernel, c.KernelErr = nil, why
		for id, res := range assess(t, profile, c) {
			if id == "container.loopback_leak" {
				continue
			}
			if res.Status != harden.StatusUnknown || !strings.Contains(res.Detail, why.Error()) {
				t.Errorf("%v: %s: %v: %s", why, id, res.Status, res.Detail)
			}
			if errors.Is(why, fs.ErrPermission) && res.Reason != harden.ReasonPrivilege {
				t.Errorf("%s: reason %s", id, res.Reason)
			}
		}
	}
}

// mount returns the mount at a path, to be changed.
func (c *Container) mount(at string) *MountPoint { return c.Kernel.Trees[0].at(at) }

func (c *Container) addMount(m MountPoint) {
	c.Kernel.Trees[0].Mounts = append(c.Kernel.Trees[0].Mounts, m)
}

// Every way in which a container differs from the good one is seen by the
// check that it concerns and by no other.
func TestEachViolation(t *testing.T) {
	bind := func(at, hostPath string, ro bool) func(*Container) {
		return func(c *Container) {
			mode := "rw"
			if ro {
				mode = "ro"
			}
			c.addMount(MountPoint{Device: "8:1", Root: hostPath, Path: at, FSType: "ext4", ReadOnly: ro, Options: []string{mode}, Super: []string{"rw"}, HostPaths: []string{hostPath}})
		}
	}
	second := func(change func(*Process)) func(*Container) {
		return func(c *Container) { change(&c.Kernel.Processes[1]) }
	}
	seccompProfile := func(json string) func(*Container) {
		return func(c *Container) { c.SecurityOpt = append(c.SecurityOpt, "seccomp="+json) }
	}
	for _, tt := range []struct {
		name   string
		change func(*Container)
		fail   []string
	}{
		{"effective uid 0 in a thread", second(func(p *Process) { p.UIDs[1] = 0 }), []string{"non_root"}},
		{"saved uid 0 in a thread", second(func(p *Process) { p.UIDs[2] = 0 }), []string{"non_root"}},
		{"file system uid 0 in a thread", second(func(p *Process) { p.UIDs[3] = 0 }), []string{"non_root"}},
		{"gid 0", second(func(p *Process) { p.GIDs[0] = 0 }), []string{"non_root"}},
		{"supplementary gid 0", second(func(p *Process) { p.Groups = []uint32{5, 0} }), []string{"non_root"}},
		{"the engine's group", second(func(p *Process) { p.Groups = []uint32{999} }), []string{"non_root"}},
		{"configured root, running as another", func(c *Container) { c.User = "" }, []string{"non_root"}},
		{"configured 00", func(c *Container) { c.User = "00:1000" }, []string{"non_root"}},
		{"configured +0", func(c *Container) { c.User = "+0" }, []string{"non_root"}},
		{"a configured name that is 0 in its passwd", func(c *Container) { c.User, c.Kernel.UID = "toor", 0 }, []string{"non_root"}},
		{"group 0 added", func(c *Container) { c.GroupAdd = []string{"0"} }, []string{"non_root"}},

		{"writable root", func(c *Container) { c.mount("/").ReadOnly = false }, []string{"read_only_root"}},
		{"writable root in the second mount namespace", func(c *Container) {
			c.Kernel.Trees = append(c.Kernel.Trees, Tree{Source: "/proc/4712/mountinfo", Mounts: slices.Clone(c.Kernel.Trees[0].Mounts)})
			c.Kernel.Trees[1].at("/").ReadOnly = false
		}, []string{"read_only_root"}},
		{"writable root stacked over a read-only one", func(c *Container) {
			c.addMount(MountPoint{Device: "0:99", Root: "/", Path: "/", FSType: "overlay", Options: []string{"rw"}, Super: []string{"rw"}})
		}, []string{"read_only_root"}},
		{"tmpfs without a size", func(c *Container) { c.mount("/tmp").Super = []string{"rw"} }, []string{"tmpfs"}},
		{"tmpfs as large as the machine", func(c *Container) { c.mount("/tmp").Super = []string{"rw", "size=8388608k"} }, []string{"tmpfs"}},
		{"tmpfs with exec", func(c *Container) { c.mount("/tmp").Options = []string{"rw", "nosuid", "nodev"} }, []string{"tmpfs"}},
		{"tmpfs with dev", func(c *Container) { c.mount("/tmp").Options = []string{"rw", "nosuid", "noexec"} }, []string{"tmpfs"}},
		{"tmpfs with suid", func(c *Container) { c.mount("/dev/shm").Options = []string{"rw", "nodev", "noexec"} }, []string{"tmpfs"}},
		{"ramfs as state", func(c *Container) {
			m := c.mount("/state")
			m.FSType, m.Device, m.Options = "ramfs", "0:77", []string{"rw", "nosuid", "nodev"}
		}, []string{"tmpfs"}},
		{"declared, a tmpfs with suid", func(c *Container) {
			m := c.mount("/state")
			m.FSType, m.Device, m.Root, m.HostPaths = "tmpfs", "0:78", "/", nil
			m.Options, m.Super = []string{"rw", "nodev"}, []string{"rw", "size=65536k"}
		}, []string{"tmpfs"}},
		{"an undeclared volume", bind("/data", "/var/lib/docker/volumes/state/_data", false), []string{"writable_paths"}},
		{"beside a declared path", func(c *Container) { c.mount("/state").Path = "/state2" }, []string{"writable_paths"}},
		{"writable sysfs", func(c *Container) { c.mount("/sys").ReadOnly = false }, []string{"writable_paths"}},
		{"writable cgroups", func(c *Container) { c.mount("/sys/fs/cgroup").ReadOnly = false }, []string{"writable_paths"}},
		{"a writable mount below a read-only one", func(c *Container) {
			bind("/in", "/data/in", true)(c)
			bind("/in/sub", "/data/in/sub", false)(c)
		}, []string{"writable_paths"}},
		{"the host's root, read-only", bind("/host", "/", true), []string{"host_paths"}},
		{"below declared state", bind("/state/etc", "/etc", false), []string{"host_paths"}},
		{"a parent of the engine's state", bind("/x", "/var/lib", true), []string{"host_paths"}},
		{"a user's keys", bind("/x", "/home/alice/.ssh", true), []string{"host_paths"}},
		{"what holds root's keys", bind("/x", "/root", true), []string{"host_paths"}},
		{"a volume that is a bind of /etc", func(c *Container) {
			c.mount("/state").HostPaths = []string{"/etc", "/var/lib/docker/volumes/state/_data"}
		}, []string{"host_paths"}},
		{"another container's volume", bind("/x", "/var/lib/docker/volumes/other/_data", true), []string{"host_paths"}},
		{"the host's /proc", func(c *Container) {
			c.addMount(MountPoint{Device: "0:4", Root: "/", Path: "/host/proc", FSType: "proc", ReadOnly: true, Options: []string{"ro"}, HostPaths: []string{"/proc"}})
		}, []string{"host_paths"}},
		{"the host's /proc, writable", func(c *Container) {
			c.addMount(MountPoint{Device: "0:4", Root: "/", Path: "/host/proc", FSType: "proc", Options: []string{"rw"}, HostPaths: []string{"/proc"}})
		}, []string{"host_paths", "writable_paths"}},
		{"the host's cgroups", func(c *Container) {
			c.addMount(MountPoint{Device: "0:35", Root: "/", Path: "/cg", FSType: "cgroup2", ReadOnly: true, Options: []string{"ro"}, HostPaths: []string{"/sys/fs/cgroup"}})
		}, []string{"host_paths"}},
		{"the engine's state where an operator put it", func(c *Container) {
			c.Engine.DataRoot = "/srv/engine"
			bind("/x", "/srv/engine/image", true)(c)
		}, []string{"host_paths"}},
		{"what holds the engine's state", func(c *Container) {
			c.Engine.DataRoot = "/data/engine/docker"
			bind("/x", "/data/engine", true)(c)
		}, []string{"host_paths"}},
		{"shared propagation", func(c *Container) { c.mount("/state").Shared = true }, []string{"mount_propagation"}},
		{"no mask on kcore", func(c *Container) { c.mount("/proc/kcore").Path = "/proc/other" }, []string{"masked_paths"}},
		{"a writable /proc/sys", func(c *Container) { c.mount("/proc/sys").Path = "/proc/other" }, []string{"masked_paths"}},
		{"a mask that is the file itself", func(c *Container) { c.mount("/sys/firmware").FSType = "sysfs" }, []string{"masked_paths"}},

		{"effective capability", second(func(p *Process) { p.CapEff = 1 }), []string{"capabilities"}},
		{"permitted capability", second(func(p *Process) { p.CapPrm = 1 }), []string{"capabilities"}},
		{"inheritable capability", second(func(p *Process) { p.CapInh = 1 }), []string{"capabilities"}},
		{"ambient capability", second(func(p *Process) { p.CapAmb = 1 }), []string{"capabilities"}},
		{"bounding capability", second(func(p *Process) { p.CapBnd = 1 << 40 }), []string{"capabilities"}},
		{"an unknown capability", second(func(p *Process) { p.CapEff = 1 << 60 }), []string{"capabilities"}},
		{"an exec'd privileged process", second(func(p *Process) { p.CapEff, p.CapPrm = 0x1ffffffffff, 0x1ffffffffff }), []string{"capabilities", "privileged"}},
		{"privileged", func(c *Container) { c.Privileged = true }, []string{"privileged", "seccomp"}},
		{"a device node", func(c *Container) { c.Kernel.Devices = []string{"c 1:11 /dev/kmsg"} }, []string{"devices"}},
		{"a device passed", func(c *Container) { c.Settings.Devices = []string{"/dev/kmsg:/dev/kmsg:rwm"} }, []string{"devices"}},
		{"a device rule", func(c *Container) { c.DeviceCgroupRules = []string{"b *:* rwm"} }, []string{"devices"}},
		{"all devices in the cgroup", func(c *Container) { c.Kernel.DeviceRules = []string{"a *:* rwm"} }, []string{"devices"}},
		{"a GPU", func(c *Container) { c.DeviceRequests = 1 }, []string{"devices"}},
		{"seccomp off in a thread", second(func(p *Process) { p.Seccomp = 0 }), []string{"seccomp"}},
		{"seccomp unconfined", func(c *Container) { c.SecurityOpt = []string{"seccomp:unconfined"} }, []string{"seccomp"}},
		{"a profile that allows everything", seccompProfile(`{"defaultAction":"SCMP_ACT_ALLOW"}`), []string{"seccomp"}},
		{"a profile that logs everything", seccompProfile(`{"defaultAction":"SCMP_ACT_LOG"}`), []string{"seccomp"}},
		{"a profile that denies little", seccompProfile(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mount","bpf"],"action":"SCMP_ACT_ERRNO"}]}`), []string{"seccomp"}},
		{"a profile that allows one thing too many", seccompProfile(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read","unshare"],"action":"SCMP_ACT_ALLOW"}]}`), []string{"seccomp"}},
		{"a profile that allows it by its old name field", seccompProfile(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"name":"bpf","action":"SCMP_ACT_ALLOW"}]}`), []string{"seccomp"}},
		{"a profile that denies it for some arguments", seccompProfile(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["` + strings.Join(dangerousCalls, `","`) + `"],"action":"SCMP_ACT_ERRNO","args":[{}]}]}`), []string{"seccomp"}},
		{"no label", second(func(p *Process) { p.Label = "" }), []string{"lsm"}},
		{"unconfined label", second(func(p *Process) { p.Label = "unconfined" }), []string{"lsm"}},
		{"the host's pid namespace", second(func(p *Process) { p.Namespaces["pid"] = 1 }), []string{"namespaces", "engine_socket"}},
		{"another container's pid namespace", func(c *Container) { c.PidMode = "container:x" }, []string{"namespaces"}},
		{"the host's ipc namespace", second(func(p *Process) { p.Namespaces["ipc"] = 4 }), []string{"namespaces"}},
		{"the host's uts namespace", second(func(p *Process) { p.Namespaces["uts"] = 5 }), []string{"namespaces"}},
		{"the host's mount namespace", second(func(p *Process) { p.Namespaces["mnt"] = 2 }), []string{"namespaces"}},
		{"the host's cgroup namespace", second(func(p *Process) { p.Namespaces["cgroup"] = 7 }), []string{"namespaces", "cgroup_namespace"}},

		{"the engine's socket", func(c *Container) {
			c.Kernel.Sockets = []ReachableSocket{{HostPath: "/run/docker.sock", Path: "/x", Owner: "dockerd", Engine: true}}
		}, []string{"engine_socket"}},
		{"a socket of the host's", func(c *Container) {
			c.Kernel.Sockets = []ReachableSocket{{HostPath: "/srv/proxy.sock", Path: "/srv/proxy.sock"}}
		}, []string{"engine_socket"}},
		{"an engine in the environment", func(c *Container) { c.EngineHosts = []string{"tcp://10.0.0.1:2375"} }, []string{"engine_socket"}},
		{"an engine on TCP", func(c *Container) {
			c.Host.Listeners = append(c.Host.Listeners, Listener{Protocol: "tcp6", Addr: netip.MustParseAddrPort("[::]:2375")})
		}, []string{"engine_tcp"}},
		{"an engine on another port", func(c *Container) {
			c.Host.Listeners = append(c.Host.Listeners, Listener{Protocol: "tcp", Addr: netip.MustParseAddrPort("172.17.0.1:9999"), Name: "dockerd"})
		}, []string{"engine_tcp"}},
		{"new privileges", second(func(p *Process) { p.NoNewPrivs = false }), []string{"no_new_privileges"}},

		{"published on every address", func(c *Container) { c.Ports[0].HostIP = "0.0.0.0" }, []string{"published_ports"}},
		{"published on every IPv6 address", func(c *Container) { c.Ports[0].HostIP = "::" }, []string{"published_ports"}},
		{"published on no address", func(c *Container) { c.Ports[0].HostIP = "" }, []string{"published_ports"}},
		{"published on a mapped address", func(c *Container) { c.Ports[0].HostIP = "::ffff:192.0.2.1" }, []string{"published_ports"}},
		{"a proxy that listens for it elsewhere", func(c *Container) { c.Host.Listeners[0].Addr = netip.MustParseAddrPort("[::]:18789") }, []string{"published_ports"}},
		{"the host's network", func(c *Container) {
			for i := range c.Kernel.Processes {
				c.Kernel.Processes[i].Namespaces["net"] = 3
			}
		}, []string{"host_network"}},

		{"the host's network, and an engine on its loopback", func(c *Container) {
			for i := range c.Kernel.Processes {
				c.Kernel.Processes[i].Namespaces["net"] = 3
			}
			c.Host.Listeners = append(c.Host.Listeners, Listener{Protocol: "tcp", Addr: netip.MustParseAddrPort("127.0.0.1:2375")})
		}, []string{"host_network", "engine_tcp"}},

		{"no memory limit", func(c *Container) { c.Kernel.Cgroup.Memory = -1 }, []string{"memory_limit"}},
		{"a memory limit beyond the machine", func(c *Container) { c.Kernel.Cgroup.Memory = 64 << 30 }, []string{"memory_limit"}},
		{"no pids limit", func(c *Container) { c.Kernel.Cgroup.Pids = -1 }, []string{"pids_limit"}},
		{"a pids limit beyond the machine", func(c *Container) { c.Kernel.Cgroup.Pids = 4194304 }, []string{"pids_limit"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := good()
			for i := range c.Kernel.Processes { // not shared between the two
				ns := make(map[string]uint64)
				maps.Copy(ns, c.Kernel.Processes[i].Namespaces)
				c.Kernel.Processes[i].Namespaces = ns
			}
			tt.change(&c)
			for id, res := range assess(t, profile, good(), c) { // one good container hides nothing
				want := harden.StatusPass
				if slices.Contains(tt.fail, strings.TrimPrefix(id, "container.")) {
					want = harden.StatusFail
				}
				if res.Status != want {
					t.Errorf("%s is %v, want %v: %s %v", id, res.Status, want, res.Detail, res.Findings)
				}
			}
		})
	}
}

// What cannot be decided is unknown.
func TestUndecided(t *testing.T) {
	for _, tt := range []struct {
		name, id string
		change   func(*Container)
	}{
		{"an operator's default profile", "seccomp", func(c *Container) { c.Engine.SeccompProfile = "/etc/docker/seccomp.json" }},
		{"a profile that is not JSON", "seccomp", func(c *Container) { c.SecurityOpt = []string{"seccomp=/etc/x.json"} }},
		{"a profile without a default", "seccomp", func(c *Container) { c.SecurityOpt = []string{"seccomp={}"} }},
		{"files that are nowhere on the host", "host_paths", func(c *Container) { c.mount("/state").HostPaths = nil }},
		{"part of somebody's tmpfs", "host_paths", func(c *Container) {
			c.addMount(MountPoint{Device: "0:80", Root: "/part", Path: "/t", FSType: "tmpfs", ReadOnly: true, Options: []string{"ro"}, Super: []string{"rw", "size=1024k"}})
		}},
		{"no mount at the root", "read_only_root", func(c *Container) { c.Kernel.Trees[0].Mounts = c.Kernel.Trees[0].Mounts[1:] }},
		{"a socket table that cannot be read", "engine_socket", func(c *Container) { c.Kernel.SocketsErr = errors.New("x") }},
		{"listeners that cannot be read", "published_ports", func(c *Container) { c.Host.ListenersErr = errors.New("x") }},
		{"listeners that cannot be read", "engine_tcp", func(c *Container) { c.Host.ListenersErr = errors.New("x") }},
		{"an engine that leaks", "loopback_leak", func(c *Container) { c.Engine.APIVersion = "1.41" }},
		{"an engine of no version", "loopback_leak", func(c *Container) { c.Engine.APIVersion = "" }},
		{"no memory controller", "memory_limit", func(c *Container) { c.Kernel.Cgroup.Memory = 0 }},
		{"no pids controller", "pids_limit", func(c *Container) { c.Kernel.Cgroup.Pids = 0 }},
	} {
		c := good()
		tt.change(&c)
		if res := assess(t, profile, c)["container."+tt.id]; res.Status != harden.StatusUnknown {
			t.Errorf("%s: %s is %v", tt.name, tt.id, res.Status)
		}
	}
}

// A profile allows what it names, and no more.
func TestProfileAllows(t *testing.T) {
	c := good()
	c.Ports[0].HostIP = "100.64.1.2"
	c.Kernel.Sockets = []ReachableSocket{
		{HostPath: "/run/postgresql/.s.PGSQL.5432", Path: "/db"},
		{HostPath: "/run/docker.sock", Path: "/docker", Engine: true},
	}
	p := Profile{
		Writable: []string{"/state"},
		Publish:  []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")},
		Sockets:  []string{"/run/postgresql/.s.PGSQL.5432", "/run/docker.sock"},
	}
	results := assess(t, p, c)
	if res := results["container.published_ports"]; res.Status != harden.StatusPass {
		t.Errorf("published_ports: %v", res.Findings)
	}
	mapped := good()
	mapped.Ports[0].HostIP = "::ffff:100.64.1.2"
	if res := assess(t, p, mapped)["container.published_ports"]; res.Status != harden.StatusPass {
		t.Errorf("an address is another if it is mapped: %v", res.Findings)
	}
	if res := results["container.engine_socket"]; len(res.Findings) != 1 || !strings.Contains(res.Findings[0].Message, "/docker") {
		t.Errorf("the engine's socket cannot be declared away: %v", res.Findings)
	}
}

func TestSensitive(t *testing.T) {
	for _, name := range []string{
		"/", "/var/spool", "/etc", "/etc/", "//etc", "/etc/../etc/shadow", "/etc/cron.d", "/home", "/home/alice", "/home/alice/.ssh/id_rsa", "/home/alice/.config",
		"/root", "/root/.ssh", "/var", "/var/lib", "/var/lib/docker/x", "/run", "/run/docker.sock", "/var/run/x", "/proc", "/proc/sys/kernel/core_pattern",
		"/sys/fs/cgroup", "/dev/sda", "/boot", "/lib/modules", "/usr", "/usr/bin", "/usr/lib/systemd/system", "/var/log/syslog", "/tmp", "/lib", "",
	} {
		if sensitive(name, true) == "" {
			t.Errorf("%q is not sensitive", name)
		}
	}
	for _, name := range []string{"/home/alice/.openclaw", "/root/.openclaw", "/srv/agent", "/opt/agent/state", "/data", "/mnt/x", "/etcetera", "/var/lib/agent", "/home/alice/.sshx", "/tmp/x"} {
		if why := sensitive(name, false); why != "" {
			t.Errorf("%q is sensitive: %s", name, why)
		}
	}
	if sensitive("/etc/localtime", true) != "" || sensitive("/etc/localtime", false) == "" || sensitive("/etc/ssl/private", true) == "" {
		t.Error("what is harmless is harmless only if it is read-only")
	}
}

// What a container names itself, or holds, may not reach the report as a
// secret: facts hold none.
func TestNoSecret(t *testing.T) {
	c := good()
	c.EngineHosts = []string{"tcp://user:hunter2@10.0.0.1:2375/?token=hunter2"}
	for id, res := range assess(t, profile, c) {
		if s := fmt.Sprintf("%+v", res); strings.Contains(s, "hunter2") {
			t.Errorf("%s: %s", id, s)
		}
	}
}

func TestCapabilities(t *testing.T) {
	for set, want := range map[uint64]string{
		0: "none", 1 << 21: "SYS_ADMIN", 1<<40 | 1: "CHOWN CHECKPOINT_RESTORE", 1 << 63: "CAP_63",
		0xa80425fb: "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP and 6 more",
	} {
		if got := capabilities(set); got != want {
			t.Errorf("%#x: got %q, want %q", set, got, want)
		}
	}
}
