package composiotest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Provider is how the provider of an account takes a revocation.
type Provider int

// Providers.
const (
	Revokes       Provider = iota // all tokens
	RevokesAccess                 // the access token alone
	CannotRevoke                  // has no revocation: 400
	Refuses                       // answers none with success: 500
)

// An Account is a connected account in truth.
type Account struct {
	ID           string // assigned if empty
	UserID       string
	Alias        string
	Toolkit      string // "gmail" if empty
	AuthConfigID string // one of the toolkit is made if empty
	AuthScheme   string // "OAUTH2" if empty
	Status       string // "ACTIVE" if empty
	Shared       bool
	Managed      bool
	CreatedAt    time.Time // now if zero

	// Provider is how revocation works there.
	Provider Provider

	// Tokens are those that the provider issued, by name: an access_token
	// and a refresh_token for OAUTH2 and a credential otherwise, if nil.
	Tokens map[string]string

	// Live are the names of the tokens that the provider still takes: all,
	// if nil when the account is added and it has been connected.
	Live []string

	// Leases is the number of revocations to be answered with 409 first,
	// because another operation has the account.
	Leases int

	Deleted     bool
	Revocations int // how often the provider was asked
	Executions  int
}

// An AuthConfig is an auth config in truth.
type AuthConfig struct {
	ID         string // assigned if empty
	Name       string
	Kind       string // "default" if empty
	Toolkit    string
	AuthScheme string // "OAUTH2" if empty
	Managed    bool
	Disabled   bool
	Execute    []string // tools that may be executed; empty is all
	Connect    []string
	Deleted    bool
}

// A Trigger is a trigger in truth.
type Trigger struct {
	ID        string // assigned if empty
	Name      string
	AccountID string
	UserID    string
	Disabled  bool
	Deleted   bool

	// Stubborn makes the server say that it was disabled, and not do it.
	Stubborn bool
}

// A table keeps objects in the order in which they were added.
type table[T any] struct {
	order []string
	rows  map[string]*T
}

func (t *table[T]) add(id string, v T) *T {
	if t.rows == nil {
		t.rows = make(map[string]*T)
	}
	if _, ok := t.rows[id]; !ok {
		t.order = append(t.order, id)
	}
	t.rows[id] = &v
	return &v
}

func (t *table[T]) all() []*T {
	all := make([]*T, len(t.order))
	for i, id := range t.order {
		all[i] = t.rows[id]
	}
	return all
}

func (t *table[T]) values() []T {
	all := make([]T, len(t.order))
	for i, id := range t.order {
		all[i] = *t.rows[id]
	}
	return all
}

// AddAccount adds an account and returns its id.
func (s *Server) AddAccount(a Account) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.ID == "" {
		a.ID = s.id("ca")
	}
	a.Toolkit, a.AuthScheme, a.Status = or(a.Toolkit, "gmail"), or(a.AuthScheme, "OAUTH2"), or(a.Status, "ACTIVE")
	if a.AuthConfigID == "" {
		a.AuthConfigID = "ac_" + a.Toolkit
	}
	if s.authConfigs.rows[a.AuthConfigID] == nil {
		s.authConfigs.add(a.AuthConfigID, AuthConfig{ID: a.AuthConfigID, Name: a.Toolkit, Kind: "default", Toolkit: a.Toolkit, AuthScheme: a.AuthScheme, Managed: a.Managed})
	}
	if a.CreatedAt.IsZero() {
		a.CreatedAt = s.now()
	}
	connected := a.Status != "INITIATED" && a.Status != "INITIALIZING" && a.Status != "FAILED"
	if a.Tokens == nil && connected {
		a.Tokens = map[string]string{"access_token": "ya29.token-of-" + a.ID, "refresh_token": "1//refresh-of-" + a.ID}
		if a.AuthScheme != "OAUTH2" {
			a.Tokens = map[string]string{"credential": "credential-of-" + a.ID}
		}
	}
	if a.Live == nil && connected && a.Status != "REVOKED" {
		for name := range a.Tokens {
			a.Live = append(a.Live, name)
		}
		slices.Sort(a.Live)
	}
	s.accounts.add(a.ID, a)
	return a.ID
}

// Accounts returns every account there ever was, as it truly is.
func (s *Server) Accounts() []Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runJobs()
	return s.accounts.values()
}

// Account returns an account as it truly is, a zero one if there never was one.
func (s *Server) Account(id string) Account {
	for _, a := range s.Accounts() {
		if a.ID == id {
			return a
		}
	}
	return Account{}
}

// ChangeAccount has f change an account behind the API's back.
func (s *Server) ChangeAccount(id string, f func(*Account)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts.rows[id]; a != nil {
		f(a)
	}
}

// AddAuthConfig adds an auth config and returns its id.
func (s *Server) AddAuthConfig(a AuthConfig) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.ID == "" {
		a.ID = s.id("ac")
	}
	a.Kind, a.AuthScheme, a.Name = or(a.Kind, "default"), or(a.AuthScheme, "OAUTH2"), or(a.Name, a.Toolkit)
	s.authConfigs.add(a.ID, a)
	return a.ID
}

// AuthConfigs returns every auth config there ever was.
func (s *Server) AuthConfigs() []AuthConfig {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.authConfigs.values()
}

// AddTrigger adds a trigger and returns its id.
func (s *Server) AddTrigger(t Trigger) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.ID == "" {
		t.ID = s.id("ti")
	}
	s.triggers.add(t.ID, t)
	return t.ID
}

// Triggers returns every trigger there ever was.
func (s *Server) Triggers() []Trigger {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.triggers.values()
}

// KeyWorks reports whether the server takes a key.
func (s *Server) KeyWorks(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[key] != ""
}

// AddKey adds a key of the project.
func (s *Server) AddKey(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[key] = "project"
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// A job is the revocation that a deletion starts.
type job struct {
	id      string
	account string
	at      time.Time
	active  bool // the account was ACTIVE when it was deleted
}

// runJobs does the jobs that are due. It is called whenever anybody looks.
func (s *Server) runJobs() {
	now := s.now()
	s.jobs = slices.DeleteFunc(s.jobs, func(j job) bool {
		if now.Before(j.at) {
			return false
		}
		if j.active || s.cfg.JobsRevokeAll {
			upstream(s.accounts.rows[j.account])
		}
		return true
	})
}

// upstream has the provider revoke what it can, and returns what it did. Ok is
// false if the provider refused everything.
func upstream(a *Account) (revoked []string, ok bool) {
	if len(a.Live) == 0 {
		return nil, true
	}
	if a.Provider == CannotRevoke {
		return nil, false
	}
	a.Revocations++
	if a.Provider == Refuses {
		return nil, false
	}
	for _, name := range slices.Clone(a.Live) {
		if a.Provider == RevokesAccess && name != "access_token" {
			continue
		}
		revoked = append(revoked, name)
		a.Live = slices.DeleteFunc(a.Live, func(n string) bool { return n == name })
	}
	slices.Sort(revoked)
	return revoked, true
}

// list answers with a page of rows.
func (s *Server) list(w http.ResponseWriter, q url.Values, rows []any) {
	asked := 20
	if n, err := strconv.Atoi(q.Get("limit")); err == nil && n > 0 {
		asked = n
	}
	limit := min(asked, s.cfg.PageLimit)
	n := 1
	if c := q.Get("cursor"); c != "" {
		if number, err := strconv.Atoi(c); err == nil && number > 0 {
			n = number
		} else if b, err := base64.StdEncoding.DecodeString(c); err == nil {
			if _, err := fmt.Sscanf(string(b), "%d-%d", &n, &limit); err != nil || n < 1 || limit < 1 || limit > s.cfg.PageLimit {
				fail(w, http.StatusBadRequest, 10400, "HTTP_BadRequest", "the cursor is not valid")
				return
			}
		} else {
			fail(w, http.StatusBadRequest, 10400, "HTTP_BadRequest", "the cursor is not valid")
			return
		}
	}
	pages := max(1, (len(rows)+limit-1)/limit)
	from := min((n-1)*limit, len(rows))
	to := min(from+limit, len(rows))
	page := map[string]any{
		"items": append([]any{}, rows[from:to]...), "total_pages": pages, "current_page": n, "total_items": len(rows), "next_cursor": nil,
	}
	switch {
	case s.cfg.LyingPages && asked > s.cfg.PageLimit:
		page["total_pages"] = 1
	case n < pages:
		page["next_cursor"] = base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%d-%d", n+1, limit))
	}
	reply(w, http.StatusOK, page)
}

// values returns the values of a parameter that is a list, nil if it does not
// filter.
func values(q url.Values, name string) []string {
	v := q.Get(name)
	if v == "" {
		return nil
	}
	return strings.Split(v, ",")
}

func matches(want []string, got string) bool { return want == nil || slices.Contains(want, got) }

// fold is matches for names whose case does not count.
func fold(want []string, got string) bool {
	return want == nil || slices.ContainsFunc(want, func(w string) bool { return strings.EqualFold(w, got) })
}

// fields decodes a body into its fields and answers 400 if one of them is not
// among known.
func fields(w http.ResponseWriter, r *http.Request, known ...string) (map[string]json.RawMessage, bool) {
	var body map[string]json.RawMessage
	if !decode(w, r, &body) {
		return nil, false
	}
	for name := range body {
		if len(known) > 0 && !slices.Contains(known, name) {
			fail(w, http.StatusBadRequest, 10400, "HTTP_BadRequest", "unrecognized key "+strconv.Quote(name))
			return nil, false
		}
	}
	return body, true
}
