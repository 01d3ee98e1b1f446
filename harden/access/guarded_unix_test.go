//go:build unix

package access_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/access"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/host"
)

// A file of this machine is found in a mount of a directory above it, and with
// the mode that it has.
func TestGuardedFileOfThisMachine(t *testing.T) {
	name := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(name, []byte(projectKey), 0o644); err != nil {
		t.Fatal(err)
	}
	above := filepath.Dir(filepath.Dir(name))
	cfg := access.Config{
		Guarded:    []access.GuardedFile{{Path: name, Owner: uint32(os.Getuid())}},
		Containers: containers(func(c *container.Container) { c.Kernel.Trees[0].Mounts[3].HostPaths = []string{above} }),
	}
	v := &host.View{FS: host.Local().FS, Granted: host.AllPrivileges}
	r := evaluate(t, cfg, v, "access.key_files")
	for _, kind := range []string{"mode", "mounted"} {
		if !slices.ContainsFunc(r.Findings, func(f harden.Finding) bool { return f.ID == "access.key_files."+kind }) {
			t.Errorf("no finding %s: %v (%s) %+v", kind, r.Status, r.Detail, r.Findings)
		}
	}
}
