package ledger_test

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	_ "modernc.org/sqlite"

	"github.com/managemyclaw/hardshell/harden/openclaw/ledger"
)

// The tables as version 2026.9.6 of OpenClaw makes them, without those columns
// of the activity log that are about messages, and without foreign keys.
const (
	stateSchema = `CREATE TABLE audit_events (
		sequence INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE, source_id TEXT NOT NULL UNIQUE,
		schema_version INTEGER NOT NULL DEFAULT 1, source_sequence INTEGER NOT NULL, occurred_at INTEGER NOT NULL, kind TEXT NOT NULL,
		action TEXT NOT NULL, status TEXT NOT NULL, error_code TEXT, actor_type TEXT NOT NULL, actor_id TEXT NOT NULL,
		agent_id TEXT, session_key TEXT, session_id TEXT, run_id TEXT, tool_call_id TEXT, tool_name TEXT) STRICT;
		CREATE TABLE agent_databases (agent_id TEXT NOT NULL, path TEXT NOT NULL, schema_version INTEGER NOT NULL,
		last_seen_at INTEGER NOT NULL, size_bytes INTEGER, PRIMARY KEY (agent_id, path)) STRICT;
		CREATE TABLE mcp_oauth_stores (store_json TEXT);
		PRAGMA user_version = 18;`
	agentSchema = `CREATE TABLE transcript_events (
		session_id TEXT NOT NULL, seq INTEGER NOT NULL, event_json TEXT, created_at INTEGER NOT NULL, event_zstd BLOB,
		event_utf8_bytes INTEGER, navigation_json TEXT, PRIMARY KEY (session_id, seq)) STRICT;
		CREATE TABLE session_transcript_archives (session_id TEXT NOT NULL, generation TEXT NOT NULL, session_key TEXT NOT NULL,
		reason TEXT NOT NULL, encoding TEXT NOT NULL, archive_blob BLOB NOT NULL, archive_sha256 TEXT NOT NULL, archive_name TEXT NOT NULL UNIQUE,
		created_at INTEGER NOT NULL, PRIMARY KEY (session_id, generation)) STRICT;
		CREATE TABLE session_transcript_cold_archives (session_id TEXT NOT NULL PRIMARY KEY, generation TEXT NOT NULL,
		storage TEXT NOT NULL, archive_blob BLOB) STRICT;
		PRAGMA user_version = 23;`
)

var start = time.Date(2026, 11, 22, 19, 4, 0, 0, time.UTC)

// A claw is the state directory of an OpenClaw, with writers that are open, as
// those of a running one are.
type claw struct {
	root         string // of the file tree
	state, agent *sql.DB
	n            int // events so far
}

const stateDir = "/home/node/.openclaw"

func newClaw(t testing.TB) *claw {
	t.Helper()
	c := &claw{root: t.TempDir()}
	c.state = openDB(t, filepath.Join(c.dir(), "state", "openclaw.sqlite"), stateSchema)
	c.agent = openDB(t, c.agentFile(), agentSchema)
	exec1(t, c.state, "INSERT INTO agent_databases VALUES ('main', 'agents/main/agent/openclaw-agent.sqlite', 23, 0, 0)")
	return c
}

func (c *claw) dir() string { return filepath.Join(c.root, filepath.FromSlash(stateDir)) }

func (c *claw) agentFile() string {
	return filepath.Join(c.dir(), "agents", "main", "agent", "openclaw-agent.sqlite")
}

func openDB(t testing.TB, file, schema string) *sql.DB {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+filepath.ToSlash(file)+"?_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=wal_autocheckpoint(0)&_pragma=auto_vacuum(2)")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	exec1(t, db, schema)
	return db
}

func exec1(t testing.TB, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.Exec(query, args...); err != nil {
		t.Fatalf("%.80s: %v", query, err)
	}
}

func message(n int, at time.Time, body map[string]any) string {
	b, err := json.Marshal(map[string]any{"type": "message", "id": fmt.Sprint("e", n), "parentId": nil, "timestamp": at.Format("2006-01-02T15:04:05.000Z"), "message": body})
	if err != nil {
		panic(err)
	}
	return string(b)
}

func asks(n int, at time.Time, run, id, tool string, arguments any) string {
	return message(n, at, map[string]any{
		"role": "assistant", "content": []any{map[string]any{"type": "text", "text": "well"}, map[string]any{"type": "toolCall", "id": id, "name": tool, "arguments": arguments}},
		"__openclaw": map[string]any{"runId": run},
	})
}

func results(n int, at time.Time, run, id, tool string, isError bool, details any) string {
	return message(n, at, map[string]any{
		"role": "toolResult", "toolCallId": id, "toolName": tool, "content": []any{}, "isError": isError, "details": details,
		"__openclaw": map[string]any{"runId": run},
	})
}

// write writes events into a transcript.
func (c *claw) write(t testing.TB, session string, events ...string) {
	t.Helper()
	for _, e := range events {
		exec1(t, c.agent, "INSERT INTO transcript_events VALUES (?, ?, ?, ?, NULL, ?, NULL)", session, c.n, e, start.Add(time.Duration(c.n)*time.Second).UnixMilli(), len(e))
		c.n++
	}
}

// act writes rows into the activity log.
func (c *claw) act(t testing.TB, at time.Time, session, run, hash, tool, action, status string) {
	t.Helper()
	c.n++
	exec1(t, c.state, `INSERT INTO audit_events (event_id, source_id, source_sequence, occurred_at, kind, action, status, actor_type, actor_id, agent_id, session_id, run_id, tool_call_id, tool_name)
		VALUES (?1, ?1, 1, ?2, 'tool_action', ?3, ?4, 'agent', 'main', 'main', ?5, ?6, ?7, ?8)`, fmt.Sprint(c.n), at.UnixMilli(), action, status, session, run, hash, tool)
}

func (c *claw) config(t testing.TB) ledger.Config {
	return ledger.Config{FS: os.DirFS(c.root), StateDir: stateDir, TempDir: t.TempDir()}
}

func (c *claw) open(t testing.TB) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(t.Context(), c.config(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// calls reads all calls.
func calls(ctx context.Context, l *ledger.Ledger) (all []ledger.ToolCall, err error) {
	for c, err := range l.ToolCalls(ctx, time.Time{}, time.Time{}) {
		if err != nil {
			return all, err
		}
		all = append(all, c)
	}
	return all, nil
}

func (c *claw) calls(t testing.TB) []ledger.ToolCall {
	t.Helper()
	all, err := calls(t.Context(), c.open(t))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func pack(t testing.TB, text string) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll([]byte(text), nil)
}

// The writer is another process, as OpenClaw is: it writes two events a
// transaction, and brings its log over in every way there is.
func TestMain(m *testing.M) {
	if root := os.Getenv("LEDGER_TEST_WRITER"); root != "" {
		if err := writer(root); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func writer(file string) error {
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)&_pragma=wal_autocheckpoint(200)")
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	in := bufio.NewScanner(os.Stdin)
	padding := strings.Repeat("x", 3000)
	for n := 0; ; n++ {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		id, at := fmt.Sprint("call_", n), start.Add(time.Duration(n)*time.Millisecond)
		for i, e := range []string{asks(2*n, at, "run", id, "exec", map[string]string{"command": padding}), results(2*n+1, at, "run", id, "exec", false, nil)} {
			if _, err := tx.Exec("INSERT INTO transcript_events VALUES ('s', ?, ?, ?, NULL, ?, NULL)", 2*n+i, e, at.UnixMilli(), len(e)); err != nil {
				return err
			}
		}
		// Pages that were written before are written again.
		if _, err := tx.Exec("UPDATE transcript_events SET event_utf8_bytes = ? WHERE seq % 7 = ?", n, n%7); err != nil {
			return err
		}
		if err := tx.Commit(); err != nil {
			return err
		}
		if n%150 == 149 {
			mode := []string{"PASSIVE", "RESTART", "TRUNCATE"}[n/150%3]
			if _, err := db.Exec("PRAGMA wal_checkpoint(" + mode + ")"); err != nil {
				return err
			}
		}
		if n%10 == 0 {
			// Whoever reads this line knows that call n is there, and lets
			// the writer go on.
			fmt.Println(n)
			if !in.Scan() {
				return in.Err()
			}
		}
	}
}

func startWriter(t *testing.T, file string) *bufio.Scanner {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "LEDGER_TEST_WRITER="+file)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	go func() {
		for { // it may always go on: it only must not stop for want of a reader
			if _, err := fmt.Fprintln(in); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	return bufio.NewScanner(out)
}
