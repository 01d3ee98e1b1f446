package halt

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
)

// An openError names what stays open after a step, and why.
type openError struct {
	step string
	open map[string]string
}

// Open returns what stays open, by object.
func (e *openError) Open() map[string]string { return maps.Clone(e.open) }

func (e *openError) Error() string {
	var b strings.Builder
	b.WriteString("halt: " + e.step + ": ")
	for i, object := range slices.Sorted(maps.Keys(e.open)) {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(object + ": " + e.open[object])
	}
	return b.String()
}

// A ledger collects what stays open. It may be used concurrently.
type ledger struct {
	mu   sync.Mutex
	open map[string]string
}

func (l *ledger) add(object, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		l.open = make(map[string]string)
	}
	if old := l.open[object]; old != "" && old != why {
		why = old + "; " + why
	}
	l.open[object] = why
}

func (l *ledger) err(step string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) == 0 {
		return nil
	}
	return &openError{step: step, open: l.open}
}

// each calls f for all containers at once, and waits.
func each(all []*tracked, f func(*tracked)) {
	var wg sync.WaitGroup
	for _, k := range all {
		wg.Go(func() { f(k) })
	}
	wg.Wait()
}

// within waits for f, but not after ctx is done: a file of /proc may be as slow
// as a process makes it.
func within[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		var zero T
		return zero, ctx.Err()
	}
}
