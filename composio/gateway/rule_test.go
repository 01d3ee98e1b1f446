package gateway

import "testing"

// A rule allows what it says and nothing else, at any depth.
func TestRules(t *testing.T) {
	t.Parallel()
	n := func(f float64) *float64 { return &f }
	for name, c := range map[string]struct {
		rule   Rule
		allows []string
		denies []string
	}{
		"no rule":     {Rule{}, []string{`1`, `"x"`, `null`, `[{"a":1}]`}, nil},
		"a pattern":   {Rule{Pattern: `a+|b`}, []string{`"a"`, `"aaa"`, `"b"`}, []string{`"ab"`, `"xa"`, `"b\n"`, `""`, `["a"]`, `null`, `1`}},
		"a length":    {Rule{MaxLength: 2}, []string{`""`, `"ää"`}, []string{`"abc"`, `["abc"]`}},
		"a list":      {Rule{Enum: []string{"x", "y"}}, []string{`"x"`}, []string{`"X"`, `""`, `["x"]`}},
		"bounds":      {Rule{Min: n(0), Max: n(10)}, []string{`0`, `10`, `9.5`, `1e1`, `-0`}, []string{`-1`, `10.000000000000001`, `11`, `1e2`, `"5"`, `1e400`, `1e-99999999`, `0.00000000000000000000000000000000000000000001`}},
		"large":       {Rule{Max: n(9007199254740992)}, []string{`9007199254740992`}, []string{`9007199254740993`}},
		"a whole":     {Rule{Type: "integer", Max: n(5)}, []string{`5`, `-7`}, []string{`5.0`, `1e0`, `6`}},
		"a truth":     {Rule{Type: "boolean"}, []string{`true`}, []string{`"true"`, `1`, `null`}},
		"items":       {Rule{MaxItems: 2, Items: &Rule{Pattern: `[a-z]`}}, []string{`[]`, `["a","b"]`}, []string{`["a","b","c"]`, `["A"]`, `"a"`, `{"0":"a"}`, `[["a"]]`}},
		"properties":  {Rule{Properties: map[string]Rule{"to": {Required: true, Enum: []string{"x"}}, "cc": {}}}, []string{`{"to":"x"}`, `{"to":"x","cc":[1]}`}, []string{`{}`, `{"to":"y"}`, `{"to":"x","bcc":1}`, `{"TO":"x"}`, `[{"to":"x"}]`, `"x"`}},
		"no property": {Rule{Properties: map[string]Rule{}}, []string{`{}`}, []string{`{"a":1}`, `1`}},
		"within":      {Rule{Items: &Rule{Properties: map[string]Rule{"n": {Max: n(1)}}}}, []string{`[{"n":1},{}]`}, []string{`[{"n":2}]`, `[{"m":1}]`}},
	} {
		m, err := c.rule.compile("x", 0)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for want, values := range map[bool][]string{true: c.allows, false: c.denies} {
			for _, text := range values {
				v, err := parseJSON([]byte(text))
				if err != nil {
					t.Fatalf("%s: %s: %v", name, text, err)
				}
				if err := m.match(v, "x"); (err == nil) != want {
					t.Errorf("%s: %s: %v", name, text, err)
				}
			}
		}
	}
}
