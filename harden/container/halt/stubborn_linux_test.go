package halt_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/harden/container/halt"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// kernels are the ways in which a kernel freezes and kills.
var kernels = []struct {
	name string
	be   func(*halt.Tracker)
}{
	{"both versions", func(*halt.Tracker) {}},
	{"version 1", (*halt.Tracker).OnlyV1},
	{"version 2", (*halt.Tracker).OnlyV2},
	{"version 2 without cgroup.kill", func(t *halt.Tracker) { t.OnlyV2(); t.NoCgroupKill() }},
}

// Once frozen, the agent runs no further instruction, not while it is killed
// either: what it counts in memory that it shares with the test stays as it
// was.
func TestNoInstructionAfterFreeze(t *testing.T) {
	l := labtest.Start(t, lab.Config{})
	for _, k := range kernels {
		t.Run(k.name, func(t *testing.T) {
			b := set(t, l, named)
			k.be(b.tracker)
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			b.run("agent", "--restart=always", "-v", dir+":/shared", lab.AgentImage, "do", "count", "/shared/n")
			defer b.docker("rm", "-f", "agent")
			count := func() uint64 {
				data, err := os.ReadFile(filepath.Join(dir, "n"))
				if err != nil || len(data) != 8 {
					return 0
				}
				return binary.NativeEndian.Uint64(data)
			}
			for began := time.Now(); count() == 0; time.Sleep(time.Millisecond) {
				if time.Since(began) > 30*time.Second {
					t.Fatalf("it does not count: %s", b.docker("logs", "agent"))
				}
			}
			b.arm()
			took := b.do(b.freeze)
			b.confirm(b.frozen)
			at := count()
			time.Sleep(5 * time.Millisecond)
			if n := count(); n != at {
				t.Fatalf("frozen, it counted on from %d to %d", at, n)
			}
			// The freeze again, in the middle of the kill: that it must not undo.
			ctx, stop := context.WithCancel(t.Context())
			var freezing sync.WaitGroup
			freezing.Go(func() {
				for ctx.Err() == nil {
					_ = b.freeze.Do(ctx)
					time.Sleep(100 * time.Microsecond)
				}
			})
			defer freezing.Wait()
			defer stop()
			b.do(b.kill)
			b.confirm(b.procs)
			stop()
			freezing.Wait()
			if n := count(); n != at {
				t.Errorf("it counted from %d to %d while it was killed", at, n)
			}
			t.Logf("freeze took %v; at %d", took, at)
		})
	}
}

// The agent stands still from the first moment of a kill, and not only when the
// engine has been asked, which takes as long as it is given.
func TestKillFreezesFirst(t *testing.T) {
	l := labtest.Start(t, lab.Config{})
	for _, k := range kernels[1:3] {
		t.Run(k.name, func(t *testing.T) {
			b := set(t, l, named)
			k.be(b.tracker)
			b.kill.EngineTimeout = 4 * time.Second
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			counter := watchCounter(t, dir+"/n")
			b.run("agent", "--restart=always", "-v", dir+":/shared", lab.AgentImage, "do", "count", "/shared/n")
			defer b.docker("rm", "-f", "agent")
			counter.moves(t)
			b.arm()
			pid := b.DockerdPID()
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
			watched := counter.stands(time.Now())
			_ = b.kill.Do(t.Context()) // the engine did not answer, it says
			b.confirm(b.procs)
			if still := <-watched; still > 3*time.Second {
				t.Errorf("it counted for %v", still)
			}
		})
	}
}

// A container that the engine has paused dies as any other.
func TestPausedContainerIsKilled(t *testing.T) {
	b := start(t, named)
	id := b.run("agent", lab.AgentImage)
	b.docker("pause", "agent")
	b.arm()
	b.off(b.frozen)
	b.do(b.kill)
	b.confirm(b.procs)
	if left := b.truth(id); len(left) > 0 {
		t.Error(left)
	}
}

// What forks faster than anybody can list it is gone all the same, whatever the
// kernel has.
func TestForkBomb(t *testing.T) {
	l := labtest.Start(t, lab.Config{})
	for _, k := range kernels {
		t.Run(k.name, func(t *testing.T) {
			b := set(t, l, named)
			k.be(b.tracker)
			b.run("agent", "--restart=always", "--pids-limit=80", "--pid=host", lab.AgentImage)
			defer b.docker("rm", "-f", "agent")
			id := b.docker("inspect", "-f", "{{.Id}}", "agent")
			b.arm()
			b.docker("exec", "-d", "agent", "/agent", "do", "bomb")
			for began := time.Now(); len(b.truth(id)) < 12; time.Sleep(time.Millisecond) {
				if time.Since(began) > 30*time.Second {
					t.Fatal("it does not fork")
				}
			}
			n := len(b.truth(id))
			began := time.Now()
			if err := b.kill.Do(t.Context()); err != nil {
				t.Error(err)
			}
			b.confirm(b.procs)
			t.Logf("%d processes gone after %v", n, time.Since(began))
			time.Sleep(20 * time.Millisecond)
			if left := b.truth(id); len(left) > 0 {
				t.Errorf("%d of them run", len(left))
			}
		})
	}
}

// What is stopped, waits for a child that never goes on, or has ended its first
// thread is alive until it is killed, and then gone.
func TestStuckProcessesAreGone(t *testing.T) {
	b := start(t, named)
	id := b.run("agent", lab.AgentImage)
	for _, verb := range []string{"vfork", "leaderless"} {
		b.docker("exec", "-d", "agent", "/agent", "do", verb)
	}
	if a, err := b.Do(t.Context(), "agent", "spawn", "1", "setsid"); err != nil || !a.OK {
		t.Fatal(a, err)
	}
	b.arm()
	var states string
	for began := time.Now(); !strings.Contains(states, "D") || !strings.Contains(states, "Z"); time.Sleep(time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			t.Fatalf("states %q: no process waits for its child, or none is without its first thread", states)
		}
		states = b.states(id)
	}
	stopped := b.truth(id)[len(b.truth(id))-1]
	if err := syscall.Kill(stopped, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	b.do(b.freeze)
	b.confirm(b.frozen)
	b.do(b.kill)
	b.confirm(b.procs)
	if s := b.states(id); strings.Trim(s, "ZX") != "" {
		t.Errorf("states %q", s)
	}
}

// states returns the letters of all threads in the container's cgroup, and of
// processes.
func (b *bench) states(id string) string {
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		b.t.Fatal(err)
	}
	var s strings.Builder
	for _, name := range names {
		group, err := os.ReadFile(filepath.Join(filepath.Dir(name), "cgroup"))
		if err != nil || !bytes.Contains(group, []byte(id)) {
			continue
		}
		if data, err := os.ReadFile(name); err == nil {
			s.WriteString(string(data[bytes.LastIndexByte(data, ')')+2]))
		}
	}
	return s.String()
}

// A process whose first thread alone has ended is alive, though it looks like a
// zombie.
func TestProcessWithoutFirstThreadIsSeen(t *testing.T) {
	b := start(t, named)
	id := b.run("agent", lab.AgentImage, "do", "leaderless")
	b.run("other", lab.AgentImage)
	for began := time.Now(); b.states(id) != "Z"; time.Sleep(time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			t.Fatalf("states %q", b.states(id))
		}
	}
	b.arm()
	if left := b.remaining(b.procs); left["container/agent"] == "" {
		t.Error("it is taken for gone")
	}
	if left := b.remaining(b.frozen); left["container/agent"] == "" {
		t.Error("it is taken for frozen")
	}
	b.do(b.kill)
	b.confirm(b.procs)
}

// A process that waits in the kernel for what never comes cannot be killed. It
// is named, by the actuator and by the observer, until what it waits for ends;
// everything else is gone.
func TestProcessThatTheKernelKeepsIsNamed(t *testing.T) {
	b := start(t, named)
	id := b.run("agent", "--restart=always", lab.AgentImage)
	b.arm()
	server := hang(t, b.truth(id)[0], "/tmp")
	b.docker("exec", "-d", "agent", "/agent", "do", "read", "/tmp/never")
	server.asked(t)
	all := b.truth(id)
	kept := all[len(all)-1]

	_ = b.freeze.Do(t.Context())
	if left := b.remaining(b.frozen); !strings.Contains(left["container/agent"], strconv.Itoa(kept)) {
		t.Errorf("process %d is not frozen, and not named: %v", kept, left)
	}
	began := time.Now()
	err := b.kill.Do(t.Context())
	took := time.Since(began)
	open, ok := errors.AsType[interface {
		error
		Open() map[string]string
	}](err)
	if want := fmt.Sprintf("process %d", kept); !ok || !strings.Contains(open.Open()["container/agent"], want) {
		t.Errorf("%s is not said to be open: %v", want, err)
	}
	if left := b.remaining(b.procs); !strings.Contains(left["container/agent"], fmt.Sprintf("process %d (\"agent\") in state D", kept)) || strings.Contains(left["container/agent"], "process 1 ") {
		t.Errorf("process %d of %v: %v", kept, b.truth(id), left)
	}
	t.Logf("after %v: %v", took, err)
	server.close()
	b.confirm(b.procs)
}

// A fuse is a file system that answers nothing.
type fuse struct {
	dev  *os.File
	name chan struct{}
}

// hang mounts one in the mount namespace of a process. See fuse(4).
func hang(t *testing.T, pid int, dir string) *fuse {
	t.Helper()
	fd, err := syscall.Open("/dev/fuse", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		labtest.Skip(t, "no /dev/fuse: "+err.Error())
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	done := make(chan error, 1)
	var mount func()
	mount = func() {
		runtime.LockOSThread() // for good: the thread is in another mount namespace
		if syscall.Gettid() == os.Getpid() {
			// The first thread never ends, and /proc/self shows its mounts: it is
			// held here until another has done this.
			defer runtime.UnlockOSThread()
			there := make(chan struct{})
			go func() { defer close(there); mount() }()
			<-there
			return
		}
		err := syscall.Unshare(syscall.CLONE_FS)
		if err == nil {
			if _, _, errno := syscall.RawSyscall(sysSetns, ns.Fd(), syscall.CLONE_NEWNS, 0); errno != 0 {
				err = errno
			}
		}
		if err == nil {
			err = syscall.Mount("never", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd))
		}
		done <- err
	}
	go mount()
	if err := <-done; err != nil {
		t.Fatalf("mount: %v", err)
	}
	f := &fuse{dev: os.NewFile(uintptr(fd), "/dev/fuse"), name: make(chan struct{})}
	t.Cleanup(f.close)
	go func() {
		buf := make([]byte, 1<<17)
		for n := 0; ; n++ {
			if _, err := syscall.Read(fd, buf); err != nil {
				return
			}
			const initialize = 26 // FUSE_INIT of linux/fuse.h
			if binary.NativeEndian.Uint32(buf[4:]) != initialize {
				close(f.name)
				return // and that is all it will ever do
			}
			reply := make([]byte, 16+64)
			binary.NativeEndian.PutUint32(reply, uint32(len(reply)))
			copy(reply[8:16], buf[8:16]) // which request it answers
			binary.NativeEndian.PutUint32(reply[16:], 7)
			binary.NativeEndian.PutUint32(reply[20:], 31)
			binary.NativeEndian.PutUint32(reply[36:], 4096)
			if _, err := syscall.Write(fd, reply); err != nil {
				return
			}
		}
	}()
	return f
}

func (f *fuse) asked(t *testing.T) {
	t.Helper()
	select {
	case <-f.name:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody asks the file system for anything")
	}
}

func (f *fuse) close() { f.dev.Close() }

// What has left the container's cgroup does not freeze with it. The observers
// see that, and it is killed by the namespaces that it is still in.
func TestProcessThatLeftTheCgroup(t *testing.T) {
	for _, pidMode := range []string{"", "--pid=host"} {
		t.Run("with "+pidMode, func(t *testing.T) {
			b := start(t, named)
			args := []string{"--privileged"}
			if pidMode != "" {
				args = append(args, pidMode)
			}
			id := b.run("agent", append(args, lab.AgentImage)...)
			b.docker("exec", "-d", "agent", "/agent", "sleep", "3600")
			for began := time.Now(); len(b.truth(id)) < 2; time.Sleep(time.Millisecond) {
				if time.Since(began) > 30*time.Second {
					t.Fatal("nothing was started")
				}
			}
			b.arm()
			all := b.truth(id)
			away := all[len(all)-1]
			leave(t, away)
			b.do(b.freeze)
			time.Sleep(5 * time.Millisecond)
			if left := b.remaining(b.frozen); !strings.Contains(left["container/agent"], fmt.Sprintf("process %d ", away)) {
				t.Errorf("process %d runs, and the observer sees %v", away, left)
			}
			b.do(b.kill)
			b.confirm(b.procs)
			if runs(away) {
				t.Errorf("process %d runs", away)
			}
		})
	}
}

// leave moves a process to the first cgroup of every hierarchy, as root in a
// privileged container can.
func leave(t *testing.T, pid int) {
	t.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/*/cgroup.procs"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if err := os.WriteFile(name, []byte(strconv.Itoa(pid)), 0); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.EACCES) {
				t.Log(err)
			}
		}
	}
	if data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)); err != nil || strings.Contains(string(data), "hardshell-lab") {
		t.Fatalf("it did not leave: %s %v", data, err)
	}
}
