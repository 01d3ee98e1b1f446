package access

import (
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// trailChecks returns the checks of point 12.
func trailChecks(c Config) []harden.Check {
	trails, complete, guards := NewTrailSource(c), NewCompletenessSource(c), NewTrailGuardSource(c)
	checks := []harden.Check{
		harden.Each(harden.Info{
			ID: "access.trail_verifies", Point: harden.PointAuditTrail, Severity: harden.SeverityCritical, Requires: harden.LevelInspected, Needs: host.ReadFiles,
			Title: "The trail is what was written, from a pinned checkpoint on",
			Doc: "Every record is hashed again, and held against the signed checkpoints and the one that is pinned. " +
				"Without that, a log whose end was cut off, or that was written anew with its key, looks like any other: the result is then unknown.",
		}, trails, judgeTrail),
		harden.Each(harden.Info{
			ID: "access.trail_pinned", Point: harden.PointAuditTrail, Severity: harden.SeverityMedium, Requires: harden.LevelInspected, Needs: host.ReadFiles,
			Title: "What is recorded is pinned soon after",
			Doc:   "What no pinned checkpoint covers can be cut off the end of the log unseen, by whoever can write there. The checkpoint is worth as much as the place where it is kept.",
		}, trails, judgePinned),
		harden.Each(harden.Info{
			ID: "access.trail_fresh", Point: harden.PointAuditTrail, Severity: harden.SeverityHigh, Requires: harden.LevelInspected, Needs: host.ReadFiles,
			Title: "What happens now is recorded",
			Doc:   "The gateway is asked for what it must refuse, and the refusal looked for in the log. Where it cannot be asked, the last record must be a recent one.",
		}, trails, judgeFresh),
		harden.Each(harden.Info{
			ID: "access.trail_complete", Point: harden.PointAuditTrail, Severity: harden.SeverityHigh, Requires: harden.LevelInspected, Needs: host.ReadFiles,
			Title: "Every execution at Composio has its record",
			Doc:   "An execution that is not in the trail went round the gateway, with a key that somebody has. A record without an execution means that Composio's log, or the trail, lacks something.",
		}, complete, judgeComplete),
		harden.Each(harden.Info{
			ID: "access.trail_private", Point: harden.PointAuditTrail, Severity: harden.SeverityCritical, Requires: harden.LevelInspected, Needs: host.ReadFiles | host.ReadProcesses,
			Title: "The trail and its key are out of the agent's reach",
			Doc:   "Whoever can write to the log can cut off its end, and whoever has its key can write another. Both must belong to one user, in directories that nobody else can change, and be in no mount of the agent's.",
		}, guards, judgeTrailGuard),
	}
	for i := range checks {
		checks[i] = trailRemedied(c, checks[i])
	}
	return checks
}
