package docker_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/container/docker"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

func open(t *testing.T, l *lab.Lab) *docker.Engine {
	t.Helper()
	e, err := docker.Open(l.DockerHost())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func must(t *testing.T, l *lab.Lab, args ...string) string {
	t.Helper()
	out, err := l.Docker(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// run starts n containers and returns their names.
func run(t *testing.T, l *lab.Lab, prefix string, n int) []string {
	t.Helper()
	var g errgroup.Group
	g.SetLimit(4)
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s%02d", prefix, i)
		g.Go(func() error {
			_, err := l.Docker(t.Context(), "run", "-d", "--name", names[i], lab.UserImage)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return names
}

func checks(e container.Engine) []harden.Check {
	return container.Checks(container.NewSource(e), container.Profile{})
}

// What the engine is said to be is what it is, by other means of knowing.
func TestLiveInfo(t *testing.T) {
	l := labtest.Start(t, lab.Config{})
	info, err := open(t, l).Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	asked := strings.Split(must(t, l, "info", "--format", "{{.ID}}\n{{.DockerRootDir}}\n{{.CgroupVersion}}\n{{.SecurityOptions}}"), "\n")
	want := container.EngineInfo{
		Name: "docker", Version: l.EngineVersion(), Host: l.DockerHost(), PID: l.DockerdPID(),
		APIVersion: must(t, l, "version", "--format", "{{.Server.APIVersion}}"),
		ID:         asked[0], DataRoot: asked[1], CgroupVersion: asked[2],
	}
	if strings.Contains(asked[3], "profile=builtin") {
		want.SeccompProfile = "builtin"
	} else if strings.Contains(asked[3], "name=seccomp,profile=default") {
		want.SeccompProfile = "default"
	}
	if info != want || want.SeccompProfile == "" || !strings.HasPrefix(want.DataRoot, "/") {
		t.Errorf("got  %+v\nwant %+v", info, want)
	}
}

// What a real engine says of a container is what it was told, and a volume
// that is a directory of the host in disguise is seen to be one.
func TestLiveSettings(t *testing.T) {
	l := labtest.Start(t, lab.Config{})
	must(t, l, "volume", "create", "--opt", "type=none", "--opt", "o=bind", "--opt", "device=/etc", "disguised")
	id := must(t, l, "run", "-d", "--name", "agent", "--user", "1000:1000", "--group-add", "44", "--read-only", "--cap-drop", "ALL", "--cap-add", "CHOWN",
		"--security-opt", "no-new-privileges", "--pids-limit", "50", "--memory", "64m", "--memory-swap", "64m", "--restart", "on-failure:3",
		"--tmpfs", "/tmp:size=16m,noexec", "-v", "disguised:/data:ro", "-p", "127.0.0.1:21080:80", "-e", "TOKEN=hunter2", lab.UserImage)
	must(t, l, "create", "--name", "idle", lab.UserImage)
	e := open(t, l)
	all, err := e.Containers(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("%d containers run, %v", len(all), err)
	}
	s := all[0]
	volume := slices.IndexFunc(s.Mounts, func(m container.Mount) bool { return m.Name == "disguised" })
	if volume < 0 || s.Mounts[volume].Options["device"] != "/etc" || s.Mounts[volume].ReadWrite {
		t.Errorf("mounts %+v", s.Mounts)
	}
	tmpfs := slices.IndexFunc(s.Mounts, func(m container.Mount) bool { return m.Destination == "/tmp" })
	if tmpfs < 0 || s.Mounts[tmpfs].TmpfsSize != 16<<20 || s.Mounts[tmpfs].Type != "tmpfs" {
		t.Errorf("mounts %+v", s.Mounts)
	}
	if len(s.Ports) != 1 || s.Ports[0] != (container.Port{Container: 80, Protocol: "tcp", HostIP: "127.0.0.1", Host: 21080}) {
		t.Errorf("ports %+v", s.Ports)
	}
	for what, ok := range map[string]bool{
		"id":        s.ID == id && s.Name == "agent" && s.Image == lab.UserImage,
		"state":     s.State == "running" && s.Running() && time.Since(s.Created) < time.Hour,
		"user":      s.User == "1000:1000" && slices.Equal(s.GroupAdd, []string{"44"}),
		"caps":      slices.Equal(s.CapDrop, []string{"ALL"}) && len(s.CapAdd) == 1 && strings.TrimPrefix(s.CapAdd[0], "CAP_") == "CHOWN",
		"limits":    s.Memory == 64<<20 && s.MemorySwap == 64<<20 && s.PidsLimit == 50,
		"root":      s.ReadonlyRootfs && !s.Privileged,
		"options":   slices.Equal(s.SecurityOpt, []string{"no-new-privileges"}),
		"env":       slices.Contains(s.EnvNames, "TOKEN"),
		"secret":    !strings.Contains(fmt.Sprintf("%+v", s), "hunter2"),
		"own files": len(s.OwnFiles) == 3,
		"network":   len(s.Networks) == 1 && s.Networks[0].Name == "bridge" && len(s.Networks[0].Addrs) > 0 && len(s.Networks[0].Gateway) > 0,
	} {
		if !ok {
			t.Errorf("%s: %+v", what, s)
		}
	}
	if cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", s.PID)); err != nil || !strings.Contains(string(cmdline), id) {
		t.Errorf("process %d is not the container's: %s, %v", s.PID, cmdline, err)
	}

	// By name, in any state; paused ones run.
	must(t, l, "pause", "agent")
	both, err := e.Containers(t.Context(), "idle", "agent", id[:12])
	if err != nil || len(both) != 2 || both[0].State != "created" || both[0].Running() || both[1].State != "paused" || !both[1].Running() {
		t.Errorf("%+v, %v", both, err)
	}
	if all, err := e.Containers(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("the paused container does not count as one that runs: %v", err)
	}
}

// A container that goes away while it is examined is left out, or unknown for
// a reason; nothing else is the worse for it.
func TestLiveContainersVanish(t *testing.T) {
	l := labtest.Start(t, lab.Config{})
	run(t, l, "stays", 2)
	names := run(t, l, "goes", 20)
	e := open(t, l)
	view := &host.Local().View

	var wg sync.WaitGroup
	wg.Go(func() {
		for part := range slices.Chunk(names, 2) {
			if _, err := l.Docker(t.Context(), append([]string{"rm", "-f"}, part...)...); err != nil {
				t.Error(err)
			}
		}
	})
	vanished := 0
	for range 15 {
		found, err := container.NewSource(e).All(t.Context(), view)
		if err != nil {
			t.Fatalf("one that goes away makes all unknown: %v", err)
		}
		for _, c := range found {
			switch {
			case c.Kernel == nil && c.KernelErr == nil, c.Kernel != nil && c.KernelErr != nil:
				t.Errorf("%s: %+v, %v", c.Name, c.Kernel, c.KernelErr)
			case c.KernelErr != nil:
				vanished++
				if strings.HasPrefix(c.Name, "stays") {
					t.Errorf("%s: %v", c.Name, c.KernelErr)
				}
			}
		}
		report, err := new(audit.Auditor).Run(t.Context(), view, checks(e)...)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range report.Results {
			if r.Status == harden.StatusUnknown && (r.Reason == harden.ReasonPanic || r.Detail == "") {
				t.Errorf("%s: %s %s", r.Info.ID, r.Reason, r.Detail)
			}
			for _, f := range r.Findings {
				if f.Subject == "" {
					t.Errorf("%s: whose is %+v?", r.Info.ID, f)
				}
			}
		}
	}
	wg.Wait()
	t.Logf("%d times a container went while it was examined", vanished)
}

// An engine that stops answering, or is killed, in the middle of an audit
// costs no more than the time there is, and makes nothing pass.
func TestLiveEngineStopsInTheMiddle(t *testing.T) {
	l := labtest.Start(t, lab.Config{})
	run(t, l, "agent", 8)
	e := open(t, l)
	for _, c := range []struct {
		name    string
		timeout time.Duration
		stop    func() error
		resume  func() error
		want    harden.Reason
	}{
		{
			"it hangs", 2 * time.Second,
			func() error { return syscall.Kill(l.DockerdPID(), syscall.SIGSTOP) },
			func() error { return syscall.Kill(l.DockerdPID(), syscall.SIGCONT) },
			harden.ReasonTimeout,
		},
		{
			"it is killed", time.Minute,
			func() error { return l.KillDockerd(t.Context()) },
			func() error { return l.StartDockerd(t.Context()) },
			harden.ReasonError,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			interrupted := &interrupter{Engine: e, stop: c.stop}
			ctx, cancel := context.WithTimeout(t.Context(), c.timeout)
			defer cancel()
			report, err := new(audit.Auditor).Run(ctx, &host.Local().View, checks(interrupted)...)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.resume(); err != nil {
				t.Fatal(err)
			}
			for _, r := range report.Results {
				if r.Status != harden.StatusUnknown || r.Reason != c.want || r.Detail == "" {
					t.Errorf("%s: %v for %s: %s", r.Info.ID, r.Status, r.Reason, r.Detail)
				}
			}

			// Nothing is remembered of it.
			all, err := e.Containers(t.Context())
			if err != nil || c.want == harden.ReasonTimeout && len(all) != 8 {
				t.Errorf("%d containers afterwards, %v", len(all), err)
			}
		})
	}
}

// An interrupter is an engine that is stopped when it has described itself.
type interrupter struct {
	container.Engine
	stop func() error
}

func (i *interrupter) Containers(ctx context.Context, names ...string) ([]container.Settings, error) {
	if err := i.stop(); err != nil {
		return nil, err
	}
	return i.Engine.Containers(ctx, names...)
}
