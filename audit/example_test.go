package audit_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

func ExampleAuditor_Run() {
	sshRoot := harden.New(harden.Info{
		ID: "ssh.root_login", Title: "SSH root login is off", Severity: harden.SeverityHigh,
	}, func(context.Context, *host.View) (harden.Verdict, error) {
		return harden.Fail(harden.Finding{Subject: "/etc/ssh/sshd_config", Message: "PermitRootLogin is yes"}), nil
	})
	ufw := harden.New(harden.Info{
		ID: "network.ufw", Point: harden.PointUFW, Title: "UFW denies by default", Needs: host.AdminNetwork,
	}, func(context.Context, *host.View) (harden.Verdict, error) {
		return harden.Pass(harden.Evidence{Source: "nf_tables", Observed: "policy drop", Level: harden.LevelInspected}), nil
	})

	auditor := audit.Auditor{
		Timeout: 10 * time.Second,
		Waivers: []audit.Waiver{{
			ID:      "ssh.root_login",
			Owner:   "ops@example.com",
			Reason:  "the console is the only other way in",
			Expires: time.Now().AddDate(0, 1, 0),
		}},
	}
	// The zero View has access to nothing; host.Local gives this machine.
	report, err := auditor.Run(context.Background(), &host.View{}, sshRoot, ufw)
	if err != nil {
		fmt.Println(err) // the checks or waivers are malformed
		return
	}
	for _, r := range report.Results {
		fmt.Printf("%s: %v\n", r.Info.ID, r.Status)
	}
	fmt.Printf("%d of %d points pass, %d unknown\n", report.Score.Passed, report.Score.Total, report.Score.Unknown)
	fmt.Println("worst:", report.Worst())
	// Output:
	// ssh.root_login: waived
	// network.ufw: unknown
	// audit.waivers: pass
	// 0 of 14 points pass, 14 unknown
	// worst: unknown
}

func ExampleParseWaivers() {
	waivers, err := audit.ParseWaivers(strings.NewReader(`[{
		"id": "container.read_only",
		"scope": "container/build-*",
		"owner": "ops@example.com",
		"reason": "compiles into its root until the volume is there",
		"expires": "2030-06-30"
	}]`))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(waivers[0], "until", waivers[0].Expires.Format(time.RFC3339))

	_, err = audit.ParseWaivers(strings.NewReader(`[{"id": "container.read_only", "expires": "never"}]`))
	fmt.Println(err)
	// Output:
	// container.read_only for container/build-* until 2030-07-01T00:00:00Z
	// audit: waiver 1 ("container.read_only"): field "expires" is "never": write a date such as "2030-12-31" or a time such as "2030-12-31T18:00:00Z"
}
