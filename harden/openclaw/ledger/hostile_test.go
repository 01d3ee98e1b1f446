package ledger_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/managemyclaw/hardshell/harden/openclaw/ledger"
)

// What is in a transcript cannot be trusted. A row that cannot be read is
// named, and the others are read.
func TestHostileRows(t *testing.T) {
	deep := `{"type":"message","message":{"role":"assistant","content":[{"type":"toolCall","id":"x","name":"y","arguments":` + strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000) + `}]}}`
	for name, row := range map[string]struct {
		text   any
		packed any
	}{
		"no JSON":                    {"toolCall", nil},
		"nothing":                    {nil, nil},
		"no object":                  {`["toolCall"]`, nil},
		"a message that is a number": {`{"type":"message","message":7,"x":"toolCall"}`, nil},
		"a call that is a number":    {`{"type":"message","message":{"role":"assistant","content":[{"type":"toolCall","id":7}]}}`, nil},
		"too deep":                   {deep, nil},
		"too large":                  {`{"type":"x","a":"` + strings.Repeat("a", 9<<20) + `"}`, nil},
		"no zstd":                    {nil, []byte("nothing of the sort")},
		"half a zstd":                {nil, pack(t, strings.Repeat("toolCall", 1000))[:20]},
		"a bomb":                     {nil, pack(t, strings.Repeat("\x00", 64<<20))},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClaw(t)
			exec1(t, c.agent, "INSERT INTO transcript_events VALUES ('s1', 77, ?, 0, ?, 1, '{}')", row.text, row.packed)
			c.n = 78
			c.write(t, "s1", asks(1, start, "r", "c1", "exec", map[string]any{}))
			before := time.Now()
			all, err := calls(t.Context(), c.open(t))
			if !errors.Is(err, ledger.ErrFormat) || !strings.Contains(err.Error(), `event 77 of session "s1"`) || !strings.Contains(err.Error(), "openclaw-agent.sqlite") {
				t.Errorf("%v", err)
			}
			if len(all) != 1 || all[0].CallID != "c1" {
				t.Errorf("the others: %+v", all)
			}
			if time.Since(before) > 20*time.Second {
				t.Errorf("it took %v", time.Since(before))
			}
		})
	}
}

// Names that an agent has made long or odd are cut, and their calls have ids.
func TestHostileNames(t *testing.T) {
	c := newClaw(t)
	odd := strings.Repeat("ä\x00\n\"", 10_000)
	c.write(t, odd, asks(1, start, odd, odd, odd, odd), results(2, start, odd, odd, odd, false, nil), asks(3, start, odd, odd, odd, odd))
	all := c.calls(t)
	if len(all) != 2 || all[0].ID == all[1].ID || all[0].Status != ledger.StatusSucceeded || all[1].Status != "" {
		t.Fatalf("%d calls", len(all))
	}
	for _, call := range all {
		e := call.Event(nil)
		if err := e.Validate(); err != nil {
			t.Error(err)
		}
		b, err := e.MarshalJSON()
		if err != nil || len(b) > 100_000 {
			t.Errorf("%d bytes, %v", len(b), err)
		}
	}
}

// Another version of OpenClaw is read as long as it has what is needed, and
// what is missing is named.
func TestSchemas(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, c *claw)
		err    error
		says   string
	}{
		"a column more":            {func(t *testing.T, c *claw) { exec1(t, c.agent, "ALTER TABLE transcript_events ADD COLUMN new TEXT") }, nil, ""},
		"no zstd":                  {func(t *testing.T, c *claw) { exec1(t, c.agent, "ALTER TABLE transcript_events DROP COLUMN event_zstd") }, nil, ""},
		"no archives":              {func(t *testing.T, c *claw) { exec1(t, c.agent, "DROP TABLE session_transcript_archives") }, nil, ""},
		"no transcripts":           {func(t *testing.T, c *claw) { exec1(t, c.agent, "DROP TABLE transcript_events") }, ledger.ErrSchema, "table transcript_events"},
		"no event":                 {func(t *testing.T, c *claw) { exec1(t, c.agent, "ALTER TABLE transcript_events DROP COLUMN event_json") }, ledger.ErrSchema, "no column event_json"},
		"no activity":              {func(t *testing.T, c *claw) { exec1(t, c.state, "DROP TABLE audit_events") }, ledger.ErrSchema, "table audit_events"},
		"no list of agents":        {func(t *testing.T, c *claw) { exec1(t, c.state, "DROP TABLE agent_databases") }, ledger.ErrSchema, "table agent_databases"},
		"activity without results": {func(t *testing.T, c *claw) { exec1(t, c.state, "ALTER TABLE audit_events DROP COLUMN status") }, ledger.ErrSchema, "no column status"},
		"a view": {func(t *testing.T, c *claw) {
			exec1(t, c.agent, "ALTER TABLE transcript_events RENAME TO t; CREATE VIEW transcript_events AS WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM x) SELECT n AS session_id, n AS seq, '' AS event_json, 0 AS created_at, NULL AS event_zstd FROM x")
		}, ledger.ErrSchema, "no ordinary table"},
		"a column that is computed": {func(t *testing.T, c *claw) {
			exec1(t, c.agent, "DROP TABLE transcript_events; CREATE TABLE transcript_events (session_id TEXT, seq INTEGER, created_at INTEGER, event_json TEXT AS (hex(zeroblob(100000000))) VIRTUAL)")
		}, ledger.ErrSchema, "no column event_json"},
		"a virtual table": {func(t *testing.T, c *claw) {
			exec1(t, c.agent, "DROP TABLE transcript_events; CREATE VIRTUAL TABLE transcript_events USING fts5(session_id, seq, created_at, event_json)")
		}, ledger.ErrSchema, "no ordinary table"},
		"an agent elsewhere": {func(t *testing.T, c *claw) {
			other := openDB(t, filepath.Join(c.root, "srv", "other.sqlite"), agentSchema)
			exec1(t, other, "INSERT INTO transcript_events VALUES ('s', 0, ?, 0, NULL, 1, NULL)", asks(1, start, "r9", "c9", "exec", nil))
			exec1(t, c.state, "INSERT INTO agent_databases VALUES ('other', '/srv/other.sqlite', 23, 0, 0)")
		}, nil, ""},
		"an agent that is gone": {func(t *testing.T, c *claw) {
			exec1(t, c.state, "INSERT INTO agent_databases VALUES ('gone', 'agents/gone/agent/openclaw-agent.sqlite', 23, 0, 0)")
		}, fs.ErrNotExist, `agent "gone"`},
		"archives in files": {func(t *testing.T, c *claw) {
			exec1(t, c.agent, "INSERT INTO session_transcript_cold_archives VALUES ('s5', 'g', 'file', NULL)")
		}, ledger.ErrArchived, "1 sessions"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newClaw(t)
			c.change(t, w)
			l, err := ledger.Open(t.Context(), w.config(t))
			if err == nil {
				defer l.Close()
				_, err = calls(t.Context(), l)
			}
			if !errors.Is(err, c.err) || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// What lies where a database should be is not followed, waited for or taken for
// one.
func TestNoDatabase(t *testing.T) {
	for name, c := range map[string]struct {
		file fstest.MapFile
		err  error
	}{
		"nothing":       {fstest.MapFile{}, ledger.ErrFormat},
		"a text":        {fstest.MapFile{Data: bytes.Repeat([]byte("hello"), 1000)}, ledger.ErrFormat},
		"a directory":   {fstest.MapFile{Mode: fs.ModeDir | 0o700}, ledger.ErrFormat},
		"a device":      {fstest.MapFile{Mode: fs.ModeDevice}, ledger.ErrFormat},
		"a pipe":        {fstest.MapFile{Mode: fs.ModeNamedPipe}, ledger.ErrFormat},
		"a journal":     {fstest.MapFile{Data: append([]byte("SQLite format 3\x00\x10\x00\x01\x01"), make([]byte, 4096)...)}, ledger.ErrFormat},
		"a header only": {fstest.MapFile{Data: append([]byte("SQLite format 3\x00\x10\x00\x02\x02"), make([]byte, 4076)...)}, ledger.ErrDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			conf := ledger.Config{FS: fstest.MapFS{"s/state/openclaw.sqlite": &c.file}, StateDir: "/s", TempDir: t.TempDir()}
			if _, err := ledger.Open(t.Context(), conf); !errors.Is(err, c.err) {
				t.Errorf("error %v", err)
			}
		})
	}
	w := newClaw(t)
	conf := w.config(t)
	if conf.MaxBytes = 10; true {
		if _, err := ledger.Open(t.Context(), conf); !errors.Is(err, ledger.ErrFormat) || !strings.Contains(err.Error(), "larger") {
			t.Errorf("too large: %v", err)
		}
	}
	if _, err := ledger.Open(t.Context(), ledger.Config{}); err == nil {
		t.Error("no file system")
	}
	if _, err := ledger.Open(t.Context(), ledger.Config{FS: conf.FS, StateDir: "x"}); err == nil {
		t.Error("a relative directory")
	}
	if _, err := ledger.Open(t.Context(), ledger.Config{FS: conf.FS, StateDir: "/x"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no OpenClaw: %v", err)
	}
}

// files returns the files of an OpenClaw in memory, as they are while it runs.
func (c *claw) files(t testing.TB) fstest.MapFS {
	t.Helper()
	m := make(fstest.MapFS)
	err := fs.WalkDir(os.DirFS(c.root), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(p, "-shm") {
			return err
		}
		data, err := os.ReadFile(filepath.Join(c.root, p))
		m[p] = &fstest.MapFile{Data: data}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func sample(t testing.TB) fstest.MapFS {
	c := newClaw(t)
	for n := range 40 {
		id := fmt.Sprint("c", n)
		c.write(t, "s1", asks(n, start, "r", id, "exec", map[string]any{"command": strings.Repeat("x", 200)}), results(n, start, "r", id, "exec", false, nil))
		c.act(t, start, "s1", "r", hash(id), "exec", "tool.action.finished", "succeeded")
	}
	return c.files(t)
}

// Cut or changed anywhere, a database either is not read, or SQLite finds it to
// be whole: nothing crashes. A log that is cut is one with fewer commits.
func TestDamage(t *testing.T) {
	files := sample(t)
	runs := 25
	if s := os.Getenv("HARDSHELL_LEDGER_DAMAGE"); s != "" {
		runs, _ = strconv.Atoi(s)
	}
	read, refused := 0, 0
	for seed := range runs {
		rng := rand.New(rand.NewPCG(uint64(seed), 9))
		m := make(fstest.MapFS)
		for p, f := range files {
			m[p] = &fstest.MapFile{Data: bytes.Clone(f.Data)}
		}
		names := []string{"home/node/.openclaw/state/openclaw.sqlite", "home/node/.openclaw/agents/main/agent/openclaw-agent.sqlite"}
		log := rng.IntN(2) == 0
		f := m[names[rng.IntN(2)]+map[bool]string{true: "-wal"}[log]]
		cut := rng.IntN(3) == 0
		if cut {
			f.Data = f.Data[:rng.IntN(len(f.Data)+1)]
		} else {
			for range 1 + rng.IntN(20) {
				f.Data[rng.IntN(len(f.Data))] ^= byte(1 + rng.IntN(255))
			}
		}
		l, err := ledger.Open(t.Context(), ledger.Config{FS: m, TempDir: t.TempDir()})
		if err == nil {
			var all []ledger.ToolCall
			// What a changed page says is not told from what was written, but
			// nothing of the log is passed over but the last transaction.
			all, err = calls(t.Context(), l)
			transcript, activity := 0, 0
			for _, c := range all {
				if c.InTranscript {
					transcript++
				}
				if c.InActivity {
					activity++
				}
			}
			if len(all) > 200 || err == nil && log && !cut && min(transcript, activity) < 39 {
				t.Errorf("seed %d: %d calls, %d in transcripts, %d in the activity log", seed, len(all), transcript, activity)
			}
			_ = l.Close()
		}
		if err == nil {
			read++
			continue
		}
		refused++
		if !errors.Is(err, ledger.ErrFormat) && !errors.Is(err, ledger.ErrDamaged) && !errors.Is(err, ledger.ErrSchema) && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
	t.Logf("%d were read, %d refused", read, refused)
	if refused == 0 {
		t.Error("nothing was damaged")
	}
}

func FuzzDatabase(f *testing.F) {
	for _, file := range sample(f) {
		if len(file.Data) < 100_000 {
			f.Add(file.Data)
		}
	}
	state := sample(f)["home/node/.openclaw/state/openclaw.sqlite"].Data
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ledger.Open(t.Context(), ledger.Config{TempDir: t.TempDir(), FS: fstest.MapFS{
			"home/node/.openclaw/state/openclaw.sqlite":                       {Data: state},
			"home/node/.openclaw/state/openclaw.sqlite-wal":                   {Data: data},
			"home/node/.openclaw/agents/main/agent/openclaw-agent.sqlite":     {Data: data},
			"home/node/.openclaw/agents/main/agent/openclaw-agent.sqlite-wal": {Data: data},
		}})
		if err != nil {
			return
		}
		defer l.Close()
		_, _ = calls(t.Context(), l)
	})
}
