//go:build linux

package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// killTimeout bounds the wait for killed processes to go. Only a process that
// the kernel will not end, say in uninterruptible I/O, takes that long.
const killTimeout = 20 * time.Second

// hierarchy is a mounted cgroup tree. A machine has one of version 2, or
// several of version 1, or both.
type hierarchy struct {
	path string
	v2   bool
}

func hierarchies() ([]hierarchy, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var hs []hierarchy
	for line := range strings.Lines(string(data)) {
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 1 {
			continue
		}
		if h := (hierarchy{path: left[4], v2: right[0] == "cgroup2"}); h.v2 || right[0] == "cgroup" {
			if !slices.Contains(hs, h) {
				hs = append(hs, h)
			}
		}
	}
	return hs, nil
}

// newCgroup makes the cgroup id/engine, in which the engine and the lab's
// commands are started. Containers get cgroups of their own beside it, in
// every hierarchy.
func newCgroup(id string) (*os.File, error) {
	hs, err := hierarchies()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(hs, func(h hierarchy) bool { return h.v2 })
	if i < 0 {
		return nil, errors.New("no cgroup2 is mounted")
	}
	dir := filepath.Join(hs[i].path, id, "engine")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return os.Open(dir)
}

// killCgroups kills all processes in the cgroups called id and below, frozen
// ones too, and removes these cgroups.
func killCgroups(id string) error {
	hs, err := hierarchies()
	if err != nil {
		return err
	}
	deadline := time.Now().Add(killTimeout)
	pause := time.Millisecond
	for {
		var left []string
		for _, h := range hs {
			left = append(left, h.kill(id)...)
		}
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("still there %v after being killed: %s", killTimeout, strings.Join(left, ", "))
		}
		// There is no one event for "all of these have gone" that both
		// versions of cgroups have.
		time.Sleep(pause)
		pause = min(2*pause, 20*time.Millisecond)
	}
}

// kill does once what can be done at once, and returns the cgroups that
// remain.
func (h hierarchy) kill(id string) []string {
	top := filepath.Join(h.path, id)
	var dirs []string
	filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			dirs = append(dirs, path)
		}
		return nil // what vanishes meanwhile is what we want to vanish
	})
	if len(dirs) == 0 {
		return nil
	}
	if h.v2 {
		// Atomic, and reaches frozen processes; Linux 5.14.
		os.WriteFile(filepath.Join(top, "cgroup.kill"), []byte("1"), 0)
	}
	var left []string
	for _, dir := range slices.Backward(dirs) {
		if os.Remove(dir) == nil {
			continue
		}
		left = append(left, dir)
		procs, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		for field := range strings.FieldsSeq(string(procs)) {
			// 0 stands for a process of another PID namespace.
			if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		// A process in the version 1 freezer dies when it thaws.
		os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0)
		os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte("0"), 0)
	}
	return left
}
