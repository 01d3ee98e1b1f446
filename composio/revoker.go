package composio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// What the zero values of [Revoker] mean.
const (
	DefaultConcurrency = 16
	DefaultInterval    = time.Second
)

// linkLife is how long a link can be used.
const linkLife = 10 * time.Minute

// A Revoker revokes every connected account of a project, or of some of its
// users, shared ones included, and makes sure that it did:
//
//  1. triggers are disabled, sessions and MCP servers deleted and auth configs
//     disabled, so that nothing new begins;
//  2. each account that is ACTIVE is revoked and read back, which begins while
//     the rest are still listed, for it moves no row; once all are listed, each
//     is deleted with a job that revokes once more, and must then not be found;
//  3. accounts are listed again until there are none twice in a row;
//  4. keys go last.
//
// Nothing of it waits for what the rest depends on: where a step fails, the
// others are taken. It may be repeated, and continues where it was.
//
// The fields must be set before the first call. The methods may be called
// concurrently, though two revocations at once only repeat each other.
type Revoker struct {
	// Client is required. Revocation needs the key of a project that may
	// write connected accounts, or the key of a user.
	Client *Client

	// UserIDs limits the revocation to the accounts of these users. MCP
	// servers and auth configs, which belong to the project, are then left
	// alone. Nil means the whole project; an empty list is refused.
	UserIDs []string

	// Sessions are the tool-router sessions to delete. The API lists none,
	// and a session that is not deleted stays for ever.
	Sessions []string

	// EnableInactive makes accounts that are INACTIVE active for as long as
	// it takes to revoke them, because the API revokes no others. Without it
	// they are deleted, and what became of their tokens is unconfirmed.
	EnableInactive bool

	// ProjectID, if set, has the keys of that project replaced at the end,
	// by the authority of [Config.OrgKey].
	ProjectID string

	// Keys are revoked at the end.
	Keys []Secret

	// Concurrency bounds the requests under way. Zero means
	// [DefaultConcurrency]. With answers after 200 ms, 16 are 4,800 requests
	// a minute; the smallest plan allows 2,000 and answers the rest with a
	// request to wait, which is obeyed.
	Concurrency int

	// Interval is the time between the listings that must be empty. Zero
	// means [DefaultInterval].
	Interval time.Duration

	// Journal, if not nil, is written a line for each account that is found
	// and for each change of its outcome, and synced if it can be. A journal
	// that fails stops nothing. See [Revoker.Resume].
	Journal io.Writer

	mu    sync.Mutex
	known map[string]*AccountOutcome
}

// An Outcome says how the revocation of an account at its provider ended.
type Outcome string

// Outcomes. Zero is an account that was not reached.
const (
	// OutcomeConfirmed: the API named all tokens that were revoked, and then
	// said REVOKED.
	OutcomeConfirmed Outcome = "confirmed"
	// OutcomePartial: as confirmed, but the API named an access token or a
	// refresh token alone. It may have had no other; the API does not say.
	OutcomePartial Outcome = "partial"
	// OutcomeAlreadyRevoked: the API says REVOKED, and which tokens were is
	// not known: it happened before, or the answer was lost.
	OutcomeAlreadyRevoked Outcome = "already_revoked"
	// OutcomeUnsupported: the provider or the scheme knows no revocation.
	OutcomeUnsupported Outcome = "unsupported"
	// OutcomeUpstreamFailed: the provider accepted none, several times. It
	// does so, too, when the user has revoked the tokens there.
	OutcomeUpstreamFailed Outcome = "upstream_failed"
	// OutcomeGone: the account was deleted by somebody else.
	OutcomeGone Outcome = "gone"
	// OutcomeUnconfirmed: the account is not in a state to be revoked, or the
	// answers do not say what became of it.
	OutcomeUnconfirmed Outcome = "unconfirmed"
)

// Revoked reports whether the API said at the end that the account is revoked.
func (o Outcome) Revoked() bool {
	return o == OutcomeConfirmed || o == OutcomePartial || o == OutcomeAlreadyRevoked
}

// An AccountOutcome says what became of one account.
type AccountOutcome struct {
	ID         string      `json:"id"`
	UserID     string      `json:"user_id,omitempty"`
	Toolkit    string      `json:"toolkit,omitempty"`
	AuthScheme string      `json:"auth_scheme,omitempty"`
	Type       AccountType `json:"type,omitempty"`
	Was        Status      `json:"was,omitempty"` // when it was found
	CreatedAt  time.Time   `json:"created_at,omitzero"`

	Outcome Outcome  `json:"outcome,omitempty"`
	Tokens  []string `json:"tokens,omitempty"` // that the API says were revoked
	Reason  string   `json:"reason,omitempty"` // in words, why it is not confirmed

	// Deleted reports that the API, asked for the account, did not find it.
	Deleted     bool   `json:"deleted,omitempty"`
	RevokeJobID string `json:"revoke_job_id,omitempty"`

	// Open says in words what may still be used, and OpenUntil until when.
	// Open is empty if nothing is; OpenUntil is zero if nobody knows.
	Open      string    `json:"open,omitempty"`
	OpenUntil time.Time `json:"open_until,omitzero"`

	At time.Time `json:"at,omitzero"` // of the last change
}

// settle says what stays open, given the rest.
func (o *AccountOutcome) settle(now time.Time) {
	o.At, o.Open, o.OpenUntil = now, "", time.Time{}
	usable := !o.Deleted && !o.Outcome.Revoked() && o.Outcome != OutcomeGone
	pending := o.Was == StatusInitiated || o.Was == StatusInitializing
	where := "at the provider"
	if o.Toolkit != "" {
		where = "at the provider of " + o.Toolkit
	}
	switch {
	case usable:
		o.Open = "the account can still be used through Composio"
	case o.Outcome == OutcomeConfirmed:
	case o.Outcome == OutcomePartial:
		o.Open = "a token other than the " + strings.Join(o.Tokens, " and the ") + ", if there was one, " + where
	case o.Outcome == OutcomeAlreadyRevoked:
		o.Open = "which tokens were revoked " + where + " is not known"
	case pending:
		if until := o.CreatedAt.Add(linkLife); o.CreatedAt.IsZero() || now.Before(until) {
			o.Open = "the link by which the account was to be connected, if it was completed meanwhile"
			if !o.CreatedAt.IsZero() {
				o.OpenUntil = until
			}
		}
	default:
		o.Open = "its tokens " + where + ", until they expire or a person revokes them there"
	}
}

// A Cut is the end of something other than an account.
type Cut struct {
	Kind   string `json:"kind"` // "trigger", "session", "MCP server", "auth config" or "key"; plural if they could not be listed
	ID     string `json:"id,omitempty"`
	Done   bool   `json:"done"` // confirmed by asking again
	Reason string `json:"reason,omitempty"`
}

// A Revocation says what a [Revoker] did and what it left.
type Revocation struct {
	Started  time.Time        `json:"started"`
	Finished time.Time        `json:"finished"`
	Accounts []AccountOutcome `json:"accounts"` // by ID
	Cuts     []Cut            `json:"cuts,omitempty"`

	// Empty reports that accounts were listed twice at the end, completely,
	// and there were none.
	Empty bool `json:"empty"`

	// Problems are failures that belong to no account: a listing that was
	// not complete, a row of a user that was not asked for, a journal.
	Problems []string `json:"problems,omitempty"`

	// NewKey is the key that replaces those of [Revoker.ProjectID].
	NewKey Key `json:"-"`
}

// An OpenError reports a revocation after which something may still be used.
type OpenError struct {
	Report *Revocation
	open   map[string]string
	err    error
}

// Error counts what stays open, and names the first of it.
func (e *OpenError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "composio: revoke: %d things may still be used or are not confirmed", len(e.open))
	for i, id := range slices.Sorted(maps.Keys(e.open)) {
		if i == 3 {
			b.WriteString("; and others")
			break
		}
		fmt.Fprintf(&b, "; %s: %s", id, e.open[id])
	}
	if e.err != nil {
		fmt.Fprintf(&b, "; %v", e.err)
	}
	return b.String()
}

// Unwrap returns why it ended early, if it did.
func (e *OpenError) Unwrap() error { return e.err }

// Open maps each thing that stays open to what is open about it.
func (e *OpenError) Open() map[string]string { return maps.Clone(e.open) }

// Name returns "composio.revoke".
func (r *Revoker) Name() string { return "composio.revoke" }

// Do is [Revoker.Revoke] without the report, of which the [*OpenError] tells
// what is open.
func (r *Revoker) Do(ctx context.Context) error {
	_, err := r.Revoke(ctx)
	return err
}

// Arm collects the accounts, so that they are known if they cannot be listed
// when it counts. It changes nothing.
func (r *Revoker) Arm(ctx context.Context) error {
	if err := r.validate(); err != nil {
		return err
	}
	for a, err := range r.scope(ctx, r.Client) {
		if err != nil {
			return fmt.Errorf("composio: arm the revocation: %w", err)
		}
		r.mu.Lock()
		r.learn(a)
		r.mu.Unlock()
	}
	return nil
}

// Remaining lists the accounts anew and returns the status of each that is not
// REVOKED, by id. To observe independently, use a Revoker with a Client of its
// own. The error is not nil if there may be others.
func (r *Revoker) Remaining(ctx context.Context) (map[string]string, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	open := make(map[string]string)
	for a, err := range r.scope(ctx, r.Client) {
		if err != nil {
			return open, err
		}
		if a.Status != StatusRevoked {
			open[a.ID] = string(a.Status)
		}
	}
	return open, nil
}

// Revoke does it all. It takes as long as it takes: bound it by ctx. The
// report is never nil unless the Revoker is misconfigured; the error is an
// [*OpenError] unless everything is confirmed and nothing stays open.
func (r *Revoker) Revoke(ctx context.Context) (*Revocation, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	run := r.begin()
	var cutting sync.WaitGroup
	cutting.Go(func() { run.cut(ctx) })

	_, _, _ = run.sweep(ctx) // what is wrong with it is among the problems
	cutting.Wait()
	run.drain(ctx)
	run.keys(ctx)
	return run.finish(ctx)
}

func (r *Revoker) validate() error {
	switch {
	case r.Client == nil:
		return errors.New("composio: Revoker.Client is nil")
	case r.UserIDs != nil && len(r.UserIDs) == 0:
		return errors.New("composio: Revoker.UserIDs is empty: use nil for the whole project")
	case r.Concurrency < 0 || r.Interval < 0:
		return errors.New("composio: Revoker: Concurrency and Interval must not be negative")
	case r.ProjectID != "" && r.Client.org.key.IsZero():
		return errors.New("composio: Revoker.ProjectID needs Config.OrgKey to replace the keys")
	}
	return errors.Join(newFilter(1).in("user_ids", r.UserIDs).err)
}

// scope lists the accounts in scope. What it yields before an error is true.
// Rows of others, which a filter that is ignored brings, are left out and
// reported at the end.
func (r *Revoker) scope(ctx context.Context, c *Client) iter.Seq2[Account, error] {
	return func(yield func(Account, error) bool) {
		var foreign error
		for a, err := range c.accounts(ctx, AccountFilter{UserIDs: r.UserIDs}, nil) {
			if err != nil {
				yield(Account{}, errors.Join(err, foreign))
				return
			}
			if err := among("connected account", a.ID, "user", a.UserID, r.UserIDs); err != nil {
				if foreign == nil {
					foreign = fmt.Errorf("%w: left alone, as are others like it", err)
				}
				continue
			}
			if !yield(a, nil) {
				return
			}
		}
		if foreign != nil {
			yield(Account{}, foreign)
		}
	}
}

// learn makes an account known, or more of it. The caller holds r.mu.
func (r *Revoker) learn(a Account) *AccountOutcome {
	o, ok := r.known[a.ID]
	if !ok {
		if r.known == nil {
			r.known = make(map[string]*AccountOutcome)
		}
		o = &AccountOutcome{
			ID: a.ID, UserID: a.UserID, Toolkit: a.Toolkit, AuthScheme: a.AuthScheme, Type: a.Type, Was: a.Status, CreatedAt: a.CreatedAt,
		}
		r.known[a.ID] = o
	}
	return o
}
