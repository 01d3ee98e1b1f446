package halt

// OnlyV1 is a machine whose containers are in cgroups of version 1 alone.
func (t *Tracker) OnlyV1() { t.noV2 = true }

// OnlyV2 is a machine whose containers are in cgroups of version 2 alone, and
// NoCgroupKill one whose kernel cannot kill a cgroup.
func (t *Tracker) OnlyV2()       { t.noV1 = true }
func (t *Tracker) NoCgroupKill() { t.noKill = true }

// Glances reports whether the next look examines only what can be the agent's.
func (p *Processes) Glances() bool {
	_, known := p.lookout.kin(p.lookout.roll.all())
	return known
}

var MountedSockets = mountedSockets
