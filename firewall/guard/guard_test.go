package guard

import (
	"context"
	"errors"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/firewall"
)

// The shell reads what quote writes as one word, and the same.
func FuzzQuote(f *testing.F) {
	for _, seed := range []string{"", "plain", "/etc/ufw/user.rules", "it's", "a b", "$(x)", "`x`", "new\nline", `back\slash`, "-n", "@STEPS@", "ü", "*", "'"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ContainsRune(text, 0) {
			return // in no name of a file
		}
		out, err := exec.CommandContext(t.Context(), "/bin/sh", "-c", "set -f; for w in "+quote(text)+"; do printf '%s|' \"$w\"; done").Output()
		if err != nil || string(out) != text+"|" {
			t.Errorf("quote(%q) is %s, and the shell reads %q: %v", text, quote(text), out, err)
		}
	})
}

// The script is one that the shell can read, whatever is in it.
func TestScriptIsSound(t *testing.T) {
	s := saver{dir: "/var/lib/it's a dir\n@STEPS@"}
	s.needs("iptables-save", "nft")
	s.step("file\n'; reboot; '", "file", "0", "/etc/$(reboot)")
	text := s.script("first\n reboot # @DIR@", DefaultWindow)
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-n")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if i := strings.Index(text, "@"); i >= 0 && strings.Contains(text, "@WINDOW@") {
		t.Errorf("not filled in: %.40s", text[i:])
	}
	if !strings.Contains(text, "window=6000 ") {
		t.Error("the window is not in it")
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "reboot;") || strings.HasPrefix(line, " reboot #") || strings.HasPrefix(line, "reboot #") {
			t.Errorf("line %q", line)
		}
	}
}

func TestParseSSHConnection(t *testing.T) {
	for value, want := range map[string]Connection{
		"192.0.2.2 40000 192.0.2.1 22":               {netip.MustParseAddrPort("192.0.2.2:40000"), netip.MustParseAddrPort("192.0.2.1:22")},
		"2001:db8::2 40000 2001:db8::1 22":           {netip.MustParseAddrPort("[2001:db8::2]:40000"), netip.MustParseAddrPort("[2001:db8::1]:22")},
		"::ffff:192.0.2.2 40000 ::ffff:192.0.2.1 22": {netip.MustParseAddrPort("192.0.2.2:40000"), netip.MustParseAddrPort("192.0.2.1:22")},
		"fe80::2%eth0 40000 fe80::1%eth0 22":         {netip.MustParseAddrPort("[fe80::2%eth0]:40000"), netip.MustParseAddrPort("[fe80::1%eth0]:22")},
	} {
		if got, err := ParseSSHConnection(value); err != nil || got != want {
			t.Errorf("%q: %v, %v", value, got, err)
		}
	}
	for _, value := range []string{"", "192.0.2.2 40000 192.0.2.1", "192.0.2.2 40000 192.0.2.1 22 x", "x 1 y 2", "192.0.2.2 65536 192.0.2.1 22", "192.0.2.2 -1 192.0.2.1 22"} {
		if got, err := ParseSSHConnection(value); err == nil {
			t.Errorf("%q: %v", value, got)
		}
	}
}

func FuzzParseSSHConnection(f *testing.F) {
	f.Add("192.0.2.2 40000 192.0.2.1 22")
	f.Add("fe80::2%eth0 1 :: 65535")
	f.Fuzz(func(t *testing.T, value string) {
		c, err := ParseSSHConnection(value)
		if err != nil {
			return
		}
		again := strings.Join([]string{c.Client.Addr().String(), portText(c.Client), c.Server.Addr().String(), portText(c.Server)}, " ")
		if c2, err := ParseSSHConnection(again); err != nil || c2 != c {
			t.Errorf("%q is %v, and %q is %v, %v", value, c, again, c2, err)
		}
	})
}

func portText(a netip.AddrPort) string {
	s := a.String()
	return s[strings.LastIndexByte(s, ':')+1:]
}

// What is to be allowed first lets exactly the operator's address in, or the
// tailnet.
func TestAllow(t *testing.T) {
	c := func(client, server string) Connection {
		return Connection{netip.MustParseAddrPort(client), netip.MustParseAddrPort(server)}
	}
	for _, x := range []struct {
		name string
		c    Connection
		in   string
		from string
	}{
		{"IPv4", c("198.51.100.7:5555", "192.0.2.1:2222"), "", "198.51.100.7/32"},
		{"IPv4 in IPv6", c("[::ffff:198.51.100.7]:5555", "[::ffff:192.0.2.1]:2222"), "", "198.51.100.7/32"},
		{"IPv6", c("[2001:db8::7]:5555", "[2001:db8::1]:2222"), "", "2001:db8::7/128"},
		{"Tailscale", c("100.100.1.2:5555", "100.64.0.1:2222"), "tailscale0", ""},
		{"Tailscale, IPv6", c("[fd7a:115c:a1e0::2]:5555", "[fd7a:115c:a1e0::1]:2222"), "tailscale0", ""},
		{"just outside the tailnet's range", c("100.128.0.1:5555", "192.0.2.1:2222"), "", "100.128.0.1/32"},
	} {
		a := x.c.Allow()
		from := ""
		if len(a.From) == 1 {
			from = a.From[0].String()
		}
		if a.Protocol != firewall.TCP || a.Number != 2222 || a.In != x.in || from != x.from {
			t.Errorf("%s: %+v", x.name, a)
		}
	}
}

// The name of a process may contain what looks like the fields after it.
func TestParseStat(t *testing.T) {
	rest := " S 1 77 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 9 10"
	for _, name := range []string{"sh", "a b", ") Z 1 2 3", "x) ("} {
		p, alive, err := parseStat(77, "77 ("+name+")"+rest)
		if err != nil || !alive || p.Start != "123456" || p.session != 42 {
			t.Errorf("%q: %+v, %v, %v", name, p, alive, err)
		}
	}
	if _, alive, err := parseStat(77, "77 (sh)"+strings.Replace(rest, " S ", " Z ", 1)); err != nil || alive {
		t.Errorf("a zombie is alive: %v", err)
	}
	for _, text := range []string{"", "77 sh S 1", "77 (sh) S 1"} {
		if _, _, err := parseStat(77, text); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

// A decision is made once, by one.
func TestDecideOnce(t *testing.T) {
	dir := t.TempDir()
	if err := decide(dir, "rolled-back\n"); err != nil {
		t.Fatal(err)
	}
	if err := decide(dir, confirmedWord+"\n"); !errors.Is(err, ErrRolledBack) {
		t.Errorf("confirmed after that: %v", err)
	}
	dir = t.TempDir()
	if err := errors.Join(decide(dir, confirmedWord+"\n"), decide(dir, confirmedWord+"\n")); err != nil {
		t.Errorf("confirmed twice: %v", err)
	}
	if files, _ := filepath.Glob(dir + "/*"); !slices.Contains(files, filepath.Join(dir, decisionFile)) {
		t.Errorf("files %v", files)
	}
}

func TestJoin(t *testing.T) {
	filter := Table{Name: "filter"}
	c := Join(
		Change{What: "a", Files: []string{"/x"}, Chains: []Chain{{filter, "OWN"}, {Table{Name: "nat"}, "OWN"}}},
		Change{What: "b", Files: []string{"/x", "/y"}, Tables: []Table{filter}},
	)
	if err := c.Validate(); err != nil || len(c.Files) != 2 || len(c.Chains) != 1 || c.What != "a, b" {
		t.Errorf("%+v: %v", c, err)
	}
}

// listing is a Runner that shows what it holds and changes nothing.
type listing map[string]string

func (l listing) Run(_ context.Context, _ []byte, name string, args ...string) ([]byte, error) {
	key := strings.Join(append([]string{name}, args...), " ")
	if text, ok := l[key]; ok {
		return []byte(text), nil
	}
	return nil, &firewall.ExitError{Name: name, Code: 1, Stderr: "cat: " + key + ": No such file or directory"}
}

// A machine without UFW's list of parameters, and one with.
func TestUFWChange(t *testing.T) {
	c, err := UFW(t.Context(), listing{})
	if err != nil || len(c.Sysctls) != 0 || c.Validate() != nil {
		t.Errorf("%+v, %v", c, err)
	}
	c, err = UFW(t.Context(), listing{"cat /etc/ufw/sysctl.conf": "# x=1\n;y=2\n\nnet/ipv4/tcp_sack=1\n net.ipv4.ip_forward = 1\n"})
	if want := []string{"net/ipv4/tcp_sack", "net/ipv4/ip_forward"}; err != nil || !slices.Equal(c.Sysctls, want) {
		t.Errorf("%v, %v", c.Sysctls, err)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

// Tables of iptables whose rules iptables cannot show are not taken for empty.
func TestIncompatibleTable(t *testing.T) {
	g := &Guard{Run: listing{"iptables-nft-save": "# Table `filter' is incompatible, use 'nft' tool.\n"}}
	s := saver{g: g, dir: t.TempDir()}
	if err := s.table(t.Context(), "0", Table{Name: "filter", Flavour: NFT}, nil); err == nil || !strings.Contains(err.Error(), "cannot show") {
		t.Errorf("%v", err)
	}
}
