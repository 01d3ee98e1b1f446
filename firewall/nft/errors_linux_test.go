package nft

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// methods calls each method of b with the same policy.
func methods(ctx context.Context, b *Backend) map[string]error {
	_, drift := b.Drift(ctx, policies["everything"])
	return map[string]error{"Apply": b.Apply(ctx, policies["everything"]), "Remove": b.Remove(ctx), "Drift": drift}
}

// Who may not look is told so, and is told nothing else.
func TestWithoutPrivilege(t *testing.T) {
	l := labtest.Start(t, lab.Config{NoDocker: true})
	done := make(chan map[string]error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread has lost its capabilities
		// In the namespace already, since to enter one needs a privilege too.
		ns, err := unix.Open(l.Host.NetNS(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(ns, unix.CLONE_NEWNET)
		}
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err == nil {
			err = unix.Capset(&header, &none[0])
		}
		if err != nil {
			done <- map[string]error{"set-up": err}
			return
		}
		done <- methods(t.Context(), &Backend{})
	}()
	for name, err := range <-done {
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(fmt.Sprint(err), "CAP_NET_ADMIN") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNoSuchNamespace(t *testing.T) {
	for name, err := range methods(t.Context(), &Backend{NetNS: "/nowhere"}) {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A control group that is not there keeps nobody's ports closed.
func TestNoSuchControlGroup(t *testing.T) {
	l := labtest.Start(t, lab.Config{NoDocker: true})
	b := &Backend{NetNS: l.Host.NetNS(), EngineCgroup: "nowhere.slice/docker.service"}
	if err := b.Apply(t.Context(), policies["everything"]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Apply: %v", err)
	}
	if lines, err := b.Drift(t.Context(), policies["everything"]); err != nil || len(lines) == 0 {
		t.Errorf("Drift without a table: %q, %v", lines, err)
	}
	b.EngineCgroup = ""
	if err := b.Apply(t.Context(), policies["everything"]); err != nil {
		t.Fatal(err)
	}
	b.EngineCgroup = "nowhere.slice/docker.service"
	lines, err := b.Drift(t.Context(), policies["everything"])
	if err != nil || len(lines) == 0 {
		t.Errorf("Drift: %q, %v", lines, err)
	}
}

func TestUnsupportedKernel(t *testing.T) {
	for _, cause := range []error{unix.EPROTONOSUPPORT, unix.EOPNOTSUPP} {
		if err := explain("apply", fmt.Errorf("dial: %w", cause)); !errors.Is(err, errors.ErrUnsupported) || !errors.Is(err, cause) {
			t.Error(err)
		}
	}
}

func TestDeadline(t *testing.T) {
	l := labtest.Start(t, lab.Config{NoDocker: true})
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for name, err := range methods(ctx, &Backend{NetNS: l.Host.NetNS()}) {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range methods(t.Context(), &Backend{NetNS: l.Host.NetNS(), Timeout: time.Nanosecond}) {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s with a time-out: %v", name, err)
		}
	}
}

// Backends of different machines share nothing, and so may work at once.
func TestTwoAtOnce(t *testing.T) {
	l := labtest.Start(t, lab.Config{NoDocker: true})
	var g sync.WaitGroup
	for _, m := range []*lab.Machine{l.Host, l.Internet} {
		b := &Backend{NetNS: m.NetNS()}
		g.Go(func() {
			for range 5 {
				if err := b.Apply(t.Context(), policies["everything"]); err != nil {
					t.Error(err)
				}
			}
			if lines, err := b.Drift(t.Context(), policies["everything"]); err != nil || len(lines) > 0 {
				t.Errorf("%q, %v", lines, err)
			}
		})
	}
	g.Wait()
}

// A process that can open no more files is told so, at whichever of them it is.
func TestNoMoreFiles(t *testing.T) {
	l := labtest.Start(t, lab.Config{NoDocker: true})
	b := &Backend{NetNS: l.Host.NetNS()}
	var former unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &former); err != nil {
		t.Fatal(err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for more := range 12 {
		few := former
		few.Cur = uint64(len(open) + more)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
			t.Fatal(err)
		}
		err := b.Apply(t.Context(), policies["everything"])
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &former); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			refused++
			if !errors.Is(err, unix.EMFILE) {
				t.Errorf("%d more files: %v", more, err)
			}
		}
	}
	if refused == 0 {
		t.Error("it was never refused one")
	}
}
