package softstop

import (
	"context"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/killswitch"
	"github.com/managemyclaw/hardshell/killswitch/killswitchtest"
)

func (f *fake) start(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held, f.leases = nil, 0
	if s := f.sessions[session(1)]; s == nil || s.idle() {
		f.begin(session(1), askHang)
	}
	return nil
}

func (f *fake) running(context.Context) (bool, error) { return f.waitingForModel() > 0, nil }

// stuck returns a configuration for a gateway that takes connections and says
// nothing.
func stuck(t *testing.T) Config {
	f := newFake(t)
	f.silent["connect"] = true
	return f.config()
}

func TestStopperContract(t *testing.T) {
	f := newFake(t)
	silent := stuck(t)
	killswitchtest.RunActuator(t, killswitchtest.ActuatorSubject{
		New:   func() (killswitch.Actuator, error) { return New(f.config()) },
		Start: f.start, Running: f.running,
		Clear:  func(ctx context.Context) error { return f.start(ctx) },
		Stuck:  func() (killswitch.Actuator, error) { return New(silent) },
		Within: 5 * time.Second,
	})
}

func TestObserverContract(t *testing.T) {
	f := newFake(t)
	silent := stuck(t)
	gone := newFake(t)
	gone.server.Close()
	killswitchtest.RunObserver(t, killswitchtest.ObserverSubject{
		New:   func() (killswitch.Observer, error) { return NewObserver(f.config()) },
		Start: f.start,
		Stop: func(context.Context) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			clear(f.sessions)
			return nil
		},
		Running: f.running,
		Break: func() (func(), error) {
			f.drop() // the connections that an actuator keeps
			return func() {}, nil
		},
		Blind:  func() (killswitch.Observer, error) { return NewObserver(gone.config()) },
		Stuck:  func() (killswitch.Observer, error) { return NewObserver(silent) },
		Within: 5 * time.Second,
	})
}
