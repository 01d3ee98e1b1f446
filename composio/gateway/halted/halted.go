package halted

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/composio"
)

// DefaultTimeout is what the zero value of [Config.Timeout] means.
const DefaultTimeout = 5 * time.Second

const maxAnswer = 8 << 20

// A Config says which gateway is to refuse which agent.
type Config struct {
	// URL is where the gateway listens, such as "http://127.0.0.1:8080".
	// Without TLS the host must be a loopback address, unless Dial is set.
	URL string

	// Token is one of the agent's own: the gateway knows agents by nothing
	// else. An agent may have two, and the second is best kept for this.
	Token composio.Secret

	// Dial connects to the host and port of URL, such as from within the
	// network of the agent's container. Nil means a [net.Dialer].
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Timeout bounds each look. Zero means [DefaultTimeout].
	Timeout time.Duration
}

// The ways in, by which [Observer.Remaining] names them.
const (
	REST    = "door/rest"   // Composio's API
	MCP     = "door/mcp"    // MCP, by one who comes now
	Session = "session/mcp" // MCP, by one who came before: on the connection and with the session of Arm
)

// An Observer asks at every way into a gateway, and takes nothing for a refusal
// but the answer that this agent is stopped. It is made by [New], and its
// methods may be called concurrently.
//
// A gateway that cannot be reached is an error, and not off: it lets nothing
// through as long as it is down, but that it is down for the agent too, and
// comes back with its fence, is more than can be seen from here. So are an
// answer that the token is not known, since the agent's other token may be,
// and one that the gateway is closing.
//
// It sees what is refused, and not calls that have been sent on before.
type Observer struct {
	base    string
	token   composio.Secret
	timeout time.Duration
	fresh   *http.Client // a connection for each request
	kept    *session
}

// New returns an Observer. It does not connect.
func New(cfg Config) (*Observer, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("halted: Config.URL must be of the form http://host:port") // not quoted: it may hold a credential
	}
	if u.Scheme == "http" && cfg.Dial == nil && !loopback(u.Hostname()) {
		return nil, errors.New("halted: Config.URL: the token would go over the network in clear: use https, or a loopback address")
	}
	if cfg.Token.IsZero() {
		return nil, errors.New("halted: Config.Token is empty")
	}
	if cfg.Timeout < 0 {
		return nil, errors.New("halted: Config.Timeout is negative")
	}
	o := &Observer{base: u.Scheme + "://" + u.Host, token: cfg.Token, timeout: cfg.Timeout, fresh: newClient(cfg.Dial, true)}
	if o.timeout == 0 {
		o.timeout = DefaultTimeout
	}
	o.kept = newSession(newClient(cfg.Dial, false))
	return o, nil
}

func newClient(dial func(context.Context, string, string) (net.Conn, error), anew bool) *http.Client {
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				c, err := dial(ctx, network, address)
				if err != nil {
					return nil, &dialError{err}
				}
				return c, nil
			},
			DisableKeepAlives: anew, Proxy: nil, MaxIdleConnsPerHost: 1,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// A dialError is that there is no connection at all. Other errors of a client
// may quote what the other end sent.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// Name returns "composio.gateway.doors".
func (o *Observer) Name() string { return "composio.gateway.doors" }

// Objects returns the ways in: [REST], [MCP] and [Session].
func (o *Observer) Objects() []string { return []string{REST, MCP, Session} }

// Arm opens the session of [Session], and asks at the doors, to find out
// whether [Observer.Remaining] will be able to. That an agent is refused is no
// error.
func (o *Observer) Arm(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	if err := o.kept.open(ctx, o); err != nil {
		return fmt.Errorf("halted: arm: %w", err)
	}
	_, err := o.look(ctx)
	return err
}

// Close ends the connection that [Observer.Arm] keeps. The Observer can be used
// again.
func (o *Observer) Close() error {
	o.kept.client.CloseIdleConnections()
	return nil
}

// Remaining asks at each way in, and returns those that do not refuse the agent
// as one that is stopped, each with what it does instead. It asks for no more
// than a list of tools.
func (o *Observer) Remaining(ctx context.Context) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	return o.look(ctx)
}

func (o *Observer) look(ctx context.Context) (map[string]string, error) {
	type result struct {
		way   string
		lets  string
		cause error
	}
	ways := map[string]func(context.Context) (answer, error){
		REST:    o.askREST,
		MCP:     func(ctx context.Context) (answer, error) { return o.askMCP(ctx, o.fresh, "") },
		Session: func(ctx context.Context) (answer, error) { return o.askMCP(ctx, o.kept.client, o.kept.id()) },
	}
	results := make(chan result, len(ways))
	for way, ask := range ways {
		go func() {
			a, err := ask(ctx)
			if err != nil {
				results <- result{way, "", err}
				return
			}
			lets, err := a.judge()
			results <- result{way, lets, err}
		}()
	}
	left := make(map[string]string)
	var errs []error
	for range ways {
		select {
		case r := <-results:
			if r.cause != nil {
				errs = append(errs, fmt.Errorf("halted: %s: %w", r.way, r.cause))
			} else if r.lets != "" {
				left[r.way] = r.lets
			}
		case <-ctx.Done():
			return left, fmt.Errorf("halted: not all could be asked: %w", context.Cause(ctx))
		}
	}
	return left, errors.Join(errs...)
}

// An answer is what a gateway said.
type answer struct {
	status int
	body   []byte
}

// The reasons of package gateway for denying an agent everything.
var stopped = []string{"Gateway_fenced", "Gateway_stopped", "Gateway_tripped"}

// judge returns what the gateway lets the agent do, nothing if it refuses it as
// one that is stopped. An error is that the answer does not tell.
func (a answer) judge() (lets string, err error) {
	var body struct {
		Error *struct {
			Slug string `json:"slug"`
		} `json:"error"`
	}
	valid := json.Unmarshal(a.body, &body) == nil
	slug := ""
	if valid && body.Error != nil {
		slug = body.Error.Slug
	}
	switch {
	case a.status == http.StatusForbidden && slices.Contains(stopped, slug):
		return "", nil
	case a.status/100 == 2 && valid:
		return "the agent is let in", nil
	case slug == "Gateway_unauthenticated":
		return "", errors.New("the token is not one of the gateway's: it must be the agent's")
	case slug == "Gateway_origin":
		return "", errors.New("the gateway does not go by this name: add it to its hosts")
	case slug == "Gateway_closed":
		return "", errors.New("the gateway is closing")
	case strings.HasPrefix(slug, "Gateway_"):
		return "the agent is refused, but not as one that is stopped", nil
	}
	return "", fmt.Errorf("the answer, HTTP %d, is not one of the gateway's", a.status)
}

func (o *Observer) askREST(ctx context.Context) (answer, error) {
	a, _, err := o.do(ctx, o.fresh, http.MethodGet, "/api/v3.1/tools?limit=1", "", nil)
	return a, err
}

// do sends one request with the token.
func (o *Observer) do(ctx context.Context, client *http.Client, method, path, body string, header http.Header) (answer, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, method, o.base+path, strings.NewReader(body))
	if err != nil {
		return answer{}, nil, errors.New("the request cannot be made")
	}
	maps.Copy(req.Header, header)
	req.Header.Set("X-Api-Key", o.token.Reveal())
	resp, err := client.Do(req)
	if err != nil {
		if d, ok := errors.AsType[*dialError](err); ok {
			return answer{}, nil, fmt.Errorf("the gateway cannot be reached: %w", d)
		}
		if ctx.Err() != nil {
			return answer{}, nil, fmt.Errorf("the gateway does not answer: %w", context.Cause(ctx))
		}
		return answer{}, nil, errors.New("the gateway does not answer as a server of HTTP does")
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return answer{}, nil, errors.New("the gateway's answer broke off")
	}
	return answer{resp.StatusCode, data}, resp.Header, nil
}
