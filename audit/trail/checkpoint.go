package trail

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// ErrCheckpoint reports a checkpoint that is malformed, or that is not signed
// as it should be.
var ErrCheckpoint = errors.New("trail: bad checkpoint")

// maxCheckpoint is the size of the largest checkpoint that is read, in bytes.
const maxCheckpoint = 1 << 16

// A Checkpoint is a signed statement of what a log holds: C2SP
// tlog-checkpoint. Kept where the log's machine cannot change it, it pins the
// log: every later state must extend it. The zero Checkpoint states nothing.
type Checkpoint struct {
	Origin string // the log's name
	Size   int64  // records
	Root   Hash   // of the tree of these records

	// Cosignatures are those of the witnesses whose keys were given to
	// [ParseCheckpoint].
	Cosignatures []Cosignature

	prev Hash   // of the note before it, if hasPrev
	note string // as signed
}

// A Cosignature says that a witness saw a checkpoint, and that it extends all
// those that it saw before: C2SP tlog-cosignature.
type Cosignature struct {
	Name string // of the witness
	Time time.Time
}

// Note returns the checkpoint as text, with all its signatures.
func (c Checkpoint) Note() string { return c.note }

// String returns the size and the root.
func (c Checkpoint) String() string {
	return fmt.Sprintf("%s: %d records, root %s", c.Origin, c.Size, c.Root)
}

// ParseCheckpoint reads a checkpoint, which the log's key must have signed.
// Cosignatures by the witnesses given are verified; others are ignored. An
// error wraps [ErrCheckpoint].
func ParseCheckpoint(text string, log PublicKey, witnesses ...PublicKey) (Checkpoint, error) {
	if log.IsZero() || log.IsWitness() {
		return Checkpoint{}, fmt.Errorf("%w: without the public key of the log", ErrCheckpoint)
	}
	c, err := parseCheckpoint([]byte(text))
	if err != nil {
		return Checkpoint{}, err
	}
	if c.Origin != log.Name() {
		return Checkpoint{}, fmt.Errorf("%w: it is of %q, and the key of %q", ErrCheckpoint, c.Origin, log.Name())
	}
	verifiers := []note.Verifier{noteKey{log}}
	for _, w := range witnesses {
		if !w.IsWitness() {
			return Checkpoint{}, fmt.Errorf("%w: %s is not the key of a witness", ErrCheckpoint, w)
		}
		verifiers = append(verifiers, noteKey{w})
	}
	n, err := note.Open([]byte(text), note.VerifierList(verifiers...))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %d records: %w", ErrCheckpoint, c.Size, err)
	}
	signed := false
	for _, s := range n.Sigs {
		if s.Name == log.Name() && s.Hash == log.hash() {
			signed = true
			continue
		}
		sig, err := base64.StdEncoding.DecodeString(s.Base64)
		if err != nil || len(sig) < 12 {
			return Checkpoint{}, fmt.Errorf("%w: cosignature of %s", ErrCheckpoint, s.Name)
		}
		c.Cosignatures = append(c.Cosignatures, Cosignature{s.Name, time.Unix(int64(binary.BigEndian.Uint64(sig[4:])), 0).UTC()})
	}
	if !signed {
		return Checkpoint{}, fmt.Errorf("%w: %d records: not signed by the log", ErrCheckpoint, c.Size)
	}
	return c, nil
}

// parseCheckpoint reads a checkpoint and verifies no signature.
func parseCheckpoint(text []byte) (Checkpoint, error) {
	c := Checkpoint{note: string(text)}
	body, _, ok := strings.Cut(c.note, "\n\n")
	if !ok || len(text) > maxCheckpoint {
		return Checkpoint{}, fmt.Errorf("%w: not a signed note", ErrCheckpoint)
	}
	origin, rest, _ := strings.Cut(body, "\n")
	size, rest, _ := strings.Cut(rest, "\n")
	root, extra, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil || size[0] < '0' || size[0] == '0' && size != "0" || origin == "" {
		return Checkpoint{}, fmt.Errorf("%w: want a name, a size and a root", ErrCheckpoint)
	}
	c.Origin, c.Size = origin, n
	if c.Root, err = parseHash(root); err != nil {
		return Checkpoint{}, fmt.Errorf("%w: root: %w", ErrCheckpoint, err)
	}
	for extra != "" {
		var line string
		line, extra, _ = strings.Cut(extra, "\n")
		if prev, ok := strings.CutPrefix(line, prevPrefix); ok {
			if c.prev, err = parseHash(prev); err != nil {
				return Checkpoint{}, fmt.Errorf("%w: previous: %w", ErrCheckpoint, err)
			}
		}
	}
	return c, nil
}

// strictBase64 takes each hash in one way only, but for line breaks.
var strictBase64 = base64.StdEncoding.Strict()

func parseHash(text string) (Hash, error) {
	var buf [tlog.HashSize + 1]byte
	if len(text) == base64.StdEncoding.EncodedLen(tlog.HashSize) {
		// With a line break in it, it would be too short.
		if n, err := strictBase64.Decode(buf[:], []byte(text)); err == nil && n == tlog.HashSize {
			return Hash(buf[:tlog.HashSize]), nil
		}
	}
	return Hash{}, fmt.Errorf("%q is not a hash", text)
}

// prevPrefix begins the extension line of a checkpoint that names the one
// before it, by the hash of its note. So the last signature of a log covers
// all that are written in it.
const prevPrefix = "hardshell/previous "

// checkpoint signs the state of tree, which follows prev.
func (k *Key) checkpoint(tree *frontier, prev Checkpoint) (Checkpoint, error) {
	c := Checkpoint{Origin: k.Origin(), Size: tree.n, Root: tree.root()}
	text := fmt.Appendf(nil, "%s\n%d\n%s\n", c.Origin, c.Size, c.Root)
	if prev.note != "" {
		c.prev = prev.noteHash()
		text = fmt.Appendf(text, "%s%s\n", prevPrefix, c.prev)
	}
	signed, err := note.Sign(&note.Note{Text: string(text)}, k.signer)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("trail: sign checkpoint: %w", err)
	}
	c.note = string(signed)
	return c, nil
}

func (c *Checkpoint) noteHash() Hash { return sha256.Sum256([]byte(c.note)) }

// bySize orders checkpoints.
func bySize(list []Checkpoint) []Checkpoint {
	return slices.SortedFunc(slices.Values(list), func(a, b Checkpoint) int { return int(min(max(a.Size-b.Size, -1), 1)) })
}
