package container

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/internal/procfs"
)

// A proc is what the process table says of one process.
type proc struct {
	pid, ppid int
	name      string
	cgroups   []procfs.CgroupEntry
	pidns     uint64 // zero if the process may not be examined; it is then in no container
	netns     uint64
}

// procTable is the processes of a machine.
type procTable struct {
	procs    map[int]*proc
	children map[int][]int
}

// readProcTable reads every process that there is. A process that ends
// meanwhile is left out; one that may not be examined is an error, for then
// nobody knows what it is part of.
func readProcTable(v *host.View) (*procTable, error) {
	entries, err := v.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	t := &procTable{procs: make(map[int]*proc), children: make(map[int][]int)}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		p, err := readProc(v, pid)
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		t.procs[pid] = p
		t.children[p.ppid] = append(t.children[p.ppid], pid)
	}
	return t, nil
}

func readProc(v *host.View, pid int) (*proc, error) {
	dir := procDir(pid)
	stat, err := v.ReadFile(dir + "/stat")
	if err != nil {
		return nil, err
	}
	p := &proc{pid: pid}
	if p.name, p.ppid, err = parseStat(string(stat)); err != nil {
		return nil, err
	}
	data, err := v.ReadFile(dir + "/cgroup")
	if err != nil {
		return nil, err
	}
	if p.cgroups, err = procfs.ParseCgroup(data); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	p.pidns, err = namespace(v, dir, "pid")
	if err == nil {
		p.netns, err = namespace(v, dir, "net")
	}
	if errors.Is(err, fs.ErrPermission) && outermost(v, dir) {
		p.pidns, p.netns = 0, 0
		return p, nil
	}
	return p, err
}

// outermost reports whether a process is in the process namespace of /proc
// itself, and so in no container's. Anyone may read that; some machines let
// nobody, root included, look further into their first process.
func outermost(v *host.View, dir string) bool {
	data, err := v.ReadFile(dir + "/status")
	if err != nil {
		return false
	}
	st, err := procfs.ParseStatus(data)
	return err == nil && len(st.NSpid) == 1
}

// parseStat returns the name and the parent of /proc/PID/stat. The name is in
// parentheses and may itself hold some.
func parseStat(s string) (name string, ppid int, err error) {
	open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 0 || end < open {
		return "", 0, fmt.Errorf("stat: malformed: %q", s)
	}
	f := strings.Fields(s[end+1:])
	if len(f) < 2 {
		return "", 0, fmt.Errorf("stat: malformed: %q", s)
	}
	ppid, err = strconv.Atoi(f[1])
	return s[open+1 : end], ppid, err
}

// namespace returns the inode number of one of a process's namespaces.
func namespace(v *host.View, dir, kind string) (uint64, error) {
	link, err := v.ReadLink(dir + "/ns/" + kind)
	if err != nil {
		return 0, err
	}
	// kind:[4026531836]
	_, rest, ok := strings.Cut(link, ":[")
	if !ok {
		return 0, fmt.Errorf("%s/ns/%s: malformed link %q: %w", dir, kind, link, fs.ErrInvalid)
	}
	return strconv.ParseUint(strings.TrimSuffix(rest, "]"), 10, 64)
}

func procDir(pid int) string { return "/proc/" + strconv.Itoa(pid) }

// inCgroupOf reports whether a process is in the cgroup of a container: the
// engines name it, or its scope, after the container's id.
func (p *proc) inCgroupOf(id string) bool {
	return slices.ContainsFunc(p.cgroups, func(e procfs.CgroupEntry) bool { return strings.Contains(e.Path, id) })
}

var containerID = regexp.MustCompile(`[0-9a-f]{64}`)

// inCgroupOfOther reports whether a process is in the cgroup of a container
// other than that with the given id: two may share a process namespace.
func (p *proc) inCgroupOfOther(id string) bool {
	return slices.ContainsFunc(p.cgroups, func(e procfs.CgroupEntry) bool {
		return slices.ContainsFunc(containerID.FindAllString(e.Path, -1), func(found string) bool { return found != id })
	})
}

// members returns the processes of the container whose first process is init:
// those in its cgroup, those in its process namespace unless that is the
// machine's or they are another container's, and what descends from any of
// them; but none that is only on its way in. It is sorted.
func (t *procTable) members(id string, init int, hostPIDs []uint64) []int {
	first := t.procs[init]
	if first == nil {
		return nil
	}
	own := !slices.Contains(hostPIDs, first.pidns)
	in := make(map[int]bool)
	var add func(pid int)
	add = func(pid int) {
		if in[pid] {
			return
		}
		in[pid] = true
		for _, c := range t.children[pid] {
			add(c)
		}
	}
	for pid, p := range t.procs {
		if pid == init || p.inCgroupOf(id) || own && p.pidns == first.pidns && !p.inCgroupOfOther(id) {
			add(pid)
		}
	}
	all := make([]int, 0, len(in))
	for pid := range in {
		if pid == init || !t.entering(pid, in, hostPIDs) {
			all = append(all, pid)
		}
	}
	slices.Sort(all)
	return all
}

// entering reports whether a process is runc's own, on its way into the container
// to become what it is started for, such as a health check: until then it is root
// and has all capabilities, and runs nothing of the container's. Anybody may give
// himself its name; but nobody in a container is the child of a runc outside.
func (t *procTable) entering(pid int, in map[int]bool, hostPIDs []uint64) bool {
	p := t.procs[pid]
	parent := t.procs[p.ppid]
	return strings.HasPrefix(p.name, "runc:[") && parent != nil && parent.name == "runc" &&
		!in[p.ppid] && slices.Contains(hostPIDs, parent.pidns)
}
