// Package report writes audit reports.
//
// The encoders [Text], [JSON], [SARIF] and [JUnit] are functions of one type,
//
//	func(w io.Writer, r *audit.Report) error
//
// They are pure: the same report gives the same bytes. They write nothing
// unless the whole report can be encoded, write it with one call, and return
// the error of the writer. The error of an encoder that got an invalid value,
// such as a status that is none, comes before anything is written. They may be
// called concurrently; the report must not change meanwhile.
//
// All of them keep the three answers apart: what fails, what holds, and what
// could not be determined. No encoder shows the last as skipped or passed.
//
// What a report says of a machine, such as the name of a container, may have
// been chosen by an attacker. Each encoder makes it harmless for its format: no
// control character, escape sequence or change of the direction of writing is
// written as itself, and no link or placeholder gets into a SARIF message.
package report

import (
	"bytes"
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/harden"
)

// flush writes all of b to w.
func flush(w io.Writer, format string, b *bytes.Buffer) error {
	n, err := w.Write(b.Bytes())
	if err == nil && n < b.Len() {
		err = io.ErrShortWrite
	}
	if err != nil {
		return fmt.Errorf("report: write %s: %w", format, err)
	}
	return nil
}

// ascii returns b with each character that is not printed as itself, such as a
// C1 control or a change of the direction of writing, in the form that escape
// gives it: the same text to who decodes b, and harmless to who looks at it.
func ascii(b *bytes.Buffer, escape func(rune) string) *bytes.Buffer {
	var out bytes.Buffer
	out.Grow(b.Len())
	for s := b.Bytes(); len(s) > 0; {
		r, size := utf8.DecodeRune(s)
		if r < 0x7f || unicode.IsPrint(r) {
			out.Write(s[:size])
		} else {
			out.WriteString(escape(r))
		}
		s = s[size:]
	}
	return &out
}

// jsonEscape is the escape of RFC 8259, section 7. The structure of a document
// is in ASCII, so that what is escaped is within a string.
func jsonEscape(r rune) string {
	if r > 0xffff {
		high, low := utf16.EncodeRune(r)
		return fmt.Sprintf(`\u%04x\u%04x`, high, low)
	}
	return fmt.Sprintf(`\u%04x`, r)
}

// xmlEscape is the character reference of XML 1.0, section 4.1.
func xmlEscape(r rune) string { return fmt.Sprintf("&#x%x;", r) }

// severityOf returns the severity of a finding, or of its check if it states
// none.
func severityOf(r *audit.Result, f *harden.Finding) harden.Severity {
	if f.Severity == harden.SeverityUnspecified {
		return r.Info.Severity
	}
	return f.Severity
}

// byPoint groups the results by their points; index 0 has those of none.
func byPoint(r *audit.Report) [harden.NumPoints + 1][]*audit.Result {
	var groups [harden.NumPoints + 1][]*audit.Result
	for i := range r.Results {
		p := r.Results[i].Info.Point
		if !p.Valid() {
			p = harden.PointNone
		}
		groups[p] = append(groups[p], &r.Results[i])
	}
	return groups
}

// unexplained returns why a point is unknown where none of its results says
// so, or "".
func unexplained(p audit.PointResult, results []*audit.Result) string {
	if p.Status != harden.StatusUnknown {
		return ""
	}
	for _, r := range results {
		if r.Status == harden.StatusUnknown {
			return ""
		}
	}
	if p.Detail == "" {
		return "nothing was determined" // the zero Report
	}
	return p.Detail
}
