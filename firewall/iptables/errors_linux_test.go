package iptables

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/managemyclaw/hardshell/firewall/firewalltest"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

func TestWithoutPrivilege(t *testing.T) {
	m := newMachine(t)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread has lost its capabilities
		ns, err := unix.Open(m.l.Host.NetNS(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(ns, unix.CLONE_NEWNET)
		}
		// Programs that root runs get back what is not out of bounds.
		for _, c := range []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW} {
			if err == nil {
				err = unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
			}
		}
		if err != nil {
			t.Error(err)
		}
		done <- (&Backend{Mode: Mangle}).Apply(t.Context(), firewalltest.Policy())
	}()
	if err := <-done; !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
}

// Without the chain, nothing is done; before the engine starts, it can be made.
func TestNoDockerUser(t *testing.T) {
	m := newMachine(t)
	b := &Backend{NetNS: m.l.Host.NetNS()}
	if err := b.Apply(t.Context(), firewalltest.Policy()); !errors.Is(err, ErrNoDockerUser) {
		t.Errorf("Apply: %v", err)
	}
	if _, err := b.Drift(t.Context(), firewalltest.Policy()); !errors.Is(err, ErrNoDockerUser) {
		t.Errorf("Drift: %v", err)
	}
	if _, err := m.sh(t.Context(), "iptables -N DOCKER-USER; ip6tables -N DOCKER-USER"); err != nil {
		t.Fatal(err)
	}
	if err := b.Apply(t.Context(), firewalltest.Policy()); !errors.Is(err, ErrNoDockerUser) || !strings.Contains(err.Error(), "nothing leads to the chain") {
		t.Errorf("Apply with a chain that nothing leads to: %v", err)
	}
	if _, err := m.sh(t.Context(), "iptables -X DOCKER-USER; ip6tables -X DOCKER-USER"); err != nil {
		t.Fatal(err)
	}
	b.Precreate = true
	if err := b.Apply(t.Context(), firewalltest.Policy()); err != nil {
		t.Error(err)
	}
	own, others, err := m.save(t.Context())
	if err != nil || !strings.Contains(own, "-A DOCKER-USER -j "+userChain) || !strings.Contains(others, ":DOCKER-USER") {
		t.Errorf("%s%s%v", own, others, err)
	}
}

// legacy prepares a machine whose engine uses iptables-legacy.
func legacy(t *testing.T) machine {
	t.Helper()
	if _, err := exec.LookPath("iptables-legacy"); err != nil {
		labtest.Skip(t, "no iptables-legacy")
	}
	// Children get it; the lock of this machine is not ours to take.
	t.Setenv("XTABLES_LOCKFILE", filepath.Join(t.TempDir(), "lock"))
	m := newMachine(t)
	out, err := m.sh(t.Context(), `for t in iptables-legacy ip6tables-legacy; do
		$t -w 5 -t nat -N DOCKER; $t -w 5 -N DOCKER-USER; $t -w 5 -A FORWARD -j DOCKER-USER; done`)
	if err != nil {
		labtest.Skip(t, "iptables-legacy does not work here: "+out)
	}
	return m
}

// Rules go where the engine's are: in the other flavour they would have no effect.
func TestFlavour(t *testing.T) {
	m := legacy(t)
	b := &Backend{NetNS: m.l.Host.NetNS()}
	if err := b.Apply(t.Context(), firewalltest.Policy()); err != nil {
		t.Fatal(err)
	}
	old, err1 := m.sh(t.Context(), "iptables-legacy-save; ip6tables-legacy-save")
	current, err2 := m.sh(t.Context(), "iptables-nft-save 2>/dev/null; ip6tables-nft-save 2>/dev/null")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if strings.Count(old, "-A DOCKER-USER -j "+userChain) != 2 || strings.Contains(current, "HARDSHELL") {
		t.Errorf("legacy has\n%s\nnf_tables has\n%s", old, current)
	}
	if lines, err := b.Drift(t.Context(), firewalltest.Policy()); err != nil || len(lines) > 0 {
		t.Errorf("%q, %v", lines, err)
	}
	if err := b.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

// Who holds the lock for ever holds up nobody for ever.
func TestLocked(t *testing.T) {
	m := legacy(t)
	f, err := os.OpenFile(os.Getenv("XTABLES_LOCKFILE"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	b := &Backend{NetNS: m.l.Host.NetNS(), Wait: 2 * time.Second}
	began := time.Now()
	err = b.Apply(t.Context(), firewalltest.Policy())
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "/run/xtables.lock") {
		t.Errorf("Apply while another holds the lock: %v", err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
	b.Wait = time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began = time.Now()
	if err := b.Apply(ctx, firewalltest.Policy()); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 30*time.Second {
		t.Errorf("a shorter deadline: %v after %v", err, time.Since(began))
	}
	f.Close()
	if err := b.Apply(t.Context(), firewalltest.Policy()); err != nil {
		t.Errorf("once it is free: %v", err)
	}
}
