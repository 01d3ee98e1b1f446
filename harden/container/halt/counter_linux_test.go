package halt_test

import (
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// A sharedCounter is what an agent counts in, seen as it counts.
type sharedCounter struct{ n *uint64 }

func watchCounter(b testing.TB, name string) sharedCounter {
	b.Helper()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(8); err != nil {
		b.Fatal(err)
	}
	mem, err := syscall.Mmap(int(f.Fd()), 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = syscall.Munmap(mem) })
	return sharedCounter{(*uint64)(unsafe.Pointer(&mem[0]))}
}

func (c sharedCounter) moves(b testing.TB) {
	b.Helper()
	for at, began := atomic.LoadUint64(c.n), time.Now(); atomic.LoadUint64(c.n) == at; time.Sleep(time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			b.Fatal("nobody counts")
		}
	}
}

// stands tells how long after began the counter was last seen to have moved,
// once it has not for a while.
func (c sharedCounter) stands(began time.Time) <-chan time.Duration {
	const quiet = 60 * time.Millisecond
	done := make(chan time.Duration, 1)
	go func() {
		last, at := time.Since(began), atomic.LoadUint64(c.n)
		for time.Since(began)-last < quiet {
			time.Sleep(50 * time.Microsecond)
			if n := atomic.LoadUint64(c.n); n != at {
				last, at = time.Since(began), n
			}
		}
		done <- last
	}()
	return done
}

func end(pid int) { _ = syscall.Kill(pid, syscall.SIGKILL) }
