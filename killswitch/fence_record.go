package killswitch

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A FenceState is what a [Fence] holds of an agent. The zero FenceState is
// engaged.
type FenceState struct {
	Agent string `json:"agent"`

	// Epoch counts the kills of the agent: it is the same from a kill to its
	// reset, and larger for the next, also over restarts. Zero means none, or
	// that the record is damaged.
	Epoch uint64 `json:"epoch"`

	// Released says that the agent may run.
	Released bool `json:"released"`

	// Reason is why the agent was stopped, and Time when; of a record that is
	// released, when that was.
	Reason string    `json:"reason"`
	Time   time.Time `json:"time"`
}

// Engaged reports whether the agent is stopped.
func (s FenceState) Engaged() bool { return !s.Released }

const fenceSchema = "hardshell.fence/v1"

// maxFence is the size of the largest record, in bytes.
const maxFence = 64 << 10

// ErrDamaged reports a record of a fence that is not as it was written. It holds.
var ErrDamaged = errors.New("killswitch: the record of the fence is damaged")

// encode writes the record of a state: the schema, the SHA-256 hash of what
// follows, and the state as JSON, on a line.
func (s FenceState) encode() ([]byte, error) {
	s.Time = s.Time.UTC().Round(0)
	body, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("killswitch: fence of %s: %w", s.Agent, err)
	}
	sum := sha256.Sum256(body)
	return fmt.Appendf(nil, "%s %s %s\n", fenceSchema, hex.EncodeToString(sum[:]), body), nil
}

// ParseFenceState reads the record of an agent: the file of its name in the
// directory of a [Fence], which may be that of another machine. Of what is not
// exactly what a Fence writes, nothing is believed: the error then wraps
// [ErrDamaged], and the state is engaged. Whose record it is, is for the caller to
// compare.
func ParseFenceState(data []byte) (FenceState, error) {
	schema, rest, _ := strings.Cut(string(data), " ")
	_, body, ok := strings.Cut(rest, " ")
	if !ok || schema != fenceSchema || len(data) > maxFence {
		return FenceState{}, ErrDamaged
	}
	var s FenceState
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		return FenceState{}, ErrDamaged
	}
	if again, err := s.encode(); err != nil || string(again) != string(data) || !isAgent(s.Agent) {
		return FenceState{}, ErrDamaged
	}
	return s, nil
}
