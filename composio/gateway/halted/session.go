package halted

import (
	"context"
	"errors"
	"net/http"
	"sync"
)

// A session is one of MCP that was opened before the agent was stopped.
type session struct {
	client *http.Client

	mu    sync.Mutex
	given string // the id of the session, if the gateway gives one
}

func newSession(client *http.Client) *session { return &session{client: client} }

func (s *session) id() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.given
}

const (
	mcpVersion = "2025-06-18"
	initialize = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"` + mcpVersion + `","capabilities":{},"clientInfo":{"name":"hardshell","version":"1"}}}`
	listTools  = `{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{}}`
)

// open opens the session, unless the agent is stopped already.
func (s *session) open(ctx context.Context, o *Observer) error {
	a, header, err := o.do(ctx, s.client, http.MethodPost, "/mcp", initialize, mcpHeader("", ""))
	if err != nil {
		return err
	}
	lets, err := a.judge()
	switch {
	case err != nil:
		return err
	case lets == "" || a.status == http.StatusOK:
	default:
		return errors.New("the gateway does not open a session of MCP")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given = header.Get("Mcp-Session-Id")
	return nil
}

func (o *Observer) askMCP(ctx context.Context, client *http.Client, session string) (answer, error) {
	a, _, err := o.do(ctx, client, http.MethodPost, "/mcp", listTools, mcpHeader(session, mcpVersion))
	return a, err
}

func mcpHeader(session, version string) http.Header {
	h := http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"}}
	if session != "" {
		h.Set("Mcp-Session-Id", session)
	}
	if version != "" {
		h.Set("Mcp-Protocol-Version", version)
	}
	return h
}
