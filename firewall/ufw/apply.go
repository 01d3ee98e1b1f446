package ufw

import (
	"context"
	"fmt"
	"io/fs"
	"slices"

	"github.com/managemyclaw/hardshell/firewall"
)

// A StepError reports a step that did not have its effect. Steps before it have
// had theirs, those after it were not taken.
type StepError struct {
	Step  Step
	Taken int // how many steps came before it
	Err   error
}

func (e *StepError) Error() string {
	return fmt.Sprintf("ufw: %s: %v", e.Step, e.Err)
}

func (e *StepError) Unwrap() error { return e.Err }

// Apply takes the steps of p on the machine of files and run, and reads the
// state again after each, since UFW exits with 0 also when it has done nothing.
// A step that has its effect already is not taken, so a plan can be applied
// again. It returns the state in the end. An error is a [*StepError], which
// wraps a [*LockError] where a lock stood in the way.
//
// Apply undoes nothing: package guard does.
func (p *Plan) Apply(ctx context.Context, files fs.FS, run firewall.Runner) (*State, error) {
	s, err := Read(ctx, files, run)
	if err != nil {
		return nil, err
	}
	for i, step := range p.Steps {
		// What the plan rests on may have changed since.
		if step.touchesKernel() {
			for _, k := range []struct {
				Kernel
				v6 bool
			}{{s.V4, false}, {s.V6, true}} {
				if len(k.Missing) > 0 && step.unmet(s) != "" && !k.onlyUserMissing() {
					return s, &StepError{step, i, &JumpsError{V6: k.v6, Missing: k.Missing}}
				}
			}
		}
		if step.unmet(s) == "" {
			continue
		}
		if _, err := runBounded(ctx, files, run, nil, step.Command[0], step.Command[1:]...); err != nil {
			return s, &StepError{step, i, err}
		}
		if s, err = Read(ctx, files, run); err != nil {
			return nil, &StepError{step, i, err}
		}
		if why := step.unmet(s); why != "" {
			return s, &StepError{step, i, fmt.Errorf("it ended as if all were well, and %s", why)}
		}
	}
	return s, nil
}

func (k Kernel) onlyUserMissing() bool {
	return len(k.Missing) == 1 && k.Missing[0][len(k.Missing[0])-len("user-input"):] == "user-input"
}

func (s Step) touchesKernel() bool { return s.Kind == StepEnable || s.Kind == StepReload }

// unmet says what of the step's effect is not there; empty means that all is.
func (s Step) unmet(st *State) string {
	switch s.Kind {
	case StepManageIPv6:
		if !st.IPv6 {
			return "IPV6 is not yes in /" + defaultsFile
		}
	case StepNotLoaded:
		if st.Enabled && !st.V4.Active {
			return "ENABLED is still yes in /" + confFile
		}
	case StepAllow:
		for _, r := range s.Rules {
			if !slices.ContainsFunc(st.Rules, func(have Rule) bool { return have.Action.Admits() && have.sameMatch(r) }) {
				return fmt.Sprintf("there is no rule %q", r)
			}
		}
	case StepRemove:
		for _, r := range s.Rules {
			if slices.ContainsFunc(st.Rules, r.Same) {
				return fmt.Sprintf("there is still the rule %q", r)
			}
		}
	case StepDefaultDeny:
		if st.Incoming == Allow {
			return "incoming packets are still allowed by default"
		}
	case StepEnable, StepReload:
		if !st.Enabled {
			return "UFW is not enabled"
		}
		for _, p := range st.Problems() {
			if p.Kind != NotUnderstood {
				return p.String()
			}
		}
	default:
		return fmt.Sprintf("kind of step %d is unknown", s.Kind)
	}
	return ""
}
