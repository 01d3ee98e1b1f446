package filelock

import (
	"errors"
	"os"
	"syscall"
)

// Try takes the lock called name, a file that is made if it is not there, and
// does not wait for it: the error wraps [ErrHeld] if another has it, also in this
// process. It is released when the file is closed, at the latest by the end of the
// process. Where there are no locks the error wraps [errors.ErrUnsupported].
func Try(name string) (*os.File, error) {
	p, err := syscall.UTF16PtrFromString(name)
	if err != nil {
		return nil, err
	}
	h, err := syscall.CreateFile(p, syscall.GENERIC_READ|syscall.GENERIC_WRITE, 0, nil, syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	const sharingViolation = syscall.Errno(32)
	if errors.Is(err, sharingViolation) {
		return nil, ErrHeld
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(h), name), nil
}
