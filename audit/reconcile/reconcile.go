package reconcile

import (
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// KindOpenClaw is the kind of a record that was copied from OpenClaw's own:
// the call of a tool, of whatever kind it was. Its [trail.Event.ID] is
// [ToolCall.ID].
const KindOpenClaw trail.Kind = "openclaw.tool_call"

// Defaults of a [Reconciler].
const (
	DefaultTolerance = 2 * time.Minute
	DefaultSettle    = 5 * time.Minute
	DefaultLimit     = 1000
)

// A Status is how an action ended, as who reports it has it.
type Status string

// The zero Status is that it is not said, or that the action has not ended.
const (
	StatusOK      Status = "ok"
	StatusFailed  Status = "failed"
	StatusBlocked Status = "blocked" // it was not tried
)

// An Execution is a row of Composio's log: a tool that it has executed. Fields
// that the log does not state are empty, and are then not compared.
type Execution struct {
	ID        string // the log id
	Time      time.Time
	Tool      string
	AccountID string // of the connected account
	UserID    string
	ParentID  string // the log id of the execution that this one is part of
	Status    Status
}

// A ToolCall is the call of a tool in the records of OpenClaw. Package
// harden/openclaw/ledger reads them.
type ToolCall struct {
	ID     string // of the row: no other has it
	Time   time.Time
	Agent  string
	Tool   string // as OpenClaw calls it, such as "exec" or "composio__GMAIL_SEND_EMAIL"
	Digest string // of the arguments, as in [trail.Arguments]; empty if they are not known

	// Status is how it ended. Only what ended well must have come to the
	// gateway: of what failed, was blocked or has no end it cannot be told, and
	// Composio's log tells what was executed.
	Status Status

	// Nested are the calls that COMPOSIO_MULTI_EXECUTE_TOOL contains. The
	// gateway takes them apart, and records each.
	Nested []Nested
}

// A Nested is a call within a [ToolCall].
type Nested struct {
	Tool   string // Composio's slug
	Digest string
}

// Sources are what is compared. Each must have all of the time that
// [Reconciler.Range] returns; more does no harm. An error that one yields ends
// it, and makes the report incomplete.
type Sources struct {
	// Records are those of the trail, in its order. Required.
	Records iter.Seq2[trail.Record, error]

	// Executions are those of Composio, in any order; see [Composio]. Nil
	// means that they are not compared.
	Executions iter.Seq2[Execution, error]

	// ToolCalls are those of OpenClaw, in any order. Nil means that they are
	// not compared.
	ToolCalls iter.Seq2[ToolCall, error]
}

// A Reconciler compares a trail with the records of others, in a window of
// time. A finding is in one of several windows that adjoin, and in no other, so
// that a long time can be looked at piece by piece: what is kept of each call in
// the window takes some 200 bytes.
//
// Since and Until are required. Its fields must not be changed once it is in
// use; its methods may then be called concurrently.
type Reconciler struct {
	// Since and Until bound the window: what happened at Since is in it, what
	// happened at Until is not. A call happened when the trail first speaks of
	// it, an action without a record when the other side says.
	Since, Until time.Time

	// AsOf is when the first of the sources was opened: what happened not
	// before may be missing from any of them. Zero means when Run is called,
	// which is right only for sources that are read as they are iterated.
	AsOf time.Time

	// Tolerance is how far the clocks of the trail and of the other sides may
	// be apart. Zero means DefaultTolerance.
	Tolerance time.Duration

	// Settle is how long an action may take, from when it is begun until all
	// sides show it: the longest call, and the delay of Composio's log. Zero
	// means DefaultSettle.
	Settle time.Duration

	// Users tells, by agent, the user at Composio that the agent's calls are
	// made for. Those of agents that are not in it are not compared.
	Users map[string]string

	// Servers are the names under which the gateway is an MCP server in
	// OpenClaw's configuration, such as "composio". OpenClaw calls a tool of a
	// server SERVER__TOOL. What it says to have called there, and what the
	// gateway has recorded, must be the same. If there are none, calls of the
	// gateway cannot be told from others, and one that the gateway has
	// recorded for somebody else, who has the agent's token, is not seen.
	Servers []string

	// Agents are the gateway's agents that OpenClaw runs. If there are none,
	// all of them are.
	Agents []string

	// Limit bounds Report.Findings, and Report.Open. Zero means DefaultLimit.
	// Report.Counts counts all.
	Limit int
}

// A Kind says what sort of disagreement a [Finding] is.
type Kind string

// Kinds of findings.
const (
	Unrecorded   Kind = "unrecorded"    // an action that the trail has no record of: it went round the gateway
	NotFound     Kind = "not_found"     // a record of an action that the other side does not have
	Unfinished   Kind = "unfinished"    // a call was begun, and what came of it was not recorded
	NoIntent     Kind = "no_intent"     // what came of a call was recorded, and not that it was begun
	Duplicate    Kind = "duplicate"     // two calls or two rows have the same id
	OtherTool    Kind = "other_tool"    // the same id, and another tool
	OtherAccount Kind = "other_account" // the same id, and another connected account
	OtherUser    Kind = "other_user"    // the account of another user was used
	OtherTime    Kind = "other_time"    // the same id, and times that are too far apart
	OtherOutcome Kind = "other_outcome" // the trail says that it was done and the other side that it was not, or the reverse

	OtherArguments Kind = "other_arguments" // the same call, and other arguments
)

// A Side is who has, or lacks, what a [Finding] is about.
type Side string

// Sides.
const (
	SideTrail    Side = "trail"
	SideComposio Side = "composio"
	SideOpenClaw Side = "openclaw"
)

// A Finding is something that the trail and another side do not agree on. What
// is not known, or does not apply, is empty.
type Finding struct {
	Kind Kind
	Side Side // with whom the trail disagrees; SideTrail if with itself
	Time time.Time
	Tool string

	// What to look up.
	Records    []int64 // by number, in the trail
	Agent      string
	LogID      string // at Composio
	ToolCallID string // [ToolCall.ID], at OpenClaw
	ParentID   string // [Execution.ParentID]

	// Recorded and Observed are what the trail and the other side say, where
	// they differ.
	Recorded, Observed string

	// Open says why this cannot be told yet. It is empty in Report.Findings.
	Open string
}

// String returns f as a line for people.
func (f Finding) String() string {
	words := []string{fmt.Sprintf("%s: %s", f.Side, f.Kind)}
	for _, p := range []struct{ name, value string }{
		{"tool", f.Tool},
		{"agent", f.Agent},
		{"log id", f.LogID},
		{"tool call", f.ToolCallID},
		{"within", f.ParentID},
		{"recorded", f.Recorded},
		{"observed", f.Observed},
	} {
		if p.value != "" {
			words = append(words, fmt.Sprintf("%s %q", p.name, p.value))
		}
	}
	if len(f.Records) > 0 {
		words = append(words, fmt.Sprintf("records %d", f.Records))
	}
	if !f.Time.IsZero() {
		words = append(words, "at "+f.Time.UTC().Format(time.RFC3339Nano))
	}
	s := strings.Join(words, " ")
	if f.Open != "" {
		s += ": " + f.Open
	}
	return s
}

// A Report is what came of a comparison.
type Report struct {
	// Complete says that every source was read in full, and had all of the
	// window. If it is false, no finding does not mean that there is none.
	Complete bool

	// Gaps say what could not be read.
	Gaps []error

	// Findings, by time. At most Reconciler.Limit.
	Findings []Finding

	// Open are what may become findings and cannot be told: they are too
	// recent, so that the other side may be about to show them, or what would
	// show them could not be read. At most Reconciler.Limit.
	Open []Finding

	// Counts are how many findings there are of each kind, those beyond the
	// limit included.
	Counts map[Kind]int

	// Undecided counts Open, those beyond the limit included.
	Undecided int

	// What was compared, in the window.
	Calls      int // that the gateway has recorded, denied ones included
	Copies     int // of OpenClaw's calls, in the trail
	Executions int // at Composio
	ToolCalls  int // at OpenClaw
	Joined     int // calls that were found at Composio
	Unstated   int // of these, how many Composio does not state tool and account of
}

// Clean reports whether everything was compared and nothing is wrong or open.
func (r *Report) Clean() bool { return r.Complete && len(r.Counts) == 0 && r.Undecided == 0 }

// ErrWindow reports a [Reconciler] that has no window.
var ErrWindow = errors.New("reconcile: Since and Until must be set, in this order")

// Range returns the time that the sources must have: the window, and as much
// about it as is needed to tell what happens at its edges.
func (r *Reconciler) Range() (since, until time.Time) {
	margin := r.tolerance() + r.settle()
	return r.Since.Add(-margin), r.Until.Add(margin)
}

func (r *Reconciler) tolerance() time.Duration { return or(r.Tolerance, DefaultTolerance) }
func (r *Reconciler) settle() time.Duration    { return or(r.Settle, DefaultSettle) }

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}
