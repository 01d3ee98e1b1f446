package docker_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/harden/container/docker"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// Whoever listens hears of containers and networks, also after the engine was
// gone, and of the end.
func TestChanges(t *testing.T) {
	l := labtest.Start(t, lab.Config{})
	e, err := docker.Open(l.DockerHost())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changed := e.Changes(ctx)
	hear := func(what string) {
		t.Helper()
		select {
		case _, ok := <-changed:
			if !ok {
				t.Fatalf("%s: the channel is closed", what)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s was not heard of", what)
		}
		for { // what belongs to it
			select {
			case <-changed:
			case <-time.After(300 * time.Millisecond):
				return
			}
		}
	}
	run := func(args ...string) {
		t.Helper()
		if _, err := l.Docker(ctx, args...); err != nil {
			t.Fatal(err)
		}
	}
	hear("that it listens")
	run("run", "-d", "--name", "one", lab.UserImage)
	hear("a container that starts")
	run("network", "create", "two")
	hear("a network")
	run("network", "connect", "two", "one")
	hear("a container that joins a network")
	run("kill", "one")
	hear("a container that ends")
	select {
	case <-changed:
		t.Error("it tells of nothing")
	case <-time.After(300 * time.Millisecond):
	}
	if err := errors.Join(l.KillDockerd(ctx), l.StartDockerd(ctx)); err != nil {
		t.Fatal(err)
	}
	hear("an engine that is back")
	cancel()
	for range changed {
	}
}
