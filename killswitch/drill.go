package killswitch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// DrillSchema is the schema of a [Drill].
const DrillSchema = "hardshell.drill/v1"

// VariantNormal is the [Rehearsal.Variant] in which nothing is broken.
const VariantNormal = "normal"

// A Rehearsal says what is drilled.
type Rehearsal struct {
	// Variant names the circumstances: lower-case words joined by dots or
	// dashes, such as "docker-hung" or "composio-down". Required.
	Variant string

	// Targets are what is stopped: a canary, by real actuators and observers.
	// It must be on. Required unless Real is set.
	Targets []Target

	// Broken names the actuators, observers or the "trail" that this variant
	// has broken. A drill in which one of them worked proves nothing about the
	// variant, and has not passed. Required for all variants but
	// [VariantNormal], which has none.
	Broken []string

	// Lost names the targets that cannot be confirmed in this variant, because
	// their last way is broken. They must not be: whoever confirms them lies.
	// All others must be.
	Lost []string

	// After names, by target, others that must have come to their end before
	// it is begun, because what stops it would stop them too: a container that
	// was killed sends nothing, whether its network was cut or not. They would
	// be confirmed whatever had been done to them. Not for what is Real, where
	// everything is begun at once.
	After map[string][]string

	// Real drills the agent itself: it is stopped, and stays so until it is
	// reset. Targets, if there are any, replace those of the switch, such as
	// with some that are broken.
	Real bool
}

// A Drill is the evidence of a rehearsal. Its JSON is what is signed. Fields
// may be added in later versions.
type Drill struct {
	Schema  string        `json:"schema"`
	Agent   string        `json:"agent"`
	Variant string        `json:"variant"`
	Real    bool          `json:"real"`
	Epoch   uint64        `json:"epoch,omitempty"` // of the kill, if it was real
	Time    time.Time     `json:"time"`            // when it was fired
	By      string        `json:"by,omitempty"`
	Elapsed time.Duration `json:"elapsed_ns"`

	Broken []string            `json:"broken"`
	Lost   []string            `json:"lost"`
	After  map[string][]string `json:"after,omitempty"`

	// Before is what the observers saw on before the drill, by target. The
	// times of Targets count from when each was begun: at Time, but for those
	// that came after others.
	Before  []TargetResult `json:"before"`
	Targets []TargetResult `json:"targets"`
	Trail   TrailResult    `json:"trail"`

	// Passed says that all of it was seen to be on before, and off after, as
	// it should be in this variant. Otherwise Why says what was not.
	Passed bool     `json:"passed"`
	Why    []string `json:"why"`

	// Left is what could not be released afterwards, in words.
	Left []string `json:"left"`

	Key       PublicKey `json:"key"`
	Signature string    `json:"signature,omitempty"`
}

// ErrDrill reports a drill that has not passed.
var ErrDrill = errors.New("killswitch: the drill has not passed")

// Drill stops a canary as [Switch.Fire] would stop the agent, by the same code:
// all targets at the same time, but for those that come after others, ladders,
// observers. It touches neither the fence nor the agent, unless the rehearsal is Real. First every observer must
// see that its target is on: one that cannot tell, or says that it is off
// already, would confirm anything. Afterwards the steps are released.
//
// What came of it is recorded in the trail, and kept where [ReadDrills] finds
// it, also if the drill has not passed; the error then wraps [ErrDrill]. A
// rehearsal that makes no sense is an error, and no drill.
func (s *Switch) Drill(ctx context.Context, r Rehearsal) (*Drill, error) {
	targets, err := s.rehearse(r)
	if err != nil {
		return nil, err
	}
	d := &Drill{
		Schema: DrillSchema, Agent: s.cfg.Agent, Variant: r.Variant, Real: r.Real, By: requester(ctx), Time: time.Now(),
		Broken: orEmpty(r.Broken), Lost: orEmpty(r.Lost), After: maps.Clone(r.After), Why: []string{}, Left: []string{}, Targets: []TargetResult{},
	}
	d.before(ctx, targets, r.Broken)
	if len(d.Why) == 0 {
		if err := s.perform(ctx, d, targets); err != nil {
			d.Why = append(d.Why, problem(err))
		}
	}
	d.judge(targets)
	return d, s.file(d)
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return slices.Clone(list)
}

// rehearse looks through a rehearsal.
func (s *Switch) rehearse(r Rehearsal) ([]*target, error) {
	switch {
	case !isDotted(r.Variant):
		return nil, fmt.Errorf("killswitch: drill: %q is no name of a variant: use lower-case words joined by dashes", bounded(r.Variant, maxName))
	case r.Variant == VariantNormal && len(r.Broken)+len(r.Lost) > 0:
		return nil, errors.New("killswitch: drill: in the variant normal nothing is broken: give it another name")
	case r.Variant != VariantNormal && len(r.Broken) == 0:
		return nil, fmt.Errorf("killswitch: drill: variant %s: name in Broken what is, or nobody can tell that it was", r.Variant)
	case !r.Real && len(r.Targets) == 0:
		return nil, errors.New("killswitch: drill: there is no canary: name its targets, or ask for the real one")
	}
	targets := s.targets
	if len(r.Targets) > 0 {
		var err error
		if targets, err = checkTargets(r.Targets, s.cfg.LookTimeout); err != nil {
			return nil, err
		}
	}
	known := map[string]bool{"trail": true}
	names := make(map[string]bool)
	for _, t := range targets {
		names[t.Name] = true
		for _, r := range t.rungs {
			for _, a := range r.actuators {
				known[a.name] = true
			}
		}
		for _, o := range t.observers {
			known[o.name] = true
		}
	}
	for _, name := range r.Broken {
		if !known[name] {
			return nil, fmt.Errorf("killswitch: drill: variant %s: no actuator or observer is called %q", r.Variant, bounded(name, maxName))
		}
	}
	for _, name := range r.Lost {
		if !names[name] {
			return nil, fmt.Errorf("killswitch: drill: variant %s: no target is called %q", r.Variant, bounded(name, maxName))
		}
	}
	if len(r.Lost) == len(targets) {
		return nil, fmt.Errorf("killswitch: drill: variant %s: every target is lost: there is nothing to prove", r.Variant)
	}
	if err := r.inOrder(names); err != nil {
		return nil, fmt.Errorf("killswitch: drill: variant %s: %w", r.Variant, err)
	}
	return targets, nil
}

// inOrder returns an error unless every target is begun sometime.
func (r *Rehearsal) inOrder(names map[string]bool) error {
	if r.Real && len(r.After) > 0 {
		return errors.New("what is real is stopped all at once: leave After out")
	}
	begun := make(map[string]bool)
	for name, first := range r.After {
		for _, other := range append([]string{name}, first...) {
			if !names[other] {
				return fmt.Errorf("no target is called %q", bounded(other, maxName))
			}
		}
	}
	for len(begun) < len(names) {
		before := len(begun)
		for name := range names {
			if !slices.ContainsFunc(r.After[name], func(other string) bool { return !begun[other] }) {
				begun[name] = true
			}
		}
		if len(begun) == before {
			return errors.New("targets wait for each other: After goes in a circle")
		}
	}
	return nil
}

// before has every observer look, which must see its target on.
func (d *Drill) before(ctx context.Context, targets []*target, broken []string) {
	d.Before = make([]TargetResult, len(targets))
	why := make([][]string, len(targets))
	var looks sync.WaitGroup
	for i, t := range targets {
		looks.Go(func() { d.Before[i], why[i] = t.on(ctx, broken) })
	}
	looks.Wait()
	d.Why = append(d.Why, slices.Concat(why...)...)
}

// on has the observers of a target look, and says which of them do not see
// that it is on.
func (t *target) on(ctx context.Context, broken []string) (r TargetResult, why []string) {
	r = TargetResult{Name: t.Name, State: Failed, Objects: []ObjectResult{}, Open: []Open{}, Tried: []Attempt{}, Observers: make([]LookResult, len(t.observers))}
	seen := make([]said, len(t.observers))
	var looks sync.WaitGroup
	for i, o := range t.observers {
		looks.Go(func() { seen[i] = look(ctx, o, t.lookTimeout) })
	}
	looks.Wait()
	status := make(map[string]string)
	for i, o := range t.observers {
		s := seen[i]
		r.Observers[i] = LookResult{Observer: o.name, Looks: 1, Remaining: len(s.remaining), Error: s.problem, Abandoned: s.abandoned}
		maps.Copy(status, s.remaining)
		switch {
		case slices.Contains(broken, o.name): // it is judged by what it says afterwards
		case s.problem != "":
			r.State = Unconfirmed
			why = append(why, fmt.Sprintf("target %s: before the drill, %s could not look: %s", t.Name, o.name, s.problem))
		case len(s.remaining) == 0:
			r.State = Unconfirmed
			why = append(why, fmt.Sprintf("target %s: before the drill, %s said that it was off: it was, or the observer sees nothing, and so the drill would prove nothing", t.Name, o.name))
		}
	}
	for name, st := range status {
		r.Objects = append(r.Objects, ObjectResult{Name: name, State: Failed, Status: st})
	}
	slices.SortFunc(r.Objects, func(a, b ObjectResult) int { return strings.Compare(a.Name, b.Name) })
	return r, why
}

// perform stops the targets.
func (s *Switch) perform(ctx context.Context, d *Drill, targets []*target) error {
	began := time.Now()
	defer func() { d.Elapsed = time.Since(began) }()
	d.Time = began.UTC().Round(0)
	if d.Real {
		return s.performReal(ctx, d, targets)
	}
	recorded := make(chan error, 1)
	go func() { recorded <- s.record(ctx, d.event(trail.OutcomeBegin)) }()
	d.Targets = make([]TargetResult, len(targets))
	ended := make(map[string]chan struct{})
	for _, t := range targets {
		ended[t.Name] = make(chan struct{})
	}
	var g errgroup.Group
	for i, t := range targets {
		g.Go(func() error {
			defer close(ended[t.Name])
			begun := began
			for _, other := range d.After[t.Name] {
				<-ended[other]
				begun = time.Now()
			}
			d.Targets[i] = t.safely(ctx, func() time.Duration { return time.Since(begun) }, nil, nil)
			return nil
		})
	}
	_ = g.Wait() // the functions return nil
	left := make([]error, len(targets))
	var releasing sync.WaitGroup
	for i, t := range targets {
		releasing.Go(func() { left[i] = t.release(context.WithoutCancel(ctx)) })
	}
	releasing.Wait()
	for _, err := range left {
		if err != nil {
			d.Left = append(d.Left, problem(err))
		}
	}
	err := <-recorded
	if !errors.Is(err, errHangs) {
		e := d.event((&Receipt{Whole: true, Targets: d.Targets}).outcome())
		e.Attrs = (&Receipt{Targets: d.Targets}).attrs()
		err = errors.Join(err, s.record(ctx, e))
	}
	d.Trail = TrailResult{Recorded: err == nil, Error: problem(err)}
	return nil
}

func (s *Switch) performReal(ctx context.Context, d *Drill, targets []*target) error {
	// Nobody joins a kill of targets that may be broken. And no reset comes
	// in between.
	k := newKill(s, Request{Reason: "drill: " + d.Variant, By: d.By, Time: time.Now()}, targets)
	k.requests = 1
	s.mu.Lock()
	s.fires++
	s.acting++
	s.mu.Unlock()
	defer s.leave()
	k.run(context.WithoutCancel(ctx))
	r, err := k.answer(k.request, nil)
	d.Epoch, d.Targets, d.Trail = r.Epoch, r.Targets, r.Trail
	if errors.Is(err, ErrNotDurable) {
		return err
	}
	return nil
}

func (d *Drill) event(outcome trail.Outcome) trail.Event {
	actor := d.By
	if actor == "" {
		actor = "hardshell"
	}
	return trail.Event{
		Kind: trail.KindDrill, Time: time.Now(), Actor: actor, Agent: d.Agent, Subject: "agent/" + d.Agent,
		ID: d.Variant, Outcome: outcome, Message: "drill: " + d.Variant,
	}
}

// judge says whether the drill has passed.
func (d *Drill) judge(targets []*target) {
	no := func(format string, args ...any) { d.Why = append(d.Why, fmt.Sprintf(format, args...)) }
	if len(d.Targets) != len(targets) {
		if len(d.Why) == 0 {
			no("not all targets were drilled")
		}
		return
	}
	for _, t := range d.Targets {
		lost := slices.Contains(d.Lost, t.Name)
		switch {
		case lost && t.State == Confirmed:
			no("target %s: it is confirmed, though its last way is broken: the variant was not in effect, or the observer lies", t.Name)
		case !lost && t.State != Confirmed:
			no("target %s: it is %s", t.Name, t.State)
		case !lost && d.onlyBroken(t):
			no("target %s: nothing was tried but what is said to be broken, and it went off: the variant was not in effect", t.Name)
		}
	}
	for _, name := range d.Broken {
		if tried, worked := d.worked(name); !tried {
			no("%s is said to be broken, and was not tried", name)
		} else if worked {
			no("%s is said to be broken, and worked: the variant was not in effect", name)
		}
	}
	if !d.Trail.Recorded && !slices.Contains(d.Broken, "trail") {
		no("it is not in the trail: %s", d.Trail.Error)
	}
	d.Passed = len(d.Why) == 0
}

// onlyBroken reports whether everything that was tried is said to be broken.
func (d *Drill) onlyBroken(t TargetResult) bool {
	return len(t.Tried) > 0 && !slices.ContainsFunc(t.Tried, func(a Attempt) bool { return !slices.Contains(d.Broken, a.Actuator) })
}

// worked reports whether an actuator, an observer or the trail was tried, and
// did what it is for.
func (d *Drill) worked(name string) (tried, worked bool) {
	if name == "trail" {
		return true, d.Trail.Recorded
	}
	for _, t := range d.Targets {
		for _, a := range t.Tried {
			if a.Actuator == name {
				tried = true
				worked = worked || a.Error == "" && !a.Abandoned && a.Returned > 0
			}
		}
		for _, o := range t.Observers {
			if o.Observer == name {
				tried = true
				worked = worked || o.Error == ""
			}
		}
	}
	return tried, worked
}

func drillDir(dir, agent string) string { return filepath.Join(dir, "drills", agent) }

// file signs a drill and keeps it.
func (s *Switch) file(d *Drill) error {
	var errs []error
	if !d.Passed {
		errs = append(errs, fmt.Errorf("%w: %s: %s", ErrDrill, d.Variant, strings.Join(d.Why, "; ")))
	}
	d.Time = d.Time.UTC().Round(0)
	d.Key = s.cfg.Key.Public()
	sig, err := sign(s.cfg.Key, DrillSchema, d)
	d.Signature = sig
	var data []byte
	if err == nil {
		data, err = json.Marshal(d)
	}
	if err == nil {
		name := d.Time.Format("20060102T150405.000000000Z") + "-" + d.Variant + ".json"
		err = s.disk.replace(filepath.Join(drillDir(s.cfg.Dir, s.cfg.Agent), name), append(data, '\n'))
	}
	if err != nil {
		errs = append(errs, fmt.Errorf("%w: the drill: %w", ErrNotDurable, err))
	}
	return errors.Join(errs...)
}

// VerifyDrill reads a drill, which must be signed by a key.
func VerifyDrill(data []byte, key PublicKey) (*Drill, error) {
	d := new(Drill)
	if err := verify(key, DrillSchema, data, d); err != nil {
		return nil, err
	}
	return d, nil
}

// ReadDrills returns the drills of an agent, in order, in the directory of its
// switch, [Config.Dir]. Unless the key is zero, each must be signed by it; the
// error joins one for each that is not, or cannot be read, and the others are
// returned beside it.
func ReadDrills(dir, agent string, key PublicKey) ([]*Drill, error) {
	if !isAgent(agent) {
		return nil, fmt.Errorf("killswitch: drills: %w: %q", ErrAgent, bounded(agent, maxName))
	}
	entries, err := os.ReadDir(drillDir(dir, agent))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("killswitch: drills: %w", err)
	}
	var drills []*Drill
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		d, err := readDrill(filepath.Join(drillDir(dir, agent), e.Name()), agent, key)
		if err != nil {
			errs = append(errs, fmt.Errorf("killswitch: drill %s: %w", e.Name(), err))
			continue
		}
		drills = append(drills, d)
	}
	slices.SortStableFunc(drills, func(a, b *Drill) int { return a.Time.Compare(b.Time) })
	return drills, errors.Join(errs...)
}

func readDrill(name, agent string, key PublicKey) (*Drill, error) {
	data, err := readFile(name)
	if err != nil {
		return nil, err
	}
	d := new(Drill)
	if key.IsZero() {
		err = decode(DrillSchema, data, d)
	} else {
		d, err = VerifyDrill(data, key)
	}
	if err == nil && d.Agent != agent {
		err = fmt.Errorf("it is that of %s", bounded(d.Agent, maxName))
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}
