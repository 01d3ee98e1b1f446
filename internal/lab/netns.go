//go:build linux

package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

// netns is a network namespace that lives as long as the file is open or a
// process is in it. It has no name in the file system.
type netns struct {
	*os.File
	mu sync.RWMutex // of Close
}

// Close closes the file. A connection that somebody gave up may still be on its
// way into the namespace: it then does not get there.
func (ns *netns) Close() error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	return ns.File.Close()
}

func newNetns() (*netns, error) {
	var ns *netns
	err := onThread(func() error {
		if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		ns = &netns{File: f}
		return err
	})
	return ns, err
}

// do calls fn with the calling thread in the namespace. What fn opens in its
// own goroutine is there; goroutines that it starts are not.
func (ns *netns) do(fn func() error) error {
	return onThread(func() error {
		ns.mu.RLock()
		_, _, errno := syscall.RawSyscall(sysSetns, ns.Fd(), syscall.CLONE_NEWNET, 0)
		ns.mu.RUnlock()
		if errno != 0 {
			return os.NewSyscallError("setns", errno)
		}
		return fn()
	})
}

// sysSetns is missing from package syscall, which is older than the call.
var sysSetns = map[string]uintptr{
	"386": 346, "amd64": 308, "arm": 375, "arm64": 268, "loong64": 268,
	"ppc64le": 350, "riscv64": 268, "s390x": 339,
}[runtime.GOARCH]

// onThread calls fn on a thread that is thrown away afterwards, since a thread
// that has changed its namespaces must not run anything else.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with this goroutine.
		runtime.LockOSThread()
		if syscall.Gettid() == os.Getpid() {
			// The first thread cannot end, and /proc/self shows its
			// namespaces. Hold it while another thread does the work.
			defer runtime.UnlockOSThread()
			done <- onThread(fn)
			return
		}
		done <- fn()
	}()
	return <-done
}

// path can be opened by other processes while this one holds the file.
func path(f *os.File) string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
}

// makeNetwork makes the three machines and joins them by a bridge in a fourth
// namespace. All links are made where they belong or moved out of the
// switch's namespace; none is ever in the machine's own.
func (l *Lab) makeNetwork(ctx context.Context) (err error) {
	if l.sw, err = newNetns(); err != nil {
		return err
	}
	cable := []string{
		"link set lo up",
		"link add br0 type bridge forward_delay 0 mcast_snooping 0",
		"link set br0 up",
	}
	for i, m := range []struct {
		machine *(*Machine)
		name    string
		addrs   []netip.Addr
	}{
		{&l.Host, "host", []netip.Addr{HostAddr4, HostAddr6}},
		{&l.Internet, "internet", []netip.Addr{InternetAddr4, InternetAddr6, FarAddr4, FarAddr6}},
		{&l.Neighbour, "neighbour", []netip.Addr{NeighbourAddr4, NeighbourAddr6}},
	} {
		ns, err := newNetns()
		if err != nil {
			return err
		}
		*m.machine = &Machine{Name: m.name, Addr4: m.addrs[0], Addr6: m.addrs[1], ns: ns, cgroup: l.cgroup}
		cable = append(cable,
			fmt.Sprintf("link add port%d type veth peer name eth0 netns %s", i, path(ns.File)),
			fmt.Sprintf("link set port%d master br0", i),
			fmt.Sprintf("link set port%d up", i),
		)
	}
	if err := l.sw.ip(ctx, cable); err != nil {
		return fmt.Errorf("switch: %w", err)
	}
	routes := []string{
		fmt.Sprintf("route add default via %s", InternetAddr4),
		fmt.Sprintf("route add default via %s", InternetAddr6),
	}
	for _, m := range []struct {
		*Machine
		more []string
	}{
		{l.Host, routes},
		{l.Neighbour, routes},
		{l.Internet, []string{
			fmt.Sprintf("addr add %s/32 dev eth0", FarAddr4),
			fmt.Sprintf("addr add %s/128 dev eth0 nodad", FarAddr6),
		}},
	} {
		batch := append([]string{
			"link set lo up",
			fmt.Sprintf("addr add %s/24 dev eth0", m.Addr4),
			// Duplicate address detection would keep the address unusable
			// for a second.
			fmt.Sprintf("addr add %s/64 dev eth0 nodad", m.Addr6),
			"link set eth0 up",
		}, m.more...)
		if err := m.ns.ip(ctx, batch); err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
	}
	return nil
}

// ip runs iproute2 in the namespace with one command a line.
func (ns *netns) ip(ctx context.Context, batch []string) error {
	cmd := exec.CommandContext(ctx, "nsenter", "--net="+path(ns.File), "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(batch, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Dial connects from the machine. The address must be an IP address: names
// would be looked up elsewhere.
func (m *Machine) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if err := literal(network, address); err != nil {
		return nil, err
	}
	var c net.Conn
	err := m.ns.do(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Listen listens on the machine. The address must be an IP address and port,
// or a port alone for all addresses.
func (m *Machine) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	if err := literal(network, address); err != nil {
		return nil, err
	}
	var ln net.Listener
	err := m.ns.do(func() (err error) {
		ln, err = new(net.ListenConfig).Listen(ctx, network, address)
		return err
	})
	return ln, err
}

func literal(network, address string) error {
	if strings.HasPrefix(network, "unix") {
		return nil
	}
	host, _, err := net.SplitHostPort(address)
	if err == nil && host != "" {
		_, err = netip.ParseAddr(host)
	}
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}
