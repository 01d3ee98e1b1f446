package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// A trailFinding is what came of verifying one trail. Its status is pass, fail or
// unknown.
type trailFinding struct {
	Log    string `json:"log"`
	Dir    string `json:"dir"`
	Status string `json:"status"`
	Why    string `json:"why,omitempty"`

	Damage *damageJSON `json:"damage,omitempty"`

	First    int64   `json:"first"`
	Records  int64   `json:"records"`
	Retired  int64   `json:"retired"`
	Segments int     `json:"segments"`
	Bytes    int64   `json:"bytes"`
	Size     int64   `json:"size"`
	Root     string  `json:"root,omitempty"`
	Pinned   []int64 `json:"pinned"` // sizes of the checkpoints that it extends

	checkpoint trail.Checkpoint
	pins       []string
}

type damageJSON struct {
	Kind   trail.Damage `json:"kind"`
	First  int64        `json:"first"`
	Last   int64        `json:"last"` // less than First if no record is damaged
	File   string       `json:"file"`
	Offset int64        `json:"offset"`
}

// verify is the command trail verify.
func (s *shelf) verify(ctx context.Context, args []string) (int, error) {
	var save string
	err := s.parse("verify", args, func(fs *flag.FlagSet) {
		fs.StringVar(&s.pinText, "pin", "", "`FILE` with a checkpoint that the trail must extend; several with commas; without it,\nthe one that is kept")
		fs.StringVar(&save, "save-pin", "", "`FILE` to keep the checkpoint in that the trail has now, if it is sound")
		fs.StringVar(&s.format, "format", "text", "text or json")
	})
	switch {
	case err != nil:
		return exitUsage, err
	case s.format != "text" && s.format != "json":
		return exitUsage, usageError(fmt.Sprintf("unknown format %q: use text or json", s.format))
	}
	books, err := s.books()
	if err != nil {
		return exitUnknown, err
	}
	if len(books) > 1 && s.pinText+save != "" {
		return exitUsage, usageError("say which trail the checkpoint is of, with --log gateway or --log program")
	}
	found, code, err := s.findings(ctx, books)
	if err != nil {
		return exitUsage, err
	}
	if save != "" && found[0].Status != "fail" && found[0].checkpoint.Note() != "" {
		if err := s.keepPin(ctx, books[0], save, found[0].checkpoint); err != nil {
			return exitFail, err
		}
	}
	if s.format == "json" {
		enc := json.NewEncoder(s.stdout)
		enc.SetIndent("", "  ")
		return code, enc.Encode(struct {
			Schema string         `json:"schema"`
			Trails []trailFinding `json:"trails"`
		}{"hardshell.trail/v1", found})
	}
	for _, f := range found {
		s.show(f)
	}
	if save != "" && found[0].Status != "fail" {
		fmt.Fprintf(s.stdout, "Its checkpoint is kept in %s.\n", printable(save))
	}
	return code, nil
}

// findings verifies trails. Its error is a usageError.
func (s *shelf) findings(ctx context.Context, books []book) (found []trailFinding, code int, err error) {
	code = exitPass
	for _, b := range books {
		f, err := s.look(ctx, b)
		if err != nil {
			return nil, exitUsage, err
		}
		switch {
		case f.Status == "fail":
			code = exitFail
		case f.Status == "unknown" && code == exitPass:
			code = exitUnknown
		}
		found = append(found, f)
	}
	return found, code, nil
}

// look verifies a trail. Its error is a usageError: what is found is no error.
func (s *shelf) look(ctx context.Context, b book) (trailFinding, error) {
	f := trailFinding{Log: b.name, Dir: b.dir, Status: "unknown", Pinned: []int64{}}
	key, err := s.key(b)
	if _, wrong := errors.AsType[usageError](err); wrong {
		return f, err
	}
	if err == nil {
		err = s.compare(ctx, b, key, &f)
	}
	damage, damaged := errors.AsType[*trail.DamageError](err)
	_, wrong := errors.AsType[usageError](err)
	switch {
	case wrong:
		return f, err
	case damaged:
		f.Status, f.Why = "fail", damage.Error()
		f.Damage = &damageJSON{damage.Kind, damage.First, damage.Last, damage.File, damage.Offset}
	case errors.Is(err, fs.ErrNotExist) && absent(b.dir) && b.exists():
		f.Status, f.Why = "fail", fmt.Sprintf("the log is gone: there is something left of it, and not %s", b.dir)
	case errors.Is(err, trail.ErrCheckpoint):
		f.Status, f.Why = "fail", "what is pinned is not a checkpoint of this trail's: "+err.Error()
	case err != nil:
		f.Why = err.Error()
	case len(f.Pinned) == 0:
		f.Why = "no checkpoint is pinned: what is there is consistent, and may yet be another trail, or the first part of one. From now on: managemyclaw trail pin"
	default:
		f.Status = "pass"
	}
	return f, nil
}

// compare verifies a trail against the checkpoints that are pinned.
func (s *shelf) compare(ctx context.Context, b book, key trail.PublicKey, f *trailFinding) error {
	v := trail.Verifier{Key: key, Live: b.key != ""} // a copy is not written to
	var err error
	if s.pinText == "" {
		if v.Pinned, err = b.pinned(key); err != nil {
			return err
		}
		if len(v.Pinned) > 0 {
			f.pins = []string{b.pin}
		}
	} else {
		for name := range strings.SplitSeq(s.pinText, ",") {
			c, err := (&trail.PinFile{Path: name, Key: key}).Read()
			if errors.Is(err, fs.ErrNotExist) {
				return usageError("--pin: " + err.Error())
			}
			if err != nil {
				return err
			}
			v.Pinned, f.pins = append(v.Pinned, c), append(f.pins, name)
		}
	}
	sum, err := v.Verify(ctx, os.DirFS(b.dir))
	f.First, f.Records, f.Retired, f.Segments, f.Bytes = sum.First, sum.Records, sum.Retired, sum.Segments, sum.Bytes
	if err != nil {
		return err
	}
	f.Size, f.Root, f.checkpoint = sum.Checkpoint.Size, sum.Checkpoint.Root.String(), sum.Checkpoint
	for _, c := range v.Pinned {
		f.Pinned = append(f.Pinned, c.Size)
	}
	return nil
}

// show writes what was found of a trail.
func (s *shelf) show(f trailFinding) {
	width, _ := terminalWidth(s.stdout)
	what := fmt.Sprintf("%s: %s", f.Log, f.Dir)
	if f.Log == f.Dir {
		what = f.Dir
	}
	sound := fmt.Sprintf("%d records are what was written", f.Records)
	if f.Retired > 0 {
		sound += fmt.Sprintf(", and %d more were retired", f.Retired)
	}
	switch f.Status {
	case "pass":
		wrap(s.stdout, width, "✓ ", fmt.Sprintf("%s: %s, and extend the %d that %s pins", what, sound, f.Pinned[len(f.Pinned)-1], strings.Join(f.pins, ", ")))
	case "fail":
		wrap(s.stdout, width, "✗ ", what+": "+f.Why)
		wrap(s.stdout, width, "    ", "Leave everything as it is, copy it away with its checkpoints, and find out who could write there.")
		return
	default:
		wrap(s.stdout, width, "? ", what+": "+f.Why)
		if f.Root == "" {
			return
		}
	}
	wrap(s.stdout, width, "    ", fmt.Sprintf("checkpoint: %d records, root %s", f.Size, f.Root))
}

// pin is the command trail pin.
func (s *shelf) pin(ctx context.Context, args []string) (int, error) {
	var to string
	err := s.parse("pin", args, func(fs *flag.FlagSet) {
		fs.StringVar(&to, "to", "", "`FILE` to keep the checkpoint in, best on another machine's disk; without it, where it is\nlooked for")
	})
	if err != nil {
		return exitUsage, err
	}
	books, err := s.books()
	if err != nil {
		return exitUnknown, err
	}
	if len(books) > 1 && to != "" {
		return exitUsage, usageError("say which trail to pin there, with --log gateway or --log program")
	}
	found, code, err := s.findings(ctx, books)
	if err != nil {
		return exitUsage, err
	}
	for i, f := range found {
		if f.Status == "fail" || f.Root == "" {
			s.show(f)
			continue
		}
		name := to
		if name == "" {
			name = books[i].pin
		}
		if err := s.keepPin(ctx, books[i], name, f.checkpoint); err != nil {
			return exitFail, err
		}
		fmt.Fprintf(s.stdout, "%s: %d records are pinned in %s.\n", printable(f.Log), f.Size, printable(name))
		if len(f.Pinned) == 0 {
			fmt.Fprintf(s.stdout, "Nothing was pinned before: what happened to it until now is not known.\n")
			if code == exitUnknown {
				code = exitPass
			}
		}
	}
	return code, nil
}

// keepPin keeps a checkpoint of a log that has been verified. One that the file
// has must be extended by it; if that is a later one, it stays.
func (s *shelf) keepPin(ctx context.Context, b book, name string, c trail.Checkpoint) error {
	key, err := s.key(b)
	if err != nil {
		return err
	}
	file := &trail.PinFile{Path: name, Key: key}
	old, err := file.Read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		v := trail.Verifier{Key: key, Live: true, Pinned: []trail.Checkpoint{old, c}}
		if _, err := v.VerifyRange(ctx, os.DirFS(b.dir), old.Size, old.Size+1); err != nil {
			return fmt.Errorf("%s is left as it is: %w", name, err)
		}
		if old.Size >= c.Size {
			return nil
		}
	}
	return file.Replace(c)
}
