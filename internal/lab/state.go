//go:build linux

package lab

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// baseDir holds a directory for each lab. It is below a directory that
	// only root writes to, so nobody can prepare it for us, and on disk,
	// since the engine's images are in it.
	baseDir = "/var/lib/hardshell-lab"

	// prefix begins the name of each lab.
	prefix = "hardshell-lab-"

	// unlockedAge is how long a directory may exist before its owner has
	// locked it. Creating and locking are a few instructions apart.
	unlockedAge = time.Minute
)

// stateDir is a lab's directory. Its file "owner" is locked for as long as the
// owner lives: unlike a process number, a lock cannot outlive its process, nor
// be inherited by a stranger.
type stateDir struct {
	id, path string
	owner    *os.File
}

func newStateDir() (_ *stateDir, err error) {
	s := &stateDir{id: fmt.Sprintf("%s%d-%s", prefix, os.Getpid(), strings.ToLower(rand.Text()[:6]))}
	s.path = filepath.Join(baseDir, s.id)
	// Another lab's Close may remove the base between our two calls.
	for range 100 {
		if err = os.MkdirAll(baseDir, 0o700); err != nil {
			return nil, err
		}
		if err = os.Mkdir(s.path, 0o700); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	// The file gets its name when it is locked, lest a sweep lock it first.
	name := filepath.Join(s.path, "owner")
	s.owner, err = lock(name+".new", os.O_CREATE|os.O_EXCL)
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		err = errors.Join(err, os.RemoveAll(s.path))
		os.Remove(baseDir)
		return nil, err
	}
	fmt.Fprintf(s.owner, "%d\n", os.Getpid()) // for people; the lock is what counts
	return s, nil
}

func (s *stateDir) unlock() {
	s.owner.Close()
}

var errAlive = errors.New("its owner lives")

// lock returns errAlive if another process, or another lab of this one, holds
// the lock.
func lock(name string, flag int) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|flag, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errAlive
		}
		return nil, err
	}
	return f, nil
}

// Sweep removes what labs left whose owner died without closing them:
// processes, containers, cgroups and directories. (Namespaces with all that is
// in them go with their last process.) It returns the names of those labs.
// Start calls it; there is rarely a need to.
func Sweep() (removed []string, err error) {
	entries, err := os.ReadDir(baseDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("lab: sweep: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		switch gone, err := sweep(e); {
		case err != nil:
			errs = append(errs, fmt.Errorf("lab: sweep %s: %w", e.Name(), err))
		case gone:
			removed = append(removed, e.Name())
		}
	}
	return removed, errors.Join(errs...)
}

func sweep(e fs.DirEntry) (bool, error) {
	dir := filepath.Join(baseDir, e.Name())
	owner, err := lock(filepath.Join(dir, "owner"), 0)
	switch {
	case errors.Is(err, errAlive):
		return false, nil
	case errors.Is(err, fs.ErrNotExist):
		// The owner died before it locked, or is about to, or a destroy was
		// cut short after it had removed the file.
		if info, err := e.Info(); err != nil || time.Since(info.ModTime()) < unlockedAge {
			return false, nil
		}
	case err != nil:
		return false, err
	default:
		defer owner.Close()
	}
	return true, destroy(e.Name(), dir)
}

// destroy ends all processes of the lab called id and removes what bears its
// name. The directory goes last, since it is what Sweep looks for, and the
// file "owner" last of it.
func destroy(id, dir string) error {
	if err := killCgroups(id); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if e.Name() == "owner" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	os.Remove(baseDir) // fails, rightly, while there are other labs
	return nil
}
