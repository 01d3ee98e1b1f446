package report_test

import (
	"fmt"
	"os"
	"time"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/audit/report"
	"github.com/managemyclaw/hardshell/harden"
)

// sample is a report on a machine where one thing was looked at, and was wrong.
func sample() *audit.Report {
	return audit.NewReport(time.Date(2026, 3, 1, 9, 30, 0, 0, time.UTC), 1500*time.Millisecond, []audit.Result{{
		Result: harden.Result{
			Info:   harden.Info{ID: "container.non_root", Point: harden.PointNonRoot, Title: "No process runs as root"},
			Status: harden.StatusFail,
			Findings: []harden.Finding{{
				Subject:  "container/openclaw",
				Message:  "process 4711 (node) runs as root",
				Remedy:   "Set user: \"1000:1000\" and recreate the container.",
				Severity: harden.SeverityHigh,
			}},
		},
	}})
}

func ExampleText() {
	if err := report.Text(os.Stdout, sample()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// ✗  1 Non-root user
	//      • container/openclaw: process 4711 (node) runs as root [high]
	//      → Set user: "1000:1000" and recreate the container.
	//
	// ?  2 Read-only filesystem
	// ?  3 All capabilities dropped
	// ?  4 No engine socket
	// ?  5 No new privileges
	// ?  6 Localhost binding
	// ?  7 UFW firewall
	// ?  8 DOCKER-USER chain
	// ?  9 Tailscale VPN
	// ? 10 Composio OAuth
	// ? 11 Encrypted vault
	// ? 12 Full audit trail
	// ? 13 Kill switch
	// ? 14 Tool allowlists
	//      ? not implemented: no check covers this point
	//      → Add a check for this point to the audit.
	//
	// ✗ Docker       fail: Non-root user · unknown: Read-only filesystem, All
	//                capabilities dropped, No engine socket, No new privileges
	// ? Firewall     unknown: Localhost binding, UFW firewall, DOCKER-USER chain,
	//                Tailscale VPN
	// ? OAuth        unknown: Composio OAuth, Encrypted vault
	// ? Permissions  unknown
	// ? Kill switch  unknown
	// ? Audit log    unknown
	//
	// ▸ Security score: 0/14 — 1 fail, 13 unknown.
}
