//go:build linux

package lab_test

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// assertGone fails if anything with the lab's name is left: a process, a
// cgroup, a mount in any process's namespace, a directory. A network namespace
// lives by one of these or by an open file of its owner.
func assertGone(t *testing.T, id string) {
	t.Helper()
	if id == "" {
		t.Fatal("no lab to look for")
	}
	if left := remains(id); len(left) > 0 {
		t.Errorf("%s left:\n%s", id, strings.Join(left, "\n"))
	}
}

func remains(id string) []string {
	var left []string
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range procs {
		// A dead process waits for its parent, now process 1, to notice.
		if data, _ := os.ReadFile(filepath.Join(proc, "status")); strings.Contains(string(data), "\nState:\tZ") {
			continue
		}
		for _, name := range []string{"cmdline", "cgroup", "mountinfo"} {
			if data, _ := os.ReadFile(filepath.Join(proc, name)); strings.Contains(string(data), id) {
				left = append(left, filepath.Join(proc, name))
			}
		}
	}
	filepath.WalkDir("/sys/fs/cgroup", func(path string, e fs.DirEntry, err error) error {
		if err == nil && strings.Contains(e.Name(), id) {
			left = append(left, path)
		}
		return nil
	})
	for _, dir := range []string{"/var/lib/hardshell-lab", "/run", "/run/netns", "/tmp"} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if strings.Contains(e.Name(), id) {
				left = append(left, filepath.Join(dir, e.Name()))
			}
		}
	}
	return left
}

// Close is quick and thorough also when nothing in the lab cooperates.
func TestCloseHung(t *testing.T) {
	t.Parallel()
	l := labtest.Start(t, lab.Config{})
	docker(t, l, "run", "-d", "--name=busy", "--restart=always", lab.AgentImage)
	docker(t, l, "run", "-d", "--name=paused", lab.UserImage)
	do(t, l, "busy", "spawn", "3", "orphan")
	docker(t, l, "pause", "paused")
	cmd := l.Neighbour.Command(context.WithoutCancel(t.Context()), "sleep", "3600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if len(remains(l.ID())) == 0 {
		t.Fatal("remains finds nothing in a running lab, so it proves nothing")
	}
	if err := syscall.Kill(l.DockerdPID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("Close took %v", took)
	}
	cmd.Wait()
	assertGone(t, l.ID())
	if err := l.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// An engine that does not start is reported with what it said, and nothing of
// the lab remains.
func TestBadEngine(t *testing.T) {
	t.Parallel()
	labtest.Require(t, lab.Config{})
	script := filepath.Join(t.TempDir(), "dockerd")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho no engine today >&2\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	var log idLog
	_, err := lab.Start(t.Context(), lab.Config{Dockerd: script, Log: &log})
	if err == nil || !strings.Contains(err.Error(), "no engine today") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("error: %v", err)
	}
	assertGone(t, log.id())

	_, err = lab.Start(t.Context(), lab.Config{Dockerd: "/bin/false"})
	if err == nil || !strings.Contains(err.Error(), "/bin/false exited before it was ready") {
		t.Errorf("error: %v", err)
	}
	_, err = lab.Start(t.Context(), lab.Config{Dockerd: "/nowhere/dockerd"})
	if err == nil || !strings.Contains(err.Error(), "/nowhere/dockerd") {
		t.Errorf("error: %v", err)
	}
}

// Wherever Start is interrupted, by the end of its context or by a panic, it
// leaves nothing.
func TestInterruptedStart(t *testing.T) {
	t.Parallel()
	cfg := labtest.Require(t, lab.Config{})
	for _, step := range []string{"cgroup", "network", "host files", "runtime", "engine", "images"} {
		t.Run(step, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			log := idLog{at: step, do: cancel}
			cfg.Log = &log
			if l, err := lab.Start(ctx, cfg); err == nil {
				l.Close()
				t.Error("Start succeeded without its context")
			}
			assertGone(t, log.id())

			log = idLog{at: step, do: func() { panic("at the disco") }}
			func() {
				defer func() {
					if recover() == nil {
						t.Error("the panic was swallowed")
					}
				}()
				lab.Start(t.Context(), cfg)
			}()
			assertGone(t, log.id())
		})
	}
}

// idLog finds the lab's name in its log, and does something at a step of Start.
type idLog struct {
	text strings.Builder
	at   string
	do   func()
}

func (w *idLog) Write(p []byte) (int, error) {
	w.text.Write(p)
	if w.at != "" && string(p) == "lab: "+w.at+"\n" {
		w.do()
	}
	return len(p), nil
}

func (w *idLog) id() string {
	_, after, _ := strings.Cut(w.text.String(), "lab: this is ")
	id, _, _ := strings.Cut(after, "\n")
	return id
}

const childEnv = "HARDSHELL_LAB_TEST_CHILD"

// ownerToBeKilled is what TestKilledOwner runs in a process of its own.
func ownerToBeKilled() {
	ctx := context.Background()
	l, err := lab.Start(ctx, labtest.FromEnv(lab.Config{}))
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	for _, args := range [][]string{
		{"run", "-d", "--name=agent", "--restart=always", "-p", "8080:18789", lab.AgentImage},
		{"exec", "agent", "/agent", "do", "spawn", "2", "orphan"},
	} {
		if _, err := l.Docker(ctx, args...); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
	l.Internet.Command(ctx, "sleep", "3600").Start()
	fmt.Println("ready", l.ID(), l.DockerdPID())
	select {}
}

// The lab of an owner that was killed is found and removed by the next sweep,
// and not before.
func TestKilledOwner(t *testing.T) {
	t.Parallel()
	labtest.Require(t, lab.Config{})
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	var id string
	var pid int
	if n, _ := fmt.Sscanf(line, "ready %s %d", &id, &pid); n != 2 {
		t.Fatalf("child: %q, %v", line, err)
	}
	if removed, err := lab.Sweep(); err != nil || strings.Contains(strings.Join(removed, " "), id) {
		t.Errorf("sweep of a living lab: %q, %v", removed, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if syscall.Kill(pid, 0) != nil {
		t.Error("the engine ended with its owner; this test is to show that Sweep ends it")
	}
	if _, err := lab.Sweep(); err != nil {
		t.Error(err)
	}
	// Another test's lab may be sweeping it, and ours have passed it over.
	poll(10*time.Second, func() bool { return len(remains(id)) == 0 })
	assertGone(t, id)
}
