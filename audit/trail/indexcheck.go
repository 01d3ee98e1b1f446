package trail

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"math"

	"golang.org/x/mod/sumdb/tlog"
)

// An indexCheck compares the index of a segment with the segment, while that is
// read, and keeps neither in memory.
type indexCheck struct {
	none            bool // there is no index to compare with
	file            *indexFile
	offsets, hashes frames
	opened          []fs.File
	from, to        int64
}

var errIndex = errors.New("trail: it is not the index of the segment")

// openIndexCheck opens the index of p, and looks whether its checksum is right.
func openIndexCheck(fsys fs.FS, p part) (_ *indexCheck, err error) {
	if !p.index {
		return &indexCheck{none: true}, nil
	}
	x := &indexCheck{from: math.MaxInt64, to: math.MinInt64}
	defer func() {
		if err != nil {
			x.close()
		}
	}()
	all, err := x.at(fsys, p, 0)
	if err != nil {
		return nil, err
	}
	head, length, err := sumIndex(all)
	if err != nil {
		return nil, err
	}
	if x.file, err = readIndex(bytes.NewReader(head), length); err != nil || x.file.first != p.first {
		return nil, errors.Join(errIndex, err)
	}
	if x.offsets.r, err = x.at(fsys, p, indexHeader); err != nil {
		return nil, err
	}
	x.hashes.r, err = x.at(fsys, p, indexHeader+4*x.file.count)
	return x, err
}

// sumIndex reads an index, looks whether its checksum is right, and returns its
// header and its length.
func sumIndex(r io.Reader) (head []byte, length int64, err error) {
	const step = 1 << 16
	f := frames{r: r}
	for sum := uint32(0); ; {
		if err := f.fill(step); err != nil {
			return nil, 0, err
		}
		data := f.buf[f.at:f.limit]
		if head == nil {
			head = bytes.Clone(data[:min(len(data), indexHeader)])
		}
		if len(data) < indexSum {
			return nil, 0, errIndex
		}
		end := len(data) - indexSum // which may be where the sum begins
		sum = crc32.Update(sum, castagnoli, data[:end])
		f.skip(end)
		if len(data) < step {
			if binary.LittleEndian.Uint64(data[end:]) != uint64(sum) {
				return nil, 0, errIndex
			}
			return head, f.off + indexSum, nil
		}
	}
}

// at opens the index anew and reads it from off on.
func (x *indexCheck) at(fsys fs.FS, p part, off int64) (io.Reader, error) {
	f, err := fsys.Open(p.indexName())
	if err != nil {
		return nil, err
	}
	x.opened = append(x.opened, f)
	if r, ok := f.(io.ReaderAt); ok {
		return io.NewSectionReader(r, off, math.MaxInt64-off), nil
	}
	_, err = io.CopyN(io.Discard, f, off)
	return f, err
}

// record reports whether the index says of the next record that it is at off,
// and completes the hashes stored.
func (x *indexCheck) record(off, t int64, stored []Hash) bool {
	if x.none {
		return true
	}
	x.from, x.to = min(x.from, t), max(x.to, t)
	b := x.offsets.some(4)
	if b == nil || int64(binary.LittleEndian.Uint32(b)) != off {
		return false
	}
	for i := range stored {
		if b := x.hashes.some(tlog.HashSize); b == nil || stored[i] != Hash(b) {
			return false
		}
	}
	return true
}

// ends reports whether the index says that the segment has records before n,
// and how many bytes, and from when they are.
func (x *indexCheck) ends(n, size int64) bool {
	return x.none || x.file.first+x.file.count == n && x.file.size == size && x.file.from == x.from && x.file.to == x.to
}

func (x *indexCheck) close() {
	for _, f := range x.opened {
		closeRead(f)
	}
}

// some returns the next n bytes, or nil if they are not there.
func (f *frames) some(n int) []byte {
	if f.limit-f.at < n {
		if f.buf == nil {
			f.buf = make([]byte, 16<<10)
		}
		if f.fill(n) != nil || f.limit-f.at < n {
			return nil
		}
	}
	f.skip(n)
	return f.buf[f.at-n : f.at]
}
