//go:build !darwin && !dragonfly && !freebsd && !linux && !netbsd && !openbsd && !windows

package killswitch

import (
	"errors"
	"fmt"
	"os"
)

func tryLock(string) (*os.File, error) {
	return nil, fmt.Errorf("locks: %w", errors.ErrUnsupported)
}
