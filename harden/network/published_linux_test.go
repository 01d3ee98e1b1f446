package network_test

import (
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/internal/lab"
)

// Rules that people write to close a published port, on the real engine: what
// the check says is what packets from the internet, from a neighbour and from a
// private network meet.
func TestPublishedOnTheLiveKernel(t *testing.T) {
	t.Parallel()
	s := open(t, lab.Config{})
	s.cfg.Dial = nil
	ctx := t.Context()
	s.must(t, "run", "-d", "--name", "www", "-p", "8085:18789", lab.UserImage)
	address := s.must(t, "inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", "www")
	on := func(m *lab.Machine, script string) {
		t.Helper()
		if out, err := m.Command(ctx, "sh", "-ec", script).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	// Engines from 28 on drop what comes from outside for a container's address.
	guarded := strings.Contains(s.sh(t, "iptables -t raw -S"), "-d "+address+"/32")
	// The neighbour knows the way to the containers, and has an address of a
	// private network besides.
	on(s.Neighbour, "ip route add 172.17.0.0/16 via 192.0.2.1; ip addr add 10.9.0.3/24 dev eth0")
	s.sh(t, "ip route add 10.9.0.0/24 via 192.0.2.3")
	// What a proxy process serves, over IPv6, DOCKER-USER does not see.
	const proxy = "ip6tables -I INPUT -i eth0 -p tcp --dport 8085 -j DROP; "
	const reset = `
		iptables -F DOCKER-USER; ip6tables -F INPUT
		while iptables -D FORWARD -j DOCKER-USER 2>/dev/null; do :; done
		iptables -I FORWARD 1 -j DOCKER-USER
		ip6tables -F DOCKER-USER 2>/dev/null || true
		iptables-legacy -F 2>/dev/null || true; iptables-legacy -X 2>/dev/null || true`

	for _, tt := range []struct {
		name, rules    string
		closed, egress bool
	}{
		{"no rule", "", false, true},
		{"no rule but for the proxy", proxy, false, true},
		{"new connections dropped", proxy + "iptables -I DOCKER-USER -i eth0 -m conntrack --ctstate NEW -j DROP", true, true},
		{"answers returned, the rest dropped", proxy + "iptables -I DOCKER-USER -i eth0 -j DROP; iptables -I DOCKER-USER -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN", true, true},
		{"the naive rule", proxy + "iptables -I DOCKER-USER -i eth0 -j DROP", true, false},
		{"refused rather than dropped", proxy + "iptables -I DOCKER-USER -i eth0 -m conntrack --ctstate NEW -j REJECT", true, true},
		{"IPv4 only", "iptables -I DOCKER-USER -i eth0 -m conntrack --ctstate NEW -j DROP", false, true},
		{"an earlier RETURN", proxy + "iptables -I DOCKER-USER -i eth0 -m conntrack --ctstate NEW -j DROP; iptables -I DOCKER-USER -j RETURN", false, true},
		{"an earlier ACCEPT", proxy + "iptables -I DOCKER-USER -i eth0 -m conntrack --ctstate NEW -j DROP; iptables -I DOCKER-USER -p tcp -j ACCEPT", false, true},
		{"an earlier RETURN for one network", proxy + "iptables -I DOCKER-USER -i eth0 -m conntrack --ctstate NEW -j DROP; iptables -I DOCKER-USER -s 10.9.0.0/24 -j RETURN", false, true},
		{"another interface", proxy + "iptables -I DOCKER-USER -i eth1 -m conntrack --ctstate NEW -j DROP", false, true},
		{"nobody jumps to it", proxy + "iptables -I DOCKER-USER -i eth0 -m conntrack --ctstate NEW -j DROP; iptables -D FORWARD -j DOCKER-USER", false, true},
		{"the jump comes last", proxy + "iptables -I DOCKER-USER -i eth0 -m conntrack --ctstate NEW -j DROP; iptables -D FORWARD -j DOCKER-USER; iptables -A FORWARD -j DOCKER-USER", false, true},
		{"the port of the machine", proxy + "iptables -I DOCKER-USER -i eth0 -p tcp --dport 8085 -j DROP", false, true},
		{"the port of the machine, as it was", proxy + "iptables -I DOCKER-USER -i eth0 -p tcp -m conntrack --ctorigdstport 8085 --ctdir ORIGINAL -j DROP", guarded, true},
		{"the rules of ufw-docker", proxy + `
			iptables -A DOCKER-USER -s 10.0.0.0/8 -j RETURN
			iptables -A DOCKER-USER -s 172.16.0.0/12 -j RETURN
			iptables -A DOCKER-USER -s 192.168.0.0/16 -j RETURN
			iptables -A DOCKER-USER -p tcp --tcp-flags FIN,SYN,RST,ACK SYN -d 172.16.0.0/12 -j DROP
			iptables -A DOCKER-USER -j RETURN`, false, true},
		{"a chain of the other flavour", proxy + `
			iptables-legacy -N DOCKER-USER
			iptables-legacy -I DOCKER-USER -i eth0 -m conntrack --ctstate NEW -j DROP`, false, true},
		{"a chain of the other flavour, which it jumps to", proxy + `
			iptables-legacy -N DOCKER-USER; iptables-legacy -I FORWARD -j DOCKER-USER
			iptables-legacy -I DOCKER-USER -i eth0 -m conntrack --ctstate NEW -j DROP`, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if strings.Contains(tt.rules, "iptables-legacy") {
				if out, err := s.Host.Command(ctx, "iptables-legacy", "-S").CombinedOutput(); err != nil {
					t.Skipf("no iptables-legacy here: %s", out)
				}
			}
			s.sh(t, reset+"\n"+tt.rules)
			got := s.audit(t, "docker_user", "container_egress")
			for id, good := range map[string]bool{"docker_user": tt.closed, "container_egress": tt.egress} {
				want := harden.StatusFail
				if good {
					want = harden.StatusPass
				}
				if got[id].Status != want {
					t.Errorf("want %v, got %s\n%s", want, show(got[id]), s.sh(t, "iptables -S; ip6tables -S INPUT"))
				}
			}

			// And that is so.
			on(s.Neighbour, "ip route replace 192.0.2.1/32 dev eth0 src 192.0.2.3")
			open := whatIsOpen(ctx, []attempt{
				{s.Internet, "192.0.2.1:8085"},
				{s.Internet, "[2001:db8::1]:8085"},
				{s.Neighbour, "192.0.2.1:8085"},
				{s.Neighbour, "[2001:db8::1]:8085"},
				{s.Neighbour, address + ":18789"},
			})
			on(s.Neighbour, "ip route replace 192.0.2.1/32 dev eth0 src 10.9.0.3")
			open = append(open, whatIsOpen(ctx, []attempt{{s.Neighbour, "192.0.2.1:8085"}})...)
			if tt.closed != (len(open) == 0) {
				t.Errorf("in truth open: %q", open)
			}
			ln, err := s.Internet.Sink(ctx, "tcp", "198.51.100.10:9999")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			if a, err := s.Do(ctx, "www", "dial", "tcp", "198.51.100.10:9999"); err != nil || a.OK != tt.egress {
				t.Errorf("the container connects to the internet: %v, %v", a, err)
			}
		})
	}
}
