//go:build linux

package lab

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"sync/atomic"
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

// Sink accepts connections and counts what they bring.
type Sink struct {
	// Addr is where it listens.
	Addr net.Addr

	listener net.Listener
	conns    atomic.Int64
	bytes    atomic.Int64
	last     atomic.Int64
}

// Sink starts a sink on the machine; see [Machine.Listen] for the address. End
// it with Close.
func (m *Machine) Sink(ctx context.Context, network, address string) (*Sink, error) {
	ln, err := m.Listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	s := &Sink{Addr: ln.Addr(), listener: ln}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.conns.Add(1)
			go s.drain(c)
		}
	}()
	return s, nil
}

func (s *Sink) drain(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			s.last.Store(time.Now().UnixNano())
			s.bytes.Add(int64(n))
		}
		if err != nil {
			return
		}
	}
}

// Conns is how many connections were accepted.
func (s *Sink) Conns() int64 { return s.conns.Load() }

// Bytes is how many bytes have arrived.
func (s *Sink) Bytes() int64 { return s.bytes.Load() }

// Last is when the last of them arrived; zero if none has.
func (s *Sink) Last() time.Time {
	if ns := s.last.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

// Close stops accepting. Connections end with their peers or the lab.
func (s *Sink) Close() error { return s.listener.Close() }
