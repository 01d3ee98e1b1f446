package trail

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// A Retention says which records a log keeps. Whole segments are removed, of
// which all records may go; the one that is written to stays. The zero
// Retention keeps everything.
type Retention struct {
	// Age is how long records are kept, by their time. Zero means for ever.
	Age time.Duration

	// Bytes is how much the segments may take, without their indexes, which
	// stay: about 68 bytes for each record. Zero means any amount.
	Bytes int64
}

const retiredBefore = "before"

// Retire removes the records that r no longer keeps, and returns how many. It
// first records that it will: that record is what tells retention from
// tampering. The hashes of the records stay, so that the tree can be proved, and
// so can a record that was exported before.
func (l *Log) Retire(ctx context.Context, r Retention) (int64, error) {
	l.retire.Lock()
	defer l.retire.Unlock()
	parts, err := listParts(os.DirFS(l.store.dir))
	if err != nil {
		return 0, err
	}
	var old []part
	for i, p := range parts {
		if p.segment {
			if old, err = r.expired(l.store.dir, parts[i:]); err != nil {
				return 0, fmt.Errorf("trail: retire: %w", err)
			}
			break
		}
	}
	if len(old) == 0 {
		return 0, nil
	}
	from := old[0].first
	before := parts[len(parts)-1].first
	for _, p := range parts {
		if p.first > old[len(old)-1].first {
			before = p.first
			break
		}
	}
	if _, err := l.append(ctx, Event{
		Kind: kindRetired, Actor: "hardshell", Outcome: OutcomeBegin,
		Message: fmt.Sprintf("records %d to %d are removed, as retention asks", from, before-1),
		Attrs:   map[string]string{"from": strconv.FormatInt(from, 10), retiredBefore: strconv.FormatInt(before, 10)},
	}); err != nil {
		return 0, err
	}
	for _, p := range old {
		if rerr := os.Remove(filepath.Join(l.store.dir, p.segmentName())); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	if err = errors.Join(err, syncDir(l.store.dir)); err != nil {
		return 0, fmt.Errorf("trail: retire: %w", err)
	}
	return before - from, nil
}

// expired returns those of parts, from the first on, that r does not keep.
func (r Retention) expired(dir string, parts []part) ([]part, error) {
	var total int64
	for _, p := range parts {
		info, err := os.Stat(filepath.Join(dir, p.segmentName()))
		if err != nil {
			return nil, err
		}
		total += info.Size()
	}
	var old []part
	for _, p := range parts[:len(parts)-1] {
		if !p.index {
			break // not quite complete
		}
		x, err := readHeader(dir, p)
		if err != nil {
			return nil, err
		}
		if !(r.Bytes > 0 && total > r.Bytes) && !(r.Age > 0 && x.to < time.Now().Add(-r.Age).Unix()) {
			break
		}
		old = append(old, p)
		total -= x.size
	}
	return old, nil
}

func readHeader(dir string, p part) (*indexFile, error) {
	f, err := os.Open(filepath.Join(dir, p.indexName()))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return readIndex(f, info.Size())
}
