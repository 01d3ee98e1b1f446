package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

type timeout struct{}

func (timeout) Error() string   { return "i/o timeout" }
func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return true }

func TestRemoteSaysWhatAnErrorMeans(t *testing.T) {
	to := netip.MustParseAddrPort("192.0.2.1:22")
	for _, tt := range []struct {
		name string
		err  error
		want Reach
	}{
		{"refused", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, ReachRefused},
		{"reset", fmt.Errorf("proxy: %w", syscall.ECONNRESET), ReachRefused},
		{"the system's time-out", &net.OpError{Op: "dial", Err: syscall.ETIMEDOUT}, ReachSilent},
		{"a dialer's time-out", &net.OpError{Op: "dial", Err: timeout{}}, ReachSilent},
		{"no route", &net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}, ReachUnknown},
		{"no network", &net.OpError{Op: "dial", Err: syscall.ENETUNREACH}, ReachUnknown},
		{"may not", syscall.EPERM, ReachUnknown},
		{"anything else", errors.New("the proxy is down"), ReachUnknown},
	} {
		v := &Remote{Label: "there", Dial: func(context.Context, string, string) (net.Conn, error) { return nil, tt.err }}
		got, err := v.Probe(t.Context(), "tcp", to)
		if got != tt.want || (got == ReachUnknown) != errors.Is(err, tt.err) {
			t.Errorf("%s: got %v, %v; want %v", tt.name, got, err, tt.want)
		}
	}
	if r, err := new(Remote).Probe(t.Context(), "tcp", to); r != ReachUnknown || err == nil {
		t.Errorf("the zero Remote: %v, %v", r, err)
	}
}

// Of UDP only an answer shows anything.
func TestRemoteUDP(t *testing.T) {
	ln, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		buf := make([]byte, 16)
		for {
			_, from, err := ln.ReadFrom(buf)
			if err != nil {
				return
			}
			ln.WriteTo([]byte("x"), from)
		}
	}()
	deaf, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	gone, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	v := &Remote{Label: "here", Dial: new(net.Dialer).DialContext, Timeout: 200 * time.Millisecond}
	for _, tt := range []struct {
		name string
		at   net.Addr
		want Reach
	}{
		{"answers", ln.LocalAddr(), ReachOpen},
		{"is silent", deaf.LocalAddr(), ReachSilent},
		{"is closed", gone.LocalAddr(), ReachRefused},
	} {
		got, err := v.Probe(t.Context(), "udp", netip.MustParseAddrPort(tt.at.String()))
		if got != tt.want || err != nil {
			t.Errorf("what %s: got %v, %v; want %v", tt.name, got, err, tt.want)
		}
	}
}

func TestReadBanner(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"OpenSSH", "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", "SSH-2.0-OpenSSH_9.2p1 Debian-2"},
		{"Tailscale SSH", "SSH-2.0-Tailscale\r\n", "SSH-2.0-Tailscale"},
		{"an old one", "SSH-1.99-x\n", "SSH-1.99-x"},
		{"after a greeting", "Welcome\r\nto this machine\r\nSSH-2.0-x\r\n", "SSH-2.0-x"},
		{"without an end of line", "SSH-2.0-x", "SSH-2.0-x"},
		{"a mail server", "220 mail ESMTP\r\n", ""},
		{"a web server that waits", "", ""},
		{"SSH within a line", "not SSH-2.0-x\r\n", ""},
		{"a greeting without end", strings.Repeat("x\n", 1<<16) + "SSH-2.0-x\n", ""},
		{"a banner without end", "SSH-2.0-" + strings.Repeat("x", 1<<16), "SSH-2.0-" + strings.Repeat("x", 247)},
	} {
		if got := readBanner(strings.NewReader(tt.text)); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
