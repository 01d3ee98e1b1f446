package access

import (
	"errors"
	"io/fs"
	"path"
	"strings"

	"github.com/managemyclaw/hardshell/harden/host"
)

// inRoot follows the symbolic links of a path as a process does whose root is
// at root, such as /proc/4711/root: the operating system would follow absolute
// ones from our own. It returns the path without links, below root.
func inRoot(v *host.View, root, name string) (string, fs.FileInfo, error) {
	const maxLinks = 40 // as the kernel has it, path_resolution(7)
	done, links := "/", 0
	for todo := strings.Split(name, "/"); len(todo) > 0; {
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
		info, err := v.Lstat(path.Join(root, next))
		if err != nil {
			return "", nil, err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", nil, &fs.PathError{Op: "resolve", Path: name, Err: errors.New("too many symbolic links")}
		}
		target, err := v.ReadLink(path.Join(root, next))
		if err != nil {
			return "", nil, err
		}
		if path.IsAbs(target) {
			done = "/"
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	info, err := v.Lstat(path.Join(root, done))
	return done, info, err
}
