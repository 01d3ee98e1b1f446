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
	clients [priorities]*Client // with the limit of requests under way
	started time.Time

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
		Revoker: r, clients: r.Client.limited(n), started: time.Now(),
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

// sweep lists the accounts in scope, and revokes and deletes them and those
// that are known and not listed: the run before may have deleted them. It
// returns how many were listed and whether one of them was not expected.
func (x *run) sweep(ctx context.Context) (n int, fresh bool, err error) {
	// Each deletion moves rows, and so they wait until all are listed.
	listed := make(chan struct{})
	var accounts sync.WaitGroup
	begun := make(map[string]bool)
	begin := func(o *AccountOutcome) {
		begun[o.ID] = true
		accounts.Go(func() { x.handle(ctx, o, listed) })
	}
	for a, e := range x.scope(ctx, x.clients[first]) {
		if err = e; err != nil {
			x.problem("%v", err)
			break
		}
		n++
		o, isNew := x.take(a)
		fresh = fresh || isNew
		begin(o)
	}
	x.mu.Lock()
	known := slices.Collect(maps.Values(x.accounts))
	x.mu.Unlock()
	for _, o := range known {
		if !begun[o.ID] && !o.Deleted {
			begin(o)
		}
	}
	close(listed)
	accounts.Wait()
	x.sync()
	return n, fresh, err
}

// handle revokes an account and then deletes it.
func (x *run) handle(ctx context.Context, o *AccountOutcome, listed <-chan struct{}) {
	if ctx.Err() == nil && !o.Outcome.Revoked() {
		x.step(ctx, o, x.revoke)
	}
	select {
	case <-listed:
	case <-ctx.Done():
		return
	}
	if !o.Deleted && o.Outcome != "" {
		x.step(ctx, o, x.remove)
	}
}

// step has f do something about an account and keeps what came of it.
func (x *run) step(ctx context.Context, o *AccountOutcome, f func(context.Context, *AccountOutcome)) {
	before := *o
	f(ctx, o)
	if ctx.Err() != nil && (o.Outcome == "" || o.Outcome == OutcomeUnconfirmed) {
		// It ended before it was over, and must not look as if it had been.
		o.Outcome, o.Reason = before.Outcome, before.Reason
	}
	if o.Outcome != before.Outcome || o.Deleted != before.Deleted {
		o.settle(time.Now())
		x.keep(*o)
	}
}

// take notes an account of a listing and reports whether it was not known, or
// not thought to be there any more.
func (x *run) take(a Account) (o *AccountOutcome, isNew bool) {
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
	return o, !known || back
}

// keep remembers an outcome for a run after this one.
func (x *run) keep(o AccountOutcome) {
	x.Revoker.mu.Lock()
	x.known[o.ID] = &o
	x.Revoker.mu.Unlock()
	x.note(o)
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
		n, fresh, err := x.sweep(ctx)
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
