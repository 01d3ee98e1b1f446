//go:build linux

package main

import (
	"os"
	"os/exec"
	goruntime "runtime"
	"sync/atomic"
	"syscall"
	"unsafe"
)

func init() {
	if len(os.Args) > 2 && os.Args[2] == "leaderless" {
		goruntime.LockOSThread() // main then runs on the first thread
	}
}

// stubbornVerbs are what a process does that is not to be stopped.
var stubbornVerbs = map[string]verb{
	"bomb": {": fork as fast as it can, and have each child do so", 0, func([]string) (any, error) {
		for {
			cmd := exec.Command("/proc/self/exe", "do", "bomb")
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if cmd.Start() == nil {
				_ = cmd.Process.Release()
			}
		}
	}},
	"count": {"FILE: count in the first eight bytes of it, with every instruction", 1, count},
	"vfork": {": have a child that never runs a program, and wait for it to", 0, func([]string) (any, error) {
		goruntime.LockOSThread()
		pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, syscall.CLONE_VFORK|uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			return nil, errno
		}
		for pid == 0 {
			syscall.RawSyscall(syscall.SYS_PPOLL, 0, 0, 0)
		}
		return pid, nil
	}},
	"leaderless": {": end the first thread, and go on in another", 0, func([]string) (any, error) {
		if syscall.Gettid() != syscall.Getpid() {
			os.Exit(3)
		}
		go func() {
			for {
				syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0)
			}
		}()
		syscall.RawSyscall(syscall.SYS_EXIT, 0, 0, 0)
		return nil, nil
	}},
}

func count(args []string) (any, error) {
	f, err := os.OpenFile(args[0], os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(8); err != nil {
		return nil, err
	}
	mem, err := syscall.Mmap(int(f.Fd()), 0, 8, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	n := (*uint64)(unsafe.Pointer(&mem[0]))
	for {
		atomic.AddUint64(n, 1) // a plain store nobody could see the end of is left out
	}
}
