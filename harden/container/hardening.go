package container

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// A Hardening says how a container is to be made anew: what is listed changes,
// all else stays. It is plain data and holds no secret. The zero Hardening
// changes nothing.
type Hardening struct {
	User       string   `json:"user,omitempty"`        // as "UID:GID"
	DropGroups []string `json:"drop_groups,omitempty"` // of those added to the user's

	ReadonlyRootfs   bool `json:"readonly_rootfs,omitempty"`
	Unprivileged     bool `json:"unprivileged,omitempty"`
	DropCapabilities bool `json:"drop_capabilities,omitempty"` // all, and none added
	NoNewPrivileges  bool `json:"no_new_privileges,omitempty"`
	DropDevices      bool `json:"drop_devices,omitempty"` // nodes, rules and requests
	MaskPaths        bool `json:"mask_paths,omitempty"`   // the engine's default masks

	// DropSecurityOpts are the security options to remove.
	DropSecurityOpts []string `json:"drop_security_opts,omitempty"`

	// Private are the namespaces to make the container's own: "cgroup",
	// "ipc", "pid", "uts".
	Private []string `json:"private,omitempty"`

	// Bridge moves the container from the host's network to the engine's
	// default bridge.
	Bridge bool `json:"bridge,omitempty"`

	// Ports replace all published ports, if there are any here.
	Ports []Port `json:"ports,omitempty"`

	// Mounts, by destination.
	DropMounts     []string          `json:"drop_mounts,omitempty"`
	ReadonlyMounts []string          `json:"readonly_mounts,omitempty"`
	PrivateMounts  []string          `json:"private_mounts,omitempty"` // not propagated
	Tmpfs          map[string]string `json:"tmpfs,omitempty"`          // options, of new ones and instead of those there are

	// Volumes are new volumes. What the container has at their paths is
	// copied into them.
	Volumes []NewVolume `json:"volumes,omitempty"`

	// Chown are the destinations of mounts whose files are to be given to
	// User.
	Chown []string `json:"chown,omitempty"`

	Env     []string `json:"env,omitempty"`      // to add, as "KEY=value"
	DropEnv []string `json:"drop_env,omitempty"` // names

	Memory    int64 `json:"memory,omitempty"`   // bytes
	ShmSize   int64 `json:"shm_size,omitempty"` // bytes
	PidsLimit int64 `json:"pids_limit,omitempty"`
}

// A NewVolume is a volume that a [Hardening] adds.
type NewVolume struct {
	Path string `json:"path"`
	Name string `json:"name,omitempty"` // chosen when the change is made
}

// IsZero reports whether h changes nothing.
func (h *Hardening) IsZero() bool { return reflect.ValueOf(*h).IsZero() }

// owner returns the numbers in h.User, or nil if there are none.
func (h *Hardening) owner() *Owner {
	o, err := parseOwner(h.User)
	if err != nil {
		return nil
	}
	return &o
}

// EngineVariables are the environment variables that say where an engine is.
// An [Engine] puts their values in Settings.EngineHosts.
var EngineVariables = []string{
	"DOCKER_HOST", "CONTAINER_HOST", "BUILDKIT_HOST", "CONTAINERD_ADDRESS", "CONTAINER_RUNTIME_ENDPOINT", "PODMAN_HOST",
}

// parseOwner reads "UID" and "UID:GID". A group that is not given has the
// user's number, never 0.
func parseOwner(user string) (Owner, error) {
	uidText, gidText, ok := strings.Cut(user, ":")
	if !ok {
		gidText = uidText
	}
	uid, err := strconv.ParseUint(uidText, 10, 31)
	if err != nil {
		return Owner{}, fmt.Errorf("user %q is not of the form UID:GID", user)
	}
	gid, err := strconv.ParseUint(gidText, 10, 31)
	if err != nil {
		return Owner{}, fmt.Errorf("user %q is not of the form UID:GID", user)
	}
	if uid == 0 || gid == 0 {
		return Owner{}, fmt.Errorf("user %q is root", user)
	}
	return Owner{UID: uint32(uid), GID: uint32(gid)}, nil
}

// describe returns what h changes of a container, as sorted lines of
// "setting: value". Of the environment there are only names.
func (h *Hardening) describe(s *Settings) (before, after string) {
	var b, f []string
	line := func(setting, from, to string) {
		b = append(b, setting+": "+from)
		f = append(f, setting+": "+to)
	}
	flag := func(on bool, setting string, from, to any) {
		if on {
			line(setting, fmt.Sprint(from), fmt.Sprint(to))
		}
	}
	list := func(all []string) string { return cmp.Or(strings.Join(all, " "), "none") }

	flag(h.User != "", "user", cmp.Or(s.User, "root (the image names none)"), h.User)
	flag(len(h.DropGroups) > 0, "added groups", list(s.GroupAdd), list(without(s.GroupAdd, h.DropGroups)))
	flag(h.ReadonlyRootfs, "read-only root", s.ReadonlyRootfs, true)
	flag(h.Unprivileged, "privileged", s.Privileged, false)
	flag(h.DropCapabilities, "capabilities", "drop "+list(s.CapDrop)+", add "+list(s.CapAdd), "drop ALL, add none")
	flag(h.NoNewPrivileges, "no-new-privileges", false, true)
	flag(h.DropDevices, "devices", list(append(append(slices.Clone(s.Devices), s.DeviceCgroupRules...), requests(s.DeviceRequests)...)), "none")
	flag(h.MaskPaths, "masked paths", "none", "the engine's default")
	for _, o := range h.DropSecurityOpts {
		key, value := securityOption(o)
		if len(value) > 40 {
			value = "a profile of its own"
		}
		line("security option "+key, value, "the engine's default")
	}
	for _, ns := range h.Private {
		mode := map[string]string{"cgroup": s.CgroupnsMode, "ipc": s.IpcMode, "pid": s.PidMode, "uts": s.UTSMode}[ns]
		line(ns+" namespace", cmp.Or(mode, "host"), "private")
	}
	flag(h.Bridge, "network", s.NetworkMode, "bridge")
	flag(len(h.Ports) > 0, "ports", portList(s.Ports), portList(h.Ports))
	mode := func(m *Mount) string {
		switch {
		case m == nil:
			return "none"
		case m.Type == "tmpfs":
			return "tmpfs " + cmp.Or(m.TmpfsOpts, "without options")
		case m.ReadWrite:
			return m.Type + " read-write"
		}
		return m.Type + " read-only"
	}
	at := func(dest string) *Mount {
		for i := range s.Mounts {
			if path.Clean(s.Mounts[i].Destination) == path.Clean(dest) {
				return &s.Mounts[i]
			}
		}
		return nil
	}
	for _, d := range h.DropMounts {
		m := at(d)
		source := ""
		if m != nil {
			source = " of " + m.Source
		}
		line("mount "+d, mode(m)+source, "none")
	}
	for _, d := range h.ReadonlyMounts {
		line("mount "+d, mode(at(d)), strings.Replace(mode(at(d)), "read-write", "read-only", 1))
	}
	for _, d := range h.PrivateMounts {
		from := ""
		if m := at(d); m != nil {
			from = m.Propagation
		}
		line("propagation of "+d, from, "rprivate")
	}
	for _, d := range slices.Sorted(maps.Keys(h.Tmpfs)) {
		line("mount "+d, mode(at(d)), "tmpfs "+h.Tmpfs[d])
	}
	for _, v := range h.Volumes {
		line("mount "+v.Path, "none", "volume read-write, with what is there now")
	}
	for _, d := range h.Chown {
		line("owner of the files in "+d, "as they are", h.User)
	}
	for _, kv := range h.Env {
		key, _, _ := strings.Cut(kv, "=")
		line("environment "+key, "not set", "set, as the profile says")
	}
	for _, key := range h.DropEnv {
		line("environment "+key, "set", "not set")
	}
	flag(h.Memory > 0, "memory limit", size(s.Memory), size(h.Memory))
	flag(h.ShmSize > 0, "size of /dev/shm", size(s.ShmSize), size(h.ShmSize))
	flag(h.PidsLimit > 0, "process limit", limit(s.PidsLimit), h.PidsLimit)
	slices.Sort(b)
	slices.Sort(f)
	return strings.Join(b, "\n"), strings.Join(f, "\n")
}

func limit(n int64) string {
	if n <= 0 {
		return "none"
	}
	return strconv.FormatInt(n, 10)
}

// size words a number of bytes that is a limit.
func size(n int64) string {
	if n <= 0 || n%(1<<20) != 0 {
		return limit(n)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

func requests(n int) []string {
	if n == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%d requested", n)}
}

func without(all, drop []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(drop, s) })
}

func portList(ports []Port) string {
	var all []string
	for _, p := range ports {
		host := "any"
		if p.Host != 0 {
			host = strconv.Itoa(int(p.Host))
		}
		all = append(all, fmt.Sprintf("%s:%s->%d/%s", cmp.Or(p.HostIP, "0.0.0.0"), host, p.Container, p.Protocol))
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), " ")
}
