package access

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
)

// A Detector finds credentials in text. It must not keep the text, and neither
// print nor log. Implementations may be called concurrently.
type Detector interface {
	// Detect returns where text holds credentials. Text may be of any kind,
	// and need not be UTF-8. An error means that it could not be looked at.
	Detect(ctx context.Context, text []byte) ([]Match, error)
}

// A Match is a credential in a text. It does not hold it.
type Match struct {
	// Rule names the kind, such as "composio-key": lower-case words joined
	// by dashes.
	Rule string

	// Start and End delimit the credential in the text.
	Start, End int
}

// A Leak is a credential that was found. It does not hold it.
type Leak struct {
	Kind  LeakKind
	Rule  string // see [Match]
	Place string // such as "/proc/4711/environ", or a path in the container
	Name  string // of the variable, if it is in one
	Line  int    // from 1; 0 if there are none
	At    int64  // byte of the place at which it begins

	// Mark is the same for the same credential and tells others apart. It is
	// made with a key that ends with the process, so that nothing can be
	// learnt from it, not even whether a guess is right.
	Mark string
}

// A LeakKind says where a credential was found.
type LeakKind int

// Kinds of places.
const (
	InEnvironment LeakKind = iota + 1
	InArguments
	InFile
	InOpenFile // that no name leads to, because it was deleted
	InStore    // a database of OpenClaw's
	InName     // of a file
)

// String returns words such as "environment".
func (k LeakKind) String() string {
	names := [...]string{"", "environment", "arguments", "file", "open file", "store", "file name"}
	if k < 1 || int(k) >= len(names) {
		return fmt.Sprintf("LeakKind(%d)", int(k))
	}
	return names[k]
}

// A scanner runs all detectors over texts.
type scanner struct {
	general Detector // nil if there is none
	known   *pieces
	tokens  map[[sha256.Size]byte]bool
	key     [32]byte
}

func newScanner(c *Config) *scanner {
	s := &scanner{general: c.Detector, known: newPieces(c.Known), tokens: make(map[[sha256.Size]byte]bool)}
	for _, t := range c.Tokens {
		s.tokens[t] = true
	}
	_, _ = rand.Read(s.key[:]) // never fails
	return s
}

// scan returns the credentials in text, which it may change.
func (s *scanner) scan(ctx context.Context, text []byte) ([]Match, error) {
	s.forget(text)
	all := s.known.find(text)
	own, err := Keys{}.Detect(ctx, text)
	if err != nil {
		return nil, err
	}
	all = append(all, own...)
	if s.general != nil {
		more, err := s.general.Detect(ctx, text)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	return distinct(all, len(text)), nil
}

// quick is scan without the general detector: for the names of files.
func (s *scanner) quick(text []byte) []Match {
	s.forget(text)
	return distinct(append(s.known.find(text), allKeys(text)...), len(text))
}

// forget makes the tokens that the agent is meant to have unrecognizable.
func (s *scanner) forget(text []byte) {
	for start, end := range tokensIn(text) {
		if s.tokens[sha256.Sum256(text[start:end])] {
			blank(text[start:end])
		}
	}
}

func blank(text []byte) {
	for i := range text {
		text[i] = '*'
	}
}

// distinct drops matches that lie in an earlier one, and repairs those that no
// text has.
func distinct(all []Match, size int) []Match {
	for i := range all {
		all[i].Start = min(max(all[i].Start, 0), size)
		all[i].End = min(max(all[i].End, all[i].Start), size)
	}
	// By place; of those at one place the detectors' order is kept, in which
	// what is known best comes first.
	slices.SortStableFunc(all, func(a, b Match) int { return a.Start - b.Start })
	kept := all[:0]
	for _, m := range all {
		if n := len(kept); n > 0 && m.Start < kept[n-1].End {
			kept[n-1].End = max(kept[n-1].End, m.End)
			continue
		}
		kept = append(kept, m)
	}
	return kept
}

// mark returns what stands for a credential.
func (s *scanner) mark(value []byte) string {
	h := hmac.New(sha256.New, s.key[:])
	h.Write(value)
	return hex.EncodeToString(h.Sum(nil)[:4])
}

func lineAt(text []byte, at int) int { return 1 + bytes.Count(text[:at], []byte{'\n'}) }
