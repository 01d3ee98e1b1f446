package network_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container/docker"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/harden/network"
	"github.com/managemyclaw/hardshell/harden/network/tailscale"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// A site is a lab with what the checks need of it.
type site struct {
	*lab.Lab

	host *host.Host
	cfg  network.Config
}

// dialer connects from one of a lab's machines.
type dialer struct{ m *lab.Machine }

func (d dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return d.m.Dial(ctx, network, address)
}

func vantage(m *lab.Machine) network.Vantage {
	return &network.Remote{Label: m.Name, Dial: m.Dial, Timeout: 400 * time.Millisecond}
}

// open starts a lab, whose host has no tailscaled.
func open(t *testing.T, cfg lab.Config) *site {
	t.Helper()
	l := labtest.Start(t, cfg)
	s := &site{Lab: l, host: labtest.Host(t, l)}
	s.cfg = network.Config{
		Tailscale: &tailscale.Client{Socket: filepath.Join(t.TempDir(), "no-tailscaled")},
		Dial:      dialer{l.Host},
		Ports:     []uint16{18789, 18791},
	}
	if !cfg.NoDocker {
		e, err := docker.Open(l.DockerHost())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.Close() })
		s.cfg.Engine = e
	}
	return s
}

func (s *site) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.Docker(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// sh runs a script on the lab's host.
func (s *site) sh(t *testing.T, script string) string {
	t.Helper()
	out, err := s.Host.Command(t.Context(), "sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// audit runs all checks and returns what comes of them, by id without
// "network.".
func (s *site) audit(t *testing.T) map[string]harden.Result {
	t.Helper()
	ctx, done := harden.Share(t.Context())
	defer done()
	all := make(map[string]harden.Result)
	for _, c := range network.Checks(s.cfg) {
		res := harden.Evaluate(ctx, &s.host.View, c, time.Minute)
		all[strings.TrimPrefix(res.Info.ID, "network.")] = res
	}
	return all
}

func show(r harden.Result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %v %v %s %s", r.Info.ID, r.Status, r.Level, r.Reason, r.Detail)
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "\n\t%s: %s: %s", f.ID, f.Subject, f.Message)
		for _, e := range f.Evidence {
			fmt.Fprintf(&b, "\n\t\t%s: %s", e.Source, e.Observed)
		}
	}
	for _, e := range r.Evidence {
		fmt.Fprintf(&b, "\n\t%s: %s", e.Source, e.Observed)
	}
	return b.String()
}

var _ = netip.Addr{}

func TestScratch(t *testing.T) {
	s := open(t, lab.Config{UFW: true})
	s.must(t, "run", "-d", "--name", "open", "-p", "8080:18789", lab.UserImage)
	s.must(t, "run", "-d", "--name", "closed", "-p", "127.0.0.1:8081:18789", lab.UserImage)
	s.sh(t, "ufw --force enable")
	begun := time.Now()
	for _, r := range s.audit(t) {
		t.Log(show(r))
	}
	t.Log(time.Since(begun))
}
