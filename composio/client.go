package composio

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"
)

// DefaultBaseURL is where the public service lives.
const DefaultBaseURL = "https://backend.composio.dev"

// What the zero values of [Config] mean.
const (
	DefaultTimeout      = 30 * time.Second
	DefaultRetries      = 4
	DefaultMaxWait      = 90 * time.Second // the public service's limit has windows of 60 s
	DefaultMaxBodyBytes = 16 << 20
)

// A Config configures a [Client].
type Config struct {
	// APIKey is the key of a project ("ak_…") or of a user ("uak_…"). It is
	// required for all but [Client.RegenerateKey] and [Client.RevokeKeys].
	APIKey Secret

	// OrgKey is the key of the organization ("oak_…"), which only
	// [Client.RegenerateKey] uses.
	OrgKey Secret

	// BaseURL is where the API lives. Empty means [DefaultBaseURL]. Plain
	// http is accepted for a loopback address only.
	BaseURL string

	// Transport sends the requests. Nil means a transport of the client's
	// own, which uses no proxy. It is never asked to follow a redirect.
	Transport http.RoundTripper

	// Timeout bounds each attempt of a request, the body of its answer
	// included. Zero means [DefaultTimeout].
	Timeout time.Duration

	// Retries bounds how often a request that may be repeated is. Zero means
	// [DefaultRetries], a negative number none.
	Retries int

	// MaxWait bounds the wait before one repetition. An answer that asks for
	// a longer one is returned as an error at once. Zero means
	// [DefaultMaxWait].
	MaxWait time.Duration

	// MaxBodyBytes bounds the size of an answer. Zero means
	// [DefaultMaxBodyBytes].
	MaxBodyBytes int64
}

// A Client talks to the API. It is made by [New] and may be used concurrently.
type Client struct {
	base    *url.URL
	http    *http.Client
	key     credential
	org     credential
	timeout time.Duration
	retries int
	maxWait time.Duration
	maxBody int64
	gate    *gate
	limit   *limiter // nil if there is none
	order   priority // among those that share the limit
}

// limited returns a client for each priority. Together they have at most n
// requests under way; the rest they share with c.
func (c *Client) limited(n int) (all [priorities]*Client) {
	limit := &limiter{free: n}
	for p := range priorities {
		l := *c
		l.limit, l.order = limit, p
		all[p] = &l
	}
	return all
}

// A credential is a key and the one header that it goes into.
type credential struct {
	header string
	key    Secret
}

// New returns a client. The error says which field of cfg is wrong; it quotes
// neither a key nor the URL.
func New(cfg Config) (*Client, error) {
	c := &Client{
		timeout: cfg.Timeout, retries: cfg.Retries, maxWait: cfg.MaxWait, maxBody: cfg.MaxBodyBytes,
		gate: new(gate),
	}
	if c.timeout == 0 {
		c.timeout = DefaultTimeout
	}
	if c.retries == 0 {
		c.retries = DefaultRetries
	}
	if c.maxWait == 0 {
		c.maxWait = DefaultMaxWait
	}
	if c.maxBody == 0 {
		c.maxBody = DefaultMaxBodyBytes
	}
	if c.timeout < 0 || c.maxWait < 0 || c.maxBody < 0 {
		return nil, errors.New("composio: Config: Timeout, MaxWait and MaxBodyBytes must not be negative")
	}
	var err error
	if c.base, err = parseBase(cfg.BaseURL); err != nil {
		return nil, err
	}
	if c.key, err = projectCredential("APIKey", cfg.APIKey); err != nil {
		return nil, err
	}
	if err := checkKey("OrgKey", cfg.OrgKey); err != nil {
		return nil, err
	}
	if k := cfg.OrgKey.Reveal(); looksLikeKey(k) && !strings.HasPrefix(k, "oak_") {
		return nil, errors.New(`composio: Config.OrgKey is not the key of an organization ("oak_…")`)
	}
	c.org = credential{"X-Org-Api-Key", cfg.OrgKey}
	transport := cfg.Transport
	if transport == nil {
		transport = newTransport()
	}
	c.http = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

func newTransport() *http.Transport {
	return &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: DefaultTimeout,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConns:          100,
		MaxIdleConnsPerHost:   100,
		ForceAttemptHTTP2:     true,
	}
}

func parseBase(s string) (*url.URL, error) {
	if s == "" {
		s = DefaultBaseURL
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return nil, errors.New("composio: Config.BaseURL is not an absolute URL")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("composio: Config.BaseURL must have neither user, query nor fragment: keys go into APIKey")
	}
	switch u.Scheme {
	case "https":
	case "http":
		host := u.Hostname()
		addr, err := netip.ParseAddr(host)
		if host != "localhost" && (err != nil || !addr.Unmap().IsLoopback()) {
			return nil, errors.New("composio: Config.BaseURL must be https, for the key would cross the network in clear")
		}
	default:
		return nil, errors.New("composio: Config.BaseURL must be https")
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = ""
	return u, nil
}

func projectCredential(field string, key Secret) (credential, error) {
	if err := checkKey(field, key); err != nil {
		return credential{}, err
	}
	k := key.Reveal()
	switch {
	case strings.HasPrefix(k, "uak_"):
		return credential{"X-User-Api-Key", key}, nil
	case strings.HasPrefix(k, "oak_"):
		return credential{}, fmt.Errorf("composio: Config.%s is the key of an organization: put it into OrgKey", field)
	case strings.HasPrefix(k, "ck_"):
		return credential{}, fmt.Errorf("composio: Config.%s is a consumer key, which this API does not take: create a project key", field)
	}
	return credential{"X-Api-Key", key}, nil
}

// checkKey refuses what cannot stand in a header, such as a key that was read
// from a file together with the end of its line.
func checkKey(field string, key Secret) error {
	for _, b := range []byte(key.Reveal()) {
		if b <= ' ' || b >= 0x7f {
			return fmt.Errorf("composio: Config.%s holds a space, a line break or another character that no key has", field)
		}
	}
	return nil
}

// Which requests may be sent again.
type repeat int

const (
	once      repeat = iota // it may have acted: never
	throttled               // only when it was refused for its rate, and so did nothing
	always                  // it changes nothing, or nothing more the second time
)

// Whose credential a request carries.
type authority int

const (
	byProject authority = iota
	byOrg
	byNobody
	byKey // that of the request
)

type request struct {
	op     string // for errors: what is asked of what
	method string
	path   []string // segments after /api/v3.1
	query  url.Values
	body   any
	repeat repeat
	auth   authority
	key    Secret
}

// An answer tells of how a request went.
type answer struct {
	attempts int
	lost     bool // an earlier attempt may have been carried out
}

// do sends r, again where that may be done, and stores the answer in out.
func (c *Client) do(ctx context.Context, r request, out any) (answer, error) {
	var body []byte
	if r.body != nil {
		var err error
		if body, err = json.Marshal(r.body); err != nil {
			return answer{}, fmt.Errorf("composio: %s: encode the request: %w", r.op, err)
		}
	}
	const most429 = 20 // a limit that many share needs patience; the caller's ctx bounds it
	var a answer
	failures, limited := 0, 0
	for {
		end, err := c.begin(ctx)
		if err != nil {
			return a, fmt.Errorf("composio: %s: %w", r.op, err)
		}
		a.attempts++
		data, err := c.once(ctx, r, body)
		end()
		if err == nil {
			if out == nil {
				return a, nil
			}
			if err := json.Unmarshal(data, out); err != nil {
				return a, fmt.Errorf("composio: %s: %w: %s", r.op, ErrAnswer, jsonProblem(err))
			}
			return a, nil
		}
		api, isAPI := errors.AsType[*APIError](err)
		var delay time.Duration
		switch {
		case ctx.Err() != nil:
			return a, err
		case isAPI && api.Status == http.StatusTooManyRequests:
			if limited++; r.repeat == once || c.retries < 0 || limited > most429 {
				return a, err
			}
			delay = backoff(min(limited, 6), api.RetryAfter)
		case isAPI && !transient(api.Status), errors.Is(err, ErrAnswer):
			return a, err
		default:
			if failures++; r.repeat != always || failures > c.retries {
				return a, err
			}
			a.lost = true
			var after time.Duration
			if isAPI {
				after = api.RetryAfter
			}
			delay = backoff(failures, after)
		}
		if delay > c.maxWait {
			return a, err
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < delay {
			return a, err // there would be no time left to ask again
		}
		if sleep(ctx, delay) != nil {
			return a, err
		}
	}
}

// begin waits until a request may be sent and returns what to call when it is
// over.
func (c *Client) begin(ctx context.Context) (end func(), err error) {
	end = func() {}
	if c.limit != nil {
		if err := c.limit.acquire(ctx, c.order); err != nil {
			return nil, err
		}
		end = c.limit.release
	}
	// Its turn may have come as the caller went.
	if ctx.Err() != nil {
		end()
		return nil, context.Cause(ctx)
	}
	// Whoever waits here keeps others from it, who could not send either.
	if err := c.gate.wait(ctx, c.maxWait); err != nil {
		end()
		return nil, err
	}
	return end, nil
}

func transient(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return status > 504
}

// backoff is what the server asked for and a little more, or else a random
// part of a time that doubles: 0.25 s, 0.5 s, … 8 s.
func backoff(n int, asked time.Duration) time.Duration {
	if asked > 0 {
		return asked + rand.N(250*time.Millisecond)
	}
	full := min(125*time.Millisecond<<n, 8*time.Second)
	return full/4 + rand.N(full*3/4)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// once sends r one time and returns the body of a successful answer.
func (c *Client) once(ctx context.Context, r request, body []byte) ([]byte, error) {
	cred := c.credential(r)
	if r.auth != byNobody && cred.key.IsZero() {
		field := "APIKey"
		if r.auth == byOrg {
			field = "OrgKey"
		}
		return nil, fmt.Errorf("composio: %s: %w: it needs Config.%s", r.op, &APIError{Op: r.op, Status: http.StatusUnauthorized}, field)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("no answer within %v: %w", c.timeout, context.DeadlineExceeded))
	defer cancel()
	u := *c.base
	u.Path = c.base.Path + "/api/v3.1/" + strings.Join(r.path, "/")
	u.RawQuery = r.query.Encode()
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), reader)
	if err != nil {
		return nil, fmt.Errorf("composio: %s: the request cannot be made", r.op)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "hardshell")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.auth != byNobody {
		req.Header.Set(cred.header, cred.key.Reveal())
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.transportError(ctx, r.op, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, c.maxBody+1))
	success := resp.StatusCode >= 200 && resp.StatusCode < 300
	if !success {
		// The status is what counts, even if the body breaks off.
		e := parseError(r.op, resp.StatusCode, resp.Header, data[:min(len(data), 64<<10)], time.Now())
		e.Slug, e.Code, e.RequestID = c.scrub(e.Slug), c.scrub(e.Code), c.scrub(e.RequestID)
		if e.Status == http.StatusTooManyRequests && resp.Header.Get("X-RateLimit-Remaining") == "0" {
			c.gate.close(e.RetryAfter, c.maxWait)
		}
		return nil, e
	}
	if err != nil {
		return nil, c.transportError(ctx, r.op, err)
	}
	if int64(len(data)) > c.maxBody {
		return nil, fmt.Errorf("composio: %s: %w: it is larger than %d bytes", r.op, ErrAnswer, c.maxBody)
	}
	return data, nil
}

func (c *Client) credential(r request) credential {
	switch r.auth {
	case byOrg:
		return c.org
	case byKey:
		cred, err := projectCredential("APIKey", r.key)
		if err != nil {
			return credential{}
		}
		return cred
	case byNobody:
		return credential{}
	}
	return c.key
}

// transportError returns err without the URL, and without a key, should the
// transport have put one in.
func (c *Client) transportError(ctx context.Context, op string, err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, ctx.Err()) {
		err = cause
	}
	if t := err.Error(); c.scrub(t) != t {
		err = &scrubbed{text: c.scrub(t), err: err}
	}
	return fmt.Errorf("composio: %s: %w", op, err)
}

func (c *Client) scrub(s string) string {
	for _, k := range []Secret{c.key.key, c.org.key} {
		if !k.IsZero() {
			s = strings.ReplaceAll(s, k.Reveal(), redacted)
		}
	}
	return s
}

// A scrubbed error answers errors.Is for the error that it replaces, and does
// not hand it out: its text holds a credential.
type scrubbed struct {
	text string
	err  error
}

func (e *scrubbed) Error() string              { return e.text }
func (e *scrubbed) Is(target error) bool       { return errors.Is(e.err, target) }
func (e *scrubbed) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, e.text) }

// jsonProblem describes an error of package json without quoting the input.
func jsonProblem(err error) string {
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Sprintf("the field %q is not of the type described", identifier(t.Field))
	}
	return "it is not JSON"
}

// A gate holds all requests back once the API has said that none is left.
type gate struct {
	mu   sync.Mutex
	open time.Time
}

func (g *gate) close(d, most time.Duration) {
	if d <= 0 {
		return
	}
	d = min(d, most)
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := time.Now().Add(d); t.After(g.open) {
		g.open = t
	}
}

func (g *gate) wait(ctx context.Context, most time.Duration) error {
	for {
		g.mu.Lock()
		d := time.Until(g.open)
		g.mu.Unlock()
		if d <= 0 {
			return nil
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < d || d > most {
			return fmt.Errorf("%w: the API takes none before %v", ErrRateLimited, d.Round(time.Second))
		}
		if err := sleep(ctx, d); err != nil {
			return err
		}
	}
}
