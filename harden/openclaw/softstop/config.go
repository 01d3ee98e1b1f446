package softstop

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/managemyclaw/hardshell/composio"
)

// DefaultTimeout is what the zero value of [Config.Timeout] means.
const DefaultTimeout = 5 * time.Second

// A Config says which gateway is meant.
type Config struct {
	// URL is where the gateway listens, such as "ws://127.0.0.1:18789". Without
	// TLS the host must be a loopback address.
	URL string

	// Token is the gateway's token (gateway.auth.token in its configuration).
	// It is sent to whoever listens at URL.
	Token composio.Secret

	// Dial connects to the host and port of URL, such as from within the
	// network of a container. Nil means a [net.Dialer].
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Timeout bounds each call of a method that takes a context. Zero means
	// [DefaultTimeout].
	Timeout time.Duration
}

// An endpoint is how to get to a gateway.
type endpoint struct {
	url     string
	token   composio.Secret
	client  *http.Client
	timeout time.Duration
}

func newEndpoint(cfg Config) (*endpoint, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" || u.Scheme != "ws" && u.Scheme != "wss" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("softstop: Config.URL must be of the form ws://127.0.0.1:18789") // not quoted: it may hold a credential
	}
	if u.Scheme == "ws" && !loopback(u.Hostname()) {
		return nil, errors.New("softstop: Config.URL: the token would go over the network in clear: use wss, or a loopback address")
	}
	if cfg.Token.IsZero() {
		return nil, errors.New("softstop: Config.Token is empty")
	}
	if cfg.Timeout < 0 {
		return nil, errors.New("softstop: Config.Timeout is negative")
	}
	e := &endpoint{url: u.String(), token: cfg.Token, timeout: cfg.Timeout}
	if e.timeout == 0 {
		e.timeout = DefaultTimeout
	}
	dial := cfg.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	e.client = &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				c, err := dial(ctx, network, address)
				if err != nil {
					return nil, &dialError{err}
				}
				return c, nil
			},
			Proxy: nil,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return e, nil
}

// A dialError is that there is no connection at all, and nothing of it the word
// of who is at the other end.
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

// within bounds ctx by the endpoint's own time.
func (e *endpoint) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, e.timeout, errTimeout)
}

var errTimeout = errors.New("the gateway does not answer in time")
