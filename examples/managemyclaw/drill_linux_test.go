package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/composio/composiotest"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/access"
	"github.com/managemyclaw/hardshell/harden/container/halt"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/killswitch"
)

// A cage is a canary beside an agent that runs, and Composio.
type cage struct {
	*runaway

	composio *composiotest.Server
	program  *program
	out      bytes.Buffer
	canary   canary
}

const (
	canaryName = "bird"
	agentUser  = "ann"
)

func newCage(t *testing.T) *cage {
	t.Helper()
	t.Setenv(mainVar, "1") // for what the program starts of itself
	c := &cage{runaway: newRunaway(t), composio: composiotest.New(composiotest.Config{}), canary: canary{container: canaryName, user: canaryName}}
	c.composio.AddAccount(composiotest.Account{ID: "ca_mail", UserID: agentUser})
	c.composio.AddAccount(composiotest.Account{ID: "ca_bird", UserID: canaryName})
	if err := c.composio.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.composio.Close() })
	c.docker(t, "network", "create", canaryName)
	c.hatch(t)
	c.program = c.runaway.program(t)
	c.program.stdout = &c.out
	c.program.composioURL, c.program.composioKey = c.composio.URL, filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(c.program.composioKey, []byte(composiotest.ProjectKey), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// hatch runs a canary.
func (c *cage) hatch(t *testing.T) {
	t.Helper()
	c.docker(t, "run", "-d", "--name", canaryName, "--network", canaryName, "--restart", "always", lab.UserImage)
}

// drill is the command, but for its flags.
func (c *cage) drill(t *testing.T, variant string) (int, []*killswitch.Drill) {
	t.Helper()
	c.out.Reset()
	c.program.format = "json"
	chosen, err := c.program.chosen(variant, c.canary)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.program.standsFor(t.Context(), runawayName, c.canary); err != nil {
		t.Fatal(err)
	}
	code, err := c.program.drillAll(t.Context(), runawayName, c.canary, chosen)
	if err != nil {
		t.Error(err)
	}
	var drills []*killswitch.Drill
	if len(chosen) > 1 {
		err = json.Unmarshal(c.out.Bytes(), &drills)
	} else {
		drills = []*killswitch.Drill{{}}
		err = json.Unmarshal(c.out.Bytes(), drills[0])
	}
	if err != nil {
		t.Fatalf("%v:\n%s", err, c.out.String())
	}
	return code, drills
}

// unharmed asserts that a drill was one of the canary, and has left nothing.
func (c *cage) unharmed(t *testing.T) {
	t.Helper()
	c.flowing(t)
	for _, a := range c.composio.Accounts() {
		if a.UserID == agentUser && len(a.Live) == 0 {
			t.Errorf("account %s of the agent's is revoked", a.ID)
		}
	}
	out, err := c.Host.Command(t.Context(), "sh", "-c", "{ nft list ruleset; iptables-save; ip6tables-save; } 2>/dev/null | grep -i hardshell || true").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("what is left of rules: %v\n%s", err, out)
	}
	if got := c.docker(t, "inspect", "-f", "{{.HostConfig.RestartPolicy.Name}} {{range $n, $_ := .NetworkSettings.Networks}}{{$n}}{{end}} {{.State.Running}}", canaryName); got != "always "+canaryName+" false" {
		t.Errorf("the canary is left with %s", got)
	}
}

func (c *cage) live(user string) bool {
	return slices.ContainsFunc(c.composio.Accounts(), func(a composiotest.Account) bool { return a.UserID == user && len(a.Live) > 0 })
}

// In each of the circumstances the canary is stopped, and nothing is said to be
// that is not; the agent runs on.
func TestDrillVariants(t *testing.T) {
	c := newCage(t)
	for _, name := range []string{runawayName, c.docker(t, "inspect", "-f", "{{.Id}}", runawayName)[:12]} {
		err := c.program.standsFor(t.Context(), "another", canary{container: name})
		if _, ok := errors.AsType[usageError](err); !ok {
			t.Errorf("%s is the agent's, and may be its canary: %v", name, err)
		}
	}
	c.atOnce(t)
	// While nftables are refused, somebody else keeps the lock.
	watching, stop := context.WithCancel(t.Context())
	seen := make(chan bool, 1)
	go func() {
		found := false
		for watching.Err() == nil && !found {
			out, _ := c.Host.Command(watching, "iptables-save", "-t", "raw").CombinedOutput()
			found = inChain.Match(out)
			time.Sleep(5 * time.Millisecond)
		}
		seen <- found
	}()
	code, drills := c.drill(t, allVariants)
	stop()
	if !<-seen {
		t.Error("iptables did not keep the lock, when nftables were refused")
	}
	if code != exitPass || len(drills) != len(variants) {
		t.Errorf("exit %d, %d drills", code, len(drills))
	}
	for i, d := range drills {
		t.Logf("%s, in %v: %s", d.Variant, d.Elapsed, c.summary(d))
		if d.Variant != variants[i].name || !d.Passed || len(d.Left) > 0 {
			t.Errorf("%s: passed %t: %q, left %q", d.Variant, d.Passed, d.Why, d.Left)
		}
		for _, r := range d.Targets {
			if lost := slices.Contains(d.Lost, r.Name); lost == (r.State == killswitch.Confirmed) || lost != (d.Variant == "composio-down" && r.Name == composioTarget) {
				t.Errorf("%s: %s is %v, lost %t", d.Variant, r.Name, r.State, lost)
			}
			if d.Variant == "trail-down" && r.ConfirmedAfter > killswitch.DefaultTrailTimeout {
				t.Errorf("%s waited for the trail: %v", r.Name, r.ConfirmedAfter)
			}
		}
		if recorded := d.Trail.Recorded; recorded == (d.Variant == "trail-down") {
			t.Errorf("%s: recorded %t", d.Variant, recorded)
		}
	}
	c.unharmed(t)
	if c.live(canaryName) {
		t.Error("the canary's account is not revoked")
	}
	c.believed(t)
	key, err := c.program.switchKey()
	if err != nil {
		t.Fatal(err)
	}
	stored, err := killswitch.ReadDrills(c.program.stateDir, runawayName, key.Public())
	if err != nil || len(stored) != len(drills)+1 {
		t.Errorf("%d are stored, %v", len(stored), err)
	}
	b := c.program.book(programTrail)
	public, err := b.publicKey()
	if err != nil {
		t.Fatal(err)
	}
	r, err := trail.OpenReader(t.Context(), os.DirFS(b.dir), public)
	if err != nil {
		t.Fatal(err)
	}
	recorded := map[string]bool{}
	for rec, err := range r.Records(t.Context(), trail.Query{Kind: trail.KindDrill}) {
		if err != nil {
			t.Fatal(err)
		}
		if rec.Event.Outcome == trail.OutcomeOK || rec.Event.ID == "composio-down" {
			recorded[rec.Event.ID] = true
		}
	}
	if len(recorded) != len(variants)+1 {
		t.Errorf("in the trail are %v", slices.Sorted(maps.Keys(recorded)))
	}
}

// atOnce asserts that what is on this machine goes off while everything else is
// down.
func (c *cage) atOnce(t *testing.T) {
	t.Helper()
	code, drills := c.drill(t, "trail-down,docker-hung,composio-down")
	d := drills[0]
	t.Logf("%s, in %v: %s", d.Variant, d.Elapsed, c.summary(d))
	if code != exitPass || !d.Passed || d.Variant != "composio-down.docker-hung.trail-down" || d.Trail.Recorded || !slices.Equal(d.Lost, []string{composioTarget}) {
		t.Errorf("%s: exit %d, passed %t: %q", d.Variant, code, d.Passed, d.Why)
	}
	if !c.live(canaryName) {
		t.Error("the canary's account is revoked by a Composio that is down")
	}
	c.unharmed(t)
}

// believed asserts that point 13 takes the drills for what they are.
func (c *cage) believed(t *testing.T) {
	t.Helper()
	if _, err := c.program.newSwitch(t).Arm(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.program.agent = runawayName
	switches, err := c.program.switches()
	if err != nil || len(switches) != 1 {
		t.Fatal(switches, err)
	}
	for _, v := range variants {
		if v.name != killswitch.VariantNormal {
			switches[0].Variants = append(switches[0].Variants, v.name)
		}
	}
	for _, check := range access.Checks(access.Config{Switches: switches}) {
		if check.Info().ID != "access.kill_drilled" {
			continue
		}
		r := harden.Evaluate(t.Context(), &host.Local().View, check, time.Minute)
		if r.Status != harden.StatusPass || len(r.Evidence) != len(variants)+1 {
			t.Errorf("point 13: %+v", r)
		}
	}
}

func (c *cage) summary(d *killswitch.Drill) string {
	var parts []string
	for _, r := range d.Targets {
		var tried []string
		for _, a := range r.Tried {
			tried = append(tried, a.Actuator)
		}
		parts = append(parts, r.Name+" "+r.State.String()+" "+r.ConfirmedAfter.String()+" by "+strings.Join(tried, ", "))
	}
	return strings.Join(parts, "; ")
}

var inChain = regexp.MustCompile(`-A HARDSHELL-KILL-IN-[0-9A-F]{8} -i br-`)

// A drill passes by nothing but what it says: where the circumstances are not
// what they should be, or something is not stopped by what is to stop it, or not
// put back, it has not passed.
func TestDrillSabotaged(t *testing.T) {
	c := newCage(t)
	target := func(s *rehearsal, name string) *killswitch.Target {
		for i := range s.Targets {
			if r := &s.Targets[i]; r.Name == name {
				// Nobody need wait for what will not do.
				for j := range r.Ladder {
					r.Ladder[j].Patience = min(r.Ladder[j].Patience, time.Second)
				}
				r.Timeout = 4 * time.Second
				return r
			}
		}
		t.Fatalf("there is no target %s", name)
		return nil
	}
	// idle keeps the first rung of a target, which then does nothing.
	idle := func(s *rehearsal, name, actuator string) {
		r := target(s, name)
		r.Ladder = r.Ladder[:1]
		r.Ladder[0].Actuators = []killswitch.Actuator{lazy(actuator)}
	}
	for name, sabotage := range map[string]struct {
		variant string
		do      func(*rehearsal)
		why     string
	}{
		"a lock that does nothing": {killswitch.VariantNormal, func(s *rehearsal) { idle(s, egressTarget, "egress.lock") }, "target egress: it is "},
		"an engine that is not hung": {"docker-hung", func(s *rehearsal) {
			// An engine that is slow would have the next step be tried too.
			r := target(s, processesTarget)
			r.Ladder = r.Ladder[:1]
			r.Ladder[0].Actuators[0].(*halt.Rung).Tracker = &halt.Tracker{Agent: halt.Agent{Names: []string{canaryName}}, Engine: s.engine}
		}, "nothing was tried but what is said to be broken"},
		"Composio that is not down": {"composio-down", func(s *rehearsal) {
			struck := target(s, composioTarget).Ladder[0].Actuators[0].(*struck)
			struck.outage = &outage{}
		}, "target composio: it is confirmed, though its last way is broken"},
		"a trail that is not down": {"trail-down", func(s *rehearsal) { s.recorder = trail.Discard }, "trail is said to be broken, and worked"},
		"nobody to keep the lock": {"nft-refused", func(s *rehearsal) {
			s.cutter.do = func(context.Context) error { return errors.New("there is no iptables") }
			r := target(s, egressTarget)
			r.Ladder = r.Ladder[:len(r.Ladder)-1]
		}, "target egress: it is failed"},
		"nftables that are not refused": {"nft-refused", func(s *rehearsal) {
			r := target(s, egressTarget)
			r.Ladder[0] = one(lazy("egress.nftables"))
		}, "egress.nftables is said to be broken, and worked"},
	} {
		t.Run(name, func(t *testing.T) {
			c.composio.AddAccount(composiotest.Account{ID: "ca_" + strconv.Itoa(len(c.composio.Accounts())), UserID: canaryName})
			c.docker(t, "rm", "-f", canaryName)
			c.hatch(t)
			with, v := c.canary, variantOf(sabotage.variant)
			if !v.accounts || sabotage.variant == killswitch.VariantNormal {
				with.user = ""
			}
			s, err := c.program.newRehearsal(t.Context(), runawayName, with, v)
			if err != nil {
				t.Fatal(err)
			}
			defer s.close()
			sabotage.do(s)
			d, err := s.perform(t.Context())
			if d == nil {
				t.Fatal(err)
			}
			if d.Passed || !errors.Is(err, killswitch.ErrDrill) || !strings.Contains(strings.Join(d.Why, "\n"), sabotage.why) {
				t.Errorf("passed %t: %q, %v: %s", d.Passed, d.Why, err, c.summary(d))
			}
		})
	}
	c.flowing(t)
}

// A lazy actuator does nothing, and says that it has.
type lazy string

func (l lazy) Name() string             { return string(l) }
func (l lazy) Do(context.Context) error { return nil }
