package trail

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"sort"

	"golang.org/x/mod/sumdb/tlog"
)

// hashes reads the hashes of a tree from the indexes of its segments.
type hashes struct {
	files  []*indexFile
	active *index // of the segments that have no file, at the end
	opened []fs.File
}

// openHashes opens the indexes of all segments before active.
func openHashes(ctx context.Context, fsys fs.FS, active *index) (_ *hashes, err error) {
	parts, err := listParts(fsys)
	if err != nil {
		return nil, err
	}
	h := &hashes{active: active}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	for _, p := range parts {
		if p.first >= active.first {
			break
		}
		x, err := h.open(ctx, fsys, p)
		if err != nil {
			return nil, err
		}
		if x.first != p.first || len(h.files) > 0 && h.end() != x.first {
			return nil, &DamageError{Kind: DamageIndex, First: p.first, Last: p.first - 1, File: p.indexName(), Detail: "it does not continue the one before"}
		}
		h.files = append(h.files, x)
	}
	if h.end() != active.first {
		return nil, &DamageError{Kind: DamageMissing, First: h.end(), Last: active.first - 1, File: part{first: h.end()}.segmentName(), Detail: "the segment is gone, or its index"}
	}
	return h, nil
}

// open opens one index.
func (h *hashes) open(ctx context.Context, fsys fs.FS, p part) (*indexFile, error) {
	if !p.index {
		return remake(ctx, fsys, p)
	}
	f, err := fsys.Open(p.indexName())
	if err != nil {
		return nil, fmt.Errorf("trail: %w", err)
	}
	h.opened = append(h.opened, f)
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("trail: %w", err)
	}
	r, size, err := atRandom(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("trail: %w: %s", err, p.indexName())
	}
	x, err := readIndex(r, size)
	if err != nil {
		return nil, &DamageError{Kind: DamageIndex, First: p.first, Last: p.first - 1, File: p.indexName(), Detail: err.Error()}
	}
	return x, nil
}

// remake makes the index of a segment of which the log has not written it yet.
func remake(ctx context.Context, fsys fs.FS, p part) (*indexFile, error) {
	f, err := fsys.Open(p.segmentName())
	if err != nil {
		return nil, fmt.Errorf("trail: %w", err)
	}
	defer closeRead(f)
	w, x := indexing(f, p)
	if err := w.run(ctx); err != nil {
		return nil, err
	}
	x.size = w.sealed
	data := x.encode()
	return readIndex(bytes.NewReader(data), int64(len(data)))
}

// end returns the number of the record after the last in a file.
func (h *hashes) end() int64 {
	if len(h.files) == 0 {
		return 0
	}
	x := h.files[len(h.files)-1]
	return x.first + x.count
}

// ReadHashes implements [tlog.HashReader].
func (h *hashes) ReadHashes(numbers []int64) ([]Hash, error) {
	list := make([]Hash, len(numbers))
	for i, n := range numbers {
		if base := tlog.StoredHashCount(h.active.first); n >= base {
			if n-base >= int64(len(h.active.hashes)) {
				return nil, fmt.Errorf("trail: the tree has no hash %d", n)
			}
			list[i] = h.active.hashes[n-base]
			continue
		}
		at := sort.Search(len(h.files), func(i int) bool { return tlog.StoredHashCount(h.files[i].first+h.files[i].count) > n })
		var err error
		if list[i], err = h.files[at].hash(n); err != nil {
			return nil, fmt.Errorf("trail: %s: %w", part{first: h.files[at].first}.indexName(), err)
		}
	}
	return list, nil
}

// closeRead closes a file that was only read.
func closeRead(f fs.File) { _ = f.Close() }

func (h *hashes) close() {
	for _, f := range h.opened {
		closeRead(f)
	}
}
