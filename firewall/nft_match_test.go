package firewall

import (
	"net/netip"
	"strings"
	"testing"
)

// Each question of nftables, to a packet that opens a connection from
// 198.51.100.7:40000 to 172.17.0.2:80 with the mark 0x15, at the hook forward.
func TestNFTMatches(t *testing.T) {
	const (
		set   = `{"set":{"name":"s","type":"x","elem":`
		flags = `{"payload":{"protocol":"tcp","field":"flags"}}`
		state = `{"ct":{"key":"state"}}`
		dport = `{"payload":{"protocol":"tcp","field":"dport"}}`
		saddr = `{"payload":{"protocol":"ip","field":"saddr"}}`
		mark  = `{"meta":{"key":"mark"}}`
		iif   = `{"meta":{"key":"iifname"}}`
	)
	for _, test := range []struct {
		name, op, left, right string
		elem                  string // of the set @s
		want                  Fate   // of a drop on a match
	}{
		{"one of several states", "in", state, `["established","new"]`, "", FateDrop},
		{"none of several states", "in", state, `["established","related"]`, "", FateAccept},
		{"not a flag", "!", state, `"established"`, "", FateDrop},
		{"not a flag, which is there", "!", state, `"new"`, "", FateAccept},
		{"another value", "!=", state, `"established"`, "", FateDrop},
		{"the same value", "!=", state, `"new"`, "", FateAccept},
		{"a set of states", "==", state, `{"set":["new","untracked"]}`, "", FateDrop},
		{"flags under a mask", "==", `{"&":[` + flags + `,["syn","ack"]]}`, `"syn"`, "", FateDrop},
		{"flags under a mask, as newer versions write it", "==", `{"&":[` + flags + `,{"|":["syn","ack"]}]}`, `"syn"`, "", FateDrop},
		{"flags that are not set", "in", flags, `["rst","ack"]`, "", FateAccept},
		{"flags that may be set", "in", flags, `"ecn"`, "", FateUnknown},
		{"exactly these flags, but for some that may be set", "==", flags, `"syn"`, "", FateUnknown},
		{"flags in a set, one of which may be set", "==", flags, `{"set":["ack",{"|":["syn","ecn"]}]}`, "", FateUnknown},
		{"a port", "==", dport, "80", "", FateDrop},
		{"another port", "!=", dport, "81", "", FateDrop},
		{"a port of another protocol", "!=", `{"payload":{"protocol":"udp","field":"dport"}}`, "81", "", FateAccept},
		{"a range", "==", dport, `{"range":[79,80]}`, "", FateDrop},
		{"not in a range", "!=", dport, `{"range":[79,80]}`, "", FateAccept},
		{"above", ">", dport, "80", "", FateAccept},
		{"at least", ">=", dport, "80", "", FateDrop},
		{"below", "<", dport, "81", "", FateDrop},
		{"at most", "<=", dport, "79", "", FateAccept},
		{"a named set", "==", dport, `"@s"`, `[22,{"range":[80,90]}]`, FateDrop},
		{"not in a named set", "!=", dport, `"@s"`, `[22,{"elem":{"val":80,"timeout":5}}]`, FateAccept},
		{"an empty set", "==", dport, `"@s"`, `[]`, FateAccept},
		{"all that is not another element", "==", dport, `"@s"`, `["*",22]`, FateDrop},
		{"a set that is not listed", "==", dport, `"@gone"`, "", FateUnknown},
		{"an element that is not a port", "==", dport, `"@s"`, `["eth0"]`, FateUnknown},
		{"a prefix", "==", saddr, `{"prefix":{"addr":"198.51.100.0","len":24}}`, "", FateDrop},
		{"a range of addresses", "==", saddr, `{"set":[{"range":["198.51.100.8","198.51.100.9"]}]}`, "", FateAccept},
		{"under a mask", "==", `{"&":[` + saddr + `,"255.0.0.255"]}`, `"198.0.0.7"`, "", FateDrop},
		{"the other family", "!=", `{"payload":{"protocol":"ip6","field":"saddr"}}`, `"2001:db8::1"`, "", FateAccept},
		{"two at once", "==", `{"concat":[` + saddr + `,` + dport + `]}`, `"@s"`, `[{"concat":[{"prefix":{"addr":"198.0.0.0","len":8}},{"range":[1,79]}]},{"concat":["198.51.100.7",80]}]`, FateDrop},
		{"two at once, one of which differs", "==", `{"concat":[` + saddr + `,` + dport + `]}`, `{"set":[{"concat":["198.51.100.7",81]}]}`, "", FateAccept},
		{"an interface", "==", iif, `"eth0"`, "", FateDrop},
		{"a name that begins so", "==", iif, `"eth*"`, "", FateDrop},
		{"a name that ends in a star", "==", iif, `"eth\\*"`, "", FateAccept},
		{"names in a set", "==", iif, `{"set":["br-*","lo"]}`, "", FateAccept},
		{"some bits of the mark", "==", `{"&":[` + mark + `,240]}`, "16", "", FateDrop},
		{"bits, set and inverted", "==", `{"^":[{"|":[` + mark + `,2]},1]}`, "22", "", FateDrop},
		{"bits, moved", "==", `{">>":[` + mark + `,4]}`, "1", "", FateDrop},
		{"a sort of address", "==", `{"fib":{"result":"type","flags":["daddr"]}}`, `"unicast"`, "", FateDrop},
		{"a sort of address in a set", "!=", `{"fib":{"result":"type","flags":"daddr"}}`, `{"set":["local","broadcast"]}`, "", FateDrop},
		{"a way back, which is not understood", "==", `{"fib":{"result":"oif","flags":["saddr","iif"]}}`, "false", "", FateUnknown},
		{"a protocol", "==", `{"meta":{"key":"l4proto"}}`, `{"set":["tcp","udp"]}`, "", FateDrop},
		{"a protocol by number", "==", `{"meta":{"key":"l4proto"}}`, `6`, "", FateDrop},
		{"a family", "!=", `{"meta":{"key":"nfproto"}}`, `"ipv6"`, "", FateDrop},
		{"whose process it is", "==", `{"meta":{"key":"skuid"}}`, "0", "", FateUnknown},
		{"the header as bits", "==", `{"payload":{"base":"nh","offset":96,"len":32}}`, "1", "", FateUnknown},
		{"an operator that does not exist", "~", dport, "80", "", FateUnknown},
	} {
		t.Run(test.name, func(t *testing.T) {
			objects := []string{nftForward}
			if test.elem != "" {
				objects = append(objects, set+test.elem+"}}")
			}
			r := mustNFT(t, append(objects, `{"rule":{"chain":"fwd","handle":3,"expr":[{"match":{"op":"`+test.op+`","left":`+test.left+`,"right":`+test.right+`}},{"drop":null}]}}`)...)
			p := toContainer
			p.Mark = 0x15
			d := r.Evaluate(fuzzRouting, p)
			if d.Fate != test.want {
				t.Errorf("%s: %v (%s), want %v", r.Tables()[0].Chain("fwd").Rules[0].Text, d.Fate, d.Why, test.want)
			}
		})
	}
}

// A rule reads as nft lists it.
func TestNFTText(t *testing.T) {
	for want, expr := range map[string]string{
		"tcp dport 8080 drop":                                   `{"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":8080}},{"drop":null}`,
		"ct state established,related accept":                   `{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":["established","related"]}},{"accept":null}`,
		"iifname != { lo, br-* } counter jump fwd":              `{"match":{"op":"!=","left":{"meta":{"key":"iifname"}},"right":{"set":["lo","br-*"]}}},{"counter":{"packets":1,"bytes":2}},{"jump":{"target":"fwd"}}`,
		"ip saddr 10.0.0.0/8 reject with tcp reset":             `{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":{"prefix":{"addr":"10.0.0.0","len":8}}}},{"reject":{"type":"tcp reset"}}`,
		"tcp dport vmap { 22 : accept, 23 : goto fwd }":         `{"vmap":{"key":{"payload":{"protocol":"tcp","field":"dport"}},"data":{"set":[[22,{"accept":null}],[23,{"goto":{"target":"fwd"}}]]}}}`,
		"dnat ip to 172.17.0.2:80":                              `{"dnat":{"family":"ip","addr":"172.17.0.2","port":80}}`,
		"meta mark set meta mark & 255 | 5":                     `{"mangle":{"key":{"meta":{"key":"mark"}},"value":{"|":[{"&":[{"meta":{"key":"mark"}},255]},5]}}}`,
		"fib daddr . iif type local ct original proto-dst 1-80": `{"match":{"op":"==","left":{"fib":{"result":"type","flags":["daddr","iif"]}},"right":"local"}},{"match":{"op":"==","left":{"ct":{"key":"proto-dst","dir":"original"}},"right":{"range":[1,80]}}}`,
	} {
		r := mustNFT(t, nftForward, `{"rule":{"chain":"fwd","handle":3,"expr":[`+expr+`]}}`)
		if got := r.Tables()[0].Chain("fwd").Rules[0].Text; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestNFTVerdictsAndMaps(t *testing.T) {
	const dport = `{"payload":{"protocol":"tcp","field":"dport"}}`
	hook := `{"chain":{"name":"pre","handle":1,"type":"nat","hook":"prerouting","prio":-100,"policy":"accept"}}`
	for _, test := range []struct {
		name, expr string
		to         string
		fate       Fate
	}{
		{"a map of addresses", `{"dnat":{"family":"ip","addr":{"map":{"key":` + dport + `,"data":{"set":[[80,"172.17.0.3"]]}}}}}`, "172.17.0.3:80", FateAccept},
		{"a map that does not have it", `{"dnat":{"family":"ip","addr":{"map":{"key":` + dport + `,"data":{"set":[[81,"172.17.0.3"]]}}}}}`, "172.17.0.2:80", FateAccept},
		{"a map of addresses and ports", `{"dnat":{"family":"ip","addr":{"map":{"key":` + dport + `,"data":{"set":[[80,{"concat":["172.17.0.3",8080]}]]}}}}}`, "172.17.0.3:8080", FateAccept},
		{"the machine itself", `{"redirect":{"port":8080}}`, "192.0.2.1:8080", FateAccept},
		{"a range of ports", `{"dnat":{"family":"ip","addr":"172.17.0.3","port":{"range":[80,90]}}}`, "", FateUnknown},
		{"an address of the other family", `{"dnat":{"family":"ip6","addr":"2001:db8::5"}}`, "172.17.0.2:80", FateAccept},
		{"a verdict", `{"vmap":{"key":` + dport + `,"data":{"set":[[80,{"drop":null}]]}}}`, "", FateDrop},
		{"a verdict that is not there", `{"vmap":{"key":` + dport + `,"data":{"set":[[81,{"drop":null}]]}}}`, "", FateAccept},
		{"a verdict of what is not known", `{"vmap":{"key":{"meta":{"key":"skuid"}},"data":{"set":[[0,{"drop":null}]]}}}`, "", FateUnknown},
		{"a statement that does not exist", `{"teleport":null}`, "", FateUnknown},
		{"nothing where a statement should be", `null`, "", FateUnknown},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := mustNFT(t, hook, `{"rule":{"chain":"pre","handle":3,"expr":[`+test.expr+`]}}`)
			d := r.Evaluate(fuzzRouting, toContainer)
			if d.Fate != test.fate || test.to != "" && d.To != netip.MustParseAddrPort(test.to) {
				t.Errorf("%v to %v (%s), want %v to %s", d.Fate, d.To, d.Why, test.fate, test.to)
			}
		})
	}
}

// nft 1.0.6 lists "meta nfproto ipv4 meta l4proto tcp reject with tcp reset"
// without the family.
func TestResetsOfOneFamily(t *testing.T) {
	const reset = `{"match":{"op":"==","left":{"meta":{"key":"l4proto"}},"right":"tcp"}},%s{"reject":{"type":"tcp reset"}}`
	for _, test := range []struct {
		name, before, after string
		want                Fate
	}{
		{"nothing said", "", "", FateUnknown},
		{"and what follows is a drop", "", `,{"rule":{"family":"inet","table":"t","chain":"fwd","handle":9,"expr":[{"drop":null}]}}`, FateDrop},
		{"a counter, before which nothing is left out", `{"counter":{"packets":0,"bytes":0}},`, "", FateReject},
		{"an address, which has a family", `{"match":{"op":"!=","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"192.0.2.7"}},`, "", FateReject},
	} {
		t.Run(test.name, func(t *testing.T) {
			rule := `{"rule":{"family":"inet","table":"t","chain":"fwd","handle":3,"expr":[` + strings.Replace(reset, "%s", test.before, 1) + `]}}`
			r, err := ParseNFT([]byte(`{"nftables":[{"table":{"family":"inet","name":"t","handle":1}},` +
				strings.Replace(nftForward, `:{`, `:{"family":"inet","table":"t",`, 1) + "," + rule + test.after + "]}"))
			if err != nil {
				t.Fatal(err)
			}
			if d := r.Evaluate(fuzzRouting, toContainer); d.Fate != test.want {
				t.Errorf("%v (%s), want %v", d.Fate, d.Why, test.want)
			}
		})
	}
}
