package nft

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

func port(p firewall.Protocol, n uint16) firewall.Port { return firewall.Port{Protocol: p, Number: n} }

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// policies are as different as policies get.
var policies = map[string]firewall.Policy{
	"nothing": {},
	"everything": {
		Allow: []firewall.Allow{
			{Port: port(firewall.TCP, 8083)},
			{Port: port(firewall.UDP, 53)},
			{Port: port(firewall.SCTP, 36412)},
			{Port: port(firewall.TCP, 443), In: "tailscale0"},
			{Port: port(firewall.TCP, 22), From: prefixes("192.0.2.3/32", "2001:db8::3/128", "10.0.1.0/24", "10.0.2.0/23")},
			{Port: port(firewall.TCP, 23), From: prefixes("192.0.2.3/32"), In: "eth0"},
			{Port: port(firewall.TCP, 24), From: prefixes("0.0.0.0/0")},
			{Port: port(firewall.TCP, 25), From: prefixes("::/0")},
			{Port: port(firewall.TCP, 26), From: prefixes("255.255.255.0/24", "ffff::/16")},
		},
		Networks: []firewall.Network{
			{Name: "bridge", Interface: "docker0", Prefixes: prefixes("172.17.0.0/16", "fd00:d0c::/64")},
			{Name: "agents", Interface: "br-agent", Prefixes: prefixes("172.18.0.0/16", "172.30.0.0/24", "fd00:a9e::/64")},
		},
		Published: []firewall.Port{port(firewall.TCP, 8080), port(firewall.TCP, 8083), port(firewall.UDP, 5353), port(firewall.SCTP, 1)},
		Others:    []string{"br-lan"},
		Strict:    true,
	},
}

// What Apply makes and what nft makes of the script is the same to
// the kernel, as nft lists it and as Drift sees it.
func TestScriptMakesWhatApplyMakes(t *testing.T) {
	l := labtest.Start(t, lab.Config{NoDocker: true})
	nft := func(t *testing.T, stdin string, args ...string) string {
		t.Helper()
		cmd := l.Host.Command(t.Context(), "nft", args...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("nft %v: %v\n%s\n%s", args, err, out, stdin)
		}
		return string(out)
	}
	if _, err := exec.LookPath("nft"); err != nil {
		labtest.Skip(t, "no nft")
	}
	for name, p := range policies {
		for _, cgroup := range []string{"", "/" + l.ID() + "/engine"} {
			t.Run(fmt.Sprintf("%s with cgroup %q", name, cgroup), func(t *testing.T) {
				b := &Backend{NetNS: l.Host.NetNS(), EngineCgroup: cgroup}
				if err := b.Apply(t.Context(), p); err != nil {
					t.Fatal(err)
				}
				applied := nft(t, "", "list", "table", "inet", "hardshell")
				if err := b.Remove(t.Context()); err != nil {
					t.Fatal(err)
				}
				if left := nft(t, "", "list", "ruleset"); left != "" {
					t.Fatalf("Remove left\n%s", left)
				}
				script, err := b.Script(p)
				if err != nil {
					t.Fatal(err)
				}
				if root, err := cgroupRoot(); err != nil {
					t.Fatal(err)
				} else if rest, ok := strings.CutPrefix(root, "/sys/fs/cgroup/"); ok {
					// nft wants paths below /sys/fs/cgroup wherever the hierarchy is.
					script = strings.ReplaceAll(script, l.ID(), rest+"/"+l.ID())
				}
				for range 2 { // it also replaces what is there
					nft(t, script, "-f", "-")
					if got := nft(t, "", "list", "table", "inet", "hardshell"); got != applied {
						t.Errorf("the script makes\n%s\nand Apply\n%s", got, applied)
					}
					drift, err := b.Drift(t.Context(), p)
					if err != nil || len(drift) > 0 {
						t.Errorf("after the script: drift %q, %v", drift, err)
					}
				}
			})
		}
	}
}
