package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// Names of the trails in the state directory. The gateway has one of its own,
// since it runs all the time, and one process at a time can write to a trail.
const (
	gatewayTrail = "gateway"
	programTrail = "program"
)

// A book is one of the trails in the state directory.
type book struct {
	name   string
	dir    string // of the log
	key    string // file with its private key
	public string // file with its public key
	pin    string // file with its last checkpoint that was pinned
}

// book returns the trail of a name. What pins it, and the public key that it is
// verified by, may be in a directory of their own: see --pins.
func (p *program) book(name string) book {
	base := map[string]string{gatewayTrail: "gateway-trail", programTrail: "trail"}[name]
	at, pins := filepath.Join(p.stateDir, base), filepath.Join(cmp.Or(p.pins, p.stateDir), base)
	return book{name: name, dir: at, key: at + ".key", public: pins + ".pub", pin: pins + ".pin"}
}

// exists reports whether anything is there of the trail, or was: a trail of
// which only the key or a checkpoint is left has been taken away.
func (b book) exists() bool {
	for _, name := range []string{b.dir, b.key, b.public, b.pin} {
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			return true // also if it cannot be seen
		}
	}
	return false
}

func absent(name string) bool {
	_, err := os.Lstat(name)
	return errors.Is(err, fs.ErrNotExist)
}

// publicKey returns what verifies the trail.
func (b book) publicKey() (trail.PublicKey, error) { return readPublicKey(b.public) }

func readPublicKey(name string) (trail.PublicKey, error) {
	f, err := os.Open(name)
	if err != nil {
		return trail.PublicKey{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return trail.PublicKey{}, err
	}
	key, err := trail.ParsePublicKey(strings.TrimSpace(string(text)))
	if err != nil {
		return trail.PublicKey{}, fmt.Errorf("%w: in %s", err, name)
	}
	return key, nil
}

// pinned returns the checkpoint that the trail must extend: none, if it never
// was pinned.
func (b book) pinned(key trail.PublicKey) ([]trail.Checkpoint, error) {
	c, err := (&trail.PinFile{Path: b.pin, Key: key}).Read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []trail.Checkpoint{c}, nil
}

// open opens the trail for writing, and makes it when it is first used. Made
// are, in this order, its key, the log, and the file with its public key: until
// that is there, what is there is unfinished, and is finished. From then on,
// nothing that is gone is made anew, for somebody may have taken it away.
func (b book) open(c trail.Config) (log *trail.Log, public trail.PublicKey, made bool, err error) {
	key, err := trail.ReadKey(b.key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		for _, name := range []string{b.dir, b.public, b.pin} {
			if !absent(name) {
				return nil, public, false, fmt.Errorf("%s is there, but not the trail's key, %s: bring it back; or, to begin another trail, move away all that there is of this one (%s, %s and %s)",
					name, b.key, b.dir, b.public, b.pin)
			}
		}
		if key, err = b.makeKey(); err != nil {
			return nil, public, false, err
		}
	case err != nil:
		return nil, public, false, err
	}
	public = key.Public()
	if c.Pinned, err = b.pinned(public); err != nil {
		return nil, public, false, err
	}
	if there, err := b.publicKey(); err == nil && there.String() != public.String() {
		return nil, public, false, fmt.Errorf("%s is not the public key of %s: one of them was exchanged", b.public, b.key)
	}
	log, err = trail.Open(b.dir, key, c)
	if errors.Is(err, fs.ErrNotExist) {
		if !absent(b.public) || len(c.Pinned) > 0 {
			return nil, public, false, fmt.Errorf("%w: there was a trail in %s: bring it back, or look into who took it away", err, b.dir)
		}
		if err := os.MkdirAll(filepath.Dir(b.dir), 0o700); err != nil {
			return nil, public, false, err
		}
		log, err = trail.Create(b.dir, key, c)
		made = err == nil
	}
	if err != nil {
		return nil, public, false, err
	}
	if absent(b.public) {
		if err := writeAtomic(b.public, public.String()+"\n", 0o644); err != nil {
			return nil, public, false, errors.Join(err, log.Close())
		}
	}
	return log, public, made, nil
}

// makeKey makes the key of a new trail. Of two who do so at once, both get the
// same.
func (b book) makeKey() (*trail.Key, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	key, err := trail.GenerateKey(strings.Map(originRune, host) + "/managemyclaw-" + b.name)
	if err != nil {
		return nil, err
	}
	if err := keepKey(b.key, key.WriteFile); err != nil {
		return nil, fmt.Errorf("make the trail's key: %w", err)
	}
	return trail.ReadKey(b.key)
}

// keepKey has write make the file of a key, which appears under its name at
// once, with all that is in it. One that is there stays, and is no error.
func keepKey(name string, write func(name string) error) error {
	draft := name + "." + strconv.Itoa(os.Getpid()) + "." + strconv.FormatInt(time.Now().UnixNano(), 36)
	if err := write(draft); err != nil {
		return err
	}
	err := os.Link(draft, name)
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	return errors.Join(err, os.Remove(draft), syncDir(filepath.Dir(name)))
}

// originRune keeps what the name of a log may not have out of it.
func originRune(r rune) rune {
	if r <= ' ' || r == '+' || r > 0x7e {
		return '-'
	}
	return r
}

// writeAtomic writes a file that is there entirely or not at all.
func writeAtomic(name, text string, perm fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if runtime.GOOS != "windows" { // there a file has no such mode
		err = errors.Join(err, f.Chmod(perm))
	}
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(name))
}
