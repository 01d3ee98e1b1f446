package killswitch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// grace is how long after the end of its context something of others gets to
// return, before it is left to itself.
const grace = 100 * time.Millisecond

// What became of a call that did not come back.
const (
	neverReturned = "it ended without returning" // runtime.Goexit does that
	leftAlone     = "it did not return when its time was over, and was left to itself"
)

// A said is what came of a call of something of others. It is plain text: not
// even the method Error of an error is called again.
type said struct {
	problem   string // empty if there is none
	abandoned bool
	open      []Open

	remaining map[string]string
	objects   []string
}

// call calls f in a goroutine of its own and returns what it said. An f that
// panics, ends the goroutine, or goes on though ctx is done, has said that.
func call(ctx context.Context, f func(ctx context.Context, s *said)) said {
	done := make(chan *said, 1) // buffered: what was abandoned can still finish
	go func() {
		s := &said{problem: neverReturned}
		defer func() {
			if p := recover(); p != nil {
				s = &said{problem: "panic: " + panicText(p)}
			}
			done <- s
		}()
		f(ctx, s)
	}()
	select {
	case s := <-done:
		return *s
	case <-ctx.Done():
	}
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case s := <-done:
		return *s
	case <-late.C:
		return said{problem: leftAlone, abandoned: true}
	}
}

// panicText puts a panic in words, which may panic too.
func panicText(p any) (text string) {
	defer func() {
		if recover() != nil {
			text = "of a kind that cannot be shown"
		}
	}()
	return foreign(fmt.Sprint(p), maxDetail)
}

// try has f do something.
func try(ctx context.Context, name string, f func(context.Context) error) said {
	return call(ctx, func(ctx context.Context, s *said) {
		err := f(ctx)
		if err != nil {
			s.open = openOf(name, err)
		}
		s.problem = problem(err)
	})
}

func problem(err error) string {
	if err == nil {
		return ""
	}
	if text := foreign(err.Error(), maxDetail); text != "" {
		return text
	}
	return "an error without words"
}

// openOf returns what an error of an actuator names as open.
func openOf(name string, err error) []Open {
	var opener interface{ Open() map[string]string }
	if !errors.As(err, &opener) {
		return nil
	}
	var all []Open
	for what, why := range trimmed(opener.Open()) {
		all = append(all, Open{What: what, Why: why, Said: name})
	}
	slices.SortFunc(all, func(a, b Open) int { return compareText(a.What, b.What) })
	return all
}

func compareText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// trimmed returns what somebody else named, fit to be kept. Of too many, the
// first by name are.
func trimmed(m map[string]string) map[string]string {
	names := slices.Sorted(maps.Keys(m))
	if len(names) > maxObjects {
		names = names[:maxObjects]
	}
	t := make(map[string]string, len(names))
	for _, name := range names {
		t[objectName(name)] = foreign(m[name], maxDetail)
	}
	return t
}

// objectName is not redacted: the ids of accounts look like secrets to those
// who are careful.
func objectName(name string) string {
	if name = bounded(name, 2*maxName); name == "" {
		return "?"
	}
	return name
}

// look has an observer look once, for a bounded time.
func look(ctx context.Context, o watched, timeout time.Duration) said {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return call(ctx, func(ctx context.Context, s *said) {
		remaining, err := o.Remaining(ctx)
		s.remaining = trimmed(remaining)
		s.list(o)
		if err == nil {
			// What was not looked at in time was not looked at.
			err = ctx.Err()
		}
		s.problem = problem(err)
	})
}

// list asks an observer for the objects that it knows.
func (s *said) list(o watched) {
	l, ok := o.Observer.(Lister)
	if !ok {
		return
	}
	for _, name := range l.Objects() {
		if len(s.objects) < maxObjects {
			s.objects = append(s.objects, objectName(name))
		}
	}
}

// clean reports whether an observer has looked at everything and found nothing.
func (s *said) clean() bool { return s.problem == "" && len(s.remaining) == 0 }
