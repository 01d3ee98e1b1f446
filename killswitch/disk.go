package killswitch

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// maxFile is the size of the largest file that is read, in bytes.
const maxFile = 16 << 20

// A disk writes what has to outlast the process. The zero disk is the real one.
type disk struct {
	// step is called before each change, and keeps it from being made by an
	// error. Tests fail and end there.
	step func(op, name string) error
}

func (d disk) before(op, name string) error {
	if d.step == nil {
		return nil
	}
	return d.step(op, name)
}

const tempMark = ".tmp-"

// replace writes a file that is there entirely or not at all, and that stays
// over a loss of power once replace has returned nil. Whoever reads the old
// one at the time has all of it. The directory is made if need be.
func (d disk) replace(name string, data []byte) error {
	dir, base := filepath.Split(name)
	if err := d.mkdir(dir); err != nil {
		return err
	}
	if err := d.before("create", name); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+base+tempMark+"*")
	if err != nil {
		return err
	}
	err = d.fill(f, name, data)
	if err == nil {
		err = d.before("rename", name)
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return d.syncDir(dir)
}

func (d disk) fill(f *os.File, name string, data []byte) (err error) {
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := d.before("write", name); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := d.before("sync", name); err != nil {
		return err
	}
	return f.Sync()
}

// overwrite writes over what is in a file that is there, which costs the disk
// one sync where replace costs two. Whoever reads it meanwhile, or after it was
// cut off, has neither the old nor the new, but something that is damaged.
func (d disk) overwrite(name string, data []byte) (err error) {
	if err := d.before("write", name); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Truncate(int64(len(data))); err != nil {
		return err
	}
	if err := d.before("sync", name); err != nil {
		return err
	}
	return f.Sync()
}

// sync makes what another process has written to a file durable.
func (d disk) sync(name string) error {
	if err := d.before("sync", name); err != nil {
		return err
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// create writes a file that is not there, entirely or not at all. One that is
// there stays, and the error wraps [fs.ErrExist].
func (d disk) create(name string, data []byte) error {
	dir, base := filepath.Split(name)
	if err := d.before("create", name); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+base+tempMark+"*")
	if err != nil {
		return err
	}
	err = d.fill(f, name, data)
	if err == nil {
		err = d.before("link", name)
	}
	if err == nil {
		err = os.Link(f.Name(), name)
	}
	err = errors.Join(err, os.Remove(f.Name()))
	if err != nil {
		return err
	}
	return d.syncDir(dir)
}

func (d disk) mkdir(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	if err := d.before("mkdir", dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(filepath.Clean(dir)))
}

// syncDir makes the names in a directory durable, which Windows does by itself.
func (d disk) syncDir(dir string) error {
	if err := d.before("syncdir", dir); err != nil {
		return err
	}
	if runtime.GOOS == "windows" {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// sweep removes what processes that were killed have left half written.
func sweep(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") || !strings.Contains(e.Name(), tempMark) {
			continue
		}
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > time.Hour {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// readFile reads a regular file of bounded size.
func readFile(name string) ([]byte, error) {
	// Opening a pipe would wait.
	info, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("not a regular file")}
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("it is larger than %d bytes", maxFile)}
	}
	return data, err
}
