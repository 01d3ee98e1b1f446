package labtest_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// What is seen and changed through the host is the lab's, not the machine's.
func TestHostIsTheLabs(t *testing.T) {
	l := labtest.Start(t, lab.Config{NoDocker: true})
	h := labtest.Host(t, l)
	ctx := t.Context()

	out, err := h.Run(ctx, host.Command{Name: "ip", Args: []string{"-4", "-o", "addr", "show", "dev", "eth0"}})
	if err != nil || !strings.Contains(string(out.Stdout), lab.HostAddr4.String()) {
		t.Errorf("ip addr: %s, %v", out.Stdout, err)
	}
	ln, err := l.Host.Listen(ctx, "tcp", "192.0.2.1:4711")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, name := range []string{"/proc/self/net/tcp", "/proc/1/net/tcp"} {
		data, err := h.ReadFile(name)
		if err != nil || !strings.Contains(string(data), "010200C0:1267") {
			t.Errorf("%s does not show the listener: %v", name, err)
		}
	}
	mine, _ := os.Readlink("/proc/self/ns/net")
	if ns, err := h.ReadLink("/proc/self/ns/net"); err != nil || ns == mine {
		t.Errorf("network namespace %s (that of the test is %s): %v", ns, mine, err)
	}
	for _, name := range []string{"/etc/labtest", "/run/labtest", "/var/run/labtest"} {
		if err := h.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s was made on the machine itself", name)
		}
		if out, err := h.Run(ctx, host.Command{Name: "cat", Args: []string{name}}); err != nil || string(out.Stdout) != "x" {
			t.Errorf("%s: %q, %v", name, out.Stdout, err)
		}
		if err := h.Remove(name); err != nil {
			t.Error(err)
		}
	}
	if _, err := h.Run(ctx, host.Command{Name: "no-such-program"}); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("a program that is not there: %v", err)
	}
	exit, ok := errors.AsType[*host.ExitError](func() error {
		_, err := h.Run(ctx, host.Command{Name: "sh", Args: []string{"-c", "echo oh >&2; exit 3"}})
		return err
	}())
	if !ok || exit.Code != 3 || exit.Stderr != "oh\n" {
		t.Errorf("exit: %+v", exit)
	}
}
