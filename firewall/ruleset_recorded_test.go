package firewall

import (
	"net/netip"
	"os"
	"strings"
	"testing"
)

// recorded reads a listing that a real machine has printed. That of iptables -S
// is made into one of iptables-save first.
func recorded(t *testing.T, name string) *Ruleset {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	if strings.HasSuffix(name, "-S") {
		var chains, rules strings.Builder
		for line := range strings.Lines(text) {
			switch f := strings.Fields(line); f[0] {
			case "-P":
				chains.WriteString(":" + f[1] + " " + f[2] + " [0:0]\n")
			case "-N":
				chains.WriteString(":" + f[1] + " - [0:0]\n")
			default:
				rules.WriteString(line)
			}
		}
		text = "*filter\n" + chains.String() + rules.String() + "COMMIT\n"
	}
	r, err := ParseIPTables("ip", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRecordedListings(t *testing.T) {
	prefix := netip.MustParsePrefix
	routing := &Routing{
		Interfaces: []Interface{
			{Name: "lo", Addrs: []netip.Prefix{prefix("127.0.0.1/8")}},
			{Name: "eth0", Addrs: []netip.Prefix{prefix("192.0.2.2/24")}},
			{Name: "tailscale0", Addrs: []netip.Prefix{prefix("100.64.0.1/32")}},
			{Name: "docker0", Addrs: []netip.Prefix{prefix("172.17.0.1/16")}},
		},
		Routes: []Route{{Dst: prefix("0.0.0.0/0"), Out: "eth0"}},
	}
	for _, test := range []struct {
		name, listing string
		in, src, dst  string
		protocol      Protocol
		port          uint16
		state         ConnState
		fate          Fate
		to            string
	}{
		{"a port that UFW allows", "ufw-0.36.2.iptables-S", "eth0", "198.51.100.7", "192.0.2.2", TCP, 80, StateNew, FateAccept, ""},
		{"a port in a range", "ufw-0.36.2.iptables-S", "eth0", "198.51.100.7", "192.0.2.2", TCP, 6005, StateNew, FateAccept, ""},
		{"a port that is not allowed, whatever the rate limit of the log", "ufw-0.36.2.iptables-S", "eth0", "198.51.100.7", "192.0.2.2", TCP, 9999, StateNew, FateDrop, ""},
		{"SSH from outside, allowed on the tailnet alone", "ufw-0.36.2.iptables-S", "eth0", "203.0.113.9", "192.0.2.2", TCP, 2222, StateNew, FateDrop, ""},
		{"a port that is refused", "ufw-0.36.2.iptables-S", "eth0", "198.51.100.7", "192.0.2.2", TCP, 113, StateNew, FateReject, ""},
		{"an answer", "ufw-0.36.2.iptables-S", "eth0", "198.51.100.7", "192.0.2.2", TCP, 9999, StateEstablished, FateAccept, ""},
		{"what connection tracking does not understand", "ufw-0.36.2.iptables-S", "eth0", "198.51.100.7", "192.0.2.2", TCP, 80, StateInvalid, FateDrop, ""},
		{"a ping", "ufw-0.36.2.iptables-S", "eth0", "198.51.100.7", "192.0.2.2", ICMP, 0, StateNew, FateAccept, ""},
		{"the tailnet, past UFW", "ufw-and-tailscale.iptables-S", "tailscale0", "100.64.0.2", "100.64.0.1", TCP, 9999, StateNew, FateAccept, ""},
		{"a tailnet address from elsewhere", "ufw-and-tailscale.iptables-S", "eth0", "100.64.0.2", "192.0.2.2", TCP, 22, StateNew, FateDrop, ""},
		{"a published port", "docker-20.10.iptables-save", "eth0", "198.51.100.7", "192.0.2.2", TCP, 18790, StateNew, FateAccept, "172.17.0.3:18789"},
		{"a port published on one address, asked for on it", "docker-20.10.iptables-save", "eth0", "198.51.100.7", "192.0.2.2", TCP, 18793, StateNew, FateAccept, "172.17.0.5:18789"},
		{"a port published on loopback, from a neighbour that sends it there", "docker-20.10.iptables-save", "eth0", "192.0.2.9", "127.0.0.1", TCP, 18789, StateNew, FateAccept, "172.17.0.2:18789"},
		{"a container by a route to it", "docker-20.10.iptables-save", "eth0", "192.0.2.9", "172.17.0.2", TCP, 18789, StateNew, FateAccept, "172.17.0.2:18789"},
		{"another port of a container by a route to it", "docker-20.10.iptables-save", "eth0", "192.0.2.9", "172.17.0.2", TCP, 22, StateNew, FateDrop, ""},
		{"a container's own connection", "docker-20.10.iptables-save", "docker0", "172.17.0.2", "198.51.100.7", TCP, 443, StateNew, FateAccept, "198.51.100.7:443"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := Packet{
				In: test.in, Src: netip.MustParseAddr(test.src), Dst: netip.MustParseAddr(test.dst),
				Protocol: test.protocol, DstPort: test.port, State: test.state,
			}
			if test.protocol == TCP {
				p.SrcPort = 40000
			}
			d := recorded(t, test.listing).Evaluate(routing, p)
			if d.Fate != test.fate || test.to != "" && d.To.String() != test.to {
				t.Errorf("%v: %v to %v (%s), want %v to %v\n%v", p, d.Fate, d.To, d.Why, test.fate, test.to, d.Steps)
			}
		})
	}
}

// Every rule of the recorded listings is understood but for rate limits.
func TestRecordedListingsAreUnderstood(t *testing.T) {
	for _, name := range []string{"ufw-0.36.2.iptables-S", "ufw-and-tailscale.iptables-S", "docker-20.10.iptables-save"} {
		for _, table := range recorded(t, name).Tables() {
			for _, c := range table.Chains {
				for _, r := range c.Rules {
					if r.Problem != "" && r.Problem != "match limit" && r.Problem != "match recent" {
						t.Errorf("%s: %s: %s", name, r.Text, r.Problem)
					}
				}
			}
		}
	}
}
