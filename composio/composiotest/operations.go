package composiotest

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// The operations of API v3.1 with the names of what they take. It is written
// down from the API's description, and a test compares the two.
//
//go:embed testdata/operations.json
var operationsJSON []byte

type operation struct {
	Method        string   `json:"method"`
	Path          string   `json:"path"`
	Query         []string `json:"query"`
	RequiredQuery []string `json:"required_query"`
	Body          []string `json:"body"`
	Required      []string `json:"required"`
	Keys          []string `json:"keys"`

	// DocumentedOnly marks what the documentation describes and the types of
	// the official client leave out.
	DocumentedOnly bool `json:"documented_only"`
}

var operations = sync.OnceValue(func() []operation {
	var ops []operation
	if err := json.Unmarshal(operationsJSON, &ops); err != nil {
		panic(err) // it is part of the program
	}
	return ops
})

// matches reports how many segments of path the operation names, or -1 if it
// is about another path.
func (o operation) matches(path string) int {
	want, got := strings.Split(o.Path, "/"), strings.Split(path, "/")
	if len(want) != len(got) {
		return -1
	}
	named := 0
	for i := range want {
		switch {
		case strings.HasPrefix(want[i], "{") && got[i] != "":
		case want[i] == got[i]:
			named++
		default:
			return -1
		}
	}
	return named
}

// Violations returns what the requests so far have that the description of the
// API does not: paths, parameters, fields of bodies and headers, and what it
// demands and they lack. The server itself ignores most of it, as the real one
// does.
func (s *Server) Violations() []string {
	var all []string
	for _, r := range s.Requests() {
		all = append(all, r.violations()...)
	}
	return all
}

func (r Request) violations() (out []string) {
	say := func(format string, args ...any) {
		out = append(out, fmt.Sprintf("%s %s: %s", r.Method, r.Path, fmt.Sprintf(format, args...)))
	}
	var op *operation
	best := -1
	for _, o := range operations() {
		if n := o.matches(r.Path); o.Method == r.Method && n > best {
			op, best = &o, n
		}
	}
	if op == nil {
		say("there is no such operation")
		return out
	}
	query, err := url.ParseQuery(r.Query)
	if err != nil {
		say("the query is not valid")
	}
	for name, v := range query {
		// Objects are written with brackets.
		base, _, _ := strings.Cut(name, "[")
		if !slices.Contains(op.Query, base) {
			say("it has no parameter %q", name)
		}
		if len(v) > 1 {
			say("the parameter %q is there %d times", name, len(v))
		}
	}
	for _, name := range op.RequiredQuery {
		if !query.Has(name) {
			say("the parameter %q is required", name)
		}
	}
	body := map[string]json.RawMessage{}
	if len(r.Body) > 0 && json.Unmarshal(r.Body, &body) != nil {
		say("the body is not a JSON object")
	}
	for name := range body {
		if !slices.Contains(op.Body, name) {
			say("its body has no field %q", name)
		}
	}
	for _, name := range op.Required {
		if _, ok := body[name]; !ok {
			say("the field %q is required", name)
		}
	}
	kinds := map[string]string{"X-Api-Key": "project", "X-User-Api-Key": "user", "X-Org-Api-Key": "org"}
	if len(r.Headers) > 1 {
		say("it has %d credentials", len(r.Headers))
	}
	for _, h := range r.Headers {
		if !slices.Contains(op.Keys, kinds[h]) {
			say("it does not take %s", h)
		}
	}
	if len(op.Keys) > 0 && len(r.Headers) == 0 {
		say("it has no credential")
	}
	return out
}
