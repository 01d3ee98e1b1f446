package composio

import (
	"bytes"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// A Secret is a credential. It prints as "[redacted]" under every verb of
// package fmt, in JSON and other text encodings, and in log/slog; the zero
// Secret, which holds nothing, prints as an empty string.
//
// The value is kept in a closure: printers that ignore methods and walk
// unexported fields, as those of test frameworks do, find the address of a
// function. For the same reason secrets cannot be compared with ==; see
// [Secret.Equal].
type Secret struct{ reveal func() string }

// NewSecret returns a Secret that holds s.
func NewSecret(s string) Secret {
	if s == "" {
		return Secret{}
	}
	return Secret{func() string { return s }}
}

// Reveal returns the credential. It is the only way to get at it.
func (s Secret) Reveal() string {
	if s.reveal == nil {
		return ""
	}
	return s.reveal()
}

// IsZero reports whether s holds nothing.
func (s Secret) IsZero() bool { return s.reveal == nil }

// Equal reports whether both hold the same, in a time that depends on the
// lengths alone.
func (s Secret) Equal(other Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(other.Reveal())) == 1
}

// String returns "[redacted]", or nothing if s holds nothing.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return redacted
}

// GoString is [Secret.String] for %#v.
func (s Secret) GoString() string { return s.String() }

// Format writes what [Secret.String] returns, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue is [Secret.String] for log/slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is [Secret.String] for JSON and other encodings. What it writes
// cannot be read back.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText makes s hold a copy of text. It refuses the text that
// [Secret.MarshalText] writes, so that a configuration that went through a
// redaction is noticed when it is read.
func (s *Secret) UnmarshalText(text []byte) error {
	if string(text) == redacted {
		return errors.New("composio: a secret was read that had been redacted when it was written: supply the real one")
	}
	*s = NewSecret(string(text))
	return nil
}

// Data is a JSON value that this package passes on without a look: the
// arguments of a tool, what it answered, the payload of an event. It may hold
// anything, so it prints as its size alone under every verb of package fmt, in
// JSON and in log/slog. The zero Data is absent.
type Data struct{ raw func() []byte }

// NewData returns the JSON of v. If v is a [json.RawMessage] it must be valid
// JSON.
func NewData(v any) (Data, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return Data{}, fmt.Errorf("composio: encode data: %w", err)
	}
	return dataOf(b), nil
}

func dataOf(b []byte) Data {
	if len(b) == 0 {
		return Data{}
	}
	b = bytes.Clone(b)
	return Data{func() []byte { return b }}
}

func (d Data) bytes() []byte {
	if d.raw == nil {
		return nil
	}
	return d.raw()
}

// Bytes returns a copy of the JSON, nil if there is none.
func (d Data) Bytes() []byte { return bytes.Clone(d.bytes()) }

// Decode stores the JSON in v as [json.Unmarshal] does.
func (d Data) Decode(v any) error {
	if err := json.Unmarshal(d.bytes(), v); err != nil {
		return fmt.Errorf("composio: decode data: %w", err)
	}
	return nil
}

// IsZero reports whether there is no value, not even null.
func (d Data) IsZero() bool { return d.raw == nil }

// String returns the size, such as "[12 bytes of JSON]", or nothing if there
// is no value.
func (d Data) String() string {
	if d.IsZero() {
		return ""
	}
	return fmt.Sprintf("[%d bytes of JSON]", len(d.bytes()))
}

// GoString is [Data.String] for %#v.
func (d Data) GoString() string { return d.String() }

// Format writes what [Data.String] returns, whatever the verb.
func (d Data) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, d.String()) }

// LogValue is [Data.String] for log/slog.
func (d Data) LogValue() slog.Value { return slog.StringValue(d.String()) }

// MarshalText is [Data.String] for JSON and other encodings. To send the value
// on, use [Data.Bytes].
func (d Data) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalJSON makes d hold a copy of b.
func (d *Data) UnmarshalJSON(b []byte) error {
	*d = dataOf(b)
	return nil
}
