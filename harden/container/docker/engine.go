// Package docker is an adapter of Docker Engine, from 20.10 on, for package
// container. It is the only importer of Docker's client.
package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	apicontainer "github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"
	"golang.org/x/sync/errgroup"

	"github.com/managemyclaw/hardshell/harden/container"
)

const (
	// maxBody bounds an answer of the engine. The list of 10,000 containers
	// takes some 20 MB.
	maxBody = 256 << 20

	// atOnce is how many containers are inspected at the same time.
	atOnce = 8

	dialTimeout = 10 * time.Second
)

// An Engine is a Docker Engine. Make one with [Open]. Its methods may be called
// concurrently; they make no connection before they are called.
//
// Errors wrap [io/fs.ErrPermission] if the engine refuses access,
// [container.ErrNoContainer] if it does not know a container, and
// [container.ErrEngine] if it cannot be asked: it is not there, or answers
// nonsense.
type Engine struct {
	host   string
	socket string // path of the unix socket; empty for other hosts
	api    *client.Client
}

var _ container.Engine = (*Engine)(nil)

// Open returns the engine at a host, "unix:///path" or "tcp://address:port". It
// does not connect. The environment is not consulted: DOCKER_HOST and its kin
// are for programs to read.
func Open(host string) (*Engine, error) {
	u, err := url.Parse(host)
	if err != nil {
		return nil, fmt.Errorf("docker: the host %q is not a URL: use unix:///var/run/docker.sock or tcp://ADDRESS:PORT", host)
	}
	e := &Engine{host: u.Redacted()}
	transport := &http.Transport{
		MaxIdleConnsPerHost: atOnce, IdleConnTimeout: 30 * time.Second, DisableCompression: true,
	}
	dialer := &net.Dialer{Timeout: dialTimeout}
	switch {
	case u.Scheme == "unix" && u.Path != "" && u.Host == "":
		e.socket = u.Path
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", e.socket)
		}
	case u.Scheme == "tcp" && u.Host != "":
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", u.Host)
		}
	case u.Scheme == "ssh":
		return nil, fmt.Errorf("docker: %s: ssh is not supported: run the audit on that machine", e.host)
	default:
		return nil, fmt.Errorf("docker: the host %q is neither unix:///PATH nor tcp://ADDRESS:PORT", e.host)
	}
	e.api, err = client.NewClientWithOpts(
		client.WithHost(host),
		client.WithHTTPClient(&http.Client{Transport: bounded{transport}}),
		client.WithAPIVersionNegotiation(),
	)
	if err != nil {
		return nil, fmt.Errorf("docker: %w", err)
	}
	return e, nil
}

// bounded cuts off answers that are too long, so that a hostile engine cannot
// fill the memory.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(req)
	if err != nil || resp.Body == nil || resp.StatusCode == http.StatusSwitchingProtocols {
		return resp, err
	}
	resp.Body = &boundedBody{resp.Body, maxBody}
	return resp, nil
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("the answer is too long")
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	return n, err
}

// Info implements [container.Engine].
func (e *Engine) Info(ctx context.Context) (container.EngineInfo, error) {
	info, err := e.api.Info(ctx)
	if err != nil {
		return container.EngineInfo{}, e.wrap(ctx, "ask the engine about itself", err)
	}
	version, err := e.api.ServerVersion(ctx)
	if err != nil {
		return container.EngineInfo{}, e.wrap(ctx, "ask the engine for its version", err)
	}
	out := container.EngineInfo{
		Name: "docker", Version: info.ServerVersion, APIVersion: version.APIVersion, Host: e.host,
		Remote: e.socket == "", CgroupVersion: info.CgroupVersion, ID: info.ID, DataRoot: info.DockerRootDir,
	}
	if e.socket != "" {
		out.PID = peer(ctx, e.socket)
	}
	for _, o := range info.SecurityOptions {
		// name=seccomp,profile=default
		fields := make(map[string]string)
		for f := range strings.SplitSeq(o, ",") {
			k, v, _ := strings.Cut(f, "=")
			fields[k] = v
		}
		switch fields["name"] {
		case "seccomp":
			out.SeccompProfile = fields["profile"]
		case "rootless":
			out.Rootless = true
		case "userns":
			out.UsernsRemap = true
		}
	}
	return out, nil
}

// Containers implements [container.Engine].
func (e *Engine) Containers(ctx context.Context, names ...string) ([]container.Settings, error) {
	refs := names
	if len(names) == 0 {
		list, err := e.api.ContainerList(ctx, apicontainer.ListOptions{})
		if err != nil {
			return nil, e.wrap(ctx, "list containers", err)
		}
		for _, c := range list {
			refs = append(refs, c.ID)
		}
	}
	all := make([]*container.Settings, len(refs))
	volumes := &volumeCache{engine: e, known: make(map[string]func() (volume.Volume, error))}
	g, ctx := errgroup.WithContext(ctx) // the first failure ends the listing
	g.SetLimit(atOnce)
	for i, ref := range refs {
		g.Go(func() error {
			s, err := e.container(ctx, ref, volumes)
			if errors.Is(err, container.ErrNoContainer) && len(names) == 0 {
				return nil // it went away since it was listed
			}
			all[i] = s
			return err
		})
	}
	if err := g.Wait(); err != nil {
		if errors.Is(err, container.ErrNoContainer) {
			return nil, fmt.Errorf("%w%s", err, e.others(context.WithoutCancel(ctx)))
		}
		return nil, err
	}
	out := make([]container.Settings, 0, len(all))
	seen := make(map[string]bool, len(all))
	for _, s := range all {
		if s != nil && !seen[s.ID] { // a container may be named twice, by name and id
			seen[s.ID] = true
			out = append(out, *s)
		}
	}
	return out, nil
}

// others names the containers that there are, for who asked for one that there
// is not.
func (e *Engine) others(ctx context.Context) string {
	const most = 10
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	list, err := e.api.ContainerList(ctx, apicontainer.ListOptions{All: true})
	if err != nil {
		return ""
	}
	if len(list) == 0 {
		return "; the engine has none"
	}
	var names []string
	for _, c := range list {
		for _, n := range c.Names {
			names = append(names, strings.TrimPrefix(n, "/"))
		}
	}
	slices.Sort(names)
	more := ""
	if len(names) > most {
		more = fmt.Sprintf(" and %d more", len(names)-most)
		names = names[:most]
	}
	return "; there are " + strings.Join(names, ", ") + more
}

func (e *Engine) container(ctx context.Context, ref string, volumes *volumeCache) (*container.Settings, error) {
	raw, err := e.api.ContainerInspect(ctx, ref)
	if cerrdefs.IsNotFound(err) {
		return nil, fmt.Errorf("docker: %q: %w", ref, container.ErrNoContainer)
	}
	if err != nil {
		return nil, e.wrap(ctx, "inspect "+ref, err)
	}
	s, err := settings(raw)
	if err != nil {
		return nil, fmt.Errorf("docker: inspect %s: %w: %w", ref, container.ErrEngine, err)
	}
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if m.Type != "volume" || m.Name == "" {
			continue
		}
		v, err := volumes.get(ctx, m.Name)
		if cerrdefs.IsNotFound(err) {
			continue // of a container that has gone
		}
		if err != nil {
			return nil, e.wrap(ctx, "inspect volume "+m.Name, err)
		}
		m.Driver, m.Options = v.Driver, v.Options
	}
	return s, nil
}

// A volumeCache inspects each volume once.
type volumeCache struct {
	engine *Engine
	mu     sync.Mutex
	known  map[string]func() (volume.Volume, error)
}

func (c *volumeCache) get(ctx context.Context, name string) (volume.Volume, error) {
	c.mu.Lock()
	f := c.known[name]
	if f == nil {
		f = sync.OnceValues(func() (volume.Volume, error) { return c.engine.api.VolumeInspect(ctx, name) })
		c.known[name] = f
	}
	c.mu.Unlock()
	return f()
}
