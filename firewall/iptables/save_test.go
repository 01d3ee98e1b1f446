package iptables

import (
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/firewall/firewalltest"
)

// Whatever iptables-save prints is read or refused, and what is read is where it was.
func FuzzParseSave(f *testing.F) {
	f.Add("*filter\n:INPUT ACCEPT [0:0]\n:X - [0:0]\n-A INPUT -j X\n-A X -m comment --comment \"a b\" -j DROP\nCOMMIT\n# done\n")
	f.Add("*nat\nCOMMIT\n*mangle\n:PREROUTING ACCEPT [1:2]\nCOMMIT\n")
	f.Fuzz(func(t *testing.T, text string) {
		rs, err := parseSave(text)
		if err != nil {
			return
		}
		for table, chains := range rs {
			if !strings.Contains(text, "*"+table) {
				t.Fatalf("table %q is not in %q", table, text)
			}
			for name, rules := range chains {
				for _, rule := range rules {
					if !strings.Contains(text, "-A "+name) || !strings.Contains(text, rule) {
						t.Fatalf("rule %q of %q is not in %q", rule, name, text)
					}
				}
			}
		}
	})
}

func TestParseSaveRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"the end is missing": "*filter\n:INPUT ACCEPT [0:0]\n",
		"no table":           "-A INPUT -j DROP\n",
		"another command":    "*filter\n-D INPUT 1\nCOMMIT\n",
	} {
		if rs, err := parseSave(text); err == nil {
			t.Errorf("%s: %v", name, rs)
		}
	}
}

// Versions of iptables print the same rule in different ways.
func TestNormal(t *testing.T) {
	same := [][2]string{
		{"-p tcp -m conntrack --ctstate DNAT --ctorigdstport 80 --ctdir ORIGINAL -j RETURN", "-p 6 -m conntrack --ctstate DNAT --ctdir ORIGINAL --ctorigdstport 80 -j RETURN"},
		{"-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN", "-m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"},
		{"-s 192.0.2.3/32 -i eth0 -j DROP", "-i eth0 -s 192.0.2.3/32 -j DROP"},
	}
	for _, pair := range same {
		if normal(pair[0]) != normal(pair[1]) {
			t.Errorf("%q and %q differ", pair[0], pair[1])
		}
	}
	different := [][2]string{
		{"-i eth0 -j DROP", "-i eth0 -j ACCEPT"},
		{"-i eth0 -j DROP", "-o eth0 -j DROP"},
		{"-i eth0 -j DROP", "! -i eth0 -j DROP"},
		{"-j DROP", "-m limit --limit 1/day -j DROP"},
		{"-j DROP", `-m comment --comment "-j DROP" -j RETURN`},
		{"-p tcp -m multiport --dports 1,2 -j DROP", "-p tcp -m multiport --sports 1,2 -j DROP"},
		{"-j DROP", "-g DROP"},
	}
	for _, pair := range different {
		if normal(pair[0]) == normal(pair[1]) {
			t.Errorf("%q and %q are the same", pair[0], pair[1])
		}
	}
}

// No rule of ours ends what others have to say, and no family sees addresses of
// the other.
func TestRulesAreOurs(t *testing.T) {
	p := firewalltest.Policy()
	p.Strict = true
	for n := range uint16(40) {
		p.Published = append(p.Published, firewall.Port{Protocol: firewall.TCP, Number: 9000 + n})
	}
	p = p.Canonical()
	for _, f := range families {
		for _, rule := range append(f.prerouting(p), f.forward(p)...) {
			if !strings.HasSuffix(rule, "-j RETURN") && !strings.HasSuffix(rule, "-j DROP") {
				t.Errorf("%v: %s", f, rule)
			}
			if _, ports, ok := strings.Cut(rule, "--dports "); ok {
				if ports, _, _ = strings.Cut(ports, " "); strings.Count(ports, ",") >= multiportMax {
					t.Errorf("%v: too many ports: %s", f, rule)
				}
			}
			for _, option := range []string{"-s ", "-d "} {
				if _, addr, ok := strings.Cut(rule, option); ok && strings.Contains(strings.Fields(addr)[0], ":") != f.v6 {
					t.Errorf("%v: %s", f, rule)
				}
			}
		}
	}
}
