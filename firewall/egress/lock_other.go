//go:build !linux

package egress

import (
	"context"
	"errors"
	"fmt"
)

type plan struct{}

var errNoLinux = fmt.Errorf("egress: only Linux has network namespaces: %w", errors.ErrUnsupported)

// Arm says that this system has none of what a Lock needs.
func (l *Lock) Arm(context.Context) error { return errNoLinux }

// Do says that this system has none of what a Lock needs.
func (l *Lock) Do(context.Context) error { return errNoLinux }

// Refresh says that this system has none of what a Lock needs.
func (l *Lock) Refresh(context.Context) error { return errNoLinux }

// Release says that this system has none of what a Lock needs.
func (l *Lock) Release(context.Context) error { return errNoLinux }

// Close gives up what Arm holds.
func (l *Lock) Close() error { return nil }
