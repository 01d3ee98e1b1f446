package ledger

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Bounds of a copy.
const (
	maxTries = 8
	chunk    = 1 << 20
)

// Of SQLite's file format: the header of a database, of which bytes 18 and 19
// say how it is written; and that of a write-ahead log.
const (
	dbHeader  = 100
	walHeader = 32
)

var (
	dbMagic  = []byte("SQLite format 3\x00")
	walMagic = [2]uint32{0x377f0682, 0x377f0683}
)

// ErrBusy reports a database that was written to all the time while it was
// copied.
var ErrBusy = errors.New("ledger: the database changes too fast to be copied: try again later")

// ErrFormat reports a file that is not a database as OpenClaw writes them.
var ErrFormat = errors.New("ledger: not a database as OpenClaw writes them")

// errMoved says that the write-ahead log was begun anew during the copy.
var errMoved = errors.New("it was written to")

// snapshot copies the database called name, and its write-ahead log, to the file
// called to, so that they are the database as it was at one time.
//
// Nothing keeps the writer from writing meanwhile. In WAL mode the database
// itself changes only where pages are brought over from the log, and they stay
// in the log until it is begun anew, under another salt. So the database is
// copied first and the log after it: whatever was half brought over is in the
// log that is copied, as long as that is the same log as before.
func snapshot(ctx context.Context, fsys fs.FS, name, to string, limit int64) (err error) {
	for range maxTries {
		// A frame that is written while it is copied looks broken.
		if err = try(ctx, fsys, name, to, limit); !errors.Is(err, errMoved) && !errors.Is(err, errGap) {
			return err
		}
	}
	if errors.Is(err, errGap) {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, name, err)
	}
	return fmt.Errorf("%w: %s", ErrBusy, name)
}

func try(ctx context.Context, fsys fs.FS, name, to string, limit int64) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("ledger: copy %s: %w", name, context.Cause(ctx))
	}
	before, err := head(fsys, name+"-wal", walHeader)
	if err != nil {
		return err
	}
	db, err := head(fsys, name, dbHeader)
	switch {
	case err != nil:
		return err
	case db == nil:
		return fmt.Errorf("ledger: %s: %w", name, fs.ErrNotExist)
	case len(db) == 0 && len(before) == 0:
		return fmt.Errorf("%w: %s: it is empty", ErrFormat, name)
	case len(db) > 0 && (len(db) < dbHeader || !bytes.HasPrefix(db, dbMagic)):
		return fmt.Errorf("%w: %s", ErrFormat, name)
	case len(db) > 0 && (db[18] != 2 || db[19] != 2):
		return fmt.Errorf("%w: %s: it is not in WAL mode, and cannot be copied while it is written to", ErrFormat, name)
	}
	unchanged, err := fs.Stat(fsys, name)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	if _, err := copyFile(ctx, fsys, name, to, limit); err != nil {
		return err
	}
	between, err := head(fsys, name+"-wal", walHeader)
	switch {
	case err != nil:
		return err
	case !bytes.Equal(before, between):
		return errMoved
	case len(between) < walHeader:
		// There is no log. One may have come and gone meanwhile.
		now, err := fs.Stat(fsys, name)
		if err != nil || now.Size() != unchanged.Size() || !now.ModTime().Equal(unchanged.ModTime()) {
			return errMoved
		}
		return removeIfThere(to + "-wal")
	}
	if m := binary.BigEndian.Uint32(between); m != walMagic[0] && m != walMagic[1] {
		return fmt.Errorf("%w: %s-wal", ErrFormat, name)
	}
	copied, err := copyFile(ctx, fsys, name+"-wal", to+"-wal", limit)
	if err != nil {
		return err
	}
	after, err := head(fsys, name+"-wal", walHeader)
	if err != nil {
		return err
	}
	if !bytes.Equal(between, after) || !bytes.Equal(between, copied) {
		return errMoved
	}
	return checkLog(to + "-wal")
}

// open opens a regular file. OpenClaw's agent can put anything there.
func open(fsys fs.FS, name string) (fs.File, error) {
	info, err := fs.Stat(fsys, name) // a pipe could not be opened without waiting
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s: it is no file", ErrFormat, name)
	}
	f, err := fsys.Open(name)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	if info, err = f.Stat(); err != nil || !info.Mode().IsRegular() {
		_ = f.Close()
		return nil, fmt.Errorf("%w: %s: it is no file", ErrFormat, name)
	}
	return f, nil
}

// head returns the first n bytes of a file, or as many as there are; nil if
// there is no file.
func head(fsys fs.FS, name string, n int) ([]byte, error) {
	f, err := open(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer closeRead(f)
	b := make([]byte, n)
	read, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("ledger: read %s: %w", name, err)
	}
	return b[:read], nil
}

func closeRead(c io.Closer) { _ = c.Close() }

// copyFile copies a file, and returns how it begins.
func copyFile(ctx context.Context, fsys fs.FS, name, to string, limit int64) (begins []byte, err error) {
	from, err := open(fsys, name)
	if err != nil {
		return nil, err
	}
	defer closeRead(from)
	out, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("ledger: copy %s: %w", name, err)
	}
	defer func() {
		if e := out.Close(); err == nil && e != nil {
			err = fmt.Errorf("ledger: copy %s: %w", name, e)
		}
	}()
	for copied := int64(0); ; {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("ledger: copy %s: %w", name, context.Cause(ctx))
		}
		n, err := io.CopyN(out, from, chunk)
		if copied += n; copied > limit {
			return nil, fmt.Errorf("%w: %s: it is larger than %d bytes: see Config.MaxBytes", ErrFormat, name, limit)
		}
		if errors.Is(err, io.EOF) {
			begins = make([]byte, min(copied, walHeader))
			if _, err := out.ReadAt(begins, 0); err != nil {
				return nil, fmt.Errorf("ledger: copy %s: %w", name, err)
			}
			return begins, nil
		}
		if err != nil {
			return nil, fmt.Errorf("ledger: copy %s: %w", name, err)
		}
	}
}

func removeIfThere(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("ledger: %w", err)
	}
	return nil
}
