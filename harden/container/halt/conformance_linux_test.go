package halt_test

import (
	"context"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/harden/container/docker"
	"github.com/managemyclaw/hardshell/harden/container/halt"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
	"github.com/managemyclaw/hardshell/killswitch"
	"github.com/managemyclaw/hardshell/killswitch/killswitchtest"
)

var (
	_ killswitch.Armer    = (*halt.Freeze)(nil)
	_ killswitch.Releaser = (*halt.Freeze)(nil)
	_ killswitch.Armer    = (*halt.Kill)(nil)
	_ killswitch.Actuator = (*halt.KeepDown)(nil)
	_ killswitch.Armer    = (*halt.KeepDown)(nil)
	_ killswitch.Releaser = (*halt.KeepDown)(nil)
	_ killswitch.Armer    = (*halt.Rung)(nil)
	_ killswitch.Armer    = (*halt.Restarts)(nil)
	_ killswitch.Observer = (*halt.Restarts)(nil)
	_ killswitch.Lister   = (*halt.Processes)(nil)
	_ killswitch.Lister   = (*halt.Frozen)(nil)
)

// The actuators and observers keep the contract of package killswitch, on a
// real container. That it runs is that it answers, or has processes.
func TestContract(t *testing.T) {
	l := labtest.Start(t, lab.Config{})
	b := set(t, l, named)
	root := filepath.Join(l.Dir(), "docker")
	deaf := deafEngine(t)
	answers := func(ctx context.Context) (bool, error) {
		if len(b.truth(b.current())) == 0 {
			return false, nil
		}
		ip, err := l.Docker(ctx, "inspect", "-f", "{{.NetworkSettings.IPAddress}}", "agent")
		if err != nil || ip == "" {
			return false, err
		}
		_, err = lab.Ask(ctx, l.Host.Client(300*time.Millisecond), net.JoinHostPort(ip, "18789"), "whoami")
		return err == nil, nil
	}
	start := func(ctx context.Context) error {
		if runs, err := answers(ctx); err == nil && runs {
			return nil
		}
		for _, pid := range b.truth(b.current()) {
			_ = syscall.Kill(pid, syscall.SIGKILL) // an engine waits ten seconds for what is frozen
		}
		_, _ = l.Docker(ctx, "rm", "-f", "agent") // there may be none
		if _, err := l.Docker(ctx, "run", "-d", "--name", "agent", lab.AgentImage); err != nil {
			return err
		}
		for ctx.Err() == nil {
			if runs, err := answers(ctx); err == nil && runs {
				return nil
			}
			time.Sleep(2 * time.Millisecond)
		}
		return ctx.Err()
	}
	tracker := func(e halt.Engine) *halt.Tracker {
		tr := &halt.Tracker{Agent: named, Engine: e, DataRoot: root}
		t.Cleanup(func() { tr.Close() })
		return tr
	}
	actuator := func(make func(*halt.Tracker) killswitch.Actuator) killswitchtest.ActuatorSubject {
		return killswitchtest.ActuatorSubject{
			New:   func() (killswitch.Actuator, error) { return make(tracker(b.engine)), nil },
			Start: start, Running: answers,
			NoStuck: "it is the kernel that acts: with an engine that does not answer it does what it always does",
		}
	}
	t.Run("freeze", func(t *testing.T) {
		killswitchtest.RunActuator(t, actuator(func(tr *halt.Tracker) killswitch.Actuator { return &halt.Freeze{Tracker: tr} }))
	})
	t.Run("kill", func(t *testing.T) {
		killswitchtest.RunActuator(t, actuator(func(tr *halt.Tracker) killswitch.Actuator { return &halt.Kill{Tracker: tr} }))
	})
	t.Run("rung", func(t *testing.T) {
		rung := func(e halt.Engine) (killswitch.Actuator, error) {
			return &halt.Rung{Tracker: tracker(e), Step: halt.StepKill}, nil
		}
		killswitchtest.RunActuator(t, killswitchtest.ActuatorSubject{
			New: func() (killswitch.Actuator, error) { return rung(b.engine) }, Start: start, Running: answers,
			Stuck: func() (killswitch.Actuator, error) { return rung(deaf) },
		})
	})
	observer := func(new, blind func() killswitch.Observer) killswitchtest.ObserverSubject {
		return killswitchtest.ObserverSubject{
			New: func() (killswitch.Observer, error) { return new(), nil }, Start: start,
			Stop: func(ctx context.Context) error {
				for _, pid := range b.truth(b.current()) {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
				for ctx.Err() == nil && len(b.truth(b.current())) > 0 {
					time.Sleep(time.Millisecond)
				}
				return ctx.Err()
			},
			Running: func(context.Context) (bool, error) { return len(b.truth(b.current())) > 0, nil },
			Break: func() (func(), error) {
				pid := l.DockerdPID()
				return func() { _ = syscall.Kill(pid, syscall.SIGCONT) }, syscall.Kill(pid, syscall.SIGSTOP)
			},
			Blind:   func() (killswitch.Observer, error) { return blind(), nil },
			NoStuck: "it reads files of the kernel and of a disk, and asks nobody",
		}
	}
	t.Run("processes", func(t *testing.T) {
		killswitchtest.RunObserver(t, observer(
			func() killswitch.Observer { return &halt.Processes{Agent: named, DataRoot: root} },
			func() killswitch.Observer { return &halt.Processes{Agent: named, DataRoot: root + "/gone"} }))
	})
	t.Run("frozen", func(t *testing.T) {
		killswitchtest.RunObserver(t, observer(
			func() killswitch.Observer { return &halt.Frozen{Agent: named, DataRoot: root} },
			func() killswitch.Observer { return &halt.Frozen{Agent: named, DataRoot: root + "/gone"} }))
	})
}

// current returns the id of the agent's container as its cgroup bears it, or
// what no cgroup bears.
func (b *bench) current() string {
	ids, err := filepath.Glob(filepath.Join(b.Dir(), "docker/containers/*/config.v2.json"))
	if err != nil || len(ids) == 0 {
		return "none"
	}
	return filepath.Base(filepath.Dir(ids[0]))
}

// deafEngine is one that takes connections and never answers.
func deafEngine(t *testing.T) *docker.Engine {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	e, err := docker.Open("unix://" + socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ln.Close()
		e.Close()
	})
	return e
}
