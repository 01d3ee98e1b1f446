package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/harden/container/docker"
	"github.com/managemyclaw/hardshell/killswitch"
)

// A variant is the circumstances that a kill is rehearsed in.
type variant struct {
	name   string
	what   string // it is like
	passes string // what a drill that has passed shows

	// accounts says that it is about those at Composio: in a row of drills it
	// gets those of the canary, which others leave alone.
	accounts bool

	before func(*rehearsal, context.Context) error // the targets are made; or nil
	after  func(*rehearsal)                        // they are; or nil
}

// allVariants stands for each of them.
const allVariants = "all"

// variants are in the order of a row of drills: the first leaves the canary's
// accounts as they are, and the last revokes them.
var variants = []*variant{
	{
		name: "composio-down", what: "Composio takes connections, and does not answer",
		passes:   "what is on this machine is off, and the accounts are not said to be",
		accounts: true, before: (*rehearsal).composioDown, after: (*rehearsal).composioLost,
	},
	{
		name: "docker-hung", what: "the engine, tried first, does not answer",
		passes: "the kernel alone has stopped the container",
		before: (*rehearsal).dockerHung, after: (*rehearsal).engineFirst,
	},
	{
		name: "nft-refused", what: "the kernel refuses nftables to the program",
		passes: "the network was cut without, while the canary was still alive",
		before: (*rehearsal).nftRefused, after: (*rehearsal).cutWithout,
	},
	{
		name: "trail-down", what: "the trail does not answer",
		passes: "it went off all the same, and the trail is not said to have it",
		before: (*rehearsal).trailDown,
	},
	{
		name: killswitch.VariantNormal, what: "everything works",
		passes:   "everything is off, and the trail has it",
		accounts: true,
	},
}

// variantOf returns the variant of a name, or of several, which are joined by
// commas or, in what was written down, by dots; nil if there is none.
func variantOf(name string) *variant {
	names := strings.FieldsFunc(name, func(r rune) bool { return r == ',' || r == '.' })
	var parts []*variant
	for _, v := range variants {
		if slices.Contains(names, v.name) {
			parts = append(parts, v)
		}
	}
	switch {
	case len(parts) != len(names) || len(names) == 0:
		return nil
	case len(parts) == 1:
		return parts[0]
	case slices.ContainsFunc(parts, func(v *variant) bool { return v.name == killswitch.VariantNormal }):
		return nil // in which nothing is broken
	}
	return together(parts)
}

// together is several variants at once.
func together(parts []*variant) *variant {
	all := &variant{
		before: func(s *rehearsal, ctx context.Context) error {
			for _, v := range parts {
				if v.before == nil {
					continue
				}
				if err := v.before(s, ctx); err != nil {
					return err
				}
			}
			return nil
		},
		after: func(s *rehearsal) {
			for _, v := range parts {
				if v.after != nil {
					v.after(s)
				}
			}
		},
	}
	var names, whats, passes []string
	for _, v := range parts {
		names, whats, passes = append(names, v.name), append(whats, v.what), append(passes, v.passes)
		all.accounts = all.accounts || v.accounts
	}
	all.name, all.what, all.passes = strings.Join(names, "."), strings.Join(whats, "; and "), strings.Join(passes, "; and ")
	return all
}

func variantUsage() string {
	var b strings.Builder
	b.WriteString("`NAME` of the circumstances, or several that are so at once, with commas:")
	for _, v := range variants {
		fmt.Fprintf(&b, "\n  %-14s %s", v.name, v.what)
	}
	fmt.Fprintf(&b, "\n  %-14s each of these, one after the other; the canary is started in between", allVariants)
	return b.String()
}

// chosen returns the variants of a name, which must be possible with what there
// is of the canary.
func (p *program) chosen(name string, c canary) ([]*variant, error) {
	if name == allVariants {
		all := variants
		switch {
		case c.user != "":
		case p.composioKey != "":
			return nil, usageError("--variant all: give --canary-user too, since there is a Composio that can be down")
		default:
			fmt.Fprintf(p.stderr, "%s is not drilled: there is no Composio (see --composio-key-file).\n", all[0].name)
			all = all[1:]
		}
		return all, nil
	}
	v := variantOf(name)
	switch {
	case v == nil:
		return nil, usageError("there is no such variant: " + name)
	case v.accounts && v.name != killswitch.VariantNormal && c.user == "":
		return nil, usageError("--variant " + name + ": give --canary-user, whose accounts cannot be revoked then")
	}
	return []*variant{v}, nil
}

// A rehearsal is a kill that is tried out: what stands for the agent, and the
// circumstances.
type rehearsal struct {
	*program
	killswitch.Rehearsal

	agent  string
	canary canary
	fence  *killswitch.Fence

	gear    killSwitch
	through *docker.Engine // what the drill has for an engine
	cutter  *cutter

	recorder   trail.Recorder
	unrecorded bool // by the trail itself

	composioOutage *outage
	cleanup        []func()
}

// newRehearsal sets the circumstances of a variant, and makes what is stopped in
// them.
func (p *program) newRehearsal(ctx context.Context, agent string, c canary, v *variant) (*rehearsal, error) {
	fence, err := p.fence()
	if err != nil {
		return nil, err
	}
	// What is undone after a drill are rules that an agent may be held by.
	if err := fence.Fenced(ctx, agent); err != nil {
		return nil, fmt.Errorf("the agent is stopped, and nothing is rehearsed meanwhile: %w", err)
	}
	own := *p
	s := &rehearsal{program: &own, agent: agent, canary: c, fence: fence, recorder: p.trail(), through: p.engine}
	s.Variant = v.name
	if v.before != nil {
		err = v.before(s, ctx)
	}
	if err == nil {
		err = s.targets(ctx)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	if v.after != nil {
		v.after(s)
	}
	s.inOrder()
	return s, nil
}

// close ends the circumstances.
func (s *rehearsal) close() {
	if s.cutter != nil {
		s.gear.close()
	}
	for _, clean := range s.cleanup {
		clean()
	}
}

// composioDown has Composio be down once the first thing is done to the
// canary: before, its accounts must be seen.
func (s *rehearsal) composioDown(context.Context) error {
	o, err := newOutage()
	if err != nil {
		return err
	}
	s.composioOutage = o
	s.cleanup = append(s.cleanup, o.close)
	s.composioVia = o.transport
	return nil
}

// lostTime is how long is tried what cannot be done.
const lostTime = 2 * time.Second

func (s *rehearsal) composioLost() {
	for i := range s.Targets {
		t := &s.Targets[i]
		if t.Name != composioTarget {
			continue
		}
		t.Timeout = lostTime
		for j, a := range t.Ladder[0].Actuators {
			s.Broken = append(s.Broken, a.Name())
			t.Ladder[0].Actuators[j] = &struck{a, s.composioOutage}
		}
		for _, o := range t.Observers {
			s.Broken = append(s.Broken, o.Name())
		}
		s.Lost = append(s.Lost, t.Name)
	}
}

// dockerHung has what is asked be an engine that one can connect to, and that
// says nothing. The canary has no restart policy meanwhile: it is the engine
// that can switch it off, and the canary's own is not hung.
func (s *rehearsal) dockerHung(ctx context.Context) error {
	settings, err := s.inspectCanary(ctx, s.canary)
	if err != nil {
		return err
	}
	if policy := settings.RestartPolicy; policy != "" && policy != "no" {
		if err := s.engine.SetRestartPolicy(ctx, settings.ID, "no"); err != nil {
			return err
		}
		s.cleanup = append(s.cleanup, func() {
			if err := restorePolicy(context.WithoutCancel(ctx), s.engine, settings.ID, policy); err != nil {
				fmt.Fprintf(s.stderr, "The canary: %s\n", printable(err.Error()))
			}
		})
	}
	dir, err := os.MkdirTemp("", "hardshell-drill-")
	if err != nil {
		return err
	}
	s.cleanup = append(s.cleanup, func() { os.RemoveAll(dir) })
	ln, err := net.Listen("unix", filepath.Join(dir, "hung.sock"))
	if err != nil {
		return err
	}
	s.cleanup = append(s.cleanup, func() { ln.Close() })
	s.through, err = docker.Open("unix://" + filepath.Join(dir, "hung.sock"))
	return err
}

// engineFirst tries the ways of the engine, which hangs, before those of the
// kernel. It leaves out what only the engine can do.
func (s *rehearsal) engineFirst() {
	const patience = 200 * time.Millisecond
	var targets []killswitch.Target
	for _, t := range s.Targets {
		if len(t.Ladder) < 2 {
			targets = append(targets, t)
			continue
		}
		if t.Name == restartsTarget {
			continue
		}
		engine := t.Ladder[1]
		engine.Patience = patience
		t.Ladder = []killswitch.Rung{engine, t.Ladder[0]}
		targets = append(targets, t)
		s.Broken = append(s.Broken, engine.Actuators[0].Name())
	}
	s.Targets = targets
}

// trailName is what a rehearsal calls the trail.
const trailName = "trail"

// trailDown has the trail of the drill be one that somebody else has open, and
// does not let go of. The program's own serves others, and hears of the drill
// afterwards.
func (s *rehearsal) trailDown(context.Context) error {
	dir, err := os.MkdirTemp("", "hardshell-drill-")
	if err != nil {
		return err
	}
	s.cleanup = append(s.cleanup, func() { os.RemoveAll(dir) })
	other := *s.program
	other.stateDir, other.pins = dir, ""
	held, _, _, err := other.book(programTrail).open(trail.Config{SegmentBytes: trailSegment})
	if err != nil {
		return err
	}
	s.cleanup = append([]func(){func() { held.Close() }}, s.cleanup...)
	s.recorder, s.unrecorded = other.trail(), true
	s.Broken = append(s.Broken, trailName)
	return nil
}

// nftRefused makes sure that the kernel can be had to refuse.
func (s *rehearsal) nftRefused(ctx context.Context) error {
	err := (&refusal{s.netns, s.canary.label()}).Do(ctx)
	if !errors.Is(err, errNFTRefused) {
		return errors.Join(errors.New("the kernel does not refuse nftables to the program, as it should here"), err)
	}
	return nil
}

// refusedPatience is how long the lock of another program has.
const refusedPatience = 5 * time.Second

// cutWithout has the network be cut by a program that nftables are refused to.
func (s *rehearsal) cutWithout() {
	r := &refusal{s.netns, s.gear.lock.Label}
	s.cutter.do = func(ctx context.Context) error {
		all, err := workloads(s.gear.written, sourceTime)(ctx)
		return errors.Join(err, r.cut(ctx, all))
	}
	for i := range s.Targets {
		if t := &s.Targets[i]; t.Name == egressTarget {
			// What is refused is not waited for: the lock must do without.
			first := killswitch.Rung{Actuators: []killswitch.Actuator{r}, Patience: killswitch.NoWait}
			t.Ladder = append([]killswitch.Rung{first}, t.Ladder...)
			for j := range t.Ladder {
				if t.Ladder[j].Actuators[0] == killswitch.Actuator(s.cutter) {
					t.Ladder[j].Patience = refusedPatience // it is a program that has to start
				}
			}
		}
	}
	s.Broken = append(s.Broken, r.Name())
}
