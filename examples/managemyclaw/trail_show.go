package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// followInterval is how often tail -f looks for new records.
const followInterval = 200 * time.Millisecond

// tail is the command trail tail. It shows what is there: verify tells whether
// that is what was written.
func (s *shelf) tail(ctx context.Context, args []string) (int, error) {
	var (
		n      int
		follow bool
	)
	err := s.parse("tail", args, func(fs *flag.FlagSet) {
		s.filterFlags(fs)
		fs.IntVar(&n, "n", 20, "how many records")
		fs.BoolVar(&follow, "f", false, "go on, and show what is recorded from now on")
		fs.StringVar(&s.format, "format", "text", "text or json")
	})
	switch {
	case err != nil:
		return exitUsage, err
	case n < 0:
		return exitUsage, usageError("-n must not be negative")
	case s.format != "text" && s.format != "json":
		return exitUsage, usageError(fmt.Sprintf("unknown format %q: use text or json", s.format))
	}
	r, _, _, err := s.reader(ctx)
	if err != nil {
		return exitFail, err
	}
	last, err := r.Tail(ctx, s.query, n)
	if err != nil {
		return exitFail, err
	}
	for _, rec := range last {
		if err := s.write(rec); err != nil {
			return exitFail, err
		}
	}
	if !follow {
		return exitPass, nil
	}
	s.query.First = r.Checkpoint().Size
	for rec, err := range r.Follow(ctx, s.query, followInterval) {
		if ctx.Err() != nil {
			return exitPass, nil // it was interrupted, which is how it ends
		}
		if err != nil {
			return exitFail, err
		}
		if err := s.write(rec); err != nil {
			return exitFail, err
		}
	}
	return exitPass, nil
}

// write writes a record for people, or for programs that read a terminal's text.
func (s *shelf) write(rec trail.Record) error {
	if s.format == "json" {
		text, err := json.Marshal(rec)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(s.stdout, escaped(string(text)))
		return err
	}
	e := &rec.Event
	words := []string{e.Time.UTC().Format(time.RFC3339), fmt.Sprintf("#%d", rec.Seq), string(e.Kind)}
	for _, w := range []string{e.Actor, cmp.Or(e.Tool, e.Subject), string(e.Decision), string(e.Outcome)} {
		if w != "" {
			words = append(words, w)
		}
	}
	line := strings.Join(words, " ")
	if e.ID != "" {
		line += " (" + e.ID + ")"
	}
	if e.Message != "" {
		line += ": " + e.Message
	}
	_, err := fmt.Fprintln(s.stdout, oneLine(line))
	return err
}

// escaped writes what could steer a terminal, in JSON, as the escape that means
// the same.
func escaped(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case unicode.IsGraphic(r):
			b.WriteRune(r)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, hi, lo)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// export is the command trail export. What it writes has been verified.
func (s *shelf) export(ctx context.Context, args []string) (int, error) {
	var (
		out        string
		unverified bool
	)
	err := s.parse("export", args, func(fs *flag.FlagSet) {
		s.filterFlags(fs)
		fs.StringVar(&s.format, "format", "jsonl", "jsonl, as they were recorded, or ocsf, for a SIEM")
		fs.StringVar(&out, "out", "", "`FILE` to write, which must not be there; without it, the standard output")
		fs.BoolVar(&unverified, "unverified", false, "export also what is damaged, as far as it can be read")
	})
	switch {
	case err != nil:
		return exitUsage, err
	case s.format != "jsonl" && s.format != "ocsf":
		return exitUsage, usageError(fmt.Sprintf("unknown format %q: use jsonl or ocsf", s.format))
	}
	r, b, key, err := s.reader(ctx)
	if err != nil {
		return exitFail, err
	}
	if !unverified {
		f, err := s.look(ctx, b)
		if err != nil {
			return exitUsage, err
		}
		if f.Root == "" || f.Status == "fail" {
			return exitFail, fmt.Errorf("nothing is exported, for the trail is not sound (--unverified exports it nevertheless): %s", f.Why)
		}
		if f.Status == "unknown" {
			fmt.Fprintf(s.stderr, "managemyclaw: %s\n", printable(f.Why))
		}
	}
	to := s.stdout
	if out != "" {
		file, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return exitFail, fmt.Errorf("--out: %w", err)
		}
		defer file.Close()
		to = file
	}
	buffered := bufio.NewWriterSize(to, 1<<16)
	records := r.Records(ctx, s.query)
	if s.format == "ocsf" {
		err = trail.WriteOCSF(buffered, key.Name(), records)
	} else {
		err = trail.WriteJSONLines(buffered, records)
	}
	err = errors.Join(err, buffered.Flush())
	if file, ok := to.(*os.File); ok && out != "" {
		err = errors.Join(err, file.Sync(), file.Close())
	}
	if err != nil {
		return exitFail, fmt.Errorf("export: %w", err)
	}
	return exitPass, nil
}
