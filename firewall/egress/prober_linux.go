package egress

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Arm makes the sockets of workloads in the host's network namespace, and notes
// which namespaces the others have.
func (p *Prober) Arm(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	workloads, err := p.list(ctx)
	if err != nil {
		return err
	}
	host, err := openNS(p.NetNS)
	if err != nil {
		return fmt.Errorf("egress: network namespace of the host: %w", err)
	}
	defer host.Close()
	hostID, err := identify(host)
	if err != nil {
		return fmt.Errorf("egress: network namespace of the host: %w", err)
	}
	var errs []error
	for _, w := range workloads {
		place, err := p.find(w, hostID)
		if err == nil && place.shared {
			_, err = p.delegates(ctx, host, place.group)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("egress: %s: %w", w.Name, err))
		}
		if place.ns != nil {
			place.ns.Close()
		}
	}
	return errors.Join(errs...)
}

// Remaining tries what workloads can send and receive, and returns by name
// those for which any of it came through, or may.
func (p *Prober) Remaining(ctx context.Context) (map[string]string, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	workloads, err := p.list(ctx)
	if err != nil {
		return nil, err
	}
	done := make(chan outcome, 1)
	go func() { done <- p.try(ctx, workloads) }()
	select {
	case o := <-done:
		return o.remaining, errors.Join(o.errs...)
	case <-ctx.Done():
		return nil, fmt.Errorf("egress: probe: %w", ctx.Err())
	}
}

func (p *Prober) list(ctx context.Context) ([]Workload, error) {
	if p.Source == nil {
		return nil, errNoSource
	}
	workloads, err := p.Source(ctx)
	if err != nil {
		return nil, fmt.Errorf("egress: workloads: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.names == nil {
		p.names, p.seen, p.held = map[string]bool{}, map[string]nsID{}, map[uint64]*delegates{}
	}
	for _, w := range workloads {
		p.names[w.Name] = true
	}
	return workloads, nil
}

type outcome struct {
	remaining map[string]string
	errs      []error
}

// try is one look.
func (p *Prober) try(ctx context.Context, workloads []Workload) (o outcome) {
	o.remaining = map[string]string{}
	fail := func(format string, args ...any) outcome {
		o.errs = append(o.errs, fmt.Errorf("egress: probe: "+format, args...))
		return o
	}
	host, err := openNS(p.NetNS)
	if err != nil {
		return fail("network namespace of the host: %w", err)
	}
	defer host.Close()
	hostID, err := identify(host)
	if err != nil {
		return fail("network namespace of the host: %w", err)
	}
	watch, err := watchOut(host, newRun(), true)
	if err != nil {
		return fail("watch the host's interfaces: %w", err)
	}
	defer watch.close()
	ear, err := newEar(host, watch.run)
	if err != nil {
		return fail("listen on the host: %w", err)
	}
	defer ear.close()
	canaries, err := p.control(host, watch, ear)
	if err != nil {
		return fail("%w", err)
	}

	var mu sync.Mutex
	var group sync.WaitGroup
	tries := make([]*attempt, len(workloads)) // nil where nothing could be tried
	for i, w := range workloads {
		group.Go(func() {
			a, err := p.attempt(ctx, w, host, hostID, watch, ear, canaries)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				o.errs = append(o.errs, fmt.Errorf("egress: probe: %s: %w", w.Name, err))
			}
			tries[i] = a
		})
	}
	group.Wait()
	if p.await(ctx, workloads, tries, hostID) {
		for _, a := range tries {
			a.close()
		}
		return o
	}
	for _, a := range tries {
		if a != nil && a.watch != nil {
			group.Go(func() { _ = a.watch.finish() }) // which each says again
		}
	}
	err = watch.finish()
	group.Wait()
	if err != nil {
		fail("watch the host's interfaces: %w", err)
	}
	ear.close()
	if err := p.controlled(watch, ear, canaries); err != nil {
		fail("%w", err)
	}
	for i, a := range tries {
		if a == nil || a.gone {
			continue
		}
		name := workloads[i].Name
		why, err := a.finish(watch, ear)
		if err != nil {
			fail("%s: %w", name, err)
		}
		if why != "" {
			note(o.remaining, name, why)
		}
	}
	return o
}

func openNS(path string) (*os.File, error) {
	if path == "" {
		path = "/proc/thread-self/ns/net"
	}
	return os.Open(path)
}

// Default canaries.
var (
	canary4 = netip.MustParseAddr("198.18.0.1")
	canary6 = netip.MustParseAddr("2001:2::1")
)

// A canary is an address, and the token of what the host sent there.
type canary struct {
	netip.Addr
	token string
}

// control sends from the host itself what is later sent from workloads: if that
// does not come out, nothing can be concluded from what does not.
func (p *Prober) control(host *os.File, watch *watch, ear *ear) (out []canary, err error) {
	addrs := p.Canaries
	if len(addrs) == 0 {
		addrs = []netip.Addr{canary4, canary6}
	}
	err = within(host, func() error {
		for _, addr := range addrs {
			token := watch.token()
			err := sendUDP(addr, discardPort, "", token)
			if len(p.Canaries) == 0 && (errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EACCES)) {
				continue
			}
			if err != nil {
				return fmt.Errorf("the host itself cannot send to the canary %s: %w", addr, err)
			}
			out = append(out, canary{addr, token})
		}
		ear.control = watch.token()
		return sendUDP(netip.AddrFrom4([4]byte{127, 0, 0, 1}), ear.port, "", ear.control)
	})
	return out, err
}

// controlled reports what did not come out although the host sent it.
func (p *Prober) controlled(watch *watch, ear *ear, canaries []canary) error {
	for _, c := range canaries {
		if _, ok := watch.saw(c.token); !ok {
			return fmt.Errorf("nothing can be concluded: what the host itself sends to the canary %s does not come out either", c.Addr)
		}
	}
	if !ear.heard(ear.control) {
		return errors.New("nothing can be concluded: the host does not hear itself")
	}
	return nil
}

// An attempt is what was tried for one workload.
type attempt struct {
	gone    bool
	watch   *watch // in the workload's own namespace; nil where that is the host's
	ear     *ear
	tokens  map[string]string // by token, what it stands for
	inward  map[string]bool   // tokens that the host sends
	connect *connection
	reasons []string

	delegates *delegates // where the namespace is the host's
	incoming  string     // what is sent to them
}

func (p *Prober) attempt(ctx context.Context, w Workload, host *os.File, hostID nsID, out *watch, hostEar *ear, canaries []canary) (*attempt, error) {
	pl, err := p.find(w, hostID)
	if err != nil {
		return nil, err
	}
	if pl.ns != nil {
		defer pl.ns.Close()
	}
	a := &attempt{tokens: map[string]string{}, inward: map[string]bool{}}
	say := func(what string) string {
		token := out.token()
		a.tokens[token] = what
		return token
	}
	hostAddrs, err := addresses(host)
	if err != nil {
		return nil, err
	}
	switch {
	case pl.gone:
		a.gone = true
		return a, nil
	case pl.shared:
		s := subject{Workload: w, shared: true}
		pids, err := s.processes()
		if err != nil {
			return nil, err
		}
		alive, err := anyAlive(pids)
		if err != nil {
			return nil, err
		}
		if !alive {
			a.gone = true
			return a, nil
		}
		if a.reasons, err = s.limits(); err != nil {
			return a, err
		}
		d, err := p.delegates(ctx, host, pl.group)
		if err != nil {
			return a, err
		}
		a.delegates, a.incoming = d, out.token()
		return a, within(host, func() error { return d.shout(say, a.incoming, hostEar.port, hostAddrs, canaries) })
	}
	// CAP_NET_ADMIN is the one privilege by which the workload could let
	// through what it sends itself, and not what is sent here.
	s := subject{Workload: w}
	if w.PID > 0 || w.Cgroup != "" {
		if a.reasons, err = s.limits(); err != nil {
			return a, err
		}
	}
	if a.watch, err = watchOut(pl.ns, out.run, false); err != nil {
		return a, err
	}
	if a.ear, err = newEar(pl.ns, out.run); err != nil {
		return a, err
	}
	own, err := addresses(pl.ns)
	if err != nil {
		return a, err
	}
	if len(canaries) > 0 {
		a.connect = out.connection(canaries[0].Addr)
	}
	err = within(pl.ns, func() error { return shoutInside(say, a.watch.fd, hostEar.port, hostAddrs, canaries, a.connect) })
	if err != nil {
		return a, err
	}
	return a, within(host, func() error {
		for _, addr := range own {
			token := say(fmt.Sprintf("a datagram from the host to %s", addr))
			a.inward[token] = true
			err := sendUDP(addr, a.ear.port, "", token)
			if err != nil && !refused(err) {
				return err
			}
		}
		return nil
	})
}

// anyAlive reports whether a process has not ended.
func anyAlive(pids []string) (bool, error) {
	for _, pid := range pids {
		data, err := os.ReadFile("/proc/" + pid + "/stat")
		if ended(err) {
			continue
		}
		if err != nil {
			return false, err
		}
		if state := stateOf(data); state != 'Z' && state != 'X' {
			return true, nil
		}
	}
	return false, nil
}

// stateOf is the third field of /proc/PID/stat, see proc(5); the second may hold anything.
func stateOf(stat []byte) byte {
	for i := len(stat) - 1; i >= 0; i-- {
		if stat[i] == ')' && i+2 < len(stat) {
			return stat[i+2]
		}
	}
	return '?'
}

// close gives up an attempt that nothing is to be learned from.
func (a *attempt) close() {
	if a.watch != nil {
		a.watch.close()
	}
	if a.ear != nil {
		a.ear.close()
	}
}

// finish says what of an attempt came through.
func (a *attempt) finish(out *watch, hostEar *ear) (why string, err error) {
	reasons := map[string]bool{}
	for _, r := range a.reasons {
		reasons[r] = true
	}
	if a.delegates != nil && a.delegates.heard(a.incoming) {
		reasons["a datagram from the host came in"] = true
	}
	for token, what := range a.tokens {
		if device, ok := out.saw(token); ok && (!a.inward[token] || out.sawBeyond(token)) {
			reasons[what+" came out by "+device] = true
		} else if hostEar.heard(token) {
			reasons[what+" came to the host"] = true
		} else if a.ear != nil && a.ear.heard(token) {
			reasons[what+" came in"] = true
		}
	}
	if a.connect != nil {
		if device, ok := out.sawConnection(a.connect); ok {
			reasons["a connection came out by "+device] = true
		}
	}
	if a.watch != nil {
		err = a.watch.finish()
		if n, what := a.watch.strange(); n > 0 {
			reasons["it still sends: "+what] = true
		}
	}
	a.close()
	all := slices.Sorted(maps.Keys(reasons))
	if more := len(all) - maxReasons; more > 0 {
		all = append(all[:maxReasons], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(all, "; "), err
}

// maxReasons is how many are told: one would do.
const maxReasons = 4

// addresses are those of a namespace that others can send to.
func addresses(ns *os.File) (out []netip.Addr, err error) {
	err = within(ns, func() error {
		all, err := net.InterfaceAddrs()
		for _, a := range all {
			prefix, err := netip.ParsePrefix(a.String())
			if err == nil && prefix.Addr().IsGlobalUnicast() && len(out) < maxAddresses {
				out = append(out, prefix.Addr())
			}
		}
		return err
	})
	return out, err
}

// maxAddresses bounds how many of the host's are tried: all are the same to
// rules that know interfaces.
const maxAddresses = 32

// Close gives up what Arm holds.
func (p *Prober) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.held {
		d.close()
	}
	p.held = nil
	maps.DeleteFunc(p.seen, func(string, nsID) bool { return true })
	return nil
}
