package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// A networkWorld is a host with an agent, a web server that is meant to be
// reached, one that is not, and an operator who is logged in from the internet.
type networkWorld struct {
	*lab.Lab

	state   string
	session net.Conn
}

func newNetworkWorld(t *testing.T) *networkWorld {
	t.Helper()
	w := &networkWorld{Lab: labtest.Start(t, lab.Config{UFW: true}), state: filepath.Join(t.TempDir(), "state")}
	ln, err := w.Host.Listen(t.Context(), "tcp", ":22")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() { // what of sshd matters here
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprint(c, "SSH-2.0-hardshell-lab\r\n")
				io.Copy(c, c)
			}()
		}
	}()
	for _, args := range [][]string{
		{"run", "-d", "--name", "openclaw", "-p", "18789:18789", lab.HealthImage},
		{"run", "-d", "--name", "meant", "--restart", "always", "-p", "8081:18789", lab.UserImage},
		{"run", "-d", "--name", "not-meant", "--restart", "always", "-p", "8080:18789", lab.UserImage},
	} {
		if _, err := w.Docker(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	w.session = w.login(t)
	return w
}

// login makes a connection from the internet, as ssh would.
func (w *networkWorld) login(t *testing.T) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := w.Internet.Dial(ctx, "tcp", net.JoinHostPort(w.Host.Addr4.String(), "22"))
	if err != nil {
		t.Errorf("the operator cannot log in: %v", err)
		return nil
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// on returns the program, to be run on the host in a session.
func (w *networkWorld) on(ctx context.Context, session net.Conn, args ...string) *exec.Cmd {
	cmd := w.Host.Command(ctx, os.Args[0], append(args, "--state-dir", w.state)...)
	cmd.Env = append(os.Environ(), mainVar+"=1", "SSH_CONNECTION=", "DOCKER_HOST=")
	if session != nil {
		from, to := session.LocalAddr().(*net.TCPAddr), session.RemoteAddr().(*net.TCPAddr)
		cmd.Env = append(cmd.Env, fmt.Sprintf("SSH_CONNECTION=%v %d %v %d", from.IP, from.Port, to.IP, to.Port))
	}
	return cmd
}

func (w *networkWorld) program(t *testing.T, session net.Conn, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := w.on(ctx, session, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		t.Fatal(err)
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// reaches reports whether a machine gets a connection to a port of the host.
func (w *networkWorld) reaches(t *testing.T, from *lab.Machine, port string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	c, err := from.Dial(ctx, "tcp", net.JoinHostPort(w.Host.Addr4.String(), port))
	if err == nil {
		c.Close()
	}
	return err == nil
}

var variable = regexp.MustCompile(`(?m)^#.*\n|\[\d+:\d+\]|packets \d+ bytes \d+`)

// rules are all that the kernel has, without what counts and changes by itself.
func (w *networkWorld) rules(t *testing.T) string {
	t.Helper()
	out, err := w.Host.Command(t.Context(), "sh", "-c", "iptables-save; ip6tables-save; nft list ruleset; cat /etc/ufw/ufw.conf /etc/ufw/user.rules /etc/ufw/user6.rules /etc/default/ufw").Output()
	if err != nil {
		t.Fatal(err)
	}
	return variable.ReplaceAllString(string(out), "")
}

// tee shows what a program writes as it comes.
type tee struct {
	mu  sync.Mutex
	all strings.Builder
	saw func(all string)
}

func (w *tee) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all.Write(p)
	w.saw(w.all.String())
	return len(p), nil
}

// The operator of a machine hardens it from a session by SSH, and confirms each
// change of the firewall from a second one.
func TestLabNetwork(t *testing.T) {
	w := newNetworkWorld(t)
	for _, port := range []string{"18789", "8080", "8081"} {
		if !w.reaches(t, w.Internet, port) {
			t.Fatalf("port %s is closed before anything was done", port)
		}
	}
	t.Run("nobody confirms", func(t *testing.T) {
		o := w.program(t, w.session, "harden", "--container", "openclaw", "--window", "4s")
		o.want(t, exitFail, "", "nobody has confirmed it")
		if rules := w.rules(t); strings.Contains(strings.ToLower(rules), "hardshell") || strings.Contains(rules, "ENABLED=yes") {
			t.Errorf("a change that nobody confirmed is there:\n%s", rules)
		}
	})
	before := w.rules(t)
	t.Run("not from a session", func(t *testing.T) {
		o := w.program(t, nil, "harden", "--plan", "--container", "openclaw")
		if o.code != exitFail || strings.Contains(o.stdout, "packet filter (") {
			t.Errorf("status %d:\n%s", o.code, o.stdout)
		}
		w.program(t, nil, "confirm").want(t, exitUsage, "", "no session by SSH")
		w.program(t, w.session, "harden", "--console", "--container", "openclaw").want(t, exitUsage, "", "leave --console out")
		w.program(t, w.session, "confirm").want(t, exitFail, "", "no such change is guarded")
	})
	if after := w.rules(t); after != before {
		t.Fatalf("rules were changed by what was not confirmed:\n%s\n--- before\n%s", after, before)
	}

	// Each change waits for a session that is newer than it.
	confirmed := 0
	var wait sync.WaitGroup
	stderr := &tee{saw: func(all string) {
		if n := strings.Count(all, "managemyclaw confirm --state-dir"); n > confirmed {
			confirmed = n
			wait.Go(func() {
				w.program(t, w.session, "confirm").want(t, exitFail, "", "") // the old one proves nothing
				if second := w.login(t); second != nil {
					w.program(t, second, "confirm").want(t, exitPass, "Confirmed", "")
				}
			})
		}
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := w.on(ctx, w.session, "harden", "--container", "openclaw", "--allow", "8081", "--format", "json")
	var stdout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, stderr
	cmd.Run()
	wait.Wait()
	defer func() {
		if t.Failed() {
			t.Logf("stderr of harden:\n%s", stderr.all.String())
		}
	}()
	if confirmed != 2 {
		t.Errorf("%d changes were to be confirmed, want one of the packet filter and one of UFW:\n%s", confirmed, stderr.all.String())
	}
	r := parse(t, stdout.String())
	for _, p := range r.Points[:8] {
		if p.Status != harden.StatusPass {
			t.Errorf("%v: %v", p.Point, p.Status)
			for _, res := range r.Results {
				if res.Info.Point == p.Point && res.Status != harden.StatusPass {
					t.Logf("%s: %v %s %v", res.Info.ID, res.Status, res.Detail, res.Findings)
				}
			}
		}
	}
	if p := r.Points[harden.PointTailscale-1]; p.Status != harden.StatusFail {
		t.Errorf("there is no tailnet, and point 9 is %v", p.Status)
	}
	w.closed(t)

	t.Run("restart", func(t *testing.T) {
		if err := w.StopDockerd(t.Context()); err != nil {
			t.Fatal(err)
		}
		if out, err := w.Host.Command(t.Context(), "nft", "flush", "ruleset").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		w.program(t, nil, "firewall", "restore").want(t, exitPass, "keeps the policy", "")
		if err := w.StartDockerd(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.closed(t)
	})
	t.Run("watch", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		kept := make(chan string, 100)
		cmd := w.on(ctx, nil, "firewall", "watch")
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.Stdout = &tee{saw: func(all string) {
			if strings.HasSuffix(all, " kept\n") {
				kept <- all
			}
		}}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Docker(ctx, "run", "-d", "--name", "later", "-p", "8090:18789", lab.UserImage); err != nil {
			t.Fatal(err)
		}
		if w.reaches(t, w.Internet, "8090") {
			t.Error("a port that is published later is open")
		}
		select {
		case <-kept:
		case <-time.After(30 * time.Second):
			t.Error("the watcher does not follow the engine")
		}
		// Somebody removes the rules.
		if out, err := w.Host.Command(ctx, "nft", "delete", "table", "inet", "hardshell").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for deadline := time.Now().Add(30 * time.Second); w.Host.Command(ctx, "nft", "list", "table", "inet", "hardshell").Run() != nil; {
			if time.Now().After(deadline) {
				t.Fatal("the watcher does not put back what is gone")
			}
			time.Sleep(50 * time.Millisecond)
		}
		w.closed(t)
		cancel()
		if err := cmd.Wait(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != exitPass {
			t.Errorf("the watcher ended: %v", err)
		}
	})
}

// closed asserts that what is meant to be reached is, and nothing else.
func (w *networkWorld) closed(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !w.reaches(t, w.Internet, "8081") {
		if time.Now().After(deadline) {
			t.Error("what is allowed is closed")
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, port := range []string{"18789", "8080"} {
		if w.reaches(t, w.Internet, port) || w.reaches(t, w.Neighbour, port) {
			t.Errorf("port %s is open", port)
		}
		if !w.reaches(t, w.Host, port) && port != "18789" {
			t.Errorf("port %s is closed on the host itself", port)
		}
	}
}
