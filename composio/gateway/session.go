package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/managemyclaw/hardshell/composio"
)

// SessionVersion is the version of the tools of a [Session]: whatever the
// session was made with. To grant a tool at it says that this is known.
const SessionVersion = "session"

// A SessionConfig configures a [Session].
type SessionConfig struct {
	// URL is where the session speaks MCP: [composio.Session.MCPURL]. Plain
	// http is accepted for a loopback address only.
	URL string

	// APIKey is the project's key. It is sent to the host of URL alone.
	APIKey composio.Secret

	// UserID is the user that the session was made for. It executes for
	// nobody else.
	UserID string

	// Transport sends the requests. Nil means one that uses no proxy. It is
	// never asked to follow a redirect.
	Transport http.RoundTripper

	// Timeout bounds the listing of tools, and the handshake. Zero means
	// [composio.DefaultTimeout].
	Timeout time.Duration
}

// A Session is an [Upstream] that uses a tool-router session of Composio over
// MCP. What it offers is what the session offers, less what the policy does
// not grant.
//
// Over MCP a call names neither the account nor the version: they are those
// that the session was made with. So its tools are of [SessionVersion], and a
// policy names as account the one that is pinned in the session. Each user
// needs a session of its own, see [Config.PerAgent].
//
// A Session is made by [NewSession], connects when it is first used and again
// after a connection was lost, and may be used concurrently.
type Session struct {
	cfg  SessionConfig
	http *http.Client

	mu      sync.Mutex
	session *mcp.ClientSession
}

var (
	_ Upstream = (*composio.Client)(nil)
	_ Upstream = (*Session)(nil)
)

// NewSession returns a session. The error says which field of cfg is wrong.
func NewSession(cfg SessionConfig) (*Session, error) {
	u, err := url.Parse(cfg.URL)
	switch {
	case err != nil || u.Host == "":
		return nil, errors.New("gateway: SessionConfig.URL is not an absolute URL")
	case u.User != nil || u.Fragment != "":
		return nil, errors.New("gateway: SessionConfig.URL must have neither user nor fragment")
	case u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())):
		return nil, errors.New("gateway: SessionConfig.URL must be https, for the key would cross the network in clear")
	case cfg.APIKey.IsZero():
		return nil, errors.New("gateway: SessionConfig.APIKey is missing")
	case cfg.UserID == "":
		return nil, errors.New("gateway: SessionConfig.UserID is missing")
	case cfg.Timeout < 0:
		return nil, errors.New("gateway: SessionConfig.Timeout is negative")
	}
	setDefault(&cfg.Timeout, composio.DefaultTimeout)
	if cfg.Transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.Proxy = nil
		cfg.Transport = t
	}
	return &Session{cfg: cfg, http: &http.Client{
		Transport:     keyed{cfg.Transport, u.Scheme, u.Host, cfg.APIKey},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// maxSessionBody bounds an answer of a session.
const maxSessionBody = composio.DefaultMaxBodyBytes

// A keyed transport sends the key to one host, and sends nothing to others.
type keyed struct {
	http.RoundTripper
	scheme, host string
	key          composio.Secret
}

func (k keyed) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != k.scheme || r.URL.Host != k.host {
		return nil, errors.New("the session asks for another host, which does not get the key")
	}
	r = r.Clone(r.Context())
	r.GetBody = nil // otherwise net/http may send a call again
	r.Header.Set(headerKey, k.key.Reveal())
	resp, err := k.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxSessionBody), resp.Body}
	return resp, nil
}

// connect returns the connection, and makes one if there is none.
func (s *Session) connect(ctx context.Context) (*mcp.ClientSession, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session != nil {
		return s.session, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	client := mcp.NewClient(&mcp.Implementation{Name: "hardshell", Version: "1"}, &mcp.ClientOptions{Capabilities: &mcp.ClientCapabilities{}})
	session, err := client.Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint: s.cfg.URL, HTTPClient: s.http, MaxRetries: -1, DisableStandaloneSSE: true, MaxEventSize: maxSessionBody,
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("gateway: session: it cannot be connected: %w", s.hide(err))
	}
	s.session = session
	return session, nil
}

// drop forgets a connection that failed, so that the next call makes another.
func (s *Session) drop(failed *mcp.ClientSession) {
	s.mu.Lock()
	if s.session == failed {
		s.session = nil
	}
	s.mu.Unlock()
	go func() { _ = failed.Close() }() // it may wait for a server that is gone
}

// hide returns err without the key, should something have put it in.
func (s *Session) hide(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if strings.Contains(err.Error(), s.cfg.APIKey.Reveal()) {
		return errors.New("[redacted]")
	}
	return err
}

// Close ends the connection.
func (s *Session) Close() error {
	s.mu.Lock()
	session := s.session
	s.session = nil
	s.mu.Unlock()
	if session == nil {
		return nil
	}
	return session.Close()
}

// Tool implements [Upstream].
func (s *Session) Tool(ctx context.Context, slug, version string) (composio.Tool, error) {
	if version != "" && version != SessionVersion {
		return composio.Tool{}, fmt.Errorf("gateway: session: its tools have version %q alone: %w", SessionVersion, composio.ErrNotFound)
	}
	session, err := s.connect(ctx)
	if err != nil {
		return composio.Tool{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	for t, err := range session.Tools(ctx, nil) {
		if err != nil {
			s.drop(session)
			return composio.Tool{}, fmt.Errorf("gateway: session: list tools: %w", s.hide(err))
		}
		if t.Name == slug {
			return sessionTool(t)
		}
	}
	return composio.Tool{}, fmt.Errorf("gateway: session: it has no tool %s: %w", slug, composio.ErrNotFound)
}

func sessionTool(t *mcp.Tool) (composio.Tool, error) {
	input, err := composio.NewData(t.InputSchema)
	if err != nil {
		return composio.Tool{}, fmt.Errorf("gateway: session: tool %s: its schema is not JSON", t.Name)
	}
	out := composio.Tool{Slug: t.Name, Name: t.Name, Description: t.Description, Version: SessionVersion, Versions: []string{SessionVersion}, Input: input}
	if t.Title != "" {
		out.Name = t.Title
	}
	// MCP knows three classes, and what is not said to be harmless destroys
	// (MCP 2025-06-18, ToolAnnotations). What says nothing is not classified.
	switch a := t.Annotations; {
	case a == nil:
	case a.DestructiveHint != nil && *a.DestructiveHint:
		out.Tags = []string{"destructiveHint"}
	case a.ReadOnlyHint:
		out.Tags = []string{"readOnlyHint"}
	case a.DestructiveHint != nil:
		out.Tags = []string{"updateHint"}
	default:
		out.Tags = []string{"destructiveHint"}
	}
	return out, nil
}

// Execute implements [Upstream].
func (s *Session) Execute(ctx context.Context, call composio.Call) (composio.Result, error) {
	if call.UserID != s.cfg.UserID {
		return composio.Result{}, refusedHere("the session is of another user")
	}
	session, err := s.connect(ctx)
	if err != nil {
		return composio.Result{}, err
	}
	res, err := session.CallTool(ctx, &mcp.CallToolParams{Name: call.Tool, Arguments: json.RawMessage(call.Arguments.Bytes())})
	if err != nil {
		s.drop(session)
		return composio.Result{}, fmt.Errorf("gateway: session: execute %s: %w", call.Tool, s.hide(err))
	}
	return sessionResult(res)
}

// refusedHere is the error for a call that was not sent.
func refusedHere(why string) error {
	return fmt.Errorf("gateway: session: %s: %w", why, &composio.APIError{Op: "execute", Status: http.StatusForbidden, Slug: "Session_Mismatch"})
}

// sessionResult reads what Composio puts into a text over MCP: the same that it
// answers with over the API. Anything else is passed on as it is.
func sessionResult(res *mcp.CallToolResult) (composio.Result, error) {
	if len(res.Content) == 1 {
		if text, ok := res.Content[0].(*mcp.TextContent); ok {
			var w struct {
				Successful *bool         `json:"successful"`
				Data       composio.Data `json:"data"`
				Error      any           `json:"error"`
				LogID      string        `json:"log_id"`
				LogID2     string        `json:"logId"`
			}
			if json.Unmarshal([]byte(text.Text), &w) == nil && w.Successful != nil {
				out := composio.Result{Successful: *w.Successful && !res.IsError, Output: w.Data, LogID: identifier(w.LogID + w.LogID2)}
				if s, ok := w.Error.(string); ok {
					out.Failure = composio.NewSecret(s)
				}
				return out, nil
			}
		}
	}
	data, err := composio.NewData(map[string]any{"content": res.Content})
	if err != nil {
		return composio.Result{}, errors.New("gateway: session: the answer is not JSON")
	}
	return composio.Result{Successful: !res.IsError, Output: data}, nil
}

// identifier returns s if it looks like an id, for it goes into records.
func identifier(s string) string {
	ok := func(r rune) bool {
		return r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
	}
	if len(s) > 100 || strings.ContainsFunc(s, func(r rune) bool { return !ok(r) }) {
		return ""
	}
	return s
}
