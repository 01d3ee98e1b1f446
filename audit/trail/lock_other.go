//go:build !darwin && !dragonfly && !freebsd && !linux && !netbsd && !openbsd && !windows

package trail

import (
	"errors"
	"fmt"
	"os"
)

func lockFile(string) (*os.File, error) {
	return nil, fmt.Errorf("locks: %w", errors.ErrUnsupported)
}
