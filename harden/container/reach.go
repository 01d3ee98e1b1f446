package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/harden"
)

func judgeSockets(p Profile) judge {
	return func(_ context.Context, c Container) (harden.Verdict, error) {
		const id = "container.engine_socket"
		const remedy = "remove the mount: nothing in the container may reach the engine"
		var v violations
		for _, h := range c.EngineHosts {
			if !strings.HasPrefix(h, "unix://") {
				v.add(id+".environment", 0, "remove the variable", "its environment names an engine",
					declared("inspect Config.Env", withoutUser(h), "no engine"))
			}
		}
		if err := c.unseen(); err != nil {
			for _, m := range c.Mounts {
				source := m.Source
				if d := m.Options["device"]; d != "" {
					source = d
				}
				for _, s := range knownSocketPaths {
					if source != "" && m.Type != "tmpfs" && below(s, strings.TrimRight(source, "/")+"") {
						v.add(id, 0, remedy, fmt.Sprintf("%s is mounted at %s: it is or holds an engine's socket", source, m.Destination),
							declared("inspect Mounts", m.Type+" "+source, ""))
						break
					}
				}
			}
			return v.verdict(err)
		}
		if proc, shared := c.shares("pid"); shared {
			v.add(id+".pid_namespace", 0, "run without --pid=host", "it sees the host's processes, whose root directories hold the sockets",
				inspected(fmt.Sprintf("/proc/%d/ns/pid", proc.PID), "the host's", "another"))
		}
		for _, s := range c.Kernel.Sockets {
			owner := "a process of the host"
			if s.Owner != "" {
				owner = s.Owner
			}
			ev := inspected(fmt.Sprintf("/proc/%d/root%s", c.PID, s.Path), "the socket "+s.HostPath+" of "+owner, "no socket of the host")
			switch {
			case s.Engine:
				v.add(id, 0, remedy, fmt.Sprintf("the socket of %s is reachable at %s", owner, s.Path), ev)
			case !slices.Contains(p.Sockets, s.HostPath):
				v.add(id+".other", harden.SeverityHigh, "remove the mount, or declare the socket as meant to be shared",
					fmt.Sprintf("a socket of %s is reachable at %s, and what it gives access to is not known", owner, s.Path), ev)
			}
		}
		observed := "no unix socket of a process outside is in the mount tree"
		if n := len(c.Kernel.Sockets); n > 0 {
			observed = count(n, "socket is", "sockets are") + " shared, as declared"
		}
		return v.verdict(c.Kernel.SocketsErr, inspected(c.Kernel.Trees[0].Source+" against /proc/*/net/unix", observed, ""))
	}
}

// knownSocketPaths are where engines listen by default, for containers of
// which the kernel shows nothing.
var knownSocketPaths = []string{
	"/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock", "/var/run/containerd/containerd.sock",
	"/run/docker/containerd/containerd.sock", "/run/podman/podman.sock", "/var/run/podman/podman.sock", "/run/crio/crio.sock",
	"/var/run/crio/crio.sock", "/run/buildkit/buildkitd.sock",
}

// withoutUser removes credentials from a URL.
func withoutUser(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "(not a URL)"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

func judgeEngineTCP(_ context.Context, c Container) (harden.Verdict, error) {
	const remedy = "let the engine listen on its unix socket alone"
	var v violations
	if err := c.unseen(); err != nil {
		return v.verdict(err)
	}
	_, hostNet := c.shares("net")
	for _, l := range c.Host.Listeners {
		port := l.Addr.Port()
		if !strings.HasPrefix(l.Protocol, "tcp") || l.Addr.Addr().IsLoopback() && !hostNet {
			continue
		}
		if port != 2375 && port != 2376 && !isEngineProgram(l.Name) {
			continue
		}
		v.add("", 0, remedy, fmt.Sprintf("an engine listens on %s, which the container can connect to", l.Addr),
			inspected("/proc/net/"+l.Protocol, fmt.Sprintf("%s %s", l.Addr, cmp.Or(l.Name, "?")), "no such socket"))
	}
	return v.verdict(c.Host.ListenersErr, inspected("/proc/net/tcp", "no engine listens on an address of the network", ""))
}

func judgePorts(p Profile) judge {
	return func(_ context.Context, c Container) (harden.Verdict, error) {
		const id = "container.published_ports"
		const remedy = "publish on loopback: -p 127.0.0.1:PORT:PORT"
		var v violations
		var shown []string
		var ports []uint16
		for _, port := range c.Ports {
			at := fmt.Sprintf("%s:%d->%d/%s", cmp.Or(port.HostIP, "*"), port.Host, port.Container, port.Protocol)
			shown = append(shown, at)
			ports = append(ports, port.Host)
			if local(port.HostIP, p.Publish) {
				continue
			}
			ev := declared("inspect NetworkSettings.Ports", at, "127.0.0.1 or ::1")
			message := fmt.Sprintf("port %d/%s is published beyond loopback", port.Container, port.Protocol)
			if i := slices.IndexFunc(v, func(f harden.Finding) bool { return f.Message == message }); i >= 0 {
				v[i].Evidence = append(v[i].Evidence, ev) // another address of the same
				continue
			}
			v.add(id, 0, remedy, message, ev)
		}
		if err := c.unseen(); err != nil {
			return v.verdict(err)
		}
		for _, l := range c.Host.Listeners {
			proxy := l.Name == "docker-proxy" || l.Name == "rootlessport" || l.Name == "rootlesskit"
			if proxy && slices.Contains(ports, l.Addr.Port()) && !local(l.Addr.Addr().String(), p.Publish) &&
				!slices.ContainsFunc(v, func(f harden.Finding) bool {
					return strings.Contains(fmt.Sprint(f.Evidence), fmt.Sprintf(":%d->", l.Addr.Port()))
				}) {
				v.add(id+".proxy", 0, remedy, fmt.Sprintf("%s listens for it on %s", l.Name, l.Addr),
					inspected("/proc/net/"+l.Protocol, l.Addr.String()+" "+l.Name, "loopback"))
			}
		}
		observed := "no port is published"
		if len(shown) > 0 {
			observed = "published are only " + joinSome(shown)
		}
		return v.verdict(c.Host.ListenersErr, declared("inspect NetworkSettings.Ports", observed, ""),
			inspected("/proc/net/tcp", "no proxy listens for it beyond loopback", ""))
	}
}

// local reports whether an address is loopback or in an allowed prefix. No
// address, and what is not one, is every address.
func local(ip string, allowed []netip.Prefix) bool {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return false
	}
	a = a.Unmap()
	return a.IsLoopback() || slices.ContainsFunc(allowed, func(p netip.Prefix) bool { return p.Contains(a) })
}

func judgeHostNetwork(_ context.Context, c Container) (harden.Verdict, error) {
	const remedy = "run on a network of its own, with its port published on 127.0.0.1"
	var v violations
	if c.NetworkMode == "host" {
		v.add("", 0, remedy, "it is on the host's network", declared("inspect HostConfig.NetworkMode", "host", "a network of its own"))
	}
	if err := c.unseen(); err != nil {
		return v.verdict(err)
	}
	if proc, shared := c.shares("net"); shared && len(v) == 0 {
		v.add("", 0, remedy, "it is in the host's network namespace",
			inspected(fmt.Sprintf("/proc/%d/ns/net", proc.PID), fmt.Sprintf("net:[%d], the host's", proc.Namespaces["net"]), "another"))
	}
	return v.verdict(nil, inspected(fmt.Sprintf("/proc/%d/ns/net", c.PID), "not the host's", ""))
}

// errLeak says why a port published on loopback may be reached from elsewhere.
var errLeak = errors.New("this engine lets a neighbour on the network reach ports published on loopback unless a packet filter drops them, and the filter was not examined: update to Docker 28")

func judgeLoopbackLeak(_ context.Context, c Container) (harden.Verdict, error) {
	published := slices.ContainsFunc(c.Ports, func(p Port) bool {
		a, err := netip.ParseAddr(p.HostIP)
		return err == nil && a.IsLoopback()
	})
	if !published {
		return harden.NotApplicable("no port is published on loopback"), nil
	}
	var major, minor int
	if n, err := fmt.Sscanf(c.Engine.APIVersion, "%d.%d", &major, &minor); err != nil || n != 2 {
		return harden.Verdict{}, fmt.Errorf("the engine's API version %q is not a version", c.Engine.APIVersion)
	}
	if major < 1 || major == 1 && minor < 48 { // 1.48 came with Docker 28.0
		return harden.Verdict{}, fmt.Errorf("engine %s: %w", c.Engine.Version, errLeak)
	}
	return harden.Pass(declared("engine version", fmt.Sprintf("%s, API %s", c.Engine.Version, c.Engine.APIVersion), "API 1.48 or later")), nil
}

func judgeMemory(_ context.Context, c Container) (harden.Verdict, error) {
	var v violations
	if err := c.unseen(); err != nil {
		if c.Memory <= 0 {
			v.add("", 0, "run with --memory", "its memory is not limited", declared("inspect HostConfig.Memory", "0", "a limit"))
		}
		return v.verdict(err)
	}
	g := c.Kernel.Cgroup
	ev := inspected(cmp.Or(g.MemorySource, g.Path), fmt.Sprintf("%d bytes", g.Memory), "less than the machine's memory")
	switch {
	case g.Memory == 0:
		return harden.Verdict{}, fmt.Errorf("no memory limit of cgroup %q can be read", g.Path)
	case g.Memory < 0 || c.Host.MemTotal > 0 && g.Memory >= c.Host.MemTotal:
		v.add("", 0, "run with --memory", "its memory is not limited", ev)
	}
	ev.Expected = ""
	return v.verdict(nil, ev)
}

func judgePids(_ context.Context, c Container) (harden.Verdict, error) {
	var v violations
	if err := c.unseen(); err != nil {
		if c.PidsLimit <= 0 {
			v.add("", 0, "run with --pids-limit", "its processes are not limited", declared("inspect HostConfig.PidsLimit", "none", "a limit"))
		}
		return v.verdict(err)
	}
	g := c.Kernel.Cgroup
	ev := inspected(cmp.Or(g.PidsSource, g.Path), fmt.Sprint(g.Pids), "less than the machine's pid_max")
	switch {
	case g.Pids == 0:
		return harden.Verdict{}, fmt.Errorf("no pids limit of cgroup %q can be read", g.Path)
	case g.Pids < 0 || c.Host.PidMax > 0 && g.Pids >= c.Host.PidMax:
		v.add("", 0, "run with --pids-limit", "its processes are not limited", ev)
	}
	ev.Expected = ""
	return v.verdict(nil, ev)
}
