package firewall_test

import (
	"context"
	"encoding/json"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/firewall/iptables"
	"github.com/managemyclaw/hardshell/firewall/nft"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// What is closed stays closed, and what is open open, whatever a machine goes
// through: nobody applies the policy again after any of this.
func TestExposureSurvives(t *testing.T) {
	t.Parallel()
	dockerd, err := exec.LookPath("dockerd")
	if err != nil || since28(t, dockerd) {
		labtest.Skip(t, "no engine before Docker 28 in $PATH: it is they that leave most open")
	}
	backends := map[string]func(*site) firewall.Backend{
		"nftables": func(s *site) firewall.Backend { return &nft.Backend{NetNS: s.l.Host.NetNS()} },
		"iptables": func(s *site) firewall.Backend {
			return &iptables.Backend{NetNS: s.l.Host.NetNS(), Mode: iptables.Both}
		},
	}
	for name, backend := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, engineSetup{
				cfg: lab.Config{Dockerd: dockerd, DockerdArgs: []string{"--ipv6", "--fixed-cidr-v6=fd00:d0c::/64", "--ip6tables", "--experimental"}, UFW: true},
				v6:  true, closes: func(string) bool { return false },
			})
			s.ways()
			b := backend(s)
			s.must(b.Apply(t.Context(), s.policy))
			ufw := func(args ...string) func() {
				return func() {
					if out, err := s.l.Host.Command(t.Context(), "ufw", args...).CombinedOutput(); err != nil {
						t.Fatalf("ufw %v: %v\n%s", args, err, out)
					}
				}
			}
			for _, event := range []struct {
				name string
				run  func()
			}{
				{"apply", func() {}},
				{"restart of a container", func() { s.docker("restart", "-t", "0", "www") }},
				{"a network is made", func() { s.network("another", "172.29.0.0/24", "fd00:a::/64") }},
				{"restart of the engine", func() { s.must(s.l.RestartDockerd(t.Context())) }},
				{"the engine is killed and started", func() {
					s.must(s.l.KillDockerd(t.Context()))
					s.must(s.l.StartDockerd(t.Context()))
				}},
				{"ufw allow", ufw("allow", "9000/tcp")},
				{"ufw enable", ufw("--force", "enable")},
				{"ufw reload", ufw("reload")},
				{"ufw disable", ufw("disable")},
				{"reboot", func() { s.reboot(b) }},
			} {
				event.run()
				s.ready("www", "private", "quiet", "net", "mate")
				s.ways() // addresses may have changed
				when := name + ", after " + event.name
				s.expectClosed(when, s.closed)
				s.expectOpen(when, s.opened)
				if drift, err := b.Drift(t.Context(), s.policy); err != nil || len(drift) > 0 && name == "nftables" {
					t.Errorf("%s: drift %q, %v", when, drift, err)
				}
				if t.Failed() {
					return
				}
			}
			s.must(b.Remove(t.Context()))
			s.sh(s.l.Host, "iptables -P FORWARD ACCEPT; ip6tables -P FORWARD ACCEPT")
			s.expectExposed(s.closed)
		})
	}
}

// reboot takes all rules and the engine away, and brings them back as a machine
// does that starts: what was saved, before the engine.
func (s *site) reboot(b firewall.Backend) {
	s.Helper()
	saved, err := json.Marshal(s.policy)
	s.must(err)
	s.must(s.l.StopDockerd(s.Context()))
	s.sh(s.l.Host, "nft flush ruleset; ip link del docker0; for i in $(ls /sys/class/net | grep ^br-); do ip link del $i; done || true")
	p, err := firewall.ParsePolicy(saved)
	s.must(err)
	if ipt, ok := b.(*iptables.Backend); ok {
		ipt.Precreate = true
		defer func() { ipt.Precreate = false }()
	}
	s.must(b.Apply(s.Context(), p))

	// From the first moment on.
	ctx, cancel := context.WithCancel(s.Context())
	var tries, reached atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			for _, w := range s.closed {
				if strings.Contains(w.name, "direct") {
					continue // addresses may change
				}
				ctx, cancel := context.WithTimeout(ctx, 15*time.Millisecond)
				if w.try(ctx) == nil {
					reached.Add(1)
					s.Logf("%s: %s got in", b.Name(), w.name)
				}
				tries.Add(1)
				cancel()
			}
		}
	}()
	err = s.l.StartDockerd(s.Context())
	if err == nil {
		s.ready("www", "private", "net")
	}
	cancel()
	<-done
	s.must(err)
	if reached.Load() > 0 || tries.Load() < 20 {
		s.Errorf("%s: while the machine starts %d of %d tries got in", b.Name(), reached.Load(), tries.Load())
	}
	s.Logf("%s: %d tries while the machine starts", b.Name(), tries.Load())
}
