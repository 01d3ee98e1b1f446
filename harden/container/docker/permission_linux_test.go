package docker

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/managemyclaw/hardshell/harden/container"
)

// The client turns a socket that may not be opened into text; the engine must
// not.
func TestSocketThatMayNotBeOpened(t *testing.T) {
	if host := os.Getenv("HARDSHELL_TEST_SOCKET"); host != "" {
		_, err := open(t, host).Containers(t.Context())
		if !errors.Is(err, fs.ErrPermission) || errors.Is(err, container.ErrEngine) || !strings.Contains(err.Error(), host) {
			t.Errorf("Containers: %v", err)
		}
		if _, err := open(t, host).Info(t.Context()); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("Info: %v", err)
		}
		return
	}
	dir, err := os.MkdirTemp("", "docker") //nolint:usetesting // t.TempDir is closed to others
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(socket, 0o600)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "HARDSHELL_TEST_SOCKET=unix://"+socket)
	cmd.Dir = "/"
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	} else if err := os.Chmod(socket, 0); err != nil {
		t.Fatal(err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
