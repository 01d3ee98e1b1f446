//go:build linux

package lab

import (
	"context"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Machine is a network namespace with one interface, eth0. Its methods may be
// called concurrently until the lab is closed.
type Machine struct {
	Name         string
	Addr4, Addr6 netip.Addr

	ns     *netns
	mounts *os.File // the mount namespace; nil means the owner's
	cgroup *os.File // the lab's
}

// Command is [exec.CommandContext] on the machine: the program has the
// machine's network and, on the host, its files. It starts in the directory /
// and ends, at the latest, with the lab. Dir and SysProcAttr are not for
// callers to set.
func (m *Machine) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	enter := []string{"--net=" + path(m.ns.File)}
	if m.mounts != nil {
		enter = append(enter, "--mount="+path(m.mounts))
	}
	enter = append(enter, "--", name)
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(m.cgroup.Fd())}
	// A child that holds on to the output must not hold up Wait.
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// NetNS is a path to the machine's network namespace, for as long as the lab is
// open.
func (m *Machine) NetNS() string { return path(m.ns.File) }

// Client returns an HTTP client whose connections come from the machine. It
// reuses none, so that each request meets the firewall, and gives up after the
// timeout.
func (m *Machine) Client(timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout:   timeout,
		Transport: &http.Transport{DialContext: m.Dial, DisableKeepAlives: true},
	}
}

func (m *Machine) close() {
	m.ns.Close()
	if m.mounts != nil {
		m.mounts.Close()
	}
}
