package container

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const journalSchema = "hardshell.recreate/v1"

// A step is what a transaction is about to do. Up to stepVerify a transaction
// that was cut off is undone, from stepVerified on it is finished.
type step string

const (
	stepClone    step = "clone"
	stepPolicy   step = "policy"
	stepStop     step = "stop"
	stepAside    step = "aside"
	stepRename   step = "rename"
	stepCopy     step = "copy"
	stepOwners   step = "owners"
	stepStart    step = "start"
	stepWait     step = "wait"
	stepVerify   step = "verify"
	stepVerified step = "verified"
	stepCommit   step = "commit"
	stepUndo     step = "undo"
)

var steps = []step{
	stepClone, stepPolicy, stepStop, stepAside, stepRename, stepCopy, stepOwners, stepStart, stepWait, stepVerify,
	stepVerified, stepCommit, stepUndo,
}

// A journal is what another process needs to undo or finish a transaction.
// It is written before each step. It holds no secret.
type journal struct {
	Schema      string    `json:"schema"`
	Transaction string    `json:"transaction"`
	Started     time.Time `json:"started"`
	Step        step      `json:"step"`

	EngineID   string `json:"engine_id"`
	EngineHost string `json:"engine_host"`

	Name   string `json:"name"`   // of the container, before and after
	Temp   string `json:"temp"`   // of the new one until it has that name
	Aside  string `json:"aside"`  // of the old one from then on
	OldID  string `json:"old_id"` // of the container as it was
	NewID  string `json:"new_id,omitempty"`
	Policy string `json:"policy"` // the restart policy that it had

	Hardening Hardening `json:"hardening"`
	Before    string    `json:"before"` // in words
	After     string    `json:"after"`
	Leaves    []string  `json:"leaves,omitempty"`

	Trees []tree `json:"trees,omitempty"` // whose owners are changed
}

func (j *journal) validate() error {
	switch {
	case j.Schema != journalSchema:
		return fmt.Errorf("its schema is %q, not %q", j.Schema, journalSchema)
	case j.Transaction == "" || j.Name == "" || j.Temp == "" || j.Aside == "" || j.OldID == "":
		return errors.New("it is incomplete")
	case !slices.Contains(steps, j.Step):
		return fmt.Errorf("its step %q is not known", j.Step)
	}
	return nil
}

// A journalFile is where the journal of one container of one engine is.
type journalFile struct{ base string }

func (r *Recreator) journalFile(info EngineInfo, name string) journalFile {
	engine := info.ID
	if engine == "" {
		engine = info.Host
	}
	sum := sha256.Sum256([]byte(engine))
	safe := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("_.-", c) {
			return c
		}
		return '+'
	}, name)
	return journalFile{filepath.Join(r.StateDir, "recreate-"+hex.EncodeToString(sum[:4])+"-"+safe)}
}

func (f journalFile) path() string   { return f.base + ".json" }
func (f journalFile) owners() string { return f.base + ".owners" }
func (f journalFile) lock() string   { return f.base + ".lock" }

// load returns nil if there is no journal.
func (f journalFile) load() (*journal, error) {
	data, err := os.ReadFile(f.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("container: journal of an earlier run: %w", err)
	}
	j := new(journal)
	err = json.Unmarshal(data, j)
	if err == nil {
		err = j.validate()
	}
	if err != nil {
		return nil, fmt.Errorf("container: the journal %s of an earlier run is damaged, and nothing was changed: "+
			"see whether the container is as it should be (an unhardened one may be stopped under a name with \"before-hardening\" in it), "+
			"put it right by hand, and remove the file: %w", f.path(), err)
	}
	return j, nil
}

// save replaces the journal, durably.
func (f journalFile) save(j *journal) error {
	data, err := json.MarshalIndent(j, "", "  ")
	if err == nil {
		err = replaceDurably(f.path(), func(w io.Writer) error {
			_, err := w.Write(append(data, '\n'))
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("container: write the journal: %w", err)
	}
	return nil
}

func replaceDurably(name string, write func(io.Writer) error) (err error) {
	tmp, err := os.OpenFile(name+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(name + ".tmp")
		}
	}()
	w := bufio.NewWriter(tmp)
	err = write(w)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(name+".tmp", name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

// syncDir makes what happened to names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// remove ends a transaction: the journal first, then what it refers to.
func (f journalFile) remove() error {
	for _, name := range []string{f.path(), f.owners(), f.path() + ".tmp", f.owners() + ".tmp"} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("container: remove the journal: %w", err)
		}
	}
	return syncDir(filepath.Dir(f.base))
}

// An owned is a file that belonged to somebody else before.
type owned struct {
	Tree int    `json:"t"`
	Name []byte `json:"n"` // relative to the tree; bytes, for it need not be text
	Owner
	// Mode holds the setuid and setgid bits that a change of owner clears, with
	// the permissions beside them. Zero if there are none.
	Mode uint32 `json:"m,omitempty"`
}

// saveOwners writes all, durably.
func (f journalFile) saveOwners(all []owned) error {
	err := replaceDurably(f.owners(), func(w io.Writer) error {
		enc := json.NewEncoder(w)
		for _, o := range all {
			if err := enc.Encode(o); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("container: write down the owners of files: %w", err)
	}
	return nil
}

func (f journalFile) loadOwners() ([]owned, error) {
	file, err := os.Open(f.owners())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // none was changed yet
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var all []owned
	dec := json.NewDecoder(bufio.NewReader(file))
	for {
		var o owned
		err := dec.Decode(&o)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("container: %s is damaged: %w", f.owners(), err)
		}
		all = append(all, o)
	}
}

// journals returns the journals of an engine's containers.
func (r *Recreator) journals(info EngineInfo) ([]journalFile, error) {
	prefix := filepath.Base(r.journalFile(info, "").base)
	entries, err := os.ReadDir(r.StateDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("container: look for journals of earlier runs: %w", err)
	}
	var all []journalFile
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok && strings.HasPrefix(name, prefix) {
			all = append(all, journalFile{filepath.Join(r.StateDir, name)})
		}
	}
	return all, nil
}
