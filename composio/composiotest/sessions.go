package composiotest

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
)

// A session is a tool-router session as it was asked for.
type session struct {
	id      string
	user    string
	body    map[string]json.RawMessage
	deleted bool
}

type mcpServer struct {
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	AuthConfigs []string `json:"auth_config_ids"`
	Allowed     []string `json:"allowed_tools"`
	Deleted     bool     `json:"-"`
}

// An MCPServer is an MCP server to begin with.
type MCPServer struct {
	Name          string
	AuthConfigIDs []string
	AllowedTools  []string // none is all
}

// AddMCPServer adds an MCP server and returns its id.
func (s *Server) AddMCPServer(m MCPServer) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.id("mcp")
	s.servers.add(id, mcpServer{ID: id, Name: m.Name, AuthConfigs: m.AuthConfigIDs, Allowed: m.AllowedTools})
	return id
}

// MCPServers returns the ids of the MCP servers that there are.
func (s *Server) MCPServers() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for _, m := range s.servers.all() {
		if !m.Deleted {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// Sessions returns the ids of the sessions that there are. The API cannot.
func (s *Server) Sessions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for _, x := range s.sessions.all() {
		if !x.deleted {
			ids = append(ids, x.id)
		}
	}
	return ids
}

func (s *Server) createSession(w http.ResponseWriter, r *http.Request) {
	body, ok := fields(w, r, "user_id", "toolkits", "auth_configs", "connected_accounts", "manage_connections", "tools", "tags", "workbench",
		"multi_account", "experimental", "preload", "search", "execute")
	if !ok {
		return
	}
	var user string
	if json.Unmarshal(body["user_id"], &user) != nil || user == "" {
		fail(w, http.StatusBadRequest, 4300, "ToolRouterV2_BadRequest", "user_id is required")
		return
	}
	var accounts map[string][]string
	_ = json.Unmarshal(body["connected_accounts"], &accounts)
	for _, ids := range accounts {
		for _, id := range ids {
			if a := s.accounts.rows[id]; a == nil || a.Deleted || a.Status != "ACTIVE" {
				fail(w, http.StatusBadRequest, 4306, "ToolRouterV2_InvalidConnectedAccountIds", "an account cannot be used")
				return
			}
		}
	}
	x := s.sessions.add(s.id("trs"), session{user: user, body: body})
	x.id = s.sessions.order[len(s.sessions.order)-1]
	reply(w, http.StatusCreated, s.showSession(x, r))
}

// lists are the ways in which a body names what is allowed.
type lists struct {
	Enable  []string `json:"enable"`
	Disable []string `json:"disable"`
}

func (l lists) show() map[string]any {
	if l.Disable != nil {
		return map[string]any{"disabled": l.Disable}
	}
	return map[string]any{"enabled": append([]string{}, l.Enable...)}
}

func (s *Server) showSession(x *session, r *http.Request) map[string]any {
	origin := s.URL
	if origin == "" {
		origin = "https://" + r.Host
	}
	config := map[string]any{"user_id": x.user, "preload": map[string]any{"tools": []string{}}}
	var toolkits lists
	if raw, ok := x.body["toolkits"]; ok && json.Unmarshal(raw, &toolkits) == nil {
		config["toolkits"] = toolkits.show()
	}
	var tools map[string]lists
	if raw, ok := x.body["tools"]; ok && json.Unmarshal(raw, &tools) == nil {
		shown := map[string]any{}
		for tk, l := range tools {
			shown[tk] = l.show()
		}
		config["tools"] = shown
	}
	config["manage_connections"] = map[string]any{"enabled": flag(x.body["manage_connections"], "enable")}
	config["workbench"] = map[string]any{"enable": flag(x.body["workbench"], "enable")}
	config["execute"] = map[string]any{"enable_multi_execute": flag(x.body["execute"], "enable_multi_execute")}
	config["search"] = map[string]any{"enable": flag(x.body["search"], "enable")}
	return map[string]any{
		"session_id": x.id, "mcp": map[string]any{"type": "http", "url": origin + "/tool_router/" + x.id + "/mcp"},
		"tool_router_tools": []string{}, "config": config, "config_version": 1,
	}
}

// flag is a switch whose default is on.
func flag(raw json.RawMessage, name string) bool {
	var m map[string]any
	_ = json.Unmarshal(raw, &m)
	on, ok := m[name].(bool)
	return on || !ok
}

func (s *Server) session(w http.ResponseWriter, r *http.Request) *session {
	if x := s.sessions.rows[r.PathValue("id")]; x != nil && !x.deleted {
		return x
	}
	fail(w, http.StatusNotFound, 4301, "ToolRouterV2_SessionNotFound", "there is no such session")
	return nil
}

func (s *Server) getSession(w http.ResponseWriter, r *http.Request) {
	if x := s.session(w, r); x != nil {
		reply(w, http.StatusOK, s.showSession(x, r))
	}
}

func (s *Server) deleteSession(w http.ResponseWriter, r *http.Request) {
	if x := s.session(w, r); x != nil {
		x.deleted = true
		reply(w, http.StatusOK, map[string]any{"session_id": x.id, "deleted": true})
	}
}

func (s *Server) sessionTools(w http.ResponseWriter, r *http.Request) {
	x := s.session(w, r)
	if x == nil {
		return
	}
	var toolkits lists
	_, limited := x.body["toolkits"]
	_ = json.Unmarshal(x.body["toolkits"], &toolkits)
	var tools map[string]lists
	_ = json.Unmarshal(x.body["tools"], &tools)
	rows := []any{}
	for _, t := range s.tools.all() {
		if limited && (toolkits.Disable == nil && !slices.Contains(toolkits.Enable, t.Toolkit) || slices.Contains(toolkits.Disable, t.Toolkit)) {
			continue
		}
		if l, ok := tools[t.Toolkit]; ok && (l.Disable == nil && !slices.Contains(l.Enable, t.Slug) || slices.Contains(l.Disable, t.Slug)) {
			continue
		}
		rows = append(rows, showTool(t))
	}
	s.list(w, r.URL.Query(), rows)
}

func (s *Server) showMCP(m *mcpServer) map[string]any {
	toolkits := []string{}
	for _, id := range m.AuthConfigs {
		if c := s.authConfigs.rows[id]; c != nil && !slices.Contains(toolkits, c.Toolkit) {
			toolkits = append(toolkits, c.Toolkit)
		}
	}
	return map[string]any{
		"id": m.ID, "name": m.Name, "auth_config_ids": append([]string{}, m.AuthConfigs...), "allowed_tools": append([]string{}, m.Allowed...),
		"mcp_url": s.URL + "/v3/mcp/" + m.ID, "toolkits": toolkits, "toolkit_icons": map[string]any{},
		"commands":   map[string]any{"cursor": "", "claude": "", "windsurf": ""},
		"updated_at": "2026-01-01T00:00:00.000Z", "created_at": "2026-01-01T00:00:00.000Z", "server_instance_count": 0,
		"managed_auth_via_composio": false, "deleted": m.Deleted,
	}
}

func (s *Server) listMCP(w http.ResponseWriter, r *http.Request) {
	rows := []any{}
	for _, m := range s.servers.all() {
		if !m.Deleted {
			rows = append(rows, s.showMCP(m))
		}
	}
	limit, n := number(r.URL.Query(), "limit", 10), number(r.URL.Query(), "page_no", 1)
	limit = min(limit, s.cfg.PageLimit)
	from := min((n-1)*limit, len(rows))
	reply(w, http.StatusOK, map[string]any{
		"items": rows[from:min(from+limit, len(rows))], "total_pages": (len(rows) + limit - 1) / limit, "current_page": n,
	})
}

func number(q url.Values, name string, otherwise int) int {
	if n, err := strconv.Atoi(q.Get(name)); err == nil && n > 0 {
		return n
	}
	return otherwise
}

func (s *Server) createMCP(w http.ResponseWriter, r *http.Request) {
	var m mcpServer
	if !decode(w, r, &m) {
		return
	}
	if m.Name == "" || len(m.AuthConfigs) == 0 {
		fail(w, http.StatusBadRequest, 500, "MCP_BadRequest", "name and auth_config_ids are required")
		return
	}
	m.ID = s.id("mcp")
	reply(w, http.StatusCreated, s.showMCP(s.servers.add(m.ID, m)))
}

func (s *Server) mcp(w http.ResponseWriter, r *http.Request) *mcpServer {
	if m := s.servers.rows[r.PathValue("id")]; m != nil && !m.Deleted {
		return m
	}
	fail(w, http.StatusNotFound, 500, "MCP_NotFound", "there is no such server")
	return nil
}

func (s *Server) getMCP(w http.ResponseWriter, r *http.Request) {
	if m := s.mcp(w, r); m != nil {
		reply(w, http.StatusOK, s.showMCP(m))
	}
}

func (s *Server) patchMCP(w http.ResponseWriter, r *http.Request) {
	m := s.mcp(w, r)
	if m == nil {
		return
	}
	id := m.ID
	if decode(w, r, m) {
		m.ID = id
		reply(w, http.StatusOK, s.showMCP(m))
	}
}

func (s *Server) deleteMCP(w http.ResponseWriter, r *http.Request) {
	if m := s.mcp(w, r); m != nil {
		m.Deleted = true
		reply(w, http.StatusOK, map[string]any{"id": m.ID, "deleted": true})
	}
}
