// Package keyfile keeps a private key in a file of its own.
package keyfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
)

// ErrExposed reports a file that does not keep a secret: others than its owner
// may read it, or it is no regular file.
var ErrExposed = errors.New("not a file that keeps a secret")

// maxSize is the size of the largest key that is read, in bytes.
const maxSize = 4096

// Read returns what [Write] has written. The error wraps [ErrExposed] if anyone
// but its owner may read the file. On Windows its permissions do not say.
func Read(name string) (string, error) {
	// A pipe would be waited for to be opened.
	info, err := os.Stat(name)
	if err != nil {
		return "", err
	}
	if err := private(info); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil { // of what is read, which may be another
		return "", err
	}
	if err := private(info); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize))
	return string(data), err
}

func private(info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: it is not a regular file", ErrExposed)
	}
	if info.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		return fmt.Errorf("%w: it has mode %#o, by which others may read it: run chmod 600, and consider it known", ErrExposed, info.Mode().Perm())
	}
	return nil
}

// Write writes a key to a new file that only its owner may read, and that
// outlasts a loss of power. It does not overwrite. What could not be written
// whole is removed.
func Write(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}
