package docker

import (
	"context"
	"net"
	"syscall"
)

// peer returns the process that listens on a unix socket, or zero if the
// kernel does not say: see SO_PEERCRED in unix(7). For a socket that a service
// manager opened for the engine it is the service manager.
func peer(ctx context.Context, socket string) int {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "unix", socket)
	if err != nil {
		return 0
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) {
		if cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}
