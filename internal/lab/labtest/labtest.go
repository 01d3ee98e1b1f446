// Package labtest starts labs for tests.
package labtest

import (
	"cmp"
	"os"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/internal/lab"
)

// Start starts a lab that ends with the test. Where a lab cannot run, the test
// is skipped, and the reason given; with CI=true in the environment it fails
// instead, so that no test goes missing unnoticed.
//
// An empty cfg.Dockerd is taken from $HARDSHELL_DOCKERD, an empty cfg.Runc
// from $HARDSHELL_RUNC.
func Start(t testing.TB, cfg lab.Config) *lab.Lab {
	t.Helper()
	cfg = Require(t, cfg)
	l, err := lab.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() && !cfg.NoDocker {
			t.Logf("the end of dockerd's log:\n%s", l.DockerdLog())
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// Require skips the test as [Start] does, starts nothing, and returns the
// configuration that Start would use.
func Require(t testing.TB, cfg lab.Config) lab.Config {
	t.Helper()
	cfg = FromEnv(cfg)
	if missing := lab.Missing(cfg); len(missing) > 0 {
		Skip(t, "no lab: "+strings.Join(missing, "; "))
	}
	return cfg
}

// FromEnv fills what cfg leaves empty from the environment.
func FromEnv(cfg lab.Config) lab.Config {
	cfg.Dockerd = cmp.Or(cfg.Dockerd, os.Getenv("HARDSHELL_DOCKERD"))
	cfg.Runc = cmp.Or(cfg.Runc, os.Getenv("HARDSHELL_RUNC"))
	return cfg
}

// Skip skips the test, or fails it with CI=true in the environment.
func Skip(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}
