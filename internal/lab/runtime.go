//go:build linux

package lab

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// makeRuntime puts a program called runc where the engine looks first, if the
// one it would find is not to be used or would not do. The latter is so on
// machines that lack a capability themselves, as many virtual ones and most
// containers do: runc before 1.2 cannot start privileged containers there. The
// lab's then have what capabilities the machine has.
func (l *Lab) makeRuntime(ctx context.Context) (err error) {
	if l.cfg.NoDocker {
		return nil
	}
	if l.agent, err = AgentBinary(ctx); err != nil {
		return err
	}
	full, err := allCapabilities()
	if err != nil {
		return err
	}
	if full && l.cfg.Runc == "" {
		return nil
	}
	dockerd, err := dockerdPath(l.cfg)
	if err != nil {
		return err
	}
	inner := cmp.Or(l.cfg.Runc, filepath.Join(filepath.Dir(dockerd), "runc"))
	if _, err := os.Stat(inner); err != nil && l.cfg.Runc == "" {
		inner = "runc"
	}
	if inner, err = exec.LookPath(inner); err != nil {
		return err
	}
	if inner, err = filepath.Abs(inner); err != nil {
		return err
	}
	bin := filepath.Join(l.dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	script := fmt.Sprintf("#!/bin/sh\nexec %s runtime %s \"$@\"\n", quote(l.agent), quote(inner))
	return os.WriteFile(filepath.Join(bin, "runc"), []byte(script), 0o755)
}

// quote makes one word of s for a shell.
func quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// allCapabilities is true if this process could get every capability that the
// kernel knows.
func allCapabilities() (bool, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false, err
	}
	last, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return false, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(last)))
	if err != nil {
		return false, err
	}
	_, after, _ := strings.Cut(string(status), "\nCapBnd:")
	line, _, _ := strings.Cut(after, "\n")
	bounding, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	return bounding == 1<<(n+1)-1, err
}
