package composiotest

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
)

// linkLife is how long a link, and the session of a callback, can be used.
const linkLife = 10 * time.Minute

type link struct {
	account string
	until   time.Time
	session string // of the callback; set when the link was opened
	used    bool
}

func (s *Server) listAccounts(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	kind := or(q.Get("account_type"), "PRIVATE")
	ids, users, statuses := values(q, "connected_account_ids"), values(q, "user_ids"), values(q, "statuses")
	toolkits, configs := values(q, "toolkit_slugs"), values(q, "auth_config_ids")
	if s.cfg.IgnoreUserFilter {
		users = nil
	}
	rows := []any{}
	for _, a := range s.accounts.all() {
		hidden := kind == "PRIVATE" && a.Shared || kind == "SHARED" && !a.Shared
		if a.Deleted || hidden || !matches(ids, a.ID) || !matches(users, a.UserID) || !matches(statuses, a.Status) ||
			!fold(toolkits, a.Toolkit) || !matches(configs, a.AuthConfigID) {
			continue
		}
		rows = append(rows, s.show(a))
	}
	s.list(w, q, rows)
}

// show is an account as the API has it.
func (s *Server) show(a *Account) map[string]any {
	val := map[string]any{"status": a.Status, "token_type": "Bearer"}
	for name, token := range a.Tokens {
		val[name] = s.mask(a, token)
	}
	kind := "PRIVATE"
	if a.Shared {
		kind = "SHARED"
	}
	config := s.authConfigs.rows[a.AuthConfigID]
	row := map[string]any{
		"id": a.ID, "word_id": "word-" + a.ID, "alias": a.Alias, "user_id": a.UserID, "status": a.Status, "status_reason": nil,
		"is_disabled": a.Status == "INACTIVE", "toolkit": map[string]any{"slug": a.Toolkit},
		"auth_config": map[string]any{
			"id": a.AuthConfigID, "auth_scheme": a.AuthScheme, "is_composio_managed": a.Managed, "is_disabled": config == nil || config.Disabled || config.Deleted,
		},
		"experimental": map[string]any{"account_type": kind}, "requested_scopes": []string{},
		"created_at": a.CreatedAt.UTC().Format(time.RFC3339Nano), "updated_at": a.CreatedAt.UTC().Format(time.RFC3339Nano),
		"state": map[string]any{"authScheme": a.AuthScheme, "val": val}, "data": val, "params": map[string]any{},
		"test_request_endpoint": "",
	}
	if s.cfg.OmitUserID {
		delete(row, "user_id")
	}
	return row
}

func (s *Server) mask(a *Account, token string) string {
	switch {
	case a.Managed:
		return "REDACTED"
	case s.project.Mask:
		return token[:min(4, len(token))] + "..."
	}
	return token
}

// account returns the account of a request, or answers 404.
func (s *Server) account(w http.ResponseWriter, r *http.Request) *Account {
	if a := s.accounts.rows[r.PathValue("id")]; a != nil && !a.Deleted {
		return a
	}
	fail(w, http.StatusNotFound, 606, "ConnectedAccount_ResourceNotFound", "there is no such account")
	return nil
}

func (s *Server) getAccount(w http.ResponseWriter, r *http.Request) {
	if a := s.account(w, r); a != nil {
		reply(w, http.StatusOK, s.show(a))
	}
}

func (s *Server) setAccountStatus(w http.ResponseWriter, r *http.Request) {
	a := s.account(w, r)
	var body struct {
		Enabled *bool `json:"enabled"`
	}
	if a == nil || !decode(w, r, &body) {
		return
	}
	switch {
	case body.Enabled == nil:
		fail(w, http.StatusBadRequest, 600, "ConnectedAccount_BadRequest", "enabled is required")
		return
	case a.Status != "ACTIVE" && a.Status != "INACTIVE":
		fail(w, http.StatusConflict, 600, "ConnectedAccount_Conflict", "the account cannot go from "+a.Status)
		return
	case *body.Enabled:
		a.Status = "ACTIVE"
	default:
		a.Status = "INACTIVE"
	}
	reply(w, http.StatusOK, map[string]any{"success": true})
}

func (s *Server) revokeAccount(w http.ResponseWriter, r *http.Request) {
	a := s.account(w, r)
	if a == nil {
		return
	}
	if c := s.authConfigs.rows[a.AuthConfigID]; c == nil || c.Deleted {
		fail(w, http.StatusNotFound, 606, "ConnectedAccount_ResourceNotFound", "the auth config of the account was removed")
		return
	}
	revoked := []string{}
	switch {
	case a.Leases > 0:
		a.Leases--
		fail(w, http.StatusConflict, 600, "ConnectedAccount_Conflict", "another operation has the account")
		return
	case a.Status == "REVOKED":
	case a.Status != "ACTIVE":
		fail(w, http.StatusConflict, 600, "ConnectedAccount_Conflict", "the account is "+a.Status)
		return
	case a.Provider == CannotRevoke:
		fail(w, http.StatusBadRequest, 600, "ConnectedAccount_BadRequest", "the toolkit has no revocation")
		return
	default:
		tokens, ok := upstream(a)
		if !ok {
			fail(w, http.StatusInternalServerError, 600, "ConnectedAccount_RevokeFailed", "every revocation failed")
			return
		}
		revoked, a.Status = append(revoked, tokens...), "REVOKED"
	}
	reply(w, http.StatusOK, map[string]any{
		"revoked_tokens": revoked, "connected_account": map[string]any{"id": a.ID, "status": a.Status},
	})
}

func (s *Server) deleteAccount(w http.ResponseWriter, r *http.Request) {
	a := s.account(w, r)
	if a == nil {
		return
	}
	answer := map[string]any{"success": true}
	a.Deleted = true
	if r.URL.Query().Get("revoke_on_delete") == "true" {
		answer["revoke_job_id"] = s.startJob(a)
	}
	reply(w, http.StatusOK, answer)
}

func (s *Server) startJob(accounts ...*Account) string {
	id := s.id("pj")
	for _, a := range accounts {
		s.jobs = append(s.jobs, job{id: id, account: a.ID, at: s.now().Add(s.cfg.JobDelay), active: a.Status == "ACTIVE"})
	}
	return id
}

func (s *Server) createLink(w http.ResponseWriter, r *http.Request) {
	var body struct {
		AuthConfigID string `json:"auth_config_id"`
		UserID       string `json:"user_id"`
		Alias        string `json:"alias"`
	}
	if !decode(w, r, &body) {
		return
	}
	c := s.authConfigs.rows[body.AuthConfigID]
	switch {
	case body.UserID == "" || body.AuthConfigID == "":
		fail(w, http.StatusBadRequest, 612, "ConnectedAccount_MissingRequiredFields", "auth_config_id and user_id are required")
		return
	case c == nil || c.Deleted:
		fail(w, http.StatusNotFound, 200, "AuthConfig_NotFound", "there is no such auth config")
		return
	case c.Disabled:
		fail(w, http.StatusBadRequest, 200, "AuthConfig_Disabled", "the auth config is disabled")
		return
	}
	a := Account{
		ID: s.id("ca"), UserID: body.UserID, Alias: body.Alias, Toolkit: c.Toolkit, AuthConfigID: c.ID, AuthScheme: c.AuthScheme,
		Managed: c.Managed, Status: "INITIATED", CreatedAt: s.now(),
	}
	s.accounts.add(a.ID, a)
	token := s.id("lk")
	l := &link{account: a.ID, until: s.now().Add(linkLife)}
	s.links[token] = l
	reply(w, http.StatusCreated, map[string]any{
		"link_token": token, "redirect_url": "https://connect.composio.test/link/" + token,
		"expires_at": l.until.UTC().Format(time.RFC3339Nano), "connected_account_id": a.ID,
	})
}

// OpenLink is what a person does with a link: to open it and consent. The
// account is then ACTIVE, or, with [Config.VerifyCallbacks], waits for
// complete_auth with the session URI that is returned.
func (s *Server) OpenLink(token string) (sessionURI string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.links[token]
	if l == nil || l.used || s.now().After(l.until) {
		return "", errors.New("composiotest: the link cannot be used")
	}
	a := s.accounts.rows[l.account]
	if a == nil || a.Deleted || a.Status != "INITIATED" {
		return "", errors.New("composiotest: the account of the link is gone")
	}
	l.used = true
	if s.cfg.VerifyCallbacks {
		l.session = "https://connect.composio.test/session/" + s.id("cs")
		l.until = s.now().Add(linkLife)
		return l.session, nil
	}
	connect(a)
	return "", nil
}

func connect(a *Account) {
	a.Status = "ACTIVE"
	a.Tokens = map[string]string{"access_token": "ya29.token-of-" + a.ID, "refresh_token": "1//refresh-of-" + a.ID}
	a.Live = []string{"access_token", "refresh_token"}
}

func (s *Server) completeAuth(w http.ResponseWriter, r *http.Request) {
	var body struct {
		SessionURI string `json:"session_uri"`
		UserID     string `json:"user_id"`
	}
	if !decode(w, r, &body) {
		return
	}
	for _, l := range s.links {
		if l.session == "" || l.session != body.SessionURI {
			continue
		}
		a := s.accounts.rows[l.account]
		l.session = ""
		if a == nil || a.Deleted || s.now().After(l.until) {
			break
		}
		if or(body.UserID, "default") != a.UserID {
			a.Status = "FAILED"
			fail(w, http.StatusForbidden, 600, "ConnectedAccount_UserMismatch", "the user is another one")
			return
		}
		connect(a)
		reply(w, http.StatusOK, map[string]any{"connected_account": s.show(a)})
		return
	}
	fail(w, http.StatusNotFound, 606, "ConnectedAccount_ResourceNotFound", "the session cannot be redeemed")
}

func (s *Server) listAuthConfigs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	rows := []any{}
	for _, c := range s.authConfigs.all() {
		if c.Deleted || c.Disabled && q.Get("show_disabled") != "true" || !fold(values(q, "toolkit_slug"), c.Toolkit) {
			continue
		}
		rows = append(rows, s.showConfig(c))
	}
	s.list(w, q, rows)
}

func (s *Server) showConfig(c *AuthConfig) map[string]any {
	status, n := "ENABLED", 0
	if c.Disabled {
		status = "DISABLED"
	}
	for _, a := range s.accounts.all() {
		if a.AuthConfigID == c.ID && !a.Deleted {
			n++
		}
	}
	access := map[string]any{}
	if len(c.Execute) > 0 {
		access["tools_available_for_execution"] = c.Execute
	}
	if len(c.Connect) > 0 {
		access["tools_for_connected_account_creation"] = c.Connect
	}
	return map[string]any{
		"id": c.ID, "uuid": "uuid-" + c.ID, "type": c.Kind, "toolkit": map[string]any{"slug": c.Toolkit, "logo": ""}, "name": c.Name,
		"auth_scheme": c.AuthScheme, "is_composio_managed": c.Managed, "status": status, "no_of_connections": n,
		"tool_access_config": access, "created_at": "2026-01-01T00:00:00.000Z", "expected_input_fields": []any{}, "restrict_to_following_tools": []string{},
	}
}

func (s *Server) authConfig(w http.ResponseWriter, r *http.Request) *AuthConfig {
	if c := s.authConfigs.rows[r.PathValue("id")]; c != nil && !c.Deleted {
		return c
	}
	fail(w, http.StatusNotFound, 200, "AuthConfig_NotFound", "there is no such auth config")
	return nil
}

func (s *Server) getAuthConfig(w http.ResponseWriter, r *http.Request) {
	if c := s.authConfig(w, r); c != nil {
		reply(w, http.StatusOK, s.showConfig(c))
	}
}

func (s *Server) patchAuthConfig(w http.ResponseWriter, r *http.Request) {
	c := s.authConfig(w, r)
	var body struct {
		Type   string `json:"type"`
		Name   string `json:"name"`
		Access *struct {
			Execute *[]string `json:"tools_available_for_execution"`
			Connect *[]string `json:"tools_for_connected_account_creation"`
		} `json:"tool_access_config"`
	}
	if c == nil || !decode(w, r, &body) {
		return
	}
	if body.Type != c.Kind {
		fail(w, http.StatusBadRequest, 200, "AuthConfig_BadRequest", "type is required and is that of the auth config")
		return
	}
	c.Name = or(body.Name, c.Name)
	if body.Access != nil {
		// A list that is empty is no list: everything is allowed.
		if body.Access.Execute != nil {
			c.Execute = *body.Access.Execute
		}
		if body.Access.Connect != nil {
			c.Connect = *body.Access.Connect
		}
	}
	reply(w, http.StatusOK, map[string]any{})
}

func (s *Server) setAuthConfigStatus(w http.ResponseWriter, r *http.Request) {
	c := s.authConfig(w, r)
	if c == nil {
		return
	}
	switch strings.ToUpper(r.PathValue("status")) {
	case "ENABLED":
		c.Disabled = false
	case "DISABLED":
		c.Disabled = true
	default:
		fail(w, http.StatusBadRequest, 200, "AuthConfig_BadRequest", "the status is ENABLED or DISABLED")
		return
	}
	reply(w, http.StatusOK, map[string]any{})
}

func (s *Server) deleteAuthConfig(w http.ResponseWriter, r *http.Request) {
	c := s.authConfig(w, r)
	if c == nil {
		return
	}
	c.Deleted = true
	answer := map[string]any{}
	if r.URL.Query().Get("revoke_on_delete") == "true" {
		var of []*Account
		for _, a := range s.accounts.all() {
			if a.AuthConfigID == c.ID && !a.Deleted {
				of = append(of, a)
			}
		}
		answer["revoke_job_id"] = s.startJob(of...)
	}
	reply(w, http.StatusOK, answer)
}

func (s *Server) showTrigger(t *Trigger) map[string]any {
	var disabled any
	if t.Disabled {
		disabled = "2026-01-02T00:00:00.000Z"
	}
	return map[string]any{
		"id": t.ID, "connected_account_id": t.AccountID, "connectedAccountId": t.AccountID, "trigger_name": t.Name, "triggerName": t.Name,
		"connected_account_uuid": "uuid-" + t.AccountID, "user_id": t.UserID, "version": "00000000_00", "trigger_config": map[string]any{},
		"triggerConfig": map[string]any{}, "state": map[string]any{}, "updated_at": "2026-01-01T00:00:00.000Z", "updatedAt": "2026-01-01T00:00:00.000Z",
		"disabled_at": disabled, "disabledAt": disabled,
	}
}

func (s *Server) listTriggers(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	rows := []any{}
	for _, t := range s.triggers.all() {
		if t.Deleted || t.Disabled && q.Get("show_disabled") != "true" || !matches(values(q, "user_ids"), t.UserID) ||
			!matches(values(q, "connected_account_ids"), t.AccountID) || !matches(values(q, "trigger_ids"), t.ID) {
			continue
		}
		rows = append(rows, s.showTrigger(t))
	}
	s.list(w, q, rows)
}

func (s *Server) trigger(w http.ResponseWriter, r *http.Request) *Trigger {
	if t := s.triggers.rows[r.PathValue("id")]; t != nil && !t.Deleted {
		return t
	}
	fail(w, http.StatusNotFound, 1200, "TriggerInstance_NotFound", "there is no such trigger")
	return nil
}

func (s *Server) setTrigger(w http.ResponseWriter, r *http.Request) {
	t := s.trigger(w, r)
	var body struct {
		Status string `json:"status"`
	}
	if t == nil || !decode(w, r, &body) {
		return
	}
	if !slices.Contains([]string{"enable", "disable"}, body.Status) {
		fail(w, http.StatusBadRequest, 1200, "TriggerInstance_BadRequest", "the status is enable or disable")
		return
	}
	if !t.Stubborn {
		t.Disabled = body.Status == "disable"
	}
	reply(w, http.StatusOK, map[string]any{"status": "success"})
}

func (s *Server) deleteTrigger(w http.ResponseWriter, r *http.Request) {
	if t := s.trigger(w, r); t != nil {
		t.Deleted = true
		reply(w, http.StatusOK, map[string]any{"trigger_id": t.ID})
	}
}
