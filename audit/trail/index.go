package trail

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// An index is what is kept beside a segment that is complete: where its records
// are, from when, and the hashes that they added to the tree. It is derived
// from the segment, and stays when the segment is retired, so that the tree can
// still be proved. The file, all integers least significant byte first:
//
//	tag       8 bytes
//	first     8 bytes: number of the first record
//	count     8 bytes: records
//	size      8 bytes: of the segment
//	from, to  8 bytes each: times of the oldest and the newest record, Unix seconds
//	offsets   4 bytes each, of the records in the segment, in units of 1 byte
//	hashes    32 bytes each, in the order of tlog.StoredHashIndex
//	sum       8 bytes: the CRC-32C of all this
type index struct {
	first    int64
	offsets  []uint32
	size     int64
	from, to int64
	hashes   []Hash
}

const (
	indexTag    = "hsI1\x00\x00\x00\x00"
	indexHeader = 6 * 8
	indexSum    = 8
)

func newIndex(first int64) *index {
	return &index{first: first, from: math.MaxInt64, to: math.MinInt64}
}

// add adds a record at off, from the time t, that completes the hashes stored.
func (x *index) add(off int64, t int64, stored []Hash) {
	x.offsets = append(x.offsets, uint32(off))
	x.hashes = append(x.hashes, stored...)
	x.from, x.to = min(x.from, t), max(x.to, t)
}

// grow makes room for n records.
func (x *index) grow(n int64) {
	x.offsets = slices.Grow(x.offsets, int(n))
	x.hashes = slices.Grow(x.hashes, int(tlog.StoredHashCount(x.first+n)-tlog.StoredHashCount(x.first)))
}

// cut makes x the index that it was before record n was added, when from and to
// were as given.
func (x *index) cut(n, from, to int64) {
	x.offsets = x.offsets[:n-x.first]
	x.hashes = x.hashes[:tlog.StoredHashCount(n)-tlog.StoredHashCount(x.first)]
	x.from, x.to = from, to
}

func (x *index) encode() []byte {
	buf := make([]byte, 0, indexHeader+4*len(x.offsets)+tlog.HashSize*len(x.hashes)+indexSum)
	buf = append(buf, indexTag...)
	for _, n := range []int64{x.first, int64(len(x.offsets)), x.size, x.from, x.to} {
		buf = binary.LittleEndian.AppendUint64(buf, uint64(n))
	}
	for _, off := range x.offsets {
		buf = binary.LittleEndian.AppendUint32(buf, off)
	}
	for i := range x.hashes {
		buf = append(buf, x.hashes[i][:]...)
	}
	return binary.LittleEndian.AppendUint64(buf, indexSumOf(buf))
}

// An indexFile is an index in a file, of which only the header has been read.
type indexFile struct {
	r            io.ReaderAt
	memory       *index // instead of r
	first, count int64
	size         int64 // of the segment
	from, to     int64
}

// readIndex reads the header of an index file of the given length.
func readIndex(r io.ReaderAt, length int64) (*indexFile, error) {
	var b [indexHeader]byte
	if _, err := r.ReadAt(b[:], 0); err != nil {
		return nil, fmt.Errorf("its header: %w", err)
	}
	word := func(i int) int64 { return int64(binary.LittleEndian.Uint64(b[8*i:])) }
	x := &indexFile{r, nil, word(1), word(2), word(3), word(4), word(5)}
	const most = math.MaxInt64 / 4
	if string(b[:8]) != indexTag || x.first < 0 || x.count < 0 || x.first > most || x.count > most || length != x.length() {
		return nil, fmt.Errorf("%d bytes that are no index", length)
	}
	return x, nil
}

func (x *indexFile) length() int64 {
	n := tlog.StoredHashCount(x.first+x.count) - tlog.StoredHashCount(x.first)
	return indexHeader + 4*x.count + tlog.HashSize*n + indexSum
}

// offset returns where record seq is in the segment.
func (x *indexFile) offset(seq int64) (int64, error) {
	if x.memory != nil {
		return int64(x.memory.offsets[seq-x.first]), nil
	}
	var b [4]byte
	_, err := x.r.ReadAt(b[:], indexHeader+4*(seq-x.first))
	return int64(binary.LittleEndian.Uint32(b[:])), err
}

// hash returns the hash with the given number, as tlog counts them.
func (x *indexFile) hash(i int64) (h Hash, err error) {
	_, err = x.r.ReadAt(h[:], indexHeader+4*x.count+tlog.HashSize*(i-tlog.StoredHashCount(x.first)))
	return h, err
}

// timeOf returns the time of a record, in seconds.
func timeOf(e *Event) int64 { return e.Time.Unix() }

// timeIn returns the time of a record as it is written, in seconds, or 0 if it
// has none. The time follows the kind, in which nothing is quoted.
func timeIn(payload []byte) int64 {
	_, rest, _ := bytes.Cut(payload, timeMember)
	text, _, _ := bytes.Cut(rest[:min(len(rest), 40)], []byte(`"`))
	t, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil {
		return 0
	}
	return t.Unix()
}

var (
	kindMember = []byte(`,"v":1,"kind":"`)
	timeMember = []byte(`,"time":"`)
)

// A clock is timeIn for records that follow each other, of which most are of
// the same day.
type clock struct {
	day  [11]byte // such as 2026-03-01T
	unix int64    // when it began
}

func (c *clock) in(payload []byte) int64 {
	i := timeAt(payload)
	if i < 0 {
		return timeIn(payload)
	}
	text := payload[i:]
	if s, ok := timeOfDay(text); ok && c.day == [11]byte(text) {
		return c.unix + s
	}
	t := timeIn(payload)
	if s, ok := timeOfDay(text); ok {
		if day := time.Unix(t-s, 0).UTC().AppendFormat(nil, "2006-01-02T"); bytes.HasPrefix(text, day) && len(day) == len(c.day) {
			c.day, c.unix = [11]byte(day), t-s
		}
	}
	return t
}

// timeAt returns where the time begins in a record, or -1. It is where timeIn
// looks for it.
func timeAt(payload []byte) int {
	if i := bytes.IndexByte(payload, ','); i > 0 && bytes.HasPrefix(payload[i:], kindMember) {
		i += len(kindMember)
		n := bytes.IndexByte(payload[i:], '"')
		if n >= 0 && bytes.HasPrefix(payload[i+n+1:], timeMember) {
			return i + n + 1 + len(timeMember)
		}
	}
	if i := bytes.Index(payload, timeMember); i >= 0 {
		return i + len(timeMember)
	}
	return -1
}

// timeOfDay returns how many seconds of its day have passed, if text begins as
// 2026-03-01T12:00:00.123456789Z and a quote, with or without a fraction. It does
// not look at the day.
func timeOfDay(text []byte) (int64, bool) {
	const clockAt, fraction, most = len("2026-03-01T"), len("2026-03-01T12:00:00"), len("2026-03-01T12:00:00.123456789Z") + 1
	if len(text) < most || text[clockAt+2] != ':' || text[clockAt+5] != ':' {
		return 0, false
	}
	two := func(i int) int64 {
		a, b := text[clockAt+i], text[clockAt+i+1]
		if !isDigit(a) || !isDigit(b) {
			return 60
		}
		return int64(a-'0')*10 + int64(b-'0')
	}
	h, m, s := two(0), two(3), two(6)
	end := fraction
	if text[end] == '.' {
		end++
		for end < most-2 && isDigit(text[end]) {
			end++
		}
		if end == fraction+1 {
			return 0, false
		}
	}
	return h*3600 + m*60 + s, h < 24 && m < 60 && s < 60 && text[end] == 'Z' && text[end+1] == '"'
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// inMemory returns x as if it had been read, to find records by it.
func (x *index) inMemory() *indexFile {
	return &indexFile{memory: x, first: x.first, count: int64(len(x.offsets)), size: x.size, from: x.from, to: x.to}
}

// sumFits reports whether the sum at the end of an index file is right.
func sumFits(data []byte) bool {
	if len(data) < indexSum {
		return false
	}
	return binary.LittleEndian.Uint64(data[len(data)-indexSum:]) == indexSumOf(data[:len(data)-indexSum])
}

// indexSumOf returns a checksum against accidents: what else is done to an
// index shows in the tree.
func indexSumOf(data []byte) uint64 { return uint64(crc32.Checksum(data, castagnoli)) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// spans reports whether the segment may have records between the two times.
func spans(from, to int64, after, before time.Time) bool {
	return (after.IsZero() || to >= after.Unix()) && (before.IsZero() || from <= before.Unix())
}
