package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/harden/internal/async"
	"github.com/managemyclaw/hardshell/internal/procfs"
)

// NewSource returns the containers that e has under the given names, or those
// that run if there are none, with what the kernel of the view's machine shows
// of each. The machine is surveyed once for all of them.
func NewSource(e Engine, names ...string) *harden.Source[Container] {
	names = slices.Clone(names)
	return &harden.Source[Container]{
		Name:    "containers",
		List:    func(ctx context.Context, v *host.View) ([]Container, error) { return collect(ctx, v, e, names) },
		Subject: func(c Container) string { return c.Subject() },
	}
}

func collect(ctx context.Context, v *host.View, e Engine, names []string) ([]Container, error) {
	// The engine answers while the machine is looked at.
	infos := async.Go(func() (EngineInfo, error) { return e.Info(ctx) })
	lists := async.Go(func() ([]Settings, error) { return e.Containers(ctx, names...) })
	seen, seenErr := glanceAt(v)
	info, infoErr := infos()
	settings, err := lists()
	if err := cmp.Or(infoErr, err); err != nil {
		return nil, err
	}
	if seenErr == nil && !info.Remote && slices.ContainsFunc(settings, seen.lacks) {
		seen, seenErr = glanceAt(v) // it was started since
	}
	slices.SortStableFunc(settings, func(a, b Settings) int { return cmp.Compare(a.Name, b.Name) })
	all := make([]Container, len(settings))
	s, surveyErr := survey(v, info, seen, seenErr)
	for i, set := range settings {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c := Container{Settings: set, Engine: info}
		switch {
		case surveyErr != nil:
			c.KernelErr = surveyErr
		case !set.Running():
			c.Host, c.KernelErr = s.machine, ErrNotRunning
		default:
			c.Host = s.machine
			c.Kernel, c.KernelErr = s.kernel(&set)
		}
		all[i] = c
	}
	return all, nil
}

// A containerTree is a mount tree of a container, and how to get there.
type containerTree struct {
	root   string // such as "/proc/4711/root"
	index  *procfs.Tree
	mounts []MountPoint
}

// kernel looks at one container.
func (s *surveyor) kernel(set *Settings) (*Kernel, error) {
	first := s.table.procs[set.PID]
	if first == nil {
		// It started after the table was read, or it is not on this machine.
		return nil, fmt.Errorf("process %d: %w", set.PID, s.missing(set))
	}
	if !first.inCgroupOf(set.ID) {
		return nil, fmt.Errorf("process %d (%s): %w", set.PID, first.name, ErrOtherProcess)
	}
	members := s.table.members(set.ID, set.PID, s.machine.Namespaces["pid"])
	k := &Kernel{Cgroup: s.limits(first.cgroups)}
	// The first process's tree comes first.
	members = append([]int{set.PID}, slices.DeleteFunc(members, func(pid int) bool { return pid == set.PID })...)
	reps := make(map[uint64]string)
	var order []string
	for _, pid := range members {
		threads, err := s.threads(pid)
		if gone(err) && pid != set.PID {
			continue
		}
		if gone(err) {
			return nil, ErrVanished
		}
		if err != nil {
			return nil, err
		}
		for _, th := range threads {
			if ns := th.Namespaces["mnt"]; reps[ns] == "" {
				reps[ns] = fmt.Sprintf("%s/task/%d", procDir(pid), th.TID)
				order = append(order, reps[ns])
			}
		}
		k.Processes = append(k.Processes, threads...)
	}
	var trees []containerTree
	for i, dir := range order {
		t, err := s.tree(dir)
		if gone(err) && i > 0 {
			continue
		}
		if gone(err) {
			return nil, ErrVanished
		}
		if err != nil {
			return nil, err
		}
		trees = append(trees, t)
		k.Trees = append(k.Trees, Tree{Source: dir + "/mountinfo", Mounts: t.mounts})
	}
	k.UID, k.GID = s.configuredUser(procDir(set.PID)+"/root", set.User)
	var err error
	if k.Devices, err = s.devices(trees); err != nil {
		return nil, err
	}
	if k.DeviceRules, err = s.deviceRules(first.cgroups); gone(err) {
		return nil, ErrVanished
	} else if err != nil {
		return nil, err
	}
	hostNet := slices.Contains(s.machine.Namespaces["net"], first.netns)
	k.Sockets, k.SocketsErr = s.reachable(members, trees, hostNet)
	return k, nil
}

// missing says why the first process of a container is not in the table.
func (s *surveyor) missing(set *Settings) error {
	p, err := readProc(s.v, set.PID)
	if err == nil && p.inCgroupOf(set.ID) || gone(err) {
		return ErrVanished
	}
	if err != nil {
		return err
	}
	return ErrOtherProcess
}

// threads reads the threads of a process. Credentials, and the mounts, are a
// thread's own, so that a thread may have what its process seems not to.
func (s *surveyor) threads(pid int) ([]Process, error) {
	dir := procDir(pid)
	lead, err := s.thread(dir, pid, pid)
	if err != nil {
		return nil, err
	}
	if lead == nil { // a zombie has nothing left
		return nil, nil
	}
	all := []Process{*lead}
	entries, err := s.v.ReadDir(dir + "/task")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		tid, err := strconv.Atoi(e.Name())
		if err != nil || tid == pid {
			continue
		}
		th, err := s.thread(dir+"/task/"+e.Name(), pid, tid)
		if gone(err) || err == nil && th == nil {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, *th)
	}
	return all, nil
}

func (s *surveyor) thread(dir string, pid, tid int) (*Process, error) {
	data, err := s.v.ReadFile(dir + "/status")
	if err != nil {
		return nil, err
	}
	st, err := procfs.ParseStatus(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	if st.State == "Z" || st.State == "X" {
		return nil, nil
	}
	p := &Process{
		PID: pid, TID: tid, Name: st.Name,
		UIDs: st.UIDs, GIDs: st.GIDs, Groups: st.Groups,
		CapInh: st.CapInh, CapPrm: st.CapPrm, CapEff: st.CapEff, CapBnd: st.CapBnd, CapAmb: st.CapAmb,
		NoNewPrivs: st.NoNewPrivs, Seccomp: st.Seccomp,
		Namespaces: make(map[string]uint64, len(namespaceKinds)),
	}
	for _, kind := range namespaceKinds {
		ns, err := namespace(s.v, dir, kind)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && kind == "cgroup" {
				continue // a kernel before 4.6
			}
			return nil, err
		}
		p.Namespaces[kind] = ns
	}
	if s.machine.LSM != "" {
		label, err := s.v.ReadFile(dir + "/attr/current")
		if err != nil {
			return nil, err
		}
		p.Label = strings.TrimRight(string(label), "\x00\n")
	}
	return p, nil
}

// tree reads the mount tree of a thread.
func (s *surveyor) tree(dir string) (containerTree, error) {
	index, err := readTree(s.v, dir+"/mountinfo")
	if err != nil {
		return containerTree{}, err
	}
	t := containerTree{root: dir + "/root", index: index}
	for _, m := range index.Mounts {
		p := MountPoint{
			Device: m.Device, Root: m.Root, Path: m.Path,
			ReadOnly: slices.Contains(m.Options, "ro") || slices.Contains(m.Super, "ro"),
			Options:  m.Options, Super: m.Super, FSType: m.FSType,
			HostPaths: s.hostPaths(m.Device, m.Root),
		}
		for _, tag := range m.Tags {
			p.Shared = p.Shared || strings.HasPrefix(tag, "shared:")
			p.Slave = p.Slave || strings.HasPrefix(tag, "master:")
		}
		t.mounts = append(t.mounts, p)
	}
	return t, nil
}

// standardDevices are the nodes that a container engine makes in every /dev;
// see "Default Devices" of the OCI runtime specification.
var standardDevices = []string{"c 1:3", "c 1:5", "c 1:7", "c 1:8", "c 1:9", "c 5:0", "c 5:1", "c 5:2"}

const ptySlaves = "c 136:" // of /dev/console and /dev/pts

// devices lists the other nodes in /dev.
func (s *surveyor) devices(trees []containerTree) ([]string, error) {
	var all []string
	for _, t := range trees {
		left := 10_000
		var walk func(dir string, depth int) error
		walk = func(dir string, depth int) error {
			entries, err := s.v.ReadDir(t.root + dir)
			if err != nil {
				if gone(err) {
					return nil
				}
				return err
			}
			for _, e := range entries {
				if left--; left < 0 {
					return fmt.Errorf("%s holds too many files", t.root+dir)
				}
				name := dir + "/" + e.Name()
				switch {
				case e.IsDir():
					if name == "/dev/pts" || name == "/dev/shm" || name == "/dev/mqueue" || depth == 0 {
						continue
					}
					if err := walk(name, depth-1); err != nil {
						return err
					}
				case e.Type()&fs.ModeDevice != 0:
					info, err := e.Info()
					if gone(err) {
						continue
					}
					if err != nil {
						return err
					}
					major, minor, ok := device(info)
					if !ok {
						return fmt.Errorf("%s: the numbers of the device cannot be read", t.root+name)
					}
					kind := "b"
					if e.Type()&fs.ModeCharDevice != 0 {
						kind = "c"
					}
					id := fmt.Sprintf("%s %d:%d", kind, major, minor)
					if slices.Contains(standardDevices, id) || strings.HasPrefix(id, ptySlaves) {
						continue
					}
					if entry := id + " " + name; !slices.Contains(all, entry) {
						all = append(all, entry)
					}
				}
			}
			return nil
		}
		if err := walk("/dev", 4); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// deviceRules reads the rules of the device controller, which only cgroup v1
// shows.
func (s *surveyor) deviceRules(entries []procfs.CgroupEntry) ([]string, error) {
	dir := s.cgroupDir(entries, "devices")
	if dir == nil {
		return nil, nil
	}
	data, err := s.v.ReadFile(dir.mount + dir.path + "/devices.list")
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n"), nil
}

// configuredUser resolves the user of a container as its engine does; see
// "USER" in the Dockerfile reference. What it cannot resolve is -1.
func (s *surveyor) configuredUser(root, user string) (uid, gid int64) {
	name, groupName, hasGroup := strings.Cut(user, ":")
	if name == "" {
		name = "0"
	}
	uid, gid = -1, -1
	n, err := strconv.ParseInt(name, 10, 64)
	numeric := err == nil
	if numeric {
		uid, gid = n, 0 // a user without an entry gets group 0
	}
	for _, f := range s.colonFile(root, "/etc/passwd", 4) {
		if id, err := strconv.ParseInt(f[2], 10, 64); err == nil && (f[0] == name || numeric && id == n) {
			uid = id
			if gid, err = strconv.ParseInt(f[3], 10, 64); err != nil {
				gid = -1
			}
			break
		}
	}
	if !hasGroup {
		return uid, gid
	}
	gid = -1
	if n, err := strconv.ParseInt(groupName, 10, 64); err == nil {
		return uid, n
	}
	for _, f := range s.colonFile(root, "/etc/group", 3) {
		if id, err := strconv.ParseInt(f[2], 10, 64); err == nil && f[0] == groupName {
			gid = id
			break
		}
	}
	return uid, gid
}

// colonFile reads a file of colon-separated fields, such as passwd(5), in a
// container, leaving out lines with fewer than so many.
func (s *surveyor) colonFile(root, name string, fields int) [][]string {
	found, info, err := resolve(s.v, root, name)
	if err != nil || !info.Mode().IsRegular() || info.Size() > 1<<20 {
		return nil
	}
	data, err := s.v.ReadFile(root + found)
	if err != nil {
		return nil
	}
	var all [][]string
	for line := range strings.Lines(string(data)) {
		if f := strings.Split(strings.TrimSuffix(line, "\n"), ":"); len(f) >= fields {
			all = append(all, f)
		}
	}
	return all
}
