package remote

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// An Operator is somebody who may fire the switch. Their name is in the receipt
// and in the trail.
type Operator struct {
	Name string // such as "ann": printable ASCII without spaces

	// Keys sign commands. Two may be valid at once, so that one can be replaced.
	Keys []PublicKey

	// Links are the hashes of what opens the page; see [NewLink].
	Links []LinkHash
}

// A link has 256 random bits, so that a plain hash of it can be kept where
// others read it, and nobody needs to be kept from guessing.
const (
	linkPrefix = "hsk_"
	linkSize   = len(linkPrefix) + 43
)

// A Link is the secret that opens the page of an operator, and lets its holder
// stop the agent, which is all that it is good for. No verb prints it.
type Link struct{ text string }

// NewLink returns a new link, to be given to an operator, and its hash, which is
// what the server keeps.
func NewLink() (Link, LinkHash) {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	l := Link{linkPrefix + base64.RawURLEncoding.EncodeToString(b[:])}
	return l, l.Hash()
}

// Hash returns the hash of l.
func (l Link) Hash() LinkHash { return sha256.Sum256([]byte(l.text)) }

// Reveal returns the secret. It is the last part of the page's address, or what
// is typed there.
func (l Link) Reveal() string { return l.text }

// String returns no secret.
func (l Link) String() string { return "remote.Link(secret)" }

// Format prints no secret, whatever the verb.
func (l Link) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, l.String()) }

// LogValue returns no secret.
func (l Link) LogValue() slog.Value { return slog.StringValue(l.String()) }

// MarshalText returns no secret.
func (l Link) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// A LinkHash is what is kept of a [Link].
type LinkHash [sha256.Size]byte

// String returns h as text: "sha256:" and hexadecimal digits.
func (h LinkHash) String() string { return "sha256:" + hex.EncodeToString(h[:]) }

// MarshalText returns what [LinkHash.String] does.
func (h LinkHash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads what [LinkHash.String] writes.
func (h *LinkHash) UnmarshalText(text []byte) error {
	digits, ok := strings.CutPrefix(string(text), "sha256:")
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != len(h) || LinkHash(b) == (LinkHash{}) || LinkHash(b) == sha256.Sum256(nil) {
		return errors.New(`remote: it is not the hash of a link: write "sha256:" and 64 hexadecimal digits, as NewLink returns it, never the link itself`)
	}
	copy(h[:], b)
	return nil
}

// ParseOperators reads a list of operators: lines of a name and a public key
// or the hash of a link, such as
//
//	# who may stop the agent
//	ann ed25519:wq5F…
//	ann sha256:9f86…
//
// It returns those that it could read beside the error: one line that is wrong
// should not disarm the others.
func ParseOperators(text string) ([]Operator, error) {
	var all []Operator
	var errs []error
	byName := make(map[string]int)
	scan := bufio.NewScanner(strings.NewReader(text))
	n := 0
	for scan.Scan() {
		n++
		line := strings.TrimSpace(scan.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, _ := strings.Cut(line, " ")
		value = strings.TrimSpace(value)
		var key PublicKey
		var hash LinkHash
		var err error
		if strings.HasPrefix(value, publicPrefix) {
			key, err = ParsePublicKey(value)
		} else {
			err = hash.UnmarshalText([]byte(value))
		}
		if !validName(name) {
			err = errors.New("the name must be printable ASCII")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("remote: operators: line %d: %w", n, err))
			continue
		}
		i, ok := byName[name]
		if !ok {
			i = len(all)
			byName[name], all = i, append(all, Operator{Name: name})
		}
		if key.IsZero() {
			all[i].Links = append(all[i].Links, hash)
		} else {
			all[i].Keys = append(all[i].Keys, key)
		}
	}
	if err := scan.Err(); err != nil {
		errs = append(errs, fmt.Errorf("remote: operators: line %d: %w", n+1, err))
	}
	return all, errors.Join(errs...)
}

// roster finds operators.
type roster struct {
	keys  map[keyID]holder
	order []keyID
	links []link
	names map[string]bool
}

type holder struct {
	name string
	key  PublicKey
}

type link struct {
	name string
	hash LinkHash
}

func newRoster(all []Operator) (*roster, error) {
	r := &roster{keys: make(map[keyID]holder), names: make(map[string]bool)}
	for _, o := range all {
		switch {
		case !validName(o.Name):
			return nil, fmt.Errorf("remote: operator %q: the name must be 1 to %d printable ASCII characters without spaces", o.Name, maxName)
		case r.names[o.Name]:
			return nil, fmt.Errorf("remote: operator %s is there twice", o.Name)
		case len(o.Keys)+len(o.Links) == 0:
			return nil, fmt.Errorf("remote: operator %s has neither a key nor a link", o.Name)
		}
		r.names[o.Name] = true
		for _, k := range o.Keys {
			if k.IsZero() {
				return nil, fmt.Errorf("%w: operator %s has an empty one", ErrKey, o.Name)
			}
			if other, ok := r.keys[k.id()]; ok {
				return nil, fmt.Errorf("%w: operators %s and %s have the same one", ErrKey, other.name, o.Name)
			}
			r.keys[k.id()] = holder{o.Name, k}
			r.order = append(r.order, k.id())
		}
		for _, h := range o.Links {
			r.links = append(r.links, link{o.Name, h})
		}
	}
	if len(r.names) == 0 {
		return nil, errors.New("remote: there is no operator: nobody could fire")
	}
	return r, nil
}

// author returns who signed a command.
func (r *roster) author(s *signed) (string, bool) {
	h, ok := r.keys[s.key]
	if !ok || !h.key.verify(s.text, s.signature) {
		return "", false
	}
	return h.name, true
}

// opener returns whose link it is. It takes as long for every link.
func (r *roster) opener(text string) (string, bool) {
	hash := LinkHash(sha256.Sum256([]byte(text)))
	found := -1
	for i := range r.links {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(r.links[i].hash[:], hash[:]), i, found)
	}
	if found < 0 || len(text) != linkSize {
		return "", false
	}
	return r.links[found].name, true
}
