package procfs

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// InetSocket is one line of /proc/PID/net/tcp and its kin.
type InetSocket struct {
	Local, Remote netip.AddrPort
	State         int // of TCP: 0x0a listens; of UDP 7 takes packets from anyone
	UID           uint32
	Inode         uint64
}

// States of an [InetSocket].
const (
	TCPListen = 0x0a
	UDPOpen   = 0x07
)

// ParseInet parses /proc/PID/net/tcp, tcp6, udp or udp6. Addresses are in the
// byte order of the machine, four bytes at a time.
func ParseInet(data []byte) ([]InetSocket, error) {
	var all []InetSocket
	first := true
	for line := range bytes.Lines(data) {
		if first { // the heading
			first = false
			continue
		}
		f := strings.Fields(string(line))
		if len(f) < 10 {
			return nil, fmt.Errorf("net: malformed line %q", line)
		}
		s, err := parseInet(f)
		if err != nil {
			return nil, fmt.Errorf("net: %w: %q", err, line)
		}
		all = append(all, s)
	}
	return all, nil
}

func parseInet(f []string) (s InetSocket, err error) {
	if s.Local, err = hexAddr(f[1]); err != nil {
		return s, err
	}
	if s.Remote, err = hexAddr(f[2]); err != nil {
		return s, err
	}
	state, err := strconv.ParseUint(f[3], 16, 8)
	if err != nil {
		return s, err
	}
	uid, err := strconv.ParseUint(f[7], 10, 32)
	if err != nil {
		return s, err
	}
	s.State, s.UID = int(state), uint32(uid)
	s.Inode, err = strconv.ParseUint(f[9], 10, 64)
	return s, err
}

func hexAddr(s string) (netip.AddrPort, error) {
	addr, port, ok := strings.Cut(s, ":")
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("malformed address %q", s)
	}
	raw, err := hex.DecodeString(addr)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, fmt.Errorf("malformed address %q", s)
	}
	for i := 0; i < len(raw); i += 4 {
		binary.BigEndian.PutUint32(raw[i:], binary.NativeEndian.Uint32(raw[i:]))
	}
	ip, _ := netip.AddrFromSlice(raw)
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(ip, uint16(p)), nil
}

// UnixSocket is one line of /proc/PID/net/unix.
type UnixSocket struct {
	Inode  uint64 // of the socket, not of the file
	Listen bool
	Path   string // as it was bound; "@…" is abstract; empty if not bound
}

const acceptsConnections = 1 << 16 // __SO_ACCEPTCON of include/linux/net.h

// ParseUnix parses /proc/PID/net/unix.
func ParseUnix(data []byte) ([]UnixSocket, error) {
	var all []UnixSocket
	first := true
	for line := range bytes.Lines(data) {
		if first {
			first = false
			continue
		}
		// Num RefCount Protocol Flags Type St Inode Path; the inode is padded
		// and the path may hold spaces, and line breaks, which make lines of
		// their own.
		text := strings.TrimSuffix(string(line), "\n")
		f := strings.Fields(text)
		if len(f) < 7 || !strings.HasSuffix(f[0], ":") {
			if len(all) > 0 && all[len(all)-1].Path != "" {
				all[len(all)-1].Path += "\n" + text
				continue
			}
			return nil, fmt.Errorf("unix: malformed line %q", line)
		}
		flags, err := strconv.ParseUint(f[3], 16, 64)
		if err != nil {
			return nil, fmt.Errorf("unix: malformed line %q", line)
		}
		inode, err := strconv.ParseUint(f[6], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("unix: malformed line %q", line)
		}
		s := UnixSocket{Inode: inode, Listen: flags&acceptsConnections != 0}
		if len(f) > 7 {
			s.Path = afterFields(text, 7)
		}
		all = append(all, s)
	}
	return all, nil
}

// afterFields returns what follows the first n fields and one space.
func afterFields(s string, n int) string {
	for range n {
		s = strings.TrimLeft(s, " ")
		i := strings.IndexByte(s, ' ')
		if i < 0 {
			return ""
		}
		s = s[i:]
	}
	return strings.TrimPrefix(s, " ")
}
