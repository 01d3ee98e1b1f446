package reconcile_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/reconcile"
	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/composiotest"
	"github.com/managemyclaw/hardshell/composio/gateway"
)

// A real gateway, a real log and Composio's client agree on what went through
// the gateway, several pages of it, and on what went round it.
func TestRoundTheGateway(t *testing.T) {
	const version = "20260902_00"
	upstream := composiotest.New(composiotest.Config{PageLimit: 7})
	for slug, tag := range map[string]string{"GMAIL_FETCH_EMAILS": "readOnlyHint", "GMAIL_SEND_EMAIL": "destructiveHint"} {
		upstream.AddTool(composiotest.Tool{Slug: slug, Version: version, Tags: []string{tag}})
	}
	upstream.AddAccount(composiotest.Account{ID: "ca_mail", UserID: "ann", Toolkit: "gmail"})
	key, err := trail.GenerateKey("trail.example.com/test")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "trail")
	log, err := trail.Create(dir, key, trail.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	token, hash := gateway.NewToken()
	g, err := gateway.New(t.Context(), gateway.Config{
		Policy: &gateway.Policy{Agents: map[string]gateway.Agent{"inbox": {
			Tokens: []gateway.TokenHash{hash}, UserID: "ann", Accounts: map[string]string{"gmail": "ca_mail"}, MultiExecute: true,
			Tools: map[string]gateway.Grant{"GMAIL_FETCH_EMAILS": {Version: version, Arguments: map[string]gateway.Rule{"query": {}, "api_key": {}}}},
		}}},
		Upstream: upstream.Client(), Fence: gateway.NoFence, Trail: log, OnTrip: func(gateway.Trip) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Close(context.WithoutCancel(t.Context())) }()
	began := time.Now()
	var asked []reconcile.ToolCall
	var redact trail.Redactor
	call := func(tool string, arguments map[string]any, nested ...reconcile.Nested) {
		t.Helper()
		raw, err := json.Marshal(arguments)
		if err != nil {
			t.Fatal(err)
		}
		args, err := redact.Arguments(raw)
		if err != nil {
			t.Fatal(err)
		}
		tc := reconcile.ToolCall{ID: fmt.Sprint("oc_", len(asked)), Time: time.Now(), Agent: "main", Tool: "composio__" + tool, Digest: args.Digest, Nested: nested, Status: reconcile.StatusOK}
		body := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":%q,"arguments":%s}}`, tool, raw)
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/mcp", strings.NewReader(body))
		r.Host = "localhost:8080"
		for k, v := range map[string]string{"Authorization": "Bearer " + token.Reveal(), "Accept": "application/json, text/event-stream", "Content-Type": "application/json", "Mcp-Protocol-Version": "2025-06-18"} {
			r.Header.Set(k, v)
		}
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		if strings.Contains(w.Body.String(), `"isError":true`) {
			tc.Status = reconcile.StatusFailed
		}
		asked = append(asked, tc)
	}
	fetch := func(i int) map[string]any {
		return map[string]any{"query": fmt.Sprint("in:inbox ", i), "api_key": "sk-0123456789abcdef0123"}
	}
	for i := range 40 {
		call("GMAIL_FETCH_EMAILS", fetch(i))
	}
	call("GMAIL_SEND_EMAIL", map[string]any{"to": "eve@example.org"}) // denied
	var nested []reconcile.Nested
	var tools []any
	for i := range 3 {
		raw, _ := json.Marshal(fetch(100 + i))
		args, _ := redact.Arguments(raw)
		nested = append(nested, reconcile.Nested{Tool: "GMAIL_FETCH_EMAILS", Digest: args.Digest})
		tools = append(tools, map[string]any{"tool_slug": "GMAIL_FETCH_EMAILS", "arguments": fetch(100 + i)})
	}
	call("COMPOSIO_MULTI_EXECUTE_TOOL", map[string]any{"tools": tools}, nested...)

	r := reconcile.Reconciler{
		Since: began.Add(-time.Minute), Until: time.Now().Add(time.Minute), Users: map[string]string{"inbox": "ann"}, Servers: []string{"composio"},
		AsOf: time.Now().Add(time.Hour), // all has settled: this is all in one process
	}
	compare := func() *reconcile.Report {
		t.Helper()
		reader, err := trail.OpenReader(t.Context(), os.DirFS(dir), key.Public())
		if err != nil {
			t.Fatal(err)
		}
		since, until := r.Range()
		rep, err := r.Run(t.Context(), reconcile.Sources{
			Records:    reader.Records(t.Context(), trail.Query{Since: since, Until: until}),
			Executions: reconcile.Composio(upstream.Client().Executions(t.Context(), composio.LogFilter{From: since, To: until})),
			ToolCalls:  each(asked),
		})
		if err != nil {
			t.Fatal(err)
		}
		return rep
	}
	if rep := compare(); !rep.Clean() || rep.Executions != 43 || rep.Joined != 43 || rep.Calls != 44 || rep.ToolCalls != 42 || rep.Unstated != 0 {
		t.Fatalf("%+v", rep)
	}
	data, _ := composio.NewData(map[string]any{})
	past, err := upstream.Client().Execute(t.Context(), composio.Call{Tool: "GMAIL_SEND_EMAIL", Version: version, UserID: "ann", AccountID: "ca_mail", Arguments: data})
	if err != nil {
		t.Fatal(err)
	}
	rep := compare()
	if len(rep.Findings) != 1 || rep.Findings[0].Kind != reconcile.Unrecorded || rep.Findings[0].LogID != past.LogID || rep.Findings[0].Tool != "GMAIL_SEND_EMAIL" {
		t.Errorf("%v", rep.Findings)
	}
	// With the agent's token, and not by OpenClaw.
	kept := slices.Clone(asked)
	call("GMAIL_FETCH_EMAILS", fetch(200))
	asked = kept
	if rep = compare(); rep.Counts[reconcile.NotFound] != 1 || len(rep.Findings) != 2 {
		t.Errorf("%v", rep.Findings)
	}
	r.Users["inbox"] = "ben"
	if rep = compare(); rep.Counts[reconcile.OtherUser] != 44 {
		t.Errorf("%v", rep.Counts)
	}
}

// What Composio's API says of a row is read, however it names it.
func TestMetadata(t *testing.T) {
	for name, c := range map[string]struct {
		metadata any
		want     reconcile.Execution
	}{
		"flat":            {map[string]any{"tool_slug": "T", "connected_account_id": "ca", "user_id": "u"}, reconcile.Execution{Tool: "T", AccountID: "ca", UserID: "u"}},
		"other spellings": {map[string]any{"toolSlug": "T", "connectedAccountId": "ca", "entity_id": "u"}, reconcile.Execution{Tool: "T", AccountID: "ca", UserID: "u"}},
		"objects":         {map[string]any{"tool": map[string]any{"slug": "T"}, "connected_account": map[string]any{"id": "ca"}}, reconcile.Execution{Tool: "T", AccountID: "ca"}},
		"nothing":         {map[string]any{}, reconcile.Execution{}},
		"no object":       {"x", reconcile.Execution{}},
		"other types":     {map[string]any{"tool_slug": 7, "user_id": []any{}}, reconcile.Execution{}},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := composio.NewData(c.metadata)
			if err != nil {
				t.Fatal(err)
			}
			rows := []composio.Execution{{Kind: "trigger.message"}, {ID: "log_1", Kind: "tool.execution", Metadata: data}, {Kind: "connected_account.created"}, {ID: "log_2", Kind: "new"}}
			var got []reconcile.Execution
			for e, err := range reconcile.Composio(each(rows)) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, e)
			}
			c.want.ID, c.want.Status = "log_1", reconcile.StatusFailed
			if len(got) != 2 || got[0] != c.want || got[1].ID != "log_2" {
				t.Errorf("%+v", got)
			}
		})
	}
}
