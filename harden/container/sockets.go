package container

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/internal/procfs"
)

// enginePrograms listen on sockets through which containers, or credentials,
// are had for the asking.
var enginePrograms = []string{
	"dockerd", "containerd", "containerd-shim", "podman", "conmon", "crio", "buildkitd", "kubelet", "k3s", "k3s-server",
	"rootlesskit", "nerdctl", "cri-dockerd", "ssh-agent", "gpg-agent",
}

// engineSockets are file names of such sockets, for those that another program
// listens on, such as a service manager that starts the engine on demand.
var engineSockets = []string{
	"docker.sock", "containerd.sock", "containerd.sock.ttrpc", "podman.sock", "crio.sock", "buildkitd.sock",
	"cri-dockerd.sock", "dockershim.sock", "k3s.sock",
}

// isEngineProgram reports whether a process of that name is an engine. The
// kernel cuts names off at 15 bytes.
func isEngineProgram(name string) bool {
	return slices.ContainsFunc(enginePrograms, func(p string) bool {
		return name == p || len(name) == 15 && strings.HasPrefix(p, name) || strings.HasPrefix(name, "containerd-shim")
	})
}

// A socketFile is a unix socket with a name in some file system, on which some
// process accepts connections.
type socketFile struct {
	path   string // as its owner has it
	device string // of the file system, as in mountinfo
	within string // below the root of the file system; empty if the name is gone
	owner  *proc
	engine bool
	gid    uint32
	names  uint64 // how many it has
}

// A socketIndex is the unix sockets of a machine.
type socketIndex struct {
	owners   map[uint64]int // process by inode of the socket
	files    []socketFile
	abstract []socketFile // by network namespace of the owner
	err      error        // why it may not be all
}

// readSockets finds the unix sockets that processes listen on, in every
// network namespace that has a process, and where their names are.
func readSockets(v *host.View, t *procTable) socketIndex {
	idx := socketIndex{owners: socketOwners(v, t)}
	var errs []error
	trees := make(map[uint64]*procfs.Tree)
	done := make(map[uint64]bool)
	pids := make([]int, 0, len(t.procs))
	for pid := range t.procs {
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	for _, pid := range pids {
		p := t.procs[pid]
		if p.netns == 0 || done[p.netns] {
			continue
		}
		data, err := v.ReadFile(procDir(pid) + "/net/unix")
		if gone(err) || errors.Is(err, fs.ErrInvalid) {
			continue // it ended; another process may show the same namespace
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		done[p.netns] = true
		socks, err := procfs.ParseUnix(data)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s/net/unix: %w", procDir(pid), err))
			continue
		}
		for _, sock := range socks {
			if !sock.Listen || sock.Path == "" {
				continue
			}
			f := socketFile{path: sock.Path, owner: t.procs[idx.owners[sock.Inode]], names: 1}
			if f.owner == nil { // listening, but nobody holds it by a descriptor
				f.owner = &proc{netns: p.netns}
			}
			f.engine = f.owner.pid != 0 && isEngineProgram(f.owner.name) || slices.Contains(engineSockets, path.Base(f.path))
			if strings.HasPrefix(f.path, "@") {
				idx.abstract = append(idx.abstract, f)
				continue
			}
			if f.owner.pid == 0 {
				f.owner.pid = pid // its mount tree is the best guess
			}
			if err := f.locate(v, trees); err != nil {
				errs = append(errs, err)
			}
			idx.files = append(idx.files, f)
		}
	}
	idx.err = errors.Join(errs...)
	return idx
}

// locate finds the file of a socket in the mount tree of its owner.
func (f *socketFile) locate(v *host.View, trees map[uint64]*procfs.Tree) error {
	dir := procDir(f.owner.pid)
	ns, err := namespace(v, dir, "mnt")
	if err != nil {
		if gone(err) {
			return nil
		}
		return err
	}
	tree := trees[ns]
	if tree == nil {
		tree, err = readTree(v, dir+"/mountinfo")
		if err != nil {
			if gone(err) {
				return nil
			}
			return err
		}
		trees[ns] = tree
	}
	name := f.path
	if !strings.HasPrefix(name, "/") {
		cwd, err := v.ReadLink(dir + "/cwd")
		if err != nil {
			return nil //nolint:nilerr // the name is not found, and within says so
		}
		name = path.Join(cwd, name)
	}
	found, info, err := resolve(v, dir+"/root", name)
	if err != nil || info.Mode()&fs.ModeSocket == 0 {
		return nil //nolint:nilerr // removed or moved away: within says so
	}
	f.gid, _ = group(info)
	f.names = links(info)
	f.device, f.within, _ = tree.InFileSystem(found)
	return nil
}

// resolve follows the symbolic links of a path as a process does whose root is
// at root, such as /proc/4711/root: the operating system would follow absolute
// ones from our root. It returns the path without links, below root.
func resolve(v *host.View, root, name string) (string, fs.FileInfo, error) {
	const maxLinks = 40 // as the kernel has it, path_resolution(7)
	var (
		done  = "/"
		todo  = strings.Split(strings.Trim(path.Clean(name), "/"), "/")
		count int
		info  fs.FileInfo
		err   error
	)
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, part)
		info, err = v.Lstat(root + next)
		if err != nil {
			return "", nil, err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			done = next
			continue
		}
		if count++; count > maxLinks {
			return "", nil, &fs.PathError{Op: "resolve", Path: name, Err: errors.New("too many symbolic links")}
		}
		target, err := v.ReadLink(root + next)
		if err != nil {
			return "", nil, err
		}
		if strings.HasPrefix(target, "/") {
			done = "/"
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	info, err = v.Lstat(root + done)
	return done, info, err
}

// socketOwners maps the inodes of sockets to the processes that hold them: the
// parent where several do.
func socketOwners(v *host.View, t *procTable) map[uint64]int {
	owners := make(map[uint64]int)
	for pid := range t.procs {
		fds, err := v.ReadDir(procDir(pid) + "/fd")
		if err != nil {
			continue // it ended, or hides: its sockets have no owner
		}
		for _, fd := range fds {
			link, err := v.ReadLink(procDir(pid) + "/fd/" + fd.Name())
			if err != nil {
				continue
			}
			rest, ok := strings.CutPrefix(link, "socket:[")
			if !ok {
				continue
			}
			inode, err := strconv.ParseUint(strings.TrimSuffix(rest, "]"), 10, 64)
			if err != nil {
				continue
			}
			if old, ok := owners[inode]; !ok || pid < old {
				owners[inode] = pid
			}
		}
	}
	return owners
}

// maxWalk bounds the search of a mount for sockets, in entries.
const maxWalk = 200_000

// reachable finds the sockets of others that the mount trees of a container
// reach. members are the container's own processes.
func (s *surveyor) reachable(members []int, trees []containerTree, hostNet bool) ([]ReachableSocket, error) {
	var all []ReachableSocket
	errs := []error{s.sockets.err}
	add := func(f *socketFile, at string) {
		r := ReachableSocket{HostPath: f.path, Path: at, Engine: f.engine}
		if f.owner != nil {
			r.Owner, r.PID = f.owner.name, f.owner.pid
		}
		if !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	search := false
	for i := range s.sockets.files {
		f := &s.sockets.files[i]
		if f.owner != nil && slices.Contains(members, f.owner.pid) {
			continue
		}
		if f.within == "" || f.names > 1 {
			// Moved after it was bound, or linked: the file may be anywhere.
			search = true
		}
		if f.within == "" {
			continue
		}
		for _, t := range trees {
			for _, at := range t.index.Paths(f.device, f.within) {
				add(f, at)
			}
		}
	}
	if hostNet {
		for i := range s.sockets.abstract {
			f := &s.sockets.abstract[i]
			if f.engine && slices.Contains(s.machine.Namespaces["net"], f.owner.netns) {
				add(f, f.path)
			}
		}
	}
	for _, t := range trees {
		found, err := s.search(t, search)
		errs = append(errs, err)
		for _, at := range found {
			known := slices.ContainsFunc(all, func(r ReachableSocket) bool { return r.Path == at.path })
			if known || s.ownSocket(members, t, at.path) {
				continue
			}
			base := path.Base(at.hostPath)
			all = append(all, ReachableSocket{
				HostPath: at.hostPath, Path: at.path,
				Engine: slices.Contains(engineSockets, base) || slices.Contains(engineSockets, path.Base(at.path)),
			})
		}
	}
	return all, errors.Join(errs...)
}

// ownSocket reports whether a process of the container listens on the socket
// at a path of its tree.
func (s *surveyor) ownSocket(members []int, t containerTree, at string) bool {
	device, within, _ := t.index.InFileSystem(at)
	return slices.ContainsFunc(s.sockets.files, func(f socketFile) bool {
		return f.device == device && f.within == within && f.owner != nil && slices.Contains(members, f.owner.pid)
	})
}

type foundSocket struct{ path, hostPath string }

// search looks for socket files in the mounts that a container shares with its
// machine: at the mount points themselves, and below them if deep.
func (s *surveyor) search(t containerTree, deep bool) ([]foundSocket, error) {
	var all []foundSocket
	left := maxWalk
	for _, m := range t.mounts {
		if len(m.HostPaths) == 0 || m.FSType == "proc" || m.FSType == "sysfs" || strings.HasPrefix(m.FSType, "cgroup") {
			continue
		}
		at := path.Join(t.root, m.Path)
		info, err := s.v.Lstat(at)
		if err != nil {
			if gone(err) {
				continue
			}
			return all, err
		}
		if info.Mode()&fs.ModeSocket != 0 {
			all = append(all, foundSocket{m.Path, m.HostPaths[0]})
			continue
		}
		if !deep || !info.IsDir() {
			continue
		}
		var walk func(rel string) error
		walk = func(rel string) error {
			entries, err := s.v.ReadDir(at + rel)
			if err != nil {
				if gone(err) {
					return nil
				}
				return err
			}
			for _, e := range entries {
				if left--; left < 0 {
					return fmt.Errorf("%s holds too many files to search for a socket that was moved or linked", m.HostPaths[0])
				}
				sub := rel + "/" + e.Name()
				switch {
				case e.Type()&fs.ModeSocket != 0:
					all = append(all, foundSocket{m.Path + sub, m.HostPaths[0] + sub})
				case e.IsDir():
					if err := walk(sub); err != nil {
						return err
					}
				}
			}
			return nil
		}
		if err := walk(""); err != nil {
			return all, err
		}
	}
	return all, nil
}
