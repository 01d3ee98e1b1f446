package gateway_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/composiotest"
	"github.com/managemyclaw/hardshell/composio/gateway"
)

var composioConfig = composiotest.Config{}

// A tagged upstream says other tags, by version.
type tagged struct {
	gateway.Upstream
	tags map[string][]string
}

func (u tagged) Tool(ctx context.Context, slug, version string) (composio.Tool, error) {
	t, err := u.Upstream.Tool(ctx, slug, version)
	if tags, ok := u.tags[version]; ok {
		t.Tags = tags
	}
	return t, err
}

// A remote is a session at Composio: an MCP server that offers more than any
// policy grants.
type remote struct {
	mu    sync.Mutex
	calls []string
	keys  []string
}

func (r *remote) start(t *testing.T) string {
	t.Helper()
	server := mcp.NewServer(&mcp.Implementation{Name: "composio", Version: "1"}, nil)
	no, yes := false, true
	for name, hints := range map[string]*mcp.ToolAnnotations{
		"GMAIL_FETCH_EMAILS":          {ReadOnlyHint: true},
		"GMAIL_DELETE_MESSAGE":        {DestructiveHint: &yes},
		"GMAIL_ADD_LABEL_TO_EMAIL":    {DestructiveHint: &no},
		"GMAIL_SEND_EMAIL":            {},
		"GMAIL_UNTAGGED_THING":        nil,
		"COMPOSIO_REMOTE_WORKBENCH":   {DestructiveHint: &yes},
		"COMPOSIO_MULTI_EXECUTE_TOOL": {DestructiveHint: &yes},
	} {
		server.AddTool(&mcp.Tool{Name: name, Annotations: hints, InputSchema: json.RawMessage(`{"type":"object","properties":{"query":{"type":"string"}}}`)},
			func(_ context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
				r.mu.Lock()
				r.calls = append(r.calls, name+string(req.Params.Arguments))
				r.mu.Unlock()
				return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: `{"successful":true,"data":{"mails":[]},"error":null,"logId":"log_7"}`}}}, nil
			})
	}
	handler := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.keys = append(r.keys, req.Header.Get("X-Api-Key"))
		r.mu.Unlock()
		handler.ServeHTTP(w, req)
	}))
	t.Cleanup(s.CloseClientConnections)
	t.Cleanup(s.Close)
	return s.URL
}

func sessionPolicy(token gateway.TokenHash, grants map[string]gateway.Grant) *gateway.Policy {
	return &gateway.Policy{Agents: map[string]gateway.Agent{"inbox": {
		Tokens: []gateway.TokenHash{token}, UserID: "ann", Accounts: map[string]string{"gmail": "ca_mail"}, Tools: grants, MultiExecute: true,
		Breaker: gateway.Limit{Calls: 5, Per: gateway.DefaultCallTimeout},
	}}}
}

// Over MCP as over the API: what is listed is what the session offers and the
// policy grants, and what is called goes through the same decision.
func TestSession(t *testing.T) {
	t.Parallel()
	var r remote
	const key = "ak_canary_0123456789abcdef"
	session, err := gateway.NewSession(gateway.SessionConfig{URL: r.start(t), APIKey: composio.NewSecret(key), UserID: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() })
	w := &world{t: t, trail: new(memory), composio: composiotest.New(composioConfig)}
	var hash gateway.TokenHash
	w.token, hash = gateway.NewToken()
	grants := map[string]gateway.Grant{
		"GMAIL_FETCH_EMAILS":       {Version: gateway.SessionVersion},
		"GMAIL_DELETE_MESSAGE":     {Version: gateway.SessionVersion, Class: composio.ClassDestructive},
		"GMAIL_ADD_LABEL_TO_EMAIL": {Version: gateway.SessionVersion, Class: composio.ClassUpdate},
	}
	cfg := gateway.Config{Policy: sessionPolicy(hash, grants), PerAgent: map[string]gateway.Upstream{"inbox": session}, Fence: gateway.NoFence, Trail: w.trail}
	if w.gateway, err = gateway.New(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	list := w.mcp(object{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).Body.String()
	for _, name := range []string{"GMAIL_FETCH_EMAILS", "GMAIL_DELETE_MESSAGE", "GMAIL_ADD_LABEL_TO_EMAIL", "COMPOSIO_MULTI_EXECUTE_TOOL"} {
		if !strings.Contains(list, name) {
			t.Errorf("%s is not listed", name)
		}
	}
	for _, name := range []string{"GMAIL_SEND_EMAIL", "GMAIL_UNTAGGED_THING", "COMPOSIO_REMOTE_WORKBENCH"} {
		if strings.Contains(list, name) {
			t.Errorf("%s is listed", name)
		}
		if rec := w.mcpCall(name, object{}); !refused(rec) {
			t.Errorf("%s: %s", name, rec.Body)
		}
	}
	if rec := w.mcpCall("GMAIL_FETCH_EMAILS", object{"query": "x"}); refused(rec) || !strings.Contains(rec.Body.String(), "mails") {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	// Nested calls are taken apart here; the session's own tool for it is
	// never called.
	if rec := w.mcpCall("COMPOSIO_MULTI_EXECUTE_TOOL", nested(entry("GMAIL_FETCH_EMAILS", object{"query": "y"}), entry("GMAIL_SEND_EMAIL", object{}))); !refused(rec) {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if rec := w.mcpCall("COMPOSIO_MULTI_EXECUTE_TOOL", nested(entry("GMAIL_FETCH_EMAILS", object{"query": "z"}))); refused(rec) {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	// And through the other door.
	if rec := w.rest("POST", fetchPath, object{"version": gateway.SessionVersion, "arguments": object{}}); refused(rec) {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if want := []string{`GMAIL_FETCH_EMAILS{"query":"x"}`, `GMAIL_FETCH_EMAILS{"query":"z"}`, `GMAIL_FETCH_EMAILS{}`}; !slices.Equal(r.calls, want) {
		t.Errorf("the session executed %q, want %q", r.calls, want)
	}
	if slices.ContainsFunc(r.keys, func(k string) bool { return k != key }) {
		t.Errorf("a request had another key than the session's")
	}
	// A connection that was lost is made anew, and the call is not repeated.
	before := len(r.calls)
	_ = session.Close()
	if rec := w.mcpCall("GMAIL_FETCH_EMAILS", object{}); refused(rec) || len(r.calls) != before+1 {
		t.Errorf("after the connection was lost: %d %s", rec.Code, rec.Body)
	}
	for name, g := range map[string]gateway.Grant{
		"GMAIL_UNTAGGED_THING":     {Version: gateway.SessionVersion, Class: composio.ClassUpdate},
		"GMAIL_SEND_EMAIL":         {Version: gateway.SessionVersion, Class: composio.ClassUpdate},
		"GMAIL_ADD_LABEL_TO_EMAIL": {Version: gateway.SessionVersion},
		"GMAIL_FETCH_EMAILS":       {Version: version},
		"GMAIL_NO_SUCH":            {Version: gateway.SessionVersion},
	} {
		if err := w.gateway.Reload(t.Context(), sessionPolicy(hash, map[string]gateway.Grant{name: g})); err == nil {
			t.Errorf("%s was granted with %+v", name, g)
		}
	}
	// A session acts for its own user alone.
	if _, err := session.Execute(t.Context(), composio.Call{Tool: "GMAIL_FETCH_EMAILS", UserID: "ben"}); err == nil {
		t.Error("the session acts for another user")
	}
}

// The key of a session goes nowhere else, and does not show in errors.
func TestSessionKey(t *testing.T) {
	t.Parallel()
	const key = "ak_canary_0123456789abcdef"
	var stolen []string
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stolen = append(stolen, r.Header.Get("X-Api-Key"))
		http.Error(w, "no", http.StatusTeapot)
	}))
	t.Cleanup(thief.Close)
	redirects := httptest.NewServer(http.RedirectHandler(thief.URL, http.StatusTemporaryRedirect))
	t.Cleanup(redirects.Close)
	session, err := gateway.NewSession(gateway.SessionConfig{URL: redirects.URL, APIKey: composio.NewSecret(key), UserID: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = session.Tool(t.Context(), "GMAIL_FETCH_EMAILS", "")
	if err == nil || strings.Contains(err.Error(), key) {
		t.Errorf("the error is %v", err)
	}
	if len(stolen) > 0 {
		t.Errorf("a redirect was followed, with the key %q", stolen)
	}
	for name, cfg := range map[string]gateway.SessionConfig{
		"clear text":  {URL: "http://backend.composio.dev/mcp", APIKey: composio.NewSecret(key), UserID: "ann"},
		"no URL":      {APIKey: composio.NewSecret(key), UserID: "ann"},
		"a password":  {URL: "https://a:" + key + "@backend.composio.dev/mcp", APIKey: composio.NewSecret(key), UserID: "ann"},
		"no key":      {URL: "https://backend.composio.dev/mcp", UserID: "ann"},
		"no user":     {URL: "https://backend.composio.dev/mcp", APIKey: composio.NewSecret(key)},
		"no absolute": {URL: "/mcp", APIKey: composio.NewSecret(key), UserID: "ann"},
	} {
		if _, err := gateway.NewSession(cfg); err == nil || strings.Contains(err.Error(), key) {
			t.Errorf("%s: the error is %v", name, err)
		}
	}
}
