package killswitch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A bench has a lease of a minute whose clocks can be set.
type bench struct {
	t     *testing.T
	dir   string
	lease *Lease

	mu    sync.Mutex
	start time.Time
	step  time.Duration // of the clock of the wall
	slept time.Duration // of which only the wall and the time since start know
	boot  string        // empty: nothing names it
	fired []string
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, dir: t.TempDir(), start: time.Now(), boot: "boot-1"}
	b.restart()
	return b
}

// restart makes a new lease, as another process has.
func (b *bench) restart() {
	b.lease = newLease(b.dir, "openclaw", time.Minute, func(_ context.Context, reason string) (*Receipt, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.fired = append(b.fired, reason)
		return &Receipt{Agent: "openclaw"}, nil
	})
	b.lease.clock.now = func() instant {
		b.mu.Lock()
		defer b.mu.Unlock()
		passed := time.Since(b.start)
		i := instant{wall: time.Now().Round(0).Add(b.step + b.slept), mono: passed}
		if b.boot != "" {
			i.boot, i.up = b.boot, passed+b.slept
		}
		return i
	}
}

func (b *bench) set(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

func (b *bench) begin() {
	b.t.Helper()
	if err := b.lease.Begin(b.t.Context(), "operator/ann"); err != nil {
		b.t.Fatal(err)
	}
}

// fires runs the lease, and returns when it fired.
func (b *bench) fires(most time.Duration) (time.Duration, bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), most)
	defer cancel()
	start := time.Now()
	r, err := b.lease.Run(ctx)
	switch {
	case r != nil && err == nil:
		return time.Since(start), true
	case r == nil && errors.Is(err, context.DeadlineExceeded):
		return time.Since(start), false
	}
	b.t.Fatalf("%v, %v", r, err)
	return 0, false
}

func (b *bench) record() string { return filepath.Join(b.dir, "lease", "openclaw") }

// A lease fires when its term is over, and not before, whatever the clock of
// the wall is set to; and early rather than late.
func TestLeaseFires(t *testing.T) {
	const tick = 3 * time.Second // a twentieth
	for situation, tt := range map[string]struct {
		after func(b *bench) // half a minute after it was begun
		least time.Duration  // it fires so long after that
		most  time.Duration
	}{
		"nothing happens":                                           {least: 30 * time.Second, most: 30 * time.Second},
		"it is renewed":                                             {after: func(b *bench) { renew(b) }, least: time.Minute, most: time.Minute},
		"another process renews it":                                 {after: func(b *bench) { other(b, "boot-1") }, least: time.Minute, most: time.Minute + tick},
		"the clock is set back":                                     {after: func(b *bench) { b.step = -time.Hour }, least: 30 * time.Second, most: 30 * time.Second},
		"the clock is set back, and it renewed":                     {after: func(b *bench) { b.step = -time.Hour; renew(b) }, least: time.Minute, most: time.Minute},
		"the clock is set forward a little":                         {after: func(b *bench) { b.step = 10 * time.Second }, least: 20 * time.Second, most: 20 * time.Second},
		"the clock is set forward":                                  {after: func(b *bench) { b.step = time.Hour }, most: tick},
		"the machine sleeps":                                        {after: func(b *bench) { b.slept = time.Hour }, most: tick},
		"it sleeps, and the clock is set back":                      {after: func(b *bench) { b.slept, b.step = time.Hour, -time.Hour }, most: tick},
		"the clock is set back, and nothing counts since the start": {after: func(b *bench) { b.boot, b.step = "", -time.Hour }, least: 30 * time.Second, most: 30 * time.Second},
		"the file goes":                                             {after: func(b *bench) { must(b.t, os.Remove(b.record())) }, most: 2 * tick},
		"the file is damaged":                                       {after: func(b *bench) { must(b.t, os.WriteFile(b.record(), []byte("renewed"), 0o600)) }, most: 2 * tick},
		"the file cannot be read": {after: func(b *bench) {
			must(b.t, os.Remove(b.record()))
			must(b.t, os.Mkdir(b.record(), 0o700)) // what is no regular file is not read
		}, least: 30 * time.Second, most: 30 * time.Second},
	} {
		t.Run(situation, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				time.Sleep(time.Hour)
				b.begin()
				if d, fired := b.fires(30*time.Second - time.Nanosecond); fired {
					t.Fatalf("it fired after %v", d)
				}
				time.Sleep(time.Nanosecond)
				if tt.after != nil {
					tt.after(b)
				}
				d, fired := b.fires(24 * time.Hour)
				if !fired || d < tt.least || d > tt.most {
					t.Errorf("it fired: %v, after %v; want between %v and %v", fired, d, tt.least, tt.most)
				}
				if len(b.fired) != 1 || !strings.Contains(b.fired[0], "lease") {
					t.Errorf("%q", b.fired)
				}
				if err := b.lease.Renew(t.Context(), "x"); !errors.Is(err, ErrExpired) {
					t.Errorf("renewed afterwards: %v", err)
				}
			})
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func renew(b *bench) {
	b.t.Helper()
	must(b.t, b.lease.Renew(b.t.Context(), "operator/ann"))
}

// other renews the lease as another process does.
func other(b *bench, _ string) {
	b.t.Helper()
	mine := b.lease
	b.restart()
	renew(b)
	b.lease = mine
}

// What happened while nothing was running counts: a lease that ran out, or of
// which nobody can tell that it did not, fires at once.
func TestLeaseAfterRestart(t *testing.T) {
	for situation, tt := range map[string]struct {
		between func(b *bench)
		at      time.Duration // when it fires, after the restart
	}{
		"at once":                           {between: func(*bench) {}, at: time.Minute},
		"half a term later":                 {between: func(*bench) { time.Sleep(30 * time.Second) }, at: 30 * time.Second},
		"a term later":                      {between: func(*bench) { time.Sleep(time.Minute) }},
		"a day later":                       {between: func(*bench) { time.Sleep(24 * time.Hour) }},
		"the clock set back by less":        {between: func(b *bench) { time.Sleep(50 * time.Second); b.step = -40 * time.Second }, at: 10 * time.Second},
		"the clock set back a day":          {between: func(b *bench) { time.Sleep(50 * time.Second); b.step = -24 * time.Hour }, at: 10 * time.Second},
		"the clock set back, and run out":   {between: func(b *bench) { time.Sleep(2 * time.Minute); b.step = -2 * time.Minute }},
		"the clock set forward":             {between: func(b *bench) { b.step = time.Hour }},
		"a reboot":                          {between: func(b *bench) { time.Sleep(20 * time.Second); b.boot = "boot-2" }, at: 40 * time.Second},
		"a reboot, a day later":             {between: func(b *bench) { time.Sleep(24 * time.Hour); b.boot = "boot-2" }},
		"a reboot into the past":            {between: func(b *bench) { b.step, b.boot = -time.Hour, "boot-2" }},
		"a reboot to where nothing is said": {between: func(b *bench) { time.Sleep(20 * time.Second); b.boot = "" }, at: 40 * time.Second},
		"time since start gone backwards":   {between: func(b *bench) { b.start = time.Now().Add(time.Hour) }},
		"no file":                           {between: func(b *bench) { must(b.t, os.RemoveAll(filepath.Dir(b.record()))) }},
		"an empty file":                     {between: func(b *bench) { must(b.t, os.WriteFile(b.record(), nil, 0o600)) }},
		"the file of another agent": {between: func(b *bench) {
			data, err := leaseRecord{Agent: "other", Term: time.Hour, Renewed: time.Now()}.encode()
			must(b.t, err)
			must(b.t, os.WriteFile(b.record(), data, 0o600))
		}},
		"a directory in its place": {between: func(b *bench) {
			must(b.t, os.Remove(b.record()))
			must(b.t, os.Mkdir(b.record(), 0o700))
		}},
		"a term that was made shorter": {between: func(b *bench) {
			b.restart()
			b.lease.term = 10 * time.Second
		}, at: 10 * time.Second},
		"a term that was made longer": {between: func(b *bench) {
			b.restart()
			b.lease.term = time.Hour
		}, at: time.Minute},
	} {
		t.Run(situation, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				time.Sleep(time.Hour)
				b.begin()
				first := b.lease
				tt.between(b)
				if b.lease == first {
					b.restart()
				}
				if d, fired := b.fires(48 * time.Hour); !fired || d != tt.at {
					t.Errorf("it fired: %v, after %v; want %v", fired, d, tt.at)
				}
				// It stays expired in a process that has not seen it, whatever
				// the clock says, until somebody begins another.
				b.restart()
				b.set(func() { b.step = -time.Second })
				if err := b.lease.Renew(t.Context(), "x"); !errors.Is(err, ErrExpired) && situation != "a directory in its place" {
					t.Errorf("renewed afterwards: %v", err)
				}
				if situation == "a directory in its place" {
					return // nothing can be written there
				}
				b.begin()
				if s := b.lease.State(); s.Expired != "" || s.Left != time.Minute || s.By != "operator/ann" {
					t.Errorf("begun anew: %+v", s)
				}
			})
		})
	}
}

// A lease that is renewed in time never fires.
func TestLeaseRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.begin()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := b.lease.Run(ctx)
			done <- err
		}()
		for i := range 500 {
			time.Sleep(59 * time.Second)
			if i%2 == 0 {
				b.set(func() { b.step -= time.Duration(i) * time.Second }) // never forward
			}
			if err := b.lease.Renew(t.Context(), "operator/ann"); err != nil {
				t.Fatal(i, err)
			}
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) || len(b.fired) > 0 {
			t.Errorf("%v %q", err, b.fired)
		}
	})
}

// A renewal that cannot be written down is none, and a disk that hangs keeps
// nothing from firing.
func TestLeaseDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.begin()
		time.Sleep(30 * time.Second)
		broken := errors.New("no space left")
		b.lease.disk.step = func(string, string) error { return broken }
		if err := b.lease.Renew(t.Context(), "x"); !errors.Is(err, broken) || errors.Is(err, ErrExpired) {
			t.Errorf("%v", err)
		}
		if d, fired := b.fires(time.Hour); !fired || d != 30*time.Second {
			t.Errorf("it fired: %v, after %v", fired, d)
		}
	})
	// In real time: to wait for a lock does not let that of a bubble go on.
	b := newBench(t)
	b.lease.term = 200 * time.Millisecond
	b.begin()
	release, hung := make(chan struct{}), make(chan error)
	b.lease.disk.step = func(string, string) error { <-release; return os.ErrDeadlineExceeded }
	go func() { hung <- b.lease.Renew(context.Background(), "x") }()
	if d, fired := b.fires(30 * time.Second); !fired || d > 5*time.Second {
		t.Errorf("it fired: %v, after %v", fired, d)
	}
	close(release)
	if err := <-hung; err == nil {
		t.Error("renewed")
	}
}

// The clocks of this machine run, and name its start where they can.
func TestLeaseClocks(t *testing.T) {
	a := realClocks.now()
	time.Sleep(30 * time.Millisecond)
	b := realClocks.now()
	if d := b.since(a); d < 30*time.Millisecond || d > time.Minute {
		t.Errorf("%v", d)
	}
	if _, err := os.Stat("/proc/uptime"); err == nil && (a.boot == "" || a.boot != b.boot || b.up < a.up || a.up <= 0) {
		t.Errorf("%+v %+v", a, b)
	}
	if boot, up := bootTime(t.TempDir()); boot != "" || up != 0 {
		t.Errorf("%q %v", boot, up)
	}
}

// No record is believed that was not written as it is.
func FuzzLease(f *testing.F) {
	good, err := leaseRecord{Agent: "openclaw", By: "operator/ann", Renewed: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Term: time.Minute, Boot: "b", Up: time.Hour}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(leaseSchema + " 00 {}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseLease(data)
		if err != nil {
			return
		}
		if again, err := r.encode(); err != nil || string(again) != string(data) {
			t.Errorf("%q is read, and written as %q: %v", data, again, err)
		}
	})
}

// Every bit of a record counts.
func TestLeaseTampered(t *testing.T) {
	good, err := leaseRecord{Agent: "openclaw", Renewed: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Term: time.Minute}.encode()
	must(t, err)
	if _, err := parseLease(good); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for bit := range 8 {
			b := append([]byte(nil), good...)
			b[i] ^= 1 << bit
			if r, err := parseLease(b); err == nil {
				t.Errorf("bit %d of byte %d: %+v", bit, i, r)
			}
		}
		if _, err := parseLease(good[:i]); err == nil {
			t.Errorf("cut at %d", i)
		}
	}
}

// A dead man's switch: nobody renews the lease, and the agent is stopped.
func ExampleLease() {
	dir, err := os.MkdirTemp("", "lease")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	lease := newLease(dir, "openclaw", 20*time.Millisecond, func(context.Context, string) (*Receipt, error) { // NewLease(s, 8*time.Hour)
		fmt.Println("fired")
		return &Receipt{Agent: "openclaw"}, nil
	})
	ctx := context.Background()
	if err := lease.Begin(ctx, "operator/ann"); err != nil {
		panic(err)
	}
	if _, err := lease.Run(ctx); err != nil {
		panic(err)
	}
	fmt.Println(errors.Is(lease.Renew(ctx, "operator/ann"), ErrExpired))
	// Output:
	// fired
	// true
}
