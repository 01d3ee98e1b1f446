package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/killswitch"
)

// DefaultSkew is how far the clocks of operator and server may differ.
const DefaultSkew = 30 * time.Second

const (
	challengeTime = time.Minute      // for which a challenge is good
	maxRenewals   = 600              // in a challengeTime
	maxPages      = 4096             // that fire, in a fireTime
	answerTime    = time.Minute      // after which an answer does not wait for the receipt
	savedTime     = time.Second      // for which an answer waits for the memory of commands
	recordTime    = 10 * time.Second // for which the trail is waited for, by nobody
	maxRecords    = 4096             // events on their way to the trail
)

// A Switch is what is fired. A [killswitch.Switch] is one.
type Switch interface {
	// Fire stops the agent and returns a receipt, also beside an error. It may
	// be called concurrently, joins a kill that is under way, and continues
	// one that was not finished.
	Fire(ctx context.Context, reason string) (*killswitch.Receipt, error)
}

// A Renewer is a lease that operators can renew. A [killswitch.Lease] is one.
type Renewer interface {
	Renew(ctx context.Context, by string) error
}

// A Config says what a [Handler] fires and for whom.
type Config struct {
	// Name is the name of the switch, to which commands are bound, such as
	// that of the machine. No two switches that share an operator's key and
	// the name of an agent may have the same. Required.
	Name string

	// Agent is the name of the agent that Switch stops. Required.
	Agent string

	// Switch is fired. Required.
	Switch Switch

	// Operators are who may fire it. At least one is required.
	Operators []Operator

	// Key signs answers. Nil, as when it was lost, means that nobody can tell
	// whether an answer is the switch's: commands are carried out all the
	// same, and clients say so.
	Key *Key

	// State says how things are, for the page and for status commands. Nil
	// means that nobody says.
	State func(ctx context.Context) (State, error)

	// Lease can be renewed by operators. Nil means that there is none.
	Lease Renewer

	// Nonces is the file that remembers which commands were used, in a
	// directory that exists and belongs to the server alone. Empty means that
	// a restart forgets: a command can then be used again until it expires.
	Nonces string

	// Skew is how far the clocks of operator and server may differ. Zero means
	// [DefaultSkew].
	Skew time.Duration

	// Trail records what was asked and by whom. It is never waited for. Nil
	// means that only the switch records.
	Trail trail.Recorder
}

// A State is how things are.
type State struct {
	// Stopped says that the agent is stopped, or must be taken to be.
	Stopped bool `json:"stopped"`

	// Lines say more, for people, such as when and why it was stopped.
	Lines []string `json:"lines,omitempty"`
}

// A Handler takes commands to fire a switch, and shows the page. Make one with
// [New]. Serve it with [NewServer], or with a server whose headers are bounded
// in time. Its methods may be called concurrently.
type Handler struct {
	cfg      Config
	roster   *roster
	minter   *minter
	nonces   *nonces
	renewed  once // challenges, by which the lease was renewed
	pages    once // tickets, by which the page fired
	readers  readers
	refusals refusals
	records  chan struct{}

	mu      sync.Mutex
	dropped int // events
}

// New makes a Handler. It returns an error if c could fire nothing. A file of
// used commands that cannot be read or written is a problem, see
// [Handler.Problems], and no error.
func New(c Config) (*Handler, error) {
	switch {
	case c.Switch == nil:
		return nil, errors.New("remote: Config.Switch is not set: there is nothing to fire")
	case !validName(c.Name):
		return nil, errors.New("remote: Config.Name must be 1 to 128 printable ASCII characters without spaces")
	case !validName(c.Agent):
		return nil, errors.New("remote: Config.Agent must be 1 to 128 printable ASCII characters without spaces")
	case c.Skew < 0 || c.Skew > MaxLifetime:
		return nil, fmt.Errorf("remote: Config.Skew must be between 0 and %v", MaxLifetime)
	}
	if c.Skew == 0 {
		c.Skew = DefaultSkew
	}
	r, err := newRoster(c.Operators)
	if err != nil {
		return nil, err
	}
	return &Handler{
		cfg: c, roster: r, minter: newMinter(), nonces: openNonces(c.Nonces, r.order), records: make(chan struct{}, maxRecords),
		// One too many is refused where that is safe, and fires where that is.
		renewed: once{keep: challengeTime, most: maxRenewals},
		pages:   once{keep: fireTime, most: maxPages, fresh: true},
	}, nil
}

// Problems returns what is wrong with the server, such as that it has no key or
// cannot write: nothing that keeps it from firing. Nil means nothing.
func (h *Handler) Problems() error {
	h.mu.Lock()
	dropped := h.dropped
	h.mu.Unlock()
	var errs []error
	if err := h.nonces.wrong(); err != nil {
		errs = append(errs, err)
	}
	if !h.cfg.Key.usable() {
		errs = append(errs, errors.New("remote: the server has no key: its answers cannot be told from others'"))
	}
	if dropped > 0 {
		errs = append(errs, fmt.Errorf("remote: the trail did not take %d events", dropped))
	}
	return errors.Join(errs...)
}

// NewServer returns a server for h at addr, whose bounds keep slow clients from
// filling it. Use an address of the tailnet, such as "100.64.0.7:7443", or of
// loopback: the handler is made to stand in the open, and nothing is gained by
// letting it.
func NewServer(addr string, h *Handler) *http.Server {
	return &http.Server{
		Addr: addr, Handler: h,
		ReadHeaderTimeout: readTime, ReadTimeout: 2 * readTime, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Referrer-Policy", "no-referrer")
	switch r.URL.Path {
	case "/v1/command":
		if allow(w, r, http.MethodPost) {
			h.command(w, r)
		}
	case "/v1/challenge":
		if allow(w, r, http.MethodGet) {
			h.send(w, http.StatusOK, nil, answer{Outcome: outcomeChallenge, Challenge: h.minter.mint(ticketChallenge, h.cfg.Name)})
		}
	default:
		if name, ok := strings.CutPrefix(r.URL.Path, "/"); ok && (name == "" || strings.HasPrefix(name, linkPrefix) && !strings.Contains(name, "/")) {
			if allow(w, r, http.MethodGet, http.MethodPost) {
				h.page(w, r, name)
			}
			return
		}
		http.Error(w, "there is nothing here", http.StatusNotFound)
	}
}

func allow(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	if slices.Contains(methods, r.Method) {
		return true
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	http.Error(w, "the method is not allowed", http.StatusMethodNotAllowed)
	return false
}

// body reads the body of a request: all of it, soon, and if it is short.
func (h *Handler) body(w http.ResponseWriter, r *http.Request, most int64) ([]byte, error) {
	// What serves it may not be able to bound the time; NewServer's can.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(readTime))
	leave := h.readers.enter(source(r), func() { _ = control.SetReadDeadline(time.Unix(1, 0)) })
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	leave()
	if err != nil {
		w.Header().Set("Connection", "close") // the rest is not waited for
		return nil, err
	}
	_ = control.SetReadDeadline(time.Time{}) // or else the request ends when it is over
	return data, nil
}

// A firing is a kill that somebody asked for. The switch joins those that come
// together, and gives each its own receipt.
type firing struct {
	done    chan struct{}
	receipt *killswitch.Receipt
	err     error
}

// fire fires the switch. It neither waits nor ends with the request: who has
// asked may go away.
func (h *Handler) fire(r *http.Request, who, how, reason string) *firing {
	f := &firing{done: make(chan struct{})}
	by := "operator/" + who
	ctx := killswitch.WithRequester(context.WithoutCancel(r.Context()), by)
	why := fmt.Sprintf("%s from %s", how, r.RemoteAddr)
	if reason != "" {
		why = reason + " (" + why + ")"
	}
	go func() {
		defer close(f.done)
		defer func() {
			if v := recover(); v != nil {
				f.err = fmt.Errorf("remote: the switch crashed: %v", v)
			}
		}()
		f.receipt, f.err = h.cfg.Switch.Fire(ctx, why)
		if f.receipt == nil && f.err == nil {
			f.err = errors.New("remote: the switch returned no receipt")
		}
	}()
	return f
}

// wait waits for a kill, and reports whether it ended; not if the client goes
// away, or it takes too long.
func (f *firing) wait(ctx context.Context) bool {
	late := time.NewTimer(answerTime)
	defer late.Stop()
	select {
	case <-f.done:
		return true
	case <-ctx.Done():
	case <-late.C:
	}
	return false
}

// record gives an event to the trail. It does not wait.
func (h *Handler) record(ctx context.Context, e trail.Event) {
	if h.cfg.Trail == nil {
		return
	}
	e.Time, e.Agent, e.Subject = time.Now(), h.cfg.Agent, "switch/"+h.cfg.Name
	drop := func() {
		h.mu.Lock()
		h.dropped++
		h.mu.Unlock()
	}
	select {
	case h.records <- struct{}{}:
	default:
		drop()
		return
	}
	ctx = context.WithoutCancel(ctx)
	go func() {
		defer func() {
			if recover() != nil {
				drop()
			}
			<-h.records
		}()
		ctx, cancel := context.WithTimeout(ctx, recordTime)
		defer cancel()
		if h.cfg.Trail.Record(ctx, e) != nil {
			drop()
		}
	}()
}
