package guard_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/firewall/guard"
	"github.com/managemyclaw/hardshell/internal/lab"
)

// Enabling UFW without a rule for the operator cuts everybody off. It is undone
// when the time is up, and nothing shows that it has been.
func TestUFWWithoutARuleIsRolledBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	old, err := s.connect()
	s.must(err)
	before := s.world()
	g := s.guard(4 * time.Second)
	c, err := guard.UFW(t.Context(), s.run)
	s.must(err)
	if len(c.Sysctls) < 5 {
		t.Errorf("parameters that UFW sets: %v", c.Sysctls)
	}
	armed, err := g.Arm(t.Context(), c)
	s.must(err)
	s.sh("ufw --force enable")
	s.must(g.Applied(t.Context(), armed.ID))
	if s.reachable() {
		t.Fatal("UFW without a rule lets a new connection in")
	}
	if s.world() == before {
		t.Fatal("UFW has changed nothing")
	}
	// The old connection may live on, and proves nothing.
	if err := g.Confirm(t.Context(), armed.ID, seen(old)); err == nil {
		t.Fatal("an old connection confirms")
	}
	st := s.await(g, armed.ID, 20*time.Second)
	if st.State != guard.StateRolledBack {
		t.Errorf("%v", st)
	}
	if !s.reachable() {
		t.Error("still cut off")
	}
	s.sameAs(before)
	if err := g.Confirm(t.Context(), armed.ID, seen(old)); !errors.Is(err, guard.ErrRolledBack) {
		t.Errorf("confirmed after it was rolled back: %v", err)
	}
	s.must(g.Remove(t.Context(), armed.ID))
	if all, err := g.List(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("left: %v, %v", all, err)
	}
}

// With the operator's rule first, UFW is confirmed by a new connection, and by
// nothing else.
func TestOnlyANewConnectionConfirms(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	old, err := s.connect()
	s.must(err)
	sessions, err := guard.Sessions(t.Context(), s.run, sshPort)
	s.must(err)
	if len(sessions) != 1 || sessions[0] != seen(old) {
		t.Fatalf("sessions %v, want %v", sessions, seen(old))
	}
	g := s.guard(9 * time.Second)
	c, err := guard.UFW(t.Context(), s.run)
	s.must(err)
	armed, err := g.Arm(t.Context(), c)
	s.must(err)
	if armed.Window <= 4*time.Second || armed.Window > 9*time.Second {
		t.Errorf("window %v", armed.Window)
	}
	allow := sessions[0].Allow()
	s.sh(fmt.Sprintf("ufw allow from %v to any port %d proto %v; ufw --force enable", allow.From[0], allow.Number, allow.Protocol))

	during, err := s.connect()
	s.must(err)
	if err := g.Confirm(t.Context(), armed.ID, seen(during)); !errors.Is(err, guard.ErrNotApplied) {
		t.Errorf("before it is reported as made: %v", err)
	}
	s.must(g.Applied(t.Context(), armed.ID))

	ln, err := s.l.Internet.Listen(t.Context(), "tcp", fmt.Sprintf(":%d", 443))
	s.must(err)
	defer ln.Close()
	out, err := s.l.Host.Dial(t.Context(), "tcp", netip.AddrPortFrom(lab.InternetAddr4, 443).String())
	s.must(err)
	defer out.Close()
	self, err := s.l.Host.Dial(t.Context(), "tcp", "127.0.0.1:22")
	s.must(err)
	defer self.Close()
	own, err := s.l.Host.Dial(t.Context(), "tcp", "192.0.2.1:22")
	s.must(err)
	defer own.Close()
	closed, err := s.connect()
	s.must(err)
	gone := seen(closed)
	closed.Close()
	time.Sleep(50 * time.Millisecond)
	for _, no := range []struct {
		name string
		c    guard.Connection
	}{
		{"there before it was armed", seen(old)},
		{"opened while the change was made", seen(during)},
		{"made up", guard.Connection{Client: netip.MustParseAddrPort("192.0.2.2:1"), Server: netip.MustParseAddrPort("192.0.2.1:22")}},
		{"none", guard.Connection{}},
		{"from the machine to the internet", guard.Connection{Client: netip.AddrPortFrom(lab.InternetAddr4, 443), Server: netip.MustParseAddrPort(out.LocalAddr().String())}},
		{"over loopback", seen(self)},
		{"from the machine to its own address", seen(own)},
		{"the machine's own, the other way round", guard.Connection{Client: seen(own).Server, Server: seen(own).Client}},
		{"closed again", gone},
	} {
		if err := g.Confirm(t.Context(), armed.ID, no.c); err == nil {
			t.Fatalf("a connection %s confirms", no.name)
		} else if e, ok := errors.AsType[*guard.ConnectionError](err); !ok {
			t.Errorf("a connection %s: %v", no.name, err)
		} else {
			t.Logf("%s: %v", no.name, e)
		}
	}
	probe := errors.New("no answer")
	if err := g.ConfirmBy(t.Context(), "", func(context.Context) error { return probe }); !errors.Is(err, probe) {
		t.Errorf("a probe that fails: %v", err)
	}
	st, err := g.Status(t.Context())
	if err != nil || st.State != guard.StateArmed || !st.Applied || st.PID != armed.PID {
		t.Fatalf("%v, %v", st, err)
	}

	fresh, err := s.connect()
	s.must(err)
	s.must(g.Confirm(t.Context(), armed.ID, seen(fresh)))
	after := s.world()
	if _, err := g.Status(t.Context()); !errors.Is(err, guard.ErrNotArmed) {
		t.Errorf("status after it was confirmed: %v", err)
	}
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", armed.PID)); err == nil && !strings.Contains(string(stat), ") Z ") {
		t.Errorf("the watchdog still runs: %s", stat)
	}
	// Whoever waits for it hears that it was confirmed; what was saved is gone.
	if all, err := g.List(t.Context()); err != nil || len(all) != 1 || all[0].ID != armed.ID || all[0].State != guard.StateConfirmed {
		t.Errorf("what is remembered: %v, %v", all, err)
	}
	if entries, err := os.ReadDir(filepath.Join(s.dir, armed.ID)); err != nil || len(entries) != 2 {
		t.Errorf("left in the directory: %v, %v", entries, err)
	}
	time.Sleep(time.Until(time.Now().Add(armed.Window)))
	s.sameAs(after)
	if !s.reachable() {
		t.Error("cut off")
	}
}

// Confirmation and the end of the window race; one wins, and the rules show
// which.
func TestConfirmAtTheLastMoment(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const races = 12
	var kept, undone atomic.Int32
	var wg sync.WaitGroup
	for i := range races {
		wg.Go(func() {
			t.Run("", func(t *testing.T) {
				name := fmt.Sprintf("race%d", i)
				g := &guard.Guard{Dir: filepath.Join(t.TempDir(), "guard"), Run: s.run, Window: 5 * time.Second}
				armed, err := g.Arm(t.Context(), guard.Change{What: name, NFTables: []guard.NFTable{{Family: "inet", Name: name}}})
				if err != nil {
					t.Fatal(err)
				}
				s.sh("nft add table inet " + name)
				if err := g.Applied(t.Context(), armed.ID); err != nil {
					t.Fatal(err)
				}
				end := time.Now().Add(armed.Window - 200*time.Millisecond)
				err = g.ConfirmBy(t.Context(), armed.ID, func(context.Context) error {
					switch i {
					case 0: // at once, on a machine however busy
					case races - 1:
						time.Sleep(time.Until(end) + time.Second)
					default:
						time.Sleep(time.Until(end) - time.Duration(1200-120*i)*time.Millisecond)
					}
					return nil
				})
				switch {
				case err == nil:
					kept.Add(1)
					time.Sleep(time.Until(end.Add(2 * time.Second)))
				case errors.Is(err, guard.ErrRolledBack):
					undone.Add(1)
					if st := s.await(g, armed.ID, 20*time.Second); st.State != guard.StateRolledBack {
						t.Errorf("%v", st)
					}
				default:
					t.Fatal(err)
				}
				if there := strings.Contains(s.rules(), "table inet "+name+" {"); there != (err == nil) {
					t.Errorf("Confirm returned %v; the change is there: %v", err, there)
				}
			})
		})
	}
	wg.Wait()
	t.Logf("kept %d, undone %d", kept.Load(), undone.Load())
	if kept.Load() == 0 || undone.Load() == 0 {
		t.Errorf("kept %d, undone %d: the moments tried are not near the deadline", kept.Load(), undone.Load())
	}
}

// One change is guarded at a time. The watchdog undoes it when it is told to end, as
// when the machine shuts down, and when it is asked.
func TestOneAtATime(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	g := s.guard(time.Minute)
	change := guard.Change{What: "first", NFTables: []guard.NFTable{{Family: "inet", Name: "own"}}}
	armed, err := g.Arm(t.Context(), change)
	s.must(err)
	_, err = s.guard(time.Minute).Arm(t.Context(), change)
	if !errors.Is(err, guard.ErrPending) || !strings.Contains(err.Error(), armed.ID) {
		t.Errorf("a second: %v", err)
	}
	if err := g.Remove(t.Context(), armed.ID); err == nil {
		t.Error("a change that is armed can be removed")
	}
	before := s.world()
	s.sh("nft flush chain inet own c; nft add rule inet own c tcp dport 9 drop; nft add element inet own ports '{ 9 }'; nft add chain inet own d")
	// In an orderly shutdown the watchdog is told to end, and undoes first.
	s.must(syscall.Kill(armed.PID, syscall.SIGTERM))
	if st := s.await(g, armed.ID, 15*time.Second); st.State != guard.StateRolledBack {
		t.Errorf("%v", st)
	}
	s.sameAs(before)
	again, err := g.Arm(t.Context(), change)
	s.must(err)
	s.sh("nft delete table inet own")
	st, err := g.Rollback(t.Context(), again.ID)
	if err != nil || st.State != guard.StateRolledBack {
		t.Errorf("%v, %v", st, err)
	}
	if s.rules() == "" || !strings.Contains(s.rules(), "table inet own") {
		t.Error("not rolled back")
	}
	if _, err := g.Rollback(t.Context(), again.ID); !errors.Is(err, guard.ErrNotArmed) {
		t.Errorf("rolled back twice: %v", err)
	}
	for _, id := range []string{"..", "current", "../x", "nothing"} {
		if err := g.Confirm(t.Context(), id, guard.Connection{}); !errors.Is(err, guard.ErrNotArmed) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// No signal of a terminal ends the watchdog, nor the end of its starter's process group and
// session. SIGKILL does: then the state says so, nothing can be confirmed, and
// the change can be undone all the same.
func TestWatchdogKilled(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	before := s.world()
	g := s.guard(time.Minute)
	change := guard.Change{What: "cut", NFTables: []guard.NFTable{{Family: "inet", Name: "cut"}}}
	armed, err := g.Arm(t.Context(), change)
	s.must(err)
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGPIPE} {
		s.must(syscall.Kill(armed.PID, sig))
	}
	time.Sleep(600 * time.Millisecond)
	if st, err := g.Status(t.Context()); err != nil || st.State != guard.StateArmed {
		t.Fatalf("after the signals of a terminal: %v, %v", st, err)
	}
	s.sh("nft add table inet cut; nft add chain inet cut c '{ type filter hook input priority 0; policy drop; }'")
	s.must(g.Applied(t.Context(), armed.ID))
	s.must(syscall.Kill(armed.PID, syscall.SIGKILL))
	time.Sleep(300 * time.Millisecond)
	st, err := g.Status(t.Context())
	if err != nil || st.State != guard.StateUnguarded || st.PID != 0 {
		t.Errorf("%v, %v", st, err)
	}
	if err := g.ConfirmBy(t.Context(), armed.ID, func(context.Context) error { return nil }); !errors.Is(err, guard.ErrNotGuarded) {
		t.Errorf("confirmed: %v", err)
	}
	if _, err := g.Arm(t.Context(), change); !errors.Is(err, guard.ErrPending) {
		t.Errorf("armed again: %v", err)
	}
	done, err := g.Recover(t.Context())
	if err != nil || len(done) != 1 || done[0].State != guard.StateRolledBack {
		t.Errorf("%v, %v", done, err)
	}
	s.sameAs(before)
	if !s.reachable() {
		t.Error("cut off")
	}
}

// After a restart of the machine the kernel has begun anew: what makes the
// change come back is taken away, and rules are left as they are.
func TestRecoverAfterARestart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	g := s.guard(time.Minute)
	c, err := guard.UFW(t.Context(), s.run)
	s.must(err)
	armed, err := g.Arm(t.Context(), c)
	s.must(err)
	s.sh("ufw allow 1/tcp; ufw --force enable")
	s.must(syscall.Kill(armed.PID, syscall.SIGKILL))
	// A crash: other rules now, another boot.
	s.sh("nft flush ruleset; nft add table inet booted")
	record := filepath.Join(s.dir, armed.ID, "change.json")
	data, err := os.ReadFile(record)
	s.must(err)
	boot := strings.TrimSpace(s.sh("cat /proc/sys/kernel/random/boot_id"))
	s.must(os.WriteFile(record, []byte(strings.Replace(string(data), boot, "another", 1)), 0o600))
	st, err := g.Status(t.Context())
	if err != nil || st.State != guard.StateUnguarded || !st.Rebooted {
		t.Errorf("%v, %v", st, err)
	}
	rules := s.rules()
	done, err := g.Recover(t.Context())
	if err != nil || len(done) != 1 || done[0].State != guard.StateRolledBack {
		t.Errorf("%v, %v", done, err)
	}
	if now := s.rules(); now != rules {
		t.Errorf("rules of another boot were put back:\n%s", difference(rules, now))
	}
	if conf := s.sh("cat /etc/ufw/ufw.conf /etc/ufw/user.rules"); strings.Contains(conf, "ENABLED=yes") || strings.Contains(conf, "tuple") {
		t.Errorf("UFW will start with the machine:\n%s", conf)
	}
}

// broken returns scripts that make a program fail, and work again.
func (s *site) broken(program string) (breaks, mends string) {
	return s.instead(program, "echo broken >&2; exit 1")
}

// instead returns scripts that put a script in the place of a program, in this
// lab's mounts, and take it away.
func (s *site) instead(program, script string) (puts, takes string) {
	s.Helper()
	source := filepath.Join(s.TempDir(), program)
	s.must(os.WriteFile(source, []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	return "mount -t tmpfs tmpfs /usr/local/sbin; cp " + source + " /usr/local/sbin/", "umount /usr/local/sbin"
}

// A program of the rollback that fails, at first or for long, keeps no other step from
// being taken, and is tried again until it works.
func TestStepsThatFail(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"iptables-nft-restore", "ip6tables-nft-restore", "iptables-legacy-restore", "iptables-nft-save", "nft", "a directory in the way"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.sh(applierBefore)
			before := s.world()
			g := s.guard(3 * time.Second)
			armed, err := g.Arm(t.Context(), applierChange)
			s.must(err)
			s.sh(strings.Join(applierSteps, "\n"))
			changed := s.world()
			breaks, mends := "rm /etc/own.conf; mkdir /etc/own.conf", "rmdir /etc/own.conf"
			if !strings.Contains(program, " ") {
				// It comes first in the watchdog's PATH, in this lab's mounts only.
				breaks, mends = s.broken(program)
			}
			s.sh(breaks)
			deadline := time.Now().Add(15 * time.Second)
			var st guard.Status
			for time.Now().Before(deadline) {
				if st, err = g.Status(t.Context()); err != nil {
					t.Fatal(err)
				}
				if st.State == guard.StateRollingBack && len(st.Failed) > 0 {
					break
				}
				time.Sleep(50 * time.Millisecond)
			}
			if len(st.Failed) == 0 || len(st.Failed) == 9 {
				t.Fatalf("while %s is broken: %v", program, st)
			}
			t.Logf("%v", st)
			s.sh(mends)
			if now := s.world(); now == before || now == changed {
				t.Errorf("while one step failed the others were not taken, or none failed")
			}
			if st := s.await(g, armed.ID, 20*time.Second); st.State != guard.StateRolledBack || len(st.Failed) > 0 {
				log, _ := os.ReadFile(st.Log)
				t.Errorf("%v\n%s", st, log)
			}
			s.sameAs(before)
		})
	}
}

// A command of the change that waited, say for a lock, and comes after the
// rollback is undone too.
func TestLateCommand(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	before := s.world()
	g := s.guard(1500 * time.Millisecond)
	armed, err := g.Arm(t.Context(), guard.Change{What: "late", Tables: []guard.Table{{Name: "filter"}}})
	s.must(err)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		st, err := g.Status(t.Context())
		s.must(err)
		if st.State == guard.StateRollingBack {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(st)
		}
	}
	time.Sleep(300 * time.Millisecond)
	s.sh("iptables -P INPUT DROP; iptables -F INPUT")
	if st := s.await(g, armed.ID, 15*time.Second); st.State != guard.StateRolledBack {
		t.Errorf("%v", st)
	}
	s.sameAs(before)
}

// What others change meanwhile around chains that are put back alone, stays.
func TestOthersChangesStay(t *testing.T) {
	t.Parallel()
	for _, flavour := range []guard.Flavour{guard.NFT, guard.Legacy} {
		s := newSite(t)
		ipt := "iptables-" + string(flavour)
		s.sh(strings.ReplaceAll(`
			IPT -F; IPT -X; IPT -P FORWARD DROP
			IPT -N DOCKER-USER; IPT -N DOCKER; IPT -N OWN
			IPT -A OWN -p tcp --dport 1 -j DROP
			IPT -A FORWARD -j DOCKER-USER
			IPT -A FORWARD -j DOCKER
			IPT -A DOCKER-USER -m comment --comment "not -j OWN, really" -j RETURN
			IPT -A DOCKER-USER -m comment --comment "was -j RETURN once" -j OWN
			IPT -A DOCKER-USER -j RETURN`, "IPT", ipt))
		g := s.guard(time.Minute)
		armed, err := g.Arm(t.Context(), guard.Change{What: "own", Chains: []guard.Chain{
			{Table: guard.Table{Name: "filter", Flavour: flavour}, Chain: "OWN"},
			{Table: guard.Table{Name: "filter", Flavour: flavour}, Chain: "FRESH"},
		}})
		s.must(err)
		// Ours.
		s.sh(strings.ReplaceAll(`
			IPT -D DOCKER-USER 2; IPT -I DOCKER-USER -j OWN; IPT -F OWN; IPT -N FRESH; IPT -A FRESH -j DROP
			IPT -A INPUT -j FRESH; IPT -A OWN -g FRESH; IPT -I DOCKER-USER 3 -p udp -j FRESH`, "IPT", ipt))
		// Docker's: a container is started.
		s.sh(strings.ReplaceAll(`
			IPT -A DOCKER -d 172.17.0.2 -p tcp --dport 80 -j ACCEPT; IPT -A FORWARD -j ACCEPT; IPT -N OTHER; IPT -P FORWARD ACCEPT`, "IPT", ipt))
		if _, err := g.Rollback(t.Context(), armed.ID); err != nil {
			t.Error(err)
		}
		got := s.sh(ipt + "-save -t filter 2>/dev/null | grep -v '^#' | sed 's/ \\[.*//'")
		want := `*filter
:INPUT ACCEPT
:FORWARD ACCEPT
:OUTPUT ACCEPT
:DOCKER -
:DOCKER-USER -
:OTHER -
:OWN -
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER
-A FORWARD -j ACCEPT
-A DOCKER -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-USER -m comment --comment "not -j OWN, really" -j RETURN
-A DOCKER-USER -m comment --comment "was -j RETURN once" -j OWN
-A DOCKER-USER -j RETURN
-A OWN -p tcp -m tcp --dport 1 -j DROP
COMMIT
`
		if got != want {
			t.Errorf("%s:\n%s", flavour, difference(want, got))
		}
	}
}

// Names of files are not commands, and files of all modes come back.
func TestFilesWithAwkwardNames(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	names := []string{
		"/etc/own/with space", "/etc/own/with'quote", `/etc/own/with"double`, "/etc/own/$(mkdir pwned)", "/etc/own/`mkdir pwned`",
		"/etc/own/new\nline", "/etc/own/-rf", "/etc/own/a;b&c|d>e", `/etc/own/back\slash`, "/etc/own/*", "/etc/own/ünïcode", "/etc/own/@STEPS@", "/etc/own/deep/er/file",
	}
	s.must(os.MkdirAll(s.l.HostPath("/etc/own/deep/er"), 0o750))
	var change guard.Change
	change.What = "names\n'; mkdir pwned; @DIR@"
	for i, name := range names {
		s.must(os.WriteFile(s.l.HostPath(name), []byte(name), 0o600))
		s.must(os.Chmod(s.l.HostPath(name), os.FileMode([]uint32{0o600, 0o644, 0o755, 0o777, 0o000, 0o400}[i%6])))
		s.must(os.Chown(s.l.HostPath(name), i, 2*i))
		change.Files = append(change.Files, name, name+".new")
	}
	look := func() string {
		out := s.sh("cd /etc/own; find . -mindepth 1 ! -type d -printf '%p %m %U:%G %T@ ' -exec cksum {} ';'| LC_ALL=C sort")
		return out
	}
	before := look()
	g := s.guard(time.Minute)
	armed, err := g.Arm(t.Context(), change)
	s.must(err)
	for i, name := range names {
		path := s.l.HostPath(name)
		switch i % 4 {
		case 0:
			s.must(os.Remove(path))
		case 1:
			s.must(os.WriteFile(path, []byte("changed"), 0o600))
		case 2:
			s.must(os.Chmod(path, 0o777))
		case 3:
			// The same content, by another way; links have mode 777, too.
			s.must(os.Rename(path, path+".moved"))
			s.must(os.Symlink(filepath.Base(name)+".moved", path))
			s.must(os.Lchown(path, i, 2*i))
		}
		s.must(os.WriteFile(path+".new", nil, 0o600))
	}
	s.must(os.RemoveAll(s.l.HostPath("/etc/own/deep")))
	if st, err := g.Rollback(t.Context(), armed.ID); err != nil || st.State != guard.StateRolledBack {
		log, _ := os.ReadFile(st.Log)
		t.Errorf("%v, %v\n%s", st, err, log)
	}
	s.sh("rm -f /etc/own/*.moved")
	if now := look(); now != before {
		t.Errorf("%s", difference(before, now))
	}
	s.sh("test ! -e /etc/own/pwned -a ! -e /pwned -a -s /etc/passwd")
}

// All rules are flushed, by whatever means: what was declared is there again.
func TestEverythingFlushed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.sh(applierBefore)
	saved := func() string {
		return volatile.ReplaceAllString(s.sh(`for p in iptables-nft iptables-legacy ip6tables-nft; do echo == $p; $p-save 2>/dev/null; done
			nft -s list table inet own; nft -s list table inet other`), "")
	}
	before := saved()
	g := s.guard(time.Minute)
	change := applierChange
	change.Chains = nil
	change.Tables = append(slices.Clone(change.Tables), guard.Table{Name: "filter", IPv6: true}, guard.Table{Name: "nat", Flavour: guard.NFT})
	change.NFTables = append(slices.Clone(change.NFTables), guard.NFTable{Family: "inet", Name: "other"})
	armed, err := g.Arm(t.Context(), change)
	s.must(err)
	s.sh("nft flush ruleset; iptables-legacy -F; iptables-legacy -P INPUT DROP; iptables-nft -P INPUT DROP")
	if s.reachable() {
		t.Error("nothing is cut off")
	}
	if st, err := g.Rollback(t.Context(), armed.ID); err != nil || st.State != guard.StateRolledBack {
		t.Errorf("%v, %v", st, err)
	}
	if now := saved(); now != before {
		t.Error(difference(before, now))
	}
	if !s.reachable() {
		t.Error("still cut off")
	}
}

// What could not be put back is not guarded, so that it is not changed.
func TestArmRefuses(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.sh("mkdir /etc/dir; ln -s /etc/passwd /etc/link")
	g := s.guard(time.Minute)
	for name, c := range map[string]guard.Change{
		"nothing":                  {What: "nothing"},
		"a directory":              {Files: []string{"/etc/dir"}},
		"a symbolic link":          {Files: []string{"/etc/link"}},
		"a relative path":          {Files: []string{"etc/own.conf"}},
		"a path with ..":           {Files: []string{"/etc/../etc/own.conf"}},
		"an unknown table":         {Tables: []guard.Table{{Name: "filter; reboot"}}},
		"an unknown flavour":       {Tables: []guard.Table{{Name: "filter", Flavour: "nft; reboot"}}},
		"a chain of the kernel's":  {Chains: []guard.Chain{{Table: guard.Table{Name: "filter"}, Chain: "FORWARD"}}},
		"a chain with a space":     {Chains: []guard.Chain{{Table: guard.Table{Name: "filter"}, Chain: "A B"}}},
		"a table of no family":     {NFTables: []guard.NFTable{{Family: "inet own; flush ruleset", Name: "x"}}},
		"a parameter that is none": {Sysctls: []string{"net/../../etc/passwd"}},
	} {
		if armed, err := g.Arm(t.Context(), c); err == nil {
			t.Errorf("%s: armed %v", name, armed)
		}
	}
	s.must(os.Chmod(s.dir, 0o755))
	if _, err := g.Arm(t.Context(), guard.Change{Files: []string{"/etc/own.conf"}}); !errors.Is(err, os.ErrPermission) {
		t.Errorf("a directory that all can enter: %v", err)
	}
	s.must(os.Chmod(s.dir, 0o700))
	// No watchdog, no guard: what should start it fails.
	breaks, mends := s.broken("setsid")
	s.sh(breaks)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := g.Arm(ctx, guard.Change{Files: []string{"/etc/own.conf"}}); err == nil {
		t.Error("armed without a watchdog")
	}
	s.sh(mends)
	// Nor is one that ends with our session.
	breaks, mends = s.instead("setsid", `shift; "$@" &`)
	s.sh(breaks)
	if _, err := g.Arm(t.Context(), guard.Change{Files: []string{"/etc/own.conf"}}); !errors.Is(err, guard.ErrNotGuarded) {
		t.Errorf("a watchdog in our own session: %v", err)
	}
	s.sh(mends)
	if all, err := g.List(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("left: %v, %v", all, err)
	}
	if _, err := g.Status(t.Context()); !errors.Is(err, guard.ErrNotArmed) {
		t.Errorf("%v", err)
	}
}

// An operator who reads only the directory can undo the change by hand.
func TestByHand(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	before := s.world()
	g := s.guard(time.Minute)
	armed, err := g.Arm(t.Context(), guard.Change{What: "all", Tables: []guard.Table{{Name: "filter"}, {Name: "nat"}}})
	s.must(err)
	s.must(syscall.Kill(armed.PID, syscall.SIGKILL))
	s.sh("iptables -F; iptables -P INPUT DROP; iptables -t nat -F")
	s.sh("sh " + filepath.Join(s.dir, armed.ID, "guard.sh") + " restore")
	s.sameAs(before)
	st, err := g.List(t.Context())
	if err != nil || len(st) != 1 || st[0].State != guard.StateRolledBack {
		t.Errorf("%v, %v", st, err)
	}
}

// The same connection must be refused whichever way its addresses are written.
func TestMappedAddresses(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var conns []net.Conn
	for _, addr := range []netip.Addr{lab.HostAddr4, lab.HostAddr6} {
		c, err := s.connectTo(addr)
		s.must(err)
		conns = append(conns, c)
	}
	g := s.guard(time.Minute)
	armed, err := g.Arm(t.Context(), guard.Change{What: "x", Files: []string{"/etc/own.conf"}})
	s.must(err)
	s.must(g.Applied(t.Context(), armed.ID))
	mapped := func(a netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
	}
	for _, c := range conns {
		v := seen(c)
		for _, v := range []guard.Connection{v, {Client: mapped(v.Client), Server: mapped(v.Server)}} {
			if err := g.Confirm(t.Context(), armed.ID, v); err == nil {
				t.Fatalf("%v confirms", v)
			}
		}
	}
	c, err := s.connectTo(lab.HostAddr6)
	s.must(err)
	s.must(g.Confirm(t.Context(), armed.ID, seen(c)))
}
