package network

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/managemyclaw/hardshell/firewall"
)

// maxNamed bounds how many addresses of the rules' own are tried.
const maxNamed = 512

// namedBy returns addresses and source ports that rules name. A rule may let in
// one network that no address chosen beforehand stands for, so that the rules
// themselves say whom else to try. Those in sets that are not listed in a rule
// are not among them.
func namedBy(rs *firewall.Ruleset) (addrs []netip.Addr, ports []uint16) {
	seen := make(map[netip.Addr]bool)
	for _, t := range rs.Tables() {
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				for _, a := range addressesIn(r.Text) {
					if !seen[a] {
						seen[a] = true
						addrs = append(addrs, a)
					}
				}
				for _, p := range sourcePortsIn(r.Text) {
					if !slices.Contains(ports, p) && !slices.Contains(sourcePorts, p) {
						ports = append(ports, p)
					}
				}
			}
		}
	}
	return addrs, ports
}

// addressesIn returns an address of each network in a text, such as
// "-s 10.0.0.0/8 -j ACCEPT".
func addressesIn(text string) []netip.Addr {
	var all []netip.Addr
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF:./", r) }) {
		a, err := netip.ParseAddr(word)
		if p, prefixErr := netip.ParsePrefix(word); prefixErr == nil {
			a, err = p.Masked().Addr(), nil
			if !p.IsSingleIP() {
				a = a.Next()
			}
		}
		if err == nil && (a.IsGlobalUnicast() || a.IsLinkLocalUnicast()) && !a.Is4In6() {
			all = append(all, a)
		}
	}
	return all
}

// sourcePort matches those of iptables and of nft.
var sourcePort = regexp.MustCompile(`(?:--sports?|--source-ports?|--ports?|\bsport)\s+(?:!=\s+|\{\s*)?([0-9]+)`)

func sourcePortsIn(text string) []uint16 {
	var all []uint16
	for _, m := range sourcePort.FindAllStringSubmatch(text, -1) {
		if n, err := strconv.ParseUint(m[1], 10, 16); err == nil && n != 0 {
			all = append(all, uint16(n))
		}
	}
	return all
}
