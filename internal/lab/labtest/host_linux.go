package labtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/internal/lab"
)

// Host returns the lab's host as package host has machines: its files, its
// programs and its network, with all privileges. /proc/self and /proc/1 are a
// process of the lab's host, so that they show its namespaces; it ends with the
// test.
func Host(t testing.TB, l *lab.Lab) *host.Host {
	t.Helper()
	anchor := l.Host.Command(t.Context(), "sleep", "3600")
	if err := anchor.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		anchor.Process.Kill()
		anchor.Wait()
	})
	m := &machine{lab: l, anchor: anchor.Process.Pid}
	// nsenter becomes the program once it is in the namespaces.
	for want, err := os.Readlink(l.Host.NetNS()); ; {
		if err != nil {
			t.Fatal(err)
		}
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", m.anchor))
		comm, commErr := os.ReadFile(fmt.Sprintf("/proc/%d/comm", m.anchor))
		if err != nil || commErr != nil {
			t.Fatal(errors.Join(err, commErr))
		}
		if ns == want && string(comm) == "sleep\n" {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return &host.Host{
		View:  host.View{FS: m, Commands: m, Granted: host.AllPrivileges},
		Files: m,
		Admin: m,
	}
}

// machine maps the paths of the lab's host to those that they have here.
type machine struct {
	lab    *lab.Lab
	anchor int
}

func (m *machine) path(name string) string {
	name = path.Join("/", name)
	if rest, ok := strings.CutPrefix(name, "/var/run/"); ok {
		name = "/run/" + rest
	}
	for _, p := range []string{"/proc/self", "/proc/thread-self", "/proc/1"} {
		if rest, ok := strings.CutPrefix(name, p); ok && (rest == "" || rest[0] == '/') {
			return "/proc/" + strconv.Itoa(m.anchor) + rest
		}
	}
	return m.lab.HostPath(name)
}

func (m *machine) Open(name string) (fs.File, error)          { return os.Open(m.path(name)) }
func (m *machine) ReadFile(name string) ([]byte, error)       { return os.ReadFile(m.path(name)) }
func (m *machine) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(m.path(name)) }
func (m *machine) Stat(name string) (fs.FileInfo, error)      { return os.Stat(m.path(name)) }
func (m *machine) Lstat(name string) (fs.FileInfo, error)     { return os.Lstat(m.path(name)) }
func (m *machine) ReadLink(name string) (string, error)       { return os.Readlink(m.path(name)) }

func (m *machine) WriteFile(name string, data []byte, perm fs.FileMode) error {
	return host.Local().WriteFile(m.path(name), data, perm)
}
func (m *machine) Remove(name string) error { return host.Local().Remove(m.path(name)) }

// Run runs a program on the lab's host.
func (m *machine) Run(ctx context.Context, c host.Command) (host.Output, error) {
	if _, err := exec.LookPath(c.Name); err != nil { // nsenter would say so in words alone
		return host.Output{}, fmt.Errorf("lab: %s: %w", c.Name, exec.ErrNotFound)
	}
	return run(ctx, m.lab.Host.Command(ctx, c.Name, c.Args...), c)
}

// run runs cmd, which is c.
func run(ctx context.Context, cmd *exec.Cmd, c host.Command) (host.Output, error) {
	cmd.Env = append(append(os.Environ(), "LC_ALL=C"), c.Env...)
	if c.Stdin != nil {
		cmd.Stdin = bytes.NewReader(c.Stdin)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	out := host.Output{Stdout: stdout.Bytes(), Stderr: stderr.Bytes()}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return out, nil
	case ctx.Err() != nil:
		return out, fmt.Errorf("lab: %s: %w", c.Name, ctx.Err())
	case errors.As(err, &exit):
		return out, &host.ExitError{Name: c.Name, Code: exit.ExitCode(), Stderr: stderr.String()}
	}
	return out, fmt.Errorf("lab: %s: %w", c.Name, err)
}
