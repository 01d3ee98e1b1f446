package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"syscall"
)

// localFiles are those of this machine, as an engine sees them: it may have
// mounts of its own.
type localFiles struct{ enginePID int }

// at returns the paths that a path of the engine may have here.
func (l localFiles) at(name string) []string {
	if l.enginePID <= 0 {
		return []string{name}
	}
	return []string{path.Join("/proc", strconv.Itoa(l.enginePID), "root", name), name}
}

func (l localFiles) find(c *Container, m Mount) (tree, error) {
	source := m.Source
	if d := m.Options["device"]; d != "" {
		source = d // the engine's own directory is empty unless a container runs
	}
	source = path.Clean("/" + source)
	seen, err := os.Lstat(path.Join("/proc", strconv.Itoa(c.PID), "root", path.Clean("/"+m.Destination)))
	if err != nil {
		return tree{}, err
	}
	st := seen.Sys().(*syscall.Stat_t)
	t := tree{Path: source, Dev: uint64(st.Dev), Ino: st.Ino} //nolint:unconvert // 32 bits on some machines
	_, err = l.locate(t)
	return t, err
}

// locate returns where a tree is here.
func (l localFiles) locate(t tree) (string, error) {
	var first error
	for _, name := range l.at(t.Path) {
		info, err := os.Stat(name)
		switch {
		case err != nil:
		case sameFile(info, t):
			return name, nil
		default:
			err = fmt.Errorf("%s is not what the container has, or had, as its own", name)
		}
		if first == nil {
			first = err
		}
	}
	return "", first
}

func sameFile(info fs.FileInfo, t tree) bool {
	st := info.Sys().(*syscall.Stat_t)
	return uint64(st.Dev) == t.Dev && st.Ino == t.Ino //nolint:unconvert // 32 bits on some machines
}

// open opens a tree for what is below it; name is what it is called there.
func (l localFiles) open(t tree) (root *os.Root, name string, err error) {
	dir, err := l.locate(t)
	if err != nil {
		return nil, "", err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, "", err
	}
	name = "."
	if !info.IsDir() {
		dir, name = path.Split(dir)
	}
	if root, err = os.OpenRoot(dir); err != nil {
		return nil, "", err
	}
	// What was opened, not what was there before.
	opened, err := root.Lstat(name)
	if err == nil && !sameFile(opened, t) {
		err = fmt.Errorf("%s changed while it was opened", t.Path)
	}
	if err != nil {
		root.Close()
		return nil, "", err
	}
	return root, name, nil
}

func (l localFiles) scan(t tree, to Owner) ([]owned, error) {
	root, start, err := l.open(t)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var all []owned
	queue := []string{start}
	for len(queue) > 0 {
		name := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		info, err := root.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		st := info.Sys().(*syscall.Stat_t)
		if uint64(st.Dev) != t.Dev { //nolint:unconvert // 32 bits on some machines
			continue // another file system is mounted here
		}
		if st.Uid != to.UID || st.Gid != to.GID {
			o := owned{Name: []byte(name), Owner: Owner{UID: st.Uid, GID: st.Gid}}
			if info.Mode().IsRegular() && st.Mode&0o6000 != 0 {
				o.Mode = st.Mode & 0o7777
			}
			if all = append(all, o); len(all) > maxOwned {
				return nil, fmt.Errorf("%s holds more than %d files: give them to %d:%d by hand", t.Path, maxOwned, to.UID, to.GID)
			}
		}
		if info.IsDir() {
			dir, err := root.Open(name)
			if err != nil {
				return nil, err
			}
			names, err := dir.Readdirnames(-1)
			if err = errors.Join(err, dir.Close()); err != nil {
				return nil, err
			}
			for _, n := range names {
				queue = append(queue, path.Join(name, n))
			}
		}
	}
	return all, nil
}

func (l localFiles) set(t tree, all []owned) error {
	if len(all) == 0 {
		return nil
	}
	root, _, err := l.open(t)
	if err != nil {
		return err
	}
	defer root.Close()
	var failed []error
	for _, o := range all {
		name := string(o.Name)
		err := root.Lchown(name, int(o.UID), int(o.GID))
		if err == nil && o.Mode != 0 {
			var info fs.FileInfo
			if info, err = root.Lstat(name); err == nil && info.Mode().IsRegular() {
				err = root.Chmod(name, fileMode(o.Mode))
			}
		}
		// A parent that is no directory any more is gone as well.
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			if failed = append(failed, err); len(failed) == 10 {
				break
			}
		}
	}
	return errors.Join(failed...)
}

func fileMode(unix uint32) fs.FileMode {
	m := fs.FileMode(unix & 0o777)
	if unix&syscall.S_ISUID != 0 {
		m |= fs.ModeSetuid
	}
	if unix&syscall.S_ISGID != 0 {
		m |= fs.ModeSetgid
	}
	if unix&syscall.S_ISVTX != 0 {
		m |= fs.ModeSticky
	}
	return m
}
