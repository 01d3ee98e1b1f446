package gateway_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// What is allowed goes through either door: executed once, with what the
// policy pins, its intent recorded before and its outcome after.
func TestAllowed(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(*world) string{
		"rest": func(w *world) string {
			return w.execute("GMAIL_FETCH_EMAILS", object{"query": "from:bob"}).Body.String()
		},
		"mcp": func(w *world) string {
			return w.mcpCall("GMAIL_FETCH_EMAILS", object{"query": "from:bob"}).Body.String()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			body := call(w)
			all := w.composio.Executions()
			if len(all) != 1 {
				t.Fatalf("%d executions, want 1; the answer was %s", len(all), body)
			}
			e := all[0]
			if e.Tool != "GMAIL_FETCH_EMAILS" || e.Version != version || e.UserID != "ann" || e.AccountID != "ca_mail" || e.Arguments["query"] != "from:bob" {
				t.Errorf("executed %+v", e)
			}
			records := w.trail.where(func(e trail.Event) bool { return e.Kind == trail.KindToolCall })
			if len(records) != 2 || records[0].Outcome != trail.OutcomeBegin || records[1].Outcome != trail.OutcomeOK || records[1].LogID != e.LogID || records[0].ID != records[1].ID {
				t.Errorf("recorded %+v", records)
			}
			if r := records[0]; r.Agent != "inbox" || r.Tool != e.Tool || r.AccountID != "ca_mail" || r.Attrs["door"] != name || string(r.Arguments.View) != `{"query":"from:bob"}` {
				t.Errorf("the intent is %+v", r)
			}
		})
	}
}

// What the doors list is what the policy grants.
func TestListsWhatIsGranted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	want := []string{"COMPOSIO_MULTI_EXECUTE_TOOL", "GMAIL_CREATE_EMAIL_DRAFT", "GMAIL_DELETE_MESSAGE", "GMAIL_FETCH_EMAILS", "HACKERNEWS_GET_LATEST_POSTS"}
	var rest struct {
		Items []struct{ Slug, Version string }
	}
	rec := w.rest("GET", "/api/v3.1/tools?toolkit_versions=latest&limit=9999", nil)
	if err := json.Unmarshal(rec.Body.Bytes(), &rest); err != nil {
		t.Fatal(err, rec.Body)
	}
	var got []string
	for _, i := range rest.Items {
		got = append(got, i.Slug)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the API lists %q, want %q", got, want)
	}
	var mcp struct {
		Result struct {
			Tools []struct{ Name string }
		}
	}
	rec = w.mcp(object{"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
	if err := json.Unmarshal(rec.Body.Bytes(), &mcp); err != nil {
		t.Fatal(err, rec.Body)
	}
	got = nil
	for _, i := range mcp.Result.Tools {
		got = append(got, i.Name)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("MCP lists %q, want %q: %s", got, want, rec.Body)
	}
}
