package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// A consistencyJSON shows that a trail extends what it was.
type consistencyJSON struct {
	Schema string       `json:"schema"`
	Older  string       `json:"older"` // signed notes
	Newer  string       `json:"newer"`
	Hashes []trail.Hash `json:"hashes"` // RFC 6962, section 2.1.2
}

const consistencySchema = "hardshell.consistency/v1"

// prove is the command trail prove.
func (s *shelf) prove(ctx context.Context, args []string) (int, error) {
	var (
		seq               int64
		older, out, check string
	)
	err := s.parse("prove", args, func(fs *flag.FlagSet) {
		fs.Int64Var(&seq, "seq", -1, "prove that the record of this `NUMBER` is in the trail")
		fs.StringVar(&s.query.ID, "id", "", "prove that the first record with this `ID` is in it")
		fs.StringVar(&older, "since-pin", "", "prove that the trail extends the checkpoint in this `FILE`")
		fs.StringVar(&check, "check", "", "check the proof in this `FILE`: it takes no more than the trail's public key")
		fs.StringVar(&out, "out", "", "`FILE` to write, which must not be there; without it, the standard output")
	})
	if err != nil {
		return exitUsage, err
	}
	asked := 0
	for _, is := range []bool{seq != -1, s.query.ID != "", older != "", check != ""} {
		if is {
			asked++
		}
	}
	if asked != 1 || seq < -1 {
		return exitUsage, usageError("say what to prove, with --seq, --id or --since-pin, or which proof to check, with --check")
	}
	if check != "" {
		return s.checkProof(check)
	}
	r, _, key, err := s.reader(ctx)
	if err != nil {
		return exitFail, err
	}
	var proof any
	if older != "" {
		proof, err = consistency(ctx, r, older, key)
	} else {
		proof, err = s.inclusion(ctx, r, seq)
	}
	if err != nil {
		return exitFail, err
	}
	text, err := json.Marshal(proof)
	if err != nil {
		return exitFail, err
	}
	text = append(text, '\n')
	if out == "" {
		_, err = s.stdout.Write(text)
	} else {
		err = writeNew(out, text)
	}
	if err != nil {
		return exitFail, fmt.Errorf("write the proof: %w", err)
	}
	return exitPass, nil
}

func writeNew(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// inclusion proves that a record is in a trail: the one of a number, or the
// first that the query selects.
func (s *shelf) inclusion(ctx context.Context, r *trail.Reader, seq int64) (trail.Proof, error) {
	if seq < 0 {
		for rec, err := range r.Records(ctx, s.query) {
			if err != nil {
				return trail.Proof{}, err
			}
			seq = rec.Seq
			break
		}
	}
	if seq < 0 {
		return trail.Proof{}, fmt.Errorf("no record has the id %q", s.query.ID)
	}
	return r.Prove(ctx, seq)
}

// consistency proves that a trail extends the checkpoint in a file.
func consistency(ctx context.Context, r *trail.Reader, name string, key trail.PublicKey) (consistencyJSON, error) {
	old, err := (&trail.PinFile{Path: name, Key: key}).Read()
	if err != nil {
		return consistencyJSON{}, err
	}
	hashes, err := r.Consistency(ctx, old.Size)
	if err == nil {
		err = trail.CheckConsistency(old, r.Checkpoint(), hashes)
	}
	if err != nil {
		return consistencyJSON{}, fmt.Errorf("the trail does not extend %s: %w", name, err)
	}
	return consistencyJSON{consistencySchema, old.Note(), r.Checkpoint().Note(), hashes}, nil
}

// checkProof checks a proof, with the public key and nothing else.
func (s *shelf) checkProof(name string) (int, error) {
	b, err := s.one()
	if err != nil {
		return exitFail, err
	}
	key, err := s.key(b)
	if err != nil {
		return exitFail, err
	}
	f, err := os.Open(name)
	if err != nil {
		return exitFail, err
	}
	defer f.Close()
	const most = 4 << 20 // more than a record and its proof can take
	text, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return exitFail, err
	}
	var is struct {
		Schema string `json:"schema"`
	}
	if err := json.Unmarshal(text, &is); err != nil {
		return exitFail, fmt.Errorf("%s is not a proof: %w", name, err)
	}
	if is.Schema == consistencySchema {
		return s.checkConsistency(text, key)
	}
	var proof trail.Proof
	if err := json.Unmarshal(text, &proof); err != nil {
		return exitFail, fmt.Errorf("%s is not a proof: %w", name, err)
	}
	rec, err := proof.Check(key)
	if err != nil {
		return exitFail, err
	}
	fmt.Fprintf(s.stdout, "The proof holds: this is record %d of the trail %s.\n", rec.Seq, oneLine(key.Name()))
	return exitPass, s.write(rec)
}

func (s *shelf) checkConsistency(text []byte, key trail.PublicKey) (int, error) {
	var proof consistencyJSON
	if err := json.Unmarshal(text, &proof); err != nil {
		return exitFail, err
	}
	older, err := trail.ParseCheckpoint(proof.Older, key)
	if err != nil {
		return exitFail, fmt.Errorf("the older checkpoint: %w", err)
	}
	newer, err := trail.ParseCheckpoint(proof.Newer, key)
	if err != nil {
		return exitFail, fmt.Errorf("the newer checkpoint: %w", err)
	}
	if err := trail.CheckConsistency(older, newer, proof.Hashes); err != nil {
		return exitFail, err
	}
	fmt.Fprintf(s.stdout, "The proof holds: the trail %s of %d records extends the one of %d.\n", oneLine(key.Name()), newer.Size, older.Size)
	return exitPass, nil
}
