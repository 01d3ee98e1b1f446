package composiotest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// A Tool is a tool of the project.
type Tool struct {
	Slug        string
	Name        string // the slug if empty
	Description string
	Toolkit     string // what comes before the first underscore of the slug, if empty
	Version     string // the latest; "20260101_00" if empty
	Versions    []string
	Tags        []string
	NoAuth      bool

	// Input is the JSON schema of the arguments; one that names none, if nil.
	Input map[string]any

	// Run is what the tool does. Nil answers with the arguments. It is called
	// while the server is locked, and must not call its methods.
	Run func(arguments map[string]any) (map[string]any, error)
}

// An Execution is a tool that was executed.
type Execution struct {
	LogID     string
	At        time.Time
	Tool      string
	Version   string
	UserID    string
	AccountID string
	Arguments map[string]any
	Failed    bool
}

// AddTool adds a tool.
func (s *Server) AddTool(t Tool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	prefix, _, _ := strings.Cut(t.Slug, "_")
	t.Name, t.Toolkit, t.Version = or(t.Name, t.Slug), or(t.Toolkit, strings.ToLower(prefix)), or(t.Version, "20260101_00")
	if !slices.Contains(t.Versions, t.Version) {
		t.Versions = append(slices.Clone(t.Versions), t.Version)
	}
	s.tools.add(t.Slug, t)
}

// Executions returns the tools that were executed, in order.
func (s *Server) Executions() []Execution {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.executions)
}

func showTool(t *Tool) map[string]any {
	object := map[string]any{"type": "object", "properties": map[string]any{}}
	input := t.Input
	if input == nil {
		input = object
	}
	return map[string]any{
		"slug": t.Slug, "name": t.Name, "description": t.Description, "human_description": t.Description,
		"toolkit": map[string]any{"slug": t.Toolkit, "name": t.Toolkit, "logo": ""}, "input_parameters": input, "output_parameters": object,
		"no_auth": t.NoAuth, "available_versions": t.Versions, "version": t.Version, "scopes": []string{}, "scope_requirements": nil,
		"tags": append([]string{}, t.Tags...), "is_deprecated": false,
		"deprecated": map[string]any{
			"displayName": t.Name, "version": t.Version, "available_versions": t.Versions, "is_deprecated": false, "toolkit": map[string]any{"logo": ""},
		},
	}
}

func (s *Server) listTools(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	slugs, tags := values(q, "tool_slugs"), values(q, "tags")
	rows := []any{}
	for _, t := range s.tools.all() {
		if slugs != nil {
			if !fold(slugs, t.Slug) {
				continue
			}
		} else if !fold(values(q, "toolkit_slug"), t.Toolkit) || slices.ContainsFunc(tags, func(tag string) bool { return !slices.Contains(t.Tags, tag) }) {
			continue
		}
		rows = append(rows, showTool(t))
	}
	s.list(w, q, rows)
}

func (s *Server) tool(w http.ResponseWriter, slug, version string) *Tool {
	t := s.tools.rows[strings.ToUpper(slug)]
	if t == nil || version != "" && version != "latest" && !slices.Contains(t.Versions, version) {
		fail(w, http.StatusNotFound, 2301, "Tool_ToolNotFound", "there is no such tool or version")
		return nil
	}
	return t
}

func (s *Server) getTool(w http.ResponseWriter, r *http.Request) {
	version := r.URL.Query().Get("version")
	if t := s.tool(w, r.PathValue("slug"), version); t != nil {
		row := showTool(t)
		if version != "" && version != "latest" {
			row["version"] = version
		}
		reply(w, http.StatusOK, row)
	}
}

func (s *Server) execute(w http.ResponseWriter, r *http.Request) {
	var body struct {
		AccountID string         `json:"connected_account_id"`
		UserID    string         `json:"user_id"`
		EntityID  string         `json:"entity_id"`
		Version   string         `json:"version"`
		Arguments map[string]any `json:"arguments"`
		Text      string         `json:"text"`
	}
	if !decode(w, r, &body) {
		return
	}
	t := s.tool(w, r.PathValue("slug"), body.Version)
	if t == nil {
		return
	}
	user := or(body.UserID, body.EntityID)
	var with *Account
	if !t.NoAuth {
		switch {
		case user == "":
			fail(w, http.StatusBadRequest, 1811, "ActionExecute_ConnectedAccountEntityIdRequired", "user_id is required")
			return
		case body.AccountID != "":
			with = s.accounts.rows[body.AccountID]
			if with != nil && !with.Shared && with.UserID != user {
				fail(w, http.StatusBadRequest, 1812, "ActionExecute_ConnectedAccountEntityIdMismatch", "the account is of another user")
				return
			}
		default:
			for _, a := range s.accounts.all() { // the last that was connected
				if a.UserID == user && a.Toolkit == t.Toolkit && !a.Deleted && a.Status == "ACTIVE" {
					with = a
				}
			}
		}
		if with == nil || with.Deleted || with.Status != "ACTIVE" || with.Toolkit != t.Toolkit {
			fail(w, http.StatusNotFound, 1810, "ActionExecute_ConnectedAccountNotFound", "there is no such account that is active")
			return
		}
		c := s.authConfigs.rows[with.AuthConfigID]
		if c != nil && len(c.Execute) > 0 && !slices.Contains(c.Execute, t.Slug) {
			fail(w, http.StatusForbidden, 1800, "ActionExecute_ToolNotAllowed", "the auth config does not allow the tool")
			return
		}
	}
	e := Execution{LogID: s.id("log"), At: s.now(), Tool: t.Slug, Version: or(body.Version, t.Version), UserID: user, Arguments: body.Arguments}
	if with != nil {
		e.AccountID = with.ID
		with.Executions++
	}
	out, failure := body.Arguments, any(nil)
	if out == nil {
		out = map[string]any{}
	}
	if t.Run != nil {
		result, err := t.Run(body.Arguments)
		if out = result; err != nil {
			out, failure, e.Failed = map[string]any{}, err.Error(), true
		}
	}
	s.executions = append(s.executions, e)
	reply(w, http.StatusOK, map[string]any{
		"data": out, "error": failure, "successful": !e.Failed, "log_id": e.LogID, "session_info": nil,
	})
}

func (s *Server) showExecution(e Execution) map[string]any {
	status, level := "success", "info"
	if e.Failed {
		status, level = "failed", "error"
	}
	prefix, _, _ := strings.Cut(e.Tool, "_")
	return map[string]any{
		"id": e.LogID, "timestamp": e.At.UTC().Format(time.RFC3339Nano), "type": "tool.execution", "status": status, "level": level,
		"metadata": map[string]any{
			"tool_slug": e.Tool, "toolkit_slug": strings.ToLower(prefix), "connected_account_id": e.AccountID, "user_id": e.UserID,
		},
		"metrics": map[string]any{}, "parent": nil,
	}
}

func (s *Server) listExecutions(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Limit   int     `json:"limit"`
		Cursor  *string `json:"cursor"`
		Filters []struct {
			Field, Operator, Value string
		} `json:"filters"`
		Range *struct {
			From, To int64
		} `json:"time_range"`
	}
	if !decode(w, r, &body) {
		return
	}
	rows := []map[string]any{}
	for _, e := range slices.Backward(s.executions) {
		row := s.showExecution(e)
		ok := body.Range == nil || e.At.UnixMilli() >= body.Range.From && e.At.UnixMilli() <= body.Range.To
		for _, f := range body.Filters {
			got, _ := row["metadata"].(map[string]any)[f.Field].(string)
			if f.Field == "log_id" {
				got = e.LogID
			}
			if f.Field == "status" {
				got, _ = row["status"].(string)
			}
			switch f.Operator {
			case "==":
				ok = ok && got == f.Value
			case "!=":
				ok = ok && got != f.Value
			case "contains":
				ok = ok && strings.Contains(got, f.Value)
			case "not_contains":
				ok = ok && !strings.Contains(got, f.Value)
			}
		}
		if ok {
			rows = append(rows, row)
		}
	}
	from := 0
	if body.Cursor != nil && *body.Cursor != "" {
		from = len(rows)
		for i, row := range rows { // the cursor is the last row that was given
			if row["id"] == *body.Cursor {
				from = i + 1
			}
		}
	}
	limit := s.cfg.PageLimit
	if body.Limit > 0 {
		limit = min(limit, body.Limit)
	}
	to := min(from+limit, len(rows))
	var next any
	if to < len(rows) {
		next = rows[to-1]["id"]
	}
	reply(w, http.StatusOK, map[string]any{"logs": rows[from:to], "next_cursor": next})
}

func (s *Server) getExecution(w http.ResponseWriter, r *http.Request) {
	for _, e := range s.executions {
		if e.LogID != r.PathValue("id") {
			continue
		}
		row := s.showExecution(e)
		row["data"] = map[string]any{"request": e.Arguments}
		row["context"], row["source"] = map[string]any{}, map[string]any{}
		if s.project.Logs == "dont_store_data" {
			row["data"] = map[string]any{}
		}
		reply(w, http.StatusOK, row)
		return
	}
	fail(w, http.StatusNotFound, 1800, "Log_NotFound", "there is no such log")
}

type projectConfig struct {
	Mask       bool   `json:"mask_secret_keys_in_connected_account"`
	RequireMCP bool   `json:"require_mcp_api_key"`
	Logs       string `json:"log_visibility_setting"`
	TwoFactor  bool   `json:"is_2FA_enabled"`
}

func (s *Server) getProject(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, s.project)
}

func (s *Server) patchProject(w http.ResponseWriter, r *http.Request) {
	p := s.project
	if decode(w, r, &p) {
		s.project = p
		reply(w, http.StatusOK, s.project)
	}
}

func (s *Server) regenerateKey(w http.ResponseWriter, r *http.Request) {
	if r.PathValue("id") != ProjectID {
		fail(w, http.StatusNotFound, 10404, "Project_NotFound", "there is no such project")
		return
	}
	for key, kind := range s.keys {
		if kind == "project" {
			delete(s.keys, key)
		}
	}
	id := s.id("key")
	key := "ak_regenerated_" + id
	s.keys[key] = "project"
	reply(w, http.StatusOK, map[string]any{
		"api_key": map[string]any{"id": id, "name": "key", "key": key, "created_at": "2026-01-01T00:00:00.000Z"}, "message": "regenerated",
	})
}

func (s *Server) revokeKeys(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Keys []json.RawMessage `json:"api_keys"`
	}
	if !decode(w, r, &body) {
		return
	}
	if len(body.Keys) == 0 || len(body.Keys) > 100 {
		fail(w, http.StatusBadRequest, 800, "APIKey_BadRequest", "1 to 100 keys")
		return
	}
	for _, raw := range body.Keys {
		var key string
		if json.Unmarshal(raw, &key) == nil {
			delete(s.keys, key)
		}
	}
	reply(w, http.StatusOK, map[string]any{"received": true})
}
