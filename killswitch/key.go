package killswitch

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/managemyclaw/hardshell/internal/keyfile"
)

// ErrKey reports a key that cannot be used: it is malformed, or kept where
// others can read it.
var ErrKey = errors.New("killswitch: unusable key")

// ErrSignature reports a document that is not what was signed, or not by the
// key that is asked for.
var ErrSignature = errors.New("killswitch: not signed by this key")

const (
	privateMark = "hardshell-killswitch-key-v1:"
	publicMark  = "hardshell-killswitch-pub-v1:"
)

// A Key signs receipts, drills and what is armed, with Ed25519. Whoever has it
// can make them up, so keep it in a file that the agent cannot read. No verb
// prints it. A Key may be used concurrently; the zero Key cannot sign.
type Key struct {
	private ed25519.PrivateKey
}

// GenerateKey makes a key.
func GenerateKey() (*Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("killswitch: generate a key: %w", err)
	}
	return &Key{private}, nil
}

// Public returns what verifies the signatures of k. It is zero for a key that
// is.
func (k *Key) Public() PublicKey {
	var p PublicKey
	if k.usable() {
		copy(p.key[:], k.private[ed25519.SeedSize:])
	}
	return p
}

func (k *Key) usable() bool { return k != nil && len(k.private) == ed25519.PrivateKeySize }

// ReadKey reads a key that [Key.WriteFile] wrote. It returns an error wrapping
// [ErrKey] if the file is not one, or if anyone but its owner may read it.
func ReadKey(name string) (*Key, error) {
	text, err := keyfile.Read(name)
	if errors.Is(err, keyfile.ErrExposed) {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	if err != nil {
		return nil, fmt.Errorf("killswitch: read key: %w", err)
	}
	k, err := parseKey(text)
	if err != nil {
		return nil, fmt.Errorf("%w: in %s", err, name)
	}
	return k, nil
}

func parseKey(text string) (*Key, error) {
	seed, err := parseMarked(privateMark, text)
	if err != nil {
		return nil, err
	}
	return &Key{ed25519.NewKeyFromSeed(seed)}, nil
}

// parseMarked reads 32 bytes in base64 after a mark.
func parseMarked(mark, text string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(strings.TrimSuffix(text, "\n"), mark)
	if !ok {
		return nil, fmt.Errorf("%w: it does not begin with %s", ErrKey, mark)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(raw) != 32 || strings.ContainsAny(encoded, "\r\n") {
		return nil, fmt.Errorf("%w: what follows %s is not 32 bytes in base64", ErrKey, mark)
	}
	return raw, nil
}

// WriteFile writes k to a new file that only its owner may read. It does not
// overwrite.
func (k *Key) WriteFile(name string) error {
	if !k.usable() {
		return fmt.Errorf("%w: write %s: the key is empty", ErrKey, name)
	}
	if err := keyfile.Write(name, privateMark+base64.StdEncoding.EncodeToString(k.private.Seed())+"\n"); err != nil {
		return fmt.Errorf("killswitch: write key: %w", err)
	}
	return nil
}

// String returns the public key.
func (k *Key) String() string {
	if !k.usable() {
		return "killswitch.Key(empty)"
	}
	return "killswitch.Key(" + k.Public().String() + ")"
}

// Format prints the public key, whatever the verb.
func (k *Key) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, k.String()) }

// LogValue returns the public key.
func (k *Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText returns the public key.
func (k *Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// A PublicKey verifies what a [Key] signed. The zero PublicKey verifies
// nothing. Public keys may be compared with ==.
type PublicKey struct {
	key [ed25519.PublicKeySize]byte
}

// ParsePublicKey reads what [PublicKey.String] returned.
func ParsePublicKey(text string) (PublicKey, error) {
	raw, err := parseMarked(publicMark, text)
	if err != nil {
		return PublicKey{}, err
	}
	return PublicKey{[ed25519.PublicKeySize]byte(raw)}, nil
}

// IsZero reports whether there is no key.
func (p PublicKey) IsZero() bool { return p == PublicKey{} }

// String returns the key as text.
func (p PublicKey) String() string {
	if p.IsZero() {
		return ""
	}
	return publicMark + base64.StdEncoding.EncodeToString(p.key[:])
}

// MarshalText returns the key as text.
func (p PublicKey) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a key, or none.
func (p *PublicKey) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*p = PublicKey{}
		return nil
	}
	*p, err = ParsePublicKey(string(text))
	return err
}
