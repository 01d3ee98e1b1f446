package access_test

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/composiotest"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/access"
	"github.com/managemyclaw/hardshell/harden/host"
)

var _ access.Changer = (*composio.Client)(nil)

const pinned = "20260902_00"

// policy returns a policy of two agents.
func policy(change ...func(map[string]access.Grants)) func(context.Context) (access.Policy, error) {
	agents := map[string]access.Grants{
		"inbox":    {Tools: map[string]access.Grant{"GMAIL_FETCH_EMAILS": {pinned, composio.ClassRead}, "GMAIL_DELETE_MESSAGE": {pinned, composio.ClassDestructive}}},
		"calendar": {Tools: map[string]access.Grant{"GOOGLECALENDAR_EVENTS_LIST": {pinned, composio.ClassRead}}},
	}
	for _, f := range change {
		f(agents)
	}
	return func(context.Context) (access.Policy, error) {
		return access.Policy{Source: "/etc/hardshell/policy.json", Agents: agents}, nil
	}
}

// project returns a project at Composio as it should be.
func project() *composiotest.Server {
	s := composiotest.New(composiotest.Config{PageLimit: 2})
	if _, err := s.Client().UpdateProjectConfig(context.Background(), composio.ProjectConfig{RequireMCPKey: new(true)}); err != nil {
		panic(err)
	}
	for slug, tag := range map[string]string{
		"GMAIL_FETCH_EMAILS": "readOnlyHint", "GMAIL_DELETE_MESSAGE": "destructiveHint", "GMAIL_SEND_EMAIL": "destructiveHint",
		"GOOGLECALENDAR_EVENTS_LIST": "readOnlyHint", "GMAIL_UNTAGGED": "",
	} {
		s.AddTool(composiotest.Tool{Slug: slug, Version: "20261001_00", Versions: []string{pinned}, Tags: strings.Fields(tag)})
	}
	s.AddAuthConfig(composiotest.AuthConfig{ID: "ac_mail", Toolkit: "gmail", Execute: []string{"GMAIL_FETCH_EMAILS", "GMAIL_DELETE_MESSAGE"}})
	s.AddAccount(composiotest.Account{ID: "ca_1", UserID: "ann", Toolkit: "gmail", AuthConfigID: "ac_mail", Tokens: map[string]string{"access_token": oauthToken}})
	s.AddAccount(composiotest.Account{ID: "ca_2", UserID: "ben", Toolkit: "gmail", AuthConfigID: "ac_mail", Shared: true, Tokens: map[string]string{"access_token": oauthToken}})
	s.AddMCPServer(composiotest.MCPServer{Name: "m", AuthConfigIDs: []string{"ac_mail"}, AllowedTools: []string{"GMAIL_FETCH_EMAILS"}})
	return s
}

// An altered Composio changes what another answers.
type altered struct {
	*composio.Client
	account func(*composio.Account)
	config  func(*composio.ProjectConfig) error
	session *composio.Session
	fail    error // of listings, after the first row
}

func (a altered) Accounts(ctx context.Context, f composio.AccountFilter) iter.Seq2[composio.Account, error] {
	return func(yield func(composio.Account, error) bool) {
		for x, err := range a.Client.Accounts(ctx, f) {
			if a.account != nil {
				a.account(&x)
			}
			if !yield(x, err) {
				return
			}
			if a.fail != nil {
				yield(composio.Account{}, a.fail)
				return
			}
		}
	}
}

func (a altered) ProjectConfig(ctx context.Context) (composio.ProjectConfig, error) {
	p, err := a.Client.ProjectConfig(ctx)
	if a.config != nil {
		err = a.config(&p)
	}
	return p, err
}

func (a altered) Session(ctx context.Context, id string) (composio.Session, error) {
	if a.session != nil {
		return *a.session, nil
	}
	return a.Client.Session(ctx, id)
}

func TestVault(t *testing.T) {
	forbidden := func(*composio.ProjectConfig) error {
		return &composio.APIError{Op: "get", Status: http.StatusForbidden}
	}
	for _, c := range []struct {
		name    string
		server  func(*composiotest.Server)
		alter   altered
		config  func(*access.Config)
		check   string
		status  harden.Status
		finding string
	}{
		{name: "as it should be", check: "masked_secrets", status: harden.StatusPass},
		{name: "as it should be", check: "mcp_key", status: harden.StatusPass},
		{name: "as it should be", check: "composio_allowlists", status: harden.StatusPass},
		{name: "as it should be", check: "tool_policy", status: harden.StatusPass},

		{
			name: "masking is off", check: "masked_secrets", status: harden.StatusFail, finding: "shown",
			server: func(s *composiotest.Server) {
				if _, err := s.Client().UpdateProjectConfig(context.Background(), composio.ProjectConfig{MaskSecrets: new(false)}); err != nil {
					panic(err)
				}
			},
		},
		{
			name: "only a shared account is shown", check: "masked_secrets", status: harden.StatusFail, finding: "shown",
			alter: altered{account: func(a *composio.Account) {
				if a.Type == composio.AccountsShared {
					a.Unmasked = []string{"refresh_token"}
				}
			}},
		},
		{
			name: "masking is off and nothing shows it yet", check: "masked_secrets", status: harden.StatusFail, finding: "off",
			alter: altered{config: func(p *composio.ProjectConfig) error { p.MaskSecrets = new(false); return nil }},
		},
		{name: "the configuration may not be read", check: "masked_secrets", status: harden.StatusPass, alter: altered{config: forbidden}},
		{name: "the configuration is not answered", check: "masked_secrets", status: harden.StatusUnknown, alter: altered{config: func(*composio.ProjectConfig) error { return errors.New("broken off") }}},
		{name: "the listing breaks off", check: "masked_secrets", status: harden.StatusUnknown, alter: altered{fail: composio.ErrIncompleteListing}},
		{name: "no account", check: "masked_secrets", status: harden.StatusNotApplicable, server: func(s *composiotest.Server) {
			for _, a := range s.Accounts() {
				s.ChangeAccount(a.ID, func(a *composiotest.Account) { a.Deleted = true })
			}
		}},

		{name: "no key for servers", check: "mcp_key", status: harden.StatusFail, alter: altered{config: func(p *composio.ProjectConfig) error { p.RequireMCPKey = new(false); return nil }}},
		{name: "it may not be read", check: "mcp_key", status: harden.StatusUnknown, alter: altered{config: forbidden}},
		{name: "it is not said", check: "mcp_key", status: harden.StatusUnknown, alter: altered{config: func(p *composio.ProjectConfig) error { p.RequireMCPKey = nil; return nil }}},

		{name: "an auth config without a list", check: "composio_allowlists", status: harden.StatusFail, finding: "auth_config", server: func(s *composiotest.Server) { s.AddAuthConfig(composiotest.AuthConfig{Toolkit: "slack"}) }},
		{name: "a tool beyond the policy", check: "composio_allowlists", status: harden.StatusFail, finding: "auth_config", server: func(s *composiotest.Server) {
			s.AddAuthConfig(composiotest.AuthConfig{Toolkit: "gmail", Execute: []string{"GMAIL_FETCH_EMAILS", "GMAIL_SEND_EMAIL"}})
		}},
		{name: "a server that omits its list", check: "composio_allowlists", status: harden.StatusFail, finding: "mcp_server", server: func(s *composiotest.Server) {
			s.AddMCPServer(composiotest.MCPServer{Name: "n", AuthConfigIDs: []string{"ac_mail"}})
		}},
		{name: "a session without a list", check: "composio_allowlists", status: harden.StatusFail, finding: "session", config: withSession, alter: altered{session: &composio.Session{ID: "trs_1"}}},
		{name: "a session with a toolkit without a list", check: "composio_allowlists", status: harden.StatusFail, finding: "session", config: withSession, alter: altered{session: &composio.Session{ID: "trs_1", Tools: map[string][]string{"gmail": {"GMAIL_FETCH_EMAILS"}, "slack": nil}}}},
		{name: "a session with a workbench", check: "composio_allowlists", status: harden.StatusFail, finding: "session_tools", config: withSession, alter: altered{session: &composio.Session{ID: "trs_1", Workbench: true, Tools: map[string][]string{"gmail": {"GMAIL_FETCH_EMAILS"}}}}},
		{name: "a session that wraps calls", check: "composio_allowlists", status: harden.StatusFail, finding: "session_tools", config: withSession, alter: altered{session: &composio.Session{ID: "trs_1", MultiExecute: true, Tools: map[string][]string{"gmail": {"GMAIL_FETCH_EMAILS"}}}}},
		{name: "a session as it should be", check: "composio_allowlists", status: harden.StatusPass, config: withSession, alter: altered{session: &composio.Session{ID: "trs_1", Tools: map[string][]string{"gmail": {"GMAIL_FETCH_EMAILS"}}}}},
		{name: "a session that is gone", check: "composio_allowlists", status: harden.StatusPass, config: withSession},
		{name: "no policy", check: "composio_allowlists", status: harden.StatusUnknown, config: func(c *access.Config) { c.Policy = nil }},

		{name: "no policy", check: "tool_policy", status: harden.StatusUnknown, config: func(c *access.Config) { c.Policy = nil }},
		{name: "a policy that cannot be read", check: "tool_policy", status: harden.StatusUnknown, config: func(c *access.Config) {
			c.Policy = func(context.Context) (access.Policy, error) { return access.Policy{}, errors.New("line 3") }
		}},
		{name: "an empty policy", check: "tool_policy", status: harden.StatusFail, finding: "empty", config: grants(func(a map[string]access.Grants) { clear(a) })},
		{name: "an agent with an empty list", check: "tool_policy", status: harden.StatusFail, finding: "empty", config: grants(func(a map[string]access.Grants) { a["x"] = access.Grants{} })},
		{name: "a slug in lower case", check: "tool_policy", status: harden.StatusFail, finding: "spelling", config: grant("gmail_fetch_emails", access.Grant{Version: pinned})},
		{name: "a wildcard", check: "tool_policy", status: harden.StatusFail, finding: "spelling", config: grant("GMAIL_*", access.Grant{Version: pinned})},
		{name: "a tool that wraps others", check: "tool_policy", status: harden.StatusFail, finding: "meta", config: grant("COMPOSIO_MULTI_EXECUTE_TOOL", access.Grant{Version: pinned})},
		{name: "the latest version", check: "tool_policy", status: harden.StatusFail, finding: "version", config: grant("GMAIL_FETCH_EMAILS", access.Grant{Version: "latest"})},
		{name: "a write that is not named", check: "tool_policy", status: harden.StatusFail, finding: "class", config: grant("GMAIL_SEND_EMAIL", access.Grant{Version: pinned})},
		{name: "a tool without tags", check: "tool_policy", status: harden.StatusFail, finding: "class", config: grant("GMAIL_UNTAGGED", access.Grant{Version: pinned, Class: composio.ClassUpdate})},
		{name: "a tool without tags that is called destructive", check: "tool_policy", status: harden.StatusPass, config: grant("GMAIL_UNTAGGED", access.Grant{Version: pinned, Class: composio.ClassDestructive})},
		{name: "a tool that Composio does not know", check: "tool_policy", status: harden.StatusUnknown, config: grant("GMAIL_NO_SUCH", access.Grant{Version: pinned})},
		{name: "nobody to ask", check: "tool_policy", status: harden.StatusUnknown, config: func(c *access.Config) { c.Composio = nil }},
	} {
		t.Run(c.check+"/"+c.name, func(t *testing.T) {
			s := project()
			if c.server != nil {
				c.server(s)
			}
			c.alter.Client = s.Client()
			cfg := access.Config{Composio: c.alter, Policy: policy()}
			if c.config != nil {
				c.config(&cfg)
			}
			r := evaluate(t, cfg, new(host.View), "access."+c.check)
			if r.Status != c.status {
				t.Fatalf("%v (%s): %+v", r.Status, r.Detail, r.Findings)
			}
			if c.finding != "" && !slices.ContainsFunc(r.Findings, func(f harden.Finding) bool { return f.ID == "access."+c.check+"."+c.finding }) {
				t.Errorf("no finding %s: %+v", c.finding, r.Findings)
			}
		})
	}
}

func withSession(c *access.Config) { c.Sessions = []string{"trs_1"} }

func grants(f func(map[string]access.Grants)) func(*access.Config) {
	return func(c *access.Config) { c.Policy = policy(f) }
}

func grant(slug string, g access.Grant) func(*access.Config) {
	return grants(func(a map[string]access.Grants) { a["inbox"].Tools[slug] = g })
}

// Remedies change Composio, verify, and undo what did not help.
func TestRemedies(t *testing.T) {
	ctx := t.Context()
	s := project()
	wide := s.AddAuthConfig(composiotest.AuthConfig{Toolkit: "googlecalendar"})
	broad := s.AddAuthConfig(composiotest.AuthConfig{Toolkit: "gmail", Execute: []string{"GMAIL_SEND_EMAIL", "GMAIL_FETCH_EMAILS"}})
	server := s.AddMCPServer(composiotest.MCPServer{Name: "n", AuthConfigIDs: []string{wide}})
	client := s.Client()
	if _, err := client.UpdateProjectConfig(ctx, composio.ProjectConfig{MaskSecrets: new(false), RequireMCPKey: new(false)}); err != nil {
		t.Fatal(err)
	}
	cfg := access.Config{Composio: client, Policy: policy(), Remedy: &access.Remedy{Composio: client}}
	fixer := harden.Fixer{Trail: trail.Discard}
	h := new(host.Host)
	for _, id := range []string{"access.masked_secrets", "access.mcp_key", "access.composio_allowlists"} {
		c := check(t, cfg, id)
		fixes, err := fixer.Fix(ctx, h, nil, c)
		if err != nil || len(fixes) != 1 || fixes[0].Err != nil || !fixes[0].Changed || fixes[0].After.Status != harden.StatusPass {
			t.Fatalf("%s: %+v, %v", id, fixes, err)
		}
	}
	for id, want := range map[string]string{wide: "GOOGLECALENDAR_EVENTS_LIST", broad: "GMAIL_FETCH_EMAILS"} {
		if a, err := client.AuthConfig(ctx, id); err != nil || strings.Join(a.ExecutableTools, " ") != want {
			t.Errorf("%s: %v, %v", id, a.ExecutableTools, err)
		}
	}
	if m, err := client.MCPServer(ctx, server); err != nil || strings.Join(m.AllowedTools, " ") != "GOOGLECALENDAR_EVENTS_LIST" {
		t.Errorf("%v, %v", m.AllowedTools, err)
	}
}

func TestRemedyIsUndoneIfItDoesNotHelp(t *testing.T) {
	ctx := t.Context()
	s := project()
	wide := s.AddAuthConfig(composiotest.AuthConfig{Toolkit: "googlecalendar"})
	server := s.AddMCPServer(composiotest.MCPServer{Name: "n", AuthConfigIDs: []string{wide}})
	useless := s.AddAuthConfig(composiotest.AuthConfig{Toolkit: "slack"}) // nothing of it is in the policy
	client := s.Client()
	cfg := access.Config{Composio: client, Policy: policy(), Remedy: &access.Remedy{Composio: client}}
	c := check(t, cfg, "access.composio_allowlists")
	r, ok := harden.AsRemediator(c)
	if !ok {
		t.Fatal("no remedy")
	}
	plan, err := r.Plan(ctx, new(host.View))
	if err != nil || len(plan.Actions) != 2 || len(plan.Manual) != 1 || !strings.Contains(plan.Manual[0], useless) {
		t.Fatalf("%+v, %v", plan, err)
	}
	fixer := harden.Fixer{Trail: trail.Discard}
	_, err = fixer.Apply(ctx, new(host.Host), r, plan)
	fix, ok := errors.AsType[*harden.FixError](err)
	if !ok || !fix.Reverted {
		t.Fatalf("%v", err)
	}
	if a, err := client.AuthConfig(ctx, wide); err != nil || len(a.ExecutableTools) != 0 {
		t.Errorf("%v, %v", a.ExecutableTools, err)
	}
	if m, err := client.MCPServer(ctx, server); err != nil || len(m.AllowedTools) != 0 {
		t.Errorf("%v, %v", m.AllowedTools, err)
	}
	// The list has changed since.
	if _, err := client.RestrictAuthConfig(ctx, wide, []string{"GOOGLECALENDAR_EVENTS_LIST"}); err != nil {
		t.Fatal(err)
	}
	for _, a := range plan.Actions {
		if err := a.Apply(ctx, new(host.Host)); strings.Contains(a.Change().Subject, wide) && !errors.Is(err, harden.ErrStale) {
			t.Errorf("%v", err)
		}
	}
}
