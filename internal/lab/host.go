//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// hostDirs are what the lab's host has of its own; see [Lab.HostPath].
var hostDirs = []string{"/etc", "/run"}

// makeHost gives the host its own /etc, a copy, and its own /run, empty. With
// them come the sockets and locks that dockerd, containerd's shims and ufw
// keep at fixed places.
func (l *Lab) makeHost(ctx context.Context) error {
	etc := filepath.Join(l.dir, "etc")
	if out, err := exec.CommandContext(ctx, "cp", "-a", "/etc", etc).CombinedOutput(); err != nil {
		return fmt.Errorf("copy /etc: %w: %s", err, strings.TrimSpace(string(out)))
	}
	for _, dir := range []string{"run", "run/lock"} {
		if err := os.Mkdir(filepath.Join(l.dir, dir), 0o755); err != nil {
			return err
		}
	}
	// The host begins with an engine that nobody has configured.
	docker := filepath.Join(etc, "docker")
	if err := errors.Join(os.RemoveAll(docker), os.Mkdir(docker, 0o755)); err != nil {
		return err
	}
	if err := replace(filepath.Join(etc, "resolv.conf"), "nameserver "+FarAddr4.String()+"\n"); err != nil {
		return err
	}
	if l.cfg.UFW {
		if err := freshUFW(etc); err != nil {
			return fmt.Errorf("ufw: %w", err)
		}
	}
	return onThread(func() error {
		if err := syscall.Unshare(syscall.CLONE_NEWNS); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		// Mounts made later on the machine appear here too, never the reverse.
		if err := mount("", "/", syscall.MS_REC|syscall.MS_SLAVE); err != nil {
			return err
		}
		for _, dir := range hostDirs {
			if err := mount(filepath.Join(l.dir, dir), dir, syscall.MS_BIND); err != nil {
				return err
			}
		}
		var err error
		l.Host.mounts, err = os.Open("/proc/thread-self/ns/mnt")
		return err
	})
}

func mount(source, target string, flags uintptr) error {
	if err := syscall.Mount(source, target, "", flags, ""); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}

// replace writes a file anew, also where a symbolic link was.
func replace(file, content string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(file, []byte(content), 0o644)
}

// freshUFW undoes, in the copy, what the machine's administrator configured.
// It does not load modules, which would be for the whole kernel.
func freshUFW(etc string) error {
	defaults := filepath.Join(etc, "default/ufw")
	if err := edit(defaults, `(?m)^IPT_MODULES=.*$`, `IPT_MODULES=""`); err != nil {
		return err
	}
	if err := edit(filepath.Join(etc, "ufw/ufw.conf"), `(?m)^ENABLED=.*$`, `ENABLED=no`); err != nil {
		return err
	}
	for _, name := range []string{"user", "user6", "before", "before6", "after", "after6"} {
		// Where the distribution keeps its originals.
		data, err := os.ReadFile("/usr/share/ufw/" + name + ".rules")
		if errors.Is(err, fs.ErrNotExist) {
			data, err = os.ReadFile("/usr/share/ufw/iptables/" + name + ".rules")
		}
		if err != nil {
			return err
		}
		file := filepath.Join(etc, "ufw", name+".rules")
		if err := os.WriteFile(file, data, 0o640); err != nil {
			return err
		}
	}
	return nil
}

func edit(file, pattern, with string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return os.WriteFile(file, regexp.MustCompile(pattern).ReplaceAll(data, []byte(with)), 0o644)
}
