package firewall

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Validate says what is wrong with p, everything at once. A [Backend] refuses a
// policy that is not valid before it touches anything.
func (p Policy) Validate() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("firewall: policy: "+format, args...))
	}
	for i, a := range p.Allow {
		what := fmt.Sprintf("allow %d (%v %d)", i+1, a.Protocol, a.Number)
		if err := a.Port.validate(); err != nil {
			bad("%s: %w", what, err)
		}
		for _, from := range a.From {
			if err := validPrefix(from); err != nil {
				bad("%s: from: %w", what, err)
			}
		}
		if a.In != "" {
			if err := validInterface(a.In); err != nil {
				bad("%s: in: %w", what, err)
			}
		}
	}
	own := make(map[string]bool)
	for i, n := range p.Networks {
		what := fmt.Sprintf("network %d (%s)", i+1, n.Name)
		switch err := validInterface(n.Interface); {
		case err != nil:
			bad("%s: %w", what, err)
		case n.Interface == "lo":
			bad("%s: lo is no network of an engine; leave out those without an interface of their own", what)
		}
		own[n.Interface] = true
		for _, prefix := range n.Prefixes {
			switch err := validPrefix(prefix); {
			case err != nil:
				bad("%s: %w", what, err)
			case prefix.Bits() == 0:
				bad("%s: %v is every address", what, prefix)
			}
		}
	}
	for i, port := range p.Published {
		if err := port.validate(); err != nil {
			bad("published %d (%v %d): %w", i+1, port.Protocol, port.Number, err)
		}
	}
	for _, name := range p.Others {
		switch err := validInterface(name); {
		case err != nil:
			bad("others: %w", err)
		case own[name]:
			bad("others: %s is the interface of a network too; it cannot be both", name)
		case !EngineInterface(name):
			bad("others: nobody takes %s for an engine's; list only names that begin with docker or br-", name)
		}
	}
	return errors.Join(errs...)
}

// EngineInterface reports whether name is one that a container engine gives to
// the interface of a network if it is not told otherwise.
func EngineInterface(name string) bool {
	return strings.HasPrefix(name, "docker") || strings.HasPrefix(name, "br-")
}

func (p Port) validate() error {
	switch p.Protocol {
	case TCP, UDP, SCTP:
	default:
		return fmt.Errorf("protocol %v has no ports; want tcp, udp or sctp", p.Protocol)
	}
	if p.Number == 0 {
		return errors.New("port 0 is none; list each port from 1 to 65535")
	}
	return nil
}

func validPrefix(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return errors.New("the zero prefix is none; want one such as 192.0.2.0/24")
	case p.Addr().Is4In6():
		return fmt.Errorf("%v is an IPv4 address in IPv6 form; write it as IPv4", p)
	}
	return nil
}

// validInterface is stricter than the kernel, which permits in a name what
// iptables and nft take for a wildcard or a negation.
func validInterface(name string) error {
	if name == "" || len(name) > 15 {
		return fmt.Errorf("interface %q: want 1 to 15 bytes", name)
	}
	for i := range len(name) {
		c := name[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
		if !letter && (i == 0 || c != '-' && c != '.') {
			return fmt.Errorf("interface %q: want letters, digits and _, and further on also - and dots", name)
		}
	}
	return nil
}

// Canonical returns the policy that is like p and in the one form that all
// policies have which permit the same: sorted, without repetitions, without
// what something else includes. What p points to is not changed or shared.
//
// The result says the same as p only if p is valid.
func (p Policy) Canonical() Policy {
	return Policy{
		Allow:     canonicalAllow(p.Allow),
		Networks:  canonicalNetworks(p.Networks),
		Published: sorted(p.Published, comparePorts),
		Others:    sorted(p.Others, cmp.Compare[string]),
		Strict:    p.Strict,
	}
}

func canonicalAllow(all []Allow) []Allow {
	type key struct {
		Port
		in string
	}
	from := make(map[key][]netip.Prefix)
	anyone := make(map[key]bool)
	for _, a := range all {
		k := key{a.Port, a.In}
		from[k] = append(from[k], a.From...)
		if len(a.From) == 0 {
			anyone[k] = true
		}
	}
	var out []Allow
	for k, prefixes := range from {
		if k.in != "" && anyone[key{k.Port, ""}] {
			continue
		}
		a := Allow{Port: k.Port, In: k.in}
		if !anyone[k] {
			a.From = canonicalPrefixes(prefixes)
		}
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b Allow) int {
		return cmp.Or(comparePorts(a.Port, b.Port), cmp.Compare(a.In, b.In))
	})
	return out
}

func canonicalNetworks(all []Network) []Network {
	byInterface := make(map[string]Network)
	for _, n := range all {
		have, ok := byInterface[n.Interface]
		if !ok || n.Name < have.Name {
			have.Name = n.Name
		}
		have.Interface = n.Interface
		have.Prefixes = append(slices.Clip(have.Prefixes), n.Prefixes...)
		byInterface[n.Interface] = have
	}
	var out []Network
	for _, n := range byInterface {
		n.Prefixes = canonicalPrefixes(n.Prefixes)
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b Network) int { return cmp.Compare(a.Interface, b.Interface) })
	return out
}

// canonicalPrefixes returns the fewest prefixes that hold the same addresses,
// in the order of the addresses, IPv4 first.
func canonicalPrefixes(all []netip.Prefix) []netip.Prefix {
	var todo []netip.Prefix
	for _, p := range all {
		todo = append(todo, p.Masked())
	}
	slices.SortFunc(todo, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var out []netip.Prefix
	for _, p := range todo {
		if n := len(out); n > 0 && out[n-1].Contains(p.Addr()) {
			continue // a wider one is sorted before those within it
		}
		out = append(out, p)
		// Two halves make a whole, which may be half of another.
		for n := len(out); n > 1; n = len(out) {
			low, high := out[n-2], out[n-1]
			if low.Bits() != high.Bits() || low.Bits() == 0 {
				break
			}
			whole := netip.PrefixFrom(low.Addr(), low.Bits()-1).Masked()
			if whole.Addr() != low.Addr() || !whole.Contains(high.Addr()) {
				break
			}
			out = append(out[:n-2], whole)
		}
	}
	return out
}

func comparePorts(a, b Port) int {
	return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Number, b.Number))
}

// sorted returns a sorted copy without repetitions, nil if there is nothing.
func sorted[E comparable](all []E, compare func(a, b E) int) []E {
	if len(all) == 0 {
		return nil
	}
	return slices.Compact(slices.SortedFunc(slices.Values(all), compare))
}
