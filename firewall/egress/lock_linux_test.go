package egress

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/internal/lab"
)

// Whatever happens to workloads, engine and firewall: what the lock closes
// stays closed, and what it cannot close it names.
func TestLock(t *testing.T) {
	t.Parallel()
	s := newSite(t, lab.Config{UFW: true})
	l := &Lock{Source: s.source, NetNS: s.l.Host.NetNS()}
	t.Cleanup(func() { l.Close() })
	s.expectOpen("before")
	if err := l.Arm(t.Context()); err != nil {
		t.Fatalf("Arm: %v", err)
	}
	s.expectOpen("armed")
	s.stream()

	do := func(when string) {
		t.Helper()
		start := time.Now()
		err := l.Do(t.Context())
		t.Logf("%s: Do took %v: %v", when, time.Since(start), err)
		open, ok := errors.AsType[*OpenError](err)
		if !ok || len(open.Open()) != 2 || !strings.Contains(open.Open()["hostly"], "CAP_NET_RAW") ||
			!strings.Contains(open.Open()["vlan"], "CAP_NET_RAW") || len(open.Unwrap()) > 0 {
			t.Fatalf("%s: Do returns %v, want what packet sockets leave open, and nothing else", when, err)
		}
	}
	start := time.Now()
	do("first")
	s.expectClosed("locked")
	s.expectDry(start)
	if t.Failed() {
		return
	}

	// What is not in the namespace of the workload outlasts it.
	s.docker("restart", "-t", "0", "solo", "duo", "inner", "vlan", "hostly")
	s.expectClosed("restarted, and nobody has noticed", "resolver", "vlan", "hostly", frameToHost)
	do("restarted")
	s.expectClosed("restarted")

	// Nor is what is in the host's namespace needed for what is inside, or the
	// other way round.
	for _, name := range []string{"solo", "duo", "inner"} {
		s.sh(s.l.Host, fmt.Sprintf("for f in inet netdev; do nsenter --net=/proc/%d/ns/net nft delete table $f hardshell_kill; done", s.pid(name)))
	}
	s.expectClosed("without the rules inside", "resolver")
	do("without the rules inside")

	s.docker("network", "connect", "--ip", "172.30.5.10", "n5", "solo")
	s.ways = append(s.ways, way{workload: "solo", name: "the host by a new network", verb: []string{"datagram", "172.30.5.1:9001", "TOKEN"}})
	s.push("solo", "datagram in by a new network", s.l.Host, "172.30.5.10:9999")
	// What the host sends to the new interface reaches the interface, and no more.
	s.stricter = []string{"solo"}
	s.expectClosed("connected, and nobody has noticed")
	s.stricter = nil
	do("connected")

	s.sh(s.l.Host, "ufw --force enable; ufw reload; iptables -F; ip6tables -F; iptables -P FORWARD ACCEPT; iptables -P INPUT ACCEPT; ip6tables -P INPUT ACCEPT; ip6tables -P FORWARD ACCEPT")
	s.expectClosed("after ufw reload and iptables -F")
	s.must(s.l.RestartDockerd(t.Context()))
	s.sh(s.l.Host, "ufw disable; iptables -P FORWARD ACCEPT; ip6tables -P FORWARD ACCEPT")
	s.expectClosed("engine restarted, and nobody has noticed", "resolver", "vlan", "hostly", frameToHost,
		// All ports of all bridges are new.
		"same bridge, IPv4", "same bridge, IPv6", "frame to the same bridge")
	do("engine restarted")
	s.expectClosed("engine restarted")

	if err := l.Release(t.Context()); err != nil {
		t.Errorf("Release: %v", err)
	}
	if err := l.Release(t.Context()); err != nil {
		t.Errorf("Release again: %v", err)
	}
	if left := s.sh(s.l.Host, "{ nft list ruleset; iptables-save; ip6tables-save; } 2>/dev/null | grep -i hardshell || true"); left != "" {
		t.Errorf("after Release there is\n%s", left)
	}
	s.expectOpen("released")
}

// However the engine publishes ports and keeps its own rules, the lock needs
// none of them.
func TestLockBesideTheEngine(t *testing.T) {
	t.Parallel()
	variants := map[string][]string{"without proxies": {"--userland-proxy=false"}}
	if hasNFTablesBackend(t) {
		variants["with nftables"] = []string{nftablesBackend, noForwarding}
	} else {
		t.Log("the engine is older than Docker 29: name a newer one in HARDSHELL_DOCKERD")
	}
	for name, args := range variants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, lab.Config{DockerdArgs: args})
			l := &Lock{Source: s.source, NetNS: s.l.Host.NetNS()}
			t.Cleanup(func() { l.Close() })
			s.expectOpen("before")
			if err := l.Arm(t.Context()); err != nil {
				t.Fatalf("Arm: %v", err)
			}
			err := l.Do(t.Context())
			if open, _ := errors.AsType[*OpenError](err); open == nil || len(open.Open()) != 2 || len(open.Unwrap()) > 0 {
				t.Fatalf("Do returns %v, want what packet sockets leave open, and nothing else", err)
			}
			s.expectClosed("locked")
			if err := l.Release(t.Context()); err != nil {
				t.Errorf("Release: %v", err)
			}
			s.expectOpen("released")
		})
	}
}

// hasNFTablesBackend reports whether the engine is that of Docker 29 or later.
// One that is not of a release says any small number.
func hasNFTablesBackend(t *testing.T) bool {
	t.Helper()
	dockerd := cmp.Or(os.Getenv("HARDSHELL_DOCKERD"), "dockerd")
	out, err := exec.CommandContext(t.Context(), dockerd, "--version").Output()
	if err != nil {
		return false // the lab says why
	}
	_, version, _ := strings.Cut(string(out), "version ")
	major := 0
	if _, err := fmt.Sscanf(version, "%d.", &major); err != nil {
		t.Fatalf("%s: version %q", dockerd, out)
	}
	return major >= 29 || major < 17
}
