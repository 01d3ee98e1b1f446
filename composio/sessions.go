package composio

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// A SessionSpec describes a tool-router session. What it does not name is off:
// the session cannot connect or remove accounts, has no workbench to run code
// in, and cannot wrap many calls in one.
type SessionSpec struct {
	UserID string // required

	// Tools maps each toolkit to the tools of it that are allowed. It must
	// not be empty, and neither may a list.
	Tools map[string][]string

	// Accounts maps toolkits to the ids of the accounts to use. An account
	// that is gone makes the whole session fail.
	Accounts map[string][]string
}

// A Session is a tool-router session. The API lists none: who makes one must
// keep its id.
type Session struct {
	ID            string
	UserID        string
	MCPURL        string // needs the project's key; never give it to an agent
	ConfigVersion int

	// Tools maps each toolkit to the tools that are allowed. A toolkit with
	// a nil list allows all of its tools, and no toolkit at all allows all.
	Tools map[string][]string

	// What lets an agent go round a list of tools.
	ManagesConnections bool
	Workbench          bool
	MultiExecute       bool
}

type enabled struct {
	Enabled []string `json:"enabled"`
}

type sessionWire struct {
	ID  string `json:"session_id"`
	MCP struct {
		URL string `json:"url"`
	} `json:"mcp"`
	Config struct {
		UserID   string             `json:"user_id"`
		Toolkits enabled            `json:"toolkits"`
		Tools    map[string]enabled `json:"tools"`
		Manage   struct {
			Enabled *bool `json:"enabled"`
		} `json:"manage_connections"`
		Workbench struct {
			Enable *bool `json:"enable"`
		} `json:"workbench"`
		Execute struct {
			MultiExecute *bool `json:"enable_multi_execute"`
		} `json:"execute"`
	} `json:"config"`
	ConfigVersion float64 `json:"config_version"`
}

func (w sessionWire) session() Session {
	// Composio's defaults are on.
	on := func(b *bool) bool { return b == nil || *b }
	s := Session{
		ID: w.ID, UserID: w.Config.UserID, MCPURL: w.MCP.URL, ConfigVersion: int(w.ConfigVersion), Tools: make(map[string][]string),
		ManagesConnections: on(w.Config.Manage.Enabled), Workbench: on(w.Config.Workbench.Enable), MultiExecute: on(w.Config.Execute.MultiExecute),
	}
	for _, tk := range w.Config.Toolkits.Enabled {
		s.Tools[tk] = nil
	}
	for tk, e := range w.Config.Tools {
		if _, ok := s.Tools[tk]; ok {
			s.Tools[tk] = e.Enabled
		}
	}
	return s
}

// CreateSession makes a session, reads it back and returns what was read. It
// is sent once. If what was read allows more than spec, the session is deleted
// and the error matches [ErrNotApplied].
func (c *Client) CreateSession(ctx context.Context, spec SessionSpec) (Session, error) {
	if spec.UserID == "" {
		return Session{}, errors.New("composio: create session: UserID is empty")
	}
	if len(spec.Tools) == 0 {
		return Session{}, errors.New("composio: create session: Tools is empty, which the API takes for every tool: name at least one")
	}
	type list struct {
		Enable []string `json:"enable"`
	}
	type off struct {
		Enable bool `json:"enable"`
	}
	tools := make(map[string]list, len(spec.Tools))
	for tk, slugs := range spec.Tools {
		if err := checkID("toolkit", tk); err != nil {
			return Session{}, err
		}
		if err := checkTools("create session: toolkit "+tk, slugs); err != nil {
			return Session{}, err
		}
		tools[tk] = list{slugs}
	}
	body := struct {
		UserID    string              `json:"user_id"`
		Toolkits  list                `json:"toolkits"`
		Tools     map[string]list     `json:"tools"`
		Accounts  map[string][]string `json:"connected_accounts,omitempty"`
		Manage    off                 `json:"manage_connections"`
		Workbench off                 `json:"workbench"`
		Execute   struct {
			MultiExecute bool `json:"enable_multi_execute"`
		} `json:"execute"`
	}{UserID: spec.UserID, Toolkits: list{slices.Sorted(maps.Keys(spec.Tools))}, Tools: tools, Accounts: spec.Accounts}
	var w sessionWire
	r := request{op: "create session", method: http.MethodPost, path: []string{"tool_router", "session"}, body: body}
	if _, err := c.do(ctx, r, &w); err != nil {
		return Session{}, err
	}
	s, err := c.Session(ctx, w.ID)
	if err == nil {
		err = spec.check(s)
	}
	if err == nil {
		return s, nil
	}
	// What is wider than it should be must not stay, even if the caller goes.
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*c.timeout)
	defer cancel()
	if undone := c.DeleteSession(undo, w.ID); undone != nil {
		err = fmt.Errorf("%w; and it could not be deleted: %w", err, undone)
	}
	return s, err
}

// check reports in how far s allows more than the spec, or something else.
func (spec SessionSpec) check(s Session) error {
	switch {
	case s.UserID != spec.UserID:
		return fmt.Errorf("%w: session %s is of user %q", ErrNotApplied, s.ID, s.UserID)
	case s.ManagesConnections || s.Workbench || s.MultiExecute:
		return fmt.Errorf("%w: session %s can manage connections, run code or wrap calls", ErrNotApplied, s.ID)
	case len(s.Tools) != len(spec.Tools):
		return fmt.Errorf("%w: session %s has %d toolkits, and %d were asked for", ErrNotApplied, s.ID, len(s.Tools), len(spec.Tools))
	}
	for tk, want := range spec.Tools {
		if got := s.Tools[tk]; !sameTools(got, want) {
			return fmt.Errorf("%w: session %s has %d tools of %s, and %d were asked for", ErrNotApplied, s.ID, len(got), tk, len(want))
		}
	}
	return nil
}

// Session returns a session as the API has it.
func (c *Client) Session(ctx context.Context, id string) (Session, error) {
	if err := checkID("session", id); err != nil {
		return Session{}, err
	}
	var w sessionWire
	r := request{op: "get session " + id, method: http.MethodGet, path: []string{"tool_router", "session", id}, repeat: always}
	if _, err := c.do(ctx, r, &w); err != nil {
		return Session{}, err
	}
	if w.ID != id {
		return Session{}, fmt.Errorf("composio: %s: %w: it is about another session", r.op, ErrAnswer)
	}
	return w.session(), nil
}

// SessionTools lists the tools that a session offers.
func (c *Client) SessionTools(ctx context.Context, id string) iter.Seq2[Tool, error] {
	if err := checkID("session", id); err != nil {
		return fail[Tool](err)
	}
	return c.tools(ctx, "tools of session "+id, newFilter(500), []string{"tool_router", "session", id, "tools"}, nil)
}

// DeleteSession deletes a session. That there is none is no error if the
// request had to be repeated.
func (c *Client) DeleteSession(ctx context.Context, id string) error {
	return c.remove(ctx, "session", id, "tool_router", "session", id)
}

// remove deletes something. It is gone, too, if a repetition finds nothing.
func (c *Client) remove(ctx context.Context, what, id string, path ...string) error {
	if err := checkID(what, id); err != nil {
		return err
	}
	a, err := c.do(ctx, request{op: "delete " + what + " " + id, method: http.MethodDelete, path: path, repeat: always}, nil)
	if a.lost && errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// An MCPServer offers tools of the project's accounts over MCP.
type MCPServer struct {
	ID            string
	Name          string
	URL           string
	AuthConfigIDs []string
	Toolkits      []string
	AllowedTools  []string // empty means all
	Instances     int
	CreatedAt     time.Time
}

type mcpWire struct {
	ID            string   `json:"id"`
	Name          string   `json:"name"`
	URL           string   `json:"mcp_url"`
	AuthConfigIDs []string `json:"auth_config_ids"`
	Toolkits      []string `json:"toolkits"`
	AllowedTools  []string `json:"allowed_tools"`
	Instances     float64  `json:"server_instance_count"`
	CreatedAt     string   `json:"created_at"`
	Deleted       bool     `json:"deleted"`
}

func (w mcpWire) server() MCPServer {
	return MCPServer{
		ID: w.ID, Name: w.Name, URL: w.URL, AuthConfigIDs: w.AuthConfigIDs, Toolkits: w.Toolkits, AllowedTools: w.AllowedTools,
		Instances: int(w.Instances), CreatedAt: moment(w.CreatedAt),
	}
}

// MCPServers lists the MCP servers of the project.
func (c *Client) MCPServers(ctx context.Context) iter.Seq2[MCPServer, error] {
	return listing[mcpWire, MCPServer]{
		what: "MCP servers", paging: uncursored,
		fetch: func(ctx context.Context, cursor string) (p page[mcpWire], err error) {
			_, err = c.do(ctx, request{
				op: "list MCP servers", method: http.MethodGet, path: []string{"mcp", "servers"},
				query: url.Values{"limit": {"50"}, "page_no": {cursor}}, repeat: always,
			}, &p)
			return p, err
		},
		row: mcpWire.server,
		id:  func(s MCPServer) string { return s.ID },
	}.all(ctx)
}

// MCPServer returns one MCP server. One that was deleted is not found.
func (c *Client) MCPServer(ctx context.Context, id string) (MCPServer, error) {
	if err := checkID("MCP server", id); err != nil {
		return MCPServer{}, err
	}
	var w mcpWire
	r := request{op: "get MCP server " + id, method: http.MethodGet, path: []string{"mcp", id}, repeat: always}
	if _, err := c.do(ctx, r, &w); err != nil {
		return MCPServer{}, err
	}
	if w.ID != id {
		return MCPServer{}, fmt.Errorf("composio: %s: %w: it is about another server", r.op, ErrAnswer)
	}
	if w.Deleted {
		return MCPServer{}, &APIError{Op: r.op, Status: http.StatusNotFound}
	}
	return w.server(), nil
}

// An MCPServerSpec describes an MCP server.
type MCPServerSpec struct {
	Name          string   // required
	AuthConfigIDs []string // required
	AllowedTools  []string // required: the API takes none for all
}

// CreateMCPServer makes an MCP server, reads it back and returns what was
// read. It is sent once. If what was read allows other tools, the server is
// deleted and the error matches [ErrNotApplied].
func (c *Client) CreateMCPServer(ctx context.Context, spec MCPServerSpec) (MCPServer, error) {
	if spec.Name == "" || len(spec.AuthConfigIDs) == 0 {
		return MCPServer{}, errors.New("composio: create MCP server: Name and AuthConfigIDs are required")
	}
	if err := checkTools("create MCP server", spec.AllowedTools); err != nil {
		return MCPServer{}, err
	}
	body := struct {
		Name          string   `json:"name"`
		AuthConfigIDs []string `json:"auth_config_ids"`
		AllowedTools  []string `json:"allowed_tools"`
	}{spec.Name, spec.AuthConfigIDs, spec.AllowedTools}
	var w mcpWire
	if _, err := c.do(ctx, request{op: "create MCP server", method: http.MethodPost, path: []string{"mcp", "servers"}, body: body}, &w); err != nil {
		return MCPServer{}, err
	}
	s, err := c.MCPServer(ctx, w.ID)
	if err == nil && !sameTools(s.AllowedTools, spec.AllowedTools) {
		err = notAllowed(s, spec.AllowedTools)
	}
	if err == nil {
		return s, nil
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*c.timeout)
	defer cancel()
	if undone := c.DeleteMCPServer(undo, w.ID); undone != nil {
		err = fmt.Errorf("%w; and it could not be deleted: %w", err, undone)
	}
	return s, err
}

// RestrictMCPServer makes tools the only ones that a server offers, reads that
// back and returns what was read. It refuses an empty list.
func (c *Client) RestrictMCPServer(ctx context.Context, id string, tools []string) (MCPServer, error) {
	if err := checkID("MCP server", id); err != nil {
		return MCPServer{}, err
	}
	if err := checkTools("MCP server "+id, tools); err != nil {
		return MCPServer{}, err
	}
	return c.setAllowed(ctx, "restrict MCP server "+id, id, tools)
}

// UnrestrictMCPServer makes a server offer all tools, reads that back and
// returns what was read. It is there to undo [Client.RestrictMCPServer] of a
// server that had no list before.
func (c *Client) UnrestrictMCPServer(ctx context.Context, id string) (MCPServer, error) {
	if err := checkID("MCP server", id); err != nil {
		return MCPServer{}, err
	}
	return c.setAllowed(ctx, "unrestrict MCP server "+id, id, []string{})
}

func (c *Client) setAllowed(ctx context.Context, op, id string, tools []string) (MCPServer, error) {
	r := request{
		op: op, method: http.MethodPatch, path: []string{"mcp", id},
		body: map[string][]string{"allowed_tools": tools}, repeat: always,
	}
	if _, err := c.do(ctx, r, nil); err != nil {
		return MCPServer{}, err
	}
	s, err := c.MCPServer(ctx, id)
	if err == nil && !sameTools(s.AllowedTools, tools) {
		err = notAllowed(s, tools)
	}
	return s, err
}

func notAllowed(s MCPServer, want []string) error {
	return fmt.Errorf("%w: MCP server %s allows %d tools, and %d were to be allowed (none means all)", ErrNotApplied, s.ID, len(s.AllowedTools), len(want))
}

// DeleteMCPServer deletes an MCP server.
func (c *Client) DeleteMCPServer(ctx context.Context, id string) error {
	return c.remove(ctx, "MCP server", id, "mcp", id)
}
