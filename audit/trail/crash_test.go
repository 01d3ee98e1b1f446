package trail_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// childVar makes the test binary a process that writes to the log in the
// directory that it names, until it is killed.
const childVar = "HARDSHELL_TRAIL_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVar); dir != "" {
		fmt.Fprintln(os.Stderr, writeUntilKilled(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeUntilKilled prints each record that was acknowledged: its number, and
// the id of its event.
func writeUntilKilled(dir string) error {
	key, err := trail.ReadKey(dir + ".key")
	if err != nil {
		return err
	}
	l, err := trail.Open(dir, key, trail.Config{SegmentBytes: 64 << 10})
	if err != nil {
		return err
	}
	failed := make(chan error)
	for w := range 24 {
		go func() {
			for i := 0; ; i++ {
				e := event(i)
				e.ID = fmt.Sprintf("%d-%d-%d", os.Getpid(), w, i)
				seq, err := l.Append(context.Background(), e)
				if err != nil {
					failed <- err
				}
				// One write of less than a page: all of it arrives, or nothing.
				if _, err := fmt.Fprintf(os.Stdout, "%d %s\n", seq, e.ID); err != nil {
					failed <- err
				}
			}
		}()
	}
	return <-failed
}

// TestKill9 kills a process that writes to a log, at any moment, again and
// again. Nothing that it was told is kept may be lost, it must be able to go
// on each time, and the log must verify, also from what was pinned before.
func TestKill9(t *testing.T) {
	kills := 60
	switch {
	case long:
		kills = 1200
	case testing.Short():
		kills = 20
	}
	var acknowledged, cut, torn int
	for done := 0; done < kills; {
		w := create(t, trail.Config{})
		if err := w.key.WriteFile(w.dir + ".key"); err != nil {
			t.Fatal(err)
		}
		w.close(t)
		acks := make(map[int64]string)
		v := w.verifier()
		v.Live = true
		for range min(40, kills-done) {
			done++
			for seq, id := range killOne(t, w.dir, time.Duration(rand.IntN(25))*time.Millisecond) {
				if other, ok := acks[seq]; ok {
					t.Fatalf("record %d was acknowledged as %s and as %s", seq, other, id)
				}
				acks[seq] = id
			}
			s, err := v.Verify(t.Context(), w.fs())
			if err != nil {
				t.Fatalf("after %d kills: %v", done, err)
			}
			v.Pinned = []trail.Checkpoint{s.Checkpoint}
			strict := *v
			strict.Live = false
			if _, err := strict.Verify(t.Context(), w.fs()); err != nil {
				wantDamage(t, err, trail.DamageTorn)
				torn++
			}
		}
		w.open(t, trail.Config{Pinned: v.Pinned})
		if w.log.Recovered().Bytes > 0 {
			cut++
		}
		w.close(t)
		w.verify(t)
		found := 0
		for rec, err := range w.reader(t).Records(t.Context(), trail.Query{}) {
			if err != nil {
				t.Fatal(err)
			}
			if id, ok := acks[rec.Seq]; ok {
				found++
				if rec.Event.ID != id {
					t.Errorf("record %d is %s, and was acknowledged as %s", rec.Seq, rec.Event.ID, id)
				}
			}
		}
		if found != len(acks) {
			t.Errorf("%d records were acknowledged, and %d of them are kept", len(acks), found)
		}
		acknowledged += len(acks)
	}
	if acknowledged < kills {
		t.Errorf("only %d records were acknowledged", acknowledged)
	}
	t.Logf("%d kills, %d records acknowledged, %d torn tails seen", kills, acknowledged, torn)
}

// killOne starts a writer, kills it some time after it has begun, and returns
// what it was told is kept.
func killOne(t *testing.T, dir string, after time.Duration) map[int64]string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childVar+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	acks := make(map[int64]string)
	// Every fifth is killed while it starts, the others under load.
	if rand.IntN(5) > 0 {
		readAck(lines, acks)
	}
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	for readAck(lines, acks) {
	}
	_ = cmd.Wait()
	if stderr.Len() > 0 {
		t.Fatalf("the writer could not go on: %s", stderr.String())
	}
	return acks
}

func readAck(r *bufio.Reader, acks map[int64]string) bool {
	line, err := r.ReadString('\n')
	if err != nil {
		return false
	}
	number, id, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	seq, err := strconv.ParseInt(number, 10, 64)
	if err == nil {
		acks[seq] = id
	}
	return err == nil
}

// ends returns where the checkpoints of a segment end, and of how many records
// they are.
func ends(t *testing.T, w *world, name string, data []byte) map[int]int64 {
	t.Helper()
	m := make(map[int]int64)
	text := string(data)
	for at := 0; ; {
		i := strings.Index(text[at:], "\n\n— "+w.key.Origin())
		if i < 0 {
			break
		}
		end := at + i + 2
		end += strings.IndexByte(text[end:], '\n') + 1
		start := strings.LastIndex(text[:at+i], w.key.Origin()+"\n")
		c, err := trail.ParseCheckpoint(text[start:end], w.key.Public())
		if err != nil {
			t.Fatal(name, err)
		}
		m[end] = c.Size
		at = end
	}
	return m
}

// TestTruncateEverywhere cuts the last segment at every byte. The log then
// holds what the last checkpoint before the cut covers; a cut that no crash
// can make is named; and a pinned checkpoint finds each.
func TestTruncateEverywhere(t *testing.T) {
	w := create(t, trail.Config{SegmentBytes: 4000})
	w.record(t, 0, 9)
	pinned := w.log.Checkpoint()
	w.close(t)
	all := w.files(t)
	names := segments(all)
	last := names[len(names)-1]
	data := all[last].Data
	good := ends(t, w, last, data)
	if len(good) < 3 || len(names) < 2 {
		t.Fatalf("%d checkpoints, %d segments", len(good), len(names))
	}
	begin := len(data) // of the first record
	for end := range good {
		begin = min(begin, end)
	}
	want, end := int64(-1), 0
	for n := range len(data) + 1 {
		if size, ok := good[n]; ok {
			want, end = size, n
		}
		m := clone(all)
		m[last].Data = data[:n]
		_, err := w.verifier().Verify(t.Context(), m)
		v := w.verifier()
		v.Pinned = []trail.Checkpoint{pinned}
		_, pinErr := v.Verify(t.Context(), m)
		// To open it takes several writes, so the default run opens some.
		near := n-end < 3 || n < begin && n%16 == 0 || n == len(data)-1
		if !long && !near && n%31 != 0 {
			if d, ok := errors.AsType[*trail.DamageError](err); !ok || n > begin && d.Kind != trail.DamageTorn {
				t.Fatalf("cut at %d: %v", n, err)
			}
			if n > begin {
				wantDamage(t, pinErr, trail.DamageTruncated)
			}
			continue
		}
		put(t, w.dir, m)
		l, openErr := trail.Open(w.dir, w.key, trail.Config{})
		switch {
		case n < begin: // a segment comes into being with its beginning
			if d, ok := errors.AsType[*trail.DamageError](err); !ok || d.File != last {
				t.Fatalf("cut at %d: %v", n, err)
			}
			if _, ok := errors.AsType[*trail.DamageError](openErr); !ok {
				t.Fatalf("cut at %d: open: %v", n, openErr)
			}
			continue
		case n == end && err != nil:
			t.Fatalf("cut at %d, after a checkpoint: %v", n, err)
		case n != end:
			wantDamage(t, err, trail.DamageTorn)
		}
		if n < len(data) {
			wantDamage(t, pinErr, trail.DamageTruncated)
		} else if pinErr != nil {
			t.Fatal(pinErr)
		}
		if openErr != nil {
			t.Fatalf("cut at %d: open: %v", n, openErr)
		}
		r := l.Recovered()
		if r.Bytes != int64(n-end) || r.Salvaged {
			t.Fatalf("cut at %d: %+v", n, r)
		}
		if got := l.Checkpoint().Size - min(1, r.Bytes); got != want { // the recovery is a record too
			t.Fatalf("cut at %d: %d records are kept, want %d", n, got, want)
		}
		if r.Bytes > 0 {
			if kept, err := os.ReadFile(filepath.Join(w.dir, r.File)); err != nil || string(kept) != string(data[end:n]) {
				t.Fatalf("cut at %d: what was cut off: %v", n, err)
			}
		}
		if err := l.Record(t.Context(), event(7)); err != nil {
			t.Fatalf("cut at %d: record: %v", n, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		w.verify(t)
	}
}

func segments(m fstest.MapFS) []string {
	names, _ := fs.Glob(m, "*.seg")
	return names
}

// Half-made files of a crash are cleared away, an index that was not written
// yet is made, and a segment that has just begun holds nothing.
func TestOpenAfterACrashWhileASegmentBegan(t *testing.T) {
	w := create(t, trail.Config{SegmentBytes: 2000})
	w.record(t, 0, 20)
	w.close(t)
	all := w.files(t)
	names := segments(all)
	last := names[len(names)-1]
	index := strings.TrimSuffix(names[len(names)-2], ".seg") + ".idx"
	want := string(all[index].Data)

	m := clone(all)
	delete(m, index)
	m[last+".tmp"] = &fstest.MapFile{Data: []byte("half")}
	if _, err := w.verifier().Verify(t.Context(), m); err != nil {
		t.Errorf("before: %v", err)
	}
	r, err := trail.OpenReader(t.Context(), m, w.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if p, err := r.Prove(t.Context(), 19); err != nil || len(p.Record) == 0 {
		t.Errorf("a reader: %v", err)
	}
	put(t, w.dir, m)
	w.open(t, trail.Config{})
	w.close(t)
	got := w.files(t)
	if string(got[index].Data) != want {
		t.Error("the index that was made is another")
	}
	if left, _ := filepath.Glob(filepath.Join(w.dir, "*.tmp")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	w.verify(t)
}

// What looks like an unfinished write, and is not, is not thrown away: the log
// is opened only if that is asked for, and what is cut off stays.
func TestSalvage(t *testing.T) {
	w := create(t, trail.Config{})
	w.record(t, 0, 8)
	w.close(t)
	all := w.files(t)
	name := segments(all)[0]
	data := all[name].Data
	var five int
	for end, size := range ends(t, w, name, data) {
		if size == 5 {
			five = end
		}
	}
	for what, c := range map[string]struct {
		damage func([]byte) []byte
		kind   trail.Damage
	}{
		"a record that has been damaged":     {func(b []byte) []byte { b[five+40] ^= 1; return b }, trail.DamageEdited},
		"a checkpoint that has been damaged": {func(b []byte) []byte { i := strings.Index(string(b[five:]), "hsC1"); b[five+i+30] ^= 1; return b }, trail.DamageSignature},
		"a record that has been taken out": {func(b []byte) []byte {
			i := strings.Index(string(b[five:]), "hsC1")
			return append(b[:five:five], b[five+i:]...)
		}, trail.DamageMissing},
		"a header that has been overwritten":  {func(b []byte) []byte { copy(b[five:], "\x00\x00\x00\x00"); return b }, trail.DamageEdited},
		"records that have been forged after": {func(b []byte) []byte { return forgeTail(t, w, b) }, trail.DamageSignature},
	} {
		t.Run(what, func(t *testing.T) {
			m := clone(all)
			m[name].Data = c.damage(m[name].Data)
			put(t, w.dir, m)
			_, err := trail.Open(w.dir, w.key, trail.Config{})
			wantDamage(t, err, c.kind)
			l, err := trail.Open(w.dir, w.key, trail.Config{Salvage: true})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			r := l.Recovered()
			want := int64(5)
			if c.kind == trail.DamageSignature && strings.Contains(what, "forged") {
				want = 8
			}
			if !r.Salvaged || r.Bytes == 0 || l.Checkpoint().Size != want+1 {
				t.Errorf("%+v, %v", r, l.Checkpoint())
			}
			kept, err := os.ReadFile(filepath.Join(w.dir, r.File))
			if err != nil || int64(len(kept)) != r.Bytes {
				t.Error("what was cut off:", err)
			}
			w.verify(t)
		})
	}
}
