package nft

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/managemyclaw/hardshell/firewall"
)

// Script returns what Apply would put into the kernel, in the language of
// "nft -f", which replaces the table in one transaction too. It is for a
// machine that starts, and for reading. An EngineCgroup must exist when nft reads
// it, and be below /sys/fs/cgroup.
func (b *Backend) Script(p firewall.Policy) (string, error) {
	if err := p.Validate(); err != nil {
		return "", err
	}
	// To delete what is not there would be an error.
	return fmt.Sprintf("table inet %s\ndelete table inet %s\n", tableName, tableName) + compile(p.Canonical(), b.EngineCgroup).text(), nil
}

func (t *table) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n", tableName)
	for _, s := range t.sets {
		fmt.Fprintf(&b, "\tset %s {\n%s\t}\n", s.name, s.text())
	}
	for _, c := range t.chains {
		fmt.Fprintf(&b, "\tchain %s {\n\t\ttype filter hook %s priority %d; policy accept;\n", c.name, c.hook, c.priority)
		for _, r := range c.rules {
			fmt.Fprintf(&b, "\t\t%s\n", r.text())
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

func (s *set) text() string {
	elements := s.elements()
	switch {
	case s.interfaces != nil:
		for i := range elements {
			elements[i] = strconv.Quote(elements[i])
		}
		return "\t\ttype ifname\n\t\telements = { " + strings.Join(elements, ", ") + " }\n"
	case s.ranges != nil:
		kind := "ipv4_addr"
		if s.ranges[0].from.Is6() {
			kind = "ipv6_addr"
		}
		return "\t\ttype " + kind + "\n\t\tflags interval\n\t\telements = { " + strings.Join(elements, ", ") + " }\n"
	}
	return "\t\ttype inet_service\n\t\telements = { " + strings.Join(elements, ", ") + " }\n"
}

// elements returns the elements as people write them.
func (s *set) elements() []string {
	var out []string
	out = append(out, s.interfaces...)
	for _, r := range s.ranges {
		out = append(out, r.String())
	}
	for _, port := range s.ports {
		out = append(out, strconv.Itoa(int(port)))
	}
	return out
}

// String returns a prefix if that is what r is.
func (r addrRange) String() string {
	for bits := range r.from.BitLen() + 1 {
		if p := netip.PrefixFrom(r.from, bits); p.Masked() == p && last(p) == r.to {
			return p.String()
		}
	}
	return r.from.String() + "-" + r.to.String()
}

func (r rule) text() string {
	var words []string
	for _, m := range r.matches {
		words = append(words, m.text())
	}
	if !r.drop {
		return strings.Join(append(words, "accept"), " ")
	}
	return strings.Join(append(words, "counter drop comment "+strconv.Quote(r.comment)), " ")
}

func (matchState) text() string      { return "ct state established,related" }
func (matchTranslated) text() string { return "ct status dnat" }
func (matchLocal) text() string      { return "fib daddr type local" }
func (matchNeighbours) text() string { return "icmpv6 type 133-137" }

func (m matchInterface) text() string {
	which := "iifname "
	if m.out {
		which = "oifname "
	}
	if m.set != nil {
		return which + "@" + m.set.name
	}
	return which + strconv.Quote(m.name)
}

func (m matchAddr) text() string {
	which := " daddr "
	if m.source {
		which = " saddr "
	}
	if m.set != nil {
		return family(m.set.ranges[0].from) + which + "@" + m.set.name
	}
	if m.prefix.IsSingleIP() {
		return family(m.prefix.Addr()) + which + m.prefix.Addr().String()
	}
	return family(m.prefix.Addr()) + which + m.prefix.String()
}

func (m matchPort) text() string {
	if m.original {
		return "meta l4proto " + m.protocol.String() + " ct original proto-dst @" + m.set.name
	}
	return m.protocol.String() + " dport @" + m.set.name
}

func (m matchCgroup) text() string {
	return fmt.Sprintf("socket cgroupv2 level %d %s", m.level, strconv.Quote(m.path))
}
