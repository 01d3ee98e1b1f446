package network_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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

// audit runs the checks with the given ids, or all, and returns what comes of
// them. The ids are without "network.".
func (s *site) audit(t *testing.T, ids ...string) map[string]harden.Result {
	t.Helper()
	ctx, done := harden.Share(t.Context())
	defer done()
	all := make(map[string]harden.Result)
	for _, c := range network.Checks(s.cfg) {
		id := strings.TrimPrefix(c.Info().ID, "network.")
		if len(ids) == 0 || slices.Contains(ids, id) {
			all[id] = harden.Evaluate(ctx, &s.host.View, c, time.Minute)
		}
	}
	return all
}

// An attempt is a connection to try.
type attempt struct {
	from *lab.Machine
	to   string
}

// whatIsOpen makes all attempts at once and returns those that succeed.
func whatIsOpen(ctx context.Context, all []attempt) []string {
	found := make([]string, len(all))
	var wg sync.WaitGroup
	for i, a := range all {
		wg.Go(func() {
			if reaches(ctx, a.from, a.to) {
				found[i] = a.from.Name + " → " + a.to
			}
		})
	}
	wg.Wait()
	return slices.DeleteFunc(found, func(s string) bool { return s == "" })
}

// reaches reports whether a machine of the lab gets an answer of an agent.
func reaches(ctx context.Context, from *lab.Machine, to string) bool {
	const patience = 350 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", to)
	if err != nil {
		return false
	}
	defer conn.Close()
	// A proxy accepts before it knows whether it can reach what it is for.
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET /healthz HTTP/1.0\r\n\r\n")
	_, err = conn.Read(make([]byte, 1))
	return err == nil
}

// connects reports whether a machine of the lab gets a connection.
func connects(ctx context.Context, from *lab.Machine, to string) bool {
	ctx, cancel := context.WithTimeout(ctx, 350*time.Millisecond)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", to)
	if err != nil {
		return false
	}
	conn.Close()
	return true
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
