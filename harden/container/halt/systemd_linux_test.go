package halt_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/harden/container/halt"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// A unit of systemd that starts the agent again as soon as it ends does so no
// more, by itself or at the next start of the machine, and is seen not to; after a
// release it can be started, and is by nobody.
func TestUnitThatRestarts(t *testing.T) {
	b := start(t, named)
	b.run("agent", lab.AgentImage)
	h := labtest.Host(t, b.Lab)
	systemd := labtest.Systemd(t, b.Lab, h)
	const name, link = "claw.service", "/etc/systemd/system/multi-user.target.wants/claw.service"
	unit := "[Unit]\nDefaultDependencies=no\nStartLimitIntervalSec=0\n" +
		"[Service]\nEnvironment=DOCKER_HOST=" + b.DockerHost() + "\nExecStart=docker start -a agent\nRestart=always\nRestartSec=50ms\n" +
		"[Install]\nWantedBy=multi-user.target\n"
	if err := h.WriteFile("/etc/systemd/system/"+name, []byte(unit), 0o644); err != nil {
		t.Fatal(err)
	}
	systemctl := func(args ...string) string {
		t.Helper()
		out, err := systemd.Command(t.Context(), "systemctl", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("systemctl %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	systemctl("daemon-reload")
	systemctl("enable", "--now", name)

	k := &halt.KeepDown{Tracker: b.tracker, Host: h}
	seen := &halt.Restarts{Agent: named, DataRoot: filepath.Join(b.Dir(), "docker"), View: &h.View}
	b.arm()
	if err := k.Arm(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := seen.Remaining(t.Context()); err != nil || left["unit/"+name] == "" {
		t.Fatalf("%v, %v", left, err)
	}
	// It is started again whenever it is killed, as long as nothing else is done.
	first := b.docker("inspect", "-f", "{{.State.StartedAt}}", "agent")
	if err := b.kill.Do(t.Context()); err != nil {
		t.Logf("a kill alone: %v", err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if now := b.docker("inspect", "-f", "{{.State.Running}} {{.State.StartedAt}}", "agent"); strings.HasPrefix(now, "true") && !strings.HasSuffix(now, first) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("nothing has started it again")
		}
	}

	began := time.Now()
	if err := k.Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("disarmed after %v", time.Since(began))
	if left, err := seen.Remaining(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
	if err := b.kill.Do(t.Context()); err != nil {
		t.Error(err)
	}
	b.confirm(b.procs, 5*time.Second)
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got := b.docker("inspect", "-f", "{{.State.Running}}", "agent"); got != "false" {
			t.Fatalf("running: %s", got)
		}
	}
	if out, err := systemd.Command(t.Context(), "systemctl", "start", name).CombinedOutput(); err == nil || !strings.Contains(string(out), "Assertion failed") {
		t.Errorf("it could be started: %v, %s", err, out)
	}
	if _, err := os.Lstat(b.HostPath(link)); err == nil {
		t.Error("it is enabled")
	}
	if err := k.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := systemctl("show", "--property=LoadState,ActiveState,UnitFileState", name); s != "LoadState=loaded\nActiveState=inactive\nUnitFileState=disabled" && s != "LoadState=loaded\nActiveState=failed\nUnitFileState=disabled" {
		t.Errorf("released, it is %q", s)
	}
	if got := b.docker("inspect", "-f", "{{.State.Running}}", "agent"); got != "false" {
		t.Errorf("a release has started it: %s", got)
	}
}
