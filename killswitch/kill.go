package killswitch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// A kill is one run of [Switch.Fire], for all who ask for it meanwhile.
type kill struct {
	s       *Switch
	targets []*target
	request Request       // the first
	fenced  chan struct{} // closed once the epoch is known
	done    chan struct{}

	requests int // guarded by Switch.mu

	mu      sync.Mutex
	receipt Receipt
	stored  error
}

func newKill(s *Switch, req Request, targets []*target) *kill {
	return &kill{s: s, targets: targets, request: req, fenced: make(chan struct{}), done: make(chan struct{})}
}

func (k *kill) run(ctx context.Context) {
	s := k.s
	began := k.request.Time
	defer func() {
		s.mu.Lock()
		if s.running == k {
			s.running = nil
		}
		s.mu.Unlock()
		close(k.done)
	}()

	state, before := k.engage(ctx, began)
	fired := state.Time
	already := max(began.Sub(fired), 0) // by the clock, if it was fired before
	since := func() time.Duration { return already + time.Since(began) }

	pen := newPen(s.disk, s.cfg.Dir, 4*s.cfg.FenceTimeout)
	// Neither errgroup.WithContext, which would cut off the others when one
	// fails, nor a limit, by which one that hangs would hold up the others.
	var g errgroup.Group
	f := &following{kill: k, since: since, pen: pen, all: make(chan struct{})}
	f.climbing.Store(int64(len(k.targets)))
	for i, t := range k.targets {
		g.Go(func() error {
			f.climb(ctx, i, before[t.Name], nil)
			if f.climbing.Add(-1) == 0 {
				close(f.all) // and this one was looked at last
				return nil
			}
			f.follow(ctx, i)
			return nil
		})
		runtime.Gosched() // so that the first to be named is the first to act
	}
	recorded := make(chan error, 1)
	go func() { recorded <- s.record(ctx, k.event(k.request, trail.OutcomeBegin)) }()
	_ = g.Wait() // the functions return nil
	k.stillFenced(ctx)

	k.mu.Lock()
	k.receipt.Whole, k.receipt.Elapsed = true, time.Since(began)
	k.mu.Unlock()
	k.recordEnd(ctx, <-recorded)
	stored := pen.last(k.snapshot)

	k.mu.Lock()
	k.stored = stored
	r := k.receipt
	k.mu.Unlock()
	s.mu.Lock()
	s.last = &r
	s.mu.Unlock()
	level := slog.LevelInfo
	if !r.Off() {
		level = slog.LevelError
	}
	s.log(ctx, level, "the kill has come to its end", "receipt", r.String())
}

// engage engages the fence and begins the receipt. It returns what is known of
// the targets from before, by name.
func (k *kill) engage(ctx context.Context, began time.Time) (FenceState, map[string]*TargetResult) {
	s := k.s
	ctx, cancel := context.WithTimeout(ctx, s.cfg.FenceTimeout)
	defer cancel()
	state, err := s.fence.engage(ctx, FenceState{Agent: s.cfg.Agent, Reason: k.request.Reason, Time: began}, s.lastEpoch)
	fence := FenceResult{Durable: err == nil, EngagedAfter: time.Since(began), Error: problem(err)}

	runs, returned := 0, 0
	before := make(map[string]*TargetResult)
	if !state.Time.Equal(began) { // it was engaged before
		found := make(chan *Receipt, 1)
		go func() { found <- s.earlier(state.Epoch) }()
		select {
		case r := <-found:
			if r == nil {
				break
			}
			runs, returned = r.Runs, r.Returned
			for i := range r.Targets {
				before[r.Targets[i].Name] = &r.Targets[i]
			}
		case <-ctx.Done(): // the disk does not answer
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.receipt = Receipt{
		Schema: ReceiptSchema, Agent: s.cfg.Agent, Epoch: state.Epoch, Reason: state.Reason, Fired: state.Time.UTC().Round(0),
		Request: k.request, Requests: 1, Runs: runs + 1, Fence: fence, Returned: returned,
		Trail: TrailResult{Error: "it has not answered"}, Targets: make([]TargetResult, len(k.targets)),
	}
	for i, t := range k.targets {
		k.receipt.Targets[i] = TargetResult{Name: t.Name, Objects: []ObjectResult{}, Open: []Open{}, Tried: []Attempt{}, Observers: []LookResult{}}
	}
	close(k.fenced)
	if state.Time.Equal(began) {
		state.Time = began // with the reading of the clock that cannot be set
	}
	return state, before
}

// stillFenced engages the fence again if somebody has released it while the
// agent was being stopped.
func (k *kill) stillFenced(ctx context.Context) {
	s := k.s
	if !s.released() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.FenceTimeout)
	defer cancel()
	_, err := s.fence.engage(ctx, FenceState{Agent: s.cfg.Agent, Reason: k.request.Reason, Time: time.Now()}, s.lastEpoch)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.receipt.Fence = FenceResult{Error: "it was released while the agent was being stopped, and engaged again in another epoch"}
	if err != nil {
		k.receipt.Fence.Error += ": " + problem(err)
	}
}

// lastEpoch returns the last epoch of which there is a receipt.
func (s *Switch) lastEpoch() uint64 {
	epochs, _ := receiptEpochs(s.cfg.Dir, s.cfg.Agent)
	if len(epochs) == 0 {
		return 0
	}
	return epochs[len(epochs)-1]
}

// safely is climb, but for a panic of ours, of which nothing else must suffer.
func (t *target) safely(ctx context.Context, since func() time.Duration, before *TargetResult, report func(TargetResult)) (r TargetResult) {
	defer func() {
		if p := recover(); p != nil {
			r = TargetResult{Name: t.Name, Objects: []ObjectResult{}, Open: []Open{}, Observers: []LookResult{}, Tried: []Attempt{{Error: "panic: " + panicText(p)}}}
		}
	}()
	return t.climb(ctx, since, before, report)
}

func (k *kill) set(i int, r TargetResult) {
	k.mu.Lock()
	k.receipt.Targets[i] = r
	k.mu.Unlock()
}

// snapshot returns the receipt as it is, signed, as the answer to the first
// request.
func (k *kill) snapshot() *Receipt { return k.signed(k.request) }

func (k *kill) signed(req Request) *Receipt {
	k.s.mu.Lock()
	requests := k.requests
	k.s.mu.Unlock()
	k.mu.Lock()
	r := k.receipt
	r.Targets = slices.Clone(r.Targets)
	k.mu.Unlock()
	req.Time = req.Time.UTC().Round(0)
	r.Request, r.Requests = req, requests
	_ = r.sign(k.s.cfg.Key) // it marshals
	return &r
}

// answer returns the receipt for a request, which recorded is about.
func (k *kill) answer(req Request, recorded error) (*Receipt, error) {
	r := k.signed(req)
	if recorded != nil {
		r.Trail.Recorded, r.Trail.Error = false, problem(recorded)
		_ = r.sign(k.s.cfg.Key)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return r, r.complain(k.stored)
}

// event is what the trail is told.
func (k *kill) event(req Request, outcome trail.Outcome) trail.Event {
	k.mu.Lock()
	defer k.mu.Unlock()
	actor := req.By
	if actor == "" {
		actor = "hardshell"
	}
	return trail.Event{
		Kind: trail.KindKill, Time: time.Now(), Actor: actor, Agent: k.receipt.Agent, Subject: "agent/" + k.receipt.Agent,
		ID: strconv.FormatUint(k.receipt.Epoch, 10), Outcome: outcome, Message: req.Reason,
	}
}

// recordEnd records how the kill ended. began is what came of the record of
// its beginning.
func (k *kill) recordEnd(ctx context.Context, began error) {
	var err error
	if !errors.Is(began, errHangs) { // then it would hang again
		k.mu.Lock()
		r := k.receipt
		k.mu.Unlock()
		e := k.event(k.request, r.outcome())
		e.Attrs = r.attrs()
		err = k.s.record(ctx, e)
	}
	err = errors.Join(began, err)
	k.mu.Lock()
	k.receipt.Trail = TrailResult{Recorded: err == nil, Error: problem(err)}
	k.mu.Unlock()
	if err != nil {
		k.s.log(ctx, slog.LevelError, "the kill is not in the trail", "error", problem(err))
	}
}

// outcome puts the result in a word.
func (r *Receipt) outcome() trail.Outcome {
	switch {
	case r.Off():
		return trail.OutcomeOK
	case slices.ContainsFunc(r.Targets, func(t TargetResult) bool { return t.State == Failed }):
		return trail.OutcomeError
	}
	return trail.OutcomeUnknown
}

// attrs are the result for the trail.
func (r *Receipt) attrs() map[string]string {
	open := make(map[string]bool)
	m := make(map[string]string)
	for _, t := range r.Targets {
		m["target."+t.Name] = t.State.String()
		if t.State == Confirmed {
			m["confirmed_after_ns."+t.Name] = strconv.FormatInt(int64(t.ConfirmedAfter), 10)
		}
		for _, o := range t.Open {
			open[o.What] = true
		}
	}
	if len(open) > 0 {
		m["open"] = bounded(strings.Join(slices.Sorted(maps.Keys(open)), ", "), maxReason)
	}
	return m
}

// errHangs reports a trail that did not return.
var errHangs = errors.New("the trail hangs")

// record gives an event to the trail, for a bounded time.
func (s *Switch) record(ctx context.Context, e trail.Event) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.TrailTimeout)
	defer cancel()
	said := try(ctx, "trail", func(ctx context.Context) error { return s.cfg.Trail.Record(ctx, e) })
	switch {
	case said.abandoned || ctx.Err() != nil && said.problem != "":
		return fmt.Errorf("%w: %s", errHangs, said.problem)
	case said.problem != "":
		return errors.New(said.problem)
	}
	return nil
}

// A pen writes receipts down, the latest of them, while others go on.
type pen struct {
	patience time.Duration        // for the disk, in the end
	next     chan func() *Receipt // one at most: the latest
	done     chan error
}

func newPen(d disk, dir string, patience time.Duration) *pen {
	p := &pen{patience: patience, next: make(chan func() *Receipt, 1), done: make(chan error, 1)}
	go func() {
		var err error
		for current := range p.next {
			err = current().store(d, dir)
		}
		p.done <- err
	}()
	return p
}

// write has the receipt written as it will be when its turn comes.
func (p *pen) write(current func() *Receipt) {
	select {
	case p.next <- current:
	default: // it is going to be written
	}
}

// last waits until the receipt is written, unless the disk does not answer.
func (p *pen) last(current func() *Receipt) error {
	late := time.NewTimer(p.patience)
	defer late.Stop()
	select {
	case p.next <- current:
		close(p.next)
	case <-late.C:
		go func() { p.next <- current; close(p.next) }()
		return fmt.Errorf("%w: the receipt: the disk does not answer", ErrNotDurable)
	}
	select {
	case err := <-p.done:
		return err
	case <-late.C:
		return fmt.Errorf("%w: the receipt: the disk does not answer", ErrNotDurable)
	}
}
