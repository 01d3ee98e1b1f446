package killswitch

import "context"

// An Actuator takes one step towards stopping a target, such as to drop the
// packets of a container. Package killswitchtest checks that one keeps these
// rules.
type Actuator interface {
	// Name returns what receipts call it: lower-case words joined by dots, such
	// as "egress.nftables". It is always the same.
	Name() string

	// Do takes the step. Nil says that it was taken, and never that the target
	// is off: that is for an [Observer] to say. An error with a method
	// Open() map[string]string names what stays open and why, by object; the
	// receipt shows it.
	//
	// Do is idempotent: it may be called again, after it succeeded, failed or
	// was cut off, in this process or another. It may be called concurrently,
	// and before Arm. It returns soon after ctx is done.
	Do(ctx context.Context) error
}

// An Observer finds out whether a target is off. It shares nothing with the
// actuators of the target: no handle, connection, cache or way of looking.
type Observer interface {
	// Name returns what receipts call it, as [Actuator.Name] does.
	Name() string

	// Remaining looks anew, and returns what is not off, by object, with its
	// status in words. Nothing and no error: all of it is off. An error means
	// that there may be more, because not everything could be looked at; what
	// is returned beside it was seen. It changes nothing, may be called
	// concurrently and before Arm, and returns soon after ctx is done.
	Remaining(ctx context.Context) (map[string]string, error)
}

// An Armer is an [Actuator] or an [Observer] that can do its slow work
// beforehand.
type Armer interface {
	// Arm prepares, or brings up to date what it prepared before: handles, rule
	// sets, connections, lists of objects. It does nothing to the agent. An
	// error says what will be missing. It may be called again at any time, and
	// concurrently with everything else.
	Arm(ctx context.Context) error
}

// A Lister is an [Observer] that can name what it observes.
type Lister interface {
	// Objects returns the objects of the target, off or not, such as accounts
	// or containers, as far as they have been seen since the Observer was made.
	// It returns at once, and asks nobody.
	Objects() []string
}

// A Releaser is an [Actuator] whose step would keep an agent from running once
// it has been released, such as a rule that drops its packets.
type Releaser interface {
	// Release undoes the step. It starts nothing: what would resume by it, such
	// as a process that is frozen and alive, it leaves as it is, and says so by
	// an error. It is idempotent.
	Release(ctx context.Context) error
}
