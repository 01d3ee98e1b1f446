package egress

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// A hamlet is a host without an engine: workloads are processes in network
// namespaces of their own, on the bridge br-hut.
type hamlet struct {
	*testing.T
	l    *lab.Lab
	sink *lab.Sink
}

func newHamlet(t *testing.T) *hamlet {
	t.Helper()
	h := &hamlet{T: t, l: labtest.Start(t, lab.Config{NoDocker: true})}
	h.sh("ip link add br-hut type bridge forward_delay 0; ip addr add 172.30.9.1/24 dev br-hut; ip link set br-hut up; echo 1 >/proc/sys/net/ipv4/ip_forward; ip route")
	var err error
	h.sink, err = h.l.Host.Sink(t.Context(), "tcp", ":9000")
	h.must(err)
	t.Cleanup(func() { h.sink.Close() })
	return h
}

func (h *hamlet) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *hamlet) sh(script string) string {
	h.Helper()
	out, err := h.l.Host.Command(h.Context(), "sh", "-ec", script).CombinedOutput()
	if err != nil {
		h.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// process runs sleep, in a control group of its own; with own in a network
// namespace of its own.
func (h *hamlet) process(name string, own bool) (*exec.Cmd, string) {
	h.Helper()
	root, err := cgroupRoot()
	h.must(err)
	group := h.l.ID() + "/" + name
	dir := filepath.Join(root, group)
	h.must(os.Mkdir(dir, 0o755))
	f, err := os.Open(dir)
	h.must(err)
	defer f.Close()
	words := []string{"sleep", "3600"}
	if own {
		words = append([]string{"unshare", "-n"}, words...)
	}
	cmd := h.l.Host.Command(context.WithoutCancel(h.Context()), words[0], words[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
	h.must(cmd.Start())
	h.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid))
		h.must(err)
		if string(comm) == "sleep\n" {
			return cmd, group
		}
		if time.Since(start) > 30*time.Second {
			h.Fatalf("process %s is %q", name, comm)
		}
	}
}

// hut is a process on the bridge.
func (h *hamlet) hut(name string, n int) Workload {
	h.Helper()
	cmd, _ := h.process(name, true)
	pid := cmd.Process.Pid
	h.sh(fmt.Sprintf("ip link add veth-%[1]s type veth peer name eth0 netns %[2]d; ip link set veth-%[1]s master br-hut up; "+
		"nsenter --net=/proc/%[2]d/ns/net ip addr add 172.30.9.%[3]d/24 dev eth0; nsenter --net=/proc/%[2]d/ns/net ip link set eth0 up; "+
		"nsenter --net=/proc/%[2]d/ns/net ip route add default via 172.30.9.1; "+
		"nsenter --net=/proc/%[2]d/ns/net ip link add other0 type veth peer name other1", name, pid, n))
	return Workload{Name: name, PID: pid}
}

// reaches reports whether a workload reaches the host.
func (h *hamlet) reaches(w Workload) bool {
	h.Helper()
	before := h.sink.Conns()
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", w.PID))
	h.must(err)
	defer ns.Close()
	return within(ns, func() error { return dialFor(h.Context(), "172.30.9.1:9000", 300*time.Millisecond) }) == nil || h.sink.Conns() > before
}

// comes is reaches, given time.
func (h *hamlet) comes(w Workload) bool {
	h.Helper()
	for start := time.Now(); time.Since(start) < openWait; {
		if h.reaches(w) {
			return true
		}
	}
	return false
}

func dialFor(ctx context.Context, address string, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := dialer.DialContext(ctx, "tcp", address)
	if err == nil {
		c.Close()
	}
	return err
}

func sourceOf(all ...Workload) Source {
	return func(context.Context) ([]Workload, error) { return all, nil }
}

// The host is never cut off, whatever a caller says of its workloads.
func TestHostIsNotCutOff(t *testing.T) {
	t.Parallel()
	h := newHamlet(t)
	h.sh("ip link add br-up type bridge; ip link add link eth0 name out0 type macvlan; ip link set out0 master br-up")
	shared, group := h.process("shared", false)
	own, err := cgroupOf("self")
	h.must(err)
	for name, w := range map[string]Workload{
		"its interface as a bridge":                  {Bridges: []string{"eth0"}, PID: shared.Process.Pid, Cgroup: group},
		"its loopback as a bridge":                   {Bridges: []string{"lo"}, PID: shared.Process.Pid, Cgroup: group},
		"a bridge with a way out":                    {Bridges: []string{"br-up"}, PID: shared.Process.Pid, Cgroup: group},
		"its namespace, and all of its groups":       {NetNS: h.l.Host.NetNS(), Cgroup: "/"},
		"its namespace by a path":                    {NetNS: h.l.Host.NetNS()},
		"its namespace, and this process's group":    {PID: os.Getpid(), NetNS: h.l.Host.NetNS(), Cgroup: own},
		"a group that leaves the hierarchy":          {HostNetwork: true, Cgroup: "../../.."},
		"a namespace that is none":                   {NetNS: "/etc/hostname"},
		"nothing":                                    {},
		"a name that no interface can have":          {Bridges: []string{"br-0123456789abcdef"}},
		"the host's network, and a namespace of its": {HostNetwork: true},
	} {
		w.Name = name
		l := &Lock{Source: sourceOf(w), NetNS: h.l.Host.NetNS()}
		for what, do := range map[string]func(context.Context) error{"Arm": l.Arm, "Do": l.Do} {
			err := do(t.Context())
			open, ok := errors.AsType[*OpenError](err)
			if !ok || open.Open()[name] == "" {
				t.Errorf("%s: %s returns %v, want it named as open", name, what, err)
			}
		}
		before := h.sink.Conns()
		c, err := h.l.Internet.Dial(t.Context(), "tcp", "192.0.2.1:9000")
		if err != nil {
			t.Fatalf("%s: the host is cut off: %v", name, err)
		}
		c.Close()
		for start := time.Now(); h.sink.Conns() == before; time.Sleep(time.Millisecond) {
			if time.Since(start) > 30*time.Second {
				t.Fatalf("%s: the host is cut off", name)
			}
		}
		h.must(l.Release(context.WithoutCancel(t.Context())))
		l.Close()
	}
}

// Nor is the namespace of the process itself, where it takes another one for the
// host's. That process is one in the lab.
func TestOwnNamespaceIsNotCutOff(t *testing.T) {
	t.Parallel()
	h := newHamlet(t)
	out, err := h.l.Host.Command(t.Context(), os.Args[0], ownCommand, h.l.Internet.NetNS()).CombinedOutput()
	h.must(err)
	for _, want := range []string{
		"itself is open: /proc/self/ns/net is the network namespace of this process", "its group is open: it is in the host's network", "the group above is open: it is in the host's network",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%s\nwant %s", out, want)
		}
	}
	if err := within(h.hostNS(), func() error { return dialFor(t.Context(), "192.0.2.1:9000", openWait) }); err != nil {
		t.Errorf("the host is cut off: %v", err)
	}
}

// ownCommand has the test's program cut off its own namespace.
const ownCommand = "egress-own"

func cutOffItself(host string) {
	group, err := cgroupOf("self")
	l := &Lock{Source: sourceOf(Workload{Name: "itself", NetNS: "/proc/self/ns/net"},
		Workload{Name: "its group", HostNetwork: true, Cgroup: group}, Workload{Name: "the group above", HostNetwork: true, Cgroup: filepath.Dir(group)}), NetNS: host}
	fmt.Println(err)
	fmt.Println(l.Do(context.Background()))
}

func (h *hamlet) hostNS() *os.File {
	h.Helper()
	f, err := os.Open(h.l.Host.NetNS())
	h.must(err)
	h.Cleanup(func() { f.Close() })
	return f
}

// What was prepared is cut off when nobody can be asked, in time, and also
// after somebody has taken the table away or put another one in its place.
func TestDoAgainstOdds(t *testing.T) {
	t.Parallel()
	for name, odds := range map[string]func(h *hamlet, l *Lock, w Workload){
		"nothing was prepared": func(h *hamlet, l *Lock, _ Workload) { l.Close() },
		"the table is gone":    func(h *hamlet, _ *Lock, _ Workload) { h.sh("nft flush ruleset") },
		"the table is asleep":  func(h *hamlet, _ *Lock, _ Workload) { h.sh("nft 'add table inet hardshell_kill { flags dormant; }'") },
		"the chains are otherwise": func(h *hamlet, _ *Lock, _ Workload) {
			h.sh("nft flush ruleset; nft 'table inet hardshell_kill { set interfaces { type ipv4_addr; }; chain prerouting { type filter hook input priority 0; }; }'")
		},
		"somebody accepts everything first": func(h *hamlet, _ *Lock, _ Workload) {
			h.sh("for c in prerouting output forward; do nft insert rule inet hardshell_kill $c accept; done; for c in prerouting forward; do nft insert rule bridge hardshell_kill $c accept; done; nft 'table inet a { chain a { type filter hook prerouting priority -500; accept; }; }'")
		},
		"the workload accepts everything first": func(h *hamlet, _ *Lock, w Workload) {
			h.sh(fmt.Sprintf("nsenter --net=/proc/%d/ns/net nft 'table inet hardshell_kill { chain output { type filter hook output priority -400; accept; }; chain input { type filter hook input priority -400; accept; }; }'", w.PID))
		},
		"an interface is gone": func(h *hamlet, _ *Lock, w Workload) {
			h.sh(fmt.Sprintf("nsenter --net=/proc/%d/ns/net ip link del other0", w.PID))
		},
		"the source fails": func(_ *hamlet, l *Lock, _ Workload) {
			l.Source = func(context.Context) ([]Workload, error) { return nil, errors.New("hung") }
		},
		"the source hangs": func(_ *hamlet, l *Lock, _ Workload) {
			l.Source = func(ctx context.Context) ([]Workload, error) { <-ctx.Done(); return nil, ctx.Err() }
		},
		"the workload has another process": func(_ *hamlet, l *Lock, w Workload) { w.PID = 1 << 22; l.Source = sourceOf(w) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHamlet(t)
			w := h.hut("hut", 10)
			l := &Lock{Source: sourceOf(w), NetNS: h.l.Host.NetNS()}
			defer l.Close()
			h.must(l.Arm(t.Context()))
			if !h.comes(w) {
				t.Fatal("it does not reach the host before")
			}
			odds(h, l, w)
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			start := time.Now()
			err := l.Do(ctx)
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("Do took %v", took)
			}
			if failing := strings.HasPrefix(name, "the source"); failing != (err != nil && !strings.Contains(err.Error(), "CAP_")) {
				t.Errorf("Do: %v", err)
			}
			if h.reaches(w) {
				t.Error("it is not cut off")
			}
			rules := filepath.Join(t.TempDir(), "rules")
			h.sh("nft list ruleset >" + rules + "; nft flush ruleset")
			if h.reaches(w) {
				t.Error("it is not cut off by what is inside alone")
			}
			h.sh(fmt.Sprintf("nft -f %s; for f in inet netdev; do nsenter --net=/proc/%d/ns/net nft delete table $f hardshell_kill; done", rules, w.PID))
			if h.reaches(w) {
				t.Error("it is not cut off by what is outside alone")
			}
			l.Source = sourceOf(w)
			h.must(l.Release(t.Context()))
			if !h.comes(w) {
				t.Error("it is still cut off after Release")
			}
		})
	}
}

// Refresh locks what is new where the lock is engaged, and nothing where it is
// not; which process engaged it does not matter, nor which one releases it.
func TestRefresh(t *testing.T) {
	t.Parallel()
	for _, byIPTables := range []bool{false, true} {
		t.Run(fmt.Sprintf("iptables %v", byIPTables), func(t *testing.T) {
			h := newHamlet(t)
			first := h.hut("first", 10)
			lock := func(all ...Workload) *Lock {
				l := &Lock{Source: sourceOf(all...), NetNS: h.l.Host.NetNS(), IPTables: byIPTables}
				t.Cleanup(func() { l.Close() })
				return l
			}
			caps := func(err error) {
				t.Helper()
				if err != nil && !strings.Contains(err.Error(), "CAP_") {
					t.Fatal(err)
				}
			}
			caps(lock(first).Refresh(t.Context()))
			if !h.comes(first) {
				t.Error("Refresh cuts off although nothing is locked")
			}
			caps(lock(first).Do(t.Context()))
			second := h.hut("second", 11)
			caps(lock(first, second).Refresh(t.Context()))
			second.Bridges = nil
			inside, err := exec.Command("nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", second.PID), "sh", "-c", "nft list ruleset; iptables-save").CombinedOutput()
			if !strings.Contains(strings.ToLower(string(inside)), "hardshell") {
				t.Errorf("Refresh does not cut off what is new: %v\n%s", err, inside)
			}
			h.must(lock(first, second).Release(t.Context()))
			if !h.comes(first) || !h.comes(second) {
				t.Error("Release of another Lock does not release")
			}
			if left := h.sh("{ nft list ruleset; iptables-save; ip6tables-save; } 2>/dev/null | grep -i hardshell || true"); left != "" {
				t.Errorf("after Release there is\n%s", left)
			}
		})
	}
}

// All methods at once: nothing races, and Do wins in the end.
func TestConcurrently(t *testing.T) {
	t.Parallel()
	h := newHamlet(t)
	w := h.hut("hut", 10)
	l := &Lock{Source: sourceOf(w), NetNS: h.l.Host.NetNS()}
	defer l.Close()
	p := &Prober{Source: sourceOf(w), NetNS: h.l.Host.NetNS(), Window: 20 * time.Millisecond}
	defer p.Close()
	var wg sync.WaitGroup
	for range 4 {
		for _, do := range []func(context.Context) error{l.Arm, l.Do, l.Refresh, l.Release, p.Arm} {
			wg.Go(func() {
				if err := do(t.Context()); err != nil && !strings.Contains(err.Error(), "CAP_") {
					t.Error(err)
				}
			})
		}
		wg.Go(func() { _, _ = p.Remaining(t.Context()) })
	}
	wg.Wait()
	if err := l.Do(t.Context()); err != nil && !strings.Contains(err.Error(), "CAP_") {
		t.Fatal(err)
	}
	if h.reaches(w) {
		t.Error("it is not cut off")
	}
}

func TestWithoutPrivilege(t *testing.T) {
	t.Parallel()
	h := newHamlet(t)
	w := h.hut("hut", 10)
	l := &Lock{Source: sourceOf(w), NetNS: h.l.Host.NetNS()}
	defer l.Close()
	if err := unprivileged(func() error { return l.Do(t.Context()) }); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("without privilege: %v", err)
	}
	for what, err := range map[string]error{"lock": (&Lock{}).Do(t.Context()), "arm": (&Lock{}).Arm(t.Context()), "prober": (&Prober{}).Arm(t.Context())} {
		if !errors.Is(err, errNoSource) {
			t.Errorf("%s without a source: %v", what, err)
		}
	}
}

// The prober does not conclude anything from what it could not look at.
func TestProberCannotLook(t *testing.T) {
	t.Parallel()
	h := newHamlet(t)
	w := h.hut("hut", 10)
	l := &Lock{Source: sourceOf(w), NetNS: h.l.Host.NetNS()}
	defer l.Close()
	_ = l.Do(t.Context())
	helper := []string{os.Args[0], helperCommand}
	cmd, group := h.process("shared", false)
	shared := Workload{Name: "shared", PID: cmd.Process.Pid}
	freeze := func(state string) {
		t.Helper()
		root, err := cgroupRoot()
		h.must(err)
		h.must(os.WriteFile(filepath.Join(root, group, "cgroup.freeze"), []byte(state), 0o644))
	}
	armed := &Prober{Source: sourceOf(shared), NetNS: h.l.Host.NetNS(), Helper: helper}
	defer armed.Close()
	h.must(armed.Arm(t.Context()))
	freeze("1")
	remaining, err := armed.Remaining(t.Context())
	if err != nil || remaining["shared"] == "" {
		t.Errorf("frozen, and armed before: %v %v", remaining, err)
	}
	for name, p := range map[string]*Prober{
		"no way to the canary":   {Source: sourceOf(w), Canaries: canariesOf("203.0.113.1")},
		"nobody at the canary":   {Source: sourceOf(w), Canaries: canariesOf("192.0.2.99")},
		"no helper":              {Source: sourceOf(shared)},
		"a helper that is none":  {Source: sourceOf(shared), Helper: []string{"true"}},
		"a frozen control group": {Source: sourceOf(shared), Helper: helper},
		"a failing source":       {Source: func(context.Context) ([]Workload, error) { return nil, errors.New("hung") }},
		"no namespace":           {Source: sourceOf(Workload{Name: "x", NetNS: "/etc/hostname"})},
	} {
		p.NetNS = h.l.Host.NetNS()
		if name == "no way to the canary" {
			h.sh("ip route add blackhole 203.0.113.1")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		if _, err := p.Remaining(ctx); err == nil {
			t.Errorf("%s: no error", name)
		}
		cancel()
		p.Close()
	}
	freeze("0")
}

// What has ended is off, and what goes on under another path is not.
func TestProberGone(t *testing.T) {
	t.Parallel()
	h := newHamlet(t)
	w := h.hut("hut", 10)
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", w.PID))
	h.must(err)
	defer ns.Close()
	p := &Prober{Source: sourceOf(w), NetNS: h.l.Host.NetNS()}
	defer p.Close()
	look := func(when string, off bool) {
		t.Helper()
		remaining, err := p.Remaining(t.Context())
		if err != nil || (remaining["hut"] == "") != off {
			t.Errorf("%s: %v %v", when, remaining, err)
		}
	}
	look("before", false)
	var left *exec.Cmd // a process that stays in the namespace
	h.must(within(ns, func() error {
		left = exec.Command("sleep", "3600")
		return left.Start()
	}))
	h.must(syscall.Kill(w.PID, syscall.SIGKILL))
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.PID))
		if err != nil || stateOf(state) == 'Z' {
			break
		}
		if time.Since(start) > 30*time.Second {
			t.Fatal("it does not end")
		}
	}
	look("with a process left", false)
	left.Process.Kill()
	left.Wait()
	look("without", true)
}

var dialer net.Dialer

func canariesOf(addrs ...string) (out []netip.Addr) {
	for _, a := range addrs {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// unprivileged calls fn on a thread that has lost its capabilities, and ends.
func unprivileged(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			done <- err
			return
		}
		done <- fn()
	}()
	return <-done
}

// A workload in the host's network is cut off, in and out, and its neighbours
// there are not.
func TestHostNetwork(t *testing.T) {
	t.Parallel()
	h := newHamlet(t)
	cmd, _ := h.process("shared", false)
	w := Workload{Name: "shared", PID: cmd.Process.Pid}
	l := &Lock{Source: sourceOf(w), NetNS: h.l.Host.NetNS()}
	defer l.Close()
	p := &Prober{Source: sourceOf(w), NetNS: h.l.Host.NetNS(), Helper: []string{os.Args[0], helperCommand}}
	defer p.Close()
	look := func() string {
		t.Helper()
		remaining, err := p.Remaining(t.Context())
		h.must(err)
		return remaining["shared"]
	}
	before := look()
	for _, want := range []string{"came in", "came out"} {
		if !strings.Contains(before, want) {
			t.Errorf("before: %q, want that something %s", before, want)
		}
	}
	if err := l.Do(t.Context()); !strings.Contains(fmt.Sprint(err), "CAP_NET_RAW") {
		t.Errorf("Do: %v", err)
	}
	if after := look(); strings.Contains(after, "came") || !strings.Contains(after, "CAP_NET_RAW") {
		t.Errorf("after: %q", after)
	}
	if err := within(h.hostNS(), func() error { return dialFor(t.Context(), "192.0.2.1:9000", openWait) }); err != nil {
		t.Errorf("another process of the host is cut off: %v", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if after := look(); after != "" {
		t.Errorf("killed: %q", after)
	}
}

// Rules that stop what is new, and let what is established go on, do not
// deceive the prober.
func TestProberSeesWhatIsEstablished(t *testing.T) {
	t.Parallel()
	h := newHamlet(t)
	w := h.hut("hut", 10)
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", w.PID))
	h.must(err)
	defer ns.Close()
	h.sh("nft 'table inet naive { chain in { type filter hook prerouting priority -150; ct state established accept; }; chain out { type filter hook output priority -150; oifname br-hut ct state new drop; }; }'")
	var c net.Conn
	h.must(within(ns, func() (err error) {
		c, err = dialer.DialContext(t.Context(), "tcp", "172.30.9.1:9000")
		return err
	}))
	defer c.Close()
	go func() {
		for {
			if _, err := c.Write([]byte("more")); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	h.sh("nft add rule inet naive in iifname br-hut drop")
	flowing := h.sink.Bytes()
	p := &Prober{Source: sourceOf(w), NetNS: h.l.Host.NetNS()}
	defer p.Close()
	remaining, err := p.Remaining(t.Context())
	if err != nil || !strings.Contains(remaining["hut"], "still sends") {
		t.Errorf("%v %v", remaining, err)
	}
	if h.sink.Bytes() == flowing {
		t.Error("the stream does not flow")
	}
}

// A context that has ended leaves nothing done, and that is said.
func TestNoTimeLeft(t *testing.T) {
	t.Parallel()
	h := newHamlet(t)
	w := h.hut("hut", 10)
	l := &Lock{Source: sourceOf(w), NetNS: h.l.Host.NetNS()}
	defer l.Close()
	_ = l.Arm(t.Context())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Do(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Do: %v", err)
	}
	p := &Prober{Source: sourceOf(w), NetNS: h.l.Host.NetNS()}
	defer p.Close()
	if remaining, err := p.Remaining(ctx); err == nil {
		t.Errorf("Remaining: %v", remaining)
	}
}
