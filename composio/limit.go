package composio

import (
	"context"
	"slices"
	"sync"
)

// What goes before what when requests wait for each other.
type priority int

const (
	first  priority = iota // listings, and the end of what begins something new
	second                 // revocations
	third                  // deletions
	priorities
)

// A limiter bounds the requests under way. Those that wait go by priority, and
// within one in their order.
type limiter struct {
	mu      sync.Mutex
	free    int
	waiting [priorities][]chan struct{}
}

// acquire waits for its turn. After a nil error the caller must release.
func (l *limiter) acquire(ctx context.Context, p priority) error {
	l.mu.Lock()
	if l.free > 0 {
		l.free--
		l.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	queue := &l.waiting[p]
	*queue = append(*queue, turn)
	l.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	i := slices.Index(*queue, turn)
	if i >= 0 {
		*queue = slices.Delete(*queue, i, i+1)
	}
	l.mu.Unlock()
	if i < 0 {
		l.release() // its turn had come
	}
	return context.Cause(ctx)
}

// release ends a request and lets the next one begin.
func (l *limiter) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p, queue := range l.waiting {
		if len(queue) > 0 {
			close(queue[0])
			l.waiting[p] = queue[1:]
			return
		}
	}
	l.free++
}
