package container

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/managemyclaw/hardshell/harden"
)

var errNoRoot = errors.New("no mount is at the root of the container's tree, as after a chroot")

func judgeRoot(_ context.Context, c Container) (harden.Verdict, error) {
	const remedy = "run with --read-only, and give the agent a volume for its state and a tmpfs for /tmp"
	var v violations
	if err := c.unseen(); err != nil {
		if !c.ReadonlyRootfs {
			v.add("", 0, remedy, "its root file system is writable",
				declared("inspect HostConfig.ReadonlyRootfs", "false", "true"))
		}
		return v.verdict(err)
	}
	var pass []harden.Evidence
	var err error
	for _, t := range c.Kernel.Trees {
		root := t.at("/")
		switch {
		case root == nil:
			err = fmt.Errorf("%s: %w", t.Source, errNoRoot)
		case !root.ReadOnly:
			v.add("", 0, remedy, "its root file system is writable", inspected(t.Source, root.describe(), "ro"))
		default:
			pass = append(pass, inspected(t.Source, root.describe(), ""))
		}
	}
	return v.verdict(err, pass...)
}

// at returns the mount that is seen at a mount point, or nil.
func (t *Tree) at(name string) *MountPoint {
	for i, m := range slices.Backward(t.Mounts) { // a later mount covers an earlier one
		if m.Path == name {
			return &t.Mounts[i]
		}
	}
	return nil
}

func (m *MountPoint) describe() string {
	mode := "rw"
	if m.ReadOnly {
		mode = "ro"
	}
	s := fmt.Sprintf("%s %s %s", m.Path, m.FSType, mode)
	if len(m.HostPaths) > 0 {
		s += " of host " + joinSome(m.HostPaths)
	}
	return s
}

func judgeTmpfs(p Profile) judge {
	return func(_ context.Context, c Container) (harden.Verdict, error) {
		const id = "container.tmpfs"
		var v violations
		if err := c.unseen(); err != nil {
			for _, m := range c.Mounts {
				if m.Type == "tmpfs" && m.TmpfsSize == 0 && !strings.Contains(m.TmpfsOpts, "size=") {
					v.add(id+".size", 0, "give it a size", fmt.Sprintf("the tmpfs at %s has no size", m.Destination),
						declared("inspect HostConfig.Tmpfs", m.Destination+" "+m.TmpfsOpts, "size=…"))
				}
			}
			return v.verdict(err)
		}
		var pass []harden.Evidence
		for _, t := range c.Kernel.Trees {
			for _, m := range t.Mounts {
				if m.FSType != "tmpfs" && m.FSType != "ramfs" || m.ReadOnly || m.mask() {
					continue
				}
				options := strings.Join(append(slices.Clone(m.Options), m.Super...), ",")
				ev := inspected(t.Source, m.Path+" "+m.FSType+" "+options, "size=…,noexec,nosuid,nodev")
				size, bounded := tmpfsSize(m.Super)
				if len(m.HostPaths) > 0 && !slices.ContainsFunc(m.HostPaths, c.ownVolume) && !c.ownShm(&m) {
					continue // the host's: judgeHostPaths and judgeWritable
				}
				if m.Path == "/sys/fs/cgroup" && slices.Contains(m.Super, "mode=755") {
					// Of cgroup v1: the engine makes it, for root alone to write
					// to, and a root process is a finding of its own.
					continue
				}
				if m.FSType == "ramfs" || !bounded || c.Host.MemTotal > 0 && size >= c.Host.MemTotal/2 {
					v.add(id+".size", 0, "give it a size", fmt.Sprintf("the tmpfs at %s may grow to half of the machine's memory or more", m.Path), ev)
				}
				need := []string{"nosuid", "nodev", "noexec"}
				switch {
				case m.Path == "/dev": // it is there for its devices; none of them executes
					need = []string{"nosuid"}
				case p.writable(m.Path):
					need = need[:2]
				}
				for _, option := range need {
					if !slices.Contains(m.Options, option) {
						v.add(id+"."+option, 0, "mount it "+option, fmt.Sprintf("the tmpfs at %s is not mounted %s", m.Path, option), ev)
					}
				}
				pass = append(pass, inspected(t.Source, m.Path+" "+options, ""))
			}
		}
		if len(pass) == 0 {
			pass = append(pass, inspected(c.Kernel.Trees[0].Source, "no writable tmpfs", ""))
		}
		return v.verdict(nil, pass...)
	}
}

// tmpfsSize reads the size among a tmpfs's options, which the kernel gives in
// kibibytes.
func tmpfsSize(super []string) (int64, bool) {
	for _, o := range super {
		if rest, ok := strings.CutPrefix(o, "size="); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(rest, "k"), 10, 64)
			return n << 10, err == nil && n > 0 && n < 1<<50
		}
	}
	return 0, false
}

// engineFiles are what an engine mounts into every container from its own
// directory. They are writable by root where the root is.
var engineFiles = []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}

// engineFile reports whether a mount is one of the engine's own files.
func (c *Container) engineFile(m *MountPoint) bool {
	return slices.Contains(engineFiles, m.Path) &&
		slices.ContainsFunc(m.HostPaths, func(h string) bool { return slices.Contains(c.OwnFiles, h) })
}

// ownShm reports whether a mount is the container's shared memory, which the
// engine keeps in its own directory where others may join (--ipc=shareable).
func (c *Container) ownShm(m *MountPoint) bool {
	return m.Path == "/dev/shm" && m.FSType == "tmpfs" && c.ID != "" &&
		!slices.ContainsFunc(m.HostPaths, func(h string) bool { return !strings.Contains(h, "/"+c.ID+"/") })
}

func judgeWritable(p Profile) judge {
	return func(_ context.Context, c Container) (harden.Verdict, error) {
		const remedy = "mount it read-only, or declare it as state that the agent keeps"
		var v violations
		if err := c.unseen(); err != nil {
			for _, m := range c.Mounts {
				if m.ReadWrite && m.Type != "tmpfs" && !p.writable(m.Destination) {
					v.add("", 0, remedy, fmt.Sprintf("%s is writable and not declared", m.Destination),
						declared("inspect Mounts", m.Type+" "+m.Destination, "read-only"))
				}
			}
			return v.verdict(err)
		}
		var seen, state []string
		for _, t := range c.Kernel.Trees {
			for _, m := range t.Mounts {
				if m.ReadOnly || slices.Contains(seen, m.Path) || c.ownWritable(&m) {
					continue
				}
				seen = append(seen, m.Path)
				if p.writable(m.Path) {
					state = append(state, m.Path)
					continue
				}
				v.add("", 0, remedy, fmt.Sprintf("%s is writable and not declared", m.Path), inspected(t.Source, m.describe(), "ro"))
			}
		}
		observed := "no writable mount beside the container's own tmpfs"
		if len(state) > 0 {
			observed = "writable are only " + joinSome(state) + ", as declared"
		}
		return v.verdict(nil, inspected(c.Kernel.Trees[0].Source, observed, ""))
	}
}

// ownWritable reports whether a writable mount is one that every container
// has, or that another check judges.
func (c *Container) ownWritable(m *MountPoint) bool {
	switch {
	case m.Path == "/": // judgeRoot
		return true
	case m.FSType == "tmpfs" || m.FSType == "ramfs":
		return len(m.HostPaths) == 0 || c.ownShm(m) // judgeTmpfs
	case m.FSType == "proc":
		return m.Path == "/proc" && m.Root == "/" && len(m.HostPaths) == 0
	case m.FSType == "devpts":
		return m.Path == "/dev/pts" || m.Path == "/dev/console"
	case m.FSType == "mqueue":
		return m.Path == "/dev/mqueue"
	}
	return c.engineFile(m)
}

func judgeHostPaths(_ context.Context, c Container) (harden.Verdict, error) {
	const remedy = "remove the mount, or mount only the directory that the agent needs"
	var v violations
	severity := func(readOnly bool) harden.Severity {
		if readOnly {
			return harden.SeverityHigh
		}
		return harden.SeverityCritical
	}
	for _, m := range c.Mounts { // what is asked for, wherever the kernel has it
		source := m.Source
		if m.Type == "volume" {
			source = m.Options["device"]
		}
		if source == "" || m.Type == "tmpfs" || !strings.HasPrefix(source, "/") {
			continue
		}
		if why := c.sensitive(source, !m.ReadWrite); why != "" {
			v.add("", severity(!m.ReadWrite), remedy, fmt.Sprintf("%s of the host is mounted at %s: %s", source, m.Destination, why),
				declared("inspect Mounts", m.Type+" "+source+" "+m.Destination, ""))
		}
	}
	if err := c.unseen(); err != nil {
		return v.verdict(err)
	}
	var checked int
	var seen, lost []string
	for _, t := range c.Kernel.Trees {
		for _, m := range t.Mounts {
			if c.engineMount(&m) {
				continue
			}
			// Part of a tmpfs is part of somebody's, too.
			foreign := !slices.Contains(ownFileSystems, m.FSType) || m.FSType == "tmpfs" && m.Root != "/" && !m.mask()
			if len(m.HostPaths) == 0 && foreign {
				lost = append(lost, m.Path)
			}
			for _, h := range m.HostPaths {
				key := h + "\x00" + m.Path
				if c.ownVolume(h) || c.volumeElsewhere(h, m.HostPaths) || slices.Contains(seen, key) {
					continue
				}
				seen = append(seen, key)
				checked++
				told := slices.ContainsFunc(v, func(f harden.Finding) bool {
					return strings.HasPrefix(f.Message, h+" of the host is mounted at "+m.Path+":")
				})
				if why := c.sensitive(h, m.ReadOnly); why != "" && !told {
					v.add("", severity(m.ReadOnly), remedy, fmt.Sprintf("%s of the host is mounted at %s: %s", h, m.Path, why),
						inspected(t.Source, m.describe(), ""))
				}
			}
		}
	}
	observed := "nothing of the host is mounted"
	if checked > 0 {
		observed = fmt.Sprintf("%s of the host, none sensitive", count(checked, "path", "paths"))
	}
	var err error
	if len(lost) > 0 {
		err = fmt.Errorf("where the files of %s are on the host cannot be seen: they were removed, or the engine has mounts of its own", joinSome(lost))
	}
	return v.verdict(err, inspected(c.Kernel.Trees[0].Source, observed, ""))
}

// ownFileSystems are those of which every container has instances of its own.
var ownFileSystems = []string{"tmpfs", "ramfs", "proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2"}

// engineMount reports whether a mount is part of every container, although the
// same files are somewhere on the host.
func (c *Container) engineMount(m *MountPoint) bool {
	switch {
	case m.Path == "/", c.engineFile(m), c.ownShm(m):
		return true
	case m.FSType == "sysfs":
		return below(m.Path, "/sys")
	case m.FSType == "cgroup" || m.FSType == "cgroup2":
		return below(m.Path, "/sys/fs/cgroup")
	case m.Path == "/sbin/docker-init" || m.Path == "/usr/sbin/docker-init":
		return m.ReadOnly // --init
	}
	// Masks: /proc/kcore and others are covered with the container's own
	// /dev/null.
	return m.ReadOnly && below(m.Path, "/proc") && len(m.HostPaths) == 0
}

// ownVolume reports whether a path of the host is the directory in which the
// engine keeps a volume of the container.
func (c *Container) ownVolume(hostPath string) bool {
	return slices.ContainsFunc(c.Mounts, func(m Mount) bool {
		return m.Type == "volume" && m.Source != "" && path.Clean(m.Source) == hostPath
	})
}

// volumeElsewhere reports whether a path of the host is a volume of the
// container as it shows, for as long as its mounts are being made, in the root
// of another container that has the host mounted.
func (c *Container) volumeElsewhere(hostPath string, all []string) bool {
	return c.Engine.DataRoot != "" && below(hostPath, path.Clean(c.Engine.DataRoot)) &&
		slices.ContainsFunc(all, func(own string) bool { return hostPath != own && c.ownVolume(own) && strings.HasSuffix(hostPath, own) })
}

func judgeMasks(_ context.Context, c Container) (harden.Verdict, error) {
	const remedy = "remove the security option systempaths=unconfined"
	var v violations
	if err := c.unseen(); err != nil {
		if c.Privileged || c.MaskedPaths != nil && len(c.MaskedPaths) == 0 {
			v.add("", 0, remedy, "no path of the kernel's is masked", declared("inspect HostConfig.MaskedPaths", "none", "the engine's default"))
		}
		return v.verdict(err)
	}
	for _, t := range c.Kernel.Trees {
		var open []string
		for _, name := range c.Host.Masked {
			if t.exposes(name) && !t.covered(name) {
				open = append(open, name)
			}
		}
		if len(open) > 0 {
			v.add("container.masked_paths.visible", 0, remedy, "kernel interfaces are visible: "+joinSome(open),
				inspected(t.Source, "no mount at "+joinSome(open), "covered"))
		}
		open = nil
		for _, name := range c.Host.ReadOnly {
			if m := t.at(name); t.exposes(name) && (m == nil || !m.ReadOnly) {
				open = append(open, name)
			}
		}
		if len(open) > 0 {
			v.add("container.masked_paths.writable", 0, remedy, "kernel interfaces are writable: "+joinSome(open),
				inspected(t.Source, joinSome(open)+" not mounted ro", "ro"))
		}
	}
	return v.verdict(nil, inspected(c.Kernel.Trees[0].Source,
		fmt.Sprintf("%s covered, %d read-only", count(len(c.Host.Masked), "path is", "paths are"), len(c.Host.ReadOnly)), ""))
}

// exposes reports whether a tree shows a path of the kernel's at all.
func (t *Tree) exposes(name string) bool {
	fs := "proc"
	top := "/proc"
	if below(name, "/sys") {
		fs, top = "sysfs", "/sys"
	}
	m := t.at(top)
	return m != nil && m.FSType == fs
}

// mask reports whether a mount is the container's own /dev/null, which hides a
// file.
func (m *MountPoint) mask() bool {
	return m.FSType == "tmpfs" && m.Root == "/null" && len(m.HostPaths) == 0
}

// covered reports whether a mount of something else is at a path: a directory
// is covered by an empty read-only tmpfs, a file by a device node.
func (t *Tree) covered(name string) bool {
	m := t.at(name)
	return m != nil && m.FSType != "proc" && m.FSType != "sysfs" && (m.ReadOnly || m.mask())
}

func judgePropagation(_ context.Context, c Container) (harden.Verdict, error) {
	const remedy = "mount it with private propagation"
	var v violations
	if err := c.unseen(); err != nil {
		for _, m := range c.Mounts {
			if m.Propagation == "shared" || m.Propagation == "rshared" {
				v.add("", 0, remedy, fmt.Sprintf("mounts below %s propagate to the host", m.Destination),
					declared("inspect Mounts[].Propagation", m.Propagation, "rprivate"))
			}
		}
		return v.verdict(err)
	}
	for _, t := range c.Kernel.Trees {
		for _, m := range t.Mounts {
			if m.Shared && len(m.HostPaths) > 0 && !c.engineFile(&m) {
				v.add("", 0, remedy, fmt.Sprintf("mounts below %s propagate to the host", m.Path),
					inspected(t.Source, m.describe()+" shared", "private"))
			}
		}
	}
	return v.verdict(nil, inspected(c.Kernel.Trees[0].Source, "no mount of the host's is shared", ""))
}
