package trail_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// TestDiskFaults makes each call to the disk fail in turn, and each two in a
// row. What was acknowledged is there; what was not, and said so, is not there
// unless the error was ErrFailed; the log goes on, or says that it cannot; and
// what is on the disk can be opened.
func TestDiskFaults(t *testing.T) {
	for first := range 12 {
		for _, second := range []int{-1, first + 1} {
			for _, room := range []int{0, 1, 20, 400} {
				t.Run(fmt.Sprint(first, second, room), func(t *testing.T) { diskFault(t, first, second, room) })
			}
		}
	}
}

func diskFault(t *testing.T, first, second, room int) {
	w := create(t, trail.Config{})
	disk := w.log.Break(func(call int, method string, p []byte) (int, error) {
		if call == first || call == second {
			if method == "write" {
				return min(room, len(p)), syscall.ENOSPC
			}
			return 0, syscall.EIO
		}
		return 0, nil
	})
	kept := make(map[string]bool)
	maybe := make(map[string]bool)
	failed := false
	for n := range 8 {
		e := event(n)
		size := w.log.Checkpoint().Size
		err := w.log.Record(t.Context(), e)
		switch {
		case err == nil && failed:
			t.Fatal("it went on after it had failed")
		case err == nil:
			kept[e.ID] = true
		case errors.Is(err, trail.ErrFailed):
			maybe[e.ID] = !failed
			failed = true
		case !errors.Is(err, syscall.ENOSPC):
			t.Errorf("the error is %v", err)
		}
		if err != nil && w.log.Checkpoint().Size != size {
			t.Error("the checkpoint covers what was not kept")
		}
	}
	if disk.Calls < first {
		t.Fatalf("only %d calls", disk.Calls)
	}
	_ = w.log.Close()
	w.open(t, trail.Config{})
	w.verify(t)
	events, err := allEvents(t, w)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.Kind != trail.KindToolCall {
			continue
		}
		if !kept[e.ID] && !maybe[e.ID] {
			t.Errorf("event %s is there, and its caller was told that it is not", e.ID)
		}
		delete(kept, e.ID)
	}
	if len(kept) > 0 {
		t.Errorf("lost: %v", kept)
	}
}

// All callers of a batch are told.
func TestDiskFaultReachesEveryCaller(t *testing.T) {
	w := create(t, trail.Config{})
	w.log.Break(func(_ int, method string, _ []byte) (int, error) {
		if method == "write" {
			return 0, syscall.ENOSPC
		}
		return 0, nil
	})
	var wg sync.WaitGroup
	for n := range 100 {
		wg.Go(func() {
			if err := w.log.Record(context.Background(), event(n)); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("the error is %v", err)
			}
		})
	}
	wg.Wait()
}

// A caller whose context ends does not wait, and is told that it cannot know.
func TestRecordWhileTheDiskHangs(t *testing.T) {
	w := create(t, trail.Config{})
	release, hanging := make(chan struct{}), make(chan struct{})
	w.log.Break(func(call int, method string, _ []byte) (int, error) {
		if method == "sync" && call == 1 {
			close(hanging)
			<-release
		}
		return 0, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.log.Record(ctx, event(0)) }()
	<-hanging
	if got := w.log.Checkpoint().Size; got != 0 {
		t.Errorf("the checkpoint covers %d records that are not durable", got)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	close(release)
	if seq, err := w.log.Append(t.Context(), event(1)); err != nil || seq != 1 {
		t.Errorf("the next has number %d: %v", seq, err)
	}
}
