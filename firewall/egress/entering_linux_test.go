package egress

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/procfs"
)

// What an engine runs in a container, as a health check, has all capabilities on
// its way there. The lock does not name the agent for it.
func TestWhatEnters(t *testing.T) {
	t.Parallel()
	d := newDen(t)
	d.docker("run", "-d", "--name", "agent", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", lab.AgentImage)
	s := subject{Workload: Workload{Name: "agent", PID: d.pid("agent")}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	var checks sync.WaitGroup
	defer checks.Wait()
	defer cancel()
	for range 4 {
		checks.Go(func() {
			for ctx.Err() == nil {
				_, _ = d.l.Docker(ctx, "exec", "agent", "/agent", "health") // until ctx ends
			}
		})
	}
	seen := 0
	for ; seen < 20 && ctx.Err() == nil; time.Sleep(time.Millisecond) {
		pids, err := s.processes()
		d.must(err)
		for _, pid := range pids {
			if p, err := statusOf(pid); err == nil && p.CapEff&(1<<unix.CAP_NET_ADMIN) != 0 {
				seen++
				break
			}
		}
		if why, err := s.limits(); err != nil || len(why) > 0 {
			t.Fatalf("%q, %v", why, err)
		}
	}
	t.Logf("%d times one was on its way in with capabilities", seen)
	if seen == 0 {
		t.Error("none was seen on its way in, so this proves nothing")
	}
}

// Nobody passes for such a process by his name, nor by that of his parent, unless
// that is outside.
func TestNobodyPassesForOneThatEnters(t *testing.T) {
	dir := t.TempDir()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	shell, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]string{"runc": shell, "other": shell, "runc:[2:INIT]": sleep, "node": sleep} {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o700); err != nil { //nolint:gosec // it is run
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		parent, child string
		inside        bool // the parent too
		want          bool
	}{
		{"runc", "runc:[2:INIT]", false, true},
		{"runc", "runc:[2:INIT]", true, false},
		{"other", "runc:[2:INIT]", false, false},
		{"runc", "node", false, false},
	} {
		t.Run(fmt.Sprintf("%s of %s, inside %v", tt.child, tt.parent, tt.inside), func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), filepath.Join(dir, tt.parent), "-c", "'"+filepath.Join(dir, tt.child)+"' 60 & echo $!; wait") //nolint:gosec // our own
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var child int
			if _, err := fmt.Fscan(out, &child); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if p, err := os.FindProcess(child); err == nil {
					_ = p.Kill()
				}
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			})
			var p procfs.Status
			for began := time.Now(); p.Name != tt.child; time.Sleep(time.Millisecond) {
				if p, err = statusOf(fmt.Sprint(child)); err != nil || time.Since(began) > 30*time.Second {
					t.Fatal(p.Name, err)
				}
			}
			members := []string{fmt.Sprint(child)}
			if tt.inside {
				members = append(members, fmt.Sprint(cmd.Process.Pid))
			}
			if got := entering(p, members); got != tt.want {
				t.Errorf("got %v", got)
			}
			// Not even one that enters passes if it is the first.
			by, err := subject{Workload: Workload{PID: child, Cgroup: "/"}}.powers()
			if _, named := by[unix.CAP_NET_ADMIN]; err != nil || named != (p.CapEff&(1<<unix.CAP_NET_ADMIN) != 0) {
				t.Errorf("the first has capabilities %x, and is named: %v, %v", p.CapEff, named, err)
			}
		})
	}
}
