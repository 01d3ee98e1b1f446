package composio

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// A run is one call of Revoke. Accounts are handled by one goroutine each at a
// time; mu guards what they share.
type run struct {
	*Revoker
	started time.Time
	slots   chan struct{} // one is held while a request is under way

	mu       sync.Mutex
	accounts map[string]*AccountOutcome
	status   map[string]Status // as last seen
	cuts     []Cut
	problems []string
	empty    bool
	newKey   Key
}

func (r *Revoker) begin() *run {
	n := r.Concurrency
	if n == 0 {
		n = DefaultConcurrency
	}
	x := &run{
		Revoker: r, started: time.Now(), slots: make(chan struct{}, n),
		accounts: make(map[string]*AccountOutcome), status: make(map[string]Status),
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, o := range r.known {
		c := *o
		x.accounts[id] = &c
	}
	return x
}

// problem notes what belongs to no account. Texts repeat; each is kept once.
func (x *run) problem(format string, args ...any) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if p := fmt.Sprintf(format, args...); !slices.Contains(x.problems, p) {
		x.problems = append(x.problems, p)
	}
}

// slot waits until a request may be made and returns what ends it, or nil if
// ctx ends first.
func (x *run) slot(ctx context.Context) func() {
	select {
	case x.slots <- struct{}{}:
		return func() { <-x.slots }
	case <-ctx.Done():
		return nil
	}
}

// with makes a request while it holds a slot.
func (x *run) with(ctx context.Context, request func() error) error {
	end := x.slot(ctx)
	if end == nil {
		return context.Cause(ctx)
	}
	defer end()
	return request()
}

// list collects the accounts in scope and takes them over. What is known from
// before and is not listed is looked at later: the run before may have deleted
// it.
func (x *run) list(ctx context.Context) (n int, fresh bool, err error) {
	var found []Account
	err = x.with(ctx, func() (err error) {
		found, err = x.collect(ctx)
		return err
	})
	if err != nil {
		x.problem("%v", err)
	}
	for _, a := range found {
		if x.take(a) {
			fresh = true
		}
	}
	x.sync()
	return len(found), fresh, err
}

// take notes an account of a listing and reports whether it was not known, or
// not thought to be there any more.
func (x *run) take(a Account) bool {
	x.mu.Lock()
	x.status[a.ID] = a.Status
	o, known := x.accounts[a.ID]
	if !known {
		x.Revoker.mu.Lock()
		c := *x.learn(a)
		x.Revoker.mu.Unlock()
		o = &c
		x.accounts[a.ID] = o
	}
	back := o.Deleted
	o.Deleted = false
	x.mu.Unlock()
	if !known {
		x.note(*o)
	}
	return !known || back
}

// each calls f for the accounts that do not fulfil done, several at a time.
func (x *run) each(ctx context.Context, done func(*AccountOutcome) bool, f func(context.Context, *AccountOutcome)) {
	var todo []*AccountOutcome
	for _, id := range slices.Sorted(maps.Keys(x.accounts)) {
		if o := x.accounts[id]; !done(o) {
			todo = append(todo, o)
		}
	}
	next := make(chan *AccountOutcome)
	var workers sync.WaitGroup
	for range min(cap(x.slots), len(todo)) {
		workers.Go(func() {
			for o := range next {
				before := *o
				f(ctx, o)
				if ctx.Err() != nil && o.Outcome == "" {
					continue // not reached: it must not look as if it had been
				}
				o.settle(time.Now())
				if o.Outcome != before.Outcome || o.Deleted != before.Deleted {
					x.keep(*o)
				}
			}
		})
	}
	for _, o := range todo {
		if ctx.Err() != nil {
			break
		}
		select {
		case next <- o:
		case <-ctx.Done():
		}
	}
	close(next)
	workers.Wait()
	x.sync()
}

// keep remembers an outcome for a run after this one.
func (x *run) keep(o AccountOutcome) {
	x.Revoker.mu.Lock()
	x.known[o.ID] = &o
	x.Revoker.mu.Unlock()
	x.note(o)
}

// process revokes what is known and then deletes it.
func (x *run) process(ctx context.Context) {
	x.each(ctx, func(o *AccountOutcome) bool { return o.Deleted || o.Outcome.Revoked() }, x.revoke)
	x.each(ctx, func(o *AccountOutcome) bool { return o.Deleted || o.Outcome == "" }, x.remove)
}

// drain lists again until there is nothing twice in a row: links that were
// open can have been completed meanwhile.
func (x *run) drain(ctx context.Context) {
	const stuck = 3 // rounds that change nothing
	interval := x.Interval
	if interval == 0 {
		interval = DefaultInterval
	}
	for empty, idle, last := 0, 0, -1; ; {
		n, fresh, err := x.list(ctx)
		switch {
		case errors.Is(err, ErrForeignRow), errors.Is(err, ErrUnauthorized), ctx.Err() != nil:
			return // the next listing would be no better
		case err != nil:
			empty = 0
		case n == 0:
			if empty++; empty == 2 {
				x.empty = true
				return
			}
		default:
			empty = 0
		}
		if idle++; fresh || n != last {
			idle = 0
		}
		if last = n; idle == stuck && empty == 0 {
			if n > 0 {
				x.problem("%d accounts are still listed", n)
			}
			return
		}
		if n > 0 {
			x.process(ctx)
		}
		if sleep(ctx, interval) != nil {
			return
		}
	}
}

// finish makes the report.
func (x *run) finish(ctx context.Context) (*Revocation, error) {
	rep := &Revocation{
		Started: x.started, Finished: time.Now(), Cuts: x.cuts, Empty: x.empty, Problems: x.problems, NewKey: x.newKey,
		Accounts: make([]AccountOutcome, 0, len(x.accounts)),
	}
	open := make(map[string]string)
	for _, id := range slices.Sorted(maps.Keys(x.accounts)) {
		o := *x.accounts[id]
		if o.Outcome == "" {
			o.Outcome = OutcomeUnconfirmed
			o.Reason = "the revocation ended before its turn"
			o.settle(rep.Finished)
		}
		if o.Open != "" {
			open[id] = o.Open
		}
		rep.Accounts = append(rep.Accounts, o)
	}
	for _, c := range rep.Cuts {
		if !c.Done {
			open[c.Kind+" "+c.ID] = c.Reason
		}
	}
	if !rep.Empty {
		open["accounts"] = "it is not confirmed that none is left"
	}
	for i, p := range rep.Problems {
		open[fmt.Sprintf("problem %d", i+1)] = p
	}
	if len(open) == 0 {
		return rep, nil
	}
	return rep, &OpenError{Report: rep, open: open, err: context.Cause(ctx)}
}
