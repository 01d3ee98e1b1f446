package trail

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// EventVersion is the version of the schema that events are written in. It is
// the member "v" of their JSON. Members are only added to a version: what
// reads it must ignore those that it does not know.
const EventVersion = 1

// A Kind says what sort of thing an [Event] is about. It consists of
// lower-case words, of letters, digits and underscores, joined by dots. The
// kinds below are those of hardshell; others may be used. Those that begin
// with "trail." are written by a [Log] about itself and by nobody else.
type Kind string

// What hardshell records.
const (
	KindToolCall     Kind = "tool.call"     // an agent calls a tool; Decision says whether it may
	KindRemedyPlan   Kind = "remedy.plan"   // a plan was made and shown
	KindRemedyApply  Kind = "remedy.apply"  // an action of a plan is taken
	KindRemedyCommit Kind = "remedy.commit" // a change is made final
	KindRemedyRevert Kind = "remedy.revert" // a change is undone
	KindWaiver       Kind = "audit.waiver"  // a finding was waived
	KindAudit        Kind = "audit.run"     // a machine was audited
	KindKill         Kind = "kill.fire"     // an agent is stopped
	KindDrill        Kind = "kill.drill"    // a stop is rehearsed
	KindReset        Kind = "kill.reset"    // a stopped agent may run again
	KindMessage      Kind = "log.message"   // a line of a log; see [Handler]
)

// A Decision is what was decided about something that an agent asked for.
type Decision string

// The zero Decision means that there was nothing to decide.
const (
	DecisionAllow Decision = "allow"
	DecisionDeny  Decision = "deny"
)

// An Outcome is how something went.
type Outcome string

// The zero Outcome means that nothing was tried, as after [DecisionDeny].
const (
	OutcomeBegin   Outcome = "begin"   // it is about to be tried
	OutcomeOK      Outcome = "ok"      // it was done
	OutcomeError   Outcome = "error"   // it was not done
	OutcomeUnknown Outcome = "unknown" // it was tried, and whether it was done cannot be told
)

// Arguments are what a tool was called with. Make them with
// [Redactor.Arguments]: neither member may hold a secret.
type Arguments struct {
	// Digest tells calls with different arguments apart, where View is cut
	// short: "sha256:" and the hash, in hexadecimal digits, of the arguments
	// after redaction.
	Digest string `json:"digest,omitempty"`

	// View is the arguments as people may see them: JSON.
	View json.RawMessage `json:"view,omitempty"`
}

// IsZero reports whether there are no arguments.
func (a Arguments) IsZero() bool { return a.Digest == "" && len(a.View) == 0 }

// An Event is one thing that happened. It must hold no secret: who fills it in
// redacts first, for what a trail has once hashed it cannot forget. Fields may
// be added in later versions.
type Event struct {
	Kind Kind      `json:"kind"`
	Time time.Time `json:"time"` // when it happened, by the clock of who records it

	Actor string `json:"actor,omitempty"` // who did it, such as "agent/inbox", "operator/ann" or "hardshell"
	Agent string `json:"agent,omitempty"` // the agent that it was done by, for or to, such as "inbox"

	Subject   string    `json:"subject,omitempty"` // the object, such as "container/openclaw"
	Tool      string    `json:"tool,omitempty"`    // such as "GMAIL_SEND_EMAIL"
	Arguments Arguments `json:"arguments,omitzero"`

	Decision Decision `json:"decision,omitempty"`
	Outcome  Outcome  `json:"outcome,omitempty"`
	Message  string   `json:"message,omitempty"` // for people, such as the reason of a denial

	// What the event belongs to here, and what others call it, to join their
	// records with this one.
	ID         string `json:"id,omitempty"`           // such as the id of a check, or the epoch of a kill
	RequestID  string `json:"request_id,omitempty"`   // of the request that it is part of
	SessionID  string `json:"session_id,omitempty"`   // of the agent's session
	RunID      string `json:"run_id,omitempty"`       // of the agent's run in the session
	ToolCallID string `json:"tool_call_id,omitempty"` // of the call, by the model
	AccountID  string `json:"account_id,omitempty"`   // of the connected account at Composio
	LogID      string `json:"log_id,omitempty"`       // of the execution at Composio

	// Attrs are what no other field is for.
	Attrs map[string]string `json:"attrs,omitempty"`
}

// ErrInvalidEvent reports an [Event] that cannot be recorded.
var ErrInvalidEvent = errors.New("trail: invalid event")

// Validate returns an error wrapping [ErrInvalidEvent] unless e can be
// recorded: its kind is well formed, its decision and outcome are among those
// above, its time is one that JSON has, and the view of its arguments is JSON.
func (e *Event) Validate() error {
	switch {
	case !e.Kind.valid():
		return fmt.Errorf("%w: kind %q: want lower-case words joined by dots", ErrInvalidEvent, e.Kind)
	case e.Decision != "" && e.Decision != DecisionAllow && e.Decision != DecisionDeny:
		return fmt.Errorf("%w: %s: decision %q", ErrInvalidEvent, e.Kind, e.Decision)
	case !e.Outcome.valid():
		return fmt.Errorf("%w: %s: outcome %q", ErrInvalidEvent, e.Kind, e.Outcome)
	case e.Time.Year() < 0 || e.Time.Year() > 9999:
		return fmt.Errorf("%w: %s: year %d", ErrInvalidEvent, e.Kind, e.Time.Year())
	case len(e.Arguments.View) > 0 && !json.Valid(e.Arguments.View):
		return fmt.Errorf("%w: %s: the view of its arguments is not JSON", ErrInvalidEvent, e.Kind)
	}
	return nil
}

func (k Kind) valid() bool {
	for word := range strings.SplitSeq(string(k), ".") {
		if word == "" || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			return false
		}
	}
	return true
}

func (o Outcome) valid() bool {
	switch o {
	case "", OutcomeBegin, OutcomeOK, OutcomeError, OutcomeUnknown:
		return true
	}
	return false
}

// wire is an Event as it is written, without its methods.
type wire struct {
	Version int `json:"v"`
	plain
}

type plain Event

// MarshalJSON writes e in the schema of [EventVersion]. The same event gives
// the same bytes.
func (e Event) MarshalJSON() ([]byte, error) {
	return json.Marshal(wire{EventVersion, plain(e)})
}

// UnmarshalJSON reads an event in the schema of [EventVersion]. It ignores
// members that it does not know, and returns an error wrapping
// [ErrInvalidEvent] for another version.
func (e *Event) UnmarshalJSON(data []byte) error {
	var w wire
	if err := json.Unmarshal(data, &w); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidEvent, err)
	}
	if w.Version != EventVersion {
		return fmt.Errorf("%w: version %d: this program reads version %d", ErrInvalidEvent, w.Version, EventVersion)
	}
	*e = Event(w.plain)
	return nil
}
