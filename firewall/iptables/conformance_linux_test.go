package iptables

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/firewall/firewalltest"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// others are rules as machines have them, some of them where ours go.
const others = `
for t in iptables ip6tables; do
	$t -N DOCKER-USER
	$t -A FORWARD -j DOCKER-USER
	$t -A DOCKER-USER -i eth9 -j DROP
	$t -A DOCKER-USER -j RETURN
	$t -A INPUT -p tcp --dport 2222 -m comment --comment "ssh, really" -j ACCEPT
	$t -t mangle -A PREROUTING -i eth9 -j MARK --set-mark 1
	$t -t mangle -A FORWARD -i eth9 -j DROP
	$t -t nat -A POSTROUTING -o eth9 -j MASQUERADE
done
nft add table inet another
nft add chain inet another forward '{ type filter hook forward priority 5; policy accept; }'
nft add rule inet another forward tcp dport 7 drop
`

type machine struct{ l *lab.Lab }

func newMachine(t testing.TB) machine {
	t.Helper()
	return machine{labtest.Start(t, lab.Config{NoDocker: true})}
}

func (m machine) sh(ctx context.Context, script string) (string, error) {
	out, err := m.l.Host.Command(ctx, "sh", "-ec", script).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", script, err, out)
	}
	return string(out), nil
}

var counters = regexp.MustCompile(`(?m)^# (Generated|Completed).*\n|\[\d+:\d+\]`)

// save returns what iptables-save prints, divided into what is ours and what is not.
func (m machine) save(ctx context.Context) (own, others string, err error) {
	for _, program := range []string{"iptables", "ip6tables"} {
		out, err := m.sh(ctx, program+"-save")
		if err != nil {
			return "", "", err
		}
		for line := range strings.Lines(counters.ReplaceAllString(out, "")) {
			if strings.Contains(line, "HARDSHELL") {
				own += program + ": " + line
			} else {
				others += program + ": " + line
			}
		}
	}
	return own, others, nil
}

func (m machine) subject(t *testing.T, mode Mode) *firewalltest.Subject {
	t.Helper()
	if _, err := m.sh(t.Context(), others); err != nil {
		t.Fatal(err)
	}
	ln, err := m.l.Host.Listen(t.Context(), "tcp", ":8080")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { ln.Close() })
	return &firewalltest.Subject{
		Backend: &Backend{NetNS: m.l.Host.NetNS(), Mode: mode},
		Own: func(ctx context.Context) (string, error) {
			own, _, err := m.save(ctx)
			if err != nil || own == "" {
				return "", err
			}
			// A rule that is written again has a new handle.
			handles, err := m.sh(ctx, `nft -s -a list ruleset 2>/dev/null | grep -A40 'chain HARDSHELL'`)
			return own + handles, err
		},
		Others: func(ctx context.Context) (string, error) {
			_, others, err := m.save(ctx)
			native, err2 := m.sh(ctx, "nft -s -a list table inet another")
			if err == nil {
				err = err2
			}
			return others + native, err
		},
		Damages: func(ctx context.Context) ([]firewalltest.Damage, error) {
			own, _, err := m.save(ctx)
			return m.damages(own), err
		},
		Reached: func(ctx context.Context) bool {
			for _, addr := range []string{"192.0.2.1:8080", "[2001:db8::1]:8080"} {
				ctx, cancel := context.WithTimeout(ctx, 150*time.Millisecond)
				c, err := m.l.Internet.Dial(ctx, "tcp", addr)
				cancel()
				if err == nil {
					c.Close()
					return true
				}
			}
			return false
		},
	}
}

// damages lists what iptables can do to each of our rules, chains and jumps.
func (m machine) damages(own string) []firewalltest.Damage {
	var out []firewalltest.Damage
	add := func(script string) {
		out = append(out, firewalltest.Damage{Name: script, Do: func(ctx context.Context) error {
			_, err := m.sh(ctx, script)
			return err
		}})
	}
	tables := map[string]string{preroutingChain: "mangle", forwardChain: "mangle", userChain: "filter"}
	parents := map[string]string{preroutingChain: "PREROUTING", forwardChain: "FORWARD", userChain: dockerUser}
	position := make(map[string]int)
	for line := range strings.Lines(own) {
		program, text, _ := strings.Cut(strings.TrimSpace(line), ": ")
		fields := strings.Fields(text)
		switch {
		case strings.HasPrefix(text, ":"):
			name := fields[0][1:]
			t := program + " -t " + tables[name] + " "
			parent := parents[name]
			add(t + "-F " + name)
			add(t + "-I " + name + " -j ACCEPT")
			add(t + "-I " + name + " -i nowhere -j RETURN")
			add(t + "-A " + name + " -j RETURN")
			add(t + "-D " + parent + " -j " + name)
			add(t + "-A " + parent + " -j " + name)
			add(t + "-D " + parent + " -j " + name + "; " + t + "-F " + name + "; " + t + "-X " + name)
			add(t + "-D " + parent + " -j " + name + "; " + t + "-I " + parent + " 2 -j " + name)
			add(t + "-D " + parent + " -j " + name + "; " + t + "-I " + parent + " -i nowhere -j " + name)
		case len(fields) > 1 && fields[0] == "-A" && tables[fields[1]] != "":
			name := fields[1]
			position[program+name]++
			n := position[program+name]
			if program == "ip6tables" && n%4 != 0 {
				continue // the same code as for IPv4
			}
			t := fmt.Sprintf("%s -t %s ", program, tables[name])
			add(fmt.Sprintf("%s-D %s %d", t, name, n))
			changed := strings.Replace(strings.TrimPrefix(text, "-A "+name), "-j DROP", "-j ACCEPT", 1)
			changed = strings.Replace(changed, "-j RETURN", "-m limit --limit 1/day -j RETURN", 1)
			add(fmt.Sprintf("%s-R %s %d %s", t, name, n, changed))
		}
	}
	return out
}

func TestConformance(t *testing.T) {
	for name, mode := range map[string]Mode{"mangle": Mangle, "both": Both} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			firewalltest.Test(t, func(t *testing.T) *firewalltest.Subject { return newMachine(t).subject(t, mode) })
		})
	}
}
