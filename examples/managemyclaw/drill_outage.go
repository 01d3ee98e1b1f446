package main

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/killswitch"
)

// An outage is a way to Composio that ends. Once it has begun, connections that
// there are break, and new ones are made to somebody who takes them and says
// nothing.
type outage struct {
	nobody net.Listener

	mu    sync.Mutex
	began bool
	conns []net.Conn
}

func newOutage() (*outage, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &outage{nobody: ln}, nil
}

// transport returns a way of its own for each who asks.
func (o *outage) transport() http.RoundTripper {
	const moment = 10 * time.Second
	return &http.Transport{DialContext: o.dial, TLSHandshakeTimeout: moment, ForceAttemptHTTP2: true}
}

func (o *outage) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	o.mu.Lock()
	began := o.began
	o.mu.Unlock()
	if began {
		network, addr = o.nobody.Addr().Network(), o.nobody.Addr().String()
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.began && !began {
		conn.Close()
		return nil, net.ErrClosed
	}
	o.conns = append(o.conns, conn)
	return conn, nil
}

// begin begins it.
func (o *outage) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.began {
		return
	}
	o.began = true
	for _, c := range o.conns {
		c.Close()
	}
	o.conns = nil
}

// close ends what is left of it.
func (o *outage) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.began = true
	o.nobody.Close()
	for _, c := range o.conns {
		c.Close()
	}
}

// struck is an actuator with which an outage begins.
type struck struct {
	killswitch.Actuator

	outage *outage
}

// Do implements [killswitch.Actuator].
func (s *struck) Do(ctx context.Context) error {
	s.outage.begin()
	return s.Actuator.Do(ctx)
}
