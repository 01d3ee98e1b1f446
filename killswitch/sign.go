package killswitch

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// Documents are JSON objects whose last member is the signature of the rest:
//
//	{"schema":"…",…,"signature":"…"}
//
// What is signed is the schema, a zero byte, and the object without white space
// and without that member. So a signature for one kind of document is none for
// another, members that a reader does not know are signed too, and a document
// that was indented is still the same.
const (
	signatureStart = `,"signature":"`
	signatureEnd   = `"}`
)

func signed(schema string, body []byte) []byte {
	return append(append([]byte(schema), 0), body...)
}

// sign returns the signature of a document, which is marshaled without one. A
// key that cannot sign returns none.
func sign(k *Key, schema string, document any) (string, error) {
	if !k.usable() {
		return "", nil
	}
	body, err := json.Marshal(document)
	if err != nil {
		return "", fmt.Errorf("killswitch: sign: %w", err)
	}
	return base64.StdEncoding.EncodeToString(ed25519.Sign(k.private, signed(schema, body))), nil
}

// verify checks the signature of a document, and that it is of a schema, and
// unmarshals it.
func verify(p PublicKey, schema string, data []byte, document any) error {
	if p.IsZero() {
		return fmt.Errorf("%w: there is no key", ErrSignature)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, data); err != nil {
		return fmt.Errorf("killswitch: %s: %w", schema, err)
	}
	head, rest, ok := cutLast(b.Bytes(), signatureStart)
	encoded, end := bytes.CutSuffix(rest, []byte(signatureEnd))
	sig, err := base64.StdEncoding.Strict().DecodeString(string(encoded))
	if !ok || !end || err != nil {
		return fmt.Errorf("%w: %s: it has no signature", ErrSignature, schema)
	}
	if !ed25519.Verify(p.key[:], signed(schema, append(head[:len(head):len(head)], '}')), sig) {
		return fmt.Errorf("%w: %s", ErrSignature, schema)
	}
	return decode(schema, data, document)
}

func cutLast(b []byte, sep string) (before, after []byte, found bool) {
	i := bytes.LastIndex(b, []byte(sep))
	if i < 0 {
		return nil, nil, false
	}
	return b[:i], b[i+len(sep):], true
}

// decode unmarshals a document of a schema.
func decode(schema string, data []byte, document any) error {
	var kind struct {
		Schema string `json:"schema"`
	}
	if err := json.Unmarshal(data, &kind); err != nil {
		return fmt.Errorf("killswitch: %s: %w", schema, err)
	}
	if kind.Schema != schema {
		return fmt.Errorf("killswitch: want %s, and it is %q", schema, bounded(kind.Schema, 60))
	}
	if err := json.Unmarshal(data, document); err != nil {
		return fmt.Errorf("killswitch: %s: %w", schema, err)
	}
	return nil
}
