//go:build unix

package access_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/access"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/host"
)

// On this machine it is seen whose the fence is, and where it can be reached.
func TestFenceOfThisMachine(t *testing.T) {
	s := newSwitched(t)
	if err := os.Chmod(s.dir, 0o700); err != nil { // as the switch makes it
		t.Fatal(err)
	}
	s.fire()
	s.config.Dir, s.config.Owner = s.dir, uint32(os.Getuid())
	look := func(of func(*container.Container)) harden.Verdict {
		t.Helper()
		all, err := access.NewSwitchGuardSource(s.access(of)).All(t.Context(), &host.Local().View)
		if err != nil || len(all) != 1 || all[0].Record == nil {
			t.Fatalf("%+v %v", all, err)
		}
		v, err := access.JudgeSwitchGuard(context.Background(), all[0])
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	finds := func(v harden.Verdict, id string) bool {
		for _, f := range v.Findings() {
			if f.ID == "access.kill_private."+id && (strings.Contains(f.Message, s.dir) || id == "mounted") {
				return true
			}
		}
		return false
	}
	if v := look(nil); finds(v, "mode") || finds(v, "owner") || finds(v, "mounted") {
		t.Errorf("%+v", v.Findings())
	}
	mount := func(c *container.Container) {
		c.Kernel.Trees[0].Mounts[3].HostPaths = []string{filepath.Dir(s.dir)}
	}
	if v := look(mount); !finds(v, "mounted") {
		t.Errorf("mounted: %+v", v.Findings())
	}
	s.config.Owner++
	if os.Getuid() != 0 {
		if v := look(nil); !finds(v, "owner") {
			t.Errorf("somebody else's: %+v", v.Findings())
		}
	}
	s.config.Starters = []uint32{uint32(os.Getuid()) + 1}
	if v := look(nil); !finds(v, "unreadable") {
		t.Errorf("nobody else reads it: %+v", v.Findings())
	}
	if err := os.Chmod(filepath.Join(s.dir, "fence"), 0o777); err != nil {
		t.Fatal(err)
	}
	if v := look(nil); !finds(v, "mode") {
		t.Errorf("open to all: %+v", v.Findings())
	}
}
