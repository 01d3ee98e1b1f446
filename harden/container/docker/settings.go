package docker

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	apicontainer "github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/go-connections/nat"

	"github.com/managemyclaw/hardshell/harden/container"
)

// engineVariables are those by which programs find an engine.
var engineVariables = []string{"DOCKER_HOST", "CONTAINER_HOST", "BUILDKIT_HOST", "CONTAINERD_ADDRESS"}

// settings translates what the engine says of a container. What it says may be
// anything: parts that are missing are an error, for nothing may be concluded
// from their zero values.
func settings(c apicontainer.InspectResponse) (*container.Settings, error) {
	if c.ContainerJSONBase == nil || c.ID == "" || c.State == nil || c.Config == nil || c.HostConfig == nil {
		return nil, errors.New("the answer is not a description of a container")
	}
	h := c.HostConfig
	s := &container.Settings{
		ID: c.ID, Name: strings.TrimPrefix(c.Name, "/"), Image: c.Config.Image,
		State: c.State.Status, PID: c.State.Pid,
		AutoRemove: h.AutoRemove, ManagedBy: managedBy(c.Config.Labels),
		User: c.Config.User, GroupAdd: h.GroupAdd,
		Privileged: h.Privileged, CapAdd: h.CapAdd, CapDrop: h.CapDrop, SecurityOpt: h.SecurityOpt,
		MaskedPaths: h.MaskedPaths, ReadonlyPaths: h.ReadonlyPaths, ReadonlyRootfs: h.ReadonlyRootfs,
		PidMode: string(h.PidMode), IpcMode: string(h.IpcMode), NetworkMode: string(h.NetworkMode),
		UTSMode: string(h.UTSMode), UsernsMode: string(h.UsernsMode), CgroupnsMode: string(h.CgroupnsMode),
		DeviceCgroupRules: h.DeviceCgroupRules, DeviceRequests: len(h.DeviceRequests), Sysctls: h.Sysctls,
		Runtime: h.Runtime, CgroupParent: h.CgroupParent, RestartPolicy: string(h.RestartPolicy.Name),
		Memory: h.Memory, MemorySwap: h.MemorySwap,
	}
	if created, err := time.Parse(time.RFC3339Nano, c.Created); err == nil {
		s.Created = created
	}
	if h.PidsLimit != nil {
		s.PidsLimit = *h.PidsLimit
	}
	if c.State.Health != nil && c.State.Health.Status != "none" {
		s.Health = string(c.State.Health.Status)
	}
	if hc := c.Config.Healthcheck; hc != nil && len(hc.Test) > 0 && hc.Test[0] != "NONE" {
		s.HealthCheck = &container.HealthCheck{Interval: hc.Interval, Timeout: hc.Timeout, StartPeriod: hc.StartPeriod, Retries: hc.Retries}
	}
	for _, kv := range c.Config.Env {
		name, value, _ := strings.Cut(kv, "=")
		s.EnvNames = append(s.EnvNames, name)
		if slices.Contains(engineVariables, name) {
			s.EngineHosts = append(s.EngineHosts, value)
		}
	}
	slices.Sort(s.EnvNames)
	for _, d := range h.Devices {
		s.Devices = append(s.Devices, fmt.Sprintf("%s:%s:%s", d.PathOnHost, d.PathInContainer, d.CgroupPermissions))
	}
	s.Mounts = mounts(c)
	s.Ports = ports(c)
	s.Networks = networks(c)
	for _, f := range []string{c.HostnamePath, c.HostsPath, c.ResolvConfPath} {
		if f != "" {
			s.OwnFiles = append(s.OwnFiles, f)
		}
	}
	return s, nil
}

// managedBy says what would make the container again, by the labels that it
// leaves.
func managedBy(labels map[string]string) string {
	switch {
	case labels["com.docker.compose.project"] != "":
		return "compose project " + labels["com.docker.compose.project"]
	case labels["com.docker.swarm.service.name"] != "":
		return "swarm service " + labels["com.docker.swarm.service.name"]
	case labels["io.kubernetes.pod.name"] != "":
		return "kubernetes"
	}
	return ""
}

// mounts lists what is mounted: the engine's list, and what --tmpfs adds, which
// is not in it.
func mounts(c apicontainer.InspectResponse) []container.Mount {
	var all []container.Mount
	asked := make(map[string]mount.Mount)
	for _, m := range c.HostConfig.Mounts {
		asked[m.Target] = m
	}
	for _, m := range c.Mounts {
		out := container.Mount{
			Type: string(m.Type), Name: m.Name, Driver: m.Driver, Source: m.Source, Destination: m.Destination,
			ReadWrite: m.RW, Propagation: string(m.Propagation),
		}
		if t := asked[m.Destination].TmpfsOptions; t != nil {
			out.TmpfsSize = t.SizeBytes
		}
		all = append(all, out)
	}
	for at, options := range c.HostConfig.Tmpfs {
		all = append(all, container.Mount{
			Type: "tmpfs", Destination: at, ReadWrite: !slices.Contains(strings.Split(options, ","), "ro"), TmpfsOpts: options,
		})
	}
	slices.SortStableFunc(all, func(a, b container.Mount) int { return strings.Compare(a.Destination, b.Destination) })
	return all
}

// ports lists the published ports: those in force if the container runs, and
// otherwise those that it was made with.
func ports(c apicontainer.InspectResponse) []container.Port {
	bindings := c.HostConfig.PortBindings
	if c.State.Running && c.NetworkSettings != nil {
		bindings = c.NetworkSettings.Ports
	}
	var all []container.Port
	for p, list := range bindings {
		number, _ := nat.ParsePort(p.Port()) // what is not a number is published all the same
		for _, b := range list {
			host, _ := strconv.ParseUint(b.HostPort, 10, 16) // none: any that is free
			all = append(all, container.Port{Container: uint16(number), Protocol: p.Proto(), HostIP: b.HostIP, Host: uint16(host)})
		}
	}
	slices.SortFunc(all, func(a, b container.Port) int {
		return strings.Compare(fmt.Sprintf("%05d%s%s%05d", a.Container, a.Protocol, a.HostIP, a.Host), fmt.Sprintf("%05d%s%s%05d", b.Container, b.Protocol, b.HostIP, b.Host))
	})
	return all
}

func networks(c apicontainer.InspectResponse) []container.Network {
	if c.NetworkSettings == nil {
		return nil
	}
	var all []container.Network
	for name, n := range c.NetworkSettings.Networks {
		out := container.Network{Name: name}
		if n != nil {
			for _, s := range []string{n.IPAddress, n.GlobalIPv6Address} {
				if a, err := netip.ParseAddr(s); err == nil {
					out.Addrs = append(out.Addrs, a)
				}
			}
			for _, s := range []string{n.Gateway, n.IPv6Gateway} {
				if a, err := netip.ParseAddr(s); err == nil {
					out.Gateway = append(out.Gateway, a)
				}
			}
		}
		all = append(all, out)
	}
	slices.SortFunc(all, func(a, b container.Network) int { return strings.Compare(a.Name, b.Name) })
	return all
}
