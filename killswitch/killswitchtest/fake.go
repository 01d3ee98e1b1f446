package killswitchtest

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"slices"
	"sync"

	"github.com/managemyclaw/hardshell/killswitch"
)

// A Fault is a way in which an [Actuator] or an [Observer] does not do what it
// is for.
type Fault string

// The faults. The zero Fault is none.
const (
	Fails   Fault = "fails"   // it returns an error
	Waits   Fault = "waits"   // it returns an error, when its context is done
	Hangs   Fault = "hangs"   // it does not return, whatever its context says
	Panics  Fault = "panics"  // it panics
	Exits   Fault = "exits"   // it ends its goroutine
	Lies    Fault = "lies"    // it says that all is well, whatever is
	Alleges Fault = "alleges" // an observer says that all is on, whatever is
)

// Faults are all of them.
var Faults = []Fault{Fails, Waits, Hangs, Panics, Exits, Lies, Alleges}

// A Thing is something in memory that can be stopped, by [Actuator], and
// observed, by [Observer]: a canary. It has objects, each of which is on or
// off. Its methods may be called concurrently. The zero Thing has none.
type Thing struct {
	mu      sync.Mutex
	objects map[string]bool // on
	barred  bool
	release chan struct{}
}

// NewThing returns a thing of which these objects are on.
func NewThing(objects ...string) *Thing {
	t := &Thing{objects: make(map[string]bool), release: make(chan struct{})}
	t.Start(objects...)
	return t
}

// Start turns objects on, unless the thing is barred.
func (t *Thing) Start(objects ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range objects {
		t.objects[o] = !t.barred
	}
}

// Stop turns objects off; without any, all.
func (t *Thing) Stop(objects ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(objects) == 0 {
		objects = slices.Collect(maps.Keys(t.objects))
	}
	for _, o := range objects {
		t.objects[o] = false
	}
}

// On returns the objects that are on, in order.
func (t *Thing) On() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var on []string
	for o, is := range t.objects {
		if is {
			on = append(on, o)
		}
	}
	slices.Sort(on)
	return on
}

func (t *Thing) all() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.objects))
}

func (t *Thing) bar(is bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.barred = is
}

// Let has everything return that hangs. It may be called once.
func (t *Thing) Let() { close(t.release) }

// happen does what a fault does, and reports whether there was one that ends
// the call.
func (f Fault) happen(ctx context.Context, t *Thing) (error, bool) {
	switch f {
	case Fails:
		return errors.New("it was told to fail"), true
	case Waits:
		<-ctx.Done()
		return ctx.Err(), true
	case Hangs:
		<-t.release
		return nil, true
	case Panics:
		panic("it was told to panic")
	case Exits:
		runtime.Goexit()
	case Lies:
		return nil, true
	case Alleges:
	}
	return nil, false
}

// An Actuator stops a [Thing], and keeps it from being started until it is
// released. Its fields must be set before it is used.
type Actuator struct {
	Called string // its name
	Thing  *Thing
	Spares []string // objects that it cannot stop
	Fault  Fault

	// Before, if set, is called before anything else is done.
	Before func()

	mu    sync.Mutex
	calls int
}

var (
	_ killswitch.Actuator = (*Actuator)(nil)
	_ killswitch.Armer    = (*Actuator)(nil)
	_ killswitch.Releaser = (*Actuator)(nil)
	_ killswitch.Lister   = (*Observer)(nil)
)

// Name implements [killswitch.Actuator].
func (a *Actuator) Name() string { return a.Called }

// Calls returns how often Do was called.
func (a *Actuator) Calls() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls
}

// Turn changes the fault, at any time.
func (a *Actuator) Turn(f Fault) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.Fault = f
}

// Do implements [killswitch.Actuator].
func (a *Actuator) Do(ctx context.Context) error {
	a.mu.Lock()
	a.calls++
	fault := a.Fault
	a.mu.Unlock()
	if a.Before != nil {
		a.Before()
	}
	if err, ended := fault.happen(ctx, a.Thing); ended {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	a.Thing.bar(true)
	for _, o := range a.Thing.all() {
		if !slices.Contains(a.Spares, o) {
			a.Thing.Stop(o)
		}
	}
	if len(a.Spares) > 0 {
		return spared(a.Spares)
	}
	return nil
}

// spared is the error of an actuator that could not stop everything.
type spared []string

func (s spared) Error() string { return "something stays open" }

func (s spared) Open() map[string]string {
	open := make(map[string]string)
	for _, o := range s {
		open[o] = "it cannot be stopped"
	}
	return open
}

// Arm implements [killswitch.Armer]. It has nothing to prepare.
func (a *Actuator) Arm(ctx context.Context) error {
	a.mu.Lock()
	fault := a.Fault
	a.mu.Unlock()
	if fault == Fails || fault == Waits {
		err, _ := fault.happen(ctx, a.Thing)
		return err
	}
	return ctx.Err()
}

// Release implements [killswitch.Releaser].
func (a *Actuator) Release(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	a.Thing.bar(false)
	return nil
}

// An Observer looks at a [Thing]. Its fields must be set before it is used.
type Observer struct {
	Called string // its name
	Thing  *Thing
	Fault  Fault

	mu   sync.Mutex
	seen map[string]bool
}

// Name implements [killswitch.Observer].
func (o *Observer) Name() string { return o.Called }

// Turn changes the fault, at any time.
func (o *Observer) Turn(f Fault) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.Fault = f
}

// Remaining implements [killswitch.Observer].
func (o *Observer) Remaining(ctx context.Context) (map[string]string, error) {
	o.mu.Lock()
	fault := o.Fault
	o.mu.Unlock()
	if err, ended := fault.happen(ctx, o.Thing); ended {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	on := o.Thing.On()
	if fault == Alleges {
		on = o.Thing.all()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.seen == nil {
		o.seen = make(map[string]bool)
	}
	remaining := make(map[string]string)
	for _, name := range on {
		o.seen[name] = true
		remaining[name] = "on"
	}
	return remaining, nil
}

// Objects implements [killswitch.Lister].
func (o *Observer) Objects() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Sorted(maps.Keys(o.seen))
}
