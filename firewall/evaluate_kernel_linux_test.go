package firewall

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// packetsPerRuleset is how many packets meet a random rule set.
const packetsPerRuleset = 200

// TestEvaluateAgainstKernel sends random packets through random rules of all
// kinds at once, in the kernel and in the evaluator. Where the evaluator has an
// answer it must be the kernel's.
//
// HARDSHELL_EVALUATE_PAIRS says how many pairs of rule set and packet, and
// HARDSHELL_EVALUATE_SEED repeats a run.
func TestEvaluateAgainstKernel(t *testing.T) {
	pairs := 10500
	if testing.Short() {
		pairs = 1500
	}
	if n, err := strconv.Atoi(os.Getenv("HARDSHELL_EVALUATE_PAIRS")); err == nil {
		pairs = n
	}
	seed := uint64(time.Now().UnixNano())
	if n, err := strconv.ParseUint(os.Getenv("HARDSHELL_EVALUATE_SEED"), 10, 64); err == nil {
		seed = n
	}
	_, err := exec.LookPath("iptables-legacy-restore")
	legacy := err == nil

	g := &generator{Rand: rand.New(rand.NewPCG(seed, 1))}
	tally := make(map[string]int)
	var w *world
	for done, round := 0, 0; done < pairs; round++ {
		if w == nil || g.next > 20000 { // before the connections' ports repeat
			w = newWorld(t)
			g.next = 0
		}
		done += kernelRound(t, w, g, legacy, tally, fmt.Sprintf("seed %d, round %d", seed, round))
		if t.Failed() {
			return
		}
	}
	t.Logf("seed %d: %d pairs, of %v", seed, pairs, tally)
	if tally["unknown"] > pairs/4 {
		t.Errorf("%d of %d pairs are unknown: that proves little", tally["unknown"], pairs)
	}
}

// ruleText is what a round loads, by the program that loads it.
type ruleText struct{ program, text string }

func (g *generator) ruleset(legacy bool) []ruleText {
	mode := g.IntN(8)
	text := []ruleText{{"nft", "flush ruleset\n"}}
	if mode&1 != 0 || mode == 0 {
		text = append(text, ruleText{"iptables-nft-restore", g.iptables(false)}, ruleText{"ip6tables-nft-restore", g.iptables(true)})
	}
	if mode&2 != 0 {
		text[0].text += g.nft()
	}
	if legacy {
		four, six := emptyTables, emptyTables
		if mode&4 != 0 {
			four, six = g.iptables(false), g.iptables(true)
		}
		text = append(text, ruleText{"iptables-legacy-restore", four}, ruleText{"ip6tables-legacy-restore", six})
	}
	return text
}

const emptyTables = "*raw\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\nCOMMIT\n" +
	"*mangle\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\nCOMMIT\n" +
	"*nat\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\nCOMMIT\n" +
	"*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\nCOMMIT\n"

// keepTable keeps connection tracking and translation on duty, whatever the
// random rules are: without a rule that needs them the kernel has neither.
const keepTable = `table inet keep {
	chain pre { type nat hook prerouting priority 20; policy accept; }
	chain post { type nat hook postrouting priority 120; policy accept; }
	chain on { type filter hook forward priority 300; policy accept; ct state invalid counter; }
}
`

// introduction translates some connections, both ways.
const introduction = "flush ruleset\n" + keepTable + `table ip intro {
	chain pre { type nat hook prerouting priority -100; policy accept;
		tcp dport 8085 dnat to 172.17.0.2:8080
		udp dport { 53, 80 } dnat to 172.17.0.3
		tcp dport 443 redirect to :80
		udp dport 443 redirect to :80
	}
	chain post { type nat hook postrouting priority 100; policy accept; oifname "eth0" ip saddr 172.17.0.0/16 masquerade; }
}
table ip6 intro {
	chain pre { type nat hook prerouting priority -100; policy accept;
		tcp dport 8085 dnat to [fd00:d0c::2]:8080
		udp dport 53 dnat to fd00:d0c::3
	}
	chain post { type nat hook postrouting priority 100; policy accept; oifname "eth0" ip6 saddr fd00:d0c::/64 masquerade; }
}
`

// A shot is a packet, and how to send it.
type shot struct {
	Packet
	id    uint32
	flags byte
}

// conversations has connections made, and answered, and returns the packets
// that come next in each, of both directions.
func (w *world) conversations(g *generator, legacy bool, n int) ([]shot, error) {
	for _, text := range []ruleText{{"nft", introduction}, {"iptables-legacy-restore", emptyTables}, {"ip6tables-legacy-restore", emptyTables}} {
		if text.program == "nft" || legacy {
			if err := w.load(&text); err != nil {
				return nil, err
			}
		}
	}
	if _, err := w.collect(); err != nil {
		return nil, err
	}
	var first []shot
	for len(first) < n {
		p, id := g.packet()
		if p.In == "" || p.State != StateNew || p.Protocol != TCP && p.Protocol != UDP {
			continue
		}
		first = append(first, shot{p, id, tcpSYN})
		if err := w.send(p, id, tcpSYN); err != nil {
			return nil, err
		}
	}
	seen, err := w.collect()
	if err != nil {
		return nil, err
	}
	var next []shot
	for _, f := range first {
		s := seen[f.id]
		if s.fate != FateAccept {
			return nil, fmt.Errorf("%v: %v before any rule", f.Packet, s)
		}
		if s.local && f.Protocol == TCP {
			continue // the machine ends it
		}
		g.next++
		answer := Packet{
			In: s.out, Src: s.to.Addr(), SrcPort: s.to.Port(), Dst: s.from.Addr(), DstPort: s.from.Port(),
			Protocol: f.Protocol, State: StateEstablished, Reply: true,
		}
		if asked := netip.AddrPortFrom(f.Src, f.SrcPort); asked != s.from {
			answer.NAT = asked
		}
		if err := w.send(answer, g.next, tcpSYN|tcpACK); err != nil {
			return nil, err
		}
		again := f.Packet
		again.State = StateEstablished
		if s.to != netip.AddrPortFrom(f.Dst, f.DstPort) {
			again.NAT = s.to
		}
		next = append(next, shot{again, g.next + 1, flagsOf(again)}, shot{answer, g.next + 2, flagsOf(answer)})
		g.next += 2
	}
	_, err = w.collect()
	return next, err
}

func kernelRound(t *testing.T, w *world, g *generator, legacy bool, tally map[string]int, name string) int {
	t.Helper()
	g.quiet = g.chance(50)
	loaded := g.ruleset(legacy)
	var rules *Ruleset
	var routing *Routing
	var seen map[uint32]sighting
	var shots []shot
	var err error
	w.do(func() {
		if g.chance(40) {
			if shots, err = w.conversations(g, legacy, packetsPerRuleset/4); err != nil {
				return
			}
			loaded[0].text = strings.Replace(loaded[0].text, "flush ruleset\n", "flush ruleset\n"+keepTable, 1)
		}
		for i := range loaded {
			if err = w.load(&loaded[i]); err != nil {
				return
			}
		}
		if routing, err = ReadRouting(t.Context(), Programs{}); err != nil {
			return
		}
		if rules, err = Read(t.Context(), Programs{}); err != nil {
			return
		}
		if _, err = w.collect(); err != nil { // what is left over
			return
		}
		for len(shots) < packetsPerRuleset {
			p, id := g.packet()
			shots = append(shots, shot{p, id, flagsOf(p)})
		}
		for _, s := range shots {
			if e := w.send(s.Packet, s.id, s.flags); e != nil && s.In != "" {
				err = fmt.Errorf("%v: %w", s, e)
				return
			}
		}
		seen, err = w.collect()
	})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	wrong := 0
	for _, p := range shots {
		d := rules.Evaluate(routing, p.Packet)
		tally[d.Fate.String()]++
		tally[p.State.String()]++
		if why := disagreement(d, seen[p.id], p.Packet, g.quiet); why != "" {
			if wrong++; wrong > 1 {
				continue // one is enough to look at
			}
			var b strings.Builder
			for _, s := range d.Steps {
				fmt.Fprintf(&b, "  %s %v\n", s.Hook, s)
			}
			for _, text := range loaded {
				fmt.Fprintf(&b, "--- %s\n%s", text.program, text.text)
			}
			t.Errorf("%s: %+v: %s\nevaluated: %v to %v, local %v, out %q\nkernel: %v\n%s", name, p.Packet, why, d.Fate, d.To, d.Local, d.Out, seen[p.id], &b)
		}
	}
	if wrong > 1 {
		t.Errorf("%d more packets of the round disagree", wrong-1)
	}
	return len(shots)
}

var badLine = regexp.MustCompile(`(?m)(?:^/dev/stdin:|line:? )(\d+)`)

// load has a program load its rules, without those that it says make no sense.
func (w *world) load(text *ruleText) error {
	args := []string{"-f", "-"}
	if text.program != "nft" {
		args = nil
	}
	for {
		out, err := w.tool(text.text, text.program, args...)
		if err == nil {
			return nil
		}
		lines := strings.Split(text.text, "\n")
		bad := badLine.FindAllStringSubmatch(out, -1)
		for _, m := range bad {
			n, _ := strconv.Atoi(m[1])
			if line := lines[n-1]; strings.HasPrefix(line, "-A") || strings.HasPrefix(line, "\t\t") && !strings.Contains(line, " hook ") {
				lines[n-1] = ""
			} else {
				bad = nil
			}
		}
		if len(bad) == 0 {
			return fmt.Errorf("%w\n%s", err, text.text)
		}
		text.text = strings.Join(lines, "\n")
	}
}

// disagreement says how a decision differs from what the kernel did.
func disagreement(d Decision, s sighting, p Packet, quiet bool) string {
	if s.fate == FateUnknown { // nothing was seen of it
		s.fate = FateDrop
	}
	switch {
	case d.Fate == FateUnknown:
		if d.Why == "" {
			return "unknown without a reason"
		}
		return ""
	case d.Fate.Closed() && s.fate.Closed() && (p.In == "" || !quiet || strings.Contains(fmt.Sprint(d.Steps), "not understood")):
		return "" // a refusal is not seen where the machine sends to itself, or the rules stop it
	case d.Fate != s.fate:
		return "another fate"
	case d.Fate == FateAccept && (d.Local != s.local || !s.local && d.Out != s.out):
		return "another way"
	case d.Fate == FateAccept && d.To != s.to:
		return "another end"
	}
	return ""
}
