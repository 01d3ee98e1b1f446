package access

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/killswitch"
)

// A KillSwitch is the switch of an agent on this machine; see package
// killswitch.
type KillSwitch struct {
	// Dir is the switch's directory, [killswitch.Config.Dir].
	Dir string

	Agent string // the agent that it stops

	// Containers are the names of the agent's containers. None means all of
	// [Config.Containers].
	Containers []string

	// Key verifies what the switch says that it has prepared and rehearsed.
	// Without it nothing of that is believed. Get it from whoever runs the
	// switch, and not from what is in the directory.
	Key killswitch.PublicKey

	// MaxArmed is how long ago it may have been armed. Zero means
	// DefaultMaxArmed.
	MaxArmed time.Duration

	// MaxDrill is how long ago it may have been drilled. Zero means
	// DefaultMaxDrill.
	MaxDrill time.Duration

	// Variants are those in which it must have been drilled, beside
	// [killswitch.VariantNormal].
	Variants []string

	// Real says that the drill of a canary is not enough.
	Real bool

	// Owner is the number of the user who runs it, beside root.
	Owner uint32

	// Starters are the numbers of the users as whom whatever starts the agent
	// runs: the gateway, units, deployment tools. They must be able to read the
	// fence. Root always is.
	Starters []uint32
}

// What the zero values of [KillSwitch] mean.
const (
	DefaultMaxArmed = 15 * time.Minute
	DefaultMaxDrill = 30 * 24 * time.Hour
)

// A SwitchReview is what is known of a [KillSwitch].
type SwitchReview struct {
	Switch KillSwitch
	Now    time.Time

	// Armed is what it says that it has prepared, if that is signed by its
	// key. The error wraps [killswitch.ErrSignature] if it is not, and
	// [fs.ErrNotExist] if there is nothing.
	Armed    *killswitch.Armed
	ArmedErr error

	// Drills are its rehearsals that are signed by its key, the last one last,
	// and Forged the files of those that are not.
	Drills    []*killswitch.Drill
	Forged    []string
	DrillsErr error

	// Fence is engaged unless there is no error. The error wraps
	// [fs.ErrNotExist] if there is no directory for it, and [killswitch.ErrDamaged] if what
	// is there is damaged.
	Fence    killswitch.FenceState
	FenceErr error

	// Agents are the agent's containers.
	Agents    []container.Container
	AgentsErr error
}

// Subject names the switch in reports.
func (r *SwitchReview) Subject() string { return "switch/" + printableText(r.Switch.Agent) }

var errNoSwitch = errors.New("access: Config.Switches is empty: nobody knows of a kill switch")

// Bounds on what is read of a switch.
const (
	maxSwitchFile = 16 << 20
	maxDrills     = 1000 // the last ones
)

// NewSwitchSource returns the kill switches of c.
func NewSwitchSource(c Config) *harden.Source[SwitchReview] {
	return &harden.Source[SwitchReview]{
		Name:    "kill switches",
		Subject: func(r SwitchReview) string { return r.Subject() },
		List: func(ctx context.Context, v *host.View) ([]SwitchReview, error) {
			if len(c.Switches) == 0 {
				return nil, errNoSwitch
			}
			var agents []container.Container
			err := errNoContainers
			if c.Containers != nil {
				agents, err = c.Containers.All(ctx, v)
			}
			all := make([]SwitchReview, len(c.Switches))
			for i, s := range c.Switches {
				all[i] = SwitchReview{Switch: s, Now: time.Now(), Agents: s.own(agents), AgentsErr: err}
				all[i].look(v)
			}
			return all, ctx.Err()
		},
	}
}

// own returns the containers of the agent.
func (s *KillSwitch) own(all []container.Container) []container.Container {
	if len(s.Containers) == 0 {
		return all
	}
	var own []container.Container
	for _, c := range all {
		if slices.Contains(s.Containers, c.Name) {
			own = append(own, c)
		}
	}
	return own
}

func (r *SwitchReview) look(v *host.View) {
	s := &r.Switch
	if s.MaxArmed <= 0 {
		s.MaxArmed = DefaultMaxArmed
	}
	if s.MaxDrill <= 0 {
		s.MaxDrill = DefaultMaxDrill
	}
	var bad error
	switch {
	case !path.IsAbs(s.Dir) || path.Clean(s.Dir) != s.Dir:
		bad = fmt.Errorf("access: Config.Switches: %q is not an absolute path in its shortest form", s.Dir)
	case s.Agent == "" || path.Base(s.Agent) != s.Agent || strings.HasPrefix(s.Agent, "."):
		bad = fmt.Errorf("access: Config.Switches: %q is not the name of an agent", s.Agent)
	}
	if bad != nil {
		r.ArmedErr, r.DrillsErr, r.FenceErr = bad, bad, bad
		return
	}
	r.Fence, r.FenceErr = readFence(v, path.Join(s.Dir, "fence"), s.Agent)
	if s.Key.IsZero() {
		bad = fmt.Errorf("access: Config.Switches: there is no key of the switch of %s: nobody can tell who wrote what is in %s", s.Agent, s.Dir)
		r.ArmedErr, r.DrillsErr = bad, bad
		return
	}
	r.Armed, r.ArmedErr = readArmed(v, s)
	r.readDrills(v)
}

func readArmed(v *host.View, s *KillSwitch) (*killswitch.Armed, error) {
	data, err := readPlain(v, path.Join(s.Dir, "armed", s.Agent+".json"))
	if err != nil {
		return nil, err
	}
	a, err := killswitch.VerifyArmed(data, s.Key)
	if err == nil && a.Agent != s.Agent {
		a, err = nil, fmt.Errorf("%w: it is that of another agent", killswitch.ErrSignature)
	}
	return a, err
}

func (r *SwitchReview) readDrills(v *host.View) {
	dir := path.Join(r.Switch.Dir, "drills", r.Switch.Agent)
	entries, err := v.ReadDir(dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			r.DrillsErr = err
		}
		return
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".json") && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names) // by time
	var errs []error
	for _, name := range names[max(0, len(names)-maxDrills):] {
		data, err := readPlain(v, path.Join(dir, name))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		d, err := killswitch.VerifyDrill(data, r.Switch.Key)
		if err != nil || d.Agent != r.Switch.Agent {
			r.Forged = append(r.Forged, printableText(name))
			continue
		}
		r.Drills = append(r.Drills, d)
	}
	slices.SortStableFunc(r.Drills, func(a, b *killswitch.Drill) int { return a.Time.Compare(b.Time) })
	r.DrillsErr = errors.Join(errs...)
}

// readPlain reads a plain file of bounded size.
func readPlain(v *host.View, name string) ([]byte, error) {
	info, err := v.Lstat(name)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a plain file", name)
	case info.Size() > maxSwitchFile:
		return nil, fmt.Errorf("%s is larger than %d bytes", name, maxSwitchFile)
	}
	return v.ReadFile(name)
}

// readFence returns what the fence in a directory holds of an agent, as
// [killswitch.Fence.State] does on this machine.
func readFence(v *host.View, dir, agent string) (killswitch.FenceState, error) {
	held := killswitch.FenceState{Agent: agent}
	info, err := v.Stat(dir)
	if err != nil {
		return held, err
	}
	if !info.IsDir() {
		return held, fmt.Errorf("%w: %s is not a directory", killswitch.ErrDamaged, dir)
	}
	name := path.Join(dir, agent)
	if info, err := v.Lstat(name); err == nil && !info.Mode().IsRegular() {
		return held, fmt.Errorf("%w: %s is not a plain file", killswitch.ErrDamaged, name)
	}
	data, err := readPlain(v, name)
	if errors.Is(err, fs.ErrNotExist) {
		return killswitch.FenceState{Agent: agent, Released: true}, nil
	}
	if err != nil {
		return held, err
	}
	s, err := killswitch.ParseFenceState(data)
	if err == nil && s.Agent != agent {
		err = fmt.Errorf("%w: it is that of %s", killswitch.ErrDamaged, s.Agent)
	}
	if err != nil {
		return held, fmt.Errorf("%w (%s)", err, name)
	}
	return s, nil
}
