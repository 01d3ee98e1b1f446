package main

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/openclaw"
	"github.com/managemyclaw/hardshell/internal/lab"
)

func result(t *testing.T, r *audit.Report, id string) audit.Result {
	t.Helper()
	for _, res := range r.Results {
		if res.Info.ID == id {
			return res
		}
	}
	t.Fatalf("no check %s", id)
	return audit.Result{}
}

// A key in the agent's environment fails point 10, and is not shown. A program
// cannot take it back, and so a plan names it as what a person must do.
func (w *world) credentials(t *testing.T) {
	const (
		name = "with-keys"
		key  = "ak_7Qw2Zr9Xc4Vb6Nm1Lk3Jh"
	)
	w.run(t, name, "-e", "COMPOSIO_API_KEY="+key)
	began := time.Now()
	o := w.program(t, "security-audit", name, "--format", "json")
	t.Logf("the audit took %v", time.Since(began))
	r := parse(t, o.stdout)
	if res := result(t, r, "access.agent_credentials"); res.Status != harden.StatusFail || r.Points[harden.PointComposioOAuth-1].Status != harden.StatusFail {
		t.Errorf("%v %s", res.Status, res.Detail)
	}
	if res := result(t, r, "access.gateway_only"); res.Status != harden.StatusUnknown || !strings.Contains(res.Detail, "--gateway-url") {
		t.Errorf("%v %s", res.Status, res.Detail)
	}
	text, plan := w.program(t, "security-audit", name, "--full"), w.program(t, "harden", name, "--plan")
	text.want(t, exitFail, "COMPOSIO_API_KEY", "")
	plan.want(t, exitFail, "✗ access.agent_credentials", "")
	plan.want(t, exitFail, "make the container anew without it, and revoke it", "")
	if strings.Contains(o.stdout+text.stdout+plan.stdout, key) {
		t.Error("the key is shown")
	}
}

// Told of everything, the audit says of an agent that has its tools through the
// gateway alone that it does; and of a gateway without Composio's masking that
// hardening puts it right.
func (w *world) gateway(t *testing.T) {
	const name = "through-gateway"
	f := newOffice(t)
	s := f.start(t)
	w.docker(t, "run", "-d", "--name", name, "-v", name+"-state:"+openclaw.StateDir, "-e", "COMPOSIO_TOKEN="+f.token.Reveal(), lab.HealthImage)
	config := `{"mcp":{"servers":{"tools":{"url":"` + s.url + `/mcp","headers":{"x-api-key":"${COMPOSIO_TOKEN}"}}}}}`
	if a, err := w.Do(t.Context(), name, "write", openclaw.StateDir+"/openclaw.json", config); err != nil || !a.OK {
		t.Fatal(a, err)
	}
	probe := filepath.Join(f.dir, "probe.token")
	f.file(t, probe, f.probe.Reveal(), 0o600)
	flags := []string{
		"--policy", f.policyFile, "--composio-key-file", f.keyFile, "--composio-url", f.composio.URL,
		"--gateway-url", s.url, "--probe-token-file", probe, "--state-dir", f.state, "--format", "json",
	}
	look := func() *audit.Report {
		t.Helper()
		o := w.program(t, "security-audit", name, flags...)
		for _, secret := range []string{f.token.Reveal(), f.probe.Reveal()} {
			if strings.Contains(o.stdout+o.stderr, secret) {
				t.Error("a token is shown")
			}
		}
		return parse(t, o.stdout)
	}
	r := look()
	for _, res := range r.Results {
		if strings.HasPrefix(res.Info.ID, "access.") {
			t.Logf("%s: %v %s %v", res.Info.ID, res.Status, res.Detail, res.Findings)
		}
	}
	for _, id := range []string{"access.agent_credentials", "access.openclaw_config", "access.gateway_only", "access.masked_secrets", "access.tool_policy", "access.tools_offered"} {
		if res := result(t, r, id); res.Status != harden.StatusPass {
			t.Errorf("%s: %v %s %v", id, res.Status, res.Detail, res.Findings)
		}
	}

	// What is left, hardening sees to: at Composio, and by making the agent a
	// user who may not read the key's file.
	for _, id := range []string{"access.mcp_key", "access.composio_allowlists", "access.key_files"} {
		if res := result(t, r, id); res.Status != harden.StatusFail {
			t.Errorf("%s: %v %s", id, res.Status, res.Detail)
		}
	}
	o := w.program(t, "harden", name, flags...)
	hardened := parse(t, o.stdout)
	for _, p := range []harden.Point{harden.PointComposioOAuth, harden.PointVault, harden.PointAuditTrail, harden.PointToolAllowlists} {
		if got := hardened.Points[p-1].Status; got != harden.StatusPass {
			t.Errorf("%v: %v\n%s", p, got, o.stderr)
		}
	}
	if res := result(t, hardened, "access.trail_fresh"); res.Level != harden.LevelProbed {
		t.Errorf("the gateway was not asked: %+v", res.Evidence)
	}
	s.want(t, "GMAIL_FETCH_EMAILS", http.StatusOK)
	w.roundTheGateway(t, f, look)

	// Of a gateway that has stopped the agent nobody can say what it offers.
	for range 3 {
		s.call(t, "GMAIL_DELETE_MESSAGE", f.token.Reveal())
	}
	s.out.await(t, "agent inbox is stopped")
	s.want(t, "GMAIL_FETCH_EMAILS", http.StatusForbidden)
	if res := result(t, look(), "access.tools_offered"); res.Status == harden.StatusPass {
		t.Error("a gateway that offers nothing passes")
	}
}

// What is executed with Composio's key, and not through the gateway, is in no
// trail: that it may still come there is all that can be said for it.
func (w *world) roundTheGateway(t *testing.T, f *office, look func() *audit.Report) {
	t.Helper()
	if r := look(); r.Points[harden.PointAuditTrail-1].Status != harden.StatusPass {
		t.Errorf("%+v", result(t, r, "access.trail_complete"))
	}
	_, err := f.composio.Client().Execute(t.Context(), composio.Call{Tool: "GMAIL_FETCH_EMAILS", Version: toolVersion, UserID: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	if res := result(t, look(), "access.trail_complete"); res.Status == harden.StatusPass || !strings.Contains(res.Detail, "audit again") {
		t.Errorf("%v %s %+v", res.Status, res.Detail, res.Evidence)
	}
}
