package trail

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/managemyclaw/hardshell/internal/keyfile"
)

// ErrKey reports a key that cannot be used: it is malformed, not the one that
// a log was made with, or kept where others can read it.
var ErrKey = errors.New("trail: unusable key")

// A Key signs the checkpoints of one log. Whoever has it can make a log that
// only a pinned checkpoint tells from the true one, so keep it in a file of its
// own that the agent cannot read. No verb prints it. A Key may be used
// concurrently; the zero Key cannot sign.
type Key struct {
	signer  note.Signer
	public  PublicKey
	encoded string
}

// GenerateKey makes a key for the log called origin, such as
// "trail.example.com/agent-1". The name must be unique among the logs that a
// witness knows, and has neither spaces nor plus signs.
func GenerateKey(origin string) (*Key, error) {
	skey, _, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		return nil, fmt.Errorf("trail: generate key for %q: %w", origin, err)
	}
	return parseKey(skey)
}

func parseKey(encoded string) (*Key, error) {
	signer, err := note.NewSigner(encoded)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	// The verifier comes from the key itself: a note's public key is not part
	// of its private form.
	public, err := publicOf(signer, encoded)
	if err != nil {
		return nil, err
	}
	return &Key{signer, public, encoded}, nil
}

// Public returns what verifies the signatures of k.
func (k *Key) Public() PublicKey { return k.public }

// Origin returns the name of the log that k signs for.
func (k *Key) Origin() string { return k.public.Name() }

// ReadKey reads a key that [Key.WriteFile] wrote. It returns an error wrapping
// [ErrKey] if the file is not one, or if anyone but its owner may read it.
func ReadKey(name string) (*Key, error) {
	text, err := keyfile.Read(name)
	if errors.Is(err, keyfile.ErrExposed) {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	if err != nil {
		return nil, fmt.Errorf("trail: read key: %w", err)
	}
	k, err := parseKey(strings.TrimSuffix(text, "\n"))
	if err != nil {
		return nil, fmt.Errorf("%w: in %s", err, name)
	}
	return k, nil
}

// WriteFile writes k to a new file that only its owner may read. It does not
// overwrite: the log of a key that is lost can be verified, but not continued.
func (k *Key) WriteFile(name string) error {
	if k == nil || k.encoded == "" {
		return fmt.Errorf("%w: write %s: the key is empty", ErrKey, name)
	}
	if err := keyfile.Write(name, k.encoded+"\n"); err != nil {
		return fmt.Errorf("trail: write key: %w", err)
	}
	return nil
}

func (k *Key) describe() string {
	if k == nil || k.signer == nil {
		return "trail.Key(empty)"
	}
	return "trail.Key(" + k.public.String() + ")"
}

// String returns the public key.
func (k *Key) String() string { return k.describe() }

// Format prints the public key, whatever the verb.
func (k *Key) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, k.describe()) }

// LogValue returns the public key.
func (k *Key) LogValue() slog.Value { return slog.StringValue(k.describe()) }

// MarshalText returns the public key.
func (k *Key) MarshalText() ([]byte, error) { return []byte(k.describe()), nil }

// publicOf derives the public key of an encoded private one.
func publicOf(signer note.Signer, encoded string) (PublicKey, error) {
	// PRIVATE+KEY+NAME+HASH+BASE64, where base64 has plus signs of its own.
	parts := strings.SplitN(encoded, "+", 5)
	seed, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(seed) != 1+32 {
		return PublicKey{}, fmt.Errorf("%w: %s: not Ed25519", ErrKey, signer.Name())
	}
	return newPublicKey(signer.Name(), algLog, publicFromSeed(seed[1:]))
}
