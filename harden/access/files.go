package access

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/internal/procfs"
)

// kernelFiles are file systems in which nobody keeps files.
var kernelFiles = []string{"proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "securityfs", "debugfs", "tracefs", "bpf", "fusectl", "configfs", "pstore", "nsfs"}

// files looks at the files of every mount namespace of the container.
func (s *survey) files(ctx context.Context) {
	s.seen = make(map[string]bool)
	for i, t := range s.agent.Container.Kernel.Trees {
		root := strings.TrimSuffix(t.Source, "/mountinfo") + "/root"
		s.tree(ctx, root, &t, i == 0)
	}
}

// tree looks at the files of one mount namespace, whose root is at root.
func (s *survey) tree(ctx context.Context, root string, t *container.Tree, first bool) {
	mounts := make(map[string]bool)
	for _, m := range t.Mounts {
		mounts[m.Path] = true
	}
	w := walk{survey: s, root: root, mounts: mounts}
	for _, m := range t.Mounts {
		switch {
		case slices.Contains(kernelFiles, m.FSType), procfs.Below(m.Path, "/proc"), procfs.Below(m.Path, "/sys"):
		case m.Path != "/":
			w.from(ctx, m.Path, m.Device+m.Root)
		case m.FSType == "overlay" || m.FSType == "fuse.fuse-overlayfs":
			s.written(ctx, &m)
		default:
			// What was written cannot be told from what the image has.
			w.from(ctx, "/", m.Device+m.Root)
		}
	}
	w.prune = true
	for _, dir := range s.homes(root) {
		w.from(ctx, dir, "image")
	}
	if first {
		for _, dir := range s.stateDirs(root) {
			w.from(ctx, dir, "state")
		}
	}
}

// written looks at what a container has written over its image.
func (s *survey) written(ctx context.Context, m *container.MountPoint) {
	const what = "what the container has written over its image"
	for _, o := range m.Super {
		if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
			dir = procfs.Unescape(dir)
			if _, err := s.view.Lstat(dir); err != nil {
				s.unread(InFile, what, err)
				return
			}
			w := walk{survey: s, root: dir}
			w.from(ctx, "/", dir)
			return
		}
	}
	if !m.ReadOnly {
		s.unread(InFile, what, errors.New("the file system does not say where it is"))
	}
}

// homes returns where programs look for credentials by themselves.
func (s *survey) homes(root string) []string {
	dirs := []string{"/root", "/etc"}
	for _, env := range s.environ {
		if h := env.values["HOME"]; path.IsAbs(h) && path.Clean(h) != "/" {
			dirs = append(dirs, h)
		}
		if cwd, err := s.view.ReadLink(procDir(env.pid) + "/cwd"); err == nil && path.IsAbs(cwd) && cwd != "/" {
			dirs = append(dirs, cwd)
		}
	}
	return s.resolved(root, dirs)
}

// resolved follows symbolic links as the container does, and leaves out what is
// not there.
func (s *survey) resolved(root string, dirs []string) []string {
	var all []string
	for _, d := range dirs {
		found, _, err := inRoot(s.view, root, d)
		switch {
		case err == nil && !slices.Contains(all, found):
			all = append(all, found)
		case err != nil && !gone(err):
			s.unread(InFile, d, err)
		}
	}
	return all
}

// A walk goes through directories below a root.
type walk struct {
	*survey
	root   string
	mounts map[string]bool // places of other mounts, which are walked by themselves
	prune  bool            // leave out what is installed
}

// from walks a file or directory. What is the same, by id and path, is walked
// once.
func (w *walk) from(ctx context.Context, name, id string) {
	if id == "image" || id == "state" {
		id = w.root
	}
	info, err := w.view.Lstat(path.Join(w.root, name))
	if err != nil {
		if !gone(err) {
			w.unread(InFile, name, err)
		}
		return
	}
	w.visit(ctx, name, fs.FileInfoToDirEntry(info), id, "")
}

// visit looks at what is at name, which is rel below what id stands for.
func (w *walk) visit(ctx context.Context, name string, e fs.DirEntry, id, rel string) {
	full := path.Join(w.root, name)
	switch {
	case ctx.Err() != nil:
		w.unread(InFile, name, context.Cause(ctx))
		return
	case w.skipped(name):
		return
	case rel != "" && w.mounts[name], w.seen[full], id != w.root && w.seen[id+"\x00"+rel]:
		return
	}
	w.seen[full], w.seen[id+"\x00"+rel] = true, true
	if len(w.scan.quick([]byte(e.Name()))) > 0 {
		w.agent.Leaks = append(w.agent.Leaks, Leak{Kind: InName, Rule: w.scan.quick([]byte(e.Name()))[0].Rule, Place: w.shown(name), Mark: w.scan.mark([]byte(e.Name()))})
	}
	switch {
	case e.IsDir():
		if w.prune && e.Name() == "node_modules" {
			return
		}
		entries, err := w.view.ReadDir(full)
		if err != nil {
			if !gone(err) {
				w.unread(InFile, name, err)
			}
			return
		}
		for _, next := range entries {
			w.visit(ctx, path.Join(name, next.Name()), next, id, path.Join("/", rel, next.Name()))
		}
	case e.Type().IsRegular():
		kind := InFile
		if isStore(name) {
			kind = InStore
		}
		w.file(ctx, full, Leak{Kind: kind, Place: w.shown(name)})
	case e.Type()&fs.ModeSymlink != 0:
		if target, err := w.view.ReadLink(full); err == nil && len(w.scan.quick([]byte(target))) > 0 {
			w.agent.Leaks = append(w.agent.Leaks, Leak{Kind: InName, Rule: w.scan.quick([]byte(target))[0].Rule, Place: w.shown(name), Mark: w.scan.mark([]byte(target))})
		}
	}
}

func (w *walk) skipped(name string) bool {
	for _, dir := range w.cfg.Skip {
		if procfs.Below(name, path.Clean(dir)) {
			if !slices.Contains(w.agent.Skipped, dir) {
				w.agent.Skipped = append(w.agent.Skipped, dir)
			}
			return true
		}
	}
	return false
}

// isStore reports whether a file is one of OpenClaw's databases, or what SQLite
// keeps beside one.
func isStore(name string) bool {
	base := path.Base(name)
	for _, end := range []string{"-wal", "-journal", "-shm"} {
		base = strings.TrimSuffix(base, end)
	}
	return strings.HasSuffix(base, ".sqlite") || strings.HasSuffix(base, ".db") || base == "auth-profiles.json" || base == "mcp-oauth.json"
}
