package ledger

import (
	"bytes"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// Whatever an event is, it is read or refused, and what is read can be recorded.
func FuzzEvent(f *testing.F) {
	for _, s := range []string{
		`{"type":"message","timestamp":"2026-11-22T19:04:51.881Z","message":{"role":"assistant","content":[{"type":"toolCall","id":"c","name":"exec","arguments":{"command":"ls"}}],"__openclaw":{"runId":"r"}}}`,
		`{"type":"message","message":{"role":"toolResult","toolCallId":"c","toolName":"exec","isError":true,"details":{"status":"blocked"}}}`,
		`{"type":"message","message":{"role":"assistant","content":[{"type":"toolCall","id":"c","name":"composio__COMPOSIO_MULTI_EXECUTE_TOOL","arguments":{"tools":[{"tool_slug":"A","arguments":{}}]}}]}}`,
		`{"type":"session","version":4}`, `{}`, `[]`, `"toolCall"`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &reading{Ledger: &Ledger{redactor: new(trail.Redactor)}, seen: make(map[string]bool)}
		s := r.session("main", "s")
		if err := s.take(data, time.Unix(0, 0)); err != nil {
			return
		}
		_ = s.take(data, time.Unix(1, 0))
		ids := make(map[string]bool)
		for _, c := range s.calls {
			if ids[c.ID] {
				t.Errorf("two calls are %s", c.ID)
			}
			ids[c.ID] = true
			e := c.Event(nil)
			if err := e.Validate(); err != nil && e.Time.Year() > 0 {
				t.Error(err)
			}
			if !utf8.ValidString(e.Tool) || len(e.Tool) > maxText+10 {
				t.Errorf("%q", e.Tool)
			}
			c.Reconcile()
		}
	})
}

// A bomb has a small window and says nothing of its size.
func TestBomb(t *testing.T) {
	var packed bytes.Buffer
	w, err := zstd.NewWriter(&packed, zstd.WithWindowSize(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	for range 4 * maxEvent / 4096 {
		if _, err := w.Write(make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := inflate(packed.Bytes()); err == nil {
		t.Errorf("%d bytes of %d", len(out), packed.Len())
	}
}

func FuzzInflate(f *testing.F) {
	f.Add([]byte("\x28\xb5\x2f\xfd\x04\x00\x01\x00\x00\x61\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if out, err := inflate(data); err == nil && len(out) > maxEvent {
			t.Errorf("%d bytes", len(out))
		}
	})
}
