package containertest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/host"
)

// Harden returns settings as a [container.Hardening] changes them, except for
// its new volumes.
func Harden(s container.Settings, h container.Hardening) container.Settings {
	without := func(all, drop []string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(x string) bool { return slices.Contains(drop, x) })
	}
	if h.User != "" {
		s.User = h.User
	}
	s.GroupAdd = without(s.GroupAdd, h.DropGroups)
	s.ReadonlyRootfs = s.ReadonlyRootfs || h.ReadonlyRootfs
	s.Privileged = s.Privileged && !h.Unprivileged
	if h.DropCapabilities {
		s.CapDrop, s.CapAdd = []string{"ALL"}, nil
	}
	s.SecurityOpt = without(s.SecurityOpt, h.DropSecurityOpts)
	if h.NoNewPrivileges {
		s.SecurityOpt = append(s.SecurityOpt, "no-new-privileges:true")
	}
	if h.DropDevices {
		s.Devices, s.DeviceCgroupRules, s.DeviceRequests = nil, nil, 0
	}
	if h.MaskPaths {
		s.MaskedPaths, s.ReadonlyPaths = nil, nil
	}
	for _, ns := range h.Private {
		switch ns {
		case "cgroup":
			s.CgroupnsMode = "private"
		case "ipc":
			s.IpcMode = "private"
		case "pid":
			s.PidMode = ""
		case "uts":
			s.UTSMode = ""
		}
	}
	if h.Bridge {
		s.NetworkMode = "bridge"
	}
	if len(h.Ports) > 0 {
		s.Ports = slices.Clone(h.Ports)
	}
	s.Mounts = slices.DeleteFunc(slices.Clone(s.Mounts), func(m container.Mount) bool {
		_, replaced := h.Tmpfs[m.Destination]
		return replaced || slices.Contains(h.DropMounts, m.Destination)
	})
	for i := range s.Mounts {
		m := &s.Mounts[i]
		m.ReadWrite = m.ReadWrite && !slices.Contains(h.ReadonlyMounts, m.Destination)
		if slices.Contains(h.PrivateMounts, m.Destination) {
			m.Propagation = "rprivate"
		}
	}
	for _, dest := range slices.Sorted(maps.Keys(h.Tmpfs)) {
		m := container.Mount{Type: "tmpfs", Destination: dest, ReadWrite: true, TmpfsOpts: h.Tmpfs[dest]}
		for o := range strings.SplitSeq(m.TmpfsOpts, ",") {
			if v, ok := strings.CutPrefix(o, "size="); ok {
				m.TmpfsSize, _ = strconv.ParseInt(v, 10, 64)
			}
		}
		s.Mounts = append(s.Mounts, m)
	}
	s.EnvNames = without(s.EnvNames, h.DropEnv)
	if len(h.DropEnv) > 0 {
		s.EngineHosts = nil
	}
	for _, kv := range h.Env {
		name, _, _ := strings.Cut(kv, "=")
		s.EnvNames = append(s.EnvNames, name)
	}
	slices.Sort(s.EnvNames)
	if h.ShmSize > 0 {
		s.ShmSize = h.ShmSize
	}
	if h.Memory > 0 {
		s.Memory = h.Memory
	}
	if h.PidsLimit > 0 {
		s.PidsLimit = h.PidsLimit
	}
	return s
}

// Source returns the containers that e has under the given names, or those
// that run if there are none, with what [Facts] shows of each. Checks bound to
// it need no machine.
func Source(e container.Engine, names ...string) *harden.Source[container.Container] {
	return &harden.Source[container.Container]{
		Name:    "containers",
		Subject: func(c container.Container) string { return c.Subject() },
		List: func(ctx context.Context, _ *host.View) ([]container.Container, error) {
			info, err := e.Info(ctx)
			if err != nil {
				return nil, err
			}
			settings, err := e.Containers(ctx, names...)
			if err != nil {
				return nil, err
			}
			var all []container.Container
			for _, s := range settings {
				all = append(all, Facts(info, s))
			}
			return all, nil
		},
	}
}

// Facts returns a container of which the kernel shows what it would if the
// engine did as it was asked. Such a container is good for testing judges and
// remedies, and is no evidence of anything.
func Facts(info container.EngineInfo, s container.Settings) container.Container {
	c := container.Container{Settings: s, Engine: info}
	if !s.Running() {
		c.KernelErr = container.ErrNotRunning
		return c
	}
	machine := map[string]uint64{"pid": 1, "ipc": 2, "uts": 3, "net": 4, "mnt": 5, "cgroup": 6, "user": 7}
	c.Host = &container.Machine{Namespaces: make(map[string][]uint64), MemTotal: 16 << 30, PidMax: 1 << 22, DockerGroups: []uint32{999}}
	own := make(map[string]uint64)
	modes := map[string]string{"pid": s.PidMode, "ipc": s.IpcMode, "uts": s.UTSMode, "net": s.NetworkMode, "cgroup": s.CgroupnsMode, "user": "host", "mnt": ""}
	for kind, inode := range machine {
		c.Host.Namespaces[kind] = []uint64{inode}
		own[kind] = inode + uint64(s.PID)<<8
		if modes[kind] == "host" || kind == "cgroup" && s.CgroupnsMode == "" {
			own[kind] = inode
		}
	}
	p := container.Process{PID: s.PID, TID: s.PID, Name: "agent", Namespaces: own}
	k := &container.Kernel{UID: 0, GID: 0}
	if n, err := fmt.Sscanf(strings.ReplaceAll(s.User, ":", " "), "%d %d", &k.UID, &k.GID); err != nil && n < 1 && s.User != "" && s.User != "root" {
		k.UID, k.GID = 1000, 1000
	}
	for i := range p.UIDs {
		p.UIDs[i], p.GIDs[i] = uint32(k.UID), uint32(k.GID)
	}
	const usual, all = 0xa80425fb, 1<<41 - 1
	switch {
	case s.Privileged:
		p.CapBnd = all
	case len(s.CapAdd) > 0:
		p.CapBnd = usual
	case !slices.Contains(s.CapDrop, "ALL"):
		p.CapBnd = usual
	}
	if k.UID == 0 {
		p.CapEff, p.CapPrm = p.CapBnd, p.CapBnd
	}
	p.Seccomp = 2
	for _, o := range s.SecurityOpt {
		switch strings.NewReplacer("=", ":").Replace(o) {
		case "no-new-privileges", "no-new-privileges:true":
			p.NoNewPrivs = true
		case "seccomp:unconfined":
			p.Seccomp = 0
		}
	}
	k.Processes = []container.Process{p}
	tree := container.Tree{Source: fmt.Sprintf("/proc/%d/mountinfo", s.PID), Mounts: []container.MountPoint{
		{Device: "0:50", Root: "/", Path: "/", FSType: "overlay", ReadOnly: s.ReadonlyRootfs},
		{Device: "0:51", Root: "/", Path: "/proc", FSType: "proc"},
		{Device: "0:52", Root: "/", Path: "/dev", FSType: "tmpfs", Options: []string{"rw", "nosuid"}, Super: []string{"size=65536k"}},
	}}
	for _, m := range s.Mounts {
		at := container.MountPoint{Device: "8:1", Root: m.Source, Path: m.Destination, FSType: "ext4", ReadOnly: !m.ReadWrite, HostPaths: []string{m.Source}}
		at.Shared = strings.HasSuffix(m.Propagation, "shared")
		if m.Type == "tmpfs" {
			at = container.MountPoint{Device: "0:60", Root: "/", Path: m.Destination, FSType: "tmpfs", ReadOnly: !m.ReadWrite}
			at.Options = []string{"rw", "nosuid", "nodev", "noexec"}
			if m.TmpfsSize > 0 {
				at.Super = []string{fmt.Sprintf("size=%dk", m.TmpfsSize>>10)}
			}
		}
		if strings.HasSuffix(m.Source, ".sock") {
			k.Sockets = append(k.Sockets, container.ReachableSocket{HostPath: m.Source, Path: m.Destination, Owner: "dockerd", Engine: true})
		}
		tree.Mounts = append(tree.Mounts, at)
	}
	k.Trees = []container.Tree{tree}
	k.Cgroup = container.Cgroup{Path: "/docker/" + s.ID, Memory: -1, Pids: -1}
	if s.Memory > 0 {
		k.Cgroup.Memory = s.Memory
	}
	if s.PidsLimit > 0 {
		k.Cgroup.Pids = s.PidsLimit
	}
	c.Kernel = k
	return c
}
