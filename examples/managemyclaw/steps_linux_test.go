package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// What package syscall lacks of ptrace(2) and wait(2).
const (
	ptraceGetSyscallInfo = 0x420e // Linux 5.3
	ptraceExitKill       = 0x100000
	onlyThisThread       = 0x20000000 // __WNOTHREAD
	sysPidfdSendSignal   = 424
)

// A stepped is a program that is stopped before each of its system calls that
// others could notice: what it writes, sends, makes, renames, removes, ends.
// Between two of them it does not matter when it is killed.
type stepped struct {
	pid  int
	ours bool // it has become the program, and is no more what starts it
	dir  string

	at func(step string) (goOn bool) // called on the thread that traces
}

// step runs cmd, and calls at before each step of it, until at says that it is
// to go no further. It is then held there, while at the same moment others of
// its threads are anywhere, and halt is called, after which it is killed.
func step(t testing.TB, cmd *exec.Cmd, dir string, at func(step string) bool, halt func(pid int)) outcome {
	t.Helper()
	var files [2]*os.File // not pipes, for which somebody would have to wait
	for i, w := range []*io.Writer{&cmd.Stdout, &cmd.Stderr} {
		f, err := os.CreateTemp(t.TempDir(), "output")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i], *w = f, f
	}
	ended := make(chan error, 1)
	var status syscall.WaitStatus
	go func() {
		runtime.LockOSThread() // which traces, and ends with this goroutine
		s := &stepped{dir: dir, at: at}
		var err error
		if status, err = s.run(cmd, halt); s.pid != 0 && err != nil {
			_ = syscall.Kill(s.pid, syscall.SIGKILL)
		}
		ended <- err
	}()
	if err := <-ended; errors.Is(err, syscall.EPERM) {
		labtest.Skip(t, "no tracing of processes: "+err.Error())
	} else if err != nil {
		t.Fatal(err)
	}
	var text [2]bytes.Buffer
	for i, f := range files {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if _, err := text[i].ReadFrom(f); err != nil {
			t.Fatal(err)
		}
	}
	code := -1 // killed
	if status.Exited() {
		code = status.ExitStatus()
	}
	return outcome{code, text[0].String(), text[1].String()}
}

func (s *stepped) run(cmd *exec.Cmd, halt func(pid int)) (status syscall.WaitStatus, err error) {
	cmd.SysProcAttr.Ptrace = true
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	s.pid = cmd.Process.Pid
	defer cmd.Process.Release()
	execs, known := 0, make(map[int]bool)
	for {
		tid, err := syscall.Wait4(-1, &status, syscall.WALL|onlyThisThread, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		} else if err != nil {
			return 0, os.NewSyscallError("wait4", err)
		}
		if status.Exited() || status.Signaled() {
			if tid == s.pid {
				return status, nil
			}
			continue
		}
		first := !known[tid]
		known[tid] = true
		deliver := 0
		switch sig := status.StopSignal(); {
		case first && tid == s.pid:
			options := syscall.PTRACE_O_TRACESYSGOOD | syscall.PTRACE_O_TRACECLONE | syscall.PTRACE_O_TRACEEXEC | ptraceExitKill
			if err := syscall.PtraceSetOptions(tid, options); err != nil {
				return 0, os.NewSyscallError("ptrace", err)
			}
		case first && sig == syscall.SIGSTOP: // how a thread begins
		case sig == syscall.SIGTRAP|0x80:
			what, err := s.look(tid)
			if err != nil {
				return 0, err
			}
			if what != "" && s.ours && !s.at(what) {
				if halt != nil {
					halt(s.pid)
				}
				_ = syscall.Kill(s.pid, syscall.SIGKILL)
				s.at = func(string) bool { return true }
				continue // and not let go on: it dies where it is
			}
		case sig == syscall.SIGTRAP && status.TrapCause() == syscall.PTRACE_EVENT_EXEC:
			execs++ // of nsenter, and of the program
			s.ours = execs > 0
		case sig == syscall.SIGTRAP && status.TrapCause() > 0:
		default:
			deliver = int(sig)
		}
		if err := syscall.PtraceSyscall(tid, deliver); err != nil && !errors.Is(err, syscall.ESRCH) {
			return 0, os.NewSyscallError("ptrace", err)
		}
	}
}

// syscallInfo is struct ptrace_syscall_info of an entry.
type syscallInfo struct {
	op     uint8
	_      [3]uint8
	arch   uint32
	ip, sp uint64
	nr     uint64
	args   [6]uint64
	_      uint64
}

// look says what a thread is about to do that others could notice, and is empty
// if that is nothing.
func (s *stepped) look(tid int) (string, error) {
	var info syscallInfo
	n, _, errno := syscall.Syscall6(syscall.SYS_PTRACE, ptraceGetSyscallInfo, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	switch {
	case errno == syscall.ESRCH: // it has just been killed
		return "", nil
	case errno != 0:
		return "", os.NewSyscallError("ptrace", errno)
	case n == 0 || info.op != 1: // no entry
		return "", nil
	}
	switch nr := int(info.nr); nr {
	case syscall.SYS_WRITE, syscall.SYS_PWRITE64, syscall.SYS_FSYNC, syscall.SYS_FDATASYNC, syscall.SYS_FTRUNCATE, syscall.SYS_SENDTO, syscall.SYS_SENDMSG, syscall.SYS_CONNECT:
		name := map[int]string{
			syscall.SYS_WRITE: "write", syscall.SYS_PWRITE64: "write", syscall.SYS_FSYNC: "sync", syscall.SYS_FDATASYNC: "sync", syscall.SYS_FTRUNCATE: "truncate",
			syscall.SYS_SENDTO: "send", syscall.SYS_SENDMSG: "send", syscall.SYS_CONNECT: "connect",
		}[nr]
		file, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tid, info.args[0]))
		if err != nil || strings.HasPrefix(file, "pipe:") || strings.HasPrefix(file, "anon_inode:") || file == "/dev/null" {
			return "", nil //nolint:nilerr // the process's own affair, or that of a child that looks
		}
		if request := request.FindStringSubmatch(s.text(tid, info.args[1])); name == "write" && request != nil {
			return "ask " + s.name(request[1]+" "+request[3]), nil
		}
		return name + " " + s.name(file), nil
	case syscall.SYS_OPENAT:
		if info.args[2]&(syscall.O_CREAT|syscall.O_TRUNC) == 0 {
			return "", nil
		}
		return "create " + s.name(s.text(tid, info.args[1])), nil
	case syscall.SYS_RENAMEAT, syscall.SYS_LINKAT:
		return "rename " + s.name(s.text(tid, info.args[3])), nil
	case syscall.SYS_UNLINKAT:
		return "remove " + s.name(s.text(tid, info.args[1])), nil
	case syscall.SYS_MKDIRAT:
		return "mkdir " + s.name(s.text(tid, info.args[1])), nil
	case syscall.SYS_KILL, sysPidfdSendSignal:
		return "signal", nil
	}
	return "", nil
}

var (
	random  = regexp.MustCompile(`[0-9a-f]{32,}|(tmp-|lib|\.)[0-9]{5,}|\[[0-9]+\]`)
	request = regexp.MustCompile(`^(GET|POST|DELETE) (/v[0-9.]+)?(/[^ ?]*)`)
	process = regexp.MustCompile(`/[0-9]+/`)
)

// name makes the names of the same thing in several runs one.
func (s *stepped) name(file string) string {
	if rest, ok := strings.CutPrefix(file, s.dir); ok {
		file = "STATE" + rest
	}
	return process.ReplaceAllString(random.ReplaceAllString(file, "*"), "/*/")
}

// text reads a string of the program.
func (s *stepped) text(tid int, at uint64) string {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", tid))
	if err != nil {
		return "?"
	}
	defer f.Close()
	buf := make([]byte, 4096)
	n, _ := f.ReadAt(buf, int64(at)) // less if a page is not there
	text, _, _ := bytes.Cut(buf[:n], []byte{0})
	return string(text)
}

// command is the program in a process of its own on the lab's host.
func (r *runaway) command(args ...string) *exec.Cmd {
	cmd := r.Host.Command(context.Background(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), mainVar+"=1", "SSH_CONNECTION=", "DOCKER_HOST=unix:///run/docker.sock")
	return cmd
}

// here runs the program to its end on the lab's host.
func (r *runaway) here(t testing.TB, args ...string) outcome {
	t.Helper()
	cmd := r.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	late := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	err := cmd.Run()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		t.Fatal(err)
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// processes are those of the agent's container, by the kernel.
func (r *runaway) processes(t testing.TB, container string) (pids []string) {
	t.Helper()
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range groups {
		text, err := os.ReadFile(name)
		stat, _ := os.ReadFile(filepath.Join(filepath.Dir(name), "stat"))
		if err == nil && strings.Contains(string(text), container) && !strings.Contains(string(stat), ") Z ") {
			pids = append(pids, filepath.Base(filepath.Dir(name)))
		}
	}
	slices.Sort(pids)
	return pids
}
