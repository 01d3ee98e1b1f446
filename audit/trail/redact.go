package trail

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// Redacted is what stands in place of a secret.
const Redacted = "[redacted]"

// DefaultMaxString is the length, in bytes, to which a [Redactor] cuts strings
// in the view of arguments.
const DefaultMaxString = 512

// A Redactor removes secrets before anything is hashed or written. It finds
// them by the name of the member that they are in, such as "password", by the
// way they begin, such as "ghp_" or "Bearer ", and because it was told of them.
// That is a net and not a proof: a secret that looks like any other word, under
// a name that says nothing, goes through.
//
// The zero Redactor is usable. Its fields must not be changed once it is in
// use; its methods may then be called concurrently.
type Redactor struct {
	// Names are further members whose value is secret. Case, hyphens and
	// underscores do not count, and a name need only contain one of them.
	Names []string

	// Values are secrets that are known, such as the gateway's own token.
	// Those shorter than 6 bytes are ignored.
	Values []string

	// MaxString is the length, in bytes, to which strings in the view of
	// arguments are cut. Zero means DefaultMaxString, negative not at all.
	MaxString int
}

// secretNames are parts of names, in lower case, without hyphens and
// underscores.
var secretNames = []string{
	"password", "passwd", "passphrase", "secret", "token", "apikey", "authorization", "cookie", "credential",
	"privatekey", "accesskey", "sessionkey", "signature", "otp",
}

// A secretStart is how a secret begins, and the number of letters that must
// follow.
type secretStart struct {
	text string
	more int
}

// secretStarts are of the secrets that are recognized anywhere.
var secretStarts = []secretStart{
	{"ghp_", 20},
	{"gho_", 20},
	{"ghs_", 20},
	{"ghu_", 20},
	{"github_pat_", 20},
	{"glpat-", 16},
	{"sk-", 16},
	{"sk_live_", 16},
	{"rk_live_", 16},
	{"xoxb-", 10},
	{"xoxp-", 10},
	{"xoxa-", 10},
	{"xapp-", 10},
	{"AKIA", 16},
	{"ASIA", 16},
	{"AIza", 30},
	{"ya29.", 20},
	{"eyJ", 30},
	{"npm_", 30},
	{"hvs.", 20},
	{"ak_", 16},
	{"ck_", 16},
	{"ok_", 16},
	{"whsec_", 16},
	{"tskey-", 16},
	{"AGE-SECRET-KEY-", 20},
	{"Bearer ", 8},
	{"bearer ", 8},
	{"Basic ", 8},
	{"PRIVATE+KEY+", 8},
}

// startsBy are the secretStarts by their first byte; startBytes are those first
// bytes, and that of a PEM header.
var startsBy, startBytes = func() (by [256][]secretStart, set [256]bool) {
	for _, s := range secretStarts {
		by[s.text[0]] = append(by[s.text[0]], s)
		set[s.text[0]] = true
	}
	set['-'] = true
	return by, set
}()

// Text returns s with what looks like a secret replaced.
func (r *Redactor) Text(s string) string {
	for _, v := range r.Values {
		if len(v) >= 6 {
			s = strings.ReplaceAll(s, v, Redacted)
		}
	}
	var out strings.Builder
	from := 0
	for i := 0; i < len(s); i++ {
		if !startBytes[s[i]] || i > 0 && wordByte(s[i-1]) {
			continue
		}
		keep, end := secretAt(s[i:])
		if end == 0 {
			continue
		}
		out.WriteString(s[from : i+keep])
		out.WriteString(Redacted)
		from = i + end
		i = from - 1
	}
	if from == 0 {
		return s
	}
	out.WriteString(s[from:])
	return out.String()
}

// secretAt returns where the secret at the beginning of s ends, or 0, and how
// much of it may be shown.
func secretAt(s string) (keep, end int) {
	if strings.HasPrefix(s, "-----BEGIN ") && strings.Contains(s[:min(len(s), 64)], "PRIVATE KEY") {
		if i := strings.Index(s, "-----END "); i >= 0 {
			if j := strings.Index(s[i+9:], "-----"); j >= 0 {
				return 0, i + 9 + j + 5
			}
		}
		return 0, len(s)
	}
	for _, start := range startsBy[s[0]] {
		if !strings.HasPrefix(s, start.text) {
			continue
		}
		end := len(start.text)
		for end < len(s) && (wordByte(s[end]) || strings.IndexByte(".-+/=~:", s[end]) >= 0) {
			end++
		}
		if end-len(start.text) >= start.more {
			return len(start.text), end
		}
	}
	return 0, 0
}

func wordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}

// secretName reports whether what is called name is secret.
func (r *Redactor) secretName(name string) bool {
	plain := plainName(name)
	return slices.ContainsFunc(secretNames, func(s string) bool { return strings.Contains(plain, s) }) ||
		slices.ContainsFunc(r.Names, func(s string) bool { return s != "" && strings.Contains(plain, plainName(s)) })
}

// plainName returns name in lower case, without what joins its words.
func plainName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '-' || r == '_' || r == ' ' || r == '.':
			return -1
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return r
	}, name)
}

// Event returns e with what looks like a secret replaced in every field. It
// does not change what e refers to. The digest of arguments stays: it is of
// what they were after redaction.
func (r *Redactor) Event(e Event) Event {
	for _, s := range []*string{
		&e.Actor, &e.Agent, &e.Subject, &e.Tool, &e.Message, &e.ID, &e.RequestID, &e.SessionID, &e.RunID, &e.ToolCallID, &e.AccountID, &e.LogID,
	} {
		if *s != "" {
			*s = r.Text(*s)
		}
	}
	if len(e.Arguments.View) > 0 && !r.clean(e.Arguments.View) {
		if v, err := r.value(e.Arguments.View); err == nil {
			e.Arguments.View = v
		}
	}
	for name, v := range e.Attrs {
		clean := r.Text(v)
		if r.secretName(name) {
			clean = Redacted
		}
		if clean != v {
			e.Attrs = maps.Clone(e.Attrs)
			for name, v := range e.Attrs {
				if e.Attrs[name] = r.Text(v); r.secretName(name) {
					e.Attrs[name] = Redacted
				}
			}
			break
		}
	}
	return e
}

// clean reports whether raw, which is JSON, has nothing to replace. It says
// false where to tell would take decoding it.
func (r *Redactor) clean(raw []byte) bool {
	if bytes.IndexByte(raw, '\\') >= 0 {
		return false
	}
	text := string(raw)
	if r.Text(text) != text {
		return false
	}
	for {
		_, rest, ok := strings.Cut(text, `"`)
		s, rest, closed := strings.Cut(rest, `"`)
		if !ok || !closed {
			return true
		}
		if strings.HasPrefix(strings.TrimLeft(rest, " \t\r\n"), ":") && r.secretName(s) {
			return false
		}
		text = rest
	}
}

// Arguments returns what may be recorded of the arguments of a tool, which are
// JSON: a view without secrets, its long strings cut short, and the digest of
// the arguments without secrets, but uncut. Equal arguments have equal digests,
// however they are spelled; a secret does not go into it, so that it cannot be
// guessed from it.
func (r *Redactor) Arguments(raw json.RawMessage) (Arguments, error) {
	if len(bytes.TrimSpace(raw)) == 0 {
		return Arguments{}, nil
	}
	clean, err := r.value(raw)
	if err != nil {
		return Arguments{}, fmt.Errorf("%w: arguments: %w", ErrInvalidEvent, err)
	}
	sum := sha256.Sum256(clean)
	limit := r.MaxString
	if limit == 0 {
		limit = DefaultMaxString
	}
	view := clean
	if limit > 0 && len(clean) > limit {
		if view, err = rewrite(clean, func(_ string, s string) any { return shorten(s, limit) }, nil); err != nil {
			return Arguments{}, fmt.Errorf("%w: arguments: %w", ErrInvalidEvent, err)
		}
	}
	return Arguments{Digest: "sha256:" + hex.EncodeToString(sum[:]), View: view}, nil
}

// value returns JSON with its members sorted and secrets replaced.
func (r *Redactor) value(raw []byte) (json.RawMessage, error) {
	return rewrite(raw, func(_ string, s string) any { return r.Text(s) }, r.secretName)
}

func shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	cut := limit
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return fmt.Sprintf("%s… (%d bytes more)", s[:cut], len(s)-cut)
}

// rewrite returns JSON with its members sorted, each string as text returns
// it, and the value of each member that secret knows replaced.
func rewrite(raw []byte, text func(name, s string) any, secret func(name string) bool) (json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if dec.More() {
		return nil, fmt.Errorf("more than one value")
	}
	var walk func(name string, v any) any
	walk = func(name string, v any) any {
		switch v := v.(type) {
		case string:
			return text(name, v)
		case []any:
			for i := range v {
				v[i] = walk(name, v[i])
			}
		case map[string]any:
			for k, m := range v {
				if secret != nil && secret(k) && m != nil {
					v[k] = Redacted
				} else {
					v[k] = walk(k, m)
				}
			}
		}
		return v
	}
	return json.Marshal(walk("", v))
}
