package trail

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// VerifyChain verifies logs of which each continues the one before, oldest
// first, and that they do: see [Log.HandOver]. The key of v may be that of any of
// them, and tells the keys of the others, which the summaries name. Those after
// it are trusted because it handed over to them; those before it because they
// are as they were when it took over, so that whoever has stolen their keys can
// change nothing in them. Who has only an old key needs a pinned checkpoint too: a
// thief of that key can make another chain. A pinned checkpoint is compared with
// the log of its name.
//
// It is damage if the last log was handed over to one that is not given, and if
// one before the last is not. Live is for the last log only.
func (v *Verifier) VerifyChain(ctx context.Context, logs ...fs.FS) ([]Summary, error) {
	if v.Key.IsZero() || v.Key.IsWitness() {
		return nil, fmt.Errorf("%w: verify: without the public key of a log", ErrKey)
	}
	c := chain{v: v, logs: logs, keys: make([]PublicKey, len(logs)), readers: make([]*Reader, len(logs)), pins: make([][]Checkpoint, len(logs))}
	if err := c.follow(ctx); err != nil {
		return nil, err
	}
	sums := make([]Summary, len(logs))
	for i := range logs {
		one := Verifier{Key: c.keys[i], Live: v.Live && i == len(logs)-1, Workers: v.Workers, chunk: v.chunk, Pinned: c.pins[i]}
		for _, p := range v.Pinned {
			if p.Origin == c.keys[i].Name() {
				one.Pinned = append(one.Pinned, p)
			}
		}
		// What led to the other keys must be in what is verified.
		one.Pinned = append(one.Pinned, c.readers[i].last)
		var err error
		if sums[i], err = one.Verify(ctx, logs[i]); err != nil {
			return sums, fmt.Errorf("trail: %s: %w", c.keys[i].Name(), err)
		}
	}
	for _, p := range v.Pinned {
		if !c.has(p.Origin) {
			return sums, fmt.Errorf("%w: a checkpoint of %q is pinned, and none of the logs has that name", ErrCheckpoint, p.Origin)
		}
	}
	return sums, c.linked(ctx, sums)
}

// A chain is logs and what is known of them.
type chain struct {
	v       *Verifier
	logs    []fs.FS
	keys    []PublicKey
	readers []*Reader
	pins    [][]Checkpoint // by the log that continues
}

// follow finds the key of each log, from the one of which it is known.
func (c *chain) follow(ctx context.Context) error {
	at := -1
	for i, fsys := range c.logs {
		name, err := nameOf(fsys)
		if err != nil {
			return fmt.Errorf("trail: log %d: %w", i, err)
		}
		if name == c.v.Key.Name() && at < 0 {
			at = i
		}
	}
	if at < 0 {
		return fmt.Errorf("%w: verify: none of the logs is %s", ErrKey, c.v.Key.Name())
	}
	c.keys[at] = c.v.Key
	if err := c.open(ctx, at); err != nil {
		return err
	}
	for i := at; i < len(c.logs); i++ {
		to, err := c.readers[i].handedTo(ctx)
		last := i == len(c.logs)-1
		switch size := c.readers[i].last.Size; {
		case err != nil:
			return c.name(i, err)
		case last && !to.IsZero():
			return c.damage(i, DamageTruncated, size, size, "it was handed over to "+to.Name()+", which is not there")
		case last:
			continue
		case to.IsZero():
			return c.damage(i, DamageTruncated, size, size, "it ends without handing over to the next")
		}
		c.keys[i+1] = to
		if err := c.open(ctx, i+1); err != nil {
			return err
		}
	}
	for i := at; i > 0; i-- {
		from, _, err := c.readers[i].continues(ctx)
		if err != nil || from.IsZero() {
			return c.name(i, errors.Join(c.damage(i, DamageSwapped, 0, 0, "it does not say which log it continues"), err))
		}
		c.keys[i-1] = from
		if err := c.open(ctx, i-1); err != nil {
			return err
		}
	}
	for i := 1; i < len(c.logs); i++ {
		from, last, err := c.readers[i].continues(ctx)
		if err != nil {
			return c.name(i, err)
		}
		if from != c.keys[i-1] {
			return c.damage(i, DamageSwapped, 0, 0, "it does not continue "+c.keys[i-1].Name())
		}
		c.pins[i-1] = []Checkpoint{last}
	}
	return nil
}

// linked looks whether each log ended where the next took over.
func (c *chain) linked(ctx context.Context, sums []Summary) error {
	for i := range c.logs[:len(c.logs)-1] {
		took := c.pins[i][0]
		if end := sums[i].Checkpoint; end.Size != took.Size || end.Root != took.Root {
			return c.damage(i, DamageRewritten, took.Size, end.Size-1, fmt.Sprintf("it had %d records when %s took over, and was written to since", took.Size, c.keys[i+1].Name()))
		}
		to, err := c.readers[i].handedTo(ctx)
		if err != nil {
			return c.name(i, err)
		}
		if !to.IsZero() && to != c.keys[i+1] {
			return c.damage(i, DamageSwapped, took.Size-1, took.Size-1, "it was handed over to another key")
		}
	}
	return nil
}

func (c *chain) open(ctx context.Context, i int) (err error) {
	if c.readers[i], err = OpenReader(ctx, c.logs[i], c.keys[i]); err != nil {
		return c.name(i, err)
	}
	return nil
}

func (c *chain) has(name string) bool {
	for _, k := range c.keys {
		if k.Name() == name {
			return true
		}
	}
	return false
}

func (c *chain) name(i int, err error) error {
	return fmt.Errorf("trail: %s: %w", c.keys[i].Name(), err)
}

func (c *chain) damage(i int, kind Damage, first, last int64, detail string) error {
	return c.name(i, &DamageError{Kind: kind, First: first, Last: last, File: c.readers[i].partOf(first).segmentName(), Detail: detail})
}

// nameOf returns the name that a log gives itself.
func nameOf(fsys fs.FS) (string, error) {
	parts, err := listParts(fsys)
	if err != nil {
		return "", err
	}
	p := parts[len(parts)-1]
	f, err := fsys.Open(p.segmentName())
	if err != nil {
		return "", err
	}
	defer closeRead(f)
	w := newWalker(f, p.segmentName(), p.first)
	if err := w.begin(); err != nil {
		return "", err
	}
	return w.opening.Origin, nil
}
