package container

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/harden"
)

// capabilityNames are in the order of their bits; see linux/capability.h.
var capabilityNames = []string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
	"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
	"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE",
}

// capabilities names the bits of a set.
func capabilities(set uint64) string {
	if set == 0 {
		return "none"
	}
	var names []string
	for i := range 64 {
		switch {
		case set&(1<<i) == 0:
		case i < len(capabilityNames):
			names = append(names, capabilityNames[i])
		default:
			names = append(names, fmt.Sprintf("CAP_%d", i))
		}
	}
	if len(names) > 8 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:8], " "), len(names)-8)
	}
	return strings.Join(names, " ")
}

func judgeCapabilities(_ context.Context, c Container) (harden.Verdict, error) {
	const id = "container.capabilities"
	const remedy = "run with --cap-drop ALL and no --cap-add"
	var v violations
	if err := c.unseen(); err != nil {
		if !slices.ContainsFunc(c.CapDrop, func(s string) bool { return strings.EqualFold(s, "ALL") }) {
			v.add(id+".not_dropped", 0, remedy, "it keeps the engine's default capabilities",
				declared("inspect HostConfig.CapDrop", fmt.Sprintf("%v", c.CapDrop), "[ALL]"))
		}
		if len(c.CapAdd) > 0 {
			v.add(id+".added", 0, remedy, "capabilities are added: "+joinSome(c.CapAdd),
				declared("inspect HostConfig.CapAdd", fmt.Sprintf("%v", c.CapAdd), "[]"))
		}
		return v.verdict(err)
	}
	has := c.Kernel.every("none", func(p *Process) (string, bool) {
		set := p.CapEff | p.CapPrm | p.CapInh | p.CapAmb
		return "effective, permitted, inheritable or ambient: " + capabilities(set), set == 0
	})
	if has.count > 0 {
		v.add(id+".held", 0, remedy, count(has.count, "thread has", "threads have")+" capabilities", has.shown...)
	}
	may := c.Kernel.every("none", func(p *Process) (string, bool) {
		return "bounding: " + capabilities(p.CapBnd), p.CapBnd == 0
	})
	if may.count > 0 {
		v.add(id+".bounding", harden.SeverityMedium, remedy, count(may.count, "thread", "threads")+" could gain capabilities", may.shown...)
	}
	return v.verdict(nil, c.Kernel.all("CapInh, CapPrm, CapEff, CapBnd and CapAmb are empty"))
}

func judgePrivileged(_ context.Context, c Container) (harden.Verdict, error) {
	const remedy = "run without --privileged, also in docker exec"
	var v violations
	if c.Privileged {
		v.add("", 0, remedy, "it is privileged", declared("inspect HostConfig.Privileged", "true", "false"))
	}
	if err := c.unseen(); err != nil {
		return v.verdict(err)
	}
	// SYS_ADMIN, SYS_MODULE and SYS_RAWIO together are what the engine gives to
	// nobody else, and docker exec --privileged to one process.
	const all = 1<<21 | 1<<16 | 1<<17
	if o := c.Kernel.every("not all", func(p *Process) (string, bool) {
		return "effective: " + capabilities(p.CapEff), p.CapEff&all != all
	}); o.count > 0 {
		v.add("container.privileged.process", 0, remedy, count(o.count, "thread has", "threads have")+" the capabilities of a privileged container", o.shown...)
	}
	return v.verdict(nil, c.Kernel.all("no SYS_ADMIN with SYS_MODULE and SYS_RAWIO"))
}

// defaultDeviceRules are the entries of the device controller of cgroup v1
// that runc gives every container: making nodes, and using the standard ones.
var defaultDeviceRules = []string{
	"c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:1 rwm",
	"c 5:2 rwm", "c 136:* rwm", "c 10:200 rwm",
}

func judgeDevices(_ context.Context, c Container) (harden.Verdict, error) {
	const id = "container.devices"
	const remedy = "run without --device, --device-cgroup-rule and --gpus"
	var v violations
	if len(c.Settings.Devices) > 0 {
		v.add(id+".passed", 0, remedy, "devices are passed to it: "+joinSome(c.Settings.Devices),
			declared("inspect HostConfig.Devices", joinSome(c.Settings.Devices), "none"))
	}
	if len(c.DeviceCgroupRules) > 0 {
		v.add(id+".rules", 0, remedy, "it may use devices: "+joinSome(c.DeviceCgroupRules),
			declared("inspect HostConfig.DeviceCgroupRules", joinSome(c.DeviceCgroupRules), "none"))
	}
	if c.DeviceRequests > 0 {
		v.add(id+".requests", 0, remedy, fmt.Sprintf("%d kinds of device, such as GPUs, are requested for it", c.DeviceRequests),
			declared("inspect HostConfig.DeviceRequests", fmt.Sprint(c.DeviceRequests), "0"))
	}
	if err := c.unseen(); err != nil {
		return v.verdict(err)
	}
	k := c.Kernel
	dev := "/proc/" + fmt.Sprint(c.PID) + "/root/dev"
	if len(k.Devices) > 0 {
		v.add(id+".nodes", 0, remedy, "devices of the host are in its /dev: "+joinSome(k.Devices), inspected(dev, joinSome(k.Devices), "only the standard ones"))
	}
	var rules []string
	for _, r := range k.DeviceRules {
		if !slices.Contains(defaultDeviceRules, r) {
			rules = append(rules, r)
		}
	}
	if len(rules) > 0 {
		v.add(id+".allowed", 0, remedy, "its cgroup allows devices: "+joinSome(rules), inspected("devices.list of "+k.Cgroup.Path, joinSome(rules), "only the standard ones"))
	}
	return v.verdict(nil, inspected(dev, "only the standard devices", ""))
}

func judgeNoNewPrivileges(_ context.Context, c Container) (harden.Verdict, error) {
	const remedy = "run with --security-opt no-new-privileges:true"
	var v violations
	if err := c.unseen(); err != nil {
		return v.verdict(err) // the engine's own default is not in the container's settings
	}
	if o := c.Kernel.every("NoNewPrivs: 1", func(p *Process) (string, bool) { return "NoNewPrivs: 0", p.NoNewPrivs }); o.count > 0 {
		v.add("", 0, remedy, count(o.count, "thread", "threads")+" may gain privileges by running a setuid program", o.shown...)
	}
	return v.verdict(nil, c.Kernel.all("NoNewPrivs is 1"))
}

func judgeLSM(_ context.Context, c Container) (harden.Verdict, error) {
	const remedy = "remove apparmor=unconfined or label=disable from its security options"
	var v violations
	for _, o := range c.SecurityOpt {
		key, value := securityOption(o)
		if key == "apparmor" && value == "unconfined" || key == "label" && value == "disable" && c.PidMode != "host" && c.IpcMode != "host" && !c.Privileged {
			v.add("", 0, remedy, "it is exempt from the machine's security module", declared("inspect HostConfig.SecurityOpt", o, "not set"))
		}
	}
	if err := c.unseen(); err != nil {
		return v.verdict(err)
	}
	if c.Host.LSM == "" {
		if len(v) > 0 {
			return v.verdict(nil) // it would be on a machine that has one
		}
		return harden.NotApplicable("the machine has neither AppArmor nor SELinux"), nil
	}
	if o := c.Kernel.every("a label of the container's own", func(p *Process) (string, bool) {
		return p.Label, p.Label != "" && !strings.Contains(p.Label, "unconfined") && !strings.Contains(p.Label, "spc_t")
	}); o.count > 0 {
		v.add("", 0, remedy, count(o.count, "thread is", "threads are")+" not confined by "+c.Host.LSM, o.shown...)
	}
	return v.verdict(nil, c.Kernel.all(c.Host.LSM+" label "+c.Kernel.Processes[0].Label))
}

// securityOption splits a security option; Docker takes "=" and ":" and what
// comes first of them.
func securityOption(o string) (key, value string) {
	i := strings.IndexAny(o, "=:")
	if i < 0 {
		return o, ""
	}
	return o[:i], o[i+1:]
}

func judgeNamespaces(_ context.Context, c Container) (harden.Verdict, error) {
	const id = "container.namespaces"
	var v violations
	for _, m := range []struct{ kind, mode string }{{"pid", c.PidMode}, {"ipc", c.IpcMode}, {"uts", c.UTSMode}} {
		remedy := fmt.Sprintf("run without --%s=%s", m.kind, m.mode)
		switch {
		case m.mode == "host":
			v.add(id+"."+m.kind, 0, remedy, fmt.Sprintf("it is in the host's %s namespace", m.kind),
				declared("inspect HostConfig", m.kind+"="+m.mode, "private"))
		case strings.HasPrefix(m.mode, "container:"):
			v.add(id+"."+m.kind, harden.SeverityMedium, remedy, fmt.Sprintf("it is in the %s namespace of another container", m.kind),
				declared("inspect HostConfig", m.kind+"="+m.mode, "private"))
		}
	}
	if c.UsernsMode == "host" && c.Engine.UsernsRemap {
		v.add(id+".user", 0, "run without --userns=host", "it is exempt from the engine's user namespaces",
			declared("inspect HostConfig.UsernsMode", "host", ""))
	}
	if err := c.unseen(); err != nil {
		return v.verdict(err)
	}
	kinds := []string{"pid", "ipc", "uts", "mnt"}
	if c.Engine.UsernsRemap {
		kinds = append(kinds, "user")
	}
	if c.Engine.CgroupVersion == "2" { // on version 1 the host's is the engine's default
		kinds = append(kinds, "cgroup")
	}
	for _, kind := range kinds {
		p, shared := c.shares(kind)
		told := slices.ContainsFunc(v, func(f harden.Finding) bool { return f.ID == id+"."+kind })
		if shared && !told {
			v.add(id+"."+kind, 0, "use a private namespace", fmt.Sprintf("it is in the host's %s namespace", kind),
				inspected(fmt.Sprintf("/proc/%d/ns/%s", p.PID, kind), fmt.Sprintf("%s:[%d], the host's", kind, p.Namespaces[kind]), "another"))
		}
	}
	return v.verdict(nil, inspected(fmt.Sprintf("/proc/%d/ns", c.PID), "none is the host's: "+strings.Join(kinds, ", "), ""))
}

func judgeCgroupNamespace(_ context.Context, c Container) (harden.Verdict, error) {
	var v violations
	if err := c.unseen(); err != nil {
		return v.verdict(err)
	}
	if p, shared := c.shares("cgroup"); shared {
		v.add("", 0, "run with --cgroupns=private", "it is in the host's cgroup namespace",
			inspected(fmt.Sprintf("/proc/%d/ns/cgroup", p.PID), "the host's", "another"))
	}
	return v.verdict(nil, inspected(fmt.Sprintf("/proc/%d/ns/cgroup", c.PID), "not the host's", ""))
}
