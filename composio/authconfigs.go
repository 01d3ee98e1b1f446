package composio

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"
)

// An AuthConfig is how accounts of a toolkit are connected, and what they may
// be used for. It holds no credential.
type AuthConfig struct {
	ID              string
	Name            string
	Kind            string // "default" or "custom"
	Toolkit         string
	AuthScheme      string
	ComposioManaged bool
	Disabled        bool // no new account can be connected; those there are still work
	Connections     int

	// ExecutableTools are the tools that may be executed. Empty means all of
	// the toolkit's.
	ExecutableTools []string

	// ConnectTools are the tools for which accounts may be connected. Empty
	// means all.
	ConnectTools []string

	CreatedAt time.Time
}

type authConfigWire struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Type    string `json:"type"`
	Toolkit struct {
		Slug string `json:"slug"`
	} `json:"toolkit"`
	AuthScheme      string  `json:"auth_scheme"`
	ComposioManaged bool    `json:"is_composio_managed"`
	Status          string  `json:"status"`
	Connections     float64 `json:"no_of_connections"`
	CreatedAt       string  `json:"created_at"`
	Access          struct {
		Connect []string `json:"tools_for_connected_account_creation"`
		Execute []string `json:"tools_available_for_execution"`
	} `json:"tool_access_config"`
}

func (w authConfigWire) config() AuthConfig {
	return AuthConfig{
		ID: w.ID, Name: w.Name, Kind: w.Type, Toolkit: w.Toolkit.Slug, AuthScheme: w.AuthScheme, ComposioManaged: w.ComposioManaged,
		Disabled: w.Status == "DISABLED", Connections: int(w.Connections),
		ExecutableTools: w.Access.Execute, ConnectTools: w.Access.Connect, CreatedAt: moment(w.CreatedAt),
	}
}

// AuthConfigs lists the auth configs of the project, those that are disabled
// included; of the given toolkits alone if there are any.
func (c *Client) AuthConfigs(ctx context.Context, toolkits ...string) iter.Seq2[AuthConfig, error] {
	q := newFilter(50).in("toolkit_slug", toolkits)
	if q.err != nil {
		return fail[AuthConfig](q.err)
	}
	q.query.Set("show_disabled", "true")
	return listing[authConfigWire, AuthConfig]{
		what: "auth configs",
		fetch: func(ctx context.Context, cursor string) (p page[authConfigWire], err error) {
			_, err = c.do(ctx, request{
				op: "list auth configs", method: http.MethodGet,
				path: []string{"auth_configs"}, query: q.with("cursor", cursor), repeat: always,
			}, &p)
			return p, err
		},
		row:   authConfigWire.config,
		id:    func(a AuthConfig) string { return a.ID },
		check: func(a AuthConfig) error { return anyCase("auth config", a.ID, "toolkit", a.Toolkit, toolkits) },
	}.all(ctx)
}

// AuthConfig returns one auth config.
func (c *Client) AuthConfig(ctx context.Context, id string) (AuthConfig, error) {
	if err := checkID("auth config", id); err != nil {
		return AuthConfig{}, err
	}
	var w authConfigWire
	r := request{op: "get auth config " + id, method: http.MethodGet, path: []string{"auth_configs", id}, repeat: always}
	if _, err := c.do(ctx, r, &w); err != nil {
		return AuthConfig{}, err
	}
	if w.ID != id {
		return AuthConfig{}, fmt.Errorf("composio: %s: %w: it is about another auth config", r.op, ErrAnswer)
	}
	return w.config(), nil
}

// SetAuthConfigEnabled lets new accounts be connected, or not. The accounts
// that there are go on working.
func (c *Client) SetAuthConfigEnabled(ctx context.Context, id string, enabled bool) error {
	if err := checkID("auth config", id); err != nil {
		return err
	}
	op, status := "enable auth config ", "ENABLED"
	if !enabled {
		op, status = "disable auth config ", "DISABLED"
	}
	_, err := c.do(ctx, request{op: op + id, method: http.MethodPatch, path: []string{"auth_configs", id, status}, repeat: always}, nil)
	return err
}

// RestrictAuthConfig makes tools the only ones that accounts of the auth
// config can execute, reads that back, and returns what was read. It refuses
// an empty list, which the API takes for no restriction. The error matches
// [ErrNotApplied] if the API says it did and has not.
func (c *Client) RestrictAuthConfig(ctx context.Context, id string, tools []string) (AuthConfig, error) {
	if err := checkTools("auth config "+id, tools); err != nil {
		return AuthConfig{}, err
	}
	return c.setExecutable(ctx, "restrict auth config "+id, id, tools)
}

// UnrestrictAuthConfig makes all tools of the toolkit executable, reads that
// back, and returns what was read. It is there to undo
// [Client.RestrictAuthConfig] of an auth config that had no list before.
func (c *Client) UnrestrictAuthConfig(ctx context.Context, id string) (AuthConfig, error) {
	return c.setExecutable(ctx, "unrestrict auth config "+id, id, []string{})
}

func (c *Client) setExecutable(ctx context.Context, op, id string, tools []string) (AuthConfig, error) {
	before, err := c.AuthConfig(ctx, id)
	if err != nil {
		return AuthConfig{}, err
	}
	type access struct {
		Connect []string `json:"tools_for_connected_account_creation,omitempty"`
		Execute []string `json:"tools_available_for_execution"`
	}
	body := struct {
		Type   string `json:"type"`
		Access access `json:"tool_access_config"`
	}{before.Kind, access{before.ConnectTools, tools}}
	r := request{op: op, method: http.MethodPatch, path: []string{"auth_configs", id}, body: body, repeat: always}
	if _, err := c.do(ctx, r, nil); err != nil {
		return AuthConfig{}, err
	}
	after, err := c.AuthConfig(ctx, id)
	if err != nil {
		return AuthConfig{}, err
	}
	if !sameTools(after.ExecutableTools, tools) {
		return after, fmt.Errorf("%w: auth config %s allows %d tools, and %d were to be allowed", ErrNotApplied, id, len(after.ExecutableTools), len(tools))
	}
	return after, nil
}

// DeleteAuthConfig deletes an auth config, and has the provider revoke the
// tokens of all its accounts in a job. Revoke the accounts first: afterwards
// [Client.RevokeAccount] finds none of them.
func (c *Client) DeleteAuthConfig(ctx context.Context, id string) (Deletion, error) {
	return c.deleteRevoking(ctx, "auth config", "auth_configs", id)
}

// checkTools refuses lists of tools that the API would take for all of them.
func checkTools(of string, tools []string) error {
	if len(tools) == 0 {
		return fmt.Errorf("composio: %s: an empty list of tools would allow all of them: name at least one", of)
	}
	for _, slug := range tools {
		if err := checkSlug(slug); err != nil {
			return err
		}
	}
	return nil
}

// checkSlug refuses what is not spelt as the API spells tools.
func checkSlug(slug string) error {
	if slug == "" {
		return errors.New("composio: the slug of the tool is empty")
	}
	for _, r := range slug {
		if r != '_' && (r < 'A' || r > 'Z') && (r < '0' || r > '9') {
			return fmt.Errorf("composio: %q is not the slug of a tool: it must be of capitals, digits and underscores", slug)
		}
	}
	return nil
}

// sameTools compares lists as sets.
func sameTools(a, b []string) bool {
	set := func(s []string) []string {
		s = slices.Clone(s)
		for i := range s {
			s[i] = strings.ToUpper(s[i])
		}
		slices.Sort(s)
		return slices.Compact(s)
	}
	return slices.Equal(set(a), set(b))
}
