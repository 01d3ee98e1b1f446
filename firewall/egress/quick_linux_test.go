package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Do does not wait for a Source that answers late where Quick answers, and names
// what either knows to be open.
func TestQuick(t *testing.T) {
	t.Parallel()
	h := newHamlet(t)
	first, second := h.hut("first", 10), h.hut("second", 11)
	first.Beyond = map[string]string{"/run/engine.sock": "it is mounted"}
	first.Bridges = []string{"br-later"}
	asked := 0
	l := &Lock{NetNS: h.l.Host.NetNS(), Source: func(ctx context.Context) ([]Workload, error) {
		if asked++; asked == 1 {
			return []Workload{first}, nil
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	defer l.Close()
	if err := l.Arm(t.Context()); !strings.Contains(err.Error(), "/run/engine.sock is open") {
		t.Fatalf("Arm: %v", err)
	}
	first.Beyond, first.Bridges = map[string]string{"/run/other.sock": "so is this"}, nil
	l.Quick = sourceOf(first, second)
	start := time.Now()
	open, _ := errors.AsType[*OpenError](l.Do(t.Context()))
	if took := time.Since(start); took > 30*time.Second || asked != 1 {
		t.Errorf("Do took %v, and asked the Source %d times", took, asked)
	}
	if open == nil || len(open.Unwrap()) > 0 || open.Open()["first: /run/engine.sock"] == "" || open.Open()["first: /run/other.sock"] == "" {
		t.Errorf("Do: %v", open)
	}
	for _, w := range []Workload{first, second} {
		if h.reaches(w) {
			t.Errorf("%s is not cut off", w.Name)
		}
	}
	h.sh("nft flush ruleset") // and what was prepared is now what Quick has said
	_ = l.Do(t.Context())
	if rules := h.sh("nft list set inet hardshell_kill interfaces"); !strings.Contains(rules, "br-later") {
		t.Errorf("the bridge that the Source has named is not cut: %s", rules)
	}

	// Whoever wants to know it all asks the Source.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := l.Refresh(ctx); !errors.Is(err, context.DeadlineExceeded) || asked != 2 {
		t.Errorf("Refresh: %v, asked %d times", err, asked)
	}
	l.Source = sourceOf(first, second)
	l.Quick = func(context.Context) ([]Workload, error) { return nil, errors.New("unreadable") }
	if open, _ := errors.AsType[*OpenError](l.Do(t.Context())); open == nil || len(open.Unwrap()) > 0 || open.Open()["first: /run/other.sock"] == "" {
		t.Errorf("Do, and Quick fails: %v", open)
	}
}

// What Arm has prepared and somebody has then undone is cut off by each Do anew, however
// often it was cut before.
func TestDoAgain(t *testing.T) {
	t.Parallel()
	h := newHamlet(t)
	w := h.hut("hut", 10)
	l := &Lock{Source: sourceOf(w), NetNS: h.l.Host.NetNS()}
	defer l.Close()
	for range 3 {
		if err := l.Do(t.Context()); err != nil && !strings.Contains(err.Error(), "CAP_") {
			t.Fatal(err)
		}
		if h.reaches(w) {
			t.Fatal("it is not cut off")
		}
		h.sh("nft flush ruleset; for f in inet netdev; do nsenter --net=/proc/" + strconv.Itoa(w.PID) + "/ns/net nft delete table $f hardshell_kill; done")
		if !h.comes(w) {
			t.Fatal("it is cut off by something else")
		}
	}
}

// Where somebody owns the table inside, who alone may change it, iptables closes the
// namespace.
func TestOwnedInside(t *testing.T) {
	t.Parallel()
	h := newHamlet(t)
	w := h.hut("hut", 10)
	l := &Lock{Source: sourceOf(w), NetNS: h.l.Host.NetNS()}
	defer l.Close()
	h.must(l.Arm(t.Context()))
	if !h.comes(w) {
		t.Fatal("it does not reach the host before")
	}
	owner := h.l.Host.Command(t.Context(), "nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", w.PID), "nft", "-i")
	stdin, err := owner.StdinPipe()
	h.must(err)
	h.must(owner.Start())
	_, err = io.WriteString(stdin, "add table inet hardshell_kill { flags owner; }\n")
	h.must(err)
	for start := time.Now(); !strings.Contains(h.sh(fmt.Sprintf("nsenter --net=/proc/%d/ns/net nft list tables", w.PID)), "hardshell_kill"); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			t.Fatal("nft does not own tables")
		}
	}
	if open, _ := errors.AsType[*OpenError](l.Do(t.Context())); open == nil || len(open.Unwrap()) > 0 || !strings.Contains(open.Open()["hut"], "iptables does not see them") {
		t.Errorf("Do: %v, want what iptables leaves open", open)
	}
	h.sh("nft flush ruleset")
	if h.reaches(w) {
		t.Error("it is not cut off by what is inside alone")
	}
	stdin.Close()
	h.must(owner.Wait())
}

// An interface that a workload got since Arm is closed, also to packet sockets, and
// also where it goes past those of the host.
func TestInterfaceSinceArm(t *testing.T) {
	t.Parallel()
	h := newHamlet(t)
	w := h.hut("hut", 10)
	l := &Lock{Source: sourceOf(w), NetNS: h.l.Host.NetNS()}
	defer l.Close()
	h.must(l.Arm(t.Context()))
	h.sh(fmt.Sprintf("ip link add link eth0 name lan0 netns %[1]d type macvlan; nsenter --net=/proc/%[1]d/ns/net ip addr add 192.0.2.80/24 dev lan0; nsenter --net=/proc/%[1]d/ns/net ip link set lan0 up", w.PID))
	p := &Prober{Source: sourceOf(w), NetNS: h.l.Host.NetNS()}
	defer p.Close()
	look := func() string {
		remaining, err := p.Remaining(t.Context())
		h.must(err)
		return remaining["hut"]
	}
	for start := time.Now(); !strings.Contains(look(), "lan0"); {
		if time.Since(start) > openWait {
			t.Fatalf("before: %q", look())
		}
	}
	cable := &site{TB: t, sinks: &sinks{seen: map[string]bool{}}}
	defer cable.listenFrames("", h.l.Neighbour.NetNS())()
	frame := func() bool {
		token := cable.token()
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", w.PID))
		h.must(err)
		defer ns.Close()
		h.must(within(ns, func() error {
			lan, err := net.InterfaceByName("lan0")
			if err != nil {
				return err
			}
			frame := append([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x88\xb5"), fmt.Sprintf("%-50s", token)...)
			err = send(unix.AF_PACKET, unix.SOCK_RAW, 0, &unix.SockaddrLinklayer{Ifindex: lan.Index, Halen: 6}, frame, "")
			if refused(err) {
				return nil
			}
			return err
		}))
		time.Sleep(40 * time.Millisecond)
		return cable.arrived(token)
	}
	if !frame() {
		t.Fatal("before: a frame does not get to the cable")
	}
	if err := l.Do(t.Context()); err != nil && !strings.Contains(err.Error(), "CAP_") {
		t.Fatal(err)
	}
	if frame() {
		t.Error("a frame gets to the cable")
	}
	if after := look(); strings.Contains(after, "came out") {
		t.Errorf("after: %q", after)
	}
}

// Of a workload that ends while packets are waited for, nothing remains, and
// nobody waits on.
func TestProberDoesNotWaitForTheDead(t *testing.T) {
	t.Parallel()
	h := newHamlet(t)
	own := h.hut("hut", 10)
	cmd, group := h.process("shared", false)
	shared := Workload{Name: "shared", HostNetwork: true, Cgroup: group}
	p := &Prober{Source: sourceOf(own, shared), NetNS: h.l.Host.NetNS(), Window: time.Minute, Helper: []string{os.Args[0], helperCommand}}
	defer p.Close()
	for pid, after := range map[int]time.Duration{own.PID: 200 * time.Millisecond, cmd.Process.Pid: 400 * time.Millisecond} {
		time.AfterFunc(after, func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	start := time.Now()
	remaining, err := p.Remaining(ctx)
	if err != nil || len(remaining) > 0 {
		t.Errorf("%v %v", remaining, err)
	}
	if took := time.Since(start); took < 400*time.Millisecond {
		t.Errorf("it did not wait for the second: %v", took)
	}
}
