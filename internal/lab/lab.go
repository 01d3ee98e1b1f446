//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

// Lab is a running lab. Its methods may be called concurrently, except that
// the engine is started and stopped by one caller at a time.
type Lab struct {
	// Host runs the engine. Internet is where attacks come from and what
	// agents talk to. Neighbour is on the same cable as the host, which is to
	// say that it can send it frames for any address.
	Host, Internet, Neighbour *Machine

	id     string
	dir    string
	cfg    Config
	state  *stateDir
	cgroup *os.File // the lab's engine cgroup, for clone3
	sw     *netns
	etc    *os.File // the host's /etc
	engine engine
	agent  string // the compiled program

	mu     sync.Mutex
	closed bool
}

// Start builds a lab. It first removes what labs of dead owners left (see
// [Sweep]). When ctx ends before the lab is complete, or anything else goes
// wrong, nothing remains of it. Once Start has returned, ctx has no part in the
// lab; end it with [Lab.Close].
func Start(ctx context.Context, cfg Config) (_ *Lab, err error) {
	if missing := Missing(cfg); len(missing) > 0 {
		return nil, fmt.Errorf("lab: cannot run here: %s", strings.Join(missing, "; "))
	}
	l := &Lab{cfg: cfg}
	if removed, err := Sweep(); err != nil || len(removed) > 0 {
		l.logf("swept %q: %v", removed, err)
	}
	// Also when a caller's Log panics.
	complete := false
	defer func() {
		if !complete {
			err = errors.Join(err, l.Close())
		}
	}()
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"directory", l.makeDir},
		{"cgroup", l.makeCgroup},
		{"network", l.makeNetwork},
		{"host files", l.makeHost},
		{"runtime", l.makeRuntime},
		{"engine", l.firstDockerd},
		{"images", l.loadImages},
	} {
		l.logf("%s", step.name)
		if err := step.run(ctx); err != nil {
			return nil, fmt.Errorf("lab: %s: %w", step.name, err)
		}
	}
	complete = true
	return l, nil
}

func (l *Lab) makeDir(context.Context) (err error) {
	if l.state, err = newStateDir(); err != nil {
		return err
	}
	l.id, l.dir = l.state.id, l.state.path
	l.logf("this is %s", l.id)
	return nil
}

func (l *Lab) makeCgroup(context.Context) (err error) {
	l.cgroup, err = newCgroup(l.id)
	return err
}

func (l *Lab) firstDockerd(ctx context.Context) error {
	if l.cfg.NoDocker {
		return nil
	}
	return l.StartDockerd(ctx)
}

// Close kills everything in the lab and removes it. It does not ask the engine
// to stop, since all of the engine's state goes too; a hung engine is no
// obstacle. Close may be called again, and retries what failed.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.state == nil {
		return nil
	}
	if err := destroy(l.id, l.state.path); err != nil {
		return fmt.Errorf("lab: close %s: %w", l.id, err)
	}
	l.engine.wait()
	if l.cgroup != nil {
		l.cgroup.Close()
	}
	for _, m := range []*Machine{l.Host, l.Internet, l.Neighbour} {
		if m != nil {
			m.close()
		}
	}
	if l.sw != nil {
		l.sw.Close()
	}
	if l.etc != nil {
		l.etc.Close()
	}
	l.state.unlock()
	l.closed = true
	return nil
}

// ID names the lab: its directory and its cgroup are called so.
func (l *Lab) ID() string { return l.id }

// Dir is the lab's directory, which only root can enter. It goes with the lab.
func (l *Lab) Dir() string { return l.dir }

func (l *Lab) logf(format string, args ...any) {
	if l.cfg.Log != nil {
		io.WriteString(l.cfg.Log, fmt.Sprintf("lab: "+format+"\n", args...))
	}
}
