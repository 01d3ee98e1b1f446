package iptables

import (
	"strconv"
	"testing"

	goiptables "github.com/coreos/go-iptables/iptables"

	"github.com/managemyclaw/hardshell/firewall"
)

// BenchmarkFiftyPorts is the other half of the benchmark of this name in package
// nft: the same ports by go-iptables, a rule for each, and by this package, for
// IPv4 and IPv6, with the rules read back before and after.
func BenchmarkFiftyPorts(b *testing.B) {
	m := newMachine(b)
	b.Run("go-iptables", func(b *testing.B) {
		err := inNetNS(m.l.Host.NetNS(), func() error {
			ipt, err := goiptables.New(goiptables.Timeout(2))
			if err != nil {
				return err
			}
			for i := 0; b.Loop(); i++ {
				if err := ipt.ClearChain("filter", "BENCH"); err != nil {
					return err
				}
				for k := range 50 {
					if err := ipt.AppendUnique("filter", "BENCH", "-p", "tcp", "--dport", strconv.Itoa(10000+10000*(i%2)+k), "-j", "DROP"); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	})
	b.Run("backend", func(b *testing.B) {
		backend := &Backend{NetNS: m.l.Host.NetNS(), Mode: Mangle}
		var two [2]firewall.Policy
		for i := range 100 {
			p := &two[i/50]
			p.Published = append(p.Published, firewall.Port{Protocol: firewall.TCP, Number: uint16(10000 + 10000*(i/50) + i%50)})
		}
		for i := 0; b.Loop(); i++ {
			if err := backend.Apply(b.Context(), two[i%2]); err != nil {
				b.Fatal(err)
			}
		}
	})
}
