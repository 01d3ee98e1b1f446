package halt

import (
	"errors"

	"github.com/managemyclaw/hardshell/harden/container"
)

// notThere reports an error that says that a container does not exist, so that
// nothing can start it.
func notThere(err error) bool { return errors.Is(err, container.ErrNoContainer) }
