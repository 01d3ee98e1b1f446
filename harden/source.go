package harden

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/harden/host"
)

// A Source lists the subjects of one kind on a machine, such as its
// containers, for the checks that [Each] binds to it. Make one per kind and
// share it: the subjects are listed once per audit for each Source.
//
// A Source must not be copied or changed after its first use.
type Source[T any] struct {
	// Name says in the plural what is listed, such as "containers".
	Name string

	// List lists the subjects. Its context ends with the audit, not with the
	// check that happened to ask first. What it returns is shared by all
	// checks and must not be changed afterwards.
	List func(context.Context, *host.View) ([]T, error)

	// Subject names one subject in reports, such as "container/web".
	Subject func(T) string
}

// All returns the subjects. In the course of one audit they are listed once;
// see [Share]. It returns early with the error of ctx if that is done.
func (s *Source[T]) All(ctx context.Context, v *host.View) ([]T, error) {
	sh, ok := ctx.Value(shareKey{}).(*share)
	if !ok {
		return s.list(ctx, v)
	}
	c := sh.cell(cellKey{s, v})
	c.once.Do(func() {
		c.done = make(chan struct{})
		go func() {
			defer close(c.done)
			c.value, c.err = s.listWithin(sh.ctx, listTimeout(ctx), v) //nolint:contextcheck // see List
		}()
	})
	select {
	case <-c.done:
		subjects, _ := c.value.([]T)
		return subjects, c.err
	case <-ctx.Done():
		return nil, fmt.Errorf("list %s: %w", s.Name, ctx.Err())
	}
}

// listTimeout is how long a shared listing may take: as long as the check that
// asked first, but no less than a check has by default. Without an end of its
// own a source that hangs would cost an audit the time of every check.
func listTimeout(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return DefaultTimeout
	}
	return max(DefaultTimeout, time.Until(deadline))
}

// listWithin lists the subjects, and returns without them when the time is up.
func (s *Source[T]) listWithin(ctx context.Context, timeout time.Duration, v *host.View) ([]T, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	type answer struct {
		subjects []T
		err      error
	}
	done := make(chan answer, 1) // buffered: an abandoned listing can still finish
	go func() {
		subjects, err := s.list(ctx, v)
		done <- answer{subjects, err}
	}()
	select {
	case a := <-done:
		return a.subjects, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("list %s: %w", s.Name, ctx.Err())
	}
}

func (s *Source[T]) list(ctx context.Context, v *host.View) (subjects []T, err error) {
	defer func() {
		if err != nil {
			subjects, err = nil, fmt.Errorf("list %s: %w", s.Name, err)
		}
	}()
	defer recoverTo(&err)
	return s.List(ctx, v)
}

// Share returns a context in whose evaluations each [Source] lists its
// subjects once, and a function that ends the sharing and stops listings that
// still run. An auditor calls it once per audit. The facts are those of the
// moment when a check first asked; to see a change, use a new context.
func Share(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	sh := &share{cells: make(map[cellKey]*cell)}
	sh.ctx = context.WithValue(ctx, shareKey{}, sh) // a source may ask another
	return sh.ctx, cancel
}

func shareUnlessShared(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Value(shareKey{}).(*share); ok {
		return ctx, func() {}
	}
	return Share(ctx)
}

type (
	shareKey struct{}
	cellKey  struct {
		source any
		view   *host.View
	}
	cell struct {
		once  sync.Once
		done  chan struct{}
		value any
		err   error
	}
	share struct {
		ctx   context.Context // of the audit; see Source.List
		mu    sync.Mutex
		cells map[cellKey]*cell
	}
)

func (sh *share) cell(k cellKey) *cell {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c := sh.cells[k]
	if c == nil {
		c = new(cell)
		sh.cells[k] = c
	}
	return c
}

// Each returns a check that judges every subject of src and joins the
// verdicts.
//
// It fails if any subject fails, with the findings of all of them; findings
// without a Subject get the name of theirs. Otherwise it is unknown if any
// subject is: judge returned an error or no verdict, panicked, or passed on
// evidence below info.Requires. Otherwise it passes if any subject passes, at
// the level of the weakest, and is not applicable if none applies. No subject
// at all is unknown, not a pass: nothing was examined.
//
// judge should be a pure function of the subject. It is called for one subject
// after the other and should return soon after its context is done.
func Each[T any](info Info, src *Source[T], judge func(context.Context, T) (Verdict, error)) Check {
	return New(info, func(ctx context.Context, v *host.View) (Verdict, error) {
		subjects, err := src.All(ctx, v)
		if err != nil {
			return Verdict{}, err
		}
		if len(subjects) == 0 {
			return Verdict{}, fmt.Errorf("%w: no %s", ErrNoSubject, src.Name)
		}
		var j joint
		for _, s := range subjects {
			if err := ctx.Err(); err != nil {
				j.unknown = append(j.unknown, subjectError{"the rest of the " + src.Name, err})
				break
			}
			j.add(info, nameOf(src, s), func() (Verdict, error) { return judge(ctx, s) })
		}
		return j.verdict()
	})
}

// nameOf keeps a subject that cannot be named from hiding the verdicts on the
// others.
func nameOf[T any](src *Source[T], subject T) (name string) {
	defer func() {
		if p := recover(); p != nil {
			name = fmt.Sprintf("one of the %s (naming it: panic: %v)", src.Name, p)
		}
	}()
	return src.Subject(subject)
}

// joint joins the verdicts on several subjects.
type joint struct {
	findings []Finding
	unknown  subjectErrors
	passed   int
	level    Level
	evidence []Evidence
	notes    []string
}

func (j *joint) add(info Info, subject string, judge func() (Verdict, error)) {
	v, err := func() (v Verdict, err error) {
		defer recoverTo(&err)
		return judge()
	}()
	switch {
	case v.status == StatusFail:
		for _, f := range v.findings {
			if f.Subject == "" {
				f.Subject = subject
			}
			j.findings = append(j.findings, f)
		}
	case err != nil:
	case v.status == StatusUnknown:
		err = errUndecided
	case v.status == StatusPass && v.level < info.Requires:
		err = &LevelError{Got: v.level, Requires: info.Requires}
	case v.status == StatusPass:
		if j.passed == 0 || v.level < j.level {
			j.level = v.level
		}
		j.passed++
		j.evidence = append(j.evidence, v.evidence...)
	default:
		j.notes = append(j.notes, subject+": "+v.note)
	}
	if err != nil {
		j.unknown = append(j.unknown, subjectError{subject, err})
	}
}

func (j *joint) verdict() (Verdict, error) {
	var err error
	if len(j.unknown) > 0 {
		err = j.unknown
	}
	switch {
	case len(j.findings) > 0:
		return Fail(j.findings[0], j.findings[1:]...), err
	case err != nil:
		return Verdict{}, err
	case j.passed > 0:
		return Pass(j.evidence[0], j.evidence[1:]...).atMost(j.level), nil
	}
	notes := slices.Compact(j.notes)
	return NotApplicable(cut(notes, len(notes))), nil
}

type subjectError struct {
	subject string
	err     error
}

// subjectErrors says which subjects could not be judged, and why.
type subjectErrors []subjectError

func (e subjectErrors) Error() string {
	all := make([]string, min(len(e), maxSubjects))
	for i := range all {
		all[i] = fmt.Sprintf("%s: %v", e[i].subject, e[i].err)
	}
	return cut(all, len(e))
}

// maxSubjects is how many subjects a text names.
const maxSubjects = 5

// cut joins the first texts of so many.
func cut(texts []string, of int) string {
	texts = texts[:min(len(texts), maxSubjects)]
	s := strings.Join(texts, "; ")
	if more := of - len(texts); more > 0 {
		s += fmt.Sprintf("; and %d more", more)
	}
	return s
}

// Unwrap lets [errors.Is] see every cause.
func (e subjectErrors) Unwrap() []error {
	all := make([]error, len(e))
	for i, s := range e {
		all[i] = s.err
	}
	return all
}
