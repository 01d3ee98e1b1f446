package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/harden/container/docker"
	"github.com/managemyclaw/hardshell/harden/container/halt"
	"github.com/managemyclaw/hardshell/killswitch"
)

const dockerHung = "docker-hung"

// variants are the circumstances that a kill is rehearsed in.
var variants = map[string]string{
	killswitch.VariantNormal: "everything works",
	dockerHung:               "the engine, tried first, does not answer",
}

// drill is the command of that name: it stops a canary as kill would stop the
// agent, and keeps what was seen for point 13.
func (p *program) drill(ctx context.Context, args []string) (int, error) {
	var (
		c       canary
		variant string
		real    bool
	)
	err := p.parse("drill", args, func(fs *flag.FlagSet) {
		p.switchFlags(fs)
		c.add(fs)
		fs.StringVar(&variant, "variant", killswitch.VariantNormal, "circumstances: "+strings.Join(slices.Sorted(maps.Keys(variants)), " or "))
		fs.BoolVar(&real, "real", false, "stop the agent itself: it stays stopped until it is reset")
	})
	switch {
	case err != nil:
		return exitUsage, err
	case (c.container == "") != real:
		return exitUsage, usageError("say what is stopped: a container that stands for the agent's, with --canary, or the agent itself, with --real")
	case variants[variant] == "":
		return exitUsage, usageError("there is no such variant: " + variant)
	case real && variant != killswitch.VariantNormal:
		return exitUsage, usageError("what is real is drilled as it is: leave --variant out")
	}
	s, err := p.openSwitch()
	if err != nil {
		return exitUsage, err
	}
	defer s.close()
	r := killswitch.Rehearsal{Variant: variant, Real: real}
	if !real {
		stand, err := p.canary(c, variant, &r)
		if err != nil {
			return exitUsage, err
		}
		defer stand.close()
	}
	drill, err := s.Drill(killswitch.WithRequester(ctx, p.operator()), r)
	if drill == nil {
		return exitUsage, err
	}
	if lost := p.writeDrill(drill); lost != nil {
		return exitFail, errors.Join(err, lost)
	}
	if !drill.Passed {
		return exitFail, nil // and why not is shown
	}
	if err != nil {
		return exitFail, err
	}
	return exitPass, nil
}

// A canary is what stands for the agent.
type canary struct{ container, user, agent, token string }

func (c *canary) add(fs *flag.FlagSet) {
	fs.StringVar(&c.container, "canary", "", "`NAME` of a running container that is stopped in place of the agent's; best on a network\nof its own, since who shares its bridge is cut off with it meanwhile")
	fs.StringVar(&c.user, "canary-user", "", "`USER` at Composio whose accounts are revoked in place of all")
	fs.StringVar(&c.agent, "canary-agent", "", "`NAME` of an agent in the policy whom the gateway denies in place of the agent")
	fs.StringVar(&c.token, "canary-token-file", "", "`FILE` with a token of that agent's")
}

// canary has a rehearsal stop what stands for the agent.
func (p *program) canary(c canary, variant string, r *killswitch.Rehearsal) (*killSwitch, error) {
	s := &killSwitch{}
	engine := p.engine
	if variant == dockerHung {
		var err error
		if engine, err = s.hungEngine(); err != nil {
			return nil, err
		}
	}
	r.Targets = s.containers(p, []string{c.container}, engine)
	for i := range r.Targets {
		first := r.Targets[i].Ladder[0].Actuators
		if keep, ok := first[0].(*halt.KeepDown); ok {
			policy, err := p.restartPolicy(c.container)
			if err != nil {
				return nil, err
			}
			first[0] = &spared{keep, p, c.container, policy}
		}
	}
	if c.user != "" {
		t, err := p.composioTarget([]string{c.user})
		if err != nil || t == nil {
			return nil, errors.Join(usageError("--canary-user: give also --composio-key-file"), err)
		}
		r.Targets = append(r.Targets, *t)
	}
	if c.agent != "" {
		t, err := p.gatewayTarget(c.agent, c.token)
		if err != nil || t == nil {
			return nil, errors.Join(usageError("--canary-agent: give also --canary-token-file and --gateway-url"), err)
		}
		t.Ladder[0].Actuators[0] = &brief{t.Ladder[0].Actuators[0].(*denial)}
		r.Targets = append(r.Targets, *t)
	}
	if variant == dockerHung {
		engineFirst(r)
	}
	return s, nil
}

func (p *program) writeDrill(d *killswitch.Drill) error {
	if p.format == "json" {
		return p.writeJSON(d)
	}
	var b strings.Builder
	width, _ := terminalWidth(p.stdout)
	what := "a canary"
	if d.Real {
		what = "the agent"
	}
	wrap(&b, width, "Drill ", fmt.Sprintf("%s of %s, %s: %s", d.Variant, what, d.Time.UTC().Format(time.RFC3339), variants[d.Variant]))
	b.WriteByte('\n')
	for _, t := range d.Targets {
		writeTarget(&b, width, t)
	}
	for _, why := range d.Why {
		wrap(&b, width, "✗ ", why)
	}
	for _, left := range d.Left {
		wrap(&b, width, "• left as it is: ", left)
	}
	if d.Passed {
		fmt.Fprintln(&b, "\n▸ Passed.")
	} else {
		fmt.Fprintln(&b, "\n▸ NOT PASSED.")
	}
	_, err := fmt.Fprint(p.stdout, b.String())
	return err
}

func (p *program) restartPolicy(name string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
	defer cancel()
	found, err := p.engine.Containers(ctx, name)
	if err != nil {
		return "", err
	}
	return found[0].RestartPolicy, nil
}

// spared is what switches a canary's restart policy off for as long as the drill
// takes. To have it back starts nothing.
type spared struct {
	*halt.KeepDown

	p         *program
	container string
	policy    string
}

// Release implements [killswitch.Releaser].
func (s *spared) Release(ctx context.Context) error {
	if s.policy == "" || s.policy == "no" {
		return nil
	}
	return s.p.engine.SetRestartPolicy(ctx, s.container, s.policy)
}

// engineFirst has a rehearsal try the ways of the engine, which hangs, before
// those of the kernel. It leaves out what only the engine can do.
func engineFirst(r *killswitch.Rehearsal) {
	const patience = 200 * time.Millisecond
	var targets []killswitch.Target
	for _, t := range r.Targets {
		if len(t.Ladder) < 2 {
			targets = append(targets, t)
			continue
		}
		if t.Name == restartsTarget {
			continue // for a canary in this variant has no policy
		}
		engine := t.Ladder[1]
		engine.Patience = patience
		t.Ladder = []killswitch.Rung{engine, t.Ladder[0]}
		targets = append(targets, t)
		r.Broken = append(r.Broken, engine.Actuators[0].Name())
	}
	r.Targets = targets
}

// hungEngine is an engine that one can connect to, and that says nothing.
func (s *killSwitch) hungEngine() (*docker.Engine, error) {
	dir, err := os.MkdirTemp("", "hardshell-drill-")
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "hung.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	s.cleanup = func() {
		ln.Close()
		os.Remove(dir)
	}
	return docker.Open("unix://" + socket)
}

// brief is the denial of a canary, which is over when the drill is.
type brief struct{ *denial }

// Release implements [killswitch.Releaser]. The second secret of a canary is no
// secret: it is in the state directory.
func (b *brief) Release(ctx context.Context) error {
	state, err := b.fence.State(b.agent)
	if err != nil || !state.Engaged() {
		return err
	}
	name := filepath.Join(b.p.stateDir, "canary.secret")
	if !killswitch.HasResetSecret(b.p.stateDir, b.agent) {
		secret := killswitch.GenerateResetSecret()
		if err := writeAtomic(name, secret+"\n", 0o600); err != nil {
			return err
		}
		if err := killswitch.SetResetSecret(b.p.stateDir, b.agent, secret); err != nil {
			return err
		}
	}
	secret, _, err := readSecret(name)
	if err != nil {
		return err
	}
	s, err := killswitch.New(killswitch.Config{Agent: b.agent, Dir: b.p.stateDir, Trail: b.p.trail(), Targets: []killswitch.Target{{
		Name: "canary", Ladder: []killswitch.Rung{one(b.denial)}, Observers: []killswitch.Observer{harmless{}},
	}}})
	if err != nil {
		return err
	}
	return s.Reset(ctx, state.Epoch, secret.Reveal())
}

// harmless is what there is to see of an agent that is only a name.
type harmless struct{}

func (harmless) Name() string                                         { return "canary.name" }
func (harmless) Remaining(context.Context) (map[string]string, error) { return nil, nil } //nolint:nilnil // there is none
