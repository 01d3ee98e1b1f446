// Package hosttest puts a machine in memory, for tests of checks and remedies.
//
// A [Machine] behaves as the machine behind [host.Local] does; one table of
// cases is run against both. What a test did not script fails loudly: a check
// cannot pass because a fixture was forgotten.
package hosttest

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing/fstest"

	"github.com/managemyclaw/hardshell/harden/host"
)

// A Machine is a machine in memory. The zero Machine is ready for use: it has
// an empty root directory, no program, and grants all privileges.
//
// Set it up, then hand out its [Machine.View] or [Machine.Host]. All methods
// may be called concurrently. Methods that set it up return the Machine, so
// that a fixture can be one expression; they panic on a path that is not
// absolute.
type Machine struct {
	// Lacks is what the process may not do. Set it before the first View.
	Lacks host.Privilege

	mu       sync.Mutex
	files    fstest.MapFS // by path without the leading slash; entries are never changed in place
	denied   map[string]bool
	broken   map[string]error // reads that fail
	replies  map[string]Reply
	programs map[string]Reply
	hang     bool
	changes  int
	failures map[int]failure // by number of the change
	calls    []Call
	watched  map[string]func() string
}

// View returns read-only access to m.
func (m *Machine) View() *host.View {
	return &host.View{
		FS:       tree{m},
		Commands: runner{m: m},
		Granted:  host.AllPrivileges &^ m.Lacks,
	}
}

// Host returns read and write access to m.
func (m *Machine) Host() *host.Host {
	return &host.Host{View: *m.View(), Files: writer{m}, Admin: runner{m: m, admin: true}}
}

// File puts a file on m, replacing what is there, with mode 0o644.
func (m *Machine) File(name, contents string) *Machine {
	return m.FileMode(name, contents, 0o644)
}

// FileMode puts a file with the given mode on m. The mode is reported, not
// enforced: like the super-user, a test may read everything that is not
// denied.
func (m *Machine) FileMode(name, contents string, mode fs.FileMode) *Machine {
	return m.put(name, &fstest.MapFile{Data: []byte(contents), Mode: mode})
}

// Dir puts a directory on m. Files bring their directories with them, with
// mode 0o755.
func (m *Machine) Dir(name string, perm fs.FileMode) *Machine {
	return m.put(name, &fstest.MapFile{Mode: fs.ModeDir | perm})
}

// Symlink puts a symbolic link on m.
func (m *Machine) Symlink(name, target string) *Machine {
	return m.put(name, &fstest.MapFile{Data: []byte(target), Mode: fs.ModeSymlink | 0o777})
}

// Deny makes every access to the named files fail with [fs.ErrPermission],
// and to everything below them if they are directories, whether they exist or
// not: as if their directories could not be searched.
func (m *Machine) Deny(names ...string) *Machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		set(&m.denied, mustRelative(name), true)
	}
	return m
}

// FailRead makes reading the named file fail with err, for faults other than
// those that [Machine.Deny] stands for.
func (m *Machine) FailRead(name string, err error) *Machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	set(&m.broken, mustRelative(name), err)
	return m
}

// FailChange makes the n-th change from now on fail with err and change
// nothing; the next is number 1. A change is a write, a removal or a program
// run by [host.Host.Change].
func (m *Machine) FailChange(n int, err error) *Machine {
	return m.fail(n, failure{err: err})
}

// FailAfterChange makes the n-th change from now on return err although it has
// been made, as a disk may that fails when a change is made durable.
func (m *Machine) FailAfterChange(n int, err error) *Machine {
	return m.fail(n, failure{err: err, after: true})
}

type failure struct {
	err   error
	after bool
}

func (m *Machine) fail(n int, f failure) *Machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	set(&m.failures, m.changes+n, f)
	return m
}

// Changes returns how many changes have been attempted.
func (m *Machine) Changes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changes
}

// Read returns the contents of a file on m, whether access to it is denied or
// not, and whether it is there. Symbolic links are not followed.
func (m *Machine) Read(name string) (contents string, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.files[mustRelative(name)]
	if f == nil || !f.Mode.IsRegular() {
		return "", false
	}
	return string(f.Data), true
}

func (m *Machine) put(name string, f *fstest.MapFile) *Machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	rel := mustRelative(name)
	for dir := path.Dir(rel); dir != "."; dir = path.Dir(dir) {
		if m.files[dir] == nil {
			set(&m.files, dir, &fstest.MapFile{Mode: fs.ModeDir | 0o755})
		}
	}
	set(&m.files, rel, f)
	return m
}

const maxLinks = 40

// resolve follows symbolic links, the last one only if follow is true, and
// returns the file and its path. If only the last element is missing it
// returns [fs.ErrNotExist] and the path where the file would be; with every
// other error the path is empty.
func (m *Machine) resolve(rel string, follow bool) (string, *fstest.MapFile, error) {
	if m.denied["."] {
		return "", nil, fs.ErrPermission
	}
	at, f := ".", &fstest.MapFile{Mode: fs.ModeDir | 0o755}
	todo := split(rel)
	for links := 0; len(todo) > 0; {
		var name string
		name, todo = todo[0], todo[1:]
		if !f.Mode.IsDir() {
			return "", nil, syscall.ENOTDIR
		}
		next := path.Join(at, name)
		if at == "." && name == ".." {
			next = "."
		}
		if m.denied[next] {
			return "", nil, fs.ErrPermission
		}
		found := m.files[next]
		switch {
		case next == ".":
			at, f = ".", &fstest.MapFile{Mode: fs.ModeDir | 0o755}
		case found == nil && len(todo) == 0:
			return next, nil, fs.ErrNotExist
		case found == nil:
			return "", nil, fs.ErrNotExist
		case found.Mode.Type() == fs.ModeSymlink && (follow || len(todo) > 0):
			if links++; links > maxLinks {
				return "", nil, syscall.ELOOP
			}
			target := string(found.Data)
			if strings.HasPrefix(target, "/") {
				at = "."
			}
			todo = append(split(target), todo...)
		default:
			at, f = next, found
		}
	}
	return at, f, nil
}

func split(name string) []string {
	return slices.DeleteFunc(strings.Split(name, "/"), func(s string) bool { return s == "" || s == "." })
}

// tree is the file tree of a Machine.
type tree struct{ m *Machine }

var _ interface {
	fs.ReadDirFS
	fs.ReadFileFS
	fs.StatFS
	fs.ReadLinkFS
} = tree{}

func (t tree) Open(name string) (fs.File, error) {
	f, err := look(t, "open", name, true, fstest.MapFS.Open)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (t tree) ReadFile(name string) ([]byte, error) {
	return look(t, "open", name, true, fstest.MapFS.ReadFile)
}

func (t tree) ReadDir(name string) ([]fs.DirEntry, error) {
	return look(t, "open", name, true, fstest.MapFS.ReadDir)
}

func (t tree) Stat(name string) (fs.FileInfo, error) {
	return look(t, "stat", name, true, fstest.MapFS.Lstat)
}

func (t tree) Lstat(name string) (fs.FileInfo, error) {
	return look(t, "lstat", name, false, fstest.MapFS.Lstat)
}

func (t tree) ReadLink(name string) (string, error) {
	return look(t, "readlink", name, false, fstest.MapFS.ReadLink)
}

// look resolves name and calls read on what it stands for.
func look[R any](t tree, op, name string, follow bool, read func(fstest.MapFS, string) (R, error)) (R, error) {
	var zero R
	fail := func(err error) (R, error) { return zero, &fs.PathError{Op: op, Path: name, Err: err} }
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	at, f, err := t.m.resolve(name, follow)
	if err != nil {
		return fail(err)
	}
	if err := t.m.broken[at]; err != nil && op == "open" {
		return fail(err)
	}
	got, err := read(t.m.under(name, at, f), name)
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return fail(e.Err)
	}
	return got, err
}

// under returns the file at a path, with its entries if it is a directory,
// under the name by which it was asked for.
func (m *Machine) under(name, at string, f *fstest.MapFile) fstest.MapFS {
	found := make(fstest.MapFS)
	if name != "." {
		found[name] = f
	}
	if f.Mode.IsDir() {
		for other, f := range m.files {
			if path.Dir(other) == at {
				found[path.Join(name, path.Base(other))] = f
			}
		}
	}
	return found
}

// writer changes the files of a Machine.
type writer struct{ m *Machine }

func (w writer) WriteFile(name string, data []byte, perm fs.FileMode) error {
	return w.change("write", name, true, func(at string, old *fstest.MapFile, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if _, _, err := w.m.resolve(mustRelative(name), false); err == nil {
				return fmt.Errorf("%w: dangling symbolic link", fs.ErrInvalid)
			}
			if at == "" {
				return err // its directory is missing too
			}
			perm = perm.Perm()
		case err != nil:
			return err
		case !old.Mode.IsRegular():
			return fmt.Errorf("%w: not a regular file", fs.ErrInvalid)
		default:
			perm = old.Mode
		}
		set(&w.m.files, at, &fstest.MapFile{Data: slices.Clone(data), Mode: perm})
		return nil
	})
}

func (w writer) Remove(name string) error {
	return w.change("remove", name, false, func(at string, _ *fstest.MapFile, err error) error {
		if err != nil {
			return err
		}
		if at == "." {
			return fs.ErrInvalid
		}
		for other := range w.m.files {
			if strings.HasPrefix(other, at+"/") {
				return syscall.ENOTEMPTY
			}
		}
		delete(w.m.files, at)
		return nil
	})
}

func (w writer) change(op, name string, follow bool, do func(string, *fstest.MapFile, error) error) error {
	fail := func(err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }
	rel, err := relative(name)
	if err != nil {
		return fail(err)
	}
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	w.m.calls = append(w.m.calls, Call{Op: op, Path: name})
	failure := w.m.nextChange()
	if failure.err != nil && !failure.after {
		return fail(failure.err)
	}
	at, f, err := w.m.resolve(rel, follow)
	if err := do(at, f, err); err != nil {
		return fail(err)
	}
	if failure.err != nil {
		return fail(failure.err)
	}
	return nil
}

// nextChange counts a change and returns how it is to fail.
func (m *Machine) nextChange() failure {
	m.changes++
	return m.failures[m.changes]
}

// A Snapshot is the state of a [Machine] at one moment: its files and what it
// watches.
type Snapshot struct{ state map[string]string }

// Snapshot returns the state of m.
func (m *Machine) Snapshot() Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Snapshot{state: make(map[string]string, len(m.files)+len(m.watched))}
	for name, f := range m.files {
		s.state["/"+name] = fmt.Sprintf("%v %q", f.Mode, f.Data)
	}
	for name, state := range m.watched {
		s.state[name] = state()
	}
	return s
}

// Watch includes in each [Snapshot] of m something outside its files, under a
// name that is no path, such as the state that a scripted program keeps. state
// must not call methods of m.
func (m *Machine) Watch(name string, state func() string) *Machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	set(&m.watched, name, state)
	return m
}

// Equal reports whether nothing differs between s and t.
func (s Snapshot) Equal(t Snapshot) bool { return maps.Equal(s.state, t.state) }

// Diff describes what changed from s to t, a line for each file, or returns
// "".
func (s Snapshot) Diff(t Snapshot) string {
	names := slices.Sorted(maps.Keys(s.state))
	for name := range t.state {
		if _, ok := s.state[name]; !ok {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, cmp.Compare)
	var b strings.Builder
	for _, name := range names {
		before, was := s.state[name]
		after, is := t.state[name]
		switch {
		case !was:
			fmt.Fprintf(&b, "%s: added: %s\n", name, after)
		case !is:
			fmt.Fprintf(&b, "%s: removed: %s\n", name, before)
		case before != after:
			fmt.Fprintf(&b, "%s: was %s, is %s\n", name, before, after)
		}
	}
	return b.String()
}

// Contains reports whether text occurs in a file of m or in what a scripted
// program prints.
func (m *Machine) Contains(text string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.files {
		if strings.Contains(string(f.Data), text) {
			return true
		}
	}
	for _, replies := range []map[string]Reply{m.replies, m.programs} {
		for _, r := range replies {
			if strings.Contains(r.Stdout+r.Stderr, text) {
				return true
			}
		}
	}
	return false
}

// relative turns an absolute path into one that package io/fs takes.
func relative(name string) (string, error) {
	if !strings.HasPrefix(name, "/") || strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("%w: path must be absolute", fs.ErrInvalid)
	}
	return cmp.Or(strings.TrimPrefix(path.Clean(name), "/"), "."), nil
}

func mustRelative(name string) string {
	rel, err := relative(name)
	if err != nil {
		panic(fmt.Sprintf("hosttest: %q: %v", name, err))
	}
	return rel
}

// set is m[k] = v for a map that may be nil.
func set[M ~map[K]V, K comparable, V any](m *M, k K, v V) {
	if *m == nil {
		*m = make(M)
	}
	(*m)[k] = v
}
