package trail

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Algorithms of signed notes; see C2SP, signed-note and tlog-cosignature.
const (
	algLog     = 1 // Ed25519, over the text
	algWitness = 4 // Ed25519, over the text and a time
)

// A PublicKey verifies checkpoints of a log, or cosignatures of a witness. Both
// are written as C2SP signed-note writes keys: NAME+HASH+BASE64. The zero
// PublicKey verifies nothing. PublicKeys may be used concurrently.
type PublicKey struct {
	name string
	alg  byte
	key  string // 32 bytes
}

// ParsePublicKey reads a key as [PublicKey.String] and others write it.
func ParsePublicKey(text string) (PublicKey, error) {
	fail := func(why string) (PublicKey, error) {
		return PublicKey{}, fmt.Errorf("%w: public key %q: %s", ErrKey, text, why)
	}
	name, rest, _ := strings.Cut(text, "+")
	id, b64, ok := strings.Cut(rest, "+")
	raw, err := base64.StdEncoding.DecodeString(b64)
	if !ok || err != nil || len(raw) == 0 {
		return fail("want NAME+HASH+BASE64")
	}
	if raw[0] != algLog && raw[0] != algWitness {
		return fail(fmt.Sprintf("algorithm %d: want %d, of a log, or %d, of a witness", raw[0], algLog, algWitness))
	}
	k, err := newPublicKey(name, raw[0], raw[1:])
	if err != nil {
		return fail("malformed")
	}
	if k.id() != id {
		return fail("the hash in it is of another key")
	}
	return k, nil
}

func newPublicKey(name string, alg byte, key []byte) (PublicKey, error) {
	// The note package says which names are well formed.
	if _, err := note.NewEd25519VerifierKey(name, key); err != nil {
		return PublicKey{}, fmt.Errorf("%w: %s: %w", ErrKey, name, err)
	}
	k := PublicKey{name, alg, string(key)}
	if alg == algLog {
		if _, err := note.NewVerifier(k.String()); err != nil {
			return PublicKey{}, fmt.Errorf("%w: %s: %w", ErrKey, name, err)
		}
		return k, nil
	}
	if _, err := newPublicKey(name, algLog, key); err != nil {
		return PublicKey{}, err
	}
	return k, nil
}

// NewWitnessKey returns the public key of the witness called name.
func NewWitnessKey(name string, key ed25519.PublicKey) (PublicKey, error) {
	return newPublicKey(name, algWitness, key)
}

// Name returns the name of the log or witness.
func (k PublicKey) Name() string { return k.name }

// IsWitness reports whether k verifies cosignatures, rather than checkpoints.
func (k PublicKey) IsWitness() bool { return k.alg == algWitness }

// IsZero reports whether k is the zero PublicKey.
func (k PublicKey) IsZero() bool { return k.key == "" }

// String returns k as [ParsePublicKey] reads it.
func (k PublicKey) String() string {
	if k.IsZero() {
		return ""
	}
	return k.name + "+" + k.id() + "+" + base64.StdEncoding.EncodeToString(append([]byte{k.alg}, k.key...))
}

func (k PublicKey) id() string { return fmt.Sprintf("%08x", k.hash()) }

func (k PublicKey) hash() uint32 {
	sum := sha256.Sum256(slices.Concat([]byte(k.name), []byte{'\n', k.alg}, []byte(k.key)))
	return binary.BigEndian.Uint32(sum[:])
}

// A noteKey is a PublicKey as the note package wants it.
type noteKey struct{ PublicKey }

func (k noteKey) KeyHash() uint32 { return k.hash() }

// Verify implements [note.Verifier].
func (k noteKey) Verify(msg, sig []byte) bool {
	if k.alg == algWitness {
		if len(sig) != 8+ed25519.SignatureSize || binary.BigEndian.Uint64(sig) > 1<<63-1 {
			return false
		}
		msg = cosigned(binary.BigEndian.Uint64(sig), msg)
		sig = sig[8:]
	}
	return len(k.key) == ed25519.PublicKeySize && len(sig) == ed25519.SignatureSize && ed25519.Verify(ed25519.PublicKey(k.key), msg, sig)
}

// cosigned returns what a witness signs: see C2SP, tlog-cosignature.
func cosigned(seconds uint64, text []byte) []byte {
	return append(fmt.Appendf(nil, "cosignature/v1\ntime %d\n", seconds), text...)
}

func publicFromSeed(seed []byte) []byte {
	return ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
}
