package harden

import "fmt"

// A Point is one of the 14 points of the framework. The zero Point is none of
// them: a check of an integrator's own, or one that no point covers.
type Point int

// The points.
const (
	PointNone            Point = iota
	PointNonRoot               // no process of the container has a root id
	PointReadOnlyFS            // the root is read-only, and what is writable is bounded and meant
	PointCapDropAll            // no capability in any set of any process
	PointNoSocketMount         // no container engine can be reached from inside
	PointNoNewPrivileges       // no process can gain privileges by execve
	PointLocalhost             // only this machine reaches the gateway
	PointUFW                   // the host's firewall denies by default, in the kernel
	PointDockerUser            // published ports are filtered
	PointTailscale             // the way in is the tailnet
	PointComposioOAuth         // the agent holds no credential
	PointVault                 // credentials rest encrypted
	PointAuditTrail            // every action has its record
	PointKillSwitch            // armed and rehearsed
	PointToolAllowlists        // only named tools
)

// NumPoints is the number of points; they are numbered from 1.
const NumPoints = 14

var points = [NumPoints + 1]struct {
	slug, title string
	level       Level
}{
	{"custom", "Custom check", LevelDeclared},
	{"non-root", "Non-root user", LevelInspected},
	{"read-only-fs", "Read-only filesystem", LevelInspected},
	{"cap-drop-all", "All capabilities dropped", LevelInspected},
	{"no-socket-mount", "No engine socket", LevelInspected},
	{"no-new-privileges", "No new privileges", LevelInspected},
	{"localhost-binding", "Localhost binding", LevelInspected},
	{"ufw", "UFW firewall", LevelInspected},
	{"docker-user", "DOCKER-USER chain", LevelInspected},
	{"tailscale", "Tailscale VPN", LevelInspected},
	{"composio-oauth", "Composio OAuth", LevelInspected},
	{"encrypted-vault", "Encrypted vault", LevelInspected},
	{"audit-trail", "Full audit trail", LevelInspected},
	{"kill-switch", "Kill switch", LevelProbed},
	{"tool-allowlists", "Tool allowlists", LevelProbed},
}

// Valid reports whether p is PointNone or one of the 14 points.
func (p Point) Valid() bool { return p >= PointNone && p <= NumPoints }

// Slug returns a stable short name, such as "non-root".
func (p Point) Slug() string {
	if !p.Valid() {
		return fmt.Sprintf("point-%d", int(p))
	}
	return points[p].slug
}

// Title returns a short name for people, such as "Non-root user".
func (p Point) Title() string {
	if !p.Valid() {
		return fmt.Sprintf("Point %d", int(p))
	}
	return points[p].title
}

// Level returns the level of evidence without which the point does not pass:
// at least one of its passing checks must reach it.
func (p Point) Level() Level {
	if !p.Valid() {
		return LevelProbed
	}
	return points[p].level
}

// String returns the number and slug, such as "1 non-root".
func (p Point) String() string { return fmt.Sprintf("%d %s", int(p), p.Slug()) }
