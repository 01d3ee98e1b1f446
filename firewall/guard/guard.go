package guard

import (
	"context"
	"crypto/rand"
	_ "embed" // the script
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/firewall"
)

// A Guard undoes changes that nobody confirms. Set the fields before any method is called.
// Its methods may be called concurrently, also by several processes with the same
// directory; one change at a time can be guarded.
type Guard struct {
	// Dir is where the state is: an absolute path of a directory that only
	// root can enter, on a disk, so that it outlives a crash of the machine.
	// It is made if it is not there.
	Dir string

	// Run runs the programs that look at the machine and change it. They see
	// the same Dir and the same processes as this program does.
	// [firewall.Programs] are those of this machine.
	Run firewall.Runner

	// Window is how long a change may remain unconfirmed, counted from when
	// the watchdog starts, so that the change itself is part of it. Zero means
	// DefaultWindow.
	Window time.Duration

	// Launch is how the watchdog is started.
	Launch Launch
}

// DefaultWindow is enough to log in anew.
const DefaultWindow = time.Minute

const (
	minWindow    = time.Second
	startTimeout = 10 * time.Second // for the watchdog to say that it runs
	retries      = 60               // rounds of a step that fails, a second apart
	settleRounds = 3                // looks after a rollback, a second apart
)

// Launch is a way of starting a process that outlives the one that starts it.
type Launch int

const (
	// LaunchAuto is LaunchSystemd where systemd is the machine's first
	// process, and LaunchDetached elsewhere.
	LaunchAuto Launch = iota
	// LaunchSystemd starts a transient service. It is in no session and in
	// nobody's cgroup, so that neither a logout nor the end of the service
	// that makes the change ends it.
	LaunchSystemd
	// LaunchDetached starts a process in a session of its own. Where systemd
	// runs, it may end with the session or service that started it.
	LaunchDetached
)

// Errors that a caller can act on.
var (
	// ErrPending: another change is armed, or was rolled back in part.
	ErrPending = errors.New("guard: another change is guarded")
	// ErrNotArmed: there is no such change.
	ErrNotArmed = errors.New("guard: no such change is guarded")
	// ErrNotApplied: Applied has not been called, so that the change may be
	// half made.
	ErrNotApplied = errors.New("guard: the change has not been reported as made")
	// ErrRolledBack: it is too late to confirm the change.
	ErrRolledBack = errors.New("guard: the change has been rolled back, or is being")
	// ErrNotGuarded: the watchdog does not run, and nobody would undo the
	// change. [Guard.Rollback] does.
	ErrNotGuarded = errors.New("guard: the watchdog does not run")
)

// An Armed is a change that is guarded.
type Armed struct {
	ID     string
	Window time.Duration // what is left of it
	PID    int           // of the watchdog
}

// record is what Arm writes of a change.
type record struct {
	Change  Change    `json:"change"`
	Armed   time.Time `json:"armed"`
	Boot    string    `json:"boot"`
	Window  int64     `json:"window_ns"`
	Armer   process   `json:"armer"`
	Sockets []flow    `json:"sockets"`
}

const (
	currentLink  = "current"
	recordFile   = "change.json"
	appliedFile  = "applied.json"
	scriptFile   = "guard.sh"
	runningFile  = "running"
	decisionFile = "decision"
	outcomeFile  = "outcome"
	failedFile   = "failed"
	rollbackFile = "rollback"
)

const confirmedWord = "confirmed"

//go:embed guard.sh
var script string

func (g *Guard) window() time.Duration {
	if g.Window == 0 {
		return DefaultWindow
	}
	return g.Window
}

// Arm saves what c touches and starts the watchdog. When it returns without an
// error, the watchdog runs, and will undo what is changed from now on unless
// that is confirmed. If it returns an error, nothing is guarded, and the change
// must not be made; that is [ErrPending] while another is guarded.
func (g *Guard) Arm(ctx context.Context, c Change) (_ *Armed, err error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if g.window() < minWindow {
		return nil, fmt.Errorf("guard: a window of %v is too short: give it a minute", g.window())
	}
	if err := g.makeDir(); err != nil {
		return nil, err
	}
	id, err := g.claim(ctx)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(g.Dir, id)
	defer func() {
		if err == nil {
			return
		}
		// A watchdog that has started after all finds that all is decided.
		err = errors.Join(err, g.discard(ctx, dir))
	}()
	if err := g.save(ctx, dir, c); err != nil {
		return nil, err
	}
	if err := g.launch(ctx, id, "watch"); err != nil {
		return nil, err
	}
	run, err := g.await(ctx, dir)
	if err != nil {
		return nil, err
	}
	left, err := g.left(ctx, run)
	if err != nil {
		return nil, err
	}
	return &Armed{ID: id, Window: left, PID: run.PID}, nil
}

// makeDir makes sure that nobody but root could have put anything there: the
// script in it is run by root.
func (g *Guard) makeDir() error {
	if !filepath.IsAbs(g.Dir) {
		return fmt.Errorf("guard: directory %q: give an absolute path", g.Dir)
	}
	if err := os.MkdirAll(g.Dir, 0o700); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	info, err := os.Lstat(g.Dir)
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 || !ownedByUs(info) {
		return fmt.Errorf("guard: %s must be a directory that belongs to root and that nobody else can enter (chmod 700): %w", g.Dir, fs.ErrPermission)
	}
	return nil
}

// claim makes a directory and makes it the current one.
func (g *Guard) claim(ctx context.Context) (id string, err error) {
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails
	id = time.Now().UTC().Format("20060102-150405-") + hex.EncodeToString(random[:])
	dir := filepath.Join(g.Dir, id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("guard: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(dir) // it is empty but for the name of this process
		}
	}()
	boot, err := g.bootID(ctx)
	if err != nil {
		return "", err
	}
	self, err := g.self(ctx)
	if err != nil {
		return "", err
	}
	if err := writeJSON(filepath.Join(dir, recordFile), record{Armed: time.Now().UTC(), Boot: boot, Armer: self}); err != nil {
		return "", err
	}
	for range 2 {
		err := os.Symlink(id, filepath.Join(g.Dir, currentLink))
		if err == nil {
			g.forget(ctx)
			return id, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("guard: %w", err)
		}
		st, err := g.Status(ctx)
		if errors.Is(err, ErrNotArmed) {
			continue // gone meanwhile
		}
		if err != nil {
			return "", err
		}
		if st.State != StateStale && st.State != StateConfirmed {
			return "", fmt.Errorf("%w: %v", ErrPending, st)
		}
		// Left by one that was killed before it had started a watchdog, and
		// so before it changed anything; or after all was confirmed.
		if err := g.discard(ctx, filepath.Join(g.Dir, st.ID)); err != nil {
			return "", err
		}
	}
	return "", ErrPending
}

// discard removes a directory and the link to it, once a watchdog that may be
// running there has seen that there is nothing to do. It waits for that, and not long.
func (g *Guard) discard(ctx context.Context, dir string) error {
	ctx = context.WithoutCancel(ctx) // what failed may have failed because ctx has ended
	_ = decide(dir, confirmedWord+": discarded\n")
	if run, err := readRunning(dir); err == nil {
		for range 150 {
			if alive, err := g.alive(ctx, run.process); err != nil || !alive {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	if err := g.release(dir); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	return nil
}

// release removes the link to a directory, so that another change can be armed.
func (g *Guard) release(dir string) error {
	current := filepath.Join(g.Dir, currentLink)
	if to, err := os.Readlink(current); err == nil && to == filepath.Base(dir) {
		if err := os.Remove(current); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("guard: %w", err)
		}
	}
	return nil
}

// forget removes what is remembered of changes that were confirmed.
func (g *Guard) forget(ctx context.Context) {
	all, err := g.List(ctx)
	if err != nil {
		return
	}
	for _, st := range all {
		if st.State == StateConfirmed {
			_ = g.discard(ctx, filepath.Join(g.Dir, st.ID))
		}
	}
}

// launch starts the script in mode. It returns at once.
func (g *Guard) launch(ctx context.Context, id, mode string) error {
	path := filepath.Join(g.Dir, id, scriptFile)
	how := g.Launch
	if how == LaunchAuto {
		how = LaunchDetached
		// The test of sd_booted(3).
		if _, err := g.Run.Run(ctx, nil, "test", "-d", "/run/systemd/system"); err == nil {
			how = LaunchSystemd
		}
	}
	var err error
	if how == LaunchSystemd {
		_, err = g.Run.Run(ctx, nil, "systemd-run", "--quiet", "--collect", "--unit=hardshell-guard-"+id+"-"+mode,
			"--description=hardshell: undo an unconfirmed change of the firewall", "--property=TimeoutStopSec=90",
			"/bin/sh", path, mode)
	} else {
		_, err = g.Run.Run(ctx, nil, "sh", "-c", `exec setsid -f /bin/sh "$1" "$2" </dev/null >/dev/null 2>&1`, "sh", path, mode)
	}
	if err != nil {
		return fmt.Errorf("guard: start the watchdog: %w", err)
	}
	return nil
}

// await waits until the watchdog says that it runs, and looks whether it does.
func (g *Guard) await(ctx context.Context, dir string) (running, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		run, err := readRunning(dir)
		if err == nil {
			return run, g.proveRunning(ctx, run)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return run, err
		}
		select {
		case <-ctx.Done():
			return run, fmt.Errorf("guard: the watchdog did not start%s: %w", lastLine(dir), ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// proveRunning reports why the watchdog is not what it should be: alive, and
// in a session of its own, which no terminal and no caller can end.
func (g *Guard) proveRunning(ctx context.Context, run running) error {
	p, alive, err := g.process(ctx, run.PID)
	switch {
	case err != nil:
		return err
	case !alive || p.Start != run.Start:
		return fmt.Errorf("%w: it started and ended", ErrNotGuarded)
	case p.session != run.PID:
		return fmt.Errorf("%w apart from this process: it is in session %d", ErrNotGuarded, p.session)
	}
	return nil
}

func lastLine(dir string) string {
	data, err := os.ReadFile(filepath.Join(dir, "log"))
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if err != nil || lines[len(lines)-1] == "" {
		return ""
	}
	return " (" + lines[len(lines)-1] + ")"
}

// Applied records that the change is made. Only a connection that is opened
// later can confirm it.
func (g *Guard) Applied(ctx context.Context, id string) error {
	st, err := g.pending(ctx, id)
	if err != nil {
		return err
	}
	sockets, err := g.flows(ctx)
	if err != nil {
		return err
	}
	return writeJSON(filepath.Join(g.Dir, st.ID, appliedFile), sockets)
}

// pending returns the status of the change id if it can still be confirmed, and
// the reason as an error otherwise.
func (g *Guard) pending(ctx context.Context, id string) (Status, error) {
	st, err := g.status(ctx, id)
	if err != nil {
		return st, err
	}
	switch st.State {
	case StateArmed:
		return st, nil
	case StateRolledBack, StateRollingBack, StateIncomplete:
		return st, fmt.Errorf("%w: %v", ErrRolledBack, st)
	case StateUnguarded:
		return st, fmt.Errorf("%w: %v: roll it back, and start again", ErrNotGuarded, st)
	default:
		return st, fmt.Errorf("%w: %v", ErrNotArmed, st)
	}
}

// writeJSON writes a file at once or not at all, and to the disk.
func writeJSON(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	return writeFile(name, data)
}

func writeFile(name string, data []byte) error {
	tmp := name + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	if err := os.Rename(tmp, name); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	return nil
}
