package halt_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/harden/container/docker"
	"github.com/managemyclaw/hardshell/harden/container/halt"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// Killed while its restart policy is switched off, a container has none any
// more when KeepDown returns, and from then on: an engine takes a change back if
// the container ends before the change is complete. HARDSHELL_HALT_ROUNDS says
// how often it is tried.
func TestRestartsAreOffForGood(t *testing.T) {
	rounds := 6
	if n, err := strconv.Atoi(os.Getenv("HARDSHELL_HALT_ROUNDS")); err == nil && n > 0 {
		rounds = n
	}
	l := labtest.Start(t, lab.Config{})
	e, err := docker.Open(l.DockerHost())
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for _, load := range []struct {
		name string
		busy int
	}{{"quiet machine", 0}, {"busy machine", 2 * runtime.NumCPU()}} {
		t.Run(load.name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			var spinning, watching sync.WaitGroup
			defer spinning.Wait()
			defer stop()
			var returned, confirmed []time.Duration
			for i := range rounds {
				r := newRestartRound(t, l, e, fmt.Sprintf("agent-%d", i))
				spin, rest := context.WithCancel(ctx)
				for range load.busy {
					spinning.Go(func() {
						for spin.Err() == nil { //nolint:revive // it takes a processor
						}
					})
				}
				r.fire(t)
				rest()
				returned, confirmed = append(returned, r.returned), append(confirmed, r.confirmed)
				watching.Go(func() { r.watch(t) })
			}
			watching.Wait()
			slices.Sort(returned)
			slices.Sort(confirmed)
			at := func(all []time.Duration, p int) time.Duration {
				return all[min(len(all)-1, len(all)*p/100)].Round(100 * time.Microsecond)
			}
			t.Logf("%d fires: KeepDown returned after p50 %v, p99 %v, most %v; confirmed after p50 %v, p99 %v, most %v", rounds,
				at(returned, 50), at(returned, 99), at(returned, 100), at(confirmed, 50), at(confirmed, 99), at(confirmed, 100))
		})
	}
}

// A fickle engine takes its first change of a policy back after it has said that
// it is made, and takes its time over every one.
type fickle struct {
	*docker.Engine
	calls, now, most atomic.Int32
	givenUp          atomic.Bool
}

func (e *fickle) SetRestartPolicy(ctx context.Context, id, policy string) error {
	n := e.now.Add(1)
	defer e.now.Add(-1)
	for m := e.most.Load(); n > m && !e.most.CompareAndSwap(m, n); m = e.most.Load() {
	}
	time.Sleep(200 * time.Millisecond) // longer than Kill waits
	if ctx.Err() != nil {
		e.givenUp.Store(true)
	}
	if err := e.Engine.SetRestartPolicy(ctx, id, policy); err != nil || e.calls.Add(1) > 1 {
		return err
	}
	return e.Engine.SetRestartPolicy(ctx, id, "always")
}

// A change that an engine takes back is made again, and never two at a time,
// however many ask for it and give up.
func TestChangeIsSeenThrough(t *testing.T) {
	b := start(t, named)
	id := b.run("agent", "--restart=always", lab.AgentImage)
	e := &fickle{Engine: b.engine}
	tracker := &halt.Tracker{Agent: named, Engine: e}
	defer tracker.Close()
	keep, kill := &halt.KeepDown{Tracker: tracker}, &halt.Kill{Tracker: tracker}
	if err := keep.Arm(t.Context()); err != nil {
		t.Fatal(err)
	}
	var asking sync.WaitGroup
	for range 3 {
		asking.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if err := keep.Do(ctx); err == nil {
				t.Error("nobody waited for the engine, and it is said to have answered")
			}
		})
	}
	asking.Wait()
	asking.Go(func() { _ = kill.Do(t.Context()) }) // it does not wait so long
	if err := keep.Do(t.Context()); err != nil {
		t.Error(err)
	}
	if policy := policyOnDisk(filepath.Join(b.Dir(), "docker/containers", id, "hostconfig.json")); policy != "no" {
		t.Errorf("its policy is %q", policy)
	}
	asking.Wait()
	if calls, most := e.calls.Load(), e.most.Load(); calls != 2 || most != 1 || e.givenUp.Load() {
		t.Errorf("%d changes, %d at a time; given up: %v", calls, most, e.givenUp.Load())
	}
}

// A restartRound is a container, killed while its policy is switched off.
type restartRound struct {
	l       *lab.Lab
	name    string
	file    string
	tracker *halt.Tracker
	kill    *halt.Kill
	keep    *halt.KeepDown
	seen    *halt.Restarts

	returned, confirmed time.Duration
}

func newRestartRound(t *testing.T, l *lab.Lab, e halt.Engine, name string) *restartRound {
	t.Helper()
	id, err := l.Docker(t.Context(), "run", "-d", "--name", name, "--restart=always", lab.AgentImage)
	if err != nil {
		t.Fatal(err)
	}
	agent := halt.Agent{Names: []string{name}}
	root := filepath.Join(l.Dir(), "docker")
	r := &restartRound{l: l, name: name, file: filepath.Join(root, "containers", id, "hostconfig.json"), tracker: &halt.Tracker{Agent: agent, Engine: e, DataRoot: root}}
	r.kill, r.keep = &halt.Kill{Tracker: r.tracker}, &halt.KeepDown{Tracker: r.tracker}
	r.seen = &halt.Restarts{Agent: agent, DataRoot: root}
	for _, arm := range []func(context.Context) error{r.kill.Arm, r.keep.Arm, r.seen.Arm} {
		if err := arm(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// fire acts as a switch does, and looks as it does: what is seen before the
// actuator has returned is no confirmation.
func (r *restartRound) fire(t *testing.T) {
	t.Helper()
	began := time.Now()
	var killing sync.WaitGroup
	defer killing.Wait()
	killing.Go(func() { _ = r.kill.Do(t.Context()) }) // KeepDown is in question here
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := r.keep.Do(ctx); err != nil {
		t.Errorf("%s: %v", r.name, err)
	}
	r.returned = time.Since(began)
	for {
		left, err := r.seen.Remaining(ctx)
		if err == nil && len(left) == 0 {
			break
		}
		if ctx.Err() != nil {
			t.Errorf("%s: after %v: %v, %v", r.name, time.Since(began), left, err)
			break
		}
		time.Sleep(time.Millisecond)
	}
	r.confirmed = time.Since(began)
}

// watch sees for a second that what was confirmed stays so, and removes the
// container.
func (r *restartRound) watch(t *testing.T) {
	for began := time.Now(); time.Since(began) < time.Second; time.Sleep(time.Millisecond) {
		if policy := policyOnDisk(r.file); policy != "no" {
			t.Errorf("%s: %v after it was confirmed to be off, its policy is %q", r.name, time.Since(began), policy)
			break
		}
	}
	r.tracker.Close()
	if _, err := r.l.Docker(t.Context(), "rm", "-f", r.name); err != nil {
		t.Error(err)
	}
}

func policyOnDisk(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	var h struct{ RestartPolicy struct{ Name string } }
	if err := json.Unmarshal(data, &h); err != nil {
		return err.Error()
	}
	return h.RestartPolicy.Name
}
