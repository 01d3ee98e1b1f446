package composio

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// However many wait and give up, no more than the limit are under way, and in
// the end every slot is free.
func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 3
		l := &limiter{free: n}
		var under, gaveUp atomic.Int64
		for i := range 200 {
			go func() {
				// Those who give up do so at the moment when others are done.
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%20+1)*time.Second)
				defer cancel()
				if err := l.acquire(ctx, priority(i)%priorities); err != nil {
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
					gaveUp.Add(1)
					return
				}
				if under.Add(1) > n {
					t.Error("more are under way than may be")
				}
				time.Sleep(time.Second)
				under.Add(-1)
				l.release()
			}()
		}
		synctest.Wait()
		time.Sleep(time.Hour)
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.free != n || gaveUp.Load() == 0 || gaveUp.Load() == 200 {
			t.Errorf("%d slots are free of %d; %d gave up", l.free, n, gaveUp.Load())
		}
	})
}

// A turn that comes together with the end of the caller is passed on.
func TestLimiterPassesTurnOn(t *testing.T) {
	for range 200 {
		l := &limiter{}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.acquire(ctx, first) }()
		for waiting := 0; waiting == 0; {
			l.mu.Lock()
			waiting = len(l.waiting[first])
			l.mu.Unlock()
		}
		l.mu.Lock() // whoever gives up waits here, and its turn comes meanwhile
		cancel()
		time.Sleep(100 * time.Microsecond)
		turn := l.waiting[first][0]
		l.waiting[first] = nil
		close(turn)
		l.mu.Unlock()
		if err := <-done; err == nil {
			l.release()
		}
		if l.free != 1 {
			t.Fatalf("%d slots are free of 1", l.free)
		}
	}
}

func TestPriorities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &limiter{free: 1}
		if err := l.acquire(t.Context(), third); err != nil {
			t.Fatal(err)
		}
		var order []priority // by who has the slot
		for _, p := range []priority{third, second, third, first, second, first} {
			go func() {
				if err := l.acquire(t.Context(), p); err != nil {
					t.Error(err)
				}
				order = append(order, p)
				l.release()
			}()
			synctest.Wait()
		}
		l.release()
		synctest.Wait()
		l.mu.Lock()
		defer l.mu.Unlock()
		for i, want := range []priority{first, first, second, second, third, third} {
			if order[i] != want {
				t.Fatalf("order %v", order)
			}
		}
	})
}
