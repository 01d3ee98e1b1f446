//go:build linux

package main

import (
	"os"
	goruntime "runtime"
	"strconv"
	"syscall"
)

func init() {
	if len(os.Args) > 1 && os.Args[1] == "split" {
		goruntime.LockOSThread() // main then runs on the first thread
	}
}

// split makes the first thread another user, and leaves the others what they
// are: who looks at /proc/PID/status alone sees a process that has no
// privileges, although it has.
func split(uid, seconds string) {
	n, err := strconv.Atoi(uid)
	if err != nil {
		fatal(2, err.Error())
	}
	// The bare calls are for this thread alone.
	for _, call := range []uintptr{syscall.SYS_SETGROUPS, syscall.SYS_SETRESGID, syscall.SYS_SETRESUID} {
		id := uintptr(n)
		a, b, c := id, id, id
		if call == syscall.SYS_SETGROUPS {
			a, b, c = 0, 0, 0
		}
		if err := raw(call, a, b, c); err != nil {
			fatal(1, err.Error())
		}
	}
	sleep(seconds)
}
