package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// ErrSchema reports a database that lacks a table or a column that is needed,
// or in which it is something else: OpenClaw is of another version, or the
// database is not as OpenClaw made it.
var ErrSchema = errors.New("ledger: the schema is not one that can be read")

// ErrDamaged reports a database in which SQLite has found damage.
var ErrDamaged = errors.New("ledger: the database is damaged")

// A database is an open copy. It has one connection.
type database struct {
	name string // of what it is a copy, for errors
	db   *sql.DB
	conn *sql.Conn

	zstd          bool // events may be compressed
	removed, cold bool // there are tables of archives
}

// defences are what SQLite's own documentation asks for of a file that an
// attacker may have made ("Defense Against The Dark Arts").
var defences = []string{
	"trusted_schema(0)", "cell_size_check(1)", "mmap_size(0)", "temp_store(2)", "query_only(1)",
	"locking_mode(EXCLUSIVE)", // which also does without a file of shared memory
}

var limits = map[int]int{
	sqlite3.SQLITE_LIMIT_LENGTH:         maxBlob,
	sqlite3.SQLITE_LIMIT_SQL_LENGTH:     1 << 20,
	sqlite3.SQLITE_LIMIT_COLUMN:         500,
	sqlite3.SQLITE_LIMIT_EXPR_DEPTH:     100,
	sqlite3.SQLITE_LIMIT_ATTACHED:       0,
	sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH:  1,
	sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}

func openDatabase(ctx context.Context, name, file string) (*database, error) {
	file, err := filepath.Abs(file)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	path := filepath.ToSlash(file)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{"_pragma": defences, "_defensive": {"1"}, "mode": {"rw"}}.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("ledger: open the copy of %s: %w", name, err)
	}
	db.SetMaxOpenConns(1)
	d := &database{name: name, db: db}
	if err := d.defend(ctx); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// defend connects, and bounds what SQLite may do.
func (d *database) defend(ctx context.Context) (err error) {
	if d.conn, err = d.db.Conn(ctx); err != nil {
		return d.wrap(err)
	}
	for id, value := range limits {
		if _, err := sqlite.Limit(d.conn, id, value); err != nil {
			return d.wrap(err)
		}
	}
	var tables int // so that the files are open
	if err := d.conn.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
		return d.wrap(err)
	}
	return nil
}

func (d *database) close() {
	if d.conn != nil {
		_ = d.conn.Close()
	}
	_ = d.db.Close() // of a copy
}

// wrap says of which database an error of SQLite is, and what sort it is of.
func (d *database) wrap(err error) error {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() & 0xff {
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT:
			return fmt.Errorf("%w: %s: %w", ErrDamaged, d.name, err)
		}
	}
	return fmt.Errorf("ledger: %s: %w", d.name, err)
}

// table makes sure that name is a table with the columns, and that SQLite finds
// nothing wrong with it. If it is optional, ok is false if there is none.
func (d *database) table(ctx context.Context, name string, columns ...string) (ok bool, err error) {
	var kind, text string
	switch err := d.conn.QueryRowContext(ctx, "SELECT type, coalesce(sql, '') FROM sqlite_schema WHERE name = ?", name).Scan(&kind, &text); {
	case errors.Is(err, sql.ErrNoRows):
		return false, nil
	case err != nil:
		return false, d.wrap(err)
	case kind != "table" || strings.Contains(strings.ToUpper(text[:min(len(text), 40)]), "VIRTUAL"):
		return false, fmt.Errorf("%w: %s: %s is no ordinary table", ErrSchema, d.name, name)
	}
	have, err := d.columns(ctx, name)
	if err != nil {
		return false, err
	}
	for _, c := range columns {
		if !slices.Contains(have, c) {
			return false, fmt.Errorf("%w: %s: table %s has no column %s", ErrSchema, d.name, name, c)
		}
	}
	var verdict string
	if err := d.conn.QueryRowContext(ctx, "SELECT quick_check FROM pragma_quick_check(?)", name).Scan(&verdict); err != nil {
		return false, d.wrap(err)
	}
	if verdict != "ok" {
		return false, fmt.Errorf("%w: %s: table %s: %.200q", ErrDamaged, d.name, name, verdict)
	}
	return true, nil
}

// columns returns the columns that a table stores.
func (d *database) columns(ctx context.Context, table string) ([]string, error) {
	rows, err := d.conn.QueryContext(ctx, "SELECT name FROM pragma_table_xinfo(?) WHERE hidden = 0", table)
	if err != nil {
		return nil, d.wrap(err)
	}
	defer closeRead(rows)
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, d.wrap(err)
		}
		names = append(names, name)
	}
	if err := rows.Err(); err != nil {
		return nil, d.wrap(err)
	}
	return names, nil
}

// confine makes SQLite refuse all but to read the tables.
func (d *database) confine(tables ...string) error {
	err := d.conn.Raw(func(c any) error {
		r, ok := c.(sqlite.AuthorizerRegisterer)
		if !ok {
			return errors.New("the driver cannot restrict what is read")
		}
		return r.RegisterAuthorizer(func(action sqlite.AuthorizerActionCode, arg1, arg2, _, _ string) sqlite.AuthorizerReturnCode {
			switch {
			case action == sqlite.AuthSelect,
				action == sqlite.AuthRead && slices.Contains(tables, arg1),
				action == sqlite.AuthFunction && slices.Contains([]string{"length", "coalesce"}, strings.ToLower(arg2)):
				return sqlite.AuthorizerOK
			}
			return sqlite.AuthorizerDeny
		})
	})
	if err != nil {
		return d.wrap(err)
	}
	return nil
}
