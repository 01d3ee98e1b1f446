package ledger_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/reconcile"
	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/harden/openclaw/ledger"
)

func hash(id string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(id))) }

// Every call is read, wherever OpenClaw has it: in a transcript, compressed or
// not, in an archive, in the activity log alone, or as a result without a call.
// What both records have of one call is one call.
func TestToolCalls(t *testing.T) {
	c := newClaw(t)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	c.write(t, "s1",
		`{"type":"session","version":4,"id":"s1","timestamp":"2026-11-22T19:04:19.747Z","cwd":"/"}`,
		message(1, at(1), map[string]any{"role": "user", "content": "please"}),
		asks(2, at(2), "r1", "c1", "exec", map[string]any{"command": "ls", "api_key": "sk-0123456789abcdef0123"}),
		results(3, at(3), "r1", "c1", "exec", false, map[string]any{"status": "completed"}),
		asks(4, at(4), "r1", "c2", "write", map[string]any{"path": "x"}),
		results(5, at(5), "r1", "c2", "write", false, map[string]any{"status": "blocked", "deniedReason": "plugin-before-tool-call"}),
		asks(6, at(6), "r1", "c3", "read", map[string]any{"path": "y"}),
		results(7, at(7), "r1", "c3", "read", true, "what a tool likes"),
		asks(8, at(8), "r1", "c4", "exec", map[string]any{"command": "echo TOKEN=***"}),
		results(9, at(9), "r2", "c5", "nosuch", true, nil),
	)
	big := asks(20, at(20), "r3", "c6", "write", map[string]any{"content": strings.Repeat("a", 100_000)})
	exec1(t, c.agent, "INSERT INTO transcript_events VALUES ('s2', 0, NULL, ?, ?, ?, '{}')", at(20).UnixMilli(), pack(t, big), len(big))
	// A session that went on from the first has its events again.
	c.write(t, "s3", asks(30, at(2), "r1", "c1", "exec", map[string]any{"command": "ls", "api_key": "sk-0123456789abcdef0123"}))
	removed := asks(40, at(40), "r4", "c7", "exec", map[string]any{"command": "rm"}) + "\n" + results(41, at(41), "r4", "c7", "exec", false, nil) + "\n"
	exec1(t, c.agent, "INSERT INTO session_transcript_archives VALUES ('s4', 'g', 'k', 'deleted', 'zstd', ?, '', 'a', 0)", pack(t, removed))
	cold := fmt.Sprintf(`{"kind":"header","version":1,"sessionId":"s5","generation":"g"}`+"\n"+`{"kind":"event","row":{"seq":0,"event_json":%q,"created_at":%d}}`+"\n", asks(50, at(50), "r5", "c8", "exec", map[string]any{}), at(50).UnixMilli())
	exec1(t, c.agent, "INSERT INTO session_transcript_cold_archives VALUES ('s5', 'g', 'sqlite', ?)", pack(t, cold))
	c.act(t, at(2), "s1", "r1", hash("c1"), "exec", "tool.action.started", "started")
	c.act(t, at(3), "s1", "r1", hash("c1"), "exec", "tool.action.finished", "timed_out")
	c.act(t, at(5), "s1", "r1", hash("c2"), "write", "tool.action.finished", "blocked")
	c.act(t, at(60), "s6", "r6", hash("gone"), "exec", "tool.action.started", "started")

	type want struct {
		tool, call string
		status     ledger.Status
		transcript bool
		activity   bool
	}
	wants := []want{
		{"exec", "c7", ledger.StatusSucceeded, true, false},
		{"exec", "c8", "", true, false},
		{"exec", "c1", ledger.StatusTimedOut, true, true},
		{"write", "c2", ledger.StatusBlocked, true, true},
		{"read", "c3", ledger.StatusFailed, true, false},
		{"exec", "c4", "", true, false},
		{"nosuch", "c5", ledger.StatusFailed, true, false},
		{"write", "c6", "", true, false},
		{"exec", "", "", false, true},
	}
	all := c.calls(t)
	var got []want
	ids := make(map[string]bool)
	for _, c := range all {
		got = append(got, want{c.Tool, c.CallID, c.Status, c.InTranscript, c.InActivity})
		ids[c.ID] = true
		if strings.Contains(fmt.Sprintf("%+v %s %+v", c, c.Arguments.View, c.Event(nil)), "sk-0123") {
			t.Errorf("%s: a secret is shown", c.CallID)
		}
		if c.Agent != "main" || c.RunID == "" || c.Time.Before(start) {
			t.Errorf("%+v", c)
		}
	}
	if !slices.Equal(got, wants) || len(ids) != len(wants) {
		t.Errorf("calls %+v\nwant  %+v", got, wants)
	}
	if i := slices.IndexFunc(all, func(c ledger.ToolCall) bool { return c.CallID == "c4" }); i < 0 || !all[i].Masked || all[i].Reconcile().Digest != "" {
		t.Error("what OpenClaw has masked itself has no digest to compare")
	}
	if again := c.calls(t); len(again) != len(all) || again[2].ID != all[2].ID || again[8].ID != all[8].ID {
		t.Error("the ids are others the second time")
	}

	// The same call has the same id when only the activity log has it.
	exec1(t, c.agent, "DELETE FROM transcript_events WHERE session_id IN ('s1', 's3')")
	if i := slices.IndexFunc(c.calls(t), func(d ledger.ToolCall) bool { return d.ID == all[2].ID && !d.InTranscript && d.InActivity }); i < 0 {
		t.Error("c1 is another call once its transcript is gone")
	}
	var in []string
	for c, err := range c.open(t).ToolCalls(t.Context(), at(20), at(50)) {
		if err != nil {
			t.Fatal(err)
		}
		in = append(in, c.CallID)
	}
	if fmt.Sprint(in) != "[c7 c6]" {
		t.Errorf("of a time: %v", in)
	}
}

// A copy is what the database was at one time, later than all that had been
// written when it was begun, whatever a writer in another process does. Nothing
// is written beside the database.
func TestWhileItIsWritten(t *testing.T) {
	c := newClaw(t)
	if err := c.agent.Close(); err != nil {
		t.Fatal(err)
	}
	copies, done := 5, 0
	if s := os.Getenv("HARDSHELL_LEDGER_COPIES"); s != "" {
		copies, _ = strconv.Atoi(s)
	}
	out := startWriter(t, c.agentFile())
	var written atomic.Int64
	written.Store(-1)
	go func() {
		for out.Scan() {
			if n, err := strconv.Atoi(out.Text()); err == nil {
				written.Store(int64(n))
			}
		}
	}()
	for written.Load() < 0 {
		runtime.Gosched()
	}
	busy, last := 0, 0
	for i := 0; done < copies && i < 50*copies; i++ {
		before := written.Load()
		l, err := ledger.Open(t.Context(), c.config(t))
		if err != nil {
			t.Fatal(err)
		}
		all, err := calls(t.Context(), l)
		if e := l.Close(); e != nil {
			t.Fatal(e)
		}
		if errors.Is(err, ledger.ErrBusy) {
			busy++
			continue
		}
		if err != nil {
			t.Fatalf("copy %d: %v", i, err)
		}
		done++
		if int64(len(all)) <= before || len(all) < last {
			t.Fatalf("copy %d has %d calls: %d was written before, and the last copy had %d", i, len(all), before, last)
		}
		last = len(all)
		for n, call := range all {
			if call.CallID != fmt.Sprint("call_", n) || call.Status != ledger.StatusSucceeded {
				t.Fatalf("copy %d: call %d of %d is %s, %q: half a transaction", i, n, len(all), call.CallID, call.Status)
			}
		}
	}
	if done < copies {
		t.Errorf("%d copies, %d times too fast", done, busy)
	}
	t.Logf("%d copies, %d times too fast, %d calls in the last", done, busy, last)
	entries, err := os.ReadDir(filepath.Dir(c.agentFile()))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains([]string{"openclaw-agent.sqlite", "openclaw-agent.sqlite-wal", "openclaw-agent.sqlite-shm"}, e.Name()) {
			t.Errorf("%s is beside the database", e.Name())
		}
	}
}

// While a ledger is open its copies cannot be found, and nothing is left when it
// is closed.
func TestCopiesArePrivate(t *testing.T) {
	c := newClaw(t)
	exec1(t, c.state, "INSERT INTO mcp_oauth_stores VALUES ('a token')")
	conf := c.config(t)
	l, err := ledger.Open(t.Context(), conf)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	_ = filepath.WalkDir(conf.TempDir, func(p string, d fs.DirEntry, _ error) error {
		if !d.IsDir() {
			files = append(files, p)
		} else if info, err := d.Info(); err == nil && p != conf.TempDir && runtime.GOOS != "windows" && info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v", p, info.Mode())
		}
		return nil
	})
	if len(files) > 0 && runtime.GOOS != "windows" {
		t.Errorf("copies can be found: %v", files)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(conf.TempDir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ledger.Open(ctx, conf); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if left, _ := os.ReadDir(conf.TempDir); len(left) > 0 {
		t.Errorf("left behind by one that failed: %v", left)
	}
}

// What was copied into a trail is not copied again; what went on is completed.
// Then the trail and OpenClaw agree, until somebody removes a transcript.
func TestIngest(t *testing.T) {
	c := newClaw(t)
	c.write(t, "s1", asks(1, start, "r1", "c1", "exec", map[string]any{"command": "ls"}), results(2, start, "r1", "c1", "exec", false, nil), asks(3, start.Add(time.Second), "r1", "c2", "exec", nil))
	key, err := trail.GenerateKey("trail.example.com/test")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "trail")
	log, err := trail.Create(dir, key, trail.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	reader := func() *trail.Reader {
		t.Helper()
		r, err := trail.OpenReader(t.Context(), os.DirFS(dir), key.Public())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	ingest := func() ledger.Copy {
		t.Helper()
		done, err := ledger.Ingest(t.Context(), log, nil, reader().Records(t.Context(), trail.Query{Kind: reconcile.KindOpenClaw}), c.open(t).ToolCalls(t.Context(), time.Time{}, time.Time{}))
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	compare := func() *reconcile.Report {
		t.Helper()
		l := c.open(t)
		r := reconcile.Reconciler{Since: start.Add(-time.Hour), Until: start.Add(time.Hour), AsOf: start.Add(2 * time.Hour)}
		since, until := r.Range()
		rep, err := r.Run(t.Context(), reconcile.Sources{
			Records:   reader().Records(t.Context(), trail.Query{Since: since, Until: until}),
			ToolCalls: l.Reconcile(t.Context(), since, until),
		})
		if err != nil {
			t.Fatal(err)
		}
		return rep
	}
	if rep := compare(); rep.Counts[reconcile.Unrecorded] != 2 {
		t.Errorf("before: %+v", rep)
	}
	if got, want := ingest(), (ledger.Copy{Calls: 2, Recorded: 2}); got != want {
		t.Errorf("first: %+v", got)
	}
	if got, want := ingest(), (ledger.Copy{Calls: 2, Known: 2}); got != want {
		t.Errorf("again: %+v", got)
	}
	if rep := compare(); !rep.Clean() || rep.Copies != 2 {
		t.Errorf("after: %+v", rep)
	}
	c.write(t, "s1", results(4, start.Add(time.Minute), "r1", "c2", "exec", true, nil))
	if got, want := ingest(), (ledger.Copy{Calls: 2, Known: 1, Recorded: 1}); got != want {
		t.Errorf("after its end: %+v", got)
	}
	if got, want := ingest(), (ledger.Copy{Calls: 2, Known: 2}); got != want {
		t.Errorf("again: %+v", got)
	}
	exec1(t, c.agent, "UPDATE transcript_events SET event_json = replace(event_json, 'ls', 'id') WHERE seq = 0")
	if rep := compare(); len(rep.Findings) != 1 || rep.Findings[0].Kind != reconcile.OtherArguments {
		t.Errorf("after the arguments were changed: %+v", rep)
	}
	exec1(t, c.agent, "DELETE FROM transcript_events WHERE seq < 2")
	if rep := compare(); len(rep.Findings) != 1 || rep.Findings[0].Kind != reconcile.NotFound || rep.Findings[0].Tool != "exec" {
		t.Errorf("after a call was removed: %+v", rep)
	}
	_, err = ledger.Ingest(t.Context(), log, nil, func(yield func(trail.Record, error) bool) { yield(trail.Record{}, fs.ErrPermission) }, nil)
	if !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a trail that cannot be read: %v", err)
	}
}
