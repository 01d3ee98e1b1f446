package egress

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Workload is something that is to be cut off, such as a container. What of
// it is not known may be left out; a Workload that is not running has neither
// PID nor NetNS.
type Workload struct {
	// Name is what reports call it, such as "openclaw".
	Name string

	// PID is a process of it, as the caller sees it, such as State.Pid of a
	// container. Its network namespace, control group and privileges are
	// found by it.
	PID int

	// NetNS is a path to its network namespace, such as /proc/PID/ns/net or
	// the SandboxKey of a container. Empty means that of PID.
	NetNS string

	// Bridges are interfaces of the host that its networks are on, such as
	// docker0 and br-0123456789ab. Those that its interfaces are joined to at
	// the moment are found without.
	Bridges []string

	// HostNetwork says that it shares the network namespace of the host. That
	// is found without as long as the namespace can be looked at.
	HostNetwork bool

	// Cgroup is its control group of version 2, as a path below the root of
	// the hierarchy, such as "system.slice/docker-ID.scope". Empty means that
	// of PID. It matters for a workload in the host's network namespace.
	Cgroup string

	// Beyond is what the caller knows it to reach out by that no rule for
	// packets can close, such as "/run/docker.sock", each with a reason.
	Beyond map[string]string
}

// A Source lists the workloads that there are now. It may be called
// concurrently, and returns soon after ctx is done.
type Source func(ctx context.Context) ([]Workload, error)

// An OpenError says what a Lock could not close. Everything else is closed.
type OpenError struct {
	open   map[string]string
	errs   []error
	causes []error // of what is open
}

// Open returns what is open and why, by object.
func (e *OpenError) Open() map[string]string { return maps.Clone(e.open) }

func (e *OpenError) Error() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(e.open)) {
		parts = append(parts, fmt.Sprintf("%s is open: %s", name, e.open[name]))
	}
	for _, err := range e.errs {
		parts = append(parts, err.Error())
	}
	return "egress: " + strings.Join(parts, "; ")
}

// Unwrap returns what went wrong, if anything did.
func (e *OpenError) Unwrap() []error { return append(e.errs[:len(e.errs):len(e.errs)], e.causes...) }

// openError returns nil where nothing is open and nothing went wrong.
func openError(open map[string]string, causes []error, errs ...error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(open) == 0 && len(errs) == 0 {
		return nil
	}
	return &OpenError{open: open, errs: errs, causes: causes}
}

// note adds a reason to what is known of an object.
func note(open map[string]string, name, why string) {
	if have, ok := open[name]; ok && have != why {
		if !strings.Contains(have, why) {
			open[name] = have + "; " + why
		}
		return
	}
	open[name] = why
}

// DefaultTimeout bounds what a method takes whose context has no deadline.
const DefaultTimeout = 5 * time.Second

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, DefaultTimeout)
}

// errNoSource is that of a Lock or Prober that nobody told what there is.
var errNoSource = errors.New("egress: no Source: nothing is known that could be cut off")
