package trail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A Witness keeps checkpoints where whoever has the log cannot change them.
// [PinFile] is one; package witness has one that speaks to another machine.
type Witness interface {
	// Add gives the witness a checkpoint of the log. extend returns the proof
	// that it extends the first size records, which is what the witness may
	// have seen before. Add returns the lines of the witness's cosignatures,
	// which may be none, and an error unless the checkpoint is kept. It should
	// return soon after ctx is done.
	Add(ctx context.Context, c Checkpoint, extend func(size int64) ([]Hash, error)) (cosignatures []byte, err error)
}

// ErrForked reports a witness that has seen another log under the same name, or
// a longer one: this log was rewritten, or an old copy was put back.
var ErrForked = errors.New("trail: the witness has seen another log")

// Witness gives the last checkpoint to w. With cosignatures, it is also kept in
// the directory of the log, in the file "cosigned". What the witness answers is
// not verified here: whoever relies on it has its public key, and
// [ParseCheckpoint].
//
// Call it at an interval, and after what must not be lost: what has been
// recorded since can be cut off unseen by whoever can write to the log.
func (l *Log) Witness(ctx context.Context, w Witness) (Checkpoint, error) {
	r, err := OpenReader(ctx, os.DirFS(l.store.dir), l.key.Public())
	if err != nil {
		return Checkpoint{}, err
	}
	c := r.Checkpoint()
	lines, err := w.Add(ctx, c, func(size int64) ([]Hash, error) { return r.Consistency(ctx, size) })
	if err != nil {
		return Checkpoint{}, fmt.Errorf("trail: witness %s: %w", l.store.dir, err)
	}
	if len(bytes.TrimSpace(lines)) == 0 {
		return c, nil
	}
	if c, err = c.WithCosignatures(lines); err != nil {
		return Checkpoint{}, err
	}
	if err := writeFile(l.store.dir, cosignedName, []byte(c.note)); err != nil {
		return Checkpoint{}, fmt.Errorf("trail: keep cosignatures: %w", err)
	}
	return c, nil
}

// WithCosignatures returns c with the signature lines of witnesses added, which
// are not verified: parse its note for that.
func (c Checkpoint) WithCosignatures(lines []byte) (Checkpoint, error) {
	for line := range strings.Lines(string(lines)) {
		if !strings.HasPrefix(line, "— ") || !strings.HasSuffix(line, "\n") || len(line) > 1000 {
			return Checkpoint{}, fmt.Errorf("%w: %q is not a cosignature", ErrCheckpoint, line)
		}
	}
	if len(c.note)+len(lines) > maxCheckpoint {
		return Checkpoint{}, fmt.Errorf("%w: %d bytes of cosignatures", ErrCheckpoint, len(lines))
	}
	c.note += string(lines)
	return c, nil
}

// A PinFile is a [Witness] that keeps the last checkpoint in a file. It is worth
// as much as the place: put it on another machine's disk, or on a medium that
// this one can only add to. It refuses a checkpoint that does not extend the
// one that it has. Its methods must not be called concurrently.
type PinFile struct {
	Path string
	Key  PublicKey // of the log
}

// Add implements [Witness].
func (p *PinFile) Add(ctx context.Context, c Checkpoint, extend func(size int64) ([]Hash, error)) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	old, err := p.Read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case old.Size > c.Size:
		return nil, fmt.Errorf("%w: %s has a checkpoint of %d records, and this is one of %d", ErrForked, p.Path, old.Size, c.Size)
	default:
		proof, err := extend(old.Size)
		if err != nil {
			return nil, err
		}
		if err := CheckConsistency(old, c, proof); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrForked, p.Path, err)
		}
	}
	return nil, p.Replace(c)
}

// Replace writes c to the file, whatever is there: the caller has looked
// whether c extends it.
func (p *PinFile) Replace(c Checkpoint) error {
	if err := writeFile(filepath.Dir(p.Path), filepath.Base(p.Path), []byte(c.note)); err != nil {
		return fmt.Errorf("trail: pin: %w", err)
	}
	return nil
}

// Read returns the checkpoint in the file, for [Config] and [Verifier]. The
// error wraps [io/fs.ErrNotExist] if there is none yet.
func (p *PinFile) Read() (Checkpoint, error) {
	data, err := os.ReadFile(p.Path)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("trail: pin: %w", err)
	}
	c, err := ParseCheckpoint(string(data), p.Key)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: in %s", err, p.Path)
	}
	return c, nil
}
