package egress

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/managemyclaw/hardshell/internal/procfs"
)

// A cgroup is a control group of version 2.
type cgroup struct {
	path  string // below the root of the hierarchy
	dir   string
	id    uint64 // by which the kernel knows it: the inode of its directory
	level int    // how far below the root
}

// findCgroup finds the control group of a workload in the host's network
// namespace. It is never one that this process is in: the host would be cut
// off.
func findCgroup(w Workload) (cgroup, error) {
	path := w.Cgroup
	if path == "" {
		if w.PID <= 0 {
			return cgroup{}, errors.New("neither it nor a process is known")
		}
		var err error
		if path, err = cgroupOf(strconv.Itoa(w.PID)); err != nil {
			return cgroup{}, err
		}
	}
	path = strings.TrimPrefix(filepath.Clean("/"+path), "/")
	if path == "" {
		return cgroup{}, errors.New("it is that of all processes")
	}
	own, err := cgroupOf("self")
	if err != nil {
		return cgroup{}, err
	}
	if own = strings.TrimPrefix(own, "/"); own == path || strings.HasPrefix(own, path+"/") {
		return cgroup{}, fmt.Errorf("control group %s is that of this process too", path)
	}
	root, err := cgroupRoot()
	if err != nil {
		return cgroup{}, err
	}
	g := cgroup{path: path, dir: filepath.Join(root, path), level: strings.Count(path, "/") + 1}
	info, err := os.Stat(g.dir)
	if err != nil {
		return cgroup{}, fmt.Errorf("control group: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return cgroup{}, fmt.Errorf("control group %s has no inode", path)
	}
	g.id = stat.Ino
	return g, nil
}

// cgroupOf is the control group of version 2 of a process.
func cgroupOf(pid string) (string, error) {
	data, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if errors.Is(err, syscall.ESRCH) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return "", fmt.Errorf("control group of process %s: %w", pid, err)
	}
	entries, err := procfs.ParseCgroup(data)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if e.Hierarchy == 0 {
			if strings.HasPrefix(e.Path, "/..") {
				return "", fmt.Errorf("control group %s of process %s is outside of what this process sees", e.Path, pid)
			}
			return e.Path, nil
		}
	}
	return "", errors.New("this machine has no control groups of version 2")
}

// cgroupRoot is where the hierarchy of version 2 is mounted, also beside those
// of version 1.
func cgroupRoot() (string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	mounts, err := procfs.ParseMountinfo(data)
	if err != nil {
		return "", err
	}
	for _, m := range mounts {
		if m.FSType == "cgroup2" && m.Root == "/" {
			return m.Path, nil
		}
	}
	return "", errors.New("no cgroup2 is mounted here")
}
