package composio_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/composiotest"
)

// answering returns a client whose requests are answered by f.
func answering(t testing.TB, f roundTripper, change ...func(*composio.Config)) *composio.Client {
	t.Helper()
	cfg := composio.Config{
		APIKey: composio.NewSecret("ak_1"), OrgKey: composio.NewSecret("oak_1"), BaseURL: "https://composio.test", Transport: f,
	}
	for _, g := range change {
		g(&cfg)
	}
	c, err := composio.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func answer(status int, body string, headers ...string) (*http.Response, error) {
	h := make(http.Header)
	for i := 0; i+1 < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: -1}, nil
}

func TestNewRefuses(t *testing.T) {
	key := composio.NewSecret("ak_CANARY")
	for name, cfg := range map[string]composio.Config{
		"http to another host":            {APIKey: key, BaseURL: "http://composio.test"},
		"http to an address":              {APIKey: key, BaseURL: "http://192.0.2.1:80"},
		"http to a name like loopback":    {APIKey: key, BaseURL: "http://localhost.example"},
		"another scheme":                  {APIKey: key, BaseURL: "ftp://composio.test"},
		"no scheme":                       {APIKey: key, BaseURL: "composio.test"},
		"a user in the URL":               {APIKey: key, BaseURL: "https://CANARY@composio.test"},
		"a query in the URL":              {APIKey: key, BaseURL: "https://composio.test/?key=CANARY"},
		"a key of an organization":        {APIKey: composio.NewSecret("oak_CANARY")},
		"a consumer key":                  {APIKey: composio.NewSecret("ck_CANARY")},
		"a project key as organization's": {APIKey: key, OrgKey: composio.NewSecret("ak_CANARY")},
		"a key with its line's end":       {APIKey: composio.NewSecret("ak_CANARY\n")},
		"a key with a space":              {APIKey: composio.NewSecret("ak_ CANARY")},
		"an org key with a control":       {OrgKey: composio.NewSecret("oak_\x00CANARY")},
		"a negative timeout":              {APIKey: key, Timeout: -1},
		"a negative size":                 {APIKey: key, MaxBodyBytes: -1},
	} {
		c, err := composio.New(cfg)
		if err == nil || c != nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: the error is %q", name, err)
		}
	}
	for _, base := range []string{"", "https://composio.test/prefix/", "http://127.0.0.1:8080", "http://[::1]:8080", "http://localhost:1"} {
		if _, err := composio.New(composio.Config{APIKey: key, BaseURL: base}); err != nil {
			t.Errorf("%q: %v", base, err)
		}
	}
}

// Each request carries exactly one credential, that of what it asks for, and
// the revocation of keys none.
func TestOneCredential(t *testing.T) {
	var got http.Header
	reply := `{"items":[],"total_items":0,"api_key":{"key":"ak_2"},"received":true}`
	record := func(r *http.Request) (*http.Response, error) {
		got = r.Header
		return answer(200, reply)
	}
	for _, c := range []struct {
		name string
		key  string
		do   func(*composio.Client) error
		want string
	}{
		{"a project key", "ak_1", func(c *composio.Client) error {
			_, err := collect(c.Accounts(t.Context(), composio.AccountFilter{}))
			return err
		}, "X-Api-Key"},
		{"a key without a prefix", "k1", func(c *composio.Client) error { _, err := collect(c.AuthConfigs(t.Context())); return err }, "X-Api-Key"},
		{"a user's key", "uak_1", func(c *composio.Client) error {
			_, err := collect(c.Triggers(t.Context(), composio.TriggerFilter{}))
			return err
		}, "X-User-Api-Key"},
		{"the organization's", "ak_1", func(c *composio.Client) error { _, err := c.RegenerateKey(t.Context(), "pr_1"); return err }, "X-Org-Api-Key"},
		{"none", "ak_1", func(c *composio.Client) error { return c.RevokeKeys(t.Context(), composio.NewSecret("ak_9")) }, ""},
		{"that which is tried", "ak_1", func(c *composio.Client) error {
			_, err := c.KeyWorks(t.Context(), composio.NewSecret("uak_9"))
			return err
		}, "X-User-Api-Key"},
	} {
		client := answering(t, record, func(cfg *composio.Config) { cfg.APIKey = composio.NewSecret(c.key) })
		if err := c.do(client); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		n := 0
		for _, h := range []string{"X-Api-Key", "X-User-Api-Key", "X-Org-Api-Key", "X-Consumer-Api-Key", "Authorization", "Cookie"} {
			if v := got.Values(h); len(v) > 0 {
				n += len(v)
				if h != c.want {
					t.Errorf("%s: it has %s", c.name, h)
				}
			}
		}
		if want := min(1, len(c.want)); n != want {
			t.Errorf("%s: it has %d credentials", c.name, n)
		}
	}
}

// A request that needs a key that there is not is not sent.
func TestNoCredential(t *testing.T) {
	c := answering(t, func(*http.Request) (*http.Response, error) { t.Error("sent"); return answer(200, "{}") },
		func(cfg *composio.Config) { cfg.APIKey, cfg.OrgKey = composio.Secret{}, composio.Secret{} })
	if _, err := c.Account(t.Context(), "ca_1"); !errors.Is(err, composio.ErrUnauthorized) || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "APIKey") {
		t.Errorf("%v", err)
	}
	if _, err := c.RegenerateKey(t.Context(), "pr_1"); !errors.Is(err, composio.ErrUnauthorized) || !strings.Contains(err.Error(), "OrgKey") {
		t.Errorf("%v", err)
	}
}

// A redirect is an error, and nobody else is asked.
func TestRedirectsAreNotFollowed(t *testing.T) {
	asked := 0
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked++ }))
	defer other.Close()
	for _, code := range []int{301, 302, 303, 307, 308} {
		first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, code) }))
		c, err := composio.New(composio.Config{APIKey: composio.NewSecret("ak_1"), BaseURL: first.URL})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Account(t.Context(), "ca_1"); !errors.Is(err, composio.ErrRedirected) {
			t.Errorf("%d: %v", code, err)
		}
		first.Close()
	}
	if asked != 0 {
		t.Errorf("the other host was asked %d times", asked)
	}
}

func TestErrorsByStatus(t *testing.T) {
	for status, want := range map[int][]error{
		400: {composio.ErrInvalid},
		401: {composio.ErrUnauthorized, fs.ErrPermission},
		403: {composio.ErrForbidden, fs.ErrPermission},
		404: {composio.ErrNotFound, fs.ErrNotExist},
		409: {composio.ErrConflict},
		410: {composio.ErrNotFound, fs.ErrNotExist},
		422: {composio.ErrInvalid},
		429: {composio.ErrRateLimited},
		500: {composio.ErrUnavailable},
		503: {composio.ErrUnavailable},
		307: {composio.ErrRedirected},
	} {
		c := answering(t, func(*http.Request) (*http.Response, error) { return answer(status, "") }, func(c *composio.Config) { c.Retries = -1 })
		_, err := c.Account(t.Context(), "ca_1")
		for _, e := range []error{
			composio.ErrInvalid, composio.ErrUnauthorized, composio.ErrForbidden, composio.ErrNotFound, composio.ErrConflict,
			composio.ErrRateLimited, composio.ErrUnavailable, composio.ErrRedirected, fs.ErrPermission, fs.ErrNotExist,
		} {
			is := false
			for _, w := range want {
				is = is || w == e
			}
			if errors.Is(err, e) != is {
				t.Errorf("%d: errors.Is(%v) is %v", status, e, !is)
			}
		}
	}
}

// Bodies of errors come in many shapes, and none of them is required.
func TestErrorBodies(t *testing.T) {
	for _, c := range []struct {
		name, body, slug, code, id, message string
	}{
		{"as described", `{"error":{"message":"M","code":606,"slug":"A_B","status":404,"request_id":"req_1","suggested_fix":"x"}}`, "A_B", "606", "req_1", "M"},
		{"the code is a word", `{"error":{"message":"M","code":"OriginMismatch"}}`, "", "OriginMismatch", "", "M"},
		{"camel case", `{"error":{"message":"M","requestId":"req_2","suggestedFix":"x","slug":"A"}}`, "A", "", "req_2", "M"},
		{"without error", `{"message":"slow down"}`, "", "", "", "slow down"},
		{"error is a text", `{"error":"M"}`, "", "", "", "M"},
		{"other names", `{"error_code":17,"name":"N","message":"M"}`, "N", "17", "", "M"},
		{"a page", `<html>`, "", "", "", ""},
		{"nothing", ``, "", "", "", ""},
		{"null", `null`, "", "", "", ""},
		{"a list", `[1]`, "", "", "", ""},
		{"the error is null", `{"error":null}`, "", "", "", ""},
		{"the fields are objects", `{"error":{"message":{},"code":[],"slug":{"a":1}}}`, "", "", "", ""},
		{"the slug is a text with spaces", `{"error":{"slug":"see ak_CANARY there"}}`, "", "", "", ""},
		{"the slug is a key", `{"error":{"slug":"ak_CANARY"}}`, "", "", "", ""},
	} {
		client := answering(t, func(*http.Request) (*http.Response, error) { return answer(404, c.body) })
		_, err := client.Account(t.Context(), "ca_1")
		e, ok := errors.AsType[*composio.APIError](err)
		if !ok {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if e.Status != 404 || e.Slug != c.slug || e.Code != c.code || e.RequestID != c.id || e.Message.Reveal() != c.message || e.Op != "get connected account ca_1" {
			t.Errorf("%s: %+v, message %q", c.name, *e, e.Message.Reveal())
		}
		if c.message != "" && strings.Contains(err.Error(), c.message+" ") {
			t.Errorf("%s: the error quotes the API: %v", c.name, err)
		}
	}
}

// operations is every request of the client, and whether it may be repeated
// after a failure, and after it was refused for its rate.
func operations(ctx context.Context) map[string]struct {
	repeats, throttled bool
	do                 func(*composio.Client) error
} {
	type op = struct {
		repeats, throttled bool
		do                 func(*composio.Client) error
	}
	arguments, _ := composio.NewData(map[string]any{})
	call := composio.Call{Tool: "A_B", Version: "1", UserID: "u", Arguments: arguments}
	return map[string]op{
		"list accounts": {true, true, func(c *composio.Client) error {
			_, err := collect(c.Accounts(ctx, composio.AccountFilter{}))
			return err
		}},
		"get account":     {true, true, func(c *composio.Client) error { _, err := c.Account(ctx, "ca_1"); return err }},
		"disable account": {true, true, func(c *composio.Client) error { return c.SetAccountEnabled(ctx, "ca_1", false) }},
		"delete account":  {true, true, func(c *composio.Client) error { _, err := c.DeleteAccount(ctx, "ca_1"); return err }},
		"revoke account":  {false, true, func(c *composio.Client) error { _, err := c.RevokeAccount(ctx, "ca_1"); return err }},
		"link": {false, false, func(c *composio.Client) error {
			_, err := c.Link(ctx, composio.LinkRequest{AuthConfigID: "ac_1", UserID: "u"})
			return err
		}},
		"complete": {false, false, func(c *composio.Client) error {
			_, err := c.CompleteAuth(ctx, composio.NewSecret("x"), "u")
			return err
		}},
		"execute": {false, false, func(c *composio.Client) error { _, err := c.Execute(ctx, call); return err }},
		"create session": {false, false, func(c *composio.Client) error {
			_, err := c.CreateSession(ctx, composio.SessionSpec{UserID: "u", Tools: map[string][]string{"a": {"A_B"}}})
			return err
		}},
		"create MCP server": {false, false, func(c *composio.Client) error {
			_, err := c.CreateMCPServer(ctx, composio.MCPServerSpec{Name: "m", AuthConfigIDs: []string{"ac_1"}, AllowedTools: []string{"A"}})
			return err
		}},
		"delete session":    {true, true, func(c *composio.Client) error { return c.DeleteSession(ctx, "trs_1") }},
		"delete MCP server": {true, true, func(c *composio.Client) error { return c.DeleteMCPServer(ctx, "m") }},
		"disable trigger":   {true, true, func(c *composio.Client) error { return c.SetTriggerEnabled(ctx, "t", false) }},
		"list executions":   {true, true, func(c *composio.Client) error { _, err := collect(c.Executions(ctx, composio.LogFilter{})); return err }},
		"regenerate key":    {false, true, func(c *composio.Client) error { _, err := c.RegenerateKey(ctx, "pr_1"); return err }},
		"revoke keys":       {true, true, func(c *composio.Client) error { return c.RevokeKeys(ctx, composio.NewSecret("ak_2")) }},
	}
}

// What acts is sent once. The rest is sent again, a bounded number of times.
func TestRepetition(t *testing.T) {
	failures := map[string]func() (*http.Response, error){
		"500":             func() (*http.Response, error) { return answer(500, "") },
		"503":             func() (*http.Response, error) { return answer(503, "") },
		"no connection":   func() (*http.Response, error) { return nil, io.ErrUnexpectedEOF },
		"429":             func() (*http.Response, error) { return answer(429, `{"message":"x"}`) },
		"429 with a time": func() (*http.Response, error) { return answer(429, "", "Retry-After", "2") },
		"404":             func() (*http.Response, error) { return answer(404, "") },
		"409":             func() (*http.Response, error) { return answer(409, "") },
		"a page":          func() (*http.Response, error) { return answer(200, "<html>") },
		"a body cut short": func() (*http.Response, error) {
			r, _ := answer(200, "")
			r.Body = io.NopCloser(io.MultiReader(strings.NewReader("{"), broken{}))
			return r, nil
		},
	}
	for name := range operations(t.Context()) {
		for kind, fail := range failures {
			synctest.Test(t, func(t *testing.T) {
				op := operations(t.Context())[name]
				n := 0
				c := answering(t, func(*http.Request) (*http.Response, error) { n++; return fail() }, func(c *composio.Config) { c.Retries = 3 })
				err := op.do(c)
				want := 1
				switch {
				case strings.HasPrefix(kind, "429"):
					if op.throttled {
						want = 21
					}
				case kind == "500" || kind == "503" || kind == "no connection" || kind == "a body cut short":
					if op.repeats {
						want = 4
					}
				}
				// What has no answer to read does not mind a page.
				if n != want || err == nil && kind != "a page" {
					t.Errorf("%s, %s: sent %d times and not %d: %v", name, kind, n, want, err)
				}
			})
		}
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// The server's wish to wait is obeyed, up to the cap, and never longer than the
// caller has time.
func TestRetryAfter(t *testing.T) {
	for _, c := range []struct {
		name     string
		header   string
		deadline time.Duration
		least    time.Duration
		most     time.Duration
		calls    int
	}{
		{"seconds", "7", 0, 7 * time.Second, 8 * time.Second, 2},
		{"a date", "Sat, 01 Jan 2000 00:00:30 GMT", 0, 30 * time.Second, 31 * time.Second, 2},
		{"a date that has passed", "Fri, 31 Dec 1999 00:00:30 GMT", 0, 0, time.Second, 2},
		{"beyond the cap", "3600", 0, 0, 0, 1},
		{"beyond what a number holds", "99999999999999999999", 0, 0, time.Second, 2},
		{"negative", "-5", 0, 0, time.Second, 2},
		{"nonsense", "soon", 0, 0, time.Second, 2},
		{"longer than the caller has time", "30", 10 * time.Second, 0, 0, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := 0
			client := answering(t, func(*http.Request) (*http.Response, error) {
				if n++; n == 1 {
					return answer(429, "", "Retry-After", c.header)
				}
				return answer(200, `{"id":"ca_1"}`)
			})
			ctx := t.Context()
			if c.deadline > 0 {
				short, cancel := context.WithTimeout(ctx, c.deadline)
				defer cancel()
				ctx = short
			}
			start := time.Now()
			_, err := client.Account(ctx, "ca_1")
			if d := time.Since(start); d < c.least || d > c.most || n != c.calls || (n == 1) != errors.Is(err, composio.ErrRateLimited) {
				t.Errorf("%s: %d calls in %v: %v", c.name, n, d, err)
			}
		})
	}
}

// Once the API says that nothing is left of the window, other requests wait,
// too, also those that are never repeated: they have not been sent.
func TestRateLimitIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := composiotest.New(composiotest.Config{RateLimit: 1, Window: 20 * time.Second})
		s.AddAccount(composiotest.Account{ID: "ca_1", UserID: "u"})
		s.AddTool(composiotest.Tool{Slug: "GMAIL_X"})
		c := connect(t, s)
		start := time.Now()
		for range 2 { // the second is refused once
			if _, err := c.Account(t.Context(), "ca_1"); err != nil {
				t.Fatal(err)
			}
		}
		go func() { _, _ = c.Account(t.Context(), "ca_1") }()
		time.Sleep(time.Second) // that one is refused, and the gate closed
		if _, err := c.Execute(t.Context(), composio.Call{Tool: "GMAIL_X", Version: "latest_1", UserID: "u"}); !errors.Is(err, composio.ErrNotFound) && !errors.Is(err, composio.ErrRateLimited) {
			t.Errorf("%v", err)
		}
		if d := time.Since(start); d < 40*time.Second {
			t.Errorf("it was sent after %v", d)
		}
	})
}

// An attempt that gets no answer ends, and so does a caller who goes away.
func TestTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := composiotest.New(composiotest.Config{Fault: func(*http.Request) composiotest.Fault { return composiotest.Fault{Hang: true} }})
		c := connect(t, s, func(c *composio.Config) { c.Timeout, c.Retries = 5*time.Second, 1 })
		start := time.Now()
		_, err := c.Account(t.Context(), "ca_1")
		if d := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || d < 10*time.Second || d > 12*time.Second || !strings.Contains(err.Error(), "5s") {
			t.Errorf("after %v: %v", d, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		if _, err = c.Account(ctx, "ca_1"); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

// Who has gone sends nothing more.
func TestNothingIsSentForWhoHasGone(t *testing.T) {
	for name := range operations(t.Context()) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		c := answering(t, func(*http.Request) (*http.Response, error) { t.Errorf("%s: sent", name); return answer(200, "{}") })
		if err := operations(ctx)[name].do(c); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnswersThatAreTooLarge(t *testing.T) {
	c := answering(t, func(*http.Request) (*http.Response, error) {
		return answer(200, `{"id":"ca_1"}`+strings.Repeat(" ", 2000))
	}, func(c *composio.Config) { c.MaxBodyBytes = 1000 })
	if _, err := c.Account(t.Context(), "ca_1"); !errors.Is(err, composio.ErrAnswer) {
		t.Errorf("%v", err)
	}
}

// Ids stay in their segment of the path.
func TestIDs(t *testing.T) {
	c := answering(t, func(r *http.Request) (*http.Response, error) { t.Errorf("sent: %s", r.URL); return answer(200, "{}") })
	for _, id := range []string{"", ".", "..", "a/b", "../x", "a?b", "a#b", "a b", "a%2fb", "é", "a\x00", strings.Repeat("a", 201)} {
		if _, err := c.Account(t.Context(), id); err == nil {
			t.Errorf("account %q", id)
		}
		if _, err := c.DeleteAuthConfig(t.Context(), id); err == nil {
			t.Errorf("auth config %q", id)
		}
		if _, err := c.Tool(t.Context(), id, ""); err == nil {
			t.Errorf("tool %q", id)
		}
		if _, err := collect(c.SessionTools(t.Context(), id)); err == nil {
			t.Errorf("session %q", id)
		}
	}
	for _, slug := range []string{"gmail_send", "GMAIL-SEND", "proxy", "GMAIL_SEND/input", "GMAIL SEND"} {
		if _, err := c.Execute(t.Context(), composio.Call{Tool: slug, Version: "1", UserID: "u"}); err == nil {
			t.Errorf("execute %q", slug)
		}
	}
	for name, call := range map[string]composio.Call{
		"not pinned":       {Tool: "A", UserID: "u"},
		"the latest":       {Tool: "A", UserID: "u", Version: "Latest"},
		"no user":          {Tool: "A", Version: "1"},
		"arguments a list": {Tool: "A", Version: "1", UserID: "u", Arguments: data(t, []int{1})},
	} {
		if _, err := c.Execute(t.Context(), call); err == nil {
			t.Errorf("execute: %s", name)
		}
	}
}

func data(t testing.TB, v any) composio.Data {
	t.Helper()
	d, err := composio.NewData(v)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// An answer about another object than was asked for is none.
func TestAnswersAboutSomethingElse(t *testing.T) {
	c := answering(t, func(*http.Request) (*http.Response, error) {
		return answer(200, `{"id":"other","session_id":"other","slug":"OTHER","revoked_tokens":["access_token"],"connected_account":{"id":"other","status":"REVOKED"}}`)
	})
	ctx := t.Context()
	for name, do := range map[string]func() error{
		"account":     func() error { _, err := c.Account(ctx, "ca_1"); return err },
		"revocation":  func() error { _, err := c.RevokeAccount(ctx, "ca_1"); return err },
		"auth config": func() error { _, err := c.AuthConfig(ctx, "ac_1"); return err },
		"tool":        func() error { _, err := c.Tool(ctx, "A", ""); return err },
		"session":     func() error { _, err := c.Session(ctx, "trs_1"); return err },
		"MCP server":  func() error { _, err := c.MCPServer(ctx, "m"); return err },
		"execution":   func() error { _, err := c.Execution(ctx, "l"); return err },
		"execute": func() error {
			_, err := c.Execute(ctx, composio.Call{Tool: "A", Version: "1", UserID: "u"})
			return err
		},
		"keys":       func() error { return c.RevokeKeys(ctx, composio.NewSecret("ak_2")) },
		"regenerate": func() error { _, err := c.RegenerateKey(ctx, "pr_1"); return err },
	} {
		if err := do(); !errors.Is(err, composio.ErrAnswer) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
