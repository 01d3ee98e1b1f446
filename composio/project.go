package composio

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// A ProjectConfig is what a project decides for all its accounts. A field that
// is nil was not said, or is not to be changed.
type ProjectConfig struct {
	// MaskSecrets makes the API mask the credentials of accounts. Whoever has
	// a project's key can turn it off.
	MaskSecrets *bool `json:"mask_secret_keys_in_connected_account,omitempty"`

	// RequireMCPKey makes MCP servers ask for the project's key.
	RequireMCPKey *bool `json:"require_mcp_api_key,omitempty"`

	// LogVisibility is "show_all", or "dont_store_data" for logs without
	// payloads.
	LogVisibility *string `json:"log_visibility_setting,omitempty"`
}

var projectConfigPath = []string{"org", "project", "config"}

// ProjectConfig returns the configuration of the key's project. Not every key
// may read it, and not every version of the API has it: expect ErrForbidden
// and ErrNotFound.
func (c *Client) ProjectConfig(ctx context.Context) (ProjectConfig, error) {
	var p ProjectConfig
	_, err := c.do(ctx, request{op: "get project configuration", method: http.MethodGet, path: projectConfigPath, repeat: always}, &p)
	return p, err
}

// UpdateProjectConfig changes the fields of p that are not nil, reads the
// configuration back and returns what was read. The error matches
// [ErrNotApplied] if that is something else.
func (c *Client) UpdateProjectConfig(ctx context.Context, p ProjectConfig) (ProjectConfig, error) {
	if p == (ProjectConfig{}) {
		return ProjectConfig{}, errors.New("composio: change project configuration: nothing is to be changed")
	}
	if _, err := c.do(ctx, request{op: "change project configuration", method: http.MethodPatch, path: projectConfigPath, body: p, repeat: always}, nil); err != nil {
		return ProjectConfig{}, err
	}
	got, err := c.ProjectConfig(ctx)
	if err != nil {
		return ProjectConfig{}, err
	}
	if !is(got.MaskSecrets, p.MaskSecrets) || !is(got.RequireMCPKey, p.RequireMCPKey) || !is(got.LogVisibility, p.LogVisibility) {
		return got, fmt.Errorf("%w: project configuration", ErrNotApplied)
	}
	return got, nil
}

func is[T comparable](got, want *T) bool { return want == nil || got != nil && *got == *want }

// A Key is a key of a project.
type Key struct {
	ID    string
	Name  string
	Value Secret
}

// RegenerateKey deletes all keys of a project and returns a new one, by the
// authority of [Config.OrgKey]. It is sent once. If the answer is lost, the
// old keys may be gone and nobody knows the new one: regenerate again.
func (c *Client) RegenerateKey(ctx context.Context, projectID string) (Key, error) {
	if err := checkID("project", projectID); err != nil {
		return Key{}, err
	}
	var w struct {
		Key struct {
			ID   string `json:"id"`
			Name string `json:"name"`
			Key  Secret `json:"key"`
		} `json:"api_key"`
	}
	r := request{
		op: "regenerate the key of project " + projectID, method: http.MethodPost,
		path: []string{"org", "owner", "project", projectID, "regenerate_api_key"}, repeat: throttled, auth: byOrg,
	}
	if _, err := c.do(ctx, r, &w); err != nil {
		return Key{}, err
	}
	if w.Key.Key.IsZero() {
		return Key{}, fmt.Errorf("composio: %s: %w: it has no key", r.op, ErrAnswer)
	}
	return Key{ID: w.Key.ID, Name: w.Key.Name, Value: w.Key.Key}, nil
}

// RevokeKeys revokes keys of any kind, at most 100 of them, by no other
// authority than that they are known: for when no key is left that could
// revoke them. The API answers the same whether they exist or not. Ask
// [Client.KeyWorks] for the effect.
func (c *Client) RevokeKeys(ctx context.Context, keys ...Secret) error {
	if len(keys) == 0 || len(keys) > 100 {
		return fmt.Errorf("composio: revoke keys: %d keys were given: it takes 1 to 100", len(keys))
	}
	revealed := make([]string, len(keys))
	for i, k := range keys {
		if revealed[i] = k.Reveal(); revealed[i] == "" {
			return errors.New("composio: revoke keys: a key is empty")
		}
	}
	var w struct {
		Received bool `json:"received"`
	}
	r := request{op: "revoke keys", method: http.MethodPost, path: []string{"api_key_revocation"}, body: map[string][]string{"api_keys": revealed}, repeat: always, auth: byNobody}
	if _, err := c.do(ctx, r, &w); err != nil {
		return err
	}
	if !w.Received {
		return fmt.Errorf("composio: %s: %w: it was not received", r.op, ErrAnswer)
	}
	return nil
}

// KeyWorks reports whether the API accepts a project's or user's key, by
// asking it for one account. An error means that it is not known.
func (c *Client) KeyWorks(ctx context.Context, key Secret) (bool, error) {
	if _, err := projectCredential("APIKey", key); err != nil || key.IsZero() {
		return false, errors.New("composio: try a key: it is not the key of a project or of a user")
	}
	var p page[struct{}]
	_, err := c.do(ctx, request{
		op: "try a key", method: http.MethodGet, path: []string{"connected_accounts"},
		query: url.Values{"limit": {"1"}}, repeat: always, auth: byKey, key: key,
	}, &p)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, ErrUnauthorized):
		return false, nil
	case errors.Is(err, ErrForbidden):
		return true, nil // it is known, and may do less
	}
	return false, err
}
