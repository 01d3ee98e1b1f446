package firewall_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/firewall"
)

func pfx(texts ...string) (out []netip.Prefix) {
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func tcp(n uint16) firewall.Port { return firewall.Port{Protocol: firewall.TCP, Number: n} }

// sample uses every field.
func sample() firewall.Policy {
	return firewall.Policy{
		Allow: []firewall.Allow{
			{Port: tcp(8083)},
			{Port: tcp(443), From: pfx("192.0.2.0/24", "2001:db8::/32"), In: "tailscale0"},
		},
		Networks: []firewall.Network{
			{Name: "bridge", Interface: "docker0", Prefixes: pfx("172.17.0.0/16", "fd00:d0c::/64")},
			{Name: "agents", Interface: "br-0123456789ab", Prefixes: pfx("172.30.0.0/24")},
		},
		Published: []firewall.Port{tcp(8080), tcp(8083), {Protocol: firewall.UDP, Number: 53}},
		Others:    []string{"br-lan"},
		Strict:    true,
	}
}

func TestValidate(t *testing.T) {
	if err := sample().Validate(); err != nil {
		t.Error(err)
	}
	if err := (firewall.Policy{}).Validate(); err != nil {
		t.Error("the zero policy:", err)
	}
	for name, test := range map[string]struct {
		change func(*firewall.Policy)
		want   string
	}{
		"port 0":                           {func(p *firewall.Policy) { p.Allow[0].Number = 0 }, "allow 1 (tcp 0): port 0"},
		"a protocol without ports":         {func(p *firewall.Policy) { p.Published[2].Protocol = firewall.ICMP }, "published 3 (icmp 53): protocol icmp"},
		"no protocol":                      {func(p *firewall.Policy) { p.Allow[0].Protocol = 0 }, "protocol 0"},
		"the zero prefix":                  {func(p *firewall.Policy) { p.Allow[1].From[0] = netip.Prefix{} }, "allow 2 (tcp 443): from: the zero prefix"},
		"IPv4 in IPv6":                     {func(p *firewall.Policy) { p.Allow[1].From[0] = pfx("::ffff:192.0.2.1/128")[0] }, "write it as IPv4"},
		"a network of every address":       {func(p *firewall.Policy) { p.Networks[0].Prefixes[0] = pfx("0.0.0.0/0")[0] }, "network 1 (bridge): 0.0.0.0/0 is every address"},
		"no interface":                     {func(p *firewall.Policy) { p.Networks[0].Interface = "" }, "want 1 to 15 bytes"},
		"an interface of 16 bytes":         {func(p *firewall.Policy) { p.Networks[0].Interface = strings.Repeat("a", 16) }, "want 1 to 15 bytes"},
		"a wildcard of nft":                {func(p *firewall.Policy) { p.Networks[0].Interface = "br-*" }, `interface "br-*"`},
		"a wildcard of iptables":           {func(p *firewall.Policy) { p.Allow[1].In = "eth+" }, `interface "eth+"`},
		"a negation":                       {func(p *firewall.Policy) { p.Allow[1].In = "!eth0" }, `interface "!eth0"`},
		"an option":                        {func(p *firewall.Policy) { p.Allow[1].In = "-j" }, `interface "-j"`},
		"a quote":                          {func(p *firewall.Policy) { p.Networks[0].Interface = `a"accept` }, "interface"},
		"loopback as a network":            {func(p *firewall.Policy) { p.Networks[0].Interface = "lo" }, "lo is no network"},
		"an interface that is both":        {func(p *firewall.Policy) { p.Others = []string{"docker0"} }, "it cannot be both"},
		"an other that nobody would think": {func(p *firewall.Policy) { p.Others = []string{"eth0"} }, "nobody takes eth0"},
	} {
		t.Run(name, func(t *testing.T) {
			p := sample()
			test.change(&p)
			err := p.Validate()
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "firewall: policy: ") {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
	p := sample()
	p.Allow[0].Number, p.Networks[0].Interface = 0, ""
	if err := p.Validate(); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("two mistakes: %v", err)
	}
}

// shuffled says the same as p in another way.
func shuffled(r *rand.Rand, p firewall.Policy) firewall.Policy {
	shuffle := func(n int, swap func(i, j int)) { r.Shuffle(n, swap) }
	p.Allow, p.Networks = slices.Clone(p.Allow), slices.Clone(p.Networks)
	p.Published, p.Others = slices.Repeat(p.Published, 2), slices.Repeat(p.Others, 2)
	for i := range p.Allow {
		from := p.Allow[i].From
		if len(from) > 0 { // in halves, and a part of it once more
			from = slices.Clone(from)
			half := netip.PrefixFrom(from[0].Addr(), from[0].Bits()+1)
			other := half.Addr().AsSlice()
			other[from[0].Bits()/8] |= 0x80 >> (from[0].Bits() % 8)
			a, _ := netip.AddrFromSlice(other)
			from = append(from[1:], half, netip.PrefixFrom(a, half.Bits()), netip.PrefixFrom(a, half.Bits()+3))
		}
		p.Allow[i].From = from
	}
	p.Allow = append(p.Allow, p.Allow...)
	// What anyone may, those may too.
	p.Allow = append(p.Allow, firewall.Allow{Port: tcp(8083), From: pfx("192.0.2.7/32")}, firewall.Allow{Port: tcp(8083), In: "eth7"})
	p.Networks = append(p.Networks, p.Networks[0])
	shuffle(len(p.Allow), func(i, j int) { p.Allow[i], p.Allow[j] = p.Allow[j], p.Allow[i] })
	shuffle(len(p.Networks), func(i, j int) { p.Networks[i], p.Networks[j] = p.Networks[j], p.Networks[i] })
	shuffle(len(p.Published), func(i, j int) { p.Published[i], p.Published[j] = p.Published[j], p.Published[i] })
	return p
}

// Policies that permit the same have the same canonical form, which permits it too.
func TestCanonical(t *testing.T) {
	want := sample().Canonical()
	if got := want.Canonical(); !reflect.DeepEqual(got, want) {
		t.Errorf("canonical twice is\n%+v, once\n%+v", got, want)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		p := shuffled(r, sample())
		before := fmt.Sprint(p)
		if got := p.Canonical(); !reflect.DeepEqual(got, want) {
			t.Fatalf("canonical of\n%+v is\n%+v, want\n%+v", p, got, want)
		}
		if fmt.Sprint(p) != before {
			t.Fatal("Canonical has changed what it was given")
		}
	}
	for name, other := range map[string]func(*firewall.Policy){
		"an allowance less":     func(p *firewall.Policy) { p.Allow = p.Allow[1:] },
		"another interface":     func(p *firewall.Policy) { p.Allow[1].In = "" },
		"more senders":          func(p *firewall.Policy) { p.Allow[1].From = append(p.Allow[1].From, pfx("198.51.100.0/24")...) },
		"any sender":            func(p *firewall.Policy) { p.Allow[1].From = nil },
		"a network less":        func(p *firewall.Policy) { p.Networks = p.Networks[:1] },
		"a published port less": func(p *firewall.Policy) { p.Published = p.Published[1:] },
		"no others":             func(p *firewall.Policy) { p.Others = nil },
		"not strict":            func(p *firewall.Policy) { p.Strict = false },
	} {
		p := sample()
		other(&p)
		if reflect.DeepEqual(p.Canonical(), want) {
			t.Errorf("%s makes no difference", name)
		}
	}
}

// The canonical prefixes hold the same addresses, and there are never more of them.
func FuzzCanonicalPrefixes(f *testing.F) {
	f.Add([]byte{10, 0, 8, 10, 128, 9, 10, 0, 9}, byte(10), byte(1))
	f.Add([]byte{0, 0, 0}, byte(0), byte(0))
	f.Fuzz(func(t *testing.T, data []byte, x, y byte) {
		var all []netip.Prefix
		for c := range slices.Chunk(data, 3) {
			if len(c) == 3 {
				all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{c[0], c[1], x, y}), int(c[2])%33))
			}
		}
		got := firewall.Policy{Networks: []firewall.Network{{Interface: "a", Prefixes: all}}}.Canonical().Networks[0].Prefixes
		in := func(set []netip.Prefix, a netip.Addr) bool {
			return slices.ContainsFunc(set, func(p netip.Prefix) bool { return p.Contains(a) })
		}
		for i, p := range got {
			if p != p.Masked() || i > 0 && (got[i-1].Overlaps(p) || !got[i-1].Addr().Less(p.Addr())) {
				t.Fatalf("%v of %v is not canonical", got, all)
			}
		}
		probe := []netip.Addr{netip.AddrFrom4([4]byte{x, y, x, y}), netip.AddrFrom4([4]byte{255, 255, 255, 255}), netip.AddrFrom4([4]byte{})}
		for _, p := range append(slices.Clone(all), got...) {
			probe = append(probe, p.Masked().Addr(), p.Masked().Addr().Prev(), p.Addr().Next())
		}
		for _, a := range probe {
			if in(all, a) != in(got, a) {
				t.Fatalf("%v: %v in %v, %v in %v", a, in(all, a), all, in(got, a), got)
			}
		}
		if len(got) > len(all) {
			t.Fatalf("%v has become %v", all, got)
		}
	})
}

func TestPolicyJSON(t *testing.T) {
	data, err := json.Marshal(sample())
	if err != nil {
		t.Fatal(err)
	}
	p, err := firewall.ParsePolicy(data)
	if err != nil || !reflect.DeepEqual(p, sample().Canonical()) {
		t.Errorf("%+v, %v", p, err)
	}
	again, err := json.Marshal(shuffled(rand.New(rand.NewPCG(3, 4)), sample()))
	if err != nil || string(again) != string(data) {
		t.Errorf("the same policy is %s\nand %s, %v", data, again, err)
	}
	empty, err := json.Marshal(firewall.Policy{})
	if want := `{"schema":"hardshell.exposure/v1","allow":[],"networks":[],"published":[]}`; string(empty) != want || err != nil {
		t.Errorf("%s, %v, want %s", empty, err, want)
	}
}

func TestParsePolicyIsStrict(t *testing.T) {
	const good = `{"schema":"hardshell.exposure/v1","allow":[{"protocol":"tcp","port":80}],"networks":[],"published":[]}`
	if _, err := firewall.ParsePolicy([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"nothing":                   "",
		"half of it":                good[:len(good)/2],
		"something behind":          good + "{}",
		"null":                      "null",
		"an array":                  "[]",
		"no schema":                 strings.Replace(good, `"schema":"hardshell.exposure/v1",`, "", 1),
		"a later schema":            strings.Replace(good, "v1", "v2", 1),
		"a misspelt field":          strings.Replace(good, `"networks"`, `"network"`, 1),
		"a field too many":          strings.Replace(good, `"allow"`, `"deny":[],"allow"`, 1),
		"an unknown field within":   strings.Replace(good, `"port"`, `"sport":1,"port"`, 1),
		"a missing list":            strings.Replace(good, `,"published":[]`, "", 1),
		"a list that is null":       strings.Replace(good, `"networks":[]`, `"networks":null`, 1),
		"a port that is too large":  strings.Replace(good, "80", "65536", 1),
		"a port that is none":       strings.Replace(good, "80", "0", 1),
		"a protocol that is none":   strings.Replace(good, "tcp", "http", 1),
		"a protocol without ports":  strings.Replace(good, "tcp", "icmp", 1),
		"a port without a protocol": strings.Replace(good, `"protocol":"tcp",`, "", 1),
	} {
		if p, err := firewall.ParsePolicy([]byte(bad)); err == nil || !reflect.DeepEqual(p, firewall.Policy{}) {
			t.Errorf("%s: %s is read as %+v, %v", name, bad, p, err)
		} else if !strings.HasPrefix(err.Error(), "firewall: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is read is valid, canonical, and the same when it is written and read again.
func FuzzParsePolicy(f *testing.F) {
	data, err := json.Marshal(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"schema":"hardshell.exposure/v1","allow":[],"networks":[],"published":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := firewall.ParsePolicy(data)
		if err != nil {
			return
		}
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		out, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		again, err := firewall.ParsePolicy(out)
		if err != nil || !reflect.DeepEqual(again, p) {
			t.Fatalf("%s became %+v, %v, was %+v", out, again, err, p)
		}
	})
}

func TestSavedPolicyIsRestored(t *testing.T) {
	name := filepath.Join(t.TempDir(), "policy.json")
	for range 2 { // anew, and in place of an older one
		if err := firewall.SavePolicy(name, sample()); err != nil {
			t.Fatal(err)
		}
	}
	k := &kept{}
	p, err := firewall.Restore(t.Context(), name, k)
	if err != nil || !reflect.DeepEqual(p, sample().Canonical()) || !reflect.DeepEqual(*k.policy, p) {
		t.Errorf("restored %+v, %v", p, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(name)); err != nil || len(entries) != 1 {
		t.Errorf("SavePolicy left %v, %v", entries, err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
		t.Errorf("others may read or write it: %v, %v", info.Mode(), err)
	}
}

func TestRestoreFailsRatherThanGuesses(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "policy.json")
	k := &kept{}
	if _, err := firewall.Restore(t.Context(), name, k); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(name, []byte(`{"schema":"hardshell.exposure/v1","allow":[`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := firewall.Restore(t.Context(), name, k); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("half a file: %v", err)
	}
	if _, err := firewall.Restore(t.Context(), dir, k); err == nil {
		t.Error("a directory was read")
	}
	if k.applied > 0 {
		t.Error("something was applied")
	}
	p := sample()
	p.Allow[0].Number = 0
	if err := firewall.SavePolicy(name, p); err == nil {
		t.Error("an invalid policy was saved")
	}
	if err := firewall.SavePolicy(name, sample()); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	if _, err := firewall.Restore(t.Context(), name, &kept{failing: broken}); !errors.Is(err, broken) {
		t.Errorf("a backend that fails: %v", err)
	}
}

// Several backends keep a policy together or, as far as they can, not at all.
func TestBackends(t *testing.T) {
	broken := errors.New("broken")
	first, second := &kept{}, &kept{}
	both := firewall.Backends(first, second)
	if both.Name() != "memory+memory" {
		t.Error(both.Name())
	}
	old, changed := sample(), sample()
	changed.Allow = nil
	if err := both.Apply(t.Context(), old); err != nil || first.policy == nil || second.policy == nil {
		t.Fatal(err)
	}
	second.failing = broken
	if err := both.Apply(t.Context(), changed); !errors.Is(err, broken) || !reflect.DeepEqual(*first.policy, old.Canonical()) {
		t.Errorf("after a failure of the second the first has %+v, %v", first.policy, err)
	}
	if _, err := both.Drift(t.Context(), old); !errors.Is(err, broken) {
		t.Errorf("Drift hides an error: %v", err)
	}
	if err := both.Remove(t.Context()); !errors.Is(err, broken) || first.policy != nil {
		t.Errorf("Remove stops at an error: %v", err)
	}
	second.failing = nil
	second.drift = []string{"x"}
	if lines, err := both.Drift(t.Context(), old); err != nil || !slices.Equal(lines, []string{"memory: nothing is applied", "memory: x", "memory: nothing is applied"}) {
		t.Errorf("%q, %v", lines, err)
	}
	applied := first.applied
	if err := both.Apply(t.Context(), firewall.Policy{Others: []string{"x"}}); err == nil || first.applied != applied {
		t.Errorf("an invalid policy reached a backend: %v", err)
	}

	// Nobody knows what they kept before: to take away would be to open.
	first, second = &kept{}, &kept{failing: broken}
	err := firewall.Backends(first, second).Apply(t.Context(), old)
	if !errors.Is(err, broken) || first.policy == nil || !strings.Contains(err.Error(), "memory keeps the new policy") {
		t.Errorf("%v, the first has %v", err, first.policy)
	}
	none := firewall.Backends()
	if _, err := none.Drift(t.Context(), old); err == nil || none.Apply(t.Context(), old) == nil {
		t.Error("no backend at all keeps a policy")
	}
}
