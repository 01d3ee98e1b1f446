package firewall_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/firewall/iptables"
	"github.com/managemyclaw/hardshell/firewall/nft"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// The policy closes every way in that a container engine opens, and nothing
// else, whatever happens afterwards. Nothing here looks at a rule: all of it
// is connections that are tried.

const (
	closedAfter = 400 * time.Millisecond // unanswered for so long
	openWithin  = 3 * time.Second
)

// A way is one connection that somebody tries.
type way struct {
	name string
	try  func(ctx context.Context) error
}

// engineSetup is an engine, with what it closes by itself and why.
type engineSetup struct {
	name    string
	cfg     lab.Config
	v6      bool              // containers have IPv6 addresses
	closes  func(string) bool // ways that it closes by itself
	user    bool              // it has DOCKER-USER for IPv4 and IPv6
	proxied bool              // only proxy processes serve IPv6
	why     string
}

// site is a lab in which an engine exposes what engines expose.
type site struct {
	*testing.T
	l     *lab.Lab
	setup engineSetup

	addr   map[string]netip.Addr // of containers
	addr6  map[string]netip.Addr
	policy firewall.Policy
	closed []way // that the policy closes
	opened []way // that it leaves alone or allows
}

// engines lists those that there are: the one in $PATH, and the one that
// $HARDSHELL_DOCKERD names.
func engines(t *testing.T) (all []engineSetup) {
	v6 := []string{"--ipv6", "--fixed-cidr-v6=fd00:d0c::/64"}
	inPath, err := exec.LookPath("dockerd")
	if err == nil && !since28(t, inPath) {
		nothing := func(string) bool { return false }
		all = []engineSetup{
			{name: "as installed", closes: nothing, proxied: true},
			{name: "IPv6", cfg: lab.Config{DockerdArgs: append(v6, "--ip6tables", "--experimental")}, v6: true, closes: nothing},
			{name: "no proxy", cfg: lab.Config{DockerdArgs: []string{"--userland-proxy=false"}}, closes: func(name string) bool {
				return strings.Contains(name, "proxy") || strings.Contains(name, "IPv6")
			}, why: "without proxy processes and ip6tables nothing serves IPv6"},
		}
		for i := range all {
			all[i].cfg.Dockerd = inPath
		}
	}
	newer := cmp.Or(os.Getenv("HARDSHELL_DOCKERD"), inPath)
	if newer == "" || !since28(t, newer) {
		t.Log("no engine since Docker 28: name one in HARDSHELL_DOCKERD")
		return all
	}
	direct := func(name string) bool {
		return strings.Contains(name, "direct") || strings.Contains(name, "loopback-published")
	}
	const why = "Docker 28 and later drop what others send to the addresses of containers, and to loopback"
	return append(all,
		engineSetup{name: "newer", cfg: lab.Config{Dockerd: newer, DockerdArgs: v6}, v6: true, user: true, closes: direct, why: why},
		engineSetup{name: "newer with nftables", cfg: lab.Config{Dockerd: newer, DockerdArgs: append(v6, "--firewall-backend=nftables", "--ip-forward=false")}, v6: true, closes: direct, why: why},
	)
}

// since28 reports whether an engine is Docker 28 or later. One that is not of a
// release says any small number.
func since28(t *testing.T, dockerd string) bool {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), dockerd, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	_, version, _ := strings.Cut(string(out), "version ")
	major := 0
	if _, err := fmt.Sscanf(version, "%d.", &major); err != nil {
		t.Fatalf("%s: version %q", dockerd, out)
	}
	return major >= 28 || major < 17
}

func newSite(t *testing.T, setup engineSetup) *site {
	t.Helper()
	s := &site{T: t, setup: setup, addr: make(map[string]netip.Addr), addr6: make(map[string]netip.Addr)}
	s.l = labtest.Start(t, setup.cfg)
	if slices.Contains(setup.cfg.DockerdArgs, "--ip-forward=false") {
		s.must(s.l.Host.SetSysctl(t.Context(), "ipv4/ip_forward", "1"))
		s.must(s.l.Host.SetSysctl(t.Context(), "ipv6/conf/all/forwarding", "1"))
	}
	s.wire()
	s.fill()
	return s
}

func (s *site) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *site) docker(args ...string) string {
	s.Helper()
	out, err := s.l.Docker(s.Context(), args...)
	s.must(err)
	return out
}

// sh runs a script on a machine.
func (s *site) sh(m *lab.Machine, script string) {
	s.Helper()
	if out, err := m.Command(s.Context(), "sh", "-ec", script).CombinedOutput(); err != nil {
		s.Fatalf("%s: %s: %v\n%s", m.Name, script, err, out)
	}
}

// wire gives the host a second interface, and the neighbour what an attacker on
// the same cable gives himself.
func (s *site) wire() {
	s.Helper()
	s.sh(s.l.Host, "ip link add eth1 type veth peer name eth1 netns "+s.l.Neighbour.NetNS()+`
		ip addr add 10.9.0.1/24 dev eth1; ip link set eth1 up`)
	s.sh(s.l.Neighbour, `ip addr add 10.9.0.3/24 dev eth1; ip link set eth1 up
		ip addr flush dev lo; ip route add 127.0.0.1/32 via 192.0.2.1 dev eth0 src 192.0.2.3
		for net in 172.17.0.0/16 172.30.0.0/24 172.31.0.0/24; do ip route add $net via 192.0.2.1; done
		for net in fd00:d0c::/64 fd00:a9e::/64 fd00:1a7e::/64; do ip route add $net via 2001:db8::1; done`)
	s.sh(s.l.Internet, "ip route add 10.9.0.0/24 via 192.0.2.1")
	s.must(s.l.Neighbour.SetSysctl(s.Context(), "ipv4/conf/all/route_localnet", "1"))
	s.must(s.l.Neighbour.SetSysctl(s.Context(), "ipv4/conf/eth0/route_localnet", "1"))

	web := func(m *lab.Machine, address string) {
		ln, err := m.Listen(s.Context(), "tcp", address)
		s.must(err)
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })}
		go server.Serve(ln)
		s.Cleanup(func() { server.Close() })
	}
	web(s.l.Host, ":9000")
	web(s.l.Internet, ":80")
	for address, serve := range map[string]func(net.PacketConn){":7": lab.Echo, lab.FarAddr4.String() + ":53": lab.DNS} {
		c, err := s.l.Internet.ListenPacket(s.Context(), "udp", address)
		s.must(err)
		go serve(c)
		s.Cleanup(func() { c.Close() })
	}
}

// run starts a container of the site.
func (s *site) run(name string, args ...string) error {
	args = append([]string{"run", "-d", "--name", name, "--restart=always"}, args...)
	_, err := s.l.Docker(s.Context(), append(args, lab.AgentImage, "serve", "-udp")...)
	return err
}

// ready waits until containers serve, and notes their addresses.
func (s *site) ready(names ...string) {
	s.Helper()
	s.locate(names...)
	for _, name := range names {
		try := s.get(s.l.Host, s.addr[name].String(), lab.AgentPort)
		for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			err := try(s.Context())
			if err == nil {
				break
			}
			if time.Since(start) > 20*time.Second {
				s.Fatalf("container %s does not serve: %v", name, err)
			}
		}
	}
}

func (s *site) network(name, v4, v6 string) {
	s.Helper()
	args := []string{"network", "create", "--subnet", v4}
	if s.setup.v6 {
		args = append(args, "--ipv6", "--subnet", v6)
	}
	s.docker(append(args, name)...)
}

func (s *site) locate(names ...string) {
	s.Helper()
	out := s.docker(append([]string{"inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}},{{.GlobalIPv6Address}}{{end}}"}, names...)...)
	for i, line := range strings.Fields(out) {
		name := names[i]
		v4, v6, _ := strings.Cut(line, ",")
		a, err := netip.ParseAddr(v4)
		s.must(err)
		s.addr[name] = a
		if s.setup.v6 {
			a, err := netip.ParseAddr(v6)
			s.must(err)
			s.addr6[name] = a
		}
	}
}

func (s *site) fill() {
	s.Helper()
	// As "ufw disable" leaves it: engines before Docker 28 then leave
	// unpublished ports open too.
	s.sh(s.l.Host, "iptables -P FORWARD ACCEPT; ip6tables -P FORWARD ACCEPT")
	s.network("agents", "172.30.0.0/24", "fd00:a9e::/64")
	var g errgroup.Group
	g.SetLimit(3)
	for name, args := range map[string][]string{
		"www": {
			"-p", "8080:18789", "-p", "18789:18789", "-p", "8083:18789", "-p", "8087:18789", "-p", "192.0.2.1:8086:18789",
			"-p", "5353:18789/udp",
		},
		"private": {"-p", "127.0.0.1:8081:18789", "-p", "[::1]:8084:18789"},
		"quiet":   nil,
		"net":     {"--network", "agents", "-p", "8090:18789"},
		"mate":    {"--network", "agents"},
	} {
		g.Go(func() error { return s.run(name, args...) })
	}
	s.must(g.Wait())
	s.ready("www", "private", "quiet", "net", "mate")
	s.policy = s.read()
}

// read makes the policy of what the engine has at the moment.
func (s *site) read() firewall.Policy {
	s.Helper()
	tcp := func(n uint16) firewall.Port { return firewall.Port{Protocol: firewall.TCP, Number: n} }
	p := firewall.Policy{
		Allow: []firewall.Allow{
			{Port: tcp(8083)},
			{Port: tcp(8087), From: []netip.Prefix{netip.MustParsePrefix("192.0.2.3/32"), netip.MustParsePrefix("2001:db8::3/128")}},
		},
		Published: []firewall.Port{{Protocol: firewall.UDP, Number: 5353}},
	}
	for _, n := range []uint16{8080, 18789, 8083, 8087, 8086, 8081, 8084, 8090} {
		p.Published = append(p.Published, tcp(n))
	}
	ids := strings.FieldsSeq(s.docker("network", "ls", "-q", "--no-trunc", "-f", "driver=bridge"))
	for id := range ids {
		out := s.docker("network", "inspect", "-f", "{{.Name}} {{range .IPAM.Config}}{{.Subnet}} {{end}}", id)
		fields := strings.Fields(out)
		n := firewall.Network{Name: fields[0], Interface: "br-" + id[:12]}
		if n.Name == "bridge" {
			n.Interface = "docker0"
		}
		for _, f := range fields[1:] {
			n.Prefixes = append(n.Prefixes, netip.MustParsePrefix(f))
		}
		p.Networks = append(p.Networks, n)
	}
	return p
}

// get tries an HTTP request from a machine.
func (s *site) get(m *lab.Machine, address string, port int) func(context.Context) error {
	return func(ctx context.Context) error {
		url := "http://" + net.JoinHostPort(address, fmt.Sprint(port)) + "/healthz"
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := m.Client(openWithin).Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	}
}

// datagram tries whether an echo comes back to a machine.
func (s *site) datagram(m *lab.Machine, address string) func(context.Context) error {
	return func(ctx context.Context) error {
		c, err := m.Dial(ctx, "udp", address)
		if err != nil {
			return err
		}
		defer c.Close()
		deadline, _ := ctx.Deadline()
		c.SetDeadline(deadline)
		buf := make([]byte, 16)
		err = context.DeadlineExceeded
		for ctx.Err() == nil { // a datagram may get lost while an engine starts
			if _, err = c.Write([]byte("hello")); err != nil {
				return err
			}
			if _, err = c.Read(buf); err == nil {
				return nil
			}
		}
		return err
	}
}

// do has a container try something. The host asks it, which nothing may forbid.
func (s *site) do(container, verb string, args ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		addr := netip.AddrPortFrom(s.addr[container], lab.AgentPort).String()
		a, err := lab.Ask(ctx, s.l.Host.Client(openWithin), addr, verb, args...)
		if err == nil && !a.OK {
			err = errors.New(a.Error)
		}
		return err
	}
}

// ways lists what is tried. Those of containers that come later are in
// lateWays.
func (s *site) ways() {
	s.closed, s.opened = nil, nil
	l := s.l
	host4, host6 := "192.0.2.1", "2001:db8::1"
	add := func(name string, try func(context.Context) error) { s.closed = append(s.closed, way{name, try}) }
	add("published port", s.get(l.Internet, host4, 8080))
	add("published port that the container calls so too", s.get(l.Internet, host4, 18789))
	add("published port from the neighbour", s.get(l.Neighbour, host4, 8080))
	add("port published on one address", s.get(l.Internet, host4, 8086))
	add("published port over the second interface", s.get(l.Neighbour, "10.9.0.1", 8080))
	add("published port of the other interface's address", s.get(l.Internet, "10.9.0.1", 8080))
	add("published port over IPv6 (proxy)", s.get(l.Internet, host6, 8080))
	add("port of a user's network", s.get(l.Internet, host4, 8090))
	add("port of a user's network over IPv6 (proxy)", s.get(l.Internet, host6, 8090))
	add("datagrams to a published port", s.datagram(l.Internet, host4+":5353"))
	add("datagrams to a published port over IPv6 (proxy)", s.datagram(l.Internet, "["+host6+"]:5353"))
	add("loopback-published port by frames for 127.0.0.1", s.get(l.Neighbour, "127.0.0.1", 8081))
	add("loopback-published port by direct route", s.get(l.Neighbour, s.addr["private"].String(), 18789))
	add("direct route to a published port", s.get(l.Neighbour, s.addr["www"].String(), 18789))
	add("direct route to an unpublished port", s.get(l.Neighbour, s.addr["quiet"].String(), 18789))
	add("direct route to an unpublished port of a user's network", s.get(l.Neighbour, s.addr["mate"].String(), 18789))
	if s.setup.v6 {
		add("loopback-published port by direct route over v6", s.get(l.Neighbour, s.addr6["private"].String(), 18789))
		add("direct route to a published port over v6", s.get(l.Neighbour, s.addr6["www"].String(), 18789))
		add("direct route to an unpublished port over v6", s.get(l.Neighbour, s.addr6["quiet"].String(), 18789))
		add("direct route to an unpublished port of a user's network over v6", s.get(l.Neighbour, s.addr6["mate"].String(), 18789))
	}
	add("port allowed to somebody else", s.get(l.Internet, host4, 8087))
	add("port allowed to somebody else over IPv6 (proxy)", s.get(l.Internet, host6, 8087))

	add = func(name string, try func(context.Context) error) {
		if !s.setup.closes(name) || !strings.Contains(name, "IPv6") {
			s.opened = append(s.opened, way{name, try})
		}
	}
	add("allowed port", s.get(l.Internet, host4, 8083))
	add("allowed port over IPv6 (proxy)", s.get(l.Internet, host6, 8083))
	add("allowed port from who may", s.get(l.Neighbour, host4, 8087))
	add("allowed port from who may over IPv6 (proxy)", s.get(l.Neighbour, host6, 8087))
	add("the host, at a port published on loopback", s.get(l.Host, "127.0.0.1", 8081))
	add("the host, at a port published anywhere", s.get(l.Host, "127.0.0.1", 8080))
	add("the host, at its own address", s.get(l.Host, host4, 8080))
	add("the host's own service", s.get(l.Internet, host4, 9000))
	add("the host's own service over v6", s.get(l.Internet, host6, 9000))
	add("a container to the internet", s.do("www", "get", "http://198.51.100.10/"))
	add("a container of a user's network to the internet", s.do("net", "get", "http://198.51.100.10/"))
	add("a container to the internet by datagrams", s.do("www", "send", "udp", "198.51.100.10:7", "hello"))
	add("a container asks the DNS", s.do("www", "lookup", "example.com", "198.51.100.10:53"))
	add("a container asks the engine's DNS", s.do("net", "lookup", "example.com"))
	add("a container to another", s.do("www", "get", "http://"+s.addr["quiet"].String()+":18789/healthz"))
	add("a container to another on a user's network", s.do("net", "get", "http://mate:18789/healthz"))
	add("a container to a service of the host", s.do("net", "get", "http://192.0.2.1:9000/"))
}

// late is what the engine publishes after the policy: on networks that were
// there, and on one that was not.
func (s *site) late() (closed, opened []way) {
	s.Helper()
	s.network("late", "172.31.0.0/24", "fd00:1a7e::/64")
	var g errgroup.Group
	for name, args := range map[string][]string{
		"late1": {"-p", "8095:18789"},
		"late2": {"--network", "late", "-p", "8096:18789"},
		"late3": {"--network", "late"},
	} {
		g.Go(func() error { return s.run(name, args...) })
	}
	s.must(g.Wait())
	s.ready("late1", "late2", "late3")
	closed = []way{
		{"port published later", s.get(s.l.Internet, "192.0.2.1", 8095)},
		{"port of a network made later", s.get(s.l.Internet, "192.0.2.1", 8096)},
		{"direct route to a network made later", s.get(s.l.Neighbour, s.addr["late2"].String(), 18789)},
		{"direct route to an unpublished port of a network made later", s.get(s.l.Neighbour, s.addr["late3"].String(), 18789)},
	}
	if s.setup.v6 {
		closed = append(closed,
			way{"port published later over IPv6", s.get(s.l.Internet, "2001:db8::1", 8095)},
			way{"port of a network made later over IPv6", s.get(s.l.Internet, "2001:db8::1", 8096)},
			way{"direct route to a network made later over v6", s.get(s.l.Neighbour, s.addr6["late2"].String(), 18789)},
		)
	}
	opened = []way{
		{"a container to another on a network made later", s.do("late2", "get", "http://"+s.addr["late3"].String()+":18789/healthz")},
		{"a container of a network made later to the internet", s.do("late2", "get", "http://198.51.100.10/")},
		{"the host, at a port published later", s.get(s.l.Host, "127.0.0.1", 8095)},
	}
	return closed, opened
}

func (s *site) unlate() {
	s.Helper()
	s.docker("rm", "-f", "late1", "late2", "late3")
	s.docker("network", "rm", "late")
}

// try tries all ways at once, and returns what became of them by name.
func (s *site) try(ways []way, patience time.Duration) map[string]error {
	var mu sync.Mutex
	out := make(map[string]error)
	var g errgroup.Group
	g.SetLimit(40)
	for _, w := range ways {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(s.Context(), patience)
			defer cancel()
			err := w.try(ctx)
			mu.Lock()
			defer mu.Unlock()
			out[w.name] = err
			return nil
		})
	}
	g.Wait()
	return out
}

// expectOpen fails the test for ways that lead nowhere.
func (s *site) expectOpen(when string, ways []way) {
	s.Helper()
	for name, err := range s.try(ways, openWithin) {
		if err != nil {
			s.Errorf("%s: %s should be open: %v", when, name, err)
		}
	}
}

func (s *site) expectClosed(when string, ways []way) {
	s.Helper()
	for name, err := range s.try(ways, closedAfter) {
		if err == nil {
			s.Errorf("%s: %s should be closed", when, name)
		}
	}
}

// expectExposed is that without a policy all ways lead in, but those that the engine
// closes itself.
func (s *site) expectExposed(ways []way) {
	s.Helper()
	var open, closed []way
	for _, w := range ways {
		if s.setup.closes(w.name) {
			closed = append(closed, w)
		} else {
			open = append(open, w)
		}
	}
	s.expectOpen("without a policy", open)
	s.expectClosed("without a policy ("+s.setup.why+")", closed)
	s.Logf("%d ways in are open without a policy, %d the engine closes itself", len(open), len(closed))
}

func TestExposure(t *testing.T) {
	t.Parallel()
	setups := engines(t)
	if len(setups) == 0 {
		labtest.Skip(t, "no engine")
	}
	for _, setup := range setups {
		t.Run(setup.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, setup)
			t.Logf("engine %s", s.l.EngineVersion())
			s.ways()
			s.expectExposed(s.closed)
			s.expectOpen("without a policy", s.opened)
			lateClosed, lateOpened := s.late()
			s.expectExposed(lateClosed)
			s.expectOpen("without a policy", lateOpened)
			s.unlate()

			for _, b := range []firewall.Backend{
				&nft.Backend{NetNS: s.l.Host.NetNS()},
				&iptables.Backend{NetNS: s.l.Host.NetNS(), Mode: iptables.Both},
			} {
				s.prove(b)
			}
			s.dockerUser(&iptables.Backend{NetNS: s.l.Host.NetNS()})
			if setup.proxied {
				s.engineCgroup()
			}
			s.expectExposed(s.closed) // they are gone
		})
	}
}

// prove applies the policy, and has happen what happens to a machine.
func (s *site) prove(b firewall.Backend) {
	s.Helper()
	ctx := s.Context()
	s.must(b.Apply(ctx, s.policy))
	after := func(what string) {
		s.Helper()
		when := b.Name() + ", after " + what
		s.expectClosed(when, s.closed)
		s.expectOpen(when, s.opened)
	}
	after("apply")
	closed, opened := s.late()
	s.expectClosed(b.Name()+", published later", closed)
	s.expectOpen(b.Name()+", published later", opened)
	s.unlate()
	s.must(b.Remove(ctx))
}

// dockerUser is the chain alone: what an engine that has it sends on is closed,
// and one that has none says so before anything is changed.
func (s *site) dockerUser(b firewall.Backend) {
	s.Helper()
	err := b.Apply(s.Context(), s.policy)
	if !s.setup.user {
		if !errors.Is(err, iptables.ErrNoDockerUser) {
			s.Errorf("without a chain DOCKER-USER Apply returns %v", err)
		}
		out, err := s.l.Host.Command(s.Context(), "sh", "-c", "iptables-save; ip6tables-save").Output()
		s.must(err)
		if strings.Contains(string(out), "HARDSHELL") {
			s.Errorf("without a chain DOCKER-USER Apply has made\n%s", out)
		}
		return
	}
	s.must(err)
	s.expectClosed("DOCKER-USER", s.closed)
	s.expectOpen("DOCKER-USER", s.opened)
	s.must(b.Remove(s.Context()))
}

// engineCgroup is about a port that is published after the policy and that only
// a proxy process serves: the rules cannot know it, unless they know the process.
func (s *site) engineCgroup() {
	s.Helper()
	p := s.policy
	p.Published = slices.DeleteFunc(slices.Clone(p.Published), func(port firewall.Port) bool { return port.Number == 8080 })
	late := []way{{"port published later by a proxy", s.get(s.l.Internet, "2001:db8::1", 8080)}}
	others := slices.DeleteFunc(slices.Clone(s.opened), func(w way) bool { return w.name == late[0].name })

	b := &nft.Backend{NetNS: s.l.Host.NetNS()}
	s.must(b.Apply(s.Context(), p))
	s.expectOpen("nftables without the engine's control group", late)
	b.EngineCgroup = s.l.ID() + "/engine"
	s.must(b.Apply(s.Context(), p))
	s.expectClosed("nftables with the engine's control group", append(late, s.closed...))
	s.expectOpen("nftables with the engine's control group", others)

	// So does the watcher, as soon as somebody tells it.
	b.EngineCgroup = ""
	s.must(b.Apply(s.Context(), p))
	s.expectOpen("nftables before the watcher", late)
	reports := make(chan firewall.Drift, 10)
	ctx, cancel := context.WithCancel(s.Context())
	watcher := &firewall.Watcher{
		Backend: b, Repair: true, Interval: time.Hour,
		Source: func(context.Context) (firewall.Policy, error) { return s.policy, nil },
		Report: func(d firewall.Drift) { reports <- d },
	}
	done := make(chan error, 1)
	go func() { done <- watcher.Run(ctx) }()
	if d := <-reports; !d.Repaired || d.Err != nil {
		s.Errorf("the watcher: %+v", d)
	}
	s.expectClosed("nftables after the watcher", late)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		s.Errorf("the watcher returned %v", err)
	}
	s.must(b.Remove(s.Context()))
}
