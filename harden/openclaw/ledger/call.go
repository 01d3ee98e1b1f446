package ledger

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/managemyclaw/hardshell/audit/reconcile"
	"github.com/managemyclaw/hardshell/audit/trail"
)

// A Status is how a call ended, in OpenClaw's words.
type Status string

// The zero Status is that it has not ended, as far as OpenClaw knows.
const (
	StatusSucceeded Status = "succeeded"
	StatusFailed    Status = "failed"
	StatusBlocked   Status = "blocked" // it was not tried
	StatusCancelled Status = "cancelled"
	StatusTimedOut  Status = "timed_out"
	StatusUnknown   Status = "unknown"
)

func statusOf(s string) Status {
	switch st := Status(s); st {
	case StatusSucceeded, StatusFailed, StatusBlocked, StatusCancelled, StatusTimedOut:
		return st
	}
	return StatusUnknown
}

// A ToolCall is a call of a tool by an agent. What comes from the agent is cut
// where it is too long for a record.
type ToolCall struct {
	// ID is that of no other call, and the same each time it is read: a hash
	// of where it was made, and of the id that the model gave it.
	ID string

	Time      time.Time // when it began
	Ended     time.Time // zero if it has not
	Agent     string
	SessionID string
	RunID     string
	CallID    string // by the model; empty if only the activity log has the call
	Tool      string
	Status    Status

	// Arguments are without secrets. OpenClaw's transcripts mask some
	// themselves: then Masked is true, and the digest is of what is left. There
	// are none if the transcript is gone.
	Arguments trail.Arguments
	Masked    bool

	// InTranscript and InActivity say which of OpenClaw's records have the
	// call. Calls that are only in the activity log were made in a transcript
	// that was removed, or archived in a file; those that are only in a
	// transcript are older than the activity log, or it was switched off.
	InTranscript, InActivity bool

	nested []reconcile.Nested
}

// Bounds of what goes into a record.
const (
	maxText = 200
	maxView = 64 << 10
)

// shorten cuts what an agent may have made long.
func shorten(s string) string {
	if len(s) <= maxText {
		return strings.ToValidUTF8(s, "\ufffd")
	}
	cut := maxText
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return strings.ToValidUTF8(s[:cut], "\ufffd") + "…"
}

// identity returns the ID of the n-th call at a place.
func identity(agent string, at place, n int) string {
	h := sha256.New()
	for _, s := range []string{agent, at.session, at.run, at.hash} {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	fmt.Fprintf(h, "#%d", n)
	return "oc_" + hex.EncodeToString(h.Sum(nil)[:16])
}

// Event returns the event that records c: of kind [reconcile.KindOpenClaw],
// with an outcome of begin if the call has not ended.
func (c *ToolCall) Event(r *trail.Redactor) trail.Event {
	if r == nil {
		r = new(trail.Redactor)
	}
	e := r.Event(trail.Event{
		Kind: reconcile.KindOpenClaw, Time: c.Time, Actor: "agent/" + c.Agent, Agent: c.Agent, Subject: "tool/" + c.Tool, Tool: c.Tool,
		Arguments: c.Arguments, SessionID: c.SessionID, RunID: c.RunID, ToolCallID: c.CallID,
		Attrs: map[string]string{"status": cmp.Or(string(c.Status), "started")},
	})
	e.ID = c.ID
	if !c.Ended.IsZero() {
		e.Attrs["ended"] = c.Ended.UTC().Format(time.RFC3339Nano)
	}
	switch {
	case c.InTranscript && c.InActivity:
		e.Attrs["source"] = "transcript, activity"
	case c.InTranscript:
		e.Attrs["source"] = "transcript"
	default:
		e.Attrs["source"] = "activity"
	}
	if c.Masked {
		e.Attrs["masked"] = "by OpenClaw"
	}
	switch c.Status {
	case "":
		e.Outcome = trail.OutcomeBegin
	case StatusSucceeded:
		e.Outcome = trail.OutcomeOK
	case StatusFailed:
		e.Outcome = trail.OutcomeError
	case StatusBlocked:
		e.Decision = trail.DecisionDeny
	default:
		e.Outcome = trail.OutcomeUnknown
	}
	return e
}

// Reconcile returns c as package reconcile compares it.
func (c *ToolCall) Reconcile() reconcile.ToolCall {
	t := reconcile.ToolCall{ID: c.ID, Time: c.Time, Agent: c.Agent, Tool: c.Tool, Nested: c.nested}
	if !c.Masked {
		t.Digest = c.Arguments.Digest
	}
	switch c.Status {
	case StatusSucceeded:
		t.Status = reconcile.StatusOK
	case StatusFailed:
		t.Status = reconcile.StatusFailed
	case StatusBlocked:
		t.Status = reconcile.StatusBlocked
	}
	return t
}
