package trail

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// A key is replaced by ending the log that it signs and going on in another:
// the last record of the old log names the key of the new one, and the first of
// the new log holds the last checkpoint of the old one. Each vouches for the
// other, so that whoever trusts one key can follow to the next, and who has
// stolen the old key cannot change the old log unseen by those who have the new.

// ErrHandedOver reports a log that has ended: [Log.HandOver] made another that
// continues it.
var ErrHandedOver = errors.New("trail: the log was handed over: write to the one that continues it")

// Kinds and members of the records that link two logs.
const (
	kindHandedOver = Kind(ownKinds + "handover")
	kindContinues  = Kind(ownKinds + "continue")

	linkKey        = "key"        // the public key of the other log
	linkCheckpoint = "checkpoint" // the last of the log that is continued
)

// HandOver ends l, and returns the log in dir that continues it and is signed by
// key, which has a name of its own. Write the key to its file first: nobody can
// write to either log without it. What is recorded meanwhile fails with
// [ErrClosed].
//
// If HandOver fails, [Open] tells how far it came: where it returns
// [ErrHandedOver], [Succeed] does the rest.
func (l *Log) HandOver(ctx context.Context, dir string, key *Key, c Config) (*Log, error) {
	if err := checkSuccessor(l.key.Public(), key); err != nil {
		return nil, err
	}
	next := key.Public()
	err := l.end(ctx, Event{
		Kind: kindHandedOver, Actor: "hardshell", Outcome: OutcomeOK,
		Message: "the log ends here, and is continued by " + next.Name(),
		Attrs:   map[string]string{linkKey: next.String()},
	})
	if err != nil {
		return nil, fmt.Errorf("trail: hand over %s: %w", l.store.dir, err)
	}
	return begin(ctx, dir, key, c, l.key.Public(), l.Checkpoint())
}

// Succeed returns a log in dir that continues the one in old, and is signed by
// key, which has a name of its own. It is for a log whose key is lost, or cannot
// be trusted any more, and to finish [Log.HandOver]. It first verifies old by v:
// the new log vouches for it as it is now. Who has only the key of the old log
// cannot follow to the new one unless the old log was handed over to it.
func Succeed(ctx context.Context, dir string, key *Key, c Config, v *Verifier, old fs.FS) (*Log, error) {
	if err := checkSuccessor(v.Key, key); err != nil {
		return nil, err
	}
	sum, err := v.Verify(ctx, old)
	if err != nil {
		return nil, fmt.Errorf("trail: succeed %s: %w", v.Key.Name(), err)
	}
	r, err := OpenReader(ctx, old, v.Key)
	if err != nil {
		return nil, err
	}
	if to, err := r.handedTo(ctx); err != nil || !to.IsZero() && to != key.Public() {
		return nil, errors.Join(fmt.Errorf("%w: %s was handed over to %q, and not to %s", ErrKey, v.Key.Name(), to, key), err)
	}
	return begin(ctx, dir, key, c, v.Key, sum.Checkpoint)
}

func checkSuccessor(old PublicKey, key *Key) error {
	if key == nil || key.signer == nil {
		return fmt.Errorf("%w: continue %s: there is none", ErrKey, old.Name())
	}
	if key.Origin() == old.Name() {
		return fmt.Errorf("%w: continue %s: the log that continues it needs a name of its own", ErrKey, old.Name())
	}
	return nil
}

// begin makes the log in dir that continues the one of which last is the last
// checkpoint, unless that has been done.
func begin(ctx context.Context, dir string, key *Key, c Config, old PublicKey, last Checkpoint) (*Log, error) {
	l, err := Create(dir, key, c)
	if errors.Is(err, fs.ErrExist) {
		l, err = Open(dir, key, c) //nolint:contextcheck // it reads one segment
	}
	if err != nil {
		return nil, err
	}
	if l.Checkpoint().Size == 0 {
		_, err = l.appendOwn(ctx, Event{
			Kind: kindContinues, Actor: "hardshell", Outcome: OutcomeOK,
			Message: fmt.Sprintf("this log continues %s, which has %d records", old.Name(), last.Size),
			Attrs:   map[string]string{linkKey: old.String(), linkCheckpoint: last.note},
		})
	} else {
		var r *Reader
		if r, err = OpenReader(ctx, os.DirFS(dir), key.Public()); err == nil {
			var from PublicKey
			var c Checkpoint
			if from, c, err = r.continues(ctx); err == nil && (from != old || c.Size != last.Size || c.Root != last.Root) {
				err = fmt.Errorf("there is a log that continues another: %w", fs.ErrExist)
			}
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("trail: continue %s in %s: %w", old.Name(), dir, err), l.Close())
	}
	return l, nil
}

// link returns record seq, which the last checkpoint proves, if it is of the
// given kind.
func (r *Reader) link(ctx context.Context, seq int64, kind Kind) (Event, error) {
	p, err := r.Prove(ctx, seq)
	if err != nil {
		return Event{}, err
	}
	if p.Record == nil {
		return Event{}, fmt.Errorf("trail: %s: record %d has been retired: %w", r.key.Name(), seq, fs.ErrNotExist)
	}
	rec, err := p.Check(r.key)
	if err != nil || rec.Event.Kind != kind {
		return Event{}, err
	}
	return rec.Event, nil
}

// handedTo returns the key of the log that r's was handed over to, or the zero
// PublicKey.
func (r *Reader) handedTo(ctx context.Context) (PublicKey, error) {
	if r.last.Size == 0 {
		return PublicKey{}, nil
	}
	e, err := r.link(ctx, r.last.Size-1, kindHandedOver)
	if err != nil || e.Kind == "" {
		return PublicKey{}, err
	}
	return ParsePublicKey(e.Attrs[linkKey])
}

// continues returns the key of the log that r's continues and the last
// checkpoint of that, or the zero PublicKey.
func (r *Reader) continues(ctx context.Context) (PublicKey, Checkpoint, error) {
	if r.last.Size == 0 {
		return PublicKey{}, Checkpoint{}, nil
	}
	e, err := r.link(ctx, 0, kindContinues)
	if err != nil || e.Kind == "" {
		return PublicKey{}, Checkpoint{}, err
	}
	key, err := ParsePublicKey(e.Attrs[linkKey])
	if err != nil {
		return PublicKey{}, Checkpoint{}, err
	}
	c, err := ParseCheckpoint(e.Attrs[linkCheckpoint], key)
	return key, c, err
}

// handedIn returns the public key in a record that hands over, or "".
func handedIn(payload []byte) string {
	if i := bytes.IndexByte(payload, ','); i < 0 || !bytes.HasPrefix(payload[i:], ownMember) {
		return ""
	}
	var r Record
	if json.Unmarshal(payload, &r) != nil || r.Event.Kind != kindHandedOver {
		return ""
	}
	return r.Event.Attrs[linkKey]
}
