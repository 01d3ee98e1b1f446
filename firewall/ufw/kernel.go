package ufw

import (
	"fmt"
	"slices"
	"strings"
)

// A Kernel is what the kernel has of UFW, for one family.
type Kernel struct {
	// Flavour is that of the iptables which UFW runs: "nf_tables" or
	// "legacy", or empty if it has no tables at all. The other's may hold
	// rules as well.
	Flavour string

	// Active says that UFW has loaded its rules, and whether "ufw status"
	// would show it as active. It does not say that a packet meets them.
	Active bool

	// Chains says that there are chains of UFW's. They stay when it is
	// disabled; UFW adds its jumps to INPUT only when it makes them.
	Chains bool

	// Policy is that of chain INPUT, such as "DROP".
	Policy string

	// Before are the rules of chain INPUT ahead of the first that jumps to a chain of
	// UFW's, as iptables-save lists them. Tailscale puts "-j ts-input" there.
	// Packets that these accept, UFW does not see.
	Before []string

	// Jumps are UFW's chains that chain INPUT jumps to, in order, and
	// Missing those that it does not jump to and should.
	Jumps, Missing []string

	// Lost and Extra are the rules of users that the file has and the
	// kernel does not, and the reverse. Both are empty if UFW is not active.
	Lost, Extra []string
}

// inputJumps are the chains that UFW makes INPUT jump to, without "ufw-" or
// "ufw6-", in its order.
var inputJumps = []string{"before-logging-input", "before-input", "after-input", "after-logging-input", "reject-input", "track-input"}

func chainPrefix(v6 bool) string {
	if v6 {
		return "ufw6-"
	}
	return "ufw-"
}

// readKernel compares the table with the rules of the file.
func readKernel(t *filterTable, rules []Rule, v6 bool) Kernel {
	prefix := chainPrefix(v6)
	k := Kernel{Flavour: t.flavour, Policy: t.policies["INPUT"]}
	if k.Policy == "" {
		k.Policy = "ACCEPT" // what is not there accepts
	}
	_, k.Active = t.chains[prefix+"user-input"]
	_, k.Chains = t.chains[prefix+inputJumps[0]]
	k.Chains = k.Chains || k.Active

	for _, rule := range t.chains["INPUT"] {
		// Only a jump without conditions is met by every packet.
		target, ok := strings.CutPrefix(rule, "-j "+prefix)
		switch {
		case ok && slices.Contains(inputJumps, target):
			k.Jumps = append(k.Jumps, prefix+target)
		case len(k.Jumps) == 0:
			k.Before = append(k.Before, rule)
		}
	}
	if k.Chains {
		for _, name := range inputJumps {
			if !slices.Contains(k.Jumps, prefix+name) {
				k.Missing = append(k.Missing, prefix+name)
			}
		}
	}
	if k.Active {
		k.Lost, k.Extra = compareUser(t, rules, v6)
		if !slices.Contains(t.chains[prefix+"before-input"], "-j "+prefix+"user-input") {
			k.Missing = append(k.Missing, prefix+"user-input")
		}
	}
	return k
}

// InOrder reports whether chain INPUT jumps to all of UFW's chains, in UFW's
// order.
func (k Kernel) InOrder() bool {
	if len(k.Missing) > 0 || len(k.Jumps) < len(inputJumps) {
		return false
	}
	for i, name := range inputJumps {
		if !strings.HasSuffix(k.Jumps[i], "-"+name) {
			return false
		}
	}
	return true
}

// AcceptBefore returns the rules ahead of UFW's that accept every packet, or every
// new connection.
func (k Kernel) AcceptBefore() []string {
	var all []string
	for _, rule := range k.Before {
		c := canonical(rule)
		delete(c, "ctstate")
		delete(c, "state")
		if c["j"] == "ACCEPT" && len(c) == 1 && !onlyOld(rule) {
			all = append(all, rule)
		}
	}
	return all
}

// onlyOld reports whether a rule is only for packets of connections that exist.
func onlyOld(rule string) bool {
	w := words(rule)
	for i, word := range w {
		if (word == "--ctstate" || word == "--state") && i+1 < len(w) {
			negated := i > 0 && w[i-1] == "!"
			return negated == slices.Contains(strings.Split(w[i+1], ","), "NEW")
		}
	}
	return false
}

// compareUser compares the rules in UFW's user chains with what the rules of
// the file make of them, in order, chain by chain.
func compareUser(t *filterTable, rules []Rule, v6 bool) (lost, extra []string) {
	prefix := chainPrefix(v6)
	want := make(map[string][]string)
	for _, r := range rules {
		if r.V6 == v6 {
			chain := prefix + r.userChain()
			want[chain] = append(want[chain], r.compile()...)
		}
	}
	for _, kind := range []string{"user-input", "user-output", "user-forward"} {
		chain := prefix + kind
		have := t.chains[chain]
		compiled := want[chain]
		if len(have) == len(compiled) && slices.EqualFunc(compiled, have, sameRule) {
			continue
		}
		l, e := diff(compiled, have)
		for _, rule := range l {
			lost = append(lost, chain+" "+rule)
		}
		for _, rule := range e {
			extra = append(extra, chain+" "+rule)
		}
		if len(l)+len(e) == 0 {
			extra = append(extra, chain+" has its rules in another order")
		}
	}
	return lost, extra
}

// diff returns what is only in want and what is only in have, counting repeats.
func diff(want, have []string) (lost, extra []string) {
	have = slices.Clone(have)
	for _, w := range want {
		if i := slices.IndexFunc(have, func(h string) bool { return sameRule(w, h) }); i >= 0 {
			have = slices.Delete(have, i, i+1)
			continue
		}
		lost = append(lost, w)
	}
	return lost, have
}

func (r Rule) userChain() string {
	switch r.Direction {
	case Out:
		return "user-output"
	case Routed:
		return "user-forward"
	default:
		return "user-input"
	}
}

// compile returns the rules of its user chain that UFW makes of r.
func (r Rule) compile() []string {
	protos := []string{protocolName(r.Protocol)}
	if r.Protocol == 0 {
		protos = []string{""}
		if r.ToPorts != nil || r.FromPorts != nil {
			protos = []string{"tcp", "udp"}
		}
	}
	var all []string
	for _, proto := range protos {
		match := r.match(proto)
		if r.Log != "" {
			all = append(all, match+" -j "+chainPrefix(r.V6)+strings.Replace(r.userChain(), "user-", "user-logging-", 1))
		}
		switch r.Action {
		case Allow:
			all = append(all, match+" -j ACCEPT")
		case Deny:
			all = append(all, match+" -j DROP")
		case Reject:
			target := " -j REJECT"
			if proto == "tcp" {
				target += " --reject-with tcp-reset"
			}
			all = append(all, match+target)
		case Limit:
			limit := chainPrefix(r.V6) + "user-limit"
			all = append(all,
				match+" --ctstate NEW --set",
				match+" --ctstate NEW --update --seconds 30 --hitcount 6 -j "+limit,
				match+" -j "+limit+"-accept")
		}
	}
	return all
}

// match returns the conditions of r in the words of iptables.
func (r Rule) match(proto string) string {
	var b strings.Builder
	option := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, " %s %s", name, value)
		}
	}
	option("-i", r.InInterface)
	option("-o", r.OutInterface)
	option("-p", proto)
	if r.To.IsValid() {
		option("-d", r.To.String())
	}
	if r.From.IsValid() {
		option("-s", r.From.String())
	}
	ports := func(name string, p []PortRange) {
		switch {
		case p == nil:
		case len(p) == 1 && p[0].First == p[0].Last:
			option(name, portsText(p))
		default:
			option(name+"s", portsText(p))
		}
	}
	ports("--dport", r.ToPorts)
	ports("--sport", r.FromPorts)
	return strings.TrimPrefix(b.String(), " ")
}

func sameRule(a, b string) bool {
	ca, cb := canonical(a), canonical(b)
	if len(ca) != len(cb) {
		return false
	}
	for k, v := range ca {
		if w, ok := cb[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// canonical returns the options of a rule and their values, without what
// iptables-save adds to a rule, and without comments.
func canonical(rule string) map[string]string {
	c := make(map[string]string)
	w := words(rule)
	negated := ""
	for i := 0; i < len(w); i++ {
		if w[i] == "!" {
			negated = "! "
			continue
		}
		name := strings.TrimLeft(w[i], "-")
		value := ""
		for i+1 < len(w) && !strings.HasPrefix(w[i+1], "-") && w[i+1] != "!" {
			i++
			value = strings.TrimSpace(value + " " + w[i])
		}
		c[name] = negated + value
		negated = ""
	}
	for _, name := range []string{
		"m", "comment", // which match an option belongs to follows from the option
		"name", "rsource", "mask", // of recent, always the same
	} {
		delete(c, name)
	}
	switch c["reject-with"] {
	case "icmp-port-unreachable", "icmp6-port-unreachable": // what REJECT does if nothing else is said
		delete(c, "reject-with")
	}
	for _, name := range []string{"dport", "sport"} { // multiport with one port
		if v, ok := c[name+"s"]; ok && !strings.ContainsAny(v, ",:") {
			c[name] = v
			delete(c, name+"s")
		} else if v, ok := c[name]; ok && strings.Contains(v, ":") {
			c[name+"s"] = v
			delete(c, name)
		}
	}
	return c
}
