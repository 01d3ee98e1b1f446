package firewall

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func mustIPTables(t *testing.T, text string) *Ruleset {
	t.Helper()
	r, err := ParseIPTables("ip", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// mustNFT makes rules of one table, "inet t", of objects without family and table.
func mustNFT(t *testing.T, objects ...string) *Ruleset {
	t.Helper()
	var text strings.Builder
	text.WriteString(`{"nftables":[{"table":{"family":"inet","name":"t","handle":1}}`)
	for _, o := range objects {
		text.WriteString("," + strings.Replace(o, `:{`, `:{"family":"inet","table":"t",`, 1))
	}
	r, err := ParseNFT([]byte(text.String() + "]}"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const nftForward = `{"chain":{"name":"fwd","handle":1,"type":"filter","hook":"forward","prio":0,"policy":"accept"}}`

var toContainer = Packet{
	In: "eth0", Src: netip.MustParseAddr("198.51.100.7"), Dst: netip.MustParseAddr("172.17.0.2"),
	Protocol: TCP, SrcPort: 40000, DstPort: 80,
}

// What is not understood is followed both ways, and is of consequence only if
// the ways differ.
func TestWhatIsNotUnderstood(t *testing.T) {
	filter := func(rules string) string {
		return "*filter\n:FORWARD ACCEPT [0:0]\n:X - [0:0]\n" + rules + "COMMIT\n"
	}
	nat := func(rules string) string { return "*nat\n:PREROUTING ACCEPT [0:0]\n" + rules + "COMMIT\n" }
	for _, test := range []struct {
		name, rules string
		fate        Fate
		why         string
	}{
		{"a match before a drop", filter("-A FORWARD -m set --match-set bad src -j DROP\n"), FateUnknown, "match set"},
		{"a match before a drop, and a drop", filter("-A FORWARD -m set --match-set bad src -j DROP\n-A FORWARD -j DROP\n"), FateDrop, ""},
		{"a match before an accept, and a drop", filter("-A FORWARD -m limit --limit 3/min -j ACCEPT\n-A FORWARD -j DROP\n"), FateUnknown, "match limit"},
		{"a match before a reject, and a drop", filter("-A FORWARD -m limit --limit 3/min -j REJECT\n-A FORWARD -j DROP\n"), FateDrop, ""},
		{"a rate limit on a log", filter("-A FORWARD -m limit --limit 3/min -j LOG\n"), FateAccept, ""},
		{"a match of a rule that does not match anyway", filter("-A FORWARD -p udp -m set --match-set bad src -j DROP\n"), FateAccept, ""},
		{"an option of a match that is understood", filter("-A FORWARD -p tcp -m tcp --tcp-option 5 -j DROP\n"), FateUnknown, "--tcp-option"},
		{"an action", filter("-A FORWARD -j NFQUEUE --queue-num 0\n"), FateUnknown, "NFQUEUE"},
		{"an action after a drop", filter("-A FORWARD -j DROP\n-A FORWARD -j NFQUEUE --queue-num 0\n"), FateDrop, ""},
		{"a jump to a chain that is not there", filter("-A FORWARD -j GONE\n"), FateUnknown, "no chain GONE"},
		{"a loop, which the kernel would not have", filter("-A FORWARD -j X\n-A X -j X\n"), FateUnknown, "circle"},
		{"a translation that may be made", nat("-A PREROUTING -m set --match-set x dst -j DNAT --to-destination 172.17.0.3\n"), FateUnknown, "match set"},
		{"a translation to what it is anyway", nat("-A PREROUTING -m set --match-set x dst -j DNAT --to-destination 172.17.0.2\n"), FateAccept, ""},
		{"a translation to one of many", nat("-A PREROUTING -j DNAT --to-destination 172.17.0.2-172.17.0.9\n"), FateUnknown, "DNAT"},
		{"what the packet does not say", filter("-A FORWARD -p tcp -m tcp --tcp-flags ECE ECE -j DROP\n"), FateUnknown, "not known of the packet"},
		{"more ways than can be followed", filter(strings.Repeat("-A FORWARD -m set --match-set x src -j X\n", 40)), FateUnknown, "too many"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.name == "more ways than can be followed" {
				test.rules = strings.Replace(test.rules, "COMMIT", "-A X -j MARK --set-xmark 0x1/0x1\nCOMMIT", 1)
			}
			d := mustIPTables(t, test.rules).Evaluate(fuzzRouting, toContainer)
			if d.Fate != test.fate || !strings.Contains(d.Why, test.why) || (d.Fate == FateUnknown) != (d.Why != "") {
				t.Errorf("%v because of %q, want %v because of %q\n%v", d.Fate, d.Why, test.fate, test.why, d.Steps)
			}
			if test.why != "" && test.why != "too many" && !strings.Contains(strings.Join(stepTexts(d), "\n"), "is not understood") && !strings.Contains(d.Why, "circle") {
				t.Errorf("no step says what is not understood: %v", d.Steps)
			}
		})
	}
}

func stepTexts(d Decision) (list []string) {
	for _, s := range d.Steps {
		list = append(list, s.String())
	}
	return list
}

func TestWithoutRulesOrRouting(t *testing.T) {
	var none *Ruleset
	if d := none.Evaluate(fuzzRouting, toContainer); d.Fate != FateUnknown || d.Why == "" {
		t.Errorf("rules that were not read: %+v", d)
	}
	if d := (&Ruleset{}).Evaluate(fuzzRouting, toContainer); d.Fate != FateAccept || d.Out != "docker0" {
		t.Errorf("no rules: %+v", d)
	}
	if d := (&Ruleset{}).Evaluate(nil, toContainer); d.Fate != FateUnknown || d.Why == "" {
		t.Errorf("routing that was not read: %+v", d)
	}
	if d := (&Ruleset{}).Evaluate(fuzzRouting, Packet{}); d.Fate != FateUnknown || d.Why == "" {
		t.Errorf("no packet: %+v", d)
	}
	dropped := mustIPTables(t, "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j DROP\nCOMMIT\n")
	if d := dropped.Evaluate(nil, toContainer); d.Fate != FateDrop {
		t.Errorf("dropped before its route mattered: %+v", d)
	}
}

// A table whose listing does not tell whether it is asleep, or where it is.
func TestListingsThatLeaveThingsOut(t *testing.T) {
	const drop = `{"rule":{"chain":"fwd","handle":2,"expr":[{"drop":null}]}}`
	dormant := func(flags string) *Ruleset {
		r, err := ParseNFT([]byte(`{"nftables":[{"table":{"family":"inet","name":"t","handle":1,"flags":` + flags + `}},` +
			strings.Replace(nftForward, `:{`, `:{"family":"inet","table":"t",`, 1) + "," + strings.Replace(drop, `:{`, `:{"family":"inet","table":"t",`, 1) + "]}"))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, test := range []struct {
		flags string
		fate  Fate
	}{{`"inet"`, FateUnknown}, {`["dormant"]`, FateAccept}, {`"dormant"`, FateAccept}, {`["owner"]`, FateDrop}, {`[]`, FateDrop}} {
		if d := dormant(test.flags).Evaluate(fuzzRouting, toContainer); d.Fate != test.fate {
			t.Errorf("flags %s: %v (%s), want %v", test.flags, d.Fate, d.Why, test.fate)
		}
	}
	r := dormant(`"inet"`)
	r.addDetails([]byte("table inet t {\n\tflags dormant\n\n\tchain fwd {\n"))
	if d := r.Evaluate(fuzzRouting, toContainer); d.Fate != FateAccept {
		t.Errorf("dormant by the text: %v (%s)", d.Fate, d.Why)
	}
	r = dormant(`"inet"`)
	r.addDetails([]byte("table inet t { # progname x\n\tflags owner\n\n\tchain fwd {\n"))
	if d := r.Evaluate(fuzzRouting, toContainer); d.Fate != FateDrop {
		t.Errorf("owned by the text: %v (%s)", d.Fate, d.Why)
	}

	ingress := func() *Ruleset {
		return mustNFT(t, `{"chain":{"name":"in","handle":1,"type":"filter","hook":"ingress","prio":0,"policy":"drop"}}`)
	}
	if d := ingress().Evaluate(fuzzRouting, toContainer); d.Fate != FateUnknown {
		t.Errorf("ingress of an unknown device: %v", d.Fate)
	}
	for text, fate := range map[string]Fate{
		`device "eth0"`: FateDrop, `device "eth1"`: FateAccept, `devices = { "eth1", "eth0" }`: FateDrop, `devices = { eth1, eth2 }`: FateAccept, `device eth0`: FateDrop,
	} {
		r := ingress()
		r.addDetails([]byte("table inet t {\n\tchain in {\n\t\ttype filter hook ingress " + text + " priority filter; policy drop;\n"))
		if d := r.Evaluate(fuzzRouting, toContainer); d.Fate != fate {
			t.Errorf("ingress of %s: %v (%s), want %v", text, d.Fate, d.Why, fate)
		}
	}
}

// Rules of the bridge family may drop what a bridge passes on, and nothing else.
func TestBridgeFamily(t *testing.T) {
	routing := *fuzzRouting
	routing.Interfaces = append(routing.Interfaces, Interface{Name: "veth1", Master: "docker0"})
	r, err := ParseNFT([]byte(`{"nftables":[{"table":{"family":"bridge","name":"b","handle":1}},
{"chain":{"family":"bridge","table":"b","name":"c","handle":1,"type":"filter","hook":"forward","prio":0,"policy":"drop"}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if d := r.Evaluate(&routing, toContainer); d.Fate != FateUnknown {
		t.Errorf("to a port of a bridge: %v", d.Fate)
	}
	// A set with nothing in it matches no packet, and one that excludes nothing every packet.
	for _, test := range []struct {
		operator, elements string
		want               Fate
	}{
		{"==", `"elem":[]`, FateAccept},
		{"==", `"elem":["veth9"]`, FateUnknown},
		{"!=", `"elem":[]`, FateUnknown},
	} {
		r, err := ParseNFT([]byte(`{"nftables":[{"table":{"family":"bridge","name":"b","handle":1}},
{"set":{"family":"bridge","table":"b","name":"cut","handle":2,"type":"ifname",` + test.elements + `}},
{"chain":{"family":"bridge","table":"b","name":"c","handle":1,"type":"filter","hook":"forward","prio":0,"policy":"accept"}},
{"rule":{"family":"bridge","table":"b","chain":"c","handle":3,"expr":[{"match":{"op":"` + test.operator + `","left":{"meta":{"key":"iifname"}},"right":"@cut"}},{"drop":null}]}}]}`))
		if err != nil {
			t.Fatal(err)
		}
		if d := r.Evaluate(&routing, toContainer); d.Fate != test.want {
			t.Errorf("%s %s: %v, want %v", test.operator, test.elements, d.Fate, test.want)
		}
	}
	local := toContainer
	local.Dst = netip.MustParseAddr("192.0.2.1")
	if d := r.Evaluate(&routing, local); d.Fate != FateAccept {
		t.Errorf("to the machine: %v (%s)", d.Fate, d.Why)
	}
}

// The listings of one table are joined rule by rule.
func TestJoin(t *testing.T) {
	const chain = `{"nftables":[{"table":{"family":"ip","name":"filter","handle":1}},
{"chain":{"family":"ip","table":"filter","name":"FORWARD","handle":1,"type":"filter","hook":"forward","prio":0,"policy":"accept"}},
{"rule":{"family":"ip","table":"filter","chain":"FORWARD","handle":2,"expr":[%s]}}]}`
	const save = "# Generated by iptables-save v1.8.9 (nf_tables)\n*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD %s\nCOMMIT\n"
	const eth1 = `{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":{"set":["eth1","eth2"]}}}`
	for _, test := range []struct {
		name, nft, iptables string
		fate                Fate
	}{
		{"a match that iptables alone lists", `{"xt":{"type":"match","name":"multiport"}},{"drop":null}`, "-p tcp -m multiport --dports 80,443 -j DROP", FateDrop},
		{"the same, of other ports", `{"xt":{"type":"match","name":"multiport"}},{"drop":null}`, "-p tcp -m multiport --dports 81,443 -j DROP", FateAccept},
		{"a target that iptables alone lists", `{"xt":{"type":"target","name":"REJECT"}}`, "-j REJECT", FateReject},
		{"a native rule that iptables shows as a drop of everything", eth1 + `,{"drop":null}`, "-j DROP", FateUnknown},
		{"actions that differ", `{"accept":null}`, "-j DROP", FateUnknown},
		{"a native match that iptables cannot show, and which does not match", eth1 + `,{"xt":{"type":"match","name":"set"}},{"drop":null}`, "-i eth0 -m set --match-set x src -j DROP", FateAccept},
		{"a match that neither knows", `{"xt":{"type":"match","name":"set"}},{"drop":null}`, "-m set --match-set x src -j DROP", FateUnknown},
	} {
		t.Run(test.name, func(t *testing.T) {
			nft, err := ParseNFT([]byte(strings.Replace(chain, "%s", test.nft, 1)))
			if err != nil {
				t.Fatal(err)
			}
			ipt := mustIPTables(t, strings.Replace(save, "%s", test.iptables, 1))
			r, err := Join(nft, ipt)
			if err != nil {
				t.Fatal(err)
			}
			if tables := r.Tables(); len(tables) != 1 || tables[0].Origin != IPTablesNFT {
				t.Fatalf("tables: %v", tables)
			}
			if d := r.Evaluate(fuzzRouting, toContainer); d.Fate != test.fate {
				t.Errorf("%v (%s), want %v", d.Fate, d.Why, test.fate)
			}
			if got := r.Table(IPTablesNFT, "ip", "filter").Chain("FORWARD").Rules[0].Text; got != test.iptables {
				t.Errorf("the rule reads %q", got)
			}
		})
	}
	if _, err := Join(&Ruleset{}, nil); err == nil {
		t.Error("a part that was not read is joined")
	}
	part := mustIPTables(t, "*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n")
	if _, err := Join(part, part); err == nil {
		t.Error("a table is joined with itself")
	}
}

// Chains of equal priority in different tables have an order that is not listed.
func TestOrderThatIsNotListed(t *testing.T) {
	table := func(name, expr string) string {
		return `{"table":{"family":"inet","name":"` + name + `","handle":1}},
{"chain":{"family":"inet","table":"` + name + `","name":"c","handle":1,"type":"filter","hook":"forward","prio":0,"policy":"accept"}},
{"rule":{"family":"inet","table":"` + name + `","chain":"c","handle":2,"expr":[` + expr + `]}}`
	}
	const mark = `{"mangle":{"key":{"meta":{"key":"mark"}},"value":1}}`
	const dropMarked = `{"match":{"op":"==","left":{"meta":{"key":"mark"}},"right":1}},{"drop":null}`
	for _, test := range []struct {
		name, a, b string
		fate       Fate
	}{
		{"one drops", `{"accept":null}`, `{"drop":null}`, FateDrop},
		{"one drops, one refuses", `{"reject":null}`, `{"drop":null}`, FateDrop},
		{"both accept", `{"accept":null}`, `{"accept":null}`, FateAccept},
		{"one marks what the other drops", mark, dropMarked, FateUnknown},
		{"the other way round", dropMarked, mark, FateUnknown},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := ParseNFT([]byte(`{"nftables":[` + table("a", test.a) + "," + table("b", test.b) + "]}"))
			if err != nil {
				t.Fatal(err)
			}
			if d := r.Evaluate(fuzzRouting, toContainer); d.Fate != test.fate {
				t.Errorf("%v (%s), want %v", d.Fate, d.Why, test.fate)
			}
		})
	}
}

func TestOneTranslationIsEnough(t *testing.T) {
	chain := func(name string, prio, to string) string {
		return `{"chain":{"name":"` + name + `","handle":1,"type":"nat","hook":"prerouting","prio":` + prio + `,"policy":"accept"}},
{"rule":{"family":"inet","table":"t","chain":"` + name + `","handle":2,"expr":[{"dnat":{"family":"ip","addr":"` + to + `"}}]}}`
	}
	r := mustNFT(t, chain("late", "-90", "172.17.0.4"), chain("early", "-110", "172.17.0.3"))
	if d := r.Evaluate(fuzzRouting, toContainer); d.Fate != FateAccept || d.To.String() != "172.17.0.3:80" {
		t.Errorf("%v to %v (%s)", d.Fate, d.To, d.Why)
	}
	kept := toContainer
	kept.State, kept.NAT = StateEstablished, netip.MustParseAddrPort("172.17.0.9:81")
	if d := r.Evaluate(fuzzRouting, kept); d.Fate != FateAccept || d.To != kept.NAT {
		t.Errorf("an established connection goes to %v (%s)", d.To, d.Why)
	}
}

// What the machine sends to itself goes by lo, whichever interface has the address.
func TestToTheMachineItself(t *testing.T) {
	p := Packet{Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("172.17.0.1"), Protocol: TCP, SrcPort: 40000, DstPort: 80}
	for rules, want := range map[string]Fate{
		"*filter\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -o docker0 -j DROP\nCOMMIT\n":                                                                                              FateAccept,
		"*filter\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -o lo -j DROP\nCOMMIT\n":                                                                                                   FateDrop,
		"*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -i lo -j DROP\nCOMMIT\n":                                                                                                     FateDrop,
		"*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -i docker0 -j DROP\nCOMMIT\n":                                                                                                FateAccept,
		"*mangle\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o lo -j DROP\nCOMMIT\n":                                                                                         FateDrop,
		"*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING ! -i lo -j DROP\nCOMMIT\n":                                                                                         FateAccept,
		"*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p tcp -j DNAT --to-destination 172.17.0.2:81\nCOMMIT\n*filter\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -o docker0 -j DROP\nCOMMIT\n": FateAccept,
	} {
		if d := mustIPTables(t, rules).Evaluate(fuzzRouting, p); d.Fate != want {
			t.Errorf("%v (%s), want %v:\n%s", d.Fate, d.Why, want, rules)
		}
	}
}

// Of what has no connection, connection tracking knows the state alone.
func TestWithoutConnection(t *testing.T) {
	rule := func(table, hook, match string) string {
		return "*" + table + "\n:" + hook + " ACCEPT [0:0]\n-A " + hook + " -m conntrack " + match + " -j DROP\nCOMMIT\n"
	}
	invalid, untracked, ping := toContainer, toContainer, toContainer
	invalid.State, untracked.State = StateInvalid, StateUntracked
	ping.Protocol, ping.SrcPort, ping.DstPort = ICMP, 0, 0
	for _, test := range []struct {
		name   string
		packet Packet
		rules  string
		fate   Fate
	}{
		{"a port of what is invalid", invalid, rule("filter", "FORWARD", "--ctorigdstport 80"), FateAccept},
		{"not a port of what is invalid", invalid, rule("filter", "FORWARD", "! --ctorigdstport 81"), FateAccept},
		{"a state and a port, of which only the state counts", invalid, rule("filter", "FORWARD", "--ctstate INVALID --ctorigdstport 9"), FateDrop},
		{"the state of what is untracked", untracked, rule("filter", "FORWARD", "--ctstate UNTRACKED"), FateDrop},
		{"before connection tracking all is invalid", toContainer, rule("raw", "PREROUTING", "--ctstate INVALID"), FateDrop},
		{"before connection tracking nothing is new", toContainer, rule("raw", "PREROUTING", "--ctstate NEW"), FateAccept},
		{"a port of what has none", ping, rule("filter", "FORWARD", "--ctorigdstport 0:65535"), FateUnknown},
	} {
		if d := mustIPTables(t, test.rules).Evaluate(fuzzRouting, test.packet); d.Fate != test.fate {
			t.Errorf("%s: %v (%s), want %v", test.name, d.Fate, d.Why, test.fate)
		}
	}
}

func TestMarks(t *testing.T) {
	for _, test := range []struct {
		name, target string
		mark, want   uint32
	}{
		{"set bits of a mask", "MARK --set-xmark 0x5/0xff", 0xabcd, 0xab05},
		{"set all", "MARK --set-xmark 0x5/0xffffffff", 0xabcd, 0x5},
		{"invert", "MARK --set-xmark 0x11/0x0", 0x1, 0x10},
		{"invert, in another word", "MARK --xor-mark 0x11", 0x1, 0x10},
		{"invert what the mask leaves", "MARK --set-xmark 0x3/0x1", 0x3, 0x1},
		{"add", "MARK --or-mark 0x2", 0x1, 0x3},
		{"take away", "MARK --and-mark 0x2", 0x3, 0x2},
		{"set", "MARK --set-mark 0x2/0x1", 0x1, 0x2},
		{"remember, and set anew", "CONNMARK --save-mark --nfmask 0xf --ctmask 0xff\n-A PREROUTING -j MARK --set-xmark 0x70/0xffffffff\n-A PREROUTING -j CONNMARK --restore-mark --nfmask 0xf --ctmask 0xff", 0x25, 0x75},
	} {
		t.Run(test.name, func(t *testing.T) {
			for want, fate := range map[uint32]Fate{test.want: FateDrop, test.want + 1: FateAccept} {
				r := mustIPTables(t, fmt.Sprintf("*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j %s\n-A PREROUTING -m mark --mark %#x -j DROP\nCOMMIT\n", test.target, want))
				p := toContainer
				p.Mark = test.mark
				if d := r.Evaluate(fuzzRouting, p); d.Fate != fate {
					t.Errorf("mark %#x: %v (%s), want %v", want, d.Fate, d.Why, fate)
				}
			}
		})
	}
}

// What is tracked cannot be taken out of tracking.
func TestNotrackIsTooLate(t *testing.T) {
	const untracked = `{"rule":{"chain":"fwd","handle":3,"expr":[{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":"untracked"}},{"drop":null}]}}`
	for prio, want := range map[string]Fate{"-300": FateDrop, "-150": FateAccept} {
		invalid := toContainer
		invalid.State = StateInvalid
		r := mustNFT(t, nftForward, untracked,
			`{"chain":{"name":"pre","handle":4,"type":"filter","hook":"prerouting","prio":`+prio+`,"policy":"accept"}}`,
			`{"rule":{"chain":"pre","handle":5,"expr":[{"notrack":null}]}}`)
		if d := r.Evaluate(fuzzRouting, toContainer); d.Fate != want {
			t.Errorf("notrack at %s: %v (%s), want %v", prio, d.Fate, d.Why, want)
		}
		if d := r.Evaluate(fuzzRouting, invalid); d.Fate != FateDrop {
			t.Errorf("notrack at %s of what has no connection: %v (%s), want drop", prio, d.Fate, d.Why)
		}
	}
}
