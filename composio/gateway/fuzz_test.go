package gateway_test

import (
	"encoding/json"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/composio/composiotest"
	"github.com/managemyclaw/hardshell/composio/gateway"
)

// A policy that is read is one that can be used: it says what it grants in
// full, and written again it says the same.
func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte(goodPolicy))
	f.Add([]byte(`{"schema":"hardshell.policy/v1","agents":{"a":{"tokens":[],"user_id":"x","tools":{}}}}`))
	f.Add([]byte(strings.Replace(goodPolicy, `{"max_length": 200}`, `{"items":{"properties":{"a":{"enum":["x"]}}},"max_items":2}`, 1)))
	f.Add([]byte(strings.Replace(goodPolicy, `"class"`, `"unverified": true, "arguments": {}, "class"`, 1)))
	pinned := regexp.MustCompile(`^([0-9]{8}_[0-9]{2}|session)$`)
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := gateway.ParsePolicy(data)
		if err != nil {
			if p != nil {
				t.Error("an error and a policy")
			}
			return
		}
		if len(p.Agents) == 0 {
			t.Error("no agent")
		}
		for name, a := range p.Agents {
			if len(a.Tokens) < 1 || len(a.Tokens) > 2 || a.UserID == "" || len(a.Tools) == 0 {
				t.Errorf("agent %q: %+v", name, a)
			}
			for slug, g := range a.Tools {
				if strings.HasPrefix(slug, "COMPOSIO_") || !pinned.MatchString(g.Version) || g.Version == "00000000_00" {
					t.Errorf("tool %q: %+v", slug, g)
				}
			}
		}
		again, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		q, err := gateway.ParsePolicy(again)
		if err != nil || q.Digest() != p.Digest() {
			t.Errorf("%s\nwritten is %s\n%v", data, again, err)
		}
	})
}

// lawful reports whether what Composio executed is what the policy of agent
// inbox allows. It is written without the code that decides.
func lawful(executions []composiotest.Execution) string {
	for _, e := range executions {
		keys := map[string][]string{
			"GMAIL_FETCH_EMAILS":          {"query", "max_results", "format"},
			"GMAIL_CREATE_EMAIL_DRAFT":    {"to", "body"},
			"GMAIL_DELETE_MESSAGE":        {"query", "id"},
			"HACKERNEWS_GET_LATEST_POSTS": {"query", "id"},
		}[e.Tool]
		account := "ca_mail"
		if strings.HasPrefix(e.Tool, "HACKERNEWS") {
			account = ""
		}
		if keys == nil || e.Version != version || e.UserID != "ann" || e.AccountID != account {
			return "executed " + e.Tool + " as " + e.UserID + " with " + e.AccountID + " at " + e.Version
		}
		for k, v := range e.Arguments {
			ok := slices.Contains(keys, k)
			switch text, isText := v.(string); {
			case e.Tool == "GMAIL_FETCH_EMAILS" && k == "query":
				ok = ok && isText && len([]rune(text)) <= 40
			case k == "max_results":
				n, isNumber := v.(float64)
				ok = ok && isNumber && n >= 1 && n <= 50 && n == float64(int(n))
			case k == "format":
				ok = ok && (text == "full" || text == "minimal")
			case k == "to":
				name, found := strings.CutSuffix(text, "@example.com")
				ok = ok && isText && found && name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz") == ""
			}
			if !ok {
				data, _ := json.Marshal(e.Arguments)
				return "executed " + e.Tool + " with " + string(data)
			}
		}
	}
	return ""
}

// Whatever bytes come in at the REST door, what is executed is allowed by the
// policy, and what is not executed is refused.
func FuzzExecute(f *testing.F) {
	for _, body := range []string{
		`{"version":"` + version + `","arguments":{"query":"x"}}`,
		`{"user_id":"ann","connected_account_id":"ca_mail","version":"` + version + `","arguments":{"to":"ann@example.com","max_results":50,"format":"full"}}`,
		`{"user_id":"ben","version":"latest","text":"x"}`,
		`{"version":"20260101_00","arguments":{"tools":[{"tool_slug":"GMAIL_FETCH_EMAILS","arguments":{"query":"x"}},{"tool_slug":"GMAIL_SEND_EMAIL","account":"ca_mail"}]}}`,
		`{"version":"` + version + `","arguments":{"max_results":1e1}}`,
		"{\"arguments\":{\"que\\u0072y\":\"\\ud800\"},\"version\":\"" + version + "\"}",
	} {
		for _, path := range []string{"GMAIL_FETCH_EMAILS", "GMAIL_CREATE_EMAIL_DRAFT", "COMPOSIO_MULTI_EXECUTE_TOOL", "GMAIL_SEND_EMAIL", "proxy", "../GMAIL_SEND_EMAIL"} {
			f.Add(path, []byte(body))
		}
	}
	w := newWorld(f, func(c *gateway.Config) {
		a := c.Policy.Agents["inbox"]
		a.Breaker.Calls = 100_000
		c.Policy.Agents["inbox"] = a
	})
	f.Fuzz(func(t *testing.T, slug string, body []byte) {
		before := len(w.composio.Executions())
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/", strings.NewReader(string(body)))
		r.URL.Path, r.Host = "/api/v3.1/tools/execute/"+slug, "localhost"
		r.Header.Set("X-Api-Key", w.token.Reveal())
		r.Header.Set("Content-Type", "application/json")
		rec := httptest.NewRecorder()
		w.gateway.ServeHTTP(rec, r)
		checkFuzzed(t, w, rec, before)
	})
}

// The same at the MCP door.
func FuzzMCP(f *testing.F) {
	for _, body := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"GMAIL_FETCH_EMAILS","arguments":{"query":"x"}}}`,
		`{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"COMPOSIO_MULTI_EXECUTE_TOOL","arguments":{"tools":[{"tool_slug":"GMAIL_CREATE_EMAIL_DRAFT","arguments":{"to":"ann@example.com"}}]}}}`,
		`{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"x"}}`,
		`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}`,
		`{"jsonrpc":"2.0","method":"notifications/initialized"}`,
		`{"jsonrpc":"2.0","id":1,"method":"server/discover"}`,
		`[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"GMAIL_SEND_EMAIL"}}]`,
	} {
		f.Add([]byte(body), "2025-06-18")
		f.Add([]byte(body), "2026-07-28")
	}
	w := newWorld(f, func(c *gateway.Config) {
		a := c.Policy.Agents["inbox"]
		a.Breaker.Calls = 100_000
		c.Policy.Agents["inbox"] = a
	})
	f.Fuzz(func(t *testing.T, body []byte, protocol string) {
		before := len(w.composio.Executions())
		in := *w
		in.t = t
		r := in.mcpRequest(string(body))
		r.Host = "localhost"
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Mcp-Protocol-Version", protocol)
		rec := httptest.NewRecorder()
		w.gateway.ServeHTTP(rec, r)
		checkFuzzed(t, w, rec, before)
	})
}

func checkFuzzed(t *testing.T, w *world, rec *httptest.ResponseRecorder, before int) {
	t.Helper()
	executions := w.composio.Executions()[before:]
	if why := lawful(executions); why != "" {
		t.Error(why)
	}
	if n := len(executions); n > 0 && rec.Code != 200 {
		t.Errorf("%d executions, and the answer is %d %s", n, rec.Code, rec.Body)
	}
	if strings.Contains(rec.Body.String(), w.token.Reveal()) {
		t.Errorf("the answer has the token: %s", rec.Body)
	}
	if rec.Code >= 500 && rec.Code != 503 {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}
