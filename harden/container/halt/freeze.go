package halt

import (
	"context"
	"errors"
	"io/fs"
	"syscall"
	"time"
)

// Freeze is an actuator that has the kernel freeze the agent's containers, by
// a write to their cgroups: it asks no engine, and takes no longer while one
// hangs. In version 2 a frozen process can be killed; in version 1 it dies when
// it is thawed, which [Kill] does.
//
// It leaves alone what [Kill] is killing. Processes that have left the
// container's cgroup are not frozen; see [Frozen].
type Freeze struct {
	Tracker *Tracker // Required.
}

// Name returns "container.freeze".
func (f *Freeze) Name() string { return "container.freeze" }

// Arm opens the cgroups of the containers; see [Tracker.Arm].
func (f *Freeze) Arm(ctx context.Context) error { return f.Tracker.Arm(ctx) }

// Do freezes all of the agent's containers: first those that are known, then
// those that came since.
func (f *Freeze) Do(ctx context.Context) error {
	if err := errors.Join(f.Tracker.Agent.none(), supported()); err != nil {
		return err
	}
	done := make(map[*tracked]bool)
	for _, k := range f.Tracker.list() {
		done[k] = k.freeze() == nil
	}
	_, err := within(ctx, func() (none, error) {
		var l ledger
		lookErr := f.Tracker.relook(ctx)
		for _, k := range f.Tracker.list() {
			if c := k.info(); !done[k] || !k.frozenOrGone() {
				if err := k.freeze(); err != nil {
					l.add(c.Object(), err.Error())
				}
			}
		}
		return none{}, errors.Join(l.err("freeze"), lookErr)
	})
	return err
}

type none = struct{}

// Release thaws nothing: a process that is frozen would go on. It is an error
// while there is one.
func (f *Freeze) Release(context.Context) error {
	var l ledger
	for _, k := range f.Tracker.list() {
		c := k.info()
		for _, g := range k.groups() {
			if pids := g.pidsNow(); len(pids) > 0 && g.frozen() {
				l.add(c.Object(), "it is frozen and alive: kill it, or thaw it by hand: "+g.freeze.Name())
			}
		}
	}
	return l.err("release")
}

// askTimeout bounds the wait for an engine by one who knows nothing yet.
const askTimeout = time.Second

// relook learns what is there now. The engine is asked only if nobody else
// knows of anything, as before the first Arm.
func (t *Tracker) relook(ctx context.Context) error {
	if t.isRemote() {
		return errRemote // what is here is not its
	}
	err := t.readDisk()
	if errors.Is(err, fs.ErrNotExist) && len(t.list()) > 0 {
		err = nil
	}
	if len(t.list()) == 0 && t.Engine != nil {
		asking, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		if askErr := t.askEngine(asking); askErr == nil {
			err = t.readDisk() // the engine has said where
		} else {
			err = errors.Join(err, askErr)
		}
	}
	return errors.Join(err, t.open(ctx), t.roll.unmet(t.Agent))
}

// groups returns the cgroups that are open.
func (k *tracked) groups() []*cgroup {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []*cgroup
	for _, g := range []*cgroup{k.v2, k.v1} {
		if g != nil {
			all = append(all, g)
		}
	}
	return all
}

// freeze freezes the container in one hierarchy: version 2 if it can, for what
// is frozen there can be killed. A container without processes is frozen.
func (k *tracked) freeze() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.killing > 0 {
		return nil
	}
	return k.freezeLocked()
}

func (k *tracked) freezeLocked() error {
	var errs []error
	for _, g := range []*cgroup{k.v2, k.v1} {
		if g == nil {
			continue
		}
		err := g.setFrozen(true)
		if err == nil {
			return nil
		}
		if !gone(err) {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 && k.c.PID != 0 && alive(k.c.PID, k.c.ID) {
		return errors.New("it runs, and in no cgroup of its own: the kernel cannot freeze it alone")
	}
	return errors.Join(errs...)
}

// frozenOrGone reports whether the kernel was told, and the cgroup that was
// told is still that of the container.
func (k *tracked) frozenOrGone() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.killing > 0 || k.v2.current() || k.v2 == nil && k.v1.current()
}

// gone reports whether an error says that what it was about has ended.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.ENODEV)
}
