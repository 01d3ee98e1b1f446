// Package json5 reads JSON5 as OpenClaw's configuration is written: it keeps
// every member of an object, also those that a later one of the same name
// overrides, and the line that each value is on.
//
// No error quotes what was read, which may hold a credential.
package json5

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxDepth bounds how deep values may be nested.
const MaxDepth = 64

// A Kind is what a value is.
type Kind int

// Kinds. The zero Kind is null.
const (
	Null Kind = iota
	Bool
	Number
	String
	Array
	Object
)

// A Value is one value of a document. The zero Value is null.
type Value struct {
	Kind    Kind
	Line    int      // from 1
	Text    string   // of a string, or a number or truth value as it is written
	Items   []Value  // of an array
	Members []Member // of an object, in order
}

// A Member is one member of an object.
type Member struct {
	Name  string
	Value Value
}

// Get returns the member that counts: the last of its name.
func (v Value) Get(name string) (Value, bool) {
	for i := len(v.Members) - 1; i >= 0; i-- {
		if v.Members[i].Name == name {
			return v.Members[i].Value, true
		}
	}
	return Value{}, false
}

// A SyntaxError reports text that is not JSON5.
type SyntaxError struct {
	Line int
	What string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.What) }

// Parse reads exactly one value.
func Parse(data []byte) (v Value, err error) {
	if !utf8.Valid(data) {
		return Value{}, &SyntaxError{1, "it is not UTF-8"}
	}
	p := &parser{text: strings.TrimPrefix(string(data), "\ufeff"), line: 1}
	v, err = p.value(0)
	if err == nil {
		err = p.space()
	}
	if err == nil && p.pos < len(p.text) {
		err = p.fail("something follows the value")
	}
	if err != nil {
		return Value{}, err
	}
	return v, nil
}

type parser struct {
	text string
	pos  int
	line int
}

func (p *parser) fail(what string) error { return &SyntaxError{p.line, what} }

// peek returns the next rune, or -1 at the end.
func (p *parser) peek() rune {
	if p.pos >= len(p.text) {
		return -1
	}
	r, _ := utf8.DecodeRuneInString(p.text[p.pos:])
	return r
}

func (p *parser) next() rune {
	if p.pos >= len(p.text) {
		return -1
	}
	r, n := utf8.DecodeRuneInString(p.text[p.pos:])
	p.pos += n
	if isNewline(r) && (r != '\r' || p.peek() != '\n') {
		p.line++
	}
	return r
}

func isNewline(r rune) bool { return r == '\n' || r == '\r' || r == '\u2028' || r == '\u2029' }

// space skips white space and comments.
func (p *parser) space() error {
	for {
		rest := p.text[p.pos:]
		switch r := p.peek(); {
		case strings.HasPrefix(rest, "//"):
			for !isNewline(p.peek()) && p.peek() != -1 {
				p.next()
			}
		case strings.HasPrefix(rest, "/*"):
			end := strings.Index(rest[2:], "*/")
			if end < 0 {
				return p.fail("a comment does not end")
			}
			for stop := p.pos + 2 + end + 2; p.pos < stop; {
				p.next()
			}
		case r == '\t' || r == '\v' || r == '\f' || r == '\ufeff' || isNewline(r) || r > 0 && unicode.Is(unicode.Zs, r):
			p.next()
		default:
			return nil
		}
	}
}

func (p *parser) value(depth int) (Value, error) {
	if depth > MaxDepth {
		return Value{}, p.fail(fmt.Sprintf("it is nested more than %d deep", MaxDepth))
	}
	if err := p.space(); err != nil {
		return Value{}, err
	}
	v := Value{Line: p.line}
	var err error
	switch p.peek() {
	case '{':
		v.Kind = Object
		v.Members, err = p.object(depth)
	case '[':
		v.Kind = Array
		v.Items, err = p.array(depth)
	case '"', '\'':
		v.Kind = String
		v.Text, err = p.quoted()
	case -1:
		err = p.fail("it ends where a value should be")
	default:
		v.Kind, v.Text, err = p.word()
	}
	return v, err
}

func (p *parser) object(depth int) ([]Member, error) {
	p.next()
	members := []Member{}
	for {
		if err := p.space(); err != nil {
			return nil, err
		}
		if p.peek() == '}' {
			p.next()
			return members, nil
		}
		name, err := p.name()
		if err != nil {
			return nil, err
		}
		if err := p.space(); err != nil {
			return nil, err
		}
		if p.next() != ':' {
			return nil, p.fail("a colon is missing after a name")
		}
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		members = append(members, Member{name, v})
		if err := p.separator('}'); err != nil {
			return nil, err
		}
	}
}

func (p *parser) array(depth int) ([]Value, error) {
	p.next()
	items := []Value{}
	for {
		if err := p.space(); err != nil {
			return nil, err
		}
		if p.peek() == ']' {
			p.next()
			return items, nil
		}
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		items = append(items, v)
		if err := p.separator(']'); err != nil {
			return nil, err
		}
	}
}

// separator takes a comma, or leaves the bracket that ends it all.
func (p *parser) separator(end rune) error {
	if err := p.space(); err != nil {
		return err
	}
	switch p.peek() {
	case ',':
		p.next()
		return nil
	case end:
		return nil
	}
	return p.fail("a comma or a closing bracket is missing")
}

func (p *parser) name() (string, error) {
	switch p.peek() {
	case '"', '\'':
		return p.quoted()
	}
	var b strings.Builder
	for {
		r := p.peek()
		switch {
		case r == '\\':
			p.next()
			if p.next() != 'u' {
				return "", p.fail("a name has an escape that it may not have")
			}
			u, err := p.hex(4)
			if err != nil {
				return "", err
			}
			b.WriteRune(u)
		case r == '$' || r == '_' || r > 0 && unicode.IsLetter(r) || unicode.Is(unicode.Nl, r),
			b.Len() > 0 && (unicode.IsDigit(r) || unicode.In(r, unicode.Mn, unicode.Mc, unicode.Pc) || r == '\u200c' || r == '\u200d'):
			b.WriteRune(p.next())
		case b.Len() == 0:
			return "", p.fail("a name is missing")
		default:
			return b.String(), nil
		}
	}
}

func (p *parser) quoted() (string, error) {
	quote := p.next()
	var b strings.Builder
	for {
		r := p.next()
		switch r {
		case quote:
			return b.String(), nil
		case -1:
			return "", p.fail("a text does not end")
		case '\n', '\r':
			return "", p.fail("a text goes on over the end of the line")
		case '\\':
			if err := p.escape(&b); err != nil {
				return "", err
			}
		default:
			b.WriteRune(r)
		}
	}
}

func (p *parser) escape(b *strings.Builder) error {
	r := p.next()
	if i := strings.IndexRune("bfnrtv", r); i >= 0 && r > 0 {
		b.WriteByte("\b\f\n\r\t\v"[i])
		return nil
	}
	switch {
	case r == -1:
		return p.fail("a text does not end")
	case r == '0' && !(p.peek() >= '0' && p.peek() <= '9'):
		b.WriteByte(0)
	case r >= '0' && r <= '9':
		return p.fail("a text has an escape that it may not have")
	case r == 'x':
		u, err := p.hex(2)
		b.WriteRune(u)
		return err
	case r == 'u':
		u, err := p.hex(4)
		if err != nil {
			return err
		}
		if u >= 0xd800 && u < 0xdc00 && strings.HasPrefix(p.text[p.pos:], `\u`) {
			at, line := p.pos, p.line
			p.pos += 2
			low, err := p.hex(4)
			if err != nil {
				return err
			}
			if low >= 0xdc00 && low < 0xe000 {
				u = (u-0xd800)<<10 + (low - 0xdc00) + 0x10000
			} else {
				p.pos, p.line = at, line
			}
		}
		b.WriteRune(u)
	case r == '\r' && p.peek() == '\n':
		p.next()
	case isNewline(r):
	default:
		b.WriteRune(r)
	}
	return nil
}

func (p *parser) hex(n int) (rune, error) {
	if len(p.text)-p.pos < n {
		return 0, p.fail("an escape is cut off")
	}
	u, err := strconv.ParseUint(p.text[p.pos:p.pos+n], 16, 32)
	if err != nil {
		return 0, p.fail("an escape is not of hexadecimal digits")
	}
	p.pos += n
	return rune(u), nil
}

// word reads a number, a truth value or null.
func (p *parser) word() (Kind, string, error) {
	start := p.pos
	for {
		r := p.peek()
		if !(r == '+' || r == '-' || r == '.' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z') {
			break
		}
		p.next()
	}
	switch w := p.text[start:p.pos]; {
	case w == "null":
		return Null, "", nil
	case w == "true" || w == "false":
		return Bool, w, nil
	case isNumber(w):
		return Number, w, nil
	}
	return 0, "", p.fail("a value is missing, or is none of JSON5's")
}

func isNumber(w string) bool {
	w = strings.TrimPrefix(strings.TrimPrefix(w, "+"), "-")
	if w == "" || strings.ContainsAny(w, "_pP") || w[0] == '+' || w[0] == '-' {
		return false
	}
	if w == "Infinity" || w == "NaN" {
		return true
	}
	if h, ok := strings.CutPrefix(strings.ToLower(w), "0x"); ok {
		return h != "" && strings.Trim(h, "0123456789abcdef") == ""
	}
	if len(w) > 1 && w[0] == '0' && w[1] >= '0' && w[1] <= '9' || strings.ContainsAny(w, "iInNxX") {
		return false
	}
	_, err := strconv.ParseFloat(w, 64)
	return err == nil || strings.HasSuffix(err.Error(), "value out of range")
}
