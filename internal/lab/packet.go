//go:build linux

package lab

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
)

// ListenPacket listens on the machine, as [Machine.Listen] does, for datagrams.
func (m *Machine) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	if err := literal(network, address); err != nil {
		return nil, err
	}
	var c net.PacketConn
	err := m.ns.do(func() (err error) {
		c, err = new(net.ListenConfig).ListenPacket(ctx, network, address)
		return err
	})
	return c, err
}

// Echo answers each datagram with itself, until the connection is closed.
func Echo(c net.PacketConn) {
	servePackets(c, func(b []byte) []byte { return b })
}

// DNS is a name server for datagrams, until the connection is closed. It says of every
// name that its IPv4 address is [FarAddr4], and that there is nothing else to
// know.
func DNS(c net.PacketConn) { servePackets(c, answerDNS) }

func servePackets(c net.PacketConn, answer func([]byte) []byte) {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		if out := answer(buf[:n]); out != nil {
			c.WriteTo(out, from)
		}
	}
}

// answerDNS is that of RFC 1035 section 4.1 to a query with one question; nil to
// anything else.
func answerDNS(query []byte) []byte {
	const header = 12
	if len(query) < header || query[2]&0x80 != 0 || binary.BigEndian.Uint16(query[4:]) != 1 {
		return nil
	}
	end := header // of the question
	for end < len(query) && query[end] != 0 {
		end += 1 + int(query[end])
	}
	end += 5 // the name's last byte, type, class
	if end > len(query) {
		return nil
	}
	out := append([]byte{}, query[:end]...)
	out[2], out[3] = 0x84|query[2]&1, 0x80 // a response, with authority
	copy(out[6:], []byte{0, 0, 0, 0, 0, 0})
	if kind := binary.BigEndian.Uint16(query[end-4:]); kind == 1 {
		out[7] = 1
		out = append(out, 0xc0, header) // the name of the question
		out = append(out, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		out = append(out, FarAddr4.AsSlice()...)
	}
	return out
}

// SetSysctl sets a variable below /proc/sys/net of the machine, such as
// "ipv4/conf/all/route_localnet".
func (m *Machine) SetSysctl(ctx context.Context, name, value string) error {
	out, err := m.Command(ctx, "sh", "-c", `echo "$2" > "/proc/sys/net/$1"`, "sh", name, value).CombinedOutput()
	if err != nil {
		return fmt.Errorf("lab: set net/%s: %w: %s", name, err, out)
	}
	return nil
}
