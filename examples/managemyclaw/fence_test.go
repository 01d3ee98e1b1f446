package main

import (
	"os"
	"path/filepath"
	"testing"
)

// The fence is down for agents that nobody stopped, and up for all others and
// whenever that cannot be told.
func TestFence(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "fence")
	f, err := openFence(dir)
	if err != nil {
		t.Fatal(err)
	}
	up := func(agent string) bool { return f.Fenced(t.Context(), agent) != nil }
	if up("inbox") {
		t.Error("up without a reason")
	}
	for range 2 { // twice is once
		if err := f.engage("inbox", "a test"); err != nil {
			t.Fatal(err)
		}
	}
	if !up("inbox") || up("other") {
		t.Errorf("inbox %v, other %v", up("inbox"), up("other"))
	}
	for _, name := range []string{"", ".", "..", "../inbox", "a/b", "/etc"} {
		if !up(name) {
			t.Errorf("down for %q", name)
		}
	}
	if again, err := openFence(dir); err != nil || again.Fenced(t.Context(), "inbox") == nil {
		t.Errorf("down after a restart: %v", err)
	}
	if err := os.Symlink("nowhere", f.file("linked")); err == nil && !up("linked") {
		t.Error("down with a link that leads nowhere")
	}
	if err := os.Mkdir(f.file("directory"), 0o700); err != nil || !up("directory") {
		t.Errorf("down with a directory of the name: %v", err)
	}
	if err := os.Remove(f.file("inbox")); err != nil || up("inbox") {
		t.Errorf("up after the file was removed: %v", err)
	}
	if err := os.RemoveAll(dir); err != nil || !up("other") {
		t.Errorf("down without its directory: %v", err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil || !up("other") {
		t.Errorf("down with a file in place of its directory: %v", err)
	}
	if err := f.engage("other", "a test"); err == nil {
		t.Error("engaged where nothing can be")
	}
	if _, err := openFence(dir); err == nil {
		t.Error("opened a file")
	}
}
