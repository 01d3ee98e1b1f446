package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// An agent that may change its own network gets nowhere but to the engine's resolver, and
// that is named; nor does who is in its network with it, on whichever networks
// it was put after the lock was prepared.
func TestAdversary(t *testing.T) {
	t.Parallel()
	d := newDen(t)
	d.network("n1", 1)
	d.network("n2", 2)
	d.docker("run", "-d", "--name", "agent", "--network", "n1", "--ip", "172.30.1.10", "--cap-add", "NET_ADMIN", lab.AgentImage)
	d.docker("run", "-d", "--name", "joiner", "--network", "container:agent", lab.AgentImage, "serve", "-port", "18790")
	d.docker("run", "-d", "--name", "friend", "--network", "n2", "--ip", "172.30.2.20", lab.AgentImage)
	agent := Workload{Name: "agent", PID: d.pid("agent")}
	inside := func(script string) {
		t.Helper()
		d.sh(d.l.Host, fmt.Sprintf("nsenter --net=/proc/%d/ns/net sh -ec '%s'", agent.PID, script))
	}
	l := &Lock{Source: sourceOf(agent), NetNS: d.l.Host.NetNS()}
	t.Cleanup(func() { l.Close() })
	if err := l.Arm(t.Context()); err != nil {
		t.Fatalf("Arm: %v", err)
	}
	d.docker("network", "connect", "--ip", "172.30.2.10", "n2", "agent")
	d.listenIn("friend", ":9100")
	places := []string{lab.FarAddr4.String() + ":80", "[" + lab.FarAddr6.String() + "]:80", "172.30.1.1:9000", "172.30.2.1:9000", "172.30.2.20:9100", "192.0.2.1:9000"}
	for _, who := range []string{"agent", "joiner"} {
		d.mustReach(who, places...)
	}
	d.mustAsk("agent")

	do := func() {
		t.Helper()
		open, _ := errors.AsType[*OpenError](l.Do(t.Context()))
		if open == nil || len(open.Open()) != 1 || len(open.Unwrap()) > 0 || !strings.Contains(open.Open()["agent"], "CAP_NET_ADMIN") {
			t.Fatalf("Do: %v, want that the agent may take away rules, and nothing else", open)
		}
	}
	closed := func(when string) {
		t.Helper()
		var g errgroup.Group
		for _, who := range []string{"agent", "joiner"} {
			g.Go(func() error {
				if open := d.reaches(who, places...); len(open) > 0 {
					return fmt.Errorf("%s reaches %q", who, open)
				}
				return nil
			})
		}
		// Nor is whoever enters from the host any better off.
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", agent.PID))
		d.must(err)
		defer ns.Close()
		for _, place := range places {
			g.Go(func() error {
				if within(ns, func() error { return dialFor(t.Context(), place, patience) }) == nil {
					return fmt.Errorf("who enters from the host reaches %s", place)
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	do()
	closed("locked")
	if d.asks("agent") || d.asks("joiner") {
		t.Error("locked: the engine's resolver answers")
	}
	for name, script := range map[string]string{
		"takes the rules away":        "nft flush ruleset",
		"takes its interface down":    "ip link set eth0 down; ip link set eth0 up; ip route add default via 172.30.1.1 || ip route add default via 172.30.2.1",
		"takes another name":          "ip link set eth0 down; ip link set eth0 name other; ip link set other address 02:00:00:00:00:77; ip link set other up; ip route add default via 172.30.1.1 dev other || ip route add default via 172.30.2.1 dev other; ip link set other down; ip link set other name eth0; ip link set eth0 up; ip route add default via 172.30.1.1 || ip route add default via 172.30.2.1",
		"takes another address":       "ip addr add 172.30.1.99/24 dev eth0; ip addr add 172.30.2.99/24 dev eth1",
		"has an interface on its own": "ip link add link eth0 name over type macvlan; ip addr add 172.30.1.98/24 dev over; ip link set over up; ip link del over",
	} {
		inside("nft flush ruleset; " + script)
		closed("it " + name)
		do()
		if d.asks("agent") {
			t.Errorf("it %s, and is locked again: the engine's resolver answers", name)
		}
	}
	if err := l.Release(t.Context()); err != nil {
		t.Errorf("Release: %v", err)
	}
	d.mustReach("joiner", places[2:]...)
}

// What cannot be closed is named: an agent with all privileges, one that may change its
// network and is past the host's on a macvlan, and sockets of the host.
func TestNamedAsOpen(t *testing.T) {
	t.Parallel()
	d := newDen(t)
	d.docker("network", "create", "-d", "macvlan", "-o", "parent=eth0", "--subnet", "192.0.2.0/24", "--ip-range", "192.0.2.64/26", "--gateway", "192.0.2.2", "lan")
	d.docker("run", "-d", "--name", "privileged", "--privileged", lab.AgentImage)
	d.docker("run", "-d", "--name", "admin", "--network", "lan", "--ip", "192.0.2.70", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", lab.AgentImage)
	d.docker("run", "-d", "--name", "humble", "--network", "host", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", lab.AgentImage, "serve", "-port", "18791")
	var all []Workload
	for _, name := range []string{"privileged", "admin", "humble"} {
		all = append(all, Workload{Name: name, PID: d.pid(name)})
	}
	ln, err := d.l.Host.Listen(t.Context(), "unix", "@relay")
	d.must(err)
	defer ln.Close()
	go d.tcp(ln)
	place := lab.FarAddr4.String() + ":80"
	for _, w := range all {
		d.mustReach(w.Name, place)
	}
	l := &Lock{Source: sourceOf(all...), NetNS: d.l.Host.NetNS()}
	t.Cleanup(func() { l.Close() })
	err = l.Do(t.Context())
	open, _ := errors.AsType[*OpenError](err)
	if open == nil || len(open.Unwrap()) > 0 {
		t.Fatalf("Do: %v", err)
	}
	t.Log(err)
	for _, w := range all {
		if got := d.reaches(w.Name, place); len(got) > 0 {
			t.Errorf("locked: %s reaches %q", w.Name, got)
		}
	}
	for name, why := range map[string]string{"privileged": "CAP_SYS_ADMIN", "admin": "CAP_NET_ADMIN", "humble": "@relay"} {
		if !strings.Contains(open.Open()[name], why) {
			t.Errorf("%s: %q, want %s", name, open.Open()[name], why)
		}
	}

	// Each is true.
	d.sh(d.l.Host, fmt.Sprintf("nsenter --net=/proc/%d/ns/net nft flush ruleset", all[1].PID))
	if len(d.reaches("admin", place)) == 0 {
		t.Error("the agent on a macvlan takes the rules away in vain: it is named as open and is not")
	}
	token := d.token()
	if _, err := d.l.Do(t.Context(), "humble", "send", "unix", "@relay", token); err != nil {
		t.Error(err)
	}
	if !d.arrived(token) {
		t.Error("the agent in the host's network does not reach a socket there: it is named as open and is not")
	}
}

// What waits in a queue of the host when the lock is closed leaves it later, and is
// named; what waits in one of the workload's own does not get past the host.
func TestQueued(t *testing.T) {
	t.Parallel()
	const slow = "root tbf rate 80kbit burst 2000 limit 200000"
	flood := func(h *hamlet, w Workload) {
		t.Helper()
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", w.PID))
		h.must(err)
		defer ns.Close()
		var c net.Conn
		h.must(within(ns, func() (err error) {
			c, err = dialer.DialContext(t.Context(), "udp", lab.FarAddr4.String()+":7")
			return err
		}))
		defer c.Close()
		for range 50 { // which its socket holds
			_, err := c.Write(make([]byte, 1000))
			h.must(err)
		}
	}
	for name, where := range map[string]string{"the host's": "tc qdisc add dev eth0 " + slow, "its own": "nsenter --net=/proc/PID/ns/net tc qdisc add dev eth0 " + slow} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHamlet(t)
			w := h.hut("hut", 10)
			sink, err := h.l.Internet.ListenPacket(t.Context(), "udp", ":7")
			h.must(err)
			defer sink.Close()
			l := &Lock{Source: sourceOf(w), NetNS: h.l.Host.NetNS()}
			defer l.Close()
			h.must(l.Arm(t.Context()))
			if !h.comes(w) {
				t.Fatal("it does not reach the host before")
			}
			// The first datagram learns the way.
			for heard := false; !heard; {
				flood(h, w)
				heard = hears(sink, patience) > 0
			}
			h.sh(strings.ReplaceAll(where, "PID", strconv.Itoa(w.PID)))
			flood(h, w)
			err = l.Do(t.Context())
			queued := name == "the host's"
			if named := strings.Contains(fmt.Sprint(err), "eth0 is open: "); named != queued {
				t.Errorf("Do: %v", err)
			}
			_ = hears(sink, 20*time.Millisecond) // what was on its way
			if came := hears(sink, patience); (came > 0) != queued {
				t.Errorf("%d datagrams come after the lock", came)
			}
			if queued {
				h.sh("tc qdisc del dev eth0 root")
				if err := l.Do(t.Context()); strings.Contains(fmt.Sprint(err), "wait to be sent") {
					t.Errorf("Do, and the queue is empty: %v", err)
				}
			}
		})
	}
}

// hears counts datagrams for a while.
func hears(c net.PacketConn, d time.Duration) (n int) {
	_ = c.SetReadDeadline(time.Now().Add(d))
	buf := make([]byte, 2048)
	for {
		if _, _, err := c.ReadFrom(buf); err != nil {
			return n
		}
		n++
	}
}

// A den is a lab for an agent that knows its way about.
type den struct{ *site }

func newDen(t *testing.T) *den {
	t.Helper()
	s := &site{TB: t, sinks: &sinks{seen: map[string]bool{}}}
	s.l = labtest.Start(t, lab.Config{DockerdArgs: slices.Concat(strings.Fields(*engineArgs), engineIPv6)})
	s.open()
	return &den{s}
}

// reaches returns those of the places where what the agent's program in a container sends
// arrives.
func (d *den) reaches(container string, places ...string) (open []string) {
	d.Helper()
	tokens := make([]string, len(places))
	words := []string{strconv.Itoa(int(patience / time.Millisecond))}
	for i, place := range places {
		tokens[i] = d.token()
		words = append(words, fmt.Sprintf(`["send","tcp",%q,%q]`, place, tokens[i]))
	}
	_, err := d.l.Do(d.Context(), container, "all", words...)
	d.must(err)
	time.Sleep(10 * time.Millisecond) // that the sinks have to read what has arrived
	for i, place := range places {
		if d.arrived(tokens[i]) {
			open = append(open, place)
		}
	}
	return open
}

func (d *den) mustReach(container string, places ...string) {
	d.Helper()
	var open []string
	for start := time.Now(); time.Since(start) < openWait; {
		if open = d.reaches(container, places...); len(open) == len(places) {
			return
		}
	}
	d.Fatalf("%s reaches %q alone of %q", container, open, places)
}

// asks reports whether a question gets from a container to the host's name server.
func (d *den) asks(container string) bool {
	d.Helper()
	token := d.token()
	_, err := d.l.Do(d.Context(), container, "all", strconv.Itoa(int(patience/time.Millisecond)), fmt.Sprintf(`["lookup",%q]`, token+".example.com"))
	d.must(err)
	return d.arrived(token)
}

func (d *den) mustAsk(container string) {
	d.Helper()
	for start := time.Now(); !d.asks(container); {
		if time.Since(start) > openWait {
			d.Fatalf("%s does not reach the engine's resolver", container)
		}
	}
}

func (d *den) listenIn(container, address string) {
	d.Helper()
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", d.pid(container)))
	d.must(err)
	defer ns.Close()
	d.must(within(ns, func() error {
		ln, err := new(net.ListenConfig).Listen(context.WithoutCancel(d.Context()), "tcp", address)
		if err == nil {
			go d.tcp(ln)
			d.Cleanup(func() { ln.Close() })
		}
		return err
	}))
}
