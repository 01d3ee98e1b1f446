package nft

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

// others are rules as machines have them, and tables that are nearly called
// as ours is.
const others = `
table ip hardshell { chain prerouting { type filter hook prerouting priority -160; tcp dport 1 drop; }; }
table inet hardshell_kill { set inside { type ifname; }; chain forward { type filter hook forward priority -350; iifname @inside drop; }; }
table inet filter { chain input { type filter hook input priority 0; policy accept; tcp dport 2222 accept; }; }
`

func subject(t *testing.T) *firewalltest.Subject {
	t.Helper()
	l := labtest.Start(t, lab.Config{NoDocker: true})
	run := func(ctx context.Context, stdin string, args ...string) (string, error) {
		cmd := l.Host.Command(ctx, args[0], args[1:]...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("%v: %w: %s\n%s", args, err, out, stdin)
		}
		return string(out), nil
	}
	must := func(_ string, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(run(t.Context(), others, "nft", "-f", "-"))
	must(run(t.Context(), "", "iptables", "-A", "FORWARD", "-i", "eth9", "-j", "DROP"))
	must(run(t.Context(), "", "ip6tables", "-t", "mangle", "-A", "PREROUTING", "-i", "eth9", "-j", "DROP"))
	ln, err := l.Host.Listen(t.Context(), "tcp", ":8080")
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

	own := func(ctx context.Context) (string, error) {
		tables, err := run(ctx, "", "nft", "list", "tables")
		if err != nil || !strings.Contains(tables, "table inet hardshell\n") {
			return "", err
		}
		return run(ctx, "", "nft", "-s", "-a", "list", "table", "inet", "hardshell")
	}
	return &firewalltest.Subject{
		Backend: &Backend{NetNS: l.Host.NetNS()},
		Own:     own,
		Others: func(ctx context.Context) (string, error) {
			all, err := run(ctx, "", "nft", "-s", "-a", "list", "ruleset")
			mine := regexp.MustCompile(`(?ms)^table inet hardshell \{.*?^\}\n`)
			return mine.ReplaceAllString(all, ""), err
		},
		Damages: func(ctx context.Context) ([]firewalltest.Damage, error) {
			text, err := own(ctx)
			return damages(text, run), err
		},
		Reached: func(ctx context.Context) bool {
			for _, addr := range []string{"192.0.2.1:8080", "[2001:db8::1]:8080"} {
				ctx, cancel := context.WithTimeout(ctx, 150*time.Millisecond)
				c, err := l.Internet.Dial(ctx, "tcp", addr)
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

// damages lists what nft can do to each object of a listing.
func damages(listing string, run func(context.Context, string, ...string) (string, error)) []firewalltest.Damage {
	var out []firewalltest.Damage
	add := func(command string) {
		out = append(out, firewalltest.Damage{Name: command, Do: func(ctx context.Context) error {
			_, err := run(ctx, command, "nft", "-f", "-")
			return err
		}})
	}
	chain, set := "", ""
	handle := regexp.MustCompile(` # handle (\d+)$`)
	for line := range strings.Lines(listing) {
		line = strings.TrimSpace(line)
		text := handle.ReplaceAllString(line, "")
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		number := ""
		if m := handle.FindStringSubmatch(line); m != nil {
			number = m[1]
		}
		switch {
		case fields[0] == "set":
			chain, set = "", fields[1]
		case fields[0] == "chain":
			chain, set = fields[1], ""
			for _, command := range []string{
				"flush chain inet hardshell " + chain,
				"insert rule inet hardshell " + chain + " accept",
				"insert rule inet hardshell " + chain + " meta l4proto tcp accept",
				"insert rule inet hardshell " + chain + " limit rate 1000000/second accept",
				"add rule inet hardshell " + chain + " iifname eth0 drop",
				"flush chain inet hardshell " + chain + "\ndelete chain inet hardshell " + chain,
			} {
				add(command)
			}
		case fields[0] == "elements":
			elements, _, _ := strings.Cut(strings.TrimPrefix(text, "elements = { "), " }")
			first, _, _ := strings.Cut(elements, ",")
			add(fmt.Sprintf("delete element inet hardshell %s { %s }", set, first))
		case fields[0] == "type" && set != "":
			more := map[string]string{"ifname": `"eth0"`, "ipv4_addr": "203.0.113.0/24", "ipv6_addr": "2001:db8:1::/48", "inet_service": "4444"}
			add(fmt.Sprintf("add element inet hardshell %s { %s }", set, more[fields[1]]))
		case fields[0] == "type":
			add("add chain inet hardshell " + chain + " { " + strings.Replace(text, "policy accept", "policy drop", 1) + " }")
		case chain != "" && number != "" && fields[0] != "}":
			add(fmt.Sprintf("delete rule inet hardshell %s handle %s", chain, number))
			changed := strings.Replace(text, "accept", "drop", 1)
			if changed == text {
				changed = strings.Replace(text, "drop", "accept", 1)
			}
			add(fmt.Sprintf("replace rule inet hardshell %s handle %s %s", chain, number, changed))
			if fields[len(fields)-1] != "accept" { // as many parts, and another verdict
				add(fmt.Sprintf("replace rule inet hardshell %s handle %s %s", chain, number, strings.Replace(text, " drop", " reject", 1)))
			}
			// A condition that never holds.
			add(fmt.Sprintf("replace rule inet hardshell %s handle %s iifname nowhere %s", chain, number, text))
			add(fmt.Sprintf("replace rule inet hardshell %s handle %s limit rate 1/day %s", chain, number, text))
		}
	}
	add("add table inet hardshell { flags dormant; }")
	add("delete table inet hardshell")
	add("flush table inet hardshell")
	add("add chain inet hardshell early { type filter hook prerouting priority -170; policy accept; }")
	add("add set inet hardshell more { type ifname; }")
	return out
}

func TestConformance(t *testing.T) { firewalltest.Test(t, subject) }
