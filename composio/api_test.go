package composio_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/composiotest"
)

// clean fails the test for requests that the API's description does not cover.
func clean(t *testing.T, s *composiotest.Server) {
	t.Helper()
	for _, v := range s.Violations() {
		t.Error(v)
	}
}

func TestAccounts(t *testing.T) {
	ctx := t.Context()
	s := composiotest.New(composiotest.Config{})
	s.AddAccount(composiotest.Account{ID: "ca_1", UserID: "u", Toolkit: "gmail", Alias: "work"})
	s.AddAccount(composiotest.Account{ID: "ca_2", UserID: "u", Toolkit: "slack", Shared: true, Status: "EXPIRED"})
	c := s.Client()
	a, err := c.Account(ctx, "ca_1")
	if err != nil || a.Toolkit != "gmail" || a.Alias != "work" || a.Status != composio.StatusActive || a.Type != composio.AccountsPrivate ||
		a.AuthScheme != "OAUTH2" || a.AuthConfigID != "ac_gmail" || a.CreatedAt.IsZero() || len(a.Unmasked) != 0 {
		t.Errorf("%+v, %v", a, err)
	}
	for f, want := range map[*composio.AccountFilter]int{
		{}:                                       2,
		{Type: composio.AccountsPrivate}:         1,
		{Type: composio.AccountsShared}:          1,
		{Statuses: []composio.Status{"EXPIRED"}}: 1,
		{Toolkits: []string{"gmail", "slack"}}:   2,
		{UserIDs: []string{"v"}}:                 0,
		{IDs: []string{"ca_2"}}:                  1,
		{AuthConfigIDs: []string{"ac_slack"}}:    1,
	} {
		if rows, err := collect(c.Accounts(ctx, *f)); err != nil || len(rows) != want {
			t.Errorf("%+v: %d rows, %v", *f, len(rows), err)
		}
	}
	if err := c.SetAccountEnabled(ctx, "ca_1", false); err != nil || s.Account("ca_1").Status != "INACTIVE" {
		t.Errorf("%v", err)
	}
	if _, err := c.RevokeAccount(ctx, "ca_1"); !errors.Is(err, composio.ErrNotRevokable) || !errors.Is(err, composio.ErrConflict) {
		t.Errorf("an account that is not active: %v", err)
	}
	if err := c.SetAccountEnabled(ctx, "ca_1", true); err != nil || s.Account("ca_1").Status != "ACTIVE" {
		t.Errorf("%v", err)
	}
	if err := c.SetAccountEnabled(ctx, "ca_2", true); !errors.Is(err, composio.ErrConflict) {
		t.Errorf("an account that has expired: %v", err)
	}
	r, err := c.RevokeAccount(ctx, "ca_1")
	if err != nil || r.Status != composio.StatusRevoked || !slices.Equal(r.Tokens, []string{"access_token", "refresh_token"}) {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := c.RevokeAccount(ctx, "ca_1"); err != nil || len(r.Tokens) != 0 {
		t.Errorf("again: %+v, %v", r, err)
	}
	d, err := c.DeleteAccount(ctx, "ca_2")
	if err != nil || d.RevokeJobID == "" || d.Repeated {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := c.DeleteAccount(ctx, "ca_2"); !errors.Is(err, composio.ErrNotFound) {
		t.Errorf("again: %v", err)
	}
	if _, err := c.Account(ctx, "ca_2"); !errors.Is(err, composio.ErrNotFound) {
		t.Errorf("%v", err)
	}
	s.AddAccount(composiotest.Account{ID: "ca_3", UserID: "u", Provider: composiotest.CannotRevoke})
	s.AddAccount(composiotest.Account{ID: "ca_4", UserID: "u", Provider: composiotest.Refuses})
	if _, err := c.RevokeAccount(ctx, "ca_3"); !errors.Is(err, composio.ErrRevokeUnsupported) || !errors.Is(err, composio.ErrInvalid) {
		t.Errorf("%v", err)
	}
	if _, err := c.RevokeAccount(ctx, "ca_4"); !errors.Is(err, composio.ErrUpstreamFailed) || !errors.Is(err, composio.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	clean(t, s)
}

// A deletion whose answer is lost is found done when it is repeated.
func TestDeletionRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		s := composiotest.New(composiotest.Config{Fault: func(*http.Request) composiotest.Fault {
			n++
			return composiotest.Fault{Lose: n == 1 || n == 3}
		}})
		s.AddAccount(composiotest.Account{ID: "ca_1", UserID: "u"})
		id := s.AddTrigger(composiotest.Trigger{UserID: "u"})
		c := s.Client()
		if d, err := c.DeleteAccount(t.Context(), "ca_1"); err != nil || !d.Repeated || d.RevokeJobID != "" {
			t.Errorf("%+v, %v", d, err)
		}
		if err := c.DeleteTrigger(t.Context(), id); err != nil || !s.Triggers()[0].Deleted {
			t.Errorf("%v", err)
		}
		if err := c.DeleteTrigger(t.Context(), id); !errors.Is(err, composio.ErrNotFound) {
			t.Errorf("again: %v", err)
		}
	})
}

// What the API shows in clear is named, by name alone.
func TestUnmasked(t *testing.T) {
	for state, want := range map[string][]string{
		`{"val":{"access_token":"REDACTED","refresh_token":"1//a..."}}`:        nil,
		`{"val":{"access_token":"ya29.aaaa","token_type":"Bearer"}}`:           {"access_token"},
		`{"val":{"access_token":"ya29a..."}}`:                                  {"access_token"},
		`{"val":{"access_token":""}}`:                                          nil,
		`{"val":{"generic_api_key":"k","password":"p","client_secret":"***"}}`: {"generic_api_key", "password"},
		`{"val":{"headers":{"Authorization":"Bearer x"}}}`:                     {"Authorization"},
		`{"val":{"scope":"a","subdomain":"b","expires_in":3600}}`:              nil,
		`[]`:   nil,
		`null`: nil,
	} {
		c := answering(t, func(*http.Request) (*http.Response, error) { return answer(200, `{"id":"ca_1","state":`+state+`}`) })
		a, err := c.Account(t.Context(), "ca_1")
		if err != nil || !slices.Equal(a.Unmasked, want) {
			t.Errorf("%s: %q, %v", state, a.Unmasked, err)
		}
	}
}

func TestLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s := composiotest.New(composiotest.Config{VerifyCallbacks: true})
		s.AddAuthConfig(composiotest.AuthConfig{ID: "ac_1", Toolkit: "gmail"})
		c := s.Client()
		if _, err := c.Link(ctx, composio.LinkRequest{AuthConfigID: "ac_1"}); err == nil {
			t.Error("a link for nobody")
		}
		connect := func(user string) (composio.Account, error) {
			t.Helper()
			l, err := c.Link(ctx, composio.LinkRequest{AuthConfigID: "ac_1", UserID: "alice"})
			if err != nil || l.AccountID == "" || !strings.Contains(l.URL.Reveal(), l.Token.Reveal()) || time.Until(l.ExpiresAt) > 10*time.Minute {
				t.Fatalf("%+v, %v", l, err)
			}
			session, err := s.OpenLink(l.Token.Reveal())
			if err != nil {
				t.Fatal(err)
			}
			a, err := c.CompleteAuth(ctx, composio.NewSecret(session), user)
			if _, again := c.CompleteAuth(ctx, composio.NewSecret(session), user); again == nil {
				t.Error("a session is redeemed twice")
			}
			return a, err
		}
		if a, err := connect("alice"); err != nil || a.Status != composio.StatusActive || a.UserID != "alice" {
			t.Errorf("%+v, %v", a, err)
		}
		if _, err := connect("mallory"); !errors.Is(err, composio.ErrForbidden) {
			t.Errorf("%v", err)
		}
		if _, err := c.CompleteAuth(ctx, composio.NewSecret("x"), ""); err == nil {
			t.Error("a connection for nobody")
		}
		clean(t, s)
	})
}

func TestAuthConfigs(t *testing.T) {
	ctx := t.Context()
	s := composiotest.New(composiotest.Config{})
	s.AddAuthConfig(composiotest.AuthConfig{ID: "ac_1", Toolkit: "gmail", Kind: "custom", Connect: []string{"GMAIL_Y"}})
	s.AddAuthConfig(composiotest.AuthConfig{ID: "ac_2", Toolkit: "slack", Disabled: true})
	c := s.Client()
	if all, err := collect(c.AuthConfigs(ctx)); err != nil || len(all) != 2 || !all[1].Disabled {
		t.Errorf("%+v, %v", all, err)
	}
	if some, err := collect(c.AuthConfigs(ctx, "gmail")); err != nil || len(some) != 1 {
		t.Errorf("%+v, %v", some, err)
	}
	a, err := c.RestrictAuthConfig(ctx, "ac_1", []string{"GMAIL_B", "GMAIL_A"})
	if err != nil || !slices.Equal(a.ExecutableTools, []string{"GMAIL_B", "GMAIL_A"}) || !slices.Equal(a.ConnectTools, []string{"GMAIL_Y"}) {
		t.Errorf("%+v, %v", a, err)
	}
	for _, none := range [][]string{nil, {}, {""}, {"gmail_x"}} {
		if _, err := c.RestrictAuthConfig(ctx, "ac_1", none); err == nil {
			t.Errorf("%q is a restriction", none)
		}
	}
	if got := s.AuthConfigs()[0].Execute; len(got) != 2 {
		t.Errorf("the restriction is now %q", got)
	}
	if err := c.SetAuthConfigEnabled(ctx, "ac_1", false); err != nil || !s.AuthConfigs()[0].Disabled {
		t.Errorf("%v", err)
	}
	if err := c.SetAuthConfigEnabled(ctx, "ac_1", true); err != nil || s.AuthConfigs()[0].Disabled {
		t.Errorf("%v", err)
	}
	if d, err := c.DeleteAuthConfig(ctx, "ac_1"); err != nil || d.RevokeJobID == "" {
		t.Errorf("%+v, %v", d, err)
	}
	clean(t, s)
}

// dropping has a field left out of what is sent, as an API does that does not
// know it.
func dropping(s *composiotest.Server, method, path string, instead string) func(*composio.Config) {
	return func(c *composio.Config) {
		next := c.Transport
		c.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method == method && strings.Contains(r.URL.Path, path) {
				return answer(200, instead)
			}
			return next.RoundTrip(r)
		})
	}
}

// A restriction that is acknowledged and not made is an error.
func TestRestrictionsAreReadBack(t *testing.T) {
	ctx := t.Context()
	s := composiotest.New(composiotest.Config{})
	s.AddAuthConfig(composiotest.AuthConfig{ID: "ac_1", Toolkit: "gmail"})
	mcp := s.AddMCPServer(composiotest.MCPServer{Name: "m", AuthConfigIDs: []string{"ac_1"}})
	lies := connect(t, s, dropping(s, "PATCH", "", `{}`))
	if _, err := lies.RestrictAuthConfig(ctx, "ac_1", []string{"GMAIL_A"}); !errors.Is(err, composio.ErrNotApplied) {
		t.Errorf("%v", err)
	}
	if _, err := lies.RestrictMCPServer(ctx, mcp, []string{"GMAIL_A"}); !errors.Is(err, composio.ErrNotApplied) {
		t.Errorf("%v", err)
	}
	if _, err := lies.UpdateProjectConfig(ctx, composio.ProjectConfig{MaskSecrets: new(false)}); !errors.Is(err, composio.ErrNotApplied) {
		t.Errorf("%v", err)
	}
	if _, err := lies.UpdateProjectConfig(ctx, composio.ProjectConfig{}); err == nil {
		t.Error("nothing is changed")
	}

	// What was made too wide does not stay.
	wide := func(c *composio.Config) {
		next := c.Transport
		c.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPost {
				body := `{"user_id":"u"}`
				if strings.Contains(r.URL.Path, "mcp") {
					body = `{"name":"m","auth_config_ids":["ac_1"]}`
				}
				r = r.Clone(r.Context())
				r.Body = http.NoBody
				req, _ := http.NewRequestWithContext(r.Context(), r.Method, r.URL.String(), strings.NewReader(body))
				req.Header = r.Header
				r = req
			}
			return next.RoundTrip(r)
		})
	}
	c := connect(t, s, wide)
	if _, err := c.CreateSession(ctx, composio.SessionSpec{UserID: "u", Tools: map[string][]string{"gmail": {"GMAIL_A"}}}); !errors.Is(err, composio.ErrNotApplied) {
		t.Errorf("%v", err)
	}
	if n := len(s.Sessions()); n != 0 {
		t.Errorf("%d sessions stay", n)
	}
	before := len(s.MCPServers())
	if _, err := c.CreateMCPServer(ctx, composio.MCPServerSpec{Name: "m", AuthConfigIDs: []string{"ac_1"}, AllowedTools: []string{"GMAIL_A"}}); !errors.Is(err, composio.ErrNotApplied) {
		t.Errorf("%v", err)
	}
	if n := len(s.MCPServers()); n != before {
		t.Errorf("%d servers stay", n-before)
	}
}

func TestSessionsAndServers(t *testing.T) {
	ctx := t.Context()
	s := composiotest.New(composiotest.Config{PageLimit: 2})
	for _, slug := range []string{"GMAIL_A", "GMAIL_B", "SLACK_A", "GMAIL_C"} {
		s.AddTool(composiotest.Tool{Slug: slug})
	}
	s.AddAuthConfig(composiotest.AuthConfig{ID: "ac_1", Toolkit: "gmail"})
	c := s.Client()
	x, err := c.CreateSession(ctx, composio.SessionSpec{UserID: "u", Tools: map[string][]string{"gmail": {"GMAIL_A", "GMAIL_C"}}})
	if err != nil || x.ManagesConnections || x.Workbench || x.MultiExecute || len(x.Tools) != 1 || x.MCPURL == "" {
		t.Fatalf("%+v, %v", x, err)
	}
	tools, err := collect(c.SessionTools(ctx, x.ID))
	if err != nil || len(tools) != 2 || tools[0].Slug != "GMAIL_A" || tools[1].Slug != "GMAIL_C" {
		t.Errorf("%+v, %v", tools, err)
	}
	for _, spec := range []composio.SessionSpec{
		{},
		{UserID: "u"},
		{UserID: "u", Tools: map[string][]string{"gmail": {}}},
		{UserID: "u", Tools: map[string][]string{"gmail": {"x"}}},
		{Tools: map[string][]string{"gmail": {"GMAIL_A"}}},
	} {
		if _, err := c.CreateSession(ctx, spec); err == nil {
			t.Errorf("%+v", spec)
		}
	}
	if err := c.DeleteSession(ctx, x.ID); err != nil || len(s.Sessions()) != 0 {
		t.Errorf("%v", err)
	}
	m, err := c.CreateMCPServer(ctx, composio.MCPServerSpec{Name: "m", AuthConfigIDs: []string{"ac_1"}, AllowedTools: []string{"GMAIL_A"}})
	if err != nil || !slices.Equal(m.AllowedTools, []string{"GMAIL_A"}) || !slices.Equal(m.Toolkits, []string{"gmail"}) {
		t.Errorf("%+v, %v", m, err)
	}
	if m, err = c.RestrictMCPServer(ctx, m.ID, []string{"GMAIL_B"}); err != nil || !slices.Equal(m.AllowedTools, []string{"GMAIL_B"}) {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err = c.RestrictMCPServer(ctx, m.ID, nil); err == nil {
		t.Error("no tools are a restriction")
	}
	for range 6 {
		s.AddMCPServer(composiotest.MCPServer{Name: "n"})
	}
	if all, err := collect(c.MCPServers(ctx)); err != nil || len(all) != 7 {
		t.Errorf("%d servers, %v", len(all), err)
	}
	if err := c.DeleteMCPServer(ctx, m.ID); err != nil {
		t.Error(err)
	}
	if _, err := c.MCPServer(ctx, m.ID); !errors.Is(err, composio.ErrNotFound) {
		t.Errorf("%v", err)
	}
	clean(t, s)
}

func TestToolsAndExecutions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s := composiotest.New(composiotest.Config{PageLimit: 2})
		s.AddTool(composiotest.Tool{Slug: "GMAIL_FETCH", Version: "2", Versions: []string{"1"}, Tags: []string{"readOnlyHint", "openWorldHint"}})
		s.AddTool(composiotest.Tool{Slug: "GMAIL_SEND", Tags: []string{"destructiveHint", "createHint"}, Run: func(map[string]any) (map[string]any, error) {
			return nil, errors.New("mailbox full")
		}})
		s.AddTool(composiotest.Tool{Slug: "GMAIL_ODD", Tags: []string{"important"}})
		s.AddAccount(composiotest.Account{ID: "ca_1", UserID: "u"})
		c := s.Client()
		tools, err := collect(c.Tools(ctx, composio.ToolFilter{Toolkit: "gmail"}))
		if err != nil || len(tools) != 3 || tools[0].Class() != composio.ClassRead || tools[1].Class() != composio.ClassDestructive || tools[2].Class() != composio.ClassUnknown {
			t.Errorf("%+v, %v", tools, err)
		}
		if tool, err := c.Tool(ctx, "GMAIL_FETCH", "1"); err != nil || tool.Version != "1" {
			t.Errorf("%+v, %v", tool, err)
		}
		if _, err := c.Tool(ctx, "GMAIL_FETCH", "3"); !errors.Is(err, composio.ErrNotFound) {
			t.Errorf("%v", err)
		}
		begin := time.Now()
		r, err := c.Execute(ctx, composio.Call{Tool: "GMAIL_FETCH", Version: "1", UserID: "u", AccountID: "ca_1", Arguments: data(t, map[string]any{"q": "x"})})
		var out map[string]any
		if err != nil || !r.Successful || r.Output.Decode(&out) != nil || out["q"] != "x" || r.LogID == "" {
			t.Errorf("%+v, %v", r, err)
		}
		time.Sleep(time.Second)
		r, err = c.Execute(ctx, composio.Call{Tool: "GMAIL_SEND", Version: "20260101_00", UserID: "u"})
		if err != nil || r.Successful || r.Failure.Reveal() != "mailbox full" {
			t.Errorf("%+v, %v", r, err)
		}
		if _, err := c.Execute(ctx, composio.Call{Tool: "GMAIL_FETCH", Version: "1", UserID: "mallory", AccountID: "ca_1"}); !errors.Is(err, composio.ErrInvalid) {
			t.Errorf("another's account: %v", err)
		}
		for i := range 4 {
			if _, err := c.Execute(ctx, composio.Call{Tool: "GMAIL_FETCH", Version: "1", UserID: "u"}); err != nil {
				t.Error(i, err)
			}
		}
		if all, err := collect(c.Executions(ctx, composio.LogFilter{})); err != nil || len(all) != 6 {
			t.Errorf("%d executions, %v", len(all), err)
		}
		first, err := collect(c.Executions(ctx, composio.LogFilter{From: begin, To: begin.Add(time.Millisecond)}))
		if err != nil || len(first) != 1 || !first[0].Succeeded {
			t.Errorf("%+v, %v", first, err)
		}
		failed, err := collect(c.Executions(ctx, composio.LogFilter{Tool: "GMAIL_SEND"}))
		if err != nil || len(failed) != 1 || failed[0].Succeeded {
			t.Errorf("%+v, %v", failed, err)
		}
		if _, err := collect(c.Executions(ctx, composio.LogFilter{From: begin})); err == nil {
			t.Error("a time that has no end")
		}
		if e, err := c.Execution(ctx, first[0].ID); err != nil || e.Payload.IsZero() {
			t.Errorf("%+v, %v", e, err)
		}
		clean(t, s)
	})
}

func TestTriggersAndProject(t *testing.T) {
	ctx := t.Context()
	s := composiotest.New(composiotest.Config{})
	id := s.AddTrigger(composiotest.Trigger{Name: "X", UserID: "u", AccountID: "ca_1"})
	c := s.Client()
	if err := c.SetTriggerEnabled(ctx, id, false); err != nil || !s.Triggers()[0].Disabled {
		t.Errorf("%v", err)
	}
	if active, err := collect(c.Triggers(ctx, composio.TriggerFilter{})); err != nil || len(active) != 0 {
		t.Errorf("%+v, %v", active, err)
	}
	if all, err := collect(c.Triggers(ctx, composio.TriggerFilter{Disabled: true, AccountIDs: []string{"ca_1"}})); err != nil || len(all) != 1 || !all[0].Disabled {
		t.Errorf("%+v, %v", all, err)
	}
	if err := c.SetTriggerEnabled(ctx, id, true); err != nil || s.Triggers()[0].Disabled {
		t.Errorf("%v", err)
	}
	p, err := c.UpdateProjectConfig(ctx, composio.ProjectConfig{RequireMCPKey: new(true), LogVisibility: new("dont_store_data")})
	if err != nil || !*p.RequireMCPKey || !*p.MaskSecrets || *p.LogVisibility != "dont_store_data" {
		t.Errorf("%+v, %v", p, err)
	}
	clean(t, s)
}

func TestKeys(t *testing.T) {
	ctx := t.Context()
	s := composiotest.New(composiotest.Config{})
	c := s.Client()
	old := composio.NewSecret(composiotest.ProjectKey)
	if ok, err := c.KeyWorks(ctx, old); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	key, err := c.RegenerateKey(ctx, composiotest.ProjectID)
	if err != nil || key.Value.Equal(old) {
		t.Fatal(err)
	}
	if ok, err := c.KeyWorks(ctx, old); ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	if ok, err := c.KeyWorks(ctx, key.Value); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	if err := c.RevokeKeys(ctx, key.Value, composio.NewSecret(composiotest.OrgKey)); err != nil || s.KeyWorks(key.Value.Reveal()) || s.KeyWorks(composiotest.OrgKey) {
		t.Errorf("%v", err)
	}
	for _, keys := range [][]composio.Secret{nil, make([]composio.Secret, 101), {composio.Secret{}}} {
		if err := c.RevokeKeys(ctx, keys...); err == nil {
			t.Errorf("%d keys", len(keys))
		}
	}
	for _, k := range []composio.Secret{{}, composio.NewSecret("oak_1"), composio.NewSecret("a\nb")} {
		if ok, err := c.KeyWorks(ctx, k); ok || err == nil {
			t.Errorf("%v, %v", ok, err)
		}
	}
	down := answering(t, func(*http.Request) (*http.Response, error) { return answer(500, "") }, func(c *composio.Config) { c.Retries = -1 })
	if _, err := down.KeyWorks(ctx, old); err == nil {
		t.Error("a key of which nothing is known does not work")
	}
	clean(t, s)
}
