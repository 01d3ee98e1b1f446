package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// A Vantage is a place outside the machine from which to try what can be
// reached. Implementations may be called concurrently.
type Vantage interface {
	// Name is a short name, such as "vps in another network".
	Name() string

	// Probe tries once to reach an address of the machine, over "tcp" or
	// "udp". It returns an error, and not an answer, where it could not try:
	// it has no network, or no route to the address. Silence is an answer.
	// Probe returns soon after ctx is done.
	Probe(ctx context.Context, network string, to netip.AddrPort) (Reach, error)
}

// Reach is what came of a [Vantage]'s attempt.
type Reach int

// Reaches. The zero Reach is ReachUnknown, which no Vantage returns without an
// error.
const (
	ReachUnknown Reach = iota
	ReachOpen          // a connection was made, or a datagram answered
	ReachRefused       // an answer said no
	ReachSilent        // nothing came back; of a datagram that proves nothing
)

// String returns a word such as "open".
func (r Reach) String() string {
	names := [...]string{"unknown", "open", "refused", "silent"}
	if r < 0 || int(r) >= len(names) {
		return fmt.Sprintf("Reach(%d)", int(r))
	}
	return names[r]
}

// DefaultProbeTimeout is how long a [Remote] waits for an answer.
const DefaultProbeTimeout = 2 * time.Second

// A Remote is a [Vantage] that connects by a function, such as one that goes
// through an SSH connection to another machine, or a SOCKS proxy there. The
// function must report a connection that failed by the error of the operating
// system that it failed with over there (ECONNREFUSED), or by a time-out.
type Remote struct {
	Label string // the name

	// Dial connects from there.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Timeout is how long to wait. Zero means DefaultProbeTimeout.
	Timeout time.Duration
}

// Name implements [Vantage].
func (r *Remote) Name() string { return r.Label }

// Probe implements [Vantage]. Of a datagram it sends one byte and waits for
// anything.
func (r *Remote) Probe(ctx context.Context, network string, to netip.AddrPort) (Reach, error) {
	if r.Dial == nil {
		return ReachUnknown, fmt.Errorf("network: vantage %s: Remote.Dial is not set", r.Label)
	}
	timeout := r.Timeout
	if timeout <= 0 {
		timeout = DefaultProbeTimeout
	}
	probe, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := r.Dial(probe, network, to.String())
	if err == nil {
		defer conn.Close()
		if network != "udp" {
			return ReachOpen, nil
		}
		err = exchange(probe, conn)
	}
	reach := reachOf(err, probe.Err())
	if ctx.Err() != nil { // the caller's time was up, not the vantage's
		reach, err = ReachUnknown, ctx.Err()
	}
	if reach == ReachUnknown {
		return reach, fmt.Errorf("network: vantage %s: %s %s: %w", r.Label, network, to, err)
	}
	return reach, nil
}

// exchange sends a datagram and waits for another.
func exchange(ctx context.Context, conn net.Conn) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) }) //nolint:errcheck // it ends by itself
	defer stop()
	if _, err := conn.Write([]byte{0}); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 1))
	return err
}

// reachOf says what the error of an attempt means. That the other side is
// unreachable may be an answer of its firewall's (ICMP, administratively
// prohibited) or the absence of a route, and those look alike: it is no answer.
func reachOf(err, ended error) Reach {
	timeout, _ := errors.AsType[net.Error](err)
	switch {
	case err == nil:
		return ReachOpen
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return ReachRefused
	case ended != nil, errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT), timeout != nil && timeout.Timeout():
		return ReachSilent
	}
	return ReachUnknown
}
