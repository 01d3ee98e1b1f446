//go:build !windows

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// records verifies the program's trail in a state directory, from the checkpoint
// that is pinned there, and returns what is in it.
func records(t *testing.T, state string) []trail.Record {
	t.Helper()
	b := (&program{stateDir: state}).book(programTrail)
	key, err := b.publicKey()
	if err != nil {
		t.Fatal(err)
	}
	pinned, err := b.pinned(key)
	if err != nil || len(pinned) != 1 {
		t.Fatalf("%d checkpoints are pinned, %v", len(pinned), err)
	}
	log := os.DirFS(b.dir)
	if sum, err := (&trail.Verifier{Key: key, Pinned: pinned}).Verify(t.Context(), log); err != nil || sum.Checkpoint.Size != pinned[0].Size {
		t.Fatalf("the trail: %+v, of which %d are pinned: %v", sum, pinned[0].Size, err)
	}
	r, err := trail.OpenReader(t.Context(), log, key)
	if err != nil {
		t.Fatal(err)
	}
	all, err := r.Tail(t.Context(), trail.Query{}, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A trail is made when something is first recorded, with a key that is its
// owner's alone.
func TestTrailIsMade(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	p := &program{stateDir: state, stderr: t.Output()}
	d := p.trail()
	if d.book.exists() {
		t.Fatal("there is one")
	}
	for range 2 {
		if err := d.Record(t.Context(), trail.Event{Kind: trail.KindReset, Actor: p.book(programTrail).name}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(records(t, state)); n != 2 {
		t.Errorf("%d records", n)
	}
	for name, mode := range map[string]os.FileMode{"": 0o700, "trail": 0o700, "trail.key": 0o600, "trail.pub": 0o644, "trail.pin": 0o600} {
		info, err := os.Stat(filepath.Join(state, name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(state, "*.*.*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A desk is a state directory with a trail of the program's own in it.
type desk struct{ state string }

// newDesk records n events, some of which were made by somebody malicious.
func newDesk(t *testing.T, n int) *desk {
	t.Helper()
	d := &desk{filepath.Join(t.TempDir(), "state")}
	d.record(t, 0, n)
	return d
}

func (d *desk) program(t *testing.T) *program { return &program{stateDir: d.state, stderr: t.Output()} }

func (d *desk) record(t *testing.T, first, end int) {
	t.Helper()
	var events []trail.Event
	for i := first; i < end; i++ {
		e := trail.Event{
			Kind: trail.KindToolCall, Time: time.Date(2026, 3, 1, 12, i, 0, 0, time.UTC), Actor: "agent/inbox", Agent: "inbox", Tool: "GMAIL_SEND_EMAIL",
			Subject: "tool/GMAIL_SEND_EMAIL", Decision: trail.DecisionAllow, Outcome: trail.OutcomeOK, ID: fmt.Sprint("call-", i), Message: "hello\x1b[2J\nand\u202e more",
		}
		if i%5 == 0 {
			e.Agent, e.Decision, e.Outcome = "other", trail.DecisionDeny, ""
		}
		events = append(events, e)
	}
	if err := d.program(t).trail().record(t.Context(), events...); err != nil {
		t.Fatal(err)
	}
}

func (d *desk) run(t *testing.T, args ...string) outcome {
	t.Helper()
	return runProgram(t, append([]string{"trail", args[0], "--state-dir", d.state, "--log", "program"}, args[1:]...)...)
}

// segment returns the log's only segment.
func (d *desk) segment(t *testing.T) (name string, data []byte) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(d.state, "trail", "*.seg"))
	if err != nil || len(all) != 1 {
		t.Fatalf("%v %v", all, err)
	}
	if data, err = os.ReadFile(all[0]); err != nil {
		t.Fatal(err)
	}
	return all[0], data
}

func put(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// verify says whether a trail is sound, and names the first record that is not.
func TestTrailVerify(t *testing.T) {
	at := func(data []byte, seq int) int { return bytes.Index(data, fmt.Appendf(nil, `{"seq":%d,`, seq)) - 16 }
	for name, test := range map[string]struct {
		do   func(*testing.T, *desk)
		code int
		want string
	}{
		"sound": {func(*testing.T, *desk) {}, exitPass, "10 records are what was written, and extend the 10"},
		"edited": {func(t *testing.T, d *desk) {
			name, data := d.segment(t)
			data[at(data, 3)+90] ^= 1
			put(t, name, data)
		}, exitFail, "edited: record 3"},
		"deleted": {func(t *testing.T, d *desk) {
			name, data := d.segment(t)
			put(t, name, append(data[:at(data, 3)], data[at(data, 4):]...))
		}, exitFail, "missing: record 3"},
		"truncated": {func(t *testing.T, d *desk) {
			name, data := d.segment(t)
			put(t, name, data[:at(data, 0)])
		}, exitFail, "truncated"},
		"no log": {func(t *testing.T, d *desk) { os.RemoveAll(filepath.Join(d.state, "trail")) }, exitFail, "the log is gone"},
		"no pin": {func(t *testing.T, d *desk) { os.Remove(filepath.Join(d.state, "trail.pin")) }, exitUnknown, "no checkpoint is pinned"},
		"a pin of another log": {func(t *testing.T, d *desk) {
			other, err := os.ReadFile(filepath.Join(newDesk(t, 2).state, "trail.pin"))
			if err != nil {
				t.Fatal(err)
			}
			put(t, filepath.Join(d.state, "trail.pin"), other)
		}, exitFail, "not a checkpoint of this trail"},
		"no public key": {func(t *testing.T, d *desk) { os.Remove(filepath.Join(d.state, "trail.pub")) }, exitUnknown, "give it with --key"},
		"written anew with the key": {func(t *testing.T, d *desk) {
			key, err := trail.ReadKey(filepath.Join(d.state, "trail.key"))
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(d.state, "trail")
			os.RemoveAll(dir)
			log, err := trail.Create(dir, key, trail.Config{})
			if err != nil {
				t.Fatal(err)
			}
			for range 20 {
				if err := log.Record(t.Context(), trail.Event{Kind: "all.quiet"}); err != nil {
					t.Fatal(err)
				}
			}
			log.Close()
		}, exitFail, "rewritten"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, 10)
			test.do(t, d)
			o := d.run(t, "verify")
			o.want(t, test.code, test.want, "")
			var out struct {
				Schema string
				Trails []struct {
					Log, Status string
					Damage      *struct{ Kind string }
				}
			}
			asJSON := d.run(t, "verify", "--format", "json")
			if err := json.Unmarshal([]byte(asJSON.stdout), &out); err != nil || out.Schema != "hardshell.trail/v1" || len(out.Trails) != 1 || asJSON.code != test.code {
				t.Errorf("status %d, %v:\n%s", asJSON.code, err, asJSON.stdout)
			}
			if status := map[int]string{exitPass: "pass", exitFail: "fail", exitUnknown: "unknown"}[test.code]; out.Trails[0].Status != status {
				t.Errorf("%s, want %s", out.Trails[0].Status, status)
			}
			if test.code == exitFail {
				pin, _ := os.ReadFile(filepath.Join(d.state, "trail.pin"))
				d.run(t, "pin").want(t, exitFail, "", "")
				if now, _ := os.ReadFile(filepath.Join(d.state, "trail.pin")); !bytes.Equal(pin, now) {
					t.Error("what is damaged was pinned")
				}
				if err := d.program(t).trail().Record(t.Context(), trail.Event{Kind: trail.KindReset}); err == nil {
					t.Error("more is recorded in it")
				}
			}
		})
	}
}

// A copy elsewhere is verified by what was kept of it: a checkpoint, and a key.
func TestTrailVerifyElsewhere(t *testing.T) {
	d := newDesk(t, 10)
	aside := t.TempDir()
	pin := filepath.Join(aside, "checkpoint")
	d.run(t, "verify", "--save-pin", pin).want(t, exitPass, "Its checkpoint is kept in", "")
	d.record(t, 10, 12)
	copied := filepath.Join(aside, "copy")
	if err := os.CopyFS(copied, os.DirFS(filepath.Join(d.state, "trail"))); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(d.state, "trail.pub"))
	if err != nil {
		t.Fatal(err)
	}
	verify := func(more ...string) outcome {
		return runProgram(t, append([]string{"trail", "verify", "--log", copied, "--key", strings.TrimSpace(string(key))}, more...)...)
	}
	verify("--pin", pin).want(t, exitPass, "12 records are what was written, and extend the 10", "")
	verify("--pin", pin+","+filepath.Join(d.state, "trail.pin")).want(t, exitPass, "and extend the 12", "")
	verify().want(t, exitUnknown, "no checkpoint is pinned", "")
	verify("--pin", filepath.Join(aside, "none")).want(t, exitUsage, "", "no such file")
	d.run(t, "pin", "--to", pin).want(t, exitPass, "12 records are pinned in", "")
	d.run(t, "pin").want(t, exitPass, "12 records are pinned in", "")
	newDesk(t, 3).run(t, "pin", "--to", pin).want(t, exitFail, "", "bad checkpoint")
}

// What was recorded is shown in the order in which it happened, whatever it
// holds, on a line of its own, and as far as it is asked for.
func TestTrailTail(t *testing.T) {
	d := newDesk(t, 10)
	numbers := func(args ...string) string {
		t.Helper()
		o := d.run(t, append([]string{"tail"}, args...)...)
		o.want(t, exitPass, "", "")
		var all []string
		for _, m := range regexp.MustCompile(`(?m)^\S+Z #(\d+) .*$`).FindAllStringSubmatch(o.stdout, -1) {
			all = append(all, m[1])
		}
		if strings.Count(o.stdout, "\n") != len(all) || strings.ContainsAny(o.stdout, "\x1b\u202e") {
			t.Errorf("%q: %q", args, o.stdout)
		}
		return strings.Join(all, " ")
	}
	for want, args := range map[string][]string{
		"0 1 2 3 4 5 6 7 8 9": nil,
		"8 9":                 {"-n", "2"},
		"0 5":                 {"--agent", "other"},
		"5":                   {"--decision", "deny", "-n", "1"},
		"3":                   {"--id", "call-3"},
		"4 5":                 {"--since", "2026-03-01T12:04:00Z", "--until", "2026-03-01T12:06:00Z"},
		"":                    {"--tool", "SLACK_SEND_MESSAGE"},
		"9":                   {"--kind", "tool.call", "--tool", "GMAIL_SEND_EMAIL", "--outcome", "ok", "--actor", "agent/inbox", "-n", "1"},
	} {
		if got := numbers(args...); got != want {
			t.Errorf("%q: %q, want %q", args, got, want)
		}
	}
	o := d.run(t, "tail", "--format", "json", "-n", "1")
	var rec trail.Record
	if err := json.Unmarshal([]byte(o.stdout), &rec); err != nil || rec.Seq != 9 || !strings.Contains(rec.Event.Message, "\x1b[2J\nand\u202e") || strings.ContainsAny(o.stdout, "\x1b\u202e") {
		t.Errorf("%v: %q", err, o.stdout)
	}
}

// What is exported has been verified, and is not written over anything.
func TestTrailExport(t *testing.T) {
	d := newDesk(t, 10)
	lines := func(o outcome) int { return strings.Count(o.stdout, "\n") }
	if o := d.run(t, "export"); o.code != exitPass || lines(o) != 10 || !json.Valid([]byte(strings.SplitN(o.stdout, "\n", 2)[0])) {
		t.Errorf("%+v", o)
	}
	if o := d.run(t, "export", "--format", "ocsf", "--agent", "other"); lines(o) != 2 || !strings.Contains(o.stdout, `"class_uid":6003`) {
		t.Errorf("%+v", o)
	}
	file := filepath.Join(t.TempDir(), "out")
	d.run(t, "export", "--out", file).want(t, exitPass, "", "")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 || info.Size() == 0 {
		t.Errorf("%v %v", info, err)
	}
	d.run(t, "export", "--out", file).want(t, exitFail, "", "file exists")

	name, data := d.segment(t)
	data[bytes.Index(data, []byte(`{"seq":9,`))+90] ^= 1
	put(t, name, data)
	for _, more := range [][]string{nil, {"--unverified"}} {
		o := d.run(t, append([]string{"export"}, more...)...)
		if o.code != exitFail {
			t.Errorf("%q: %+v", more, o)
		}
	}
}

// A proof takes the public key alone to check, and no other record has it.
func TestTrailProve(t *testing.T) {
	d := newDesk(t, 10)
	dir := t.TempDir()
	pin := filepath.Join(dir, "pin")
	d.run(t, "pin", "--to", pin).want(t, exitPass, "", "")
	d.record(t, 10, 13)
	key, err := os.ReadFile(filepath.Join(d.state, "trail.pub"))
	if err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{"seq": {"--seq", "4"}, "id": {"--id", "call-4"}, "pin": {"--since-pin", pin}} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(dir, name+".proof")
			d.run(t, append([]string{"prove", "--out", file}, args...)...).want(t, exitPass, "", "")
			check := func() outcome {
				return runProgram(t, "trail", "prove", "--check", file, "--key", string(bytes.TrimSpace(key)), "--state-dir", "/nonexistent")
			}
			want := "this is record 4 of the trail"
			if name == "pin" {
				want = "of 13 records extends the one of 10"
			}
			check().want(t, exitPass, "The proof holds", "")
			check().want(t, exitPass, want, "")
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			changed := bytes.Replace(text, []byte(`call-4`), []byte(`call-5`), 1)
			if name == "pin" {
				changed = regexp.MustCompile(`"hashes":\["..`).ReplaceAll(text, []byte(`"hashes":["AA`))
			}
			if bytes.Equal(changed, text) {
				t.Fatal("nothing was changed")
			}
			put(t, file, changed)
			check().want(t, exitFail, "", "the proof does not hold")
			other, err := trail.GenerateKey("machine/other")
			if err != nil {
				t.Fatal(err)
			}
			put(t, file, text)
			runProgram(t, "trail", "prove", "--check", file, "--key", other.Public().String()).want(t, exitFail, "", "bad checkpoint")
		})
	}
	d.run(t, "prove", "--seq", "99").want(t, exitFail, "", "99")
	d.run(t, "prove", "--id", "nobody").want(t, exitFail, "", `no record has the id "nobody"`)
	newDesk(t, 3).run(t, "prove", "--since-pin", pin).want(t, exitFail, "", "bad checkpoint")
}

// Whoever uses the commands wrongly is told what is wrong.
func TestTrailUsage(t *testing.T) {
	d := newDesk(t, 1)
	d.run(t, "pin").want(t, exitPass, "", "")
	empty := t.TempDir()
	for name, test := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no verb":              {[]string{"trail"}, exitUsage, "say what"},
		"another verb":         {[]string{"trail", "erase"}, exitUsage, "say what"},
		"an argument":          {[]string{"trail", "verify", "gateway"}, exitUsage, `unexpected argument "gateway"`},
		"another flag":         {[]string{"trail", "verify", "--fix"}, exitUsage, "see managemyclaw trail verify -h"},
		"another trail":        {[]string{"trail", "verify", "--log", "audit"}, exitUsage, "say gateway, program"},
		"another format":       {[]string{"trail", "export", "--format", "csv"}, exitUsage, "use jsonl or ocsf"},
		"no time":              {[]string{"trail", "tail", "--since", "yesterday"}, exitUsage, "--since"},
		"a time after another": {[]string{"trail", "tail", "--since", "1h", "--until", "2h"}, exitUsage, "--until is not after --since"},
		"another decision":     {[]string{"trail", "tail", "--decision", "maybe"}, exitUsage, "neither allow nor deny"},
		"a negative number":    {[]string{"trail", "tail", "-n", "-1"}, exitUsage, "negative"},
		"nothing to prove":     {[]string{"trail", "prove"}, exitUsage, "say what to prove"},
		"two to prove":         {[]string{"trail", "prove", "--seq", "1", "--id", "x"}, exitUsage, "say what to prove"},
		"no key":               {[]string{"trail", "verify", "--state-dir", d.state, "--log", "program", "--key", "nobody"}, exitUsage, "neither a public key nor a file"},
		"no trail":             {[]string{"trail", "verify", "--state-dir", empty}, exitUnknown, "there is no trail in " + empty},
		"no trail of a name":   {[]string{"trail", "tail", "--state-dir", d.state}, exitFail, "gateway-trail"},
	} {
		t.Run(name, func(t *testing.T) {
			o := runProgram(t, test.args...)
			o.want(t, test.code, "", test.want)
			if o.stdout != "" || strings.Count(o.stderr, "\n") != 1 {
				t.Errorf("%q %q", o.stdout, o.stderr)
			}
		})
	}
	runProgram(t, "trail", "-h").want(t, exitPass, "name the first record that is not", "")
	for _, verb := range []string{"verify", "pin", "tail", "export", "prove"} {
		runProgram(t, "trail", verb, "-h").want(t, exitPass, "-state-dir DIR", "")
	}
}

// Of many who record at once, also of those who make the trail, each gets its
// turn; whoever does not in time says so.
func TestTrailTurns(t *testing.T) {
	d := &desk{filepath.Join(t.TempDir(), "state")}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 4 {
				if err := d.program(t).trail().Record(context.Background(), trail.Event{Kind: trail.KindDrill}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(records(t, d.state)); n != 32 {
		t.Errorf("%d records, want 32", n)
	}
	b := d.program(t).book(programTrail)
	held, _, _, err := b.open(trail.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	waits := d.program(t).trail()
	waits.wait = 50 * time.Millisecond
	if err := waits.Record(t.Context(), trail.Event{Kind: trail.KindDrill}); !errors.Is(err, trail.ErrLocked) {
		t.Errorf("%v, want that it is in use", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := d.program(t).trail().Record(ctx, trail.Event{Kind: trail.KindDrill}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the context's error", err)
	}
}

// A trail that was begun and not finished is finished; what was finished and is
// gone is not made anew.
func TestTrailBegun(t *testing.T) {
	all := []string{"trail", "trail.key", "trail.pub", "trail.pin"}
	for name, test := range map[string]struct {
		gone []string
		fine bool
	}{
		"the key alone is there":        {[]string{"trail", "trail.pub", "trail.pin"}, true},
		"no public key and no pin":      {[]string{"trail.pub", "trail.pin"}, true},
		"no pin":                        {[]string{"trail.pin"}, true},
		"all is gone":                   {all, true},
		"the log is gone":               {[]string{"trail"}, false},
		"the log and the pin are gone":  {[]string{"trail", "trail.pin"}, false},
		"the log and its keys are gone": {[]string{"trail", "trail.key", "trail.pub"}, false},
		"the key is gone":               {[]string{"trail.key"}, false},
		"only the public key is left":   {[]string{"trail", "trail.key", "trail.pin"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, 2)
			for _, name := range test.gone {
				if err := os.RemoveAll(filepath.Join(d.state, name)); err != nil {
					t.Fatal(err)
				}
			}
			err := d.program(t).trail().Record(t.Context(), trail.Event{Kind: trail.KindDrill})
			if (err == nil) != test.fine {
				t.Fatal(err)
			}
			if err != nil && !strings.Contains(err.Error(), "bring it back") {
				t.Error(err)
			}
			if test.fine {
				want := 3
				if slices.Contains(test.gone, "trail") {
					want = 1
				}
				if n := len(records(t, d.state)); n != want {
					t.Errorf("%d records, want %d", n, want)
				}
			}
		})
	}
}

// What was recorded before there was this trail is kept, and as it was then.
func TestFormerTrail(t *testing.T) {
	state := t.TempDir()
	put(t, filepath.Join(state, "trail.jsonl"), []byte("{\"kind\":\"remedy.apply\"}\n"))
	var said bytes.Buffer
	p := &program{stateDir: state, stderr: &said}
	for range 2 {
		if err := p.trail().Record(t.Context(), trail.Event{Kind: trail.KindDrill}); err != nil {
			t.Fatal(err)
		}
	}
	all := records(t, state)
	if len(all) != 3 || !strings.HasSuffix(all[0].Event.Subject, "/trail.jsonl") || len(all[0].Event.Attrs["sha256"]) != 64 || all[0].Event.Attrs["bytes"] != "24" {
		t.Errorf("%+v", all)
	}
	if strings.Count(said.String(), "What was recorded before stays in") != 1 {
		t.Errorf("said: %s", &said)
	}
	if text, err := os.ReadFile(filepath.Join(state, "trail.jsonl")); err != nil || len(text) != 24 {
		t.Errorf("%q, %v", text, err)
	}
}
