package halt_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/harden/container/halt"
	"github.com/managemyclaw/hardshell/internal/lab"
)

// An observer that knows the container sees the same processes as one that looks
// at all for the first time, whatever has joined it since, or left it.
func TestGlanceSeesWhatALookAtAllSees(t *testing.T) {
	b := start(t, named)
	id := b.run("agent", "--privileged", "--pids-limit=100", lab.AgentImage)
	b.run("neighbour", "--pid=container:agent", lab.AgentImage)
	b.arm()
	fresh := func() map[string]string {
		t.Helper()
		p := &halt.Processes{Agent: named, DataRoot: filepath.Join(b.Dir(), "docker")}
		defer p.Close()
		return b.remaining(p)
	}
	first := func() string { return strconv.Itoa(b.truth(id)[0]) }
	var outside []*exec.Cmd
	outsider := func(name string, args ...string) int {
		t.Helper()
		c := exec.CommandContext(t.Context(), name, args...)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		outside = append(outside, c)
		return c.Process.Pid
	}
	away := func() {
		for _, c := range outside {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
		outside = nil
	}
	defer away()
	for _, s := range []struct {
		name  string
		do    func() int // returns what must be seen, if it is known
		again bool       // what is known of it is not so any more
	}{
		{name: "as it was armed", do: func() int { return 0 }},
		{name: "exec'd", do: func() int { b.docker("exec", "-d", "agent", "/agent", "sleep", "3600"); return 0 }},
		{name: "left its cgroups", do: func() int {
			all := b.truth(id)
			away := all[len(all)-1]
			leave(t, away)
			return away
		}},
		{name: "an outsider in one of its cgroups", do: func() int {
			pid := outsider("sleep", "3600")
			join(t, id, "pids", pid)
			return pid
		}},
		{name: "an outsider in its mount namespace", do: func() int {
			return outsider("nsenter", "--mount", "--target", first(), "/agent", "sleep", "3600")
		}},
		{name: "an outsider in its process namespace", do: func() int {
			outsider("nsenter", "--pid", "--target", first(), "sleep", "3600")
			return 0
		}},
		{name: "restarted", again: true, do: func() int { b.docker("restart", "-t", "0", "agent"); return 0 }},
		{name: "once more", do: func() int { return 0 }},
		{name: "made anew", again: true, do: func() int {
			away() // of the first container, which nobody knows who looks for the first time
			b.docker("rm", "-f", "neighbour", "agent")
			id = b.run("agent", lab.AgentImage)
			return 0
		}},
	} {
		t.Run(s.name, func(t *testing.T) {
			must := s.do()
			time.Sleep(100 * time.Millisecond) // what was begun is where it is to be
			if b.procs.Glances() == s.again {
				t.Errorf("it looks at all processes: %v", !s.again)
			}
			got, want := b.remaining(b.procs), fresh()
			if len(want) == 0 || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("it sees %v,\nand a look at all %v", got, want)
			}
			if must != 0 && !strings.Contains(got["container/agent"], fmt.Sprintf("process %d ", must)) {
				t.Errorf("process %d is not in %v", must, got)
			}
		})
	}
}

// What the shim began, and has left cgroups and namespaces for the machine's own,
// as a privileged container's process can, is known by its parent.
func TestChildOfShimThatLeftEverything(t *testing.T) {
	loaders, err := filepath.Glob("/lib*/ld-linux*.so.*")
	if err != nil || len(loaders) == 0 {
		t.Fatal("this machine has no loader for its programs", err)
	}
	loader, err := filepath.EvalSymlinks(loaders[0])
	if err != nil {
		t.Fatal(err)
	}
	libs, err := filepath.Glob("/usr/lib/*-linux-gnu")
	if err != nil || len(libs) == 0 {
		t.Fatal("this machine has no libraries for its programs", err)
	}
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		t.Fatal(err)
	}
	b := start(t, named)
	id := b.run("agent", "--privileged", "--pid=host", "--security-opt=apparmor=unconfined", "--user=0", "-v", "/:/machine", lab.AgentImage)
	b.arm()
	const out = "/machine"
	b.docker("exec", "-d", "-u", "0", "--privileged", "agent", out+loader, "--library-path", out+libs[0], out+nsenter, "--target", strconv.Itoa(os.Getpid()), "--mount", "/bin/sleep", "3600")
	host, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	var away int
	for began := time.Now(); away == 0; time.Sleep(time.Millisecond) {
		for _, pid := range b.truth(id) {
			if link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid)); err == nil && link == host {
				away = pid
			}
		}
		if time.Since(began) > 30*time.Second {
			t.Fatal("nothing left its mount namespace")
		}
	}
	leave(t, away)
	defer end(away)
	if !b.procs.Glances() {
		t.Error("it looks at all processes")
	}
	want := fmt.Sprintf("process %d ", away)
	if left := b.remaining(b.procs); !strings.Contains(left["container/agent"], want) {
		t.Errorf("process %d is not in %v", away, left)
	}
	b.do(b.freeze)
	if left := b.remaining(b.frozen); !strings.Contains(left["container/agent"], want) {
		t.Errorf("process %d is not frozen, and not in %v", away, left)
	}
}

// groups returns the directories of a container's cgroup: of that of version 2,
// or of a controller's in version 1.
func groups(t *testing.T, id, kind string) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"/*/*/*", "/*/*", "/*"} {
		found, err := filepath.Glob("/sys/fs/cgroup/" + kind + pattern + id + "*")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}

// join moves a process to a container's cgroup in one hierarchy.
func join(t *testing.T, id, kind string, pid int) {
	t.Helper()
	dirs := append(groups(t, id, kind), groups(t, id, "unified")...)
	if len(dirs) == 0 {
		dirs = groups(t, id, ".")
	}
	if len(dirs) == 0 {
		t.Fatal("the container has no cgroup")
	}
	if err := os.WriteFile(filepath.Join(dirs[0], "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		t.Fatal(err)
	}
}

// The kernel does not say that all in a cgroup are frozen while one that has
// just been moved there runs: what is seen frozen need not be watched for long.
func TestKernelTellsWhatIsFrozen(t *testing.T) {
	b := start(t, named)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	id := b.run("agent", lab.AgentImage)
	counter := watchCounter(t, dir+"/n")
	other := b.run("other", "-v", dir+":/shared", lab.AgentImage, "do", "count", "/shared/n")
	counter.moves(t)
	pid := b.truth(other)[0]
	for _, g := range []struct{ kind, freeze, frozen, thawed, says string }{
		{"freezer", "freezer.state", "FROZEN", "THAWED", "freezer.state"},
		{"unified", "cgroup.freeze", "1", "0", "cgroup.events"},
		{".", "cgroup.freeze", "1", "0", "cgroup.events"},
	} {
		in, home := groups(t, id, g.kind), groups(t, other, g.kind)
		if len(in) != 1 || len(home) != 1 {
			continue
		}
		t.Run(g.says, func(t *testing.T) {
			put := func(name, word string) {
				t.Helper()
				if err := os.WriteFile(name, []byte(word), 0); err != nil {
					t.Fatal(err)
				}
			}
			says := func() bool {
				data, err := os.ReadFile(filepath.Join(in[0], g.says))
				if err != nil {
					t.Fatal(err)
				}
				return strings.TrimSpace(string(data)) == "FROZEN" || strings.Contains(string(data), "frozen 1")
			}
			var waited int
			for range 50 {
				put(filepath.Join(in[0], g.freeze), g.frozen)
				for !says() {
					time.Sleep(50 * time.Microsecond)
				}
				put(filepath.Join(in[0], "cgroup.procs"), strconv.Itoa(pid))
				for began := time.Now(); !says(); waited++ {
					if time.Since(began) > 30*time.Second {
						t.Fatal("it does not freeze")
					}
				}
				at := *counter.n
				time.Sleep(2 * time.Millisecond)
				if n := *counter.n; n != at {
					t.Fatalf("said to be frozen, it counts on from %d to %d", at, n)
				}
				put(filepath.Join(home[0], "cgroup.procs"), strconv.Itoa(pid))
				put(filepath.Join(in[0], g.freeze), g.thawed)
				counter.moves(t)
			}
			t.Logf("it was not yet frozen in %d looks", waited)
		})
	}
}
