package openclaw_test

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/container/containertest"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/harden/network"
	"github.com/managemyclaw/hardshell/harden/openclaw"
)

// An audit of a deployment on a machine where this process may not look.
func ExampleDeployment() {
	engine := new(containertest.Engine)
	engine.Add(container.Settings{Name: "openclaw", Privileged: true}, nil)
	agent := &openclaw.Deployment{Engine: engine, Containers: []string{"openclaw"}, Profile: openclaw.Profile()}

	r, err := new(audit.Auditor).Run(context.Background(), new(host.View), agent.Checks()...)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r.Points[harden.PointCapDropAll-1].Status, r.Points[harden.PointNoNewPrivileges-1].Status, r.Points[harden.PointKillSwitch-1].Reason)
	// Output: fail unknown not_implemented
}

// What the agent is told to keep its cache in must be a place that it may
// write, and that outlives it.
func TestProfileHoldsTogether(t *testing.T) {
	p := openclaw.Profile()
	for _, kv := range p.Env {
		key, value, _ := strings.Cut(kv, "=")
		in := slices.ContainsFunc(p.Writable, func(w string) bool { return strings.HasPrefix(value, w+"/") })
		if !in {
			t.Errorf("%s is %s, which is not in %v", key, value, p.Writable)
		}
	}
	for _, w := range p.Writable {
		if !path.IsAbs(w) || path.Clean(w) != w {
			t.Errorf("%q is not a clean absolute path", w)
		}
	}
	if strings.HasPrefix(p.User, "0:") || strings.HasSuffix(p.User, ":0") || !strings.Contains(p.User, ":") {
		t.Errorf("user %q", p.User)
	}
	if p.Memory < 3<<29 {
		t.Errorf("%d bytes of memory are too few", p.Memory)
	}
}

func TestChecks(t *testing.T) {
	if checks := new(openclaw.Deployment).Checks(); len(checks) != 0 {
		t.Errorf("nothing to look at, and %d checks", len(checks))
	}
	engine := new(containertest.Engine)
	bare := (&openclaw.Deployment{Engine: engine}).Checks()
	remedied := (&openclaw.Deployment{Engine: engine, Control: engine, StateDir: t.TempDir()}).Checks()
	if err := harden.Validate(remedied...); err != nil {
		t.Error(err)
	}
	if len(bare) == 0 || len(bare) != len(remedied) {
		t.Fatalf("%d checks, and %d with remedies", len(bare), len(remedied))
	}
	for i := range bare {
		if _, ok := harden.AsRemediator(bare[i]); ok {
			t.Errorf("%s has a remedy without a Control", bare[i].Info().ID)
		}
		if _, ok := harden.AsRemediator(remedied[i]); !ok {
			t.Errorf("%s has no remedy", remedied[i].Info().ID)
		}
	}
	covered := make(map[harden.Point]bool)
	leak := 0
	networked := (&openclaw.Deployment{Engine: engine, Network: &network.Config{}}).Checks()
	for _, c := range networked {
		if strings.HasSuffix(c.Info().ID, ".loopback_leak") {
			leak++
		}
	}
	if err := harden.Validate(networked...); err != nil || leak != 1 {
		t.Errorf("with the network's checks: %d of the loopback leak, %v", leak, err)
	}
	for _, c := range networked {
		covered[c.Info().Point] = true
	}
	for p := harden.PointNonRoot; p <= harden.PointTailscale; p++ {
		if !covered[p] {
			t.Errorf("no check covers point %v", p)
		}
	}
}
