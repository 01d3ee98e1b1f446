package trail_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// A pin file follows a log, and refuses another.
func TestPinFile(t *testing.T) {
	w := create(t, trail.Config{SegmentBytes: 3000})
	pin := &trail.PinFile{Path: filepath.Join(t.TempDir(), "pin"), Key: w.key.Public()}
	if _, err := pin.Read(); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	for n := range 12 {
		w.record(t, 2*n, 2*n+2)
		c, err := w.log.Witness(t.Context(), pin)
		if err != nil || c.Size != int64(2*n+2) {
			t.Fatal(c, err)
		}
		if got, err := pin.Read(); err != nil || got.Note() != c.Note() {
			t.Fatal(got, err)
		}
	}
	old, _ := pin.Read()
	w.record(t, 24, 25)
	w.close(t)
	all := w.files(t)

	t.Run("an old copy of the log", func(t *testing.T) {
		m := clone(all)
		name := segmentOf(m, 22)
		m[name].Data = m[name].Data[:frameAt(m[name].Data, `{"seq":22,`)]
		for n := range m {
			if n > name {
				delete(m, n)
			}
		}
		put(t, w.dir, m)
		_, err := trail.Open(w.dir, w.key, trail.Config{Pinned: []trail.Checkpoint{old}})
		wantDamage(t, err, trail.DamageTruncated)
		w.open(t, trail.Config{})
		defer w.log.Close()
		if _, err := w.log.Witness(t.Context(), pin); !errors.Is(err, trail.ErrForked) {
			t.Errorf("the pin: %v", err)
		}
	})
	t.Run("another log by the same key", func(t *testing.T) {
		put(t, w.dir, rewritten(t, w, 40))
		_, err := trail.Open(w.dir, w.key, trail.Config{Pinned: []trail.Checkpoint{old}})
		wantDamage(t, err, trail.DamageRewritten)
		w.open(t, trail.Config{})
		defer w.log.Close()
		if _, err := w.log.Witness(t.Context(), pin); !errors.Is(err, trail.ErrForked) {
			t.Errorf("the pin: %v", err)
		}
		if got, _ := pin.Read(); got.Note() != old.Note() {
			t.Error("the pin was overwritten")
		}
	})
	t.Run("the log itself", func(t *testing.T) {
		put(t, w.dir, all)
		w.open(t, trail.Config{Pinned: []trail.Checkpoint{old}})
		defer w.log.Close()
		if _, err := w.log.Witness(t.Context(), pin); err != nil {
			t.Error(err)
		}
	})
	t.Run("a pin that was damaged", func(t *testing.T) {
		data, _ := os.ReadFile(pin.Path)
		if err := os.WriteFile(pin.Path, []byte(strings.Replace(string(data), "25", "26", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := pin.Read(); !errors.Is(err, trail.ErrCheckpoint) {
			t.Error(err)
		}
	})
}
