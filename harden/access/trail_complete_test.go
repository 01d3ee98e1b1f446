package access_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/access"
	"github.com/managemyclaw/hardshell/harden/host"
)

// executed is Composio's log.
type executed struct {
	rows  []composio.Execution
	err   error
	asked composio.LogFilter
}

func (e *executed) Executions(_ context.Context, f composio.LogFilter) iter.Seq2[composio.Execution, error] {
	e.asked = f
	return func(yield func(composio.Execution, error) bool) {
		for _, row := range e.rows {
			if row.Time.Before(f.From) || row.Time.After(f.To) {
				continue
			}
			if !yield(row, nil) {
				return
			}
		}
		if e.err != nil {
			yield(composio.Execution{}, e.err)
		}
	}
}

// run returns the execution of a tool, as Composio has it.
func executionOf(id, tool string, at time.Time) composio.Execution {
	meta, err := composio.NewData(map[string]string{"tool_slug": tool})
	if err != nil {
		panic(err)
	}
	return composio.Execution{ID: id, Time: at, Kind: "tool.execute", Succeeded: true, Metadata: meta}
}

// calls makes the log anew, with the calls of an hour, as a gateway records them,
// and returns what Composio has of them.
func (d *diary) calls(t *testing.T, ages ...time.Duration) *executed {
	t.Helper()
	c := new(executed)
	now := time.Now()
	d.write(t, 2*len(ages), 0, func(i int, e *trail.Event) {
		n := i / 2
		e.Time, e.ID, e.RequestID, e.LogID = now.Add(-ages[n]), fmt.Sprintf("r%d.0", n), fmt.Sprintf("r%d", n), ""
		e.Outcome = trail.OutcomeBegin
		if i%2 == 1 {
			e.Outcome, e.LogID = trail.OutcomeOK, fmt.Sprintf("log_%d", n)
			c.rows = append(c.rows, executionOf(e.LogID, e.Tool, e.Time))
		}
	})
	return c
}

// What Composio has executed and nobody has recorded went round the gateway.
func TestCompleteTrail(t *testing.T) {
	ages := []time.Duration{time.Hour, 50 * time.Minute, 40 * time.Minute, time.Minute}
	for name, test := range map[string]struct {
		change func(*executed)
		judge  func(*testing.T, harden.Result)
	}{
		"agrees": {func(*executed) {}, func(t *testing.T, r harden.Result) { pass(t, r, harden.LevelInspected) }},
		"an execution without a record": {
			func(c *executed) {
				c.rows = append(c.rows, executionOf("log_x", "GMAIL_DELETE_MESSAGE", time.Now().Add(-30*time.Minute)))
			},
			func(t *testing.T, r harden.Result) {
				finding(t, r, trailComplete+".unrecorded")
				if r.Findings[0].Severity != harden.SeverityCritical || !strings.Contains(r.Findings[0].Message, "GMAIL_DELETE_MESSAGE") {
					t.Errorf("%+v", r.Findings[0])
				}
			},
		},
		"one that is so recent that it may come": {
			func(c *executed) { c.rows = append(c.rows, executionOf("log_x", "GMAIL_DELETE_MESSAGE", time.Now())) },
			func(t *testing.T, r harden.Result) { unknown(t, r, "audit again in a few minutes") },
		},
		"from before there was a trail": {
			func(c *executed) {
				c.rows = append(c.rows, executionOf("log_x", "GMAIL_DELETE_MESSAGE", time.Now().Add(-3*time.Hour)))
			},
			func(t *testing.T, r harden.Result) { pass(t, r, harden.LevelInspected) },
		},
		"a record without an execution": {
			func(c *executed) { c.rows = c.rows[1:] },
			func(t *testing.T, r harden.Result) { finding(t, r, trailComplete+".not_found") },
		},
		"a recent record that Composio does not show yet": {
			func(c *executed) { c.rows = c.rows[:3] },
			func(t *testing.T, r harden.Result) { pass(t, r, harden.LevelInspected) },
		},
		"another tool": {
			func(c *executed) { c.rows[1] = executionOf("log_1", "GMAIL_DELETE_MESSAGE", c.rows[1].Time) },
			func(t *testing.T, r harden.Result) { finding(t, r, trailComplete+".other_tool") },
		},
		"the list ends early": {
			func(c *executed) { c.err = errors.New("the connection broke") },
			func(t *testing.T, r harden.Result) { unknown(t, r, "the connection broke") },
		},
		"the list ends early, and yet": {
			func(c *executed) {
				c.rows = append(c.rows, executionOf("log_x", "GMAIL_DELETE_MESSAGE", time.Now().Add(-30*time.Minute)))
				c.err = errors.New("the connection broke")
			},
			func(t *testing.T, r harden.Result) { finding(t, r, trailComplete+".unrecorded") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDiary(t, 1, 1)
			rows := d.calls(t, ages...)
			test.change(rows)
			c := d.config()
			c.Executions = rows
			test.judge(t, evaluate(t, c, &host.Local().View, trailComplete))
			if rows.asked.From.IsZero() || time.Since(rows.asked.To) < -time.Hour {
				t.Errorf("asked for %+v", rows.asked)
			}
		})
	}
	d := newDiary(t, 1, 1)
	unknown(t, d.evaluate(t, trailComplete), "Composio")
	d.write(t, 2, 0, func(_ int, e *trail.Event) { e.Time = time.Now().Add(time.Hour) })
	c := d.config()
	c.Executions = new(executed)
	unknown(t, evaluate(t, c, &host.Local().View, trailComplete), "yet to come")
}

// A window is looked at as far back as it says.
func TestCompletenessWindow(t *testing.T) {
	d := newDiary(t, 1, 1)
	rows := d.calls(t, 3*time.Hour, 2*time.Hour, time.Hour)
	rows.rows = rows.rows[1:] // the first is known to no one else
	c := d.config()
	c.Executions = rows
	finding(t, evaluate(t, c, &host.Local().View, trailComplete), trailComplete+".not_found")
	c.Window = 150 * time.Minute
	pass(t, evaluate(t, c, &host.Local().View, trailComplete), harden.LevelInspected)
}

// A gateway that says that it has refused, and does not record it there, is not
// the one that writes to the log.
func TestGatewayRecordsElsewhere(t *testing.T) {
	d := newDiary(t, 3, 3)
	log, err := trail.Open(d.trail.Dir, d.key, trail.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	n := 0
	var answer func() (status int, id string)
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, id := answer()
		if r.Method != http.MethodGet || r.Header.Get("X-Api-Key") == "" || strings.Contains(r.URL.Path, "tools/execute") {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"request_id": id}})
	}))
	t.Cleanup(gateway.Close)
	c := d.config()
	c.Gateway = access.Gateway{URL: gateway.URL}
	id := func() string { n++; return fmt.Sprintf("request-%d", n) }
	for name, test := range map[string]struct {
		answer func() (int, string)
		judge  func(*testing.T, harden.Result)
	}{
		"it is recorded": {func() (int, string) {
			e := trail.Event{Kind: "gateway.request", RequestID: id(), Decision: trail.DecisionDeny}
			if err := log.Record(t.Context(), e); err != nil {
				t.Error(err)
			}
			return http.StatusUnauthorized, e.RequestID
		}, func(t *testing.T, r harden.Result) { pass(t, r, harden.LevelProbed) }},
		"it is not":              {func() (int, string) { return http.StatusUnauthorized, id() }, func(t *testing.T, r harden.Result) { finding(t, r, trailFresh+".unrecorded") }},
		"an old number is given": {func() (int, string) { return http.StatusUnauthorized, "r1" }, func(t *testing.T, r harden.Result) { unknown(t, r, "does not number the request") }},
		"it lets it through":     {func() (int, string) { return http.StatusOK, id() }, func(t *testing.T, r harden.Result) { unknown(t, r, "no gateway of this module's") }},
		"it has no number":       {func() (int, string) { return http.StatusForbidden, "" }, func(t *testing.T, r harden.Result) { unknown(t, r, "does not number the request") }},
	} {
		t.Run(name, func(t *testing.T) {
			answer = test.answer
			test.judge(t, evaluate(t, c, &host.Local().View, trailFresh))
		})
	}
	gateway.Close()
	unknown(t, evaluate(t, c, &host.Local().View, trailFresh), "could not be tried")
}
