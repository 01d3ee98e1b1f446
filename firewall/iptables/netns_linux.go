package iptables

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// inNetNS calls fn on a thread in a network namespace; empty means the
// caller's. The programs that fn starts are there too, since a child inherits
// the namespaces of the thread that starts it.
func inNetNS(path string, fn func() error) error {
	if path == "" {
		return fn()
	}
	ns, err := os.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread, which nothing else may use now, ends
		// with this goroutine.
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// The first thread cannot end. Hold it while another one works.
			defer runtime.UnlockOSThread()
			done <- inNetNS(path, fn)
			return
		}
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter the network namespace %s: %w", path, err)
			return
		}
		done <- fn()
	}()
	return <-done
}
