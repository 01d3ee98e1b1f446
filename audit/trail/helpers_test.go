package trail_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// long is set to run the tests in full that the default run shortens.
var long = os.Getenv("HARDSHELL_LONG") != ""

// A world is a log in a directory of its own.
type world struct {
	dir string
	key *trail.Key
	log *trail.Log
}

func create(t testing.TB, c trail.Config) *world {
	t.Helper()
	key, err := trail.GenerateKey("trail.example.com/test")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{dir: filepath.Join(t.TempDir(), "trail"), key: key}
	if w.log, err = trail.Create(w.dir, key, c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.log.Close() })
	return w
}

func (w *world) close(t testing.TB) {
	t.Helper()
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
}

func (w *world) open(t testing.TB, c trail.Config) {
	t.Helper()
	var err error
	if w.log, err = trail.Open(w.dir, w.key, c); err != nil {
		t.Fatal(err)
	}
}

// event returns an event like those that a gateway records.
func event(n int) trail.Event {
	return trail.Event{
		Kind: trail.KindToolCall, Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Second),
		Actor: "agent/inbox", Agent: "inbox", Tool: "GMAIL_SEND_EMAIL",
		Arguments: trail.Arguments{Digest: "sha256:" + fmt.Sprintf("%064x", n), View: []byte(`{"to":"ann@example.com","subject":"hello"}`)},
		Decision:  trail.DecisionAllow, Outcome: trail.OutcomeOK,
		ID: fmt.Sprint(n), RequestID: fmt.Sprintf("req_%08d", n), ToolCallID: "call_A1b2C3d4", LogID: "log_x1y2z3",
	}
}

// record records the events with numbers from first up to end, by several
// writers if there are many.
func (w *world) record(t testing.TB, first, end int) {
	t.Helper()
	for n := first; n < end; n++ {
		if err := w.log.Record(context.Background(), event(n)); err != nil {
			t.Fatal(err)
		}
	}
}

// bulk records n events by 64 writers.
func (w *world) bulk(t testing.TB, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for j := i; j < n; j += 64 {
				if err := w.log.Record(context.Background(), event(j)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func (w *world) fs() fs.FS { return os.DirFS(w.dir) }

func (w *world) verifier() *trail.Verifier { return &trail.Verifier{Key: w.key.Public()} }

func (w *world) verify(t testing.TB) trail.Summary {
	t.Helper()
	s, err := w.verifier().Verify(context.Background(), w.fs())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (w *world) reader(t testing.TB) *trail.Reader {
	t.Helper()
	r, err := trail.OpenReader(t.Context(), w.fs(), w.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// files returns a copy of the log in memory.
func (w *world) files(t testing.TB) fstest.MapFS {
	t.Helper()
	m := make(fstest.MapFS)
	names, err := filepath.Glob(filepath.Join(w.dir, "*.???"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		m[filepath.Base(name)] = &fstest.MapFile{Data: data}
	}
	return m
}

// put makes the files in dir those of m.
func put(t testing.TB, dir string, m fstest.MapFS) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, m); err != nil {
		t.Fatal(err)
	}
	for name := range m {
		if err := os.Chmod(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// clone returns a copy of m that can be changed.
func clone(m fstest.MapFS) fstest.MapFS {
	c := maps.Clone(m)
	for name, f := range c {
		c[name] = &fstest.MapFile{Data: append([]byte(nil), f.Data...)}
	}
	return c
}

// wantDamage returns err as damage of the given kind.
func wantDamage(t testing.TB, err error, kind trail.Damage) *trail.DamageError {
	t.Helper()
	d, ok := errors.AsType[*trail.DamageError](err)
	if !ok {
		t.Fatalf("want damage of kind %q, got %v", kind, err)
	}
	if d.Kind != kind {
		t.Fatalf("want damage of kind %q, got %v", kind, err)
	}
	return d
}
