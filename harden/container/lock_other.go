//go:build !unix

package container

import (
	"errors"
	"fmt"
	"os"
)

func lockFile(name string) (*os.File, error) {
	return nil, fmt.Errorf("lock %s: %w", name, errors.ErrUnsupported)
}

func unlockFile(f *os.File) error { return f.Close() }
