package halt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// DefaultWindow is the least time that a [Frozen] watches. It may be short: what
// a thread had of a processor is exact while it is on none, and one that is on one
// is seen to be.
const DefaultWindow = time.Millisecond

// Frozen is an observer that looks whether every process of the agent's
// containers is frozen, or gone: the kernel says of its cgroup that all in it
// are frozen, and no thread of it gets any time on a processor while it is
// watched. It finds processes as [Processes] does; one that has left the frozen
// cgroup is seen to run.
//
// It is true of the time of the look: who is root on the machine can thaw what
// was frozen. A thread that sleeps in a cgroup that is not frozen is not taken for
// frozen, however still it is.
type Frozen struct {
	// Agent says which containers are meant. Required.
	Agent Agent

	// DataRoot is where the engine keeps its containers. Empty means
	// DefaultDataRoot.
	DataRoot string

	// Window is how long threads are watched at least. Zero means
	// DefaultWindow.
	Window time.Duration

	lookout lookout
}

// Name returns "container.frozen".
func (f *Frozen) Name() string { return "container.frozen" }

// Arm looks once; see [Processes.Arm].
func (f *Frozen) Arm(ctx context.Context) error {
	_, err := within(ctx, func() (none, error) {
		_, err := f.lookout.members(ctx, f.Agent, f.DataRoot, nil)
		return none{}, err
	})
	return err
}

// Objects returns the agent's containers that have been seen.
func (f *Frozen) Objects() []string { return f.lookout.roll.objects() }

// Close lets go of what is held to recognize processes. A Frozen that was
// closed can be used again.
func (f *Frozen) Close() error {
	f.lookout.close()
	return nil
}

// Remaining returns the containers that have processes which are not frozen.
func (f *Frozen) Remaining(ctx context.Context) (map[string]string, error) {
	type seen struct {
		open map[string]string
		err  error
	}
	s, err := within(ctx, func() (seen, error) {
		open, err := f.look(ctx)
		return seen{open, err}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("halt: the process table did not answer in time: %w", err)
	}
	return s.open, s.err
}

func (f *Frozen) look(ctx context.Context) (map[string]string, error) {
	var errs []error
	before := make(map[string]int64) // see busy; by directory of the thread
	began := time.Now()
	// Those that are known are watched while the others are looked for.
	members, err := f.lookout.members(ctx, f.Agent, f.DataRoot, func(pids map[int]bool) {
		for pid := range pids {
			errs = append(errs, clock(pid, before))
		}
		began = time.Now()
	})
	if len(members) == 0 {
		return nil, err
	}
	errs = append(errs, err)
	hs, err := f.lookout.freezers()
	errs = append(errs, err)
	for _, procs := range members {
		for _, p := range procs {
			if _, watched := before[mainThread(p.pid)]; !watched {
				errs = append(errs, clock(p.pid, before))
				began = time.Now()
			}
		}
	}
	if left := cmp.Or(f.Window, DefaultWindow) - time.Since(began); left > 0 {
		if err := sleep(ctx, left); err != nil {
			return nil, fmt.Errorf("halt: %w", err)
		}
	}
	var l ledger
	words := make(map[string]bool)
	for w, procs := range members {
		still := f.lookout.frozen(w.id)
		for _, p := range procs {
			for _, dir := range threads(p.pid) {
				if why := restless(dir, before, still, hs, words); why != "" {
					l.add(w.object(), fmt.Sprintf("in %s, %v %s", short(w.id), p, why))
					break
				}
			}
		}
	}
	return l.open, errors.Join(errs...)
}

func mainThread(pid int) string { return procDir(pid) + "/task/" + strconv.Itoa(pid) }

// clock notes what the threads of a process had of a processor.
func clock(pid int, before map[string]int64) error {
	var errs []error
	for _, dir := range threads(pid) {
		if t, err := busy(dir); err == nil {
			before[dir] = t
		} else if !gone(err) {
			errs = append(errs, fmt.Errorf("halt: %w", err))
		}
	}
	return errors.Join(errs...)
}

// threads returns the directories of a process's threads.
func threads(pid int) []string {
	task := procDir(pid) + "/task"
	entries, err := os.ReadDir(task)
	if err != nil {
		return nil // it has ended
	}
	dirs := make([]string, 0, len(entries))
	for _, e := range entries {
		dirs = append(dirs, filepath.Join(task, e.Name()))
	}
	return dirs
}

// restless says why a thread is not frozen, or "" if it is or has ended. still
// are the numbers of threads of which the kernel has said that they are frozen.
func restless(dir string, before map[string]int64, still map[int]bool, hs []hierarchy, words map[string]bool) string {
	was, seen := before[dir]
	// In this order: of a thread that is on no processor when its state is read,
	// what it had until then is in what is read after that.
	var p process
	if err := p.readStat(dir + "/stat"); err != nil || dead(p.state) {
		if err != nil && !gone(err) {
			return "cannot be examined: " + err.Error()
		}
		return ""
	}
	now, err := busy(dir)
	switch {
	case gone(err):
		return ""
	case err != nil:
		return "cannot be watched: " + err.Error()
	case !seen:
		return "has a new thread"
	case now != was:
		return "runs: it was on a processor while it was watched"
	case p.state == "R":
		return "runs"
	}
	if tid, err := strconv.Atoi(filepath.Base(dir)); err == nil && still[tid] {
		return ""
	}
	data, err := os.ReadFile(dir + "/cgroup")
	if err != nil {
		if gone(err) {
			return ""
		}
		return "cannot be examined: " + err.Error()
	}
	if !words[string(data)] {
		if !frozenWord(string(data), hs) {
			return "is not frozen"
		}
		words[string(data)] = true // what freezes stays frozen for the moment
	}
	return ""
}

// frozen returns the threads of a container's cgroups of which the kernel says
// that all in them are frozen, as far as they are known.
func (o *lookout) frozen(id string) map[int]bool {
	still := make(map[int]bool)
	f := o.family(id)
	if f == nil {
		return still
	}
	for _, g := range f.freezers {
		in := make(map[int]bool)
		file := "tasks"
		if g.v2 {
			file = "cgroup.threads"
		}
		// First who, then whether: the kernel takes the word back when one joins
		// who is not.
		if listGroup(g.dir, file, in) && frozenDir(g.dir, g.v2) {
			maps.Copy(still, in)
		}
	}
	return still
}

// freezers returns where cgroups can be frozen. That does not change: a hierarchy
// that is gone freezes nothing.
func (o *lookout) freezers() ([]hierarchy, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mounted == nil {
		mountinfo, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return nil, fmt.Errorf("halt: %w", err)
		}
		if o.mounted, err = hierarchies(mountinfo); err != nil {
			return nil, err
		}
	}
	return o.mounted, nil
}

// frozenWord reports whether the kernel says that all in one of the cgroups of
// a thread are frozen. In version 1 a cgroup is FREEZING until they are.
func frozenWord(cgroup string, hs []hierarchy) bool {
	for line := range strings.Lines(cgroup) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 {
			continue
		}
		v2 := parts[0] == "0" && parts[1] == ""
		for _, h := range hs {
			if h.v2 != v2 || !v2 && !strings.Contains(","+parts[1]+",", ",freezer,") {
				continue
			}
			dir, err := h.dir(parts[2])
			if err != nil {
				continue
			}
			if frozenDir(dir, v2) {
				return true
			}
		}
	}
	return false
}

// frozenDir reports whether the kernel says that all in a cgroup and below are
// frozen.
func frozenDir(dir string, v2 bool) bool {
	if v2 {
		data, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
		return err == nil && strings.Contains("\n"+string(data), "\nfrozen 1\n")
	}
	data, err := os.ReadFile(filepath.Join(dir, "freezer.state"))
	return err == nil && strings.TrimSpace(string(data)) == "FROZEN"
}

// busy returns what grows whenever a thread leaves a processor: how long it has
// been on one, in nanoseconds, or, where the kernel does not keep that, how often
// it was taken off.
func busy(dir string) (int64, error) {
	if data, err := os.ReadFile(dir + "/schedstat"); err == nil {
		if ran, _, ok := strings.Cut(string(data), " "); ok {
			return strconv.ParseInt(ran, 10, 64)
		}
	}
	data, err := os.ReadFile(dir + "/status")
	if err != nil {
		return 0, err
	}
	n, err := switches(string(data))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", dir, err)
	}
	return n, nil
}

// switches returns how often a thread left a processor, or was taken off, by a
// status file of proc(5).
func switches(status string) (int64, error) {
	var sum int64
	found := 0
	for line := range strings.Lines(status) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.HasSuffix(key, "voluntary_ctxt_switches") {
			n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("status: %w", err)
			}
			sum += n
			found++
		}
	}
	if found != 2 {
		return 0, errors.New("status: it does not say how often the thread was switched")
	}
	return sum, nil
}
