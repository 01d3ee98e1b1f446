package halt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// DefaultWindow is how long a [Frozen] watches: longer than a tick of the kernel,
// at which it accounts for what runs.
const DefaultWindow = 5 * time.Millisecond

// Frozen is an observer that looks whether every process of the agent's
// containers is frozen, or gone: the kernel says of its cgroup that all in it
// are frozen, and no thread of it gets any time on a processor while it is
// watched. It finds processes as [Processes] does; one that has left the frozen
// cgroup is seen to run.
type Frozen struct {
	// Agent says which containers are meant. Required.
	Agent Agent

	// DataRoot is where the engine keeps its containers. Empty means
	// DefaultDataRoot.
	DataRoot string

	// Window is how long threads are watched. Zero means DefaultWindow.
	Window time.Duration

	lookout lookout
}

// Name returns "container.frozen".
func (f *Frozen) Name() string { return "container.frozen" }

// Arm looks once; see [Processes.Arm].
func (f *Frozen) Arm(ctx context.Context) error {
	_, err := within(ctx, func() (none, error) {
		_, err := f.lookout.members(ctx, f.Agent, f.DataRoot)
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
	members, err := f.lookout.members(ctx, f.Agent, f.DataRoot)
	mountinfo, readErr := os.ReadFile("/proc/self/mountinfo")
	if readErr != nil {
		return nil, errors.Join(err, fmt.Errorf("halt: %w", readErr))
	}
	hs, hierarchyErr := hierarchies(mountinfo)
	err = errors.Join(err, hierarchyErr)
	var l ledger
	if len(members) == 0 {
		return nil, err
	}
	before := make(map[string]int64) // time on a processor, by directory of the thread
	for _, procs := range members {
		for _, p := range procs {
			for _, dir := range threads(p) {
				if t, timeErr := busy(dir); timeErr == nil {
					before[dir] = t
				} else if !gone(timeErr) {
					err = errors.Join(err, fmt.Errorf("halt: %w", timeErr))
				}
			}
		}
	}
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("halt: %w", ctx.Err())
	case <-time.After(cmp.Or(f.Window, DefaultWindow)):
	}
	words := make(map[string]bool)
	for w, procs := range members {
		for _, p := range procs {
			for _, dir := range threads(p) {
				if why := restless(dir, before, hs, words); why != "" {
					l.add(w.object(), fmt.Sprintf("in %s, %v %s", short(w.id), p, why))
					break
				}
			}
		}
	}
	return l.open, err
}

// threads returns the directories of a process's threads.
func threads(p *process) []string {
	task := procDir(p.pid) + "/task"
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

// restless says why a thread is not frozen, or "" if it is or has ended.
func restless(dir string, before map[string]int64, hs []hierarchy, words map[string]bool) string {
	var p process
	if err := p.readStat(dir + "/stat"); err != nil || dead(p.state) {
		if err != nil && !gone(err) {
			return "cannot be examined: " + err.Error()
		}
		return ""
	}
	was, seen := before[dir]
	now, err := busy(dir)
	switch {
	case gone(err):
		return ""
	case err != nil:
		return "cannot be watched: " + err.Error()
	case !seen:
		return "has a new thread"
	case now != was:
		return fmt.Sprintf("runs: it had %v of a processor while it was watched", time.Duration(now-was))
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
			if v2 {
				data, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
				if err == nil && strings.Contains("\n"+string(data), "\nfrozen 1\n") {
					return true
				}
				continue
			}
			data, err := os.ReadFile(filepath.Join(dir, "freezer.state"))
			if err == nil && strings.TrimSpace(string(data)) == "FROZEN" {
				return true
			}
		}
	}
	return false
}

// busy returns how long a thread has been on a processor: in nanoseconds from
// schedstat, or, where the kernel does not keep that, from the ticks of stat.
func busy(dir string) (int64, error) {
	if data, err := os.ReadFile(dir + "/schedstat"); err == nil {
		if ran, _, ok := strings.Cut(string(data), " "); ok {
			return strconv.ParseInt(ran, 10, 64)
		}
	}
	data, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return 0, err
	}
	_, fields, err := parseStat(string(data))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", dir, err)
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", dir, err)
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", dir, err)
	}
	const tick = int64(10 * time.Millisecond) // USER_HZ is 100 everywhere
	return (user + system) * tick, nil
}
