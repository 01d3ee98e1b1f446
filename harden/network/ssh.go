package network

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/harden"
)

// Bounds on asking a socket for its banner. A server of SSH speaks first
// (RFC 4253, 4.2).
const (
	bannerTimeout = time.Second
	bannerBytes   = 4 << 10
	bannersAtOnce = 16
	maxBanners    = 256
)

// banners connects to each TCP port beyond loopback, by the machine's own
// addresses, and keeps those that speak SSH. The name of a program proves
// nothing: a service manager may hold the socket, and another program may
// speak the protocol.
func (c *Config) banners(ctx context.Context, m *Machine) ([]Banner, error) {
	ports := sshCandidates(m)
	switch {
	case m.ListenersErr != nil && m.Listeners == nil:
		return nil, m.ListenersErr
	case len(ports) == 0:
		return nil, nil
	case c.Dial == nil:
		return nil, ErrNoDialer
	case len(ports) > maxBanners:
		return nil, fmt.Errorf("%d ports are open, and only %d are asked for what they speak", len(ports), maxBanners)
	}
	found := make([]Banner, len(ports))
	errs := make([]error, len(ports))
	slots := make(chan struct{}, bannersAtOnce)
	var wg sync.WaitGroup
	for i, p := range ports {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			found[i] = p
			found[i].Text, errs[i] = c.banner(ctx, m, p.Addr)
		})
	}
	wg.Wait()
	return slices.DeleteFunc(found, func(b Banner) bool { return b.Text == "" }), joined(errs)
}

// sshCandidates are the TCP sockets beyond loopback, and the published ports
// that no socket serves.
func sshCandidates(m *Machine) []Banner {
	var all []Banner
	for _, l := range m.Listeners {
		if l.Protocol == firewall.TCP && !l.Addr.Addr().Unmap().IsLoopback() {
			all = append(all, Banner{Addr: l.Addr, Owner: l.Name})
		}
	}
	for _, s := range m.Running {
		for _, p := range s.Ports {
			at := addrPort(hostAddress(p), p.Host)
			if p.Protocol != "tcp" || p.Host == 0 || at.Addr().IsLoopback() {
				continue
			}
			if !slices.ContainsFunc(all, func(b Banner) bool { return b.Addr == at }) {
				all = append(all, Banner{Addr: at, Owner: "container/" + s.Name})
			}
		}
	}
	return all
}

// banner returns what a port says of itself, empty if that is not SSH.
func (c *Config) banner(ctx context.Context, m *Machine, at netip.AddrPort) (string, error) {
	try := []netip.Addr{at.Addr().Unmap()}
	if a := at.Addr(); a.IsUnspecified() {
		// An own address first: what is published by address translation
		// alone does not answer on loopback.
		try = nil
		if m.Routing != nil {
			for _, own := range m.reachable() {
				if own.Is6() == a.Is6() && !own.IsLinkLocalUnicast() {
					try = append(try, own)
					break
				}
			}
		}
		if a.Is6() {
			try = append(try, netip.IPv6Loopback())
		} else {
			try = append(try, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
		}
	}
	var errs []error
	for _, a := range try {
		text, err := c.ask(ctx, addrPort(a, at.Port()))
		if err == nil {
			return text, nil
		}
		errs = append(errs, err)
	}
	err := errors.Join(errs...)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return "", nil // it has been closed since
	}
	return "", fmt.Errorf("whether %s speaks SSH is not known: %w", at, err)
}

func (c *Config) ask(ctx context.Context, to netip.AddrPort) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, bannerTimeout)
	defer cancel()
	conn, err := c.Dial.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetReadDeadline(deadline); err != nil {
			return "", err
		}
	}
	return readBanner(conn), nil
}

// readBanner returns the identification of a server of SSH, which other lines
// may precede, or "".
func readBanner(r io.Reader) string {
	lines := bufio.NewReader(io.LimitReader(r, bannerBytes))
	for {
		line, err := lines.ReadString('\n')
		if strings.HasPrefix(line, "SSH-") {
			line = strings.TrimRight(line, "\r\n")
			return strings.ToValidUTF8(line[:min(len(line), 255)], "�")
		}
		if err != nil {
			return ""
		}
	}
}

// judgeSSH judges whether SSH is reached only over the tailnet.
func (c *Config) judgeSSH(ctx context.Context, m Machine) (harden.Verdict, error) {
	const id = "network.ssh_exposure"
	const remedy = "let sshd listen on the tailnet's address (ListenAddress), or let UFW admit its port on tailscale0 alone; keep a second session open meanwhile"
	if len(m.Banners) == 0 {
		if m.BannersErr != nil {
			return harden.Verdict{}, m.BannersErr
		}
		if err := m.sockets(); err != nil {
			return harden.Verdict{}, err
		}
		return harden.Pass(inspected("/proc/self/net/tcp", fmt.Sprintf("of %d sockets none beyond loopback speaks SSH", len(m.Listeners)), "")), nil
	}
	if err := m.path(); err != nil {
		return harden.Verdict{}, err
	}
	var targets []target
	var speakers []string
	for _, b := range m.Banners {
		what := fmt.Sprintf("SSH on %s (%s)", b.Addr, named(b.Owner, "owner not known"))
		speakers = append(speakers, what)
		port := firewall.Port{Protocol: firewall.TCP, Number: b.Addr.Port()}
		at := b.Addr.Addr().Unmap()
		if !at.IsUnspecified() {
			targets = append(targets, target{proto: firewall.TCP, to: addrPort(at, b.Addr.Port()), what: what, public: port})
			continue
		}
		for _, a := range m.own() {
			// Also the machine's address in the tailnet: the kernel takes
			// packets for it by any interface.
			if a.Is4() == at.Is4() || at.Is6() {
				targets = append(targets, target{proto: firewall.TCP, to: addrPort(a, b.Addr.Port()), what: what, public: port})
			}
		}
	}
	var v violations
	// UFW's limit is a rule by which the kernel decides from what came before.
	// It lets in, although what it does with one packet cannot be said.
	t := c.try(&m, targets, func(s sender, tg target) bool {
		if !m.meant(s, tg) {
			return false
		}
		by := m.Host.UFW.Admits(tg.public, s.in, s.addr)[0]
		v.add(harden.Finding{
			ID: id, Remedy: remedy, Message: fmt.Sprintf("%s is let in from outside the tailnet by a rule of UFW's: %s", tg.what, by),
			Evidence: []harden.Evidence{declared(rulesFile(by.V6), by.Tuple(), "a rule for the tailnet's interface alone")},
		})
		return true
	})
	slices.SortFunc(t.open, byWhat)
	for i, x := range t.open {
		if i > 0 && t.open[i-1].target.what == x.target.what {
			continue
		}
		f := harden.Finding{
			ID: id, Remedy: remedy, Evidence: x.steps(),
			Message: fmt.Sprintf("%s is reached from outside the tailnet (%s)", x.target.what, x.packet),
		}
		if m.tailnet(x.target.to.Addr()) {
			f.ID, f.Severity = id+".tailnet_address", harden.SeverityMedium
			f.Message = fmt.Sprintf("%s is on the tailnet's address, and the machine takes packets for it from a neighbour on %s too", x.target.what, x.packet.In)
			f.Remedy = "drop what comes for the tailnet's addresses by other interfaces, as a firewall that denies by default does"
		}
		v.add(f)
	}
	p := c.probe(ctx, id, remedy, slices.DeleteFunc(targets, func(t target) bool { return m.tailnet(t.to.Addr()) }))
	v = append(v, p.open...)
	e := t.evidence("addresses of " + some(speakers))
	return v.verdict(joined(append(t.unknown, m.BannersErr)), append([]harden.Evidence{e}, p.evidence...)...)
}
