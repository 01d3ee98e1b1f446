package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// refuseNFTables has the kernel refuse this process, for good, the sockets by
// which it speaks nftables: with the error of a kernel that has none, by a filter
// for system calls (seccomp(2)). What it starts may have them, unless it asks for
// sockets as this program does, which never block: so iptables is what it is on
// this machine, and no tables are made of a kind that it does not use.
func refuseNFTables() error {
	const (
		number = 0  // in struct seccomp_data of <linux/seccomp.h>
		args   = 16 // eight bytes each, of which the lower four count here
	)
	arg := func(n uint32) uint32 {
		lower := uint32(0)
		if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
			lower = 4
		}
		return args + 8*n + lower
	}
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	// unless skips so many instructions if what is loaded is not so.
	unless := func(test uint16, value uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, K: value, Jf: skip}
	}
	filter := []unix.SockFilter{
		load(number), unless(unix.BPF_JEQ, unix.SYS_SOCKET, 7),
		load(arg(0)), unless(unix.BPF_JEQ, unix.AF_NETLINK, 5),
		load(arg(2)), unless(unix.BPF_JEQ, unix.NETLINK_NETFILTER, 3),
		load(arg(1)), unless(unix.BPF_JSET, unix.SOCK_NONBLOCK, 1),
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EAFNOSUPPORT)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	switch {
	case errno != 0:
		return os.NewSyscallError("seccomp", errno)
	case thread != 0:
		return fmt.Errorf("seccomp: thread %d has a filter of its own", thread)
	}
	return nil
}
