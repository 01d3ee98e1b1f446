package composio

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// DefaultTolerance is how old, or how far in the future, an event may be.
const DefaultTolerance = 5 * time.Minute

var (
	// ErrSignature reports an event that is not signed with the secret.
	ErrSignature = errors.New("composio: webhook: the signature is not that of the sender")
	// ErrStaleEvent reports an event that is too old or of the future.
	ErrStaleEvent = errors.New("composio: webhook: the event is not of now")
)

// A Webhook verifies events that Composio sends. Its methods may be called
// concurrently.
type Webhook struct {
	// Secret is the signing secret, as it is. Unlike with the Standard
	// Webhooks scheme, which it resembles, it is not base64.
	Secret Secret

	// Tolerance bounds the age of an event. Zero means [DefaultTolerance].
	Tolerance time.Duration

	// Now tells the time. Nil means [time.Now].
	Now func() time.Time
}

// An Event is what Composio sent.
type Event struct {
	ID       string // of the message: the same if it is sent again
	SentAt   time.Time
	Type     string // such as "composio.connected_account.expired"
	Metadata Data
	Data     Data
}

// Verify checks the signature of a request and returns its event. The body
// must be as it was received, byte for byte. Within the tolerance the same
// message verifies again: keep the IDs if it must not act twice.
func (w *Webhook) Verify(header http.Header, body []byte) (Event, error) {
	if w.Secret.IsZero() {
		return Event{}, errors.New("composio: webhook: Webhook.Secret is empty, and anybody could sign with that")
	}
	id, err := single(header, "Webhook-Id")
	if err != nil {
		return Event{}, err
	}
	stamp, err := single(header, "Webhook-Timestamp")
	if err != nil {
		return Event{}, err
	}
	signatures, err := single(header, "Webhook-Signature")
	if err != nil {
		return Event{}, err
	}
	mac := hmac.New(sha256.New, []byte(w.Secret.Reveal()))
	_, _ = mac.Write([]byte(id + "." + stamp + "."))
	_, _ = mac.Write(body)
	want := mac.Sum(nil)
	valid := false
	for s := range strings.FieldsSeq(signatures) {
		encoded, ok := strings.CutPrefix(s, "v1,")
		if !ok {
			continue
		}
		if got, err := base64.StdEncoding.DecodeString(encoded); err == nil && hmac.Equal(got, want) {
			valid = true
		}
	}
	if !valid {
		return Event{}, ErrSignature
	}
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return Event{}, fmt.Errorf("%w: its time is no number of seconds", ErrStaleEvent)
	}
	now := time.Now
	if w.Now != nil {
		now = w.Now
	}
	tolerance := w.Tolerance
	if tolerance == 0 {
		tolerance = DefaultTolerance
	}
	at := time.Unix(seconds, 0)
	if d := now().Sub(at); d > tolerance || d < -tolerance {
		return Event{}, fmt.Errorf("%w: it is more than %v off", ErrStaleEvent, tolerance)
	}
	var e struct {
		Type     string `json:"type"`
		Metadata Data   `json:"metadata"`
		Data     Data   `json:"data"`
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return Event{}, fmt.Errorf("composio: webhook: %w: %s", ErrAnswer, jsonProblem(err))
	}
	return Event{ID: id, SentAt: at, Type: e.Type, Metadata: e.Metadata, Data: e.Data}, nil
}

// single returns the value of a header that must be there once: of two, the
// one that was signed would not be known.
func single(h http.Header, name string) (string, error) {
	v := h.Values(name)
	if len(v) != 1 || v[0] == "" {
		return "", fmt.Errorf("%w: the header %s is there %d times", ErrSignature, name, len(v))
	}
	return v[0], nil
}
