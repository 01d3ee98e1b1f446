package composio_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/composiotest"
)

// A restriction can be undone, and what was not undone is an error.
func TestRestrictionsCanBeUndone(t *testing.T) {
	ctx := t.Context()
	s := composiotest.New(composiotest.Config{})
	s.AddAuthConfig(composiotest.AuthConfig{ID: "ac_1", Toolkit: "gmail", Connect: []string{"GMAIL_C"}})
	server := s.AddMCPServer(composiotest.MCPServer{Name: "m", AuthConfigIDs: []string{"ac_1"}})
	c := s.Client()
	if a, err := c.RestrictAuthConfig(ctx, "ac_1", []string{"GMAIL_A"}); err != nil || !slices.Equal(a.ExecutableTools, []string{"GMAIL_A"}) {
		t.Fatal(a, err)
	}
	if m, err := c.RestrictMCPServer(ctx, server, []string{"GMAIL_A"}); err != nil || !slices.Equal(m.AllowedTools, []string{"GMAIL_A"}) {
		t.Fatal(m, err)
	}
	lies := connect(t, s, dropping(s, "PATCH", "", `{}`))
	if _, err := lies.UnrestrictAuthConfig(ctx, "ac_1"); !errors.Is(err, composio.ErrNotApplied) {
		t.Errorf("%v", err)
	}
	if _, err := lies.UnrestrictMCPServer(ctx, server); !errors.Is(err, composio.ErrNotApplied) {
		t.Errorf("%v", err)
	}
	if a, err := c.UnrestrictAuthConfig(ctx, "ac_1"); err != nil || len(a.ExecutableTools) != 0 || !slices.Equal(a.ConnectTools, []string{"GMAIL_C"}) {
		t.Error(a, err)
	}
	if m, err := c.UnrestrictMCPServer(ctx, server); err != nil || len(m.AllowedTools) != 0 {
		t.Error(m, err)
	}
}
