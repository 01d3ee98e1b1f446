package gateway_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// A step is something that the official clients are asked to do.
type step = map[string]any

type stepResult struct {
	Result any    `json:"result"`
	Error  string `json:"error"`
	Status int    `json:"status"`
}

// A node is an installation of the official clients.
type node struct {
	t   *testing.T
	dir string
}

// installNode installs the official clients, at the versions of the lock file.
// Where that cannot be done the test is skipped, which with CI=true is a
// failure.
func installNode(t *testing.T) node {
	t.Helper()
	skip := t.Skipf
	if os.Getenv("CI") == "true" {
		skip = t.Fatalf
	}
	if testing.Short() {
		t.Skip("installs packages, which takes long")
	}
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			skip("the official clients need %s: %v", program, err)
		}
	}
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", "client.mjs"} {
		data, err := os.ReadFile(filepath.Join("testdata/sdk", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		skip("npm ci: %v\n%s", err, out)
	}
	return node{t, dir}
}

func (n node) run(url, key string, steps ...step) []stepResult {
	n.t.Helper()
	in, err := json.Marshal(step{"url": url, "key": key, "steps": steps})
	if err != nil {
		n.t.Fatal(err)
	}
	cmd := exec.CommandContext(n.t.Context(), "node", "client.mjs", string(in))
	cmd.Dir = n.dir
	cmd.Env = append(cmd.Environ(), "HOME="+n.dir, "TELEMETRY_DISABLED=true")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		n.t.Fatalf("node: %v\n%s%s", err, &stdout, &stderr)
	}
	lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	var out []stepResult
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &out); err != nil || len(out) != len(steps) {
		n.t.Fatalf("node printed %s: %v", &stdout, err)
	}
	return out
}

// The official clients work against the gateway: what is allowed gives what
// Composio itself would give, and what is not is denied in words.
func TestOfficialClients(t *testing.T) {
	t.Parallel()
	n := installNode(t)
	w := newWorld(t).listen()
	if err := w.composio.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.composio.Close() })
	key := w.composio.ClientConfig().APIKey.Reveal()

	fetchMail := step{"action": "execute", "slug": "GMAIL_FETCH_EMAILS", "userId": "ann", "connectedAccountId": "ca_mail", "version": version, "arguments": step{"query": "from:bob"}}
	steps := []step{
		{"action": "get", "slug": "GMAIL_FETCH_EMAILS", "version": version},
		{"action": "list", "slugs": []string{"GMAIL_FETCH_EMAILS"}},
		fetchMail,
		{"action": "raw", "slug": "GMAIL_FETCH_EMAILS", "user_id": "ann", "connected_account_id": "ca_mail", "version": version, "arguments": step{"query": "from:eve"}},
	}
	direct, through := n.run(w.composio.URL, key, steps...), n.run(w.url, w.token.Reveal(), steps...)
	if len(w.executed()) != 4 {
		t.Errorf("executed %v", w.executed())
	}
	for i := range steps {
		// Ids of executions differ, and a list has the version that is pinned.
		a, b := strip(direct[i].Result), strip(through[i].Result)
		if direct[i].Error != "" || through[i].Error != "" || !reflect.DeepEqual(a, b) {
			t.Errorf("%v: Composio gives %v %s, the gateway %v %s", steps[i]["action"], a, direct[i].Error, b, through[i].Error)
		}
	}

	before := len(w.executed())
	denied := []step{
		{"action": "execute", "slug": "GMAIL_SEND_EMAIL", "userId": "ann", "version": version, "arguments": step{}},
		{"action": "get", "slug": "GMAIL_SEND_EMAIL"},
		{"action": "execute", "slug": "GMAIL_FETCH_EMAILS", "userId": "ben", "version": version, "arguments": step{}},
		{"action": "execute", "slug": "GMAIL_FETCH_EMAILS", "userId": "ann", "version": "20260101_00", "arguments": step{}},
		{"action": "raw", "slug": "GMAIL_FETCH_EMAILS", "user_id": "ann", "version": version, "text": "delete all"},
		{"action": "raw", "slug": "GMAIL_SEND_EMAIL", "user_id": "ann", "version": version, "arguments": step{}},
		{"action": "proxy", "endpoint": "/gmail/v1/users/me/messages", "method": "GET", "connectedAccountId": "ca_mail"},
		{"action": "accounts"},
	}
	for i, r := range n.run(w.url, w.token.Reveal(), denied...) {
		t.Logf("%v %v: %s", denied[i]["action"], denied[i]["slug"], r.Error)
		if r.Error == "" {
			t.Errorf("%v was not denied: %v", denied[i], r.Result)
		} else if !strings.Contains(r.Error, "agent") && !strings.Contains(r.Error, "not allowed") {
			t.Errorf("%v: the denial says %q", denied[i], r.Error)
		}
	}
	if len(w.executed()) != before {
		t.Errorf("executed %v", w.executed()[before:])
	}
	if d := len(w.trail.denials()); d != len(denied) {
		t.Errorf("%d denials are recorded of %d: clients try again, or some is missing", d, len(denied))
	}

	t.Run("mcp", func(t *testing.T) {
		before := len(w.executed())
		r := n.run(w.url, w.token.Reveal(),
			step{"action": "mcpList"},
			step{"action": "mcpCall", "name": "GMAIL_FETCH_EMAILS", "args": step{"query": "x"}},
			step{"action": "mcpCall", "name": "GMAIL_SEND_EMAIL", "args": step{}},
			step{"action": "mcpCall", "name": "COMPOSIO_MULTI_EXECUTE_TOOL", "args": step{"tools": []step{{"tool_slug": "GMAIL_FETCH_EMAILS", "arguments": step{}}, {"tool_slug": "GMAIL_SEND_EMAIL", "arguments": step{}}}}},
			step{"action": "mcpCall", "name": "COMPOSIO_MULTI_EXECUTE_TOOL", "args": step{"tools": []step{{"tool_slug": "GMAIL_FETCH_EMAILS", "arguments": step{}}}}},
			step{"action": "mcpPrompts"},
		)
		want := []any{"COMPOSIO_MULTI_EXECUTE_TOOL", "GMAIL_CREATE_EMAIL_DRAFT", "GMAIL_DELETE_MESSAGE", "GMAIL_FETCH_EMAILS", "HACKERNEWS_GET_LATEST_POSTS"}
		if !reflect.DeepEqual(r[0].Result, want) {
			t.Errorf("it lists %v, want %v (%s)", r[0].Result, want, r[0].Error)
		}
		for i, wantError := range map[int]bool{1: false, 2: true, 3: true, 4: false} {
			m, _ := r[i].Result.(map[string]any)
			if got := m["isError"] == true; m == nil || got != wantError {
				t.Errorf("call %d: %v %s", i, r[i].Result, r[i].Error)
			}
		}
		if r[5].Error == "" {
			t.Errorf("prompts are offered: %v", r[5].Result)
		}
		if got := w.executed()[before:]; !slices.Equal(got, []string{"GMAIL_FETCH_EMAILS", "GMAIL_FETCH_EMAILS"}) {
			t.Errorf("executed %v", got)
		}
	})
}

// strip takes out what differs from one execution to the next.
func strip(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range []string{"logId", "log_id", "session_info", "sessionInfo"} {
			delete(v, name)
		}
		if v["input"] != nil {
			delete(v, "version") // a list: the gateway has what is pinned, Composio the latest
		}
		for _, e := range v {
			strip(e)
		}
	case []any:
		for _, e := range v {
			strip(e)
		}
	}
	return v
}
