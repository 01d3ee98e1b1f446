package docker

import (
	"maps"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	api "github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/go-connections/nat"

	"github.com/managemyclaw/hardshell/harden/container"
)

// A clone is what to ask an engine for in order to get a container like
// another.
type clone struct {
	config     *api.Config
	host       *api.HostConfig
	networking *network.NetworkingConfig
	connect    []connection // to be made afterwards
	disconnect string       // a network, afterwards
}

type connection struct {
	name     string
	endpoint *network.EndpointSettings
}

// clonePlan plans a container like old, hardened by h. It does not change old.
func clonePlan(old *api.InspectResponse, h container.Hardening, version string) clone {
	config, host := *old.Config, *old.HostConfig
	c := clone{config: &config, host: &host}
	config.Env = environment(config.Env, h)
	if len(config.Entrypoint) == 0 {
		// Nothing would bring back the image's; an empty word is nothing.
		config.Entrypoint = []string{""}
	}
	if h.User != "" {
		config.User = h.User
	}
	host.RestartPolicy = api.RestartPolicy{Name: api.RestartPolicyDisabled}
	host.AutoRemove = false
	host.ContainerIDFile = ""
	host.Links = links(host.Links)

	c.privileges(h)
	c.namespaces(h)
	c.mounts(old, h)
	c.ports(h)
	c.limits(h)
	c.networks(old, h, version)
	if host.NetworkMode.IsContainer() || host.UTSMode.IsHost() {
		config.Hostname, config.Domainname = "", "" // it is the other's
	}
	if host.NetworkMode.IsContainer() {
		config.ExposedPorts = nil
	}
	return c
}

func environment(env []string, h container.Hardening) []string {
	set := make(map[string]bool)
	var out []string
	for _, kv := range env {
		key, _, _ := strings.Cut(kv, "=")
		if !slices.Contains(h.DropEnv, key) {
			out = append(out, kv)
			set[key] = true
		}
	}
	for _, kv := range h.Env {
		if key, _, _ := strings.Cut(kv, "="); !set[key] {
			out = append(out, kv)
		}
	}
	return out
}

// links turns what an engine tells of links, "/other:/this/alias", into what
// it is asked for, "other:alias".
func links(all []string) []string {
	var out []string
	for _, l := range all {
		target, alias, ok := strings.Cut(l, ":")
		if ok {
			out = append(out, strings.TrimPrefix(target, "/")+":"+path.Base(alias))
		}
	}
	return out
}

func (c *clone) privileges(h container.Hardening) {
	host := c.host
	host.GroupAdd = without(host.GroupAdd, h.DropGroups)
	host.ReadonlyRootfs = host.ReadonlyRootfs || h.ReadonlyRootfs
	if h.Unprivileged {
		host.Privileged = false
	}
	if h.DropCapabilities {
		host.CapAdd, host.CapDrop = nil, []string{"ALL"}
	}
	host.SecurityOpt = without(host.SecurityOpt, h.DropSecurityOpts)
	if h.NoNewPrivileges {
		host.SecurityOpt = slices.DeleteFunc(host.SecurityOpt, func(o string) bool { return strings.HasPrefix(o, "no-new-privileges") })
		host.SecurityOpt = append(host.SecurityOpt, "no-new-privileges:true")
	}
	if h.Unprivileged || slices.Contains(h.Private, "pid") || slices.Contains(h.Private, "ipc") {
		// The engine adds this for a shared namespace, and by itself never
		// takes it away.
		host.SecurityOpt = slices.DeleteFunc(host.SecurityOpt, func(o string) bool { return o == "label=disable" || o == "label:disable" })
	}
	if h.DropDevices {
		host.Devices, host.DeviceCgroupRules, host.DeviceRequests = nil, nil, nil
	}
	if h.MaskPaths {
		host.MaskedPaths, host.ReadonlyPaths = nil, nil // the engine's default
	}
}

func without(all, drop []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(drop, s) })
}

func (c *clone) namespaces(h container.Hardening) {
	for _, ns := range h.Private {
		switch ns {
		case "cgroup":
			c.host.CgroupnsMode = api.CgroupnsModePrivate
		case "ipc":
			c.host.IpcMode = api.IPCModePrivate
		case "pid":
			c.host.PidMode = ""
		case "uts":
			c.host.UTSMode = ""
		}
	}
}

// mounts keeps what the container has, in the words in which it was asked for
// where there are any: they hold more than what the engine tells of a mount.
func (c *clone) mounts(old *api.InspectResponse, h container.Hardening) {
	host := c.host
	has := func(all []string, dest string) bool { return slices.Contains(all, dest) }
	taken := make(map[string]bool) // destinations that need no more words
	for dest := range h.Tmpfs {
		taken[dest] = true
	}

	host.Binds = nil
	for _, b := range old.HostConfig.Binds {
		src, dest, opts := cutBind(b)
		if dest == "" || src == "" {
			continue
		}
		if taken[dest] {
			continue
		}
		taken[dest] = true
		if has(h.DropMounts, dest) {
			continue
		}
		if has(h.ReadonlyMounts, dest) {
			opts = append(without(opts, []string{"rw", "ro"}), "ro")
		}
		if has(h.PrivateMounts, dest) {
			opts = without(opts, []string{"shared", "rshared", "slave", "rslave", "private"})
		}
		bind := src + ":" + dest
		if len(opts) > 0 {
			bind += ":" + strings.Join(opts, ",")
		}
		host.Binds = append(host.Binds, bind)
	}

	host.Mounts = nil
	for _, m := range old.HostConfig.Mounts {
		if opts, ok := h.Tmpfs[path.Clean(m.Target)]; ok && m.TmpfsOptions != nil && m.TmpfsOptions.Mode != 0 && !strings.Contains(opts, "mode=") {
			h.Tmpfs = maps.Clone(h.Tmpfs)
			h.Tmpfs[path.Clean(m.Target)] = opts + ",mode=" + strconv.FormatUint(uint64(m.TmpfsOptions.Mode), 8)
		}
		if taken[path.Clean(m.Target)] || taken[m.Target] {
			continue
		}
		taken[m.Target] = true
		if has(h.DropMounts, m.Target) {
			continue
		}
		if m.Type == mount.TypeVolume && m.Source == "" { // anonymous: it has a name by now
			if p := pointAt(old, m.Target); p != nil {
				m.Source = p.Name
			}
		}
		if has(h.ReadonlyMounts, m.Target) {
			m.ReadOnly = true
		}
		if has(h.PrivateMounts, m.Target) && m.BindOptions != nil {
			options := *m.BindOptions
			options.Propagation = mount.PropagationRPrivate
			m.BindOptions = &options
		}
		host.Mounts = append(host.Mounts, m)
	}

	host.Tmpfs = maps.Clone(host.Tmpfs)
	for dest := range host.Tmpfs {
		taken[dest] = true
		if clean := path.Clean(dest); clean != dest && h.Tmpfs[clean] != "" {
			delete(host.Tmpfs, dest)
		}
	}
	for dest, opts := range h.Tmpfs {
		if host.Tmpfs == nil {
			host.Tmpfs = make(map[string]string)
		}
		host.Tmpfs[dest] = opts
	}

	// Anonymous volumes, those of the image, and those of other containers.
	for _, p := range old.Mounts {
		if taken[p.Destination] || has(h.DropMounts, p.Destination) {
			continue
		}
		m := mount.Mount{Type: p.Type, Source: p.Source, Target: p.Destination, ReadOnly: !p.RW || has(h.ReadonlyMounts, p.Destination)}
		switch p.Type {
		case mount.TypeVolume:
			m.Source = p.Name
			if p.Driver != "" && p.Driver != "local" {
				m.VolumeOptions = &mount.VolumeOptions{DriverConfig: &mount.Driver{Name: p.Driver}}
			}
		case mount.TypeBind:
			if p.Propagation != "" && !has(h.PrivateMounts, p.Destination) {
				m.BindOptions = &mount.BindOptions{Propagation: p.Propagation}
			}
		}
		host.Mounts = append(host.Mounts, m)
	}
	host.VolumesFrom = nil
	for _, v := range h.Volumes {
		host.Mounts = append(host.Mounts, mount.Mount{
			Type: mount.TypeVolume, Source: v.Name, Target: v.Path,
			VolumeOptions: &mount.VolumeOptions{NoCopy: true}, // it is copied from the container, not from the image
		})
	}

	// What is not a mount any more must not come back as an anonymous volume.
	volumes := make(map[string]struct{})
	for dest := range c.config.Volumes {
		if !has(h.DropMounts, dest) {
			volumes[dest] = struct{}{}
		}
	}
	c.config.Volumes = volumes
}

// cutBind splits a bind. Only its last parts are known not to hold colons.
func cutBind(b string) (src, dest string, opts []string) {
	parts := strings.Split(b, ":")
	if n := len(parts); n > 2 && !strings.HasPrefix(parts[n-1], "/") {
		return strings.Join(parts[:n-2], ":"), path.Clean(parts[n-2]), strings.Split(parts[n-1], ",")
	}
	if n := len(parts); n >= 2 {
		return strings.Join(parts[:n-1], ":"), path.Clean(parts[n-1]), nil
	}
	return "", path.Clean(b), nil
}

func pointAt(old *api.InspectResponse, dest string) *api.MountPoint {
	for i := range old.Mounts {
		if old.Mounts[i].Destination == path.Clean(dest) {
			return &old.Mounts[i]
		}
	}
	return nil
}

func (c *clone) ports(h container.Hardening) {
	if len(h.Ports) == 0 {
		return
	}
	c.host.PublishAllPorts = false
	c.host.PortBindings = make(nat.PortMap)
	exposed := maps.Clone(c.config.ExposedPorts)
	if exposed == nil {
		exposed = make(nat.PortSet)
	}
	for _, p := range h.Ports {
		port := nat.Port(strconv.Itoa(int(p.Container)) + "/" + p.Protocol)
		b := nat.PortBinding{HostIP: p.HostIP}
		if p.Host != 0 {
			b.HostPort = strconv.Itoa(int(p.Host))
		}
		c.host.PortBindings[port] = append(c.host.PortBindings[port], b)
		exposed[port] = struct{}{}
	}
	c.config.ExposedPorts = exposed
}

func (c *clone) limits(h container.Hardening) {
	r := &c.host.Resources
	if h.ShmSize > 0 {
		c.host.ShmSize = h.ShmSize
	}
	if h.Memory > 0 {
		r.Memory = h.Memory
		if r.MemorySwap > 0 && r.MemorySwap < h.Memory {
			r.MemorySwap = h.Memory
		}
		if r.MemoryReservation > h.Memory {
			r.MemoryReservation = h.Memory
		}
	}
	if h.PidsLimit > 0 {
		r.PidsLimit = &h.PidsLimit
	}
}

// networks keeps the container's networks: addresses and names that were asked
// for, not those that were given.
func (c *clone) networks(old *api.InspectResponse, h container.Hardening, version string) {
	if h.Bridge {
		c.host.NetworkMode = network.NetworkBridge
		return
	}
	mode := string(c.host.NetworkMode)
	if old.NetworkSettings == nil || c.host.NetworkMode.IsHost() || c.host.NetworkMode.IsNone() || c.host.NetworkMode.IsContainer() {
		return
	}
	first := make(map[string]*network.EndpointSettings)
	for _, name := range slices.Sorted(maps.Keys(old.NetworkSettings.Networks)) {
		was := old.NetworkSettings.Networks[name]
		if was == nil {
			continue
		}
		ep := endpoint(was, old.ID, version)
		switch {
		case name == mode, was.NetworkID != "" && was.NetworkID == mode, name == network.NetworkBridge && (mode == "default" || mode == ""):
			if name == network.NetworkBridge {
				ep.Aliases = nil // there are none on the default bridge
				first[network.NetworkBridge] = ep
			} else {
				first[mode] = ep
			}
		default:
			c.connect = append(c.connect, connection{name, ep})
		}
	}
	if len(first) == 0 { // it was taken off the network that it was made with
		c.disconnect = mode
		if mode == "default" || mode == "" {
			c.disconnect = network.NetworkBridge
		}
		return
	}
	c.networking = &network.NetworkingConfig{EndpointsConfig: first}
}

func endpoint(was *network.EndpointSettings, id, version string) *network.EndpointSettings {
	ep := &network.EndpointSettings{
		Links:      was.Links,
		DriverOpts: maps.Clone(was.DriverOpts),
	}
	if was.IPAMConfig != nil {
		ep.IPAMConfig = was.IPAMConfig.Copy()
	}
	for _, a := range was.Aliases {
		if !strings.HasPrefix(id, a) || len(a) < 12 { // older engines add the container's id
			ep.Aliases = append(ep.Aliases, a)
		}
	}
	if atLeast(version, "1.44") && !derived(was.MacAddress, was.IPAddress) {
		ep.MacAddress = was.MacAddress
	}
	if atLeast(version, "1.48") {
		ep.GwPriority = was.GwPriority
	}
	return ep
}

// derived reports whether an engine made a hardware address from an address,
// which the next container may be given.
func derived(mac, addr string) bool {
	a, err := netip.ParseAddr(addr)
	if err != nil || !a.Is4() || mac == "" {
		return mac == ""
	}
	b := a.As4()
	const hex = "0123456789abcdef"
	want := []byte("02:42")
	for _, x := range b {
		want = append(want, ':', hex[x>>4], hex[x&15])
	}
	return strings.EqualFold(mac, string(want))
}
