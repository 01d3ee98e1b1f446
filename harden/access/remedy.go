package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// A Remedy lets the checks of Composio change what they find: it turns masking
// and the MCP servers' keys on, and narrows lists of tools to the policy. It
// never sends an empty list, which Composio takes for all tools, except to undo
// a change of a list that was empty.
type Remedy struct {
	// Composio makes the changes; a [composio.Client] is one. Required.
	Composio Changer
}

// A Changer is what is changed at Composio. A [composio.Client] is one. Every
// method reads back what it changed.
type Changer interface {
	Composio
	AuthConfig(ctx context.Context, id string) (composio.AuthConfig, error)
	MCPServer(ctx context.Context, id string) (composio.MCPServer, error)
	UpdateProjectConfig(ctx context.Context, p composio.ProjectConfig) (composio.ProjectConfig, error)
	RestrictAuthConfig(ctx context.Context, id string, tools []string) (composio.AuthConfig, error)
	RestrictMCPServer(ctx context.Context, id string, tools []string) (composio.MCPServer, error)
	UnrestrictAuthConfig(ctx context.Context, id string) (composio.AuthConfig, error)
	UnrestrictMCPServer(ctx context.Context, id string) (composio.MCPServer, error)
}

// wrap gives the checks that have one their remedy.
func (r *Remedy) wrap(c *Config, checks []harden.Check) []harden.Check {
	if r == nil || r.Composio == nil {
		return checks
	}
	plans := map[string]func(context.Context) (harden.Plan, error){
		"access.masked_secrets": func(ctx context.Context) (harden.Plan, error) { return r.planSwitch(ctx, maskSecrets) },
		"access.mcp_key":        func(ctx context.Context) (harden.Plan, error) { return r.planSwitch(ctx, requireMCPKey) },
		"access.composio_allowlists": func(ctx context.Context) (harden.Plan, error) {
			own := *c
			own.Composio = r.Composio
			v := own.vault(ctx)
			if err := errors.Join(v.PolicyErr, v.AuthConfigsErr, v.ServersErr, v.SessionsErr); err != nil {
				return harden.Plan{}, err
			}
			return r.planLists(ctx, &v), nil
		},
	}
	for i, check := range checks {
		if plan := plans[check.Info().ID]; plan != nil {
			checks[i] = remedied{check, plan}
		}
	}
	return checks
}

// remedied is a check with a remedy.
type remedied struct {
	harden.Check
	plan func(context.Context) (harden.Plan, error)
}

// Plan implements [harden.Remediator].
func (r remedied) Plan(ctx context.Context, _ *host.View) (harden.Plan, error) { return r.plan(ctx) }

// Unwrap returns the check without its remedy.
func (r remedied) Unwrap() harden.Check { return r.Check }

// A toggle is a setting of the project that is on or off.
type toggle struct {
	name    string
	summary string
	field   func(*composio.ProjectConfig) **bool
}

var (
	maskSecrets = toggle{
		"mask_secret_keys_in_connected_account", "mask the credentials of accounts",
		func(p *composio.ProjectConfig) **bool { return &p.MaskSecrets },
	}
	requireMCPKey = toggle{
		"require_mcp_api_key", "have MCP servers ask for a key",
		func(p *composio.ProjectConfig) **bool { return &p.RequireMCPKey },
	}
)

func (r *Remedy) planSwitch(ctx context.Context, t toggle) (harden.Plan, error) {
	cfg, err := r.Composio.ProjectConfig(ctx)
	if err != nil {
		return harden.Plan{}, err
	}
	now := *t.field(&cfg)
	switch {
	case now == nil:
		return harden.Plan{Manual: []string{"turn " + t.name + " on in Composio's dashboard: the API does not say how it is"}}, nil
	case *now:
		return harden.Plan{Manual: []string{"revoke and reconnect the accounts whose credentials are shown: " + t.name + " is on"}}, nil
	}
	p := harden.Plan{Actions: []harden.Action{toggleAction{r.Composio, t}}}
	if t.name == maskSecrets.name {
		p.Notes = []string{"what was shown so far may be known: revoke the accounts, and connect them anew"}
	}
	return p, nil
}

// A toggleAction turns a setting of the project on.
type toggleAction struct {
	composio Changer
	toggle   toggle
}

// Change implements [harden.Action].
func (a toggleAction) Change() harden.Change {
	return harden.Change{Subject: "composio/project", Summary: a.toggle.summary, Before: a.toggle.name + ": false", After: a.toggle.name + ": true"}
}

// Apply implements [harden.Action].
func (a toggleAction) Apply(ctx context.Context, _ *host.Host) error { return a.turn(ctx, true) }

// Revert implements [harden.Action].
func (a toggleAction) Revert(ctx context.Context, _ *host.Host) error { return a.turn(ctx, false) }

func (a toggleAction) turn(ctx context.Context, on bool) error {
	cfg, err := a.composio.ProjectConfig(ctx)
	if err != nil {
		return err
	}
	if now := *a.toggle.field(&cfg); now == nil || *now == on {
		return fmt.Errorf("access: %s: %w", a.toggle.name, harden.ErrStale)
	}
	var want composio.ProjectConfig
	*a.toggle.field(&want) = &on
	_, err = a.composio.UpdateProjectConfig(ctx, want)
	return settle(ctx, err, func(ctx context.Context) (bool, error) {
		cfg, err := a.composio.ProjectConfig(ctx)
		now := *a.toggle.field(&cfg)
		return now != nil && *now == on, err
	})
}

const settleTimeout = 30 * time.Second

// settle says what an error of a change means: whether it has been made all the
// same, or not, or nobody knows.
func settle(ctx context.Context, err error, made func(context.Context) (bool, error)) error {
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout) // the caller's may have ended, which is why
	defer cancel()
	done, look := made(ctx)
	switch {
	case look != nil:
		return fmt.Errorf("%w: %w", harden.ErrUnfinished, errors.Join(err, look))
	case done:
		return fmt.Errorf("%w: it was made, and yet: %w", harden.ErrUnfinished, err)
	}
	return err
}

// planLists narrows every list that allows more than the policy.
func (r *Remedy) planLists(ctx context.Context, v *Vault) harden.Plan {
	var p harden.Plan
	granted := v.Policy.granted()
	// narrow returns what of a list stays, in order; an empty list is all of
	// the toolkits' tools.
	narrow := func(list, toolkits []string) []string {
		var keep []string
		for slug := range granted {
			in := slices.ContainsFunc(list, func(t string) bool { return strings.EqualFold(t, slug) })
			if len(list) == 0 {
				in = slices.ContainsFunc(toolkits, func(k string) bool { return k != "" && strings.HasPrefix(slug, strings.ToUpper(k)+"_") })
			}
			if in && slugForm.MatchString(slug) {
				keep = append(keep, slug)
			}
		}
		return sorted(keep)
	}
	toolkitOf := make(map[string]string)
	for _, a := range v.AuthConfigs {
		toolkitOf[a.ID] = a.Toolkit
		if a.Disabled && a.Connections == 0 {
			continue
		}
		plan(&p, listAction{r.Composio, "auth_config", a.ID, slices.Clone(a.ExecutableTools), narrow(a.ExecutableTools, []string{a.Toolkit})})
	}
	for _, s := range v.Servers {
		toolkits := slices.Clone(s.Toolkits)
		for _, id := range s.AuthConfigIDs {
			toolkits = append(toolkits, toolkitOf[id])
		}
		plan(&p, listAction{r.Composio, "mcp_server", s.ID, slices.Clone(s.AllowedTools), narrow(s.AllowedTools, toolkits)})
	}
	if verdict, _ := judgeAllowlists(ctx, Vault{Sessions: v.Sessions, Policy: v.Policy}); verdict.Status() == harden.StatusFail {
		p.Manual = append(p.Manual, "delete the sessions that allow more than the policy, and make them anew: a session cannot be narrowed in place")
	}
	return p
}

// plan adds an action to a plan, if there is anything to change.
func plan(p *harden.Plan, a listAction) {
	switch {
	case len(a.before) > 0 && sameList(a.before, a.after):
	case len(a.after) == 0:
		p.Manual = append(p.Manual, fmt.Sprintf("delete %s: none of what it is for is in the policy, and an empty list would allow all of it", a.subject()))
	default:
		p.Actions = append(p.Actions, a)
	}
}

func sameList(a, b []string) bool {
	return slices.Equal(sorted(slices.Clone(a)), sorted(slices.Clone(b)))
}

// A listAction narrows a list of tools at Composio.
type listAction struct {
	composio      Changer
	kind          string // "auth_config" or "mcp_server"
	id            string
	before, after []string // empty is all tools
}

func (a listAction) subject() string { return "composio/" + a.kind + "/" + printableText(a.id) }

func listText(tools []string) string {
	if len(tools) == 0 {
		return "all tools"
	}
	return strings.Join(tools, "\n")
}

// Change implements [harden.Action].
func (a listAction) Change() harden.Change {
	return harden.Change{Subject: a.subject(), Summary: "allow the policy's tools alone", Before: listText(a.before), After: listText(a.after)}
}

// Apply implements [harden.Action].
func (a listAction) Apply(ctx context.Context, _ *host.Host) error {
	return a.set(ctx, a.before, a.after)
}

// Revert implements [harden.Action].
func (a listAction) Revert(ctx context.Context, _ *host.Host) error {
	return a.set(ctx, a.after, a.before)
}

// now returns the list as Composio has it.
func (a listAction) now(ctx context.Context) ([]string, error) {
	if a.kind == "auth_config" {
		c, err := a.composio.AuthConfig(ctx, a.id)
		return c.ExecutableTools, err
	}
	s, err := a.composio.MCPServer(ctx, a.id)
	return s.AllowedTools, err
}

func (a listAction) set(ctx context.Context, from, to []string) error {
	now, err := a.now(ctx)
	if err != nil {
		return err
	}
	if !sameList(now, from) {
		return fmt.Errorf("access: %s: %w", a.subject(), harden.ErrStale)
	}
	switch {
	case a.kind == "auth_config" && len(to) == 0:
		_, err = a.composio.UnrestrictAuthConfig(ctx, a.id)
	case a.kind == "auth_config":
		_, err = a.composio.RestrictAuthConfig(ctx, a.id, to)
	case len(to) == 0:
		_, err = a.composio.UnrestrictMCPServer(ctx, a.id)
	default:
		_, err = a.composio.RestrictMCPServer(ctx, a.id, to)
	}
	return settle(ctx, err, func(ctx context.Context) (bool, error) {
		now, err := a.now(ctx)
		return !sameList(now, from), err
	})
}
