package trail

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"iter"
)

// WriteJSONLines writes records to w, one a line, as JSON: what
// [Record.MarshalJSON] writes.
func WriteJSONLines(w io.Writer, records iter.Seq2[Record, error]) error {
	return writeLines(w, records, func(r Record) any { return r })
}

// WriteOCSF writes records to w as events of the Open Cybersecurity Schema
// Framework, version 1.6, one a line.
//
// They are of class API Activity (6003): of the classes there it alone has what
// was called (api.operation), by whom (actor), on what (resources) and whether
// it was allowed (action, of the security control profile) at once. An agent's
// call of a tool is such a call, and so is a change that hardshell makes. The
// verb is not known, so activity_id is 99, Other, and names the kind of the
// event. What has no place there is in unmapped. OCSF is for a SIEM to read: it
// cannot be verified, and names the record, by the log's origin and its number,
// that can be.
func WriteOCSF(w io.Writer, origin string, records iter.Seq2[Record, error]) error {
	return writeLines(w, records, func(r Record) any { return ocsfOf(origin, r) })
}

func writeLines(w io.Writer, records iter.Seq2[Record, error], line func(Record) any) error {
	b := bufio.NewWriter(w)
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	for r, err := range records {
		if err != nil {
			_ = b.Flush() // what was read so far
			return err
		}
		if err := enc.Encode(line(r)); err != nil {
			return fmt.Errorf("trail: export record %d: %w", r.Seq, err)
		}
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("trail: export: %w", err)
	}
	return nil
}

type ocsf struct {
	ClassUID     int            `json:"class_uid"`
	ClassName    string         `json:"class_name"`
	CategoryUID  int            `json:"category_uid"`
	CategoryName string         `json:"category_name"`
	ActivityID   int            `json:"activity_id"`
	ActivityName string         `json:"activity_name"`
	TypeUID      int            `json:"type_uid"`
	Time         int64          `json:"time"` // milliseconds since 1970
	SeverityID   int            `json:"severity_id"`
	Severity     string         `json:"severity"`
	StatusID     int            `json:"status_id"`
	Status       string         `json:"status"`
	Message      string         `json:"message,omitempty"`
	ActionID     int            `json:"action_id,omitempty"`
	Action       string         `json:"action,omitempty"`
	Metadata     ocsfMetadata   `json:"metadata"`
	Actor        ocsfActor      `json:"actor"`
	API          ocsfAPI        `json:"api"`
	SrcEndpoint  ocsfName       `json:"src_endpoint"`
	Resources    []ocsfName     `json:"resources,omitempty"`
	Unmapped     map[string]any `json:"unmapped,omitempty"`
}

type ocsfMetadata struct {
	Version        string      `json:"version"`
	UID            string      `json:"uid"`
	Sequence       int64       `json:"sequence"`
	CorrelationUID string      `json:"correlation_uid,omitempty"`
	EventCode      string      `json:"event_code"`
	LogName        string      `json:"log_name,omitempty"`
	Profiles       []string    `json:"profiles,omitempty"`
	Product        ocsfProduct `json:"product"`
}

type ocsfProduct struct {
	Name       string `json:"name"`
	VendorName string `json:"vendor_name"`
}

type ocsfActor struct {
	AppName string    `json:"app_name,omitempty"`
	User    *ocsfName `json:"user,omitempty"`
	Session *ocsfUID  `json:"session,omitempty"`
}

type ocsfName struct {
	Name string `json:"name,omitempty"`
}

type ocsfUID struct {
	UID string `json:"uid"`
}

type ocsfAPI struct {
	Operation string   `json:"operation"`
	Request   *ocsfUID `json:"request,omitempty"`
}

func ocsfOf(origin string, r Record) ocsf {
	e := &r.Event
	o := ocsf{
		ClassUID: 6003, ClassName: "API Activity", CategoryUID: 6, CategoryName: "Application Activity",
		ActivityID: 99, ActivityName: string(e.Kind), TypeUID: 600399,
		Time: e.Time.UnixMilli(), SeverityID: 1, Severity: "Informational",
		Message: e.Message,
		Metadata: ocsfMetadata{
			Version: "1.6.0", UID: fmt.Sprintf("%s#%d", origin, r.Seq), Sequence: r.Seq, CorrelationUID: e.RequestID,
			EventCode: string(e.Kind), LogName: origin, Product: ocsfProduct{"hardshell", "ManageMyClaw"},
		},
		Actor:       ocsfActor{AppName: e.Agent},
		API:         ocsfAPI{Operation: string(e.Kind)},
		SrcEndpoint: ocsfName{e.Agent},
	}
	if o.SrcEndpoint.Name == "" {
		o.SrcEndpoint.Name = "hardshell"
	}
	switch e.Outcome {
	case OutcomeOK:
		o.StatusID, o.Status = 1, "Success"
	case OutcomeError:
		o.StatusID, o.Status = 2, "Failure"
	default:
		o.StatusID, o.Status = 0, "Unknown"
	}
	switch e.Decision {
	case DecisionAllow:
		o.ActionID, o.Action = 1, "Allowed"
	case DecisionDeny:
		o.ActionID, o.Action, o.StatusID, o.Status = 2, "Denied", 2, "Failure"
		o.SeverityID, o.Severity = 3, "Medium"
	}
	if o.ActionID != 0 {
		o.Metadata.Profiles = []string{"security_control"}
	}
	if e.Tool != "" {
		o.API.Operation = e.Tool
	}
	if e.Actor != "" {
		o.Actor.User = &ocsfName{e.Actor}
	}
	if e.SessionID != "" {
		o.Actor.Session = &ocsfUID{e.SessionID}
	}
	if e.RequestID != "" {
		o.API.Request = &ocsfUID{e.RequestID}
	}
	if e.Subject != "" {
		o.Resources = []ocsfName{{e.Subject}}
	}
	o.Unmapped = unmapped(e)
	return o
}

// unmapped returns what OCSF has no place for, by the names in [Event].
func unmapped(e *Event) map[string]any {
	m := make(map[string]any)
	for name, v := range map[string]string{
		"id": e.ID, "run_id": e.RunID, "tool_call_id": e.ToolCallID, "account_id": e.AccountID, "log_id": e.LogID, "outcome": string(e.Outcome),
	} {
		if v != "" {
			m[name] = v
		}
	}
	if !e.Arguments.IsZero() {
		m["arguments"] = e.Arguments
	}
	if len(e.Attrs) > 0 {
		m["attrs"] = e.Attrs
	}
	return m
}
