package access

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// A Vault is what a project at Composio gives away and allows. It holds no
// credential. It is shared between checks and must not be changed.
type Vault struct {
	// Accounts are all connected accounts, those that serve everybody
	// included. What the API showed of their credentials is in
	// [composio.Account.Unmasked], as names.
	Accounts    []composio.Account
	AccountsErr error

	Config    composio.ProjectConfig
	ConfigErr error

	AuthConfigs    []composio.AuthConfig
	AuthConfigsErr error

	Servers    []composio.MCPServer
	ServersErr error

	Sessions    []composio.Session
	SessionsErr error

	Policy    Policy
	PolicyErr error
}

var (
	errNoComposio = errors.New("access: Config.Composio is not set: nobody can be asked what Composio gives away")
	errNoPolicy   = errors.New("access: Config.Policy is not set: nothing says what the agent may use")
)

// NewVaultSource returns the one project that c.Composio asks about.
func NewVaultSource(c Config) *harden.Source[Vault] {
	return &harden.Source[Vault]{
		Name:    "projects at Composio",
		Subject: func(Vault) string { return "composio/project" },
		List: func(ctx context.Context, _ *host.View) ([]Vault, error) {
			if c.Composio == nil {
				return nil, errNoComposio
			}
			return []Vault{c.vault(ctx)}, ctx.Err()
		},
	}
}

func (c *Config) vault(ctx context.Context) Vault {
	var v Vault
	for a, err := range c.Composio.Accounts(ctx, composio.AccountFilter{Type: composio.AccountsAll}) {
		if err != nil {
			v.AccountsErr = err
			break
		}
		v.Accounts = append(v.Accounts, a)
	}
	v.Config, v.ConfigErr = c.Composio.ProjectConfig(ctx)
	for a, err := range c.Composio.AuthConfigs(ctx) {
		if err != nil {
			v.AuthConfigsErr = err
			break
		}
		v.AuthConfigs = append(v.AuthConfigs, a)
	}
	for s, err := range c.Composio.MCPServers(ctx) {
		if err != nil {
			v.ServersErr = err
			break
		}
		v.Servers = append(v.Servers, s)
	}
	for _, id := range c.Sessions {
		s, err := c.Composio.Session(ctx, id)
		switch {
		case errors.Is(err, composio.ErrNotFound):
		case err != nil:
			v.SessionsErr = errors.Join(v.SessionsErr, err)
		default:
			v.Sessions = append(v.Sessions, s)
		}
	}
	v.Policy, v.PolicyErr = c.policy(ctx)
	return v
}

func (c *Config) policy(ctx context.Context) (Policy, error) {
	if c.Policy == nil {
		return Policy{}, errNoPolicy
	}
	return c.Policy(ctx)
}

// notSaid reports whether the project's configuration could not be asked for
// because not every key may, and not every version of the API has it.
func notSaid(err error) bool {
	return errors.Is(err, composio.ErrForbidden) || errors.Is(err, composio.ErrNotFound) || errors.Is(err, composio.ErrUnauthorized)
}

// judgeMasked judges what Composio shows of the credentials that it keeps.
func judgeMasked(_ context.Context, p Vault) (harden.Verdict, error) {
	const id = "access.masked_secrets"
	const remedy = "turn mask_secret_keys_in_connected_account on, and revoke what was shown"
	var v violations
	var errs []error
	if p.AccountsErr != nil {
		errs = append(errs, p.AccountsErr)
	}
	shared := 0
	for _, a := range p.Accounts {
		if a.Type == composio.AccountsShared {
			shared++
		}
		if len(a.Unmasked) > 0 {
			v = append(v, harden.Finding{
				ID: id + ".shown", Subject: "composio/account/" + printableText(a.ID), Severity: harden.SeverityCritical, Remedy: remedy,
				Message:  fmt.Sprintf("Composio shows %s of an account of %s in clear to whoever has a project's key", some(a.Unmasked), printableText(a.Toolkit)),
				Evidence: []harden.Evidence{at(harden.LevelInspected, "GET connected_accounts", some(a.Unmasked)+" in clear", "masked")},
			})
		}
	}
	setting := "its configuration says that it masks"
	switch mask := p.Config.MaskSecrets; {
	case p.ConfigErr != nil && !notSaid(p.ConfigErr):
		errs = append(errs, p.ConfigErr)
	case p.ConfigErr != nil || mask == nil:
		setting = "its configuration could not be read"
	case !*mask:
		v = append(v, harden.Finding{
			ID: id + ".off", Severity: harden.SeverityHigh, Remedy: remedy, Message: "the project does not mask credentials",
			Evidence: []harden.Evidence{at(harden.LevelDeclared, "GET org/project/config", "mask_secret_keys_in_connected_account: false", "true")},
		})
	}
	if len(v) == 0 && len(errs) == 0 && len(p.Accounts) == 0 {
		return harden.NotApplicable("no account is connected: there is no credential to mask"), nil
	}
	return v.verdict(errors.Join(errs...), at(harden.LevelInspected, "GET connected_accounts",
		fmt.Sprintf("no credential in clear in %d accounts, %d of them shared; %s", len(p.Accounts), shared, setting), "masked"))
}

// judgeMCPKey judges whether who knows the URL of an MCP server can use it.
func judgeMCPKey(_ context.Context, p Vault) (harden.Verdict, error) {
	const id = "access.mcp_key"
	switch required := p.Config.RequireMCPKey; {
	case p.ConfigErr == nil && required != nil && *required:
		return harden.Pass(at(harden.LevelDeclared, "GET org/project/config", "require_mcp_api_key: true", "true")), nil
	case p.ConfigErr == nil && required != nil:
		return harden.Fail(harden.Finding{
			ID: id, Message: "whoever knows the URL of an MCP server can use it without a key", Remedy: "turn require_mcp_api_key on",
			Evidence: []harden.Evidence{at(harden.LevelDeclared, "GET org/project/config", "require_mcp_api_key: false", "true")},
		}), nil
	case p.ServersErr == nil && len(p.Servers) == 0:
		return harden.NotApplicable("the project has no MCP server"), nil
	case p.ConfigErr != nil:
		return harden.Verdict{}, fmt.Errorf("the project's configuration could not be read, and it has MCP servers: %w", p.ConfigErr)
	}
	return harden.Verdict{}, errors.New("the project's configuration does not say whether MCP servers ask for a key, and it has some")
}

// judgeAllowlists judges what Composio itself would execute.
func judgeAllowlists(_ context.Context, p Vault) (harden.Verdict, error) {
	const id = "access.composio_allowlists"
	var v violations
	errs := []error{p.AuthConfigsErr, p.ServersErr, p.SessionsErr, p.PolicyErr}
	granted := p.Policy.granted()
	find := func(subject, kind string, tools []string, what string) {
		f := harden.Finding{ID: id + "." + kind, Subject: subject, Remedy: "restrict it to the policy's tools"}
		if len(tools) == 0 {
			f.Message = what + " names no tool, which allows all of them"
			f.Evidence = []harden.Evidence{at(harden.LevelInspected, "read back from Composio", "empty", "the policy's tools")}
			v = append(v, f)
			return
		}
		var beyond []string
		for _, t := range tools {
			if !granted[strings.ToUpper(t)] {
				beyond = append(beyond, printableText(t))
			}
		}
		if p.PolicyErr == nil && len(beyond) > 0 {
			f.Message = what + " allows what the policy does not: " + some(beyond)
			f.Evidence = []harden.Evidence{at(harden.LevelInspected, "read back from Composio", some(beyond), "the policy's tools")}
			v = append(v, f)
		}
	}
	judged := 0
	for _, a := range p.AuthConfigs {
		if a.Disabled && a.Connections == 0 {
			continue
		}
		judged++
		find("composio/auth_config/"+printableText(a.ID), "auth_config", a.ExecutableTools, "the list of tools that accounts of "+printableText(a.Toolkit)+" may execute")
	}
	for _, s := range p.Servers {
		judged++
		find("composio/mcp_server/"+printableText(s.ID), "mcp_server", s.AllowedTools, "allowed_tools of the MCP server")
	}
	for _, s := range p.Sessions {
		judged++
		subject := "composio/session/" + printableText(s.ID)
		var tools []string
		all := len(s.Tools) == 0
		for _, list := range s.Tools {
			all = all || list == nil
			tools = append(tools, list...)
		}
		if all {
			tools = nil
		}
		if all || len(tools) > 0 { // lists that are all empty allow nothing
			find(subject, "session", tools, "the session")
		}
		var more []string
		for what, on := range map[string]bool{"manage connections": s.ManagesConnections, "run code in a workbench": s.Workbench, "wrap calls in one": s.MultiExecute} {
			if on {
				more = append(more, what)
			}
		}
		if len(more) > 0 {
			v = append(v, harden.Finding{
				ID: id + ".session_tools", Subject: subject, Message: "the session can " + some(sorted(more)) + ", which goes round any list of tools",
				Remedy:   "delete the session, and make one with composio.Client.CreateSession",
				Evidence: []harden.Evidence{at(harden.LevelInspected, "GET tool_router/session", some(more), "off")},
			})
		}
	}
	if judged == 0 && len(v) == 0 && errors.Join(errs...) == nil {
		return harden.NotApplicable("the project has neither auth configs, nor MCP servers, nor sessions that are known: there is nothing to restrict"), nil
	}
	return v.verdict(errors.Join(errs...), at(harden.LevelInspected, "read back from Composio",
		fmt.Sprintf("%d auth configs, %d MCP servers and %d sessions allow only tools of the policy", len(p.AuthConfigs), len(p.Servers), len(p.Sessions)), "the policy's tools"))
}
