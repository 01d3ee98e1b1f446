package composio

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A Status is the state of a connected account. The API may add more.
type Status string

// Statuses. Only an account that is active can be used, and be revoked.
const (
	StatusInitializing Status = "INITIALIZING"
	StatusInitiated    Status = "INITIATED" // a link was made and nobody has completed it
	StatusActive       Status = "ACTIVE"
	StatusFailed       Status = "FAILED"
	StatusExpired      Status = "EXPIRED"
	StatusInactive     Status = "INACTIVE" // disabled; there are reports that tools still ran
	StatusRevoked      Status = "REVOKED"
)

// An AccountType says whom an account serves.
type AccountType string

// Account types. The API's own default is private alone, which leaves out the
// accounts that serve everybody; this package's is all.
const (
	AccountsAll     AccountType = "ALL"
	AccountsPrivate AccountType = "PRIVATE"
	AccountsShared  AccountType = "SHARED"
)

// An Account is a connection of a user to a toolkit. It holds no token.
type Account struct {
	ID       string
	Alias    string
	UserID   string // the API plans to leave it out; then it is empty
	Status   Status
	Disabled bool
	Type     AccountType // empty if the API did not say

	Toolkit            string
	AuthConfigID       string
	AuthScheme         string // such as "OAUTH2"
	AuthConfigDisabled bool
	ComposioManaged    bool

	RequestedScopes []string
	CreatedAt       time.Time
	UpdatedAt       time.Time

	// Unmasked names the credentials that the API returned in clear, such as
	// "access_token". It should be empty: see [ProjectConfig.MaskSecrets].
	Unmasked []string
}

type accountWire struct {
	ID         string `json:"id"`
	Alias      string `json:"alias"`
	UserID     string `json:"user_id"`
	Status     Status `json:"status"`
	IsDisabled bool   `json:"is_disabled"`
	Toolkit    struct {
		Slug string `json:"slug"`
	} `json:"toolkit"`
	AuthConfig struct {
		ID              string `json:"id"`
		AuthScheme      string `json:"auth_scheme"`
		ComposioManaged bool   `json:"is_composio_managed"`
		Disabled        bool   `json:"is_disabled"`
	} `json:"auth_config"`
	Experimental struct {
		AccountType AccountType `json:"account_type"`
	} `json:"experimental"`
	RequestedScopes     []string        `json:"requested_scopes"`
	RequestedUserScopes []string        `json:"requested_user_scopes"`
	CreatedAt           string          `json:"created_at"`
	UpdatedAt           string          `json:"updated_at"`
	State               json.RawMessage `json:"state"`
	Data                json.RawMessage `json:"data"`
	Params              json.RawMessage `json:"params"`
}

func (w accountWire) account() Account {
	found := make(map[string]bool)
	for _, raw := range []json.RawMessage{w.State, w.Data, w.Params} {
		unmasked(raw, 0, found)
	}
	return Account{
		ID: w.ID, Alias: w.Alias, UserID: w.UserID, Status: w.Status, Disabled: w.IsDisabled, Type: w.Experimental.AccountType,
		Toolkit: w.Toolkit.Slug, AuthConfigID: w.AuthConfig.ID, AuthScheme: w.AuthConfig.AuthScheme,
		AuthConfigDisabled: w.AuthConfig.Disabled, ComposioManaged: w.AuthConfig.ComposioManaged,
		RequestedScopes: slices.Concat(w.RequestedScopes, w.RequestedUserScopes),
		CreatedAt:       moment(w.CreatedAt), UpdatedAt: moment(w.UpdatedAt),
		Unmasked: slices.Sorted(maps.Keys(found)),
	}
}

// unmasked adds the names of the credentials that raw holds in clear.
func unmasked(raw json.RawMessage, depth int, found map[string]bool) {
	if depth > 4 {
		return
	}
	if raw = bytes.TrimSpace(raw); len(raw) == 0 || raw[0] != '{' {
		return
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return
	}
	for name, value := range fields {
		var s string
		if json.Unmarshal(value, &s) != nil {
			unmasked(value, depth+1, found)
		} else if isCredential(name) && !isMasked(s) && identifier(name) != "" {
			found[name] = true
		}
	}
}

func isCredential(name string) bool {
	name = strings.ToLower(name)
	switch name {
	case "authorization", "code_verifier", "oauth_token", "oauth_verifier", "basic_encoded", "session_id", "credentials_json":
		return true
	case "token_type", "token_url":
		return false
	}
	for _, end := range []string{"token", "secret", "password", "api_key", "apikey", "private_key"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return false
}

// isMasked reports whether s is a credential as the API shows it: at most four
// characters and dots, or a word that says so.
func isMasked(s string) bool {
	if s == "" || strings.EqualFold(strings.Trim(s, "[]<>*"), "REDACTED") || strings.Trim(s, "*•.") == "" {
		return true
	}
	head, ok := strings.CutSuffix(s, "...")
	return ok && len([]rune(head)) <= 4
}

// An AccountFilter selects connected accounts. A nil list does not filter; an
// empty one that is not nil is refused, as is a value that the API cannot be
// asked for. The zero AccountFilter selects every account of the project,
// those that are shared included.
type AccountFilter struct {
	IDs           []string
	UserIDs       []string
	Statuses      []Status
	Toolkits      []string
	AuthConfigIDs []string
	Type          AccountType // empty means [AccountsAll]
}

// Accounts lists the connected accounts that f selects. Every row is held
// against f: the listing ends with [ErrForeignRow] at one that f does not
// select, and with [ErrIncompleteListing] if it is short.
//
// Pages are counted from the beginning. Collect the accounts before you delete
// any, or else the next page skips as many.
func (c *Client) Accounts(ctx context.Context, f AccountFilter) iter.Seq2[Account, error] {
	return c.accounts(ctx, f, f.check)
}

func (c *Client) accounts(ctx context.Context, f AccountFilter, check func(Account) error) iter.Seq2[Account, error] {
	if f.Type == "" {
		f.Type = AccountsAll
	}
	var statuses []string
	if f.Statuses != nil {
		statuses = make([]string, len(f.Statuses))
		for i, s := range f.Statuses {
			statuses[i] = string(s)
		}
	}
	q := newFilter(100).in("connected_account_ids", f.IDs).in("user_ids", f.UserIDs).in("statuses", statuses).
		in("toolkit_slugs", f.Toolkits).in("auth_config_ids", f.AuthConfigIDs).in("account_type", []string{string(f.Type)})
	if q.err != nil {
		return fail[Account](q.err)
	}
	// In this order an account that changes, or is new, moves none before it.
	q.query.Set("order_by", "created_at")
	q.query.Set("order_direction", "asc")
	return listing[accountWire, Account]{
		what: "connected accounts",
		fetch: func(ctx context.Context, cursor string) (p page[accountWire], err error) {
			_, err = c.do(ctx, request{
				op: "list connected accounts", method: http.MethodGet,
				path: []string{"connected_accounts"}, query: q.with("cursor", cursor), repeat: always,
			}, &p)
			return p, err
		},
		row:   accountWire.account,
		id:    func(a Account) string { return a.ID },
		check: check,
	}.all(ctx)
}

func (f AccountFilter) check(a Account) error {
	const what = "connected account"
	if f.Statuses != nil && !slices.Contains(f.Statuses, a.Status) {
		return fmt.Errorf("%w: %s %q has status %q", ErrForeignRow, what, a.ID, a.Status)
	}
	if a.Type != "" && f.Type != "" && f.Type != AccountsAll && a.Type != f.Type {
		return fmt.Errorf("%w: %s %q is of type %q", ErrForeignRow, what, a.ID, a.Type)
	}
	return errors.Join(
		among(what, a.ID, "id", a.ID, f.IDs),
		among(what, a.ID, "user", a.UserID, f.UserIDs),
		anyCase(what, a.ID, "toolkit", a.Toolkit, f.Toolkits),
		among(what, a.ID, "auth config", a.AuthConfigID, f.AuthConfigIDs),
	)
}

// Account returns one connected account.
func (c *Client) Account(ctx context.Context, id string) (Account, error) {
	if err := checkID("connected account", id); err != nil {
		return Account{}, err
	}
	var w accountWire
	r := request{op: "get connected account " + id, method: http.MethodGet, path: []string{"connected_accounts", id}, repeat: always}
	if _, err := c.do(ctx, r, &w); err != nil {
		return Account{}, err
	}
	if w.ID != id {
		return Account{}, fmt.Errorf("composio: %s: %w: it is about another account", r.op, ErrAnswer)
	}
	return w.account(), nil
}

// SetAccountEnabled makes an account ACTIVE or INACTIVE. To disable an account
// is a brake and no proof: tools have been reported to run still. An account
// that is not ACTIVE can no longer be revoked.
func (c *Client) SetAccountEnabled(ctx context.Context, id string, enabled bool) error {
	if err := checkID("connected account", id); err != nil {
		return err
	}
	op := "enable connected account "
	if !enabled {
		op = "disable connected account "
	}
	_, err := c.do(ctx, request{
		op: op + id, method: http.MethodPatch, path: []string{"connected_accounts", id, "status"},
		body: map[string]bool{"enabled": enabled}, repeat: always,
	}, nil)
	return err
}

// A Revoked is the API's answer to [Client.RevokeAccount]. It is a claim: see
// [Revoker] for what it takes to confirm it.
type Revoked struct {
	// Tokens names what the provider was told to revoke: "access_token",
	// "refresh_token", "credential". Empty if it had been revoked before.
	Tokens []string
	Status Status
}

// RevokeAccount has the provider revoke the tokens of an account that is
// ACTIVE. The error matches [ErrRevokeUnsupported] (400), [ErrNotRevokable]
// (409) or [ErrUpstreamFailed] (500) beside what its status says. A 404 may
// also mean that the account's auth config is gone.
//
// It is sent again only when it was refused for the rate of requests. If the
// answer was lost, ask [Client.Account] for the status.
func (c *Client) RevokeAccount(ctx context.Context, id string) (Revoked, error) {
	if err := checkID("connected account", id); err != nil {
		return Revoked{}, err
	}
	var w struct {
		Tokens  []string `json:"revoked_tokens"`
		Account struct {
			ID     string `json:"id"`
			Status Status `json:"status"`
		} `json:"connected_account"`
	}
	r := request{op: "revoke connected account " + id, method: http.MethodPost, path: []string{"connected_accounts", id, "revoke"}, repeat: throttled}
	_, err := c.do(ctx, r, &w)
	if api, ok := errors.AsType[*APIError](err); ok {
		switch api.Status {
		case http.StatusBadRequest:
			return Revoked{}, fmt.Errorf("%w: %w", err, ErrRevokeUnsupported)
		case http.StatusConflict:
			return Revoked{}, fmt.Errorf("%w: %w", err, ErrNotRevokable)
		case http.StatusInternalServerError:
			return Revoked{}, fmt.Errorf("%w: %w", err, ErrUpstreamFailed)
		}
	}
	if err != nil {
		return Revoked{}, err
	}
	if w.Account.ID != id {
		return Revoked{}, fmt.Errorf("composio: %s: %w: it is about another account", r.op, ErrAnswer)
	}
	return Revoked{Tokens: w.Tokens, Status: w.Account.Status}, nil
}

// A Deletion is the API's answer to a deletion.
type Deletion struct {
	// RevokeJobID names the job that revokes at the provider. It can be
	// looked up in Composio's dashboard and nowhere else. It is empty if the
	// API named none.
	RevokeJobID string

	// Repeated reports that the deletion was sent again after its answer was
	// lost, and that the object was gone by then.
	Repeated bool
}

// DeleteAccount deletes an account, and has the provider revoke its tokens
// in a job of which nobody learns the outcome. There is no deletion without
// that job here: the tokens would outlive the record of them.
func (c *Client) DeleteAccount(ctx context.Context, id string) (Deletion, error) {
	return c.deleteRevoking(ctx, "connected account", "connected_accounts", id)
}

func (c *Client) deleteRevoking(ctx context.Context, what, collection, id string) (Deletion, error) {
	if err := checkID(what, id); err != nil {
		return Deletion{}, err
	}
	var w struct {
		Success *bool  `json:"success"`
		Job     string `json:"revoke_job_id"`
	}
	r := request{
		op: "delete " + what + " " + id, method: http.MethodDelete, path: []string{collection, id},
		query: url.Values{"revoke_on_delete": {"true"}}, repeat: always,
	}
	a, err := c.do(ctx, r, &w)
	if a.lost && errors.Is(err, ErrNotFound) {
		return Deletion{Repeated: true}, nil
	}
	if err != nil {
		return Deletion{}, err
	}
	if w.Success != nil && !*w.Success {
		return Deletion{}, fmt.Errorf("composio: %s: %w: it reports neither success nor an error", r.op, ErrAnswer)
	}
	return Deletion{RevokeJobID: identifier(w.Job)}, nil
}

// A LinkRequest asks for a link by which a person connects an account.
type LinkRequest struct {
	AuthConfigID string // required
	UserID       string // required: the API would make "default" of none
	CallbackURL  string
	Alias        string
}

// A Link lets whoever opens it connect an account to the user it was made
// for, which is why its URL is a Secret.
type Link struct {
	AccountID string
	URL       Secret
	Token     Secret
	ExpiresAt time.Time // about ten minutes after it was made
}

// Link makes a link, and with it an account that is INITIATED. It is sent once.
func (c *Client) Link(ctx context.Context, l LinkRequest) (Link, error) {
	if err := checkID("auth config", l.AuthConfigID); err != nil {
		return Link{}, err
	}
	if l.UserID == "" {
		return Link{}, errors.New("composio: link: UserID is empty: name the user, or the API makes one up")
	}
	body := struct {
		AuthConfigID string `json:"auth_config_id"`
		UserID       string `json:"user_id"`
		CallbackURL  string `json:"callback_url,omitempty"`
		Alias        string `json:"alias,omitempty"`
	}{l.AuthConfigID, l.UserID, l.CallbackURL, l.Alias}
	var w struct {
		Token     Secret `json:"link_token"`
		URL       Secret `json:"redirect_url"`
		ExpiresAt string `json:"expires_at"`
		AccountID string `json:"connected_account_id"`
	}
	r := request{
		op: "link an account of auth config " + l.AuthConfigID, method: http.MethodPost,
		path: []string{"connected_accounts", "link"}, body: body,
	}
	if _, err := c.do(ctx, r, &w); err != nil {
		return Link{}, err
	}
	return Link{AccountID: w.AccountID, URL: w.URL, Token: w.Token, ExpiresAt: moment(w.ExpiresAt)}, nil
}

// CompleteAuth completes a connection whose callback this project verifies:
// sessionURI is what came with the callback, userID who the caller knows to be
// at the browser. A sessionURI can be used once, within ten minutes; a userID
// that is not the link's fails the connection for good. It returns the account
// as it is read back, which must be ACTIVE.
func (c *Client) CompleteAuth(ctx context.Context, sessionURI Secret, userID string) (Account, error) {
	if sessionURI.IsZero() || userID == "" {
		return Account{}, errors.New("composio: complete a connection: session URI and user id are required: the API would make \"default\" of no user")
	}
	// The session URI must be in the body; nowhere else is it in clear.
	body := map[string]string{"session_uri": sessionURI.Reveal(), "user_id": userID}
	var w struct {
		ID               string      `json:"id"`
		ConnectedAccount accountWire `json:"connected_account"`
		AccountID        string      `json:"connected_account_id"`
	}
	const op = "complete a connection"
	if _, err := c.do(ctx, request{op: op, method: http.MethodPost, path: []string{"connected_accounts", "complete_auth"}, body: body}, &w); err != nil {
		return Account{}, err
	}
	for _, id := range []string{w.ConnectedAccount.ID, w.AccountID, w.ID} {
		if id == "" {
			continue
		}
		a, err := c.Account(ctx, id)
		if err == nil && a.Status != StatusActive {
			err = fmt.Errorf("composio: %s: account %s is %s: %w", op, id, a.Status, ErrNotApplied)
		}
		return a, err
	}
	return Account{}, fmt.Errorf("composio: %s: %w: it names no account", op, ErrAnswer)
}
