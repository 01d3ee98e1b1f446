package network_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/firewall/guard"
	"github.com/managemyclaw/hardshell/firewall/nft"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/network"
	"github.com/managemyclaw/hardshell/internal/lab"
)

// unhardened is a machine as people run it: UFW installed and off, the agent
// published on loopback, a service that is meant to be public, and one that is
// not.
func unhardened(t *testing.T, window time.Duration) *site {
	t.Helper()
	s := open(t, lab.Config{UFW: true})
	s.must(t, "run", "-d", "--name", "agent", "-p", "127.0.0.1:18789:18789", lab.UserImage)
	s.must(t, "run", "-d", "--name", "www", "-p", "8083:18789", "-p", "8080:18789", lab.UserImage)
	s.cfg.Containers = container.NewSource(s.cfg.Engine, "agent")
	s.cfg.Allow = []firewall.Allow{{Port: firewall.Port{Protocol: firewall.TCP, Number: 8083}}}
	s.cfg.Remedy = &network.Remedy{
		Guard: &guard.Guard{
			Dir: filepath.Join(t.TempDir(), "guard"), Run: network.AdminPrograms(s.host),
			Window: window, Launch: guard.LaunchDetached,
		},
		Backend: &nft.Backend{NetNS: s.Host.NetNS()},
		Touches: guard.Change{NFTables: []guard.NFTable{{Family: "inet", Name: "hardshell"}}},
		Keep:    []firewall.Allow{{Port: firewall.Port{Protocol: firewall.TCP, Number: 2222}, From: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/32")}}},
		Confirm: func(ctx context.Context) error {
			r, err := vantage(s.Internet).Probe(ctx, "tcp", netip.MustParseAddrPort("192.0.2.1:8083"))
			if err == nil && r != network.ReachOpen {
				err = errors.New("the allowed port is " + r.String())
			}
			return err
		},
	}
	return s
}

func (s *site) remedy(t *testing.T, id string) harden.Remediator {
	t.Helper()
	for _, c := range network.Checks(s.cfg) {
		if r, ok := harden.AsRemediator(c); ok && c.Info().ID == "network."+id {
			return r
		}
	}
	t.Fatalf("%s has no remedy", id)
	return nil
}

var counters = regexp.MustCompile(`\[\d+:\d+\]|counter packets \d+ bytes \d+|(?m)^#.*$`)

// rules are all packet filter rules and UFW's files.
func (s *site) rules(t *testing.T) string {
	t.Helper()
	var text strings.Builder
	text.WriteString(s.sh(t, "nft list ruleset 2>/dev/null; iptables-save; ip6tables-save"))
	for _, name := range []string{"/etc/ufw/ufw.conf", "/etc/ufw/user.rules", "/etc/ufw/user6.rules", "/etc/default/ufw"} {
		data, err := os.ReadFile(s.HostPath(name))
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString(name + "\n" + string(data))
	}
	return counters.ReplaceAllString(text.String(), "")
}

func TestRemedyOnTheLiveKernel(t *testing.T) {
	t.Parallel()
	s := unhardened(t, time.Minute)
	ctx := t.Context()
	s.cfg.Vantages = []network.Vantage{vantage(s.Internet), vantage(s.Neighbour)}
	before := s.audit(t)
	for _, id := range []string{"loopback_leak", "docker_user", "ufw_enabled", "ufw_default_deny", "ufw_kernel"} {
		if before[id].Status != harden.StatusFail {
			t.Errorf("before: %s", show(before[id]))
		}
	}
	fixer := &harden.Fixer{Trail: trail.Discard, Timeout: 20 * time.Second}
	for _, id := range []string{"ufw_kernel", "docker_user", "ufw_enabled", "loopback_leak"} {
		r := s.remedy(t, id)
		p, err := r.Plan(ctx, &s.host.View)
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		if len(p.Manual) > 0 {
			t.Fatalf("%s: %v", id, p.Manual)
		}
		if done := id == "ufw_enabled" || id == "loopback_leak"; done != (len(p.Actions) == 0) {
			t.Fatalf("%s: %d actions", id, len(p.Actions))
		}
		for _, a := range p.Actions {
			c := a.Change()
			t.Logf("%s: %s\n%s\n→\n%s", c.Subject, c.Summary, c.Before, c.After)
		}
		if len(p.Actions) == 0 {
			continue
		}
		if res, err := fixer.Apply(ctx, s.host, r, p); err != nil {
			t.Fatalf("%s: %v\n%s", id, err, show(res))
		}
	}
	after := s.audit(t)
	for _, id := range []string{"localhost_binding", "loopback_leak", "docker_user", "container_egress", "ufw_enabled", "ufw_default_deny", "ufw_kernel", "ufw_rules"} {
		if after[id].Status != harden.StatusPass {
			t.Errorf("after: %s", show(after[id]))
		}
	}
	for _, id := range []string{"localhost_binding", "docker_user"} {
		if after[id].Level != harden.LevelProbed {
			t.Errorf("was not probed: %s", show(after[id]))
		}
	}
	if st, err := s.cfg.Remedy.Guard.(*guard.Guard).Status(ctx); !errors.Is(err, guard.ErrNotArmed) {
		t.Errorf("the guard still counts: %v, %v", st, err)
	}

	// What may be reached is, and nothing else.
	if open := whatIsOpen(ctx, []attempt{
		{s.Internet, "192.0.2.1:8083"},
		{s.Internet, "192.0.2.1:8080"},
		{s.Internet, "[2001:db8::1]:8080"},
		{s.Neighbour, "192.0.2.1:8083"},
		{s.Neighbour, "192.0.2.1:8080"},
		{s.Host, "127.0.0.1:18789"},
	}); strings.Join(open, ", ") != "internet → 192.0.2.1:8083, neighbour → 192.0.2.1:8083, host → 127.0.0.1:18789" {
		t.Errorf("open: %q", open)
	}
	for addr, want := range map[string]bool{"192.0.2.1:2222": true, "192.0.2.1:2223": false} {
		ln, err := s.Host.Sink(ctx, "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		_, err = s.Internet.Dial(short, "tcp", addr)
		if cancel(); (err == nil) != want {
			t.Errorf("%s: %v", addr, err)
		}
		ln.Close()
	}
}

// What nobody confirms is undone, to the byte.
func TestRemedyNotConfirmed(t *testing.T) {
	t.Parallel()
	s := unhardened(t, time.Minute)
	s.cfg.Remedy.Confirm = func(context.Context) error { return errors.New("no answer") }
	ctx := t.Context()
	before := s.rules(t)
	fixer := &harden.Fixer{Trail: trail.Discard}
	for _, id := range []string{"ufw_kernel", "docker_user"} {
		r := s.remedy(t, id)
		p, err := r.Plan(ctx, &s.host.View)
		if err != nil || len(p.Actions) != 1 {
			t.Fatalf("%s: %+v, %v", id, p, err)
		}
		_, err = fixer.Apply(ctx, s.host, r, p)
		if fix, ok := errors.AsType[*harden.FixError](err); !ok || !fix.Reverted || !strings.Contains(err.Error(), "no answer") {
			t.Errorf("%s: %v", id, err)
		}
		if after := s.rules(t); after != before {
			t.Errorf("%s: the rules are not as they were:\n%s", id, lineDiff(before, after))
		}
	}
}

// The same if this process is gone before the change is verified.
func TestRemedyAbandoned(t *testing.T) {
	t.Parallel()
	s := unhardened(t, 4*time.Second)
	ctx := t.Context()
	before := s.rules(t)
	p, err := s.remedy(t, "docker_user").Plan(ctx, &s.host.View)
	if err != nil || len(p.Actions) != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	if err := p.Actions[0].Apply(ctx, s.host); err != nil {
		t.Fatal(err)
	}
	if s.rules(t) == before {
		t.Fatal("nothing was changed")
	}
	if err := p.Actions[0].Apply(ctx, s.host); !errors.Is(err, harden.ErrStale) {
		t.Errorf("applied twice: %v", err)
	}
	deadline := time.Now().Add(15 * time.Second)
	for s.rules(t) != before {
		if time.Now().After(deadline) {
			t.Fatalf("still there:\n%s", lineDiff(before, s.rules(t)))
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// Another process reverts what this one has applied, committed or not.
func TestRemedyRevert(t *testing.T) {
	t.Parallel()
	s := unhardened(t, time.Minute)
	ctx := t.Context()
	before := s.rules(t)
	for _, commit := range []bool{false, true} {
		p, err := s.remedy(t, "docker_user").Plan(ctx, &s.host.View)
		if err != nil || len(p.Actions) != 1 {
			t.Fatalf("%+v, %v", p, err)
		}
		again, err := s.remedy(t, "docker_user").Plan(ctx, &s.host.View) // in the place of another process
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Actions[0].Revert(ctx, s.host); !errors.Is(err, harden.ErrStale) || s.rules(t) != before {
			t.Errorf("reverted what was never applied: %v", err)
		}
		if err := p.Actions[0].Apply(ctx, s.host); err != nil {
			t.Fatal(err)
		}
		if commit {
			if err := p.Actions[0].(harden.Committer).Commit(ctx, s.host); err != nil {
				t.Fatal(err)
			}
		}
		if err := again.Actions[0].Revert(ctx, s.host); err != nil {
			t.Fatal(err)
		}
		if after := s.rules(t); after != before {
			t.Errorf("committed %t: the rules are not as they were:\n%s", commit, lineDiff(before, after))
		}
	}
}

func lineDiff(a, b string) string {
	had := make(map[string]int)
	for l := range strings.Lines(a) {
		had[l]++
	}
	var out strings.Builder
	for l := range strings.Lines(b) {
		if had[l]--; had[l] < 0 {
			out.WriteString("+ " + l)
		}
	}
	for l, n := range had {
		if n > 0 {
			out.WriteString("- " + l)
		}
	}
	return out.String()
}
