package killswitch

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/managemyclaw/hardshell/internal/filelock"
)

// lockWait bounds the wait for a lock. Whoever has one has it for a few writes,
// unless it hangs.
const lockWait = 250 * time.Millisecond

// lockFile takes the lock called name, which the kernel releases when the file
// is closed, also by the end of the process.
func lockFile(ctx context.Context, name string) (*os.File, error) {
	for end, wait := time.Now().Add(lockWait), 100*time.Microsecond; ; wait = min(2*wait, 5*time.Millisecond) {
		f, err := filelock.Try(name)
		if !errors.Is(err, filelock.ErrHeld) || time.Now().After(end) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, context.Cause(ctx))
		case <-time.After(wait):
		}
	}
}
