package ufw

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/firewall"
)

// commandTimeout ends a program that waits for a lock. UFW and the iptables of
// its own accord would wait without limit; "ufw enable" takes a second
// or two on a small machine.
const commandTimeout = 10 * time.Second

// lockFiles are what UFW, and the legacy flavour of iptables, wait for.
var lockFiles = []string{"run/ufw.lock", "run/xtables.lock"}

// A LockError reports a program that was ended because it took too long, most
// likely because another holds a lock that it waits for. It wraps
// [context.DeadlineExceeded].
type LockError struct {
	Program string
	Held    []Lock // the locks that are held; empty if that could not be seen
	Err     error
}

// A Lock is a lock on a file, held by a process.
type Lock struct {
	Path    string
	PID     int
	Command string // its name, empty if it could not be read
}

func (e *LockError) Error() string {
	msg := fmt.Sprintf("%s did not end in time", e.Program)
	if len(e.Held) == 0 {
		return msg + ": look who holds /" + strings.Join(lockFiles, " or /") + ": " + e.Err.Error()
	}
	for _, l := range e.Held {
		msg += fmt.Sprintf(": %s is locked by process %d", l.Path, l.PID)
		if l.Command != "" {
			msg += " (" + l.Command + ")"
		}
	}
	return msg + ": let it finish, or end it, and try again"
}

func (e *LockError) Unwrap() error { return e.Err }

// runBounded runs a program and ends it after commandTimeout.
func runBounded(ctx context.Context, files fs.FS, run firewall.Runner, stdin []byte, name string, args ...string) ([]byte, error) {
	bounded, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	out, err := run.Run(bounded, stdin, name, args...)
	switch {
	case err == nil:
		return out, nil
	case ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded):
		return out, err
	case errors.Is(err, context.DeadlineExceeded):
		return out, &LockError{Program: strings.Join(append([]string{name}, args...), " "), Held: heldLocks(files), Err: err}
	}
	return out, permission(err)
}

// permission gives the complaints of programs that lack the right to look the
// identity that a caller can act on.
func permission(err error) error {
	exit, ok := errors.AsType[*firewall.ExitError](err)
	if !ok {
		return err
	}
	for _, text := range []string{"you must be root", "need to be root", "Permission denied", "Operation not permitted"} {
		if strings.Contains(exit.Stderr, text) {
			return fmt.Errorf("%w: %w", err, fs.ErrPermission)
		}
	}
	return err
}

// heldLocks returns the locks on lockFiles that /proc/locks shows, as far as
// they can be seen. A process waiting is not shown.
func heldLocks(files fs.FS) []Lock {
	data, err := fs.ReadFile(files, "proc/locks")
	if err != nil {
		return nil
	}
	var held []Lock
	for _, name := range lockFiles {
		id, ok := lockID(files, name)
		if !ok {
			continue
		}
		for _, pid := range parseLocks(data, id) {
			l := Lock{Path: "/" + name, PID: pid}
			if comm, err := fs.ReadFile(files, "proc/"+strconv.Itoa(pid)+"/comm"); err == nil {
				l.Command = strings.TrimSpace(string(comm))
			}
			held = append(held, l)
		}
	}
	return held
}

// parseLocks returns the processes that hold a lock on the file id, as
// proc_locks(5) writes it. A line with an arrow is of one that waits.
func parseLocks(data []byte, id string) []int {
	var pids []int
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] == "->" || f[5] != id {
			continue
		}
		if pid, err := strconv.Atoi(f[4]); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}
