package container

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/internal/procfs"
)

// namespaceKinds are those of proc(5) that separate a container from its
// machine.
var namespaceKinds = []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"}

// Paths that every Docker since 20.10 hides from containers or makes read-only
// (oci/defaults.go). Later ones hide more.
var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/firmware",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// A surveyor looks at a machine once, for all of its containers.
type surveyor struct {
	v       *host.View
	info    EngineInfo
	table   *procTable
	trees   []*procfs.Tree // of the engine and of the machine
	machine *Machine
	sockets socketIndex
}

// A glance is what can be seen of a machine without knowing its engine.
type glance struct {
	table   *procTable
	sockets socketIndex
}

func glanceAt(v *host.View) (*glance, error) {
	if missing := v.Granted.Missing(host.ReadProcesses); missing != 0 {
		return nil, &harden.PrivilegeError{Missing: missing}
	}
	table, err := readProcTable(v)
	if err != nil {
		return nil, err
	}
	return &glance{table, readSockets(v, table)}, nil
}

// lacks reports whether a container runs whose first process was not seen.
func (g *glance) lacks(s Settings) bool {
	first := g.table.procs[s.PID]
	return s.Running() && (first == nil || !first.inCgroupOf(s.ID))
}

// survey looks at the machine of an engine.
func survey(v *host.View, info EngineInfo, seen *glance, err error) (*surveyor, error) {
	if info.Remote {
		return nil, ErrRemote
	}
	if err != nil {
		return nil, err
	}
	s := &surveyor{v: v, info: info, table: seen.table, sockets: seen.sockets, machine: &Machine{Namespaces: make(map[string][]uint64)}}
	for _, dir := range s.homes() {
		tree, err := readTree(v, dir+"/mountinfo")
		if err != nil {
			return nil, err
		}
		s.trees = append(s.trees, tree)
		for _, kind := range namespaceKinds {
			ns, err := namespace(v, dir, kind)
			if err != nil {
				return nil, err
			}
			if !slices.Contains(s.machine.Namespaces[kind], ns) {
				s.machine.Namespaces[kind] = append(s.machine.Namespaces[kind], ns)
			}
		}
	}
	s.machine.Listeners, s.machine.ListenersErr = s.listeners()
	s.machine.DockerGroups = s.dockerGroups()
	// What cannot be read must not look like what is not there.
	if s.machine.LSM, err = lsm(v); err != nil {
		return nil, err
	}
	if s.machine.MemTotal, err = memTotal(v); err != nil {
		return nil, err
	}
	if s.machine.PidMax, err = readInt(v, "/proc/sys/kernel/pid_max"); err != nil {
		return nil, err
	}
	for _, p := range maskedPaths {
		if _, err := v.Lstat(p); !errors.Is(err, fs.ErrNotExist) {
			s.machine.Masked = append(s.machine.Masked, p)
		}
	}
	for _, p := range readonlyPaths {
		if _, err := v.Lstat(p); !errors.Is(err, fs.ErrNotExist) {
			s.machine.ReadOnly = append(s.machine.ReadOnly, p)
		}
	}
	return s, nil
}

// homes are the directories in /proc of the processes in whose namespaces the
// machine is at home: its first one, or this one where the first may not be
// examined, and the engine, which may have networks and mounts of its own.
func (s *surveyor) homes() []string {
	homes := []string{procDir(1)}
	if first := s.table.procs[1]; first == nil || first.pidns == 0 {
		homes[0] = "/proc/self"
	}
	if p := s.table.procs[s.info.PID]; p != nil && p.pidns != 0 {
		homes = append(homes, procDir(s.info.PID))
	}
	return homes
}

func readTree(v *host.View, name string) (*procfs.Tree, error) {
	data, err := v.ReadFile(name)
	if err != nil {
		return nil, err
	}
	mounts, err := procfs.ParseMountinfo(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return procfs.NewTree(mounts), nil
}

// listeners returns the sockets that accept packets in the machine's network
// namespaces.
func (s *surveyor) listeners() ([]Listener, error) {
	var all []Listener
	var errs []error
	seen := make(map[uint64]bool)
	for _, dir := range s.homes() {
		ns, err := namespace(s.v, dir, "net")
		if err != nil {
			errs = append(errs, err)
		}
		if err != nil || seen[ns] {
			continue
		}
		seen[ns] = true
		for _, proto := range []string{"tcp", "tcp6", "udp", "udp6"} {
			name := dir + "/net/" + proto
			data, err := s.v.ReadFile(name)
			if gone(err) && strings.HasSuffix(proto, "6") {
				continue // no IPv6 on this machine
			}
			if err != nil {
				errs = append(errs, err)
				continue
			}
			socks, err := procfs.ParseInet(data)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
				continue
			}
			for _, sock := range socks {
				if sock.State != procfs.TCPListen && !(strings.HasPrefix(proto, "udp") && sock.State == procfs.UDPOpen) {
					continue
				}
				l := Listener{Protocol: proto, Addr: sock.Local}
				if owner := s.table.procs[s.sockets.owners[sock.Inode]]; owner != nil {
					l.PID, l.Name = owner.pid, owner.name
				}
				all = append(all, l)
			}
		}
	}
	return all, errors.Join(errs...)
}

// dockerGroups returns the groups that may use an engine: those named docker
// and podman, and those that own an engine's socket.
func (s *surveyor) dockerGroups() []uint32 {
	var all []uint32
	data, err := s.v.ReadFile("/etc/group")
	if err == nil {
		for line := range strings.Lines(string(data)) {
			f := strings.Split(line, ":")
			if len(f) < 3 || f[0] != "docker" && f[0] != "podman" {
				continue
			}
			if gid, err := strconv.ParseUint(f[2], 10, 32); err == nil {
				all = append(all, uint32(gid))
			}
		}
	}
	for _, sock := range s.sockets.files {
		if !sock.engine || sock.gid == 0 {
			continue
		}
		all = append(all, sock.gid)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// lsm names the security module that confines processes by label, or "".
func lsm(v *host.View) (string, error) {
	data, err := v.ReadFile("/sys/module/apparmor/parameters/enabled")
	switch {
	case err == nil && bytes.HasPrefix(data, []byte("Y")):
		return "apparmor", nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	_, err = v.Stat("/sys/fs/selinux/enforce")
	switch {
	case err == nil:
		return "selinux", nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	return "", nil
}

// memTotal returns the memory of the machine in bytes.
func memTotal(v *host.View) (int64, error) {
	data, err := v.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("/proc/meminfo: no MemTotal")
}

func readInt(v *host.View, name string) (int64, error) {
	data, err := v.ReadFile(name)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
}

// hostPaths returns where on the machine the files of a mount are.
func (s *surveyor) hostPaths(device, root string) []string {
	var all []string
	for _, t := range s.trees {
		all = append(all, t.Paths(device, root)...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// limits reads the limits of a cgroup and of those above it: the smallest
// counts. See cgroups(7), and Documentation/admin-guide/cgroup-v{1,2}.
func (s *surveyor) limits(entries []procfs.CgroupEntry) Cgroup {
	var c Cgroup
	c.Memory, c.MemorySource = s.limit(entries, "memory", "memory.limit_in_bytes", "memory.max")
	c.Pids, c.PidsSource = s.limit(entries, "pids", "pids.max", "pids.max")
	for _, e := range entries {
		if len(e.Path) > len(c.Path) {
			c.Path = e.Path
		}
	}
	return c
}

func (s *surveyor) limit(entries []procfs.CgroupEntry, controller, v1File, v2File string) (int64, string) {
	dir, file := s.cgroupDir(entries, controller), v1File
	if dir == nil {
		dir, file = s.cgroupDir(entries, ""), v2File
	}
	if dir == nil {
		return 0, ""
	}
	best, source := int64(0), ""
	for p := dir.path; ; p = path.Dir(p) {
		name := path.Join(dir.mount, p, file)
		n, ok := s.readLimit(name)
		if ok && (best <= 0 || n > 0 && n < best) {
			best, source = n, name
		}
		if p == "/" || p == "." {
			break
		}
	}
	return best, source
}

// readLimit reads a limit; a negative one is none.
func (s *surveyor) readLimit(name string) (int64, bool) {
	data, err := s.v.ReadFile(name)
	if err != nil {
		return 0, false
	}
	text := strings.TrimSpace(string(data))
	if text == "max" {
		return -1, true
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, false
	}
	if n >= 1<<62 { // cgroup v1 says so of memory that is not limited
		return -1, true
	}
	return int64(n), true
}

type cgroupDir struct{ mount, path string }

// cgroupDir finds the directory of a cgroup in the hierarchy of a controller,
// or in that of cgroup v2 for "".
func (s *surveyor) cgroupDir(entries []procfs.CgroupEntry, controller string) *cgroupDir {
	for _, e := range entries {
		if controller == "" && e.Hierarchy != 0 || controller != "" && !slices.Contains(e.Controllers, controller) {
			continue
		}
		for _, m := range s.trees[0].Mounts {
			v2 := m.FSType == "cgroup2"
			if controller == "" && !v2 || controller != "" && (m.FSType != "cgroup" || !slices.Contains(m.Super, controller)) {
				continue
			}
			if !procfs.Below(e.Path, m.Root) {
				continue
			}
			rest := e.Path
			if m.Root != "/" {
				rest = strings.TrimPrefix(e.Path, m.Root)
			}
			return &cgroupDir{mount: m.Path, path: path.Join("/", rest)}
		}
	}
	return nil
}
