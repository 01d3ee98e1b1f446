package halt_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/container/docker"
	"github.com/managemyclaw/hardshell/harden/container/halt"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// elsewhere is an engine that says it is on another machine.
type elsewhere struct{ *docker.Engine }

func (e elsewhere) Remote() bool { return true }

func (e elsewhere) Info(ctx context.Context) (container.EngineInfo, error) {
	info, err := e.Engine.Info(ctx)
	info.Remote = true
	return info, err
}

// With an engine on another machine the kernel's ways are missing, which Arm
// says, and those of the API do what they say. Each may be taken again.
func TestRungs(t *testing.T) {
	l := labtest.Start(t, lab.Config{})
	b := set(t, l, named)
	remote := &halt.Tracker{Agent: named, Engine: elsewhere{b.engine}}
	id := b.run("agent", "--restart=always", lab.AgentImage)
	b.docker("network", "create", "second")
	b.docker("network", "connect", "second", "agent")
	b.arm()
	for _, a := range []interface{ Arm(context.Context) error }{&halt.Freeze{Tracker: remote}, &halt.Kill{Tracker: remote}} {
		if err := a.Arm(t.Context()); !errors.Is(err, container.ErrRemote) || !strings.Contains(err.Error(), "freezing and killing by the kernel") {
			t.Errorf("armed, far away: %v", err)
		}
	}
	inspect := func(format string) string { return b.docker("inspect", "-f", format, "agent") }
	for _, step := range []struct {
		step halt.Step
		name string
		done func() bool
	}{
		{halt.StepPause, "engine.pause", func() bool { return inspect("{{.State.Paused}}") == "true" && len(b.remaining(b.frozen)) == 0 }},
		{halt.StepDisconnect, "engine.disconnect", func() bool { return inspect("{{len .NetworkSettings.Networks}}") == "0" }},
		{halt.StepRestartPolicy, "engine.restarts", func() bool { return inspect("{{.HostConfig.RestartPolicy.Name}}") == "no" }},
		{halt.StepKill, "engine.kill", func() bool { return inspect("{{.State.Running}}") == "false" }},
		{halt.StepStop, "engine.stop", func() bool { return inspect("{{.State.Running}}") == "false" }},
	} {
		r := &halt.Rung{Tracker: remote, Step: step.step}
		if err := r.Arm(t.Context()); err != nil {
			t.Errorf("%s: arm: %v", step.name, err)
		}
		for range 2 {
			if err := r.Do(t.Context()); err != nil {
				t.Errorf("%s: %v", step.name, err)
			}
		}
		if r.Name() != step.name || !step.done() {
			t.Errorf("%s: it is not done", r.Name())
		}
	}
	b.confirm(b.procs)
	if left := b.truth(id); len(left) > 0 {
		t.Error(left)
	}
	b.docker("start", "agent")
	b.do(&halt.Rung{Tracker: remote, Step: halt.StepStop})
	b.confirm(b.procs)
	b.docker("rm", "-f", "agent")
	for _, s := range []halt.Step{halt.StepPause, halt.StepDisconnect, halt.StepKill, halt.StepStop, halt.StepRestartPolicy} {
		if err := (&halt.Rung{Tracker: remote, Step: s}).Do(t.Context()); err != nil {
			t.Errorf("of a container that is gone: %v", err)
		}
	}
	if err := (&halt.Rung{Tracker: remote}).Do(t.Context()); err == nil {
		t.Error("no step is a step")
	}
}

// A Tracker knows what it takes to cut a container off, and learns of changes
// from the engine's events.
func TestTracker(t *testing.T) {
	b := start(t, halt.Agent{Names: []string{"agent", "hostly"}})
	b.docker("network", "create", "-o", "com.docker.network.bridge.name=br-claw", "claw")
	b.docker("network", "create", "other")
	shared := t.TempDir()
	ln, err := net.Listen("unix", filepath.Join(shared, "engine.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	b.run("agent", "--restart=unless-stopped", "--cap-add=NET_ADMIN", "--network=claw", "-v", b.HostPath("/run/docker.sock")+":/run/docker.sock", "-v", shared+":/shared", lab.AgentImage)
	b.run("hostly", "--network=host", lab.AgentImage)
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		b.tracker.Watch(ctx)
	}()
	defer func() {
		cancel()
		<-watched
	}()
	find := func(name string) (found halt.Container) {
		for _, c := range b.tracker.Containers() {
			if c.Name == name {
				found = c
			}
		}
		return found
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for began := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Since(began) > 30*time.Second {
				t.Fatalf("%s: %+v", what, b.tracker.Containers())
			}
		}
	}
	until("both run", func() bool { return find("agent").NetNS != "" && find("hostly").NetNS != "" })
	c, h := find("agent"), find("hostly")
	if strings.Join(c.Bridges, " ") != "br-claw" || !c.NetAdmin || c.HostNetwork || c.RestartPolicy != "unless-stopped" || len(c.Addrs) == 0 ||
		len(c.Sockets) != 2 || !strings.Contains(c.Unified, c.ID) || !strings.Contains(c.Freezer, c.ID) || c.Sandbox == "" || c.Object() != "container/agent" {
		t.Errorf("%+v", c)
	}
	if !h.HostNetwork || len(h.Bridges) > 0 || h.NetAdmin {
		t.Errorf("%+v", h)
	}
	if _, err := os.Stat(c.NetNS); err != nil {
		t.Error(err)
	}
	b.docker("network", "connect", "other", "agent")
	until("it is on another network", func() bool { return len(find("agent").Bridges) == 2 })
	b.docker("restart", "-t", "0", "agent")
	until("it has another first process", func() bool { a := find("agent"); return a.Running && a.PID != c.PID })
	b.docker("rm", "-f", "agent")
	b.run("agent", lab.AgentImage)
	until("it was made anew", func() bool { a := find("agent"); return len(b.tracker.Containers()) == 3 || a.Running && a.ID != c.ID })
}

// A dead engine prevents nothing, and neither does a container that was made
// before it died and is not known yet.
func TestDeadEngine(t *testing.T) {
	b := start(t, named)
	first := b.run("agent", lab.AgentImage)
	b.arm()
	b.docker("rm", "-f", "agent")
	second := b.run("agent", "--restart=always", lab.AgentImage)
	if err := b.KillDockerd(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := b.remaining(b.procs); left["container/agent"] == "" {
		t.Error("the container that was made anew is not seen")
	}
	if err := b.freeze.Do(t.Context()); err != nil {
		t.Error(err)
	}
	b.confirm(b.frozen)
	if err := b.kill.Do(t.Context()); err == nil {
		t.Error("that the engine will start it when it is started is not said")
	}
	b.confirm(b.procs)
	misspelt := halt.Agent{Names: []string{"agnet"}}
	for _, o := range []observer{
		&halt.Processes{Agent: misspelt, DataRoot: filepath.Join(b.Dir(), "docker")},
		&halt.Frozen{Agent: misspelt, DataRoot: filepath.Join(b.Dir(), "docker")},
		&halt.Restarts{Agent: misspelt, DataRoot: filepath.Join(b.Dir(), "docker")},
		&halt.Processes{}, &halt.Frozen{}, &halt.Restarts{},
	} {
		if left, err := o.Remaining(t.Context()); err == nil {
			t.Errorf("%s: of an agent that nobody knows %v remains", o.Name(), left)
		}
	}
	if left := append(b.truth(first), b.truth(second)...); len(left) > 0 {
		t.Error(left)
	}
}

// What would start the agent again is disarmed, seen to be, and reported when
// it is released; it is started by nobody. Here is no systemd: systemctl is a
// script, which keeps the state of its units in files.
func TestKeepDown(t *testing.T) {
	b := start(t, named)
	b.run("agent", "--restart=on-failure:3", lab.AgentImage)
	h := labtest.Host(t, b.Lab)
	systemctl(t, b.Lab, h)
	root := filepath.Join(b.Dir(), "docker")
	k := &halt.KeepDown{Tracker: b.tracker, Host: h, Units: []halt.Unit{{Name: "absent.service"}, {Name: "openclaw-gateway.service", User: "root"}}, StateFile: "/etc/claw-restarts.json"}
	seen := &halt.Restarts{Agent: named, DataRoot: root, View: &h.View, Units: k.Units}
	if err := k.Arm(t.Context()); err != nil {
		t.Fatal(err)
	}
	left, err := seen.Remaining(t.Context())
	if err != nil || len(left) != 3 || left["unit/agent.service"] == "" || left["unit/root/openclaw-gateway.service"] == "" || left["container/agent"] == "" {
		t.Errorf("%v, %v", left, err)
	}
	for range 2 {
		if err := k.Do(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left, err := seen.Remaining(t.Context()); err != nil || len(left) > 0 {
			t.Errorf("%v, %v", left, err)
		}
	}
	if got := b.docker("inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", "agent"); got != "no" {
		t.Errorf("restart policy %q", got)
	}
	log, err := h.ReadFile("/etc/systemctl/log")
	if err != nil || !strings.Contains(string(log), "--user --machine=root@.host daemon-reload") {
		t.Errorf("%s, %v", log, err)
	}
	if err := (&halt.Rung{Tracker: b.tracker, Step: halt.StepDisconnect}).Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.docker("kill", "agent")
	// Another process, which has armed since, still knows what it was.
	k = &halt.KeepDown{Tracker: b.tracker, Host: h, StateFile: k.StateFile}
	if err := k.Arm(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := k.Release(t.Context()); err != nil {
		t.Error(err)
	}
	former, err := k.Former()
	if err != nil || !strings.Contains(former["container/agent"], "docker update --restart=on-failure:3 agent") || !strings.Contains(former["container/agent"], "docker network connect bridge agent") || !strings.Contains(former["unit/agent.service"], "systemctl enable") {
		t.Errorf("%v, %v", former, err)
	}
	if got := b.docker("inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", "agent"); got != "no" {
		t.Errorf("released, its restart policy is %q", got)
	}
	state := func(unit string) string {
		data, err := h.ReadFile("/etc/systemctl/" + unit)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(data))
	}
	if s := state("agent.service"); s != "loaded inactive disabled" {
		t.Errorf("released, the unit is %s", s)
	}
	var stored map[string]struct{ Policy string }
	data, err := h.ReadFile(k.StateFile)
	if err := errors.Join(err, json.Unmarshal(data, &stored)); err != nil || len(stored) != 1 {
		t.Errorf("%s, %v", data, err)
	}
}

// systemctl installs a script of that name on the lab's host, and units.
func systemctl(t *testing.T, l *lab.Lab, h *host.Host) {
	t.Helper()
	const script = `#!/bin/sh
dir=/etc/systemctl
echo "$@" >>$dir/log
while [ $# -gt 0 ]; do case $1 in --user|--machine=*) shift;; *) break;; esac; done
verb=$1
for unit; do :; done
[ $verb = daemon-reload ] && exit 0
if [ ! -f $dir/$unit ]; then
	[ $verb = show ] && { echo LoadState=not-found; echo ActiveState=inactive; exit 0; }
	exit 5
fi
read load active file <$dir/$unit
case $verb in
show) echo DropInPaths=$(ls /run/systemd/system/$unit.d/* /run/user/0/systemd/user/$unit.d/* 2>/dev/null)
	echo LoadState=$load; echo ActiveState=$active; echo UnitFileState=$file; exit 0;;
stop) [ $active = active ] && active=deactivating;;
kill) [ $active = deactivating ] && active=inactive; [ $active = active ] && active=activating;;
disable) file=disabled;;
*) exit 2;;
esac
echo $load $active $file >$dir/$unit
`
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"/etc/systemctl", "/etc/systemd/system"} {
		must(os.MkdirAll(l.HostPath(dir), 0o755))
	}
	must(os.WriteFile(l.HostPath("/etc/systemctl/systemctl"), []byte(script), 0o755))
	must(h.WriteFile("/etc/systemctl/agent.service", []byte("loaded active enabled\n"), 0o644))
	must(h.WriteFile("/etc/systemctl/openclaw-gateway.service", []byte("loaded active enabled\n"), 0o644))
	must(h.WriteFile("/etc/systemd/system/agent.service", []byte("[Service]\nExecStart=/usr/bin/docker start -a agent\nRestart=always\n"), 0o644))
	h.Commands, h.Admin = &scripted{h.Commands}, &scripted{h.Admin}
}

// scripted finds the script, which the machine's own would otherwise be taken
// for.
type scripted struct{ host.Runner }

func (s *scripted) Run(ctx context.Context, c host.Command) (host.Output, error) {
	if c.Name == "systemctl" {
		c.Name, c.Args = "/bin/sh", append([]string{"/etc/systemctl/systemctl"}, c.Args...)
	}
	return s.Runner.Run(ctx, c)
}
