package main

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/composio/composiotest"
	"github.com/managemyclaw/hardshell/killswitch"
)

// A kill goes on for as long as Composio does not answer, and meanwhile nobody
// gets the agent to run again.
func TestStartedWhileComposioHangs(t *testing.T) {
	r := newRunaway(t)
	c := composiotest.New(composiotest.Config{Fault: func(*http.Request) composiotest.Fault { return composiotest.Fault{Hang: true} }})
	c.AddAccount(composiotest.Account{ID: "ca_mail", UserID: "ann"})
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	p := r.program(t)
	p.composioURL, p.composioKey = c.URL, filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(p.composioKey, []byte(composiotest.ProjectKey), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &killSwitch{dir: p.stateDir}
	targets := s.containers(p, p.containers, p.engine)
	t.Cleanup(s.close)
	revoke, err := p.composioTarget(nil)
	if err != nil {
		t.Fatal(err)
	}
	revoke.Timeout = 5 * time.Second
	s.Switch, err = killswitch.New(killswitch.Config{Agent: runawayName, Dir: p.stateDir, Targets: append(targets, *revoke), Trail: trail.Discard})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fence().Engage(t.Context(), runawayName, "a test"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var reflex sync.WaitGroup
	reflex.Go(func() { s.reflex(ctx, trail.Discard, slog.New(slog.DiscardHandler)) })
	t.Cleanup(func() { cancel(); reflex.Wait() })
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = s.Resume(t.Context()) // as standby does first
	}()
	t.Cleanup(func() { <-over })
	down := func() {
		t.Helper()
		for began := time.Now(); r.docker(t, "inspect", "-f", "{{.State.Running}} {{.HostConfig.RestartPolicy.Name}}", runawayName) != "false no"; time.Sleep(20 * time.Millisecond) {
			if time.Since(began) > 20*time.Second {
				t.Fatal("it runs, or would")
			}
		}
	}
	down()
	r.silent(t)
	times := 0
	for firing := true; firing; times++ {
		r.docker(t, "update", "--restart", "always", runawayName)
		_, _ = r.Lab.Docker(t.Context(), "start", runawayName) // which may end before it has started
		down()
		select {
		case <-over:
			firing = false
		default:
		}
	}
	if times < 2 { // the last may have outlasted the kill
		t.Error("the kill has come to its end: there is nothing to see here")
	}
}
