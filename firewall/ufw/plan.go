package ufw

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/firewall"
)

// A Wish is what a firewall should be: enabled, for both families, denying all
// that comes in except what is listed.
type Wish struct {
	// Allow lists what may come in. Put what the operator's connection needs
	// first. The zero Port is every port of every protocol; it needs an
	// interface or senders, since the rule would otherwise admit everything.
	// SCTP is beyond UFW.
	Allow []firewall.Allow

	// Remove lists rules of the user's to delete, such as one of
	// [Plan.Broader]. UFW deletes a rule without addresses from both families.
	Remove []Rule
}

// A StepKind says what a [Step] does.
type StepKind int

// Kinds of steps.
const (
	StepManageIPv6 StepKind = iota + 1 // edits /etc/default/ufw
	StepNotLoaded                      // edits /etc/ufw/ufw.conf to say what is so: UFW adds no rules to chains that are not there
	StepAllow                          // adds a rule
	StepRemove                         // deletes a rule
	StepDefaultDeny
	StepEnable
	StepReload
)

// A Step is one command, and what it is for.
type Step struct {
	Kind    StepKind
	Command []string // the program and its arguments; no shell is involved

	// Rules are what the file must have after StepAllow, and must not after
	// StepRemove.
	Rules []Rule
}

// String returns the step as an operator would type it.
func (s Step) String() string {
	quoted := make([]string, len(s.Command))
	for i, word := range s.Command {
		quoted[i] = word
		if word == "" || strings.ContainsAny(word, " \t\n'\"\\$&|;<>()*?[]#~`^/.") && strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:/,=%@+") != "" {
			quoted[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// A Plan is the steps from a [State] to a [Wish], in an order in which no step
// cuts off what is allowed: rules first, then the default, then enabling. It is
// plain data. A plan without steps has nothing to do.
type Plan struct {
	Steps []Step

	// Broader are the rules of incoming packets that admit more than was
	// wished. They are left alone unless the Wish lists them in Remove.
	Broader []Rule
}

// A JumpsError reports that UFW's chains exist and chain INPUT does not jump to
// all of them. UFW adds the jumps only when it makes the chains: enabling or
// reloading it in this state drops every packet, whatever is allowed.
type JumpsError struct {
	V6      bool
	Missing []string
}

func (e *JumpsError) Error() string {
	program := "iptables"
	if e.V6 {
		program = "ip6tables"
	}
	return fmt.Sprintf("ufw: %s: chain INPUT does not jump to %s, so that enabling or reloading UFW would drop everything: "+
		"add the jumps (%s -A INPUT -j CHAIN, in the order %s), or run /lib/ufw/ufw-init flush-all, which removes the rules of Docker and others too, and restart those",
		program, strings.Join(e.Missing, ", "), program, strings.Join(inputJumps, ", "))
}

// A DeniedError reports that what is to be allowed is denied by a rule that
// comes first.
type DeniedError struct {
	Allow firewall.Allow
	By    Rule
}

func (e *DeniedError) Error() string {
	return fmt.Sprintf("ufw: rule %q denies what is to be allowed (%s), and comes first: list it in Wish.Remove, or delete it by: ufw %s",
		e.By, allowText(e.Allow), strings.Join(e.By.DeleteSpec(), " "))
}

func allowText(a firewall.Allow) string {
	rules, err := allowRules(a, true)
	if err != nil || len(rules) == 0 {
		return fmt.Sprintf("%v/%v", a.Number, a.Protocol)
	}
	return rules[0].String()
}

// allowRules returns the rules that a stands for, by family, IPv4 first. Those
// of IPv6 are left out unless v6.
func allowRules(a firewall.Allow, v6 bool) ([]Rule, error) {
	base := Rule{Action: Allow, Protocol: a.Protocol, InInterface: a.In}
	switch {
	case a.Number == 0 && a.Protocol == 0:
		if a.In == "" && len(a.From) == 0 {
			return nil, fmt.Errorf("ufw: to allow everything from everyone is to have no firewall: name an interface or senders")
		}
	case a.Protocol != firewall.TCP && a.Protocol != firewall.UDP:
		return nil, fmt.Errorf("ufw: port %d: UFW has rules for ports of TCP and UDP only, not of %v", a.Number, a.Protocol)
	case a.Number == 0:
		return nil, fmt.Errorf("ufw: no port of %v is given", a.Protocol)
	default:
		base.ToPorts = []PortRange{{a.Number, a.Number}}
	}
	if a.In != "" && !validInterface(a.In) {
		return nil, fmt.Errorf("ufw: UFW does not accept the interface name %q", a.In)
	}
	from := a.From
	if len(from) == 0 {
		from = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	}
	var rules []Rule
	for _, p := range from {
		if !p.IsValid() || p.Addr().Zone() != "" || p.Addr().Is4In6() {
			return nil, fmt.Errorf("ufw: senders %v are not a range of IPv4 or IPv6 addresses", p)
		}
		r := base
		r.V6 = p.Addr().Is6()
		if p.Bits() > 0 {
			r.From = p.Masked()
		}
		if r.V6 && !v6 {
			continue
		}
		rules = append(rules, r)
	}
	slices.SortStableFunc(rules, func(a, b Rule) int { return cmp.Compare(familyOf(a), familyOf(b)) })
	return rules, nil
}

func familyOf(r Rule) int {
	if r.V6 {
		return 6
	}
	return 4
}

// Plan returns the steps to w. The error wraps or is a [*JumpsError] or a
// [*DeniedError] where the steps would not lead there.
func (s *State) Plan(w Wish) (*Plan, error) {
	if !s.Installed {
		return nil, fmt.Errorf("ufw: it is not installed: install the package ufw")
	}
	for _, k := range []struct {
		Kernel
		v6 bool
	}{{s.V4, false}, {s.V6, true}} {
		if missing := slices.DeleteFunc(slices.Clone(k.Missing), func(c string) bool { return strings.HasSuffix(c, "-user-input") }); len(missing) > 0 {
			return nil, &JumpsError{V6: k.v6, Missing: missing}
		}
	}
	p := &Plan{}
	add := func(kind StepKind, rules []Rule, command ...string) {
		p.Steps = append(p.Steps, Step{kind, command, rules})
	}
	if !s.IPv6 {
		add(StepManageIPv6, nil, "sed", "-i", "-E", `s/^IPV6=.*/IPV6=yes/`, "/"+defaultsFile)
	}
	reload := func() { add(StepReload, nil, "ufw", "reload") }
	switch loaded := s.V4.Active && (s.V6.Active || !s.IPv6); {
	case s.Enabled && !s.V4.Active:
		add(StepNotLoaded, nil, "sed", "-i", "-E", `s/^ENABLED=.*/ENABLED=no/`, "/"+confFile)
	case s.Enabled && (!loaded || !s.IPv6):
		reload() // whoever gets in now is let in by rules that stay
	}
	var wished []Rule
	for _, a := range w.Allow {
		rules, err := allowRules(a, true)
		if err != nil {
			return nil, err
		}
		for _, r := range rules {
			if by, ok := s.denies(r, w.Remove); ok {
				return nil, &DeniedError{a, by}
			}
		}
		for _, group := range bySpec(rules) {
			if !s.hasAll(group, w.Remove) && !containsAll(wished, group) {
				add(StepAllow, group, append([]string{"ufw"}, group[0].Spec()...)...)
			}
			wished = append(wished, group...)
		}
	}
	for _, r := range w.Remove {
		if both := s.sameSpec(r); len(both) > 0 {
			for _, x := range both {
				if slices.ContainsFunc(wished, x.Same) {
					return nil, fmt.Errorf("ufw: rule %q is to be allowed and to be removed", x)
				}
			}
			add(StepRemove, both, append([]string{"ufw", "--force"}, r.DeleteSpec()...)...)
		}
	}
	if s.Incoming == Allow {
		add(StepDefaultDeny, nil, "ufw", "default", "deny", "incoming")
	}
	switch {
	case !s.Enabled || !s.V4.Active:
		add(StepEnable, nil, "ufw", "--force", "enable")
	case slices.ContainsFunc(p.Steps, func(step Step) bool { return step.Kind == StepReload }):
	case s.V4.stale() || s.V6.stale():
		reload()
	}
	for _, r := range s.Rules {
		if r.Direction == In && r.Action.Admits() && !slices.ContainsFunc(wished, func(w Rule) bool { return w.covers(r) }) && !slices.ContainsFunc(w.Remove, r.Same) {
			p.Broader = append(p.Broader, r)
		}
	}
	return p, nil
}

// stale reports whether the kernel has other rules than the file.
func (k Kernel) stale() bool {
	return len(k.Lost)+len(k.Extra)+len(k.Missing) > 0 || k.Policy != "DROP"
}

// denies returns the rule that keeps all of r's packets from r.
func (s *State) denies(r Rule, except []Rule) (Rule, bool) {
	for _, have := range s.Rules {
		switch {
		case have.V6 != r.V6 || have.Direction != In || slices.ContainsFunc(except, have.Same):
		case have.Action.Admits():
			if have.covers(r) {
				return Rule{}, false
			}
		case have.covers(r):
			return have, true
		}
	}
	return Rule{}, false
}

// covers reports whether every packet of o is one of r.
func (r Rule) covers(o Rule) bool {
	if r.Direction != o.Direction || r.V6 != o.V6 {
		return false
	}
	return (r.Protocol == o.Protocol || r.Protocol == 0 && (r.ToPorts == nil && r.FromPorts == nil || o.Protocol == firewall.TCP || o.Protocol == firewall.UDP)) &&
		coversAddr(r.To, o.To) && coversAddr(r.From, o.From) &&
		coversPorts(r.ToPorts, o.ToPorts) && coversPorts(r.FromPorts, o.FromPorts) &&
		coversInterface(r.InInterface, o.InInterface) && coversInterface(r.OutInterface, o.OutInterface)
}

func coversAddr(w, r netip.Prefix) bool {
	return !w.IsValid() || r.IsValid() && w.Bits() <= r.Bits() && w.Contains(r.Addr())
}

func coversPorts(w, r []PortRange) bool {
	if w == nil {
		return true
	}
	return r != nil && !slices.ContainsFunc(r, func(p PortRange) bool {
		return !slices.ContainsFunc(w, func(q PortRange) bool { return q.First <= p.First && p.Last <= q.Last })
	})
}

func coversInterface(w, r string) bool {
	return w == "" || w == r || r != "" && !strings.HasSuffix(r, "+") && matchInterface(w, r)
}

// hasAll reports whether for each rule there is one that admits exactly its
// packets. To add "allow" to a "limit" would make UFW replace it.
func (s *State) hasAll(rules, except []Rule) bool {
	for _, r := range rules {
		if !slices.ContainsFunc(s.Rules, func(have Rule) bool {
			return have.Action.Admits() && have.sameMatch(r) && !slices.ContainsFunc(except, have.Same)
		}) {
			return false
		}
	}
	return true
}

func containsAll(have, rules []Rule) bool {
	return !slices.ContainsFunc(rules, func(r Rule) bool { return !slices.ContainsFunc(have, r.Same) })
}

// bySpec puts together the rules that one command of UFW adds: those of both
// families without addresses.
func bySpec(rules []Rule) [][]Rule {
	var groups [][]Rule
	for _, r := range rules {
		i := slices.IndexFunc(groups, func(g []Rule) bool { return slices.Equal(g[0].Spec(), r.Spec()) })
		if i < 0 {
			groups = append(groups, []Rule{r})
			continue
		}
		groups[i] = append(groups[i], r)
	}
	return groups
}

// sameSpec returns the rules of the file that the command to delete r deletes.
func (s *State) sameSpec(r Rule) []Rule {
	var all []Rule
	for _, have := range s.Rules {
		other := r
		if !r.To.IsValid() && !r.From.IsValid() {
			other.V6 = have.V6
		}
		if have.Same(other) {
			all = append(all, have)
		}
	}
	return all
}
