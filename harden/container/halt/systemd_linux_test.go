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
	b.confirm(b.procs)
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

// So it is with the unit of a user's, which is where OpenClaw installs its own.
func TestUnitOfUser(t *testing.T) {
	b := start(t, named)
	b.run("agent", lab.AgentImage)
	h := labtest.Host(t, b.Lab)
	systemd := labtest.Systemd(t, b.Lab, h)
	const name = "openclaw-gateway.service"
	userManager(t, b.Lab, systemd, map[string]string{
		name: "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=sleep 3600\nRestart=always\nRestartSec=50ms\n[Install]\nWantedBy=default.target\n",
	})
	systemctl := func(args ...string) (string, error) {
		out, err := systemd.Command(t.Context(), "systemctl", append([]string{"--user", "--machine=root@.host"}, args...)...).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	if out, err := systemctl("enable", "--now", name); err != nil {
		t.Fatal(out, err)
	}
	u := halt.Unit{Name: name, User: "root"}
	b.arm()
	k := &halt.KeepDown{Tracker: b.tracker, Host: h, Units: []halt.Unit{u}}
	seen := &halt.Restarts{Agent: named, DataRoot: filepath.Join(b.Dir(), "docker"), View: &h.View, Units: k.Units}
	if left, err := seen.Remaining(t.Context()); err != nil || left[u.Object()] == "" {
		t.Fatalf("%v, %v", left, err)
	}
	pid, err := systemctl("show", "--property=MainPID", "--value", name)
	if err != nil || pid == "0" {
		t.Fatal(pid, err)
	}
	for range 2 {
		if err := k.Do(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left, err := seen.Remaining(t.Context()); err != nil || len(left) > 0 {
			t.Errorf("%v, %v", left, err)
		}
	}
	if err := systemd.Command(t.Context(), "kill", "-0", pid).Run(); err == nil {
		t.Error("its process is alive")
	}
	if out, err := systemctl("start", name); err == nil || !strings.Contains(out, "Assertion failed") {
		t.Errorf("it could be started: %s, %v", out, err)
	}
	if err := k.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s, err := systemctl("show", "--property=ActiveState,UnitFileState", name); err != nil || !strings.HasSuffix(s, "UnitFileState=disabled") || strings.Contains(s, "=active") {
		t.Errorf("released, it is %q, %v", s, err)
	}
	if out, err := systemctl("start", name); err != nil {
		t.Errorf("released, it cannot be started: %s, %v", out, err)
	}
}

// userManager starts the service manager of root with units of its own, as a
// login does, and what makes it answer to "systemctl --user --machine".
func userManager(t *testing.T, l *lab.Lab, systemd *lab.Systemd, units map[string]string) {
	t.Helper()
	const (
		bare    = "[Unit]\nDefaultDependencies=no\n"
		bus     = bare + "[Service]\nType=notify\nNotifyAccess=main\nExecStart=dbus-daemon --address=systemd: --nofork --nopidfile --systemd-activation "
		system  = "/etc/systemd/system/"
		home    = "/etc/lab-home"
		user    = home + "/.config/systemd/user/"
		manager = bare + "[Service]\nUser=%i\nType=notify\nDelegate=yes\nExecStart=/lib/systemd/systemd --user --unit=lab.target\n" +
			"Environment=HOME=" + home + " XDG_RUNTIME_DIR=/run/user/%i SYSTEMD_UNIT_PATH=" + user + ":/run/user/%i/systemd/user\n"
	)
	files := map[string]string{
		system + "dbus.socket":   bare + "[Socket]\nListenStream=/run/dbus/system_bus_socket\n",
		system + "dbus.service":  bus + "--system\n",
		system + "user@.service": manager,
		user + "lab.target":      bare + "Requires=dbus.socket\nAfter=dbus.socket\n",
		user + "dbus.socket":     bare + "[Socket]\nListenStream=%t/bus\n",
		user + "dbus.service":    bus + "--session\n",
		// In place of a session of logind's.
		"/etc/systemd/system.conf.d/lab.conf": "[Manager]\nDefaultEnvironment=XDG_RUNTIME_DIR=/run/user/0\n",
		"/etc/pam.d/login":                    "auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_permit.so\n",
	}
	for name, text := range units {
		files[user+name] = text
	}
	files["/run/user/0/.keep"], files["/run/dbus/.keep"] = "", ""
	for name, text := range files {
		name = l.HostPath(name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(l.HostPath("/run/user/0"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"daemon-reexec"}, {"start", "dbus.socket", "dbus.service"}, {"start", "user@0.service"}} {
		if out, err := systemd.Command(t.Context(), "systemctl", args...).CombinedOutput(); err != nil {
			t.Fatalf("systemctl %v: %v: %s", args, err, out)
		}
	}
}
