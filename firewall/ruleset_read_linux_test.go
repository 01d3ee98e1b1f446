package firewall

import (
	"context"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
)

// loaded has programs load rules on the machine of a world, and returns what
// Read reads there.
func loaded(t *testing.T, w *world, texts ...ruleText) (r *Ruleset, rt *Routing) {
	t.Helper()
	var err error
	w.do(func() {
		for _, text := range texts {
			if err = w.load(&text); err != nil {
				return
			}
		}
		if r, err = Read(t.Context(), Programs{}); err == nil {
			rt, err = ReadRouting(t.Context(), Programs{})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return r, rt
}

func TestReadTheKernel(t *testing.T) {
	w := newWorld(t)
	legacy := "iptables-legacy-restore"
	if _, err := exec.LookPath(legacy); err != nil {
		skip(t, "iptables-legacy is not installed")
	}
	const docker = "*filter\n:FORWARD ACCEPT\n:DOCKER-USER -\n-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -p tcp -m multiport --dports 80,81 -j DROP\nCOMMIT\n"
	r, rt := loaded(t, w,
		ruleText{"nft", "table inet own {\n	chain in {\n		type filter hook ingress device \"eth0\" priority 0; policy accept;\n		udp dport 53 drop\n	}\n}\ntable inet asleep {\n	flags dormant\n	chain c {\n		type filter hook forward priority 0; policy drop;\n	}\n}\n"},
		ruleText{"iptables-nft-restore", docker},
		ruleText{legacy, strings.ReplaceAll(docker, "80,81", "8080")},
	)
	var names []string
	for _, table := range r.Tables() {
		names = append(names, table.String())
	}
	for _, want := range []string{"inet own", "inet asleep", "ip filter (iptables-nft)", "ip filter (iptables-legacy)"} {
		if !strings.Contains(strings.Join(names, ","), want) {
			t.Errorf("tables %q are without %s", names, want)
		}
	}
	c := r.Table(IPTablesNFT, "ip", "filter").Chain("DOCKER-USER")
	if c == nil || len(c.Rules) != 1 || c.Rules[0].Text != "-p tcp -m multiport --dports 80,81 -j DROP" || c.Rules[0].Problem != "" {
		t.Errorf("DOCKER-USER: %+v", c)
	}
	if f := r.Table(IPTablesLegacy, "ip", "filter").Chain("FORWARD"); len(f.Rules) != 1 || f.Rules[0].Jump != "DOCKER-USER" || f.Hook != "forward" {
		t.Errorf("FORWARD: %+v", f)
	}
	fate := func(r *Ruleset, protocol Protocol, port uint16) Fate {
		p := toContainer
		p.Protocol, p.DstPort = protocol, port
		d := r.Evaluate(rt, p)
		if d.Fate == FateUnknown {
			t.Logf("port %d: %s", port, d.Why)
		}
		return d.Fate
	}
	for port, want := range map[uint16]Fate{80: FateDrop, 8080: FateDrop, 82: FateAccept} {
		if got := fate(r, TCP, port); got != want {
			t.Errorf("port %d: %v, want %v", port, got, want)
		}
	}
	if got := fate(r, UDP, 53); got != FateDrop {
		t.Errorf("at ingress: %v", got)
	}

	// iptables shows a rule of nft's in its own table as one without a match.
	r, _ = loaded(t, w, ruleText{"nft", "insert rule ip filter DOCKER-USER iifname { \"eth1\", \"eth2\" } drop\n"})
	if got := fate(r, TCP, 82); got != FateUnknown {
		t.Errorf("with a rule that is listed in two ways: %v", got)
	}
	if got := r.Table(IPTablesNFT, "ip", "filter").Chain("DOCKER-USER").Rules[0].Text; got != "-j DROP" {
		t.Logf("this iptables shows the rule as %q", got)
	}
}

// What cannot be seen from inside a user's process is an error, not an empty
// rule set.
func TestReadWithoutPrivilege(t *testing.T) {
	if _, err := exec.LookPath("setpriv"); err != nil {
		skip(t, "setpriv is not installed")
	}
	w := newWorld(t)
	var err error
	var r *Ruleset
	w.do(func() { r, err = Read(t.Context(), unprivileged{}) })
	if err == nil {
		t.Errorf("rules that nobody may read were read: %v", r.Tables())
	}
	t.Log(err)
}

// TestReadRoutingOfTheKernel reads the routing of the world's machine.
func TestReadRoutingOfTheKernel(t *testing.T) {
	w := newWorld(t)
	_, rt := loaded(t, w)
	for addr, want := range map[string]string{
		"192.0.2.1": "local lo", "172.17.0.9": "unicast br0", "198.51.100.7": "unicast eth0", "fd00:d0c::9": "unicast br0",
		"2001:db8:9::1": "unicast eth0", "172.17.255.255": "broadcast br0", "127.0.0.5": "local lo",
	} {
		kind, out := rt.Lookup(netip.MustParseAddr(addr))
		if kind == RouteLocal {
			out = "lo"
		}
		if got := string(kind) + " " + out; got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
	if rt.master("port0") != "br0" {
		t.Error("port0 is not known as a port of br0")
	}
}

// unprivileged runs programs as nobody.
type unprivileged struct{}

func (unprivileged) Run(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, err
	}
	return Programs{}.Run(ctx, stdin, "setpriv", append([]string{"--reuid=65534", "--regid=65534", "--clear-groups", path}, args...)...)
}
