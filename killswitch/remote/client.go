package remote

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/killswitch"
)

// What can be wrong with an answer.
var (
	// ErrUnverified reports an answer that the server has not signed: somebody
	// in between may have made it up, so that nothing may have been done.
	ErrUnverified = errors.New("remote: the answer is not signed by the server")

	// ErrUnfinished reports a kill that the server has begun, and that did not
	// end while the client was there.
	ErrUnfinished = errors.New("remote: the kill has not ended")
)

// A RefusedError reports a command that the server refused.
type RefusedError struct {
	Code    Code
	Message string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("remote: refused (%s): %s", e.Code, e.Message)
}

// DefaultTries is how often a [Client] tries by default.
const DefaultTries = 6

const (
	lifetime     = time.Minute // of the commands that a Client signs
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
	maxAnswer    = 64 << 20 // bytes; a receipt names every account
)

// A Client sends signed commands to a [Handler]. URL, Switch, Agent and Key are
// required. Its fields must not be changed once it is in use; its methods may
// then be called concurrently.
type Client struct {
	// URL is where the handler is, such as "http://100.64.0.7:7443". Over
	// plain http others can read what is sent and answered, and keep it from
	// arriving; they can neither fire, nor make up an answer.
	URL string

	Switch string // see [Config.Name]
	Agent  string // see [Config.Agent]
	Key    *Key   // of the operator

	// Server verifies answers. With the zero PublicKey every answer is
	// [ErrUnverified].
	Server PublicKey

	// Receipts, if set, verifies receipts as well: that the switch has made
	// them, and not only the server passed them on.
	Receipts killswitch.PublicKey

	// HTTP sends the requests. Nil means a client that uses no proxy, follows
	// no redirect, and gives up on a connection after a few seconds.
	HTTP *http.Client

	// Tries is how often to try. Zero means [DefaultTries]. Each try is a
	// command of its own: to fire twice is to fire once.
	Tries int
}

// Fire has the switch fired, and returns its receipt.
//
// The receipt may come beside an error: one that wraps [ErrUnverified] if it may
// have been made up. With any other error than [ErrUnfinished], or a
// [RefusedError], nobody can tell whether the command arrived. A receipt
// without an error says what is off and what is not.
func (c *Client) Fire(ctx context.Context, reason string) (*killswitch.Receipt, error) {
	a, err := c.ask(ctx, Kill, reason)
	if a == nil || a.Outcome != outcomeFired {
		return nil, err
	}
	receipt, bad := killswitch.ParseReceipt(a.Receipt)
	if !c.Receipts.IsZero() {
		if _, unsigned := killswitch.VerifyReceipt(a.Receipt, c.Receipts); unsigned != nil {
			err = errors.Join(err, fmt.Errorf("%w: the receipt: %w", ErrUnverified, unsigned))
		}
	}
	switch {
	case bad != nil:
		return nil, errors.Join(err, fmt.Errorf("remote: the answer has no receipt: %w", bad))
	case receipt.Agent != c.Agent:
		return nil, errors.Join(err, fmt.Errorf("%w: the receipt is of another agent", ErrUnverified))
	}
	return receipt, err
}

// State asks how things are. The state may come beside an error wrapping
// [ErrUnverified].
func (c *Client) State(ctx context.Context) (State, error) {
	a, err := c.ask(ctx, Status, "")
	switch {
	case a == nil:
		return State{}, err
	case a.State == nil:
		return State{}, errors.Join(err, fmt.Errorf("remote: the state is not known: %s", a.Message))
	}
	return *a.State, err
}

// Renew renews the lease of the agent. With an error, take it that it was not
// renewed.
func (c *Client) Renew(ctx context.Context) error {
	_, err := c.ask(ctx, Renew, "")
	return err
}

// ask sends commands until one is answered. The answer is not nil if it is what
// the action is meant to lead to.
func (c *Client) ask(ctx context.Context, do Action, reason string) (*answer, error) {
	base, err := c.base()
	if err != nil {
		return nil, err
	}
	client := c.HTTP
	if client == nil {
		transport := &http.Transport{DialContext: (&net.Dialer{Timeout: readTime}).DialContext, TLSHandshakeTimeout: readTime, ResponseHeaderTimeout: answerTime + readTime}
		defer transport.CloseIdleConnections()
		client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	tries := c.Tries
	if tries <= 0 {
		tries = DefaultTries
	}
	var last error
	challenge, pause := do == Renew, firstPause
	for try := range tries {
		if try > 0 {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return nil, errors.Join(last, context.Cause(ctx))
			}
			pause = min(2*pause, longestPause)
		}
		a, err := c.once(ctx, client, base, do, reason, challenge)
		if a != nil && a.Outcome == outcomeRefused {
			refused := &RefusedError{a.Code, a.Message}
			switch err = errors.Join(refused, err); a.Code {
			case CodeStale:
				if !challenge {
					challenge = true
					a, err = c.once(ctx, client, base, do, reason, challenge)
				}
			case CodeReplayed, CodeTooMany:
			default:
				return nil, err
			}
		}
		if a != nil {
			switch a.Outcome {
			case outcomeFired, outcomeState, outcomeRenewed:
				return c.meant(do, a, err)
			case outcomeFiring:
				err = errors.Join(ErrUnfinished, err)
			case outcomeFailed:
				err = errors.Join(fmt.Errorf("remote: the switch returned no receipt: %s", a.Message), err)
			case outcomeRefused:
				refused := &RefusedError{a.Code, a.Message}
				if _, ok := errors.AsType[*RefusedError](err); !ok {
					err = errors.Join(refused, err)
				}
			}
		}
		if err == nil {
			err = errors.New("remote: the answer is of no known kind")
		}
		if last = err; ctx.Err() != nil {
			break
		}
	}
	return nil, last
}

// meant returns an answer if it is to the question.
func (c *Client) meant(do Action, a *answer, err error) (*answer, error) {
	if want := map[Action]outcome{Kill: outcomeFired, Status: outcomeState, Renew: outcomeRenewed}[do]; a.Outcome != want {
		return nil, errors.Join(err, fmt.Errorf("%w: it answers something else", ErrUnverified))
	}
	return a, err
}

func (c *Client) base() (string, error) {
	u, err := url.Parse(c.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("remote: Client.URL must be like http://100.64.0.7:7443") // it may hold a secret: not shown
	}
	return strings.TrimSuffix(u.String(), "/"), nil
}

// once sends one command. The error is [ErrUnverified] if there is an answer.
func (c *Client) once(ctx context.Context, client *http.Client, base string, do Action, reason string, challenge bool) (*answer, error) {
	now := time.Now()
	cmd := Command{Action: do, Switch: c.Switch, Agent: c.Agent, Issued: now, Expires: now.Add(lifetime), Reason: reason}
	if challenge {
		given, _, err := c.send(ctx, client, http.MethodGet, base+"/v1/challenge", nil)
		if err != nil {
			return nil, err
		}
		cmd.Challenge = given.Challenge
	}
	data, err := cmd.Sign(c.Key)
	if err != nil {
		return nil, err
	}
	s, err := parseCommand(data)
	if err != nil {
		return nil, err
	}
	a, signature, err := c.send(ctx, client, http.MethodPost, base+"/v1/command", data)
	if err != nil {
		return nil, err
	}
	if !c.Server.verify(answerText(s.text, a.body), signature) {
		return &a.answer, ErrUnverified
	}
	return &a.answer, nil
}

// received is an answer and what was signed of it.
type received struct {
	answer
	body []byte
}

func (c *Client) send(ctx context.Context, client *http.Client, method, to string, body []byte) (received, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, to, bytes.NewReader(body))
	if err != nil {
		return received{}, nil, fmt.Errorf("remote: %w", err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	}
	resp, err := client.Do(req)
	if err != nil {
		return received{}, nil, fmt.Errorf("remote: %w", err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return received{}, nil, fmt.Errorf("remote: read the answer: %w", err)
	}
	r := received{body: data}
	if json.Unmarshal(data, &r.answer) != nil || r.Schema != answerSchema {
		return received{}, nil, fmt.Errorf("remote: the answer is not one of a kill switch (HTTP %d)", resp.StatusCode)
	}
	signature, err := base64.StdEncoding.Strict().DecodeString(resp.Header.Get(signatureHeader))
	if err != nil {
		signature = nil
	}
	return r, signature, nil
}
