// Package tailscale asks the tailscaled of this machine what it is doing, over
// its LocalAPI: HTTP on a unix socket.
//
// It reads and never changes anything. What it keeps of the answers is what
// decides who can reach the machine; names of users, keys and peers are not
// kept. It compiles nothing beside the standard library: Tailscale's own
// client brings a hundred packages, and calls its methods unstable.
package tailscale

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Bounds on an answer of tailscaled.
const (
	DefaultTimeout = 5 * time.Second
	maxAnswer      = 4 << 20
)

// ErrNoDaemon reports that no tailscaled listens: it is not installed, or does
// not run.
var ErrNoDaemon = errors.New("no tailscaled listens")

// DefaultSocket returns where tailscaled listens unless it is told otherwise:
// /var/run/tailscale/tailscaled.sock, and on macOS, with the open-source
// tailscaled, /var/run/tailscaled.socket. The apps for macOS have no socket.
func DefaultSocket() string {
	if runtime.GOOS == "darwin" {
		return "/var/run/tailscaled.socket"
	}
	return "/var/run/tailscale/tailscaled.sock"
}

// A Client asks one tailscaled. The zero Client asks that of this machine.
// Fields must not be changed once it is in use; its methods may then be called
// concurrently.
type Client struct {
	// Socket is the path of the socket. Empty means [DefaultSocket].
	Socket string

	// Timeout bounds each question. Zero means DefaultTimeout.
	Timeout time.Duration
}

// A State is what a tailscaled says of itself. It holds no secret.
type State struct {
	Status Status
	Prefs  Prefs
	Serve  Serve
}

// Read asks for all there is. An error wraps [ErrNoDaemon] if nothing listens,
// and [io/fs.ErrPermission] if the socket may not be opened or tailscaled
// refuses.
func (c *Client) Read(ctx context.Context) (*State, error) {
	var answers [3][]byte
	for i, path := range []string{"status?peers=false", "prefs", "serve-config"} {
		var err error
		if answers[i], err = c.get(ctx, path); err != nil {
			return nil, err
		}
	}
	s, err := parse(answers[0], answers[1], answers[2])
	if err != nil {
		return nil, fmt.Errorf("tailscale: %s does not answer as tailscaled does: %w", c.socket(), err)
	}
	return s, nil
}

// parse decodes three answers. One that lacks what every tailscaled says is an
// error: what it does not say must not count as being off.
func parse(status, prefs, serve []byte) (*State, error) {
	var s State
	var p struct {
		Prefs
		WantRunning *bool
	}
	if err := json.Unmarshal(status, &s.Status); err != nil {
		return nil, fmt.Errorf("status: %w", err)
	}
	if err := json.Unmarshal(prefs, &p); err != nil {
		return nil, fmt.Errorf("preferences: %w", err)
	}
	if err := json.Unmarshal(serve, &s.Serve); err != nil { // null where nothing is served
		return nil, fmt.Errorf("what is served: %w", err)
	}
	switch {
	case s.Status.Backend == "":
		return nil, errors.New("the status has no BackendState")
	case p.WantRunning == nil:
		return nil, errors.New("the preferences have no WantRunning")
	}
	s.Prefs = p.Prefs
	return &s, nil
}

func (c *Client) socket() string {
	if c.Socket != "" {
		return c.Socket
	}
	return DefaultSocket()
}

func (c *Client) get(ctx context.Context, path string) ([]byte, error) {
	timeout := c.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	socket := c.socket()
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	defer tr.CloseIdleConnections()
	// tailscaled refuses every other name.
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://local-tailscaled.sock/localapi/v0/"+path, nil)
	if err != nil {
		return nil, fmt.Errorf("tailscale: %w", err)
	}
	resp, err := tr.RoundTrip(req) // redirects are not followed
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("tailscale: %w at %s: %w", ErrNoDaemon, socket, err)
	case err != nil:
		return nil, fmt.Errorf("tailscale: ask %s at %s: %w", path, socket, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("tailscale: ask %s at %s: %w", path, socket, err)
	case resp.StatusCode == http.StatusForbidden:
		return nil, fmt.Errorf("tailscale: %s refuses %s: %w", socket, path, fs.ErrPermission)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("tailscale: ask %s at %s: status %d", path, socket, resp.StatusCode)
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("tailscale: ask %s at %s: the answer is too large", path, socket)
	}
	return body, nil
}

// Status is the state of the connection.
type Status struct {
	Version string

	// Backend is "NoState", "NeedsLogin", "NeedsMachineAuth", "Stopped",
	// "Starting" or "Running".
	Backend string `json:"BackendState"`

	// Addrs are the node's own addresses in the tailnet. They stay while it is
	// stopped or its key has expired.
	Addrs []netip.Addr `json:"TailscaleIPs"`

	Self Self
}

// Self is the node itself.
type Self struct {
	// Online stays true after the key has expired.
	Online bool

	// KeyExpiry is nil where the node's key does not expire.
	KeyExpiry *time.Time

	// Capabilities are the names of what the tailnet lets the node do, such
	// as "funnel".
	Capabilities map[string]json.RawMessage `json:"CapMap"`
}

// Connected reports whether the node takes part in its tailnet at a time. If
// not, why says what is wrong. Tailscaled does not say all of it in one place:
// a node whose key has expired is still Online.
func (s *Status) Connected(now time.Time) (why string, ok bool) {
	switch exp := s.Self.KeyExpiry; {
	case exp != nil && !exp.After(now):
		return "its key expired at " + exp.UTC().Format(time.RFC3339), false
	case s.Backend != "Running":
		return "its state is " + s.Backend, false
	case !s.Self.Online:
		return "it is not online", false
	}
	return "", true
}

// MayFunnel reports whether the tailnet lets the node be reached from the
// internet by Funnel.
func (s *Status) MayFunnel() bool {
	_, funnel := s.Self.Capabilities["funnel"]
	_, https := s.Self.Capabilities["https"]
	return funnel && https
}

// Prefs are the preferences of tailscaled that decide who can reach what.
type Prefs struct {
	RunSSH       bool   // Tailscale SSH, which has no socket in the kernel
	RunWebClient bool   // the web interface, on port 5252 of the tailnet's addresses
	RemoteConfig bool   // the tailnet's administrator may change everything here
	ShieldsUp    bool   // no connection from the tailnet is let in
	OperatorUser string // who besides root may change the preferences, and turn on Funnel

	// NetfilterMode is 0 if tailscaled leaves the packet filter alone, 1 if
	// it keeps its chains and nobody jumps to them, 2 if it puts its own
	// chains, which accept what comes by the tailnet, before everybody's.
	NetfilterMode int
}

// Serve is what tailscaled serves to the tailnet and, by Funnel, to the
// internet. The zero Serve serves nothing.
type Serve struct {
	// AllowFunnel says which host:port are open to the internet.
	AllowFunnel map[string]bool

	// Foreground are those that last as long as the program that asked for
	// them, by session. Texts for people, such as that of "tailscale funnel
	// status", leave them out.
	Foreground map[string]*Serve

	// Services are those that the node serves for others of the tailnet.
	Services map[string]*Serve
}

// A Funnel is a way in from the internet.
type Funnel struct {
	HostPort string // such as "agent.example.ts.net:443"
	Where    string // "", or "foreground session 4f0c…", or "service svc:web"
}

// Funnels lists what is open to the internet, in order, however deep it is
// nested.
func (s *Serve) Funnels() []Funnel {
	var all []Funnel
	var walk func(s *Serve, where []string)
	walk = func(s *Serve, where []string) {
		if s == nil {
			return
		}
		for hp, on := range s.AllowFunnel {
			if on {
				all = append(all, Funnel{HostPort: hp, Where: strings.Join(where, ", ")})
			}
		}
		for id, f := range s.Foreground {
			walk(f, append(slices.Clone(where), "foreground session "+id))
		}
		for name, f := range s.Services {
			walk(f, append(slices.Clone(where), "service "+name))
		}
	}
	walk(s, nil)
	slices.SortFunc(all, func(a, b Funnel) int {
		if c := strings.Compare(a.HostPort, b.HostPort); c != 0 {
			return c
		}
		return strings.Compare(a.Where, b.Where)
	})
	return all
}
