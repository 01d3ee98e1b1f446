package egress

import (
	"strings"
	"testing"
)

// What one lock holds stays held when another is released, on the same networks
// or in the same namespace, and whichever program keeps them.
func TestLabels(t *testing.T) {
	for name, byIPTables := range map[string][2]bool{"nftables": {}, "iptables": {true, true}, "one of either": {false, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHamlet(t)
			first, second := h.hut("first", 10), h.hut("second", 11)
			one := &Lock{Source: sourceOf(first), NetNS: h.l.Host.NetNS(), Label: "one", IPTables: byIPTables[0]}
			two := &Lock{Source: sourceOf(second, first), NetNS: h.l.Host.NetNS(), Label: "two", IPTables: byIPTables[1]}
			none := &Lock{Source: sourceOf(first, second), NetNS: h.l.Host.NetNS(), IPTables: byIPTables[1]}
			for _, l := range []*Lock{one, two, none} {
				defer l.Close()
				h.must(l.Arm(t.Context()))
			}
			if !h.reaches(first) || !h.reaches(second) {
				t.Fatal("they do not reach the host before")
			}
			_ = one.Do(t.Context()) // iptables does not close everything, it says
			_ = two.Do(t.Context())
			_ = none.Do(t.Context())
			for _, released := range []*Lock{two, none} {
				h.must(released.Release(t.Context()))
				_ = released.Refresh(t.Context()) // it is not engaged, and stays so
				if h.reaches(first) || h.reaches(second) {
					t.Fatalf("label %q was released, and with it what another holds", released.Label)
				}
			}
			// It is known by its label, whoever made it.
			other := &Lock{Source: sourceOf(first), NetNS: h.l.Host.NetNS(), Label: "one"}
			defer other.Close()
			h.must(other.Release(t.Context()))
			if !h.reaches(first) || !h.reaches(second) {
				t.Error("all are released, and they are cut off")
			}
			for _, l := range []*Lock{one, two, none} {
				h.must(l.Release(t.Context())) // what it was armed with
			}
			if rules := h.sh("nft list ruleset; iptables-save; ip6tables-save"); strings.Contains(strings.ToLower(rules), "kill-in-") || strings.Contains(rules, "hardshell_kill_") {
				t.Errorf("left behind:\n%s", rules)
			}
		})
	}
}

// A label that cannot be part of a name is refused before anything is done.
func TestLabelRefused(t *testing.T) {
	t.Parallel()
	h := newHamlet(t)
	w := h.hut("hut", 10)
	for _, label := range []string{"123456789", "in box", "Inbox", "é", "a-b", "a\nb", `a"`} {
		l := &Lock{Source: sourceOf(w), NetNS: h.l.Host.NetNS(), Label: label}
		for what, err := range map[string]error{"Arm": l.Arm(t.Context()), "Do": l.Do(t.Context()), "Refresh": l.Refresh(t.Context()), "Release": l.Release(t.Context())} {
			if err == nil || !strings.Contains(err.Error(), "1 to 8 letters and digits") {
				t.Errorf("%s of %q: %v", what, label, err)
			}
		}
	}
	if rules := h.sh("nft list ruleset"); strings.Contains(rules, "hardshell") {
		t.Errorf("%s", rules)
	}
}
