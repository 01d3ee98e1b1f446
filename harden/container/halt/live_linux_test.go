package halt_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/harden/container/docker"
	"github.com/managemyclaw/hardshell/harden/container/halt"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// A bench is a lab with all that halts its agent.
type bench struct {
	*lab.Lab
	t       testing.TB
	engine  *docker.Engine
	tracker *halt.Tracker
	freeze  *halt.Freeze
	kill    *halt.Kill
	procs   *halt.Processes
	frozen  *halt.Frozen
}

func start(t testing.TB, agent halt.Agent) *bench {
	t.Helper()
	return set(t, labtest.Start(t, lab.Config{}), agent)
}

func set(t testing.TB, l *lab.Lab, agent halt.Agent) *bench {
	t.Helper()
	e, err := docker.Open(l.DockerHost())
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(l.Dir(), "docker")
	b := &bench{Lab: l, t: t, engine: e, tracker: &halt.Tracker{Agent: agent, Engine: e}}
	b.freeze = &halt.Freeze{Tracker: b.tracker}
	b.kill = &halt.Kill{Tracker: b.tracker, EngineTimeout: 5 * time.Second} // on a busy machine too
	b.procs, b.frozen = &halt.Processes{Agent: agent, DataRoot: root}, &halt.Frozen{Agent: agent, DataRoot: root}
	t.Cleanup(func() {
		b.tracker.Close()
		b.procs.Close()
		b.frozen.Close()
		e.Close()
	})
	return b
}

var named = halt.Agent{Names: []string{"agent"}}

func (b *bench) docker(args ...string) string {
	b.t.Helper()
	out, err := b.Docker(b.t.Context(), args...)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

func (b *bench) run(name string, args ...string) string {
	b.t.Helper()
	return b.docker(append([]string{"run", "-d", "--name", name}, args...)...)
}

func (b *bench) arm() {
	b.t.Helper()
	for _, a := range []interface {
		Name() string
		Arm(context.Context) error
	}{b.freeze, b.kill, b.procs, b.frozen} {
		if err := a.Arm(b.t.Context()); err != nil {
			b.t.Fatalf("arm %s: %v", a.Name(), err)
		}
	}
}

type observer interface {
	Name() string
	Remaining(context.Context) (map[string]string, error)
}

// remaining looks, and fails the test if not everything could be seen.
func (b *bench) remaining(o observer) map[string]string {
	b.t.Helper()
	left, err := o.Remaining(b.t.Context())
	if err != nil {
		b.t.Fatalf("%s: %v", o.Name(), err)
	}
	return left
}

// confirm looks until nothing is left.
func (b *bench) confirm(o observer) time.Duration {
	b.t.Helper()
	began := time.Now()
	for {
		left := b.remaining(o)
		if len(left) == 0 {
			return time.Since(began)
		}
		if time.Since(began) > 20*time.Second {
			b.t.Fatalf("%s: there is still %v", o.Name(), left)
		}
		time.Sleep(time.Millisecond)
	}
}

// off looks once.
func (b *bench) off(o observer) {
	b.t.Helper()
	if left := b.remaining(o); len(left) > 0 {
		b.t.Fatalf("%s: there is still %v", o.Name(), left)
	}
}

// truth is what the test itself sees of a container: the processes whose cgroup
// is, or was when they were noted, the container's, zombies left out.
func (b *bench) truth(id string) []int {
	b.t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		b.t.Fatal(err)
	}
	var all []int
	for _, name := range stats {
		data, err := os.ReadFile(name)
		if err != nil || !strings.Contains(string(data), id) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if runs(pid) {
			all = append(all, pid)
		}
	}
	return all
}

// runs reports whether a process exists and is no zombie.
func runs(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	s := string(data)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	return f[0] != "Z" && f[0] != "X"
}

func (b *bench) do(a interface{ Do(context.Context) error }) time.Duration {
	b.t.Helper()
	began := time.Now()
	if err := a.Do(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	return time.Since(began)
}

// Whatever has detached itself from the agent, or was started in its container
// beside it, freezes with it and is gone after it.
func TestDetachedAndExecdProcessesAreGone(t *testing.T) {
	b := start(t, named)
	id := b.run("agent", "--restart=always", lab.AgentImage)
	for _, kind := range []string{"plain", "setsid", "orphan"} {
		if a, err := b.Do(t.Context(), "agent", "spawn", "3", kind); err != nil || !a.OK {
			t.Fatal(a, err)
		}
	}
	b.docker("exec", "-d", "agent", "/agent", "sleep", "3600")
	b.run("bystander", lab.AgentImage)
	b.arm()
	before := b.truth(id)
	if len(before) < 8 {
		t.Fatalf("only %d processes", len(before))
	}
	if left := b.remaining(b.procs); !strings.Contains(left["container/agent"], fmt.Sprintf("and %d more", len(before)-5)) {
		t.Errorf("of %d processes the observer sees %v", len(before), left)
	}
	if left := b.remaining(b.frozen); left["container/agent"] == "" {
		t.Error("the observer takes for frozen what is not")
	}
	b.do(b.freeze)
	b.confirm(b.frozen)
	if left := b.remaining(b.procs); left["container/agent"] == "" {
		t.Error("frozen processes are taken for gone")
	}
	b.do(b.kill)
	took := b.confirm(b.procs)
	b.off(b.frozen)
	for _, pid := range before {
		if runs(pid) {
			t.Errorf("process %d runs", pid)
		}
	}
	t.Logf("%d processes; confirmed %v after Do", len(before), took)
	time.Sleep(500 * time.Millisecond) // an engine restarts after 100 ms
	if left := b.truth(id); len(left) > 0 {
		t.Errorf("it came back: %v", left)
	}
	if got := b.docker("inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", "agent"); got != "no" {
		t.Errorf("restart policy %q", got)
	}
	if got := b.docker("inspect", "-f", "{{.State.Running}}", "bystander"); got != "true" {
		t.Error("the bystander does not run")
	}
}

// While the engine hangs, all that the kernel does is done and confirmed; when
// it goes on, and starts the agent again, what holds it down ends that.
func TestHungEngine(t *testing.T) {
	b := start(t, named)
	id := b.run("agent", "--restart=always", lab.AgentImage)
	b.arm()
	pid := b.DockerdPID()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })

	b.kill.EngineTimeout = 0
	began := time.Now()
	b.do(b.freeze)
	b.confirm(b.frozen)
	frozen := time.Since(began)
	err := b.kill.Do(t.Context())
	b.confirm(b.procs)
	gone := time.Since(began) // the engine hangs all the while
	open, ok := errors.AsType[interface {
		error
		Open() map[string]string
	}](err)
	if !ok || !strings.Contains(open.Open()["container/agent"], "always") {
		t.Errorf("that the engine may start it again is not said: %v", err)
	}
	t.Logf("engine hung: frozen after %v, gone after %v", frozen, gone)

	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	var lived, since time.Duration
	var up time.Time
	quiet := time.Now()
	for time.Since(quiet) < 700*time.Millisecond {
		if time.Since(began) > 30*time.Second {
			t.Fatal("it comes back again and again")
		}
		if len(b.truth(id)) > 0 {
			if up.IsZero() {
				up, since = time.Now(), time.Since(began)
			}
			quiet = time.Now()
			_ = b.kill.Do(t.Context()) // as a watcher would; what it says is not asked here
		} else if !up.IsZero() {
			lived, up = lived+time.Since(up), time.Time{}
		}
		time.Sleep(5 * time.Millisecond)
	}
	b.kill.EngineTimeout = 20 * time.Second
	b.do(b.kill) // as a watcher goes on to
	b.confirm(b.procs)
	if lived == 0 {
		t.Log("engine goes on: it did not come back")
	} else {
		t.Logf("engine goes on: it was up %v after that, and lived %v in all", since, lived)
	}
	if got := b.docker("inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", "agent"); got != "no" {
		t.Errorf("restart policy %q", got)
	}
}

// Killed, it stays down when the engine is restarted; what starts it by hand is
// undone, as is what takes its place.
func TestStaysDown(t *testing.T) {
	b := start(t, halt.Agent{Names: []string{"agent"}})
	labels := []string{"--label", "com.docker.compose.project=p", "--label", "com.docker.compose.service=s", "--restart=always"}
	id := b.run("agent", append(labels, lab.AgentImage)...)
	b.arm()
	b.do(b.kill)
	b.confirm(b.procs)
	if err := b.RestartDockerd(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	if left := b.truth(id); len(left) > 0 {
		t.Fatalf("a restart of the engine brought it back: %v", left)
	}
	hold := func(what, id string) {
		t.Helper()
		if len(b.truth(id)) == 0 {
			t.Fatalf("%s: it does not run", what)
		}
		if left := b.remaining(b.procs); len(left) != 1 {
			t.Fatalf("%s: the observer sees %v", what, left)
		}
		took := b.do(b.kill)
		b.confirm(b.procs)
		if left := b.truth(id); len(left) > 0 {
			t.Fatalf("%s: it runs: %v", what, left)
		}
		t.Logf("%s: gone after %v", what, took)
	}
	b.docker("start", "agent")
	hold("started by hand", id)
	b.docker("rm", "-f", "agent")
	id = b.run("agent", "--restart=always", lab.AgentImage)
	hold("a new container of the same name", id)
	// As compose does it: under another name first.
	id = b.run("0123456789ab_agent", append(labels, lab.AgentImage)...)
	hold("a new container of the same service", id)
	// Also while the engine does not answer.
	id = b.run("s-1", append(labels, lab.AgentImage)...)
	pid := b.DockerdPID()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
	b.kill.EngineTimeout = 0
	_ = b.kill.Do(t.Context()) // the engine did not answer, it says
	b.confirm(b.procs)
	if left := b.truth(id); len(left) > 0 {
		t.Fatalf("it runs: %v", left)
	}
}
