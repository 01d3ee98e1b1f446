package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/composiotest"
	"github.com/managemyclaw/hardshell/composio/gateway"
)

const version = "20260902_00"

// A memory is a recorder that can be made to fail.
type memory struct {
	mu     sync.Mutex
	events []trail.Event
	fail   func(trail.Event) error
}

func (m *memory) Record(_ context.Context, e trail.Event) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := e.Validate(); err != nil {
		return err
	}
	if m.fail != nil {
		if err := m.fail(e); err != nil {
			return err
		}
	}
	m.events = append(m.events, e)
	return nil
}

func (m *memory) failing(f func(trail.Event) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = f
}

func (m *memory) all() []trail.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.events)
}

// where returns the events that match, those of the setting up left out.
func (m *memory) where(match func(trail.Event) bool) []trail.Event {
	return slices.DeleteFunc(m.all(), func(e trail.Event) bool { return !match(e) })
}

func (m *memory) denials() []trail.Event {
	return m.where(func(e trail.Event) bool { return e.Decision == trail.DecisionDeny })
}

// A switchFence is engaged for the agents in it.
type switchFence struct {
	mu  sync.Mutex
	set map[string]bool
	err error
}

func (f *switchFence) engage(agent string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.set == nil {
		f.set = make(map[string]bool)
	}
	f.set[agent] = true
}

func (f *switchFence) Fenced(_ context.Context, agent string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.set[agent] {
		return errors.New("engaged")
	}
	return f.err
}

// A world is a Composio with a mailbox, and a gateway before it.
type world struct {
	t        testing.TB
	composio *composiotest.Server
	gateway  *gateway.Gateway
	trail    *memory
	fence    *switchFence
	policy   *gateway.Policy
	token    composio.Secret // of agent inbox
	other    composio.Secret // of agent calendar
	url      string
	trips    chan gateway.Trip
}

var tags = map[string]string{
	"GMAIL_FETCH_EMAILS":           "readOnlyHint",
	"GMAIL_CREATE_EMAIL_DRAFT":     "createHint",
	"GMAIL_ADD_LABEL_TO_EMAIL":     "updateHint",
	"GMAIL_DELETE_MESSAGE":         "destructiveHint",
	"GMAIL_SEND_EMAIL":             "destructiveHint",
	"GMAIL_EMPTY_TRASH":            "destructiveHint",
	"GOOGLECALENDAR_EVENTS_LIST":   "readOnlyHint",
	"GOOGLECALENDAR_DELETE_EVENT":  "destructiveHint",
	"COMPOSIO_REMOTE_WORKBENCH":    "destructiveHint",
	"COMPOSIO_REMOTE_BASH_TOOL":    "destructiveHint",
	"COMPOSIO_MANAGE_CONNECTIONS":  "destructiveHint",
	"COMPOSIO_MULTI_EXECUTE_TOOL":  "destructiveHint",
	"COMPOSIO_SEARCH_TOOLS":        "readOnlyHint",
	"HACKERNEWS_GET_LATEST_POSTS":  "readOnlyHint",
	"GMAIL_UNTAGGED_THING":         "",
	"GMAIL_GET_PROFILE_OR_WIPE_IT": "readOnlyHint destructiveHint",
}

func newComposio(cfg composiotest.Config) *composiotest.Server {
	s := composiotest.New(cfg)
	for _, slug := range slices.Sorted(maps.Keys(tags)) {
		s.AddTool(composiotest.Tool{
			Slug: slug, Description: "Tool " + slug, Version: "20261001_00", Versions: []string{version, "20260101_00"}, Tags: strings.Fields(tags[slug]),
			NoAuth: strings.HasPrefix(slug, "HACKERNEWS"),
			Input:  map[string]any{"type": "object", "properties": map[string]any{"query": map[string]any{"type": "string"}, "id": map[string]any{"type": "string"}}},
		})
	}
	s.AddAccount(composiotest.Account{ID: "ca_mail", UserID: "ann", Toolkit: "gmail"})
	s.AddAccount(composiotest.Account{ID: "ca_cal", UserID: "ben", Toolkit: "googlecalendar"})
	s.AddAccount(composiotest.Account{ID: "ca_newer", UserID: "ann", Toolkit: "gmail"})
	return s
}

func newPolicy(inbox, calendar gateway.TokenHash) *gateway.Policy {
	return &gateway.Policy{Agents: map[string]gateway.Agent{
		"inbox": {
			Tokens: []gateway.TokenHash{inbox}, UserID: "ann", Accounts: map[string]string{"gmail": "ca_mail"}, MultiExecute: true,
			Tools: map[string]gateway.Grant{
				"GMAIL_FETCH_EMAILS": {Version: version, Arguments: map[string]gateway.Rule{
					"query": {MaxLength: 40}, "max_results": {Type: "integer", Min: new(1.0), Max: new(50.0)},
					"format": {Enum: []string{"full", "minimal"}},
				}},
				"GMAIL_CREATE_EMAIL_DRAFT": {Version: version, Class: composio.ClassCreate, Arguments: map[string]gateway.Rule{
					"to": {Pattern: `[a-z]+@example\.com`, Required: true}, "body": {},
				}},
				"GMAIL_DELETE_MESSAGE":        {Version: version, Class: composio.ClassDestructive},
				"HACKERNEWS_GET_LATEST_POSTS": {Version: version},
			},
			Breaker: gateway.Limit{Calls: 5, Per: time.Minute},
		},
		"calendar": {
			Tokens: []gateway.TokenHash{calendar}, UserID: "ben", Accounts: map[string]string{"googlecalendar": "ca_cal"},
			Tools: map[string]gateway.Grant{"GOOGLECALENDAR_EVENTS_LIST": {Version: version}},
		},
	}}
}

func newWorld(t testing.TB, change ...func(*gateway.Config)) *world {
	t.Helper()
	return newWorldWith(t, composiotest.Config{}, change...)
}

func newWorldWith(t testing.TB, upstream composiotest.Config, change ...func(*gateway.Config)) *world {
	t.Helper()
	w := &world{t: t, composio: newComposio(upstream), trail: new(memory), fence: new(switchFence), trips: make(chan gateway.Trip, 100)}
	var inbox, calendar gateway.TokenHash
	w.token, inbox = gateway.NewToken()
	w.other, calendar = gateway.NewToken()
	w.policy = newPolicy(inbox, calendar)
	cfg := gateway.Config{Policy: w.policy, Upstream: w.composio.Client(), Fence: w.fence, Trail: w.trail, OnTrip: func(trip gateway.Trip) { w.trips <- trip }}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	if w.gateway, err = gateway.New(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
		defer cancel()
		w.trail.failing(nil)
		if err := w.gateway.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return w
}

// listen makes the gateway reachable on loopback.
func (w *world) listen() *world {
	s := httptest.NewServer(w.gateway)
	w.t.Cleanup(s.Close)
	w.url = s.URL
	return w
}

// send sends a request without a network.
func (w *world) send(r *http.Request) *httptest.ResponseRecorder {
	if r.Host == "example.com" { // httptest's
		r.Host = "localhost:8080"
	}
	rec := httptest.NewRecorder()
	w.gateway.ServeHTTP(rec, r)
	return rec
}

// rest sends a request as agent inbox. A body is a string or is encoded.
func (w *world) rest(method, path string, body any) *httptest.ResponseRecorder {
	return w.send(w.request(method, path, body))
}

func (w *world) request(method, path string, body any) *http.Request {
	var in io.Reader
	if text, ok := body.(string); ok {
		in = strings.NewReader(text)
	} else if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			w.t.Fatal(err)
		}
		in = bytes.NewReader(data)
	}
	r := httptest.NewRequestWithContext(w.t.Context(), method, path, in)
	r.Header.Set("X-Api-Key", w.token.Reveal())
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

type object = map[string]any

func (w *world) execute(slug string, arguments object) *httptest.ResponseRecorder {
	return w.rest("POST", "/api/v3.1/tools/execute/"+slug, object{"user_id": "ann", "version": version, "arguments": arguments})
}

// mcp sends a message as agent inbox.
func (w *world) mcp(message any) *httptest.ResponseRecorder { return w.send(w.mcpRequest(message)) }

func (w *world) mcpRequest(message any) *http.Request {
	r := w.request("POST", "/mcp", message)
	r.Header.Del("X-Api-Key")
	r.Header.Set("Authorization", "Bearer "+w.token.Reveal())
	r.Header.Set("Accept", "application/json, text/event-stream")
	r.Header.Set("Mcp-Protocol-Version", "2025-06-18")
	return r
}

func (w *world) mcpCall(tool string, arguments any) *httptest.ResponseRecorder {
	return w.mcp(object{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": object{"name": tool, "arguments": arguments}})
}

// refused reports whether an answer of either door says no.
func refused(rec *httptest.ResponseRecorder) bool {
	if rec.Code >= 400 {
		return true
	}
	var message struct {
		Error  any `json:"error"`
		Result struct {
			IsError bool `json:"isError"`
		} `json:"result"`
		Successful *bool `json:"successful"`
	}
	_ = json.Unmarshal(rec.Body.Bytes(), &message)
	return message.Error != nil || message.Result.IsError || message.Successful != nil && !*message.Successful
}

// executed returns the slugs of the tools that Composio executed.
func (w *world) executed() []string {
	var all []string
	for _, e := range w.composio.Executions() {
		all = append(all, e.Tool)
	}
	return all
}
