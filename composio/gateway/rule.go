package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A Rule bounds the value of one argument. The zero Rule allows any value. A
// rule that says something about texts allows texts alone, and so on: what a
// pattern forbids is not allowed in a list either.
type Rule struct {
	Type string `json:"type,omitempty"` // "string", "integer", "number", "boolean", "array" or "object"; empty means what the rest implies

	Required bool `json:"required,omitempty"`

	// Of texts. Pattern is a regular expression in the syntax of package
	// regexp that must match the whole; MaxLength counts characters.
	Pattern   string   `json:"pattern,omitempty"`
	Enum      []string `json:"enum,omitempty"`
	MaxLength int      `json:"max_length,omitempty"`

	// Of numbers; both are themselves allowed.
	Min *float64 `json:"min,omitempty"`
	Max *float64 `json:"max,omitempty"`

	// Of lists.
	MaxItems int   `json:"max_items,omitempty"`
	Items    *Rule `json:"items,omitempty"`

	// Of objects: the names that it may have. Nil allows any.
	Properties map[string]Rule `json:"properties,omitempty"`
}

const ruleMembers = "type, required, pattern, enum, max_length, min, max, max_items, items and properties"

func readRule(r reader, depth int) Rule {
	if depth > maxDepth {
		r.fail(r.path, "the rules are nested too deep")
		return Rule{}
	}
	rule := Rule{Type: r.text("type"), Required: r.flag("required"), Pattern: r.text("pattern"), Enum: r.texts("enum")}
	length, _ := r.whole("max_length", 1, 1<<30)
	items, _ := r.whole("max_items", 1, 1<<20)
	rule.MaxLength, rule.MaxItems = int(length), int(items)
	rule.Min, rule.Max = r.number("min"), r.number("max")
	if in, ok := r.within("items"); ok {
		each := readRule(in, depth+1)
		rule.Items = &each
	}
	if in, ok := r.within("properties"); ok {
		rule.Properties = make(map[string]Rule)
		for _, name := range in.names() {
			p, _ := in.within(name)
			rule.Properties[name] = readRule(p, depth+1)
		}
	}
	r.done(ruleMembers)
	return rule
}

func (r reader) number(name string) *float64 {
	v, ok := r.take(name)
	if !ok {
		return nil
	}
	n, _ := v.(json.Number)
	f, err := n.Float64()
	if err != nil {
		r.fail(r.at(name), "it must be a number")
	}
	return &f
}

// kind returns the type of the values that the rule allows, "" for any.
func (r *Rule) kind() (string, error) {
	implied := make(map[string]bool)
	if r.Pattern != "" || r.Enum != nil || r.MaxLength != 0 {
		implied["string"] = true
	}
	if r.Min != nil || r.Max != nil {
		implied["number"] = true
	}
	if r.MaxItems != 0 || r.Items != nil {
		implied["array"] = true
	}
	if r.Properties != nil {
		implied["object"] = true
	}
	kinds := slices.Sorted(maps.Keys(implied))
	if len(kinds) > 1 {
		return "", fmt.Errorf("it bounds values of two types: %s", strings.Join(kinds, " and "))
	}
	switch {
	case len(kinds) == 0:
		return r.Type, nil
	case r.Type == "" || r.Type == kinds[0]:
		return kinds[0], nil
	case r.Type == "integer" && kinds[0] == "number":
		return r.Type, nil
	}
	return "", fmt.Errorf("it is about type %s and bounds values of type %s", r.Type, kinds[0])
}

func (r *Rule) validate(path string, depth int) error {
	_, err := r.compile(path, depth)
	return err
}

// A matcher is a Rule that is ready to be used.
type matcher struct {
	Rule
	kind    string
	pattern *regexp.Regexp
	min     *big.Rat
	max     *big.Rat
	items   *matcher
	members map[string]*matcher // nil: any
}

// compile returns the matcher for r, or says what is wrong with the rule at
// path.
func (r *Rule) compile(path string, depth int) (*matcher, error) {
	m := &matcher{Rule: *r}
	var err error
	if m.kind, err = r.kind(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case depth > maxDepth:
		return nil, fmt.Errorf("%s: the rules are nested too deep", path)
	case m.kind != "" && !slices.Contains([]string{"string", "integer", "number", "boolean", "array", "object"}, m.kind):
		return nil, fmt.Errorf("%s.type: there is no type %s", path, quote(m.kind))
	case r.Enum != nil && len(r.Enum) == 0:
		return nil, fmt.Errorf("%s.enum: the list is empty: no value could match it", path)
	case r.MaxLength < 0 || r.MaxItems < 0:
		return nil, fmt.Errorf("%s: a bound is negative", path)
	case r.Min != nil && r.Max != nil && *r.Min > *r.Max:
		return nil, fmt.Errorf("%s: min is greater than max", path)
	}
	if r.Pattern != "" {
		// By itself first: a pattern must not reach out of the group.
		if _, err := regexp.Compile(r.Pattern); err != nil {
			return nil, fmt.Errorf("%s.pattern: %w", path, err)
		}
		if m.pattern, err = regexp.Compile(`\A(?:` + r.Pattern + `)\z`); err != nil {
			return nil, fmt.Errorf("%s.pattern: %w", path, err)
		}
	}
	for _, b := range []struct {
		from *float64
		to   **big.Rat
	}{{r.Min, &m.min}, {r.Max, &m.max}} {
		if b.from == nil {
			continue
		}
		if *b.to = new(big.Rat).SetFloat64(*b.from); *b.to == nil {
			return nil, fmt.Errorf("%s: a bound is not a finite number", path)
		}
	}
	if r.Items != nil {
		if m.items, err = r.Items.compile(path+".items", depth+1); err != nil {
			return nil, err
		}
	}
	if r.Properties != nil {
		if m.members, err = compileRules(r.Properties, path+".properties.", depth+1); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func compileRules(rules map[string]Rule, prefix string, depth int) (map[string]*matcher, error) {
	out := make(map[string]*matcher, len(rules))
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		rule := rules[name]
		m, err := rule.compile(prefix+name, depth)
		if err != nil {
			return nil, err
		}
		out[name] = m
	}
	return out, nil
}

// matchObject holds the members of an object against rules for them. The error
// names the member, and never its value.
func matchObject(rules map[string]*matcher, members map[string]any, path string) error {
	for _, name := range slices.Sorted(maps.Keys(members)) {
		at := path + name
		rule, ok := rules[name]
		if !ok {
			return fmt.Errorf("argument %s is not allowed", quote(at))
		}
		if err := rule.match(members[name], at); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		if _, ok := members[name]; !ok && rules[name].Required {
			return fmt.Errorf("argument %s is missing", quote(path+name))
		}
	}
	return nil
}

func (m *matcher) match(v any, path string) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("argument %s %s", quote(path), fmt.Sprintf(format, args...))
	}
	got := kindOf(v)
	if want := m.kind; want != "" && got != want && !(got == "integer" && want == "number") {
		return bad("must be of type %s", want)
	}
	switch v := v.(type) {
	case string:
		switch {
		case m.MaxLength > 0 && utf8.RuneCountInString(v) > m.MaxLength:
			return bad("is longer than %d characters", m.MaxLength)
		case m.Enum != nil && !slices.Contains(m.Enum, v):
			return bad("is not one of the values allowed")
		case m.pattern != nil && !m.pattern.MatchString(v):
			return bad("does not match the pattern")
		}
	case json.Number:
		if m.min == nil && m.max == nil {
			return nil
		}
		n, err := exact(v)
		switch {
		case err != nil:
			return bad("is %v", err)
		case m.min != nil && n.Cmp(m.min) < 0:
			return bad("is less than %v", *m.Min)
		case m.max != nil && n.Cmp(m.max) > 0:
			return bad("is greater than %v", *m.Max)
		}
	case []any:
		if m.MaxItems > 0 && len(v) > m.MaxItems {
			return bad("has more than %d items", m.MaxItems)
		}
		if m.items == nil {
			return nil
		}
		for i, e := range v {
			if err := m.items.match(e, fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
	case map[string]any:
		if m.members != nil {
			return matchObject(m.members, v, path+".")
		}
	}
	return nil
}

func kindOf(v any) string {
	switch v := v.(type) {
	case string:
		return "string"
	case json.Number:
		// Only what every reader takes for a whole number: no point, no
		// exponent.
		if !strings.ContainsAny(v.String(), ".eE") {
			return "integer"
		}
		return "number"
	case bool:
		return "boolean"
	case []any:
		return "array"
	case map[string]any:
		return "object"
	}
	return "null"
}

// exact returns the value of a number. Numbers so long, so large or so small
// that it takes effort, or that readers round to another, are refused.
func exact(n json.Number) (*big.Rat, error) {
	const most = 40 // characters
	if f, err := strconv.ParseFloat(n.String(), 64); err != nil || len(n) > most {
		return nil, errors.New("a number that is too large or too long")
	} else if _, exp, ok := strings.Cut(strings.ToLower(n.String()), "e"); ok && (len(exp) > 4 || f == 0) {
		return nil, errors.New("a number with an exponent that is too large")
	}
	r, ok := new(big.Rat).SetString(n.String())
	if !ok {
		return nil, errors.New("not a number")
	}
	return r, nil
}
