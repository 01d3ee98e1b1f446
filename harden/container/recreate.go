package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// Defaults of a [Recreator].
const (
	DefaultSettle        = 10 * time.Second
	DefaultHealthTimeout = 15 * time.Minute
	DefaultUndoTimeout   = 2 * time.Minute
)

var errLocked = errors.New("another run is recreating it")

// A Recreator recreates containers hardened, each as one transaction: after
// it, the container of that name is either the new one, which [Checks] have
// verified, or the old one, as it was. That holds also if the process is
// killed: every step is written down in StateDir before it is taken, and the
// next run undoes or finishes what it finds there. The old and the new
// container never run at once.
//
// Fields must not be changed once it is in use; its methods may then be called
// concurrently.
type Recreator struct {
	// Control is the engine. Required.
	Control Control

	// Profile says what the containers may have and need.
	Profile Profile

	// Source lists the containers. Use the one that the checks are bound to.
	// Nil means all that run.
	Source *harden.Source[Container]

	// StateDir is a directory of this program's own, in which transactions
	// are written down. Required. It is made if it does not exist.
	StateDir string

	// MayStart, if set, is asked before a container is started. An error, as
	// from an engaged kill switch, keeps it from being started: a transaction
	// that has not begun does not begin, and one that is being undone leaves
	// the container stopped, without a restart policy, and says so.
	MayStart func(ctx context.Context, name string) error

	// Grace is how long a container gets to stop. Zero means its own time.
	Grace time.Duration

	// Settle is how long a new container without a health check must go on
	// running to be taken for well. Zero means DefaultSettle.
	Settle time.Duration

	// HealthTimeout bounds the wait for a health check, whose own times decide
	// otherwise. Zero means DefaultHealthTimeout.
	HealthTimeout time.Duration

	// CheckTimeout bounds each check that verifies. Zero means
	// [harden.DefaultTimeout].
	CheckTimeout time.Duration

	// UndoTimeout bounds the undoing of a transaction, which goes on when the
	// caller's context has ended. Zero means DefaultUndoTimeout.
	UndoTimeout time.Duration

	// For tests.
	list      func(...string) *harden.Source[Container]
	ownership func(EngineInfo) ownership
	poll      time.Duration // between looks at a container
	patience  time.Duration // for an engine that is restarting, while undoing

	mu   sync.Mutex
	held map[string]heldLock // of applied transactions, by the container's name
}

// Remedy returns a check that is c with a remedy: its plan recreates each
// container that c fails for. Wrap all checks of one source: the plans for one
// container are equal, so that [harden.Propose] and [harden.Fixer] recreate it
// once.
//
// While a transaction that was cut off has not been undone or finished, the
// check fails, and its plan does that first.
func (r *Recreator) Remedy(c harden.Check) harden.Remediator { return &remedy{r: r, Check: c} }

type remedy struct {
	harden.Check

	r *Recreator
}

// Unwrap returns the check without the remedy.
func (m *remedy) Unwrap() harden.Check { return m.Check }

func (m *remedy) Run(ctx context.Context, v *host.View) (harden.Verdict, error) {
	cut, err := m.r.cutOff(ctx)
	if err != nil {
		return harden.Verdict{}, err
	}
	var findings []harden.Finding
	for _, j := range cut {
		findings = append(findings, harden.Finding{
			ID: m.Info().ID + ".interrupted", Subject: "container/" + j.Name,
			Message: "a run that was to harden it was cut off, and left it between two states",
			Remedy:  "run the remedy again: it first undoes or finishes what was begun",
		})
	}
	if len(findings) > 0 {
		return harden.Fail(findings[0], findings[1:]...), nil
	}
	return m.Check.Run(ctx, v)
}

func (m *remedy) Plan(ctx context.Context, v *host.View) (harden.Plan, error) {
	var plan harden.Plan
	if err := m.r.valid(); err != nil {
		return plan, err
	}
	cut, err := m.r.cutOff(ctx)
	if err != nil {
		return plan, err
	}
	if len(cut) > 0 {
		for _, j := range cut {
			plan.Actions = append(plan.Actions, m.r.resume(j))
		}
		return plan, nil
	}
	res := harden.Evaluate(ctx, v, m.Check, m.r.CheckTimeout)
	if res.Status != harden.StatusFail {
		return plan, nil
	}
	containers, err := m.r.source().All(ctx, v)
	if err != nil {
		return plan, err
	}
	others, err := m.r.Control.Containers(ctx)
	if err != nil {
		return plan, err
	}
	named := false
	for _, c := range containers {
		if slices.ContainsFunc(res.Findings, func(f harden.Finding) bool { return f.Subject == c.Subject() }) {
			named = true
			if err := m.r.planFor(ctx, &plan, m.Check, c, others); err != nil {
				return harden.Plan{}, err
			}
		}
	}
	if !named {
		plan.Manual = append(plan.Manual, "what fails is not a container that could be recreated: see the findings")
	}
	return plan, nil
}

func (r *Recreator) planFor(ctx context.Context, plan *harden.Plan, check harden.Check, c Container, others []Settings) error {
	advice := Harden(c, r.Profile)
	switch {
	case !advice.Hardening.IsZero() && !advice.leaves(check):
	case len(advice.Manual) > 0:
		plan.Manual = append(plan.Manual, advice.Manual...)
		return nil
	default:
		plan.Manual = append(plan.Manual, c.Subject()+": its settings are as strict as they can be made; "+
			"if a process that was put into it (docker exec) is at fault, end it")
		return nil
	}
	if joined := joinedTo(&c.Settings, others); len(joined) > 0 {
		plan.Manual = append(plan.Manual, fmt.Sprintf("%s: %s in its namespaces, and would be left in those of a container that is gone: stop and remove them, harden this one, and make them again",
			c.Subject(), strings.Join(joined, " and ")))
		return nil
	}
	plan.Notes = append(plan.Notes, advice.Notes...)
	plan.Notes = append(plan.Notes, advice.Manual...) // of other checks than this one
	if changed, err := r.changedOutside(ctx, c.ID, &c.Settings, advice.Hardening); err != nil {
		return err
	} else if len(changed) > 0 {
		plan.Notes = append(plan.Notes, fmt.Sprintf("%s: files that the profile does not declare were changed in it, and are not in the new container: %s. The old container is kept, stopped, as %s",
			c.Subject(), someOf(changed), asideName(c.Name, "…")))
	}
	if c.HealthCheck == nil {
		plan.Notes = append(plan.Notes, fmt.Sprintf("%s: it has no health check: it is taken for well if it still runs after %v", c.Subject(), cmp.Or(r.Settle, DefaultSettle)))
	}
	before, after := advice.Hardening.describe(&c.Settings)
	plan.Actions = append(plan.Actions, &recreate{
		r: r, id: c.ID, name: c.Name, subject: c.Subject(), hardening: advice.Hardening, before: before, after: after,
	})
	return nil
}

func someOf(all []string) string {
	const most = 5
	if len(all) <= most {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
}

// joinedTo names the containers that are in a namespace of s.
func joinedTo(s *Settings, all []Settings) []string {
	var joined []string
	for _, o := range all {
		for _, mode := range []string{o.NetworkMode, o.PidMode, o.IpcMode} {
			target, ok := strings.CutPrefix(mode, "container:")
			if ok && o.ID != s.ID && target != "" && (target == s.Name || strings.HasPrefix(s.ID, target)) {
				joined = append(joined, "container/"+o.Name+" is")
				break
			}
		}
	}
	return joined
}

func (r *Recreator) valid() error {
	switch {
	case r.Control == nil:
		return errors.New("container: Recreator.Control is not set")
	case r.StateDir == "":
		return errors.New("container: Recreator.StateDir is not set: nothing is changed that is not written down")
	}
	return nil
}

func (r *Recreator) source() *harden.Source[Container] {
	if r.Source != nil {
		return r.Source
	}
	return r.named()
}

// named returns a source of its own, of the named containers.
func (r *Recreator) named(names ...string) *harden.Source[Container] {
	if r.list != nil {
		return r.list(names...)
	}
	return NewSource(r.Control, names...)
}

func (r *Recreator) files(info EngineInfo) ownership {
	if r.ownership != nil {
		return r.ownership(info)
	}
	return localFiles{info.PID}
}
