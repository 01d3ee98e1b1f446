package composio_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/composiotest"
)

// connect returns a client of s; change may alter its configuration.
func connect(t testing.TB, s *composiotest.Server, change ...func(*composio.Config)) *composio.Client {
	t.Helper()
	cfg := s.ClientConfig()
	for _, f := range change {
		f(&cfg)
	}
	c, err := composio.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// mixed fills a project with n accounts in every state and with every kind of
// provider, and returns them as they were.
func mixed(s *composiotest.Server, n int) map[string]composiotest.Account {
	s.AddAuthConfig(composiotest.AuthConfig{ID: "ac_removed", Toolkit: "notion", Deleted: true})
	all := make(map[string]composiotest.Account)
	for i := range n {
		a := composiotest.Account{
			ID: fmt.Sprintf("ca_%05d", i), UserID: fmt.Sprintf("user_%d", i%7), Toolkit: []string{"gmail", "slack", "github"}[i%3], Shared: i%11 == 0,
		}
		switch i % 20 {
		case 1:
			a.Status = "INACTIVE"
		case 2:
			a.Status = "EXPIRED"
		case 3:
			a.Status = "INITIATED"
		case 4:
			a.Status = "FAILED"
		case 5:
			a.Status = "REVOKED"
		case 6:
			a.Provider = composiotest.CannotRevoke
		case 7:
			a.Provider = composiotest.Refuses
		case 8:
			a.Provider = composiotest.RevokesAccess
		case 9:
			a.Leases = 1
		case 10:
			a.AuthScheme, a.Toolkit, a.Provider = "API_KEY", "tavily", composiotest.CannotRevoke
		case 11:
			a.Toolkit, a.AuthConfigID = "notion", "ac_removed"
		case 12:
			a.Status = "INITIALIZING"
		case 13:
			a.AuthScheme, a.Toolkit = "S2S_OAUTH2", "zoom"
		}
		s.AddAccount(a)
		all[a.ID] = s.Account(a.ID)
	}
	return all
}

// A witness notes the accounts for which an answer to a revocation never
// arrived, or was forgotten. It may be nil.
type witness struct {
	mu   sync.Mutex
	lost map[string]bool
}

func (w *witness) lose(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lost == nil {
		w.lost = make(map[string]bool)
	}
	w.lost[id] = true
}

func (w *witness) of(id string) bool {
	if w == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost[id]
}

// watch makes a client tell the witness.
func (w *witness) watch(c *composio.Config) {
	next := c.Transport
	c.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(r)
		if id := revoking(r); id != "" {
			if err == nil {
				var body []byte
				body, err := io.ReadAll(resp.Body)
				resp.Body = io.NopCloser(bytes.NewReader(body))
				if err == nil {
					return resp, nil
				}
				w.lose(id)
				return nil, err
			}
			w.lose(id)
		}
		return resp, err
	})
}

// watchOver is watch for a client that goes over a network.
func (w *witness) watchOver(c *composio.Config) {
	c.Transport = &http.Transport{MaxIdleConnsPerHost: 100}
	w.watch(c)
}

// revoking returns the id of the account that a request revokes, or nothing.
func revoking(r *http.Request) string {
	path, ok := strings.CutSuffix(r.URL.Path, "/revoke")
	if !ok {
		return ""
	}
	return path[strings.LastIndex(path, "/")+1:]
}

// lastID is the id on the last line of a journal.
func lastID(journal []byte) string {
	line := journal[bytes.LastIndexByte(journal, '\n')+1:]
	_, rest, _ := strings.Cut(string(line), `"id":"`)
	id, _, _ := strings.Cut(rest, `"`)
	return id
}

// judge holds a report against what the server knows. That an answer never
// arrived excuses that it is not known which tokens were revoked.
func judge(t *testing.T, s *composiotest.Server, before map[string]composiotest.Account, gone map[string]bool, w *witness, rep *composio.Revocation) map[composio.Outcome]int {
	t.Helper()
	counts := make(map[composio.Outcome]int)
	seen := make(map[string]bool)
	for _, o := range rep.Accounts {
		counts[o.Outcome]++
		seen[o.ID] = true
		was, is := before[o.ID], s.Account(o.ID)
		if o.Deleted != is.Deleted || !is.Deleted {
			t.Errorf("%s: deleted %v, and in truth %v", o.ID, o.Deleted, is.Deleted)
		}
		var want composio.Outcome
		switch {
		case gone[o.ID]:
			want = composio.OutcomeGone
		case was.Status == "REVOKED":
			want = composio.OutcomeAlreadyRevoked
		case was.Status != "ACTIVE", was.AuthConfigID == "ac_removed":
			want = composio.OutcomeUnconfirmed
		case was.Provider == composiotest.CannotRevoke:
			want = composio.OutcomeUnsupported
		case was.Provider == composiotest.Refuses:
			want = composio.OutcomeUpstreamFailed
		case was.Provider == composiotest.RevokesAccess:
			want = composio.OutcomePartial
		default:
			want = composio.OutcomeConfirmed
		}
		if o.Outcome == composio.OutcomeAlreadyRevoked && w.of(o.ID) && is.Status == "REVOKED" {
			want = o.Outcome
		}
		if o.Outcome != want {
			t.Errorf("%s was %s at %v: outcome %s (%s), and in truth %s", o.ID, was.Status, was.Provider, o.Outcome, o.Reason, want)
		}
		switch o.Outcome {
		case composio.OutcomeConfirmed:
			if len(is.Live) > 0 || o.Open != "" {
				t.Errorf("%s is confirmed, and %v are taken by the provider; open %q", o.ID, is.Live, o.Open)
			}
		case composio.OutcomePartial:
			if len(is.Live) == 0 || slices.Equal(o.Tokens, is.Live) || !strings.Contains(o.Open, "other than the "+o.Tokens[0]) {
				t.Errorf("%s is partial with %v, and %v are taken", o.ID, o.Tokens, is.Live)
			}
		}
		if len(is.Live) > 0 && o.Open == "" {
			t.Errorf("%s: %s, nothing is said to be open, and the provider takes %v", o.ID, o.Outcome, is.Live)
		}
	}
	for id := range before {
		if !seen[id] {
			t.Errorf("%s has no outcome", id)
		}
	}
	return counts
}

// within holds the time against what the requests need that the server got:
// those that failed have to be repeated, and took their time; and their number
// against those that did not fail.
func within(t *testing.T, s *composiotest.Server, concurrency int, latency, elapsed time.Duration) {
	t.Helper()
	served, failed := 0, 0
	for _, r := range s.Requests() {
		if r.Fault == (composiotest.Fault{}) {
			served++
		} else {
			failed++
		}
	}
	ideal := time.Duration(served+failed) * latency / time.Duration(concurrency)
	strict := time.Duration(served) * latency / time.Duration(concurrency)
	t.Logf("%d requests and %d that failed in %v, %d at a time: %.3f times what they need, %.3f times what those need that did not fail",
		served, failed, elapsed, concurrency, elapsed.Seconds()/ideal.Seconds(), elapsed.Seconds()/strict.Seconds())
	if elapsed > ideal*12/10 {
		t.Errorf("it took %v, and the requests need %v", elapsed, ideal)
	}
	if most := 4500; served > most {
		t.Errorf("%d requests: four an account should do", served)
	}
}

// A thousand accounts in every state, answers after 200 ms, one request in
// twenty that fails, and a crash in the middle: every account has the outcome
// that is true, and it takes as long as the requests that it needs.
func TestRevokeThousandAccounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			n           = 1000
			concurrency = 32
			latency     = 200 * time.Millisecond
		)
		var requests atomic.Int64
		var onCrash func()
		var remove func(id string)
		chaos := composiotest.Chaos(1, 0.05)
		s := composiotest.New(composiotest.Config{
			Latency: latency, JobDelay: 24 * time.Hour, RateLimit: 10_000,
			Fault: func(r *http.Request) composiotest.Fault {
				if requests.Add(1) == 1500 {
					onCrash()
				}
				if id := revoking(r); id != "" {
					remove(id)
				}
				return chaos(r)
			},
		})
		before := mixed(s, n)
		gone := make(map[string]bool)
		for i := n - 200; i < n; i += 20 {
			gone[fmt.Sprintf("ca_%05d", i)] = true // those are ACTIVE
		}
		remove = func(id string) { // by somebody else, at the last moment
			if gone[id] {
				s.ChangeAccount(id, func(a *composiotest.Account) { a.Deleted = true })
			}
		}
		crash, crashed := context.WithCancel(t.Context())
		onCrash = crashed

		start := time.Now()
		var journal bytes.Buffer
		var w witness
		first := &composio.Revoker{Client: connect(t, s, w.watch), Concurrency: concurrency, Journal: &journal}
		if _, err := first.Revoke(crash); err == nil {
			t.Fatal("the first run was not told that it ended early")
		}
		half := 0
		for _, a := range s.Accounts() {
			if a.Status == "REVOKED" || a.Deleted {
				half++
			}
		}
		t.Logf("the crash came when %d of %d accounts were revoked or deleted", half, n)

		// What a crash leaves of the last line is not whole.
		torn := journal.Bytes()[:journal.Len()-3]
		w.lose(lastID(torn))
		second := &composio.Revoker{Client: connect(t, s, w.watch), Concurrency: concurrency, Journal: io.Discard, Interval: latency}
		if err := second.Resume(bytes.NewReader(torn)); err != nil {
			t.Fatal(err)
		}
		rep, err := second.Revoke(t.Context())
		elapsed := time.Since(start)

		open, ok := errors.AsType[*composio.OpenError](err)
		if !ok {
			t.Fatalf("the error is %v: things are open", err)
		}
		t.Logf("%v", open)
		counts := judge(t, s, before, gone, &w, rep)
		t.Logf("outcomes %v", counts)
		if !rep.Empty {
			t.Errorf("it is not confirmed that none is left: %q", rep.Problems)
		}
		if counts[composio.OutcomeConfirmed] < n/4 {
			t.Errorf("only %d are confirmed", counts[composio.OutcomeConfirmed])
		}
		for _, c := range rep.Cuts {
			if !c.Done {
				t.Errorf("%s %s: %s", c.Kind, c.ID, c.Reason)
			}
		}
		within(t, s, concurrency, latency, elapsed)
		for _, v := range s.Violations() {
			t.Error(v)
		}
	})
}

// Without faults nothing is excused.
func TestRevokeWithoutFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := composiotest.New(composiotest.Config{JobDelay: time.Hour, Latency: 50 * time.Millisecond})
		before := mixed(s, 200)
		trigger := s.AddTrigger(composiotest.Trigger{Name: "GMAIL_NEW_GMAIL_MESSAGE", AccountID: "ca_00000", UserID: "user_0"})
		s.AddMCPServer(composiotest.MCPServer{Name: "m", AuthConfigIDs: []string{"ac_gmail"}})
		s.AddTool(composiotest.Tool{Slug: "GMAIL_FETCH_EMAILS", Tags: []string{"readOnlyHint"}})
		c := connect(t, s)
		session, err := c.CreateSession(t.Context(), composio.SessionSpec{UserID: "user_0", Tools: map[string][]string{"gmail": {"GMAIL_FETCH_EMAILS"}}})
		if err != nil {
			t.Fatal(err)
		}
		s.AddKey("ak_other")
		r := &composio.Revoker{Client: c, Sessions: []string{session.ID}, ProjectID: composiotest.ProjectID, Keys: []composio.Secret{composio.NewSecret("ak_other")}}
		rep, err := r.Revoke(t.Context())
		if _, ok := errors.AsType[*composio.OpenError](err); !ok {
			t.Fatal(err)
		}
		judge(t, s, before, nil, nil, rep)
		if !rep.Empty || len(rep.Problems) > 0 {
			t.Errorf("empty %v, problems %q", rep.Empty, rep.Problems)
		}
		kinds := make(map[string]int)
		for _, c := range rep.Cuts {
			if !c.Done {
				t.Errorf("%s %s: %s", c.Kind, c.ID, c.Reason)
			}
			kinds[c.Kind]++
		}
		if kinds["trigger"] != 1 || kinds["session"] != 1 || kinds["MCP server"] != 1 || kinds["auth config"] < 3 || kinds["key"] != 2 {
			t.Errorf("what was cut: %v", kinds)
		}
		if len(s.Sessions()) != 0 || len(s.MCPServers()) != 0 {
			t.Error("sessions or MCP servers are left")
		}
		for _, tr := range s.Triggers() {
			if tr.ID == trigger && !tr.Disabled {
				t.Error("the trigger is active")
			}
		}
		for _, a := range s.AuthConfigs() {
			if !a.Deleted && !a.Disabled {
				t.Errorf("auth config %s is enabled", a.ID)
			}
		}
		if s.KeyWorks(composiotest.ProjectKey) || s.KeyWorks("ak_other") || !s.KeyWorks(rep.NewKey.Value.Reveal()) {
			t.Error("the keys are not as they should be")
		}
		for _, v := range s.Violations() {
			t.Error(v)
		}
		// A deletion moves rows: none comes before the last page.
		listed := false
		for _, r := range s.Requests() {
			switch {
			case strings.HasSuffix(r.Path, "/connected_accounts") && strings.Contains(r.Query, "cursor="):
				listed = true // there are two pages
			case r.Method == http.MethodDelete && strings.Contains(r.Path, "/connected_accounts/") && !listed:
				t.Fatalf("%s %s comes before all are listed", r.Method, r.Path)
			}
		}
		// Again: there is nothing left to do, and nothing is forgotten.
		again, err := (&composio.Revoker{Client: connect(t, s, func(c *composio.Config) { c.APIKey = rep.NewKey.Value })}).Revoke(t.Context())
		if err != nil || len(again.Accounts) != 0 || !again.Empty {
			t.Errorf("the second time: %v, %d accounts", err, len(again.Accounts))
		}
	})
}

// Accounts of others are left alone, shared ones of the users go too, and what
// belongs to the project stays.
func TestRevokeSomeUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := composiotest.New(composiotest.Config{})
		before := mixed(s, 70)
		s.AddMCPServer(composiotest.MCPServer{Name: "m", AuthConfigIDs: []string{"ac_gmail"}})
		mine := s.AddTrigger(composiotest.Trigger{Name: "X", UserID: "user_3"})
		r := &composio.Revoker{Client: connect(t, s), UserIDs: []string{"user_3"}, Interval: time.Millisecond}
		rep, _ := r.Revoke(t.Context())
		if !rep.Empty {
			t.Errorf("problems %q", rep.Problems)
		}
		for _, a := range s.Accounts() {
			if a.Deleted != (a.UserID == "user_3") {
				t.Errorf("%s of %s: deleted %v", a.ID, a.UserID, a.Deleted)
			}
			if a.UserID != "user_3" && a.Status != before[a.ID].Status {
				t.Errorf("%s of %s was touched", a.ID, a.UserID)
			}
		}
		if len(s.MCPServers()) != 1 || s.AuthConfigs()[0].Disabled {
			t.Error("what belongs to the project was cut")
		}
		if !s.Triggers()[0].Disabled || s.Triggers()[0].ID != mine {
			t.Error("the user's trigger is active")
		}
	})
}

// A filter that the API ignores must not revoke the accounts of others, and
// nobody is told that it is done.
func TestRevokeFilterIgnored(t *testing.T) {
	for name, cfg := range map[string]composiotest.Config{
		"the filter is ignored":     {IgnoreUserFilter: true},
		"the rows do not say whose": {OmitUserID: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := composiotest.New(cfg)
				mixed(s, 40)
				rep, err := (&composio.Revoker{Client: connect(t, s), UserIDs: []string{"user_1"}}).Revoke(t.Context())
				if err == nil || rep.Empty {
					t.Error("it is said to be done")
				}
				for _, a := range s.Accounts() {
					if a.Deleted && a.UserID != "user_1" && a.AuthConfigID != "ac_removed" {
						t.Errorf("%s of %s was deleted", a.ID, a.UserID)
					}
				}
			})
		})
	}
}

// What nobody could see is not said to be done.
func TestRevokeWhereNothingIsCertain(t *testing.T) {
	isGet := func(r *http.Request) bool { return r.Method == http.MethodGet }
	one := func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/connected_accounts/ca_") }
	refuse := composiotest.Fault{Status: http.StatusServiceUnavailable}
	for name, fault := range map[string]func(*http.Request) bool{
		"accounts cannot be listed":    func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/connected_accounts") },
		"accounts cannot be asked for": func(r *http.Request) bool { return isGet(r) && one(r) },
		"accounts cannot be deleted":   func(r *http.Request) bool { return r.Method == http.MethodDelete },
		"accounts cannot be revoked":   func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/revoke") },
		"nothing answers":              func(*http.Request) bool { return true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broken := false
				s := composiotest.New(composiotest.Config{JobDelay: time.Hour, Fault: func(r *http.Request) composiotest.Fault {
					if broken && fault(r) {
						return refuse
					}
					return composiotest.Fault{}
				}})
				for range 5 {
					s.AddAccount(composiotest.Account{UserID: "u"})
				}
				r := &composio.Revoker{Client: connect(t, s)}
				if err := r.Arm(t.Context()); err != nil {
					t.Fatal(err)
				}
				broken = true
				rep, err := r.Revoke(t.Context())
				if err == nil {
					t.Fatal("it is said to be done")
				}
				if len(rep.Accounts) != 5 {
					t.Errorf("%d accounts in the report: they were known", len(rep.Accounts))
				}
				for _, o := range rep.Accounts {
					is := s.Account(o.ID)
					if o.Deleted && !is.Deleted {
						t.Errorf("%s is said to be deleted", o.ID)
					}
					if o.Outcome == composio.OutcomeConfirmed && len(is.Live) > 0 {
						t.Errorf("%s is said to be revoked", o.ID)
					}
					if len(is.Live) > 0 && o.Open == "" {
						t.Errorf("%s is open, and nothing says so", o.ID)
					}
				}
				if name == "accounts cannot be listed" && s.Account(rep.Accounts[0].ID).Status != "REVOKED" {
					t.Error("the accounts were known, and were not revoked")
				}
				if left, err := r.Remaining(t.Context()); err == nil && len(left) == 0 && !s.Account(rep.Accounts[0].ID).Deleted && rep.Accounts[0].Outcome != composio.OutcomeConfirmed {
					t.Error("nothing is said to remain")
				} else if err == nil && (name == "accounts cannot be listed" || name == "nothing answers") {
					t.Error("what remains is said to be known")
				}
				if rep.Empty && (name == "accounts cannot be listed" || name == "nothing answers" || name == "accounts cannot be deleted") {
					t.Error("it is said that none is left")
				}
				// Once it works, a second run ends it.
				broken = false
				rep, _ = r.Revoke(t.Context())
				if !rep.Empty {
					t.Errorf("the second run: %q", rep.Problems)
				}
				for _, a := range s.Accounts() {
					if !a.Deleted {
						t.Errorf("%s is still there", a.ID)
					}
				}
			})
		})
	}
}

// A link that is completed while the rest is revoked does not survive.
func TestRevokeLinkCompletedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := composiotest.New(composiotest.Config{Latency: 10 * time.Millisecond})
		s.AddAuthConfig(composiotest.AuthConfig{ID: "ac_gmail", Toolkit: "gmail"})
		s.AddAccount(composiotest.Account{UserID: "u"})
		c := connect(t, s)
		link, err := c.Link(t.Context(), composio.LinkRequest{AuthConfigID: "ac_gmail", UserID: "u"})
		if err != nil {
			t.Fatal(err)
		}
		go func() { // after the listing and before the deletion
			time.Sleep(15 * time.Millisecond)
			if _, err := s.OpenLink(link.Token.Reveal()); err != nil {
				t.Error(err)
			}
			time.Sleep(60 * time.Millisecond)
			s.AddAccount(composiotest.Account{ID: "ca_late", UserID: "u"})
		}()
		rep, err := (&composio.Revoker{Client: c}).Revoke(t.Context())
		if !rep.Empty {
			t.Errorf("%v: %q", err, rep.Problems)
		}
		for _, a := range s.Accounts() {
			if !a.Deleted {
				t.Errorf("%s is there", a.ID)
			}
		}
		found := false
		for _, o := range rep.Accounts {
			if o.ID == "ca_late" {
				found = o.Outcome == composio.OutcomeConfirmed
			}
			if o.ID == link.AccountID && (o.Outcome != composio.OutcomeUnconfirmed || o.Open == "" || !o.OpenUntil.Equal(o.CreatedAt.Add(10*time.Minute))) {
				t.Errorf("the link's account: %s, open %q until %v", o.Outcome, o.Open, o.OpenUntil)
			}
		}
		if !found {
			t.Error("the account that came late is not in the report as confirmed")
		}
	})
}

func TestRevokeInactive(t *testing.T) {
	for _, enable := range []bool{false, true} {
		t.Run(fmt.Sprintf("enabling %v", enable), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := composiotest.New(composiotest.Config{JobDelay: time.Hour})
				id := s.AddAccount(composiotest.Account{UserID: "u", Status: "INACTIVE"})
				rep, _ := (&composio.Revoker{Client: connect(t, s), EnableInactive: enable}).Revoke(t.Context())
				o, is := rep.Accounts[0], s.Account(id)
				if enable != (o.Outcome == composio.OutcomeConfirmed) || enable != (len(is.Live) == 0) || enable != (o.Open == "") {
					t.Errorf("outcome %s, open %q, the provider takes %v", o.Outcome, o.Open, is.Live)
				}
			})
		})
	}
}

// An account that the API said to be revoked, and that it then shows as ACTIVE,
// is not confirmed; nor is one that is still found after its deletion.
func TestAcknowledgementIsNoConfirmation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := composiotest.New(composiotest.Config{})
		id := s.AddAccount(composiotest.Account{UserID: "u"})
		stubborn := s.AddTrigger(composiotest.Trigger{Name: "X", UserID: "u", Stubborn: true})
		// It forgets what it did as soon as it has answered.
		liar := func(next http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) {
				resp, err := next.RoundTrip(r)
				if r.Method != http.MethodGet {
					s.ChangeAccount(id, func(a *composiotest.Account) {
						a.Status, a.Deleted, a.Live = "ACTIVE", false, []string{"access_token", "refresh_token"}
					})
				}
				return resp, err
			})
		}
		r := &composio.Revoker{Client: connect(t, s, func(c *composio.Config) { c.Transport = liar(c.Transport) })}
		rep, err := r.Revoke(t.Context())
		open, ok := errors.AsType[*composio.OpenError](err)
		if !ok {
			t.Fatalf("it is said to be done: %v", err)
		}
		o := rep.Accounts[0]
		if o.Outcome != composio.OutcomeUnconfirmed || o.Deleted || rep.Empty || o.Open == "" {
			t.Errorf("outcome %s, deleted %v, empty %v, open %q", o.Outcome, o.Deleted, rep.Empty, o.Open)
		}
		if open.Open()[id] == "" || open.Open()["trigger "+stubborn] == "" {
			t.Errorf("open: %v", open.Open())
		}
		left, err := r.Remaining(t.Context())
		if err != nil || left[id] != "ACTIVE" {
			t.Errorf("remaining %v, %v", left, err)
		}
	})
}

// Keys whose revocation was only acknowledged still work, and that is said.
func TestKeysThatStillWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := composiotest.New(composiotest.Config{})
		s.AddKey("ak_other")
		lie := dropping(s, http.MethodPost, "api_key_revocation", `{"received":true}`)
		r := &composio.Revoker{Client: connect(t, s, lie), Keys: []composio.Secret{composio.NewSecret("ak_other")}}
		rep, err := r.Revoke(t.Context())
		if err == nil || len(rep.Cuts) != 1 || rep.Cuts[0].Done {
			t.Errorf("%v: %+v", err, rep.Cuts)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A limit that is too small for the concurrency costs waiting and nothing else.
func TestRevokeWithinRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := composiotest.New(composiotest.Config{RateLimit: 100, Window: 10 * time.Second, Latency: 100 * time.Millisecond, JobDelay: time.Hour})
		before := mixed(s, 100)
		start := time.Now()
		rep, _ := (&composio.Revoker{Client: connect(t, s)}).Revoke(t.Context())
		judge(t, s, before, nil, nil, rep)
		let := 0
		for _, r := range s.Requests() {
			if r.Status != http.StatusTooManyRequests {
				let++
			}
		}
		refused := len(s.Requests()) - let
		windows := time.Duration((let+99)/100) * 10 * time.Second
		t.Logf("%d requests and %d that were refused in %v", let, refused, time.Since(start))
		if elapsed := time.Since(start); elapsed > windows*12/10 {
			t.Errorf("%d requests took %v, and the limit allows %v", let, elapsed, windows)
		}
		if refused > let/4 {
			t.Errorf("%d of %d requests were refused: it goes on asking", refused, len(s.Requests()))
		}
	})
}

// The journal of a crash at any point leads to the same end.
func TestResumeAfterCrashAnywhere(t *testing.T) {
	for at := int64(1); at <= 70; at += 3 {
		synctest.Test(t, func(t *testing.T) {
			var n atomic.Int64
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s := composiotest.New(composiotest.Config{JobDelay: time.Hour, Latency: time.Millisecond, Fault: func(*http.Request) composiotest.Fault {
				if n.Add(1) == at {
					cancel()
				}
				return composiotest.Fault{}
			}})
			before := mixed(s, 20)
			var journal bytes.Buffer
			var w witness
			_, err := (&composio.Revoker{Client: connect(t, s, w.watch), Concurrency: 3, Journal: &journal}).Revoke(ctx)
			if ctx.Err() != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("crash at %d: the error is %v", at, err)
			}
			second := &composio.Revoker{Client: connect(t, s), Concurrency: 3}
			if err := second.Resume(&journal); err != nil {
				t.Fatal(err)
			}
			rep, _ := second.Revoke(t.Context())
			if !rep.Empty {
				t.Errorf("crash at %d: problems %q", at, rep.Problems)
			}
			judge(t, s, before, nil, &w, rep)
			if t.Failed() {
				t.Logf("crash at request %d", at)
			}
		})
	}
}

// A journal that fails stops nothing, and is reported.
func TestJournalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := composiotest.New(composiotest.Config{})
		id := s.AddAccount(composiotest.Account{UserID: "u"})
		rep, err := (&composio.Revoker{Client: connect(t, s), Journal: fullDisk{}}).Revoke(t.Context())
		if err == nil || len(rep.Problems) != 1 || !strings.Contains(rep.Problems[0], "no space left") {
			t.Errorf("%v: problems %q", err, rep.Problems)
		}
		if !s.Account(id).Deleted || len(s.Account(id).Live) > 0 {
			t.Error("the account was not revoked")
		}
	})
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestRevokerMisconfigured(t *testing.T) {
	s := composiotest.New(composiotest.Config{})
	s.AddAccount(composiotest.Account{UserID: "u"})
	noOrg := connect(t, s, func(c *composio.Config) { c.OrgKey = composio.Secret{} })
	for name, r := range map[string]*composio.Revoker{
		"no client":                {},
		"an empty list of users":   {Client: s.Client(), UserIDs: []string{}},
		"an empty user":            {Client: s.Client(), UserIDs: []string{""}},
		"a user with a comma":      {Client: s.Client(), UserIDs: []string{"a,b"}},
		"keys without an org key":  {Client: noOrg, ProjectID: composiotest.ProjectID},
		"negative concurrency":     {Client: s.Client(), Concurrency: -1},
		"an interval below nought": {Client: s.Client(), Interval: -1},
	} {
		if rep, err := r.Revoke(t.Context()); err == nil || rep != nil {
			t.Errorf("%s: %v, %v", name, rep, err)
		}
		if err := r.Arm(t.Context()); err == nil {
			t.Errorf("%s: it arms", name)
		}
	}
	if n := len(s.Requests()); n != 0 {
		t.Errorf("%d requests were made", n)
	}
}

func TestResumeRefusesWhatIsNoJournal(t *testing.T) {
	for name, text := range map[string]string{
		"not JSON":          "hello\n",
		"another version":   `{"v":2,"account":{"id":"ca_1"}}` + "\n",
		"no id":             `{"v":1,"account":{}}` + "\n",
		"an id with a path": `{"v":1,"account":{"id":"../x"}}` + "\n",
		"an endless line":   strings.Repeat("x", 1<<17) + "\n",
	} {
		if err := new(composio.Revoker).Resume(strings.NewReader(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := new(composio.Revoker).Resume(strings.NewReader(`{"v":1,"account":{"id":"ca_1"}}` + "\n" + `{"v":1,"acc`)); err != nil {
		t.Errorf("a line that is not whole: %v", err)
	}
}
