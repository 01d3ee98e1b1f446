package audit_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/harden"
)

// Whatever is accepted is complete, takes part in an audit, and survives being
// written and read again.
func FuzzParseWaivers(f *testing.F) {
	f.Add([]byte(`[` + goodWaiver + `]`))
	f.Add([]byte(`[{"id":"a.b","scope":"[a-z]\\*","owner":"\ud800","reason":"r","expires":"9999-12-30"}]`))
	f.Add([]byte(`[{"id":"a","owner":"o","reason":"r","expires":"0000-01-01"},{"id":"a","scope":"*","owner":"o","reason":"r","expires":"2030-01-01T00:00:00.123456789-23:59"}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		waivers, err := audit.ParseWaivers(bytes.NewReader(data))
		if err != nil {
			if waivers != nil || !strings.HasPrefix(err.Error(), "audit: ") {
				t.Fatalf("%v beside error %v", waivers, err)
			}
			return
		}
		for _, w := range waivers {
			if w.ID == "" || w.Owner == "" || w.Reason == "" || w.Expires.IsZero() {
				t.Fatalf("incomplete: %+v", w)
			}
		}
		written, err := json.Marshal(waivers)
		if err != nil {
			t.Fatal(err)
		}
		again, err := audit.ParseWaivers(bytes.NewReader(written))
		if err != nil || !reflect.DeepEqual(waivers, again) {
			t.Fatalf("%+v\nbecame %+v, %v", waivers, again, err)
		}
		auditor := audit.Auditor{Waivers: waivers}
		rep, err := auditor.Run(t.Context(), nil, check("a.b", 1, failing(on("x"))))
		if err != nil {
			t.Fatal(err)
		}
		if n := len(rep.Results); len(waivers) > 0 && (n != 2 || rep.Results[1].Status == harden.StatusUnknown) {
			t.Fatalf("no verdict on the waivers: %+v", rep.Results)
		}
	})
}
