//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package trail

import (
	"errors"
	"os"
	"syscall"
)

// lockFile opens name and takes its lock, which the kernel releases when the
// file is closed, also by the end of the process.
func lockFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = ErrLocked
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
