package killswitch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// What the zero values of [Config], [Target] and [Rung] mean.
const (
	DefaultTimeout      = 30 * time.Second
	DefaultPatience     = time.Second
	DefaultLookTimeout  = 2 * time.Second
	DefaultFenceTimeout = 250 * time.Millisecond
	DefaultTrailTimeout = 2 * time.Second
	DefaultArmTimeout   = 30 * time.Second
	DefaultInterval     = time.Second
)

// NoWait is the [Rung.Patience] of a rung that is begun and not waited for.
const NoWait time.Duration = -1

// A Rung is what is tried at once. What it consists of is called with a context
// that ends with the patience.
type Rung struct {
	// Actuators are all called at the same moment. Required.
	Actuators []Actuator

	// Patience is how long the observers get to confirm before the next rung
	// is tried. If one of the actuators fails, and the target is not seen to
	// be off, the next one is tried at once. Zero means [DefaultPatience], and
	// for the last rung all the time that the target has left.
	//
	// [NoWait] begins the next rung at the same moment and lets this one go on
	// for as long as the target has time: for what is worth trying, and never
	// worth waiting for.
	Patience time.Duration
}

// A Target is something to stop that does not depend on any other target.
type Target struct {
	// Name is what receipts call it: lower-case words joined by dots, such as
	// "egress".
	Name string

	// Ladder is what is tried, in order, until the observers confirm.
	// Required.
	Ladder []Rung

	// Observers decide together whether the target is off: all must agree.
	// Required.
	Observers []Observer

	// Timeout bounds all of it. Zero means [DefaultTimeout]. When it is over,
	// the observers look once more.
	Timeout time.Duration

	// Lacks says in words what would belong to this target and cannot be had
	// here, such as the rungs in the kernel of a remote engine. They are
	// findings of [Switch.Arm].
	Lacks []string
}

// A Config says how an agent is stopped.
type Config struct {
	// Agent is the name of the agent: letters, digits, dots, dashes and
	// underscores. Required.
	Agent string

	// Dir is the directory of the switch, which keeps everything there: the
	// fence in "fence", receipts, drills, what is armed, and the hash of the
	// second secret. Nobody else may write to it. Several agents and processes
	// may share one. Required; made if it is not there.
	Dir string

	// Targets are all stopped at the same time. Required.
	Targets []Target

	// Trail records kills, drills and resets. Required: to have none is
	// [trail.Discard].
	Trail trail.Recorder

	// Key signs receipts, drills and what is armed. Without one they are not
	// signed, and cannot be relied on by anyone else.
	Key *Key

	// Logger is told what happens. Nil discards it.
	Logger *slog.Logger

	// FenceTimeout is how long a kill waits for the disk to keep the fence,
	// before it goes on without; in the end, it waits four times as long for
	// the receipt to be kept. Zero means [DefaultFenceTimeout].
	FenceTimeout time.Duration

	// TrailTimeout bounds each record in the trail, for which no kill waits
	// before it acts. Zero means [DefaultTrailTimeout].
	TrailTimeout time.Duration

	// LookTimeout bounds each look of an observer. Zero means
	// [DefaultLookTimeout].
	LookTimeout time.Duration

	// ArmTimeout bounds each preparation. Zero means [DefaultArmTimeout].
	ArmTimeout time.Duration

	// Interval is the time between the looks of [Switch.Hold], and of Fire at
	// what is off while others are still being stopped. Zero means
	// [DefaultInterval].
	Interval time.Duration
}

// A Switch stops one agent: see [Switch.Fire]. Make one with [New]. Its methods
// may be called concurrently.
type Switch struct {
	cfg     Config
	targets []*target
	fence   *Fence
	disk    disk

	amending sync.Mutex // of the last receipt, by Hold

	mu        sync.Mutex
	running   *kill    // the kill under way
	last      *Receipt // of this process
	fires     int      // kills so far
	acting    int      // of Hold
	resetting bool
	prepared  map[string]Preparation // the last of each
}

// New returns a switch. It looks at the configuration alone: a directory that
// cannot be used keeps no agent from being stopped, and is in the receipt.
func New(cfg Config) (*Switch, error) {
	switch {
	case !isAgent(cfg.Agent):
		return nil, fmt.Errorf("killswitch: Config.Agent: %w: %q: use letters, digits, dots, dashes and underscores", ErrAgent, bounded(cfg.Agent, maxName))
	case cfg.Dir == "":
		return nil, errors.New("killswitch: Config.Dir is empty: name a directory that outlasts a restart")
	case len(cfg.Targets) == 0:
		return nil, errors.New("killswitch: Config.Targets is empty: there is nothing to stop")
	case cfg.Trail == nil:
		return nil, errors.New("killswitch: Config.Trail is nil: to have none is trail.Discard")
	case cfg.Key != nil && !cfg.Key.usable():
		return nil, errors.New("killswitch: Config.Key is empty: make one with GenerateKey, or use nil")
	}
	for name, d := range map[string]*time.Duration{
		"FenceTimeout": &cfg.FenceTimeout, "TrailTimeout": &cfg.TrailTimeout, "LookTimeout": &cfg.LookTimeout,
		"ArmTimeout": &cfg.ArmTimeout, "Interval": &cfg.Interval,
	} {
		if *d < 0 {
			return nil, fmt.Errorf("killswitch: Config.%s is negative", name)
		}
	}
	cfg.FenceTimeout = orDefault(cfg.FenceTimeout, DefaultFenceTimeout)
	cfg.TrailTimeout = orDefault(cfg.TrailTimeout, DefaultTrailTimeout)
	cfg.LookTimeout = orDefault(cfg.LookTimeout, DefaultLookTimeout)
	cfg.ArmTimeout = orDefault(cfg.ArmTimeout, DefaultArmTimeout)
	cfg.Interval = orDefault(cfg.Interval, DefaultInterval)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	targets, err := checkTargets(cfg.Targets, cfg.LookTimeout)
	if err != nil {
		return nil, err
	}
	s := &Switch{cfg: cfg, targets: targets, prepared: make(map[string]Preparation)}
	s.fence = newFence(filepath.Join(cfg.Dir, "fence"), s.disk)
	_ = s.disk.mkdir(s.fence.dir) // Arm says what is wrong with it, and so does a kill
	sweep(s.fence.dir)
	return s, nil
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

// Fence returns the fence that the switch engages, for what starts the agent
// or acts for it in this process.
func (s *Switch) Fence() *Fence { return s.fence }

// Agent returns the name of the agent.
func (s *Switch) Agent() string { return s.cfg.Agent }

// log does not wait for the logger, which may hang.
func (s *Switch) log(ctx context.Context, level slog.Level, msg string, args ...any) {
	ctx = context.WithoutCancel(ctx)
	args = append([]any{"agent", s.cfg.Agent}, args...)
	go func() {
		defer func() { _ = recover() }()
		s.cfg.Logger.Log(ctx, level, msg, args...)
	}()
}
