package hosttest

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/managemyclaw/hardshell/harden/host"
)

// A Reply is what a scripted program does.
type Reply struct {
	Stdout, Stderr string
	Code           int   // if not zero, the error is a [*host.ExitError]
	Err            error // if not nil, the program cannot be run at all

	// Hang makes the program run until its context is done.
	Hang bool

	// Admin marks a program that changes something. Run through a View it
	// fails instead.
	Admin bool

	// Do, if set, is called and decides the outcome instead of the fields
	// above. It may call methods of the Machine.
	Do func(context.Context, host.Command) (host.Output, error)
}

// Command scripts one command line of a program. Command lines that are not
// scripted fail with an error that names them, and that is not
// [exec.ErrNotFound]: a forgotten fixture is not a missing program.
func (m *Machine) Command(r Reply, name string, args ...string) *Machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	set(&m.replies, commandLine(name, args), r)
	return m
}

// Program scripts every command line of a program for which there is no
// [Machine.Command].
func (m *Machine) Program(name string, r Reply) *Machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	set(&m.programs, name, r)
	return m
}

// Uninstall makes the named programs fail with [exec.ErrNotFound], whatever
// was scripted for them.
func (m *Machine) Uninstall(names ...string) *Machine {
	for _, name := range names {
		m.mu.Lock()
		for line := range m.replies {
			if prog, _, _ := strings.Cut(line, "\x00"); prog == name {
				delete(m.replies, line)
			}
		}
		m.mu.Unlock()
		m.Program(name, Reply{Err: &exec.Error{Name: name, Err: exec.ErrNotFound}})
	}
	return m
}

// HangCommands makes every program run until its context is done.
func (m *Machine) HangCommands() *Machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hang = true
	return m
}

// A Call is something that was asked of a [Machine], whether it succeeded or
// not.
type Call struct {
	Op      string       // "run", "change" (a program that changes something), "write" or "remove"
	Path    string       // of a write or removal
	Command host.Command // of a run or change
}

// Calls returns what was asked of m so far, other than to read files, in
// order.
func (m *Machine) Calls() []Call {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Call(nil), m.calls...)
}

// runner runs the scripted programs of a Machine.
type runner struct {
	m     *Machine
	admin bool
}

func (r runner) Run(ctx context.Context, c host.Command) (host.Output, error) {
	reply, failure := r.begin(c)
	err := ctx.Err()
	if err == nil && !failure.after {
		err = failure.err
	}
	if err == nil && reply.Err != nil {
		err = reply.Err
	}
	if err == nil && reply.Hang {
		<-ctx.Done()
		err = ctx.Err()
	}
	if err != nil {
		return host.Output{}, fmt.Errorf("host: %s: %w", c.Name, err)
	}
	out, err := reply.run(ctx, c)
	if err == nil && failure.err != nil {
		err = fmt.Errorf("host: %s: %w", c.Name, failure.err)
	}
	return out, err
}

func (reply Reply) run(ctx context.Context, c host.Command) (host.Output, error) {
	if reply.Do != nil {
		return reply.Do(ctx, c)
	}
	out := host.Output{Stdout: []byte(reply.Stdout), Stderr: []byte(reply.Stderr)}
	if reply.Code != 0 {
		return out, &host.ExitError{Name: c.Name, Code: reply.Code, Stderr: reply.Stderr}
	}
	return out, nil
}

// begin records the call and finds the reply.
func (r runner) begin(c host.Command) (reply Reply, f failure) {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	op := "run"
	if r.admin {
		op, f = "change", r.m.nextChange()
	}
	r.m.calls = append(r.m.calls, Call{Op: op, Command: c})
	if r.m.hang {
		return Reply{Hang: true}, f
	}
	reply, ok := r.m.replies[commandLine(c.Name, c.Args)]
	if !ok {
		reply, ok = r.m.programs[c.Name]
	}
	switch {
	case !ok:
		reply.Err = fmt.Errorf("hosttest: unscripted command: %q", append([]string{c.Name}, c.Args...))
	case reply.Admin && !r.admin:
		reply.Err = errors.New("hosttest: this command changes the machine and was run through a View")
	}
	return reply, f
}

func commandLine(name string, args []string) string {
	return strings.Join(append([]string{name}, args...), "\x00")
}
