package halt

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/harden/host"
)

// DefaultUnitTimeout is how long a service manager is waited for.
const DefaultUnitTimeout = 2 * time.Second

// KeepDown is an actuator that disarms what would start the agent again: the
// restart policies of its containers, and the systemd units that run them, or
// an OpenClaw beside them. It kills the processes of such a unit, but not those
// of a container that was made anew: that is for [Kill], which knows it too.
//
// What a restart policy was, and on which networks a container was, is kept in
// StateFile.
type KeepDown struct {
	Tracker *Tracker // Required.

	// Host is where systemd runs. Nil means that there is none: no unit is
	// looked for, and none stopped.
	Host *host.Host

	// Units are stopped besides those that Arm finds.
	Units []Unit

	// StateFile is where that is written down, on Host;
	// an absolute path in a directory that is there. Empty means that they are
	// kept in memory alone. It needs Host.
	StateFile string

	// UnitTimeout bounds each command of the service manager. Zero means
	// DefaultUnitTimeout. An agent's own time to stop may be minutes: it is
	// not waited for.
	UnitTimeout time.Duration

	mu     sync.Mutex
	found  []Unit
	former map[string]former // by id
}

// former is how a container was before it was stopped.
type former struct {
	Name     string   `json:"name"`
	Policy   string   `json:"policy"` // empty if it has none that revives
	Networks []string `json:"networks,omitempty"`
}

// Name returns "container.restarts".
func (a *KeepDown) Name() string { return "container.restarts" }

// Arm looks for containers and units, and writes down the restart policies.
func (a *KeepDown) Arm(ctx context.Context) error {
	err := a.Tracker.Arm(ctx)
	if a.Tracker.Engine == nil {
		err = errors.Join(err, errors.New("halt: there is no engine to switch restart policies off: set Tracker.Engine"))
	}
	var unitErr error
	if a.Host != nil {
		var found []Unit
		found, unitErr = FindUnits(&a.Host.View, a.Tracker.Agent)
		a.mu.Lock()
		a.found = found
		a.mu.Unlock()
	}
	return errors.Join(err, unitErr, a.load(), a.save())
}

// Do switches restart policies off, and stops and disables units. It returns
// when the engine has answered and has written down that they are off; what the
// engine takes back, since the container ended meanwhile, is done again.
func (a *KeepDown) Do(ctx context.Context) error {
	if err := errors.Join(a.Tracker.Agent.none(), supported()); err != nil {
		return err
	}
	var l ledger
	var wg sync.WaitGroup
	wg.Go(func() { a.policies(ctx, &l) })
	for _, u := range a.units() {
		wg.Go(func() { a.stop(ctx, u, &l) })
	}
	wg.Wait()
	return errors.Join(l.err("keep down"), a.save()) // last: a disk that hangs delays nothing
}

func (a *KeepDown) policies(ctx context.Context, l *ledger) {
	if !a.Tracker.isRemote() {
		_ = a.Tracker.readDisk() // what it tells beyond what is known is a gain
	}
	each(a.Tracker.list(), func(k *tracked) {
		c := k.info()
		a.remember(c)
		if a.Tracker.Engine == nil {
			if revives(c.RestartPolicy) {
				l.add(c.Object(), fmt.Sprintf("its restart policy is %q, and there is no engine to change it: docker update --restart=no %s", c.RestartPolicy, c.Name))
			}
			return
		}
		if err := a.Tracker.policyOff(ctx, k); err != nil {
			l.add(c.Object(), fmt.Sprintf("its restart policy is still %q: %v", k.policy.last(), err))
		}
	})
}

// remember keeps what a container has that the kill takes away: its restart policy,
// and its networks, which the engine disconnects where the kernel's own way does
// not do.
func (a *KeepDown) remember(c Container) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f, known := a.former[c.ID]
	f.Name = c.Name
	if revives(c.RestartPolicy) { // "no" may be what has been made of it
		f.Policy = c.RestartPolicy
	}
	if !c.Running { // so may be what it is on now
		f.Networks = append(f.Networks, c.Networks...)
	} else if len(c.Networks) > 0 {
		f.Networks = slices.Clone(c.Networks)
	}
	slices.Sort(f.Networks)
	f.Networks = slices.Compact(f.Networks)
	if !known && f.Policy == "" && len(f.Networks) == 0 {
		return
	}
	if a.former == nil {
		a.former = make(map[string]former)
	}
	a.former[c.ID] = f
}

// load reads what another process has written down. What this one has seen
// since is newer.
func (a *KeepDown) load() error {
	if a.StateFile == "" || a.Host == nil {
		return nil
	}
	data, err := a.Host.ReadFile(a.StateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var stored map[string]former
	if err == nil {
		err = json.Unmarshal(data, &stored)
	}
	if err != nil {
		return fmt.Errorf("halt: former restart policies: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, p := range stored {
		if _, newer := a.former[id]; !newer {
			if a.former == nil {
				a.former = make(map[string]former)
			}
			a.former[id] = p
		}
	}
	return nil
}

// save writes down what containers have or had.
func (a *KeepDown) save() error {
	for _, k := range a.Tracker.list() {
		a.remember(k.info())
	}
	if a.StateFile == "" || a.Host == nil {
		return nil
	}
	a.mu.Lock()
	data, err := json.MarshalIndent(a.former, "", "\t")
	a.mu.Unlock()
	if err != nil {
		return fmt.Errorf("halt: former restart policies: %w", err)
	}
	if old, err := a.Host.ReadFile(a.StateFile); err == nil && string(old) == string(data) {
		return nil
	}
	if err := a.Host.WriteFile(a.StateFile, data, 0o600); err != nil {
		return fmt.Errorf("halt: former restart policies: %w", err)
	}
	return nil
}

// Release lets units be started again, and starts none. Policies stay off,
// since the engine would act on them when it is started next, and units
// disabled: see [KeepDown.Former].
func (a *KeepDown) Release(ctx context.Context) error {
	var l ledger
	for _, u := range a.units() {
		state, err := u.state(ctx, a.Host.Change, a.timeout())
		switch {
		case err != nil:
			l.add(u.Object(), err.Error())
		case state.barred():
			if err := u.unbar(ctx, a.Host.Change, a.timeout()); err != nil {
				l.add(u.Object(), err.Error())
			}
		}
	}
	return l.err("release")
}

// Former returns, by object, what would start the agent again before
// [KeepDown.Do], and which networks it was on that it is on no more, with the
// commands that have it be so again. It is for people: nothing of it is done.
func (a *KeepDown) Former() (map[string]string, error) {
	err := a.load()
	on := make(map[string][]string)
	for _, k := range a.Tracker.list() {
		c := k.info()
		on[c.ID] = c.Networks
	}
	all := make(map[string]string)
	for _, u := range a.units() {
		all[u.Object()] = "it was enabled: systemctl enable " + strings.Join(append(u.manager(), u.Name), " ")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, f := range a.former {
		name := cmp.Or(f.Name, short(id))
		var said []string
		if f.Policy != "" {
			said = append(said, fmt.Sprintf("its restart policy was %s: docker update --restart=%s %s", f.Policy, f.Policy, name))
		}
		for _, n := range f.Networks {
			if now, there := on[id]; there && !slices.Contains(now, n) {
				said = append(said, fmt.Sprintf("it was on network %s: docker network connect %s %s", n, n, name))
			}
		}
		if len(said) > 0 {
			all[who{id: id, name: f.Name}.object()] = strings.Join(said, "; ")
		}
	}
	return all, err
}

func (a *KeepDown) timeout() time.Duration { return cmp.Or(a.UnitTimeout, DefaultUnitTimeout) }

// units returns the units to stop, none of them twice.
func (a *KeepDown) units() []Unit {
	if a.Host == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	seen := make(map[Unit]bool)
	var all []Unit
	for _, list := range [][]Unit{a.Units, a.found} {
		for _, u := range list {
			if !seen[u] {
				seen[u] = true
				all = append(all, u)
			}
		}
	}
	return all
}

// stop stops a unit for good. To be stopped comes first, so that its end is not
// taken for a failure that it is to be restarted after; the bar keeps others
// from starting it until the machine is, and that it is disabled from then on.
func (a *KeepDown) stop(ctx context.Context, u Unit, l *ledger) {
	state, err := u.state(ctx, a.Host.Change, a.timeout())
	if err != nil {
		l.add(u.Object(), err.Error())
		return
	}
	if state.absent() || state.down() {
		return
	}
	for _, args := range [][]string{{"stop", "--no-block"}, {"kill", "--signal=SIGKILL"}, {"disable"}} {
		err := u.systemctl(ctx, a.Host.Change, a.timeout(), args...)
		if args[0] == "kill" && err != nil && ctx.Err() == nil {
			continue // it has no process
		}
		if err != nil {
			l.add(u.Object(), err.Error())
		}
	}
	if err := u.bar(ctx, a.Host.Change, a.timeout()); err != nil {
		l.add(u.Object(), err.Error())
	}
}
