package halt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/managemyclaw/hardshell/internal/procfs"
)

// A family is what was learnt of a running container when all processes were
// looked at. While its first process is the one that its shim began it with, the
// container is in these cgroups and has no other shim; so the next look need
// examine only those processes that can be its own.
type family struct {
	first int    // its first process
	began uint64 // when that was, by its stat
	shim  int
	// groups are its cgroups, as directories, one of each hierarchy that it has
	// one of its own in; freezers are those among them that freeze.
	groups   []string
	freezers []freezer
}

type freezer struct {
	v2  bool
	dir string
}

// intact reports whether the family is still what it was.
func (f *family) intact() bool {
	var p process
	return p.readStat(procDir(f.first)+"/stat") == nil && !dead(p.state) && p.began == f.began && p.ppid == f.shim
}

// learn remembers the family of a container, of which mine are the processes and
// shims those that mind it; nothing if it does not run, or not as containers do.
func (o *lookout) learn(id string, mine, shims []*process, extinct bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.families == nil {
		o.families, o.extinct = make(map[string]*family), make(map[string]bool)
	}
	delete(o.families, id)
	o.extinct[id] = extinct
	if len(shims) != 1 {
		return
	}
	var first *process
	for _, p := range mine {
		if p.ppid == shims[0].pid && strings.Contains(p.cgroup, id) && (first == nil || p.began < first.began) {
			first = p
		}
	}
	if first == nil {
		return
	}
	f := &family{first: first.pid, began: first.began, shim: shims[0].pid}
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	mounts, err := procfs.ParseMountinfo(data)
	if err != nil {
		return
	}
	for _, e := range first.entries {
		group := ownGroup(id, e.Path)
		if group == "" {
			continue
		}
		dir, err := groupDir(mounts, e, group)
		if err != nil {
			return // what is in it cannot be listed
		}
		f.groups = append(f.groups, dir)
		if v2 := e.Hierarchy == 0; v2 || slices.Contains(e.Controllers, "freezer") {
			f.freezers = append(f.freezers, freezer{v2, dir})
		}
	}
	if _, err := os.Stat(procDir(f.first) + "/task/" + strconv.Itoa(f.first) + "/children"); err != nil {
		return // a kernel without CONFIG_PROC_CHILDREN
	}
	o.families[id] = f
}

// isExtinct reports whether a container had been removed and had no process when
// all were last looked at.
func (o *lookout) isExtinct(id string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.extinct[id]
}

// groupDir returns where a cgroup is of the hierarchy that an entry is about.
func groupDir(mounts []procfs.Mount, e procfs.CgroupEntry, group string) (string, error) {
	for _, m := range mounts {
		v2 := e.Hierarchy == 0
		if v2 && m.FSType != "cgroup2" || !v2 && m.FSType != "cgroup" ||
			slices.ContainsFunc(e.Controllers, func(c string) bool { return !slices.Contains(m.Super, c) }) {
			continue
		}
		if dir, err := (hierarchy{mount: m.Path, root: m.Root}).dir(group); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("halt: cgroup %s of %v is mounted nowhere", path.Clean(group), e.Controllers)
}

// family returns what is known of a container, or nil.
func (o *lookout) family(id string) *family {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.families[id]
}

// kin returns the processes of containers by what was learnt of them: those in
// their cgroups, and what descends from their shims, which are among them; or
// false if one is not any more what it was.
func (o *lookout) kin(ours []who) (map[int]bool, bool) {
	in := make(map[int]bool)
	for _, w := range ours {
		f := o.family(w.id)
		if f == nil || !f.intact() {
			return nil, false
		}
		for _, dir := range f.groups {
			if !listGroup(dir, "cgroup.procs", in) {
				return nil, false
			}
		}
		seen := map[int]bool{f.shim: true}
		for next := []int{f.shim}; len(next) > 0; {
			pid := next[len(next)-1]
			next = next[:len(next)-1]
			in[pid] = true
			for _, child := range children(pid) {
				if !seen[child] {
					seen[child] = true
					next = append(next, child)
				}
			}
		}
	}
	return in, true
}

// listGroup adds the numbers that are listed in a file of a cgroup and of those
// below it, and reports whether it is there.
func listGroup(dir, file string, in map[int]bool) bool {
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return false
	}
	for field := range strings.FieldsSeq(string(data)) {
		if n, err := strconv.Atoi(field); err == nil && n > 1 {
			in[n] = true
		}
	}
	below, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range below {
		if e.IsDir() {
			listGroup(filepath.Join(dir, e.Name()), file, in) // else it has just been removed, with nothing in it
		}
	}
	return true
}

// children returns those of a process; see proc_pid_task(5). While one of them is
// reaped the kernel may leave out another, so that a list counts that was read
// twice.
func children(pid int) []int {
	var all []int
	for _, task := range threads(pid) {
		text, _ := os.ReadFile(task + "/children")
		for range 3 {
			if len(text) == 0 {
				break
			}
			again, _ := os.ReadFile(task + "/children")
			if string(again) == string(text) {
				break
			}
			text = again
		}
		for field := range strings.FieldsSeq(string(text)) {
			if n, err := strconv.Atoi(field); err == nil {
				all = append(all, n)
			}
		}
	}
	return all
}

// glance returns all processes that can be the containers', and may return
// others: kin, what is in their namespaces or shows their files, and what cannot
// be told. Nothing else is examined. ok is false if one of the containers is not
// what it was.
func (o *lookout) glance(ctx context.Context, ours []who, kin map[int]bool, own map[string]bool) (all []*process, ok bool, _ error) {
	var errs []error
	add := func(pid int) {
		if p, err := examine(pid); err != nil {
			errs = append(errs, err)
		} else if p != nil {
			all = append(all, p)
		}
	}
	for pid := range kin {
		add(pid)
	}
	their := spaces{own: own, ours: ours, mounts: make(map[string]bool), pids: make(map[string]bool)}
	for _, p := range all {
		their.mounts[p.mnt] = true
		their.pids[p.pidns] = true
	}
	for _, w := range ours {
		their.pids[o.pin(w.id, nil)] = true
	}
	pids, err := processNumbers()
	if err != nil {
		return nil, true, err
	}
	pids = slices.DeleteFunc(pids, func(pid int) bool { return kin[pid] })
	for _, pid := range their.among(ctx, pids) {
		add(pid)
	}
	if err := ctx.Err(); err != nil {
		return all, true, unread(err)
	}
	for _, w := range ours {
		if !o.family(w.id).intact() {
			return nil, false, nil
		}
	}
	slices.SortFunc(all, func(a, b *process) int { return cmp.Compare(a.pid, b.pid) })
	return all, true, errors.Join(errs...)
}

// spaces are the namespaces that containers are in, beside the machine's own. An
// empty name is that of one that a process has left.
type spaces struct {
	own, mounts, pids map[string]bool
	ours              []who
}

// among returns those of the processes that may be the containers' by their
// namespaces. A machine has many; so they are shared out.
func (s *spaces) among(ctx context.Context, pids []int) []int {
	const share = 200
	var wg sync.WaitGroup
	var mu sync.Mutex
	var found []int
	for some := range slices.Chunk(pids, max(share, len(pids)/runtime.GOMAXPROCS(0)+1)) {
		wg.Go(func() {
			shown := make(map[string]bool) // their files, by mount namespace
			for _, pid := range some {
				if ctx.Err() == nil && s.has(pid, shown) {
					mu.Lock()
					found = append(found, pid)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return found
}

func (s *spaces) has(pid int, shown map[string]bool) bool {
	dir := procDir(pid)
	pidns, err := os.Readlink(dir + "/ns/pid")
	if err != nil || !s.own[pidns] && s.pids[pidns] {
		return true // one that is ending, or whose first thread has ended
	}
	mnt, err := os.Readlink(dir + "/ns/mnt")
	if err != nil {
		return true
	}
	if s.own[mnt] {
		return false
	}
	is, seen := shown[mnt]
	if !seen {
		is = s.mounts[mnt] || slices.ContainsFunc(s.ours, func(w who) bool { return showsFilesOf(&process{dir: dir}, w.id) })
		shown[mnt] = is
	}
	return is
}
