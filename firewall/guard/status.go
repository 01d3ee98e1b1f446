package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A State is how far a guarded change has come.
type State int

// States.
const (
	// StateStale: it was never armed; whoever was about to has died.
	StateStale State = iota + 1
	// StateArming: it is being armed.
	StateArming
	// StateArmed: the watchdog waits for it to be confirmed.
	StateArmed
	// StateUnguarded: nobody has decided, and the watchdog does not run. Nothing will
	// undo the change but [Guard.Rollback] and [Guard.Recover].
	StateUnguarded
	// StateConfirmed: it has been confirmed, and stays.
	StateConfirmed
	// StateRollingBack: it is being undone.
	StateRollingBack
	// StateRolledBack: all is as it was before.
	StateRolledBack
	// StateIncomplete: not everything could be put back, see Failed.
	StateIncomplete
)

var stateNames = map[State]string{
	StateStale: "never armed", StateArming: "being armed", StateArmed: "armed", StateUnguarded: "not guarded", StateConfirmed: "confirmed",
	StateRollingBack: "being rolled back", StateRolledBack: "rolled back", StateIncomplete: "rolled back in part",
}

func (s State) String() string {
	if name, ok := stateNames[s]; ok {
		return name
	}
	return "State(" + strconv.Itoa(int(s)) + ")"
}

// MarshalText encodes s as String does.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Status says what has become of a guarded change.
type Status struct {
	ID      string
	What    string // the change's
	State   State
	Armed   time.Time     // when
	Left    time.Duration // until it is rolled back, if it is armed
	Applied bool          // whether it is reported as made
	PID     int           // of the watchdog, if it runs

	// Rebooted says that the machine has been restarted since it was armed.
	Rebooted bool

	// Failed are the steps that could not be taken when they were last
	// tried: files, tables, chains and parameters that are not put back.
	Failed []string

	// Log is a file in which the watchdog says what it has done.
	Log string
}

func (s Status) String() string {
	text := fmt.Sprintf("%s (%s) is %v", s.ID, s.What, s.State)
	if s.State == StateArmed {
		text += fmt.Sprintf(" for another %v", s.Left.Round(100*time.Millisecond))
	}
	if len(s.Failed) > 0 {
		text += ": not put back: " + strings.Join(s.Failed, ", ")
	}
	return text
}

// Status returns that of the change that is guarded now, or that was rolled
// back in part. The error is [ErrNotArmed] if there is none.
func (g *Guard) Status(ctx context.Context) (Status, error) { return g.status(ctx, "") }

// List returns the status of all that is in the directory, the oldest first: the current
// one, and those that were rolled back and not removed.
func (g *Guard) List(ctx context.Context) ([]Status, error) {
	entries, err := os.ReadDir(g.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	var all []Status
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		st, err := g.status(ctx, e.Name())
		if errors.Is(err, ErrNotArmed) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		all = append(all, st)
	}
	return all, nil
}

// Remove removes what is kept of a change that is over: confirmed, never
// armed, or rolled back entirely.
func (g *Guard) Remove(ctx context.Context, id string) error {
	st, err := g.status(ctx, id)
	if err != nil {
		return err
	}
	switch st.State {
	case StateStale, StateConfirmed, StateRolledBack:
		return g.discard(ctx, filepath.Join(g.Dir, st.ID))
	default:
		return fmt.Errorf("guard: %v: it is not over", st)
	}
}

// status returns the status of a change; the empty id is that of the current one.
func (g *Guard) status(ctx context.Context, id string) (Status, error) {
	if id == "" {
		to, err := os.Readlink(filepath.Join(g.Dir, currentLink))
		if errors.Is(err, fs.ErrNotExist) {
			return Status{}, ErrNotArmed
		}
		if err != nil {
			return Status{}, fmt.Errorf("guard: %w", err)
		}
		id = to
	}
	if id != filepath.Base(id) || id == "." || id == ".." || id == currentLink {
		return Status{}, fmt.Errorf("%w: %q is not an identifier of one", ErrNotArmed, id)
	}
	dir := filepath.Join(g.Dir, id)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return Status{}, fmt.Errorf("%w: %s", ErrNotArmed, id)
	}
	st := Status{ID: id, Log: filepath.Join(dir, "log")}
	r, err := readRecord(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Killed before it had written anything; or it is about to.
		st.State = StateStale
		return st, nil
	case err != nil:
		return st, err
	}
	st.What, st.Armed = r.Change.What, r.Armed
	if _, err := os.Stat(filepath.Join(dir, appliedFile)); err == nil {
		st.Applied = true
	}
	boot, err := g.bootID(ctx)
	if err != nil {
		return st, err
	}
	st.Rebooted = boot != r.Boot
	if failed, err := os.ReadFile(filepath.Join(dir, failedFile)); err == nil {
		st.Failed = strings.FieldsFunc(string(failed), func(c rune) bool { return c == '\n' })
	}
	return st, g.judge(ctx, dir, r, boot, &st)
}

// judge finds out the state.
func (g *Guard) judge(ctx context.Context, dir string, r record, boot string, st *Status) error {
	run, err := readRunning(dir)
	started := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	alive := false
	if started && run.boot == boot {
		if alive, err = g.alive(ctx, run.process); err != nil {
			return err
		}
	}
	if alive {
		st.PID = run.PID
	}
	// Read after the watchdog was looked for: one that ended has decided.
	decision, err := os.ReadFile(filepath.Join(dir, decisionFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("guard: %w", err)
	}
	decided := err == nil
	outcome, _ := os.ReadFile(filepath.Join(dir, outcomeFile))
	switch {
	case decided && strings.HasPrefix(string(decision), confirmedWord):
		st.State = StateConfirmed
	case strings.HasPrefix(string(outcome), "restored"):
		st.State = StateRolledBack
	case alive && (decided || run.deadline == 0):
		st.State = StateRollingBack
	case alive:
		st.State = StateArmed
		if st.Left, err = g.left(ctx, run); err != nil {
			return err
		}
		st.Left = max(st.Left, 0)
	case decided:
		st.State = StateIncomplete // it gave up, or died
	case started:
		st.State = StateUnguarded
	default:
		armer := false
		if !st.Rebooted {
			if armer, err = g.alive(ctx, r.Armer); err != nil {
				return err
			}
		}
		st.State = StateStale
		if armer {
			st.State = StateArming
		}
	}
	return nil
}

func readRecord(dir string) (record, error) {
	var r record
	data, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return r, fmt.Errorf("guard: %w", err)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("guard: %s: %w", filepath.Join(dir, recordFile), err)
	}
	return r, nil
}
