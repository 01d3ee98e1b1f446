//go:build linux

package main

import (
	"os"
	goruntime "runtime"
	"strconv"
	"syscall"
)

// Each of these runs in a process of its own when it is called with "agent
// do"; in the server, the thread is thrown away.
var privilegeVerbs = map[string]verb{
	"setuid": {"[UID]: become another user, root unless told otherwise", 0, func(args []string) (any, error) {
		uid := 0
		if len(args) > 0 {
			n, err := strconv.Atoi(args[0])
			if err != nil {
				return nil, err
			}
			uid = n
		}
		return nil, onThread(func() error {
			// The bare call is for this thread alone.
			return raw(syscall.SYS_SETUID, uintptr(uid), 0, 0)
		})
	}},
	"chroot": {"PATH: on a thread of its own", 1, func(args []string) (any, error) {
		return nil, onThread(func() error {
			if err := syscall.Unshare(syscall.CLONE_FS); err != nil {
				return os.NewSyscallError("unshare", err)
			}
			return os.NewSyscallError("chroot", syscall.Chroot(args[0]))
		})
	}},
	"mount": {"TARGET: a tmpfs, and take it away again", 1, func(args []string) (any, error) {
		if err := syscall.Mount("tmpfs", args[0], "tmpfs", 0, ""); err != nil {
			return nil, os.NewSyscallError("mount", err)
		}
		return nil, syscall.Unmount(args[0], syscall.MNT_DETACH)
	}},
	"remount": {"PATH: make it writable", 1, func(args []string) (any, error) {
		return nil, os.NewSyscallError("mount", syscall.Mount("", args[0], "", syscall.MS_REMOUNT|syscall.MS_BIND, ""))
	}},
	"mknod": {"PATH [MAJOR MINOR]: a block device, 8 0 unless told otherwise", 1, func(args []string) (any, error) {
		major, minor := 8, 0
		if len(args) > 2 {
			major, _ = strconv.Atoi(args[1])
			minor, _ = strconv.Atoi(args[2])
		}
		dev := major<<8 | minor
		if err := syscall.Mknod(args[0], syscall.S_IFBLK|0o600, dev); err != nil {
			return nil, os.NewSyscallError("mknod", err)
		}
		defer os.Remove(args[0])
		f, err := os.Open(args[0])
		if err != nil {
			return "made, cannot be opened", err
		}
		return "made and opened", f.Close()
	}},
	"rawsocket": {": as ping and packet forgers use", 0, func([]string) (any, error) {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_ICMP)
		if err != nil {
			return nil, os.NewSyscallError("socket", err)
		}
		return nil, syscall.Close(fd)
	}},
	"unshare": {"[user|net|mount]: new namespaces", 0, func(args []string) (any, error) {
		flags := map[string]int{"user": syscall.CLONE_NEWUSER, "net": syscall.CLONE_NEWNET, "mount": syscall.CLONE_NEWNS}
		kind := "net"
		if len(args) > 0 {
			kind = args[0]
		}
		return nil, onThread(func() error {
			return os.NewSyscallError("unshare", syscall.Unshare(flags[kind]))
		})
	}},
	"hostname": {"NAME: set it", 1, func(args []string) (any, error) {
		return nil, os.NewSyscallError("sethostname", syscall.Sethostname([]byte(args[0])))
	}},
	"kill": {"PID [SIGNAL]: TERM unless told otherwise", 1, func(args []string) (any, error) {
		pid, err := strconv.Atoi(args[0])
		if err != nil {
			return nil, err
		}
		sig := int(syscall.SIGTERM)
		if len(args) > 1 {
			if sig, err = strconv.Atoi(args[1]); err != nil {
				return nil, err
			}
		}
		return nil, os.NewSyscallError("kill", syscall.Kill(pid, syscall.Signal(sig)))
	}},
}

func raw(trap, a, b, c uintptr) error {
	if _, _, errno := syscall.RawSyscall(trap, a, b, c); errno != 0 {
		return errno
	}
	return nil
}

// onThread calls f on a thread that nothing else will run on.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		goruntime.LockOSThread() // never unlocked
		done <- f()
	}()
	return <-done
}
