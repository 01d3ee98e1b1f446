package halt

import (
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
)

// A thread that is on a processor, or waits for one, is seen to run, however
// short a time it is watched, and whatever the kernel says of its cgroup: what it
// had of the processor is counted only once in a while.
func TestRunningThreadIsRestless(t *testing.T) {
	var stop atomic.Bool
	thread := make(chan int)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		thread <- syscall.Gettid()
		for !stop.Load() { //nolint:revive // it takes a processor
		}
	}()
	tid := <-thread
	defer func() { stop.Store(true); <-done }()
	dir := procDir(os.Getpid()) + "/task/" + strconv.Itoa(tid)
	for range 200 {
		was, err := busy(dir)
		if err != nil {
			t.Fatal(err)
		}
		if why := restless(dir, map[string]int64{dir: was}, map[int]bool{tid: true}, nil, nil); why == "" {
			t.Fatal("it is taken for frozen")
		}
	}
}
