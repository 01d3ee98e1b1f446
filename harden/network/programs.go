package network

import (
	"context"
	"errors"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/harden/host"
)

// Programs returns the programs of a machine that observe, for package
// firewall to run.
func Programs(v *host.View) firewall.Runner { return programs{v.Run} }

// AdminPrograms returns the programs of a machine that change something.
func AdminPrograms(h *host.Host) firewall.Runner { return programs{h.Change} }

type programs struct {
	run func(context.Context, host.Command) (host.Output, error)
}

// Run implements [firewall.Runner].
func (p programs) Run(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, firewall.DefaultTimeout)
	defer cancel()
	// UFW's texts follow LANGUAGE before they follow LC_ALL.
	out, err := p.run(ctx, host.Command{Name: name, Args: args, Stdin: stdin, Env: []string{"LC_ALL=C", "LANGUAGE=C"}})
	if exit, ok := errors.AsType[*host.ExitError](err); ok {
		err = &firewall.ExitError{Name: exit.Name, Code: exit.Code, Stderr: exit.Stderr}
	}
	return out.Stdout, err
}
