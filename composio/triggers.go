package composio

import (
	"context"
	"iter"
	"net/http"
	"time"
)

// A Trigger acts when something happens in an account.
type Trigger struct {
	ID        string
	Name      string // such as "GMAIL_NEW_GMAIL_MESSAGE"
	AccountID string
	UserID    string
	Disabled  bool
	UpdatedAt time.Time
}

type triggerWire struct {
	ID         string  `json:"id"`
	Name       string  `json:"trigger_name"`
	AccountID  string  `json:"connected_account_id"`
	UserID     string  `json:"user_id"`
	DisabledAt *string `json:"disabled_at"`
	UpdatedAt  string  `json:"updated_at"`
}

func (w triggerWire) trigger() Trigger {
	return Trigger{
		ID: w.ID, Name: w.Name, AccountID: w.AccountID, UserID: w.UserID,
		Disabled: w.DisabledAt != nil && *w.DisabledAt != "", UpdatedAt: moment(w.UpdatedAt),
	}
}

// A TriggerFilter selects triggers. A nil list does not filter; an empty one
// that is not nil is refused.
type TriggerFilter struct {
	UserIDs    []string
	AccountIDs []string
	Disabled   bool // also those that are disabled
}

// Triggers lists the triggers that f selects.
func (c *Client) Triggers(ctx context.Context, f TriggerFilter) iter.Seq2[Trigger, error] {
	q := newFilter(50).in("user_ids", f.UserIDs).in("connected_account_ids", f.AccountIDs)
	if q.err != nil {
		return fail[Trigger](q.err)
	}
	if f.Disabled {
		q.query.Set("show_disabled", "true")
	}
	return listing[triggerWire, Trigger]{
		what: "triggers",
		fetch: func(ctx context.Context, cursor string) (p page[triggerWire], err error) {
			_, err = c.do(ctx, request{
				op: "list triggers", method: http.MethodGet,
				path: []string{"trigger_instances", "active"}, query: q.with("cursor", cursor), repeat: always,
			}, &p)
			return p, err
		},
		row: triggerWire.trigger,
		id:  func(t Trigger) string { return t.ID },
		check: func(t Trigger) error {
			if err := among("trigger", t.ID, "user", t.UserID, f.UserIDs); err != nil {
				return err
			}
			return among("trigger", t.ID, "account", t.AccountID, f.AccountIDs)
		},
	}.all(ctx)
}

// SetTriggerEnabled lets a trigger act, or not.
func (c *Client) SetTriggerEnabled(ctx context.Context, id string, enabled bool) error {
	if err := checkID("trigger", id); err != nil {
		return err
	}
	status := "enable"
	if !enabled {
		status = "disable"
	}
	_, err := c.do(ctx, request{
		op: status + " trigger " + id, method: http.MethodPatch, path: []string{"trigger_instances", "manage", id},
		body: map[string]string{"status": status}, repeat: always,
	}, nil)
	return err
}

// DeleteTrigger deletes a trigger.
func (c *Client) DeleteTrigger(ctx context.Context, id string) error {
	return c.remove(ctx, "trigger", id, "trigger_instances", "manage", id)
}
