package openclaw_test

import (
	"testing"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/access"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/harden/openclaw"
)

// What the agent holds and may use is judged where that is asked for, also of
// an agent without an engine, and is then unknown.
func TestAccessChecks(t *testing.T) {
	d := openclaw.Deployment{Access: new(access.Config)}
	points := make(map[harden.Point]int)
	for _, c := range d.Checks() {
		points[c.Info().Point]++
		if r := harden.Evaluate(t.Context(), new(host.View), c, 0); r.Status != harden.StatusUnknown {
			t.Errorf("%s: %v", r.Info.ID, r.Status)
		}
	}
	for _, p := range []harden.Point{harden.PointComposioOAuth, harden.PointVault, harden.PointAuditTrail, harden.PointKillSwitch, harden.PointToolAllowlists} {
		if points[p] == 0 {
			t.Errorf("no check of point %v", p)
		}
	}
	if n := len((&openclaw.Deployment{}).Checks()); n != 0 {
		t.Errorf("%d checks of nothing", n)
	}
	if err := harden.Validate(d.Checks()...); err != nil {
		t.Error(err)
	}
}
