package network_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/internal/lab"
)

// What is done to a real UFW, and what the checks of it say. Packets from the
// internet show who is right.
func TestHostFirewallOnTheLiveKernel(t *testing.T) {
	t.Parallel()
	s := open(t, lab.Config{UFW: true, NoDocker: true})
	s.cfg.Dial = nil
	ctx := t.Context()
	for _, at := range []string{"192.0.2.1:23457", "[2001:db8::1]:23457"} {
		ln, err := s.Host.Sink(ctx, "tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
	}
	const (
		pass = harden.StatusPass
		fail = harden.StatusFail
		na   = harden.StatusNotApplicable
	)
	const (
		reset = `ufw --force reset >/dev/null; /lib/ufw/ufw-init flush-all >/dev/null 2>&1 || true; `
		keep  = `; iptables-save >/run/v4; ip6tables-save >/run/v6`
		again = `iptables-restore /run/v4; ip6tables-restore /run/v6; `
	)
	for _, tt := range []struct {
		name, script                     string
		enabled, byDefault, kernel, rule harden.Status
		v4, v6                           bool // open in truth
	}{
		{"not enabled", "", fail, fail, fail, na, true, true},
		{"enabled, with rules that say what they are for", "ufw allow 22/tcp; ufw limit 2222/tcp; ufw allow in on tailscale0; ufw --force enable" + keep, pass, pass, pass, pass, false, false},
		{"the rules flushed, and still called active", again + "iptables -F INPUT; iptables -P INPUT ACCEPT", pass, fail, fail, pass, true, false},
		{"the rules for IPv6 flushed", again + "ip6tables -F INPUT; ip6tables -P INPUT ACCEPT", pass, fail, fail, pass, false, true},
		{"a rule ahead of UFW's", again + "iptables -I INPUT -j ACCEPT", pass, pass, fail, pass, true, false},
		{"a rule ahead of UFW's for one network", again + "iptables -I INPUT -s 203.0.113.0/24 -j ACCEPT", pass, pass, fail, pass, false, false},
		{"a rule ahead of UFW's for answers of a name service", again + "iptables -I INPUT -p udp --sport 53 -j ACCEPT", pass, pass, fail, pass, false, false},
		{"a jump is missing", again + "iptables -D INPUT -j ufw-before-input", pass, pass, fail, pass, false, false},
		{"anything from a private network, by name", again + "ufw allow from 10.0.0.0/8", pass, pass, pass, pass, false, false},
		{"all of TCP from anyone", "ufw allow proto tcp from any to any", pass, pass, fail, fail, true, true},
		{"anything by the interface to the outside", "ufw delete allow proto tcp from any to any; ufw allow in on eth0", pass, pass, fail, fail, true, true},
		{"default allow", "ufw delete allow in on eth0; ufw default allow incoming", pass, fail, fail, pass, true, true},
		{"IPv6 not managed", "ufw default deny incoming; ufw disable; sed -i 's/^IPV6=.*/IPV6=no/' /etc/default/ufw; ufw --force enable", pass, pass, pass, pass, false, false},
		{"another firewall", reset + `nft 'table inet filter9 { chain input { type filter hook input priority 0; policy drop; ct state established,related accept; iifname "lo" accept; }; }'`, pass, na, pass, na, false, false},
		{"another firewall, for IPv4 alone", `nft 'delete table inet filter9; table ip filter4 { chain input { type filter hook input priority 0; policy drop; }; }'`, pass, na, fail, na, false, true},
		{"rules of iptables that nobody brings back", "nft delete table ip filter4; iptables -P INPUT DROP; ip6tables -P INPUT DROP", fail, fail, pass, na, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.sh(t, tt.script)
			got := s.audit(t, "ufw_enabled", "ufw_default_deny", "ufw_kernel", "ufw_rules")
			for id, want := range map[string]harden.Status{"ufw_enabled": tt.enabled, "ufw_default_deny": tt.byDefault, "ufw_kernel": tt.kernel, "ufw_rules": tt.rule} {
				if got[id].Status != want {
					t.Errorf("want %v, got %s", want, show(got[id]))
				}
			}
			for at, want := range map[string]bool{"192.0.2.1:23457": tt.v4, "[2001:db8::1]:23457": tt.v6} {
				if connects(ctx, s.Internet, at) != want {
					t.Errorf("in truth %s is open: %t", at, !want)
				}
			}
		})
	}
}

// SSH is found by what it says, whoever holds the socket, and judged by who
// reaches it.
func TestSSHOnTheLiveKernel(t *testing.T) {
	t.Parallel()
	s := open(t, lab.Config{UFW: true, NoDocker: true})
	ctx := t.Context()
	serve := func(at, greeting string) {
		ln, err := s.Host.Listen(ctx, "tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				fmt.Fprint(c, greeting)
				time.AfterFunc(2*time.Second, func() { c.Close() })
			}
		}()
	}
	serve("127.0.0.1:22", "SSH-2.0-OpenSSH_9.2p1\r\n")
	serve("192.0.2.1:25", "220 mail\r\n")
	serve("192.0.2.1:80", "")
	ssh := func() harden.Result { return s.audit(t, "ssh_exposure")["ssh_exposure"] }
	if r := ssh(); r.Status != harden.StatusPass {
		t.Errorf("on loopback alone: %s", show(r))
	}
	serve(":2222", "Welcome\r\nSSH-2.0-something\r\n")
	for _, tt := range []struct {
		name, script string
		want         harden.Status
	}{
		{"no firewall", "", harden.StatusFail},
		{"closed", "ufw --force enable", harden.StatusPass},
		{"open to the tailnet", "ufw allow in on tailscale0 to any port 2222 proto tcp", harden.StatusPass},
		{"limited", "ufw limit 2222/tcp", harden.StatusFail},
		{"open to a private network", "ufw delete limit 2222/tcp; ufw allow from 192.168.0.0/16 to any port 2222", harden.StatusFail},
		{"open over IPv6", "ufw delete allow from 192.168.0.0/16 to any port 2222; ufw allow from 2000::/3 to any port 2222", harden.StatusFail},
	} {
		if tt.script != "" {
			s.sh(t, tt.script)
		}
		r := ssh()
		if r.Status != tt.want {
			t.Errorf("%s: want %v, got %s", tt.name, tt.want, show(r))
		}
		if r.Status == harden.StatusFail && !strings.Contains(r.Findings[0].Message, ":2222") {
			t.Errorf("%s: it does not name the socket: %s", tt.name, r.Findings[0].Message)
		}
	}
	s.cfg.Allow = []firewall.Allow{{Port: firewall.Port{Protocol: firewall.TCP, Number: 2222}}}
	if r := ssh(); r.Status != harden.StatusPass {
		t.Errorf("allowed by name: %s", show(r))
	}
	s.cfg.Allow, s.cfg.Dial = nil, nil
	if r := ssh(); r.Status != harden.StatusUnknown {
		t.Errorf("nobody may look: %s", show(r))
	}
}
