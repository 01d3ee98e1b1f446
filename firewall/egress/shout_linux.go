package egress

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// discardPort is that of RFC 863: who is there does not answer.
const discardPort = 9

// refused reports whether err is what a rule, a missing way or a missing family
// makes of a packet: it did not leave.
func refused(err error) bool {
	for _, known := range []error{
		unix.EPERM, unix.EACCES, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EADDRNOTAVAIL, unix.EAFNOSUPPORT,
		unix.ENETDOWN, unix.ENODEV, unix.ENXIO, unix.EINVAL, unix.ENOBUFS, unix.ECONNREFUSED, unix.EPROTONOSUPPORT,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

func sockaddr(addr netip.Addr, port uint16, index int) (family int, sa unix.Sockaddr) {
	if addr.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Addr: addr.As4(), Port: int(port)}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Addr: addr.As16(), Port: int(port), ZoneId: uint32(index)}
}

// send makes a socket in the calling thread's namespace and sends from it.
func send(family, kind, protocol int, to unix.Sockaddr, data []byte, device string) error {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd) //nolint:errcheck // what is sent is sent
	if device != "" {
		err = errors.Join(unix.BindToDevice(fd, device), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1))
		if err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return os.NewSyscallError("sendto", unix.Sendto(fd, data, 0, to))
}

func sendUDP(addr netip.Addr, port uint16, device, token string) error {
	family, to := sockaddr(addr, port, 0)
	return send(family, unix.SOCK_DGRAM, 0, to, []byte(token), device)
}

// echo is an ICMP echo request with a token, see RFC 792 and RFC 4443.
func echo(addr netip.Addr, token string) error {
	family, to := sockaddr(addr, 0, 0)
	m := append([]byte{8, 0, 0, 0, 'h', 's', 0, 1}, token...)
	if addr.Is6() {
		m[0] = 128 // whose checksum the kernel makes
		return send(family, unix.SOCK_RAW, unix.IPPROTO_ICMPV6, to, m, "")
	}
	binary.BigEndian.PutUint16(m[2:], checksum(m))
	return send(family, unix.SOCK_RAW, unix.IPPROTO_ICMP, to, m, "")
}

func checksum(b []byte) uint16 {
	var sum uint32
	for len(b) > 1 {
		sum += uint32(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// dial begins a connection, and does not wait for it.
func (c *connection) dial() error {
	family, to := sockaddr(c.addr, c.port, 0)
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd) //nolint:errcheck // its first packet has left by then, or never does
	err = unix.Connect(fd, to)
	if errors.Is(err, unix.EINPROGRESS) {
		return nil
	}
	return os.NewSyscallError("connect", err)
}

// query is a DNS question for the address of a token below "invalid", see
// RFC 1035 section 4.1 and RFC 6761.
func query(token string) []byte {
	q := []byte{'h', 's', 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, byte(len(token))}
	q = append(q, token...)
	q = append(q, 7)
	q = append(q, "invalid"...)
	return append(q, 0, 0, 1, 0, 1)
}

// resolver is where an engine's own name server listens in the namespaces of
// containers.
var resolver = netip.MustParseAddr("127.0.0.11")

// frameType is for experiments (IEEE 802), so that nothing answers it.
const frameType = 0x88b5

// shoutInside sends from the calling thread's namespace, by all that is there;
// packets is a packet socket in it.
// What refuses to send is closed; another error means that something was not tried.
func shoutInside(say func(string) string, packets int, hostPort uint16, hostAddrs []netip.Addr, canaries []canary, connect *connection) error {
	var errs []error
	try := func(err error) {
		if err != nil && !refused(err) {
			errs = append(errs, err)
		}
	}
	for _, c := range canaries {
		try(sendUDP(c.Addr, discardPort, "", say(fmt.Sprintf("a datagram to %s", c.Addr))))
		try(echo(c.Addr, say(fmt.Sprintf("an echo request to %s", c.Addr))))
	}
	if connect != nil {
		try(connect.dial())
	}
	for _, addr := range hostAddrs {
		try(sendUDP(addr, hostPort, "", say(fmt.Sprintf("a datagram to the host at %s", addr))))
	}
	_, to := sockaddr(resolver, 53, 0)
	try(send(unix.AF_INET, unix.SOCK_DGRAM, 0, to, query(say("a question to the engine's resolver")), ""))
	links, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Flags&net.FlagLoopback != 0 || l.Flags&net.FlagUp == 0 {
			continue
		}
		everybody := netip.AddrFrom4([4]byte{255, 255, 255, 255})
		try(sendUDP(everybody, hostPort, l.Name, say("a broadcast on "+l.Name)))
		_, to := sockaddr(netip.IPv6LinkLocalAllNodes(), hostPort, l.Index)
		try(send(unix.AF_INET6, unix.SOCK_DGRAM, 0, to, []byte(say("a multicast by IPv6 on "+l.Name)), l.Name))
		if len(l.HardwareAddr) != 6 {
			continue
		}
		frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, l.HardwareAddr...)
		frame = binary.BigEndian.AppendUint16(frame, frameType)
		frame = append(frame, say("a frame of a packet socket on "+l.Name)...)
		frame = append(frame, strings.Repeat("\x00", max(0, 60-len(frame)))...)
		try(os.NewSyscallError("sendto", unix.Sendto(packets, frame, unix.MSG_DONTWAIT, &unix.SockaddrLinklayer{Ifindex: l.Index, Halen: 6})))
	}
	return errors.Join(errs...)
}
