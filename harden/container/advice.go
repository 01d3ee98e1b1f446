package container

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/managemyclaw/hardshell/harden"
)

// Advice is what [Harden] has to say about a container.
type Advice struct {
	Hardening Hardening

	// Notes say what a reader of the plan should know.
	Notes []string

	// Manual says what a person must do, because no program can or should.
	Manual []string

	// Leaves are the ids of the checks that may go on failing, because of
	// what is Manual.
	Leaves []string
}

// Harden returns how to recreate a container so that [Checks] pass, keeping
// what p says that it needs. It is a pure function. The Hardening is zero if
// there is nothing to change, or if the container must not be recreated by a
// program; Manual then says why.
func Harden(c Container, p Profile) Advice {
	a := adviser{c: &c, p: &p}
	if why := a.blocked(); why != "" {
		return Advice{Manual: []string{c.Subject() + ": " + why}}
	}
	a.privileges()
	a.namespaces()
	a.network()
	a.mounts()
	a.user() // after mounts: it depends on which are kept
	a.limits()
	a.env()
	if a.out.Hardening.IsZero() {
		a.out.Notes = nil
		return a.out
	}
	if c.ManagedBy != "" {
		a.note("it was made by %s: harden that too, or it will be made again as it was", c.ManagedBy)
	}
	return a.out
}

type adviser struct {
	*Hardening

	c   *Container
	p   *Profile
	out Advice
}

func (a *adviser) note(format string, args ...any) {
	a.out.Notes = append(a.out.Notes, a.c.Subject()+": "+fmt.Sprintf(format, args...))
}

func (a *adviser) manual(leaves []string, format string, args ...any) {
	a.out.Manual = append(a.out.Manual, a.c.Subject()+": "+fmt.Sprintf(format, args...))
	for _, id := range leaves {
		if !slices.Contains(a.out.Leaves, id) {
			a.out.Leaves = append(a.out.Leaves, id)
		}
	}
}

// blocked says why no program should recreate the container, or "".
func (a *adviser) blocked() string {
	c := a.c
	a.Hardening = &a.out.Hardening
	switch {
	case c.ManagedBy == "swarm", c.ManagedBy == "kubernetes":
		return c.ManagedBy + " runs it and would undo the change: harden it there"
	case c.AutoRemove:
		return "it was started with --rm, so stopping it would delete it: start it again without --rm, hardened"
	case c.State == "paused":
		return "it is paused: find out why, and unpause it first"
	case c.State != "running":
		return fmt.Sprintf("it is %s, so that what the change does to it could not be seen: start it first", cmp.Or(c.State, "not running"))
	case c.Health == "unhealthy":
		return "it is unhealthy as it is, so that nothing could show whether the change agrees with it: repair it first"
	case c.Kernel == nil:
		return fmt.Sprintf("the change could not be verified: %v", cmp.Or(c.KernelErr, ErrNotRunning))
	case c.Host == nil:
		return "the change could not be verified: the machine could not be examined"
	}
	return ""
}

func (a *adviser) privileges() {
	c := a.c
	a.ReadonlyRootfs = !c.ReadonlyRootfs
	a.Unprivileged = c.Privileged
	a.DropCapabilities = c.Privileged || len(c.CapAdd) > 0 || !slices.ContainsFunc(c.CapDrop, func(s string) bool {
		return strings.EqualFold(s, "ALL")
	})
	a.NoNewPrivileges = !noNewPrivileges(c.SecurityOpt)
	a.DropDevices = len(c.Devices) > 0 || len(c.DeviceCgroupRules) > 0 || c.DeviceRequests > 0
	if c.DeviceRequests > 0 {
		a.note("it loses the devices that it asked for, such as a GPU")
	}
	a.MaskPaths = c.Privileged || c.MaskedPaths != nil && len(c.MaskedPaths) == 0 || c.ReadonlyPaths != nil && len(c.ReadonlyPaths) == 0
	for _, o := range c.SecurityOpt {
		if weakens(o) {
			a.DropSecurityOpts = append(a.DropSecurityOpts, o)
		}
	}
	if c.Engine.SeccompProfile == "" {
		a.manual([]string{"container.seccomp"}, "the engine's default seccomp profile is unconfined: remove \"seccomp-profile\" from its configuration and restart it")
	}
}

// noNewPrivileges reads security options as the engine does: the last counts.
func noNewPrivileges(opts []string) bool {
	on := false
	for _, o := range opts {
		if key, value := securityOption(o); key == "no-new-privileges" {
			b, err := strconv.ParseBool(value)
			on = value == "" || err == nil && b
		}
	}
	return on
}

// weakens reports whether a security option takes protection away.
func weakens(o string) bool {
	key, value := securityOption(o)
	switch key {
	case "seccomp":
		var profile seccompProfile
		return value == "unconfined" || json.Unmarshal([]byte(value), &profile) == nil && len(profile.permitted()) > 0
	case "apparmor", "systempaths":
		return value == "unconfined"
	case "label":
		return value == "disable"
	case "no-new-privileges":
		b, err := strconv.ParseBool(value)
		return err == nil && !b
	}
	return false
}

func (a *adviser) namespaces() {
	c := a.c
	for _, ns := range []struct{ kind, mode string }{{"cgroup", c.CgroupnsMode}, {"ipc", c.IpcMode}, {"pid", c.PidMode}, {"uts", c.UTSMode}} {
		switch {
		case ns.mode == "host", ns.kind != "uts" && strings.HasPrefix(ns.mode, "container:"), ns.kind == "ipc" && ns.mode == "shareable",
			ns.kind == "cgroup" && ns.mode == "" && c.Engine.CgroupVersion != "2":
			a.Private = append(a.Private, ns.kind)
		}
	}
	if c.UsernsMode == "host" && c.Engine.UsernsRemap {
		a.manual([]string{"container.namespaces"}, "it is exempt from the engine's user namespace: its files would change owner, so make it again without --userns=host by hand")
	}
}

func (a *adviser) network() {
	c := a.c
	// Not to be remedied by recreating a container.
	a.out.Leaves = append(a.out.Leaves, "container.engine_tcp", "container.loopback_leak")
	if c.NetworkMode == "host" {
		a.leaveHostNetwork()
		return
	}
	var ports []Port
	changed := false
	for _, p := range c.Ports {
		if !local(p.HostIP, a.p.Publish) {
			p.HostIP, changed = "127.0.0.1", true
		}
		if !slices.Contains(ports, p) {
			ports = append(ports, p)
		}
	}
	if changed {
		a.Ports = ports
		a.note("its ports can be reached from this machine only: come in through the tailnet or a tunnel")
	}
}

func (a *adviser) leaveHostNetwork() {
	leaves := []string{"container.host_network", "container.published_ports", "container.namespaces"}
	c := a.c
	if c.Host.ListenersErr != nil {
		a.manual(leaves, "it is on the host's network, and what it listens on could not be seen: %v", c.Host.ListenersErr)
		return
	}
	own := make(map[int]bool)
	for _, p := range c.Kernel.Processes {
		own[p.PID] = true
	}
	open := make(map[uint16]bool) // whether not only on loopback
	for _, l := range c.Host.Listeners {
		if own[l.PID] && strings.HasPrefix(l.Protocol, "tcp") {
			open[l.Addr.Port()] = open[l.Addr.Port()] || !l.Addr.Addr().Unmap().IsLoopback()
		}
	}
	if len(open) == 0 {
		a.manual(leaves, "it is on the host's network and listens on no TCP port that could be published instead: make it again with a network of its own by hand")
		return
	}
	for _, port := range slices.Sorted(maps.Keys(open)) {
		if !open[port] {
			a.manual(leaves, "it is on the host's network and listens there on loopback port %d, which could not be reached in a network of its own: let it listen on all addresses (--bind lan), and try again", port)
			a.Ports = nil
			return
		}
		a.Ports = append(a.Ports, Port{Container: port, Protocol: "tcp", HostIP: "127.0.0.1", Host: port})
	}
	a.Bridge = true
	a.note("it leaves the host's network: it no longer reaches services on this machine's loopback")
}

func (a *adviser) mounts() {
	c, p := a.c, a.p
	for _, m := range c.Mounts {
		if m.Type == "tmpfs" {
			if opts, changed := a.tmpfsOptions(m); changed {
				a.setTmpfs(m.Destination, opts)
			}
			continue
		}
		keep := p.writable(m.Destination)
		why, inside := a.unwanted(m)
		if inside && keep {
			a.manual([]string{"container.engine_socket"}, "%s is state that it keeps, and %s: move the socket elsewhere", m.Destination, why)
		} else if why != "" {
			a.DropMounts = append(a.DropMounts, m.Destination)
			a.note("%s is no longer mounted: %s", m.Destination, why)
			continue
		}
		if m.ReadWrite && !keep {
			a.ReadonlyMounts = append(a.ReadonlyMounts, m.Destination)
			a.note("%s becomes read-only, for the profile does not declare it", m.Destination)
		}
		if m.Type == "bind" && m.Propagation != "" && m.Propagation != "private" && m.Propagation != "rprivate" {
			a.PrivateMounts = append(a.PrivateMounts, m.Destination)
		}
	}
	for _, t := range p.Tmpfs {
		if !slices.ContainsFunc(c.Mounts, func(m Mount) bool { return path.Clean(m.Destination) == path.Clean(t.Path) }) {
			a.setTmpfs(t.Path, tmpfsFlags+",size="+strconv.FormatInt(cmp.Or(t.Size, DefaultTmpfsSize), 10)+",mode=1777")
		}
	}
	for _, w := range p.Writable {
		w = path.Clean(w)
		covered := slices.ContainsFunc(c.Mounts, func(m Mount) bool {
			return below(w, path.Clean(m.Destination)) && !slices.Contains(a.DropMounts, m.Destination)
		}) || slices.ContainsFunc(a.Volumes, func(v NewVolume) bool { return below(w, v.Path) }) ||
			slices.ContainsFunc(p.Tmpfs, func(t Tmpfs) bool { return below(w, path.Clean(t.Path)) })
		if !covered && w != "/" {
			a.Volumes = append(a.Volumes, NewVolume{Path: w})
			a.note("%s becomes a volume, with what is there now", w)
		}
	}
}

const tmpfsFlags = "rw,nosuid,nodev,noexec"

func (a *adviser) setTmpfs(at, options string) {
	if a.Tmpfs == nil {
		a.Tmpfs = make(map[string]string)
	}
	a.Tmpfs[path.Clean(at)] = options
}

// tmpfsOptions returns the options of a tmpfs as they should be, and whether
// they are not.
func (a *adviser) tmpfsOptions(m Mount) (string, bool) {
	size := m.TmpfsSize
	bad := size <= 0 || a.c.Host.MemTotal > 0 && size >= a.c.Host.MemTotal/2
	if bad {
		size = DefaultTmpfsSize
		for _, t := range a.p.Tmpfs {
			if path.Clean(t.Path) == path.Clean(m.Destination) && t.Size > 0 {
				size = t.Size
			}
		}
	}
	out := tmpfsFlags
	if !m.ReadWrite {
		out = strings.Replace(out, "rw", "ro", 1)
	}
	out += ",size=" + strconv.FormatInt(size, 10)
	for o := range strings.SplitSeq(m.TmpfsOpts, ",") {
		key, _, _ := strings.Cut(o, "=")
		switch key {
		case "exec", "suid", "dev":
			bad = true
		case "mode", "uid", "gid", "nr_inodes":
			out += "," + o
		}
	}
	return out, bad
}

// unwanted says why a mount is not to be kept, or "", and whether it is for
// something inside it.
func (a *adviser) unwanted(m Mount) (why string, inside bool) {
	c := a.c
	for _, s := range c.Kernel.Sockets {
		if below(s.Path, path.Clean(m.Destination)) && (s.Engine || !slices.Contains(a.p.Sockets, s.HostPath)) {
			return "it gives away the socket " + s.HostPath, s.Path != path.Clean(m.Destination)
		}
	}
	if m.Type == "volume" && m.Options["device"] == "" {
		return "", false // the engine's own directory
	}
	paths := []string{m.Source}
	if m.Type == "volume" {
		paths = []string{m.Options["device"]}
	}
	for _, t := range c.Kernel.Trees {
		for _, at := range t.Mounts {
			if at.Path == path.Clean(m.Destination) {
				paths = append(paths, at.HostPaths...) // with symbolic links resolved
			}
		}
	}
	for _, name := range paths {
		if !strings.HasPrefix(name, "/") {
			continue
		}
		if why := c.sensitive(name, !m.ReadWrite); why != "" {
			return fmt.Sprintf("it is %s of the host: %s", name, why), false
		}
	}
	return "", false
}

func (a *adviser) user() {
	const check = "container.non_root"
	c := a.c
	for _, g := range c.GroupAdd {
		n, err := strconv.ParseUint(g, 10, 32)
		if g == "root" || g == "docker" || err == nil && (n == 0 || slices.Contains(c.Host.DockerGroups, uint32(n))) {
			a.DropGroups = append(a.DropGroups, g)
		}
	}
	// A user namespace of its own makes root harmless, and ours the wrong ids.
	if (c.Engine.UsernsRemap || c.Engine.Rootless) && c.UsernsMode != "host" {
		return
	}
	from, asRoot := a.runsAs()
	if !asRoot {
		return
	}
	if a.p.User == "" {
		a.manual([]string{check}, "it runs as root, and only a person knows as whom it can run: name the user in the profile")
		return
	}
	to, err := parseOwner(a.p.User)
	if err != nil {
		a.manual([]string{check}, "in the profile, %v: name one by number", err)
		return
	}
	if to.UID != from {
		for _, m := range c.Mounts {
			if m.Type == "tmpfs" || !m.ReadWrite || slices.Contains(a.DropMounts, m.Destination) || slices.Contains(a.ReadonlyMounts, m.Destination) {
				continue
			}
			if m.Type != "bind" && (m.Type != "volume" || m.Options["type"] != "" && m.Options["type"] != "none") {
				a.manual([]string{check}, "%s is no local directory: give its files to %s, and start the container as that user, by hand", m.Destination, a.p.User)
				a.Chown = nil
				return
			}
			a.Chown = append(a.Chown, m.Destination)
		}
	}
	a.User = fmt.Sprintf("%d:%d", to.UID, to.GID)
	if len(a.Chown) > 0 {
		a.note("the files in %s are given to %s", strings.Join(a.Chown, " and "), a.User)
	}
}

// runsAs returns the user that the container's first process began as, and
// whether it, or what is started beside it, has an id of root.
func (a *adviser) runsAs() (uid uint32, asRoot bool) {
	c := a.c
	if c.Kernel.UID > 0 {
		uid = uint32(c.Kernel.UID)
	}
	asRoot = declaredRoot(c.User) || c.Kernel.UID == 0 || c.Kernel.GID == 0
	for _, p := range c.Kernel.Processes {
		if p.PID == c.PID && (slices.Contains(p.UIDs[:], 0) || slices.Contains(p.GIDs[:], 0)) {
			asRoot = true
		}
	}
	return uid, asRoot
}

func (a *adviser) limits() {
	c, p := a.c, a.p
	need := p.Memory
	if need <= 0 {
		need = DefaultMemory
		if t := c.Host.MemTotal; t > 0 {
			need = min(need, t/4*3)
		}
	}
	switch {
	case c.Memory <= 0, c.Host.MemTotal > 0 && c.Memory >= c.Host.MemTotal: // as good as none
		a.Memory = need
	case c.Memory < p.Memory:
		a.Memory = p.Memory
		a.note("its memory limit of %d is less than the %d bytes that the profile says it needs", c.Memory, p.Memory)
	}
	if a.Memory > 0 && c.MemorySwap < 0 {
		a.note("it may still use swap without limit")
	}
	if c.PidsLimit <= 0 || c.Host.PidMax > 0 && c.PidsLimit >= c.Host.PidMax {
		a.PidsLimit = cmp.Or(p.Pids, DefaultPids)
	}
	if c.Host.MemTotal > 0 && c.ShmSize >= c.Host.MemTotal/2 {
		a.ShmSize = DefaultTmpfsSize
	}
}

func (a *adviser) env() {
	if slices.ContainsFunc(a.c.EngineHosts, func(h string) bool { return !strings.HasPrefix(h, "unix://") }) {
		for _, name := range a.c.EnvNames {
			if slices.Contains(EngineVariables, name) {
				a.DropEnv = append(a.DropEnv, name)
			}
		}
	}
	for _, kv := range a.p.Env {
		key, _, _ := strings.Cut(kv, "=")
		if !slices.Contains(a.c.EnvNames, key) {
			a.Env = append(a.Env, kv)
		}
	}
}

// leaves reports whether a check may go on failing.
func (a *Advice) leaves(c harden.Check) bool { return slices.Contains(a.Leaves, c.Info().ID) }
