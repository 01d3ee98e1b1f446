package composio

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"time"
)

// An Execution is a row of Composio's log of executed tools. The log can be
// changed by whoever runs it, and is no proof by itself; join it with your own
// by ID.
type Execution struct {
	ID        string
	Time      time.Time
	Kind      string
	Succeeded bool
	ParentID  string // of the call that contained this one
	Metadata  Data   // tool, toolkit, account and user, as the API has them
	Payload   Data   // what was sent and answered; only from [Client.Execution]
}

type executionWire struct {
	ID        string `json:"id"`
	Timestamp string `json:"timestamp"`
	Type      string `json:"type"`
	Status    string `json:"status"`
	Metadata  Data   `json:"metadata"`
	Data      Data   `json:"data"`
	Parent    *struct {
		LogID string `json:"log_id"`
	} `json:"parent"`
}

func (w executionWire) execution() Execution {
	e := Execution{ID: w.ID, Time: moment(w.Timestamp), Kind: w.Type, Succeeded: w.Status == "success", Metadata: w.Metadata, Payload: w.Data}
	if w.Parent != nil {
		e.ParentID = w.Parent.LogID
	}
	return e
}

// A LogFilter selects executions. Empty fields do not filter.
type LogFilter struct {
	From, To  time.Time // both or neither
	Tool      string
	AccountID string
	UserID    string
	LogID     string
}

// Executions lists executions. The API does not count them, so that a row that
// is left out cannot be noticed here; and rows are not held against f beyond
// their time, since the API does not say what they must contain.
func (c *Client) Executions(ctx context.Context, f LogFilter) iter.Seq2[Execution, error] {
	type term struct {
		Field    string `json:"field"`
		Operator string `json:"operator"`
		Value    string `json:"value"`
	}
	type window struct {
		From int64 `json:"from"`
		To   int64 `json:"to"`
	}
	type query struct {
		Limit   int     `json:"limit"`
		Cursor  string  `json:"cursor,omitempty"`
		Filters []term  `json:"filters,omitempty"`
		Range   *window `json:"time_range,omitempty"`
	}
	q := query{Limit: 100}
	for _, t := range []term{{"tool_slug", "==", f.Tool}, {"connected_account_id", "==", f.AccountID}, {"user_id", "==", f.UserID}, {"log_id", "==", f.LogID}} {
		if t.Value != "" {
			q.Filters = append(q.Filters, t)
		}
	}
	if f.From.IsZero() != f.To.IsZero() || f.To.Before(f.From) {
		return fail[Execution](errors.New("composio: list executions: From and To must both be set, in this order, or neither"))
	}
	if !f.From.IsZero() {
		q.Range = &window{f.From.UnixMilli(), f.To.UnixMilli()}
	}
	return listing[executionWire, Execution]{
		what: "executions", paging: uncounted,
		fetch: func(ctx context.Context, cursor string) (page[executionWire], error) {
			q := q
			q.Cursor = cursor
			var w struct {
				Logs []executionWire `json:"logs"`
				Next *string         `json:"next_cursor"`
			}
			_, err := c.do(ctx, request{op: "list executions", method: http.MethodPost, path: []string{"logs", "tool_execution"}, body: q, repeat: always}, &w)
			return page[executionWire]{Items: w.Logs, NextCursor: w.Next}, err
		},
		row: executionWire.execution,
		id:  func(e Execution) string { return e.ID },
		check: func(e Execution) error {
			if !f.From.IsZero() && !e.Time.IsZero() && (e.Time.Before(f.From.Truncate(time.Millisecond)) || e.Time.After(f.To)) {
				return fmt.Errorf("%w: execution %q is of %v", ErrForeignRow, e.ID, e.Time)
			}
			return nil
		},
	}.all(ctx)
}

// Execution returns one execution with its payload.
func (c *Client) Execution(ctx context.Context, id string) (Execution, error) {
	if err := checkID("execution", id); err != nil {
		return Execution{}, err
	}
	var w executionWire
	r := request{op: "get execution " + id, method: http.MethodGet, path: []string{"logs", "tool_execution", id}, repeat: always}
	if _, err := c.do(ctx, r, &w); err != nil {
		return Execution{}, err
	}
	if w.ID != id {
		return Execution{}, fmt.Errorf("composio: %s: %w: it is about another execution", r.op, ErrAnswer)
	}
	return w.execution(), nil
}
