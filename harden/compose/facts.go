package compose

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/managemyclaw/hardshell/harden/host"
)

// A Service is what a compose file declares about a container: a service, a
// job, or an init container of one of them. Fields may be added in later
// versions.
type Service struct {
	Name     string // "gateway", "job nightly" or "gateway pre_start 0"
	Source   string // the file, or the first of several
	Image    string
	Built    bool // from a Dockerfile that is not looked at
	Profiles []string
	Provider string // set if a program other than the engine provides the service
	Runtime  string // of the OCI; empty is the engine's default

	User      string // as written; empty means that of the image
	ImageUser string // see Options.ImageUsers; empty means unknown
	GroupAdd  []string

	ReadOnly    bool
	Mounts      []Mount // what is mounted, tmpfs included
	VolumesFrom []string

	CapDrop, CapAdd []string
	Privileged      bool
	Devices         []string // whatever gives devices, in words
	SecurityOpt     []string

	Pid, IPC, UTS, UserNS, Cgroup string // namespace modes as written
	CgroupParent                  string
	Sysctls                       []string // names
	BuildPrivileged               bool
	Hooks                         []Hook

	Network   string // mode as written, or "host" if an attached network is the host's
	Direct    []string
	Ports     []Port
	bindTo    []netip.Prefix
	Restart   string
	EngineEnv []string // names of variables that lead to a container engine
	EnvUnread []string // env files that could not be read
	APISocket bool     // use_api_socket

	Pids           int64 // the limit; zero or less is none
	Memory         int64 // in bytes; zero or less is none
	OOMKillDisable bool

	env      map[string]bool                           // names that are set
	argument func(flag string) (value string, ok bool) // of the command; a func, so that it prints nothing
}

// A Mount is a file tree mounted into a container.
type Mount struct {
	// Type is "bind", "volume", "tmpfs", "secret", "config" or another of
	// compose.
	Type string

	// Source is the path on the host, absolute and clean, or the name of a
	// volume.
	Source string

	// Paths are those on the host that the mount opens, where it opens any:
	// the source of a bind, what a local volume is bound to, and where
	// symbolic links lead.
	Paths []string

	Target      string
	ReadOnly    bool
	Propagation string

	// Opaque says why the file does not tell what is mounted. Empty if it
	// does.
	Opaque string

	// OwnFile says that the compose file itself is in it.
	OwnFile bool

	// Tmpfs has the options of a tmpfs.
	Tmpfs TmpfsOptions
}

// TmpfsOptions are those of a tmpfs that matter.
type TmpfsOptions struct {
	Bounded         bool // has a size below all of the memory
	Exec, Suid, Dev bool
}

// A Port is a published port. Ports that are only exposed are not listed.
type Port struct {
	HostIP   string // empty means every address
	Host     string // a number, a range, or empty for any
	Target   uint32 // in the container
	Protocol string
}

func (p Port) String() string {
	return fmt.Sprintf("%s:%s:%d/%s", p.HostIP, p.Host, p.Target, p.Protocol)
}

// Loopback reports whether only this machine reaches the port.
func (p Port) Loopback() bool {
	a, err := netip.ParseAddr(p.HostIP)
	return err == nil && a.Unmap().IsLoopback()
}

// A Hook is a command that is run in a container besides its own.
type Hook struct {
	User       string
	Privileged bool
}

type facts struct {
	in      *input
	tree    *host.View
	options Options
	project *types.Project
}

func (f *facts) services() []Service {
	var all []Service
	add := func(name string, c types.ContainerSpec, w types.WorkloadSpec) *Service {
		all = append(all, f.container(name, c))
		s := &all[len(all)-1]
		s.Built = w.Build != nil
		if b := w.Build; b != nil {
			s.BuildPrivileged = b.Privileged || len(b.Entitlements) > 0
		}
		for _, p := range w.Ports {
			s.Ports = append(s.Ports, Port{HostIP: p.HostIP, Host: p.Published, Target: p.Target, Protocol: p.Protocol})
		}
		return s
	}
	for _, name := range slices.Sorted(maps.Keys(f.project.Services)) {
		c := f.project.Services[name]
		s := add(name, c.ContainerSpec, c.WorkloadSpec)
		s.Profiles, s.Restart = c.Profiles, c.Restart
		if c.Provider != nil {
			s.Provider = c.Provider.Type
		}
		if d := c.Deploy; d != nil {
			if l := d.Resources.Limits; l != nil {
				s.Pids = cmp.Or(s.Pids, l.Pids)
				s.Memory = cmp.Or(s.Memory, int64(l.MemoryBytes))
				s.Devices = appendRequests(s.Devices, l.Devices)
			}
			if r := d.Resources.Reservations; r != nil {
				s.Devices = appendRequests(s.Devices, r.Devices)
			}
		}
		for _, h := range slices.Concat(c.PostStart, c.PreStop) {
			s.Hooks = append(s.Hooks, Hook{User: h.User, Privileged: h.Privileged})
		}
		for i, h := range c.PreStart {
			add(fmt.Sprintf("%s pre_start %d", name, i), h.ContainerSpec, types.WorkloadSpec{})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.project.Jobs)) {
		j := f.project.Jobs[name]
		add("job "+name, j.ContainerSpec, j.WorkloadSpec).Profiles = j.Profiles
	}
	return all
}

func appendRequests(to []string, requests []types.DeviceRequest) []string {
	for _, r := range requests {
		to = append(to, strings.TrimSpace("a device request "+r.Driver))
	}
	return to
}

func (f *facts) container(name string, c types.ContainerSpec) Service {
	s := Service{
		Name: name, Source: f.in.files[0].name, Image: c.Image, Runtime: c.Runtime,
		User: c.User, ImageUser: f.options.ImageUsers[c.Image], GroupAdd: c.GroupAdd,
		ReadOnly: c.ReadOnly, VolumesFrom: c.VolumesFrom,
		CapDrop: c.CapDrop, CapAdd: c.CapAdd, Privileged: c.Privileged, SecurityOpt: c.SecurityOpt,
		Pid: c.Pid, IPC: c.Ipc, UTS: c.Uts, UserNS: c.UserNSMode, Cgroup: c.Cgroup, CgroupParent: c.CgroupParent,
		Sysctls: slices.Sorted(maps.Keys(c.Sysctls)),
		Network: c.NetworkMode, APISocket: c.UseAPISocket,
		Pids: c.PidsLimit, Memory: int64(c.MemLimit), OOMKillDisable: c.OomKillDisable,
		bindTo:   f.options.BindTo,
		argument: func(flag string) (string, bool) { return argument(c.Command, flag) },
	}
	for _, d := range c.Devices {
		s.Devices = append(s.Devices, d.Source)
	}
	for _, r := range c.DeviceCgroupRules {
		s.Devices = append(s.Devices, "device_cgroup_rules "+r)
	}
	s.Devices = appendRequests(s.Devices, c.Gpus)
	for _, n := range slices.Sorted(maps.Keys(c.Networks)) {
		network := f.project.Networks[n]
		switch {
		case network.Name == "host" || network.Driver == "host":
			s.Network = "host"
		case network.Driver == "macvlan" || network.Driver == "ipvlan":
			s.Direct = append(s.Direct, n)
		}
	}
	f.mounts(&s, c)
	f.environment(&s, c)
	return s
}

func (f *facts) mounts(s *Service, c types.ContainerSpec) {
	for _, t := range c.Tmpfs {
		target, opts, _ := strings.Cut(t, ":")
		s.Mounts = append(s.Mounts, Mount{Type: "tmpfs", Target: path.Clean(target), Tmpfs: tmpfsOptions(opts)})
	}
	for _, v := range c.Volumes {
		m := Mount{Type: v.Type, Source: v.Source, Target: path.Clean(v.Target), ReadOnly: v.ReadOnly}
		switch v.Type {
		case types.VolumeTypeBind:
			m.Source = f.abs(v.Source)
			m.Paths = f.reach(m.Source)
			m.OwnFile = slices.ContainsFunc(f.in.files, func(file file) bool {
				return slices.ContainsFunc(m.Paths, func(p string) bool { return within(path.Clean(file.name), p) })
			})
			if v.Bind != nil {
				m.Propagation = v.Bind.Propagation
			}
		case types.VolumeTypeVolume:
			if v.Source != "" {
				f.volume(&m, f.project.Volumes[v.Source])
			}
		case types.VolumeTypeTmpfs:
			m.Tmpfs.Bounded = v.Tmpfs != nil && v.Tmpfs.Size > 0
		case types.VolumeTypeNamedPipe:
			m.Paths = []string{v.Source}
		case types.VolumeTypeImage:
		default:
			m.Opaque = "its type is " + strconv.Quote(v.Type)
		}
		s.Mounts = append(s.Mounts, m)
	}
	file := func(kind, name, target, source string) {
		if source != "" { // compose binds the file
			source = f.abs(source)
			s.Mounts = append(s.Mounts, Mount{
				Type: kind, Source: source, Paths: f.reach(source), Target: cmp.Or(target, name), ReadOnly: true,
			})
		}
	}
	for _, r := range c.Secrets {
		file("secret", r.Source, r.Target, f.project.Secrets[r.Source].File)
	}
	for _, r := range c.Configs {
		file("config", r.Source, r.Target, f.project.Configs[r.Source].File)
	}
}

// volume says what a named volume opens. A local volume can be a bind mount
// under another name.
func (f *facts) volume(m *Mount, v types.VolumeConfig) {
	switch {
	case bool(v.External):
		m.Opaque = "the volume is external: its options are not in the file"
	case v.Driver != "" && v.Driver != "local":
		m.Opaque = "the volume driver is " + strconv.Quote(v.Driver)
	}
	kind := strings.ToLower(v.DriverOpts["type"])
	if kind == "tmpfs" || strings.HasPrefix(kind, "nfs") || kind == "cifs" {
		return
	}
	if d := v.DriverOpts["device"]; d != "" && kind != "overlay" {
		m.Paths = append(m.Paths, f.reach(f.abs(d))...)
	}
	for opt := range strings.SplitSeq(v.DriverOpts["o"], ",") {
		if k, value, ok := strings.Cut(opt, "="); ok && strings.HasSuffix(k, "dir") { // of an overlay
			for p := range strings.SplitSeq(value, ":") {
				m.Paths = append(m.Paths, f.reach(f.abs(p))...)
			}
		}
	}
}

func tmpfsOptions(opts string) TmpfsOptions {
	var t TmpfsOptions
	for o := range strings.SplitSeq(opts, ",") {
		switch k, v, _ := strings.Cut(strings.TrimSpace(o), "="); k {
		case "size":
			t.Bounded = boundedSize(v)
		case "exec", "suid", "dev":
			set(&t, k, true)
		case "noexec", "nosuid", "nodev":
			set(&t, k[2:], false)
		}
	}
	return t
}

func set(t *TmpfsOptions, option string, on bool) {
	switch option {
	case "exec":
		t.Exec = on
	case "suid":
		t.Suid = on
	case "dev":
		t.Dev = on
	}
}

// boundedSize reports whether a size option of tmpfs limits it. Zero means no
// limit to the kernel, and half of the memory is what it allows without one.
func boundedSize(v string) bool {
	digits := strings.TrimRight(v, "kKmMgGtTpPeE%")
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || n == 0 {
		return false
	}
	return !strings.HasSuffix(v, "%") || n < 50
}

// abs makes a path of the host absolute as the loader would, with the home
// directory of the given environment.
func (f *facts) abs(p string) string {
	if rest, ok := strings.CutPrefix(p, "~"); ok && (rest == "" || rest[0] == '/') {
		home := f.in.env["HOME"]
		if home == "" {
			home = "/home/~" // somebody's
		}
		p = home + rest
	}
	if isWindows(p) {
		return p
	}
	if !path.IsAbs(p) {
		p = path.Join(f.in.dir, p)
	}
	return path.Clean(p)
}

// reach returns p and, as far as the file tree tells, where it leads.
func (f *facts) reach(p string) []string {
	paths := []string{p}
	if f.tree != nil && f.tree.FS != nil && path.IsAbs(p) {
		if r := resolve(f.tree, p); r != p {
			paths = append(paths, r)
		}
	}
	return paths
}

// resolve follows symbolic links in every part of p. Where it cannot look it
// leaves the rest as it is.
func resolve(tree *host.View, p string) string {
	const maxLinks = 40
	done, rest := "/", strings.TrimPrefix(p, "/")
	for links := 0; rest != ""; {
		part, after, _ := strings.Cut(rest, "/")
		next := path.Join(done, part)
		to, err := tree.ReadLink(next)
		if err != nil || links == maxLinks {
			done, rest = next, after
			continue
		}
		links++
		if !path.IsAbs(to) {
			to = path.Join(done, to)
		}
		done, rest = "/", strings.TrimPrefix(path.Join(to, after), "/")
	}
	return done
}

// engineVariables lead clients to a container engine.
var engineVariables = []string{
	"DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "CONTAINER_HOST", "CONTAINER_CONNECTION",
	"CONTAINERD_ADDRESS", "BUILDKIT_HOST", "KUBECONFIG", "CONTAINER_RUNTIME_ENDPOINT", "IMAGE_SERVICE_ENDPOINT",
}

func (f *facts) environment(s *Service, c types.ContainerSpec) {
	s.env = make(map[string]bool)
	set := func(name, value string) {
		s.env[name] = true
		if value != "" && slices.Contains(engineVariables, strings.ToUpper(name)) && !slices.Contains(s.EngineEnv, name) {
			s.EngineEnv = append(s.EngineEnv, name)
		}
	}
	overridden := func(name string) bool { _, ok := c.Environment[name]; return ok }
	for _, e := range c.EnvFiles {
		name := f.abs(e.Path)
		data, err := f.tree.ReadFile(name)
		if err == nil {
			vars := make(map[string]string)
			lookup := func(k string) (string, bool) { v, ok := f.in.env[k]; return v, ok }
			if e.Format == "raw" { // the names are the same
				for l := range strings.Lines(string(data)) {
					if k, v, ok := strings.Cut(strings.TrimSpace(l), "="); ok {
						vars[strings.TrimSpace(k)] = v
					}
				}
			} else {
				err = dotenv.ParseWithFormat(bytes.NewReader(data), name, vars, lookup, e.Format)
			}
			if err == nil {
				for k, v := range vars {
					if !overridden(k) {
						set(k, v)
					}
				}
				continue
			}
		}
		if bool(e.Required) || !isNotExist(err) {
			s.EnvUnread = append(s.EnvUnread, name)
		}
	}
	for k, v := range c.Environment {
		value := ""
		if v != nil {
			value = *v
		} else if inherited, ok := f.in.env[k]; ok {
			value = inherited
		}
		set(k, value)
	}
	slices.Sort(s.EngineEnv)
}
