package killswitch

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// Bounds of text that comes from elsewhere, in bytes.
const (
	maxReason = 1024
	maxDetail = 512
	maxName   = 128
)

// maxObjects is how many objects of a target are kept.
const maxObjects = 10_000

var redactor trail.Redactor // the zero one, which may be used concurrently

// foreign makes text from elsewhere fit to be kept: without what looks like a
// secret, printable and bounded.
func foreign(s string, most int) string {
	if len(s) > 16*most { // what is looked through for secrets is bounded too
		s = s[:16*most]
	}
	return bounded(redactor.Text(s), most)
}

// bounded returns s as one line of printable text of at most so many bytes.
func bounded(s string, most int) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case r == utf8.RuneError, !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, s))
	if len(s) <= most {
		return s
	}
	const more = "…"
	cut := most - len(more)
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + more
}

// isAgent reports whether name can be that of an agent: one to 128 letters,
// digits, dots, dashes and underscores, of which the first is a letter or a
// digit. So it is the name of a file, and of a container.
func isAgent(name string) bool {
	if name == "" || len(name) > maxName {
		return false
	}
	for i, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '.' || c == '-' || c == '_'):
		default:
			return false
		}
	}
	return true
}

// isDotted reports whether name is lower-case words of letters, digits, dashes
// and underscores, joined by dots.
func isDotted(name string) bool {
	if len(name) > maxName {
		return false
	}
	for word := range strings.SplitSeq(name, ".") {
		if word == "" || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
			return false
		}
	}
	return true
}
