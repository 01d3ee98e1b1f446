package compose_test

import (
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/managemyclaw/hardshell/harden/compose"
)

// Whatever loads can be hardened, what comes out loads, and hardening it again
// changes nothing.
func FuzzHarden(f *testing.F) {
	files, err := filepath.Glob("testdata/openclaw/in.yaml")
	if err != nil || len(files) == 0 {
		f.Fatal(err)
	}
	for _, name := range files {
		doc, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(doc)
	}
	f.Add([]byte(good))
	for _, doc := range []string{
		"services: {a: {image: x, ports: ['1:1'], volumes: [/etc:/a, {type: bind, source: /run, target: /b}]}}",
		"x: &a\n  privileged: true\nservices:\n  a: *a\n  b:\n    <<: *a\n    image: x # c\n",
		"services:\r\n  a:\r\n    image: x\r\n    command: |\r\n      a\r\n",
		"a: &a [x, x]\nb: &b [*a, *a]\nservices: {a: {image: x, cap_add: *b}}",
	} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		if len(doc) > 4096 {
			return
		}
		h := compose.Hardening{Needs: compose.OpenClawNeeds(), Env: goldenEnv}
		res, err := compose.Harden(t.Context(), doc, h)
		_, loads := compose.Load(t.Context(), compose.Options{
			Files: []string{"/a/compose.yaml"}, FS: fstest.MapFS{"a/compose.yaml": {Data: doc}}, Env: goldenEnv,
		})
		if err != nil {
			if loads == nil {
				t.Fatalf("loads, and cannot be hardened: %v", err)
			}
			return
		}
		again, err := compose.Harden(t.Context(), res.Doc, h)
		if err != nil {
			t.Fatalf("no longer loads: %v\n%s", err, res.Doc)
		}
		if string(again.Doc) != string(res.Doc) {
			t.Fatalf("is not idempotent:\n%s\n\n%s", res.Doc, again.Doc)
		}
		if len(res.Changes) == 0 && string(res.Doc) != string(doc) {
			t.Fatal("changed without a change")
		}
	})
}
