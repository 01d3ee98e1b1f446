package ufw

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"
)

const tuplePrefix = "### tuple ###"

// ParseRules returns the rules of a file user.rules, or of user6.rules if v6 is
// true. UFW skips tuples that it does not understand, with a warning that
// nobody sees; ParseRules returns them as malformed.
func ParseRules(data []byte, v6 bool) (rules []Rule, malformed []string) {
	for line := range strings.Lines(string(data)) {
		tuple, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), tuplePrefix)
		if !ok {
			continue
		}
		rule, err := ParseTuple(strings.TrimSpace(tuple), v6)
		if err != nil {
			malformed = append(malformed, err.Error())
			continue
		}
		rules = append(rules, rule)
	}
	return rules, malformed
}

// ParseTuple parses what follows "### tuple ###" on a line of UFW's rules:
//
//	[route:]ACTION[_LOG] PROTOCOL DPORT DST SPORT SRC [DAPP SAPP] [DIRECTION[_INTERFACE]] [comment=HEX]
//
// where both interfaces of a routed rule are written in_A!out_B.
func ParseTuple(text string, v6 bool) (Rule, error) {
	r := Rule{V6: v6}
	fail := func(err error) (Rule, error) { return Rule{}, fmt.Errorf("ufw: tuple %q: %w", text, err) }

	line := text
	if before, comment, ok := strings.Cut(text, " comment="); ok {
		line = before
		b, err := hex.DecodeString(strings.TrimSpace(comment))
		if err != nil || !utf8.Valid(b) {
			return fail(errors.New("the comment is not UTF-8 in hexadecimal"))
		}
		r.Comment = string(b)
	}
	f := strings.Fields(line)
	if len(f) < 6 || len(f) > 9 {
		return fail(fmt.Errorf("%d fields, not 6 to 9", len(f)))
	}
	if err := r.parseAction(f[0]); err != nil {
		return fail(err)
	}
	var ok bool
	if r.Protocol, ok = protocols[f[1]]; !ok {
		return fail(fmt.Errorf("unknown protocol %q", f[1]))
	}
	var err error
	if r.ToPorts, err = parsePorts(f[2]); err != nil {
		return fail(err)
	}
	if r.To, err = parseAddr(f[3], v6); err != nil {
		return fail(err)
	}
	if r.FromPorts, err = parsePorts(f[4]); err != nil {
		return fail(err)
	}
	if r.From, err = parseAddr(f[5], v6); err != nil {
		return fail(err)
	}
	if portless(r.Protocol) && (r.ToPorts != nil || r.FromPorts != nil) {
		return fail(fmt.Errorf("protocol %s has no ports", f[1]))
	}
	if len(f) >= 8 {
		r.ToApp, r.FromApp = parseApp(f[6]), parseApp(f[7])
	}
	if len(f) == 7 || len(f) == 9 {
		if err := r.parseDirection(f[len(f)-1]); err != nil {
			return fail(err)
		}
	}
	return r, nil
}

func (r *Rule) parseAction(word string) error {
	if kind, action, ok := strings.Cut(word, ":"); ok {
		if kind != "route" {
			return fmt.Errorf("unknown kind of rule %q", kind)
		}
		r.Direction, word = Routed, action
	}
	name, log, _ := strings.Cut(word, "_")
	switch log {
	case "", "log", "log-all":
		r.Log = log
	default:
		return fmt.Errorf("unknown kind of log %q", log)
	}
	// UFW itself takes a word that it does not know for "deny".
	return r.Action.UnmarshalText([]byte(name))
}

func (r *Rule) parseDirection(word string) error {
	direction := func(d Direction) {
		if r.Direction != Routed {
			r.Direction = d
		}
	}
	set := func(part string) error {
		kind, name, named := strings.Cut(part, "_")
		if named && !validInterface(name) {
			return fmt.Errorf("interface %q", name)
		}
		switch kind {
		case "in":
			direction(In)
			r.InInterface = name
		case "out":
			direction(Out)
			r.OutInterface = name
		default:
			return fmt.Errorf("direction %q", part)
		}
		return nil
	}
	first, second, both := strings.Cut(word, "!")
	if !both {
		return set(first)
	}
	if r.Direction != Routed || !strings.HasPrefix(first, "in_") || !strings.HasPrefix(second, "out_") {
		return fmt.Errorf("interfaces %q", word)
	}
	return errors.Join(set(first), set(second))
}

// validInterface is what UFW accepts, which is a little less than the kernel
// does.
func validInterface(name string) bool {
	if name == "" || len(name) > 15 || name == "." || name == ".." {
		return false
	}
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.+,=%@") == ""
}

func parsePorts(word string) ([]PortRange, error) {
	if word == "any" {
		return nil, nil
	}
	var ports []PortRange
	for part := range strings.SplitSeq(word, ",") {
		first, last, isRange := strings.Cut(part, ":")
		a, err := parsePort(first)
		if err != nil {
			return nil, err
		}
		b := a
		if isRange {
			if b, err = parsePort(last); err != nil {
				return nil, err
			}
			if b <= a {
				return nil, fmt.Errorf("range of ports %q", part)
			}
		}
		ports = append(ports, PortRange{a, b})
	}
	return ports, nil
}

func parsePort(word string) (uint16, error) {
	n, err := strconv.ParseUint(word, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port %q", word)
	}
	return uint16(n), nil
}

// parseAddr returns the zero Prefix for anywhere.
func parseAddr(word string, v6 bool) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(word)
	if err != nil {
		addr, err := netip.ParseAddr(word)
		if err != nil {
			if p, err := parseNetmask(word); err == nil && !v6 {
				return p, nil
			}
			return netip.Prefix{}, fmt.Errorf("address %q", word)
		}
		p = netip.PrefixFrom(addr, addr.BitLen())
	}
	switch {
	case p.Addr().Zone() != "" || p.Addr().Is4() == v6:
		return netip.Prefix{}, fmt.Errorf("address %q", word)
	case p.Bits() == 0:
		return netip.Prefix{}, nil
	}
	return p.Masked(), nil
}

// parseNetmask reads 192.0.2.0/255.255.255.0, which UFW leaves as it is where
// the mask is not that of a prefix; those are not understood here.
func parseNetmask(word string) (netip.Prefix, error) {
	text, mask, _ := strings.Cut(word, "/")
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	m, err := netip.ParseAddr(mask)
	if err != nil || !addr.Is4() || !m.Is4() {
		return netip.Prefix{}, errors.New("no mask")
	}
	bits := 0
	b := m.As4()
	n := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	for n&(1<<31) != 0 {
		bits++
		n <<= 1
	}
	if n != 0 {
		return netip.Prefix{}, errors.New("not the mask of a prefix")
	}
	if bits == 0 {
		return netip.Prefix{}, nil
	}
	return netip.PrefixFrom(addr, bits).Masked(), nil
}

func parseApp(word string) string {
	if word == "-" {
		return ""
	}
	return strings.ReplaceAll(word, "%20", " ")
}

// Tuple returns the rule as [ParseTuple] reads it.
func (r Rule) Tuple() string {
	action := r.Action.String()
	if r.Direction == Routed {
		action = "route:" + action
	}
	if r.Log != "" {
		action += "_" + r.Log
	}
	addr := func(p netip.Prefix) string {
		switch {
		case p.IsValid():
			return r.addrText(p)
		case r.V6:
			return "::/0"
		}
		return "0.0.0.0/0"
	}
	ports := func(ports []PortRange) string {
		if ports == nil {
			return "any"
		}
		return portsText(ports)
	}
	app := func(name string) string {
		if name == "" {
			return "-"
		}
		return strings.ReplaceAll(name, " ", "%20")
	}
	f := []string{action, protocolName(r.Protocol), ports(r.ToPorts), addr(r.To), ports(r.FromPorts), addr(r.From)}
	if r.ToApp+r.FromApp != "" {
		f = append(f, app(r.ToApp), app(r.FromApp))
	}
	switch {
	case r.InInterface != "" && r.OutInterface != "":
		f = append(f, "in_"+r.InInterface+"!out_"+r.OutInterface)
	case r.InInterface != "":
		f = append(f, "in_"+r.InInterface)
	case r.OutInterface != "":
		f = append(f, "out_"+r.OutInterface)
	case r.Direction == Out:
		f = append(f, "out")
	default:
		f = append(f, "in")
	}
	s := strings.Join(f, " ")
	if r.Comment != "" {
		s += " comment=" + hex.EncodeToString([]byte(r.Comment))
	}
	return s
}
