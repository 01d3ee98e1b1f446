package network

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/firewall/ufw"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// A HostFirewall is what manages the packets for the machine's own services.
type HostFirewall struct {
	UFW    *ufw.State
	Others []ufw.Other // firewalls that are not UFW
}

func readHostFirewall(ctx context.Context, v *host.View) (h HostFirewall, err error) {
	if v.FS == nil {
		return h, host.ErrNoAccess
	}
	run := Programs(v)
	if h.UFW, err = ufw.Read(ctx, v.FS, run); err != nil {
		return h, err
	}
	h.Others, err = ufw.Others(ctx, v.FS, run)
	return h, err
}

// other names the firewall that stands in for UFW, where UFW is not enabled.
// Rules of iptables that nothing brings back when the machine starts are none.
func (h *HostFirewall) other() string {
	if h.UFW != nil && h.UFW.Enabled {
		return ""
	}
	for _, o := range h.Others {
		if o.Kind == ufw.Firewalld {
			return o.Kind.String()
		}
	}
	for _, o := range h.Others {
		return strings.TrimSpace(o.Kind.String() + " " + o.Table)
	}
	return ""
}

// ufwOff says why UFW does nothing, where it does nothing.
func (h *HostFirewall) ufwOff() string {
	switch {
	case h.UFW == nil || !h.UFW.Installed:
		return "UFW is not installed"
	case !h.UFW.Enabled && (h.UFW.V4.Active || h.UFW.V6.Active):
		return "UFW's rules are loaded, and it will not start with the machine"
	case !h.UFW.Enabled:
		return "UFW is not enabled"
	case !h.UFW.V4.Active:
		return "UFW is enabled, and its rules are not in the kernel"
	case !h.UFW.V6.Active && h.UFW.IPv6:
		return "UFW is enabled, and its rules for IPv6 are not in the kernel"
	}
	return ""
}

const enableUFW = "allow what you need first (ufw allow in on tailscale0), then: ufw default deny incoming; ufw enable"

// judgeUFWEnabled judges whether a firewall of the machine's is on, and comes
// back when the machine starts.
func (c *Config) judgeUFWEnabled(_ context.Context, m Machine) (harden.Verdict, error) {
	if err := m.firewall(); err != nil {
		return harden.Verdict{}, err
	}
	off := m.Host.ufwOff()
	if off == "" {
		return harden.Pass(inspected("iptables-save, ip6tables-save", "UFW's rules are loaded, for IPv4 and IPv6", ""),
			declared("/etc/ufw/ufw.conf", "ENABLED=yes", "")), nil
	}
	if other := m.Host.other(); other != "" {
		return harden.Pass(inspected("nft list ruleset", off+", but "+other+" is in its place; what it does with packets is judged by network.ufw_kernel", "")), nil
	}
	return harden.Fail(harden.Finding{
		Message: off + ", and no other firewall is known to be in its place", Remedy: enableUFW,
		Evidence: []harden.Evidence{inspected("/etc/ufw/ufw.conf and the rules in the kernel", off, "enabled, and loaded for both families")},
	}), nil
}

// judgeUFWDefault judges what UFW means to do with what no rule decides.
func (c *Config) judgeUFWDefault(_ context.Context, m Machine) (harden.Verdict, error) {
	if err := m.firewall(); err != nil {
		return harden.Verdict{}, err
	}
	if off := m.Host.ufwOff(); off != "" {
		if other := m.Host.other(); other != "" {
			return harden.NotApplicable(other + " is the firewall"), nil
		}
		return harden.Fail(harden.Finding{Message: off + ", so that nothing is denied by default", Remedy: enableUFW}), nil
	}
	s := m.Host.UFW
	var v violations
	if s.Incoming.Admits() || s.Incoming == 0 {
		v.add(harden.Finding{
			Message: "what no rule decides is let in", Remedy: "ufw default deny incoming",
			Evidence: []harden.Evidence{declared("/etc/default/ufw", "DEFAULT_INPUT_POLICY: "+s.Incoming.String(), "deny or reject")},
		})
	}
	for _, k := range []struct {
		family string
		policy string
	}{{"IPv4", s.V4.Policy}, {"IPv6", s.V6.Policy}} {
		if strings.EqualFold(k.policy, "ACCEPT") && s.Incoming != ufw.Reject { // reject is a rule of UFW's, not a policy
			v.add(harden.Finding{
				Message: "the kernel lets in what no rule decides, over " + k.family, Remedy: "ufw disable; ufw enable",
				Evidence: []harden.Evidence{inspected("chain INPUT, "+k.family, "policy "+k.policy, "policy DROP")},
			})
		}
	}
	return v.verdict(nil, inspected("chain INPUT", "policy "+s.V4.Policy+", for IPv6 "+s.V6.Policy, ""),
		declared("/etc/default/ufw", "DEFAULT_INPUT_POLICY: "+s.Incoming.String(), ""))
}

// unusedPorts are tried where nothing listens. They are far apart, so that a
// rule for a range of ports does not stand for the default.
var unusedPorts = []uint16{1021, 23457, 61473}

// judgeUFWKernel judges by effect: what becomes of a new connection to a port
// of the machine that nobody has allowed.
func (c *Config) judgeUFWKernel(_ context.Context, m Machine) (harden.Verdict, error) {
	const id = "network.ufw_kernel"
	if err := m.firewall(); err != nil {
		return harden.Verdict{}, err
	}
	var v violations
	if s := m.Host.UFW; s != nil && s.Enabled {
		for _, p := range s.Problems() {
			v.add(harden.Finding{
				ID: id + ".problem", Message: "UFW does not do what it is meant to: " + p.String(),
				Remedy:   "see which other program changes the rules; do not run ufw reload before the chains are whole, since it drops everything",
				Evidence: []harden.Evidence{inspected("the rules in the kernel", p.Detail, "as in /etc/ufw")},
			})
		}
	}
	if err := m.path(); err != nil {
		return v.verdict(err)
	}
	var targets []target
	for _, a := range m.reachable() {
		for _, proto := range []firewall.Protocol{firewall.TCP, firewall.UDP} {
			for _, port := range unusedPorts {
				if m.inUse(firewall.Port{Protocol: proto, Number: port}) {
					continue
				}
				targets = append(targets, target{
					proto: proto, to: addrPort(a, port), delivered: true,
					what: fmt.Sprintf("%s port %d of %s, which nobody has allowed", proto, port, a),
				})
			}
		}
	}
	if len(targets) == 0 && len(m.outside()) > 0 {
		return v.verdict(fmt.Errorf("the machine has no address, or no port is left, to judge the firewall by"))
	}
	t := c.try(&m, targets, m.meant)
	slices.SortFunc(t.open, byWhat)
	families := make(map[bool]bool)
	for _, x := range t.open { // one for each family shows enough
		if v6 := x.target.to.Addr().Is6(); !families[v6] {
			families[v6] = true
			v.add(harden.Finding{
				ID: id, Message: fmt.Sprintf("a new connection to %s is let in, by %s", x.target.what, x.packet.In),
				Remedy: enableUFW, Evidence: x.steps(),
			})
		}
	}
	by := m.Host.other()
	if by == "" {
		by = "UFW"
	}
	e := t.evidence("ports that nobody has allowed")
	e.Source = "packet filter (" + by + ")"
	pass := []harden.Evidence{e}
	if !m.has(true) {
		pass = append(pass, inspected("ip address", "the machine has no address of IPv6", ""))
	}
	return v.verdict(joined(t.unknown), pass...)
}

// inUse reports whether something listens on a port.
func (m *Machine) inUse(p firewall.Port) bool {
	return slices.ContainsFunc(m.Listeners, func(l Listener) bool { return l.Protocol == p.Protocol && l.Addr.Port() == p.Number })
}

// meant reports whether a rule of UFW's that says what it is for lets a sender
// reach a target.
func (m *Machine) meant(s sender, t target) bool {
	u := m.Host.UFW
	if u == nil || !u.Enabled {
		return false
	}
	by := u.Admits(firewall.Port{Protocol: t.proto, Number: t.to.Port()}, s.in, s.addr)
	return slices.ContainsFunc(by, func(r ufw.Rule) bool { return !m.anything(r) })
}

// judgeUFWRules judges whether UFW's rules name what they admit.
func (c *Config) judgeUFWRules(_ context.Context, m Machine) (harden.Verdict, error) {
	const id = "network.ufw_rules"
	if err := m.firewall(); err != nil {
		return harden.Verdict{}, err
	}
	s := m.Host.UFW
	if s == nil || !s.Enabled {
		if other := m.Host.other(); other != "" {
			return harden.NotApplicable(other + " is the firewall; network.ufw_kernel judges what it does"), nil
		}
		return harden.NotApplicable("UFW is not enabled, which network.ufw_enabled judges"), nil
	}
	var v violations
	admitting := 0
	for _, r := range s.Rules {
		if r.Direction != ufw.In || !r.Action.Admits() {
			continue
		}
		admitting++
		if !m.anything(r) {
			continue
		}
		v.add(harden.Finding{
			ID: id, Message: "a rule lets everything in: " + r.String(),
			Remedy:   "ufw delete " + strings.Join(r.Spec(), " ") + ", and allow the ports that are needed",
			Evidence: []harden.Evidence{declared(rulesFile(r.V6), r.Tuple(), "a port, a sender, or an interface that is not to the outside")},
		})
	}
	for _, text := range s.Malformed {
		v.add(harden.Finding{
			ID: id + ".malformed", Message: "UFW does not understand a rule, and leaves it out",
			Severity: harden.SeverityLow, Remedy: "add it again with ufw",
			Evidence: []harden.Evidence{declared("/etc/ufw/user.rules", text, "")},
		})
	}
	loaded := inspected("the rules in the kernel", fmt.Sprintf("UFW's %d rules that let something in each name a port, a sender, or an interface", admitting), "")
	if !s.V4.Active || s.IPv6 && !s.V6.Active || len(s.V4.Extra)+len(s.V6.Extra) > 0 {
		loaded.Level = harden.LevelDeclared // the kernel's are others; network.ufw_kernel says which
	}
	return v.verdict(nil, loaded)
}

// anything reports whether a rule that admits names neither a port, nor a
// sender, nor an interface that does not lead outside.
func (m *Machine) anything(r ufw.Rule) bool {
	if len(r.ToPorts) > 0 && !slices.ContainsFunc(r.ToPorts, func(p ufw.PortRange) bool { return p.First <= 1 && p.Last == 65535 }) {
		return false
	}
	if r.From.IsValid() && r.From.Bits() > 0 {
		return false
	}
	switch r.Protocol {
	case 0, firewall.TCP, firewall.UDP:
	default:
		return false // such as esp, which has no ports
	}
	if r.InInterface == "" || m.Routing == nil {
		return r.InInterface == ""
	}
	prefix, wild := strings.CutSuffix(r.InInterface, "+")
	return slices.ContainsFunc(m.outside(), func(i firewall.Interface) bool {
		return i.Name == r.InInterface || wild && strings.HasPrefix(i.Name, prefix)
	})
}

func rulesFile(v6 bool) string {
	if v6 {
		return "/etc/ufw/user6.rules"
	}
	return "/etc/ufw/user.rules"
}
