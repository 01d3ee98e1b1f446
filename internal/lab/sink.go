//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

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
	if err := stamp(ln); err != nil {
		ln.Close()
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

// stamp has the kernel note when packets arrive, also those of the connections
// that a listener accepts: who reads them may have to wait for a processor.
func stamp(ln net.Listener) error {
	conn, ok := ln.(syscall.Conn)
	if !ok {
		return fmt.Errorf("lab: sink: a %s listener has no packets", ln.Addr().Network())
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	err = raw.Control(func(fd uintptr) {
		ok = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_TIMESTAMPNS, 1) == nil
	})
	if err == nil && !ok {
		err = errors.New("lab: sink: the kernel does not say when packets arrive")
	}
	return err
}

func (s *Sink) drain(c net.Conn) {
	defer c.Close()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return
	}
	buf, oob := make([]byte, 64<<10), make([]byte, 128)
	for {
		var n, oobn int
		var got error
		err := raw.Read(func(fd uintptr) bool {
			n, oobn, _, _, got = syscall.Recvmsg(int(fd), buf, oob, 0)
			return got != syscall.EAGAIN
		})
		if n > 0 {
			s.see(arrived(oob[:oobn]).UnixNano())
			s.bytes.Add(int64(n))
		}
		if err != nil || got != nil && got != syscall.EINTR || got == nil && n == 0 {
			return
		}
	}
}

func (s *Sink) see(at int64) {
	for {
		last := s.last.Load()
		if at <= last || s.last.CompareAndSwap(last, at) {
			return
		}
	}
}

// arrived is when the kernel had the last packet of what was read; see
// SO_TIMESTAMPNS in socket(7). Where it does not say, it is now.
func arrived(oob []byte) time.Time {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Now()
	}
	for _, m := range messages {
		var at syscall.Timespec
		if m.Header.Level == syscall.SOL_SOCKET && m.Header.Type == syscall.SCM_TIMESTAMPNS && len(m.Data) >= int(unsafe.Sizeof(at)) {
			at = *(*syscall.Timespec)(unsafe.Pointer(&m.Data[0]))
			return time.Unix(at.Unix())
		}
	}
	return time.Now()
}

// Conns is how many connections were accepted.
func (s *Sink) Conns() int64 { return s.conns.Load() }

// Bytes is how many bytes have arrived.
func (s *Sink) Bytes() int64 { return s.bytes.Load() }

// Last is when the last of them arrived, by the clock of the machine; zero if
// none has.
func (s *Sink) Last() time.Time {
	if ns := s.last.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

// Close stops accepting. Connections end with their peers or the lab.
func (s *Sink) Close() error { return s.listener.Close() }
