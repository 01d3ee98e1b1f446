// Package docker lets package container see and recreate the containers of a
// Docker engine.
//
// Start with [Open]. The package is the only one of this module that imports
// the Docker client. It speaks to engines from 20.10 (API 1.41) on.
package docker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/client"

	"github.com/managemyclaw/hardshell/harden/container"
)

// DefaultHost is where an engine listens unless it is told otherwise.
const DefaultHost = "unix:///var/run/docker.sock"

// Config says where an engine is.
type Config struct {
	// Host is "unix:///path" or "tcp://host:port". Empty means DefaultHost;
	// no environment variable is read.
	Host string

	// TLS is how to speak to a tcp host; nil means in clear.
	TLS *tls.Config
}

// An Engine is a Docker engine. It implements [container.Engine] and
// [container.Control]. Its methods may be called concurrently.
//
// Errors say what to do. They match [io/fs.ErrPermission] if the socket may
// not be opened or the engine refuses, [container.ErrEngine] if there is no
// engine that makes sense, [container.ErrNoContainer] and
// [container.ErrNameTaken], and those of the context.
type Engine struct {
	host string
	unix string // path of the socket; empty if the engine is not on one
	cli  *client.Client
	base *http.Transport

	agreeing chan struct{} // holds one while somebody reads or writes agreed
	agreed   bool
}

var _ container.Control = (*Engine)(nil)

// Open returns the engine at host, which is as in [Config]. It does not
// connect.
func Open(host string) (*Engine, error) { return New(Config{Host: host}) }

// New returns the engine that c describes. It does not connect.
func New(c Config) (*Engine, error) {
	if c.Host == "" {
		c.Host = DefaultHost
	}
	scheme, addr, ok := strings.Cut(c.Host, "://")
	if path := scheme == "unix" && strings.HasPrefix(addr, "/"); !path && strings.ContainsAny(c.Host, "@?#") {
		return nil, errors.New("docker: a host with a user or a query in it is not supported") // nor shown: it may hold a password
	}
	if !ok || addr == "" {
		return nil, fmt.Errorf("docker: host %q is not of the form unix:///path or tcp://host:port", c.Host)
	}
	e := &Engine{host: c.Host, agreeing: make(chan struct{}, 1)}
	dialer := net.Dialer{Timeout: 30 * time.Second}
	e.base = &http.Transport{
		DialContext:            dialer.DialContext,
		TLSClientConfig:        c.TLS.Clone(),
		TLSHandshakeTimeout:    30 * time.Second,
		MaxIdleConnsPerHost:    concurrency,
		MaxIdleConns:           concurrency,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 1 << 20,
		DisableCompression:     true,
	}
	httpScheme := "http"
	switch scheme {
	case "unix":
		if !strings.HasPrefix(addr, "/") {
			return nil, fmt.Errorf("docker: host %q: the path of a socket must be absolute", c.Host)
		}
		if c.TLS != nil {
			return nil, fmt.Errorf("docker: host %q: a unix socket has no TLS", c.Host)
		}
		e.unix = addr
		e.base.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", addr)
		}
	case "tcp":
		if h, p, err := net.SplitHostPort(strings.TrimSuffix(addr, "/")); err != nil || h == "" || p == "" {
			return nil, fmt.Errorf("docker: host %q is not of the form tcp://host:port", c.Host)
		}
		if c.TLS != nil {
			httpScheme = "https"
		}
	case "ssh":
		return nil, fmt.Errorf("docker: host %q: ssh is not supported: run this on that machine, or forward its socket with ssh -L and give the path", c.Host)
	default:
		return nil, fmt.Errorf("docker: host %q: %s is not supported: use unix or tcp", c.Host, scheme)
	}
	var err error
	e.cli, err = client.NewClientWithOpts(
		client.WithHost(c.Host),
		client.WithHTTPClient(&http.Client{Transport: &transport{base: e.base}, CheckRedirect: client.CheckRedirect}),
		client.WithScheme(httpScheme),
		client.WithAPIVersionNegotiation(),
	)
	if err != nil {
		return nil, fmt.Errorf("docker: host %q: %w", c.Host, err)
	}
	return e, nil
}

// Close closes idle connections. An Engine that was closed can still be used.
func (e *Engine) Close() error {
	e.base.CloseIdleConnections()
	return nil
}

// agree agrees with the engine on a version of the API, once. The client would
// do that by itself, and races with itself where two calls are its first.
func (e *Engine) agree(ctx context.Context) error {
	select {
	case e.agreeing <- struct{}{}:
		defer func() { <-e.agreeing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if e.agreed {
		return nil
	}
	ping, err := e.cli.Ping(ctx)
	if err != nil {
		return err
	}
	e.cli.NegotiateAPIVersionPing(ping)
	e.agreed = true
	return nil
}

// Info implements [container.Engine].
func (e *Engine) Info(ctx context.Context) (container.EngineInfo, error) {
	info, err := do(ctx, e, "describe the engine", e.cli.Info)
	if err == nil && info.ServerVersion == "" {
		err = e.nonsense("describe the engine", errNotDocker)
	}
	if err != nil {
		return container.EngineInfo{}, err
	}
	// The answer has the version of the API, and costs an engine nothing. To say
	// its versions in full it runs programs.
	ping, err := do(ctx, e, "ask for the version", e.cli.Ping)
	if err == nil && ping.APIVersion == "" {
		err = e.nonsense("ask for the version", errNotDocker)
	}
	if err != nil {
		return container.EngineInfo{}, err
	}
	out := engineInfo(info)
	out.APIVersion = ping.APIVersion
	out.Host, out.Remote = e.host, e.unix == ""
	if e.unix != "" {
		out.PID = e.peer(ctx)
	}
	return out, nil
}

func engineInfo(info system.Info) container.EngineInfo {
	out := container.EngineInfo{
		Name:          "docker",
		Version:       info.ServerVersion,
		ID:            info.ID,
		CgroupVersion: info.CgroupVersion,
		DataRoot:      info.DockerRootDir,
	}
	for _, opt := range info.SecurityOptions {
		fields := strings.Split(opt, ",")
		switch fields[0] {
		case "name=rootless":
			out.Rootless = true
		case "name=userns":
			out.UsernsRemap = true
		case "name=seccomp":
			for _, f := range fields[1:] {
				if p, ok := strings.CutPrefix(f, "profile="); ok && p != "unconfined" {
					out.SeccompProfile = p
				}
			}
		}
	}
	return out
}

// peer returns the process that listens on the engine's socket, or zero if
// that is not known here.
func (e *Engine) peer(ctx context.Context) int {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", e.unix)
	if err != nil {
		return 0
	}
	defer conn.Close()
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return 0
	}
	return peerPID(uc)
}

// nameList says what containers there are, where one is missing.
func nameList(names []string) string {
	const most = 20
	if len(names) == 0 {
		return "there are no containers"
	}
	slices.Sort(names)
	more := ""
	if n := len(names); n > most {
		more = fmt.Sprintf(" and %d more", n-most)
		names = names[:most]
	}
	return "there are " + strings.Join(names, ", ") + more
}

var errNotDocker = errors.New("the answer is not a Docker engine's")
