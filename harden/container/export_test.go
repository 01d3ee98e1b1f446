package container

import (
	"time"

	"github.com/managemyclaw/hardshell/harden"
)

// Tune sets what only tests set: where containers are listed, and how fast.
func (r *Recreator) Tune(list func(...string) *harden.Source[Container], poll, patience time.Duration) {
	r.list, r.poll, r.patience = list, poll, patience
}
