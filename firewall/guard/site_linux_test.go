package guard_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/firewall/guard"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// machine runs programs on a machine of the lab.
type machine struct{ *lab.Machine }

func (m machine) Run(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, firewall.DefaultTimeout)
	defer cancel()
	cmd := m.Command(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "LANGUAGE=C")
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && ctx.Err() == nil {
		if strings.Contains(stderr.String(), "failed to execute") { // nsenter
			return nil, fmt.Errorf("%s: %w", name, exec.ErrNotFound)
		}
		return stdout.Bytes(), &firewall.ExitError{Name: name, Code: exit.ExitCode(), Stderr: stderr.String()}
	}
	return stdout.Bytes(), err
}

// site is a host with a service that an operator is connected to, and a
// firewall of sorts.
type site struct {
	*testing.T
	l   *lab.Lab
	run machine
	dir string
}

const sshPort = 22

func newSite(t *testing.T) *site {
	s := &site{T: t, l: labtest.Start(t, lab.Config{NoDocker: true, UFW: true})}
	s.run = machine{s.l.Host}
	s.dir = filepath.Join(t.TempDir(), "guard")
	ln, err := s.l.Host.Listen(t.Context(), "tcp", fmt.Sprintf(":%d", sshPort))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { // answers until the other end closes
				defer c.Close()
				buf := make([]byte, 64)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					if _, err := c.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	s.fill()
	return s
}

// fill makes what is there before: rules of all kinds, so that there is
// something to lose.
func (s *site) fill() {
	s.Helper()
	s.sh(`
		iptables-nft -N ts-input
		iptables-nft -A ts-input -i tailscale0 -m comment --comment 'a -j OWN "quoted" comment' -j ACCEPT
		iptables-nft -A INPUT -j ts-input
		iptables-nft -A INPUT -p tcp --dport 4444 -j REJECT --reject-with tcp-reset
		iptables-nft -t nat -A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE
		iptables-nft -N DOCKER-USER
		iptables-nft -A DOCKER-USER -p tcp --dport 1 -j DROP
		iptables-nft -A DOCKER-USER -p tcp --dport 2 -j DROP
		iptables-nft -A FORWARD -j DOCKER-USER
		ip6tables-nft -A INPUT -p tcp --dport 4444 -j DROP
		iptables-legacy -A INPUT -p tcp --dport 5555 -j DROP
		nft add table inet other
		nft add chain inet other c '{ type filter hook input priority 10; policy accept; }'
		nft add rule inet other c tcp dport 6666 counter drop
		nft add table inet own
		nft add set inet own ports '{ type inet_service; elements = { 1, 2 }; }'
		nft add chain inet own c '{ type filter hook input priority -5; policy accept; }'
		nft add rule inet own c tcp dport @ports counter drop comment '"own"'`)
}

func (s *site) guard(window time.Duration) *guard.Guard {
	return &guard.Guard{Dir: s.dir, Run: s.run, Window: window}
}

// sh runs a script on the host.
func (s *site) sh(script string) string {
	s.Helper()
	out, err := s.l.Host.Command(s.Context(), "sh", "-euc", script).CombinedOutput()
	if err != nil {
		s.Fatalf("%v: %s\n%s", err, out, script)
	}
	return string(out)
}

func (s *site) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// connect opens a connection from the internet and gets an answer, or not.
func (s *site) connect() (net.Conn, error) { return s.connectTo(s.l.Host.Addr4) }

func (s *site) connectTo(addr netip.Addr) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.Context(), 400*time.Millisecond)
	defer cancel()
	c, err := s.l.Internet.Dial(ctx, "tcp", netip.AddrPortFrom(addr, sshPort).String())
	if err != nil {
		return nil, err
	}
	s.Cleanup(func() { c.Close() })
	return c, speak(c)
}

func speak(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(400 * time.Millisecond)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 64))
	return err
}

func (s *site) reachable() bool {
	c, err := s.connect()
	if err == nil {
		c.Close()
	}
	return err == nil
}

// seen is c as sshd would describe it.
func seen(c net.Conn) guard.Connection {
	return guard.Connection{
		Client: netip.MustParseAddrPort(c.LocalAddr().String()),
		Server: netip.MustParseAddrPort(c.RemoteAddr().String()),
	}
}

var volatile = regexp.MustCompile(`(?m)^#.*\n| \[\d+:\d+\]`)

// rules are all rules in the kernel, without counters and dates.
func (s *site) rules() string {
	s.Helper()
	return volatile.ReplaceAllString(s.sh(`
		for p in iptables-nft ip6tables-nft iptables-legacy ip6tables-legacy; do echo "== $p"; $p-save 2>/dev/null; done
		echo == nft
		nft -s list ruleset 2>/dev/null`), "")
}

// world is all that a change may touch.
func (s *site) world() string {
	s.Helper()
	var b strings.Builder
	b.WriteString(s.rules())
	files, err := filepath.Glob(s.l.HostPath("/etc/ufw") + "/*")
	s.must(err)
	if len(files) < 5 {
		s.Fatalf("only %d files of UFW's", len(files))
	}
	for _, name := range append(files, s.l.HostPath("/etc/default/ufw"), s.l.HostPath("/etc/own.conf"), s.l.HostPath("/etc/new.conf")) {
		info, err := os.Lstat(name)
		if err != nil {
			fmt.Fprintf(&b, "== %s: absent\n", filepath.Base(name))
			continue
		}
		data := []byte{}
		if info.Mode().IsRegular() {
			data, err = os.ReadFile(name)
			s.must(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		fmt.Fprintf(&b, "== %s %v %d:%d\n%s", filepath.Base(name), info.Mode(), st.Uid, st.Gid, data)
	}
	b.WriteString(s.sh(`sysctl net.ipv4.conf.all.accept_redirects net.ipv6.conf.default.accept_redirects net.ipv4.conf.all.log_martians net.ipv4.icmp_echo_ignore_all`))
	return b.String()
}

// sameAs fails the test unless the world is as it was.
func (s *site) sameAs(before string) {
	s.Helper()
	if now := s.world(); now != before {
		s.Errorf("not as before:\n%s", difference(before, now))
	}
}

func difference(a, b string) string {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		return err.Error()
	}
	defer os.RemoveAll(dir)
	os.WriteFile(filepath.Join(dir, "before"), []byte(a), 0o600)
	os.WriteFile(filepath.Join(dir, "now"), []byte(b), 0o600)
	cmd := exec.Command("diff", "-u", "before", "now")
	cmd.Dir = dir
	out, _ := cmd.CombinedOutput()
	return string(out)
}

// await waits until the state of the change is not one of those in which
// something still happens.
func (s *site) await(g *guard.Guard, id string, patience time.Duration) guard.Status {
	s.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		all, err := g.List(s.Context())
		s.must(err)
		for _, st := range all {
			if st.ID != id {
				continue
			}
			switch st.State {
			case guard.StateArmed, guard.StateArming, guard.StateRollingBack:
			default:
				return st
			}
			if time.Now().After(deadline) {
				log, _ := os.ReadFile(st.Log)
				s.Fatalf("after %v: %v\n%s", patience, st, log)
			}
		}
	}
}
