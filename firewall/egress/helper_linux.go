package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// helperFD is where the helper hands its sockets over, after the three that every
// program has. helperMessage is what it then says.
const (
	helperFD      = 3
	helperMessage = "sockets"
)

// Sockets of a helper, in this order.
const (
	datagram4 = iota
	datagram6
	established
	socketCount
)

// ServeHelper is what the program does that [Prober.Helper] names: it makes
// sockets and hands them over on file descriptor 3, where it also learns where to
// connect to.
func ServeHelper() error {
	buf := make([]byte, 64)
	n, err := unix.Read(helperFD, buf)
	if err != nil {
		return fmt.Errorf("egress: helper: %w", err)
	}
	target, err := netip.ParseAddrPort(string(buf[:n]))
	if err != nil {
		return fmt.Errorf("egress: helper: %w", err)
	}
	var fds []int
	for _, s := range []struct{ family, kind int }{
		datagram4: {unix.AF_INET, unix.SOCK_DGRAM}, datagram6: {unix.AF_INET6, unix.SOCK_DGRAM}, established: {unix.AF_INET, unix.SOCK_STREAM},
	} {
		fd, err := unix.Socket(s.family, s.kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("egress: helper: socket: %w", err)
		}
		fds = append(fds, fd)
	}
	// While the lock is engaged it does not get there, which is as well.
	_ = unix.SetNonblock(fds[established], true)
	_, to := sockaddr(target.Addr(), target.Port(), 0)
	_ = unix.Connect(fds[established], to)
	if err := unix.Sendmsg(helperFD, []byte(helperMessage), unix.UnixRights(fds...), nil, 0); err != nil {
		return fmt.Errorf("egress: helper: %w", err)
	}
	return nil
}

// delegates are sockets that belong to the control group of a workload.
type delegates struct {
	fds  []int
	peer net.Conn // the other end of the established one; nil if there is none

	mu  sync.Mutex
	got map[string]bool
}

func (d *delegates) close() {
	for _, fd := range d.fds {
		_ = unix.Close(fd)
	}
	if d.peer != nil {
		d.peer.Close()
	}
}

// delegates returns the sockets of a control group. They are made the first
// time, by a program that runs in it.
func (p *Prober) delegates(ctx context.Context, host *os.File, g cgroup) (*delegates, error) {
	p.mu.Lock()
	d := p.held[g.id]
	p.mu.Unlock()
	if d != nil {
		return d, nil
	}
	if len(p.Helper) == 0 {
		return nil, errors.New("it is in the host's network namespace, and without a Helper nothing can be tried there")
	}
	d, err := p.delegate(ctx, host, g)
	if err != nil {
		return nil, fmt.Errorf("helper in control group %s: %w", g.path, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if other := p.held[g.id]; other != nil {
		d.close()
		return other, nil
	}
	if p.held == nil {
		p.held = map[uint64]*delegates{}
	}
	p.held[g.id] = d
	return d, nil
}

// helperTimeout bounds a helper in a control group that is frozen, or out of
// processes.
const helperTimeout = 2 * time.Second

func (p *Prober) delegate(ctx context.Context, host *os.File, g cgroup) (d *delegates, err error) {
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "helper"), os.NewFile(uintptr(pair[1]), "helper")
	defer ours.Close()
	defer theirs.Close()
	if err := unix.SetNonblock(pair[1], false); err != nil {
		return nil, err
	}
	d = &delegates{got: map[string]bool{}}
	err = within(host, func() error {
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer ln.Close()                                              //nolint:errcheck // nothing is written
		cmd := exec.CommandContext(ctx, p.Helper[0], p.Helper[1:]...) //nolint:gosec // the caller's own
		cmd.ExtraFiles = []*os.File{theirs}
		cmd.WaitDelay = time.Second
		if err := cmd.Start(); err != nil {
			return err
		}
		defer func() {
			_ = cmd.Process.Kill()
			go cmd.Wait() //nolint:errcheck // one that is frozen ends when it thaws
		}()
		// It is moved once it runs: to start it in a group that is frozen
		// would keep this process from starting any other.
		if err := os.WriteFile(filepath.Join(g.dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
			return err
		}
		if _, err := ours.Write([]byte(ln.Addr().String())); err != nil {
			return err
		}
		if d.fds, err = receive(ctx, ours); err != nil {
			return err
		}
		if tcp, ok := ln.(*net.TCPListener); ok {
			// The connection is there before the sockets are, or never.
			_ = tcp.SetDeadline(time.Now().Add(10 * time.Millisecond))
			d.peer, _ = tcp.Accept()
		}
		return nil
	})
	if err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// receive takes the sockets over.
func receive(ctx context.Context, from *os.File) ([]int, error) {
	raw, err := from.SyscallConn()
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = from.SetReadDeadline(deadline)
	}
	buf, oob := make([]byte, 64), make([]byte, unix.CmsgSpace(4*socketCount))
	var n, oobn int
	var readErr error
	err = raw.Read(func(fd uintptr) bool {
		n, oobn, _, _, readErr = unix.Recvmsg(int(fd), buf, oob, unix.MSG_CMSG_CLOEXEC)
		return !errors.Is(readErr, unix.EAGAIN)
	})
	if err = errors.Join(err, readErr); err != nil {
		return nil, fmt.Errorf("no answer (is the group frozen?): %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return nil, err
	}
	var fds []int
	for _, m := range messages {
		more, err := unix.ParseUnixRights(&m)
		if err != nil {
			return nil, err
		}
		fds = append(fds, more...)
	}
	if string(buf[:n]) != helperMessage || len(fds) != socketCount {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		return nil, errors.New("the helper ended without handing its sockets over: it must call ServeHelper")
	}
	return fds, nil
}

// shout sends from the sockets, and to one of them from the calling thread's
// namespace.
func (d *delegates) shout(say func(string) string, incoming string, hostPort uint16, hostAddrs []netip.Addr, canaries []canary) error {
	var errs []error
	try := func(addr netip.Addr, port uint16, what string) {
		_, to := sockaddr(addr, port, 0)
		fd := d.fds[datagram4]
		if addr.Is6() {
			fd = d.fds[datagram6]
		}
		if err := unix.Sendto(fd, []byte(say(what)), unix.MSG_DONTWAIT, to); err != nil && !refused(err) {
			errs = append(errs, os.NewSyscallError("sendto", err))
		}
	}
	for _, c := range canaries {
		try(c.Addr, discardPort, fmt.Sprintf("a datagram to %s", c.Addr))
	}
	for _, addr := range append(hostAddrs, netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()) {
		try(addr, hostPort, fmt.Sprintf("a datagram to the host at %s", addr))
	}
	if own, err := unix.Getsockname(d.fds[datagram4]); err != nil {
		errs = append(errs, os.NewSyscallError("getsockname", err))
	} else if own, ok := own.(*unix.SockaddrInet4); ok {
		// What is sent comes out by the loopback interface in any case, and
		// is then dropped or not.
		if err := sendUDP(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(own.Port), "", incoming); err != nil && !refused(err) {
			errs = append(errs, err)
		}
	}
	if d.peer != nil {
		err := unix.Sendto(d.fds[established], []byte(say("what an established connection sends")), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
		if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) && !refused(err) {
			errs = append(errs, os.NewSyscallError("send", err))
		}
	}
	return errors.Join(errs...)
}

// heard reports whether a datagram came to the sockets.
func (d *delegates) heard(token string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	buf := make([]byte, maxProbe)
	for {
		n, _, err := unix.Recvfrom(d.fds[datagram4], buf, unix.MSG_DONTWAIT)
		if err != nil {
			break
		}
		if len(d.got) > maxHeard {
			clear(d.got)
		}
		d.got[string(buf[:n])] = true // maybe for another look
	}
	return d.got[token]
}

// maxHeard bounds what is kept of what others send.
const maxHeard = 1000
