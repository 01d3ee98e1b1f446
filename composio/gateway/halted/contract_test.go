package halted_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/gateway/halted"
	"github.com/managemyclaw/hardshell/killswitch"
	"github.com/managemyclaw/hardshell/killswitch/killswitchtest"
)

// running reports whether the agent is let in, by asking the gateway without a
// network.
func (s *site) running(ctx context.Context) (bool, error) {
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/api/v3.1/tools/enum", nil)
	r.Header.Set("X-Api-Key", s.token.Reveal())
	rec := httptest.NewRecorder()
	s.gateway.ServeHTTP(rec, r)
	return rec.Code == http.StatusOK, nil
}

// silent returns the address of a server that takes connections and says
// nothing.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return "http://" + l.Addr().String()
}

// A caller is what an agent does through the gateway: it goes on until it is
// refused, and does not come back by itself.
type caller struct {
	site *site
	runs atomic.Bool
}

func (c *caller) start(ctx context.Context) error {
	if c.runs.Swap(true) {
		return nil
	}
	go func() {
		defer c.runs.Store(false)
		for ok := true; ok; time.Sleep(time.Millisecond) {
			ok, _ = c.site.running(context.WithoutCancel(ctx))
		}
	}()
	return nil
}

func TestHaltContract(t *testing.T) {
	s := newSite(t)
	c := &caller{site: s}
	killswitchtest.RunActuator(t, killswitchtest.ActuatorSubject{
		New:     func() (killswitch.Actuator, error) { return s.gateway.Halt("inbox"), nil },
		Start:   c.start,
		Running: func(context.Context) (bool, error) { return c.runs.Load(), nil },
		Clear:   func(ctx context.Context) error { return s.gateway.Halt("inbox").Release(ctx) },
		NoStuck: "it depends on the trail alone, which it does not wait for: see TestHaltWithoutTrail",
		Within:  5 * time.Second,
	})
	if err := s.gateway.Halt("inbox").Do(t.Context()); err != nil { // ends the caller
		t.Fatal(err)
	}
}

func TestObserverContract(t *testing.T) {
	s := newSite(t)
	address := silent(t)
	killswitchtest.RunObserver(t, killswitchtest.ObserverSubject{
		New: func() (killswitch.Observer, error) {
			return halted.New(halted.Config{URL: s.server.URL, Token: s.token, Timeout: 2 * time.Second})
		},
		Start:   func(context.Context) error { s.fence.engage(""); return nil },
		Stop:    func(context.Context) error { s.fence.engage("inbox"); return nil },
		Running: s.running,
		NoBreak: "the actuators are the fence and a flag in the gateway",
		Blind: func() (killswitch.Observer, error) {
			return halted.New(halted.Config{URL: s.server.URL, Token: composio.NewSecret("nobody's")})
		},
		Stuck: func() (killswitch.Observer, error) {
			return halted.New(halted.Config{URL: address, Token: s.token})
		},
		Within: 5 * time.Second,
	})
}
