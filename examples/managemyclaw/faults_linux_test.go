package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/killswitch"
)

// A fault is a dependency of the kill switch, and what is wrong with it from the
// moment that the switch is armed.
type fault struct {
	part, kind string
	strike     func(*trial)
}

func (f fault) String() string { return f.part + " " + f.kind }

// Parts of the switch, and what it depends on.
const (
	anEngine    = "engine"
	aComposio   = "composio"
	aGateway    = "gateway"
	aTrail      = "trail"
	aDisk       = "disk"
	aNetfilter  = "netfilter"
	aFreezer    = "freezer"
	aKill       = "kill"
	aPolicy     = "policies"
	anObserver  = "observer of "
	faultStages = 4
)

// kernelParts are what acts without an engine, by the name of the actuator.
var kernelParts = map[string]string{aNetfilter: "egress.lock", aFreezer: "container.freeze", aKill: "container.kill", aPolicy: "container.restarts"}

var faultTargets = []string{"egress", "frozen", processesTarget, restartsTarget, aGateway, aComposio}

// allFaults are the faults that the whole switch must bear, alone and in pairs.
// What is lied about is what an actuator is told: a target whose only source
// lies to actuator and observer alike cannot be known to be on by anybody, which
// is why Composio lies here about what it does, and not about what there is; and
// why no observer lies, for none of these targets has two. Nobody looks after the
// trail: the receipt has its word.
func allFaults() []fault {
	all := []fault{
		{anEngine, "is dead", (*trial).engineDies},
		{anEngine, "hangs", (*trial).engineHangs},
		{anEngine, "refuses", engineIn(engineRefuses)},
		{anEngine, "says it is done", engineIn(engineShams)},
		{anEngine, "says there is no such container", engineIn(engineDenies)},

		{aComposio, "fails", composioIn(composioFails)},
		{aComposio, "hangs", composioIn(composioHangs)},
		{aComposio, "says it is revoked", composioIn(composioShams)},

		{aGateway, "is down", (*trial).gatewayGoes},
		{aGateway, "hangs", doorIn(doorHangs)},
		{aGateway, "denies at one door", (*trial).gatewayBlind},

		{aTrail, "fails", (*trial).trailInTheWay},
		{aTrail, "hangs", func(r *trial) { r.trail.fault.Store(hangs) }},
		{aTrail, "keeps nothing", func(r *trial) { r.trail.fault.Store(lies) }},

		{aDisk, "is full", (*trial).diskFills},
		{aDisk, "is read-only", (*trial).diskReadOnly},
		{aDisk, "hangs", (*trial).diskHangs},
		{aDisk, "has the fence locked", (*trial).fenceLocked},

		{aNetfilter, "is flushed at once", (*trial).flushed},
		{aFreezer, "is thawed again and again", (*trial).thawed},
	}
	for _, part := range []string{aNetfilter, aFreezer, aKill, aPolicy} {
		for _, kind := range []string{fails, hangs, lies} {
			all = append(all, fault{part, kind, func(r *trial) { r.actuators[kernelParts[part]].fault.Store(kind) }})
		}
	}
	for _, target := range faultTargets {
		for _, kind := range []string{fails, hangs} {
			all = append(all, fault{anObserver + target, kind, func(r *trial) { r.observers[target].fault.Store(kind) }})
		}
	}
	return all
}

// faultPairs are pairs of faults of different parts: all of them, or few in which
// each part has its turn.
func faultPairs(all []fault, every bool) (pairs []setting) {
	if every {
		for i, f := range all {
			for _, g := range all[i+1:] {
				if f.part != g.part {
					pairs = append(pairs, setting{set: []fault{f, g}})
				}
			}
		}
		return pairs
	}
	rest := slices.Clone(all)
	rng := rand.New(rand.NewPCG(6, 0))
	rng.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	var one []fault
	had := make(map[string]bool)
	for _, f := range rest {
		if had[f.part] {
			continue
		}
		had[f.part] = true
		if one = append(one, f); len(one) == 2 {
			pairs = append(pairs, setting{set: one})
			one = nil
		}
	}
	return pairs
}

// everythingFails are all layers that could stop the agent at once: then it
// streams on, and nothing may be said to be off.
func everythingFails(all []fault, kind string) (set []fault) {
	for _, f := range all {
		engine := map[string]string{fails: "refuses", hangs: "hangs", lies: "says it is done"}[kind]
		if f.part == anEngine && f.kind == engine || kernelParts[f.part] != "" && f.kind == kind {
			set = append(set, f)
		}
	}
	return set
}

// Whatever one or two of the things fail, hang or lie that the switch depends
// on: each target that has a way left is stopped and confirmed in time, nothing
// is called confirmed that is on, and a kill always comes to its end, with a
// receipt that says what came of it. What is on is for the lab to say: its sink,
// the process table, the engine's own word once it has come back, the tokens
// that providers take, and calls through the gateway.
//
// With HARDSHELL_FAULTS=all, it is all pairs, and each fault also where nobody
// has armed the switch; HARDSHELL_FAULTS_STAGES says how many labs share them.
func TestFaults(t *testing.T) {
	all := allFaults()
	every := os.Getenv("HARDSHELL_FAULTS") == "all"
	settings := []setting{{}}
	if every {
		settings = append(settings, setting{cold: true})
	}
	for _, f := range all {
		settings = append(settings, setting{set: []fault{f}})
		if every {
			settings = append(settings, setting{set: []fault{f}, cold: true})
		}
	}
	for _, kind := range []string{fails, hangs, lies} {
		settings = append(settings, setting{set: everythingFails(all, kind)})
	}
	pairs := faultPairs(all, every)
	rand.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
	settings = append(settings, pairs...)
	stages := faultStages
	if n, err := strconv.Atoi(os.Getenv("HARDSHELL_FAULTS_STAGES")); err == nil && n > 0 {
		stages = n
	}
	work := make(chan setting, len(settings))
	for _, s := range settings {
		work <- s
	}
	close(work)
	var mu sync.Mutex
	runs := 0
	var wg sync.WaitGroup // not t.Parallel: they wait more than they do
	for i := range stages {
		wg.Go(func() {
			t.Run(strconv.Itoa(i+1), func(t *testing.T) {
				st := newStage(t)
				for s := range work {
					if !t.Run(s.String(), func(t *testing.T) { st.try(t, s) }) {
						st.renew(t) // it may have ended anywhere
					}
					mu.Lock()
					runs++
					mu.Unlock()
				}
			})
		})
	}
	wg.Wait()
	t.Logf("%d runs of %d", runs, len(settings))
}

// A setting is a set of faults, as what is left in spite of them; and whether
// the switch was never armed.
type setting struct {
	set  []fault
	cold bool
}

func (s setting) String() string {
	var words []string
	for _, f := range s.set {
		words = append(words, f.String())
	}
	text := strings.Join(words, " and ")
	if text == "" {
		text = "everything works"
	}
	if s.cold {
		text += ", not armed"
	}
	return text
}

func (s setting) works(part string) bool {
	return !slices.ContainsFunc(s.set, func(f fault) bool { return f.part == part })
}

func (s setting) has(part string, kinds ...string) bool {
	return slices.ContainsFunc(s.set, func(f fault) bool { return f.part == part && slices.Contains(kinds, f.kind) })
}

// revives reports whether the engine lives and cannot be told to let it be: then
// it starts again what has been killed.
func (s setting) revives() bool {
	return s.has(anEngine, "refuses", "says it is done", "says there is no such container") && s.works(aKill)
}

// durable reports whether the disk takes the fence. One that is full does once the
// switch was armed, for then the record is there, and is written over.
func (s setting) durable() bool {
	return !s.has(aDisk, "is read-only", "hangs") && !(s.cold && s.has(aDisk, "is full"))
}

// recorded reports whether the trail has, or says that it has, what happens.
func (s setting) recorded() bool {
	return s.has(aTrail, "keeps nothing") || s.works(aTrail) && (s.works(aDisk) || s.has(aDisk, "has the fence locked"))
}

// acts reports whether any layer is left that can silence the agent.
func (s setting) acts() bool {
	return s.works(anEngine) || s.works(aNetfilter) || s.works(aFreezer) || s.works(aKill)
}

// must reports whether a target has to be confirmed: there is a way left to stop
// it, and its observer sees. How long all takes that has not been prepared, nobody
// has promised.
func (s setting) must(target string) bool {
	if s.cold || !s.works(anObserver+target) {
		return false
	}
	engine, dead := s.works(anEngine), s.works(anEngine) || s.works(aKill) && !s.revives()
	switch target {
	case "egress": // what is started again has a network of its own, which nobody knows yet
		return dead || s.works(aNetfilter) && !s.revives()
	case "frozen", processesTarget:
		return dead
	case restartsTarget: // which an engine may have back that was not seen to the end of it
		return engine && s.works(aPolicy)
	case aGateway:
		return s.works(aGateway) && s.durable()
	case aComposio:
		return s.works(aComposio)
	}
	panic(target)
}

// mustNot reports whether nobody could see that a target is off.
func (s setting) mustNot(target string) bool {
	switch {
	case !s.works(anObserver + target):
		return true
	case target == restartsTarget:
		return !s.works(anEngine) // nobody else forgets a policy
	case target == aGateway:
		return !s.works(aGateway)
	case target == aComposio:
		return !s.works(aComposio)
	}
	return false
}

// Times of the targets and of what is tried in them, shorter than in earnest.
const (
	faultTimeout  = 3 * time.Second
	faultPatience = 600 * time.Millisecond
	faultLook     = 1500 * time.Millisecond

	faultFence = time.Second
	faultTrail = 2 * time.Second

	// faultEnd is when any kill has come to its end: the fence on a disk that
	// hangs, the time of the targets, a look that hangs and the last one that
	// does, the trail, the receipt on that disk; and what a busy machine takes.
	faultEnd = faultFence + faultTimeout + 2*faultLook + faultTrail + 4*faultFence + 3*time.Second
)

// judge compares a receipt with the world.
func (s setting) judge(t *testing.T, r *killswitch.Receipt, err error, w *sight) {
	t.Helper()
	if r == nil {
		t.Fatal("no receipt")
	}
	if _, invalid := killswitch.VerifyReceipt(must(encodeReceipt(r)), r.Key); invalid != nil {
		t.Error(invalid)
	}
	if w.took > faultEnd {
		t.Errorf("it took %v", w.took)
	}
	// What an engine starts again that is not known to have been told.
	mayReturn := w.again && target(t, r, restartsTarget).State != killswitch.Confirmed
	all, back := true, false
	for _, name := range faultTargets {
		res := target(t, r, name)
		confirmed := res.State == killswitch.Confirmed
		all = all && confirmed
		switch {
		case confirmed && w.on[name] != "" && mayReturn && slices.Contains([]string{egressTarget, frozenTarget, processesTarget}, name):
			t.Logf("%s was off, and is on again, as the receipt says that it may be: %s", name, w.on[name])
			back = true
		case confirmed && w.on[name] != "":
			t.Errorf("%s is confirmed, and %s: %+v", name, w.on[name], res)
		case confirmed && s.mustNot(name):
			t.Errorf("%s is confirmed, which nobody can have seen: %+v", name, res)
		case !confirmed && s.must(name):
			t.Errorf("%s is %v, and could be stopped: %+v", name, res.State, res)
		case confirmed && res.ConfirmedAfter > faultFence+faultTimeout+2*faultLook:
			t.Errorf("%s was confirmed after %v", name, res.ConfirmedAfter)
		}
		for _, o := range res.Objects {
			on := w.on[o.Name]
			if strings.HasPrefix(o.Name, "container/") {
				on = w.on[name]
			}
			if o.State == killswitch.Confirmed && on != "" && !back {
				t.Errorf("%s: %s is confirmed, and %s", name, o.Name, on)
			}
		}
	}
	if !r.Whole || r.Off() != all || r.Off() && len(w.on) > 0 {
		t.Errorf("whole %v, off %v, all confirmed %v, and on is %v", r.Whole, r.Off(), all, w.on)
	}
	notDurable := errors.Is(err, killswitch.ErrNotDurable)
	if s.has(aDisk, "is full") { // which has no room for the receipt, wherever the fence is
		if !notDurable {
			t.Errorf("the receipt was written to a disk that is full: %v", err)
		}
		notDurable = !r.Fence.Durable
	}
	for what, is := range map[string]struct{ says, is, err bool }{
		"off":     {r.Off(), all, errors.Is(err, killswitch.ErrUnconfirmed)},
		"durable": {r.Fence.Durable, s.durable(), notDurable},
		"trail":   {r.Trail.Recorded, s.recorded(), errors.Is(err, killswitch.ErrTrail)},
	} {
		late := s.cold && !is.says && is.err // it took too long, and says so
		if is.says != is.is && !late || is.err == is.says {
			t.Errorf("%s: the receipt says %v, it is %v, the error is %v", what, is.says, is.is, err)
		}
	}
	if s.acts() && w.streams != "" {
		t.Error(w.streams)
	}
	if !s.acts() && w.streams == "" {
		t.Error("nothing could stop it, and it does not stream: this test shows nothing")
	}
	if t.Failed() {
		t.Logf("%v:\n%v\n%v", s, r, fmt.Sprint(err))
	}
}
