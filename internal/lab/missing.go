//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
)

// Missing says what the machine lacks to run a lab of this configuration, one
// phrase each. It is empty where a lab can run.
func Missing(cfg Config) []string {
	var missing []string
	if os.Geteuid() != 0 {
		missing = append(missing, "not root")
	} else if err := onThread(func() error { return syscall.Unshare(syscall.CLONE_NEWNET | syscall.CLONE_NEWNS) }); err != nil {
		missing = append(missing, fmt.Sprintf("no new namespaces: %v", err))
	}
	if hs, err := hierarchies(); err != nil || !slices.ContainsFunc(hs, func(h hierarchy) bool { return h.v2 }) {
		missing = append(missing, "no cgroup2 is mounted")
	}
	if sysSetns == 0 {
		missing = append(missing, "no setns on this architecture")
	}
	programs := []string{"ip", "nsenter", "cp"}
	if cfg.UFW {
		programs = append(programs, "ufw")
	}
	if !cfg.NoDocker {
		programs = append(programs, "docker", "iptables")
	}
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, "no program "+name)
		}
	}
	if cfg.NoDocker {
		return missing
	}
	path, err := dockerdPath(cfg)
	if err != nil {
		missing = append(missing, err.Error())
	}
	for _, name := range []string{"containerd", "runc"} {
		if name == "runc" && cfg.Runc != "" {
			name = cfg.Runc
		}
		_, errBeside := exec.LookPath(filepath.Join(filepath.Dir(path), name))
		if _, err := exec.LookPath(name); err != nil && errBeside != nil {
			missing = append(missing, "no program "+name)
		}
	}
	if !haveAgent() {
		if _, err := exec.LookPath("go"); err != nil {
			missing = append(missing, "no program go, which compiles the lab's agent")
		}
	}
	return missing
}

func dockerdPath(cfg Config) (string, error) {
	name := cfg.Dockerd
	if name == "" {
		name = "dockerd"
	}
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrNotFound) {
		return "", errors.New("no program " + name)
	}
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}
