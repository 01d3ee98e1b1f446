//go:build !linux

package halt

import (
	"errors"
	"fmt"
)

func supported() error {
	return fmt.Errorf("halt: only Linux has cgroups: run this on the engine's machine: %w", errors.ErrUnsupported)
}
