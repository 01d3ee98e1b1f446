package ledger_test

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/harden/openclaw/ledger"
)

// A meddler is a file system in which something happens at one of the reads of
// an agent's database and its log.
type meddler struct {
	fs.FS
	reads, at int
	meddle    func()
}

type meddled struct {
	fs.File
	m *meddler
}

func (m *meddler) Open(name string) (fs.File, error) {
	f, err := m.FS.Open(name)
	if err != nil || !strings.Contains(name, "openclaw-agent.sqlite") {
		return f, err
	}
	return meddled{f, m}, nil
}

func (f meddled) Read(b []byte) (int, error) {
	if f.m.reads++; f.m.reads == f.m.at {
		f.m.meddle()
	}
	return f.File.Read(b)
}

// Whatever the writer does between two reads, and whichever they are, what is
// copied is one state of the database.
func TestAtEveryRead(t *testing.T) {
	all := func(n int) string { // every page changes
		return fmt.Sprintf("UPDATE transcript_events SET event_json = replace(event_json, '\"runId\":\"r%d\"', '\"runId\":\"r%d\"')", n, n+1)
	}
	one := "UPDATE transcript_events SET event_utf8_bytes = event_utf8_bytes + 1 WHERE seq = 0"
	for name, what := range map[string][]string{
		"written and brought over":         {"all", "PRAGMA wal_checkpoint(PASSIVE)"},
		"brought over, and a new log":      {"all", "PRAGMA wal_checkpoint(RESTART)", one},
		"brought over, and an empty log":   {"all", "PRAGMA wal_checkpoint(TRUNCATE)"},
		"an empty log, and a new one":      {"all", "PRAGMA wal_checkpoint(TRUNCATE)", one},
		"twice, with an empty log at last": {"all", "PRAGMA wal_checkpoint(TRUNCATE)", "all", "PRAGMA wal_checkpoint(TRUNCATE)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, log := range []string{"TRUNCATE", "RESTART"} {
				c := newClaw(t)
				for n := range 40 {
					c.write(t, "s", asks(n, start, "r0", fmt.Sprint("c", n), "exec", map[string]string{"command": strings.Repeat("x", 1500)}))
				}
				run := 0
				for at := 1; at < 60; at++ {
					exec1(t, c.agent, "PRAGMA wal_checkpoint(TRUNCATE)")
					if log == "RESTART" { // the log is not empty at first
						exec1(t, c.agent, one)
					}
					m := &meddler{FS: os.DirFS(c.root), at: at}
					m.meddle = func() {
						for _, q := range what {
							if q == "all" {
								q = all(run)
								run++
							}
							exec1(t, c.agent, q)
						}
					}
					conf := c.config(t)
					conf.FS = m
					l, err := ledger.Open(t.Context(), conf)
					if err != nil {
						t.Fatal(err)
					}
					got, err := calls(t.Context(), l)
					_ = l.Close()
					if err != nil {
						t.Fatalf("log %q, read %d: %v", log, at, err)
					}
					if len(got) != 40 && len(got) != 21 {
						t.Fatalf("log %q, read %d: %d calls", log, at, len(got))
					}
					for _, call := range got {
						if call.RunID != got[0].RunID {
							t.Fatalf("log %q, read %d: a call of run %s beside one of %s", log, at, call.RunID, got[0].RunID)
						}
					}
					if m.reads < at {
						break // there are no more
					}
				}
			}
		})
	}
}
