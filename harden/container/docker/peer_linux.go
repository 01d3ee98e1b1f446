package docker

import (
	"net"
	"syscall"
)

// peerPID returns the process that called listen on the other end, as this
// process numbers it; zero if it is in a PID namespace that is not seen here.
func peerPID(c *net.UnixConn) int {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	var cred *syscall.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err != nil || credErr != nil {
		return 0
	}
	return int(cred.Pid)
}
