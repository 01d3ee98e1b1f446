package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds how deep foreign JSON may be nested.
const maxDepth = 32

// parseJSON reads exactly one JSON value. What two parsers could read in two
// ways is an error: a name that is there twice, text that is not UTF-8, an
// escape that stands for half a character, anything after the value. Objects
// are map[string]any, numbers json.Number.
func parseJSON(data []byte) (any, error) {
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return nil, errors.New("it is empty")
	case !utf8.Valid(data):
		return nil, errors.New("it is not UTF-8")
	case !json.Valid(data):
		return nil, errors.New("it is not exactly one JSON value")
	}
	d := &decoder{json.NewDecoder(bytes.NewReader(data))}
	d.UseNumber()
	v, err := d.value(0)
	if err != nil {
		return nil, err
	}
	return v, nil
}

type decoder struct{ *json.Decoder }

func (d *decoder) value(depth int) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, errors.New("it is not JSON")
	}
	switch t := t.(type) {
	case json.Delim:
		if depth >= maxDepth {
			return nil, fmt.Errorf("it is nested more than %d deep", maxDepth)
		}
		if t == '[' {
			return d.array(depth + 1)
		}
		return d.object(depth + 1)
	}
	return t, nil
}

func (d *decoder) array(depth int) (any, error) {
	a := []any{}
	for d.More() {
		v, err := d.value(depth)
		if err != nil {
			return nil, err
		}
		a = append(a, v)
	}
	_, err := d.Token()
	return a, err
}

func (d *decoder) object(depth int) (any, error) {
	o := make(map[string]any)
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		name, _ := t.(string)
		if _, ok := o[name]; ok {
			return nil, fmt.Errorf("the name %s is there twice", quote(name))
		}
		if o[name], err = d.value(depth); err != nil {
			return nil, err
		}
	}
	_, err := d.Token()
	return o, err
}

// quote quotes a foreign name for a message, cut short.
func quote(s string) string {
	const most = 64
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return fmt.Sprintf("%q", s)
}

// A reader takes the members out of an object one by one, so that those which
// nobody asked for are noticed, and says in errors where it is.
type reader struct {
	path    string // "" at the top
	members map[string]any
	err     *error // the first, shared with the readers within
}

func newReader(v any, path string) reader {
	var err error
	r := reader{path: path, err: &err}
	r.members = r.object(v, path)
	return r
}

func (r reader) at(name string) string {
	if r.path == "" {
		return name
	}
	return r.path + "." + name
}

func (r reader) fail(path, format string, args ...any) {
	if *r.err == nil {
		*r.err = errors.New(path + ": " + fmt.Sprintf(format, args...))
	}
}

func (r reader) object(v any, path string) map[string]any {
	m, ok := v.(map[string]any)
	if !ok {
		if path == "" {
			path = "the whole"
		}
		r.fail(path, "it must be an object")
	}
	return maps.Clone(m)
}

// take removes a member.
func (r reader) take(name string) (any, bool) {
	v, ok := r.members[name]
	delete(r.members, name)
	return v, ok
}

func (r reader) text(name string) string {
	v, ok := r.take(name)
	if !ok {
		return ""
	}
	s, ok := v.(string)
	if !ok || s == "" {
		r.fail(r.at(name), "it must be a text that is not empty")
	}
	return s
}

func (r reader) flag(name string) bool {
	v, ok := r.take(name)
	b, isBool := v.(bool)
	if ok && !isBool {
		r.fail(r.at(name), "it must be true or false")
	}
	return b
}

func (r reader) texts(name string) []string {
	v, ok := r.take(name)
	if !ok {
		return nil
	}
	a, ok := v.([]any)
	out := make([]string, 0, len(a))
	for _, e := range a {
		s, isText := e.(string)
		ok = ok && isText
		out = append(out, s)
	}
	if !ok {
		r.fail(r.at(name), "it must be a list of texts")
	}
	return out
}

// whole returns a whole number between least and most, and whether it is there.
func (r reader) whole(name string, least, most int64) (int64, bool) {
	v, ok := r.take(name)
	if !ok {
		return 0, false
	}
	n, _ := v.(json.Number)
	i, err := n.Int64()
	if err != nil || i < least || i > most {
		r.fail(r.at(name), "it must be a whole number from %d to %d", least, most)
	}
	return i, true
}

// within returns a reader for a member that is an object.
func (r reader) within(name string) (reader, bool) {
	v, ok := r.take(name)
	if !ok {
		return reader{}, false
	}
	in := reader{path: r.at(name), err: r.err}
	in.members = r.object(v, in.path)
	return in, true
}

// names returns those of all members that are left, sorted.
func (r reader) names() []string { return slices.Sorted(maps.Keys(r.members)) }

// done refuses what is left.
func (r reader) done(known string) {
	for _, name := range r.names() {
		r.fail(r.at(name), "nothing is known by this name; there are %s", known)
	}
}
