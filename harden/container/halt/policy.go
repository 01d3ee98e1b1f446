package halt

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/harden/container"
)

// updateTimeout bounds the wait for the answer of an engine that says nothing.
const updateTimeout = 30 * time.Second

// settled is how old the record of a policy must be that somebody else has
// changed: an engine writes a change down before it carries it out, which takes
// a program of its own and some 20 ms, and takes it back if that fails.
const settled = 200 * time.Millisecond

// A policy is what is known of a container's restart policy, and of the change
// of it that is under way. The zero policy is not known to start anything.
type policy struct {
	mu     sync.Mutex
	doubt  bool   // it was seen to revive, and is not known to have been switched off since
	was    string // what was seen then
	off    bool   // it was switched off here
	flight *update
}

// An update is a request to an engine to forget a restart policy. It goes on
// until the engine has answered, whoever waits for it: the engine goes on too
// when nobody does, and if the container ends meanwhile, it has the policy back
// that was there when it began, whatever other changes were made since. So there
// is one at a time, and no word on the policy while there is.
type update struct {
	done   chan struct{}
	err    error // once done
	cancel context.CancelFunc
}

// policyOff has the engine forget the restart policy, again until it has, which
// is when it has said so and has it written down, or until ctx ends. An engine
// refuses while the container is just ending.
func (t *Tracker) policyOff(ctx context.Context, k *tracked) error {
	const least, most = 5 * time.Millisecond, 50 * time.Millisecond
	written, age, last := t.policyOf(ctx, k)
	if last == nil && !revives(written) && age < settled && !k.policy.known() {
		if last = sleep(ctx, settled-age); last == nil {
			written, _, last = t.policyOf(ctx, k)
		}
	}
	switch {
	case notThere(last):
		return nil
	case last != nil || revives(written):
		k.policy.suspect(written)
	}
	for wait := least; ; wait = min(2*wait, most) {
		u := k.policy.update(ctx, t.Engine, k.info().ID)
		if u == nil {
			return nil
		}
		select {
		case <-u.done:
			if last = t.ended(ctx, k, u); last == nil {
				return nil
			}
		case <-ctx.Done():
			return cmp.Or(last, context.Cause(ctx))
		}
		if sleep(ctx, wait) != nil {
			return last
		}
	}
}

// sleep waits, but not after ctx is done.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ended says what came of an update, by what is written down.
func (t *Tracker) ended(ctx context.Context, k *tracked, u *update) error {
	if notThere(u.err) {
		k.switchedOff()
		return nil
	}
	if u.err != nil {
		return u.err
	}
	written, _, err := t.policyOf(ctx, k)
	switch {
	case notThere(err):
	case err != nil:
		return err
	case revives(written):
		return fmt.Errorf("halt: the engine has taken its change back, and has %q again", written)
	}
	k.switchedOff()
	return nil
}

// update returns the update that is under way, which is begun if there is need
// of one; otherwise nil.
func (p *policy) update(ctx context.Context, engine Engine, id string) *update {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.flight != nil {
		return p.flight
	}
	if !p.doubt {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), updateTimeout)
	u := &update{done: make(chan struct{}), cancel: cancel}
	p.flight = u
	go func() {
		defer cancel()
		u.err = engine.SetRestartPolicy(ctx, id, "no")
		p.mu.Lock()
		p.flight = nil
		p.mu.Unlock()
		close(u.done)
	}()
	return u
}

// suspect notes a policy that revives, or that cannot be seen.
func (p *policy) suspect(policy string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doubt, p.was = true, cmp.Or(policy, p.was)
}

// last returns the policy that was seen to revive last.
func (p *policy) last() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.was
}

// known reports whether it has been switched off here, or is being so.
func (p *policy) known() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.off || p.doubt || p.flight != nil
}

// pending reports whether an update has not been answered.
func (p *policy) pending() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.flight != nil
}

// abandon waits for no answer any more.
func (p *policy) abandon() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.flight != nil {
		p.flight.cancel()
	}
}

// setPolicy notes the policy that was seen. k.mu is held.
func (k *tracked) setPolicy(policy string) {
	k.c.RestartPolicy = policy
	if revives(policy) {
		k.policy.suspect(policy)
	}
}

// switchedOff notes that it is off for certain.
func (k *tracked) switchedOff() {
	k.policy.mu.Lock()
	k.policy.doubt, k.policy.off = false, true
	k.policy.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.c.RestartPolicy = "no"
}

// mayRevive reports whether the engine may start the container by itself, as far
// as is known.
func (k *tracked) mayRevive() bool {
	c := k.info()
	k.policy.mu.Lock()
	defer k.policy.mu.Unlock()
	return k.policy.doubt || k.policy.flight != nil || revives(c.RestartPolicy)
}

// policyOf returns the restart policy as the engine has written it down, and how
// long ago; or, where that cannot be seen, as the engine says.
func (t *Tracker) policyOf(ctx context.Context, k *tracked) (written string, age time.Duration, err error) {
	k.mu.Lock()
	id, onDisk := k.c.ID, k.onDisk
	k.mu.Unlock()
	if !t.isRemote() {
		written, age, err := readPolicy(filepath.Join(t.dataRoot(), "containers", id, "hostconfig.json"))
		switch {
		case !errors.Is(err, fs.ErrNotExist):
			return written, age, err
		case onDisk:
			return "", 0, fmt.Errorf("halt: %w: %s", container.ErrNoContainer, short(id))
		}
	}
	if t.Engine == nil {
		return k.info().RestartPolicy, settled, nil
	}
	settings, err := t.Engine.Containers(ctx, id)
	if err != nil {
		return "", 0, err
	}
	for _, s := range settings {
		if s.ID == id {
			return s.RestartPolicy, settled, nil
		}
	}
	return "", 0, fmt.Errorf("halt: %w: %s", container.ErrNoContainer, short(id))
}

// readPolicy returns the policy in a hostconfig.json, and how old that is.
func readPolicy(name string) (string, time.Duration, error) {
	data, err := readBounded(name)
	if err != nil {
		return "", 0, err
	}
	info, err := os.Stat(name) // if it was replaced meanwhile, what was read is the older
	if err != nil {
		return "", 0, err
	}
	var h struct{ RestartPolicy struct{ Name string } }
	if err := json.Unmarshal(data, &h); err != nil {
		return "", 0, fmt.Errorf("halt: %s: %w", name, err)
	}
	return h.RestartPolicy.Name, time.Since(info.ModTime()), nil
}
