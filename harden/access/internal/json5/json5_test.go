package json5_test

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/harden/access/internal/json5"
)

// plain returns a value as package json has it, with numbers as texts.
func plain(v json5.Value) any {
	switch v.Kind {
	case json5.Bool:
		return v.Text == "true"
	case json5.Number:
		return json.Number(v.Text)
	case json5.String:
		return v.Text
	case json5.Array:
		all := []any{}
		for _, i := range v.Items {
			all = append(all, plain(i))
		}
		return all
	case json5.Object:
		all := map[string]any{}
		for _, m := range v.Members {
			all[m.Name] = plain(m.Value)
		}
		return all
	}
	return nil
}

func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want any // nil means an error
	}{
		"comments":               {"// a\n{ /* b\n */ a: 1, // c\n}", map[string]any{"a": json.Number("1")}},
		"trailing commas":        {"[1,2,]", []any{json.Number("1"), json.Number("2")}},
		"single quotes":          {`['it"s', "it's"]`, []any{`it"s`, `it's`}},
		"names without quotes":   {"{$a_1: true, ünder: false, \\u0061b: null}", map[string]any{"$a_1": true, "ünder": false, "ab": nil}},
		"a text over two lines":  {"'a\\\nb\\\r\nc'", "abc"},
		"escapes":                {`"\x63k\u005f\t\0\q\uD83D\uDE00"`, "ck_\t\x00q😀"},
		"numbers":                {"[+1,.5,5.,0xFF,-Infinity,1e3]", []any{json.Number("+1"), json.Number(".5"), json.Number("5."), json.Number("0xFF"), json.Number("-Infinity"), json.Number("1e3")}},
		"the last of a name":     {"{a:1,a:2}", map[string]any{"a": json.Number("2")}},
		"a mark of byte order":   {"\ufeff{}", map[string]any{}},
		"nothing":                {"", nil},
		"two values":             {"{} {}", nil},
		"a comma alone":          {"[,]", nil},
		"a comment without end":  {"{} /* ", nil},
		"a text without end":     {`"a`, nil},
		"a raw end of line":      {"\"a\nb\"", nil},
		"a word":                 {"undefined", nil},
		"a number with a zero":   {"012", nil},
		"a name without a colon": {"{a 1}", nil},
		"too deep":               {strings.Repeat("[", 70) + strings.Repeat("]", 70), nil},
		"not UTF-8":              {"\"\xff\"", nil},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := json5.Parse([]byte(c.in))
			if c.want == nil {
				if err == nil {
					t.Fatalf("no error, but %v", plain(v))
				}
				return
			}
			if err != nil || !reflect.DeepEqual(plain(v), c.want) {
				t.Errorf("%#v, %v; want %#v", plain(v), err, c.want)
			}
		})
	}
}

func TestEveryMemberIsKeptWithItsLine(t *testing.T) {
	v, err := json5.Parse([]byte("{\n a: 'x',\r\n /* \n */ a: 'y',\u2028 b: 1}"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range v.Members {
		got = append(got, m.Name+m.Value.Text+"@"+strconv.Itoa(m.Value.Line))
	}
	if want := "ax@2 ay@4 b1@5"; strings.Join(got, " ") != want {
		t.Errorf("%v, want %s", got, want)
	}
	if last, ok := v.Get("a"); !ok || last.Text != "y" {
		t.Errorf("Get: %v", last.Text)
	}
}

// Whatever package json reads is read the same here; and errors do not quote.
func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5e3,"x\u00e9\n",null,true]}`, "{a:'b',}", "[0x1F,+.5,Infinity]", "/**/1//", `"\ud800"`, `{"a":1,"a":2}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := json5.Parse(data)
		d := json.NewDecoder(strings.NewReader(string(data)))
		d.UseNumber()
		var want any
		if json.Valid(data) && d.Decode(&want) == nil {
			if err != nil {
				if strings.Contains(err.Error(), "deep") || strings.Contains(err.Error(), "UTF-8") {
					return
				}
				t.Fatalf("JSON that is not JSON5: %v", err)
			}
			if got := plain(v); !reflect.DeepEqual(got, want) {
				t.Fatalf("%#v, want %#v", got, want)
			}
		}
		if err != nil && v.Kind != json5.Null {
			t.Fatal("a value beside an error")
		}
	})
}
