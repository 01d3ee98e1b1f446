package compose

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// Source returns the source of the services of a loaded project.
func (p *Project) Source() *harden.Source[Service] {
	return source(func(context.Context, *host.View) ([]Service, error) { return p.services, nil })
}

// Source returns a source that loads a project through the view that it is
// given; o.FS is not used.
func Source(o Options) *harden.Source[Service] {
	return source(func(ctx context.Context, v *host.View) ([]Service, error) {
		o := o
		o.FS = v.FS
		p, err := Load(ctx, o)
		if err != nil {
			return nil, err
		}
		return p.services, nil
	})
}

func source(list func(context.Context, *host.View) ([]Service, error)) *harden.Source[Service] {
	return &harden.Source[Service]{
		Name:    "compose services",
		List:    list,
		Subject: func(s Service) string { return "compose/" + s.Name },
	}
}

// Checks returns the checks on what services declare. They need
// harden.LevelDeclared; see the package comment for what that is worth.
func Checks(src *harden.Source[Service]) []harden.Check {
	var all []harden.Check
	for _, r := range rules {
		all = append(all, harden.Each(r.info, src, r.check))
	}
	return all
}

// A rule judges one property of a service.
type rule struct {
	info  harden.Info
	judge func(*report, Service)
}

func (r rule) check(_ context.Context, s Service) (harden.Verdict, error) {
	rep := r.run(s)
	var err error
	if len(rep.unknown) > 0 {
		texts := make([]string, len(rep.unknown))
		for i, u := range rep.unknown {
			texts[i] = u.Message
		}
		err = errors.New(strings.Join(texts, "; "))
	}
	switch {
	case len(rep.findings) > 0:
		return harden.Fail(rep.findings[0], rep.findings[1:]...), err
	case err != nil:
		return harden.Verdict{}, err
	}
	return harden.Pass(harden.Evidence{
		Source:   s.Source + " services." + s.Name,
		Observed: rep.observed,
		Level:    harden.LevelDeclared,
	}), nil
}

func (r rule) run(s Service) *report {
	rep := &report{rule: r.info.ID, observed: "nothing declared against it"}
	if s.Provider != "" {
		rep.doubt("provider", "it is provided by the program %q, not by a container", s.Provider)
		return rep
	}
	r.judge(rep, s)
	return rep
}

// A report collects what a rule has to say about a service.
type report struct {
	rule     string
	observed string
	findings []harden.Finding
	unknown  []harden.Finding // what cannot be told from the file
}

func (r *report) fail(kind string, severity harden.Severity, remedy, format string, args ...any) {
	r.findings = append(r.findings, harden.Finding{
		ID: r.rule + "." + kind, Message: fmt.Sprintf(format, args...), Remedy: remedy, Severity: severity,
	})
}

func (r *report) doubt(kind, format string, args ...any) {
	r.unknown = append(r.unknown, harden.Finding{ID: r.rule + "." + kind, Message: fmt.Sprintf(format, args...)})
}

const (
	low      = harden.SeverityLow
	medium   = harden.SeverityMedium
	high     = harden.SeverityHigh
	critical = harden.SeverityCritical
)

var rules = []rule{
	{harden.Info{
		ID: "compose.non_root", Point: harden.PointNonRoot, Severity: high,
		Title: "Compose services do not run as root",
		Doc:   "Root in a container is root on the host but for the walls of the container. Set user to the uid:gid of an account of the image.",
		Refs:  []string{"CIS Docker 4.1"},
	}, judgeUser},
	{harden.Info{
		ID: "compose.read_only", Point: harden.PointReadOnlyFS, Severity: medium,
		Title: "Compose services have a read-only root",
		Doc:   "With read_only an agent cannot change its own code. What must be writable is a volume, or a tmpfs with a size.",
		Refs:  []string{"CIS Docker 5.13"},
	}, judgeReadOnly},
	{harden.Info{
		ID: "compose.mounts", Point: harden.PointReadOnlyFS, Severity: high,
		Title: "Compose services mount nothing that belongs to the machine",
		Doc:   "A system or home directory in a container is open to whoever takes over the agent. Mount a directory made for the purpose.",
		Refs:  []string{"CIS Docker 5.6", "CIS Docker 5.20"},
	}, judgeMounts},
	{harden.Info{
		ID: "compose.capabilities", Point: harden.PointCapDropAll, Severity: high,
		Title: "Compose services drop all capabilities",
		Doc:   "Set cap_drop: [ALL] and no cap_add; never privileged.",
		Refs:  []string{"CIS Docker 5.4", "CIS Docker 5.5"},
	}, judgeCapabilities},
	{harden.Info{
		ID: "compose.isolation", Point: harden.PointCapDropAll, Severity: high,
		Title: "Compose services keep the walls of their containers",
		Doc:   "The host's namespaces, its devices and switched-off profiles make up for capabilities that were dropped.",
		Refs: []string{
			"CIS Docker 5.2", "CIS Docker 5.10", "CIS Docker 5.16", "CIS Docker 5.17", "CIS Docker 5.18",
			"CIS Docker 5.21", "CIS Docker 5.22", "CIS Docker 5.25", "CIS Docker 5.31",
		},
	}, judgeIsolation},
	{harden.Info{
		ID: "compose.engine_socket", Point: harden.PointNoSocketMount, Severity: critical,
		Title: "Compose services cannot reach a container engine",
		Doc:   "Whoever reaches the socket of the engine is root on the host, read-only mount or not.",
		Refs:  []string{"CIS Docker 5.32"},
	}, judgeSocket},
	{harden.Info{
		ID: "compose.no_new_privileges", Point: harden.PointNoNewPrivileges, Severity: medium,
		Title: "Compose services cannot gain privileges",
		Doc:   "Set security_opt: [no-new-privileges:true], so that no setuid program gives more than the agent has. A default of the daemon is not visible in the file.",
		Refs:  []string{"CIS Docker 5.26"},
	}, judgeNoNewPrivileges},
	{harden.Info{
		ID: "compose.ports", Point: harden.PointLocalhost, Severity: high,
		Title: "Compose services publish ports on loopback only",
		Doc:   "A port without a host address is published on every address, past UFW. Write 127.0.0.1:18789:18789.",
		Refs:  []string{"CIS Docker 5.14"},
	}, judgePorts},
	{harden.Info{
		ID: "compose.limits", Severity: medium,
		Title: "Compose services have limits for memory and processes",
		Doc:   "Without limits one agent takes the machine down. Set mem_limit and pids_limit.",
		Refs:  []string{"CIS Docker 5.11", "CIS Docker 5.29"},
	}, judgeLimits},
}

func judgeUser(r *report, s Service) {
	user, of := s.User, "user"
	if user == "" {
		user, of = s.ImageUser, "the image's user"
	}
	const remedy = `set user to "uid:gid" of an account of the image`
	switch uid, gid := splitUser(user); {
	case user == "":
		r.doubt("user", "user is not set, and the user of the image is not known")
	case uid == isRoot:
		r.fail("user", 0, remedy, "%s is %q, which is root", of, user)
	case gid == isRoot:
		r.fail("user", 0, remedy, "%s is %q, whose group is root", of, user)
	case gid == isEngine:
		r.fail("user", 0, remedy, "%s is %q, whose group may use the container engine", of, user)
	case uid == isName || gid == isName:
		r.doubt("user", "%s is %q: only the image knows to which ids the name leads", of, user)
	case gid == isMissing:
		r.doubt("user", "%s is %q without a group: it is root's unless the image knows the account", of, user)
	default:
		r.observed = fmt.Sprintf("%s is %q", of, user)
	}
	for _, g := range s.GroupAdd {
		switch group(g) {
		case isRoot:
			r.fail("groups", 0, "remove it from group_add", "group_add has %q, which is root's group", g)
		case isEngine:
			r.fail("groups", 0, "remove it from group_add", "group_add has %q, which may use the container engine", g)
		case isName:
			r.doubt("groups", "group_add has %q: only the image knows to which id the name leads", g)
		}
	}
	for _, h := range s.Hooks {
		switch uid, _ := splitUser(h.User); {
		case h.User == "":
		case uid == isRoot:
			r.fail("hooks", 0, "remove the user from post_start and pre_stop", "a hook runs as %q, which is root", h.User)
		case uid == isName:
			r.doubt("hooks", "a hook runs as %q: only the image knows to which id the name leads", h.User)
		}
	}
}

type identity int

const (
	isNumber identity = iota
	isRoot
	isEngine
	isName
	isMissing
)

// splitUser classifies a user as the engine reads it: "uid", "uid:gid", and
// names in the place of either. An empty uid is 0.
func splitUser(user string) (uid, gid identity) {
	u, g, _ := strings.Cut(user, ":")
	uid = isRoot
	if u != "" {
		uid = number(u)
	}
	if g == "" {
		return uid, isMissing
	}
	return uid, group(g)
}

func number(s string) identity {
	n, err := strconv.Atoi(s) // as the engine: "00" and "+0" are 0
	switch {
	case s == "root", err == nil && n == 0:
		return isRoot
	case err != nil, n < 0, n > 1<<31-1:
		return isName
	}
	return isNumber
}

// group classifies a group. 999 is what Debian's and Ubuntu's packages of
// Docker usually get.
func group(s string) identity {
	n, err := strconv.Atoi(s)
	if s == "docker" || s == "podman" || err == nil && n == 999 {
		return isEngine
	}
	return number(s)
}

func judgeReadOnly(r *report, s Service) {
	if s.ReadOnly {
		r.observed = "read_only is true"
	} else {
		r.fail("root", 0, "set read_only: true", "the root file system is writable")
	}
	for _, m := range s.Mounts {
		if m.Type != "tmpfs" {
			continue
		}
		const remedy = "write it as /path:size=64m,noexec,nosuid,nodev"
		if !m.Tmpfs.Bounded {
			r.fail("tmpfs_size", 0, remedy, "the tmpfs on %s has no size that bounds it", m.Target)
		}
		for _, o := range []struct {
			on   bool
			name string
		}{{m.Tmpfs.Exec, "exec"}, {m.Tmpfs.Suid, "suid"}, {m.Tmpfs.Dev, "dev"}} {
			if o.on {
				r.fail("tmpfs_options", 0, remedy, "the tmpfs on %s is mounted with %s", m.Target, o.name)
			}
		}
	}
	if slices.Contains(systempaths(s.SecurityOpt), "unconfined") {
		r.fail("systempaths", high, "remove it from security_opt", "systempaths=unconfined opens /proc and /sys")
	}
}

func systempaths(opts []string) (values []string) {
	for _, o := range opts {
		if k, v := splitOpt(o); k == "systempaths" {
			values = append(values, v)
		}
	}
	return values
}

func judgeMounts(r *report, s Service) {
	for _, m := range s.Mounts {
		for _, p := range m.Paths {
			if why := sensitive(p, m.ReadOnly); why != "" {
				r.fail("host_path", 0, "mount a directory made for the purpose", "%s on %s opens %s, %s", m.describe(), m.Target, p, why)
				break
			}
		}
		if m.OwnFile && !m.ReadOnly {
			r.fail("own_file", 0, "mount a directory without the compose file, or read-only",
				"%s on %s has the compose file itself, and is writable", m.describe(), m.Target)
		}
		if m.Propagation == "shared" || m.Propagation == "rshared" {
			r.fail("propagation", medium, "remove the propagation", "%s on %s is mounted %s: mounts made inside appear on the host",
				m.describe(), m.Target, m.Propagation)
		}
		if m.Opaque != "" {
			r.doubt("opaque", "%s on %s: %s", m.describe(), m.Target, m.Opaque)
		}
	}
	for _, v := range s.VolumesFrom {
		if strings.HasPrefix(v, "container:") {
			r.doubt("volumes_from", "volumes_from has %q, whose mounts are not in the file", v)
		}
	}
}

func (m Mount) describe() string {
	if m.Source == "" {
		return "the " + m.Type
	}
	return m.Type + " " + m.Source
}

func judgeCapabilities(r *report, s Service) {
	if s.Privileged {
		r.fail("privileged", critical, "remove privileged", "privileged gives all capabilities and devices")
	}
	if slices.ContainsFunc(s.CapDrop, func(c string) bool { return strings.EqualFold(c, "ALL") }) {
		r.observed = "cap_drop has ALL, cap_add nothing"
	} else {
		r.fail("drop", 0, "set cap_drop: [ALL]", "cap_drop does not have ALL")
	}
	for _, c := range s.CapAdd {
		r.fail("add", 0, "remove it from cap_add", "cap_add gives %s", c)
	}
	for _, h := range s.Hooks {
		if h.Privileged {
			r.fail("hooks", critical, "remove privileged from post_start and pre_stop", "a hook runs with all capabilities")
		}
	}
}

func judgeIsolation(r *report, s Service) {
	for _, ns := range []struct{ key, mode string }{
		{"pid", s.Pid}, {"ipc", s.IPC}, {"uts", s.UTS}, {"userns_mode", s.UserNS}, {"cgroup", s.Cgroup},
	} {
		switch mode, _, _ := strings.Cut(ns.mode, ":"); mode {
		case "", "private", "none":
		case "host":
			r.fail(ns.key, 0, "remove "+ns.key, "%s is the host's", ns.key)
		case "container", "service", "shareable":
			r.fail(ns.key, medium, "remove "+ns.key, "%s is %q: shared with other containers", ns.key, ns.mode)
		default:
			r.doubt(ns.key, "%s is %q, which is not known here", ns.key, ns.mode)
		}
	}
	if s.Network == "host" {
		r.fail("network_mode", 0, "use a network of the project", "the network is the host's")
	}
	if s.CgroupParent != "" {
		r.fail("cgroup_parent", medium, "remove cgroup_parent", "cgroup_parent is %q: limits are somebody else's", s.CgroupParent)
	}
	for _, d := range s.Devices {
		r.fail("devices", 0, "remove the device", "it is given %s", d)
	}
	for _, name := range s.Sysctls {
		if !strings.HasPrefix(name, "net.") {
			r.fail("sysctls", medium, "remove it from sysctls", "it sets %s", name)
		}
	}
	if s.BuildPrivileged {
		r.fail("build", 0, "remove privileged and entitlements from build", "its image is built with privileges")
	}
	if known := []string{"", "runc", "io.containerd.runc.v2", "crun", "runsc", "kata-runtime"}; !slices.Contains(known, s.Runtime) {
		r.doubt("runtime", "the runtime is %q, which is not known here", s.Runtime)
	}
	for _, o := range s.SecurityOpt {
		const remedy = "remove it from security_opt"
		switch k, v := splitOpt(o); k {
		case "no-new-privileges", "systempaths": // see the other checks
		case "seccomp":
			switch v {
			case "unconfined":
				r.fail("seccomp", 0, remedy, "seccomp is switched off")
			case "builtin":
			default:
				r.doubt("seccomp", "the seccomp profile is the caller's own")
			}
		case "apparmor":
			switch v {
			case "unconfined":
				r.fail("apparmor", 0, remedy, "AppArmor is switched off")
			case "docker-default":
			default:
				r.doubt("apparmor", "the AppArmor profile is %q, which is not in the file", v)
			}
		case "label":
			switch {
			case v == "disable" || strings.Contains(v, "spc_t") || strings.Contains(v, "unconfined"):
				r.fail("label", 0, remedy, "SELinux is switched off by %q", o)
			case strings.HasPrefix(v, "type:"):
				r.doubt("label", "the SELinux type is the caller's own")
			}
		case "writable-cgroups":
			if on, err := strconv.ParseBool(v); err != nil || on {
				r.fail("cgroups", 0, remedy, "the container can change cgroups")
			}
		default:
			r.doubt("security_opt", "security_opt has %q, which is not known here", k)
		}
	}
}

// splitOpt splits an entry of security_opt as the engine does.
func splitOpt(o string) (key, value string) {
	if k, v, ok := strings.Cut(o, "="); ok {
		return k, v
	}
	key, value, _ = strings.Cut(o, ":")
	return key, value
}

func judgeSocket(r *report, s Service) {
	for _, m := range s.Mounts {
		for _, p := range m.Paths {
			if what := socketReach(p); what != "" {
				r.fail("mount", 0, "remove the mount", "%s on %s opens %s, %s", m.describe(), m.Target, p, what)
				break
			}
		}
		if m.Type != "tmpfs" && engineSocket.MatchString(canonical(path.Join("/", m.Target))) &&
			!slices.ContainsFunc(m.Paths, func(p string) bool { return socketReach(p) != "" }) {
			r.fail("mount", 0, "remove the mount", "%s is mounted as %s, the socket of a container engine", m.describe(), m.Target)
		}
		if m.Opaque != "" {
			r.doubt("opaque", "%s on %s: %s", m.describe(), m.Target, m.Opaque)
		}
	}
	if s.APISocket {
		r.fail("use_api_socket", 0, "remove use_api_socket", "use_api_socket gives it the socket and the credentials of the engine")
	}
	for _, v := range s.VolumesFrom {
		r.fail("volumes_from", high, "list the volumes", "volumes_from has %q: it gets every mount of another, sockets included", v)
	}
	for _, name := range s.EngineEnv {
		r.fail("environment", high, "remove the variable", "the variable %s leads it to a container engine", name)
	}
	for _, name := range s.EnvUnread {
		r.doubt("env_file", "the env file %s could not be read", name)
	}
	if s.Network == "host" {
		r.fail("network_mode", high, "use a network of the project", "on the host's network it reaches engines that listen on loopback and in the abstract namespace")
	}
}

func judgeNoNewPrivileges(r *report, s Service) {
	on, set := false, false
	for _, o := range s.SecurityOpt {
		k, v := splitOpt(o)
		if k != "no-new-privileges" {
			continue
		}
		set = true
		if v == "" && o == "no-new-privileges" {
			on = true
			continue
		}
		b, err := strconv.ParseBool(v)
		on = err == nil && b // the last one wins
	}
	const remedy = "add no-new-privileges:true to security_opt"
	switch {
	case on:
		r.observed = "security_opt has no-new-privileges"
	case set:
		r.fail("off", 0, remedy, "no-new-privileges is switched off")
	default:
		r.fail("unset", 0, remedy, "no-new-privileges is not set")
	}
}

func judgePorts(r *report, s Service) {
	switch mode, with, _ := strings.Cut(s.Network, ":"); mode {
	case "host":
		r.fail("network_mode", 0, "use a network of the project", "on the host's network every port it listens on is the host's")
	case "container":
		r.doubt("network_mode", "it has the network of the container %q, whose ports are not in the file", with)
	case "service":
		r.observed = "it has the network of the service " + with
	case "none":
		r.observed = "it has no network"
	default:
		r.observed = fmt.Sprintf("%d published ports, all on loopback", len(s.Ports))
	}
	for _, n := range s.Direct {
		r.fail("direct", 0, "use a bridge network", "the network %s puts it on the network of the host", n)
	}
	for _, p := range s.Ports {
		switch a, err := netip.ParseAddr(p.HostIP); {
		case p.Loopback():
		case p.HostIP == "", err == nil && a.IsUnspecified():
			r.fail("published", 0, "publish it on 127.0.0.1", "port %s is published on every address", p)
		case err != nil:
			r.fail("published", 0, "publish it on 127.0.0.1", "port %s is published on %q, which is not an address", p, p.HostIP)
		case slices.ContainsFunc(s.bindTo, func(n netip.Prefix) bool { return n.Contains(a.Unmap()) }):
		default:
			r.fail("published", 0, "publish it on 127.0.0.1", "port %s is published beyond this machine", p)
		}
	}
}

func judgeLimits(r *report, s Service) {
	r.observed = fmt.Sprintf("%d bytes of memory, %d processes", s.Memory, s.Pids)
	if s.Memory <= 0 {
		r.fail("memory", 0, "set mem_limit", "there is no limit for memory")
	}
	if s.Pids <= 0 {
		r.fail("pids", 0, "set pids_limit", "there is no limit for processes")
	}
	if s.OOMKillDisable {
		r.fail("oom", 0, "remove oom_kill_disable", "oom_kill_disable defeats the limit for memory")
	}
}
