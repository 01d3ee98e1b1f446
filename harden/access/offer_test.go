package access_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/composiotest"
	"github.com/managemyclaw/hardshell/composio/gateway"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/access"
	"github.com/managemyclaw/hardshell/harden/host"
)

// A served gateway is the real one, before a Composio in memory.
type served struct {
	url    string
	token  composio.Secret
	server *composiotest.Server
}

func serve(t *testing.T, multi bool, wrap func(http.Handler) http.Handler) served {
	t.Helper()
	s := project()
	s.AddTool(composiotest.Tool{Slug: "COMPOSIO_SEARCH_TOOLS", Tags: []string{"readOnlyHint"}})
	token, hash := gateway.NewToken()
	g, err := gateway.New(t.Context(), gateway.Config{
		Policy: &gateway.Policy{Agents: map[string]gateway.Agent{"inbox": {
			Tokens: []gateway.TokenHash{hash}, UserID: "ann", Accounts: map[string]string{"gmail": "ca_1"}, MultiExecute: multi,
			Tools: map[string]gateway.Grant{
				"GMAIL_FETCH_EMAILS": {Version: pinned, Class: composio.ClassRead}, "GMAIL_DELETE_MESSAGE": {Version: pinned, Class: composio.ClassDestructive},
			},
			Breaker: gateway.Limit{Calls: 5, Per: time.Minute},
		}}},
		Upstream: s.Client(), Fence: gateway.NoFence, Trail: trail.Discard,
	})
	if err != nil {
		t.Fatal(err)
	}
	var h http.Handler = g
	if wrap != nil {
		h = wrap(g)
	}
	door := httptest.NewServer(h)
	t.Cleanup(door.Close)
	return served{door.URL, token, s}
}

// over makes a gateway answer otherwise where f says so.
func over(f func(w http.ResponseWriter, r *http.Request, body string) bool) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if !f(w, r, string(body)) {
				r.Body = io.NopCloser(strings.NewReader(string(body)))
				next.ServeHTTP(w, r)
			}
		})
	}
}

func says(w http.ResponseWriter, status int, body string) bool {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	io.WriteString(w, body)
	return true
}

func TestOffer(t *testing.T) {
	for _, c := range []struct {
		name    string
		multi   bool
		wrap    func(http.Handler) http.Handler
		policy  func(map[string]access.Grants)
		config  func(*access.Config)
		status  harden.Status
		finding string
	}{
		{name: "as it should be", status: harden.StatusPass},
		{name: "with calls that are wrapped", multi: true, status: harden.StatusPass, policy: func(a map[string]access.Grants) { a["inbox"] = access.Grants{Tools: a["inbox"].Tools, Multi: true} }},
		{name: "with calls that are wrapped, which the policy does not say", multi: true, status: harden.StatusFail, finding: "beyond"},
		{name: "the policy has become narrower", status: harden.StatusFail, finding: "beyond", policy: func(a map[string]access.Grants) { delete(a["inbox"].Tools, "GMAIL_DELETE_MESSAGE") }},
		{name: "the policy has become wider", status: harden.StatusFail, finding: "short", policy: func(a map[string]access.Grants) { a["inbox"].Tools["GMAIL_SEND_EMAIL"] = access.Grant{Version: pinned} }},
		{name: "the policy has no such agent", status: harden.StatusUnknown, policy: func(a map[string]access.Grants) { delete(a, "inbox") }},
		{name: "an empty offer over one door", status: harden.StatusFail, finding: "short", wrap: over(func(w http.ResponseWriter, r *http.Request, _ string) bool {
			return r.Method == http.MethodGet && r.Header.Get("X-Api-Key") != "" && len(r.Header.Get("X-Api-Key")) == 47 && r.URL.RawQuery != "" && says(w, 200, `{"items":[],"total_items":0}`)
		})},
		{name: "one tool more over MCP alone", status: harden.StatusFail, finding: "beyond", wrap: over(func(w http.ResponseWriter, _ *http.Request, body string) bool {
			return strings.Contains(body, "tools/list") && says(w, 200, `{"jsonrpc":"2.0","id":2,"result":{"tools":[{"name":"GMAIL_FETCH_EMAILS"},{"name":"GMAIL_DELETE_MESSAGE"},{"name":"GMAIL_SEND_EMAIL"}]}}`)
		})},
		{name: "a list that is short of what it says", status: harden.StatusUnknown, wrap: over(func(w http.ResponseWriter, r *http.Request, _ string) bool {
			return r.URL.RawQuery != "" && says(w, 200, `{"items":[{"slug":"GMAIL_FETCH_EMAILS"}],"total_items":2}`)
		})},
		{name: "a nested call is let through", status: harden.StatusFail, finding: "let_through", wrap: over(func(w http.ResponseWriter, r *http.Request, _ string) bool {
			return strings.HasSuffix(r.URL.Path, "MULTI_EXECUTE_TOOL") && says(w, 200, `{"successful":true}`)
		})},
		{name: "a lower-case slug is let through", status: harden.StatusFail, finding: "let_through", wrap: over(func(w http.ResponseWriter, r *http.Request, _ string) bool {
			return strings.HasSuffix(r.URL.Path, "gmail_fetch_emails") && says(w, 200, `{"successful":true}`)
		})},
		{name: "a denied tool reaches Composio, which does not know it", status: harden.StatusFail, finding: "let_through", wrap: over(func(w http.ResponseWriter, r *http.Request, _ string) bool {
			return strings.HasSuffix(r.URL.Path, "COMPOSIO_SEARCH_TOOLS") && says(w, 404, `{"error":{}}`)
		})},
		{name: "a denied tool runs over MCP", status: harden.StatusFail, finding: "let_through", wrap: over(func(w http.ResponseWriter, _ *http.Request, body string) bool {
			return strings.Contains(body, "tools/call") && says(w, 200, `{"jsonrpc":"2.0","id":3,"result":{"content":[]}}`)
		})},
		{name: "no token is asked for", status: harden.StatusFail, finding: "let_through", wrap: over(func(w http.ResponseWriter, r *http.Request, _ string) bool {
			return r.Header.Get("X-Api-Key") == "" && says(w, 200, `{"items":[]}`)
		})},
		{name: "any token will do", status: harden.StatusFail, finding: "let_through", wrap: over(func(w http.ResponseWriter, r *http.Request, _ string) bool {
			return strings.HasPrefix(r.Header.Get("X-Api-Key"), "hsg_AAAA") && says(w, 200, `{"items":[]}`)
		})},
		{name: "the token is not accepted", status: harden.StatusUnknown, config: func(c *access.Config) { c.Gateway.Probes[0].Token = composio.NewSecret(agentToken) }},
		{name: "nobody answers", status: harden.StatusUnknown, config: func(c *access.Config) { c.Gateway.URL = "http://127.0.0.1:1" }},
		{name: "an address with a path", status: harden.StatusUnknown, config: func(c *access.Config) { c.Gateway.URL += "/x" }},
		{name: "no probe", status: harden.StatusUnknown, config: func(c *access.Config) { c.Gateway.Probes = nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := serve(t, c.multi, c.wrap)
			cfg := access.Config{Gateway: access.Gateway{URL: g.url, Probes: []access.Probe{{Agent: "inbox", Token: g.token}}}, Policy: policy()}
			if c.policy != nil {
				cfg.Policy = policy(c.policy)
			}
			if c.config != nil {
				c.config(&cfg)
			}
			r := evaluate(t, cfg, new(host.View), "access.tools_offered")
			if r.Status != c.status {
				t.Fatalf("%v (%s): %+v", r.Status, r.Detail, r.Findings)
			}
			if c.finding != "" && !slices.ContainsFunc(r.Findings, func(f harden.Finding) bool { return f.ID == "access.tools_offered."+c.finding }) {
				t.Errorf("no finding %s: %+v", c.finding, r.Findings)
			}
			if n := len(g.server.Executions()); n > 0 {
				t.Errorf("%d tools were executed", n)
			}
			if text := fmt.Sprintf("%+v", r); strings.Contains(text, g.token.Reveal()) {
				t.Error("the token is shown")
			}
		})
	}
}

// What merely passes requests on is no gateway.
func TestOfferOfAProxy(t *testing.T) {
	s := project()
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	target, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	p := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Header.Set("X-Api-Key", composiotest.ProjectKey)
	}})
	defer p.Close()
	cfg := access.Config{Gateway: access.Gateway{URL: p.URL, Probes: []access.Probe{{Agent: "inbox", Token: composio.NewSecret(agentToken)}}}, Policy: policy()}
	if r := evaluate(t, cfg, new(host.View), "access.tools_offered"); r.Status != harden.StatusFail || len(r.Findings) < 4 {
		t.Errorf("%v: %+v", r.Status, r.Findings)
	}
}

// Streams of events are read as well as plain answers.
func TestOfferOverEvents(t *testing.T) {
	g := serve(t, false, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/mcp" {
				next.ServeHTTP(w, r)
				return
			}
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			if rec.Code != http.StatusOK {
				w.WriteHeader(rec.Code)
				return
			}
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			fmt.Fprintf(w, ": hello\r\nevent: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}\n\nid: 1\ndata: %s\n\n", rec.Body.String())
		})
	})
	cfg := access.Config{Gateway: access.Gateway{URL: g.url, Probes: []access.Probe{{Agent: "inbox", Token: g.token}}}, Policy: policy()}
	if r := evaluate(t, cfg, new(host.View), "access.tools_offered"); r.Status != harden.StatusPass || r.Level != harden.LevelProbed {
		t.Errorf("%v (%s): %+v", r.Status, r.Detail, r.Findings)
	}
}
