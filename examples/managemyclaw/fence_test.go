package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/managemyclaw/hardshell/killswitch"
)

// What starts an agent asks the fence, by the command or as harden does, and is
// refused if the agent is stopped or nobody can tell.
func TestFence(t *testing.T) {
	none := func(string) string { return "" }
	state := filepath.Join(t.TempDir(), "state")
	ask := func(agent string) int {
		t.Helper()
		return run(t.Context(), []string{"fence", "--agent", agent, "--state-dir", state}, none, io.Discard, io.Discard)
	}
	start := func(agent, container string) error {
		return (&program{stateDir: state, agent: agent}).mayStart(t.Context(), container)
	}
	if ask("inbox") != exitPass || start("inbox", "openclaw") != nil {
		t.Error("refused, though it never was stopped")
	}
	f, err := (&program{stateDir: state}).fence()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Engage(t.Context(), "inbox", "a test"); err != nil {
		t.Fatal(err)
	}
	if ask("inbox") != exitFail || ask("other") != exitPass {
		t.Error("inbox is stopped, and other is not")
	}
	if err := start("inbox", "openclaw"); !errors.Is(err, killswitch.ErrEngaged) {
		t.Errorf("by the agent's name: %v", err)
	}
	if err := start("other", "inbox"); !errors.Is(err, killswitch.ErrEngaged) {
		t.Errorf("by the container's name: %v", err)
	}
	if err := start("other", "openclaw"); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(state, "fence", "damaged"), []byte("?"), 0o600); err != nil || ask("damaged") != exitFail {
		t.Error("one that is damaged lets it start")
	}
	for _, args := range [][]string{{"fence", "--state-dir", state}, {"kill", "--state-dir", state}, {"kill", "--agent", "inbox", "--state-dir", state}, {"reset", "--agent", "inbox", "--state-dir", state}, {"drill", "--state-dir", state}} {
		if code := run(t.Context(), args, none, io.Discard, io.Discard); code != exitUsage {
			t.Errorf("%v: %d, want %d", args, code, exitUsage)
		}
	}
}
