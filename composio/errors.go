package composio

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// What an [*APIError] matches with [errors.Is], by the status of the answer.
var (
	ErrInvalid      = errors.New("the API does not accept the request")      // 400, 422
	ErrUnauthorized = errors.New("the credential is not accepted")           // 401; also matches fs.ErrPermission
	ErrForbidden    = errors.New("the credential may not do this")           // 403; also matches fs.ErrPermission
	ErrNotFound     = errors.New("there is no such object")                  // 404, 410; also matches fs.ErrNotExist
	ErrConflict     = errors.New("the object is not in a state to do this")  // 409
	ErrRateLimited  = errors.New("too many requests")                        // 429
	ErrUnavailable  = errors.New("the API failed")                           // 5xx
	ErrRedirected   = errors.New("the API redirects, which is not followed") // 3xx
)

// Outcomes of [Client.RevokeAccount], matched beside the status.
var (
	// ErrRevokeUnsupported: the provider or the scheme knows no revocation.
	ErrRevokeUnsupported = errors.New("its provider cannot revoke")
	// ErrNotRevokable: only an account that is ACTIVE can be revoked.
	ErrNotRevokable = errors.New("only an active account can be revoked")
	// ErrUpstreamFailed: the provider accepted none of the revocations. It
	// says the same when the user has already revoked them there.
	ErrUpstreamFailed = errors.New("the provider accepted no revocation")
)

var (
	// ErrIncompleteListing reports a listing that is shorter than the API
	// says it is, or of which nobody can say that it is complete.
	ErrIncompleteListing = errors.New("composio: the listing is not complete")

	// ErrForeignRow reports a row of a listing that the filter does not let
	// through. The API ignores parameters that it does not know, and a filter
	// that is ignored lists the whole project.
	ErrForeignRow = errors.New("composio: a row is not what was asked for")

	// ErrNotApplied reports a restriction that the API acknowledged and that
	// does not show when it is read back.
	ErrNotApplied = errors.New("composio: the change does not show when it is read back")

	// ErrAnswer reports an answer that is not what the API describes, or is
	// too large. Whether the request had an effect is not known.
	ErrAnswer = errors.New("the answer is not one of this API's")
)

// An APIError is an answer other than success. Match it with the sentinels of
// this package by [errors.Is], or get at it by [errors.As].
type APIError struct {
	Op         string        // what was asked, such as "revoke account ca_1"
	Status     int           // of HTTP
	Slug       string        // the API's name for the error, such as "ConnectedAccount_ResourceNotFound"
	Code       string        // the API's number or word for it
	RequestID  string        // to quote to support
	RetryAfter time.Duration // zero if the API did not say

	// Message is the API's own text. It may quote a credential, which is why
	// it is a Secret and no part of Error.
	Message Secret
}

// Error says what was asked, the status, and how the API names the error.
func (e *APIError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "composio: %s: %d %s", e.Op, e.Status, http.StatusText(e.Status))
	var notes []string
	for _, n := range []struct{ label, value string }{{"", e.Slug}, {"code ", e.Code}, {"request ", e.RequestID}} {
		if n.value != "" {
			notes = append(notes, n.label+n.value)
		}
	}
	if e.RetryAfter > 0 {
		notes = append(notes, "retry after "+e.RetryAfter.String())
	}
	if len(notes) > 0 {
		b.WriteString(" (" + strings.Join(notes, ", ") + ")")
	}
	return b.String()
}

// Is reports whether target is the sentinel of e's status.
func (e *APIError) Is(target error) bool {
	switch target {
	case ErrInvalid:
		return e.Status == http.StatusBadRequest || e.Status == http.StatusUnprocessableEntity
	case ErrUnauthorized:
		return e.Status == http.StatusUnauthorized
	case ErrForbidden:
		return e.Status == http.StatusForbidden
	case fs.ErrPermission:
		return e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
	case ErrNotFound, fs.ErrNotExist:
		return e.Status == http.StatusNotFound || e.Status == http.StatusGone
	case ErrConflict:
		return e.Status == http.StatusConflict
	case ErrRateLimited:
		return e.Status == http.StatusTooManyRequests
	case ErrUnavailable:
		return e.Status >= 500
	case ErrRedirected:
		return e.Status >= 300 && e.Status < 400
	}
	return false
}

// parseError makes an APIError of an answer. No field of the body is required,
// and a body that is not JSON says nothing.
func parseError(op string, status int, header http.Header, body []byte, now time.Time) *APIError {
	e := &APIError{Op: op, Status: status, RetryAfter: retryAfter(header.Get("Retry-After"), now)}
	e.RequestID = identifier(header.Get("X-Request-Id"))
	var outer map[string]json.RawMessage
	if json.Unmarshal(body, &outer) != nil {
		return e
	}
	fields := outer
	if raw, ok := outer["error"]; ok {
		var inner map[string]json.RawMessage
		if json.Unmarshal(raw, &inner) == nil && inner != nil {
			fields = inner
		} else if s := text(raw); s != "" {
			e.Message = NewSecret(truncate(s))
		}
	}
	first := func(names ...string) string {
		for _, name := range names {
			if s := text(fields[name]); s != "" {
				return s
			}
		}
		return ""
	}
	e.Slug = identifier(first("slug", "name", "error_code"))
	e.Code = identifier(first("code", "error_code"))
	if id := identifier(first("request_id", "requestId")); id != "" {
		e.RequestID = id
	}
	if m := first("message"); m != "" {
		e.Message = NewSecret(truncate(m))
	}
	return e
}

// text returns a JSON string or number as text, and nothing for the rest.
func text(raw json.RawMessage) string {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return ""
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var n json.Number
	if json.Unmarshal(raw, &n) == nil {
		return n.String()
	}
	return ""
}

// identifier returns s if it can be nothing else than a name, a number or an
// id: it goes into errors, and a text of the server's must not.
func identifier(s string) string {
	if len(s) > 80 {
		return ""
	}
	for _, r := range s {
		if !isWord(r) && r != '.' && r != ':' {
			return ""
		}
	}
	if looksLikeKey(s) {
		return ""
	}
	return s
}

func isWord(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-'
}

func looksLikeKey(s string) bool {
	for _, p := range []string{"ak_", "uak_", "oak_", "ck_", "whsec_"} {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

func truncate(s string) string {
	const most = 4096
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "")
	}
	return s
}

// retryAfter reads the header of RFC 9110 §10.2.3: seconds or a date.
func retryAfter(s string, now time.Time) time.Duration {
	s = strings.TrimSpace(s)
	if s == "" {
		return 0
	}
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil && at.After(now) {
		return at.Sub(now)
	}
	return 0
}
