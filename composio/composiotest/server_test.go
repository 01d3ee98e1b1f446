package composiotest_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/composiotest"
)

// call sends a request with the project's key and returns the status and body.
func call(t *testing.T, s *composiotest.Server, method, path, body string, headers ...string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "https://composio.test/api/v3.1/"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if len(headers) == 0 {
		headers = []string{"X-Api-Key", composiotest.ProjectKey}
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := s.Transport().RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer map[string]any
	if err := json.Unmarshal(raw, &answer); err != nil {
		t.Fatalf("%s %s: %v: %q", method, path, err, raw)
	}
	return resp.StatusCode, answer
}

func ids(answer map[string]any) (all []string) {
	for _, row := range answer["items"].([]any) {
		all = append(all, row.(map[string]any)["id"].(string))
	}
	return all
}

// The awkward ways of the API, as a careless program meets them.
func TestAwkwardSemantics(t *testing.T) {
	s := composiotest.New(composiotest.Config{})
	s.AddAccount(composiotest.Account{ID: "ca_1", UserID: "alice"})
	s.AddAccount(composiotest.Account{ID: "ca_2", UserID: "bob"})
	s.AddAccount(composiotest.Account{ID: "ca_3", UserID: "team", Shared: true})
	s.AddAccount(composiotest.Account{ID: "ca_4", UserID: "alice", Status: "INACTIVE"})

	for query, want := range map[string][]string{
		"":                              {"ca_1", "ca_2", "ca_4"}, // shared accounts are not shown
		"?account_type=ALL":             {"ca_1", "ca_2", "ca_3", "ca_4"},
		"?account_type=SHARED":          {"ca_3"},
		"?user_ids=alice":               {"ca_1", "ca_4"},
		"?user_id=alice":                {"ca_1", "ca_2", "ca_4"}, // a parameter that there is not
		"?statuses=ACTIVE%2CINACTIVE":   {"ca_1", "ca_2", "ca_4"},
		"?user_ids=":                    {"ca_1", "ca_2", "ca_4"},
		"?user_ids=bob&user_ids=alice":  {"ca_2"}, // repeated: the first alone
		"?connected_account_ids=ca_3":   nil,
		"?limit=2":                      {"ca_1", "ca_2"},
		"?limit=2&cursor=2":             {"ca_4"},
		"?limit=2&cursor=9&user_ids=al": nil,
	} {
		if status, answer := call(t, s, "GET", "connected_accounts"+query, ""); status != 200 || !slices.Equal(ids(answer), want) {
			t.Errorf("%s: %d %v, want %v", query, status, ids(answer), want)
		}
	}
	steps := []struct {
		name, method, path, body string
		status                   int
	}{
		{"an account that is not active is not revoked", "POST", "connected_accounts/ca_4/revoke", "", 409},
		{"an account is revoked", "POST", "connected_accounts/ca_1/revoke", "", 200},
		{"again, without effect", "POST", "connected_accounts/ca_1/revoke", "", 200},
		{"an account that is revoked is not enabled", "PATCH", "connected_accounts/ca_1/status", `{"enabled":true}`, 409},
		{"the auth config goes", "DELETE", "auth_configs/ac_gmail", "", 200},
		{"and with it the revocation of its accounts", "POST", "connected_accounts/ca_2/revoke", "", 404},
		{"which are there", "GET", "connected_accounts/ca_2", "", 200},
		{"a deletion", "DELETE", "connected_accounts/ca_2", "", 200},
		{"again", "DELETE", "connected_accounts/ca_2", "", 404},
		{"a session with a field that there is not", "POST", "tool_router/session", `{"user_id":"u","user":"u"}`, 400},
		{"a body that is none", "POST", "tool_router/session", `{`, 400},
		{"a path that there is not", "GET", "connected_accounts/ca_1/tokens", "", 404},
	}
	for _, step := range steps {
		if step.status == 404 && strings.HasSuffix(step.path, "tokens") {
			continue // the answer is not JSON
		}
		if status, answer := call(t, s, step.method, step.path, step.body); status != step.status {
			t.Errorf("%s: %d %v", step.name, status, answer)
		}
	}
	if a := s.Account("ca_2"); !a.Deleted || len(a.Live) != 2 {
		t.Errorf("a deletion has revoked: %+v", a)
	}
}

func TestCredentials(t *testing.T) {
	s := composiotest.New(composiotest.Config{})
	for _, c := range []struct {
		name    string
		headers []string
		status  int
	}{
		{"a project's key", []string{"X-Api-Key", composiotest.ProjectKey}, 200},
		{"a user's key", []string{"X-User-Api-Key", composiotest.UserKey}, 200},
		{"an organization's key", []string{"X-Org-Api-Key", composiotest.OrgKey}, 401},
		{"two keys", []string{"X-Api-Key", composiotest.ProjectKey, "X-User-Api-Key", composiotest.UserKey}, 401},
		{"one key twice", []string{"X-Api-Key", composiotest.ProjectKey, "X-Api-Key", composiotest.ProjectKey}, 401},
		{"a key in the wrong header", []string{"X-Api-Key", composiotest.UserKey}, 401},
		{"another key", []string{"X-Api-Key", "ak_2"}, 401},
		{"none", []string{"X-Other", "x"}, 401},
	} {
		if status, _ := call(t, s, "GET", "connected_accounts", "", c.headers...); status != c.status {
			t.Errorf("%s: %d", c.name, status)
		}
	}
}

// An empty list is no list.
func TestEmptyAllowlistAllowsEverything(t *testing.T) {
	s := composiotest.New(composiotest.Config{})
	s.AddTool(composiotest.Tool{Slug: "GMAIL_A"})
	s.AddTool(composiotest.Tool{Slug: "GMAIL_B"})
	s.AddAuthConfig(composiotest.AuthConfig{ID: "ac_1", Toolkit: "gmail"})
	s.AddAccount(composiotest.Account{UserID: "u", AuthConfigID: "ac_1"})
	restrict := func(list string) int {
		status, _ := call(t, s, "PATCH", "auth_configs/ac_1", `{"type":"default","tool_access_config":{"tools_available_for_execution":`+list+`}}`)
		return status
	}
	run := func(tool string) int {
		status, _ := call(t, s, "POST", "tools/execute/"+tool, `{"user_id":"u","arguments":{}}`)
		return status
	}
	if restrict(`["GMAIL_A"]`) != 200 || run("GMAIL_A") != 200 || run("GMAIL_B") != 403 {
		t.Error("the restriction does not hold")
	}
	if restrict(`[]`) != 200 || run("GMAIL_B") != 200 {
		t.Error("an empty list restricts")
	}
	if status, _ := call(t, s, "PATCH", "auth_configs/ac_1", `{"name":"x"}`); status != 400 {
		t.Errorf("without a type: %d", status)
	}
}

// The job of a deletion revokes later, and only what was active.
func TestJobs(t *testing.T) {
	for _, all := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := composiotest.New(composiotest.Config{JobDelay: time.Minute, JobsRevokeAll: all})
			s.AddAccount(composiotest.Account{ID: "ca_1", UserID: "u"})
			s.AddAccount(composiotest.Account{ID: "ca_2", UserID: "u", Status: "INACTIVE"})
			s.AddAccount(composiotest.Account{ID: "ca_3", UserID: "u"})
			for _, path := range []string{"connected_accounts/ca_1?revoke_on_delete=true", "connected_accounts/ca_2?revoke_on_delete=true", "connected_accounts/ca_3"} {
				if status, answer := call(t, s, "DELETE", path, ""); status != 200 || (answer["revoke_job_id"] != nil) != strings.Contains(path, "?") {
					t.Errorf("%s: %d %v", path, status, answer)
				}
			}
			live := func() (n []int) {
				for _, a := range s.Accounts() {
					n = append(n, len(a.Live))
				}
				return n
			}
			if !slices.Equal(live(), []int{2, 2, 2}) {
				t.Errorf("at once: %v", live())
			}
			time.Sleep(time.Minute)
			want := []int{0, 2, 2}
			if all {
				want = []int{0, 0, 2}
			}
			if !slices.Equal(live(), want) {
				t.Errorf("later: %v", live())
			}
		})
	}
}

func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := composiotest.New(composiotest.Config{RateLimit: 2, Window: 10 * time.Second})
		time.Sleep(3 * time.Second)
		for i, want := range []int{200, 200, 429, 429} {
			status, answer := call(t, s, "GET", "connected_accounts", "")
			if status != want || (answer["error"] != nil) || status == 429 && answer["message"] == "" {
				t.Errorf("%d: %d %v", i, status, answer)
			}
		}
		time.Sleep(10 * time.Second)
		if status, _ := call(t, s, "GET", "connected_accounts", ""); status != 200 {
			t.Errorf("in the next window: %d", status)
		}
	})
}

// Faults do what they say, in memory as over a network, and to the state alone
// what they should.
func TestFaults(t *testing.T) {
	for _, network := range []bool{false, true} {
		for name, c := range map[string]struct {
			fault composiotest.Fault
			did   bool
			is    error
		}{
			"an error":       {composiotest.Fault{Status: 503}, false, composio.ErrUnavailable},
			"too many":       {composiotest.Fault{Status: 429, RetryAfter: time.Second}, false, composio.ErrRateLimited},
			"a page":         {composiotest.Fault{Garbage: true}, false, composio.ErrAnswer},
			"a lost answer":  {composiotest.Fault{Lose: true}, true, nil},
			"half an answer": {composiotest.Fault{Truncate: true}, true, nil},
			"no answer":      {composiotest.Fault{Hang: true}, false, nil},
			"a late answer":  {composiotest.Fault{Delay: 500 * time.Millisecond}, false, nil},
		} {
			s := composiotest.New(composiotest.Config{Fault: func(*http.Request) composiotest.Fault { return c.fault }})
			if network {
				if err := s.Start(); err != nil {
					t.Fatal(err)
				}
				defer s.Close()
			}
			s.AddAccount(composiotest.Account{ID: "ca_1", UserID: "u"})
			cfg := s.ClientConfig()
			cfg.Retries, cfg.Timeout = -1, 100*time.Millisecond
			client, err := composio.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			_, err = client.RevokeAccount(t.Context(), "ca_1")
			if err == nil || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("network %v: %s: %v", network, name, err)
			}
			if did := s.Account("ca_1").Status == "REVOKED"; did != c.did {
				t.Errorf("network %v: %s: it was done: %v", network, name, did)
			}
		}
	}
}

// Chaos fails as often as it is told, in every way, and the same each time.
func TestChaos(t *testing.T) {
	a, b := composiotest.Chaos(7, 0.05), composiotest.Chaos(7, 0.05)
	kinds := make(map[composiotest.Fault]int)
	failed := 0
	for range 20_000 {
		f := a(nil)
		if f != b(nil) {
			t.Fatal("it is not the same sequence")
		}
		if f != (composiotest.Fault{}) {
			failed++
			kinds[f]++
		}
	}
	if failed < 900 || failed > 1100 || len(kinds) != 6 {
		t.Errorf("%d of 20000 failed, in %d ways", failed, len(kinds))
	}
}

// The search for violations finds them.
func TestViolations(t *testing.T) {
	for _, c := range []struct {
		method, path, body, want string
		headers                  []string
	}{
		{"GET", "connected_accounts?user_id=a", "", `no parameter "user_id"`, nil},
		{"GET", "connected_accounts?user_ids=a&user_ids=b", "", "2 times", nil},
		{"PATCH", "connected_accounts/ca_1/status", `{"enable":true}`, `no field "enable"`, nil},
		{"PATCH", "connected_accounts/ca_1/status", `{}`, `"enabled" is required`, nil},
		{"GET", "connected_accounts", "", "2 credentials", []string{"X-Api-Key", "a", "X-User-Api-Key", "b"}},
		{"GET", "connected_accounts", "", "no credential", []string{"X-Other", "a"}},
		{"GET", "connected_accounts", "", "does not take X-Org-Api-Key", []string{"X-Org-Api-Key", "a"}},
		{"POST", "connected_accounts/link", `[]`, "not a JSON object", nil},
		{"GET", "connected_accounts", "", "", nil},
		{"GET", "tools?toolkit_versions[gmail]=1", "", "", nil},
	} {
		s := composiotest.New(composiotest.Config{})
		call(t, s, c.method, c.path, c.body, c.headers...)
		got := s.Violations()
		if c.want == "" && len(got) != 0 || c.want != "" && !strings.Contains(strings.Join(got, "\n"), c.want) {
			t.Errorf("%s %s %s: %q, want %q", c.method, c.path, c.body, got, c.want)
		}
	}
}

// The table of operations is that of the API's description.
func TestOperationsAreThoseOfTheDescription(t *testing.T) {
	raw, err := os.ReadFile("../../../shared/data/composio/openapi-v3.1-2026-08.json")
	if err != nil {
		t.Skipf("the description is not there: %v", err)
	}
	type schema struct {
		Ref        string `json:"$ref"`
		AnyOf      []json.RawMessage
		OneOf      []json.RawMessage
		Properties map[string]json.RawMessage
		Required   []string
	}
	var doc struct {
		Paths map[string]map[string]struct {
			Parameters []struct {
				Name, In string
				Required bool
			}
			RequestBody *struct {
				Content map[string]struct{ Schema json.RawMessage }
			}
			Security []map[string]any
		}
		Components struct{ Schemas map[string]json.RawMessage }
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	var shape func(json.RawMessage) (fields, required []string)
	shape = func(raw json.RawMessage) (fields, required []string) {
		var s schema
		if err := json.Unmarshal(raw, &s); err != nil {
			t.Fatal(err)
		}
		if s.Ref != "" {
			return shape(doc.Components.Schemas[s.Ref[strings.LastIndex(s.Ref, "/")+1:]])
		}
		parts := slices.Concat(s.AnyOf, s.OneOf)
		if len(parts) == 0 {
			for name := range s.Properties {
				fields = append(fields, name)
			}
			return fields, s.Required
		}
		for i, p := range parts {
			f, r := shape(p)
			fields = append(fields, f...)
			if i == 0 {
				required = r
			}
			required = slices.DeleteFunc(slices.Clone(required), func(n string) bool { return !slices.Contains(r, n) })
		}
		return fields, required
	}
	set := func(s []string) string {
		s = slices.Clone(s)
		slices.Sort(s)
		return strings.Join(slices.Compact(s), " ")
	}
	var table []struct {
		Method, Path          string
		Query, Body, Required []string
		RequiredQuery         []string `json:"required_query"`
		Keys                  []string
		DocumentedOnly        bool `json:"documented_only"`
	}
	if raw, err = os.ReadFile("testdata/operations.json"); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &table); err != nil {
		t.Fatal(err)
	}
	described := 0
	for _, methods := range doc.Paths {
		described += len(methods)
	}
	seen := 0
	for _, row := range table {
		op, ok := doc.Paths[row.Path][strings.ToLower(row.Method)]
		if row.DocumentedOnly {
			if ok {
				t.Errorf("%s %s is described", row.Method, row.Path)
			}
			continue
		}
		if !ok {
			t.Errorf("%s %s is not described", row.Method, row.Path)
			continue
		}
		seen++
		var query, requiredQuery, fields, required, keys []string
		for _, p := range op.Parameters {
			if p.In == "query" {
				query = append(query, p.Name)
				if p.Required {
					requiredQuery = append(requiredQuery, p.Name)
				}
			}
		}
		if op.RequestBody != nil {
			fields, required = shape(op.RequestBody.Content["application/json"].Schema)
		}
		for _, s := range op.Security {
			for name := range s {
				keys = append(keys, map[string]string{"ApiKeyAuth": "project", "UserApiKeyAuth": "user", "OrgApiKeyAuth": "org"}[name])
			}
		}
		for what, pair := range map[string][2][]string{
			"query": {row.Query, query}, "required query": {row.RequiredQuery, requiredQuery}, "body": {row.Body, fields},
			"required": {row.Required, required}, "keys": {row.Keys, keys},
		} {
			if set(pair[0]) != set(pair[1]) {
				t.Errorf("%s %s: %s: %q, described %q", row.Method, row.Path, what, set(pair[0]), set(pair[1]))
			}
		}
	}
	if seen != described || seen < 100 {
		t.Errorf("%d operations of %d", seen, described)
	}
}

// Every operation that the server has is in the table.
func TestServerHasOnlyOperationsOfTheAPI(t *testing.T) {
	src, err := os.ReadFile("server.go")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(src)) {
		pattern, _, ok := strings.Cut(strings.TrimSpace(line), `": `)
		method, path, space := strings.Cut(strings.TrimPrefix(pattern, `"`), " ")
		if !ok || !space || !slices.Contains([]string{"GET", "POST", "PATCH", "DELETE", "PUT"}, method) {
			continue
		}
		n++
		path = strings.NewReplacer("{id}", "x1", "{slug}", "X", "{status}", "ENABLED").Replace(path)
		s := composiotest.New(composiotest.Config{Fault: func(*http.Request) composiotest.Fault { return composiotest.Fault{Status: 500} }})
		call(t, s, method, path, "")
		for _, v := range s.Violations() {
			if strings.Contains(v, "no such operation") {
				t.Error(v)
			}
		}
	}
	if n < 30 {
		t.Errorf("only %d operations found", n)
	}
}
