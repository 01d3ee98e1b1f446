package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	api "github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/go-connections/nat"
	"github.com/docker/go-units"
	"golang.org/x/sync/errgroup"

	"github.com/managemyclaw/hardshell/harden/container"
)

// concurrency bounds the requests that are made at once.
const concurrency = 8

// Containers implements [container.Engine].
func (e *Engine) Containers(ctx context.Context, names ...string) ([]container.Settings, error) {
	ids := names
	if len(names) == 0 {
		listed, err := e.list(ctx, false)
		if err != nil {
			return nil, err
		}
		for _, c := range listed {
			ids = append(ids, c.ID)
		}
	}
	found := make([]*container.Settings, len(ids))
	volumes := &volumeCache{engine: e}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(concurrency)
	for i, id := range ids {
		g.Go(func() error {
			s, err := e.settings(gctx, id, volumes)
			switch {
			case err == nil:
				found[i] = &s
			case errors.Is(err, container.ErrNoContainer) && len(names) == 0:
				// It went away while all were listed.
			case errors.Is(err, container.ErrNoContainer):
				return e.missing(gctx, id, err)
			default:
				return err
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	all := make([]container.Settings, 0, len(found))
	seen := make(map[string]bool)
	for _, s := range found {
		if s != nil && !seen[s.ID] { // a name and an id may name the same one
			seen[s.ID] = true
			all = append(all, *s)
		}
	}
	return all, nil
}

func (e *Engine) list(ctx context.Context, all bool) ([]api.Summary, error) {
	const op = "list containers"
	o := api.ListOptions{All: all}
	if !all {
		// What the engine lists by itself leaves out those between two starts.
		o.All = true
		o.Filters = filters.NewArgs(filters.Arg("status", "running"), filters.Arg("status", "paused"), filters.Arg("status", "restarting"))
	}
	listed, err := do(ctx, e, op, func(ctx context.Context) ([]api.Summary, error) { return e.cli.ContainerList(ctx, o) })
	if err != nil {
		return nil, err
	}
	for _, c := range listed {
		if c.ID == "" {
			return nil, e.nonsense(op, errNotDocker)
		}
	}
	return listed, nil
}

// missing says what containers there are beside the one that is not.
func (e *Engine) missing(ctx context.Context, name string, err error) error {
	listed, listErr := e.list(ctx, true)
	if listErr != nil {
		return err
	}
	var names []string
	for _, c := range listed {
		for _, n := range c.Names {
			if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") { // not a link
				names = append(names, n)
			}
		}
	}
	return fmt.Errorf("docker: container %q: %w: %s", name, container.ErrNoContainer, nameList(names))
}

func (e *Engine) inspect(ctx context.Context, id string) (api.InspectResponse, error) {
	op := fmt.Sprintf("inspect container %q", id)
	if strings.ContainsAny(id, "/?#%\\") || strings.TrimSpace(id) == "" { // it would be another request
		return api.InspectResponse{}, fmt.Errorf("docker: %s: %w: not a name of a container", op, container.ErrNoContainer)
	}
	r, err := do(ctx, e, op, func(ctx context.Context) (api.InspectResponse, error) { return e.cli.ContainerInspect(ctx, id) })
	if err == nil && (r.ContainerJSONBase == nil || r.ID == "" || r.State == nil || r.HostConfig == nil || r.Config == nil) {
		err = e.nonsense(op, errNotDocker)
	}
	return r, err
}

func (e *Engine) settings(ctx context.Context, id string, volumes *volumeCache) (container.Settings, error) {
	r, err := e.inspect(ctx, id)
	if err != nil {
		return container.Settings{}, err
	}
	s := settings(r)
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if m.Type != "volume" || m.Name == "" || (m.Driver != "local" && m.Driver != "") {
			continue
		}
		options, err := volumes.options(ctx, m.Name)
		if err != nil {
			return container.Settings{}, err
		}
		if len(options) > 0 {
			m.Options = options
		}
	}
	return s, nil
}

// volumeCache asks for each volume once.
type volumeCache struct {
	engine *Engine
	mu     sync.Mutex
	known  map[string]func() (map[string]string, error)
}

func (v *volumeCache) options(ctx context.Context, name string) (map[string]string, error) {
	v.mu.Lock()
	ask := v.known[name]
	if ask == nil {
		ask = sync.OnceValues(func() (map[string]string, error) {
			op := fmt.Sprintf("inspect volume %q", name)
			vol, err := do(ctx, v.engine, op, func(ctx context.Context) (volume.Volume, error) { return v.engine.cli.VolumeInspect(ctx, name) })
			if errors.Is(err, container.ErrNoContainer) { // a volume, in fact; it went with its container
				return nil, nil
			}
			return volumeOptions(vol.Options), err
		})
		if v.known == nil {
			v.known = make(map[string]func() (map[string]string, error))
		}
		v.known[name] = ask
	}
	v.mu.Unlock()
	return ask()
}

// volumeOptions returns those of a volume's options that say what is mounted.
// Others are a driver's own, and may be secrets; so may be what a share is
// mounted with, such as password=, so that of those only names are kept.
func volumeOptions(options map[string]string) map[string]string {
	harmless := []string{"addr", "gid", "mode", "nfsvers", "size", "uid", "vers"}
	kept := make(map[string]string)
	for _, name := range []string{"type", "o", "device"} {
		if value, ok := options[name]; ok {
			kept[name] = value
		}
	}
	if o, ok := kept["o"]; ok {
		parts := strings.Split(o, ",")
		for i, p := range parts {
			if key, _, ok := strings.Cut(p, "="); ok && !slices.Contains(harmless, key) {
				parts[i] = key + "=(not shown)"
			}
		}
		kept["o"] = strings.Join(parts, ",")
	}
	return kept
}

// settings translates what an engine says of a container. It does not trust
// it: every field may be missing.
func settings(r api.InspectResponse) container.Settings {
	var s container.Settings
	if r.ContainerJSONBase == nil {
		return s
	}
	s.ID, s.Name = r.ID, strings.TrimPrefix(r.Name, "/")
	s.Created, _ = time.Parse(time.RFC3339Nano, r.Created)
	for _, f := range []string{r.HostnamePath, r.HostsPath, r.ResolvConfPath} {
		if f != "" {
			s.OwnFiles = append(s.OwnFiles, f)
		}
	}
	if st := r.State; st != nil {
		s.State, s.PID = st.Status, max(st.Pid, 0)
		if st.Health != nil && st.Health.Status != api.NoHealthcheck {
			s.Health = st.Health.Status
		}
	}
	if c := r.Config; c != nil {
		configSettings(&s, c)
	}
	if h := r.HostConfig; h != nil {
		hostSettings(&s, h)
	}
	s.Mounts = mounts(r)
	s.Ports = ports(r)
	s.Networks = networks(r)
	return s
}

func configSettings(s *container.Settings, c *api.Config) {
	s.Image, s.User = c.Image, c.User
	for _, kv := range c.Env {
		name, value, _ := strings.Cut(kv, "=")
		s.EnvNames = append(s.EnvNames, name)
		if slices.Contains(container.EngineVariables, name) {
			s.EngineHosts = append(s.EngineHosts, withoutUser(value))
		}
	}
	slices.Sort(s.EnvNames)
	s.EnvNames = slices.Compact(s.EnvNames)
	s.ManagedBy = managedBy(c.Labels)
	if h := c.Healthcheck; h != nil && len(h.Test) > 0 && h.Test[0] != "NONE" {
		s.HealthCheck = &container.HealthCheck{
			Interval:    cmp.Or(h.Interval, 30*time.Second), // what the engine takes for zero
			Timeout:     cmp.Or(h.Timeout, 30*time.Second),
			StartPeriod: h.StartPeriod,
			Retries:     cmp.Or(h.Retries, 3),
		}
	}
}

// withoutUser removes credentials from the address of an engine.
func withoutUser(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Scheme == "" && !strings.HasPrefix(address, "/") {
		return "(not an address)" // whatever it is, it may be a secret
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

func managedBy(labels map[string]string) string {
	if p := labels[composeProject]; p != "" {
		return "compose project " + p
	}
	for _, l := range []struct{ label, by string }{
		{"com.docker.swarm.service.id", "swarm"},
		{"com.docker.swarm.task.id", "swarm"},
		{"io.kubernetes.pod.name", "kubernetes"},
		{"io.kubernetes.pod.uid", "kubernetes"},
	} {
		if labels[l.label] != "" {
			return l.by
		}
	}
	return ""
}

func hostSettings(s *container.Settings, h *api.HostConfig) {
	s.GroupAdd = slices.Clone(h.GroupAdd)
	s.AutoRemove = h.AutoRemove
	s.Privileged = h.Privileged
	s.CapAdd, s.CapDrop = slices.Clone(h.CapAdd), slices.Clone(h.CapDrop)
	s.SecurityOpt = slices.Clone(h.SecurityOpt)
	s.MaskedPaths, s.ReadonlyPaths = slices.Clone(h.MaskedPaths), slices.Clone(h.ReadonlyPaths)
	s.ReadonlyRootfs = h.ReadonlyRootfs
	s.PidMode, s.IpcMode, s.NetworkMode = string(h.PidMode), string(h.IpcMode), string(h.NetworkMode)
	s.UTSMode, s.UsernsMode, s.CgroupnsMode = string(h.UTSMode), string(h.UsernsMode), string(h.CgroupnsMode)
	for _, d := range h.Devices {
		s.Devices = append(s.Devices, d.PathOnHost+":"+d.PathInContainer+":"+d.CgroupPermissions)
	}
	s.DeviceCgroupRules = slices.Clone(h.DeviceCgroupRules)
	s.DeviceRequests = len(h.DeviceRequests)
	s.Sysctls = maps.Clone(h.Sysctls)
	s.Runtime, s.CgroupParent = h.Runtime, h.CgroupParent
	s.RestartPolicy = policyText(h.RestartPolicy)
	s.Memory, s.MemorySwap, s.ShmSize = h.Memory, h.MemorySwap, h.ShmSize
	if h.PidsLimit != nil {
		s.PidsLimit = *h.PidsLimit
	}
}

// policyText and parsePolicy translate restart policies.
func policyText(p api.RestartPolicy) string {
	if p.MaximumRetryCount > 0 {
		return string(p.Name) + ":" + strconv.Itoa(p.MaximumRetryCount)
	}
	return string(p.Name)
}

func parsePolicy(text string) (api.RestartPolicy, error) {
	name, count, counted := strings.Cut(text, ":")
	p := api.RestartPolicy{Name: api.RestartPolicyMode(cmp.Or(name, "no"))}
	if counted {
		n, err := strconv.Atoi(count)
		if err != nil {
			return p, fmt.Errorf("restart policy %q: %w", text, err)
		}
		p.MaximumRetryCount = n
	}
	return p, api.ValidateRestartPolicy(p)
}

// mounts joins what the engine made with what it was asked for: only the
// latter knows the limits of a tmpfs and the options of a volume.
func mounts(r api.InspectResponse) []container.Mount {
	var all []container.Mount
	asked := make(map[string]mount.Mount)
	tmpfs := map[string]string{}
	if h := r.HostConfig; h != nil {
		for _, m := range h.Mounts {
			asked[m.Target] = m
		}
		tmpfs = h.Tmpfs
	}
	made := make(map[string]bool)
	for _, p := range r.Mounts {
		m := container.Mount{
			Type: string(p.Type), Name: p.Name, Driver: p.Driver,
			Source: p.Source, Destination: p.Destination,
			ReadWrite: p.RW, Propagation: string(p.Propagation),
		}
		made[p.Destination] = true
		if a, ok := asked[p.Destination]; ok {
			addAsked(&m, a)
		}
		all = append(all, m)
	}
	for _, dest := range slices.Sorted(maps.Keys(asked)) { // of a container that never ran
		if a := asked[dest]; !made[dest] {
			m := container.Mount{Type: string(a.Type), Source: a.Source, Destination: a.Target, ReadWrite: !a.ReadOnly}
			if a.Type == mount.TypeVolume {
				m.Name, m.Source = a.Source, ""
			}
			addAsked(&m, a)
			all = append(all, m)
		}
	}
	for dest, opts := range tmpfs {
		all = append(all, container.Mount{
			Type: "tmpfs", Destination: dest, TmpfsOpts: opts, TmpfsSize: tmpfsSize(opts),
			ReadWrite: !slices.Contains(strings.Split(opts, ","), "ro"),
		})
	}
	slices.SortStableFunc(all, func(a, b container.Mount) int { return strings.Compare(a.Destination, b.Destination) })
	return all
}

func addAsked(m *container.Mount, a mount.Mount) {
	if b := a.BindOptions; b != nil && m.Propagation == "" {
		m.Propagation = string(b.Propagation)
	}
	if t := a.TmpfsOptions; t != nil {
		m.TmpfsSize = t.SizeBytes
		var opts []string
		for _, o := range t.Options {
			opts = append(opts, strings.Join(o, "="))
		}
		m.TmpfsOpts = strings.Join(opts, ",")
	}
	if v := a.VolumeOptions; v != nil && v.DriverConfig != nil && len(v.DriverConfig.Options) > 0 {
		m.Options = volumeOptions(v.DriverConfig.Options)
	}
}

// tmpfsSize returns the limit in the options of a tmpfs, or zero. A size that
// cannot be read, or is a share of the memory, is none.
func tmpfsSize(opts string) int64 {
	var size int64
	for o := range strings.SplitSeq(opts, ",") {
		if v, ok := strings.CutPrefix(o, "size="); ok {
			size = 0
			if n, err := units.RAMInBytes(v); err == nil && n > 0 {
				size = n
			}
		}
	}
	return size
}

// ports joins the ports that were asked for with those that are open.
func ports(r api.InspectResponse) []container.Port {
	var all []container.Port
	live := make(map[nat.Port]bool)
	if n := r.NetworkSettings; n != nil {
		for port, bindings := range n.Ports {
			for _, b := range bindings {
				all = appendPort(all, port, b)
				live[port] = true
			}
		}
	}
	if h := r.HostConfig; h != nil {
		for port, bindings := range h.PortBindings {
			for _, b := range bindings {
				if live[port] && (b.HostPort == "" || b.HostPort == "0" || strings.Contains(b.HostPort, "-")) {
					continue // the open one says which was chosen
				}
				all = appendPort(all, port, b)
			}
			if len(bindings) == 0 && !live[port] {
				all = appendPort(all, port, nat.PortBinding{})
			}
		}
	}
	slices.SortFunc(all, func(a, b container.Port) int {
		return cmp.Or(cmp.Compare(a.Container, b.Container), strings.Compare(a.Protocol, b.Protocol),
			cmp.Compare(a.Host, b.Host), strings.Compare(a.HostIP, b.HostIP))
	})
	return slices.Compact(all)
}

func appendPort(all []container.Port, port nat.Port, b nat.PortBinding) []container.Port {
	number, proto, _ := strings.Cut(string(port), "/")
	inside, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return all
	}
	first, _, _ := strings.Cut(b.HostPort, "-")
	outside, _ := strconv.ParseUint(first, 10, 16) // zero where the engine chooses
	return append(all, container.Port{
		Container: uint16(inside), Protocol: cmp.Or(strings.ToLower(proto), "tcp"), HostIP: b.HostIP, Host: uint16(outside),
	})
}

func networks(r api.InspectResponse) []container.Network {
	if r.NetworkSettings == nil {
		return nil
	}
	var all []container.Network
	for _, name := range slices.Sorted(maps.Keys(r.NetworkSettings.Networks)) {
		ep := r.NetworkSettings.Networks[name]
		n := container.Network{Name: name}
		if ep != nil {
			n.Addrs = addrs(ep.IPAddress, ep.GlobalIPv6Address)
			n.Gateway = addrs(ep.Gateway, ep.IPv6Gateway)
		}
		all = append(all, n)
	}
	return all
}

func addrs(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, t := range texts {
		if a, err := netip.ParseAddr(t); err == nil && !a.IsUnspecified() {
			all = append(all, a)
		}
	}
	return all
}
