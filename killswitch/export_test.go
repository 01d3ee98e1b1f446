package killswitch

import "context"

// SetStep has tests fail, hang or end at each step on disk.
func (s *Switch) SetStep(step func(op, name string) error) {
	s.disk.step = step
	s.fence.disk.step = step
}

// SetStep is as that of a Switch.
func (f *Fence) SetStep(step func(op, name string) error) { f.disk.step = step }

// Release lets tests release a fence without a reset.
var Release = (*Fence).release

// Parsers, for fuzzing.
var (
	ParseKey      = parseKey
	ParseSecret   = parseSecret
	ParseAttempts = parseAttempts
	Encode        = FenceState.encode
)

// Bounds.
const (
	MaxReason = maxReason
	LockWait  = lockWait
)

// Prepare is what arming does to a fence.
func (f *Fence) Prepare(ctx context.Context, agent string) error { return f.prepare(ctx, agent) }
