package halt

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/managemyclaw/hardshell/internal/procfs"
)

// firstPIDNamespace is the machine's own, whose number the kernel fixes; see
// PROC_PID_INIT_INO in include/linux/proc_ns.h.
const firstPIDNamespace = "pid:[4026531836]"

// PF_EXITING and PF_KTHREAD of include/linux/sched.h.
const (
	exiting      = 0x00000004
	kernelThread = 0x00200000
)

// A lookout finds the processes of the agent's containers as an observer does:
// in /proc, by what the kernel says of each, and in what the engine has written
// down. It shares nothing with a Tracker. The zero lookout has seen nothing; it
// may be used concurrently.
type lookout struct {
	roll roll

	mu     sync.Mutex
	pinned map[string]*os.File // process namespaces of containers, by id; so that no other gets their number

	families map[string]*family // by id
	extinct  map[string]bool    // what had been removed, and had no process
	read     map[string]read    // by id
	mounted  []hierarchy        // that freeze
}

// A process is one that has not ended.
type process struct {
	pid, ppid int
	began     uint64 // in ticks since the machine's start
	name      string
	state     string // of a thread of it that has not ended
	kernel    bool
	exiting   bool
	dir       string // in /proc, of that thread
	cgroup    string // as the kernel shows it
	entries   []procfs.CgroupEntry
	pidns     string
	mnt       string
}

func (p *process) String() string {
	return fmt.Sprintf("process %d (%s) in state %s", p.pid, strconv.QuoteToASCII(p.name), p.state)
}

// members returns the processes of the agent's containers, by container. What
// was seen is good also beside an error, which says what could not be. first, if
// it is not nil, is given most of them beforehand, where they are known.
func (o *lookout) members(ctx context.Context, a Agent, dataRoot string, first func(pids map[int]bool)) (map[who][]*process, error) {
	if err := errors.Join(a.none(), supported()); err != nil {
		return nil, err
	}
	var errs []error
	self, err := os.Readlink("/proc/self/ns/pid")
	if err == nil && self != firstPIDNamespace {
		err = fmt.Errorf("halt: this process is in a process namespace of its own (%s), where others are hidden: run it on the machine itself", self)
	}
	errs = append(errs, err)
	all, err := o.records(cmp.Or(dataRoot, DefaultDataRoot))
	listed := err == nil
	if err != nil {
		errs = append(errs, fmt.Errorf("%w: whether a container was made anew cannot be seen", err))
	}
	o.roll.admit(a, all)
	errs = append(errs, o.roll.unmet(a))

	own := make(map[string]bool)
	for _, who := range []string{"self", "1"} {
		for _, kind := range []string{"pid", "mnt"} {
			if link, err := os.Readlink("/proc/" + who + "/ns/" + kind); err == nil {
				own[link] = true
			}
		}
	}
	ours := o.roll.all()
	removed := func(w who) bool {
		return listed && !slices.ContainsFunc(all, func(r who) bool { return r.id == w.id })
	}
	alive := slices.DeleteFunc(slices.Clone(ours), func(w who) bool { return removed(w) && o.isExtinct(w.id) })
	kin, known := o.kin(alive)
	var procs []*process
	if known {
		if first != nil {
			first(kin)
		}
		procs, known, err = o.glance(ctx, alive, kin, own)
	}
	if !known {
		procs, err = processes(ctx)
	}
	errs = append(errs, err)
	found := make(map[who][]*process)
	for _, w := range ours {
		shims := shimsOf(w.id, procs, own)
		mine := o.of(w, procs, shims, own)
		if len(mine) > 0 {
			found[w] = mine
		}
		if !known {
			o.learn(w.id, mine, shims, err == nil && len(mine) == 0 && removed(w))
		}
	}
	return found, errors.Join(errs...)
}

// of returns the processes of a container: those in its cgroup, wherever else
// they are; those in its mount or process namespace, or with its own files
// mounted, whatever their cgroup; and what descends from the program that
// minds it.
func (o *lookout) of(w who, procs, shims []*process, own map[string]bool) []*process {
	mounts, spaces := make(map[string]bool), make(map[string]bool)
	in := make(map[int]bool)
	var pin *process
	for _, p := range procs {
		if strings.Contains(p.cgroup, w.id) {
			in[p.pid] = true
			// One that is just ending has none any more.
			if p.mnt != "" && !own[p.mnt] {
				mounts[p.mnt] = true
			}
			if p.pidns != "" && !own[p.pidns] {
				spaces[p.pidns], pin = true, p
			}
		}
	}
	if space := o.pin(w.id, pin); space != "" {
		spaces[space] = true
	}
	trees := make(map[string]bool)
	ofMinder := minded(shims, procs)
	for _, p := range procs {
		if in[p.pid] || p.kernel {
			continue
		}
		if mounts[p.mnt] {
			in[p.pid] = true
			continue
		}
		shared := spaces[p.pidns] || ofMinder[p.pid]
		if !shared && p.mnt != "" && !own[p.mnt] {
			is, seen := trees[p.mnt]
			if !seen {
				is = showsFilesOf(p, w.id)
				trees[p.mnt] = is
			}
			shared = is
		}
		// These a container may share with another.
		if shared && !inOther(p.cgroup, w.id) {
			in[p.pid] = true
		}
	}
	var mine []*process
	for _, p := range procs {
		if in[p.pid] && !p.kernel {
			mine = append(mine, p)
		}
	}
	return mine
}

// pin holds the process namespace that p is in, if p is not nil, and returns
// the one that is held.
func (o *lookout) pin(id string, p *process) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	held := o.pinned[id]
	if p != nil && (held == nil || linkOf(held) != p.pidns) {
		if f, err := os.Open(p.dir + "/ns/pid"); err == nil {
			if linkOf(f) == p.pidns {
				if held != nil {
					held.Close()
				}
				if o.pinned == nil {
					o.pinned = make(map[string]*os.File)
				}
				o.pinned[id], held = f, f
			} else {
				f.Close()
			}
		}
	}
	if held == nil {
		return ""
	}
	return linkOf(held)
}

// close lets go of what is held.
func (o *lookout) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, f := range o.pinned {
		f.Close()
	}
	o.pinned = nil
}

func linkOf(f *os.File) string {
	link, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
	if err != nil {
		return ""
	}
	return link
}

// showsFilesOf reports whether a process has mounted what the engine mounts into
// a container from the container's own directory: its hostname and the like.
func showsFilesOf(p *process, id string) bool {
	data, err := os.ReadFile(p.dir + "/mountinfo")
	files := "/containers/" + id + "/"
	if err != nil || !bytes.Contains(data, []byte(files)) {
		return false
	}
	mounts, err := procfs.ParseMountinfo(data)
	return err == nil && slices.ContainsFunc(mounts, func(m procfs.Mount) bool {
		return strings.Contains(m.Root, files)
	})
}

// inOther reports whether a process is in the cgroup of another container.
func inOther(cgroup, id string) bool {
	return slices.ContainsFunc(anyID.FindAllString(cgroup, -1), func(found string) bool { return found != id })
}

// shimsOf returns the programs that mind a container.
func shimsOf(id string, procs []*process, own map[string]bool) []*process {
	var shims []*process
	for _, p := range procs {
		// Only a process of the machine's is asked for its arguments: a
		// container's may keep the one who asks waiting.
		if strings.HasPrefix(p.name, "containerd-shim") && own[p.pidns] && !anyID.MatchString(p.cgroup) {
			args, err := os.ReadFile(p.dir + "/cmdline")
			if fields := strings.Split(string(args), "\x00"); err == nil && slices.Contains(fields, id) {
				shims = append(shims, p)
			}
		}
	}
	return shims
}

// minded returns what descends from the shims of a container: they adopt the
// orphans of one that has no process namespace of its own. What a shim runs for
// itself is in the shim's cgroup and namespaces.
func minded(shims, procs []*process) map[int]bool {
	if len(shims) == 0 {
		return nil
	}
	children := make(map[int][]*process)
	for _, p := range procs {
		children[p.ppid] = append(children[p.ppid], p)
	}
	in := make(map[int]bool)
	for _, shim := range shims {
		var add func(pid int)
		add = func(pid int) {
			for _, c := range children[pid] {
				if in[c.pid] {
					continue
				}
				in[c.pid] = c.apart(shim)
				add(c.pid)
			}
		}
		add(shim.pid)
	}
	return in
}

// apart reports whether a process is elsewhere than a shim. One that is just ending
// shows no control groups of version 1 any more, and in the end no namespaces:
// what it still shows counts.
func (p *process) apart(shim *process) bool {
	if !p.exiting {
		return p.cgroup != shim.cgroup || p.mnt != shim.mnt || p.pidns != shim.pidns
	}
	return unified(p.entries) != unified(shim.entries) || p.mnt != "" && p.mnt != shim.mnt || p.pidns != "" && p.pidns != shim.pidns
}

// unified returns the path in the hierarchy of version 2, if there is one.
func unified(entries []procfs.CgroupEntry) string {
	for _, e := range entries {
		if e.Hierarchy == 0 {
			return e.Path
		}
	}
	return ""
}

// processes reads the process table. A process that ends meanwhile is left out;
// one that may not be examined is part of the error.
func processes(ctx context.Context) ([]*process, error) {
	pids, err := processNumbers()
	if err != nil {
		return nil, err
	}
	var all []*process
	var errs []error
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return all, unread(err)
		}
		p, err := examine(pid)
		if err != nil {
			errs = append(errs, err)
		} else if p != nil {
			all = append(all, p)
		}
	}
	if len(all) == 0 {
		errs = append(errs, errors.New("halt: /proc shows no process"))
	}
	return all, errors.Join(errs...)
}

func unread(err error) error {
	return fmt.Errorf("halt: the process table was not read to its end: %w", err)
}

// processNumbers returns those of all processes.
func processNumbers() ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("halt: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("halt: %w", err)
	}
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

// examine reads a process, nil if it has ended.
func examine(pid int) (*process, error) {
	p, err := readProcess(pid)
	switch {
	case gone(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("halt: process %d cannot be examined: be root: %w", pid, err)
	}
	return p, nil
}

// readProcess returns a process, or nil if it has ended: a zombie has, but for
// one whose first thread alone has.
func readProcess(pid int) (*process, error) {
	p := &process{pid: pid, dir: procDir(pid)}
	if err := p.readStat(p.dir + "/stat"); err != nil {
		return nil, err
	}
	if p.kernel {
		return p, nil
	}
	if dead(p.state) {
		tasks, err := os.ReadDir(p.dir + "/task")
		if err != nil {
			return nil, err
		}
		lives := false
		for _, t := range tasks {
			dir := p.dir + "/task/" + t.Name()
			thread := *p
			if err := thread.readStat(dir + "/stat"); err == nil && !dead(thread.state) {
				thread.dir, thread.name, lives = dir, p.name, true
				*p = thread
				break
			}
		}
		if !lives {
			return nil, nil
		}
	}
	data, err := os.ReadFile(p.dir + "/cgroup")
	if err != nil {
		return nil, err
	}
	p.cgroup = string(data)
	if p.entries, err = procfs.ParseCgroup(data); err != nil {
		return nil, fmt.Errorf("%s: %w", p.dir, err)
	}
	if p.pidns, err = os.Readlink(p.dir + "/ns/pid"); err == nil {
		p.mnt, err = os.Readlink(p.dir + "/ns/mnt")
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		// A process that is just ending has no namespaces any more; nor does
		// the machine let anybody look into some of its own.
		var again process
		if statErr := again.readStat(p.dir + "/stat"); statErr != nil || dead(again.state) {
			return nil, fs.ErrNotExist
		}
		if st, statusErr := os.ReadFile(p.dir + "/status"); statusErr == nil && errors.Is(err, fs.ErrPermission) {
			if s, parseErr := procfs.ParseStatus(st); parseErr == nil && len(s.NSpid) == 1 {
				p.pidns, p.mnt = firstPIDNamespace, ""
				return p, nil
			}
		}
		if errors.Is(err, fs.ErrNotExist) { // past the release of its namespaces, before it is a zombie: it runs no code of its own
			return p, nil
		}
	}
	return p, err
}

func dead(state string) bool { return state == "Z" || state == "X" || state == "x" }

// readStat reads the fields that matter of a stat file of proc(5).
func (p *process) readStat(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	name, fields, err := parseStat(string(data))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	p.name, p.state = name, fields[0]
	if p.ppid, err = strconv.Atoi(fields[1]); err != nil {
		return fmt.Errorf("%s: parent: %w", file, err)
	}
	flags, err := strconv.ParseUint(fields[6], 10, 64)
	if err != nil {
		return fmt.Errorf("%s: flags: %w", file, err)
	}
	p.kernel, p.exiting = flags&kernelThread != 0, flags&exiting != 0
	if p.began, err = strconv.ParseUint(fields[19], 10, 64); err != nil {
		return fmt.Errorf("%s: start: %w", file, err)
	}
	return nil
}

// parseStat returns the name in a stat file, and the fields behind it, the
// state first. The name is in parentheses and may itself hold some.
func parseStat(s string) (name string, fields []string, err error) {
	open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 0 || end < open {
		return "", nil, fmt.Errorf("stat: malformed: %q", s)
	}
	if fields = strings.Fields(s[end+1:]); len(fields) < 20 || len(fields[0]) != 1 {
		return "", nil, fmt.Errorf("stat: malformed: %q", s)
	}
	return s[open+1 : end], fields, nil
}
