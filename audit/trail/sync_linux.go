package trail

import (
	"errors"
	"os"
	"syscall"
)

// syncData makes what was written to f durable, and of its metadata only what
// is needed to read it: see fdatasync(2).
func syncData(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
