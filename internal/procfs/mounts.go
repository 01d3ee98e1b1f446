package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// Mount is one line of /proc/PID/mountinfo.
type Mount struct {
	ID, Parent int
	Device     string // "major:minor"
	Root       string // what of the file system is mounted
	Path       string // where
	Options    []string
	Tags       []string // such as "shared:1", "master:2"
	FSType     string
	Source     string
	Super      []string
}

// ParseMountinfo parses /proc/PID/mountinfo.
func ParseMountinfo(data []byte) ([]Mount, error) {
	var all []Mount
	for line := range bytes.Lines(data) {
		m, err := parseMount(strings.TrimSuffix(string(line), "\n"))
		if err != nil {
			return nil, fmt.Errorf("mountinfo: %w: %q", err, line)
		}
		all = append(all, m)
	}
	if len(all) == 0 {
		return nil, errors.New("mountinfo: empty")
	}
	return all, nil
}

func parseMount(line string) (Mount, error) {
	f := strings.Split(line, " ")
	sep := -1
	for i := 6; i < len(f); i++ {
		if f[i] == "-" {
			sep = i
			break
		}
	}
	if sep < 0 || len(f) < sep+4 {
		return Mount{}, errors.New("malformed line")
	}
	id, err := strconv.Atoi(f[0])
	if err != nil {
		return Mount{}, err
	}
	parent, err := strconv.Atoi(f[1])
	if err != nil {
		return Mount{}, err
	}
	m := Mount{
		ID: id, Parent: parent, Device: f[2],
		Root: Unescape(f[3]), Path: Unescape(f[4]),
		Options: strings.Split(f[5], ","), Tags: f[6:sep],
		FSType: f[sep+1], Source: Unescape(f[sep+2]), Super: strings.Split(f[sep+3], ","),
	}
	if !strings.HasPrefix(m.Path, "/") {
		return Mount{}, errors.New("the mount point is not absolute")
	}
	return m, nil
}

// Unescape undoes the kernel's octal escapes, such as \040 for a space.
func Unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Below reports whether name is dir or below it. Both are clean and absolute.
func Below(name, dir string) bool {
	rest, ok := strings.CutPrefix(name, dir)
	return ok && (rest == "" || rest[0] == '/' || dir == "/")
}

// Tree is a mount tree, indexed.
type Tree struct {
	Mounts   []Mount
	children map[int][]int    // by mount id
	devices  map[string][]int // by device
	root     int              // -1 if there is none
}

// NewTree indexes mounts, which it keeps.
func NewTree(mounts []Mount) *Tree {
	t := &Tree{
		Mounts:   mounts,
		children: make(map[int][]int, len(mounts)),
		devices:  make(map[string][]int),
		root:     -1,
	}
	known := make(map[int]bool, len(mounts))
	for _, m := range mounts {
		known[m.ID] = true
	}
	for i, m := range mounts {
		t.children[m.Parent] = append(t.children[m.Parent], i)
		t.devices[m.Device] = append(t.devices[m.Device], i)
		if m.Path == "/" && (!known[m.Parent] || m.Parent == m.ID) && t.root < 0 {
			t.root = i
		}
	}
	return t
}

// Top returns the index of the mount that a path is on, or -1. It goes down
// the tree as the kernel does, so that a mount which a later one covers is not
// found.
func (t *Tree) Top(name string) int {
	cur := t.root
	for range t.Mounts { // at most: ids that repeat could lead in a circle
		if cur < 0 {
			break
		}
		next := t.step(cur, name)
		if next < 0 {
			break
		}
		cur = next
	}
	return cur
}

// step returns the mount on top of mount i that comes first on the way to name.
func (t *Tree) step(i int, name string) int {
	best := -1
	for _, c := range t.children[t.Mounts[i].ID] {
		m := t.Mounts[c]
		if c == i || !Below(name, m.Path) || !Below(m.Path, t.Mounts[i].Path) {
			continue
		}
		if best < 0 || len(m.Path) <= len(t.Mounts[best].Path) { // the last of equals
			best = c
		}
	}
	return best
}

// InFileSystem returns where a path is within the file system that holds it:
// the device, and the path below that file system's root.
func (t *Tree) InFileSystem(name string) (device, within string, ok bool) {
	i := t.Top(name)
	if i < 0 {
		return "", "", false
	}
	m := t.Mounts[i]
	rest := name
	if m.Path != "/" {
		rest = strings.TrimPrefix(name, m.Path)
	}
	return m.Device, path.Join(m.Root, rest), true
}

// Paths returns where the tree shows the file that is at within on a device:
// the inverse of InFileSystem.
func (t *Tree) Paths(device, within string) []string {
	var all []string
	for _, i := range t.devices[device] {
		m := t.Mounts[i]
		if !Below(within, m.Root) {
			continue
		}
		rest := within
		if m.Root != "/" {
			rest = strings.TrimPrefix(within, m.Root)
		}
		name := path.Join(m.Path, rest)
		if t.Top(name) == i { // not covered by another mount
			all = append(all, name)
		}
	}
	return all
}
