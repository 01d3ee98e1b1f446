package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// DefaultMaxBytes is how large a database may be.
const DefaultMaxBytes = 8 << 30

// maxBlob is how much SQLite may hand out at once: an archived transcript.
const maxBlob = 128 << 20

// StateDir is where OpenClaw keeps its state in its image.
const StateDir = "/home/node/.openclaw"

// A Config says what to read. FS is required.
type Config struct {
	// FS is the file tree that OpenClaw sees, rooted at "/": such as
	// host.View.FS of a machine, or os.DirFS("/proc/PID/root") of a
	// container.
	FS fs.FS

	// StateDir is OpenClaw's state directory, absolute, in FS. Empty means
	// the constant StateDir.
	StateDir string

	// TempDir is the directory for the copies, which need as much space as
	// the databases. Empty means that of the system. They are as secret as
	// OpenClaw's own: a file system in memory is a good place.
	TempDir string

	// MaxBytes is how large a database, or its log, may be. Zero means
	// DefaultMaxBytes.
	MaxBytes int64

	// Redactor takes secrets out of arguments. The digest is the same as that
	// of a gateway only if the gateway has the same. Nil means the zero one.
	Redactor *trail.Redactor
}

// A Ledger reads a copy of OpenClaw's records, as they were when it was opened.
// Its methods must not be called concurrently. Close it.
type Ledger struct {
	redactor *trail.Redactor
	taken    time.Time
	dir      string
	state    *database
	agents   []agent
	gaps     []error // what could not be read of what should be there
}

type agent struct {
	id string
	db *database
}

// Open copies OpenClaw's databases and opens the copies. A database of an agent
// that is missing, damaged or of another schema is not an error here: the
// others are read, and ToolCalls ends with the error. The error wraps
// io/fs.ErrNotExist if there is no state, [ErrBusy] if it changes too fast,
// and [ErrFormat], [ErrSchema] or [ErrDamaged] if it cannot be read.
func Open(ctx context.Context, c Config) (*Ledger, error) {
	if c.FS == nil {
		return nil, errors.New("ledger: Config.FS is required")
	}
	if c.StateDir == "" {
		c.StateDir = StateDir
	}
	if !path.IsAbs(c.StateDir) {
		return nil, fmt.Errorf("ledger: the state directory %q is not absolute", c.StateDir)
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	dir, err := os.MkdirTemp(c.TempDir, "ledger-")
	if err != nil {
		return nil, fmt.Errorf("ledger: make a directory for the copies: %w", err)
	}
	l := &Ledger{redactor: c.Redactor, taken: time.Now(), dir: dir}
	if l.redactor == nil {
		l.redactor = new(trail.Redactor)
	}
	if err := l.read(ctx, &c); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// read copies and opens all databases.
func (l *Ledger) read(ctx context.Context, c *Config) (err error) {
	root := inFS(c.StateDir)
	if l.state, err = l.copy(ctx, c, path.Join(root, "state", "openclaw.sqlite"), "state"); err != nil {
		return err
	}
	if err := l.openState(ctx); err != nil {
		return err
	}
	files, err := l.agentFiles(ctx, c, root)
	if err != nil {
		return err
	}
	for i, f := range files {
		db, err := l.copy(ctx, c, f.file, fmt.Sprint("agent-", i))
		if err == nil {
			if err = db.transcripts(ctx); err == nil {
				l.agents = append(l.agents, agent{f.id, db})
				continue
			}
			db.close()
		}
		if ctx.Err() != nil {
			return err
		}
		l.gaps = append(l.gaps, fmt.Errorf("agent %q: %w", f.id, err))
	}
	return nil
}

// inFS returns an absolute path as [io/fs] has it.
func inFS(p string) string {
	if p = strings.TrimPrefix(path.Clean(p), "/"); p == "" {
		return "."
	}
	return p
}

// copy copies a database and opens the copy. The files are gone from their
// directory at once, where an open file can be removed.
func (l *Ledger) copy(ctx context.Context, c *Config, name, as string) (*database, error) {
	to := filepath.Join(l.dir, as+".sqlite")
	if err := snapshot(ctx, c.FS, name, to, c.MaxBytes); err != nil {
		return nil, err
	}
	d, err := openDatabase(ctx, name, to)
	for _, end := range []string{"", "-wal", "-shm", "-journal"} {
		_ = os.Remove(to + end) // or else by Close
	}
	return d, err
}

// Close removes the copies.
func (l *Ledger) Close() error {
	if l.state != nil {
		l.state.close()
	}
	for _, a := range l.agents {
		a.db.close()
	}
	if err := os.RemoveAll(l.dir); err != nil {
		return fmt.Errorf("ledger: remove the copies: %w", err)
	}
	return nil
}

// Taken returns when the copies were begun: what happened later may be missing.
func (l *Ledger) Taken() time.Time { return l.taken }

// Agents returns the agents whose transcripts can be read.
func (l *Ledger) Agents() []string {
	var ids []string
	for _, a := range l.agents {
		ids = append(ids, a.id)
	}
	return ids
}

func (l *Ledger) openState(ctx context.Context) error {
	ok, err := l.state.table(ctx, "audit_events", "sequence", "occurred_at", "kind", "action", "status", "agent_id", "session_id", "run_id", "tool_call_id", "tool_name")
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: %s: there is no table audit_events", ErrSchema, l.state.name)
	}
	if ok, err = l.state.table(ctx, "agent_databases", "agent_id", "path"); err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: %s: there is no table agent_databases", ErrSchema, l.state.name)
	}
	return l.state.confine("audit_events", "agent_databases")
}

type agentFile struct{ id, file string }

// agentFiles returns the databases of agents: those that OpenClaw has a list
// of, and those that are where they are by default.
func (l *Ledger) agentFiles(ctx context.Context, c *Config, root string) ([]agentFile, error) {
	var files []agentFile
	add := func(id, file string) {
		if !slices.ContainsFunc(files, func(f agentFile) bool { return f.file == file }) {
			files = append(files, agentFile{id, file})
		}
	}
	rows, err := l.state.conn.QueryContext(ctx, "SELECT agent_id, path FROM agent_databases ORDER BY agent_id, path LIMIT 10000")
	if err != nil {
		return nil, l.state.wrap(err)
	}
	defer closeRead(rows)
	for rows.Next() {
		var id, file string
		if err := rows.Scan(&id, &file); err != nil {
			return nil, l.state.wrap(err)
		}
		if !path.IsAbs(file) {
			file = path.Join("/", root, file)
		}
		if file = inFS(file); fs.ValidPath(file) {
			add(id, file)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, l.state.wrap(err)
	}
	entries, err := fs.ReadDir(c.FS, path.Join(root, "agents"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	for _, e := range entries {
		file := path.Join(root, "agents", e.Name(), "agent", "openclaw-agent.sqlite")
		if _, err := fs.Stat(c.FS, file); err == nil {
			add(e.Name(), file)
		} else if !errors.Is(err, fs.ErrNotExist) {
			l.gaps = append(l.gaps, fmt.Errorf("agent %q: ledger: %w", e.Name(), err))
		}
	}
	return files, nil
}
