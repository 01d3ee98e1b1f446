package halt

import (
	"cmp"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/internal/procfs"
)

// maxSockets is how many sockets in mounted directories are told of: who shares
// the machine's network may bind as many as it likes.
const maxSockets = 64

// mountedSockets returns the unix sockets of the machine that are mounted into a
// container, by themselves or in a directory, by their paths on the machine. In a
// directory they are those that are bound, as the kernel shows it in the network
// namespaces of these processes, of the machine's first and of the caller.
func mountedSockets(mounts []container.Mount, pids ...int) []string {
	var found, dirs []string
	for _, m := range mounts {
		info, err := os.Stat(m.Source)
		switch {
		case m.Source == "" || err != nil:
		case info.Mode()&fs.ModeSocket != 0:
			found = append(found, m.Source)
		case info.IsDir():
			dirs = append(dirs, m.Source)
			if resolved, err := filepath.EvalSymlinks(m.Source); err == nil {
				dirs = append(dirs, resolved)
			}
		}
	}
	if len(dirs) == 0 {
		return found
	}
	inDirs := make(map[string]bool)
	for _, name := range bound(pids) {
		if resolved, err := filepath.EvalSymlinks(name); err == nil && !belowAny(dirs, name) {
			name = resolved
		}
		if !belowAny(dirs, name) {
			continue
		}
		// Otherwise its name is gone, or belongs to another mount namespace.
		if info, err := os.Stat(name); err == nil && info.Mode()&fs.ModeSocket != 0 {
			inDirs[name] = true
		}
	}
	all := slices.SortedFunc(maps.Keys(inDirs), func(a, b string) int {
		return cmp.Or(cmp.Compare(engineRank(b), engineRank(a)), cmp.Compare(a, b))
	})
	found = append(found, all[:min(len(all), maxSockets)]...)
	slices.Sort(found)
	return slices.Compact(found)
}

// engineRank is higher for what is likely an engine's.
func engineRank(name string) int {
	switch filepath.Base(name) {
	case "docker.sock", "containerd.sock", "podman.sock", "crio.sock":
		return 1
	}
	return 0
}

func belowAny(dirs []string, name string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return below(dir, name) })
}

func below(dir, name string) bool {
	rest, ok := strings.CutPrefix(name, strings.TrimSuffix(dir, "/"))
	return ok && strings.HasPrefix(rest, "/")
}

// bound returns the paths of sockets that somebody has, and may send or connect
// to. What cannot be read has none.
func bound(pids []int) []string {
	var all []string
	seen := make(map[string]bool)
	dirs := []string{"/proc/thread-self", "/proc/1"}
	for _, pid := range pids {
		if pid > 0 {
			dirs = append(dirs, procDir(pid))
		}
	}
	for _, dir := range dirs {
		space, err := os.Readlink(dir + "/ns/net")
		if err != nil || seen[space] {
			continue
		}
		seen[space] = true
		data, err := os.ReadFile(dir + "/net/unix")
		if err != nil {
			continue
		}
		sockets, err := procfs.ParseUnix(data)
		if err != nil {
			continue
		}
		for _, s := range sockets {
			if strings.HasPrefix(s.Path, "/") {
				all = append(all, s.Path)
			}
		}
	}
	return all
}
