package container_test

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/container/containertest"
	"github.com/managemyclaw/hardshell/harden/host"
)

// A check of one's own is a function of one container. In a program the source
// is container.NewSource of an engine; here it is one in memory.
func ExampleNewSource() {
	engine := new(containertest.Engine)
	engine.Add(container.Settings{Name: "openclaw", Image: "openclaw:latest"}, nil)
	engine.Add(container.Settings{Name: "pinned", Image: "openclaw@sha256:4f0c"}, nil)

	pinned := harden.Each(
		harden.Info{ID: "example.pinned", Title: "Images are named by digest"},
		containertest.Source(engine),
		func(_ context.Context, c container.Container) (harden.Verdict, error) {
			seen := harden.Evidence{Source: "inspect Config.Image", Observed: c.Image, Expected: "…@sha256:…"}
			if !strings.Contains(c.Image, "@sha256:") {
				return harden.Fail(harden.Finding{Message: "its image may change under its name", Evidence: []harden.Evidence{seen}}), nil
			}
			return harden.Pass(seen), nil
		})
	res := harden.Evaluate(context.Background(), new(host.View), pinned, 0)
	for _, f := range res.Findings {
		fmt.Println(res.Status, f.Subject, f.Message)
	}
	// Output: fail container/openclaw its image may change under its name
}

// What recreating a container would change is a plan, to be shown before it is
// applied with a harden.Fixer.
func ExampleRecreator() {
	engine := new(containertest.Engine)
	engine.Add(container.Settings{
		Name: "openclaw", User: "1000:1000", CapDrop: []string{"ALL"}, ReadonlyRootfs: true, Memory: 2 << 30, PidsLimit: 512,
		CgroupnsMode: "private", Ports: []container.Port{{Container: 18789, Protocol: "tcp", HostIP: "0.0.0.0", Host: 18789}},
	}, nil)
	src := containertest.Source(engine)
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	r := &container.Recreator{Control: engine, Source: src, StateDir: dir}

	var checks []harden.Check
	for _, c := range container.Checks(src, r.Profile) {
		checks = append(checks, r.Remedy(c))
	}
	for _, p := range harden.Propose(context.Background(), new(host.View), 0, checks...) {
		for _, a := range p.Plan.Actions {
			c := a.Change()
			fmt.Println(c.Subject+":", c.Summary)
			fmt.Println(c.Before)
			fmt.Println("becomes")
			fmt.Println(c.After)
		}
	}
	// Output:
	// container/openclaw: recreate it hardened
	// no-new-privileges: false
	// ports: 0.0.0.0:18789->18789/tcp
	// becomes
	// no-new-privileges: true
	// ports: 127.0.0.1:18789->18789/tcp
}
