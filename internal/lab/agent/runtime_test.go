//go:build linux

package main

import "testing"

func TestLimit(t *testing.T) {
	const all = 1<<41 - 1
	noResource := uint64(all &^ (1 << 24)) // CAP_SYS_RESOURCE
	for _, test := range []struct{ name, config, want string }{
		{"nothing to take", `{"process":{"capabilities":{"bounding":["CAP_KILL"]}}}`, ""},
		{"no capabilities", `{"process":{}}`, ""},
		{"no process", `{}`, ""},
		{"unknown capability", `{"process":{"capabilities":{"bounding":["CAP_OF_THE_FUTURE"]}}}`, ""},
		{
			"a container", `{"limit":9223372036854771712,"process":{"capabilities":{"bounding":["CAP_KILL","CAP_SYS_RESOURCE"],"effective":["CAP_SYS_RESOURCE"]}}}`,
			`{"limit":9223372036854771712,"process":{"capabilities":{"bounding":["CAP_KILL"],"effective":[]}}}`,
		},
		{"a process", `{"args":["x"],"capabilities":{"permitted":["CAP_SYS_RESOURCE","CAP_BPF"]}}`, `{"args":["x"],"capabilities":{"permitted":["CAP_BPF"]}}`},
	} {
		got, err := limit([]byte(test.config), noResource)
		if err != nil || string(got) != test.want {
			t.Errorf("%s: %s, %v, want %s", test.name, got, err, test.want)
		}
	}
	if _, err := limit([]byte("no JSON"), all); err == nil {
		t.Error("nonsense was accepted")
	}
}
