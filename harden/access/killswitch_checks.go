package access

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/host"
)

// switchChecks returns the checks of point 13.
func switchChecks(c Config) []harden.Check {
	switches, guards := NewSwitchSource(c), NewSwitchGuardSource(c)
	return []harden.Check{
		harden.Each(harden.Info{
			ID: "access.kill_armed", Point: harden.PointKillSwitch, Severity: harden.SeverityHigh, Requires: harden.LevelInspected, Needs: host.ReadFiles,
			Title: "The kill switch is armed, and every target can be stopped and observed",
			Doc: "What is slow is done beforehand, and ages: containers come and go. The switch signs what it has prepared and what its observers saw. " +
				"A target without an observer of its own can be reported off while it is on.",
		}, switches, judgeArmed),
		harden.Each(harden.Info{
			ID: "access.kill_fence", Point: harden.PointKillSwitch, Severity: harden.SeverityHigh, Requires: harden.LevelInspected, Needs: host.ReadFiles,
			Title: "The fence can be read, and lets the agent run",
			Doc:   "The fence is what keeps a stopped agent from being started. One that is damaged or missing holds, and one that holds while the agent runs was gone round.",
		}, switches, judgeFence),
		harden.Each(harden.Info{
			ID: "access.kill_drilled", Point: harden.PointKillSwitch, Severity: harden.SeverityHigh, Requires: harden.LevelProbed, Needs: host.ReadFiles,
			Title: "The kill switch was drilled not long ago, and every target went off",
			Doc: "A switch that was never tried is a hope. That a drill says it has passed is not believed: each target that is armed must have been seen on before, " +
				"stopped by what would stop it, and seen off by what would see it, in evidence that the switch has signed.",
		}, switches, judgeDrilled),
		harden.Each(harden.Info{
			ID: "access.kill_restarts", Point: harden.PointKillSwitch, Severity: harden.SeverityHigh, Requires: harden.LevelDeclared,
			Title: "Nothing starts the agent again after it was stopped",
			Doc:   "A restart policy, a compose project or a unit brings back what was ended, with what it had been doing, unless the switch is armed against that.",
		}, switches, judgeRestarts),
		harden.Each(harden.Info{
			ID: "access.kill_private", Point: harden.PointKillSwitch, Severity: harden.SeverityCritical, Requires: harden.LevelInspected, Needs: host.ReadFiles | host.ReadProcesses,
			Title: "The fence is out of the agent's reach, and in that of what starts it",
			Doc:   "Whoever can write to the switch's directory can release the fence. It must belong to one user, in directories that nobody else can change, and be in no mount of the agent's; and what starts the agent must be able to read it.",
		}, guards, judgeSwitchGuard),
	}
}

// A SwitchGuard is what stands between the agent and a [KillSwitch].
type SwitchGuard struct {
	Switch KillSwitch

	// Fence is the directory of the fence, and Record the agent's file in it;
	// nil if there is none, because the agent was never stopped.
	Fence, Record *Guard
}

// NewSwitchGuardSource returns what stands before the kill switches of c.
func NewSwitchGuardSource(c Config) *harden.Source[SwitchGuard] {
	return &harden.Source[SwitchGuard]{
		Name:    "kill switches",
		Subject: func(g SwitchGuard) string { return (&SwitchReview{Switch: g.Switch}).Subject() },
		List: func(ctx context.Context, v *host.View) ([]SwitchGuard, error) {
			if len(c.Switches) == 0 {
				return nil, errNoSwitch
			}
			var agents []container.Container
			err := errNoContainers
			if c.Containers != nil {
				agents, err = c.Containers.All(ctx, v)
			}
			all := make([]SwitchGuard, len(c.Switches))
			for i, s := range c.Switches {
				guard := func(name string) *Guard {
					g := &Guard{File: GuardedFile{Path: name, Owner: s.Owner, Readable: true}, AgentsErr: err}
					g.look(v)
					for j := range agents {
						g.reach(&agents[j])
					}
					return g
				}
				dir := path.Join(s.Dir, "fence")
				all[i] = SwitchGuard{Switch: s, Fence: guard(dir)}
				if r := guard(path.Join(dir, s.Agent)); !errors.Is(r.Err, fs.ErrNotExist) {
					all[i].Record = r
				}
			}
			return all, nil
		},
	}
}

// judgeSwitchGuard judges whether the agent, or anyone else, could release the
// fence, and whether what starts the agent can read it.
func judgeSwitchGuard(_ context.Context, s SwitchGuard) (harden.Verdict, error) {
	const id = "access.kill_private"
	if s.Fence == nil || s.Fence.Err == nil && len(s.Fence.Entries) == 0 {
		return harden.Verdict{}, errors.New("it was not looked at")
	}
	var v violations
	var errs []error
	fail := func(kind, message, remedy string, e Entry) {
		f := harden.Finding{
			ID: id + "." + kind, Message: message, Remedy: remedy,
			Evidence: []harden.Evidence{at(harden.LevelInspected, e.Path, fmt.Sprintf("%v, owner %d", e.Mode, e.Owner), "changed by one user alone, and read by what starts the agent")},
		}
		if !slices.ContainsFunc(v, func(g harden.Finding) bool { return g.ID == f.ID && g.Message == f.Message }) {
			v = append(v, f)
		}
	}
	trusted := func(uid uint32) bool { return uid == 0 || uid == s.Switch.Owner }
	for _, g := range []*Guard{s.Fence, s.Record} {
		switch {
		case g == nil:
			continue
		case g.Err != nil:
			errs = append(errs, g.Err)
			continue
		}
		errs = append(errs, g.AgentsErr)
		for i, e := range g.Entries {
			switch {
			case e.Mode&fs.ModeSymlink != 0:
				fail("link", e.Path+" is a symbolic link", "name the directory by the path that it has", e)
			case !trusted(e.Owner):
				fail("owner", fmt.Sprintf("%s belongs to user %d, who may release the fence", e.Path, e.Owner), fmt.Sprintf("chown %d %s", s.Switch.Owner, e.Path), e)
			case e.Mode.Perm()&0o022 != 0 && (e.Mode&fs.ModeSticky == 0 || i == 0):
				fail("mode", "others may change what is in "+e.Path, "chmod go-w "+e.Path, e)
			}
			need := fs.FileMode(0o1) // to search a directory
			if g == s.Record && i == 0 {
				need = 0o4
			}
			for _, uid := range s.Switch.Starters {
				// That a group may read it says nothing: whose it is, is not known.
				if bits := e.Mode.Perm(); uid != 0 && (uid == e.Owner && bits&(need<<6) == 0 || uid != e.Owner && bits&need == 0) {
					fail("unreadable", fmt.Sprintf("user %d, as whom something starts the agent, cannot read %s: it will not start it, or not ask", uid, e.Path),
						"run what starts the agent as the user who runs the switch, or as root", e)
				}
			}
		}
		for _, m := range g.Mounts {
			fail("mounted", "the agent has the fence: "+m, "mount no directory that holds it", g.Entries[0])
		}
		for _, uid := range g.UIDs {
			if trusted(uid) {
				fail("user", fmt.Sprintf("a process of the agent's runs as user %d, who may release the fence", uid), "run the agent as a user of its own", g.Entries[0])
			}
		}
	}
	if len(s.Fence.Entries) == 0 {
		return v.verdict(errors.Join(errs...))
	}
	e := s.Fence.Entries[0]
	return v.verdict(errors.Join(errs...), at(harden.LevelInspected, e.Path, fmt.Sprintf("%v, owner %d, in directories that nobody else can change; in no mount of the agent's", e.Mode, e.Owner), "changed by one user alone, and read by what starts the agent"))
}
