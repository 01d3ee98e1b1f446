package composio

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// revokeAttempts bounds how often an account is revoked that stays ACTIVE: an
// API that fails for a moment answers as a provider does that refuses.
const (
	revokeAttempts   = 6
	upstreamAttempts = 3 // after which it is the provider
)

// revoke has the provider revoke the tokens of an account and reads the result
// back.
func (x *run) revoke(ctx context.Context, o *AccountOutcome) {
	status, listed := x.lastSeen(o.ID)
	if !listed {
		// Known from before and not in the listing.
		var gone bool
		if status, gone = x.look(ctx, o); status == "" && !gone {
			return
		}
	}
	if status == StatusInactive && x.EnableInactive {
		if err := x.clients[second].SetAccountEnabled(ctx, o.ID, true); err != nil {
			o.Outcome, o.Reason = OutcomeUnconfirmed, fmt.Sprintf("it is %s and could not be enabled: %v", status, err)
			return
		}
		status = StatusActive
	}
	upstream := 0
	for n := 1; ; n++ {
		switch status {
		case StatusActive:
		case StatusRevoked:
			o.Outcome, o.Reason = confirmed(o.Tokens), ""
			return
		case "":
			return // look has said what it is
		default:
			o.Outcome, o.Reason = OutcomeUnconfirmed, fmt.Sprintf("it is %s, and the API revokes none but ACTIVE accounts", status)
			return
		}
		done, err := x.clients[second].RevokeAccount(ctx, o.ID)
		if err == nil && len(done.Tokens) > 0 {
			// The API tells this once. A run after a crash needs it.
			o.Tokens = done.Tokens
			x.keep(*o)
		}
		if errors.Is(err, ErrRevokeUnsupported) {
			o.Outcome, o.Reason = OutcomeUnsupported, err.Error()
			return
		}
		// Whatever the answer was, or if there was none: what counts is what
		// the API says when it is asked.
		var gone bool
		status, gone = x.look(ctx, o)
		switch {
		case err == nil && status == StatusRevoked:
			o.Outcome, o.Reason = confirmed(o.Tokens), ""
			return
		case err == nil && status != "":
			o.Outcome, o.Reason = OutcomeUnconfirmed, fmt.Sprintf("the API said that it was revoked, and then that it is %s", status)
			return
		case err == nil && gone:
			// Somebody deleted it after it was revoked.
			o.Outcome, o.Reason, o.Deleted = confirmed(o.Tokens), "", true
			return
		case errors.Is(err, ErrNotFound) && status != "" && status != StatusRevoked:
			o.Outcome, o.Reason = OutcomeUnconfirmed, "the API finds it and cannot revoke it: its auth config has been removed"
			return
		case status != StatusActive:
			continue // gone, revoked, or no longer to be revoked
		}
		if errors.Is(err, ErrUpstreamFailed) {
			upstream++
		}
		if n < revokeAttempts && upstream < upstreamAttempts && !errors.Is(err, ErrUnauthorized) && !errors.Is(err, ErrForbidden) && sleep(ctx, backoff(n, 0)) == nil {
			continue
		}
		o.Outcome, o.Reason = OutcomeUnconfirmed, err.Error()
		if upstream > 0 {
			o.Outcome = OutcomeUpstreamFailed
		}
		return
	}
}

// confirmed classifies a revocation by what was revoked.
func confirmed(tokens []string) Outcome {
	access, refresh := slices.Contains(tokens, "access_token"), slices.Contains(tokens, "refresh_token")
	switch {
	case len(tokens) == 0:
		return OutcomeAlreadyRevoked
	case access != refresh:
		return OutcomePartial
	}
	return OutcomeConfirmed
}

func (x *run) lastSeen(id string) (Status, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	s, ok := x.status[id]
	return s, ok
}

// look asks for an account. It returns no status if the account is gone or the
// API does not say, and o's outcome then says which.
func (x *run) look(ctx context.Context, o *AccountOutcome) (status Status, gone bool) {
	a, err := x.clients[second].Account(ctx, o.ID)
	switch {
	case err == nil:
		x.mu.Lock()
		x.status[o.ID] = a.Status
		x.mu.Unlock()
		return a.Status, false
	case errors.Is(err, ErrNotFound):
		o.Deleted = true
		if o.Outcome == "" {
			o.Outcome, o.Reason = OutcomeGone, "somebody else has deleted it"
		}
		return "", true
	}
	if o.Outcome == "" {
		o.Outcome, o.Reason = OutcomeUnconfirmed, fmt.Sprintf("its status cannot be had: %v", err)
	}
	return "", false
}

// remove deletes an account, with a job that revokes once more, and makes sure
// that it is not found.
func (x *run) remove(ctx context.Context, o *AccountOutcome) {
	const attempts = 3
	for n := 1; ; n++ {
		d, err := x.clients[third].DeleteAccount(ctx, o.ID)
		if d.RevokeJobID != "" {
			o.RevokeJobID = d.RevokeJobID
		}
		// That it is not found is success here; it is asked for all the same.
		_, asked := x.clients[third].Account(ctx, o.ID)
		switch {
		case errors.Is(asked, ErrNotFound):
			o.Deleted = true
			return
		case asked == nil && err == nil:
			err = errors.New("the API said that it was deleted, and still finds it")
		case asked != nil && err == nil:
			err = asked
		}
		if n == attempts || sleep(ctx, backoff(n, 0)) != nil {
			o.Reason = join(o.Reason, fmt.Sprintf("it could not be deleted: %v", err))
			return
		}
	}
}

func join(a, b string) string {
	if a == "" || a == b {
		return b
	}
	return a + "; " + b
}
