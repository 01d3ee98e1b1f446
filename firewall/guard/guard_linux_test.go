package guard_test

import (
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/firewall/guard"
)

// Enabling UFW without a rule for the operator cuts everybody off. It is undone
// when the time is up, and nothing shows that it has been.
func TestUFWWithoutARuleIsRolledBack(t *testing.T) {
	s := newSite(t)
	old, err := s.connect()
	s.must(err)
	before := s.world()
	g := s.guard(4 * time.Second)
	c, err := guard.UFW(t.Context(), s.run)
	s.must(err)
	if len(c.Sysctls) < 5 {
		t.Errorf("parameters that UFW sets: %v", c.Sysctls)
	}
	armed, err := g.Arm(t.Context(), c)
	s.must(err)
	s.sh("ufw --force enable")
	s.must(g.Applied(t.Context(), armed.ID))
	if s.reachable() {
		t.Fatal("UFW without a rule lets a new connection in")
	}
	if s.world() == before {
		t.Fatal("UFW has changed nothing")
	}
	_ = old
	st := s.await(g, armed.ID, 20*time.Second)
	if st.State != guard.StateRolledBack {
		t.Errorf("%v", st)
	}
	if !s.reachable() {
		t.Error("still cut off")
	}
	s.sameAs(before)
}
