package report

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxMarks is how many combining marks in a row are shown as they are. More
// would pile up over the lines above and below.
const maxMarks = 4

// clean makes foreign text fit for one line of a terminal. White space becomes
// single spaces; whatever is not printed as itself, such as a control
// character, an escape sequence, a change of the direction of writing, an
// invisible character or a byte that is not UTF-8, becomes visible as an escape
// of Go. limit is how many characters it may have; zero means any number.
func clean(s string, limit int) string {
	var b strings.Builder
	marks, chars := 0, 0
	space := false
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		raw := s[i : i+size]
		i += size
		if unicode.IsSpace(r) {
			space = b.Len() > 0
			continue
		}
		if limit > 0 && chars >= limit {
			b.WriteString("…")
			break
		}
		if space {
			b.WriteByte(' ')
			space = false
			chars++
		}
		before := b.Len()
		if unicode.In(r, unicode.Mn, unicode.Me) {
			marks++
		} else {
			marks = 0
		}
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, raw[0])
		case unicode.IsPrint(r) && marks <= maxMarks && !invisible(r):
			b.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		chars += utf8.RuneCountInString(b.String()[before:])
	}
	return b.String()
}

// invisible reports letters and symbols that Unicode counts as printable and
// that show nothing: the fillers of Hangul, and the empty Braille pattern.
func invisible(r rune) bool {
	switch r {
	case '\u115f', '\u1160', '\u3164', '\uffa0', '\u2800':
		return true
	}
	return false
}

// cells returns how many columns a terminal takes for s, which is clean.
func cells(s string) int {
	n := 0
	for _, r := range s {
		n += runeCells(r)
	}
	return n
}

func runeCells(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case isWide(r):
		return 2
	}
	return 1
}

// isWide is the East Asian Width of Unicode (UAX #11) in coarse blocks. Where
// it errs it takes a narrow character for a wide one, and a line is shorter.
func isWide(r rune) bool {
	return r >= 0x1100 && r <= 0x11ff ||
		r >= 0x2e80 && r <= 0xa4cf ||
		r >= 0xa960 && r <= 0xa97f ||
		r >= 0xac00 && r <= 0xd7ff ||
		r >= 0xf900 && r <= 0xfaff ||
		r >= 0xfe30 && r <= 0xfe6f ||
		r >= 0xff00 && r <= 0xff60 ||
		r >= 0xffe0 && r <= 0xffe6 ||
		r >= 0x16fe0 && r <= 0x18dff ||
		r >= 0x1aff0 && r <= 0x1b2ff ||
		r >= 0x1f000 && r <= 0x1faff ||
		r >= 0x20000 && r <= 0x3fffd ||
		r >= 0x2300 && r <= 0x23ff || r >= 0x25a0 && r <= 0x27bf || r >= 0x2b00 && r <= 0x2bff
}

// wrap breaks text, which is clean, into lines of at most width columns: at
// spaces, or within a word that is longer than a line.
func wrap(text string, width int) []string {
	var lines []string
	var line strings.Builder
	used := 0
	flush := func() {
		lines = append(lines, line.String())
		line.Reset()
		used = 0
	}
	for word := range strings.FieldsSeq(text) {
		n := cells(word)
		if used > 0 && used+1+n > width {
			flush()
		}
		if used > 0 {
			line.WriteByte(' ')
			used++
		}
		for _, r := range word {
			c := runeCells(r)
			if used+c > width && used > 0 {
				flush()
			}
			line.WriteRune(r)
			used += c
		}
	}
	if used > 0 || len(lines) == 0 {
		flush()
	}
	return lines
}
