package hardshell_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/audit/report"
	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container/docker"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/harden/openclaw"
)

// Audit the machine's OpenClaw container, put right what fails, and audit it
// again.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	engine, err := docker.Open("unix:///var/run/docker.sock")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer engine.Close()
	agent := &openclaw.Deployment{
		Engine: engine, Containers: []string{"openclaw"}, Profile: openclaw.Profile(),
		Control: engine, StateDir: "/var/lib/hardshell/recreate",
	}
	machine := host.Local()

	fixer := &harden.Fixer{Trail: &trail.Lines{W: os.Stderr}}
	fixes, err := fixer.Fix(ctx, machine, nil, agent.Checks()...)
	for _, f := range fixes {
		fmt.Println(f.Before.Info.ID, f.Changed, f.Err)
	}
	if err != nil {
		fmt.Println(err)
	}
	r, err := new(audit.Auditor).Run(ctx, &machine.View, agent.Checks()...)
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = report.Text(os.Stdout, r)
}

// A check of one's own is a function. What it cannot see is an error, and
// becomes unknown.
func Example_check() {
	motd := harden.New(harden.Info{ID: "example.motd", Title: "The machine greets nobody"},
		func(_ context.Context, v *host.View) (harden.Verdict, error) {
			data, err := v.ReadFile("/etc/motd")
			if err != nil {
				return harden.Verdict{}, err
			}
			seen := harden.Evidence{Source: "/etc/motd", Observed: fmt.Sprintf("%d bytes", len(data))}
			if len(data) > 0 {
				return harden.Fail(harden.Finding{Subject: "/etc/motd", Message: "it greets", Evidence: []harden.Evidence{seen}}), nil
			}
			return harden.Pass(seen), nil
		})
	res := harden.Evaluate(context.Background(), &host.View{}, motd, 0)
	fmt.Println(res.Status, res.Detail)
	// Output: unknown open /etc/motd: host: no access to a machine
}
