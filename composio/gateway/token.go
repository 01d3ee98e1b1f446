package gateway

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"

	"github.com/managemyclaw/hardshell/composio"
)

// A token has 256 random bits, so that a plain hash of it can be kept where
// others read it: there is nothing to guess.
const (
	tokenPrefix = "hsg_"
	tokenBytes  = 32
	minToken    = 32  // bytes of text; what is shorter was not made by NewToken
	maxToken    = 256 // bytes of text
)

// A TokenHash is what is kept of an agent's token.
type TokenHash [sha256.Size]byte

// NewToken returns a new token, to be given to an agent, and its hash, to be
// put into the policy.
func NewToken() (composio.Secret, TokenHash) {
	var b [tokenBytes]byte
	_, _ = rand.Read(b[:]) // never fails
	token := composio.NewSecret(tokenPrefix + base64.RawURLEncoding.EncodeToString(b[:]))
	return token, HashToken(token)
}

// HashToken returns the hash of a token.
func HashToken(token composio.Secret) TokenHash { return sha256.Sum256([]byte(token.Reveal())) }

// String returns h as it is written in a policy: "sha256:" and hexadecimal
// digits.
func (h TokenHash) String() string { return "sha256:" + hex.EncodeToString(h[:]) }

// MarshalText returns what [TokenHash.String] does.
func (h TokenHash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads what [TokenHash.String] writes.
func (h *TokenHash) UnmarshalText(text []byte) error {
	digits, ok := strings.CutPrefix(string(text), "sha256:")
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != len(h) {
		return errors.New(`gateway: it is not the hash of a token: write "sha256:" and 64 hexadecimal digits, as NewToken returns it, never the token itself`)
	}
	copy(h[:], b)
	if *h == sha256.Sum256(nil) || *h == (TokenHash{}) {
		return errors.New("gateway: it is the hash of no token")
	}
	return nil
}

// Headers that carry a credential at Composio. Only the first is the agent's
// way of giving its token.
const (
	headerKey  = "X-Api-Key"
	headerAuth = "Authorization"
)

var foreignCredentials = []string{"X-User-Api-Key", "X-Org-Api-Key", "X-Consumer-Api-Key", "Proxy-Authorization"}

// credential returns the one token that a request carries.
func credential(h http.Header) (composio.Secret, error) {
	for _, name := range foreignCredentials {
		if len(h.Values(name)) > 0 {
			return composio.Secret{}, errors.New("the request carries a credential other than the agent's token: send that alone, as x-api-key or as bearer token")
		}
	}
	given := h.Values(headerKey)
	for _, v := range h.Values(headerAuth) {
		scheme, token, ok := strings.Cut(v, " ")
		if !ok || !strings.EqualFold(scheme, "Bearer") {
			return composio.Secret{}, errors.New("the Authorization header is not a bearer token")
		}
		given = append(given, strings.TrimLeft(token, " "))
	}
	if len(given) == 0 {
		return composio.Secret{}, errors.New("the request carries no token: send the agent's, as x-api-key or as bearer token")
	}
	for _, v := range given[1:] {
		if v != given[0] {
			return composio.Secret{}, errors.New("the request carries two different tokens")
		}
	}
	if len(given[0]) < minToken || len(given[0]) > maxToken {
		return composio.Secret{}, errors.New("the token is not one of this gateway's")
	}
	return composio.NewSecret(given[0]), nil
}

// owner returns the agent whose token it is. It takes as long for every token.
func (b *book) owner(token composio.Secret) (*agent, TokenHash) {
	hash := HashToken(token)
	found := -1
	for i := range b.tokens {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(b.tokens[i].hash[:], hash[:]), i, found)
	}
	if found < 0 {
		return nil, hash
	}
	return b.tokens[found].agent, hash
}
