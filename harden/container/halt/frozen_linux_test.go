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

// A family is no more what it was when another process has the number of its
// first, or another parent minds that.
func TestFamilyIsIntact(t *testing.T) {
	var p process
	if err := p.readStat("/proc/self/stat"); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		f    family
		want bool
	}{
		{"as it was", family{first: os.Getpid(), began: p.began, shim: p.ppid}, true},
		{"another process of the number", family{first: os.Getpid(), began: p.began - 1, shim: p.ppid}, false},
		{"another parent", family{first: os.Getpid(), began: p.began, shim: p.ppid + 1}, false},
		{"none", family{first: 1 << 30, began: p.began, shim: p.ppid}, false},
	} {
		if got := test.f.intact(); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}
