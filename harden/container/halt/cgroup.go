package halt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/managemyclaw/hardshell/internal/procfs"
)

// A hierarchy is a mounted tree of cgroups: that of version 2, or the one of
// version 1 that has the freezer. See cgroups(7).
type hierarchy struct {
	v2    bool
	mount string // where it is
	root  string // which part of it
}

// hierarchies picks them from a mountinfo. A machine has one or both.
func hierarchies(mountinfo []byte) ([]hierarchy, error) {
	mounts, err := procfs.ParseMountinfo(mountinfo)
	if err != nil {
		return nil, fmt.Errorf("halt: mountinfo: %w", err)
	}
	var all []hierarchy
	for _, m := range mounts {
		h := hierarchy{v2: m.FSType == "cgroup2", mount: m.Path, root: m.Root}
		if !h.v2 && (m.FSType != "cgroup" || !slices.Contains(m.Super, "freezer")) {
			continue
		}
		// The first mount that shows all of the hierarchy is as good as any.
		if i := slices.IndexFunc(all, func(o hierarchy) bool { return o.v2 == h.v2 }); i < 0 {
			all = append(all, h)
		} else if len(h.root) < len(all[i].root) {
			all[i] = h
		}
	}
	if len(all) == 0 {
		return nil, errors.New("halt: no freezer is mounted: mount cgroup2, or cgroup with the freezer")
	}
	return all, nil
}

// dir returns where a cgroup of the hierarchy is, whose path is as in
// /proc/PID/cgroup.
func (h hierarchy) dir(group string) (string, error) {
	group = path.Clean(group)
	if !procfs.Below(group, h.root) {
		return "", fmt.Errorf("halt: cgroup %s is not below %s, which is all that is mounted at %s", group, h.root, h.mount)
	}
	return filepath.Join(h.mount, strings.TrimPrefix(group, h.root)), nil
}

// groupOf returns the path of the cgroup that is a container's own among those
// of a process, or "" if that hierarchy has none: it is named after the
// container's id, whatever the cgroup driver ("docker/ID", "docker-ID.scope"),
// and the process may be below it. A cgroup that does not bear the id may hold
// others, and must not be touched.
func (h hierarchy) groupOf(id string, entries []procfs.CgroupEntry) string {
	for _, e := range entries {
		if h.v2 && e.Hierarchy != 0 || !h.v2 && !slices.Contains(e.Controllers, "freezer") {
			continue
		}
		if group := ownGroup(id, e.Path); group != "" {
			return group
		}
	}
	return ""
}

// ownGroup returns the part of a cgroup's path that ends with what bears the id
// of a container, or "".
func ownGroup(id, group string) string {
	var at strings.Builder
	for part := range strings.SplitSeq(strings.TrimPrefix(path.Clean(group), "/"), "/") {
		at.WriteString("/" + part)
		if strings.Contains(part, id) {
			return at.String()
		}
	}
	return ""
}

// maxDepth bounds the search for a container's cgroup. Engines put them at
// most four levels deep: user.slice, user, service, scope.
const maxDepth = 6

// find looks through the hierarchy for the cgroup of a container of which no
// process is known.
func (h hierarchy) find(id string) string {
	var found string
	// What cannot be read, or vanishes, is not it.
	_ = filepath.WalkDir(h.mount, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return nil //nolint:nilerr // see above
		}
		if strings.Contains(e.Name(), id) {
			found = path.Join(h.root, strings.TrimPrefix(name, h.mount))
			return fs.SkipAll
		}
		if strings.Count(strings.TrimPrefix(name, h.mount), "/") >= maxDepth {
			return fs.SkipDir
		}
		return nil
	})
	return found
}

// A cgroup is a cgroup that is a container's own, with its files held open: a
// write to one takes microseconds, and fails once the cgroup has been removed,
// also if another has its name. The zero cgroup is none.
type cgroup struct {
	v2     bool
	path   string // in the hierarchy
	dir    string // in the file system
	freeze *os.File
	kill   *os.File // nil where the kernel has none: version 1, or before Linux 5.14
}

func openCgroup(h hierarchy, group string) (*cgroup, error) {
	dir, err := h.dir(group)
	if err != nil {
		return nil, err
	}
	c := &cgroup{v2: h.v2, path: group, dir: dir}
	name := "freezer.state"
	if h.v2 {
		name = "cgroup.freeze"
		if c.kill, err = os.OpenFile(filepath.Join(dir, "cgroup.kill"), os.O_WRONLY, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("halt: %w", err)
		}
	}
	if c.freeze, err = os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0); err != nil {
		c.close()
		return nil, fmt.Errorf("halt: %w", err)
	}
	return c, nil
}

func (c *cgroup) close() {
	for _, f := range []*os.File{c.freeze, c.kill} {
		if f != nil {
			f.Close()
		}
	}
}

// write writes at the beginning: these files have no other place.
func write(f *os.File, word string) error {
	_, err := f.WriteAt([]byte(word), 0)
	return err
}

// setFrozen asks for the freezing or the thawing of all in the cgroup and
// below.
func (c *cgroup) setFrozen(frozen bool) error {
	words := map[bool]string{true: "FROZEN", false: "THAWED"}
	if c.v2 {
		words = map[bool]string{true: "1", false: "0"}
	}
	return write(c.freeze, words[frozen])
}

// frozen reports whether all in the cgroup and below are frozen, or it is
// gone.
func (c *cgroup) frozen() bool {
	if c.v2 {
		data, err := os.ReadFile(filepath.Join(c.dir, "cgroup.events"))
		return errors.Is(err, fs.ErrNotExist) || strings.Contains("\n"+string(data), "\nfrozen 1\n")
	}
	data, err := os.ReadFile(filepath.Join(c.dir, "freezer.state"))
	return errors.Is(err, fs.ErrNotExist) || strings.TrimSpace(string(data)) == "FROZEN"
}

// pids returns the processes in the cgroup and below that have not ended.
func (c *cgroup) pids() []int {
	var all []int
	// The cgroup goes away when its last process does; what is gone is empty.
	_ = filepath.WalkDir(c.dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return nil //nolint:nilerr // see above
		}
		data, err := os.ReadFile(filepath.Join(name, "cgroup.procs"))
		if err != nil {
			return nil //nolint:nilerr // likewise; those of a threaded cgroup are in the one above
		}
		for field := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
				all = append(all, pid)
			}
		}
		return nil
	})
	return all
}

// thawAll thaws a version 1 cgroup and those below it, which may have been
// frozen by themselves.
func (c *cgroup) thawAll() {
	_ = filepath.WalkDir(c.dir, func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && name != c.dir {
			_ = os.WriteFile(filepath.Join(name, "freezer.state"), []byte("THAWED"), 0)
		}
		return nil
	})
	_ = c.setFrozen(false)
}
