package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
)

const trailUsage = `usage: managemyclaw trail verify|pin|tail|export|prove [flags]

  verify  tell whether the trails are what was written, and name the first record that is not
  pin     verify, and keep a checkpoint that every later state must extend
  tail    show the last records; -f goes on
  export  write records as JSON Lines, or for a SIEM
  prove   prove to others that a record is in a trail, or that it extends a checkpoint; check such a proof

Flags of a command: managemyclaw trail COMMAND -h
Exit status of verify: 0 sound and pinned, 1 damaged, 2 wrong usage, 3 cannot be told
`

// A shelf is what the trail commands look at.
type shelf struct {
	*program

	log     string // a name, or a directory; empty means those that are there
	keyText string
	pinText string

	// Which records.
	query        trail.Query
	since, until string
}

// trailCommand is the command trail.
func (p *program) trailCommand(ctx context.Context, args []string) (int, error) {
	s := &shelf{program: p}
	verbs := map[string]func(context.Context, []string) (int, error){
		"verify": s.verify, "pin": s.pin, "tail": s.tail, "export": s.export, "prove": s.prove,
	}
	switch {
	case len(args) > 0 && verbs[args[0]] != nil:
		return verbs[args[0]](ctx, args[1:])
	case len(args) > 0 && (args[0] == "-h" || args[0] == "--help" || args[0] == "help"):
		fmt.Fprint(p.stdout, trailUsage)
		return exitPass, nil
	}
	return exitUsage, usageError("say what: managemyclaw trail verify, pin, tail, export or prove")
}

// parse reads the flags that all trail commands have, and those that more adds.
func (s *shelf) parse(command string, args []string, more func(*flag.FlagSet)) error {
	fs := flag.NewFlagSet("managemyclaw trail "+command, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // run says what is wrong
	fs.StringVar(&s.stateDir, "state-dir", defaultStateDir, "`DIR` with the trails")
	fs.StringVar(&s.pins, "pins", "", "`DIR` with the checkpoints that pin them, and their public keys; without it, the one of\n--state-dir")
	fs.StringVar(&s.log, "log", "", "`NAME` of the trail, gateway or program, or the directory of a copy")
	fs.StringVar(&s.keyText, "key", "", "public `KEY` of the trail, or the file with it, if not the one that is kept with the\ncheckpoints")
	more(fs)
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		fs.SetOutput(s.stdout)
		fs.Usage()
		return err
	} else if err != nil {
		return usageError(fmt.Sprintf("%v (see managemyclaw trail %s -h)", err, command))
	}
	switch isPath := strings.ContainsAny(s.log, `/\`); {
	case fs.NArg() > 0:
		return usageError(fmt.Sprintf("unexpected argument %q", fs.Arg(0)))
	case s.log != "" && s.log != gatewayTrail && s.log != programTrail && !isPath:
		return usageError(fmt.Sprintf("--log: there is no trail %q: say gateway, program, or a directory, such as ./%s", s.log, s.log))
	}
	return s.parseTimes()
}

// filterFlags adds the flags that select records.
func (s *shelf) filterFlags(fs *flag.FlagSet) {
	fs.StringVar(&s.query.Agent, "agent", "", "only records of this `AGENT`")
	fs.StringVar(&s.query.Actor, "actor", "", "only what this `ACTOR` did, such as operator/ann")
	fs.StringVar(&s.query.Tool, "tool", "", "only calls of this `TOOL`, such as GMAIL_SEND_EMAIL")
	fs.StringVar((*string)(&s.query.Kind), "kind", "", "only records of this `KIND`, such as tool.call, remedy.apply or audit.waiver")
	fs.StringVar(&s.query.Subject, "subject", "", "only records about this `SUBJECT`, such as container/openclaw")
	fs.StringVar((*string)(&s.query.Decision), "decision", "", "only what was decided so: `allow or deny`")
	fs.StringVar((*string)(&s.query.Outcome), "outcome", "", "only what ended so: `begin, ok, error or unknown`")
	fs.StringVar(&s.query.ID, "id", "", "only records with this `ID`, whatever it is of: a check, a request, a call, an execution")
	fs.StringVar(&s.since, "since", "", "only records from this `TIME` on: 2026-03-01, 2026-03-01T12:00:00Z, or 2h for two hours ago")
	fs.StringVar(&s.until, "until", "", "only records before this `TIME`")
}

func (s *shelf) parseTimes() error {
	for flag, at := range map[string]struct {
		text string
		to   *time.Time
	}{"since": {s.since, &s.query.Since}, "until": {s.until, &s.query.Until}} {
		if at.text == "" {
			continue
		}
		t, err := parseTime(at.text, time.Now())
		if err != nil {
			return usageError(fmt.Sprintf("--%s: %v", flag, err))
		}
		*at.to = t
	}
	switch q := &s.query; {
	case q.Decision != "" && q.Decision != trail.DecisionAllow && q.Decision != trail.DecisionDeny:
		return usageError(fmt.Sprintf("--decision: %q is neither allow nor deny", q.Decision))
	case q.Outcome != "" && q.Outcome != trail.OutcomeBegin && q.Outcome != trail.OutcomeOK && q.Outcome != trail.OutcomeError && q.Outcome != trail.OutcomeUnknown:
		return usageError(fmt.Sprintf("--outcome: %q is none of begin, ok, error and unknown", q.Outcome))
	case !q.Since.IsZero() && !q.Until.IsZero() && !q.Since.Before(q.Until):
		return usageError("--until is not after --since")
	}
	return nil
}

// parseTime reads a time, or how long ago it was.
func parseTime(text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time: write 2026-03-01, 2026-03-01T12:00:00Z, or 2h for two hours ago", text)
}

// books returns the trails that the flags name, or else those that are there.
func (s *shelf) books() ([]book, error) {
	if s.log == gatewayTrail || s.log == programTrail {
		return []book{s.book(s.log)}, nil
	}
	if s.log != "" {
		dir := filepath.Clean(s.log)
		return []book{{name: dir, dir: dir, public: dir + ".pub", pin: dir + ".pin"}}, nil
	}
	var all []book
	for _, name := range []string{gatewayTrail, programTrail} {
		if b := s.book(name); b.exists() {
			all = append(all, b)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("there is no trail in %s: nothing was recorded yet, or name another directory with --state-dir", s.stateDir)
	}
	if len(all) > 1 && s.keyText != "" {
		return nil, usageError("say which trail the key is of, with --log gateway or --log program")
	}
	return all, nil
}

// one returns the trail that the flags name, or else the gateway's.
func (s *shelf) one() (book, error) {
	s.log = cmp.Or(s.log, gatewayTrail)
	all, err := s.books()
	if err != nil {
		return book{}, err
	}
	return all[0], nil
}

// key returns the public key of a trail.
func (s *shelf) key(b book) (trail.PublicKey, error) {
	if s.keyText == "" {
		key, err := b.publicKey()
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("the public key of the trail is not there, without which nothing can be verified: give it with --key: %w", err)
		}
		return key, err
	}
	if key, err := trail.ParsePublicKey(s.keyText); err == nil {
		return key, nil
	}
	if _, err := os.Lstat(s.keyText); err != nil {
		return trail.PublicKey{}, usageError(fmt.Sprintf("--key: %q is neither a public key nor a file with one", s.keyText))
	}
	key, err := readPublicKey(s.keyText)
	if err != nil {
		return key, usageError("--key: " + err.Error())
	}
	return key, nil
}

// reader opens the trail that the flags name for reading.
func (s *shelf) reader(ctx context.Context) (*trail.Reader, book, trail.PublicKey, error) {
	b, err := s.one()
	if err != nil {
		return nil, b, trail.PublicKey{}, err
	}
	key, err := s.key(b)
	if err != nil {
		return nil, b, key, err
	}
	r, err := trail.OpenReader(ctx, os.DirFS(b.dir), key)
	if err != nil {
		return nil, b, key, fmt.Errorf("%s: %w", b.dir, err)
	}
	return r, b, key, nil
}

// oneLine keeps what is recorded on its line, and from steering the terminal.
func oneLine(s string) string { return strings.ReplaceAll(printable(s), "\n", " ") }
