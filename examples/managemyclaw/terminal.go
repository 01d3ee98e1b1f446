package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/managemyclaw/hardshell/audit/report"
	"github.com/managemyclaw/hardshell/harden"
)

// terminalWidth returns the width for text written to w, and whether w is a
// terminal.
func terminalWidth(w io.Writer) (int, bool) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return report.DefaultWidth, false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 {
		return report.DefaultWidth, true
	}
	return width, true
}

// printable keeps what a container is named from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) || r == '\n' {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// wrap writes a paragraph that begins with prefix, in lines as long as fit. A
// word that fits in no line is broken.
func wrap(w io.Writer, width int, prefix, text string) {
	indent := strings.Repeat(" ", len(prefix)-len(strings.TrimLeft(prefix, " "))+2)
	line := prefix
	used := utf8.RuneCountInString(prefix)
	var words []string
	for word := range strings.FieldsSeq(printable(text)) {
		for part := range slices.Chunk([]rune(word), max(1, width-max(used, len(indent)))) {
			words = append(words, string(part))
		}
	}
	for i, word := range words {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case used+1+n > width:
			fmt.Fprintln(w, line)
			line, used = indent, len(indent)
		default:
			line, used = line+" ", used+1
		}
		line, used = line+word, used+n
	}
	fmt.Fprintln(w, line)
}

// progress shows on a terminal how far an audit is, in a line that it takes
// away again.
type progress struct {
	w           io.Writer // nil if it is not a terminal
	count, want int
}

const clearLine = "\r\x1b[K"

func newProgress(w io.Writer, want int) *progress {
	p := &progress{want: want}
	if _, terminal := terminalWidth(w); terminal {
		p.w = w
	}
	return p
}

func (p *progress) done(r harden.Result) {
	p.count++
	if p.w != nil {
		fmt.Fprintf(p.w, clearLine+"%d/%d %s", p.count, p.want, r.Info.ID)
	}
}

func (p *progress) clear() {
	if p.w != nil {
		fmt.Fprint(p.w, clearLine)
	}
}
