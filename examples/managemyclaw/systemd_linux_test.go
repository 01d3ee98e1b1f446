package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// A booted is a host whose first process is systemd, with the program and its
// state where systemd and what it confines can reach them.
type booted struct {
	*networkWorld

	systemd *lab.Systemd
	program string
}

func boot(t *testing.T) *booted {
	t.Helper()
	w := newNetworkWorld(t)
	b := &booted{networkWorld: w, program: "/run/hardshell/managemyclaw"}
	w.state = "/run/hardshell/state"
	for name, text := range map[string]string{
		"/etc/systemd/system.conf.d/test.conf": "[Manager]\nDefaultEnvironment=" + mainVar + "=1\n",
		b.program:                              "",
	} {
		if err := os.MkdirAll(filepath.Dir(w.HostPath(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(w.HostPath(name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	in, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(w.HostPath(b.program), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	b.systemd = labtest.Systemd(t, w.Lab, labtest.Host(t, w.Lab))
	// systemd hears nobody who is not in its process namespace; and from there
	// nobody sees the engine's processes, nor here those of a watchdog there.
	systemctl, err := exec.LookPath("systemctl")
	if err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{
		"systemctl":   "exec " + strings.Join(b.systemd.Enter(), " ") + " " + systemctl + ` "$@"`,
		"systemd-run": `while case $1 in --*) ;; *) false ;; esac; do shift; done; exec setsid -f "$@" </dev/null >/dev/null 2>&1`,
	} {
		if err := os.WriteFile(w.HostPath(filepath.Dir(b.program)+"/"+name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// The engine is the lab's: this stands for its unit, with its name.
	const engine = "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\n"
	if err := os.WriteFile(w.HostPath("/etc/systemd/system/docker.service"), []byte(engine), 0o644); err != nil {
		t.Fatal(err)
	}
	b.systemctl(t, "daemon-reload")
	return b
}

func (b *booted) systemctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := b.try(t, args...)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(b.Dir(), "systemd.log"))
		t.Fatalf("systemctl %v: %v: %s\n%s", args, err, out, log)
	}
	return out
}

func (b *booted) try(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := b.systemd.Command(ctx, "systemctl", args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// table reports whether the kernel has the policy's table.
func (b *booted) table(t *testing.T) bool {
	t.Helper()
	return b.Host.Command(t.Context(), "nft", "list", "table", "inet", "hardshell").Run() == nil
}

// The units that harden installs do on a real systemd what they are for: the
// policy is there before the engine is, the engine does not start without it, and
// it is watched by a program that may do little else.
func TestUnitsOfPolicy(t *testing.T) {
	b := boot(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := b.Host.Command(ctx, b.program, "harden", "--console", "--container", "openclaw", "--allow", "8081", "--state-dir", b.state)
	cmd.Env = append(os.Environ(), mainVar+"=1", "SSH_CONNECTION=", "DOCKER_HOST=", "PATH="+filepath.Dir(b.program)+":"+os.Getenv("PATH"))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	_ = cmd.Run() // there is no tailnet, among other things
	if !b.table(t) {
		t.Fatalf("there is no policy:\n%s", &said)
	}
	b.closed(t)
	for _, unit := range []string{"hardshell-recover.service", "hardshell-restore.service", "hardshell-watch.service"} {
		if s := b.systemctl(t, "is-enabled", unit); s != "enabled" {
			t.Errorf("%s is %s", unit, s)
		}
	}
	active := func(unit, want string) {
		t.Helper()
		if s, _ := b.try(t, "is-active", unit); s != want {
			log, _ := os.ReadFile(filepath.Join(b.Dir(), "systemd.log"))
			t.Fatalf("%s is %s, want %s\n%s", unit, s, want, log)
		}
	}
	active("hardshell-watch.service", "active")

	t.Run("the watcher, confined", func(t *testing.T) {
		pid := b.systemctl(t, "show", "--property=MainPID", "--value", "hardshell-watch.service")
		status, err := b.systemd.Command(t.Context(), "grep", "-E", "NoNewPrivs|Seccomp:|CapBnd", "/proc/"+pid+"/status").Output()
		if err != nil || !strings.Contains(string(status), "NoNewPrivs:\t1") || !strings.Contains(string(status), "Seccomp:\t2") || !strings.Contains(string(status), "CapBnd:\t0000000000003000") {
			t.Errorf("%s, %v", status, err)
		}
		if out, err := b.Host.Command(t.Context(), "nft", "delete", "table", "inet", "hardshell").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for deadline := time.Now().Add(30 * time.Second); !b.table(t); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("it does not put back what is gone")
			}
		}
		b.closed(t)
	})

	t.Run("the machine starts", func(t *testing.T) {
		if err := b.StopDockerd(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.systemctl(t, "stop", "hardshell-watch.service", "hardshell-restore.service", "docker.service")
		if out, err := b.Host.Command(t.Context(), "nft", "flush", "ruleset").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		b.systemctl(t, "start", "hardshell-recover.service")
		b.systemctl(t, "start", "docker.service") // and nothing else is asked for
		if !b.table(t) {
			t.Fatal("the engine's unit is up without the policy")
		}
		if err := b.StartDockerd(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.systemctl(t, "start", "hardshell-watch.service")
		b.closed(t)
	})

	t.Run("the policy cannot be restored", func(t *testing.T) {
		b.systemctl(t, "stop", "hardshell-watch.service", "hardshell-restore.service", "docker.service")
		if err := os.WriteFile(b.HostPath(b.state+"/exposure.json"), []byte(`{"half`), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := b.try(t, "start", "docker.service"); err == nil {
			t.Errorf("the engine's unit is started all the same: %s", out)
		}
		active("docker.service", "inactive")
		active("hardshell-restore.service", "failed")
	})
}
