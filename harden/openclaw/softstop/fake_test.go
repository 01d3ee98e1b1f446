package softstop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/managemyclaw/hardshell/composio"
)

const secret = "a-token-that-nobody-must-see-0123456789"

// A fake answers as OpenClaw 2026.9.6 was seen to; the same cases are run
// against both, see [cases].
type fake struct {
	t      testing.TB
	server *httptest.Server

	mu       sync.Mutex
	sessions map[string]*fakeSession
	tasks    map[string]bool // by id, whether it runs
	model    []string        // what the model was asked
	held     *fakeLease
	leases   int // how many were asked for
	next     int
	conns    map[*websocket.Conn]bool

	// Faults.
	scopes   []string
	protocol int
	methods  []string
	silent   map[string]bool                              // methods that are not answered
	answer   map[string]func() (any, map[string]any)      // instead of what it would answer
	after    map[string]func()                            // when a method has been carried out, unlocked
	greeting func(ctx context.Context, c *websocket.Conn) // instead of the handshake
	limit    int                                          // of leases
}

type fakeSession struct {
	runs   string // what its turn is about, "" if it has none
	queued []string
	tool   bool // a command of its turn runs
}

type fakeLease struct{ id, request, phase, policy string }

func newFake(t testing.TB) *fake {
	f := &fake{
		t: t, sessions: make(map[string]*fakeSession), tasks: make(map[string]bool), conns: make(map[*websocket.Conn]bool),
		scopes: []string{"operator.admin", "operator.read", "operator.write"}, protocol: 4, limit: 30,
		methods: append(slices.Clone(methods), "gateway.restart.preflight", "gateway.suspend.status", "chat.send"),
		silent:  map[string]bool{}, answer: map[string]func() (any, map[string]any){}, after: map[string]func(){},
	}
	f.server = httptest.NewServer(f)
	t.Cleanup(func() {
		f.drop()
		f.server.Close()
	})
	return f
}

// drop breaks all connections, as a gateway does that ends.
func (f *fake) drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		_ = c.CloseNow()
	}
}

func (f *fake) config() Config {
	return Config{URL: "ws" + strings.TrimPrefix(f.server.URL, "http"), Token: composio.NewSecret(secret), Timeout: 5 * time.Second}
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	f.mu.Lock()
	f.conns[c] = true
	greeting := f.greeting
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.conns, c)
		f.mu.Unlock()
		_ = c.CloseNow()
	}()
	if greeting != nil {
		greeting(r.Context(), c)
		return
	}
	f.send(r.Context(), c, map[string]any{"type": "event", "event": "connect.challenge", "payload": map[string]any{"nonce": "n", "ts": 1}})
	greeted := false
	for {
		_, data, err := c.Read(r.Context())
		if err != nil {
			return
		}
		var q struct {
			Type, ID, Method string
			Params           json.RawMessage
		}
		if json.Unmarshal(data, &q) != nil || q.Type != "req" || greeted == (q.Method == "connect") {
			_ = c.Close(websocket.StatusPolicyViolation, "invalid request frame")
			return
		}
		f.mu.Lock()
		silent, after := f.silent[q.Method], f.after[q.Method]
		var result any
		var problem map[string]any
		if special := f.answer[q.Method]; special != nil {
			result, problem = special()
		} else {
			result, problem = f.handle(q.Method, q.Params)
		}
		f.mu.Unlock()
		if after != nil {
			after()
		}
		if silent {
			continue
		}
		if problem != nil {
			f.send(r.Context(), c, map[string]any{"type": "res", "id": q.ID, "ok": false, "error": problem})
			if q.Method == "connect" {
				_ = c.Close(websocket.StatusPolicyViolation, "unauthorized: "+secret)
				return
			}
			continue
		}
		greeted = true
		f.send(r.Context(), c, map[string]any{"type": "event", "event": "tick", "payload": map[string]any{"ts": 1}})
		f.send(r.Context(), c, map[string]any{"type": "res", "id": q.ID, "ok": true, "payload": result})
	}
}

func (f *fake) send(ctx context.Context, c *websocket.Conn, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		f.t.Error(err)
	}
	_ = c.Write(ctx, websocket.MessageText, data)
}

func refuse(code, reason string) map[string]any {
	return map[string]any{"code": code, "message": "no: " + secret, "details": map[string]any{"reason": reason}}
}

// handle is called with f.mu locked.
func (f *fake) handle(method string, params json.RawMessage) (any, map[string]any) {
	// The protocol's schemas are closed: a member that is not known is refused.
	read := func(v any) bool {
		d := json.NewDecoder(bytes.NewReader(params))
		d.DisallowUnknownFields()
		return d.Decode(v) == nil
	}
	invalid := refuse("INVALID_REQUEST", "")
	if method != "connect" && !slices.Contains(f.methods, method) {
		return nil, invalid
	}
	if f.held != nil && method != "connect" && !strings.HasPrefix(method, "gateway.suspend.") {
		p := refuse("UNAVAILABLE", "gateway-suspending")
		p["details"].(map[string]any)["phase"] = f.held.phase
		return nil, p
	}
	switch method {
	case "connect":
		var p struct {
			MinProtocol, MaxProtocol int
			Client                   struct{ ID, Version, Platform, Mode string }
			Role                     string
			Scopes, Caps             []string
			Auth                     struct{ Token string }
		}
		if !read(&p) || p.Client.ID != "gateway-client" || p.Client.Mode != "backend" || p.Role != "operator" || p.Caps == nil {
			return nil, invalid
		}
		if p.Auth.Token != secret {
			return nil, map[string]any{"code": "INVALID_REQUEST", "message": "unauthorized: " + p.Auth.Token, "details": map[string]any{"code": "AUTH_TOKEN_MISMATCH"}}
		}
		phase := "accepting"
		if f.held != nil {
			phase = f.held.phase
		}
		return map[string]any{
			"type": "hello-ok", "protocol": f.protocol, "features": map[string]any{"methods": f.methods},
			"snapshot": map[string]any{"suspension": map[string]any{"phase": phase}},
			"auth":     map[string]any{"role": "operator", "scopes": f.scopes},
			"policy":   map[string]any{"tickIntervalMs": 15000},
		}, nil
	case "sessions.list":
		var p struct {
			ActiveOnly, IncludeGlobal, IncludeUnknown bool
			Limit, Offset                             int
		}
		if !read(&p) {
			return nil, invalid
		}
		keys := slices.DeleteFunc(slices.Sorted(maps.Keys(f.sessions)), func(k string) bool { return p.ActiveOnly && f.sessions[k].idle() })
		total := len(keys)
		keys = keys[min(p.Offset, total):min(p.Offset+p.Limit, total)]
		rows := []any{}
		for _, k := range keys {
			rows = append(rows, map[string]any{"key": k, "agentId": "main", "hasActiveRun": !f.sessions[k].idle()})
		}
		return map[string]any{"sessions": rows, "count": len(rows), "totalCount": total, "hasMore": p.Offset+len(rows) < total}, nil
	case "sessions.abort":
		var p struct {
			Key, AgentID string
			ClearQueued  bool
		}
		if !read(&p) || p.Key == "" {
			return nil, invalid
		}
		s := f.sessions[p.Key]
		if s == nil || s.idle() {
			return map[string]any{"ok": true, "abortedRunId": nil, "status": "no-active-run"}, nil
		}
		queued := s.queued
		*s = fakeSession{}
		if !p.ClearQueued && queued != nil {
			s.runs, s.queued = queued[0], queued[1:]
			f.model = append(f.model, s.runs)
		}
		return map[string]any{"ok": true, "abortedRunId": "run", "status": "aborted"}, nil
	case "tasks.list":
		var p struct {
			Status []string
			Limit  int
			Cursor string
		}
		if !read(&p) {
			return nil, invalid
		}
		ids := slices.DeleteFunc(slices.Sorted(maps.Keys(f.tasks)), func(id string) bool { return !f.tasks[id] || id <= p.Cursor })
		out := map[string]any{}
		rows := []any{}
		for i, id := range ids {
			if i == p.Limit {
				out["nextCursor"] = ids[i-1]
				break
			}
			rows = append(rows, map[string]any{"id": id, "taskId": id, "kind": "exec", "status": "running"})
		}
		out["tasks"] = rows
		return out, nil
	case "tasks.cancel":
		var p struct{ TaskID, Reason string }
		if !read(&p) {
			return nil, invalid
		}
		found := f.tasks[p.TaskID]
		f.tasks[p.TaskID] = false
		return map[string]any{"found": found, "cancelled": found}, nil
	case "gateway.restart.preflight":
		n := f.busy()
		return map[string]any{"safe": n == 0, "blockers": []any{map[string]any{"kind": "queue", "count": n, "message": secret}}}, nil
	case "gateway.suspend.prepare":
		var p struct {
			RequestID, TerminalPolicy string
			Drain                     bool
		}
		if !read(&p) || p.RequestID == "" {
			return nil, invalid
		}
		if f.leases++; f.leases > f.limit {
			return nil, refuse("RATE_LIMITED", "")
		}
		n := f.busy()
		blockers := []any{map[string]any{"kind": "queue", "count": n, "message": secret}}
		switch {
		case f.held != nil && f.held.request != p.RequestID:
			return nil, refuse("UNAVAILABLE", "gateway-suspension-conflict")
		case n > 0 && !p.Drain && f.held == nil:
			return map[string]any{"status": "busy", "activeCount": n, "blockers": blockers, "reason": "active-work"}, nil
		case f.held == nil:
			f.next++
			f.held = &fakeLease{id: "lease" + strconv.Itoa(f.next), request: p.RequestID, policy: p.TerminalPolicy}
		}
		f.held.phase = "prepared"
		status := "ready"
		if n > 0 {
			f.held.phase, status = "draining", "draining"
		}
		return map[string]any{"status": status, "suspensionId": f.held.id, "activeCount": n, "blockers": blockers, "expiresAtMs": 1}, nil
	case "gateway.suspend.resume":
		var p struct{ SuspensionID string }
		if !read(&p) {
			return nil, invalid
		}
		if f.held == nil {
			return map[string]any{"ok": true, "status": "running", "resumed": false}, nil
		}
		if f.held.id != p.SuspensionID {
			return nil, invalid
		}
		f.held = nil
		return map[string]any{"ok": true, "status": "running", "resumed": true}, nil
	case "chat.send":
		var p struct{ SessionKey, Message, IdempotencyKey string }
		if !read(&p) {
			return nil, invalid
		}
		f.begin(p.SessionKey, p.Message)
		return map[string]any{"runId": p.IdempotencyKey, "status": "started"}, nil
	}
	return nil, invalid
}

func (s *fakeSession) idle() bool { return s.runs == "" && len(s.queued) == 0 }

func (f *fake) busy() int {
	n := 0
	for _, s := range f.sessions {
		if !s.idle() {
			n++
		}
	}
	for _, runs := range f.tasks {
		if runs {
			n++
		}
	}
	return n
}

// begin is what a message sets off.
func (f *fake) begin(key, message string) {
	s := f.sessions[key]
	if s == nil {
		s = new(fakeSession)
		f.sessions[key] = s
	}
	if s.runs != "" {
		s.queued = append(s.queued, message)
		return
	}
	f.model = append(f.model, message)
	switch {
	case strings.HasPrefix(message, askBackground):
		f.next++
		f.tasks[fmt.Sprintf("task-%05d", f.next)] = true
	case strings.HasPrefix(message, askForeground):
		s.runs, s.tool = message, true
	case strings.HasPrefix(message, askHang):
		s.runs = message
	}
}

func (f *fake) asked(message string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, m := range f.model {
		if strings.Contains(m, message) {
			n++
		}
	}
	return n
}

func (f *fake) waitingForModel() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, s := range f.sessions {
		if strings.HasPrefix(s.runs, askHang) {
			n++
		}
	}
	return n
}

func (f *fake) commands() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, s := range f.sessions {
		if s.tool {
			n++
		}
	}
	for _, runs := range f.tasks {
		if runs {
			n++
		}
	}
	return n
}
