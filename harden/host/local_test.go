//go:build unix

package host_test

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/managemyclaw/hardshell/harden/host"
)

// The program has ended; a descendant that holds its output open and would
// write to it later is not waited for, and is no error.
func TestLocalDoesNotWaitForDescendants(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := host.Local().Run(ctx, sh("sleep 30 & echo $!"))
	require.NoError(t, err)
	require.NoError(t, ctx.Err())
	pid := strings.TrimSpace(string(out.Stdout))
	require.NotEmpty(t, pid)
	_, err = host.Local().Change(t.Context(), host.Command{Name: "kill", Args: []string{pid}})
	require.NoError(t, err, "the descendant should still have been running")
}

// Not even a killed program's descendant is waited for.
func TestLocalCancelDoesNotWaitForDescendants(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	pidFile := filepath.Join(t.TempDir(), "pid")
	go func() {
		defer cancel()
		for { // until the descendant runs
			if data, _ := os.ReadFile(pidFile); bytes.HasSuffix(data, []byte("\n")) {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	_, err := host.Local().Run(ctx, sh("sleep 30 & echo $! >"+pidFile+"; exec sleep 30"))
	require.ErrorIs(t, err, context.Canceled)
	pid, err := os.ReadFile(pidFile)
	require.NoError(t, err)
	_, err = host.Local().Change(t.Context(), host.Command{Name: "kill", Args: []string{strings.TrimSpace(string(pid))}})
	require.NoError(t, err, "the descendant should still have been running")
}

func TestLocalLimitsOutput(t *testing.T) {
	for stream, redirect := range map[string]string{"stdout": "", "stderr": " >&2"} {
		out, err := host.Local().Run(t.Context(), sh("head -c 16777217 /dev/zero"+redirect))
		require.ErrorIs(t, err, host.ErrOutputTooLong, stream)
		assert.Equal(t, host.MaxOutput, len(out.Stdout)+len(out.Stderr), stream)
	}
	out, err := host.Local().Run(t.Context(), sh("head -c 16777216 /dev/zero"))
	require.NoError(t, err)
	assert.Len(t, out.Stdout, host.MaxOutput)
}

func TestLocalShortensWhatAProgramComplains(t *testing.T) {
	out, err := host.Local().Run(t.Context(), sh("head -c 5000 /dev/zero >&2; exit 1"))
	var exit *host.ExitError
	require.ErrorAs(t, err, &exit)
	assert.Len(t, exit.Stderr, 1<<10)
	assert.Len(t, out.Stderr, 5000)
}

func TestLocalRunsProgramsInTheCLocale(t *testing.T) {
	t.Setenv("LC_ALL", "de_DE.UTF-8")
	out, err := host.Local().Run(t.Context(), sh("echo $LC_ALL"))
	require.NoError(t, err)
	assert.Equal(t, "C\n", string(out.Stdout))
}

func TestLocalReportsASignal(t *testing.T) {
	_, err := host.Local().Run(t.Context(), sh("kill -9 $$"))
	var exit *host.ExitError
	require.ErrorAs(t, err, &exit)
	assert.Equal(t, -1, exit.Code)
}

func TestLocalMayNotRunWhatIsNotExecutable(t *testing.T) {
	name := filepath.Join(t.TempDir(), "script")
	require.NoError(t, os.WriteFile(name, []byte("#!/bin/sh\n"), 0o600))
	_, err := host.Local().Run(t.Context(), host.Command{Name: name})
	require.ErrorIs(t, err, fs.ErrPermission)
}

func TestLocalKeepsSpecialModeBits(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(name, nil, 0o600))
	require.NoError(t, os.Chmod(name, fs.ModeSetgid|0o750))
	before, err := os.Stat(name)
	require.NoError(t, err)
	require.NoError(t, host.Local().WriteFile(name, []byte("new"), 0o600))
	after, err := os.Stat(name)
	require.NoError(t, err)
	assert.Equal(t, before.Mode(), after.Mode())
}

// A failed write leaves the old file and nothing beside it.
func TestLocalFailedWriteChangesNothing(t *testing.T) {
	if os.Geteuid() == 0 {
		// The super-user may write anywhere; a directory that is gone will do.
		dir := t.TempDir()
		require.Error(t, host.Local().WriteFile(filepath.Join(dir, "gone", "f"), nil, 0o600))
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		assert.Empty(t, entries)
		return
	}
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	require.NoError(t, os.WriteFile(name, []byte("old"), 0o600))
	require.NoError(t, os.Chmod(dir, 0o500))
	require.ErrorIs(t, host.Local().WriteFile(name, []byte("new"), 0o600), fs.ErrPermission)
	require.ErrorIs(t, host.Local().Remove(name), fs.ErrPermission)
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	assert.Equal(t, "old", string(data))
}

func TestLocalKeepsTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only the super-user can give files away")
	}
	name := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(name, nil, 0o600))
	require.NoError(t, os.Chown(name, 12, 34))
	require.NoError(t, host.Local().WriteFile(name, []byte("new"), 0o600))
	out, err := host.Local().Run(t.Context(), host.Command{Name: "ls", Args: []string{"-ln", name}})
	require.NoError(t, err)
	assert.Regexp(t, `^\S+ \d+ 12 +34 `, string(out.Stdout))
}
