package trail_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidwall/wal"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// An appender makes one record durable.
type appender func(n int) error

// BenchmarkAppend makes records durable, by several writers at once, each of
// which waits for its own: with a Log; with one fsync for each record, as Lines
// does it; with github.com/tidwall/wal, which syncs each entry; and, to know
// the disk, with a raw write and fdatasync of the same bytes, by one writer.
func BenchmarkAppend(b *testing.B) {
	payload, err := json.Marshal(trail.Record{Seq: 1, Event: event(1)})
	if err != nil {
		b.Fatal(err)
	}
	kinds := []struct {
		name string
		make func(b *testing.B) (appender, func() error)
	}{
		{"log", func(b *testing.B) (appender, func() error) {
			w := create(b, trail.Config{})
			return func(n int) error { return w.log.Record(context.Background(), event(n)) }, func() error { return nil }
		}},
		{"fsync-each", func(b *testing.B) (appender, func() error) {
			f, err := os.Create(filepath.Join(b.TempDir(), "lines"))
			if err != nil {
				b.Fatal(err)
			}
			l := &trail.Lines{W: f}
			return func(n int) error { return l.Record(context.Background(), event(n)) }, f.Close
		}},
		{"tidwall-wal", func(b *testing.B) (appender, func() error) {
			l, err := wal.Open(filepath.Join(b.TempDir(), "wal"), &wal.Options{SegmentSize: 16 << 20, LogFormat: wal.Binary})
			if err != nil {
				b.Fatal(err)
			}
			var mu sync.Mutex
			next := uint64(0)
			return func(n int) error {
				data, err := json.Marshal(event(n))
				if err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				next++
				return l.Write(next, data)
			}, l.Close
		}},
	}
	b.Run("raw-fdatasync/1", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "raw"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		appendAll(b, 1, func(int) error {
			if _, err := f.Write(payload); err != nil {
				return err
			}
			return trail.SyncData(f)
		})
	})
	for _, writers := range []int{1, 8, 64, 512} {
		for _, k := range kinds {
			b.Run(fmt.Sprintf("%s/%d", k.name, writers), func(b *testing.B) {
				do, done := k.make(b)
				appendAll(b, writers, do)
				if err := done(); err != nil {
					b.Error(err)
				}
			})
		}
	}
}

func appendAll(b *testing.B, writers int, do appender) {
	b.Helper()
	var next atomic.Int64
	took := make([][]time.Duration, writers)
	var wg sync.WaitGroup
	b.ResetTimer()
	for w := range writers {
		wg.Go(func() {
			for {
				n := next.Add(1)
				if n > int64(b.N) {
					return
				}
				start := time.Now()
				if err := do(int(n)); err != nil {
					b.Error(err)
					return
				}
				took[w] = append(took[w], time.Since(start))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "appends/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkVerify verifies a log, by one processor and by all, and hashes the
// bytes of its segments with SHA-256, in turns, so that what else the machine
// does slows all of them down. It reports medians.
func BenchmarkVerify(b *testing.B) {
	for _, size := range []int{64, 1} { // records to a checkpoint, about
		w := create(b, trail.Config{SegmentBytes: 4 << 20})
		if size == 1 {
			w.record(b, 0, 30_000)
		} else {
			w.bulk(b, 100_000)
		}
		w.close(b)
		for _, place := range []struct {
			name string
			fsys fs.FS
		}{{"memory", w.files(b)}, {"files", w.fs()}} {
			b.Run(fmt.Sprintf("checkpoint-every-%d/%s", size, place.name), func(b *testing.B) {
				verifyInTurns(b, w, place.fsys)
			})
		}
	}
}

func verifyInTurns(b *testing.B, w *world, fsys fs.FS) {
	b.Helper()
	names, err := fs.Glob(fsys, "*.seg")
	if err != nil {
		b.Fatal(err)
	}
	var total int64
	var plain, one, all []time.Duration
	for b.Loop() {
		start := time.Now()
		total = 0
		for _, name := range names {
			f, err := fsys.Open(name)
			if err != nil {
				b.Fatal(err)
			}
			n, err := io.CopyBuffer(struct{ io.Writer }{sha256.New()}, struct{ io.Reader }{f}, make([]byte, 64<<10))
			if err = errors.Join(err, f.Close()); err != nil {
				b.Fatal(err)
			}
			total += n
		}
		plain = append(plain, time.Since(start))
		for _, workers := range []int{1, 0} {
			v := w.verifier()
			v.Workers = workers
			start := time.Now()
			if _, err := v.Verify(b.Context(), fsys); err != nil {
				b.Fatal(err)
			}
			if workers == 1 {
				one = append(one, time.Since(start))
			} else {
				all = append(all, time.Since(start))
			}
		}
	}
	median := func(list []time.Duration) float64 {
		slices.Sort(list)
		return list[len(list)/2].Seconds()
	}
	p, o, a := median(plain), median(one), median(all)
	mb := float64(total) / 1e6
	b.ReportMetric(mb/p, "sha256-MB/s")
	b.ReportMetric(mb/o, "one-MB/s")
	b.ReportMetric(mb/a, "all-MB/s")
	b.ReportMetric(100*p/o, "one-%")
	b.ReportMetric(100*p/a, "all-%")
	b.ReportMetric(0, "ns/op")
}
