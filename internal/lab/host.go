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

// makeHost gives the host its own /etc, a copy, and its own /run, empty. With
// them come the sockets and locks that dockerd, containerd's shims and ufw
// keep at fixed places.
func (l *Lab) makeHost(ctx context.Context) error {
	etc, run := filepath.Join(l.dir, "etc"), filepath.Join(l.dir, "run")
	for _, dir := range []string{etc, run, filepath.Join(run, "lock")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	return onThread(func() (err error) {
		if err := syscall.Unshare(syscall.CLONE_NEWNS); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		// Mounts made later on the machine appear here too, never the reverse.
		if err := mount("", "/", "", syscall.MS_REC|syscall.MS_SLAVE); err != nil {
			return err
		}
		// In memory, since a thousand small files take a second on some disks.
		if err := mount("tmpfs", etc, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV); err != nil {
			return err
		}
		// A child of this thread is in its namespaces.
		if out, err := exec.CommandContext(ctx, "cp", "-a", "/etc/.", etc).CombinedOutput(); err != nil {
			return fmt.Errorf("copy /etc: %w: %s", err, strings.TrimSpace(string(out)))
		}
		if err := l.configureHost(etc); err != nil {
			return err
		}
		if err := mount(etc, "/etc", "", syscall.MS_BIND); err != nil {
			return err
		}
		if err := mount(run, "/run", "", syscall.MS_BIND); err != nil {
			return err
		}
		if l.etc, err = os.Open("/etc"); err != nil {
			return err
		}
		l.Host.mounts, err = os.Open("/proc/thread-self/ns/mnt")
		return err
	})
}

// configureHost makes of a copy of the machine's /etc that of a host whose
// engine and firewall nobody has configured.
func (l *Lab) configureHost(etc string) error {
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
	return nil
}

// HostPath translates an absolute path on the lab's host to one that root can
// open here while the lab runs. Files under /etc and /run are the host's own,
// all others are the machine's. A path through a symbolic link to an absolute
// path, as /var/run is, is not translated: name the target.
func (l *Lab) HostPath(name string) string {
	for dir, here := range map[string]string{"/etc": path(l.etc), "/run": filepath.Join(l.dir, "run")} {
		if rest, ok := strings.CutPrefix(name, dir); ok && (rest == "" || rest[0] == '/') {
			return here + rest
		}
	}
	return name
}

func mount(source, target, fstype string, flags uintptr) error {
	if err := syscall.Mount(source, target, fstype, flags, ""); err != nil {
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
