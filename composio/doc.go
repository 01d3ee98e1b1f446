// Package composio is a client of Composio's API v3.1 for those who have to
// lock an agent down: it lists what the agent can reach, narrows it, reads back
// what was narrowed, and revokes all of it.
//
// Begin with [New]. Listings are iterators that end with [ErrIncompleteListing]
// rather than silently short. Failures are [*APIError] values that match
// sentinels such as [ErrNotFound] with [errors.Is].
//
// [Revoker] revokes every connected account of a project or of some of its
// users, and says of each account what was confirmed and what stays open.
//
// # Secrets
//
// Credentials are [Secret] values and tool arguments and results are [Data]
// values. Neither shows its content under any verb of package fmt, in JSON, in
// log/slog or to a debugger's printer that walks unexported fields. Texts that
// the API sends with an error are kept the same way, since they may quote a
// credential. What the API tells of the tokens of an account is looked at once,
// for [Account.Unmasked], and never kept.
//
// # Repetition
//
// Requests that may be repeated are, with the server's Retry-After, a cap and
// jitter. What acts for a user, connects an account or creates something is
// sent once.
//
// Package composio/composiotest is a Composio in memory for tests.
package composio
