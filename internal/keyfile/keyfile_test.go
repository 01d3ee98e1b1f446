package keyfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/internal/keyfile"
)

func TestKeptAndRead(t *testing.T) {
	name := filepath.Join(t.TempDir(), "key")
	if err := keyfile.Write(name, "a secret\n"); err != nil {
		t.Fatal(err)
	}
	if text, err := keyfile.Read(name); text != "a secret\n" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if err := keyfile.Write(name, "another"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("written over: %v", err)
	}
	if text, _ := keyfile.Read(name); text != "a secret\n" {
		t.Errorf("it is now %q", text)
	}
}

func TestExposed(t *testing.T) {
	dir := t.TempDir()
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666} {
		name := filepath.Join(dir, mode.String())
		if err := keyfile.Write(name, "a secret"); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		text, err := keyfile.Read(name)
		if runtime.GOOS == "windows" {
			continue
		}
		if !errors.Is(err, keyfile.ErrExposed) || text != "" || !strings.Contains(err.Error(), name) {
			t.Errorf("mode %v: %q, %v", mode, text, err)
		}
	}
	if _, err := keyfile.Read(dir); !errors.Is(err, keyfile.ErrExposed) {
		t.Errorf("a directory: %v", err)
	}
	if _, err := keyfile.Read(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
