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

	"github.com/managemyclaw/hardshell/harden/container/docker"
	"github.com/managemyclaw/hardshell/harden/container/halt"
	"github.com/managemyclaw/hardshell/killswitch"
)

const dockerHung = "docker-hung"

// variants are the circumstances that a kill is rehearsed in.
var variants = map[string]string{
	killswitch.VariantNormal: "everything works",
	dockerHung:               "the container engine does not answer",
}

// drill is the command of that name: it stops a canary as kill would stop the
// agent, and keeps what was seen for point 13.
func (p *program) drill(ctx context.Context, args []string) (int, error) {
	var (
		canary, users string
		variant       string
		real          bool
	)
	err := p.parse("drill", args, func(fs *flag.FlagSet) {
		p.switchFlags(fs)
		fs.StringVar(&canary, "canary", "", "`NAME` of a running container that is stopped in place of the agent's")
		fs.StringVar(&users, "canary-user", "", "`USER` at Composio whose accounts are revoked in place of all")
		fs.StringVar(&variant, "variant", killswitch.VariantNormal, "circumstances: "+strings.Join(slices.Sorted(maps.Keys(variants)), " or "))
		fs.BoolVar(&real, "real", false, "stop the agent itself: it stays stopped until it is reset")
	})
	switch {
	case err != nil:
		return exitUsage, err
	case (canary == "") != real:
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
		stand, err := p.canary(canary, users, variant, &r)
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

// canary has a rehearsal stop what stands for the agent.
func (p *program) canary(name, users, variant string, r *killswitch.Rehearsal) (*killSwitch, error) {
	s := &killSwitch{}
	engine := p.engine
	if variant == dockerHung {
		var err error
		if engine, err = s.hungEngine(); err != nil {
			return nil, err
		}
	}
	r.Targets = s.containers(p, []string{name}, engine)
	if users != "" {
		t, err := p.composioTarget(strings.Split(users, ","))
		if err != nil || t == nil {
			return nil, errors.Join(usageError("--canary-user: give also --composio-key-file"), err)
		}
		r.Targets = append(r.Targets, *t)
	}
	if variant == dockerHung {
		for _, t := range r.Targets {
			for _, rung := range t.Ladder {
				for _, a := range rung.Actuators {
					if _, ok := a.(*halt.Rung); ok && !slices.Contains(r.Broken, a.Name()) {
						r.Broken = append(r.Broken, a.Name())
					}
				}
			}
		}
	}
	return s, nil
}

func (p *program) writeDrill(d *killswitch.Drill) error {
	if p.format == "json" {
		return p.writeJSON(d)
	}
	var b strings.Builder
	what := "a canary"
	if d.Real {
		what = "the agent"
	}
	fmt.Fprintf(&b, "Drill %s of %s (%s), %s\n\n", d.Variant, what, variants[d.Variant], d.Time.UTC().Format("2006-01-02 15:04:05Z"))
	for _, t := range d.Targets {
		writeTarget(&b, t)
	}
	for _, why := range d.Why {
		fmt.Fprintf(&b, "✗ %s\n", printable(why))
	}
	for _, left := range d.Left {
		fmt.Fprintf(&b, "• left as it is: %s\n", printable(left))
	}
	if d.Passed {
		fmt.Fprintln(&b, "\n▸ Passed.")
	} else {
		fmt.Fprintln(&b, "\n▸ NOT PASSED.")
	}
	_, err := fmt.Fprint(p.stdout, b.String())
	return err
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
