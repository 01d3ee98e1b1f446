package killswitch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// ArmedSchema is the schema of [Armed].
const ArmedSchema = "hardshell.armed/v1"

// Armed says what would act and what would confirm if the agent were stopped
// now. Its JSON is what is signed. Fields may be added in later versions.
type Armed struct {
	Schema  string        `json:"schema"`
	Agent   string        `json:"agent"`
	Time    time.Time     `json:"time"` // when arming ended
	Elapsed time.Duration `json:"elapsed_ns"`
	Targets []ArmedTarget `json:"targets"`

	// Findings are what is not as it should be, in words. A preparation that
	// has become too old is found by [Armed.Check].
	Findings []string `json:"findings"`

	Key       PublicKey `json:"key"`
	Signature string    `json:"signature,omitempty"`
}

// An ArmedTarget says what would stop a target, and confirm it.
type ArmedTarget struct {
	Name      string          `json:"name"`
	Actuators []ArmedActuator `json:"actuators"`
	Observers []ArmedObserver `json:"observers"`
	Objects   []string        `json:"objects"` // that the observers name
}

// A Preparation is what came of letting something prepare itself.
type Preparation struct {
	// Needed says that there is something to prepare: it is an [Armer].
	Needed bool `json:"needed"`

	// Prepared is when it succeeded last, in this process. Zero if never.
	Prepared time.Time     `json:"prepared,omitzero"`
	Elapsed  time.Duration `json:"elapsed_ns"` // of the last attempt
	Error    string        `json:"error,omitempty"`
}

// An ArmedActuator is an actuator that would act.
type ArmedActuator struct {
	Rung int    `json:"rung"` // from 1
	Name string `json:"name"`
	Preparation
}

// An ArmedObserver is an observer that would confirm. It was also asked to
// look.
type ArmedObserver struct {
	Name string `json:"name"`
	Preparation

	Remaining int           `json:"remaining"` // what it found on
	LookError string        `json:"look_error,omitempty"`
	Looked    time.Duration `json:"looked_ns"` // how long that took
}

// Check returns what is wrong at a time: the findings, and what was prepared
// longer ago than maxAge.
func (a *Armed) Check(now time.Time, maxAge time.Duration) []string {
	findings := append([]string(nil), a.Findings...)
	stale := func(what string, at time.Time) {
		switch age := now.Sub(at); {
		case age > maxAge:
			findings = append(findings, fmt.Sprintf("%s was prepared at %s, more than %v ago: arm again", what, at.UTC().Format(time.RFC3339), maxAge))
		case age < -time.Minute:
			findings = append(findings, fmt.Sprintf("%s was prepared at %s, in the future: look at the clock", what, at.UTC().Format(time.RFC3339)))
		}
	}
	stale("the switch", a.Time)
	for _, t := range a.Targets {
		for _, p := range t.Actuators {
			if p.Needed && !p.Prepared.IsZero() {
				stale(fmt.Sprintf("target %s: %s", t.Name, p.Name), p.Prepared)
			}
		}
		for _, p := range t.Observers {
			if p.Needed && !p.Prepared.IsZero() {
				stale(fmt.Sprintf("target %s: %s", t.Name, p.Name), p.Prepared)
			}
		}
	}
	return findings
}

// VerifyArmed reads what is armed, which must be signed by a key.
func VerifyArmed(data []byte, key PublicKey) (*Armed, error) {
	a := new(Armed)
	if err := verify(key, ArmedSchema, data, a); err != nil {
		return nil, err
	}
	return a, nil
}

// ReadArmed returns what [Switch.Arm] wrote last for an agent into the
// directory of its switch, [Config.Dir]. Unless the key is zero, it must be
// signed by it. The error wraps [fs.ErrNotExist] if there is nothing.
func ReadArmed(dir, agent string, key PublicKey) (*Armed, error) {
	if !isAgent(agent) {
		return nil, fmt.Errorf("killswitch: armed: %w: %q", ErrAgent, bounded(agent, maxName))
	}
	data, err := readFile(armedFile(dir, agent))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("killswitch: %s was never armed: %w", agent, err)
	case err != nil:
		return nil, fmt.Errorf("killswitch: armed: %w", err)
	}
	a := new(Armed)
	if key.IsZero() {
		err = decode(ArmedSchema, data, a)
	} else {
		a, err = VerifyArmed(data, key)
	}
	if err == nil && a.Agent != agent {
		err = fmt.Errorf("killswitch: armed: %s is that of %s", armedFile(dir, agent), bounded(a.Agent, maxName))
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

func armedFile(dir, agent string) string { return filepath.Join(dir, "armed", agent+".json") }

// Arm has everything prepare itself that can, all at once and each for at most
// [Config.ArmTimeout], and has the observers look once. It does nothing to the
// agent. What comes of it is kept where [ReadArmed] finds it.
//
// The error says that it could not be kept. What would be missing when it
// counts is in [Armed.Findings].
func (s *Switch) Arm(ctx context.Context) (*Armed, error) {
	began := time.Now()
	a := &Armed{Schema: ArmedSchema, Agent: s.cfg.Agent, Targets: make([]ArmedTarget, len(s.targets)), Findings: []string{}}
	var wg sync.WaitGroup
	for i, t := range s.targets {
		at := &a.Targets[i]
		at.Name, at.Objects = t.Name, []string{}
		for n, r := range t.rungs {
			for _, act := range r.actuators {
				at.Actuators = append(at.Actuators, ArmedActuator{Rung: n + 1, Name: act.name})
			}
		}
		at.Observers = make([]ArmedObserver, len(t.observers))
		n := 0
		for _, r := range t.rungs {
			for _, act := range r.actuators {
				p := &at.Actuators[n].Preparation
				n++
				wg.Go(func() { *p = s.prepare(ctx, t.Name+"\x00actuator\x00"+act.name, act.Actuator) })
			}
		}
		for j, o := range t.observers {
			p := &at.Observers[j]
			p.Name = o.name
			wg.Go(func() { s.prepareObserver(ctx, t, o, p) })
		}
	}
	wg.Wait()
	for i, t := range s.targets {
		s.objects(ctx, t, &a.Targets[i])
	}
	a.Time, a.Elapsed = time.Now().UTC().Round(0), time.Since(began)
	a.find(s, s.prepareFence(ctx))
	a.Key = s.cfg.Key.Public()
	sig, err := sign(s.cfg.Key, ArmedSchema, a)
	a.Signature = sig
	var data []byte
	if err == nil {
		data, err = json.Marshal(a)
	}
	if err == nil {
		err = s.disk.replace(armedFile(s.cfg.Dir, s.cfg.Agent), append(data, '\n'))
	}
	if err != nil {
		return a, fmt.Errorf("%w: what is armed: %w", ErrNotDurable, err)
	}
	return a, nil
}

// prepare has something prepare itself, if it can.
func (s *Switch) prepare(ctx context.Context, id string, what any) Preparation {
	armer, ok := what.(Armer)
	if !ok {
		return Preparation{}
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ArmTimeout)
	defer cancel()
	began := time.Now()
	said := try(ctx, "", armer.Arm)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.prepared[id]
	p.Needed, p.Elapsed, p.Error = true, time.Since(began), said.problem
	if said.problem == "" {
		p.Prepared = time.Now().UTC().Round(0)
	}
	s.prepared[id] = p
	return p
}

func (s *Switch) prepareObserver(ctx context.Context, t *target, o watched, p *ArmedObserver) {
	p.Preparation = s.prepare(ctx, t.Name+"\x00observer\x00"+o.name, o.Observer)
	began := time.Now()
	seen := look(ctx, o, s.cfg.LookTimeout)
	p.Looked, p.Remaining, p.LookError = time.Since(began), len(seen.remaining), seen.problem
}

// objects asks those observers that can name them.
func (s *Switch) objects(ctx context.Context, t *target, at *ArmedTarget) {
	seen := make(map[string]bool)
	for _, o := range t.observers {
		ctx, cancel := context.WithTimeout(ctx, grace)
		named := call(ctx, func(_ context.Context, s *said) {
			s.list(o)
			s.problem = ""
		})
		cancel()
		for _, name := range named.objects {
			if !seen[name] {
				seen[name] = true
				at.Objects = append(at.Objects, name)
			}
		}
	}
}

// find fills in the findings; fence is what is wrong with the fence.
func (a *Armed) find(s *Switch, fence error) {
	add := func(format string, args ...any) { a.Findings = append(a.Findings, fmt.Sprintf(format, args...)) }
	for i, t := range a.Targets {
		for _, lack := range s.targets[i].Lacks {
			add("target %s: %s", t.Name, foreign(lack, maxDetail))
		}
		for _, p := range t.Actuators {
			if p.Error != "" {
				add("target %s: %s is not prepared: %s", t.Name, p.Name, p.Error)
			}
		}
		for _, p := range t.Observers {
			if p.Error != "" {
				add("target %s: %s is not prepared: %s", t.Name, p.Name, p.Error)
			}
			if p.LookError != "" {
				add("target %s: %s cannot look: %s", t.Name, p.Name, p.LookError)
			}
		}
	}
	if !s.cfg.Key.usable() {
		add("there is no key: receipts are not signed")
	}
	if s.cfg.Trail == trail.Discard {
		add("there is no trail: nobody can tell afterwards what was done")
	}
	if !HasResetSecret(s.cfg.Dir, s.cfg.Agent) {
		add("no second secret is set: once stopped, the agent could not be reset")
	}
	if fence != nil {
		add("the fence cannot be relied on: %s", problem(fence))
	}
}

// prepareFence has a kill find a record to write over, and returns why the fence
// could not be engaged durably now.
func (s *Switch) prepareFence(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.FenceTimeout)
	defer cancel()
	if err := s.fence.prepare(ctx, s.cfg.Agent); err != nil {
		return err
	}
	return s.fence.usable()
}

// Keep arms at once, then whenever changed is sent to, and after each
// interval, until ctx ends; it returns why it did. A nil channel is never sent
// to. What comes of it is logged, and is where [ReadArmed] finds it.
func (s *Switch) Keep(ctx context.Context, interval time.Duration, changed <-chan struct{}) error {
	if interval <= 0 {
		return errors.New("killswitch: Keep: the interval must be positive")
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		a, err := s.Arm(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			s.log(ctx, slog.LevelError, "what is armed cannot be written down", "error", problem(err))
		}
		for _, f := range a.Findings {
			s.log(ctx, slog.LevelWarn, "the kill switch is not as it should be", "finding", f)
		}
		select {
		case <-tick.C:
		case _, ok := <-changed:
			if !ok {
				changed = nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
