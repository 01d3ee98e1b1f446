package trail

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/mod/sumdb/tlog"
)

// ErrProof reports a proof that does not hold.
var ErrProof = errors.New("trail: the proof does not hold")

// A Proof shows that a record is in a log, to whoever has the log's public key
// and nothing else. It can be written as JSON and kept for ever: it also holds
// when the record has been retired from the log.
type Proof struct {
	Seq        int64           `json:"seq"`
	Record     json.RawMessage `json:"record,omitempty"` // exactly as it was written; absent if it was retired
	Checkpoint string          `json:"checkpoint"`       // a signed note
	Hashes     []Hash          `json:"hashes"`           // RFC 6962, section 2.1.1
}

// Prove returns the proof that record seq is in the log. Of a record that was
// retired it has no copy: put it into the proof.
func (r *Reader) Prove(ctx context.Context, seq int64) (Proof, error) {
	if seq < 0 || seq >= r.last.Size {
		return Proof{}, fmt.Errorf("trail: prove record %d: the log has %d: %w", seq, r.last.Size, fs.ErrNotExist)
	}
	raw, err := r.raw(ctx, seq)
	if err != nil {
		return Proof{}, err
	}
	h, err := r.tree(ctx)
	if err != nil {
		return Proof{}, err
	}
	defer h.close()
	hashes, err := tlog.ProveRecord(r.last.Size, seq, h)
	if err != nil {
		return Proof{}, fmt.Errorf("trail: prove record %d: %w", seq, err)
	}
	p := Proof{Seq: seq, Record: raw, Checkpoint: r.last.note, Hashes: hashes}
	if raw == nil {
		return p, nil
	}
	if _, err := p.Check(r.key); err != nil {
		return Proof{}, &DamageError{Kind: DamageEdited, First: seq, Last: seq, File: r.partOf(seq).segmentName(), Detail: "it is not the record that the tree has, or the index is damaged: verify the log"}
	}
	return p, nil
}

// Check returns the record that p proves to be in the log whose key is given.
// An error wraps [ErrProof], or [ErrCheckpoint].
func (p *Proof) Check(key PublicKey) (Record, error) {
	c, err := ParseCheckpoint(p.Checkpoint, key)
	if err != nil {
		return Record{}, err
	}
	if p.Seq < 0 || p.Seq >= c.Size || len(p.Record) == 0 {
		return Record{}, fmt.Errorf("%w: record %d of %d", ErrProof, p.Seq, c.Size)
	}
	if err := tlog.CheckRecord(p.Hashes, c.Size, c.Root, p.Seq, tlog.RecordHash(p.Record)); err != nil {
		return Record{}, fmt.Errorf("%w: record %d: %w", ErrProof, p.Seq, err)
	}
	var rec Record
	if err := rec.UnmarshalJSON(p.Record); err != nil {
		return Record{}, fmt.Errorf("%w: record %d: %w", ErrProof, p.Seq, err)
	}
	if rec.Seq != p.Seq {
		return Record{}, fmt.Errorf("%w: record %d says that it is %d", ErrProof, p.Seq, rec.Seq)
	}
	return rec, nil
}

// Consistency returns the proof that the log's checkpoint extends one of size
// records: RFC 6962, section 2.1.2.
func (r *Reader) Consistency(ctx context.Context, size int64) ([]Hash, error) {
	if size < 0 || size > r.last.Size {
		return nil, fmt.Errorf("trail: prove %d records: the log has %d: %w", size, r.last.Size, fs.ErrNotExist)
	}
	if size == 0 {
		return nil, nil
	}
	h, err := r.tree(ctx)
	if err != nil {
		return nil, err
	}
	defer h.close()
	proof, err := tlog.ProveTree(r.last.Size, size, h)
	if err != nil {
		return nil, fmt.Errorf("trail: prove %d records: %w", size, err)
	}
	return proof, nil
}

// CheckConsistency returns nil if proof shows that newer extends older. Both
// have been verified when they were parsed. An error wraps [ErrProof].
func CheckConsistency(older, newer Checkpoint, proof []Hash) error {
	switch {
	case older.Origin != newer.Origin:
		return fmt.Errorf("%w: %q and %q are two logs", ErrProof, older.Origin, newer.Origin)
	case older.Size > newer.Size:
		return fmt.Errorf("%w: %d records do not extend %d", ErrProof, newer.Size, older.Size)
	case older.Size == 0:
		var empty frontier
		if len(proof) > 0 || older.Root != empty.root() {
			return fmt.Errorf("%w: of the empty log", ErrProof)
		}
		return nil
	}
	if err := tlog.CheckTree(proof, newer.Size, newer.Root, older.Size, older.Root); err != nil {
		return fmt.Errorf("%w: that %d records extend %d: %w", ErrProof, newer.Size, older.Size, err)
	}
	return nil
}

// raw returns a record as it is written, or nil if it was retired.
func (r *Reader) raw(ctx context.Context, seq int64) (raw json.RawMessage, err error) {
	r.each(ctx, Query{First: seq, End: seq + 1}, func(_ Record, payload []byte, e error) bool {
		raw, err = bytes.Clone(payload), e
		return false
	})
	return raw, err
}

// partOf returns the part that record seq is in.
func (r *Reader) partOf(seq int64) part {
	p := r.parts[0]
	for _, q := range r.parts {
		if q.first <= seq {
			p = q
		}
	}
	return p
}
