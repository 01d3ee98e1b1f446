//go:build !linux

package egress

import "context"

type (
	nsID      struct{}
	delegates struct{}
)

// Arm says that this system has none of what a Prober needs.
func (p *Prober) Arm(context.Context) error { return errNoLinux }

// Remaining says that this system has none of what a Prober needs.
func (p *Prober) Remaining(context.Context) (map[string]string, error) { return nil, errNoLinux }

// Close gives up what Arm holds.
func (p *Prober) Close() error { return nil }

// ServeHelper says that this system has none of what it needs.
func ServeHelper() error { return errNoLinux }
