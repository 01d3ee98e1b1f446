package filelock_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/managemyclaw/hardshell/internal/filelock"
)

func TestOneHasIt(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	first, err := filelock.Try(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := filelock.Try(name); !errors.Is(err, filelock.ErrHeld) {
		t.Errorf("a second one: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := filelock.Try(name)
	if err != nil {
		t.Fatalf("after it was let go of: %v", err)
	}
	second.Close()
	if _, err := filelock.Try(filepath.Join(name, "below")); err == nil || errors.Is(err, filelock.ErrHeld) {
		t.Errorf("where there can be no file: %v", err)
	}
}
