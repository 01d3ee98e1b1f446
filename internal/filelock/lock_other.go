//go:build !darwin && !dragonfly && !freebsd && !linux && !netbsd && !openbsd && !windows

package filelock

import (
	"errors"
	"fmt"
	"os"
)

// Try takes the lock called name, a file that is made if it is not there, and
// does not wait for it: the error wraps [ErrHeld] if another has it, also in this
// process. It is released when the file is closed, at the latest by the end of the
// process. Where there are no locks the error wraps [errors.ErrUnsupported].
func Try(string) (*os.File, error) {
	return nil, fmt.Errorf("locks: %w", errors.ErrUnsupported)
}
