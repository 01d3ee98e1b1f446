package halt

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// A thread that is on a processor, or waits for one, is seen to run, however
// short a time it is watched, and whatever the kernel says of its cgroup: what it
// had of the processor is counted only once in a while.
func TestRunningThreadIsRestless(t *testing.T) {
	c := exec.CommandContext(t.Context(), "sh", "-c", "while :; do :; done")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	tid := c.Process.Pid
	dir := mainThread(tid)
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		if ran, err := busy(dir); err == nil && ran > int64(50*time.Millisecond) {
			break // it has begun to do nothing but that
		}
		if time.Since(began) > 20*time.Second {
			t.Fatal("it does not run")
		}
	}
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
