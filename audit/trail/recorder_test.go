package trail_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/managemyclaw/hardshell/audit/trail"
)

var plainEvent = trail.Event{
	Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Kind: "remedy.apply", ID: "ssh.root_login",
	Subject: "/etc/ssh/sshd_config", Outcome: "ok", Message: "two\nlines",
}

func TestLines(t *testing.T) {
	var b bytes.Buffer
	l := &trail.Lines{W: &b}
	require.NoError(t, l.Record(t.Context(), plainEvent))
	require.NoError(t, l.Record(t.Context(), trail.Event{Kind: "k", Outcome: "begin"}))
	assert.Equal(t, `{"v":1,"kind":"remedy.apply","time":"2026-03-01T12:00:00Z","subject":"/etc/ssh/sshd_config","outcome":"ok","message":"two\nlines","id":"ssh.root_login"}
{"v":1,"kind":"k","time":"0001-01-01T00:00:00Z","outcome":"begin"}
`, b.String())
}

func TestLinesInAFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "trail.jsonl")
	f, err := os.Create(name)
	require.NoError(t, err)
	l := &trail.Lines{W: f}
	require.NoError(t, l.Record(t.Context(), plainEvent))
	require.NoError(t, f.Close())
	require.ErrorIs(t, l.Record(t.Context(), plainEvent), os.ErrClosed)
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	assert.Equal(t, 1, strings.Count(string(data), "\n"))
}

func TestLinesIntoAPipe(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	require.NoError(t, (&trail.Lines{W: w}).Record(t.Context(), plainEvent), "a pipe cannot be synced, and need not be")
}

// A writer keeps what it can.
type writer struct {
	bytes.Buffer

	room    int // before it fails; negative means none
	syncErr error
	synced  int
}

var errFull = errors.New("disk full")

func (w *writer) Write(p []byte) (int, error) {
	if w.room < 0 || len(p) <= w.room {
		return w.Buffer.Write(p)
	}
	n, _ := w.Buffer.Write(p[:w.room])
	return n, errFull
}

func (w *writer) Sync() error {
	w.synced++
	return w.syncErr
}

func TestLinesReportsWhatIsNotKept(t *testing.T) {
	t.Run("a canceled context", func(t *testing.T) {
		w := &writer{room: -1}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, (&trail.Lines{W: w}).Record(ctx, plainEvent), context.Canceled)
		assert.Zero(t, w.Len())
	})
	t.Run("a failed write", func(t *testing.T) {
		require.ErrorIs(t, (&trail.Lines{W: &writer{}}).Record(t.Context(), plainEvent), errFull)
	})
	t.Run("a failed sync", func(t *testing.T) {
		w := &writer{room: -1, syncErr: syscall.EIO}
		require.ErrorIs(t, (&trail.Lines{W: w}).Record(t.Context(), plainEvent), syscall.EIO)
		assert.Equal(t, 1, w.synced)
	})
	t.Run("a sync that does not apply", func(t *testing.T) {
		w := &writer{room: -1, syncErr: &os.PathError{Op: "sync", Path: "|1", Err: syscall.EINVAL}}
		require.NoError(t, (&trail.Lines{W: w}).Record(t.Context(), plainEvent))
	})
	t.Run("a time that JSON does not have", func(t *testing.T) {
		w := &writer{room: -1}
		require.Error(t, (&trail.Lines{W: w}).Record(t.Context(), trail.Event{Kind: "k", Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}))
		assert.Zero(t, w.Len())
	})
}

// A line that was cut short does not swallow the next.
func TestLinesAfterATornWrite(t *testing.T) {
	w := &writer{room: 10}
	l := &trail.Lines{W: w}
	require.ErrorIs(t, l.Record(t.Context(), plainEvent), errFull)
	w.room = -1
	require.NoError(t, l.Record(t.Context(), plainEvent))
	lines := strings.Split(strings.TrimSuffix(w.String(), "\n"), "\n")
	require.Len(t, lines, 2)
	var got trail.Event
	require.NoError(t, json.Unmarshal([]byte(lines[1]), &got))
	assert.Equal(t, plainEvent, got)
}

func TestLinesConcurrently(t *testing.T) {
	r, w := io.Pipe()
	l := &trail.Lines{W: w}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			assert.NoError(t, l.Record(context.Background(), trail.Event{Kind: trail.Kind(fmt.Sprint(i))}))
		})
	}
	go func() {
		wg.Wait()
		_ = w.Close()
	}()
	seen := make(map[string]bool)
	for s := bufio.NewScanner(r); s.Scan(); {
		var e trail.Event
		require.NoError(t, json.Unmarshal(s.Bytes(), &e))
		seen[string(e.Kind)] = true
	}
	assert.Len(t, seen, 50)
}

func TestDiscard(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.NoError(t, trail.Discard.Record(ctx, plainEvent))
}
