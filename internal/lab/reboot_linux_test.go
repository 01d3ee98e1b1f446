package lab_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// A loss of power ends everything on the host, and what is on disk is there
// after it: a container comes back by its restart policy, rules and what is in
// /run do not, and the network is as it was.
func TestPowerOff(t *testing.T) {
	t.Parallel()
	l := labtest.Start(t, lab.Config{})
	id := docker(t, l, "run", "-d", "--name=comes", "--restart=always", "-v", "kept:/data", lab.AgentImage)
	docker(t, l, "run", "-d", "--name=stays", lab.AgentImage)
	do(t, l, "comes", "write", "/data/file", "kept")
	if out, err := l.Host.Command(t.Context(), "iptables", "-A", "INPUT", "-s", lab.NeighbourAddr4.String(), "-j", "DROP").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.WriteFile(l.HostPath("/run/marker"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := l.Internet.Command(context.WithoutCancel(t.Context()), "sleep", "3600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sink, err := l.Internet.Sink(t.Context(), "tcp", netip.AddrPortFrom(lab.FarAddr4, 443).String())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.PowerOff(t.Context()); err != nil {
		t.Fatal(err)
	}
	if cmd.Wait() == nil || l.DockerdPID() != 0 {
		t.Error("something goes on")
	}
	if err := l.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, err := l.Host.Command(t.Context(), "iptables", "-S").Output(); err != nil || string(out) != "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n" {
		t.Errorf("rules: %s, %v", out, err)
	}
	if _, err := os.Stat(l.HostPath("/run/marker")); err == nil {
		t.Error("a file in /run is there")
	}
	if _, err := os.Stat(filepath.Join(l.Dir(), "docker", "containers", id)); err != nil {
		t.Error(err)
	}
	if err := l.StartDockerd(t.Context()); err != nil {
		t.Fatal(err)
	}
	poll(10*time.Second, func() bool { return docker(t, l, "inspect", "-f", "{{.State.Running}}", "comes") == "true" })
	if got := docker(t, l, "ps", "--format", "{{.Names}}"); got != "comes" {
		t.Errorf("running: %s", got)
	}
	do(t, l, "comes", "read", "/data/file")
	before := sink.Conns()
	if a, err := l.Do(t.Context(), "comes", "dial", "tcp", netip.AddrPortFrom(lab.FarAddr4, 443).String()); err != nil || !a.OK {
		t.Errorf("to the internet: %v, %v", a, err)
	}
	poll(5*time.Second, func() bool { return sink.Conns() > before })
	if sink.Conns() == before {
		t.Error("nothing arrives")
	}
}
