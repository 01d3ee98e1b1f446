package networktest

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/harden/network"
)

var (
	open    = netip.MustParseAddrPort("192.0.2.1:1")
	refused = netip.MustParseAddrPort("192.0.2.1:2")
	silent  = netip.MustParseAddrPort("192.0.2.1:3")
)

// dial is a network in which three ports of a machine can be seen.
func dial(ctx context.Context, _, address string) (net.Conn, error) {
	switch address {
	case open.String():
		c, _ := net.Pipe()
		return c, nil
	case refused.String():
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	case silent.String():
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return nil, &net.OpError{Op: "dial", Err: syscall.ENETUNREACH}
}

func subject(v network.Vantage) Subject {
	return Subject{Vantage: v, Open: open, Refused: refused, Silent: silent}
}

func TestRemote(t *testing.T) {
	Run(t, subject(&network.Remote{Label: "elsewhere", Dial: dial, Timeout: 100 * time.Millisecond}))
}

// broken is a vantage that breaks one rule.
type broken struct {
	network.Vantage

	name  func() string
	probe func(context.Context, string, netip.AddrPort) (network.Reach, error)
}

func (b broken) Name() string {
	if b.name != nil {
		return b.name()
	}
	return b.Vantage.Name()
}

func (b broken) Probe(ctx context.Context, n string, to netip.AddrPort) (network.Reach, error) {
	if b.probe != nil {
		return b.probe(ctx, n, to)
	}
	return b.Vantage.Probe(ctx, n, to)
}

func TestRulesSeeWhatIsBroken(t *testing.T) {
	good := &network.Remote{Label: "elsewhere", Dial: dial, Timeout: 50 * time.Millisecond}
	instead := func(of, with network.Reach) func(context.Context, string, netip.AddrPort) (network.Reach, error) {
		return func(ctx context.Context, n string, to netip.AddrPort) (network.Reach, error) {
			r, err := good.Probe(ctx, n, to)
			if err == nil && r == of {
				r = with
			}
			return r, err
		}
	}
	var calls, inside atomic.Int64
	for rule, v := range map[string]network.Vantage{
		"name":    broken{Vantage: good, name: func() string { return strings.Repeat("x", int(calls.Add(1))) }},
		"open":    broken{Vantage: good, probe: instead(network.ReachOpen, network.ReachSilent)},
		"refused": broken{Vantage: good, probe: instead(network.ReachRefused, network.ReachSilent)},
		"silent":  broken{Vantage: good, probe: instead(network.ReachSilent, network.ReachRefused)},
		"canceled": broken{Vantage: good, probe: func(ctx context.Context, n string, to netip.AddrPort) (network.Reach, error) {
			r, err := good.Probe(ctx, n, to)
			if ctx.Err() != nil {
				r, err = network.ReachSilent, nil
			}
			return r, err
		}},
		"invalid": broken{Vantage: good, probe: func(ctx context.Context, n string, to netip.AddrPort) (network.Reach, error) {
			if !to.IsValid() {
				return network.ReachSilent, nil
			}
			return good.Probe(ctx, n, to)
		}},
		"concurrent": broken{Vantage: good, probe: func(ctx context.Context, n string, to netip.AddrPort) (network.Reach, error) {
			defer inside.Add(-1)
			if inside.Add(1) > 1 {
				return network.ReachUnknown, errors.New("busy")
			}
			time.Sleep(time.Millisecond)
			return good.Probe(ctx, n, to)
		}},
	} {
		err := Test(t.Context(), subject(v))
		broke, ok := errors.AsType[*RuleError](err)
		if !ok || broke.Rule != rule || strings.Count(err.Error(), "\n") > 0 {
			t.Errorf("a vantage that breaks %q: got %v", rule, err)
		}
	}
	if err := Test(t.Context(), subject(good)); err != nil {
		t.Error(err)
	}
}
