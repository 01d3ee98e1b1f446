package container_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/container/containertest"
	"github.com/managemyclaw/hardshell/harden/host"
)

// memory is an engine in memory with one careless container.
type memory struct {
	*containertest.Engine

	ctl    *containertest.Interceptor
	owners *container.Owners
	state  string
	id     string
	files  map[string]string
}

var memoryProfile = container.Profile{User: "1000:1000", Writable: []string{"/data", "/state"}, Tmpfs: []container.Tmpfs{{Path: "/tmp"}}, Env: []string{"CACHE=/state"}}

func newMemory(t *testing.T) *memory {
	m := &memory{Engine: new(containertest.Engine), state: t.TempDir()}
	m.files = map[string]string{"/data/db": "rows", "/state/memory": "what it remembers"}
	m.id = m.Add(container.Settings{
		Name: "agent", Image: "openclaw:local", RestartPolicy: "always", NetworkMode: "bridge", EnvNames: []string{"TOKEN"},
		Mounts: []container.Mount{
			{Type: "volume", Name: "db", Driver: "local", Source: "/volumes/db", Destination: "/data", ReadWrite: true},
			{Type: "bind", Source: "/run/docker.sock", Destination: "/var/run/docker.sock", ReadWrite: true},
		},
		Ports: []container.Port{{Container: 18789, Protocol: "tcp", HostIP: "0.0.0.0", Host: 18789}},
	}, m.files)
	m.owners = &container.Owners{Files: map[string]map[string]container.Owner{"/volumes/db": {".": {}, "db": {}, "other": {UID: 33, GID: 33}}}}
	m.ctl = &containertest.Interceptor{Control: m.Engine}
	return m
}

func (m *memory) recreator() *container.Recreator {
	r := &container.Recreator{Control: m.ctl, Profile: memoryProfile, StateDir: m.state, Settle: time.Millisecond}
	list := func(names ...string) *harden.Source[container.Container] {
		return containertest.Source(m.ctl, names...)
	}
	r.Source = list("agent")
	r.Tune(list, 100*time.Microsecond, time.Nanosecond)
	r.InMemory(m.owners)
	return r
}

func memoryFix(ctx context.Context, r *container.Recreator, ids ...string) ([]harden.Fix, error) {
	f := harden.Fixer{Trail: trail.Discard}
	var checks []harden.Check
	for _, c := range container.Checks(r.Source, r.Profile) {
		if len(ids) == 0 || slices.Contains(ids, c.Info().ID) {
			checks = append(checks, r.Remedy(c))
		}
	}
	return f.Fix(ctx, new(host.Host), nil, checks...)
}

// whole asserts what must be true whatever went wrong, once the next run has
// had its say: one container of the name runs, with its data, and nothing is
// left over.
func (m *memory) whole(t *testing.T, hardened bool) {
	t.Helper()
	all, err := m.Containers(context.Background())
	if err != nil || len(all) != 1 || all[0].Name != "agent" {
		t.Errorf("running: %v %v", all, err)
		return
	}
	if names := m.Names(); !slices.Equal(names, []string{"agent"}) {
		t.Errorf("containers %q", names)
	}
	for name, content := range m.files {
		if got, ok := m.File("agent", name); !ok || got != content {
			t.Errorf("%s is %q", name, got)
		}
	}
	s := all[0]
	if s.RestartPolicy != "always" {
		t.Errorf("restart policy %q", s.RestartPolicy)
	}
	if is := s.ReadonlyRootfs && s.User == "1000:1000"; is != hardened || (s.ID == m.id) == hardened {
		t.Errorf("hardened %t, want %t", is, hardened)
	}
	volumes := 1
	owner := container.Owner{}
	if hardened {
		volumes, owner = 2, container.Owner{UID: 1000, GID: 1000}
	}
	if v := m.Volumes(); len(v) != volumes {
		t.Errorf("volumes %q", v)
	}
	if got := m.owners.Files["/volumes/db"]["db"]; got != owner {
		t.Errorf("the file belongs to %v, want %v", got, owner)
	}
	if !hardened && m.owners.Files["/volumes/db"]["other"] != (container.Owner{UID: 33, GID: 33}) {
		t.Errorf("the other file belongs to %v", m.owners.Files["/volumes/db"]["other"])
	}
	left, err := os.ReadDir(m.state)
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

// alive asserts what must be true at every moment, also between two runs.
func (m *memory) alive(t *testing.T) {
	t.Helper()
	running := 0
	all, _ := m.Containers(context.Background())
	for _, s := range all {
		if s.Running() {
			running++
		}
	}
	if running > 1 {
		t.Errorf("%d run at once", running)
	}
}

func TestRecreate(t *testing.T) {
	m := newMemory(t)
	r := m.recreator()
	fixes, err := memoryFix(t.Context(), r)
	changed := 0
	for _, f := range fixes {
		if f.Err != nil {
			t.Error(f.Err)
		}
		if f.Changed {
			changed++
		}
	}
	if err != nil || changed != 1 {
		t.Errorf("%d changes, %v", changed, err)
	}
	m.whole(t, true)
	if fixes, err := memoryFix(t.Context(), r); len(fixes) > 0 || err != nil {
		t.Errorf("again: %+v %v", fixes, err)
	}
}

// The plans of all checks are one change, made once.
func TestProposeOnce(t *testing.T) {
	m := newMemory(t)
	r := m.recreator()
	var checks []harden.Check
	for _, c := range container.Checks(r.Source, r.Profile) {
		checks = append(checks, r.Remedy(c))
	}
	actions := 0
	for _, p := range harden.Propose(t.Context(), new(host.View), 0, checks...) {
		if p.Err != nil {
			t.Errorf("%s: %v", p.Result.Info.ID, p.Err)
		}
		actions += len(p.Plan.Actions)
	}
	if actions != 1 {
		t.Errorf("%d actions, want 1", actions)
	}
	if left, _ := os.ReadDir(m.state); len(left) > 0 {
		t.Errorf("planning left %v", left)
	}
}

// faults counts calls, and lets some fail: those in before without effect,
// those in after with it.
type faults struct {
	before, after []int
	count         int
	hit           []string
}

func (f *faults) arm(m *memory) {
	m.ctl.Before = func(_ context.Context, c containertest.Call) error {
		f.count++
		if slices.Contains(f.before, f.count) {
			f.hit = append(f.hit, c.Method)
			return errBefore
		}
		return nil
	}
	m.ctl.After = func(_ context.Context, c containertest.Call) error {
		if slices.Contains(f.after, f.count) {
			f.hit = append(f.hit, c.Method)
			return errBefore
		}
		return nil
	}
}

var errBefore = errors.New("injected")

// Whichever call fails, before or after it took effect, and whichever fails
// after that, undoing included: never do two containers run, and the next run
// makes all well.
func TestFaults(t *testing.T) {
	const check = "container.read_only_root"
	probe := newMemory(t)
	none := new(faults)
	none.arm(probe)
	if _, err := memoryFix(t.Context(), probe.recreator(), check); err != nil {
		t.Fatal(err)
	}
	total := none.count
	if total < 20 {
		t.Fatalf("%d calls", total)
	}
	var runs atomic.Int32
	try := func(t *testing.T, f *faults) {
		runs.Add(1)
		m := newMemory(t)
		f.arm(m)
		fixes, _ := memoryFix(t.Context(), m.recreator(), check)
		m.alive(t)
		m.Restart() // as the engine might at this very moment
		m.alive(t)
		m.ctl.Before, m.ctl.After = nil, nil
		_ = fixes
		r := m.recreator()
		if _, err := r.Recover(t.Context()); err != nil {
			t.Errorf("%v: recover: %v", f.hit, err)
		}
		if _, err := memoryFix(t.Context(), r, check); err != nil {
			t.Errorf("%v: %v", f.hit, err)
		}
		m.whole(t, true)
		if t.Failed() {
			t.Fatalf("faults %+v", f)
		}
	}
	for n := 1; n <= total; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			try(t, &faults{before: []int{n}})
			try(t, &faults{after: []int{n}})
			for k := n + 1; k <= n+12; k++ {
				try(t, &faults{before: []int{n, k}})
				try(t, &faults{before: []int{k}, after: []int{n}})
				try(t, &faults{after: []int{n, k}})
			}
			// The engine is gone for good from here on.
			var rest []int
			for k := n; k < n+60; k++ {
				rest = append(rest, k)
			}
			try(t, &faults{before: rest})
		})
	}
	t.Cleanup(func() { t.Logf("%d calls, %d runs", total, runs.Load()) })
}

// A fault that is undone leaves the container as it was, at once.
func TestUndone(t *testing.T) {
	const check = "container.read_only_root"
	for _, method := range []string{"Clone", "Stop", "Rename", "Copy", "Start"} {
		for _, after := range []bool{false, true} {
			m := newMemory(t)
			done := false
			fail := func(_ context.Context, c containertest.Call) error {
				if c.Method == method && !done {
					done = true
					return errBefore
				}
				return nil
			}
			if after {
				m.ctl.After = fail
			} else {
				m.ctl.Before = fail
			}
			fixes, err := memoryFix(t.Context(), m.recreator(), check)
			if err != nil || len(fixes) != 1 || !errors.Is(fixes[0].Err, errBefore) {
				t.Errorf("%s: %+v %v", method, fixes, err)
			}
			m.whole(t, false)
		}
	}
}

// fixOne applies the plan of one check, without a Fixer.
func planOne(t *testing.T, r *container.Recreator) harden.Committer {
	t.Helper()
	for _, c := range container.Checks(r.Source, r.Profile) {
		if c.Info().ID == "container.read_only_root" {
			p, err := r.Remedy(c).Plan(t.Context(), new(host.View))
			if err != nil || len(p.Actions) != 1 {
				t.Fatalf("%+v %v", p, err)
			}
			return p.Actions[0].(harden.Committer)
		}
	}
	t.Fatal("no check")
	return nil
}

func TestRevert(t *testing.T) {
	m := newMemory(t)
	r := m.recreator()
	a := planOne(t, r)
	h := new(host.Host)
	if err := a.Apply(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	m.alive(t)
	if err := a.Apply(t.Context(), h); err == nil {
		t.Error("applied twice")
	}
	if err := a.Revert(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	m.whole(t, false)
	if err := a.Revert(t.Context(), h); err == nil {
		t.Error("reverted twice")
	}
	if err := a.Apply(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Commit(t.Context(), h), a.Commit(t.Context(), h)); err != nil {
		t.Fatal(err)
	}
	if err := a.Revert(t.Context(), h); err == nil {
		t.Error("reverted after it was committed")
	}
	m.whole(t, true)
	if err := a.Apply(t.Context(), h); !errors.Is(err, harden.ErrStale) {
		t.Errorf("the plan is old: %v", err)
	}
}

// Two runs at once: one is refused.
func TestLocked(t *testing.T) {
	m := newMemory(t)
	r, other := m.recreator(), m.recreator()
	a, b := planOne(t, r), planOne(t, other)
	if err := a.Apply(t.Context(), new(host.Host)); err != nil {
		t.Fatal(err)
	}
	if err := b.Apply(t.Context(), new(host.Host)); err == nil || !strings.Contains(err.Error(), "another run") {
		t.Errorf("the second: %v", err)
	}
	if _, err := other.Recover(t.Context()); err == nil {
		t.Error("recovered what another is doing")
	}
	if err := a.Commit(t.Context(), new(host.Host)); err != nil {
		t.Fatal(err)
	}
	m.whole(t, true)
}

func TestNewContainerThatEnds(t *testing.T) {
	m := newMemory(t)
	m.Run = func(s *container.Settings) {
		if s.ReadonlyRootfs {
			s.State, s.PID = "exited", 0
		}
	}
	fixes, err := memoryFix(t.Context(), m.recreator(), "container.read_only_root")
	if err != nil || len(fixes) != 1 || fixes[0].Err == nil || !strings.Contains(fixes[0].Err.Error(), "exited") {
		t.Errorf("%+v %v", fixes, err)
	}
	m.whole(t, false)
}

// While the kill switch holds, nothing is started: not the new container, nor
// the old one in undoing.
func TestMayStart(t *testing.T) {
	m := newMemory(t)
	r := m.recreator()
	fenced := errors.New("the kill switch is engaged")
	r.MayStart = func(context.Context, string) error { return fenced }
	if err := planOne(t, r).Apply(t.Context(), new(host.Host)); !errors.Is(err, fenced) {
		t.Errorf("%v", err)
	}
	m.whole(t, false) // it had not begun

	asked := 0
	r.MayStart = func(context.Context, string) error {
		if asked++; asked > 1 {
			return fenced
		}
		return nil
	}
	if err := planOne(t, r).Apply(t.Context(), new(host.Host)); !errors.Is(err, fenced) {
		t.Errorf("%v", err)
	}
	all, err := m.Containers(t.Context(), "agent")
	if err != nil || all[0].ID != m.id || all[0].Running() || all[0].RestartPolicy != "no" {
		t.Errorf("%+v %v", all, err)
	}
	if names := m.Names(); len(names) != 1 {
		t.Errorf("%q", names)
	}
}

func TestOldContainerVanishes(t *testing.T) {
	m := newMemory(t)
	m.ctl.Before = func(_ context.Context, c containertest.Call) error {
		if c.Method == "Start" {
			for _, n := range m.Names() {
				if strings.Contains(n, "before-hardening") {
					m.Vanish(n)
				}
			}
			return errBefore
		}
		return nil
	}
	err := planOne(t, m.recreator()).Apply(t.Context(), new(host.Host))
	if err == nil || !strings.Contains(err.Error(), "somebody removed the old container") {
		t.Error(err)
	}
	all, err := m.Containers(t.Context(), "agent")
	if err != nil || all[0].Running() || !all[0].ReadonlyRootfs {
		t.Errorf("the last copy: %+v %v", all, err)
	}
}

func TestDamagedJournal(t *testing.T) {
	m := newMemory(t)
	r := m.recreator()
	a := planOne(t, r)
	m.ctl.Before = func(_ context.Context, c containertest.Call) error {
		if c.Method == "Stop" {
			panic("killed")
		}
		return nil
	}
	func() {
		defer func() { recover() }()
		_ = a.Apply(t.Context(), new(host.Host))
	}()
	m.ctl.Before = nil
	files, _ := filepath.Glob(filepath.Join(m.state, "*.json"))
	if len(files) != 1 {
		t.Fatalf("%v", files)
	}
	if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	good, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	before := m.Names()
	for _, bad := range [][]byte{good[:len(good)/2], {}, []byte(`{}`), []byte(strings.Replace(string(good), "recreate/v1", "recreate/v9", 1))} {
		if err := os.WriteFile(files[0], bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := m.recreator().Recover(t.Context())
		if err == nil || !strings.Contains(err.Error(), files[0]) || !strings.Contains(err.Error(), "nothing was changed") {
			t.Errorf("%v", err)
		}
		fixes, _ := memoryFix(t.Context(), m.recreator())
		if len(fixes) > 0 || !slices.Equal(before, m.Names()) {
			t.Errorf("changed all the same: %+v", fixes)
		}
	}
	if err := os.WriteFile(files[0], good, 0o600); err != nil {
		t.Fatal(err)
	}
	if names, err := m.recreator().Recover(t.Context()); err != nil || !slices.Equal(names, []string{"agent"}) {
		t.Errorf("%v %v", names, err)
	}
	m.whole(t, false)
}

func TestStateDirThatCannotBeWritten(t *testing.T) {
	m := newMemory(t)
	file := filepath.Join(m.state, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := m.recreator()
	a := planOne(t, r)
	r.StateDir = filepath.Join(file, "dir")
	if err := a.Apply(t.Context(), new(host.Host)); err == nil {
		t.Error("applied without a journal")
	}
	os.Remove(file)
	m.whole(t, false)
}

// A new container that runs, and is worse in something, is not kept.
func TestNewContainerThatFailsACheck(t *testing.T) {
	m := newMemory(t)
	m.Run = func(s *container.Settings) {
		if s.ReadonlyRootfs {
			s.Privileged = true
		}
	}
	fixes, err := memoryFix(t.Context(), m.recreator(), "container.read_only_root")
	if err != nil || len(fixes) != 1 || fixes[0].Err == nil || !strings.Contains(fixes[0].Err.Error(), "container.privileged was pass and is fail") {
		t.Errorf("%+v %v", fixes, err)
	}
	m.whole(t, false)
}

// A commit that fails half-way cannot be reverted, and the next run finishes it.
func TestCommitThatFails(t *testing.T) {
	m := newMemory(t)
	r := m.recreator()
	a := planOne(t, r)
	if err := a.Apply(t.Context(), new(host.Host)); err != nil {
		t.Fatal(err)
	}
	m.ctl.Before = func(_ context.Context, c containertest.Call) error {
		if c.Method == "Remove" {
			return errBefore
		}
		return nil
	}
	if err := a.Commit(t.Context(), new(host.Host)); !errors.Is(err, errBefore) {
		t.Errorf("%v", err)
	}
	m.ctl.Before = nil
	if err := a.Revert(t.Context(), new(host.Host)); err == nil {
		t.Error("reverted what was committed")
	}
	if _, err := r.Recover(t.Context()); err != nil {
		t.Error(err)
	}
	m.whole(t, true)
}

// Files that would be lost are not: the container that has them is kept.
func TestUndeclaredFilesAreKept(t *testing.T) {
	m := newMemory(t)
	m.Vanish("agent")
	m.Add(container.Settings{Name: "agent", RestartPolicy: "always", NetworkMode: "bridge"}, map[string]string{"/opt/notes": "mine", "/tmp/x": "temporary"})
	fixes, err := memoryFix(t.Context(), m.recreator(), "container.read_only_root")
	if err != nil || len(fixes) != 1 || !fixes[0].Changed || !strings.Contains(fmt.Sprint(fixes[0].Plan.Notes), "/opt/notes. The old container is kept") {
		t.Fatalf("%+v %v", fixes, err)
	}
	names := m.Names()
	if len(names) != 2 || !strings.HasPrefix(names[1], "agent-before-hardening-") {
		t.Fatalf("%q", names)
	}
	if content, _ := m.File(names[1], "/opt/notes"); content != "mine" {
		t.Error("the file is gone")
	}
	m.Restart()
	if all, err := m.Containers(t.Context()); err != nil || len(all) != 1 || all[0].Name != "agent" {
		t.Errorf("%+v %v", all, err)
	}
}

// A container that others share namespaces with is not pulled from under them.
func TestOthersJoined(t *testing.T) {
	for _, mode := range []string{"container:agent", "container:"} {
		m := newMemory(t)
		if mode == "container:" {
			mode += m.id[:12]
		}
		r := m.recreator()
		a := planOne(t, r)
		m.Add(container.Settings{Name: "cli", NetworkMode: mode}, nil)
		if err := a.Apply(t.Context(), new(host.Host)); !errors.Is(err, harden.ErrStale) {
			t.Errorf("%v", err)
		}
		fixes, err := memoryFix(t.Context(), r, "container.read_only_root")
		if err != nil || len(fixes) != 1 || fixes[0].Changed || !strings.Contains(fmt.Sprint(fixes[0].Plan.Manual), "container/cli") {
			t.Errorf("%+v %v", fixes, err)
		}
	}
}

// What was planned for another state of things is not applied.
func TestStale(t *testing.T) {
	m := newMemory(t)
	a := planOne(t, m.recreator())
	s, err := m.Containers(t.Context(), "agent")
	if err != nil {
		t.Fatal(err)
	}
	m.Vanish("agent")
	s[0].Privileged = true
	m.Add(s[0], m.files)
	if err := a.Apply(t.Context(), new(host.Host)); !errors.Is(err, harden.ErrStale) {
		t.Errorf("%v", err)
	}
	m.whole(t, false)
}
