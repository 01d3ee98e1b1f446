package composiotest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/composio"
)

// The keys that a new project has.
const (
	ProjectKey = "ak_test_project_key"
	UserKey    = "uak_test_user_key"
	OrgKey     = "oak_test_org_key"
	ProjectID  = "pr_test"
)

// A Config configures a [Server]. The zero Config is a fast server without
// limits or faults.
type Config struct {
	// Latency is how long every answer takes.
	Latency time.Duration

	// RateLimit is the number of requests that a window takes; zero is no
	// limit. Window is its length, one minute if zero.
	RateLimit int
	Window    time.Duration

	// PageLimit is the largest page; 100 if zero. A limit above it is
	// reduced to it.
	PageLimit int

	// LyingPages makes an answer whose limit was reduced say that it is the
	// only page, while total_items tells the truth.
	LyingPages bool

	// JobDelay is the time until the job of a deletion revokes. Unless
	// JobsRevokeAll, it does so for accounts alone that were ACTIVE.
	JobDelay      time.Duration
	JobsRevokeAll bool

	// VerifyCallbacks makes a connection wait for complete_auth.
	VerifyCallbacks bool

	// IgnoreUserFilter makes listings of accounts ignore user_ids.
	IgnoreUserFilter bool

	// OmitUserID leaves the user out of accounts, as is announced.
	OmitUserID bool

	// Fault, if not nil, is asked about each request. It may be called
	// concurrently.
	Fault func(*http.Request) Fault
}

// A Server is a project of Composio's. Its methods may be called concurrently.
type Server struct {
	// URL is where the server listens after [Server.Start].
	URL string

	cfg  Config
	mux  *http.ServeMux
	http *http.Server

	mu          sync.Mutex
	now         func() time.Time
	serial      int
	keys        map[string]string // key → "project", "user", "org"
	accounts    table[Account]
	authConfigs table[AuthConfig]
	tools       table[Tool]
	sessions    table[session]
	servers     table[mcpServer]
	triggers    table[Trigger]
	executions  []Execution
	links       map[string]*link // by token
	jobs        []job
	project     projectConfig
	requests    []Request
	windowStart time.Time
	windowUsed  int
}

// A Request is one that the server received.
type Request struct {
	Method  string
	Path    string
	Query   string // raw
	Body    []byte
	Status  int      // of the answer; zero if it was never given
	Headers []string // names of the headers that carried a credential
	Fault   Fault
}

// New returns an empty project.
func New(cfg Config) *Server {
	if cfg.Window == 0 {
		cfg.Window = time.Minute
	}
	if cfg.PageLimit == 0 {
		cfg.PageLimit = 100
	}
	s := &Server{
		cfg: cfg, mux: http.NewServeMux(), now: time.Now, links: make(map[string]*link), project: projectConfig{Mask: true, Logs: "show_all"},
		keys: map[string]string{ProjectKey: "project", UserKey: "user", OrgKey: "org"},
	}
	s.routes()
	return s
}

// Start makes the server listen on a free port of 127.0.0.1 and sets its URL.
func (s *Server) Start() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("composiotest: %w", err)
	}
	s.URL = "http://" + l.Addr().String()
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.http.Serve(l) }() // ends with Close
	return nil
}

// Close ends what Start began, and the requests under way with it.
func (s *Server) Close() error {
	if s.http == nil {
		return nil
	}
	return s.http.Close()
}

// ClientConfig returns the configuration of a client of this project: over
// loopback if the server listens, without a network otherwise.
func (s *Server) ClientConfig() composio.Config {
	cfg := composio.Config{
		APIKey: composio.NewSecret(ProjectKey), OrgKey: composio.NewSecret(OrgKey), BaseURL: s.URL,
	}
	if s.URL == "" {
		cfg.BaseURL, cfg.Transport = "https://composio.test", s.Transport()
	}
	return cfg
}

// Client returns a client of this project; see [Server.ClientConfig].
func (s *Server) Client() *composio.Client {
	c, err := composio.New(s.ClientConfig())
	if err != nil {
		panic(err) // the configuration is this package's own
	}
	return c
}

// Requests returns what the server received, in order.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// routes is the API, as far as it is here. The rest answers 404.
func (s *Server) routes() {
	for pattern, h := range map[string]handler{
		"GET connected_accounts":                         s.listAccounts,
		"GET connected_accounts/{id}":                    s.getAccount,
		"PATCH connected_accounts/{id}/status":           s.setAccountStatus,
		"POST connected_accounts/{id}/revoke":            s.revokeAccount,
		"DELETE connected_accounts/{id}":                 s.deleteAccount,
		"POST connected_accounts/link":                   s.createLink,
		"POST connected_accounts/complete_auth":          s.completeAuth,
		"GET auth_configs":                               s.listAuthConfigs,
		"GET auth_configs/{id}":                          s.getAuthConfig,
		"PATCH auth_configs/{id}":                        s.patchAuthConfig,
		"PATCH auth_configs/{id}/{status}":               s.setAuthConfigStatus,
		"DELETE auth_configs/{id}":                       s.deleteAuthConfig,
		"GET tools":                                      s.listTools,
		"GET tools/{slug}":                               s.getTool,
		"POST tools/execute/{slug}":                      s.execute,
		"POST tool_router/session":                       s.createSession,
		"GET tool_router/session/{id}":                   s.getSession,
		"DELETE tool_router/session/{id}":                s.deleteSession,
		"GET tool_router/session/{id}/tools":             s.sessionTools,
		"GET mcp/servers":                                s.listMCP,
		"POST mcp/servers":                               s.createMCP,
		"GET mcp/{id}":                                   s.getMCP,
		"PATCH mcp/{id}":                                 s.patchMCP,
		"DELETE mcp/{id}":                                s.deleteMCP,
		"GET trigger_instances/active":                   s.listTriggers,
		"PATCH trigger_instances/manage/{id}":            s.setTrigger,
		"DELETE trigger_instances/manage/{id}":           s.deleteTrigger,
		"POST logs/tool_execution":                       s.listExecutions,
		"GET logs/tool_execution/{id}":                   s.getExecution,
		"GET org/project/config":                         s.getProject,
		"PATCH org/project/config":                       s.patchProject,
		"POST org/owner/project/{id}/regenerate_api_key": s.regenerateKey,
		"POST api_key_revocation":                        s.revokeKeys,
	} {
		method, path, _ := strings.Cut(pattern, " ")
		s.mux.HandleFunc(method+" /api/v3.1/"+path, func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.runJobs()
			h(w, r)
		})
	}
}

// A handler answers a request that has been let in. It holds s.mu.
type handler func(http.ResponseWriter, *http.Request)

// ServeHTTP answers a request of the API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 8<<20))
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var fault Fault
	if s.cfg.Fault != nil {
		fault = s.cfg.Fault(r)
	}
	n := s.record(r, body, fault)
	if d := s.cfg.Latency + fault.Delay; d > 0 && !pause(r, d) {
		return
	}
	if fault.Hang {
		<-r.Context().Done()
		return
	}
	status := &statusWriter{ResponseWriter: w}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.requests[n].Status = status.code
	}()
	switch {
	case fault.Status == http.StatusTooManyRequests:
		tooMany(status, max(fault.RetryAfter, time.Second))
	case fault.Status != 0:
		fail(status, fault.Status, 10500, "HTTP_Fault", "a fault was injected")
	case fault.Garbage:
		status.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(status, "<html><body>welcome</body></html>")
	case fault.Lose:
		s.admit(discard{header: http.Header{}}, r)
		panic(http.ErrAbortHandler)
	case fault.Truncate:
		var rec recorder
		s.admit(&rec, r)
		w.Header().Set("Content-Length", strconv.Itoa(rec.body.Len()+10))
		w.WriteHeader(rec.status())
		_, _ = w.Write(rec.body.Bytes())
		panic(http.ErrAbortHandler)
	default:
		s.admit(status, r)
	}
}

// pause waits and reports whether the client is still there.
func pause(r *http.Request, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

func (s *Server) record(r *http.Request, body []byte, f Fault) int {
	var headers []string
	for _, h := range []string{"X-Api-Key", "X-User-Api-Key", "X-Org-Api-Key", "Authorization", "Cookie"} {
		if len(r.Header.Values(h)) > 0 {
			headers = append(headers, h)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, Request{
		Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Body: body, Headers: headers, Fault: f,
	})
	return len(s.requests) - 1
}

// admit checks the rate and the credential of a request and has it carried out.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/api/v1/") || strings.HasPrefix(r.URL.Path, "/api/v2/") {
		fail(w, http.StatusGone, 10410, "HTTP_Gone", "this version of the API is no more")
		return
	}
	if wait, ok := s.spend(w); !ok {
		tooMany(w, wait)
		return
	}
	if strings.HasSuffix(r.URL.Path, "/api_key_revocation") {
		s.mux.ServeHTTP(w, r)
		return
	}
	var kinds []string
	for h, kind := range map[string]string{"X-Api-Key": "project", "X-User-Api-Key": "user", "X-Org-Api-Key": "org"} {
		values := r.Header.Values(h)
		if len(values) == 0 {
			continue
		}
		s.mu.Lock()
		known := len(values) == 1 && s.keys[values[0]] == kind
		s.mu.Unlock()
		if !known {
			kind = "unknown"
		}
		kinds = append(kinds, kind)
	}
	want := []string{"project", "user"}
	if strings.Contains(r.URL.Path, "/org/owner/") {
		want = []string{"org"}
	}
	switch {
	case len(kinds) > 1:
		fail(w, http.StatusUnauthorized, 10401, "HTTP_Unauthorized", "Multiple authentication modes")
	case len(kinds) == 0, !slices.Contains(want, kinds[0]):
		fail(w, http.StatusUnauthorized, 10401, "HTTP_Unauthorized", "the key is not valid")
	default:
		s.mux.ServeHTTP(w, r)
	}
}

// spend counts a request against the window, and says how long to wait if it is
// spent.
func (s *Server) spend(w http.ResponseWriter) (time.Duration, bool) {
	if s.cfg.RateLimit == 0 {
		return 0, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if now.Sub(s.windowStart) >= s.cfg.Window {
		s.windowStart, s.windowUsed = now, 0
	}
	ok := s.windowUsed < s.cfg.RateLimit
	if ok {
		s.windowUsed++
	}
	h := w.Header()
	h.Set("X-RateLimit", strconv.Itoa(s.cfg.RateLimit))
	h.Set("X-RateLimit-Remaining", strconv.Itoa(s.cfg.RateLimit-s.windowUsed))
	h.Set("X-RateLimit-Window-Size", fmt.Sprintf("%.0fs", s.cfg.Window.Seconds()))
	return s.cfg.Window - now.Sub(s.windowStart), ok
}

func tooMany(w http.ResponseWriter, wait time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusTooManyRequests)
	_, _ = io.WriteString(w, `{"message":"Too many requests"}`)
}

func fail(w http.ResponseWriter, status, code int, slug, message string) {
	reply(w, status, map[string]any{"error": map[string]any{
		"message": message, "code": code, "slug": slug, "status": status, "request_id": "req_test",
	}})
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil && !errors.Is(err, http.ErrHandlerTimeout) {
		return // the client is gone
	}
}

// decode reads a body; one that is not an object answers 400.
func decode(w http.ResponseWriter, r *http.Request, v any) bool {
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		fail(w, http.StatusBadRequest, 10400, "HTTP_BadRequest", "the body is not valid")
		return false
	}
	return true
}

func (s *Server) id(prefix string) string {
	s.serial++
	return fmt.Sprintf("%s_%06d", prefix, s.serial)
}
