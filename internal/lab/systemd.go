//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// systemdTime bounds the wait for systemd to answer.
const systemdTime = 20 * time.Second

// Systemd is a service manager on the lab's host: the first process of a process
// namespace, with a cgroup tree of its own and the host's network. It ends with
// the lab.
type Systemd struct {
	host *Machine
	pid  int
}

// systemdUnits is where the lab's systemd looks for units.
const systemdUnits = "/run/systemd/system.control:/etc/systemd/system:/run/systemd/system"

// bootSystemd keeps systemd from the machine, whose own units would start its
// services and empty its /tmp: it knows no units but the lab's, and can write
// nowhere but to the host's own /etc and /run. The arguments are a cgroup, the
// program, the file that stands for the console, and where there are units.
const bootSystemd = `set -e
echo $$ >"$1/cgroup.procs"
exec unshare --mount --pid --uts --ipc --cgroup --fork --kill-child --propagation slave sh -e -c '
mount --bind "$1" /dev/console
mount --bind /proc/sys /proc/sys
cut -d" " -f5 /proc/self/mountinfo | while read -r at; do
	case $at in
	/etc|/run|/dev/console) ;;
	*) mount -o remount,bind,ro "$(printf %b "$at")" 2>/dev/null || true ;; # some are hidden
	esac
done
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -t cgroup2 none /sys/fs/cgroup
for dir in /tmp /var/tmp /dev/shm; do mount -t tmpfs tmpfs $dir; done
for dir in / /usr /var /home /root /srv /opt; do if touch $dir/.hardshell 2>/dev/null; then echo "the machine can be written to" >&2; exit 1; fi; done
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=lxc SYSTEMD_UNIT_PATH="$2" "$0" --system --unit=lab.target --log-target=console --show-status=no' "$2" "$3" "$4"`

// StartSystemd starts systemd. Units go to /etc/systemd/system, which is empty
// but for its own; see [Lab.HostPath].
func (l *Lab) StartSystemd(ctx context.Context) (*Systemd, error) {
	program, err := systemdPath()
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	group := filepath.Join(filepath.Dir(l.cgroup.Name()), "systemd")
	units, console := l.HostPath("/etc/systemd/system"), filepath.Join(l.dir, "systemd.log")
	if err := errors.Join(
		os.Mkdir(group, 0o755),
		os.RemoveAll(units),
		os.MkdirAll(units, 0o755),
		os.WriteFile(console, nil, 0o600),
	); err != nil {
		return nil, fmt.Errorf("lab: systemd: %w", err)
	}
	// What units refer to by default, with nothing in it.
	for _, name := range []string{"lab", "sysinit", "basic", "multi-user", "shutdown"} {
		const target = "[Unit]\nDefaultDependencies=no\n"
		if err := os.WriteFile(filepath.Join(units, name+".target"), []byte(target), 0o644); err != nil {
			return nil, fmt.Errorf("lab: systemd: %w", err)
		}
	}
	cmd := l.Host.Command(context.Background(), "sh", "-c", bootSystemd, "sh", group, program, console, systemdUnits)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("lab: systemd: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // the lab kills it
	}()
	ctx, cancel := context.WithTimeout(ctx, systemdTime)
	defer cancel()
	s := &Systemd{host: l.Host}
	for {
		if s.pid = onlyChild(cmd.Process.Pid); s.pid != 0 {
			state, _ := s.Command(ctx, "systemctl", "is-system-running").Output()
			if strings.TrimSpace(string(state)) == "running" {
				return s, nil
			}
		}
		select {
		case <-ended:
			return nil, fmt.Errorf("lab: systemd: it has ended: %s", &said)
		case <-ctx.Done():
			log, _ := os.ReadFile(console)
			return nil, fmt.Errorf("lab: systemd: %w: %s", ctx.Err(), log)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Command is [Machine.Command] beside systemd, which hears no one from without
// its process namespace.
func (s *Systemd) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	enter := s.Enter()
	return s.host.Command(ctx, enter[0], append(append(enter[1:], name), args...)...)
}

// Enter is what a program on the host, and its arguments, are put after to run
// beside systemd.
func (s *Systemd) Enter() []string {
	return []string{"nsenter", "--target", strconv.Itoa(s.pid), "--mount", "--pid", "--ipc", "--uts", "--cgroup", "--"}
}

func onlyChild(pid int) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	child, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return child
}

func systemdPath() (string, error) {
	for _, name := range []string{"/usr/lib/systemd/systemd", "/lib/systemd/systemd"} {
		if _, err := os.Stat(name); err == nil {
			return name, nil
		}
	}
	return "", fmt.Errorf("%w: systemd", exec.ErrNotFound)
}
