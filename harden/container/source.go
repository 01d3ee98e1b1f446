package container

import (
	"context"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// NewSource returns the containers that e has under the given names, or those
// that run if there are none, with what the kernel shows of each on the
// machine of the view.
func NewSource(e Engine, names ...string) *harden.Source[Container] {
	return &harden.Source[Container]{
		Name:    "containers",
		List:    func(ctx context.Context, v *host.View) ([]Container, error) { return collect(ctx, v, e, names) },
		Subject: func(c Container) string { return c.Subject() },
	}
}

func collect(ctx context.Context, v *host.View, e Engine, names []string) ([]Container, error) {
	return nil, harden.ErrNotImplemented
}
