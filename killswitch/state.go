package killswitch

import (
	"errors"
	"fmt"
)

// A State says whether something has been stopped. An observer decides it, and
// nothing else.
type State uint8

const (
	// Unconfirmed says that nobody could tell whether it is off. The zero
	// State.
	Unconfirmed State = iota

	// Confirmed says that every observer of the target looked at all of it,
	// after everything that was tried, and found it off.
	Confirmed

	// Failed says that an observer saw that it is not off.
	Failed
)

var stateNames = [...]string{Unconfirmed: "unconfirmed", Confirmed: "confirmed", Failed: "failed"}

// String returns the state in lower case.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", s)
}

// MarshalText returns the state in lower case.
func (s State) MarshalText() ([]byte, error) {
	if int(s) < len(stateNames) {
		return []byte(stateNames[s]), nil
	}
	return nil, fmt.Errorf("killswitch: no state %d", s)
}

// UnmarshalText reads what MarshalText wrote.
func (s *State) UnmarshalText(text []byte) error {
	for i, name := range stateNames {
		if name == string(text) {
			*s = State(i)
			return nil
		}
	}
	return fmt.Errorf("killswitch: no state %q", bounded(string(text), 40))
}

// What can be wrong with a kill, a fence or a reset.
var (
	// ErrEngaged reports an agent that is stopped, or of which nobody can
	// tell that it is not.
	ErrEngaged = errors.New("killswitch: the fence is engaged")

	// ErrNotEngaged reports an agent that is not stopped.
	ErrNotEngaged = errors.New("killswitch: the fence is not engaged")

	// ErrEpoch reports the epoch of another kill than the one at hand.
	ErrEpoch = errors.New("killswitch: the epoch is that of another kill")

	// ErrUnconfirmed reports a kill after which a target is not [Confirmed].
	ErrUnconfirmed = errors.New("killswitch: not confirmed off")

	// ErrNotDurable reports something that could not be written down, so that
	// it is forgotten when the process ends.
	ErrNotDurable = errors.New("killswitch: not durable")

	// ErrTrail reports something that could not be recorded in the trail.
	ErrTrail = errors.New("killswitch: not in the trail")

	// ErrAgent reports what is not the name of an agent.
	ErrAgent = errors.New("killswitch: not the name of an agent")
)
