package access_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/access"
	"github.com/managemyclaw/hardshell/harden/hardentest"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/harden/host/hosttest"
)

// A diary is a log on disk, with its key and a checkpoint beside it.
type diary struct {
	root  string
	key   *trail.Key
	trail access.Trail
}

// newDiary makes a log of n records, of which the first so many are pinned.
func newDiary(t testing.TB, n, pinned int) *diary {
	t.Helper()
	root := filepath.ToSlash(t.TempDir())
	key, err := trail.GenerateKey("machine/gateway")
	if err != nil {
		t.Fatal(err)
	}
	d := &diary{root: root, key: key, trail: access.Trail{
		Name: "gateway", Dir: root + "/log", KeyFile: root + "/log.pub", Pin: root + "/log.pin", Secret: root + "/log.key",
		Owner: uint32(os.Geteuid()), MaxAge: time.Minute, Gateway: true,
	}}
	d.write(t, n, pinned)
	if err := key.WriteFile(d.trail.Secret); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.trail.KeyFile, []byte(key.Public().String()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return d
}

// copy returns the same somewhere else.
func (d *diary) copy(t testing.TB) *diary {
	t.Helper()
	root := filepath.ToSlash(t.TempDir()) + "/copy"
	if err := os.CopyFS(root, os.DirFS(d.root)); err != nil {
		t.Fatal(err)
	}
	of := d.trail
	of.Dir, of.KeyFile, of.Pin, of.Secret = root+"/log", root+"/log.pub", root+"/log.pin", root+"/log.key"
	return &diary{root: root, key: d.key, trail: of}
}

// write makes the log anew.
func (d *diary) write(t testing.TB, n, pinned int, change ...func(int, *trail.Event)) {
	t.Helper()
	if err := os.RemoveAll(d.trail.Dir); err != nil {
		t.Fatal(err)
	}
	log, err := trail.Create(d.trail.Dir, d.key, trail.Config{SegmentBytes: 4000})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n + 1 {
		if i == pinned && pinned > 0 {
			if _, err := log.Witness(t.Context(), &trail.PinFile{Path: d.trail.Pin, Key: d.key.Public()}); err != nil {
				t.Fatal(err)
			}
		}
		if i == n {
			break
		}
		e := trail.Event{
			Kind: trail.KindToolCall, Time: time.Now(), Actor: "agent/inbox", Agent: "inbox", Tool: "GMAIL_SEND_EMAIL", Decision: trail.DecisionAllow,
			Outcome: trail.OutcomeOK, Subject: "tool/GMAIL_SEND_EMAIL", ID: fmt.Sprintf("r%d.0", i), RequestID: fmt.Sprintf("r%d", i), LogID: fmt.Sprintf("log_%d", i),
			Message: "hello, this is what makes the record somewhat longer than it would be without it",
		}
		for _, f := range change {
			f(i, &e)
		}
		if err := log.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}

func (d *diary) config() access.Config {
	return access.Config{Containers: containers(), Trails: []access.Trail{d.trail}}
}

func (d *diary) evaluate(t testing.TB, id string) harden.Result {
	t.Helper()
	for _, c := range access.Checks(d.config()) {
		if c.Info().ID == id {
			return harden.Evaluate(t.Context(), &host.Local().View, c, 0)
		}
	}
	t.Fatalf("no check %s", id)
	return harden.Result{}
}

// segments returns the names of the log's segments, in order.
func (d *diary) segments(t testing.TB) []string {
	t.Helper()
	names, err := filepath.Glob(d.trail.Dir + "/*.seg")
	if err != nil || len(names) < 2 {
		t.Fatalf("%d segments, %v", len(names), err)
	}
	return names
}

// edit changes the segment that a record is in.
func (d *diary) edit(t testing.TB, seq int, change func(data []byte, at, next int) []byte) {
	t.Helper()
	const header = 16 // of a frame
	prefix := func(n int) []byte { return fmt.Appendf(nil, `{"seq":%d,`, n) }
	for _, name := range d.segments(t) {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		at, next := bytes.Index(data, prefix(seq)), bytes.Index(data, prefix(seq+1))
		if at < 0 {
			continue
		}
		if err := os.WriteFile(name, change(bytes.Clone(data), at-header, next-header), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("no record %d", seq)
}

// frameOf returns the length of the frame at an offset.
func frameOf(data []byte, at int) int {
	return 16 + int(data[at+4]) | int(data[at+5])<<8 | int(data[at+6])<<16
}

func finding(t *testing.T, r harden.Result, id string) {
	t.Helper()
	if r.Status != harden.StatusFail || r.Findings[0].ID != id || r.Findings[0].Remedy == "" {
		t.Errorf("%s: %v %+v %s, want the finding %s", r.Info.ID, r.Status, r.Findings, r.Detail, id)
	}
}

func unknown(t *testing.T, r harden.Result, detail string) {
	t.Helper()
	if r.Status != harden.StatusUnknown || !strings.Contains(r.Detail, detail) {
		t.Errorf("%s: %v %+v %q, want unknown for %q", r.Info.ID, r.Status, r.Findings, r.Detail, detail)
	}
}

func pass(t *testing.T, r harden.Result, level harden.Level) {
	t.Helper()
	if r.Status != harden.StatusPass || r.Level != level {
		t.Errorf("%s: %v at level %v: %+v %s", r.Info.ID, r.Status, r.Level, r.Findings, r.Detail)
	}
}

const (
	trailVerifies = "access.trail_verifies"
	trailPinned   = "access.trail_pinned"
	trailFresh    = "access.trail_fresh"
	trailComplete = "access.trail_complete"
	trailPrivate  = "access.trail_private"
)

// Whatever is done to a log is found, and called what it is.
func TestTamperedTrail(t *testing.T) {
	sound := newDiary(t, 30, 30)
	pass(t, sound.copy(t).evaluate(t, trailVerifies), harden.LevelInspected)
	for name, test := range map[string]struct {
		do   func(*testing.T, *diary)
		want string // the kind of damage
	}{
		"a byte is edited": {func(t *testing.T, d *diary) {
			d.edit(t, 7, func(data []byte, at, _ int) []byte { data[at+80] ^= 1; return data })
		}, "edited"},
		"a record is deleted": {func(t *testing.T, d *diary) {
			d.edit(t, 7, func(data []byte, at, _ int) []byte { return append(data[:at], data[at+frameOf(data, at):]...) })
		}, "missing"},
		"two records are exchanged": {func(t *testing.T, d *diary) {
			d.edit(t, 3, func(data []byte, a, b int) []byte {
				one, two := bytes.Clone(data[a:a+frameOf(data, a)]), bytes.Clone(data[b:b+frameOf(data, b)])
				return bytes.Join([][]byte{data[:a], two, data[a+len(one) : b], one, data[b+len(two):]}, nil)
			})
		}, "reordered"},
		"the tail is cut off after a checkpoint": {func(t *testing.T, d *diary) {
			d.edit(t, 29, func(data []byte, at, _ int) []byte { return data[:at] })
		}, "truncated"},
		"the tail is cut off within a record": {func(t *testing.T, d *diary) {
			d.edit(t, 29, func(data []byte, at, _ int) []byte { return data[:at+40] })
		}, "truncated"},
		"a segment is deleted": {func(t *testing.T, d *diary) { os.Remove(d.segments(t)[1]) }, "missing"},
		"the first segment is deleted": {func(t *testing.T, d *diary) {
			first := d.segments(t)[0]
			os.Remove(first)
			os.Remove(strings.TrimSuffix(first, ".seg") + ".idx")
		}, "missing"},
		"two segments are exchanged": {func(t *testing.T, d *diary) {
			s := d.segments(t)
			os.Rename(s[0], d.root+"/aside")
			os.Rename(s[1], s[0])
			os.Rename(d.root+"/aside", s[1])
		}, "swapped"},
		"an index is edited": {func(t *testing.T, d *diary) {
			name := strings.TrimSuffix(d.segments(t)[0], ".seg") + ".idx"
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			data[len(data)/2] ^= 1
			if err := os.WriteFile(name, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "index"},
		"the log is written anew with its key": {func(t *testing.T, d *diary) {
			d.write(t, 40, 0, func(i int, e *trail.Event) {
				if i == 7 {
					e.Tool = "GMAIL_DELETE_MESSAGE"
				}
			})
		}, "rewritten"},
		"the log is written anew, and is shorter": {func(t *testing.T, d *diary) { d.write(t, 10, 0) }, "truncated"},
		"the log is written anew with another key": {func(t *testing.T, d *diary) {
			other, err := trail.GenerateKey("machine/gateway")
			if err != nil {
				t.Fatal(err)
			}
			d.key = other
			d.write(t, 40, 0)
		}, "signature"},
		"the log is gone":      {func(t *testing.T, d *diary) { os.RemoveAll(d.trail.Dir) }, "gone"},
		"all records are gone": {func(t *testing.T, d *diary) { os.RemoveAll(d.trail.Dir); os.Mkdir(d.trail.Dir, 0o700) }, "gone"},
		"all is gone but what it was signed with": {func(t *testing.T, d *diary) {
			os.RemoveAll(d.trail.Dir)
			os.Remove(d.trail.Pin)
			os.Remove(d.trail.KeyFile)
		}, "gone"},
	} {
		t.Run(name, func(t *testing.T) {
			d := sound.copy(t)
			test.do(t, d)
			r := d.evaluate(t, trailVerifies)
			finding(t, r, trailVerifies+"."+test.want)
			for _, id := range []string{trailPinned, trailFresh} {
				if r := d.evaluate(t, id); r.Status == harden.StatusPass {
					t.Errorf("%s passes of a log that is not sound", id)
				}
			}
		})
	}
}

// What is written while it is looked at is no damage.
func TestTrailInTheMiddleOfAWrite(t *testing.T) {
	d := newDiary(t, 30, 20)
	d.edit(t, 29, func(data []byte, at, _ int) []byte { return data[:at+40] })
	pass(t, d.evaluate(t, trailVerifies), harden.LevelInspected)
	pass(t, d.evaluate(t, trailPinned), harden.LevelInspected)
}

// A checkpoint that is not there, or not of this log, is never a pass.
func TestPinnedTrail(t *testing.T) {
	d := newDiary(t, 10, 10)
	d.trail.MaxUnpinned = time.Minute
	both := func(f func(*testing.T, harden.Result)) {
		t.Helper()
		f(t, d.evaluate(t, trailVerifies))
		f(t, d.evaluate(t, trailPinned))
	}
	both(func(t *testing.T, r harden.Result) { pass(t, r, harden.LevelInspected) })

	pin, err := os.ReadFile(d.trail.Pin)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(d.trail.Pin); err != nil {
		t.Fatal(err)
	}
	both(func(t *testing.T, r harden.Result) { unknown(t, r, "managemyclaw trail pin") })
	with := func(text string) {
		t.Helper()
		if err := os.WriteFile(d.trail.Pin, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"empty": "", "garbage": "\x00\xff", "of another key": string(newDiary(t, 10, 10).pinned(t)), "one number changed": strings.Replace(string(pin), "\n10\n", "\n11\n", 1),
	} {
		t.Run(name, func(t *testing.T) {
			with(text)
			finding(t, d.evaluate(t, trailPinned), trailPinned+".foreign")
			unknown(t, d.evaluate(t, trailVerifies), "no checkpoint is pinned")
		})
	}
	with(string(pin))

	// What is not pinned soon can be cut off.
	old := func(_ int, e *trail.Event) { e.Time = time.Now().Add(-2 * time.Minute) }
	d.write(t, 12, 0, old)
	with("")
	os.Remove(d.trail.Pin)
	d.write(t, 12, 10, old)
	finding(t, d.evaluate(t, trailPinned), trailPinned+".stale")
	pass(t, d.evaluate(t, trailVerifies), harden.LevelInspected)
	d.trail.MaxUnpinned = time.Hour
	pass(t, d.evaluate(t, trailPinned), harden.LevelInspected)

	// Beside the log it would be put back with it.
	beside := d.trail.Dir + "/pin"
	if err := os.Rename(d.trail.Pin, beside); err != nil {
		t.Fatal(err)
	}
	d.trail.Pin = beside
	finding(t, d.evaluate(t, trailPinned), trailPinned+".beside")
}

func (d *diary) pinned(t testing.TB) []byte {
	t.Helper()
	pin, err := os.ReadFile(d.trail.Pin)
	if err != nil {
		t.Fatal(err)
	}
	return pin
}

// The remedy pins what extends what was pinned, and nothing else.
func TestPinRemedy(t *testing.T) {
	old := func(_ int, e *trail.Event) { e.Time = time.Now().Add(-2 * time.Hour) }
	d := newDiary(t, 1, 0)
	d.write(t, 30, 20, old)
	finding(t, d.evaluate(t, trailPinned), trailPinned+".stale")
	fix := func() harden.Fix {
		t.Helper()
		f := harden.Fixer{Trail: trail.Discard}
		fixes, err := f.Fix(t.Context(), host.Local(), nil, check(t, d.config(), trailPinned))
		if err != nil || len(fixes) != 1 {
			t.Fatalf("%+v, %v", fixes, err)
		}
		return fixes[0]
	}
	if got := fix(); !got.Changed {
		t.Fatalf("%+v", got)
	}
	pass(t, d.evaluate(t, trailPinned), harden.LevelInspected)

	// A log that was written anew is not pinned, however long it is.
	was := d.pinned(t)
	d.write(t, 60, 0, old)
	plan, err := check(t, d.config(), trailPinned).(harden.Remediator).Plan(t.Context(), &host.Local().View)
	if err != nil || len(plan.Actions) != 0 || len(plan.Manual) != 1 {
		t.Errorf("%+v, %v", plan, err)
	}
	if !bytes.Equal(was, d.pinned(t)) {
		t.Error("the checkpoint was replaced")
	}
}

// What is silent, or ahead of its time, is not fresh; and where nothing need be
// recorded, nothing is asked.
func TestFreshTrail(t *testing.T) {
	d := newDiary(t, 3, 3)
	at := func(age time.Duration) func(int, *trail.Event) {
		return func(_ int, e *trail.Event) { e.Time = time.Now().Add(-age) }
	}
	pass(t, d.evaluate(t, trailFresh), harden.LevelInspected)
	os.Remove(d.trail.Pin)
	d.write(t, 3, 3, at(2*time.Minute))
	finding(t, d.evaluate(t, trailFresh), trailFresh+".silent")
	os.Remove(d.trail.Pin)
	d.write(t, 3, 3, at(-time.Hour))
	finding(t, d.evaluate(t, trailFresh), trailFresh+".future")
	os.Remove(d.trail.Pin)
	d.write(t, 0, 0)
	finding(t, d.evaluate(t, trailFresh), trailFresh+".silent")
	d.trail.MaxAge = 0
	unknown(t, d.evaluate(t, trailFresh), "not known where the gateway is")
	d.trail.Gateway = false
	if r := d.evaluate(t, trailFresh); r.Status != harden.StatusNotApplicable {
		t.Errorf("%v %s", r.Status, r.Detail)
	}
}

// Nobody knows of a trail, or there is none yet: that is unknown, with what to
// do.
func TestNoTrail(t *testing.T) {
	for _, id := range []string{trailVerifies, trailPinned, trailFresh, trailComplete, trailPrivate} {
		unknown(t, evaluate(t, access.Config{}, &host.Local().View, id), "not known where what agents do is recorded")
	}
	d := newDiary(t, 1, 0)
	for _, name := range []string{d.trail.Dir, d.trail.KeyFile, d.trail.Secret} {
		if err := os.RemoveAll(name); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{trailVerifies, trailPinned, trailFresh, trailPrivate} {
		unknown(t, d.evaluate(t, id), "no such file")
	}
}

// The checks of a trail keep the contract on a machine in memory.
func TestTrailChecksKeepTheContract(t *testing.T) {
	d := newDiary(t, 10, 10)
	of := d.trail
	load := func(change func(*hosttest.Machine)) func() *hosttest.Machine {
		return func() *hosttest.Machine {
			m := machine()
			err := fs.WalkDir(os.DirFS(d.root), ".", func(name string, e fs.DirEntry, err error) error {
				if err != nil || e.IsDir() {
					return err
				}
				data, err := os.ReadFile(filepath.Join(d.root, name))
				m.FileMode(d.root+"/"+name, string(data), 0o600)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if change != nil {
				change(m)
			}
			return m
		}
	}
	last := of.Dir + "/" + filepath.Base(d.segments(t)[len(d.segments(t))-1])
	cut := func(m *hosttest.Machine) {
		text, _ := m.Read(last)
		m.FileMode(last, text[:len(text)/2], 0o600)
	}
	for id, test := range map[string]struct {
		bad   func(*hosttest.Machine)
		reads []string
	}{
		trailVerifies: {cut, []string{last, of.Dir, of.KeyFile, of.Pin}},
		trailPinned:   {func(m *hosttest.Machine) { m.File(of.Pin, string(newDiary(t, 1, 1).pinned(t))) }, []string{of.Pin, of.KeyFile}},
	} {
		t.Run(id, func(t *testing.T) {
			hardentest.Run(t, hardentest.Subject{
				Check: check(t, d.config(), id), Good: load(nil), Bad: load(test.bad), Reads: test.reads,
				NoSecret: "a trail has been redacted, and its records are not shown",
			})
		})
	}
}
