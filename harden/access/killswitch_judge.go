package access

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/killswitch"
)

const (
	remedyArm   = "start what keeps the switch armed (killswitch.Switch.Keep), and look at what its arming says"
	remedyDrill = "drill the switch (killswitch.Switch.Drill) with a canary of every target, and look at why if it does not pass"
)

// judgeArmed judges whether everything is prepared that would stop the agent,
// and would confirm that it has stopped.
func judgeArmed(_ context.Context, r SwitchReview) (harden.Verdict, error) {
	const id = "access.kill_armed"
	var v violations
	source := r.Switch.Dir + "/armed"
	fail := func(kind, message, remedy, observed string) {
		v = append(v, harden.Finding{
			ID: id + "." + kind, Message: message, Remedy: remedy,
			Evidence: []harden.Evidence{at(harden.LevelInspected, source, observed, "armed in the last "+r.Switch.MaxArmed.String()+", and nothing missing")},
		})
	}
	switch {
	case errors.Is(r.ArmedErr, fs.ErrNotExist):
		fail("never", "the switch was never armed: nobody knows what it would stop", remedyArm, "no such file")
	case errors.Is(r.ArmedErr, killswitch.ErrSignature):
		fail("unsigned", "what it says that it has prepared is not signed by the switch's key: anybody may have written it", "give the switch its key (killswitch.Config.Key), and arm it again", r.ArmedErr.Error())
	case r.ArmedErr != nil:
		return harden.Verdict{}, r.ArmedErr
	case r.Armed == nil:
		return harden.Verdict{}, errors.New("it was not looked at")
	}
	if len(v) > 0 {
		return v.verdict(nil)
	}
	a := r.Armed
	if len(a.Targets) == 0 {
		fail("target", "the switch has no target: it would stop nothing", "give it targets", "no target")
	}
	actuators, observers := 0, 0
	for _, t := range a.Targets {
		name := printableText(t.Name)
		if len(t.Actuators) == 0 {
			fail("actuator", "target "+name+" has nothing that would stop it", "give it an actuator", "no actuator")
		}
		if len(t.Observers) == 0 {
			fail("observer", "target "+name+" has nothing that would confirm that it is off", "give it an observer that shares nothing with its actuators", "no observer")
		}
		for _, o := range t.Observers {
			if slices.ContainsFunc(t.Actuators, func(act killswitch.ArmedActuator) bool { return act.Name == o.Name }) {
				fail("observer", "target "+name+" is to be confirmed by what stops it: "+printableText(o.Name), "give it an observer that shares nothing with its actuators", "one name for both")
			}
			if o.LookError != "" && !slices.ContainsFunc(a.Findings, func(f string) bool { return strings.Contains(f, o.Name) }) {
				fail("observer", fmt.Sprintf("target %s: %s could not look: %s", name, printableText(o.Name), printableText(o.LookError)), remedyArm, o.LookError)
			}
		}
		actuators, observers = actuators+len(t.Actuators), observers+len(t.Observers)
	}
	for _, f := range a.Check(r.Now, r.Switch.MaxArmed) {
		kind := "prepared"
		if !slices.Contains(a.Findings, f) {
			kind = "stale"
		}
		fail(kind, printableText(f), remedyArm, printableText(f))
	}
	return v.verdict(nil, at(harden.LevelInspected, source,
		fmt.Sprintf("armed %s: %d targets, %d actuators, %d observers, all prepared", stamp(a.Time), len(a.Targets), actuators, observers), "every target has both, prepared not long ago"))
}

// judgeFence judges whether the fence can be read and lets the agent run, and
// whether it keeps it down if not.
func judgeFence(_ context.Context, r SwitchReview) (harden.Verdict, error) {
	const id = "access.kill_fence"
	var v violations
	source := r.Switch.Dir + "/fence"
	fail := func(kind, message, remedy, observed string, severity harden.Severity) {
		v = append(v, harden.Finding{
			ID: id + "." + kind, Message: message, Remedy: remedy, Severity: severity,
			Evidence: []harden.Evidence{at(harden.LevelInspected, source, observed, "released, and readable")},
		})
	}
	held := true
	switch {
	case errors.Is(r.FenceErr, fs.ErrNotExist):
		fail("missing", "there is no fence: what asks it before it starts the agent will not start it, and what does not ask will", "make the switch's directory with killswitch.OpenFence, or name the one it has", "no such directory", 0)
	case errors.Is(r.FenceErr, killswitch.ErrDamaged):
		fail("damaged", "the fence is damaged, and so it holds: the agent will not be started", "find out what has written there; then fire the switch, and reset it (killswitch.Switch.Reset): a person must do both", r.FenceErr.Error(), 0)
	case r.FenceErr != nil:
		return harden.Verdict{}, r.FenceErr
	case r.Fence.Engaged():
		fail("engaged", fmt.Sprintf("the agent is stopped, since %s (epoch %d): %s", r.Fence.Time.UTC().Format(time.RFC3339), r.Fence.Epoch, printableText(r.Fence.Reason)),
			"find out why; once it may run again, a person resets the switch with the epoch and the second secret (killswitch.Switch.Reset)",
			fmt.Sprintf("engaged, epoch %d", r.Fence.Epoch), harden.SeverityMedium)
	default:
		held = false
	}
	var errs []error
	if held {
		errs = append(errs, r.AgentsErr)
		for i := range r.Agents {
			if c := &r.Agents[i]; c.State == "running" || c.State == "restarting" {
				fail("revived", c.Subject()+" runs although the fence holds", "fire the switch again, and look for what starts it: a unit, a compose project, somebody", c.State, harden.SeverityCritical)
				v[len(v)-1].Subject = c.Subject()
			}
		}
	}
	return v.verdict(errors.Join(errs...), at(harden.LevelInspected, source, fmt.Sprintf("readable and released, epoch %d", r.Fence.Epoch), "readable"))
}

// judgeDrilled judges whether it was tried, not long ago, and worked.
func judgeDrilled(_ context.Context, r SwitchReview) (harden.Verdict, error) {
	const id = "access.kill_drilled"
	if r.DrillsErr != nil && len(r.Drills) == 0 {
		return harden.Verdict{}, r.DrillsErr
	}
	var v violations
	source := r.Switch.Dir + "/drills"
	fail := func(kind, message, observed string) {
		v = append(v, harden.Finding{
			ID: id + "." + kind, Message: message, Remedy: remedyDrill,
			Evidence: []harden.Evidence{at(harden.LevelProbed, source, observed, "a drill of every target that passed in the last "+r.Switch.MaxDrill.String())},
		})
	}
	var passed []harden.Evidence
	required := append([]string{killswitch.VariantNormal}, r.Switch.Variants...)
	others := r.drilledBeside(required)
	for _, variant := range slices.Concat(required, others) {
		d := r.last(variant)
		if d == nil {
			message := fmt.Sprintf("the switch was never drilled (variant %s)", printableText(variant))
			if len(r.Forged) > 0 {
				message += fmt.Sprintf("; %s are not signed by its key", some(r.Forged))
			}
			fail("never", message, "none")
			continue
		}
		before := len(v)
		age := r.Now.Sub(d.Time)
		what := fmt.Sprintf("the last drill (variant %s, %s)", printableText(variant), stamp(d.Time))
		old := age > r.Switch.MaxDrill
		switch {
		case old && slices.Contains(required, variant):
			fail("old", fmt.Sprintf("%s is older than %v", what, r.Switch.MaxDrill), stamp(d.Time))
		case age < -time.Minute:
			fail("old", what+" is in the future: look at the clock", stamp(d.Time))
		}
		if !d.Passed {
			fail("failed", what+" has not passed: "+printableText(some(d.Why)), "not passed")
		} else {
			for _, why := range r.unproven(d) {
				fail("unproven", what+" says that it has passed, and does not show it: "+printableText(why), why)
			}
		}
		if r.Switch.Real && !d.Real && variant == killswitch.VariantNormal {
			fail("canary", what+" was of a canary, and not of the agent", "a canary")
		}
		if len(d.Left) > 0 {
			fail("left", what+" has left something behind: "+printableText(some(d.Left)), "not released")
		}
		if len(v) == before && !old {
			observed := summary(d)
			if len(required)+len(others) == 1 {
				observed += "; never with anything broken"
			}
			passed = append(passed, at(harden.LevelProbed, source, observed, "every target seen on before, and off after"))
		}
	}
	return v.verdict(r.DrillsErr, passed...)
}

// drilledBeside returns the other variants that were drilled. Nobody asks for
// them; but what did not work the last time that it was tried does not work.
func (r *SwitchReview) drilledBeside(required []string) []string {
	var others []string
	for _, d := range r.Drills {
		if !slices.Contains(required, d.Variant) && !slices.Contains(others, d.Variant) {
			others = append(others, d.Variant)
		}
	}
	slices.Sort(others)
	return others
}

// last returns the last drill of a variant.
func (r *SwitchReview) last(variant string) *killswitch.Drill {
	for _, d := range slices.Backward(r.Drills) {
		if d.Variant == variant {
			return d
		}
	}
	return nil
}

func summary(d *killswitch.Drill) string {
	var slowest time.Duration
	for _, t := range d.Targets {
		slowest = max(slowest, t.ConfirmedAfter)
	}
	of := "a canary"
	if d.Real {
		of = "the agent"
	}
	return fmt.Sprintf("drilled %s with %s (variant %s): %d targets, the last confirmed off after %v", stamp(d.Time), of, printableText(d.Variant), len(d.Targets), slowest)
}

// unproven returns what a drill that is said to have passed does not show:
// that everything that is armed was on, was stopped by what would stop it, and
// was seen to be off by what would see it. Where something was broken, targets
// may be missing that have nothing to do with it, or cannot be stopped then; but
// what was broken must not have worked.
func (r *SwitchReview) unproven(d *killswitch.Drill) []string {
	var why []string
	no := func(format string, args ...any) { why = append(why, fmt.Sprintf(format, args...)) }
	if len(d.Targets) == 0 {
		no("it has no target")
	}
	if d.Variant == killswitch.VariantNormal && len(d.Broken)+len(d.Lost) > 0 {
		no("something was broken, which in this variant nothing is")
	}
	byName := func(all []killswitch.TargetResult, name string) *killswitch.TargetResult {
		i := slices.IndexFunc(all, func(t killswitch.TargetResult) bool { return t.Name == name })
		if i < 0 {
			return nil
		}
		return &all[i]
	}
	for i := range d.Targets {
		t := &d.Targets[i]
		if slices.Contains(d.Lost, t.Name) {
			continue // it is not to be confirmed
		}
		if t.State != killswitch.Confirmed {
			no("target %s is %s", t.Name, t.State)
			continue
		}
		if b := byName(d.Before, t.Name); b == nil || len(b.Observers) == 0 {
			no("target %s was not seen to be on before", t.Name)
		} else {
			for _, o := range b.Observers {
				if o.Remaining == 0 && !slices.Contains(d.Broken, o.Observer) {
					no("target %s: %s did not see it on before", t.Name, o.Observer)
				}
			}
		}
		if !slices.ContainsFunc(t.Tried, func(a killswitch.Attempt) bool { return acted(t, a) }) {
			no("target %s: nothing stopped it", t.Name)
		}
		for _, o := range t.Observers {
			if o.Looks == 0 || o.Remaining > 0 || o.Error != "" || o.Abandoned {
				no("target %s: %s did not see it off", t.Name, o.Observer)
			}
		}
		if len(t.Observers) == 0 {
			no("target %s: nobody looked", t.Name)
		}
	}
	if len(d.Lost) > 0 && len(d.Lost) >= len(d.Targets) {
		no("every target was given up beforehand")
	}
	if d.Variant != killswitch.VariantNormal {
		why = append(why, notBroken(d)...)
	}
	if r.Armed == nil {
		return why // what is armed is another check's to say
	}
	part := 0
	for _, armed := range r.Armed.Targets {
		t := byName(d.Targets, armed.Name)
		if t == nil {
			if d.Variant == killswitch.VariantNormal {
				no("target %s was not part of it", armed.Name)
			}
			continue
		}
		part++
		if slices.Contains(d.Lost, armed.Name) {
			continue
		}
		for _, o := range armed.Observers {
			if !slices.ContainsFunc(t.Observers, func(l killswitch.LookResult) bool { return l.Observer == o.Name }) && !slices.Contains(d.Broken, o.Name) {
				no("target %s: %s, which is armed, did not look", armed.Name, o.Name)
			}
		}
		if !slices.ContainsFunc(t.Tried, func(a killswitch.Attempt) bool {
			return slices.ContainsFunc(armed.Actuators, func(b killswitch.ArmedActuator) bool { return a.Actuator == b.Name })
		}) {
			no("target %s: nothing that is armed was tried", armed.Name)
		}
	}
	if part == 0 && len(r.Armed.Targets) > 0 {
		no("nothing that is armed was part of it")
	}
	return why
}

// notBroken returns what shows that the circumstances of a drill were not those
// that it says.
func notBroken(d *killswitch.Drill) []string {
	var why []string
	no := func(format string, args ...any) { why = append(why, fmt.Sprintf(format, args...)) }
	if len(d.Broken) == 0 {
		no("nothing was broken")
	}
	if slices.Contains(d.Broken, "trail") && d.Trail.Recorded {
		no("the trail is said to be broken, and has recorded it")
	}
	for _, t := range d.Targets {
		if t.State == killswitch.Confirmed && slices.Contains(d.Lost, t.Name) {
			no("target %s is confirmed, though its last way is said to be broken", t.Name)
		}
		for _, a := range t.Tried {
			if slices.Contains(d.Broken, a.Actuator) && a.Returned > 0 && a.Error == "" && !a.Abandoned {
				no("target %s: %s is said to be broken, and worked", t.Name, a.Actuator)
			}
		}
		for _, o := range t.Observers {
			if slices.Contains(d.Broken, o.Observer) && o.Looks > 0 && o.Error == "" {
				no("target %s: %s is said to be broken, and worked", t.Name, o.Observer)
			}
		}
	}
	return why
}

// restartsActuator is the actuator that keeps the engine, compose and systemd
// from starting a container again.
const restartsActuator = "container.restarts"

// judgeRestarts judges whether something would start the agent again after it
// was stopped.
func judgeRestarts(_ context.Context, r SwitchReview) (harden.Verdict, error) {
	const id = "access.kill_restarts"
	if r.AgentsErr != nil {
		return harden.Verdict{}, r.AgentsErr
	}
	if len(r.Agents) == 0 {
		return harden.Verdict{}, errors.New("there is no container of the agent's to look at")
	}
	why := r.restartsNotDefeated()
	var v violations
	revivers := 0
	for i := range r.Agents {
		c := &r.Agents[i]
		var by []string
		if p := c.RestartPolicy; p != "" && p != "no" {
			by = append(by, "its restart policy ("+printableText(p)+")")
		}
		if c.ManagedBy != "" {
			by = append(by, printableText(c.ManagedBy))
		}
		if len(by) == 0 {
			continue
		}
		revivers++
		if why != "" {
			v = append(v, harden.Finding{
				ID: id, Subject: c.Subject(),
				Message:  fmt.Sprintf("%s would start it again after it was stopped: %s", strings.Join(by, " and "), why),
				Remedy:   "arm a target with " + restartsActuator + " (package harden/container/halt), or give the container no restart policy and start it by what asks the fence",
				Evidence: []harden.Evidence{at(harden.LevelDeclared, c.Subject(), strings.Join(by, ", "), "nothing that revives it, or a switch that keeps it from doing so")},
			})
		}
	}
	observed := fmt.Sprintf("none of %d containers has anything that revives it", len(r.Agents))
	if revivers > 0 {
		observed = fmt.Sprintf("%d of %d containers have something that revives them, which %s is armed against", revivers, len(r.Agents), restartsActuator)
	}
	return v.verdict(nil, at(harden.LevelDeclared, "the engine", observed, "nothing starts it again"))
}

// restartsNotDefeated says why the switch does not keep the agent from being
// started again, or returns "".
func (r *SwitchReview) restartsNotDefeated() string {
	switch {
	case r.Armed == nil:
		return "the switch is not known to be armed"
	case r.Now.Sub(r.Armed.Time) > r.Switch.MaxArmed || r.Armed.Time.Sub(r.Now) > time.Minute:
		return "the switch was not armed lately"
	}
	for _, t := range r.Armed.Targets {
		for _, a := range t.Actuators {
			if a.Name == restartsActuator && a.Error == "" && (!a.Needed || !a.Prepared.IsZero()) {
				return ""
			}
		}
	}
	return "the switch has nothing armed against that"
}

// acted reports whether an attempt came to its end, and did what it is for, or
// all of that but for what it names as open.
func acted(t *killswitch.TargetResult, a killswitch.Attempt) bool {
	if a.Returned == 0 || a.Abandoned {
		return false
	}
	return a.Error == "" || slices.ContainsFunc(t.Open, func(o killswitch.Open) bool { return o.Said == a.Actuator })
}
