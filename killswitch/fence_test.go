package killswitch_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/killswitch"
)

func openFence(t testing.TB, dir string) *killswitch.Fence {
	t.Helper()
	f, err := killswitch.OpenFence(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Epochs grow over resets, whoever opens the fence; an agent that is stopped
// keeps its epoch and its reason.
func TestEpochs(t *testing.T) {
	dir := t.TempDir()
	for epoch := uint64(1); epoch <= 5; epoch++ {
		f := openFence(t, dir)
		if err := f.Fenced(t.Context(), "inbox"); err != nil {
			t.Fatal(err)
		}
		for _, reason := range []string{"first", "second"} {
			got, err := openFence(t, dir).Engage(t.Context(), "inbox", reason)
			if err != nil || got != epoch {
				t.Fatalf("epoch %d, %v; want %d", got, err, epoch)
			}
			if s, err := f.State("inbox"); err != nil || s.Reason != "first" || s.Released || time.Since(s.Time) > time.Minute {
				t.Errorf("%+v, %v", s, err)
			}
			if err := f.Fenced(t.Context(), "inbox"); !errors.Is(err, killswitch.ErrEngaged) {
				t.Error(err)
			}
		}
		if err := f.Fenced(t.Context(), "other"); err != nil {
			t.Errorf("another agent: %v", err)
		}
		for _, wrong := range []uint64{epoch - 1, epoch + 1} {
			if err := killswitch.Release(f, t.Context(), "inbox", wrong, ""); !errors.Is(err, killswitch.ErrEpoch) {
				t.Errorf("release of epoch %d: %v", wrong, err)
			}
		}
		if err := killswitch.Release(f, t.Context(), "inbox", epoch, ""); err != nil {
			t.Fatal(err)
		}
		if err := killswitch.Release(f, t.Context(), "inbox", epoch, ""); !errors.Is(err, killswitch.ErrNotEngaged) {
			t.Errorf("release twice: %v", err)
		}
	}
}

// Whatever cannot be known holds.
func TestTheFenceFailsClosed(t *testing.T) {
	for name, c := range map[string]func(t *testing.T, dir string){
		"a file of any content":       func(t *testing.T, dir string) { write(t, dir+"/inbox", "stopped by hand\n") },
		"an empty file":               func(t *testing.T, dir string) { write(t, dir+"/inbox", "") },
		"a directory":                 func(t *testing.T, dir string) { mkdir(t, dir+"/inbox") },
		"a link to nowhere":           func(t *testing.T, dir string) { check(t, os.Symlink("nowhere", dir+"/inbox")) },
		"the record of another agent": func(t *testing.T, dir string) { write(t, dir+"/inbox", released(t, "other")) },
		"a link to a released record": func(t *testing.T, dir string) {
			write(t, dir+"/real", released(t, "inbox"))
			check(t, os.Symlink("real", dir+"/inbox"))
		},
		"a record that is too large": func(t *testing.T, dir string) {
			write(t, dir+"/inbox", released(t, "inbox")+strings.Repeat(" ", 70<<10))
		},
		"no directory": func(t *testing.T, dir string) { check(t, os.RemoveAll(dir)) },
		"a file in place of the directory": func(t *testing.T, dir string) {
			check(t, os.RemoveAll(dir))
			write(t, dir, "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "fence")
			f := openFence(t, dir)
			if err := f.Fenced(t.Context(), "inbox"); err != nil {
				t.Fatal(err)
			}
			c(t, dir)
			if err := f.Fenced(t.Context(), "inbox"); !errors.Is(err, killswitch.ErrEngaged) {
				t.Errorf("got %v", err)
			}
			if s, err := f.State("inbox"); err == nil || s.Released {
				t.Errorf("got %+v, %v", s, err)
			}
			if name == "a file in place of the directory" || name == "a directory" {
				return
			}
			// A kill repairs it.
			epoch, err := f.Engage(t.Context(), "inbox", "repair")
			if s, e := openFence(t, dir).State("inbox"); err != nil || e != nil || s.Released || s.Epoch != epoch || epoch == 0 {
				t.Errorf("engaged: epoch %d, %v; %+v, %v", epoch, err, s, e)
			}
		})
	}
	f := openFence(t, t.TempDir())
	for _, name := range []string{"", ".", "..", "../inbox", "a/b", ".lock", "-a", "a b", "ä", "a\x00", strings.Repeat("a", 129)} {
		if err := f.Fenced(t.Context(), name); !errors.Is(err, killswitch.ErrEngaged) || !errors.Is(err, killswitch.ErrAgent) {
			t.Errorf("%q: %v", name, err)
		}
		if _, err := f.Engage(t.Context(), name, "x"); !errors.Is(err, killswitch.ErrAgent) {
			t.Errorf("engage %q: %v", name, err)
		}
	}
}

// An epoch is larger than the one before also after the record was damaged.
func TestEpochsAfterDamage(t *testing.T) {
	dir := t.TempDir()
	last := uint64(0)
	for n := range 4 {
		f := openFence(t, dir)
		epoch, err := f.Engage(t.Context(), "inbox", "x")
		if err != nil || epoch <= last {
			t.Fatalf("time %d: epoch %d after %d, %v", n, epoch, last, err)
		}
		last = epoch
		check(t, killswitch.Release(f, t.Context(), "inbox", epoch, ""))
		if n%2 == 0 {
			write(t, dir+"/inbox", "damaged")
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// However a record is cut or changed, it says what was written, or holds.
func TestDamagedRecords(t *testing.T) {
	for _, rec := range []string{released(t, "inbox"), engaged(t, "inbox")} {
		dir := t.TempDir()
		f := openFence(t, dir)
		write(t, dir+"/inbox", rec)
		if got, want := f.Fenced(t.Context(), "inbox") == nil, rec == released(t, "inbox"); got != want {
			t.Fatalf("%q: may run: %t", rec, got)
		}
		try := func(what, data string) {
			if data == rec {
				return
			}
			if s, err := killswitch.ParseFenceState([]byte(data)); err == nil || s.Released {
				t.Errorf("%s: %+v: %q", what, s, data)
			}
		}
		for n := range len(rec) {
			write(t, dir+"/inbox", rec[:n])
			if err := f.Fenced(t.Context(), "inbox"); !errors.Is(err, killswitch.ErrEngaged) {
				t.Errorf("cut at %d: %v", n, err)
			}
		}
		for n := range len(rec) {
			try(fmt.Sprint("cut at ", n), rec[:n])
			try(fmt.Sprint("from ", n), rec[n+1:])
			try(fmt.Sprint("without ", n), rec[:n]+rec[n+1:])
			try(fmt.Sprint("doubled at ", n), rec[:n+1]+rec[n:])
			for bit := range 8 {
				data := []byte(rec)
				data[n] ^= 1 << bit
				try(fmt.Sprint("bit ", bit, " of ", n), string(data))
			}
		}
		// One that was torn while it was written over another, at any place.
		other := engaged(t, "inbox")
		for n := range min(len(rec), len(other)) {
			if mixed := other[:n] + rec[n:]; mixed != rec {
				try(fmt.Sprint("torn at ", n), mixed)
			}
		}
	}
}

var recordTime = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

func released(t testing.TB, agent string) string {
	t.Helper()
	return record(t, killswitch.FenceState{Agent: agent, Epoch: 7, Released: true, Reason: "reset <of> epoch 7", Time: recordTime})
}

func engaged(t testing.TB, agent string) string {
	t.Helper()
	return record(t, killswitch.FenceState{Agent: agent, Epoch: 8, Reason: "it deletes mail", Time: recordTime.Add(time.Hour)})
}

func record(t testing.TB, s killswitch.FenceState) string {
	t.Helper()
	data, err := killswitch.Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// To prepare lets an agent run that never was stopped, and no other.
func TestPrepare(t *testing.T) {
	for name, before := range map[string]string{
		"never stopped": "", "released": released(t, "inbox"), "engaged": engaged(t, "inbox"), "damaged": "x", "empty": " ",
	} {
		dir := t.TempDir()
		f := openFence(t, dir)
		if before != "" {
			write(t, dir+"/inbox", before)
		}
		was := f.Fenced(t.Context(), "inbox")
		for range 2 {
			if err := f.Prepare(t.Context(), "inbox"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if now := openFence(t, dir).Fenced(t.Context(), "inbox"); (was == nil) != (now == nil) {
			t.Errorf("%s: %v, and prepared %v", name, was, now)
		}
		if text, err := os.ReadFile(dir + "/inbox"); err != nil || before != "" && string(text) != before {
			t.Errorf("%s: %q, %v", name, text, err)
		}
		epoch, err := f.Engage(t.Context(), "inbox", "test")
		if err != nil || before == "" && epoch != 1 {
			t.Errorf("%s: epoch %d, %v", name, epoch, err)
		}
		if err := openFence(t, dir).Fenced(t.Context(), "inbox"); err == nil {
			t.Errorf("%s: not engaged", name)
		}
	}
	// Nor one that is held in memory alone.
	dir := t.TempDir()
	f := openFence(t, dir)
	f.SetStep(func(op, _ string) error {
		if op == "create" || op == "mark" {
			return errors.New("no space left on device")
		}
		return nil
	})
	if _, err := f.Engage(t.Context(), "inbox", "test"); err == nil {
		t.Fatal("engaged")
	}
	f.SetStep(nil)
	if err := f.Prepare(t.Context(), "inbox"); err != nil {
		t.Error(err)
	}
	if err := f.Fenced(t.Context(), "inbox"); err == nil {
		t.Error("prepared, it is released")
	}
}

// Where the disk fails at any step, the fence holds in this process, and says
// that it may not be durable; where an empty file can still be made, it holds
// for all.
func TestTheDiskFails(t *testing.T) {
	full := errors.New("no space left on device")
	for _, c := range []struct {
		name    string
		before  string // what is on disk
		fails   []string
		durable bool // for others
		fine    bool // though that fails
	}{
		{"nothing fails", "", nil, true, true},
		{"no file can be made", "", []string{"create"}, true, false},
		{"nothing can be written", "", []string{"write"}, true, false},
		{"nothing can be synced", "", []string{"sync"}, true, false},
		{"nothing fails, over a released record", released(t, "inbox"), nil, true, true},
		{"a released record can be written over, and nothing else", released(t, "inbox"), []string{"create", "rename", "mark", "syncdir"}, true, true},
		{"nobody can be kept out, and nothing renamed, over a released record", released(t, "inbox"), []string{"lock", "rename"}, true, false},
		{"nothing can be synced, over a released record", released(t, "inbox"), []string{"sync"}, true, false},
		{"the directory cannot be synced", "", []string{"syncdir"}, true, false},
		{"nothing works", "", []string{"create", "mark"}, false, false},
		{"nothing works, over a released record", released(t, "inbox"), []string{"write", "create", "mark"}, false, false},
		{"nothing works, over an engaged record", engaged(t, "inbox"), []string{"create", "mark", "sync", "syncdir"}, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			f := openFence(t, dir)
			if c.before != "" {
				write(t, dir+"/inbox", c.before)
			}
			f.SetStep(func(op, _ string) error {
				if slices.Contains(c.fails, op) {
					return full
				}
				return nil
			})
			epoch, err := f.Engage(t.Context(), "inbox", "test")
			if epoch == 0 || (err == nil) != c.fine || err != nil && (!errors.Is(err, killswitch.ErrNotDurable) || !errors.Is(err, full)) {
				t.Errorf("epoch %d, %v", epoch, err)
			}
			if err := f.Fenced(t.Context(), "inbox"); !errors.Is(err, killswitch.ErrEngaged) {
				t.Errorf("here: %v", err)
			}
			if again, _ := f.Engage(t.Context(), "inbox", "again"); again != epoch {
				t.Errorf("epoch %d, then %d", epoch, again)
			}
			err = openFence(t, dir).Fenced(t.Context(), "inbox")
			if errors.Is(err, killswitch.ErrEngaged) != c.durable {
				t.Errorf("elsewhere: %v", err)
			}
			// When the disk is well again, so is the fence.
			f.SetStep(nil)
			if again, err := f.Engage(t.Context(), "inbox", "again"); err != nil || again < epoch {
				t.Errorf("epoch %d, then %d: %v", epoch, again, err)
			}
			if s, err := openFence(t, dir).State("inbox"); err != nil || s.Released {
				t.Errorf("in the end: %+v, %v", s, err)
			}
		})
	}
}

// A disk that does not answer holds nobody up.
func TestTheDiskHangs(t *testing.T) {
	for _, op := range []string{"lock", "create", "write", "sync", "rename", "syncdir"} {
		let := make(chan struct{})
		f := openFence(t, t.TempDir())
		f.SetStep(func(o, _ string) error {
			// From the first moment on it holds here.
			if err := f.Fenced(t.Context(), "inbox"); !errors.Is(err, killswitch.ErrEngaged) {
				t.Errorf("%s: before it is on disk: %v", o, err)
			}
			if o == op {
				<-let
			}
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		epoch, err := f.Engage(ctx, "inbox", "test")
		cancel()
		if !errors.Is(err, killswitch.ErrNotDurable) || !errors.Is(err, context.DeadlineExceeded) || epoch == 0 {
			t.Errorf("%s: epoch %d, %v", op, epoch, err)
		}
		if err := f.Fenced(t.Context(), "inbox"); !errors.Is(err, killswitch.ErrEngaged) {
			t.Errorf("%s: %v", op, err)
		}
		close(let)
		if again, err := f.Engage(t.Context(), "inbox", "test"); err != nil || again != epoch {
			t.Errorf("%s: epoch %d, then %d: %v", op, epoch, again, err)
		}
	}
}

// Many who engage at once, in several processes, get the same epoch; who reads
// meanwhile never sees an agent released that was engaged.
func TestManyEngageAtOnce(t *testing.T) {
	dir := t.TempDir()
	f := openFence(t, dir)
	for round := uint64(1); round <= 5; round++ {
		stop := make(chan struct{})
		var readers sync.WaitGroup
		for range 2 {
			readers.Go(func() {
				held := false
				for {
					select {
					case <-stop:
						return
					default:
					}
					is := openFence(t, dir).Fenced(t.Context(), "inbox") != nil
					if held && !is {
						t.Error("it was engaged, and then seen released")
						return
					}
					held = held || is
				}
			})
		}
		var writers sync.WaitGroup
		for range 2 {
			writers.Go(func() {
				if out := runChild(t, "engage", dir); strings.TrimSpace(out) != fmt.Sprint(round) {
					t.Errorf("another process: epoch %q, want %d", out, round)
				}
			})
		}
		for range 16 {
			writers.Go(func() {
				epoch, err := openFence(t, dir).Engage(t.Context(), "inbox", "test")
				if err != nil || epoch != round {
					t.Errorf("epoch %d, want %d: %v", epoch, round, err)
				}
			})
		}
		writers.Wait()
		close(stop)
		readers.Wait()
		check(t, killswitch.Release(f, t.Context(), "inbox", round, ""))
	}
}

// A lock that somebody has and does not give back is done without.
func TestALockThatIsNotGivenBack(t *testing.T) {
	dir := t.TempDir()
	f := openFence(t, dir)
	f.SetStep(func(op, _ string) error {
		if op == "create" { // with the lock
			began := time.Now()
			if epoch, err := openFence(t, dir).Engage(t.Context(), "inbox", "test"); err != nil || epoch != 1 {
				t.Errorf("epoch %d, %v", epoch, err)
			}
			if took := time.Since(began); took < killswitch.LockWait || took > 30*time.Second {
				t.Errorf("it took %v", took)
			}
		}
		return nil
	})
	if epoch, err := f.Engage(t.Context(), "inbox", "test"); err != nil || epoch != 1 {
		t.Errorf("epoch %d, %v", epoch, err)
	}
}

func BenchmarkFenced(b *testing.B) {
	f := openFence(b, b.TempDir())
	if _, err := f.Engage(b.Context(), "stopped", "test"); err != nil {
		b.Fatal(err)
	}
	check(b, killswitch.Release(f, b.Context(), "stopped", 1, ""))
	for _, name := range []string{"never", "stopped"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := f.Fenced(b.Context(), name); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEngage(b *testing.B) {
	f := openFence(b, b.TempDir())
	for b.Loop() {
		epoch, err := f.Engage(b.Context(), "inbox", "test")
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		check(b, killswitch.Release(f, b.Context(), "inbox", epoch, ""))
		b.StartTimer()
	}
}

func write(t testing.TB, name, data string) {
	t.Helper()
	check(t, os.WriteFile(name, []byte(data), 0o600))
}

func mkdir(t testing.TB, name string) {
	t.Helper()
	check(t, os.Mkdir(name, 0o700))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
