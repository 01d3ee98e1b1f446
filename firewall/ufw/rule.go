package ufw

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/managemyclaw/hardshell/firewall"
)

// An Action is what a rule or a default does with a packet.
type Action int

// Actions. The zero Action is none.
const (
	Allow  Action = iota + 1
	Limit         // allow, but of one sender no more than five new connections in 30 seconds
	Deny          // drop
	Reject        // refuse, and tell the sender
)

var actionNames = map[Action]string{Allow: "allow", Limit: "limit", Deny: "deny", Reject: "reject"}

// String returns the word that ufw(8) has for it.
func (a Action) String() string {
	if s, ok := actionNames[a]; ok {
		return s
	}
	return "Action(" + strconv.Itoa(int(a)) + ")"
}

// MarshalText encodes a as String does.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reverses MarshalText.
func (a *Action) UnmarshalText(text []byte) error {
	for action, name := range actionNames {
		if name == string(text) {
			*a = action
			return nil
		}
	}
	return fmt.Errorf("ufw: unknown action %q", text)
}

// Admits reports whether packets get through: a limited sender does too.
func (a Action) Admits() bool { return a == Allow || a == Limit }

// A Direction says which packets a rule is about.
type Direction int

// Directions. The zero Direction is that of packets to the machine.
const (
	In     Direction = iota // to the machine
	Out                     // from the machine
	Routed                  // through the machine
)

func (d Direction) String() string {
	switch d {
	case In:
		return "in"
	case Out:
		return "out"
	case Routed:
		return "routed"
	}
	return "Direction(" + strconv.Itoa(int(d)) + ")"
}

// MarshalText encodes d as String does.
func (d Direction) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reverses MarshalText.
func (d *Direction) UnmarshalText(text []byte) error {
	for _, known := range []Direction{In, Out, Routed} {
		if known.String() == string(text) {
			*d = known
			return nil
		}
	}
	return fmt.Errorf("ufw: unknown direction %q", text)
}

// A PortRange is a range of ports, both ends included.
type PortRange struct{ First, Last uint16 }

// String returns the range as UFW writes it, such as "22" or "6000:6007".
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d:%d", r.First, r.Last)
}

// A Rule is one rule of a user's, of one family: a tuple of user.rules or
// user6.rules. What is left empty matches everything.
type Rule struct {
	Action    Action
	Direction Direction
	V6        bool

	Protocol           firewall.Protocol // 0 is every protocol, or TCP and UDP where there are ports
	To, From           netip.Prefix      // the zero Prefix is anywhere
	ToPorts, FromPorts []PortRange
	ToApp, FromApp     string // the application profile that the ports were taken from

	// Interfaces that the packet comes in by and leaves by, such as "eth0".
	// UFW allows a "+" at the end, which stands for anything.
	InInterface, OutInterface string

	Log     string // "log" for new connections, "log-all" for all packets, or empty
	Comment string
}

// protocols are those that UFW knows, by the names in its files.
var protocols = map[string]firewall.Protocol{
	"any": 0, "tcp": firewall.TCP, "udp": firewall.UDP,
	"igmp": 2, "ipv6": 41, "gre": 47, "esp": 50, "ah": 51, "vrrp": 112,
}

func protocolName(p firewall.Protocol) string {
	for name, n := range protocols {
		if n == p {
			return name
		}
	}
	return p.String()
}

// portless reports whether protocol p has no ports, so that UFW refuses a rule with any.
func portless(p firewall.Protocol) bool {
	return p != 0 && p != firewall.TCP && p != firewall.UDP
}

// Everything reports whether the rule is for any packet in its direction, whoever
// sends it and by whichever interface.
func (r Rule) Everything() bool {
	return r.Protocol == 0 && !r.To.IsValid() && !r.From.IsValid() && r.ToPorts == nil && r.FromPorts == nil &&
		r.InInterface == "" && r.OutInterface == ""
}

// Same reports whether r and o are the same rule to UFW: they match the same
// packets, by the same application profiles, and do the same with them. Logs and
// comments are not compared.
func (r Rule) Same(o Rule) bool {
	return r.Action == o.Action && r.sameMatch(o) && r.ToApp == o.ToApp && r.FromApp == o.FromApp
}

func (r Rule) sameMatch(o Rule) bool {
	return r.Direction == o.Direction && r.V6 == o.V6 && r.Protocol == o.Protocol &&
		r.To == o.To && r.From == o.From && slices.Equal(r.ToPorts, o.ToPorts) && slices.Equal(r.FromPorts, o.FromPorts) &&
		r.InInterface == o.InInterface && r.OutInterface == o.OutInterface
}

// Spec returns the rule in the words of ufw(8): what follows "ufw" to add it.
// UFW applies a rule without addresses to both
// families.
func (r Rule) Spec() []string {
	var words []string
	add := func(w ...string) { words = append(words, w...) }
	if r.Direction == Routed {
		add("route")
	}
	add(r.Action.String())
	switch {
	case r.Direction != Routed && r.InInterface+r.OutInterface == "":
		add(r.Direction.String())
	default:
		if r.InInterface != "" {
			add("in", "on", r.InInterface)
		}
		if r.OutInterface != "" {
			add("out", "on", r.OutInterface)
		}
	}
	if r.Log != "" {
		add(r.Log)
	}
	end := func(word string, addr netip.Prefix, app string, ports []PortRange) {
		add(word, r.addrText(addr))
		switch {
		case app != "":
			add("app", app)
		case ports != nil:
			add("port", portsText(ports))
		}
	}
	end("from", r.From, r.FromApp, r.FromPorts)
	end("to", r.To, r.ToApp, r.ToPorts)
	if r.Protocol != 0 && r.ToApp+r.FromApp == "" {
		add("proto", protocolName(r.Protocol))
	}
	if r.Comment != "" {
		add("comment", r.Comment)
	}
	return words
}

// DeleteSpec returns what follows "ufw" to delete the rule. A rule without addresses
// is deleted from both families.
func (r Rule) DeleteSpec() []string {
	r.Comment = "" // not part of what UFW looks for
	words := r.Spec()
	if r.Direction == Routed {
		return append([]string{"route", "delete"}, words[1:]...)
	}
	return append([]string{"delete"}, words...)
}

// addrText returns a in the words of ufw(8).
func (r Rule) addrText(a netip.Prefix) string {
	switch {
	case !a.IsValid():
		return "any"
	case a.IsSingleIP():
		return a.Addr().String()
	}
	return a.String()
}

func portsText(ports []PortRange) string {
	words := make([]string, len(ports))
	for i, p := range ports {
		words[i] = p.String()
	}
	return strings.Join(words, ",")
}

// String returns the rule in the words of ufw(8), with its family.
func (r Rule) String() string {
	words := r.Spec()
	if n := len(words); r.Comment != "" {
		words[n-1] = strconv.Quote(words[n-1])
	}
	s := strings.Join(words, " ")
	if r.V6 {
		s += " (v6)"
	}
	return s
}
