package hosttest_test

import (
	"context"
	"errors"
	"io/fs"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/harden/host/hosttest"
)

var errDisk = errors.New("disk full")

func TestFS(t *testing.T) {
	m := new(hosttest.Machine).
		File("/etc/ssh/sshd_config", "PermitRootLogin no\n").
		FileMode("/usr/bin/su", "", fs.ModeSetuid|0o755).
		Dir("/tmp", fs.ModeSticky|0o777).
		Symlink("/bin", "usr/bin").
		Symlink("/proc/1/root", "/").
		Symlink("/etc/up", "../../..")
	require.NoError(t, fstest.TestFS(m.View().FS, "etc/ssh/sshd_config", "usr/bin/su", "tmp", "bin"))

	data, err := m.View().ReadFile("/proc/1/root/proc/1/root/etc/up/etc/ssh/sshd_config")
	require.NoError(t, err)
	assert.Equal(t, "PermitRootLogin no\n", string(data))
	require.NoError(t, fstest.TestFS(new(hosttest.Machine).View().FS))
}

func TestZeroMachineGrantsAll(t *testing.T) {
	assert.Equal(t, host.AllPrivileges, new(hosttest.Machine).View().Granted)
	assert.Equal(t, host.AllPrivileges&^host.ReadFiles, (&hosttest.Machine{Lacks: host.ReadFiles}).View().Granted)
}

func TestDeny(t *testing.T) {
	m := new(hosttest.Machine).File("/etc/shadow", "x").File("/root/.ssh/id", "x").Symlink("/s", "etc/shadow").
		Deny("/etc/shadow", "/root", "/absent")
	h := m.Host()
	for _, name := range []string{"/etc/shadow", "/s", "/root", "/root/.ssh/id", "/root/absent", "/absent"} {
		_, err := h.ReadFile(name)
		assert.ErrorIs(t, err, fs.ErrPermission, name)
		_, err = h.Stat(name)
		assert.ErrorIs(t, err, fs.ErrPermission, name)
		assert.ErrorIs(t, h.WriteFile(name, nil, 0o600), fs.ErrPermission, name)
		if name != "/s" {
			assert.ErrorIs(t, h.Remove(name), fs.ErrPermission, name)
		}
	}
	_, err := h.ReadDir("/etc")
	require.NoError(t, err)
	contents, ok := m.Read("/etc/shadow")
	assert.True(t, ok, "the test itself may look")
	assert.Equal(t, "x", contents)

	_, err = new(hosttest.Machine).Deny("/").View().ReadDir("/")
	assert.ErrorIs(t, err, fs.ErrPermission)
}

func TestFailRead(t *testing.T) {
	m := new(hosttest.Machine).File("/f", "x").FailRead("/f", errDisk)
	_, err := m.View().ReadFile("/f")
	require.ErrorIs(t, err, errDisk)
	_, err = m.View().Stat("/f")
	require.NoError(t, err)
}

// The change that is told to fail fails, changes nothing, and is the only one.
func TestFailChange(t *testing.T) {
	for n := 1; n <= 3; n++ {
		state := ""
		m := new(hosttest.Machine).File("/b", "old").Watch("kernel", func() string { return state })
		m.Command(hosttest.Reply{Admin: true, Do: func(context.Context, host.Command) (host.Output, error) {
			state = "set"
			return host.Output{}, nil
		}}, "sysctl", "-w", "a=1")
		require.NoError(t, m.Host().WriteFile("/b", []byte("older"), 0o600))
		m.FailChange(n, errDisk)

		changes := []func() error{
			func() error { return m.Host().WriteFile("/a", []byte("new"), 0o600) },
			func() error { return m.Host().Remove("/b") },
			func() error {
				_, err := m.Host().Change(t.Context(), host.Command{Name: "sysctl", Args: []string{"-w", "a=1"}})
				return err
			},
		}
		for i, change := range changes {
			before := m.Snapshot()
			if err := change(); i+1 == n {
				require.ErrorIs(t, err, errDisk)
				assert.Empty(t, before.Diff(m.Snapshot()))
			} else {
				require.NoError(t, err)
				assert.False(t, before.Equal(m.Snapshot()))
			}
		}
		assert.Equal(t, 4, m.Changes())
	}
}

func TestSnapshotDiff(t *testing.T) {
	m := new(hosttest.Machine).File("/same", "x").File("/changed", "x").File("/removed", "x")
	before := m.Snapshot()
	assert.True(t, before.Equal(m.Snapshot()))
	assert.Empty(t, before.Diff(m.Snapshot()))
	m.FileMode("/changed", "x", 0o600).File("/new", "x")
	require.NoError(t, m.Host().Remove("/removed"))
	assert.Equal(t, `/changed: was -rw-r--r-- "x", is -rw------- "x"
/new: added: -rw-r--r-- "x"
/removed: removed: -rw-r--r-- "x"
`, before.Diff(m.Snapshot()))
}

func TestCommands(t *testing.T) {
	m := new(hosttest.Machine).
		Command(hosttest.Reply{Stdout: "Status: active\n"}, "ufw", "status").
		Command(hosttest.Reply{Stderr: "no\n", Code: 1}, "ufw", "show", "raw").
		Command(hosttest.Reply{Admin: true}, "ufw", "enable").
		Program("id", hosttest.Reply{Stdout: "0\n"})
	v := m.View()
	run := func(name string, args ...string) (string, error) {
		out, err := v.Run(t.Context(), host.Command{Name: name, Args: args})
		return string(out.Stdout), err
	}
	out, err := run("ufw", "status")
	require.NoError(t, err)
	assert.Equal(t, "Status: active\n", out)

	_, err = run("ufw", "show", "raw")
	require.EqualError(t, err, "host: ufw: exit status 1: no")

	out, err = run("id", "-u")
	require.NoError(t, err)
	assert.Equal(t, "0\n", out)

	_, err = run("ufw", "status", "verbose")
	require.ErrorContains(t, err, `unscripted command: ["ufw" "status" "verbose"]`)
	require.NotErrorIs(t, err, exec.ErrNotFound)

	_, err = run("ufw", "enable")
	require.ErrorContains(t, err, "changes the machine")
	_, err = m.Host().Change(t.Context(), host.Command{Name: "ufw", Args: []string{"enable"}})
	require.NoError(t, err)

	m.Uninstall("ufw")
	_, err = run("ufw", "status")
	require.ErrorIs(t, err, exec.ErrNotFound)

	calls := m.Calls()
	require.Len(t, calls, 7)
	assert.Equal(t, hosttest.Call{Op: "change", Command: host.Command{Name: "ufw", Args: []string{"enable"}}}, calls[5])
}

func TestHangingCommandsObeyTheirContext(t *testing.T) {
	for name, m := range map[string]*hosttest.Machine{
		"one": new(hosttest.Machine).Command(hosttest.Reply{Hang: true}, "ip"),
		"all": new(hosttest.Machine).HangCommands(),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() {
					_, err := m.View().Run(ctx, host.Command{Name: "ip"})
					done <- err
				}()
				synctest.Wait()
				assert.Empty(t, done)
				cancel()
				assert.ErrorIs(t, <-done, context.Canceled)
			})
		})
	}
}

func TestContains(t *testing.T) {
	m := new(hosttest.Machine).File("/f", "a needle here").
		Command(hosttest.Reply{Stdout: "thread"}, "a").
		Program("b", hosttest.Reply{Stderr: "thimble"})
	for _, text := range []string{"needle", "thread", "thimble"} {
		assert.True(t, m.Contains(text), text)
	}
	assert.False(t, m.Contains("pin"))
}

func TestRelativePathsInFixturesPanic(t *testing.T) {
	assert.PanicsWithValue(t, `hosttest: "etc/passwd": invalid argument: path must be absolute`, func() {
		new(hosttest.Machine).File("etc/passwd", "")
	})
}

// A change may be made and yet be reported as failed.
func TestFailAfterChange(t *testing.T) {
	m := new(hosttest.Machine).Program("touch", hosttest.Reply{}).FailAfterChange(1, errDisk).FailAfterChange(2, errDisk)
	require.ErrorIs(t, m.Host().WriteFile("/f", []byte("new"), 0o600), errDisk)
	got, _ := m.Read("/f")
	assert.Equal(t, "new", got)
	_, err := m.Host().Change(t.Context(), host.Command{Name: "touch"})
	require.ErrorIs(t, err, errDisk)
}

// TestConcurrentUse means something under the race detector.
func TestConcurrentUse(t *testing.T) {
	m := new(hosttest.Machine).File("/f", "0").Program("p", hosttest.Reply{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			h := m.Host()
			_ = h.WriteFile("/f", []byte(strings.Repeat("x", 10)), 0o600)
			_, _ = h.ReadFile("/f")
			_, _ = h.ReadDir("/")
			_, _ = h.Run(context.Background(), host.Command{Name: "p"})
			m.File("/g", "").Deny("/h").Program("q", hosttest.Reply{})
			_, _, _ = m.Snapshot(), m.Calls(), m.Contains("y")
		})
	}
	wg.Wait()
}
