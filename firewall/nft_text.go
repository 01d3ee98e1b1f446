package firewall

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// statementText writes a statement as nft does without -j, or as JSON.
func statementText(v any) string {
	key, arg, ok := only(v)
	if !ok {
		return textOf(v)
	}
	m, _ := arg.(map[string]any)
	switch key {
	case "match":
		operator := " " + fmt.Sprint(m["op"]) + " "
		if operator == " == " || operator == " in " {
			operator = " "
		}
		return textOf(m["left"]) + operator + textOf(m["right"])
	case "accept", "drop", "return", "continue", "notrack":
		return key
	case "jump", "goto":
		return key + " " + fmt.Sprint(m["target"])
	case "counter", "log", "limit", "masquerade":
		return key
	case "reject":
		if t, ok := m["type"].(string); ok {
			s := "reject with " + t
			if e, ok := m["expr"].(string); ok {
				s += " " + e
			}
			return s
		}
		return key
	case "vmap":
		return textOf(m["key"]) + " vmap " + textOf(m["data"])
	case "mangle":
		return textOf(m["key"]) + " set " + textOf(m["value"])
	case "dnat", "snat", "redirect":
		s := key
		if f, ok := m["family"].(string); ok {
			s += " " + f
		}
		if m["addr"] != nil || m["port"] != nil {
			s += " to "
		}
		if m["addr"] != nil {
			s += textOf(m["addr"])
		}
		if m["port"] != nil {
			s += ":" + textOf(m["port"])
		}
		return s
	case "xt":
		return "xt " + fmt.Sprint(m["type"]) + " " + fmt.Sprint(m["name"])
	}
	return textOf(v)
}

// textOf writes an expression as nft does without -j, or as JSON.
func textOf(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	case []any:
		return joinText(v, ",")
	}
	key, arg, ok := only(v)
	if !ok {
		return jsonText(v)
	}
	m, _ := arg.(map[string]any)
	list, _ := arg.([]any)
	switch key {
	case "meta":
		name, ok := arg.(string)
		if !ok {
			name = fmt.Sprint(m["key"])
		}
		switch name {
		case "iif", "iifname", "oif", "oifname", "ibrname", "obrname":
			return name
		}
		return "meta " + name
	case "payload":
		if m["protocol"] != nil {
			return fmt.Sprint(m["protocol"]) + " " + fmt.Sprint(m["field"])
		}
	case "ct":
		s := "ct "
		if m["dir"] != nil {
			s += fmt.Sprint(m["dir"]) + " "
		}
		return s + fmt.Sprint(m["key"])
	case "fib":
		return "fib " + strings.Join(stringsOf(m["flags"]), " . ") + " " + fmt.Sprint(m["result"])
	case "set":
		if list == nil {
			list = []any{arg}
		}
		var words []string
		for _, e := range list {
			if pair, ok := e.([]any); ok && len(pair) == 2 {
				words = append(words, textOf(pair[0])+" : "+statementText(pair[1]))
				continue
			}
			words = append(words, textOf(e))
		}
		return "{ " + strings.Join(words, ", ") + " }"
	case "elem":
		return textOf(m["val"])
	case "range":
		return joinText(list, "-")
	case "prefix":
		return textOf(m["addr"]) + "/" + textOf(m["len"])
	case "concat":
		return joinText(list, " . ")
	case "map":
		return textOf(m["key"]) + " map " + textOf(m["data"])
	case "&", "|", "^", "<<", ">>":
		return joinText(list, " "+key+" ")
	}
	return jsonText(v)
}

func joinText(list []any, by string) string {
	var words []string
	for _, e := range list {
		words = append(words, textOf(e))
	}
	return strings.Join(words, by)
}

// jsonText writes v as JSON that is not too long to read.
func jsonText(v any) string {
	if m, ok := v.(map[string]any); ok && len(m) == 1 {
		for _, key := range slices.Collect(maps.Keys(m)) {
			if m[key] == nil {
				return key
			}
		}
	}
	data, err := json.Marshal(v)
	if err != nil {
		return "?"
	}
	return shorten(string(data))
}
