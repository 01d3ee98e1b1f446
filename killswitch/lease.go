package killswitch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// MinTerm is the shortest term of a [Lease].
const MinTerm = time.Second

// ErrExpired reports a lease that cannot be renewed: it has expired, was never
// begun, or nobody can tell that it has not.
var ErrExpired = errors.New("killswitch: the lease has expired")

// A Lease is a dead man's switch: an agent whose lease is not renewed is
// stopped. [Lease.Begin] it before the agent starts, [Lease.Run] it for as long
// as the agent may run, and have somebody, or a heartbeat that somebody answers
// for, [Lease.Renew] it. A Lease may be used concurrently, and by several
// processes: one that runs it, and others that renew it.
//
// It is durable. A lease that ran out while nothing was running, because of a
// crash or a reboot, fires when Run is next called. So does one that is not
// there, damaged or cannot be read: nobody can tell that it holds. While Run
// knows of a lease, a file that cannot be read ends it with its term, and one
// that is gone or damaged at once.
//
// Time is taken to have passed if any clock says so: the monotonic clock, the
// clock of the wall, and that since the machine was started, which also counts
// sleep (Linux). To set the clock back gains nothing while the machine is up,
// and to set it forward, or to sleep, may let the lease run out early. Over a
// restart of the machine there is only the clock of the wall: if it is before
// the renewal, the lease has run out; if it was set back, but not as far, the
// lease lasts longer by as much, and never longer than a term from the restart.
type Lease struct {
	file  string
	agent string
	term  time.Duration
	fire  func(ctx context.Context, reason string) (*Receipt, error)
	disk  disk
	clock clocks

	writing sync.Mutex // one change at a time; held while the disk works

	mu     sync.Mutex
	record leaseRecord // the last that was seen
	seen   instant     // when that was
	spent  time.Duration
	why    error // why there is no lease, if there is none
}

// A LeaseState is how a lease is.
type LeaseState struct {
	By      string        `json:"by"`                // who renewed it last
	Renewed time.Time     `json:"renewed"`           // by the clock of the wall at the time
	Term    time.Duration `json:"term_ns"`           // of this renewal
	Left    time.Duration `json:"left_ns"`           // zero if it has expired
	Expired string        `json:"expired,omitempty"` // why it has, in words; empty if it has not
}

// NewLease returns the lease of the agent of a switch. It is kept in the
// switch's directory. Term is how long a renewal is good for; it does not
// lengthen one that was made with a shorter one.
func NewLease(s *Switch, term time.Duration) (*Lease, error) {
	if term < MinTerm {
		return nil, fmt.Errorf("killswitch: lease of %s: the term must be at least %v", s.Agent(), MinTerm)
	}
	l := newLease(s.cfg.Dir, s.Agent(), term, s.Fire)
	l.disk = s.disk
	return l, nil
}

func newLease(dir, agent string, term time.Duration, fire func(context.Context, string) (*Receipt, error)) *Lease {
	return &Lease{file: filepath.Join(dir, "lease", agent), agent: agent, term: term, fire: fire, clock: realClocks}
}

// Begin begins a new lease, whatever came of the last one. It is what somebody
// does who has looked; a heartbeat uses [Lease.Renew]. An error means that it
// was not begun.
func (l *Lease) Begin(ctx context.Context, by string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("killswitch: begin the lease of %s: %w", l.agent, err)
	}
	return l.write(by, "begin", nil)
}

// Renew renews a lease that has not expired. Once it has returned nil the
// renewal outlasts the process. With an error it was not renewed; the error
// wraps [ErrExpired] if it cannot be.
func (l *Lease) Renew(ctx context.Context, by string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("killswitch: renew the lease of %s: %w", l.agent, err)
	}
	return l.write(by, "renew", func() error {
		l.adopt(l.read())
		if s := l.State(); s.Expired != "" {
			return fmt.Errorf("%w: %s: %s: begin another", ErrExpired, l.agent, s.Expired)
		}
		return nil
	})
}

func (l *Lease) write(by, what string, may func() error) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if may != nil {
		if err := may(); err != nil {
			return err
		}
	}
	now := l.clock.now()
	r := leaseRecord{Agent: l.agent, By: foreign(by, maxName), Renewed: now.wall.UTC().Round(0), Term: l.term, Boot: now.boot, Up: now.up}
	data, err := r.encode()
	if err == nil {
		err = l.disk.replace(l.file, data)
	}
	if err != nil {
		return fmt.Errorf("killswitch: %s the lease of %s: %w", what, l.agent, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.record, l.seen, l.spent, l.why = r, now, 0, nil
	return nil
}

// State says how the lease is, by what was last read of it.
func (l *Lease) State() LeaseState {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := LeaseState{By: l.record.By, Renewed: l.record.Renewed, Term: min(l.term, l.record.Term)}
	switch {
	case l.why != nil:
		s.Expired = l.why.Error()
	case l.record == leaseRecord{}:
		s.Expired = "it has not been read"
	default:
		passed := l.spent + l.clock.now().since(l.seen)
		if s.Left = s.Term - passed; s.Left <= 0 {
			s.Left = 0
			s.Expired = fmt.Sprintf("it was last renewed by %s at %s, for %v", s.By, s.Renewed.Format(time.RFC3339), s.Term)
		}
	}
	return s
}

// Run waits until the lease has expired, fires the switch, and returns what
// [Switch.Fire] does. If ctx ends before that it returns why, and fires
// nothing: whatever ends Run for good must stop the agent as well.
//
// It notices within a twentieth of the term, and a minute, what happens to the
// clock or the file; that the term is over it notices at once, also if the disk
// hangs. After a reset, Begin anew before Run.
func (l *Lease) Run(ctx context.Context) (*Receipt, error) {
	tick := min(max(l.term/20, 10*time.Millisecond), time.Minute)
	results := make(chan leaseResult, 1) // buffered: a disk that hangs may still come to an end
	reading := true
	read := func() {
		r, err := l.read()
		results <- leaseResult{r, err}
	}
	go read()
	// A disk that does not answer when Run begins gets one tick, and no lease.
	unread := time.NewTimer(tick)
	defer unread.Stop()
	select {
	case r := <-results:
		reading = false
		l.adopt(r.record, r.err)
	case <-unread.C:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	for {
		s := l.State()
		if s.Expired != "" {
			receipt, err := l.fire(WithRequester(ctx, "hardshell/lease"), "the lease has expired: "+s.Expired)
			l.end()
			return receipt, err
		}
		wait := time.NewTimer(min(s.Left, tick))
		select {
		case <-wait.C:
			if !reading {
				reading = true
				go read()
			}
			continue
		case r := <-results:
			reading = false
			l.adopt(r.record, r.err)
		case <-ctx.Done():
			wait.Stop()
			return nil, context.Cause(ctx)
		}
		wait.Stop()
	}
}

type leaseResult struct {
	record leaseRecord
	err    error
}

// read reads the record.
func (l *Lease) read() (leaseRecord, error) {
	data, err := readFile(l.file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return leaseRecord{}, errors.New("there is none: begin one")
	case err != nil:
		return leaseRecord{}, fmt.Errorf("%w: %w", errLeaseUnread, err)
	}
	r, err := parseLease(data)
	switch {
	case err != nil:
		return leaseRecord{}, err
	case r.Agent != l.agent:
		return leaseRecord{}, fmt.Errorf("its record is that of %s", r.Agent)
	case r.Ended:
		return leaseRecord{}, errors.New("it has expired before, and none was begun since")
	}
	return r, nil
}

// adopt takes over what was read, unless it is known already.
func (l *Lease) adopt(r leaseRecord, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := l.record != leaseRecord{} && l.why == nil
	switch {
	case known && errors.Is(err, errLeaseUnread):
		return // what is known of it is good for no longer than its term
	case err != nil:
		l.why = err
		return
	case known && r == l.record:
		return
	}
	if known && r.Boot == l.record.Boot && r.Up < l.record.Up {
		return // what was read before the last renewal, and arrives after it
	}
	now := l.clock.now()
	spent, err := r.spent(now)
	l.record, l.seen, l.spent, l.why = r, now, spent, err
}

// end writes down that the lease has expired, so that it stays so whatever the
// clock says. If that fails, or takes long, there is still the fence.
func (l *Lease) end() {
	l.mu.Lock()
	r := l.record
	l.why = errors.New("it has expired before, and none was begun since")
	l.mu.Unlock()
	r.Agent, r.Ended = l.agent, true
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.writing.Lock()
		defer l.writing.Unlock()
		if data, err := r.encode(); err == nil {
			_ = l.disk.replace(l.file, data)
		}
	}()
	late := time.NewTimer(DefaultFenceTimeout)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
	}
}

// A leaseRecord is what is kept of a lease.
type leaseRecord struct {
	Agent   string        `json:"agent"`
	By      string        `json:"by"`
	Renewed time.Time     `json:"renewed"`
	Term    time.Duration `json:"term_ns"`
	Boot    string        `json:"boot"`  // names the run of the machine; empty if nothing does
	Up      time.Duration `json:"up_ns"` // since that began
	Ended   bool          `json:"ended"` // it has fired
}

const leaseSchema = "hardshell.lease/v1"

func (r leaseRecord) encode() ([]byte, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("killswitch: lease of %s: %w", r.Agent, err)
	}
	sum := sha256.Sum256(body)
	return fmt.Appendf(nil, "%s %s %s\n", leaseSchema, hex.EncodeToString(sum[:]), body), nil
}

var (
	errLeaseDamaged = errors.New("its record is damaged")
	errLeaseUnread  = errors.New("it cannot be read")
)

// parseLease reads a record. Nothing is believed that encode would not write.
func parseLease(data []byte) (leaseRecord, error) {
	schema, rest, _ := strings.Cut(string(data), " ")
	_, body, ok := strings.Cut(rest, " ")
	var r leaseRecord
	if !ok || schema != leaseSchema || json.Unmarshal([]byte(body), &r) != nil {
		return leaseRecord{}, errLeaseDamaged
	}
	if again, err := r.encode(); err != nil || string(again) != string(data) || r.Term <= 0 && !r.Ended {
		return leaseRecord{}, errLeaseDamaged
	}
	return r, nil
}

// spent returns how much of a lease that another process renewed has passed.
func (r leaseRecord) spent(now instant) (time.Duration, error) {
	wall := now.wall.Sub(r.Renewed)
	if r.Boot != "" && r.Boot == now.boot {
		if now.up < r.Up {
			return 0, errors.New("the machine has been up for less time than when it was renewed")
		}
		return max(now.up-r.Up, wall), nil
	}
	if wall < 0 {
		return 0, errors.New("by the clock it was renewed in the future")
	}
	return wall, nil
}

// An instant is a moment by every clock that there is.
type instant struct {
	wall time.Time // without a monotonic reading
	mono time.Duration
	boot string
	up   time.Duration
}

// since returns how long ago an earlier instant of this process was, by the
// clock that says the most.
func (i instant) since(earlier instant) time.Duration {
	d := max(i.mono-earlier.mono, i.wall.Sub(earlier.wall))
	if i.boot != "" && i.boot == earlier.boot {
		d = max(d, i.up-earlier.up)
	}
	return d
}

// clocks tell the time.
type clocks struct {
	now func() instant
}

var started = time.Now()

var realClocks = clocks{now: func() instant {
	now := time.Now()
	i := instant{wall: now.Round(0), mono: now.Sub(started)}
	i.boot, i.up = bootTime("/proc")
	return i
}}

// bootTime returns what names the run of the machine and how long it has
// lasted, or nothing where that is not known.
func bootTime(proc string) (boot string, up time.Duration) {
	id, err := os.ReadFile(filepath.Join(proc, "sys/kernel/random/boot_id")) // random(4)
	if err != nil {
		return "", 0
	}
	text, err := os.ReadFile(filepath.Join(proc, "uptime")) // proc_uptime(5)
	if err != nil {
		return "", 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	up, err = time.ParseDuration(first + "s")
	if err != nil || up <= 0 {
		return "", 0
	}
	return strings.TrimSpace(string(id)), up
}
