package labtest

import (
	"context"
	"errors"
	"os/exec"
	"testing"

	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/internal/lab"
)

// Systemd starts systemd on the lab's host, and has h, which [Host] returned, run
// its systemctl there. It ends with the lab.
func Systemd(t testing.TB, l *lab.Lab, h *host.Host) *lab.Systemd {
	t.Helper()
	s, err := l.StartSystemd(t.Context())
	if errors.Is(err, exec.ErrNotFound) {
		Skip(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	beside := &besideSystemd{h.Admin, s}
	h.Commands, h.Admin = beside, beside
	return s
}

type besideSystemd struct {
	host.Runner

	systemd *lab.Systemd
}

func (b *besideSystemd) Run(ctx context.Context, c host.Command) (host.Output, error) {
	if c.Name == "systemctl" {
		return run(ctx, b.systemd.Command(ctx, c.Name, c.Args...), c)
	}
	return b.Runner.Run(ctx, c)
}
