//go:build !linux

package iptables

import (
	"context"
	"errors"
	"fmt"

	"github.com/managemyclaw/hardshell/firewall"
)

var errNoLinux = fmt.Errorf("iptables: only Linux has it: %w", errors.ErrUnsupported)

// Apply implements [firewall.Backend].
func (b *Backend) Apply(context.Context, firewall.Policy) error { return errNoLinux }

// Remove implements [firewall.Backend].
func (b *Backend) Remove(context.Context) error { return errNoLinux }

// Drift implements [firewall.Backend].
func (b *Backend) Drift(context.Context, firewall.Policy) ([]string, error) { return nil, errNoLinux }
