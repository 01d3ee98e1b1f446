package trail

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"
)

// A joiner puts what was found in each segment together.
type joiner struct {
	v       *Verifier
	fsys    fs.FS
	parts   []part
	results []seen

	sum   Summary
	tree  frontier // so far
	known bool     // whether it is: not after segments that were left out
	all   bool     // whether none was left out
	roots map[int64]Hash
	until int64 // records before this one may have been removed
}

func (j *joiner) join(ctx context.Context) (Summary, error) {
	j.known, j.all, j.sum.First, j.sum.Key = true, true, -1, j.v.Key
	j.roots = map[int64]Hash{0: j.tree.root()}
	last := &j.results[len(j.results)-1]
	for i := range j.parts {
		if err := j.part(ctx, i); err != nil {
			if cut := j.truncated(last); cut != nil && isTorn(err) {
				err = cut
			}
			return j.sum, err
		}
	}
	if j.all && j.sum.First > j.until {
		return j.sum, &DamageError{Kind: DamageMissing, First: j.until, Last: j.sum.First - 1, File: part{first: j.until}.segmentName(), Detail: "the segment is gone, and no record says that it was removed"}
	}
	j.sum.Checkpoint = last.last
	if p := j.parts[len(j.parts)-1]; p.index {
		return j.sum, &DamageError{Kind: DamageMissing, First: last.last.Size, Last: last.last.Size, File: part{first: last.last.Size}.segmentName(), Detail: "the segment before it is complete, and it is gone"}
	}
	return j.sum, j.pinned(ctx, last)
}

// part adds part i.
func (j *joiner) part(ctx context.Context, i int) error {
	p, s := j.parts[i], &j.results[i]
	switch {
	case !p.segment && j.sum.First >= 0:
		return &DamageError{Kind: DamageMissing, First: p.first, Last: j.parts[i+1].first - 1, File: p.segmentName(), Detail: "the segment is gone"}
	case !p.segment && j.known:
		return j.retired(ctx, p)
	case !s.read:
		j.known, j.all = false, false
		return nil
	case s.err != nil:
		return s.err
	case j.known && j.tree.n < s.start.n:
		return &DamageError{Kind: DamageMissing, First: j.tree.n, Last: s.start.n - 1, File: part{first: j.tree.n}.segmentName(), Detail: "the segment is gone"}
	case j.known && !j.tree.equal(&s.start):
		return j.swapped(p, "it does not continue the tree of the segments before")
	case j.known && i > 0 && j.results[i-1].read && j.results[i-1].last.note != s.opening.note:
		return j.swapped(p, "it does not begin with the checkpoint that ends the segment before")
	}
	if j.sum.First < 0 {
		j.sum.First = p.first
		j.sum.Retired = p.first
	}
	j.tree, j.known = s.end, true
	j.sum.Records += s.end.n - p.first
	j.sum.Bytes += s.bytes
	j.sum.Segments++
	j.sum.Checkpoint = s.last
	j.until = max(j.until, s.retired)
	maps.Copy(j.roots, s.roots)
	return nil
}

func (j *joiner) swapped(p part, detail string) error {
	return &DamageError{Kind: DamageSwapped, First: p.first, Last: p.first, File: p.segmentName(), Detail: detail}
}

// retired adds a segment of which only the index is left: its hashes must be
// those of a tree that continues.
func (j *joiner) retired(ctx context.Context, p part) error {
	h := &hashes{active: newIndex(0)}
	defer h.close()
	x, err := h.open(ctx, j.fsys, p)
	if err != nil {
		return err
	}
	bad := func(detail string) error {
		return &DamageError{Kind: DamageIndex, First: p.first, Last: p.first + x.count - 1, File: p.indexName(), Detail: detail}
	}
	data := make([]byte, x.length())
	if _, err := io.ReadFull(io.NewSectionReader(x.r, 0, x.length()), data); err != nil {
		return fmt.Errorf("trail: verify: %s: %w", p.indexName(), err)
	}
	if !sumFits(data) {
		return bad("its checksum is wrong")
	}
	if x.first != j.tree.n || x.first != p.first {
		return &DamageError{Kind: DamageMissing, First: j.tree.n, Last: p.first - 1, File: part{first: j.tree.n}.indexName(), Detail: "the index of a segment is gone"}
	}
	stored := make([]Hash, 0, 64)
	rest := data[indexHeader+4*x.count:]
	for range x.count {
		j.pin()
		stored = j.tree.add(Hash(rest[:tlog.HashSize]), stored[:0])
		for i := range stored {
			if !bytes.Equal(stored[i][:], rest[:tlog.HashSize]) {
				return bad("its hashes are not those of a tree")
			}
			rest = rest[tlog.HashSize:]
		}
	}
	j.pin()
	j.sum.Bytes += x.length()
	return nil
}

// pin notes the root if the size is one that is pinned.
func (j *joiner) pin() {
	for i := range j.v.Pinned {
		if j.v.Pinned[i].Size == j.tree.n {
			j.roots[j.tree.n] = j.tree.root()
		}
	}
}

// truncated returns an error if a pinned checkpoint has more records than
// there are.
func (j *joiner) truncated(last *seen) error {
	for _, c := range bySize(j.v.Pinned) {
		if c.Size > last.last.Size {
			p := j.parts[len(j.parts)-1]
			return &DamageError{
				Kind: DamageTruncated, First: last.last.Size, Last: c.Size - 1, File: p.segmentName(), Offset: last.bytes,
				Detail: fmt.Sprintf("the log has %d records, and a checkpoint is pinned of %d", last.last.Size, c.Size),
			}
		}
	}
	return nil
}

func isTorn(err error) bool {
	d, ok := err.(*DamageError) //nolint:errorlint // as it was returned
	return ok && d.Kind == DamageTorn
}

// pinned compares the log with the pinned checkpoints.
func (j *joiner) pinned(ctx context.Context, last *seen) error {
	if err := j.truncated(last); err != nil {
		return err
	}
	from := int64(0)
	for _, c := range bySize(j.v.Pinned) {
		root, ok := j.roots[c.Size]
		if !ok {
			var err error
			if root, err = j.rootAt(ctx, c.Size, last); err != nil {
				return err
			}
		}
		if c.Origin != last.last.Origin || root != c.Root {
			return &DamageError{
				Kind: DamageRewritten, First: from, Last: c.Size - 1, File: j.parts[0].segmentName(),
				Detail: fmt.Sprintf("it does not extend the checkpoint of %d records that is pinned", c.Size),
			}
		}
		from = c.Size
	}
	if j.all {
		return nil
	}
	// What was read between segments that were not is in the tree of the last
	// checkpoint.
	for i := range j.results[:len(j.results)-1] {
		s := &j.results[i]
		if !s.read {
			continue
		}
		root, err := j.rootAt(ctx, s.last.Size, last)
		if err != nil {
			return err
		}
		if root != s.last.Root {
			return j.swapped(j.parts[i], "its tree is not the beginning of the one that the last checkpoint states")
		}
	}
	return nil
}

// rootAt returns the root that the tree of the last checkpoint had at size, by
// the hashes in the indexes, which it proves.
func (j *joiner) rootAt(ctx context.Context, size int64, last *seen) (Hash, error) {
	active := newIndex(last.start.n)
	f, err := j.fsys.Open(j.parts[len(j.parts)-1].segmentName())
	if err != nil {
		return Hash{}, fmt.Errorf("trail: verify: %w", err)
	}
	defer closeRead(f)
	w, x := indexing(f, part{first: active.first})
	if err := w.run(ctx); err != nil && !isTorn(err) {
		return Hash{}, err
	}
	h, err := openHashes(ctx, j.fsys, x)
	if err != nil {
		return Hash{}, err
	}
	defer h.close()
	root, err := tlog.TreeHash(size, h)
	if err != nil {
		return Hash{}, err
	}
	if size == 0 {
		return root, nil
	}
	proof, err := tlog.ProveTree(last.last.Size, size, h)
	if err == nil {
		err = tlog.CheckTree(proof, last.last.Size, last.last.Root, size, root)
	}
	if err != nil {
		return Hash{}, &DamageError{Kind: DamageIndex, First: 0, Last: size - 1, File: j.parts[0].indexName(), Detail: "the indexes do not prove the tree: " + err.Error()}
	}
	return root, nil
}

// ownMember is in records that the log writes about itself.
var ownMember = []byte(string(kindMember) + ownKinds)

// retiredIn returns the number of the first record that has not been removed,
// if payload is the record of a removal, and otherwise 0.
func retiredIn(payload []byte) int64 {
	if i := bytes.IndexByte(payload, ','); i < 0 || !bytes.HasPrefix(payload[i:], ownMember) {
		return 0
	}
	var r Record
	if r.UnmarshalJSON(payload) != nil || r.Event.Kind != kindRetired {
		return 0
	}
	n, err := strconv.ParseInt(r.Event.Attrs[retiredBefore], 10, 64)
	if err != nil {
		return 0
	}
	return n
}
