package remote_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/killswitch"
	"github.com/managemyclaw/hardshell/killswitch/remote"
)

const (
	theSwitch = "prod-1"
	theAgent  = "openclaw"
)

// A counter stands for a switch: it counts how often it is fired.
type counter struct {
	fires atomic.Int64
	err   error
	hold  chan struct{} // if not nil, a fire ends when it is closed

	mu      sync.Mutex
	reasons []string
	ended   []error // of the contexts, when the fires ended
}

func (c *counter) Fire(ctx context.Context, reason string) (*killswitch.Receipt, error) {
	n := c.fires.Add(1)
	if c.hold != nil {
		<-c.hold
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reasons = append(c.reasons, reason)
	c.ended = append(c.ended, ctx.Err())
	if c.err != nil {
		return nil, c.err
	}
	return &killswitch.Receipt{
		Schema: killswitch.ReceiptSchema, Agent: theAgent, Epoch: uint64(n), Reason: reason, Whole: true, Fired: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
		Request: killswitch.Request{Reason: reason}, Fence: killswitch.FenceResult{Durable: true},
		Targets: []killswitch.TargetResult{{Name: "egress", State: killswitch.Confirmed, ConfirmedAfter: 700 * time.Microsecond}},
	}, nil
}

// A world is a served handler and those who use it.
type world struct {
	t       *testing.T
	config  remote.Config
	handler *remote.Handler
	server  *httptest.Server
	counter *counter
	ann     *remote.Key // an operator
	own     *remote.Key // of the server
	link    remote.Link // ann's
}

func newWorld(t *testing.T, change ...func(*remote.Config)) *world {
	t.Helper()
	w := &world{t: t, counter: new(counter), ann: remote.GenerateKey(), own: remote.GenerateKey()}
	link, hash := remote.NewLink()
	w.link = link
	w.config = remote.Config{
		Name: theSwitch, Agent: theAgent, Switch: w.counter, Key: w.own,
		Operators: []remote.Operator{{Name: "ann", Keys: []remote.PublicKey{w.ann.Public()}, Links: []remote.LinkHash{hash}}},
		Nonces:    filepath.Join(t.TempDir(), "nonces"),
		State: func(context.Context) (remote.State, error) {
			n := w.counter.fires.Load()
			return remote.State{Stopped: n > 0, Lines: []string{"a line <about> it"}}, nil
		},
	}
	for _, f := range change {
		f(&w.config)
	}
	w.start()
	return w
}

// start starts the server, as also after its end.
func (w *world) start() {
	w.t.Helper()
	if w.server != nil {
		w.server.Close()
	}
	h, err := remote.New(w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.handler = h
	s := httptest.NewUnstartedServer(h)
	s.Config = remote.NewServer("", h)
	s.Start()
	w.server = s
	w.t.Cleanup(s.Close)
}

func (w *world) client() *remote.Client {
	return &remote.Client{URL: w.server.URL, Switch: theSwitch, Agent: theAgent, Key: w.ann, Server: w.own.Public(), Tries: 1}
}

// command is one that is good now.
func command() remote.Command {
	now := time.Now()
	return remote.Command{Action: remote.Kill, Switch: theSwitch, Agent: theAgent, Issued: now, Expires: now.Add(time.Minute), Reason: "it deletes mail"}
}

func sign(t *testing.T, k *remote.Key, c remote.Command) string {
	t.Helper()
	data, err := c.Sign(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// refused reports that an error is a refusal with a code.
func refused(t *testing.T, err error, code remote.Code) {
	t.Helper()
	if r, ok := errors.AsType[*remote.RefusedError](err); !ok || r.Code != code {
		t.Errorf("%v, want refused for %s", err, code)
	}
}

// post sends a body, and returns the status and the code of a refusal.
func (w *world) post(body string) (int, remote.Code) {
	w.t.Helper()
	status, a := post(w.t, w.server.Client(), w.server.URL, body)
	return status, a.Code
}

// do serves a request without a network, for clocks that are not real.
func (w *world) do(method, target, body string) (int, answer) {
	w.t.Helper()
	return do(w.t, w.handler, method, target, body)
}

var _ http.Handler = (*remote.Handler)(nil)
