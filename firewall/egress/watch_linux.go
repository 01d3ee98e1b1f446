package egress

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A watch sees what leaves by the interfaces of a network namespace, after all
// rules.
type watch struct {
	run string // what all tokens of a look begin with
	fd  int

	mu      sync.Mutex
	count   int
	seen    map[string]int  // token to interface
	beyond  map[string]bool // tokens that came out by more than loopback
	conns   map[*connection]int
	others  int
	what    string
	devices map[int]string
	err     error

	end   chan struct{}
	until uint32 // frames there were at the end; set before end is closed
	ended chan struct{}
}

// A connection is told by where it goes to.
type connection struct {
	addr netip.Addr
	port uint16
}

// maxProbe is longer than any frame with a probe in it.
const maxProbe = 512

// newRun makes what all tokens of a look begin with.
func newRun() string {
	id := make([]byte, 6)
	_, _ = rand.Read(id) // never fails
	return "hs" + hex.EncodeToString(id) + "x"
}

// watchOut begins to watch; short frames alone, where there may be many others.
func watchOut(ns *os.File, run string, short bool) (w *watch, err error) {
	w = &watch{
		run: run, fd: -1, seen: map[string]int{}, beyond: map[string]bool{}, conns: map[*connection]int{}, devices: map[int]string{},
		end: make(chan struct{}), ended: make(chan struct{}),
	}
	err = within(ns, func() error {
		links, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, l := range links {
			w.devices[l.Index] = l.Name
		}
		w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	// Only what leaves. A busy machine would drown the socket, so that long
	// frames may be left out; see packet(7) and SKF_AD_OFF of <linux/filter.h>.
	longest := uint32(1 << 20)
	if short {
		longest = maxProbe
	}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0xfffff000 + 4}, // SKF_AD_PKTTYPE
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.PACKET_OUTGOING, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_LEN},
		{Code: unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K, K: longest, Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: maxProbe},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	err = errors.Join(
		os.NewSyscallError("filter", unix.SetsockoptSockFprog(w.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})),
		os.NewSyscallError("timeout", unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 5000})),
	)
	_ = unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	if err == nil {
		// It hears nothing before.
		err = os.NewSyscallError("bind", unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL)}))
	}
	if err != nil {
		_ = unix.Close(w.fd)
		return nil, err
	}
	go w.read()
	return w, nil
}

func networkOrder(v uint16) uint16 { return v>>8 | v<<8 }

func (w *watch) read() {
	defer close(w.ended)
	buf := make([]byte, maxProbe)
	for frames := uint32(0); ; {
		empty := true
		n, from, err := unix.Recvfrom(w.fd, buf, 0)
		switch {
		case err == nil:
			if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
				w.look(buf[:n], ll)
			}
			frames++
			empty = false
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENETDOWN): // an interface has gone
		default:
			w.mu.Lock()
			w.err = err
			w.mu.Unlock()
			return
		}
		select {
		case <-w.end:
			// On a machine that always sends it is never empty.
			if empty || frames >= w.until {
				return
			}
		default:
		}
	}
}

// look is at one frame.
func (w *watch) look(frame []byte, from *unix.SockaddrLinklayer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	lower := bytes.ToLower(frame) // names may have changed their case
	ours, loop := false, from.Hatype == unix.ARPHRD_LOOPBACK
	for rest := lower; ; {
		i := bytes.Index(rest, []byte(w.run))
		if i < 0 {
			break
		}
		ours = true
		rest = rest[i+len(w.run):]
		if j := bytes.IndexByte(rest, 'x'); j > 0 && j < 8 {
			token := w.run + string(rest[:j+1])
			if _, ok := w.seen[token]; !ok || !loop {
				w.seen[token] = from.Ifindex
			}
			w.beyond[token] = w.beyond[token] || !loop
		}
	}
	for c := range w.conns {
		if c.in(frame) {
			ours = true
			w.conns[c] = from.Ifindex
		}
	}
	arp := from.Protocol == networkOrder(unix.ETH_P_ARP)
	if !ours && !arp && !loop {
		w.others++
		w.what = fmt.Sprintf("a frame of type %#04x by %s", networkOrder(from.Protocol), w.devices[from.Ifindex])
	}
}

// in reports whether a frame is of the connection: in both versions of IP the
// address is followed by the two ports. What else is between them, as options,
// is not in what is sent here.
func (c *connection) in(frame []byte) bool {
	addr := c.addr.AsSlice()
	for rest := frame; ; {
		i := bytes.Index(rest, addr)
		if i < 0 {
			return false
		}
		rest = rest[i+len(addr):]
		if len(rest) >= 4 && binary.BigEndian.Uint16(rest[2:]) == c.port {
			return true
		}
	}
}

// token makes one.
func (w *watch) token() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count++
	return fmt.Sprintf("%s%dx", w.run, w.count)
}

// connection makes one that no other is like.
func (w *watch) connection(addr netip.Addr) *connection {
	w.mu.Lock()
	defer w.mu.Unlock()
	port := make([]byte, 2)
	_, _ = rand.Read(port)
	c := &connection{addr: addr, port: binary.BigEndian.Uint16(port) | 1<<15}
	w.conns[c] = 0
	return c
}

// finish reads what is there already, and reports what may have been missed.
func (w *watch) finish() error {
	select {
	case <-w.end:
		return w.err
	default:
	}
	stats, err := unix.GetsockoptTpacketStats(w.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err == nil {
		w.until = stats.Packets - stats.Drops // see packet(7)
	}
	close(w.end)
	<-w.ended
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.err != nil:
	case err != nil:
		w.err = err
	case stats.Drops > 0:
		w.err = fmt.Errorf("%d frames were too many to look at", stats.Drops)
	}
	return w.err
}

func (w *watch) close() {
	_ = w.finish()
	if fd := w.fd; fd >= 0 {
		w.fd = -1
		go unix.Close(fd) //nolint:errcheck // takes the kernel some milliseconds
	}
}

func (w *watch) saw(token string) (device string, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	index, ok := w.seen[token]
	return w.device(index), ok
}

// sawBeyond does not count loopback, by which the host tells itself what it could not
// send.
func (w *watch) sawBeyond(token string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.beyond[token]
}

func (w *watch) sawConnection(c *connection) (device string, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.device(w.conns[c]), w.conns[c] != 0
}

func (w *watch) device(index int) string {
	if name := w.devices[index]; name != "" {
		return name
	}
	return fmt.Sprintf("interface %d", index)
}

// strange is what was not sent here.
func (w *watch) strange() (n int, what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.others, w.what
}

// An ear hears datagrams that come to a namespace.
type ear struct {
	port    uint16
	control string
	run     string
	conn    net.PacketConn

	mu     sync.Mutex
	tokens map[string]bool
	ended  chan struct{}
	once   sync.Once
}

func newEar(ns *os.File, run string) (*ear, error) {
	e := &ear{run: run, tokens: map[string]bool{}, ended: make(chan struct{})}
	err := within(ns, func() (err error) {
		e.conn, err = net.ListenPacket("udp", ":0") //nolint:noctx // it does not wait
		return err
	})
	if err != nil {
		return nil, err
	}
	addr, err := netip.ParseAddrPort(e.conn.LocalAddr().String())
	if err != nil {
		return nil, err
	}
	e.port = addr.Port()
	go func() {
		defer close(e.ended)
		buf := make([]byte, maxProbe)
		for {
			n, _, err := e.conn.ReadFrom(buf)
			if err != nil {
				return
			}
			e.mu.Lock()
			e.tokens[string(buf[:n])] = true
			e.mu.Unlock()
		}
	}()
	return e, nil
}

func (e *ear) heard(token string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tokens[token]
}

// close hears what has come already.
func (e *ear) close() {
	e.once.Do(func() {
		_ = e.conn.SetReadDeadline(time.Now().Add(time.Millisecond))
		<-e.ended
		_ = e.conn.Close()
	})
}
