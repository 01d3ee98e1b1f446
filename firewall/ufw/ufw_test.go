package ufw

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/managemyclaw/hardshell/firewall"
)

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// The rules of a file that UFW 0.36.2 wrote.
func TestParseRules(t *testing.T) {
	for file, want := range map[string][]string{
		"user.rules": {
			"allow in from any to any port 22 proto tcp",
			"limit in from any to any app OpenSSH",
			"allow in on tailscale0 from any to any",
			`allow in on tailscale0 from any to any port 22 proto tcp comment "ssh over tailnet only"`,
			"allow in from 203.0.113.7 to any port 443 proto tcp",
			"allow in from any to any port 6000:6007 proto tcp",
			"allow in from any to any port 80,443 proto tcp",
			"allow in from any to any port 41641 proto udp",
			"deny out from any to any port 25 proto tcp",
			"route allow in on v0 out on v1 from any to 192.0.2.9 port 80 proto tcp",
			"reject in from any to any port 113 proto tcp",
			"allow in log from any to any port 8080 proto tcp",
			"allow in from 10.0.0.0/8 to any",
		},
		"user6.rules": {
			"allow in from any to any port 22 proto tcp (v6)",
			"limit in from any to any app OpenSSH (v6)",
			"allow in on tailscale0 from any to any (v6)",
			`allow in on tailscale0 from any to any port 22 proto tcp comment "ssh over tailnet only" (v6)`,
			"allow in from 2001:db8::/32 to any port 443 proto tcp (v6)",
			"allow in from any to any port 6000:6007 proto tcp (v6)",
			"allow in from any to any port 80,443 proto tcp (v6)",
			"allow in from any to any port 41641 proto udp (v6)",
			"deny out from any to any port 25 proto tcp (v6)",
			"reject in from any to any port 113 proto tcp (v6)",
			"allow in log from any to any port 8080 proto tcp (v6)",
		},
	} {
		data := read(t, file)
		rules, malformed := ParseRules(data, strings.Contains(file, "6"))
		var got []string
		for _, r := range rules {
			got = append(got, r.String())
		}
		if !slices.Equal(got, want) || len(malformed) > 0 {
			t.Errorf("%s:\n%s\nmalformed %q", file, strings.Join(got, "\n"), malformed)
		}
		for _, r := range rules {
			if !strings.Contains(string(data), tuplePrefix+" "+r.Tuple()+"\n") {
				t.Errorf("%s has no tuple %q", file, r.Tuple())
			}
		}
	}
}

// What is malformed is said, and not taken for a rule that is not there.
func TestMalformedTuples(t *testing.T) {
	for name, tuple := range map[string]string{
		"too short":                 "allow tcp 22 0.0.0.0/0 any",
		"too long":                  "allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 a b in x",
		"unknown action":            "alow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in",
		"unknown kind of log":       "allow_all tcp 22 0.0.0.0/0 any 0.0.0.0/0 in",
		"unknown protocol":          "allow sctp 22 0.0.0.0/0 any 0.0.0.0/0 in",
		"port 0":                    "allow tcp 0 0.0.0.0/0 any 0.0.0.0/0 in",
		"port too large":            "allow tcp 65536 0.0.0.0/0 any 0.0.0.0/0 in",
		"range the wrong way round": "allow tcp 9:8 0.0.0.0/0 any 0.0.0.0/0 in",
		"address of the other kind": "allow tcp 22 ::/0 any 0.0.0.0/0 in",
		"no address":                "allow tcp 22 host any 0.0.0.0/0 in",
		"unknown direction":         "allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 sideways",
		"interface with a slash":    "allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in_a/b",
		"two interfaces, no route":  "allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in_a!out_b",
		"comment not hexadecimal":   "allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in comment=xyz",
		"protocol without ports":    "allow esp 22 0.0.0.0/0 any 0.0.0.0/0 in",
		"a port that is a name":     "allow tcp ssh 0.0.0.0/0 any 0.0.0.0/0 in",
		"a mask that is no prefix":  "allow tcp 22 0.0.0.0/0 any 10.0.0.0/255.0.255.0 in",
	} {
		rules, malformed := ParseRules([]byte(tuplePrefix+" "+tuple+"\n"), false)
		if len(rules) > 0 || len(malformed) != 1 || !strings.Contains(malformed[0], tuple) {
			t.Errorf("%s: %v, %q", name, rules, malformed)
		}
		s := State{Installed: true, IPv6: true, Malformed: malformed}
		if p := s.Problems(); len(p) != 1 || p[0].Kind != NotUnderstood {
			t.Errorf("%s: problems %v", name, p)
		}
	}
	// Older versions of UFW wrote no direction, and masks.
	for tuple, want := range map[string]string{
		"allow tcp 22 0.0.0.0/0 any 0.0.0.0/0":               "allow in from any to any port 22 proto tcp",
		"allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 My%20App -":    "allow in from any to any app My App",
		"deny any any 0.0.0.0/0 any 10.0.0.0/255.255.0.0 in": "deny in from 10.0.0.0/16 to any",
	} {
		if r, err := ParseTuple(tuple, false); err != nil || r.String() != want {
			t.Errorf("%q is %v, %v", tuple, r, err)
		}
	}
}

// What is parsed is written as it is parsed again, and matches what it matched.
func FuzzParseTuple(f *testing.F) {
	for _, file := range []string{"testdata/user.rules", "testdata/user6.rules"} {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			if tuple, ok := strings.CutPrefix(line, tuplePrefix+" "); ok {
				f.Add(strings.TrimSpace(tuple), strings.Contains(file, "6"))
			}
		}
	}
	f.Fuzz(func(t *testing.T, tuple string, v6 bool) {
		r, err := ParseTuple(tuple, v6)
		if err != nil {
			return
		}
		again, err := ParseTuple(r.Tuple(), v6)
		if err != nil || !r.Same(again) || again.String() != r.String() || again.Comment != r.Comment {
			t.Errorf("%q is %v, written %q, which is %v, %v", tuple, r, r.Tuple(), again, err)
		}
		if !r.covers(r) {
			t.Errorf("%v does not cover itself", r)
		}
		for _, line := range r.compile() {
			if !sameRule(line, line) || len(canonical(line)) == 0 {
				t.Errorf("%v: %q", r, line)
			}
		}
	})
}

// A listing that parses has the rules that are in it; one that is cut off does
// not parse.
func FuzzParseSave(f *testing.F) {
	f.Add([]byte("# Generated by iptables-save v1.8.9 (nf_tables) on Sun\n*filter\n:INPUT DROP [0:0]\n:x - [0:0]\n-A INPUT -m comment --comment \"a b\" -j x\nCOMMIT\n# Completed\n"))
	f.Add([]byte("*nat\n:A - [0:0]\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := parseSave(data)
		if err != nil {
			return
		}
		for chain, rules := range table.chains {
			for _, rule := range rules {
				if !strings.Contains(string(data), "-A "+chain+" "+rule) && rule != "" {
					t.Errorf("rule %q of chain %q is not in the listing", rule, chain)
				}
				canonical(rule)
			}
		}
		readKernel(table, nil, false)
		readKernel(table, nil, true)
	})
}

func TestParseSaveRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"cut off":              "*filter\n:INPUT DROP [0:0]\n",
		"rule of no chain":     "*filter\n-A INPUT -j DROP\nCOMMIT\n",
		"rule of no table":     "-A INPUT -j DROP\n",
		"something else":       "*filter\nhello\nCOMMIT\n",
		"not iptables's alone": "# Table `filter' is incompatible, use 'nft' tool.\n",
	} {
		if _, err := parseSave([]byte(text)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func rule(t *testing.T, tuple string) Rule {
	t.Helper()
	r, err := ParseTuple(tuple, strings.Contains(tuple, "::"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func installed(t *testing.T, tuples ...string) *State {
	s := &State{Installed: true, Incoming: Deny, Outgoing: Allow, Routed: Deny, IPv6: true}
	for _, text := range tuples {
		s.Rules = append(s.Rules, rule(t, text))
	}
	return s
}

// The first rule that matches decides; limited is admitted.
func TestAdmits(t *testing.T) {
	ssh := firewall.Port{Protocol: firewall.TCP, Number: 22}
	friend, stranger := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("198.51.100.1")
	for _, c := range []struct {
		name   string
		tuples []string
		in     string
		from   netip.Addr
		want   int
	}{
		{"no rule", nil, "eth0", stranger, 0},
		{"allowed", []string{"allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in"}, "eth0", stranger, 1},
		{"limited", []string{"limit tcp 22 0.0.0.0/0 any 0.0.0.0/0 in"}, "eth0", stranger, 1},
		{"another port", []string{"allow tcp 23 0.0.0.0/0 any 0.0.0.0/0 in"}, "eth0", stranger, 0},
		{"another protocol", []string{"allow udp 22 0.0.0.0/0 any 0.0.0.0/0 in"}, "eth0", stranger, 0},
		{"any protocol", []string{"allow any 22 0.0.0.0/0 any 0.0.0.0/0 in"}, "eth0", stranger, 1},
		{"a range", []string{"allow tcp 20:30 0.0.0.0/0 any 0.0.0.0/0 in"}, "eth0", stranger, 1},
		{"the end of a list", []string{"allow tcp 80,443,22 0.0.0.0/0 any 0.0.0.0/0 in"}, "eth0", stranger, 1},
		{"outgoing", []string{"allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 out"}, "eth0", stranger, 0},
		{"routed", []string{"route:allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in"}, "eth0", stranger, 0},
		{"denied first", []string{"deny tcp 22 0.0.0.0/0 any 0.0.0.0/0 in", "allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in"}, "eth0", stranger, 0},
		{"denied later", []string{"allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in", "deny any any 0.0.0.0/0 any 0.0.0.0/0 in"}, "eth0", stranger, 1},
		{"only another is denied", []string{"deny tcp 22 0.0.0.0/0 any 192.0.2.7 in", "allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in"}, "eth0", stranger, 1},
		{"that one", []string{"deny tcp 22 0.0.0.0/0 any 192.0.2.7 in", "allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in"}, "eth0", friend, 0},
		{"by another interface", []string{"allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in_tailscale0"}, "eth0", stranger, 0},
		{"by that interface", []string{"allow any any 0.0.0.0/0 any 0.0.0.0/0 in_tailscale0"}, "tailscale0", stranger, 1},
		{"by one of those", []string{"allow any any 0.0.0.0/0 any 0.0.0.0/0 in_eth+"}, "eth7", stranger, 1},
		{"anyone, where one may", []string{"allow tcp 22 0.0.0.0/0 any 192.0.2.7 in"}, "", netip.Addr{}, 1},
		{"anyone, where one may not", []string{"deny tcp 22 0.0.0.0/0 any 192.0.2.7 in", "allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in"}, "", netip.Addr{}, 1},
		{"anyone, both families", []string{"allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in", "allow tcp 22 ::/0 any ::/0 in"}, "", netip.Addr{}, 2},
		{"the other family", []string{"allow tcp 22 ::/0 any ::/0 in"}, "eth0", stranger, 0},
		{"a sender's port, which is not known", []string{"deny tcp 22 0.0.0.0/0 53 0.0.0.0/0 in", "allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in"}, "eth0", stranger, 1},
	} {
		if got := installed(t, c.tuples...).Admits(ssh, c.in, c.from); len(got) != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// What the steps would not achieve is refused, and said why.
func TestPlanRefuses(t *testing.T) {
	ssh := firewall.Allow{Port: firewall.Port{Protocol: firewall.TCP, Number: 22}, From: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}}
	for _, denial := range []string{
		"deny tcp 22 0.0.0.0/0 any 0.0.0.0/0 in", "reject any any 0.0.0.0/0 any 192.0.2.0/24 in", "deny any 1:100 0.0.0.0/0 any 0.0.0.0/0 in",
	} {
		s := installed(t, denial)
		_, err := s.Plan(Wish{Allow: []firewall.Allow{ssh}})
		if e, ok := errors.AsType[*DeniedError](err); !ok || !e.By.Same(s.Rules[0]) {
			t.Errorf("%s: %v", denial, err)
		}
		if _, err := s.Plan(Wish{Allow: []firewall.Allow{ssh}, Remove: s.Rules}); err != nil {
			t.Errorf("%s, which is removed: %v", denial, err)
		}
	}
	for _, other := range []string{"deny tcp 22 0.0.0.0/0 any 192.0.2.8 in", "deny udp 22 0.0.0.0/0 any 0.0.0.0/0 in", "deny tcp 22 0.0.0.0/0 any 0.0.0.0/0 out", "deny tcp 22 0.0.0.0/0 any 0.0.0.0/0 in_eth0"} {
		if _, err := installed(t, other).Plan(Wish{Allow: []firewall.Allow{ssh}}); err != nil {
			t.Errorf("%s: %v", other, err)
		}
	}
	s := installed(t, "allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in", "deny any any 0.0.0.0/0 any 0.0.0.0/0 in")
	if _, err := s.Plan(Wish{Allow: []firewall.Allow{ssh}}); err != nil {
		t.Errorf("admitted before it is denied: %v", err)
	}
	for name, a := range map[string]firewall.Allow{
		"everything from everyone":          {},
		"no port":                           {Port: firewall.Port{Protocol: firewall.TCP}},
		"a protocol that UFW does not know": {Port: firewall.Port{Protocol: firewall.SCTP, Number: 1}},
		"no protocol":                       {Port: firewall.Port{Number: 1}},
		"an interface that is none":         {Port: ssh.Port, In: "a b"},
		"senders that are none":             {Port: ssh.Port, From: []netip.Prefix{{}}},
		"senders of IPv4 in IPv6":           {Port: ssh.Port, From: []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")}},
	} {
		if p, err := installed(t).Plan(Wish{Allow: []firewall.Allow{a}}); err == nil {
			t.Errorf("%s: %v", name, p.Steps)
		}
	}
	if _, err := (&State{}).Plan(Wish{}); err == nil {
		t.Error("not installed: no error")
	}
	both := rule(t, "allow tcp 22 0.0.0.0/0 any 192.0.2.7 in")
	if _, err := installed(t, both.Tuple()).Plan(Wish{Allow: []firewall.Allow{ssh}, Remove: []Rule{both}}); err == nil {
		t.Error("allowed and removed: no error")
	}
}

// What there is need not be added; a limit is not made an allow.
func TestPlanAddsWhatIsMissing(t *testing.T) {
	ssh := firewall.Allow{Port: firewall.Port{Protocol: firewall.TCP, Number: 22}}
	adds := func(s *State, w Wish) (n int) {
		p, err := s.Plan(w)
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range p.Steps {
			if step.Kind == StepAllow {
				n++
			}
		}
		return n
	}
	v4, v6 := "tcp 22 0.0.0.0/0 any 0.0.0.0/0 in", "tcp 22 ::/0 any ::/0 in"
	for _, c := range []struct {
		name string
		s    *State
		want int
	}{
		{"nothing", installed(t), 1},
		{"both", installed(t, "allow "+v4, "allow "+v6), 0},
		{"limited", installed(t, "limit "+v4, "limit "+v6), 0},
		{"one family", installed(t, "allow "+v4), 1},
		{"only by an interface", installed(t, "allow "+v4+"_eth0", "allow "+v6+"_eth0"), 1},
		{"by a profile", installed(t, "allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 OpenSSH - in", "allow tcp 22 ::/0 any ::/0 OpenSSH - in"), 0},
	} {
		if got := adds(c.s, Wish{Allow: []firewall.Allow{ssh, ssh}}); got != c.want {
			t.Errorf("%s: %d steps", c.name, got)
		}
	}
}

// A plan can be kept, and applied by another process.
func TestPlanIsData(t *testing.T) {
	s := installed(t, "limit tcp 22 0.0.0.0/0 any 192.0.2.0/24 out_eth0 comment=6869", "allow any any ::/0 any ::/0 in")
	p, err := s.Plan(Wish{
		Allow:  []firewall.Allow{{Port: firewall.Port{Protocol: firewall.TCP, Number: 22}, In: "eth0"}},
		Remove: s.Rules,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Broader = s.Rules
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var again Plan
	if err := json.Unmarshal(data, &again); err != nil || !reflect.DeepEqual(&again, p) {
		t.Errorf("%s: %v\n%+v\n%+v", data, err, p, again)
	}
}

func files(more fstest.MapFS) fstest.MapFS {
	fsys := fstest.MapFS{
		"etc/ufw/ufw.conf":            {Data: []byte("# ENABLED=no\nENABLED=yes\nLOGLEVEL=low\n")},
		"etc/default/ufw":             {Data: []byte("IPV6=yes\nDEFAULT_INPUT_POLICY=\"DROP\"\nDEFAULT_OUTPUT_POLICY='ACCEPT'\nDEFAULT_FORWARD_POLICY=REJECT\nMANAGE_BUILTINS=no\n")},
		"etc/ufw/user.rules":          {Data: []byte(tuplePrefix + " allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in\n")},
		"etc/ufw/user6.rules":         {Data: []byte(tuplePrefix + " allow tcp 22 ::/0 any ::/0 in\n")},
		"etc/ufw/applications.d/mine": {Data: []byte("[Nginx Full]\ntitle=x\nports=80,443/tcp\n\n[DNS]\nports = 53 | 853/tcp\n")},
	}
	for name, f := range more {
		fsys[name] = f
		if f == nil {
			delete(fsys, name)
		}
	}
	return fsys
}

// What is not there, what is odd and what cannot be read are three things.
func TestReadFiles(t *testing.T) {
	s, err := readFiles(files(nil))
	if err != nil || !s.Installed || !s.Enabled || s.Incoming != Deny || s.Outgoing != Allow || s.Routed != Reject || !s.IPv6 || s.LogLevel != "low" || len(s.Rules) != 2 {
		t.Errorf("%+v, %v", s, err)
	}
	if len(s.Apps) != 2 || s.Apps[1].Name != "Nginx Full" || !slices.Equal(s.Apps[1].Ports, []string{"80,443/tcp"}) {
		t.Errorf("%+v", s.Apps)
	}
	if s, err := readFiles(fstest.MapFS{}); err != nil || s.Installed || s.Problems() != nil {
		t.Errorf("not installed: %+v, %v", s, err)
	}
	for name, more := range map[string]fstest.MapFS{
		"no defaults":         {"etc/default/ufw": nil},
		"no rules":            {"etc/ufw/user.rules": nil},
		"no rules of IPv6":    {"etc/ufw/user6.rules": nil},
		"a policy of its own": {"etc/default/ufw": {Data: []byte("DEFAULT_INPUT_POLICY=MAYBE\n")}},
	} {
		if s, err := readFiles(files(more)); err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestParseLocks(t *testing.T) {
	data := []byte(`1: POSIX  ADVISORY  WRITE 3568 fd:00:2531452 0 EOF
1: -> POSIX  ADVISORY  WRITE 3570 fd:00:2531452 0 EOF
2: FLOCK  ADVISORY  WRITE 1 00:1b:17 0 EOF
3: OFDLCK ADVISORY  WRITE -1 fd:00:2531452 0 EOF
`)
	if got := parseLocks(data, "fd:00:2531452"); !slices.Equal(got, []int{3568}) {
		t.Errorf("%v", got)
	}
}

func TestWords(t *testing.T) {
	for rule, want := range map[string][]string{
		`-m comment --comment "a b" -j X`:    {"-m", "comment", "--comment", "a b", "-j", "X"},
		`--comment "say \"hi\"" -j X`:        {"--comment", `say "hi"`, "-j", "X"},
		`--log-prefix "[UFW BLOCK] " -j LOG`: {"--log-prefix", "[UFW BLOCK] ", "-j", "LOG"},
		`--comment it's -j X`:                {"--comment", "it's", "-j", "X"},
		``:                                   nil,
	} {
		if got := words(rule); !slices.Equal(got, want) {
			t.Errorf("%s: %q", rule, got)
		}
	}
}
