package halted_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/composiotest"
	"github.com/managemyclaw/hardshell/composio/gateway"
	"github.com/managemyclaw/hardshell/composio/gateway/halted"
)

const version = "20260902_00"

var all = []string{halted.REST, halted.MCP, halted.Session}

type fence struct {
	mu  sync.Mutex
	who string
}

func (f *fence) engage(agent string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.who = agent
}

func (f *fence) Fenced(_ context.Context, agent string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.who == agent {
		return errors.New("engaged")
	}
	return nil
}

// A site is a gateway that listens.
type site struct {
	gateway *gateway.Gateway
	fence   *fence
	token   composio.Secret
	server  *httptest.Server
	handler atomic.Value // of func(http.ResponseWriter, *http.Request)
	conns   atomic.Int64
}

func newSite(t *testing.T) *site {
	t.Helper()
	upstream := composiotest.New(composiotest.Config{})
	upstream.AddTool(composiotest.Tool{Slug: "HACKERNEWS_WIPE", Version: version, Versions: []string{version}, Tags: []string{"destructiveHint"}, NoAuth: true, Input: map[string]any{"type": "object"}})
	s := &site{fence: new(fence)}
	token, hash := gateway.NewToken()
	_, other := gateway.NewToken()
	s.token = token
	agent := gateway.Agent{
		Tokens: []gateway.TokenHash{hash}, UserID: "ann", Breaker: gateway.Limit{Calls: 1, Per: time.Hour},
		Tools: map[string]gateway.Grant{"HACKERNEWS_WIPE": {Version: version, Class: composio.ClassDestructive}},
	}
	second := agent
	second.Tokens = []gateway.TokenHash{other}
	var err error
	s.gateway, err = gateway.New(t.Context(), gateway.Config{
		Policy:   &gateway.Policy{Agents: map[string]gateway.Agent{"inbox": agent, "calendar": second}},
		Upstream: upstream.Client(), Fence: s.fence, Trail: trail.Discard, MaxCalls: 8,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.handler.Store(s.gateway.ServeHTTP)
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.handler.Load().(func(http.ResponseWriter, *http.Request))(w, r)
	}))
	s.server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.conns.Add(1)
		}
	}
	s.server.Start()
	t.Cleanup(s.server.Close)
	return s
}

func (s *site) observer(t *testing.T, token composio.Secret) *halted.Observer {
	t.Helper()
	o, err := halted.New(halted.Config{URL: s.server.URL, Token: token, Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

// Off is what every way in refuses as what is stopped, and nothing else. What
// cannot be told is an error.
func TestRemaining(t *testing.T) {
	text := func(status int, body string) func(*testing.T, *site) {
		return func(_ *testing.T, s *site) {
			s.handler.Store(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status)
				io.WriteString(w, body)
			})
		}
	}
	refusal := func(slug string) string { return `{"error":{"message":"no","slug":"` + slug + `"}}` }
	tests := map[string]struct {
		change func(*testing.T, *site) // after arming
		left   []string
		fails  string
	}{
		"the agent runs":     {func(*testing.T, *site) {}, all, ""},
		"the fence is up":    {func(_ *testing.T, s *site) { s.fence.engage("inbox") }, nil, ""},
		"another is stopped": {func(_ *testing.T, s *site) { s.fence.engage("calendar") }, all, ""},
		"denied": {func(t *testing.T, s *site) {
			if err := s.gateway.Deny(t.Context(), "inbox", "test"); err != nil {
				t.Fatal(err)
			}
		}, nil, ""},
		"halted": {func(t *testing.T, s *site) {
			if err := s.gateway.Halt("inbox").Do(t.Context()); err != nil {
				t.Fatal(err)
			}
		}, nil, ""},
		"its breaker has tripped": {func(t *testing.T, s *site) {
			for range 2 {
				r := httptest.NewRequestWithContext(t.Context(), "POST", "http://localhost/api/v3.1/tools/execute/HACKERNEWS_WIPE", strings.NewReader(`{"user_id":"ann","version":"`+version+`","arguments":{}}`))
				r.Header.Set("Content-Type", "application/json")
				r.Header.Set("X-Api-Key", s.token.Reveal())
				s.gateway.ServeHTTP(httptest.NewRecorder(), r)
			}
			if err := s.gateway.Halted(t.Context(), "inbox"); err == nil {
				t.Fatal("it has not")
			}
		}, nil, ""},
		"stopped and let go": {func(t *testing.T, s *site) {
			h := s.gateway.Halt("inbox")
			if err := errors.Join(h.Do(t.Context()), h.Release(t.Context())); err != nil {
				t.Fatal(err)
			}
		}, all, ""},
		"only the API refuses": {func(_ *testing.T, s *site) {
			s.handler.Store(s.mcpOpen)
		}, []string{halted.MCP, halted.Session}, ""},
		"MCP refuses, but for who came before": {func(_ *testing.T, s *site) {
			s.handler.Store(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Connection") != "close" { // the one that is kept
					s.gateway.ServeHTTP(w, r)
					return
				}
				w.WriteHeader(403)
				io.WriteString(w, refusal("Gateway_stopped"))
			})
		}, []string{halted.Session}, ""},
		"too many calls at a time":         {text(429, refusal("Gateway_busy")), all, ""},
		"refused for another reason":       {text(403, refusal("Gateway_endpoint")), all, ""},
		"the right words, the wrong state": {text(200, refusal("Gateway_fenced")), all, ""},
		"the token is not known":           {text(401, refusal("Gateway_unauthenticated")), nil, "token"},
		"another name":                     {text(421, refusal("Gateway_origin")), nil, "name"},
		"the gateway is closing":           {text(503, refusal("Gateway_closed")), nil, "closing"},
		"a proxy refuses":                  {text(403, "<h1>Forbidden</h1>"), nil, "not one of the gateway's"},
		"a proxy says it is all right":     {text(200, "<h1>It works!</h1>"), nil, "not one of the gateway's"},
		"a proxy's gateway is down":        {text(502, ""), nil, "not one of the gateway's"},
		"somebody else's denial":           {text(403, `{"error":{"slug":"Auth_forbidden"}}`), nil, "not one of the gateway's"},
		"a redirect":                       {text(307, ""), nil, "not one of the gateway's"},
		"nobody listens":                   {func(_ *testing.T, s *site) { s.server.Close() }, nil, "cannot be reached"},
		"it hangs": {func(t *testing.T, s *site) {
			release := make(chan struct{})
			t.Cleanup(func() { close(release) }) // before the server closes
			s.handler.Store(func(http.ResponseWriter, *http.Request) { <-release })
		}, nil, "not "},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			o := s.observer(t, s.token)
			if err := o.Arm(t.Context()); err != nil {
				t.Fatal(err)
			}
			if left, err := o.Remaining(t.Context()); err != nil || len(left) != len(all) {
				t.Fatalf("before: %v, %v", left, err)
			}
			test.change(t, s)
			start := time.Now()
			left, err := o.Remaining(t.Context())
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("it took %v", took)
			}
			if got := slices.Sorted(maps.Keys(left)); !slices.Equal(got, slices.Sorted(slices.Values(test.left))) {
				t.Errorf("remaining %v, want %v", left, test.left)
			}
			if (err != nil) != (test.fails != "") || err != nil && !strings.Contains(err.Error(), test.fails) {
				t.Errorf("error %v, want %q", err, test.fails)
			}
			if err != nil && strings.Contains(err.Error(), s.token.Reveal()) || strings.Contains(fmt.Sprintf("%+v %#v", o, err), s.token.Reveal()) {
				t.Error("the token is printed")
			}
		})
	}
}

// mcpOpen answers at the MCP door alone as if nothing had happened.
func (s *site) mcpOpen(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/api/") {
		w.WriteHeader(403)
		io.WriteString(w, `{"error":{"slug":"Gateway_fenced"}}`)
		return
	}
	s.gateway.ServeHTTP(w, r)
}

// Arming an agent that is stopped already works, looking without having been
// armed too, and the session of before is on the connection of before.
func TestArm(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	o := s.observer(t, s.token)
	if left, err := o.Remaining(t.Context()); err != nil || len(left) != 3 {
		t.Fatal(left, err)
	}
	before := s.conns.Load()
	if err := o.Arm(t.Context()); err != nil {
		t.Fatal(err)
	}
	if opened := s.conns.Load() - before; opened != 2 {
		t.Errorf("%d connections were opened, want one at each door and none for the session", opened)
	}
	s.fence.engage("inbox")
	if err := o.Arm(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := o.Remaining(t.Context()); err != nil || len(left) != 0 {
		t.Fatal(left, err)
	}
	stranger := s.observer(t, composio.NewSecret("nobody"))
	if err := stranger.Arm(t.Context()); err == nil {
		t.Error("a token that the gateway does not know is good enough")
	}
	s.server.Close()
	if err := o.Arm(t.Context()); err == nil {
		t.Error("a gateway that is down is good enough")
	}
}

func TestNewRefuses(t *testing.T) {
	ok := halted.Config{URL: "http://127.0.0.1:8080", Token: composio.NewSecret("x")}
	for name, change := range map[string]func(*halted.Config){
		"no URL":             func(c *halted.Config) { c.URL = "" },
		"a path":             func(c *halted.Config) { c.URL += "/mcp" },
		"another scheme":     func(c *halted.Config) { c.URL = "ftp://127.0.0.1" },
		"a credential":       func(c *halted.Config) { c.URL = "http://a:b@127.0.0.1" },
		"clear text":         func(c *halted.Config) { c.URL = "http://192.0.2.1:80" },
		"no token":           func(c *halted.Config) { c.Token = composio.Secret{} },
		"a negative timeout": func(c *halted.Config) { c.Timeout = -1 },
	} {
		cfg := ok
		change(&cfg)
		if _, err := halted.New(cfg); err == nil || strings.Contains(err.Error(), "a:b") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := halted.New(ok); err != nil {
		t.Error(err)
	}
}

func ExampleObserver_Remaining() {
	// In place of a gateway that has stopped the agent.
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"error":{"slug":"Gateway_fenced"}}`)
	}))
	defer gateway.Close()

	o, err := halted.New(halted.Config{URL: gateway.URL, Token: composio.NewSecret("the agent's token")})
	if err != nil {
		fmt.Println(err)
		return
	}
	left, err := o.Remaining(context.Background())
	fmt.Println(len(left), err)
	// Output: 0 <nil>
}
