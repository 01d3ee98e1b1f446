package composio_test

import (
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/composiotest"
)

func collect[T any](seq iter.Seq2[T, error]) ([]T, error) {
	var all []T
	for t, err := range seq {
		if err != nil {
			return all, err
		}
		all = append(all, t)
	}
	return all, nil
}

// However the pages are cut, and whatever they say of themselves, every row is
// yielded once.
func TestListingIsComplete(t *testing.T) {
	for _, lying := range []bool{false, true} {
		for _, limit := range []int{1, 7, 50, 99, 100} {
			for _, n := range []int{0, 1, 49, 50, 51, 100, 101, 256} {
				s := composiotest.New(composiotest.Config{PageLimit: limit, LyingPages: lying})
				for i := range n {
					s.AddAccount(composiotest.Account{UserID: "u", Shared: i%5 == 0})
				}
				rows, err := collect(s.Client().Accounts(t.Context(), composio.AccountFilter{}))
				seen := make(map[string]bool)
				for _, r := range rows {
					seen[r.ID] = true
				}
				if err != nil || len(rows) != n || len(seen) != n {
					t.Errorf("lying %v, pages of %d: %d rows and %d ids of %d: %v", lying, limit, len(rows), len(seen), n, err)
				}
				for _, v := range s.Violations() {
					t.Error(v)
				}
			}
		}
	}
}

// A listing that is not complete, or of which it cannot be said, ends with an
// error, and so does one that does not end.
func TestListingIsIncomplete(t *testing.T) {
	row := func(id string) string { return `{"id":"` + id + `"}` }
	for name, f := range map[string]func(n int, r *http.Request) string{
		"the total is higher": func(n int, _ *http.Request) string {
			if n > 1 {
				return `{"items":[],"total_items":2}`
			}
			return `{"items":[` + row("a") + `],"total_items":2}`
		},
		"no total":            func(int, *http.Request) string { return `{"items":[` + row("a") + `]}` },
		"a total below zero":  func(int, *http.Request) string { return `{"items":[],"total_items":-1}` },
		"no rows":             func(int, *http.Request) string { return `{"total_items":0}` },
		"rows that are null":  func(int, *http.Request) string { return `{"items":null,"total_items":0}` },
		"an empty object":     func(int, *http.Request) string { return `{}` },
		"null":                func(int, *http.Request) string { return `null` },
		"a row without an id": func(int, *http.Request) string { return `{"items":[{}],"total_items":1}` },
		"the same cursor": func(n int, _ *http.Request) string {
			return fmt.Sprintf(`{"items":[%s],"total_items":9,"next_cursor":"c"}`, row(fmt.Sprint(n)))
		},
		"cursors without rows": func(n int, _ *http.Request) string {
			return fmt.Sprintf(`{"items":[],"total_items":9,"next_cursor":"c%d"}`, n)
		},
		"the same row for ever": func(n int, _ *http.Request) string {
			return fmt.Sprintf(`{"items":[%s],"total_items":9,"next_cursor":"c%d"}`, row("a"), n)
		},
	} {
		n := 0
		c := answering(t, func(r *http.Request) (*http.Response, error) {
			if n++; n > 50 {
				t.Fatalf("%s: it does not end", name)
			}
			return answer(200, f(n, r))
		})
		if _, err := collect(c.Accounts(t.Context(), composio.AccountFilter{})); !errors.Is(err, composio.ErrIncompleteListing) {
			t.Errorf("%s: %v", name, err)
		}
		n = 0
		if rows, err := collect(c.MCPServers(t.Context())); err == nil {
			t.Errorf("%s: MCP servers: %d rows", name, len(rows))
		}
	}
}

// A row that was not asked for is an error, not a row.
func TestForeignRows(t *testing.T) {
	row := `{"id":"ca_1","user_id":"mallory","status":"ACTIVE","toolkit":{"slug":"gmail"},"auth_config":{"id":"ac_1"},"experimental":{"account_type":"SHARED"},` +
		`"slug":"GMAIL_X","tags":["readOnlyHint"],"trigger_name":"T","connected_account_id":"ca_1"}`
	c := answering(t, func(*http.Request) (*http.Response, error) { return answer(200, `{"items":[`+row+`],"total_items":1}`) })
	ctx := t.Context()
	accounts := func(f composio.AccountFilter) func() (int, error) {
		return func() (int, error) { rows, err := collect(c.Accounts(ctx, f)); return len(rows), err }
	}
	for name, list := range map[string]func() (int, error){
		"another user":        accounts(composio.AccountFilter{UserIDs: []string{"alice"}}),
		"another status":      accounts(composio.AccountFilter{Statuses: []composio.Status{composio.StatusRevoked}}),
		"another toolkit":     accounts(composio.AccountFilter{Toolkits: []string{"slack"}}),
		"another id":          accounts(composio.AccountFilter{IDs: []string{"ca_2"}}),
		"another auth config": accounts(composio.AccountFilter{AuthConfigIDs: []string{"ac_2"}}),
		"another type":        accounts(composio.AccountFilter{Type: composio.AccountsPrivate}),
		"a tool of another toolkit": func() (int, error) {
			r, err := collect(c.Tools(ctx, composio.ToolFilter{Toolkit: "slack"}))
			return len(r), err
		},
		"a tool with another tag": func() (int, error) {
			r, err := collect(c.Tools(ctx, composio.ToolFilter{Tags: []string{"destructiveHint"}}))
			return len(r), err
		},
		"another tool": func() (int, error) {
			r, err := collect(c.Tools(ctx, composio.ToolFilter{Slugs: []string{"SLACK_X"}}))
			return len(r), err
		},
		"a trigger of another user": func() (int, error) {
			r, err := collect(c.Triggers(ctx, composio.TriggerFilter{UserIDs: []string{"alice"}}))
			return len(r), err
		},
		"a trigger of another account": func() (int, error) {
			r, err := collect(c.Triggers(ctx, composio.TriggerFilter{AccountIDs: []string{"ca_2"}}))
			return len(r), err
		},
		"an auth config of another toolkit": func() (int, error) { r, err := collect(c.AuthConfigs(ctx, "slack")); return len(r), err },
	} {
		if n, err := list(); !errors.Is(err, composio.ErrForeignRow) || n != 0 {
			t.Errorf("%s: %d rows, %v", name, n, err)
		}
	}
	if rows, err := collect(c.Accounts(ctx, composio.AccountFilter{
		UserIDs: []string{"alice", "mallory"}, Toolkits: []string{"GMAIL"}, Type: composio.AccountsShared,
	})); err != nil || len(rows) != 1 {
		t.Errorf("%d rows, %v", len(rows), err)
	}
}

// What the API would take for no filter at all is refused.
func TestFilters(t *testing.T) {
	c := answering(t, func(r *http.Request) (*http.Response, error) { t.Errorf("sent: %s", r.URL); return answer(200, "{}") })
	for _, f := range []composio.AccountFilter{
		{UserIDs: []string{}},
		{UserIDs: []string{""}},
		{UserIDs: []string{"a,b"}},
		{UserIDs: []string{" a"}},
		{IDs: []string{}},
		{Statuses: []composio.Status{}},
		{Toolkits: []string{"gmail", ""}},
		{AuthConfigIDs: []string{"a,b"}},
		{Type: "PRIVATE,SHARED"},
	} {
		if _, err := collect(c.Accounts(t.Context(), f)); err == nil {
			t.Errorf("%+v", f)
		}
	}
	var got *http.Request
	c = answering(t, func(r *http.Request) (*http.Response, error) {
		got = r
		return answer(200, `{"items":[],"total_items":0}`)
	})
	f := composio.AccountFilter{UserIDs: []string{"a b", "c&d=e"}, Statuses: []composio.Status{composio.StatusActive, composio.StatusInactive}}
	if _, err := collect(c.Accounts(t.Context(), f)); err != nil {
		t.Fatal(err)
	}
	q := got.URL.Query()
	if q.Get("user_ids") != "a b,c&d=e" || q.Get("statuses") != "ACTIVE,INACTIVE" || q.Get("account_type") != "ALL" || len(q["user_ids"]) != 1 {
		t.Errorf("%s", got.URL.RawQuery)
	}
}

// A consumer may stop at any row, and is then left alone.
func TestListingStops(t *testing.T) {
	s := composiotest.New(composiotest.Config{PageLimit: 10})
	for range 25 {
		s.AddAccount(composiotest.Account{UserID: "u"})
	}
	for stop := range 25 {
		n := 0
		for _, err := range s.Client().Accounts(t.Context(), composio.AccountFilter{}) {
			if err != nil {
				t.Fatal(err)
			}
			if n == stop {
				break
			}
			n++
		}
	}
}

// Every reader of JSON survives what a server may send; a listing either ends
// with an error or yields as many distinct rows as it says there are.
func FuzzListing(f *testing.F) {
	f.Add(`{"items":[{"id":"a"}],"total_items":1}`, `{"items":[],"total_items":1}`)
	f.Add(`{"items":[{"id":"a","user_id":"u","state":{"val":{"access_token":"x"}}}],"total_items":2,"next_cursor":"c"}`, `{"items":[{"id":"b"}],"total_items":2}`)
	f.Add(`{"items":[{"id":1}]}`, `[]`)
	f.Add(`{"items":[{"id":"a","auth_config":null,"requested_scopes":null,"created_at":"x"}],"total_items":1e300}`, ``)
	f.Fuzz(func(t *testing.T, first, second string) {
		n := 0
		c := answering(t, func(*http.Request) (*http.Response, error) {
			if n++; n == 1 {
				return answer(200, first)
			}
			return answer(200, second)
		}, func(c *composio.Config) { c.Retries = -1 })
		rows, err := collect(c.Accounts(t.Context(), composio.AccountFilter{}))
		seen := make(map[string]bool)
		for _, r := range rows {
			if r.ID == "" || seen[r.ID] {
				t.Errorf("row %q is yielded twice or has no id", r.ID)
			}
			seen[r.ID] = true
		}
		if err != nil && !errors.Is(err, composio.ErrAnswer) && !errors.Is(err, composio.ErrIncompleteListing) {
			t.Errorf("an error of no kind: %v", err)
		}
		if n > 100 {
			t.Errorf("%d requests", n)
		}
		n = 0
		_, _ = collect(c.AuthConfigs(t.Context()))
		n = 0
		_, _ = collect(c.Tools(t.Context(), composio.ToolFilter{}))
		n = 0
		_, _ = collect(c.MCPServers(t.Context()))
		n = 0
		_, _ = collect(c.Triggers(t.Context(), composio.TriggerFilter{}))
		n = 0
		_, _ = collect(c.Executions(t.Context(), composio.LogFilter{}))
		n = 0
		_, _ = c.Session(t.Context(), "trs_1")
	})
}

// An error body of any kind gives an error of its status, of bounded length,
// that does not quote the API's texts.
func FuzzErrorBody(f *testing.F) {
	f.Add(404, `{"error":{"message":"secret words","code":606,"slug":"A_B","request_id":"r"}}`, "2")
	f.Add(429, `{"message":"x"}`, "Sat, 01 Jan 2000 00:00:30 GMT")
	f.Add(500, `{"error":"x"}`, "-1")
	f.Add(301, `<html>`, "99999999999999999999")
	f.Fuzz(func(t *testing.T, status int, body, retry string) {
		if status < 300 || status > 599 {
			t.Skip()
		}
		c := answering(t, func(*http.Request) (*http.Response, error) {
			r, err := answer(status, body)
			r.Header["Retry-After"] = []string{retry}
			return r, err
		}, func(c *composio.Config) { c.Retries = -1 })
		_, err := c.Account(t.Context(), "ca_1")
		e, ok := errors.AsType[*composio.APIError](err)
		if !ok || e.Status != status || e.RetryAfter < 0 {
			t.Fatalf("%v", err)
		}
		if text := err.Error(); len(text) > 600 || strings.ContainsAny(text, "\n\r\x00\x1b") {
			t.Errorf("the error is %q", text)
		}
		if m := e.Message.Reveal(); len(m) > 4096 || len(m) > 20 && strings.Contains(err.Error(), m) && strings.Contains(m, " ") {
			t.Errorf("the error quotes %q", m)
		}
	})
}
