package access

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
)

// A decoding is what a part of a text stands for.
type decoding struct {
	text       []byte
	start, end int // of the part
}

// What is shorter holds no credential.
const (
	minBase64 = 16
	minHex    = 24
)

// decodings returns what parts of text stand for, and what parts of that do,
// to the given depth.
func decodings(text []byte, depth int) []decoding {
	if depth == 0 {
		return nil
	}
	var all []decoding
	add := func(decoded []byte, start, end int) {
		if !printable(decoded) {
			return
		}
		all = append(all, decoding{decoded, start, end})
		for _, d := range decodings(decoded, depth-1) {
			all = append(all, decoding{d.text, start, end})
		}
	}
	for start, end := range runs(text, isBase64, minBase64) {
		run := text[start:end]
		// What came before may belong to the alphabet too: a slash of a path.
		for skip := range 4 {
			add(unbase64(run[skip:]), start+skip, end)
		}
	}
	for start, end := range runs(text, isHex, minHex) {
		for skip := range 2 {
			part := text[start+skip : end]
			decoded := make([]byte, len(part)/2)
			n, _ := hex.Decode(decoded, part[:len(part)/2*2])
			add(decoded[:n], start+skip, end)
		}
	}
	for start, end := range lines(text) {
		line := text[start:end]
		if bytes.IndexByte(line, '%') >= 0 || bytes.Contains(line, []byte(`\u00`)) || bytes.Contains(line, []byte(`\x`)) {
			if u := unescape(line); len(u) != len(line) {
				add(u, start, end)
			}
		}
	}
	if bytes.Contains(text, []byte("k\x00_\x00")) || bytes.Contains(text, []byte("h\x00s\x00g\x00_\x00")) {
		add(bytes.ReplaceAll(text, []byte{0}, nil), 0, len(text))
	}
	return all
}

// printable reports whether decoded text may hold a credential: a stretch of it
// is of printable ASCII.
func printable(text []byte) bool {
	n := 0
	for _, c := range text {
		if c < 0x20 || c > 0x7e {
			n = 0
		} else if n++; n >= minKey {
			return true
		}
	}
	return false
}

func isBase64(c byte) bool { return isWord(c) || c == '+' || c == '/' || c == '-' }

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }

func runs(text []byte, in func(byte) bool, least int) func(func(int, int) bool) {
	return func(yield func(int, int) bool) {
		start := -1
		for i := 0; i <= len(text); i++ {
			if i < len(text) && in(text[i]) {
				if start < 0 {
					start = i
				}
				continue
			}
			if start >= 0 && i-start >= least && !yield(start, i) {
				return
			}
			start = -1
		}
	}
}

func lines(text []byte) func(func(int, int) bool) {
	return func(yield func(int, int) bool) {
		for start := 0; start < len(text); {
			end := len(text)
			if i := bytes.IndexByte(text[start:], '\n'); i >= 0 {
				end = start + i
			}
			if !yield(start, end) {
				return
			}
			start = end + 1
		}
	}
}

// unbase64 decodes as much as can be, in either alphabet.
func unbase64(run []byte) []byte {
	run = run[:len(run)/4*4+map[int]int{0: 0, 1: 0, 2: 2, 3: 3}[len(run)%4]]
	enc := base64.RawStdEncoding
	if bytes.ContainsAny(run, "-_") {
		run = bytes.Map(func(r rune) rune {
			switch r {
			case '-':
				return '+'
			case '_':
				return '/'
			}
			return r
		}, run)
	}
	out := make([]byte, enc.DecodedLen(len(run)))
	n, _ := enc.Decode(out, run)
	return out[:n]
}

// unescape undoes %41, \x41 and \u0041.
func unescape(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		skip, digits := 0, 0
		switch {
		case text[i] == '%':
			skip, digits = 1, 2
		case text[i] == '\\' && i+1 < len(text) && text[i+1] == 'x':
			skip, digits = 2, 2
		case text[i] == '\\' && i+1 < len(text) && text[i+1] == 'u':
			skip, digits = 2, 4
		}
		if skip > 0 && i+skip+digits <= len(text) {
			var b [2]byte
			if n, err := hex.Decode(b[:], text[i+skip:i+skip+digits]); err == nil && (n == 1 || b[0] == 0) {
				out = append(out, b[n-1])
				i += skip + digits - 1
				continue
			}
		}
		out = append(out, text[i])
	}
	return out
}
