package containertest_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/container/containertest"
	"github.com/managemyclaw/hardshell/harden/host"
)

func TestEngineIsAControl(t *testing.T) {
	e := new(containertest.Engine)
	containertest.TestControl(t, &containertest.Interceptor{Control: e}, func(_ *testing.T, name string, files map[string]string) {
		e.Add(container.Settings{
			Name: name, RestartPolicy: "always",
			Mounts: []container.Mount{{Type: "volume", Name: "anonymous", Destination: "/data", ReadWrite: true}},
		}, files)
	}, func(_ *testing.T, name, file string) string {
		content, _ := e.File(name, file)
		return content
	})
}

// A check of one's own is tried on a container that exists only in memory.
func Example() {
	engine := new(containertest.Engine)
	engine.Add(container.Settings{Name: "agent", Privileged: true}, nil)
	for _, c := range container.Checks(containertest.Source(engine), container.Profile{}) {
		if c.Info().ID == "container.privileged" {
			fmt.Println(harden.Evaluate(context.Background(), new(host.View), c, 0).Findings[0].Message)
		}
	}
	// Output: it is privileged
}
