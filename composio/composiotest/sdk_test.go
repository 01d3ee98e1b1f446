package composiotest_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/composio/composiotest"
)

// installSDK installs the official SDK and returns its directory. Without node
// the test is skipped, which with CI=true is a failure.
func installSDK(t *testing.T) string {
	t.Helper()
	missing := t.Skipf
	if os.Getenv("CI") == "true" {
		missing = t.Fatalf
	}
	if testing.Short() {
		t.Skip("a short test installs nothing")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "../../scripts/install-node-sdk").CombinedOutput(); err != nil {
		missing("the official SDK cannot be installed: %v\n%s", err, out)
	}
	dir, err := filepath.Abs("testdata/sdk")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// The official SDK takes the server for Composio: it lists, gets, executes,
// disables, revokes and deletes, and meets the errors that it should.
func TestOfficialSDK(t *testing.T) {
	dir := installSDK(t)
	s := composiotest.New(composiotest.Config{JobDelay: time.Hour})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.AddTool(composiotest.Tool{Slug: "GMAIL_FETCH_EMAILS", Tags: []string{"readOnlyHint"}, Run: func(a map[string]any) (map[string]any, error) {
		return map[string]any{"found": a["query"]}, nil
	}})
	s.AddTool(composiotest.Tool{Slug: "GMAIL_SEND_EMAIL", Tags: []string{"createHint"}, Run: func(map[string]any) (map[string]any, error) {
		return nil, errors.New("mailbox full")
	}})
	s.AddTool(composiotest.Tool{Slug: "SLACK_SEND", Tags: []string{"createHint"}})
	s.AddAccount(composiotest.Account{ID: "ca_alice", UserID: "alice"})
	s.AddAccount(composiotest.Account{ID: "ca_bob", UserID: "bob"})
	s.AddAccount(composiotest.Account{ID: "ca_shared", UserID: "team", Shared: true})
	s.AddAccount(composiotest.Account{ID: "ca_expired", UserID: "alice", Toolkit: "slack", Status: "EXPIRED"})

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "run.mjs", s.URL, composiotest.ProjectKey)
	cmd.Dir = dir
	// Nothing of the caller's: a key in the environment would be used.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TELEMETRY_DISABLED=true", "SDK_DEBUG=" + os.Getenv("SDK_DEBUG")}
	out, err := cmd.Output()
	if err != nil {
		exit, _ := errors.AsType[*exec.ExitError](err)
		if exit == nil {
			t.Fatal(err)
		}
		t.Fatalf("%v\n%s%s", err, out, exit.Stderr)
	}
	var got map[string]any
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var want map[string]any
	if err := json.Unmarshal([]byte(`{
		"core.list": [{"id":"ca_alice","status":"ACTIVE","toolkit":"gmail"}],
		"core.get": {"id":"ca_alice","status":"ACTIVE","toolkit":"gmail"},
		"core.execute": {"successful":true,"error":null,"data":{"found":"is:unread"}},
		"core.execute.failing": {"successful":false,"error":"mailbox full"},
		"core.execute.another": 400,
		"core.disable": {"success":true},
		"core.delete": {"success":true},
		"core.get.deleted": 404,
		"client.list": ["ca_alice","ca_shared"],
		"client.list.default": ["ca_alice","ca_expired"],
		"client.revoke": {"tokens":["access_token","refresh_token"],"status":"REVOKED"},
		"client.revoke.again": [],
		"client.revoke.expired": 409,
		"client.delete": {"success":true,"job":"string"},
		"client.tools": ["GMAIL_FETCH_EMAILS","GMAIL_SEND_EMAIL"],
		"client.session": ["GMAIL_FETCH_EMAILS"]
	}`), &want); err != nil {
		t.Fatal(err)
	}
	for name, w := range want {
		g := got[name]
		if status, ok := w.(float64); ok {
			failure, _ := g.(map[string]any)
			if failure["failed"] != true || failure["status"] != nil && failure["status"] != status {
				t.Errorf("%s: %v, and it should fail with %v", name, g, status)
			}
			continue
		}
		if !reflect.DeepEqual(g, w) {
			t.Errorf("%s: %v, want %v", name, g, w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d results, want %d", len(got), len(want))
	}
	// The server knows it, too.
	for id, live := range map[string]int{"ca_bob": 2, "ca_shared": 0} { // the SDK deletes without revoking
		if a := s.Account(id); !a.Deleted || len(a.Live) != live {
			t.Errorf("%s: deleted %v, the provider takes %v", id, a.Deleted, a.Live)
		}
	}
	ran := s.Executions()
	if len(ran) != 2 || ran[0].Tool != "GMAIL_FETCH_EMAILS" || ran[0].AccountID != "ca_alice" || !ran[1].Failed {
		t.Errorf("executed: %+v", ran)
	}
	statuses := make(map[int]int)
	for _, r := range s.Requests() {
		statuses[r.Status]++
	}
	if statuses[404] == 0 || statuses[409] == 0 || statuses[400] == 0 {
		t.Errorf("statuses %v", statuses)
	}
	for _, v := range s.Violations() {
		t.Error(v)
	}
	if !slices.ContainsFunc(s.Requests(), func(r composiotest.Request) bool { return r.Query == "revoke_on_delete=true" }) {
		t.Error("the SDK did not ask for a revocation")
	}
}
