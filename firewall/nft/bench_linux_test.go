package nft

import (
	"fmt"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// fifty is a policy of fifty ports.
func fifty(first uint16) (p firewall.Policy) {
	for i := range uint16(50) {
		p.Published = append(p.Published, port(firewall.TCP, first+i))
	}
	p.Allow = []firewall.Allow{{Port: port(firewall.TCP, 22000)}}
	p.Networks = policies["everything"].Networks
	return p
}

// BenchmarkFiftyPorts measures a policy of fifty ports being put in place of
// another one, in a network namespace of its own: by this package, which also reads it back
// before and after; by nft with the same rules as text; and, as others do it, with a rule
// a port by iptables, one call for each or a file for all. See
// BENCHMARKS.md. The last two are IPv4 alone.
func BenchmarkFiftyPorts(b *testing.B) {
	l := labtest.Start(b, lab.Config{NoDocker: true})
	run := func(b *testing.B, stdin, name string, args ...string) {
		b.Helper()
		cmd := l.Host.Command(b.Context(), name, args...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
	}
	backend := &Backend{NetNS: l.Host.NetNS()}
	two := [2]firewall.Policy{fifty(10000), fifty(20000)}
	b.Run("netlink", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if err := backend.Apply(b.Context(), two[i%2]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("netlink-unchanged", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := backend.Apply(b.Context(), two[0]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("nft-script", func(b *testing.B) {
		var scripts [2]string
		for i, p := range two {
			var err error
			if scripts[i], err = backend.Script(p); err != nil {
				b.Fatal(err)
			}
		}
		for i := 0; b.Loop(); i++ {
			run(b, scripts[i%2], "nft", "-f", "-")
		}
	})
	rules := func(first int) (all []string) {
		for i := range 50 {
			all = append(all, fmt.Sprintf("-A BENCH -p tcp -m tcp --dport %d -j DROP", first+i))
		}
		return all
	}
	run(b, "", "iptables", "-N", "BENCH")
	b.Run("iptables-restore", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			run(b, "*filter\n:BENCH - [0:0]\n"+strings.Join(rules(10000+10000*(i%2)), "\n")+"\nCOMMIT\n", "iptables-restore", "--noflush", "-w", "2")
		}
	})
}
