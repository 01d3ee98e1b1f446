package killswitch

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// How often an observer looks: for the first time once something was done, or
// after a head start, since what it sees before counts for nothing and it takes
// the processor from those who act; then at once whenever something was done, and
// at growing intervals. One that takes long to look is given rest, because others
// may need what it uses.
const (
	headStart  = 20 * time.Millisecond
	firstPause = 200 * time.Microsecond
	lastPause  = 250 * time.Millisecond
	slowLook   = 50 * time.Millisecond
	restFactor = 4
	longRest   = 5 * time.Second

	// maxStuck is how many looks that do not return an observer may have.
	maxStuck = 3

	// glance is how long a target that was confirmed before may take to be
	// found so again, before it is acted upon.
	glance = 250 * time.Millisecond
)

// A climb is one attempt to stop a target. One goroutine has it: others send it
// what they did and saw.
type climb struct {
	t      *target
	since  func() time.Duration // from Fire, which all times count from
	report func(TargetResult)

	acted  chan acted
	looked chan looked
	done   chan struct{} // closed once an actuator has returned
	ended  <-chan struct{}
	kicks  []chan struct{}

	// round counts what may have changed the target for the last time. A look
	// counts as the last only if it began in the current round.
	round atomic.Int64

	next    int  // rung
	due     bool // the current rung has had its time, or has failed
	waiting int  // actuators that have not returned, and are waited for
	over    bool // the time of the target is

	attempts []Attempt
	cancels  []context.CancelFunc
	open     map[string][]Open // by actuator
	eyes     []eye
	objects  map[string]time.Duration // when each was found off, not to be contradicted since; or -1
}

// An eye is what is known of an observer.
type eye struct {
	LookResult
	last  said
	round int64
	since time.Duration // of an unbroken series of clean looks; or -1
	blind bool          // it looks no more
}

type acted struct {
	attempt int
	waited  bool
	rung    int
	said
	at time.Duration
}

type looked struct {
	observer int
	round    int64
	said
	at    time.Duration
	blind bool
}

// climb stops the target, as far as it can, and returns what came of it.
// before is what is known of it from an earlier attempt.
func (t *target) climb(ctx context.Context, since func() time.Duration, before *TargetResult, report func(TargetResult)) TargetResult {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := &climb{
		t: t, since: since, report: report, ended: ctx.Done(),
		acted: make(chan acted), looked: make(chan looked), kicks: make([]chan struct{}, len(t.observers)),
		done: make(chan struct{}), open: make(map[string][]Open), eyes: make([]eye, len(t.observers)), objects: make(map[string]time.Duration),
	}
	begun := since()
	for i, o := range t.observers {
		c.eyes[i] = eye{LookResult: LookResult{Observer: o.name}, since: -1, round: -1, last: said{problem: "it has not looked"}}
		c.kicks[i] = make(chan struct{}, 1)
	}
	if before != nil {
		for _, o := range before.Objects {
			c.objects[o.Name] = -1
		}
	}
	acting, stop := context.WithTimeout(ctx, t.Timeout)
	defer stop()
	defer func() {
		for _, cancel := range c.cancels {
			cancel()
		}
	}()
	reobserved := before != nil && before.State == Confirmed
	if !reobserved {
		c.begin(acting) // before anybody looks: that is not what is urgent
	}
	if reobserved {
		close(c.done)
	}
	for i := range t.observers {
		go c.watch(ctx, i)
	}
	if reobserved {
		reobserved = c.still(ctx)
		if !reobserved {
			c.begin(acting)
		}
	}
	if !reobserved {
		c.run(acting)
	}
	res := c.result()
	res.Elapsed = since() - begun
	if res.Reobserved = reobserved; reobserved {
		res.ConfirmedAfter = before.ConfirmedAfter
		keepTimes(res.Objects, before.Objects)
		res.Open = before.Open
	}
	return res
}

// keepTimes has objects that were confirmed before be so since then.
func keepTimes(objects, before []ObjectResult) {
	for i := range objects {
		for _, b := range before {
			if b.Name == objects[i].Name && b.State == Confirmed && objects[i].State == Confirmed {
				objects[i].ConfirmedAfter = b.ConfirmedAfter
			}
		}
	}
}

// still reports whether a target that was off is found to be so once more.
func (c *climb) still(ctx context.Context) bool {
	timer := time.NewTimer(glance)
	defer timer.Stop()
	for !c.off() {
		select {
		case l := <-c.looked:
			c.see(l)
			if !l.clean() {
				return false
			}
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// run tries rung after rung until the observers confirm, or the time is over.
func (c *climb) run(acting context.Context) {
	over := acting.Done()
	var patience <-chan time.Time
	arm := func() {
		patience = nil
		if r := c.t.rungs[c.next-1]; r.patience > 0 && !r.noWait {
			patience = time.After(r.patience)
		}
	}
	arm()
	for {
		switch {
		case c.off(), c.hopeless():
			return
		case c.due && c.next < len(c.t.rungs) && !c.over && !c.clean():
			c.begin(acting)
			arm()
			continue
		}
		select {
		case a := <-c.acted:
			c.take(a)
		case l := <-c.looked:
			c.see(l)
		case <-patience:
			c.due = true
		case <-over:
			// What is under way is cut off now; then they look once more.
			over, c.over = nil, true
			c.changed()
		}
	}
}

// off reports whether everything that was tried has come to its end, and every
// observer has looked since and found nothing.
func (c *climb) off() bool {
	return c.waiting == 0 && !slices.ContainsFunc(c.eyes, func(e eye) bool { return !e.last.clean() || e.round != c.round.Load() })
}

// hopeless reports whether nothing more will be tried or seen.
func (c *climb) hopeless() bool {
	if c.waiting > 0 || c.next < len(c.t.rungs) && !c.over {
		return false
	}
	for _, e := range c.eyes {
		if !e.blind && (!c.over || e.round != c.round.Load()) {
			return false
		}
	}
	return true
}

// clean reports whether every observer last found nothing.
func (c *climb) clean() bool {
	return !slices.ContainsFunc(c.eyes, func(e eye) bool { return !e.last.clean() })
}

// changed says that what was seen before may not be so any more.
func (c *climb) changed() {
	c.round.Add(1)
	for _, k := range c.kicks {
		select {
		case k <- struct{}{}:
		default:
		}
	}
}

// begin tries the next rung, and those after it that follow one that is not
// waited for.
func (c *climb) begin(acting context.Context) {
	for {
		n := c.next
		c.next++
		r := c.t.rungs[n]
		left := c.t.Timeout
		if end, ok := acting.Deadline(); ok {
			left = time.Until(end)
		}
		ctx, cancel := context.WithTimeout(acting, r.until(left))
		c.cancels = append(c.cancels, cancel)
		for _, a := range r.actuators {
			i := len(c.attempts)
			c.attempts = append(c.attempts, Attempt{Rung: n + 1, Actuator: a.name, Begun: c.since()})
			if !r.noWait {
				c.waiting++
			}
			go c.act(ctx, i, n, a, !r.noWait)
		}
		c.due = false
		if !r.noWait || c.next == len(c.t.rungs) {
			break
		}
	}
	c.changed()
	c.tell()
}

func (c *climb) act(ctx context.Context, attempt, rung int, a named, waited bool) {
	s := try(ctx, a.name, a.Do)
	select {
	case c.acted <- acted{attempt: attempt, rung: rung, waited: waited, said: s, at: c.since()}:
	case <-c.ended:
	}
}

// take notes what came of an actuator.
func (c *climb) take(a acted) {
	at := &c.attempts[a.attempt]
	if at.Abandoned = a.abandoned; !a.abandoned {
		at.Returned = max(a.at, 1)
	}
	at.Error = a.problem
	c.open[at.Actuator] = a.open
	if a.waited {
		c.waiting--
		if a.problem != "" && a.rung == c.next-1 {
			c.due = true
		}
	}
	c.changed()
	select {
	case <-c.done:
	default:
		close(c.done) // last: a look that begins now is of this round
	}
	c.tell()
}

// watch has an observer look until ctx ends.
func (c *climb) watch(ctx context.Context, i int) {
	lead := time.NewTimer(headStart)
	select {
	case <-c.done:
	case <-lead.C:
	case <-ctx.Done():
	}
	lead.Stop()
	stuck := 0
	for pause := firstPause; ; {
		select {
		case <-c.kicks[i]: // what it is about to see is as new as can be
		default:
		}
		round, began := c.round.Load(), c.since()
		s := look(ctx, c.t.observers[i], c.t.lookTimeout)
		now := c.since()
		if s.abandoned {
			stuck++
		}
		select {
		case c.looked <- looked{observer: i, round: round, said: s, at: now, blind: stuck == maxStuck}:
		case <-ctx.Done():
			return
		}
		if stuck == maxStuck {
			return
		}
		wait := pause
		if took := now - began; took > slowLook {
			wait = max(wait, min(restFactor*took, longRest))
		}
		timer := time.NewTimer(wait)
		select {
		case <-c.kicks[i]:
			pause = firstPause
		case <-timer.C:
			pause = min(2*pause, lastPause)
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// see notes what an observer saw.
func (c *climb) see(l looked) {
	e := &c.eyes[l.observer]
	was := c.clean()
	e.last, e.round, e.blind = l.said, l.round, l.blind
	e.Looks++
	e.Last, e.Remaining, e.Error, e.Abandoned = max(l.at, 1), len(l.remaining), l.problem, l.abandoned
	switch {
	case !l.clean():
		e.since = -1
	case e.since < 0:
		e.since = max(l.at, 1)
	}
	for _, name := range l.objects {
		c.know(name)
	}
	for name := range l.remaining {
		c.know(name)
	}
	for name, off := range c.objects {
		switch {
		case c.status(name) != Confirmed:
			c.objects[name] = -1
		case off < 0:
			c.objects[name] = max(l.at, 1)
		}
	}
	if was != c.clean() {
		c.tell()
	}
}

func (c *climb) know(name string) {
	if _, ok := c.objects[name]; !ok && len(c.objects) < 2*maxObjects {
		c.objects[name] = -1
	}
}

// status returns the state of an object by the last look of each observer.
func (c *climb) status(name string) State {
	state := Confirmed
	for i := range c.eyes {
		e := &c.eyes[i]
		if _, on := e.last.remaining[name]; on {
			return Failed
		}
		if e.last.problem != "" {
			state = Unconfirmed
		}
	}
	return state
}

// tell reports what is known so far.
func (c *climb) tell() {
	if c.report != nil {
		c.report(c.result())
	}
}

// result returns what is known.
func (c *climb) result() TargetResult {
	r := TargetResult{
		Name: c.t.Name, Tried: slices.Clone(c.attempts), Open: []Open{},
		Objects: make([]ObjectResult, 0, len(c.objects)), Observers: make([]LookResult, 0, len(c.eyes)),
	}
	if r.Tried == nil {
		r.Tried = []Attempt{}
	}
	remaining := false
	for i := range c.eyes {
		e := &c.eyes[i]
		r.Observers = append(r.Observers, e.LookResult)
		remaining = remaining || len(e.last.remaining) > 0
		r.ConfirmedAfter = max(r.ConfirmedAfter, e.since)
	}
	switch {
	case remaining:
		r.State = Failed
	case c.off():
		r.State = Confirmed
	}
	if r.State != Confirmed {
		r.ConfirmedAfter = 0
	}
	for name, off := range c.objects {
		o := ObjectResult{Name: name, State: c.status(name), Status: c.words(name)}
		if o.State == Confirmed && r.State == Unconfirmed {
			o.State = Unconfirmed // nobody has looked since the last that was done
		}
		if o.State == Confirmed {
			o.ConfirmedAfter = off
		}
		r.Objects = append(r.Objects, o)
	}
	slices.SortFunc(r.Objects, func(a, b ObjectResult) int { return strings.Compare(a.Name, b.Name) })
	for _, open := range c.open {
		r.Open = append(r.Open, open...)
	}
	slices.SortFunc(r.Open, func(a, b Open) int { return strings.Compare(a.Said+"\x00"+a.What, b.Said+"\x00"+b.What) })
	return r
}

// words returns the status of an object as the first observer has it that
// found it on.
func (c *climb) words(name string) string {
	for i := range c.eyes {
		if status, on := c.eyes[i].last.remaining[name]; on {
			return status
		}
	}
	return ""
}
