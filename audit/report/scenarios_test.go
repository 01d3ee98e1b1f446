package report_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/harden"
)

var started = time.Date(2026, 3, 1, 9, 30, 0, 0, time.UTC)

// ids names a check for each point.
var ids = [harden.NumPoints + 1]string{
	"ssh.root_login", "container.non_root", "container.read_only", "container.capabilities", "container.socket",
	"container.no_new_privileges", "network.localhost", "network.ufw", "network.docker_user", "network.tailscale",
	"access.credentials", "access.vault", "access.trail", "access.kill_switch", "access.tools",
}

func info(p harden.Point) harden.Info {
	return harden.Info{
		ID: ids[p], Point: p, Title: p.Title() + " is as it should be",
		Doc: "Why " + p.Slug() + " matters, and what remedies it.", Refs: []string{"CIS Docker 5.1"},
		Severity: harden.SeverityHigh, Requires: p.Level(),
	}
}

func pass(p harden.Point) audit.Result {
	return audit.Result{Result: harden.Result{
		Info: info(p), Status: harden.StatusPass, Level: p.Level(), Elapsed: 1500 * time.Microsecond,
		Evidence: []harden.Evidence{{Source: "/proc/4711/status", Observed: "as it should be", Expected: "as it should be", Level: p.Level()}},
	}}
}

func fail(p harden.Point, findings ...harden.Finding) audit.Result {
	for i := range findings {
		if findings[i].Severity == 0 {
			findings[i].Severity = harden.SeverityHigh
		}
	}
	return audit.Result{Result: harden.Result{Info: info(p), Status: harden.StatusFail, Findings: findings, Elapsed: 2 * time.Millisecond}}
}

func unknown(p harden.Point, reason harden.Reason, detail string) audit.Result {
	return audit.Result{Result: harden.Result{Info: info(p), Reason: reason, Detail: detail, Elapsed: 30 * time.Second}}
}

func waived(r audit.Result) audit.Result {
	r.Status = harden.StatusWaived
	for range r.Findings {
		r.Waivers = append(r.Waivers, &audit.Waiver{
			ID: r.Info.ID, Owner: "ops@example.com", Reason: "the build writes to its root", Expires: started.AddDate(0, 1, 0),
		})
	}
	return r
}

func allPass() []audit.Result {
	var results []audit.Result
	for p := harden.Point(1); p <= harden.NumPoints; p++ {
		results = append(results, pass(p))
	}
	return results
}

// with returns a report in which all points pass but for the results given,
// which take the place of those of their points.
func with(results ...audit.Result) *audit.Report {
	all := allPass()
	for _, r := range results {
		if p := r.Info.Point; p != harden.PointNone {
			all[p-1] = r
		} else {
			all = append(all, r)
		}
	}
	return audit.NewReport(started, 2300*time.Millisecond, all)
}

func crowd(n int, message func(i int) string) []harden.Finding {
	var findings []harden.Finding
	for i := range n {
		findings = append(findings, harden.Finding{
			Subject: fmt.Sprintf("container/worker-%03d", i), Message: message(i),
			Remedy: fmt.Sprintf("Recreate worker-%03d with user 1000:1000.", i),
		})
	}
	return findings
}

const hostileName = "container/\x1b[2J\x1b[1;1Hok\n✓ Docker      \u202eall good\u2066\x00\xff\r▸ Security score: 14/14 — Hardened.]]>&lt;[x](http://evil.example){0}"

// scenarios are the reports that every encoder is tested with.
var scenarios = []struct {
	name   string
	report *audit.Report
}{
	{"hardened", with()},
	{"mixed", with(
		fail(harden.PointNonRoot,
			harden.Finding{
				Subject: "container/openclaw", Message: "process 4711 (node) runs as root", Severity: harden.SeverityCritical,
				Remedy:   "Set user: \"1000:1000\" for the service and recreate the container.",
				Evidence: []harden.Evidence{{Source: "/proc/4711/status", Observed: "Uid: 0 0 0 0", Expected: "no id 0", Level: harden.LevelInspected}},
			},
			harden.Finding{Subject: "container/web", Message: "belongs to the group root"}),
		unknown(harden.PointDockerUser, harden.ReasonTool, `run iptables-save: exec: "iptables-save": executable file not found in $PATH`),
		fail(harden.PointLocalhost, harden.Finding{ID: "network.localhost.published", Subject: "0.0.0.0:18789", Message: "everyone who reaches this machine reaches the gateway"}),
		waived(fail(harden.PointReadOnlyFS, harden.Finding{Subject: "container/build", Message: "the root filesystem is writable"})),
		audit.Result{Result: harden.Result{Info: info(harden.PointTailscale), Status: harden.StatusNotApplicable, Detail: "there is no remote access"}},
		unknown(harden.PointKillSwitch, harden.ReasonEvidence, "the evidence is only declared, and the check requires probed"),
		fail(harden.PointNone, harden.Finding{Subject: "/etc/ssh/sshd_config", Message: "root may log in with a password", Remedy: "Set PermitRootLogin no."}),
	)},
	{"blind", func() *audit.Report {
		var all []audit.Result
		for p := harden.Point(1); p <= harden.NumPoints; p++ {
			missing := "read-processes"
			if p >= harden.PointLocalhost && p <= harden.PointTailscale {
				missing = "admin-network"
			}
			if p != harden.PointVault {
				all = append(all, unknown(p, harden.ReasonPrivilege, "missing privilege: "+missing+" (run as root)"))
			}
		}
		return audit.NewReport(started, 12*time.Millisecond, all)
	}()},
	{"crowd", func() *audit.Report {
		partly := fail(harden.PointCapDropAll, crowd(200, func(i int) string { return fmt.Sprintf("process %d has cap_sys_admin", 1000+i) })...)
		partly.Detail = "container/gone: no such container"
		return with(
			fail(harden.PointNonRoot, crowd(200, func(int) string { return "runs as root" })...),
			partly,
		)
	}()},
	{"hostile", with(
		fail(harden.PointNonRoot, harden.Finding{
			ID: "x\x1b[31m", Subject: hostileName, Message: "\x1b]0;owned\x07runs as\troot" + strings.Repeat("\u0301", 50), Remedy: "\u200bdo\r\nit\x9b1m",
			Evidence: []harden.Evidence{{Source: "\x1b[A", Observed: "\x7f\u2028\ufeff\U000e0041", Expected: "\x00"}},
		}),
		unknown(harden.PointUFW, "\x1b[m", "\x1b[8m"+strings.Repeat("x", 200)),
		audit.Result{Result: harden.Result{Info: harden.Info{ID: "a.b\x1b", Title: "\x1b\n"}, Status: harden.StatusNotApplicable, Detail: "\x1b"}},
	)},
	{"waivers", func() *audit.Report {
		open := waived(fail(harden.PointUFW, harden.Finding{Subject: "/etc/ufw/ufw.conf", Message: "logging is off"}))
		open.Status, open.Reason, open.Detail = harden.StatusUnknown, harden.ReasonError, "ip6: permission denied"
		partly := fail(harden.PointReadOnlyFS,
			harden.Finding{Subject: "container/build", Message: "the root filesystem is writable"},
			harden.Finding{Subject: "container/web", Message: "the root filesystem is writable"})
		partly.Waivers = []*audit.Waiver{{ID: "container.read_only", Scope: "container/build", Owner: "ops", Reason: "builds", Expires: started.AddDate(1, 0, 0)}, nil}
		return with(open, partly)
	}()},
	{"zero", new(audit.Report)},
}
