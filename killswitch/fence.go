package killswitch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A Fence says which agents are stopped: by a file for each in a directory,
// which outlasts the process and the machine. Whatever starts an agent, or
// acts for it, asks the fence first. It holds an agent unless it knows that the
// agent may run: a record that is damaged or cannot be read holds, and so does
// a directory that is not there. A file of an agent's name holds it whatever is
// in it.
//
// Any number of processes may use the directory at once, and a Fence may be
// used concurrently. Make one with [OpenFence]. Parts of one process should
// share one, because what cannot be written is kept in it.
type Fence struct {
	dir  string
	disk disk

	writing sync.Mutex // one change at a time; held while the disk works

	mu  sync.Mutex
	mem map[string]FenceState // what this process has engaged; epoch 0 until it is known
}

// OpenFence returns the fence in a directory, which is made if it is not
// there, so that agents that were never stopped may run.
func OpenFence(dir string) (*Fence, error) {
	f := newFence(dir, disk{})
	if err := f.disk.mkdir(dir); err != nil {
		return nil, fmt.Errorf("killswitch: open the fence: %w (name another directory, or make this one)", err)
	}
	sweep(dir)
	return f, nil
}

func newFence(dir string, d disk) *Fence {
	return &Fence{dir: dir, disk: d, mem: make(map[string]FenceState)}
}

func (f *Fence) file(agent string) string { return filepath.Join(f.dir, agent) }

// Fenced returns nil if the agent is known not to be stopped, and otherwise an
// error wrapping [ErrEngaged] that says why it is, or why nobody can tell. It
// reads a small file, and does not wait for whoever writes it.
func (f *Fence) Fenced(_ context.Context, agent string) error {
	s, err := f.State(agent)
	switch {
	case errors.Is(err, ErrAgent):
		return fmt.Errorf("%w: %w", ErrEngaged, err)
	case err != nil:
		return fmt.Errorf("%w: %s: it cannot be read, and so it holds: %w", ErrEngaged, agent, err)
	case s.Engaged():
		return fmt.Errorf("%w: %s was stopped at %s (epoch %d): it may run again after a reset", ErrEngaged, agent, s.Time.Format(time.RFC3339), s.Epoch)
	}
	return nil
}

// State returns what the fence holds of an agent. An agent that was never
// stopped is released, with epoch 0. If the state cannot be read there is an
// error, and the state is engaged.
func (f *Fence) State(agent string) (FenceState, error) {
	if !isAgent(agent) {
		return FenceState{Agent: bounded(agent, maxName)}, fmt.Errorf("%w: %q: use letters, digits, dots, dashes and underscores", ErrAgent, bounded(agent, maxName))
	}
	s, err := f.read(agent)
	f.mu.Lock()
	defer f.mu.Unlock()
	mem, held := f.mem[agent]
	switch {
	case !held:
	case err == nil && s.Released && mem.Epoch > 0 && s.Epoch >= mem.Epoch:
		// It was released since, perhaps by another process.
		delete(f.mem, agent)
	case err != nil || s.Released || s.Epoch < mem.Epoch:
		return mem, nil
	}
	return s, err
}

// read returns what is on disk.
func (f *Fence) read(agent string) (FenceState, error) {
	held := FenceState{Agent: agent}
	info, err := os.Lstat(f.file(agent))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// That there is no file says something only where there could be one.
		if dir, err := os.Stat(f.dir); err != nil {
			return held, err
		} else if !dir.IsDir() {
			return held, &fs.PathError{Op: "read", Path: f.dir, Err: errors.New("not a directory")}
		}
		return FenceState{Agent: agent, Released: true}, nil
	case err != nil:
		return held, err
	case !info.Mode().IsRegular() || info.Size() > maxFence:
		return held, fmt.Errorf("%w: %s is no file of ours", ErrDamaged, f.file(agent))
	}
	data, err := readFile(f.file(agent))
	if err != nil {
		return held, err // also if it has just gone: nothing of ours removes one
	}
	s, err := ParseFenceState(data)
	if err == nil && s.Agent != agent {
		err = fmt.Errorf("%w: it is that of %s", ErrDamaged, s.Agent)
	}
	if err != nil {
		return held, fmt.Errorf("%w (%s)", err, f.file(agent))
	}
	return s, nil
}

// Engage stops an agent from being started until it is reset, and returns the
// epoch. For an agent that is stopped already, that is the epoch it has.
//
// Once Engage has returned nil the fence holds also over a loss of power. If
// it cannot be made durable, or ctx ends before it is, the error wraps
// [ErrNotDurable]: the agent is then held as long as this Fence lives. Only
// what is not the name of an agent is not held; see [Fence.State].
func (f *Fence) Engage(ctx context.Context, agent, reason string) (epoch uint64, err error) {
	s, err := f.engage(ctx, FenceState{Agent: agent, Reason: reason, Time: time.Now()}, func() uint64 { return 0 })
	return s.Epoch, err
}

// engage is Engage for an agent whose last epoch is known to be at least what
// floor returns.
func (f *Fence) engage(ctx context.Context, want FenceState, floor func() uint64) (FenceState, error) {
	if !isAgent(want.Agent) {
		return FenceState{}, fmt.Errorf("killswitch: engage: %w: %q", ErrAgent, bounded(want.Agent, maxName))
	}
	want.Released, want.Epoch = false, 0
	want.Reason = foreign(want.Reason, maxReason)
	want.Time = want.Time.UTC().Round(0)

	// From here on nothing that asks this Fence starts the agent.
	f.mu.Lock()
	if _, held := f.mem[want.Agent]; !held {
		f.mem[want.Agent] = want
	}
	f.mu.Unlock()

	type result struct {
		state FenceState
		err   error
	}
	done := make(chan result, 1) // buffered: a disk that hangs may still come to an end
	go func() {
		s, err := f.write(ctx, want, floor)
		done <- result{s, err}
	}()
	var err error
	select {
	case r := <-done:
		if r.err == nil {
			return r.state, nil
		}
		if err = r.err; r.state.Epoch != 0 {
			return r.state, fmt.Errorf("%w: the fence of %s: %w", ErrNotDurable, want.Agent, err)
		}
	case <-ctx.Done():
		err = fmt.Errorf("the disk does not answer: %w", context.Cause(ctx))
	}
	return f.provisional(want), fmt.Errorf("%w: the fence of %s: %w", ErrNotDurable, want.Agent, err)
}

// provisional gives an agent an epoch that nothing but this process knows.
func (f *Fence) provisional(want FenceState) FenceState {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s, held := f.mem[want.Agent]; held && s.Epoch > 0 {
		return s
	}
	want.Epoch = unknownEpoch(want.Time, 0) // nothing more is asked of this disk
	f.mem[want.Agent] = want
	return want
}

// unknownEpoch returns an epoch for an agent whose last one cannot be read. It
// is of the clock, in milliseconds, and so larger than any count, and than the
// last one that was made in this way.
func unknownEpoch(now time.Time, floor uint64) uint64 {
	return max(floor+1, uint64(max(now.UnixMilli(), 1)))
}

// write engages the fence on disk.
func (f *Fence) write(ctx context.Context, want FenceState, floor func() uint64) (FenceState, error) {
	f.writing.Lock()
	defer f.writing.Unlock()
	unlock, alone := f.lock(ctx)
	defer unlock()

	old, err := f.read(want.Agent)
	if err == nil && old.Engaged() {
		// Whoever wrote it may not have come to make it durable.
		f.hold(old)
		return old, errors.Join(f.disk.sync(f.file(want.Agent)), f.disk.syncDir(f.dir))
	}
	lets := err == nil // a record that lets the agent run, or none
	want = f.next(want, old, err, floor)
	data, err := want.encode()
	if err != nil {
		return want, err
	}
	if alone && lets {
		// What is left of the record when this is cut off is damaged, and holds.
		if f.disk.overwrite(f.file(want.Agent), data) == nil {
			return want, nil
		}
	}
	if err := f.disk.replace(f.file(want.Agent), data); err != nil {
		return want, errors.Join(err, f.mark(want.Agent))
	}
	return want, nil
}

// prepare makes a record that lets an agent run which never was stopped, so that
// to stop it costs no more than to write over it.
func (f *Fence) prepare(ctx context.Context, agent string) error {
	f.writing.Lock()
	defer f.writing.Unlock()
	unlock, alone := f.lock(ctx)
	defer unlock()
	if _, err := os.Lstat(f.file(agent)); !alone || !errors.Is(err, fs.ErrNotExist) {
		return nil // it is there, or nobody can tell
	}
	if f.remembers(agent) {
		return nil
	}
	data, err := FenceState{Agent: agent, Released: true, Reason: "it was never stopped", Time: time.Now()}.encode()
	if err == nil {
		err = f.disk.create(f.file(agent), data)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("killswitch: prepare the fence of %s: %w", agent, err)
	}
	return nil
}

// remembers reports whether this process holds the agent.
func (f *Fence) remembers(agent string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, held := f.mem[agent]
	return held
}

// next gives a kill its epoch, where old and err are what is on disk.
func (f *Fence) next(want, old FenceState, err error, floor func() uint64) FenceState {
	least := floor()
	f.mu.Lock()
	defer f.mu.Unlock()
	switch mem := f.mem[want.Agent]; {
	case mem.Epoch > old.Epoch:
		want = mem // what could not be written before
	case err == nil:
		want.Epoch = max(old.Epoch, least) + 1
	case errors.Is(err, fs.ErrNotExist): // not even a directory
		want.Epoch = least + 1
	default:
		want.Epoch = unknownEpoch(want.Time, least)
	}
	f.mem[want.Agent] = want
	return want
}

func (f *Fence) hold(s FenceState) {
	f.mu.Lock()
	f.mem[s.Agent] = s
	f.mu.Unlock()
}

// lock keeps other processes from writing. One that cannot be had is done
// without: at worst, two kills at the same moment then count as one, or as two.
func (f *Fence) lock(ctx context.Context) (unlock func(), alone bool) {
	if err := f.disk.before("lock", f.dir); err != nil {
		return func() {}, false
	}
	lock, err := lockFile(ctx, filepath.Join(f.dir, ".lock"))
	if err != nil {
		return func() {}, false
	}
	return func() { _ = lock.Close() }, true
}

// mark does what may still work on a disk that is full: it makes an empty file,
// or empties the one there is. The fence then holds, and only forgets its epoch.
func (f *Fence) mark(agent string) error {
	if err := f.disk.before("mark", f.file(agent)); err != nil {
		return err
	}
	file, err := os.OpenFile(f.file(agent), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close(), f.disk.syncDir(f.dir))
}

// release lets an agent run that was stopped in the given epoch.
func (f *Fence) release(ctx context.Context, agent string, epoch uint64, reason string) error {
	f.writing.Lock()
	defer f.writing.Unlock()
	lock, err := lockFile(ctx, filepath.Join(f.dir, ".lock"))
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("killswitch: release the fence of %s: %w", agent, err)
	}
	if lock != nil {
		defer lock.Close()
	}
	s, err := f.State(agent)
	switch {
	case err != nil:
		return fmt.Errorf("killswitch: release the fence of %s: %w", agent, err)
	case s.Released:
		return fmt.Errorf("%w: %s", ErrNotEngaged, agent)
	case s.Epoch != epoch:
		return fmt.Errorf("%w: %s is stopped in epoch %d, and not %d", ErrEpoch, agent, s.Epoch, epoch)
	}
	data, err := FenceState{Agent: agent, Epoch: epoch, Released: true, Reason: foreign(reason, maxReason), Time: time.Now()}.encode()
	if err == nil {
		if err = f.disk.replace(f.file(agent), data); err != nil {
			// It may be in place, and not durable: that is not released.
			f.hold(s)
			back, e := s.encode()
			err = errors.Join(err, e, f.disk.replace(f.file(agent), back))
		}
	}
	if err != nil {
		return fmt.Errorf("killswitch: release the fence of %s: %w", agent, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.mem, agent)
	return nil
}

// usable returns why the fence could not be engaged durably now.
func (f *Fence) usable() error {
	probe, err := os.CreateTemp(f.dir, ".probe"+tempMark+"*")
	if err != nil {
		return err
	}
	_, err = probe.WriteString("probe")
	return errors.Join(err, probe.Sync(), probe.Close(), os.Remove(probe.Name()))
}
