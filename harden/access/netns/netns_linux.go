package netns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// DialFrom connects as the process of the given number would, or as this one if
// that is 0. The address is an IP address and a port.
func (Dialer) DialFrom(ctx context.Context, pid int, network, address string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("netns: the address must be an IP address and a port: %w", err)
	}
	var d net.Dialer
	if pid == 0 {
		return d.DialContext(ctx, network, address)
	}
	ns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
	if err != nil {
		return nil, fmt.Errorf("netns: %w", err)
	}
	defer ns.Close()
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		// Never unlocked: the thread, which is in another network from now
		// on, ends with the goroutine.
		runtime.LockOSThread()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- result{nil, fmt.Errorf("netns: enter the network of process %d: %w", pid, err)}
			return
		}
		// Of an IP address the socket is made by the calling goroutine.
		conn, err := d.DialContext(ctx, network, address)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}
