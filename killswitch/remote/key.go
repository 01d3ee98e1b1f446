package remote

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/managemyclaw/hardshell/internal/keyfile"
)

// ErrKey reports a key that cannot be used: it is malformed, or kept where
// others can read it.
var ErrKey = errors.New("remote: unusable key")

const (
	publicPrefix  = "ed25519:"
	privatePrefix = "hardshell-remote-key:ed25519:"
)

// A Key signs: the commands of an operator, or the answers of a server. Keep
// it in a file of its own that neither the agent nor anybody else can read. No
// verb prints it. A Key may be used concurrently; the zero Key cannot sign.
type Key struct {
	private ed25519.PrivateKey
}

// GenerateKey makes a key.
func GenerateKey() *Key {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err) // rand.Reader never fails
	}
	return &Key{private}
}

// ReadKey reads a key that [Key.WriteFile] wrote. It returns an error wrapping
// [ErrKey] if the file is not one, or if anyone but its owner may read it.
func ReadKey(name string) (*Key, error) {
	data, err := keyfile.Read(name)
	if errors.Is(err, keyfile.ErrExposed) {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	if err != nil {
		return nil, fmt.Errorf("remote: read key: %w", err)
	}
	text, ok := strings.CutPrefix(strings.TrimSuffix(data, "\n"), privatePrefix)
	seed, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if !ok || err != nil || len(seed) != ed25519.SeedSize || strings.ContainsAny(text, "\r\n") {
		return nil, fmt.Errorf("%w: %s does not hold one: make another with GenerateKey", ErrKey, name)
	}
	return &Key{ed25519.NewKeyFromSeed(seed)}, nil
}

// WriteFile writes k to a new file that only its owner may read. It does not
// overwrite.
func (k *Key) WriteFile(name string) error {
	if !k.usable() {
		return fmt.Errorf("%w: write %s: the key is empty", ErrKey, name)
	}
	if err := keyfile.Write(name, privatePrefix+base64.RawURLEncoding.EncodeToString(k.private.Seed())+"\n"); err != nil {
		return fmt.Errorf("remote: write key: %w", err)
	}
	return nil
}

// Public returns what verifies the signatures of k.
func (k *Key) Public() PublicKey {
	if !k.usable() {
		return PublicKey{}
	}
	return PublicKey{[ed25519.PublicKeySize]byte(k.private.Public().(ed25519.PublicKey))}
}

func (k *Key) usable() bool { return k != nil && len(k.private) == ed25519.PrivateKeySize }

func (k *Key) sign(message []byte) []byte { return ed25519.Sign(k.private, message) }

func (k *Key) describe() string {
	if !k.usable() {
		return "remote.Key(empty)"
	}
	return "remote.Key(" + k.Public().String() + ")"
}

// String returns the public key.
func (k *Key) String() string { return k.describe() }

// Format prints the public key, whatever the verb.
func (k *Key) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, k.describe()) }

// LogValue returns the public key.
func (k *Key) LogValue() slog.Value { return slog.StringValue(k.describe()) }

// MarshalText returns the public key.
func (k *Key) MarshalText() ([]byte, error) { return []byte(k.describe()), nil }

// A PublicKey verifies what a [Key] signed. The zero PublicKey verifies
// nothing. PublicKeys are comparable.
type PublicKey struct {
	bytes [ed25519.PublicKeySize]byte
}

// ParsePublicKey reads what [PublicKey.String] writes. An error wraps
// [ErrKey].
func ParsePublicKey(text string) (PublicKey, error) {
	digits, ok := strings.CutPrefix(text, publicPrefix)
	b, err := base64.RawURLEncoding.Strict().DecodeString(digits)
	if !ok || err != nil || len(b) != ed25519.PublicKeySize || strings.ContainsAny(digits, "\r\n") {
		return PublicKey{}, fmt.Errorf(`%w: a public key is "ed25519:" and 43 characters`, ErrKey)
	}
	k := PublicKey{[ed25519.PublicKeySize]byte(b)}
	if k.IsZero() {
		return PublicKey{}, fmt.Errorf("%w: the public key is empty", ErrKey)
	}
	return k, nil
}

// IsZero reports whether k is the zero PublicKey.
func (k PublicKey) IsZero() bool { return k == PublicKey{} }

// String returns k as text: "ed25519:" and base64.
func (k PublicKey) String() string {
	return publicPrefix + base64.RawURLEncoding.EncodeToString(k.bytes[:])
}

// MarshalText returns what [PublicKey.String] does.
func (k PublicKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what [PublicKey.String] writes.
func (k *PublicKey) UnmarshalText(text []byte) error {
	parsed, err := ParsePublicKey(string(text))
	if err == nil {
		*k = parsed
	}
	return err
}

// id names k in a command: it finds the key, and proves nothing.
func (k PublicKey) id() keyID {
	sum := sha256.Sum256(k.bytes[:])
	return keyID(sum[:16])
}

func (k PublicKey) verify(message, signature []byte) bool {
	return !k.IsZero() && ed25519.Verify(k.bytes[:], message, signature)
}

type keyID [16]byte

func (k keyID) String() string { return hex.EncodeToString(k[:]) }
