package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/harden/internal/async"
	"github.com/managemyclaw/hardshell/harden/network/tailscale"
)

// What keeps the engine's part of a machine from being judged.
var (
	// ErrNoEngine: the Config has none.
	ErrNoEngine = errors.New("no container engine was named, so that what it publishes is not known")
	// ErrElsewhere: the engine is in another network namespace.
	ErrElsewhere = errors.New("the engine has a network of its own, and the packet filter that was read is not the one that its packets meet: run the audit in its network namespace")
	// ErrWhere: nobody knows which namespace the engine is in.
	ErrWhere = errors.New("it is not known which process the engine is, and so not whose packet filter its packets meet")
	// ErrNoTailscale: the Config has no client.
	ErrNoTailscale = errors.New("no tailscaled was named to ask")
	// ErrNoDialer: the Config has no Dial.
	ErrNoDialer = errors.New("the machine's sockets cannot be tried: no dialer was named")
)

// NewSource returns the machine that a view shows, as the checks of c judge it.
// Bind an integrator's own judge to it by [harden.Each].
func NewSource(c Config) *harden.Source[Machine] {
	return &harden.Source[Machine]{
		Name:    "networks",
		Subject: func(m Machine) string { return m.Subject() },
		List: func(ctx context.Context, v *host.View) ([]Machine, error) {
			m, err := c.look(ctx, v)
			if err != nil {
				return nil, err
			}
			return []Machine{*m}, nil
		},
	}
}

// look looks at everything at once. What it cannot see it says in m, except
// that a machine without /proc is none.
func (c *Config) look(ctx context.Context, v *host.View) (*Machine, error) {
	m := new(Machine)
	var err error
	if m.Namespace, err = netns(v, "/proc/self"); err != nil {
		return nil, err
	}
	paths := async.Go(func() (path, error) { return readPath(ctx, v) })
	hosts := async.Go(func() (HostFirewall, error) { return readHostFirewall(ctx, v) })
	engines := async.Go(func() (engine, error) { return c.readEngine(ctx, v, m.Namespace) })
	agents := async.Go(func() ([]container.Container, error) { return c.agents(ctx, v) })
	tailnets := async.Go(func() (*tailscale.State, error) {
		if c.Tailscale == nil {
			return nil, ErrNoTailscale
		}
		return c.Tailscale.Read(ctx)
	})
	socks := async.Go(func() ([]Listener, error) { return listeners(v) })

	m.Listeners, m.ListenersErr = socks()
	e, err := engines()
	m.Engine, m.Running, m.Networks, m.Inside, m.EngineErr = e.info, e.running, e.networks, e.inside, err
	p, err := paths()
	m.Routing, m.Rules, m.Localnet, m.named, m.namedPorts, m.PathErr = p.routing, p.rules, p.localnet, p.named, p.ports, err
	m.Tailnet, m.TailnetErr = tailnets()
	if m.Tailnet != nil {
		m.Operator = userNumber(v, m.Tailnet.Prefs.OperatorUser)
	}
	m.Banners, m.BannersErr = c.banners(ctx, m)
	m.Host, m.HostErr = hosts()
	m.Agents, m.AgentsErr = agents()
	return m, ctx.Err()
}

// path is what decides the way of a packet.
type path struct {
	routing  *firewall.Routing
	rules    *firewall.Ruleset
	localnet map[string]bool
	named    []netip.Addr
	ports    []uint16
}

func readPath(ctx context.Context, v *host.View) (path, error) {
	run := Programs(v)
	rules := async.Go(func() (*firewall.Ruleset, error) { return firewall.Read(ctx, run) })
	routing, err := firewall.ReadRouting(ctx, run)
	rs, rulesErr := rules()
	if err := errors.Join(err, rulesErr); err != nil {
		return path{}, err
	}
	p := path{routing: routing, rules: rs, localnet: make(map[string]bool)}
	p.named, p.ports = namedBy(rs)
	for _, i := range routing.Interfaces {
		p.localnet[i.Name] = routesLocalnet(ctx, run, i.Name)
	}
	return p, nil
}

// routesLocalnet reports whether the kernel takes packets for 127.0.0.0/8 by
// an interface. Where that cannot be read it is taken to.
//
// A program reads it because /proc/sys/net shows the namespace of whoever
// reads, and not of whose directory it is.
func routesLocalnet(ctx context.Context, run firewall.Runner, name string) bool {
	if strings.ContainsAny(name, "/\x00") {
		return true
	}
	const dir = "/proc/sys/net/ipv4/conf/"
	out, err := run.Run(ctx, nil, "cat", dir+"all/route_localnet", dir+name+"/route_localnet")
	return err != nil || strings.Join(strings.Fields(string(out)), " ") != "0 0"
}

// engine is what an engine says.
type engine struct {
	info     container.EngineInfo
	running  []container.Settings
	networks []container.EngineNetwork
	inside   map[string][]firewall.Port
}

func (c *Config) readEngine(ctx context.Context, v *host.View, ours uint64) (e engine, err error) {
	if c.Engine == nil {
		return e, ErrNoEngine
	}
	if e.info, err = c.Engine.Info(ctx); err != nil {
		return e, err
	}
	if e.info.Remote {
		return e, container.ErrRemote
	}
	if e.info.PID == 0 {
		return e, ErrWhere
	}
	theirs, err := netns(v, "/proc/"+strconv.Itoa(e.info.PID))
	if err != nil {
		return e, fmt.Errorf("the engine's network namespace: %w", err)
	}
	if theirs != ours && !e.info.Rootless { // a rootless engine's ports are sockets of ours
		return e, ErrElsewhere
	}
	if e.running, err = c.Engine.Containers(ctx); err != nil {
		return e, err
	}
	if e.networks, err = c.Engine.Networks(ctx); err != nil {
		return e, err
	}
	e.inside = make(map[string][]firewall.Port)
	for _, s := range e.running {
		if s.PID == 0 {
			continue
		}
		dir := "/proc/" + strconv.Itoa(s.PID)
		if ns, err := netns(v, dir); err != nil || ns == ours {
			continue
		}
		socks, err := readSockets(v, dir)
		if err != nil {
			continue
		}
		ports := []firewall.Port{}
		for _, l := range socks {
			p := firewall.Port{Protocol: l.Protocol, Number: l.Addr.Port()}
			if !l.Addr.Addr().Unmap().IsLoopback() && !slices.Contains(ports, p) {
				ports = append(ports, p)
			}
		}
		e.inside[s.ID] = ports
	}
	return e, nil
}

func (c *Config) agents(ctx context.Context, v *host.View) ([]container.Container, error) {
	switch {
	case c.Containers != nil:
		return c.Containers.All(ctx, v)
	case c.Engine != nil:
		return container.NewSource(c.Engine).All(ctx, v)
	}
	return nil, nil
}

// netns returns the inode number of the network namespace of a process.
func netns(v *host.View, dir string) (uint64, error) {
	link, err := v.ReadLink(dir + "/ns/net")
	if err != nil {
		return 0, err
	}
	text, ok := strings.CutPrefix(link, "net:[")
	n, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 64)
	if !ok || err != nil {
		return 0, fmt.Errorf("%s/ns/net: malformed: %q", dir, link)
	}
	return n, nil
}

// userNumber returns the number of a user of the machine, nil if it has none
// of that name.
func userNumber(v *host.View, name string) *uint32 {
	if name == "" {
		return nil
	}
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		uid := uint32(n)
		return &uid
	}
	data, err := v.ReadFile("/etc/passwd")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Split(line, ":")
		if len(f) < 3 || f[0] != name {
			continue
		}
		if n, err := strconv.ParseUint(f[2], 10, 32); err == nil {
			uid := uint32(n)
			return &uid
		}
	}
	return nil
}

// gone reports whether an error says that a process has ended.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) }
