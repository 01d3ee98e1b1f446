// Package host is how checks and remedies reach a machine.
//
// A [View] reads and a [Host] also writes. Both are structs of small seams, so
// that a test can put a machine in memory behind them (package hosttest) and
// so that a check, which is given a View, has no method that could change
// anything. [Local] gives the machine that the process runs on.
//
// All paths are absolute and use forward slashes.
package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// ErrNoAccess reports that a [View] or [Host] lacks the seam that an operation
// needs, as the zero View does.
var ErrNoAccess = errors.New("host: no access to a machine")

// A View is read-only access to a machine.
//
// The zero View has access to nothing: it is not the local machine. A test
// that forgets a field sees [ErrNoAccess] instead of reading the computer it
// runs on. Fields must not be changed once the View is in use; methods may
// then be called concurrently.
type View struct {
	// FS is the file tree rooted at "/", with /proc and /sys where the
	// machine has them.
	FS fs.FS

	// Commands runs programs that observe and do not change anything.
	Commands Runner

	// Granted is what the process may do on the machine. Checks that need
	// more are reported as unknown without being run.
	Granted Privilege
}

// ReadFile returns the contents of a file. Errors wrap the causes in package
// io/fs, as all methods of View do: [fs.ErrNotExist], [fs.ErrPermission].
func (v *View) ReadFile(name string) ([]byte, error) {
	rel, err := v.rel("open", name)
	if err != nil {
		return nil, err
	}
	return fs.ReadFile(v.FS, rel)
}

// Open opens a file for reading.
func (v *View) Open(name string) (io.ReadCloser, error) {
	rel, err := v.rel("open", name)
	if err != nil {
		return nil, err
	}
	return v.FS.Open(rel)
}

// ReadDir returns the entries of a directory in order of their names.
func (v *View) ReadDir(name string) ([]fs.DirEntry, error) {
	rel, err := v.rel("open", name)
	if err != nil {
		return nil, err
	}
	return fs.ReadDir(v.FS, rel)
}

// Stat describes a file. Symbolic links are followed.
func (v *View) Stat(name string) (fs.FileInfo, error) {
	rel, err := v.rel("stat", name)
	if err != nil {
		return nil, err
	}
	return fs.Stat(v.FS, rel)
}

// Lstat describes a file. A symbolic link is described itself.
func (v *View) Lstat(name string) (fs.FileInfo, error) {
	rel, err := v.rel("lstat", name)
	if err != nil {
		return nil, err
	}
	return fs.Lstat(v.FS, rel)
}

// ReadLink returns the target of a symbolic link, such as /proc/1/ns/pid.
func (v *View) ReadLink(name string) (string, error) {
	rel, err := v.rel("readlink", name)
	if err != nil {
		return "", err
	}
	return fs.ReadLink(v.FS, rel)
}

// Run runs a program that observes. See [Runner].
func (v *View) Run(ctx context.Context, c Command) (Output, error) {
	if v == nil || v.Commands == nil {
		return Output{}, fmt.Errorf("host: run %s: %w", c.Name, ErrNoAccess)
	}
	return v.Commands.Run(ctx, c)
}

func (v *View) rel(op, name string) (string, error) {
	if v == nil || v.FS == nil {
		return "", &fs.PathError{Op: op, Path: name, Err: ErrNoAccess}
	}
	return relative(op, name)
}

// relative turns an absolute path into one that package io/fs takes.
func relative(op, name string) (string, error) {
	if !strings.HasPrefix(name, "/") || strings.ContainsRune(name, 0) {
		return "", &fs.PathError{Op: op, Path: name, Err: fmt.Errorf("%w: path must be absolute", fs.ErrInvalid)}
	}
	clean := strings.TrimPrefix(path.Clean(name), "/")
	if clean == "" {
		return ".", nil
	}
	return clean, nil
}

// A Host is read and write access to a machine. The zero Host has access to
// nothing.
type Host struct {
	View

	// Files changes files.
	Files Writer

	// Admin runs programs that change something.
	Admin Runner
}

// WriteFile replaces a file. See [Writer].
func (h *Host) WriteFile(name string, data []byte, perm fs.FileMode) error {
	if h == nil || h.Files == nil {
		return &fs.PathError{Op: "write", Path: name, Err: ErrNoAccess}
	}
	return h.Files.WriteFile(name, data, perm)
}

// Remove removes a file. See [Writer].
func (h *Host) Remove(name string) error {
	if h == nil || h.Files == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: ErrNoAccess}
	}
	return h.Files.Remove(name)
}

// Change runs a program that changes something. See [Runner].
func (h *Host) Change(ctx context.Context, c Command) (Output, error) {
	if h == nil || h.Admin == nil {
		return Output{}, fmt.Errorf("host: run %s: %w", c.Name, ErrNoAccess)
	}
	return h.Admin.Run(ctx, c)
}

// A Writer changes files. Paths are absolute. Implementations may be called
// concurrently.
type Writer interface {
	// WriteFile replaces the file atomically and durably: a reader sees the
	// old contents or the new, never a mixture, also after a crash. The mode
	// and owner of a file that exists are kept; perm is for a new one.
	WriteFile(name string, data []byte, perm fs.FileMode) error

	// Remove removes a file or an empty directory.
	Remove(name string) error
}

// A Command is a program to run. Fields may be added in later versions.
type Command struct {
	Name  string   // looked up in the PATH of the machine unless it has a slash
	Args  []string // without the name
	Stdin []byte
	Env   []string // added to the environment, as "KEY=value"
}

// Output is what a program wrote.
type Output struct {
	Stdout, Stderr []byte
}

// A Runner runs programs. Implementations may be called concurrently.
type Runner interface {
	// Run runs a program to its end and returns what it wrote.
	//
	// The error is an [*ExitError] if the program ended with a status other
	// than zero, wraps [os/exec.ErrNotFound] if it is not installed, and
	// wraps the error of ctx if that ended first, in which case the program
	// has been killed. Run returns soon after ctx is done even if a
	// descendant of the program keeps its output open.
	Run(ctx context.Context, c Command) (Output, error)
}

// An ExitError reports a program that ended with a status other than zero.
type ExitError struct {
	Name   string
	Code   int    // -1 if a signal ended it
	Stderr string // the beginning of what it wrote there
}

func (e *ExitError) Error() string {
	msg := fmt.Sprintf("host: %s: exit status %d", e.Name, e.Code)
	if s := strings.TrimSpace(e.Stderr); s != "" {
		msg += ": " + s
	}
	return msg
}
