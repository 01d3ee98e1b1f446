package trail

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"strconv"
	"strings"
)

// A segment is a file of frames:
//
//	tag     4 bytes: what the frame holds, and the version of the format
//	length  4 bytes, least significant first: of the payload
//	sum     7 bytes: the first of the hash
//	0       1 byte
//	payload
//
// The hash is the SHA-256 of the last byte of the header and the payload, so
// that the hash of a record's frame is its hash in the tree: RFC 6962, section
// 2.1. The first frame says where the segment begins; the second is a copy of
// the checkpoint that ended the segment before, or the checkpoint of the empty
// log. Then follow records and checkpoints. What follows the last checkpoint
// has not been acknowledged to anybody.
const (
	tagSegment    = "hsS1"
	tagCheckpoint = "hsC1"
	tagRecord     = "hsR1"

	headerBytes = 16
	sumBytes    = 7
)

// MaxRecord is the size of the largest record, in bytes of JSON.
const MaxRecord = 1 << 20

// appendFrame appends a frame to buf and returns the hash.
func appendFrame(buf []byte, tag string, payload ...[]byte) ([]byte, Hash) {
	at := len(buf)
	buf = append(buf, tag...)
	buf = append(buf, make([]byte, headerBytes-len(tag))...)
	for _, p := range payload {
		buf = append(buf, p...)
	}
	h := Hash(sha256.Sum256(buf[at+headerBytes-1:]))
	binary.LittleEndian.PutUint32(buf[at+4:], uint32(len(buf)-at-headerBytes))
	copy(buf[at+8:], h[:sumBytes])
	return buf, h
}

// A frame is one that was read. Its payload is valid until the next.
type frame struct {
	tag     string // one of the above
	off     int64
	hash    Hash // of what is there
	payload []byte
	sum     bool // whether the hash is the one that the header says
}

func (f *frame) end() int64 { return f.off + headerBytes + int64(len(f.payload)) }

// errTorn reports that a file ends within a frame, errNoFrame that what is
// there is none.
var (
	errTorn    = errors.New("the file ends within it")
	errNoFrame = errors.New("no record begins here")
)

// frames reads the frames of a file from off on. It needs memory for the
// largest frame, and not for the file.
type frames struct {
	r         io.Reader
	off       int64 // of buf[at] in the file
	buf       []byte
	at, limit int // what of buf has not been consumed
}

// fill makes n bytes available, or fewer if the file ends.
func (f *frames) fill(n int) error {
	if f.limit-f.at >= n {
		return nil
	}
	if f.at > 0 && f.at+n > len(f.buf) {
		f.limit = copy(f.buf, f.buf[f.at:f.limit])
		f.at = 0
	}
	if n > len(f.buf) {
		f.buf = append(f.buf, make([]byte, max(n, 1<<16)-len(f.buf))...)
	}
	for f.limit-f.at < n {
		m, err := f.r.Read(f.buf[f.limit:])
		f.limit += m
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("trail: read: %w", err)
		}
	}
	return nil
}

// next returns the next frame, io.EOF after the last, errTorn or errNoFrame. At
// an error it stays where it is.
func (f *frames) next() (frame, error) {
	if err := f.fill(headerBytes); err != nil {
		return frame{}, err
	}
	head := f.buf[f.at:min(f.limit, f.at+headerBytes)]
	if len(head) == 0 {
		return frame{}, io.EOF
	}
	fr := frame{off: f.off, tag: tagOf(head)}
	if fr.tag == "" {
		return fr, errNoFrame
	}
	if len(head) < headerBytes {
		return fr, errTorn
	}
	n := int64(binary.LittleEndian.Uint32(head[4:]))
	if n > MaxRecord || head[headerBytes-1] != 0 {
		return fr, errNoFrame
	}
	if err := f.fill(headerBytes + int(n)); err != nil {
		return fr, err
	}
	all := f.buf[f.at:min(f.limit, f.at+headerBytes+int(n))]
	fr.payload = all[headerBytes:]
	if len(all) < headerBytes+int(n) {
		return fr, errTorn
	}
	fr.hash = sha256.Sum256(all[headerBytes-1:])
	fr.sum = bytes.Equal(fr.hash[:sumBytes], all[8:8+sumBytes])
	f.at += len(all)
	f.off += int64(len(all))
	return fr, nil
}

// tagOf returns the tag that head begins with, or may begin with if it is cut
// short.
func tagOf(head []byte) string {
	for _, tag := range []string{tagRecord, tagCheckpoint, tagSegment} {
		if strings.HasPrefix(tag, string(head[:min(len(head), len(tag))])) {
			return tag
		}
	}
	return ""
}

const segmentTitle = "hardshell trail segment\n"

// appendStart appends the first two frames of the segment that continues tree,
// whose checkpoint is c.
func appendStart(buf []byte, tree *frontier, c Checkpoint) []byte {
	text := fmt.Appendf(nil, "%s%d\n", segmentTitle, tree.n)
	for level := range tree.peaks {
		if tree.n>>level&1 == 1 {
			text = fmt.Appendf(text, "%s\n", tree.peaks[level])
		}
	}
	buf, _ = appendFrame(buf, tagSegment, text)
	buf, _ = appendFrame(buf, tagCheckpoint, []byte(c.note))
	return buf
}

// parseStart reads what the first frame of a segment says of the tree before.
func parseStart(payload []byte) (frontier, error) {
	text, ok := strings.CutPrefix(string(payload), segmentTitle)
	if !ok || !strings.HasSuffix(text, "\n") {
		return frontier{}, errors.New("it is not the start of a segment")
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	n, err := strconv.ParseInt(lines[0], 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != lines[0] || len(lines)-1 != bits.OnesCount64(uint64(n)) {
		return frontier{}, fmt.Errorf("the start of a segment says %q", lines[0])
	}
	t := frontier{n: n}
	for level, i := 0, 1; i < len(lines); level++ {
		if n>>level&1 == 1 {
			if t.peaks[level], err = parseHash(lines[i]); err != nil {
				return frontier{}, err
			}
			i++
		}
	}
	return t, nil
}

// recordPrefix is how record number seq begins.
func recordPrefix(buf []byte, seq int64) []byte {
	buf = append(buf, `{"seq":`...)
	buf = strconv.AppendInt(buf, seq, 10)
	return append(buf, ',')
}

// seqOf returns the number that a record gives itself.
func seqOf(payload []byte) (int64, bool) {
	rest, ok := bytes.CutPrefix(payload, []byte(`{"seq":`))
	if !ok {
		return 0, false
	}
	digits, _, ok := bytes.Cut(rest[:min(len(rest), 20)], []byte(","))
	n, err := strconv.ParseInt(string(digits), 10, 64)
	return n, ok && err == nil && n >= 0
}
