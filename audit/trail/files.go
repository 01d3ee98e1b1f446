package trail

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// Files of a log, in its directory.
const (
	lockName     = "lock"
	cosignedName = "cosigned" // the last checkpoint that witnesses have cosigned
	segmentExt   = ".seg"
	indexExt     = ".idx"
	tornExt      = ".torn" // what was cut off a segment
	tempExt      = ".tmp"
)

// A part is a segment, its index, or both.
type part struct {
	first   int64
	segment bool
	index   bool
}

func (p part) segmentName() string { return fmt.Sprintf("%020d%s", p.first, segmentExt) }
func (p part) indexName() string   { return fmt.Sprintf("%020d%s", p.first, indexExt) }

// listParts returns the parts of the log in fsys, in order.
func listParts(fsys fs.FS) ([]part, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, fmt.Errorf("trail: %w", err)
	}
	var parts []part
	for _, e := range entries {
		base, isSegment := strings.CutSuffix(e.Name(), segmentExt)
		base, isIndex := strings.CutSuffix(base, indexExt)
		first, err := strconv.ParseInt(base, 10, 64)
		if err != nil || first < 0 || isSegment == isIndex || len(base) != 20 {
			continue
		}
		if n := len(parts); n == 0 || parts[n-1].first != first {
			parts = append(parts, part{first: first})
		}
		p := &parts[len(parts)-1]
		p.segment = p.segment || isSegment
		p.index = p.index || isIndex
	}
	slices.SortFunc(parts, func(a, b part) int { return int(min(max(a.first-b.first, -1), 1)) })
	if len(parts) == 0 || !parts[len(parts)-1].segment {
		if len(parts) == 0 {
			return nil, fmt.Errorf("trail: no log: %w", fs.ErrNotExist)
		}
		p := parts[len(parts)-1]
		return nil, &DamageError{Kind: DamageMissing, First: p.first, Last: p.first, File: p.segmentName(), Detail: "the last segment is gone"}
	}
	return parts, nil
}

// atRandom returns f, which is of the given size, as what can be read anywhere. A
// file that cannot is kept in memory. It returns the size of what is there then.
func atRandom(f fs.File, size int64) (io.ReaderAt, int64, error) {
	if r, ok := f.(io.ReaderAt); ok {
		return r, size, nil
	}
	data, err := io.ReadAll(f)
	return bytes.NewReader(data), int64(len(data)), err
}

// writeFile writes a file that is there entirely or not at all.
func writeFile(dir, name string, data []byte) (err error) {
	name = filepath.Join(dir, name)
	f, err := os.OpenFile(name+tempExt, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(name+tempExt, name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(name+tempExt))
	}
	return syncDir(dir)
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // directories cannot be synced there, and need not be
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
