package softstop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"
)

const (
	maxFrame   = 32 << 20 // more than the protocol allows a frame to be
	scopeAdmin = "operator.admin"
)

// A conn is an authenticated connection to a gateway. Its methods may be called
// concurrently.
type conn struct {
	ws    *websocket.Conn
	hide  func(string) string
	hello hello

	mu      sync.Mutex
	next    int
	waiting map[string]chan<- frame
	heard   time.Time // when a frame last came
	err     error     // why it is of no more use
	done    chan struct{}
}

// dial connects and authenticates.
func (e *endpoint) dial(ctx context.Context) (*conn, error) {
	ws, resp, err := websocket.Dial(ctx, e.url, &websocket.DialOptions{HTTPClient: e.client})
	if resp != nil && resp.Body != nil {
		resp.Body.Close()
	}
	if err != nil {
		return nil, because(ctx, unreachable(err))
	}
	ws.SetReadLimit(maxFrame)
	c := &conn{ws: ws, hide: e.hide, waiting: make(map[string]chan<- frame), heard: time.Now(), done: make(chan struct{})}
	if err := c.greet(ctx, e.token.Reveal()); err != nil {
		_ = ws.CloseNow()
		return nil, because(ctx, err)
	}
	// For as long as the connection lasts, which is longer than the call.
	go c.read(context.WithoutCancel(ctx))
	return c, nil
}

// greet waits for the challenge, and connects as what needs no device of its
// own over loopback.
func (c *conn) greet(ctx context.Context, token string) error {
	if _, err := c.await(ctx, func(f frame) bool { return f.Type == "event" && f.Event == "connect.challenge" }); err != nil {
		return err
	}
	const id = "connect"
	type client struct {
		ID       string `json:"id"`
		Version  string `json:"version"`
		Platform string `json:"platform"`
		Mode     string `json:"mode"`
	}
	err := c.write(ctx, id, "connect", struct {
		Min    int               `json:"minProtocol"`
		Max    int               `json:"maxProtocol"`
		Client client            `json:"client"`
		Role   string            `json:"role"`
		Scopes []string          `json:"scopes"`
		Caps   []string          `json:"caps"`
		Auth   map[string]string `json:"auth"`
	}{
		protocolVersion, protocolVersion,
		client{"gateway-client", "1", "go", "backend"},
		"operator",
		[]string{scopeAdmin, "operator.read", "operator.write"},
		[]string{},
		map[string]string{"token": token},
	})
	if err != nil {
		return err
	}
	f, err := c.await(ctx, func(f frame) bool { return f.Type == "res" && f.ID == id })
	if err != nil {
		return err
	}
	if !f.OK {
		return f.Error.refused("connect", c.hide)
	}
	if err := json.Unmarshal(f.Payload, &c.hello); err != nil {
		return errors.New("the gateway does not greet as it should")
	}
	return c.hello.check()
}

// await reads until a frame comes that is wanted.
func (c *conn) await(ctx context.Context, wanted func(frame) bool) (frame, error) {
	for {
		_, data, err := c.ws.Read(ctx)
		if err != nil {
			return frame{}, broken(err)
		}
		f, err := decodeFrame(data)
		if err != nil {
			return frame{}, err
		}
		if wanted(f) {
			return f, nil
		}
	}
}

// read hands out what comes until the connection ends.
func (c *conn) read(ctx context.Context) {
	for {
		_, data, err := c.ws.Read(ctx)
		if err != nil {
			c.fail(broken(err))
			return
		}
		f, err := decodeFrame(data)
		if err != nil {
			c.fail(err)
			return
		}
		c.mu.Lock()
		c.heard = time.Now()
		answer := c.waiting[f.ID]
		if f.Type == "res" {
			delete(c.waiting, f.ID)
		}
		c.mu.Unlock()
		if f.Type == "res" && answer != nil {
			answer <- f
		}
	}
}

func (c *conn) fail(err error) {
	c.mu.Lock()
	first := c.err == nil
	if first {
		c.err = err
		close(c.done)
	}
	c.mu.Unlock()
	if first {
		_ = c.ws.CloseNow()
	}
}

func (c *conn) close() { c.fail(errors.New("the connection to the gateway was closed")) }

// alive reports whether the gateway has been heard of as lately as it should.
func (c *conn) alive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	tick := time.Duration(c.hello.Policy.TickMS) * time.Millisecond
	if tick <= 0 || tick > time.Minute {
		tick = time.Minute
	}
	return c.err == nil && time.Since(c.heard) < 2*tick
}

// call asks the gateway, and decodes its answer into result.
func (c *conn) call(ctx context.Context, method string, params, result any) error {
	answer := make(chan frame, 1)
	c.mu.Lock()
	c.next++
	id := strconv.Itoa(c.next)
	c.waiting[id] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.waiting, id)
	}()
	if err := c.write(ctx, id, method, params); err != nil {
		c.fail(err)
		return because(ctx, err)
	}
	select {
	case f := <-answer:
		if !f.OK {
			return f.Error.refused(method, c.hide)
		}
		if json.Unmarshal(f.Payload, result) != nil {
			return fmt.Errorf("the gateway's answer to %s is not what it should be", method)
		}
		return nil
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, context.Cause(ctx))
	}
}

func (c *conn) write(ctx context.Context, id, method string, params any) error {
	data, err := json.Marshal(struct {
		Type   string `json:"type"`
		ID     string `json:"id"`
		Method string `json:"method"`
		Params any    `json:"params"`
	}{"req", id, method, params})
	if err != nil {
		return err
	}
	if err := c.ws.Write(ctx, websocket.MessageText, data); err != nil {
		return broken(err)
	}
	return nil
}

// unreachable and broken leave out what the other end says: it could say
// anything, the token included.
func unreachable(err error) error {
	if d, ok := errors.AsType[*dialError](err); ok {
		return fmt.Errorf("the gateway cannot be reached: %w", d)
	}
	return errors.New("what listens there does not speak WebSocket")
}

func broken(err error) error {
	if status := websocket.CloseStatus(err); status != -1 {
		return fmt.Errorf("the gateway closed the connection: status %d", status)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return fmt.Errorf("the connection to the gateway broke: %w", op)
	}
	return errors.New("the connection to the gateway broke")
}

// because returns why ctx is done if it is, and err if not.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
