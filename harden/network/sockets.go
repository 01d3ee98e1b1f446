package network

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/internal/procfs"
)

// socketFiles are those in /proc/PID/net that show sockets.
var socketFiles = []struct {
	name     string
	protocol firewall.Protocol
	state    int // of one that accepts
}{
	{"tcp", firewall.TCP, procfs.TCPListen},
	{"tcp6", firewall.TCP, procfs.TCPListen},
	{"udp", firewall.UDP, procfs.UDPOpen},
	{"udp6", firewall.UDP, procfs.UDPOpen},
}

type socket struct {
	Listener

	inode uint64
}

// readSockets reads the accepting sockets of the network namespace of a
// process, given by its directory in /proc.
func readSockets(v *host.View, dir string) ([]socket, error) {
	var all []socket
	for _, f := range socketFiles {
		file := dir + "/net/" + f.name
		data, err := v.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(f.name, "6") {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		if len(data) == 0 {
			return nil, fmt.Errorf("%s: empty, without even a heading", file)
		}
		socks, err := procfs.ParseInet(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for _, s := range socks {
			if s.State != f.state {
				continue
			}
			a := s.Local.Addr()
			all = append(all, socket{
				Listener{Protocol: f.protocol, Addr: s.Local, Both: a.Is6() && a.IsUnspecified(), File: file}, s.Inode,
			})
		}
	}
	return all, nil
}

// listeners reads the accepting sockets of the machine, and who holds those
// beyond loopback.
func listeners(v *host.View) ([]Listener, error) {
	socks, err := readSockets(v, "/proc/self")
	if err != nil {
		return nil, err
	}
	holders := make(map[uint64]holder)
	for _, s := range socks {
		if !s.Addr.Addr().Unmap().IsLoopback() {
			holders[s.inode] = holder{}
		}
	}
	err = findHolders(v, holders)
	all := make([]Listener, len(socks))
	for i, s := range socks {
		h := holders[s.inode]
		s.PID, s.Name = h.pid, h.name
		all[i] = s.Listener
	}
	return all, err
}

type holder struct {
	pid  int
	name string
}

// findHolders finds a process for each socket that wanted names by its inode.
func findHolders(v *host.View, wanted map[uint64]holder) error {
	if len(wanted) == 0 {
		return nil
	}
	entries, err := v.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		dir := "/proc/" + e.Name()
		fds, err := v.ReadDir(dir + "/fd")
		if gone(err) || errors.Is(err, fs.ErrPermission) {
			continue // the socket is then nobody's that is known
		}
		if err != nil {
			return err
		}
		for _, fd := range fds {
			link, err := v.ReadLink(dir + "/fd/" + fd.Name())
			text, ok := strings.CutPrefix(link, "socket:[")
			if err != nil || !ok {
				continue
			}
			inode, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 64)
			if h, want := wanted[inode]; err == nil && want && h.pid == 0 {
				wanted[inode] = holder{pid, comm(v, dir)}
			}
		}
	}
	return nil
}

func comm(v *host.View, dir string) string {
	data, err := v.ReadFile(dir + "/comm")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
