package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// The demo shows every attack twice, succeeding and failing, and leaves nothing
// behind.
func TestDemo(t *testing.T) {
	require(t)
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	var out strings.Builder
	if err := run(ctx, &out); err != nil {
		t.Fatalf("%v\n%s", err, end(out.String()))
	}
	text := out.String()
	if testing.Verbose() {
		t.Log(text)
	}
	for _, a := range attacks {
		for _, verdict := range []string{"✗ BROKEN  ", "✓ held    "} {
			if strings.Count(text, verdict+a.promise) != 1 {
				t.Errorf("%s%s is not shown once", verdict, a.promise)
			}
		}
	}
	for _, want := range []string{"▸ Security score: 0/14", "recreate it hardened", "▸ Security score: 12/14", "▸ Security score: 13/14", "▸ Passed.", "▸ Off. Everything was confirmed", "standby holds it", "without the second secret is refused", "(second session) Confirmed", "✓ works ", "Nothing is left behind."} {
		if !strings.Contains(text, want) {
			t.Errorf("not shown: %s\n%s", want, end(text))
		}
	}
	if strings.Count(text, "not-a-real-key") != 1 {
		t.Error("the key is shown elsewhere than in the command that sets it")
	}
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if strings.Count(text, "Security score: 0/14") != 1 {
		t.Error("the score does not change")
	}
	leavesNothing(t)
}

// Interrupted while it hardens, it ends with an error, and leaves nothing.
func TestDemoInterrupted(t *testing.T) {
	require(t)
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	out := &trigger{on: "Making the change", do: cancel}
	if err := run(ctx, out); !errors.Is(err, context.Canceled) {
		t.Errorf("%v\n%s", err, end(out.text.String()))
	}
	if text := out.text.String(); strings.Contains(text, "left behind") {
		t.Errorf("it ends well:\n%s", end(text))
	}
	leavesNothing(t)
}

// An attack whose outcome is not as it should be is an error.
func TestAttackOutcome(t *testing.T) {
	defer func(all []attack) { attacks = all }(attacks)
	outcome := func(succeeds bool, err error) func(context.Context, *demo) (string, bool, error) {
		return func(context.Context, *demo) (string, bool, error) { return "seen", succeeds, err }
	}
	broken := errors.New("cannot be tried")
	for name, test := range map[string]struct {
		attack        attack
		before, after bool // whether it is fine
	}{
		"succeeds":        {attack{"a promise", outcome(true, nil)}, true, false},
		"fails":           {attack{"a promise", outcome(false, nil)}, false, true},
		"cannot be tried": {attack{"a promise", outcome(false, broken)}, false, false},
	} {
		attacks = []attack{test.attack}
		var out strings.Builder
		d := &demo{w: &out}
		if err := d.attack(t.Context(), true); (err == nil) != test.before {
			t.Errorf("%s, before: %v", name, err)
		}
		if err := d.attack(t.Context(), false); (err == nil) != test.after {
			t.Errorf("%s, after: %v", name, err)
		}
	}
}

// end is what was shown last, which says most of why it ended.
func end(text string) string {
	const most = 60
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-most):], "")
}

// require skips the test where the demo cannot run.
func require(t *testing.T) {
	t.Helper()
	labtest.Require(t, lab.Config{})
	if _, err := exec.LookPath("go"); err != nil {
		labtest.Skip(t, "no program go, with which the demo builds")
	}
	t.Setenv("TMPDIR", t.TempDir())
}

// leavesNothing asserts that nothing is left of this process's labs, whose
// names begin with its number, nor of the demo's own directory.
func leavesNothing(t *testing.T) {
	t.Helper()
	mine := fmt.Sprintf("hardshell-lab-%d-", os.Getpid())
	swept, err := lab.Sweep() // may well find labs of others, who were killed
	if err != nil || strings.Contains(strings.Join(swept, " "), mine) {
		t.Errorf("swept %v, %v", swept, err)
	}
	for _, pattern := range []string{os.TempDir() + "/hardshell-demo-*", "/var/lib/hardshell-lab/" + mine + "*", "/sys/fs/cgroup/" + mine + "*", "/sys/fs/cgroup/*/" + mine + "*"} {
		if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	}
	for _, pattern := range []string{"/proc/self/mountinfo", "/proc/[0-9]*/cmdline"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err == nil && (strings.Contains(string(text), mine) || strings.Contains(string(text), os.TempDir())) {
				t.Errorf("left behind: %s: %q", name, text)
			}
		}
	}
}

// A trigger does something when something is written.
type trigger struct {
	text strings.Builder
	on   string
	do   func()
}

func (w *trigger) Write(p []byte) (int, error) {
	n, err := w.text.Write(p)
	if w.do != nil && strings.Contains(w.text.String(), w.on) {
		w.do()
		w.do = nil
	}
	return n, err
}
