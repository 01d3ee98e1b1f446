package egress

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
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
	if took := time.Since(start); took > time.Second || asked != 1 {
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
