package compose

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// A document is the text of a YAML document and its nodes. Edits are splices
// of the text, made at the positions of nodes and applied together; whatever
// no splice covers stays as it is.
//
// The parser gives the beginnings of nodes. Their ends are found in the text,
// and where the text does not look as the nodes say it should, the answer is
// errShape: nothing is guessed.
type document struct {
	src  []byte
	root *yaml.Node

	lines []int // offsets at which lines begin
}

var errShape = errors.New("the file is written in a way that this program does not edit")

func newDocument(src []byte) (*document, error) {
	docs, err := parse(file{"compose file", src})
	if err != nil {
		return nil, err
	}
	if len(docs) > 1 {
		return nil, fmt.Errorf("%w: several documents", errShape)
	}
	return &document{src: src, root: docs[0]}, nil
}

// offset returns where n begins, with its anchor and tag.
func (d *document) offset(n *yaml.Node) (int, error) {
	if d.lines == nil {
		d.lines = lineStarts(d.src)
	}
	if n.Line < 1 || n.Line > len(d.lines) {
		return 0, errShape
	}
	at := d.lines[n.Line-1]
	for range n.Column - 1 {
		if at >= len(d.src) {
			return 0, errShape
		}
		_, size := utf8.DecodeRune(d.src[at:])
		at += size
	}
	return at, nil
}

// lineStarts returns the offsets at which lines begin, by the line breaks of
// the parser.
func lineStarts(src []byte) []int {
	at := 0
	if bytes.HasPrefix(src, []byte("\ufeff")) {
		at = len("\ufeff")
	}
	starts := []int{at}
	for at < len(src) {
		size := breakAt(src, at)
		if size == 0 {
			at++
			continue
		}
		at += size
		starts = append(starts, at)
	}
	return starts
}

// breakAt returns the length of the line break at an offset, 0 if there is
// none.
func breakAt(src []byte, at int) int {
	switch rest := src[at:]; {
	case bytes.HasPrefix(rest, []byte("\r\n")):
		return 2
	case rest[0] == '\n', rest[0] == '\r':
		return 1
	case bytes.HasPrefix(rest, []byte("\u0085")):
		return 2
	case bytes.HasPrefix(rest, []byte("\u2028")), bytes.HasPrefix(rest, []byte("\u2029")):
		return 3
	}
	return 0
}

// lineEnd returns the end of the line that has an offset, before its break.
func (d *document) lineEnd(at int) int {
	for at < len(d.src) && breakAt(d.src, at) == 0 {
		at++
	}
	return at
}

func (d *document) lineStart(at int) int {
	if d.lines == nil {
		d.lines = lineStarts(d.src)
	}
	i, exact := slices.BinarySearch(d.lines, at)
	if !exact {
		i--
	}
	return d.lines[max(i, 0)]
}

// newline returns the line break that the file uses.
func (d *document) newline() string {
	if i := bytes.IndexByte(d.src, '\n'); i > 0 && d.src[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// body returns where the content of n begins, behind its anchor and tag.
func (d *document) body(n *yaml.Node) (int, error) {
	at, err := d.offset(n)
	if err != nil {
		return 0, err
	}
	for at < len(d.src) && (d.src[at] == '&' || d.src[at] == '!') {
		for at < len(d.src) && !isBlank(d.src[at]) && breakAt(d.src, at) == 0 {
			at++
		}
		for at < len(d.src) && isBlank(d.src[at]) {
			at++
		}
	}
	return at, nil
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

func isFlow(n *yaml.Node) bool { return n.Style&yaml.FlowStyle != 0 }

// isBlock reports whether n is a collection in block style with something in
// it.
func isBlock(n *yaml.Node, kind yaml.Kind) bool {
	return n.Kind == kind && !isFlow(n) && len(n.Content) > 0
}

// end returns where n ends: behind the last byte of its text, without comments
// and blanks.
func (d *document) end(n *yaml.Node) (int, error) {
	if n.Kind == yaml.MappingNode || n.Kind == yaml.SequenceNode {
		if isFlow(n) {
			at, err := d.body(n)
			if err != nil {
				return 0, err
			}
			return d.bracket(at)
		}
		if len(n.Content) == 0 {
			return 0, errShape
		}
		last := n.Content[len(n.Content)-1]
		at, err := d.end(last)
		if err != nil {
			return 0, err
		}
		if n.Kind == yaml.MappingNode && isAbsent(last) {
			key, err := d.end(n.Content[len(n.Content)-2])
			if err != nil {
				return 0, err
			}
			return max(at, key), nil
		}
		return at, nil
	}
	at, err := d.body(n)
	if err != nil || at > len(d.src) {
		return 0, cmp.Or(err, errShape)
	}
	switch {
	case n.Kind == yaml.AliasNode:
		want := "*" + n.Value
		if !bytes.HasPrefix(d.src[at:], []byte(want)) {
			return 0, errShape
		}
		return at + len(want), nil
	case n.Style&yaml.DoubleQuotedStyle != 0, n.Style&yaml.SingleQuotedStyle != 0:
		return d.quoted(at)
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		return d.blockScalar(n, at)
	case n.Value == "":
		return at, nil
	}
	return d.plain(at, n.Value)
}

// isAbsent reports a value of which nothing is written.
func isAbsent(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Tag == "!!null" && n.Value == "" && n.Anchor == ""
}

func (d *document) quoted(at int) (int, error) {
	if at >= len(d.src) {
		return 0, errShape
	}
	quote := d.src[at]
	if quote != '"' && quote != '\'' {
		return 0, errShape
	}
	for i := at + 1; i < len(d.src); i++ {
		switch {
		case d.src[i] == '\\' && quote == '"':
			i++
		case d.src[i] == quote && quote == '\'' && i+1 < len(d.src) && d.src[i+1] == quote:
			i++
		case d.src[i] == quote:
			return i + 1, nil
		}
	}
	return 0, errShape
}

// bracket returns the end of the flow collection that begins at an offset.
func (d *document) bracket(at int) (int, error) {
	if at >= len(d.src) || d.src[at] != '[' && d.src[at] != '{' {
		return 0, errShape
	}
	depth := 0
	for i := at; i < len(d.src); i++ {
		switch c := d.src[i]; {
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			if depth--; depth == 0 {
				return i + 1, nil
			}
		case (c == '"' || c == '\'') && !isPlainByte(d.src[i-1]):
			end, err := d.quoted(i)
			if err != nil {
				return 0, err
			}
			i = end - 1
		case c == '#' && (isBlank(d.src[i-1]) || endsLine(d.src, i)):
			i = d.lineEnd(i) - 1
		}
	}
	return 0, errShape
}

// isPlainByte reports whether a quote after c is a character of a plain
// scalar.
func isPlainByte(c byte) bool { return !strings.ContainsRune(" \t\r\n[]{},:", rune(c)) }

func endsLine(src []byte, at int) bool { return src[at-1] == '\n' || src[at-1] == '\r' }

// blockScalar returns the end of the last line of a literal or folded scalar
// that is not blank: of what is indented deeper than the line it begins on.
func (d *document) blockScalar(n *yaml.Node, at int) (int, error) {
	if at >= len(d.src) || d.src[at] != '|' && d.src[at] != '>' {
		return 0, errShape
	}
	last := d.lineEnd(at)
	if n.Value == "" {
		return last, nil
	}
	least := indentOf(d.src[d.lineStart(at):])
	for pos := last; pos < len(d.src); {
		pos += breakAt(d.src, pos)
		end := d.lineEnd(pos)
		line := d.src[pos:end]
		if len(bytes.TrimSpace(line)) > 0 {
			if indentOf(line) <= least {
				break
			}
			last = end
		}
		if end == pos && end == len(d.src) {
			break
		}
		pos = end
	}
	return last, nil
}

func indentOf(line []byte) int { return len(line) - len(bytes.TrimLeft(line, " ")) }

// plain returns the end of a plain scalar: the shortest text that folds to its
// value.
func (d *document) plain(at int, value string) (int, error) {
	v := 0
	for i := at; i < len(d.src); {
		if v == len(value) {
			return i, nil
		}
		switch {
		case d.src[i] == value[v]:
			i, v = i+1, v+1
		case breakAt(d.src, i) > 0 || isBlank(d.src[i]): // folded
			i += max(breakAt(d.src, i), 1)
			if v < len(value) && (value[v] == ' ' || value[v] == '\n') {
				v++
			}
		default:
			return 0, errShape
		}
	}
	if v == len(value) {
		return len(d.src), nil
	}
	return 0, errShape
}

// A splice replaces src[from:to].
type splice struct {
	from, to int
	text     string
}

// splices collects splices of one document.
type splices struct {
	*document
	list []splice
}

func (s *splices) add(from, to int, text string) { s.list = append(s.list, splice{from, to, text}) }

// apply returns the text with all splices made.
func (s *splices) apply() ([]byte, error) {
	slices.SortStableFunc(s.list, func(a, b splice) int { return cmp.Compare(a.from, b.from) })
	var out []byte
	at := 0
	for _, e := range s.list {
		if e.from < at || e.to < e.from || e.to > len(s.src) {
			return nil, errShape
		}
		out = append(out, s.src[at:e.from]...)
		out = append(out, e.text...)
		at = e.to
	}
	return append(out, s.src[at:]...), nil
}

// entry finds a key that a mapping has itself.
func entry(m *yaml.Node, key string) (k, v *yaml.Node) {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Kind == yaml.ScalarNode && m.Content[i].Value == key {
			return m.Content[i], m.Content[i+1]
		}
	}
	return nil, nil
}

// merged finds the value that a mapping gets for a key through its merge keys.
func merged(m *yaml.Node, key string) *yaml.Node {
	_, merge := entry(m, "<<")
	if merge == nil {
		return nil
	}
	sources := []*yaml.Node{merge}
	if t := target(merge); t.Kind == yaml.SequenceNode {
		sources = t.Content
	}
	for _, src := range sources {
		src = target(src)
		if src.Kind != yaml.MappingNode {
			continue
		}
		if _, v := entry(src, key); v != nil {
			return v
		}
		if v := merged(src, key); v != nil {
			return v
		}
	}
	return nil
}

// replace puts text in the place of a value.
func (s *splices) replace(key, v *yaml.Node, flow bool, text string) error {
	if isAbsent(v) {
		at, err := s.colon(key)
		if err != nil {
			return err
		}
		s.add(at, at, " "+text)
		return nil
	}
	from, err := s.offset(v)
	if err != nil {
		return err
	}
	to, err := s.end(v)
	if err != nil {
		return err
	}
	comments, err := s.comments(v, from, to)
	if err != nil {
		return err
	}
	if len(comments) == 0 {
		if keyEnd, err := s.colon(key); err == nil && from > s.lineEnd(keyEnd) && !isFlow(v) {
			// The value is on the lines below its key: bring it up.
			s.add(keyEnd, keyEnd, " "+text)
			s.add(s.before(from), to, "")
			return nil
		}
		s.add(from, to, text)
		return nil
	}
	if flow {
		return errShape
	}
	// Keep the comments, above the key.
	start, err := s.offset(key)
	if err != nil {
		return err
	}
	keyEnd, err := s.colon(key)
	if err != nil {
		return err
	}
	var above strings.Builder
	for _, c := range comments {
		above.WriteString(c + s.newline() + s.indent(start))
	}
	s.add(start, start, above.String())
	if from > s.lineEnd(keyEnd) {
		s.add(keyEnd, keyEnd, " "+text)
		s.add(s.before(from), to, "")
		return nil
	}
	s.add(from, to, text)
	return nil
}

// before returns the end of the line above the one that has an offset.
func (s *splices) before(at int) int {
	i, _ := slices.BinarySearch(s.lines, s.lineStart(at))
	if i == 0 {
		return 0
	}
	return s.lineEnd(s.lines[i-1])
}

// indent returns the blanks before an offset on its line, as far as there is
// nothing else.
func (s *splices) indent(at int) string {
	start := s.lineStart(at)
	line := s.src[start:at]
	return string(bytes.Repeat([]byte(" "), utf8.RuneCount(line)))
}

// colon returns the offset behind the colon after a key.
func (s *splices) colon(key *yaml.Node) (int, error) {
	at, err := s.end(key)
	if err != nil {
		return 0, err
	}
	for at < len(s.src) && isBlank(s.src[at]) {
		at++
	}
	if at >= len(s.src) || s.src[at] != ':' {
		return 0, errShape
	}
	return at + 1, nil
}

// comments returns the comments in src[from:to], and behind it on its last
// line, where n is.
func (s *splices) comments(n *yaml.Node, from, to int) ([]string, error) {
	var scalars []splice
	var walk func(*yaml.Node, bool) error
	walk = func(n *yaml.Node, flow bool) error {
		for _, c := range n.Content {
			if err := walk(c, flow || isFlow(n)); err != nil {
				return err
			}
		}
		if n.Kind != yaml.ScalarNode {
			return nil
		}
		a, err := s.offset(n)
		if err != nil {
			return err
		}
		b, err := s.end(n)
		if err != nil {
			return err
		}
		scalars = append(scalars, splice{from: a, to: b})
		return nil
	}
	if err := walk(n, isFlow(n)); err != nil {
		return nil, err
	}
	var found []string
	for i := from; i < to; i++ {
		if k := slices.IndexFunc(scalars, func(sc splice) bool { return sc.from <= i && i < sc.to }); k >= 0 {
			i = scalars[k].to - 1
			continue
		}
		if s.src[i] == '#' && i > 0 && (isBlank(s.src[i-1]) || endsLine(s.src, i)) {
			end := min(s.lineEnd(i), to)
			found = append(found, strings.TrimRight(string(s.src[i:end]), " \t"))
			i = end
		}
	}
	return found, nil
}

// trailing returns the comment behind an offset on its line, and an error if
// there is anything else.
func (s *splices) trailing(at int) (string, error) {
	rest := strings.TrimSpace(string(s.src[at:s.lineEnd(at)]))
	if rest != "" && rest[0] != '#' {
		return "", errShape
	}
	return rest, nil
}

// removeLines removes the lines from the one that has an offset to the end of
// n, but keeps their comments, on lines of their own.
func (s *splices) removeLines(from, to int, n *yaml.Node) error {
	comments, err := s.comments(n, from, to)
	if err != nil {
		return err
	}
	last, err := s.trailing(to)
	if err != nil {
		return err
	}
	if last != "" {
		comments = append(comments, last)
	}
	start, end := s.lineStart(from), s.lineEnd(to)
	if strings.TrimSpace(string(s.src[start:from])) != "" {
		return errShape
	}
	if len(comments) > 0 {
		s.add(from, end, strings.Join(comments, s.newline()+s.indent(from)))
		return nil
	}
	if end < len(s.src) {
		end += breakAt(s.src, end)
	} else if start > 0 { // the last line of a file without a final line break
		start = s.before(start)
	}
	s.add(start, end, "")
	return nil
}

// remove removes a key from a mapping.
func (s *splices) remove(m *yaml.Node, key string) error {
	k, v := entry(m, key)
	if k == nil {
		return errShape
	}
	if isFlow(m) || len(m.Content) == 2 {
		return errShape
	}
	from, err := s.offset(k)
	if err != nil {
		return err
	}
	to, err := s.colon(k)
	if err != nil {
		return err
	}
	if !isAbsent(v) {
		if to, err = s.end(v); err != nil {
			return err
		}
	}
	return s.removeLines(from, to, v)
}

// insert adds a key to a mapping that does not have it: behind its last entry,
// or in flow style in front of the first. lines, if not nil, are those of a
// value in block style, without indentation.
func (s *splices) insert(m *yaml.Node, key, text string, lines []string) error {
	if m.Kind != yaml.MappingNode {
		return errShape
	}
	if isFlow(m) {
		at, err := s.body(m)
		if err != nil || at >= len(s.src) || s.src[at] != '{' {
			return cmp.Or(err, errShape)
		}
		add := key + ": " + text
		if len(m.Content) > 0 {
			add += ", "
		}
		s.add(at+1, at+1, add)
		return nil
	}
	if len(m.Content) == 0 {
		return errShape
	}
	first, err := s.offset(m.Content[0])
	if err != nil {
		return err
	}
	last := m.Content[len(m.Content)-1]
	var at int
	if isAbsent(last) {
		at, err = s.colon(m.Content[len(m.Content)-2])
	} else {
		at, err = s.end(last)
	}
	if err != nil {
		return err
	}
	if _, err := s.trailing(at); err != nil {
		return err
	}
	at = s.lineEnd(at)
	nl := s.newline() + s.indent(first)
	add := nl + key + ": " + text
	if lines != nil {
		add = nl + key + ":"
		for _, l := range lines {
			add += nl + "  " + l
		}
	}
	s.add(at, at, add)
	return nil
}

// editList decides about each item of a sequence: item returns the text that
// is to stand there, and false for the item to go. add are texts to append.
func (s *splices) editList(key, v *yaml.Node, inFlow bool, item func(*yaml.Node) (string, bool), add []string) error {
	changed := len(add) > 0
	var kept []string
	texts := make([]string, len(v.Content))
	keep := make([]bool, len(v.Content))
	for i, n := range v.Content {
		raw, err := s.raw(n)
		if err != nil {
			return err
		}
		texts[i], keep[i] = item(n)
		if keep[i] && texts[i] == "" {
			texts[i] = raw
		}
		if keep[i] {
			kept = append(kept, texts[i])
		}
		changed = changed || !keep[i] || texts[i] != raw
	}
	if !changed {
		return nil
	}
	kept = append(kept, add...)
	if isBlock(v, yaml.SequenceNode) && len(kept) == len(add) && len(add) > 0 && v.Content[0].Kind == yaml.ScalarNode {
		// None stays: the first of the new takes the place of the first.
		texts[0], keep[0], add = add[0], true, add[1:]
	}
	lastKept := -1
	for i, k := range keep {
		if k {
			lastKept = i
		}
	}
	inPlace := len(add) == 0 && !slices.Contains(keep, false)
	if !inPlace && !isBlock(v, yaml.SequenceNode) || lastKept < 0 {
		return s.replace(key, v, inFlow, "["+strings.Join(kept, ", ")+"]")
	}
	for i, n := range v.Content {
		from, err := s.offset(n)
		if err != nil {
			return err
		}
		to, err := s.end(n)
		if err != nil {
			return err
		}
		switch raw := string(s.src[from:to]); {
		case !keep[i]:
			dash, err := s.dash(from)
			if err != nil {
				return err
			}
			if err := s.removeLines(dash, to, n); err != nil {
				return err
			}
		case texts[i] != raw:
			comments, err := s.comments(n, from, to)
			if err != nil {
				return err
			}
			if len(comments) > 0 {
				return errShape
			}
			s.add(from, to, texts[i])
		}
	}
	if len(add) == 0 {
		return nil
	}
	first, err := s.offset(v.Content[0])
	if err != nil {
		return err
	}
	dash, err := s.dash(first)
	if err != nil {
		return err
	}
	at, err := s.end(v.Content[lastKept])
	if err != nil {
		return err
	}
	if _, err := s.trailing(at); err != nil {
		return err
	}
	at = s.lineEnd(at)
	var text strings.Builder
	for _, a := range add {
		text.WriteString(s.newline() + s.indent(dash) + "- " + a)
	}
	s.add(at, at, text.String())
	return nil
}

// dash returns the offset of the dash before an item.
func (s *splices) dash(at int) (int, error) {
	for i := at - 1; i >= s.lineStart(at); i-- {
		if s.src[i] == '-' {
			if strings.TrimSpace(string(s.src[s.lineStart(at):i])) != "" {
				return 0, errShape
			}
			return i, nil
		}
		if !isBlank(s.src[i]) {
			return 0, errShape
		}
	}
	return 0, errShape
}

// raw returns the text of a node as it is written.
func (s *splices) raw(n *yaml.Node) (string, error) {
	from, err := s.offset(n)
	if err != nil {
		return "", err
	}
	to, err := s.end(n)
	if err != nil {
		return "", err
	}
	return string(s.src[from:to]), nil
}

// render writes a node in flow style on one line.
func render(n *yaml.Node) (string, error) {
	var parts []string
	for _, c := range n.Content {
		p, err := render(c)
		if err != nil {
			return "", err
		}
		parts = append(parts, p)
	}
	switch n.Kind {
	case yaml.AliasNode:
		return "*" + n.Value + " ", nil // the blank keeps what follows off its name
	case yaml.SequenceNode:
		return "[" + strings.Join(parts, ", ") + "]", nil
	case yaml.MappingNode:
		var pairs []string
		for i := 0; i+1 < len(parts); i += 2 {
			pairs = append(pairs, parts[i]+": "+parts[i+1])
		}
		return "{" + strings.Join(pairs, ", ") + "}", nil
	case yaml.ScalarNode:
		switch n.Tag {
		case "!!str", "!":
			return quote(n.Value), nil
		case "!!int", "!!bool", "!!float", "!!null", "!!merge":
			return n.Value, nil
		}
	}
	return "", errShape
}

// quote writes a string as a double-quoted scalar, or plain where that is
// plainly the same.
func quote(v string) string {
	if isWord(v) {
		return v
	}
	return strconv.Quote(v)
}

func isWord(v string) bool {
	for i := range len(v) {
		c := v[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case i > 0 && (c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.' || c == '/'):
		default:
			return false
		}
	}
	return v != "" && !slices.Contains([]string{"y", "n", "yes", "no", "on", "off", "true", "false", "null"}, strings.ToLower(v))
}
