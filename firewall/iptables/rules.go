package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/managemyclaw/hardshell/firewall"
)

// multiportMax is how many ports a rule can name (iptables-extensions(8)).
const multiportMax = 15

// A family is IPv4 or IPv6.
type family struct {
	v6       bool
	loopback string
}

var families = []family{
	{loopback: "127.0.0.0/8"},
	{v6: true, loopback: "::1/128"},
}

// String returns the name of the program.
func (f family) String() string {
	if f.v6 {
		return "ip6tables"
	}
	return "iptables"
}

// A chain is one of ours.
type chain struct {
	table, parent, name string
	rules               []string // as iptables-restore reads them, without -A and the name
}

const (
	returnAnswers = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
	translated    = "-m conntrack --ctstate DNAT"
	dockerUser    = "DOCKER-USER"
)

// prerouting returns what to do before addresses are translated.
func (f family) prerouting(p firewall.Policy) []string {
	rules := []string{returnAnswers}
	if f.v6 {
		// What IPv6 finds neighbours and routers with (RFC 4861) is not
		// tracked, and so answers nothing.
		for kind := 133; kind <= 137; kind++ {
			rules = append(rules, fmt.Sprintf("-p ipv6-icmp -m icmp6 --icmpv6-type %d -j RETURN", kind))
		}
	}
	rules = append(rules, "-i lo -j RETURN")
	for _, n := range p.Networks {
		rules = append(rules, "-i "+n.Interface+" -j RETURN")
	}
	rules = append(rules, "-d "+f.loopback+" -j DROP")
	for _, n := range p.Networks {
		for _, prefix := range f.own(n.Prefixes) {
			rules = append(rules, "-d "+prefix.String()+" -j DROP")
		}
	}
	for _, a := range p.Allow {
		for _, who := range f.who(a) {
			rules = append(rules, fmt.Sprintf("%s-p %v -m multiport --dports %d -j RETURN", who, a.Protocol, a.Number))
		}
	}
	for _, protocol := range []firewall.Protocol{firewall.TCP, firewall.UDP, firewall.SCTP} {
		var ports []string
		for _, port := range p.Published {
			if port.Protocol == protocol {
				ports = append(ports, strconv.Itoa(int(port.Number)))
			}
		}
		for some := range slices.Chunk(ports, multiportMax) {
			rules = append(rules, fmt.Sprintf("-p %v -m multiport --dports %s -m addrtype --dst-type LOCAL -j DROP", protocol, strings.Join(some, ",")))
		}
	}
	return rules
}

// forward returns what to do with what is sent on.
func (f family) forward(p firewall.Policy) []string {
	rules := []string{returnAnswers}
	for _, n := range p.Networks {
		rules = append(rules, "-i "+n.Interface+" -j RETURN")
	}
	for _, name := range p.Others {
		rules = append(rules, "-o "+name+" -j RETURN")
	}
	for _, a := range p.Allow {
		for _, who := range f.who(a) {
			rules = append(rules, fmt.Sprintf("%s-p %v %s --ctorigdstport %d --ctdir ORIGINAL -j RETURN", who, a.Protocol, translated, a.Number))
		}
	}
	for _, n := range p.Networks {
		rules = append(rules, "-o "+n.Interface+" -j DROP")
	}
	for _, name := range []string{"docker+", "br-+"} {
		for _, other := range p.Others {
			rules = append(rules, "-i "+other+" -o "+name+" -j DROP")
		}
		rules = append(rules,
			"-o "+name+" "+translated+" -j DROP",
			// Between the containers of a network that nobody has listed.
			"-i "+name+" -o "+name+" -j RETURN",
			"-o "+name+" -j DROP",
		)
	}
	if p.Strict {
		rules = append(rules, translated+" -j DROP")
	}
	return rules
}

// who returns the conditions on the sender, each in a rule of its own and with a
// space behind; none if nobody of the family may.
func (f family) who(a firewall.Allow) []string {
	in := ""
	if a.In != "" {
		in = "-i " + a.In + " "
	}
	if len(a.From) == 0 {
		return []string{in}
	}
	var out []string
	for _, from := range f.own(a.From) {
		if from.Bits() == 0 {
			return []string{in} // iptables drops such a condition
		}
		out = append(out, "-s "+from.String()+" "+in)
	}
	return out
}

// own returns the prefixes of the family.
func (f family) own(all []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(all), func(p netip.Prefix) bool { return p.Addr().Is6() != f.v6 })
}
