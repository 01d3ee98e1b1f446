package egress

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// The truth about what leaves a workload is what arrives: each attempt carries
// a token of its own, and the lab's machines note the tokens that they
// receive. No test looks at a rule.

const (
	patience = 500 * time.Millisecond // that a way has to lead somewhere
	openWait = 15 * time.Second       // that all ways have, before they are closed
)

var tokenPattern = regexp.MustCompile(`tok[0-9]+x`)

// sinks notes tokens.
type sinks struct {
	mu    sync.Mutex
	seen  map[string]bool
	count int
}

func (s *sinks) token() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	return fmt.Sprintf("tok%dx", s.count)
}

func (s *sinks) note(data []byte) { s.noteAt("", data) }

func (s *sinks) noteAt(where string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, token := range tokenPattern.FindAll(data, -1) {
		s.seen[where+string(token)] = true
	}
}

func (s *sinks) arrived(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[token]
}

func (s *sinks) tcp(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			buf := make([]byte, 4096)
			n, _ := c.Read(buf)
			s.note(buf[:n])
		}()
	}
}

func (s *sinks) udp(c net.PacketConn) {
	buf := make([]byte, 64<<10)
	for {
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		s.note(buf[:n])
	}
}

// noting is a connection whose data are noted before somebody answers them.
type noting struct {
	net.PacketConn
	s *sinks
}

func (c noting) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.PacketConn.ReadFrom(b)
	c.s.note(b[:n])
	return n, from, err
}

// A way is something by which data get out of a workload, or in.
type way struct {
	workload, name string
	verb           []string                    // what the workload does; TOKEN stands for the token
	pull           func(context.Context) error // what somebody else does instead
	push           func(token string)          // what somebody else sends
	at             string                      // where that arrives, if it is one sink alone
}

// atHost is what the host's own packet sockets see.
const atHost = "host "

// frameToHost is a way that ends there: rules drop the frame after they have
// seen it.
const frameToHost = "frame to the host"

func (w way) String() string { return w.workload + ": " + w.name }

// site is a lab with a workload of every kind.
type site struct {
	testing.TB
	*sinks
	l    *lab.Lab
	ways []way

	streams map[string]*lab.Sink // by workload
	prober  *Prober

	stricter []string // workloads that the prober names although no way is open
	shut     []string // ways that the engine keeps shut by itself
	closers  []func()
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

func (s *site) sh(m *lab.Machine, script string) string {
	s.Helper()
	out, err := m.Command(s.Context(), "sh", "-ec", script).CombinedOutput()
	if err != nil {
		s.Fatalf("%s: %s: %v\n%s", m.Name, script, err, out)
	}
	return string(out)
}

func (s *site) pid(name string) int {
	s.Helper()
	pid, err := strconv.Atoi(s.docker("inspect", "-f", "{{.State.Pid}}", name))
	s.must(err)
	return pid
}

func (s *site) listenTCP(m *lab.Machine, address string) {
	s.Helper()
	ln, err := m.Listen(s.Context(), "tcp", address)
	s.must(err)
	go s.tcp(ln)
	s.Cleanup(func() { ln.Close() })
}

func (s *site) listenUDP(m *lab.Machine, address string, serve func(net.PacketConn)) {
	s.Helper()
	c, err := m.ListenPacket(s.Context(), "udp", address)
	s.must(err)
	go serve(noting{c, s.sinks})
	s.Cleanup(func() { c.Close() })
}

// listenFrames notes what comes to a namespace in frames of the agent's type,
// until the returned function is called.
func (s *site) listenFrames(where, netns string) (stop func()) {
	s.Helper()
	ns, err := os.Open(netns)
	s.must(err)
	defer ns.Close()
	const experimental = 0x88b5
	fd := -1
	s.must(within(ns, func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, experimental>>8|experimental&0xff<<8)
		return err
	}))
	s.must(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20000}))
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 2048)
		for {
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if err == nil && n > 0 {
				// What the host's own interface sends on for a neighbour is not
				// for it.
				if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype != unix.PACKET_OUTGOING {
					s.noteAt(where, buf[:n])
				}
			}
			select {
			case <-end:
				return
			default:
			}
		}
	}()
	return sync.OnceFunc(func() {
		close(end)
		<-ended
		unix.Close(fd)
	})
}

const (
	net4, net6 = "172.30.%d.", "fd00:a9e:%d::"
	agentDNS   = "127.0.0.1:53"
)

func (s *site) network(name string, n int, args ...string) {
	s.Helper()
	args = append([]string{
		"network", "create", "--ipv6", "--subnet", fmt.Sprintf(net4, n) + "0/24", "--subnet", fmt.Sprintf(net6, n) + "/64",
		"--gateway", fmt.Sprintf(net4, n) + "1", "--gateway", fmt.Sprintf(net6, n) + "1",
		"-o", "com.docker.network.bridge.name=br-" + name,
	}, args...)
	s.docker(append(args, name)...)
}

func (s *site) run(name string, args ...string) error {
	args = append([]string{"run", "-d", "--name", name, "--restart=always"}, args...)
	_, err := s.l.Docker(s.Context(), append(args, lab.AgentImage)...)
	return err
}

var engineArgs = flag.String("engine", "", "further arguments for the engine, such as --userland-proxy=false")

var workloadNames = []string{"solo", "duo", "inner", "vlan", "hostly"}

// newSite fills a lab: solo is on a bridge, duo on two, inner on one that is
// internal, vlan on a macvlan, and hostly in the host's network. The host asks
// a name server of its own, so that the engine asks for the containers.
func newSite(t testing.TB, cfg lab.Config) *site {
	t.Helper()
	cfg.DockerdArgs = slices.Concat(cfg.DockerdArgs, strings.Fields(*engineArgs), engineIPv6)
	s := &site{TB: t, sinks: &sinks{seen: map[string]bool{}}, l: labtest.Start(t, cfg), streams: map[string]*lab.Sink{}}
	if s.apiVersion() >= 45 {
		// CVE-2024-29018, mended in Docker 26 and its older patches.
		s.shut = append(s.shut, "inner: the engine's resolver")
	}
	s.open()
	s.closers = append(s.closers, s.listenFrames("", s.l.Internet.NetNS()), s.listenFrames(atHost, s.l.Host.NetNS()))
	t.Cleanup(func() {
		for _, c := range s.closers {
			c()
		}
	})
	for i, name := range workloadNames {
		sink, err := s.l.Internet.Sink(t.Context(), "tcp", fmt.Sprintf(":%d", 8100+i))
		s.must(err)
		s.streams[name] = sink
		t.Cleanup(func() { sink.Close() })
	}

	s.network("n1", 1)
	s.network("n2", 2)
	s.network("n3", 3)
	s.network("n4", 4, "--internal")
	s.network("n5", 5)
	s.docker("network", "create", "-d", "macvlan", "-o", "parent=eth0", "--ipv6", "--subnet", "192.0.2.0/24", "--ip-range", "192.0.2.64/26",
		"--gateway", "192.0.2.2", "--subnet", "2001:db8::/64", "--gateway", "2001:db8::2", "lan")
	var g errgroup.Group
	g.SetLimit(3)
	for name, args := range map[string][]string{
		"solo":   {"--network", "n1", "--ip", "172.30.1.10", "--ip6", "fd00:a9e:1::10", "-p", "8080:18789", "-p", "9999:9999/udp"},
		"mate1":  {"--network", "n1", "--ip", "172.30.1.20", "--ip6", "fd00:a9e:1::20"},
		"duo":    {"--network", "n2", "--ip", "172.30.2.10", "--ip6", "fd00:a9e:2::10", "-p", "8081:18789"},
		"mate3":  {"--network", "n3", "--ip", "172.30.3.20", "--ip6", "fd00:a9e:3::20"},
		"inner":  {"--network", "n4", "--ip", "172.30.4.10", "--ip6", "fd00:a9e:4::10"},
		"mate4":  {"--network", "n4", "--ip", "172.30.4.20", "--ip6", "fd00:a9e:4::20"},
		"vlan":   {"--network", "lan", "--ip", "192.0.2.70", "--ip6", "2001:db8::70"},
		"hostly": {"--network", "host"},
	} {
		g.Go(func() error { return s.run(name, args...) })
	}
	s.must(g.Wait())
	s.docker("network", "connect", "--ip", "172.30.3.10", "--ip6", "fd00:a9e:3::10", "n3", "duo")
	s.plan()
	s.prober = &Prober{
		Source: s.source, NetNS: s.l.Host.NetNS(), Canaries: []netip.Addr{lab.FarAddr4, lab.FarAddr6},
		Helper: []string{os.Args[0], helperCommand},
	}
	t.Cleanup(func() { s.prober.Close() })
	return s
}

// engineIPv6 has the engine serve IPv6.
var engineIPv6 = []string{"--ipv6", "--fixed-cidr-v6=fd00:d0c::/64", "--ip6tables", "--experimental"}

// open opens the host's ways: it forwards, and asks a name server of its own, so that
// the engine asks for the containers.
func (s *site) open() {
	s.Helper()
	s.must(s.l.Host.SetSysctl(s.Context(), "ipv4/ip_forward", "1"))
	s.must(s.l.Host.SetSysctl(s.Context(), "ipv6/conf/all/forwarding", "1"))
	s.must(os.WriteFile(s.l.HostPath("/etc/resolv.conf"), []byte("nameserver 127.0.0.1\n"), 0o644))
	s.sh(s.l.Host, "iptables -P FORWARD ACCEPT; ip6tables -P FORWARD ACCEPT")
	// A bridge then drops nothing for what iptables says.
	for _, f := range []string{"iptables", "ip6tables"} {
		s.sh(s.l.Host, "f=/proc/sys/net/bridge/bridge-nf-call-"+f+"; [ ! -e $f ] || echo 0 >$f")
	}
	s.listenUDP(s.l.Host, agentDNS, lab.DNS)
	s.listenTCP(s.l.Host, ":9000")
	s.listenUDP(s.l.Host, ":9001", s.udp)
	s.listenTCP(s.l.Internet, ":80")
	s.listenUDP(s.l.Internet, ":7", s.udp)
}

// nftablesBackend has an engine since Docker 29 keep its rules in tables of its
// own. Then it neither has the host forward, nor starts where it does not, unless
// it is told not to care.
const (
	nftablesBackend = "--firewall-backend=nftables"
	noForwarding    = "--ip-forward=false"
)

// apiVersion is the second part of the engine's: what an engine calls itself that
// is not of a release says nothing.
func (s *site) apiVersion() (minor int) {
	s.Helper()
	version := s.docker("version", "-f", "{{.Server.APIVersion}}")
	if _, err := fmt.Sscanf(version, "1.%d", &minor); err != nil {
		s.Fatalf("API version %q: %v", version, err)
	}
	return minor
}

// helperCommand has the test's program be the helper.
const helperCommand = "egress-helper"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == helperCommand {
		if err := ServeHelper(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 2 && os.Args[1] == ownCommand {
		cutOffItself(os.Args[2])
		return
	}
	os.Exit(m.Run())
}

// probe has the Prober look, and compares what it says with the truth: whatever has a way
// open is named, and nothing else is. What a packet socket of the host alone
// sees has not left, and what still sends without getting anywhere may be
// named.
func (s *site) probe(when string, open map[string]bool, sending ...string) {
	s.Helper()
	start := time.Now()
	remaining, err := s.prober.Remaining(s.Context())
	took := time.Since(start)
	if err != nil {
		s.Errorf("%s: probe: %v", when, err)
	}
	truth := map[string]bool{"hostly": true} // it may use packet sockets
	for _, name := range s.stricter {
		truth[name] = true
	}
	for w := range open {
		name, way, _ := strings.Cut(w, ":")
		if !strings.HasSuffix(way, frameToHost) {
			truth[name] = true
		}
	}
	for _, name := range workloadNames {
		if slices.Contains(sending, name) && !truth[name] {
			continue
		}
		if truth[name] != (remaining[name] != "") {
			s.Errorf("%s: %s is open: %v; the probe says %q", when, name, truth[name], remaining[name])
		}
	}
	s.Logf("%s: probed in %v: %q", when, took, remaining)
}

// plan lists the ways.
func (s *site) plan() {
	say := func(workload, name string, verb ...string) {
		s.ways = append(s.ways, way{workload: workload, name: name, verb: verb})
	}
	pull := func(workload, name string, m *lab.Machine, address string, port int) {
		url := "http://" + net.JoinHostPort(address, strconv.Itoa(port)) + "/healthz"
		s.ways = append(s.ways, way{workload: workload, name: name, pull: func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				return err
			}
			resp, err := m.Client(patience).Do(req)
			if err != nil {
				return err
			}
			return resp.Body.Close()
		}})
	}
	far4, far6 := lab.FarAddr4.String(), "["+lab.FarAddr6.String()+"]"
	for _, w := range []string{"solo", "duo", "hostly", "vlan"} {
		say(w, "IPv4 out", "send", "tcp", far4+":80", "TOKEN")
		say(w, "IPv6 out", "send", "tcp", far6+":80", "TOKEN")
		say(w, "datagram out", "datagram", far4+":7", "TOKEN")
		say(w, "datagram out by IPv6", "datagram", far6+":7", "TOKEN")
		say(w, "forged source", "spoof", "203.0.113.7", far4+":7", "TOKEN")
	}
	host := func(w string, n int) {
		say(w, fmt.Sprintf("the host by gateway %d", n), "send", "tcp", fmt.Sprintf(net4, n)+"1:9000", "TOKEN")
		say(w, fmt.Sprintf("the host by gateway %d, IPv6", n), "send", "tcp", "["+fmt.Sprintf(net6, n)+"1]:9000", "TOKEN")
		say(w, fmt.Sprintf("the host by gateway %d, datagram", n), "datagram", fmt.Sprintf(net4, n)+"1:9001", "TOKEN")
	}
	for w, bridges := range map[string][]int{"solo": {1}, "duo": {2, 3}, "inner": {4}} {
		for _, n := range bridges {
			host(w, n)
		}
	}
	say("solo", "the host by its address", "send", "tcp", "192.0.2.1:9000", "TOKEN")
	say("hostly", "the host by loopback", "send", "tcp", "127.0.0.1:9000", "TOKEN")
	for w, n := range map[string]int{"solo": 1, "duo": 3, "inner": 4} {
		say(w, "same bridge, IPv4", "send", "tcp", fmt.Sprintf(net4, n)+"20:9100", "TOKEN")
		say(w, "same bridge, IPv6", "send", "tcp", "["+fmt.Sprintf(net6, n)+"20]:9100", "TOKEN")
		frame := []string{"frame", devicePrefix + fmt.Sprintf(net4, n) + "10", "TOKEN"}
		s.ways = append(s.ways, way{workload: w, name: "frame to the same bridge", verb: frame},
			way{workload: w, name: frameToHost, verb: frame, at: atHost})
	}
	say("vlan", "frame to the cable", "frame", "eth0", "TOKEN")
	for _, w := range []string{"solo", "duo", "inner", "vlan"} {
		say(w, "the engine's resolver", "lookup", "TOKEN.example.com")
	}
	pull("solo", "published port", s.l.Internet, "192.0.2.1", 8080)
	pull("solo", "published port, IPv6", s.l.Internet, "2001:db8::1", 8080)
	pull("solo", "proxy on loopback", s.l.Host, "127.0.0.1", 8080)
	pull("solo", "from the host", s.l.Host, "172.30.1.10", lab.AgentPort)
	pull("duo", "published port", s.l.Internet, "192.0.2.1", 8081)
	pull("inner", "from the host", s.l.Host, "172.30.4.10", lab.AgentPort)
	pull("vlan", "from the cable", s.l.Internet, "192.0.2.70", lab.AgentPort)
	pull("vlan", "from the cable, IPv6", s.l.Neighbour, "2001:db8::70", lab.AgentPort)
	pull("hostly", "from outside", s.l.Internet, "192.0.2.1", lab.AgentPort)
	pull("hostly", "from outside, IPv6", s.l.Neighbour, "2001:db8::1", lab.AgentPort)
	pull("hostly", "from the host", s.l.Host, "127.0.0.1", lab.AgentPort)
	s.push("solo", "datagram in, published", s.l.Internet, "192.0.2.1:9999")
	s.push("solo", "datagram in, from the host by IPv6", s.l.Host, "[fd00:a9e:1::10]:9999")
	s.push("inner", "datagram in, from the host", s.l.Host, "172.30.4.10:9999")
	s.push("vlan", "datagram in", s.l.Neighbour, "192.0.2.70:9999")
}

// devicePrefix stands before an address of a workload, and both for the interface that has
// it: an engine that was restarted may have numbered them otherwise.
const devicePrefix = "interface of "

func (s *site) device(pid, addr string) (name string) {
	s.Helper()
	ns, err := os.Open("/proc/" + pid + "/ns/net")
	s.must(err)
	defer ns.Close()
	s.must(within(ns, func() error {
		all, err := net.Interfaces()
		for _, i := range all {
			addrs, err := i.Addrs()
			if err != nil {
				return err
			}
			for _, a := range addrs {
				if strings.HasPrefix(a.String(), addr+"/") {
					name = i.Name
				}
			}
		}
		return err
	}))
	if name == "" {
		s.Fatalf("process %s has no interface with %s", pid, addr)
	}
	return name
}

// push adds a way in.
func (s *site) push(workload, name string, m *lab.Machine, address string) {
	s.ways = append(s.ways, way{workload: workload, name: name, push: func(token string) {
		c, err := m.Dial(s.Context(), "udp", address)
		if err != nil {
			return // that is one way to be closed
		}
		defer c.Close()
		for range 3 {
			_, _ = c.Write([]byte(token))
		}
	}})
}

// neighbours listens in the namespaces that come and go with their containers,
// and in those of the workloads for what is sent to them.
func (s *site) neighbours() (stop func()) {
	s.Helper()
	var closers []func()
	names := []string{"mate1", "mate3", "mate4", "solo", "inner", "vlan"}
	pids := strings.Fields(s.docker(append([]string{"inspect", "-f", "{{.State.Pid}}"}, names...)...))
	for i, name := range names {
		path := fmt.Sprintf("/proc/%s/ns/net", pids[i])
		ns, err := os.Open(path)
		s.must(err)
		s.must(within(ns, func() error {
			if strings.HasPrefix(name, "mate") {
				ln, err := new(net.ListenConfig).Listen(s.Context(), "tcp", ":9100")
				if err != nil {
					return err
				}
				go s.tcp(ln)
				closers = append(closers, func() { ln.Close() })
				return nil
			}
			c, err := new(net.ListenConfig).ListenPacket(s.Context(), "udp", ":9999")
			if err != nil {
				return err
			}
			go s.udp(c)
			closers = append(closers, func() { c.Close() })
			return nil
		}))
		ns.Close()
		if strings.HasPrefix(name, "mate") {
			closers = append(closers, s.listenFrames("", path))
		}
	}
	return func() {
		for _, c := range closers {
			c()
		}
	}
}

// try tries all ways at once, and returns those that lead somewhere.
func (s *site) try() (open map[string]bool) {
	s.Helper()
	stop := s.neighbours()
	defer stop()
	open = map[string]bool{}
	tokens := map[string]string{} // by way
	speech := map[string][]string{}
	pids := map[string]string{}
	for i, pid := range strings.Fields(s.docker(append([]string{"inspect", "-f", "{{.State.Pid}}"}, workloadNames...)...)) {
		pids[workloadNames[i]] = pid
	}
	var mu sync.Mutex
	var g errgroup.Group
	for _, w := range s.ways {
		token := s.token()
		tokens[w.String()] = w.at + token
		switch {
		case w.verb != nil:
			words := slices.Clone(w.verb)
			for i := range words {
				words[i] = strings.ReplaceAll(words[i], "TOKEN", token)
				if addr, ok := strings.CutPrefix(words[i], devicePrefix); ok {
					words[i] = s.device(pids[w.workload], addr)
				}
			}
			text, err := json.Marshal(words)
			s.must(err)
			speech[w.workload] = append(speech[w.workload], string(text))
		case w.push != nil:
			g.Go(func() error { w.push(token); return nil })
		default:
			g.Go(func() error {
				ctx, cancel := context.WithTimeout(s.Context(), patience)
				defer cancel()
				if w.pull(ctx) == nil {
					mu.Lock()
					defer mu.Unlock()
					open[w.String()] = true
				}
				return nil
			})
		}
	}
	for workload, attempts := range speech {
		g.Go(func() error {
			a, err := s.l.Do(s.Context(), workload, "all", append([]string{strconv.Itoa(int(patience / time.Millisecond))}, attempts...)...)
			if err == nil && !a.OK {
				err = fmt.Errorf("%s: %v", workload, a)
			}
			return err
		})
	}
	s.must(g.Wait())
	time.Sleep(20 * time.Millisecond) // that the sinks have to read what has arrived
	for w, token := range tokens {
		if s.arrived(token) {
			open[w] = true
		}
	}
	return open
}

// expectOpen waits until all ways lead somewhere, as they should while nothing
// is locked. Addresses are not ready at once.
func (s *site) expectOpen(when string) {
	s.Helper()
	var shut []string
	for start := time.Now(); time.Since(start) < openWait; {
		open := s.try()
		shut = nil
		for _, w := range s.ways {
			if !open[w.String()] && !slices.Contains(s.shut, w.String()) {
				shut = append(shut, w.String())
			}
		}
		if len(shut) == 0 {
			s.probe(when, open)
			s.Logf("%s: %d of %d ways are open", when, len(open), len(s.ways))
			return
		}
	}
	s.Fatalf("%s: not open: %s", when, strings.Join(shut, "; "))
}

// expectClosed has no way lead anywhere, but those that except says.
func (s *site) expectClosed(when string, except ...string) {
	s.Helper()
	closed, allowed := 0, 0
	var leaks []string
	open := s.try()
	for _, w := range slices.Sorted(maps.Keys(open)) {
		if slices.ContainsFunc(except, func(e string) bool { return strings.HasPrefix(w, e) || strings.HasSuffix(w, e) }) {
			allowed++
			continue
		}
		leaks = append(leaks, w)
	}
	var sending []string
	if slices.Contains(except, "resolver") { // there is nothing inside
		for _, w := range s.shut {
			name, _, _ := strings.Cut(w, ":")
			sending = append(sending, name)
		}
	}
	s.probe(when, open, sending...)
	closed = len(s.ways) - allowed - len(leaks)
	s.Logf("%s: %d ways are closed, %d open as expected", when, closed, allowed)
	if len(leaks) > 0 {
		s.Fatalf("%s: open: %s", when, strings.Join(leaks, "; "))
	}
}

// source lists the workloads as the engine knows them.
func (s *site) source(ctx context.Context) ([]Workload, error) {
	const format = `{{.Name}} {{.State.Pid}} {{.HostConfig.NetworkMode}} {{range .NetworkSettings.Networks}}{{.NetworkID}},{{end}}`
	out, err := s.l.Docker(ctx, append([]string{"inspect", "-f", format}, workloadNames...)...)
	if err != nil {
		return nil, err
	}
	var all []Workload
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		pid, err := strconv.Atoi(f[1])
		if err != nil {
			return nil, err
		}
		w := Workload{Name: strings.TrimPrefix(f[0], "/"), PID: pid, HostNetwork: f[2] == "host"}
		if b, ok := bridgeOf[f[2]]; ok {
			w.Bridges = append(w.Bridges, b)
		}
		all = append(all, w)
	}
	return all, nil
}

var bridgeOf = map[string]string{"n1": "br-n1", "n2": "br-n2", "n4": "br-n4"}

// stream starts one from each workload that reaches the internet, and waits
// until all flow.
func (s *site) stream() {
	s.Helper()
	for i, name := range workloadNames {
		if name == "inner" {
			continue
		}
		before := s.streams[name].Bytes()
		s.docker("exec", "-d", name, "/agent", "do", "stream", fmt.Sprintf("%s:%d", lab.FarAddr4, 8100+i), "600")
		for start := time.Now(); s.streams[name].Bytes() < before+64*20; time.Sleep(5 * time.Millisecond) {
			if time.Since(start) > openWait {
				s.Fatalf("%s does not stream", name)
			}
		}
	}
}

// expectDry has no stream bring anything since t.
func (s *site) expectDry(t time.Time) {
	s.Helper()
	for _, name := range workloadNames {
		if name == "inner" {
			continue
		}
		late := s.streams[name].Last().Sub(t)
		if time.Since(s.streams[name].Last()) < 100*time.Millisecond {
			s.Errorf("%s still streams", name)
		}
		s.Logf("%s: last byte %v after the lock was asked for", name, late)
	}
}
