package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Bounds on a program that [Local] runs.
const (
	// DefaultCommandTimeout ends a program whose context has no deadline.
	DefaultCommandTimeout = 30 * time.Second
	// MaxOutput is how much of each output stream is kept; a program that
	// writes more is an error wrapping [ErrOutputTooLong].
	MaxOutput = 16 << 20

	waitDelay   = 2 * time.Second
	maxExitText = 1 << 10
)

// ErrOutputTooLong reports a program that wrote more than [MaxOutput].
var ErrOutputTooLong = errors.New("output too long")

// Local returns the machine that the process runs on, with the privileges that
// the process has now.
//
// Files are those the process sees, symbolic links included: in a container
// that is the container's tree.
func Local() *Host {
	run := localRunner{}
	return &Host{
		// Not os.Root: it refuses absolute symbolic links, of which
		// /etc is full, even when it is rooted at "/".
		View:  View{FS: os.DirFS("/"), Commands: run, Granted: granted()},
		Files: localWriter{},
		Admin: run,
	}
}

type localRunner struct{}

func (localRunner) Run(ctx context.Context, c Command) (Output, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultCommandTimeout)
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, c.Name, c.Args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Env = append(cmd.Env, c.Env...)
	if c.Stdin != nil {
		cmd.Stdin = bytes.NewReader(c.Stdin)
	}
	var stdout, stderr limited
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = waitDelay // a grandchild may hold the pipe open
	err := cmd.Run()
	out := Output{Stdout: stdout.buf.Bytes(), Stderr: stderr.buf.Bytes()}
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		// The program ended well; what a descendant still writes is not its output.
		if stdout.over || stderr.over {
			return out, fmt.Errorf("host: %s: %w", c.Name, ErrOutputTooLong)
		}
		return out, nil
	case ctx.Err() != nil:
		return out, fmt.Errorf("host: %s: %w", c.Name, ctx.Err())
	}
	if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, exec.ErrNotFound) {
		// A name with a slash is not looked up, so package exec says no more than ENOENT.
		return out, fmt.Errorf("host: %w: %w", exec.ErrNotFound, err)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		text := out.Stderr
		if len(text) > maxExitText {
			text = text[:maxExitText]
		}
		return out, &ExitError{Name: c.Name, Code: exit.ExitCode(), Stderr: string(text)}
	}
	return out, fmt.Errorf("host: %w", err)
}

// limited keeps the first MaxOutput bytes.
type limited struct {
	buf  bytes.Buffer
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	keep := p
	if room := MaxOutput - l.buf.Len(); len(keep) > room {
		keep, l.over = keep[:room], true
	}
	l.buf.Write(keep)
	return len(p), nil
}

type localWriter struct{}

func (localWriter) WriteFile(name string, data []byte, perm fs.FileMode) (err error) {
	name, err = cleaned("write", name)
	if err != nil {
		return err
	}
	// Write through a symbolic link to the file it stands for, as an editor
	// would, instead of replacing the link.
	target, err := filepath.EvalSymlinks(name)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(name); err == nil {
			return &fs.PathError{Op: "write", Path: name, Err: fmt.Errorf("%w: dangling symbolic link", fs.ErrInvalid)}
		}
		target = name
	} else if err != nil {
		return err
	}
	old, err := os.Stat(target)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if old != nil {
		if !old.Mode().IsRegular() {
			return &fs.PathError{Op: "write", Path: name, Err: fmt.Errorf("%w: not a regular file", fs.ErrInvalid)}
		}
		perm = old.Mode()
	}
	dir := filepath.Dir(target)
	tmp, err := os.CreateTemp(dir, ".hardshell-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	_, err = tmp.Write(data)
	if err == nil && old != nil {
		err = chownLike(tmp, old)
	}
	if err == nil {
		err = tmp.Chmod(perm)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), target); err != nil {
		return err
	}
	return syncDir(dir)
}

func (localWriter) Remove(name string) error {
	name, err := cleaned("remove", name)
	if err != nil {
		return err
	}
	if err := os.Remove(name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

// cleaned returns name without dot-dot elements, so that a path means the same
// file to a Writer as to a View.
func cleaned(op, name string) (string, error) {
	rel, err := relative(op, name)
	return filepath.Clean("/" + rel), err
}

// syncDir makes a rename or removal in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		err = nil // some systems cannot sync a directory
	}
	return errors.Join(err, d.Close())
}

// capability numbers of linux/capability.h
const (
	capDACOverride   = 1
	capDACReadSearch = 2
	capKill          = 5
	capNetAdmin      = 12
	capSysPtrace     = 19
	capSysAdmin      = 21
)

// privilegesOf translates the CapEff line of /proc/PID/status.
func privilegesOf(status string) (Privilege, bool) {
	for line := range strings.Lines(status) {
		hex, ok := strings.CutPrefix(line, "CapEff:")
		if !ok {
			continue
		}
		caps, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		if err != nil {
			return 0, false
		}
		has := func(c int) bool { return caps&(1<<c) != 0 }
		var p Privilege
		if has(capDACOverride) {
			p |= ReadFiles | WriteFiles
		}
		if has(capDACReadSearch) {
			p |= ReadFiles
		}
		if has(capSysPtrace) {
			p |= ReadProcesses
		}
		if has(capNetAdmin) {
			p |= AdminNetwork
		}
		if has(capSysAdmin) {
			p |= AdminSystem
		}
		if has(capKill) {
			p |= SignalProcesses
		}
		return p, true
	}
	return 0, false
}
