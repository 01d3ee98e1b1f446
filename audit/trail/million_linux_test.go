package trail_test

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// TestLargeLog opens, reads the tail of, proves a record of and verifies a
// large log: all but the last read a small part of it.
func TestLargeLog(t *testing.T) {
	n := 20_000
	segment := int64(512 << 10)
	switch {
	case long:
		n, segment = 1_000_000, trail.DefaultSegmentBytes
	case testing.Short():
		t.Skip("it takes a second")
	}
	w := create(t, trail.Config{SegmentBytes: segment})
	began := time.Now()
	w.bulk(t, n)
	t.Logf("written: %d records in %v", n, time.Since(began).Round(time.Millisecond))
	w.close(t)
	var size int64
	for _, e := range must(os.ReadDir(w.dir)) {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	t.Logf("size: %d bytes", size)
	step := func(name string, most int64, do func()) {
		t.Helper()
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		read := bytesRead(t)
		start := time.Now()
		do()
		took := time.Since(start)
		read = bytesRead(t) - read
		runtime.ReadMemStats(&after)
		t.Logf("%s: %v, %d bytes read, %d bytes allocated in all, heap %d bytes", name, took.Round(10*time.Microsecond), read, after.TotalAlloc-before.TotalAlloc, after.HeapSys)
		if most > 0 && read > most {
			t.Errorf("%s read %d bytes of %d", name, read, size)
		}
	}
	most := segment*3 + 1<<20
	step("open to write", most, func() { w.open(t, trail.Config{}) })
	w.close(t)
	var r *trail.Reader
	step("open to read", most, func() { r = w.reader(t) })
	step("tail of 10", most, func() {
		list, err := r.Tail(t.Context(), trail.Query{}, 10)
		if err != nil || len(list) != 10 || list[9].Seq != int64(n)-1 {
			t.Error(list, err)
		}
	})
	step("prove one", most, func() {
		p, err := r.Prove(t.Context(), int64(n/3))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Check(w.key.Public()); err != nil {
			t.Error(err)
		}
	})
	step("prove consistency", most, func() {
		if _, err := r.Consistency(t.Context(), int64(n/2)); err != nil {
			t.Error(err)
		}
	})
	step("query of an id, over all", 0, func() {
		found := 0
		for _, err := range r.Records(t.Context(), trail.Query{ID: fmt.Sprint(n / 2)}) {
			if err != nil {
				t.Fatal(err)
			}
			found++
		}
		if found != 1 {
			t.Errorf("found %d", found)
		}
	})
	for _, workers := range []int{1, 0} {
		step(fmt.Sprintf("verify, %d workers", workers), 0, func() {
			v := w.verifier()
			v.Workers = workers
			s, err := v.Verify(t.Context(), w.fs())
			if err != nil || s.Records != int64(n) {
				t.Errorf("%+v, %v", s, err)
			}
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// bytesRead returns how much this process has read: see proc_pid_io(5).
func bytesRead(t *testing.T) (n int64) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(string(data), "rchar: %d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}
