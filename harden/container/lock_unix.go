//go:build unix

package container

import (
	"errors"
	"os"
	"syscall"
)

// lockFile takes a lock that ends with the process, or returns errLocked.
func lockFile(name string) (*os.File, error) {
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, errLocked
			}
			return nil, &os.PathError{Op: "flock", Path: name, Err: err}
		}
		// The holder before us may have removed the file meanwhile.
		here, err := f.Stat()
		if err == nil {
			if there, err := os.Stat(name); err == nil && os.SameFile(here, there) {
				return f, nil
			}
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
}

// unlockFile removes the file and gives the lock up, in this order.
func unlockFile(f *os.File) error {
	return errors.Join(os.Remove(f.Name()), f.Close())
}
