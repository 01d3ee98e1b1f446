package harden

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"

	"github.com/managemyclaw/hardshell/harden/host"
)

// A Reason says why a result is [StatusUnknown].
type Reason string

// Reasons. More may be added; treat an unrecognized one as [ReasonError].
const (
	ReasonError          Reason = "error"           // any other failure to look
	ReasonPrivilege      Reason = "privilege"       // not allowed to look
	ReasonTimeout        Reason = "timeout"         // took too long
	ReasonCanceled       Reason = "canceled"        // the caller stopped the run
	ReasonTool           Reason = "tool"            // a needed program is not installed
	ReasonPanic          Reason = "panic"           // the check crashed
	ReasonEvidence       Reason = "evidence"        // what was seen is weaker than Info.Requires
	ReasonNoSubject      Reason = "no_subject"      // there was nothing of the kind to examine
	ReasonUndecided      Reason = "undecided"       // the check returned no verdict and no error
	ReasonNotImplemented Reason = "not_implemented" // nothing looks at this yet
	ReasonUnsupported    Reason = "unsupported"     // cannot be done on this system
)

// ErrNotImplemented makes a result unknown for [ReasonNotImplemented].
var ErrNotImplemented = errors.New("not implemented")

// ErrNoSubject reports that a [Source] listed nothing. It makes a result
// unknown for [ReasonNoSubject].
var ErrNoSubject = errors.New("nothing to examine")

// ErrStale reports that the machine is no longer in the state for which an
// [Action] was planned. Plan again.
var ErrStale = errors.New("harden: the machine has changed since the plan was made")

// ErrUnfinished reports an [Action] that failed half-way and could not undo
// what it had done. A [Fixer] then says that undoing failed.
var ErrUnfinished = errors.New("the change is neither made nor undone")

var errUndecided = errors.New("the check returned no verdict")

// reasonFor names the reason for an error of a check.
func reasonFor(err error) Reason {
	if _, ok := errors.AsType[*PanicError](err); ok {
		return ReasonPanic
	}
	if _, ok := errors.AsType[*LevelError](err); ok {
		return ReasonEvidence
	}
	for _, r := range []struct {
		is     error
		reason Reason
	}{
		{ErrNotImplemented, ReasonNotImplemented},
		{errUndecided, ReasonUndecided},
		{ErrNoSubject, ReasonNoSubject},
		{fs.ErrPermission, ReasonPrivilege},
		{context.DeadlineExceeded, ReasonTimeout},
		{context.Canceled, ReasonCanceled},
		{exec.ErrNotFound, ReasonTool},
		{errors.ErrUnsupported, ReasonUnsupported},
	} {
		if errors.Is(err, r.is) {
			return r.reason
		}
	}
	return ReasonError
}

// A PrivilegeError reports that the process lacks what a check needs. It is an
// [io/fs.ErrPermission].
type PrivilegeError struct {
	Missing host.Privilege
}

func (e *PrivilegeError) Error() string {
	return fmt.Sprintf("missing privilege: %v (run as root)", e.Missing)
}

// Is reports that a PrivilegeError is an [io/fs.ErrPermission].
func (e *PrivilegeError) Is(target error) bool { return target == fs.ErrPermission }

// A PanicError reports a check that panicked.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// A LevelError reports a pass whose evidence is weaker than the check requires.
type LevelError struct {
	Got, Requires Level
}

func (e *LevelError) Error() string {
	return fmt.Sprintf("the evidence is only %v, and the check requires %v", e.Got, e.Requires)
}
