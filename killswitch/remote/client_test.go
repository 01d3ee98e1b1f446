package remote_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/killswitch"
	"github.com/managemyclaw/hardshell/killswitch/killswitchtest"
	"github.com/managemyclaw/hardshell/killswitch/remote"
)

// A real switch that many fire at once is fired once, and everybody has a
// receipt of their own, signed by the server and by the switch.
func TestManyAtOnce(t *testing.T) {
	const many = 1000
	thing := killswitchtest.NewThing("container/openclaw")
	all := make(chan struct{}) // closed when everybody has asked
	stop := &killswitchtest.Actuator{Called: "container.kill", Thing: thing, Before: func() {
		select {
		case <-all:
		case <-time.After(25 * time.Second):
		}
	}}
	key, err := killswitch.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	var kills atomic.Int64
	s, err := killswitch.New(killswitch.Config{
		Agent: theAgent, Dir: t.TempDir(), Key: key, LookTimeout: 20 * time.Second,
		Trail: recorder(func(_ context.Context, e trail.Event) error {
			if e.Kind == trail.KindKill {
				kills.Add(1)
			}
			return nil
		}),
		Targets: []killswitch.Target{{
			Name: "container", Ladder: []killswitch.Rung{{Actuators: []killswitch.Actuator{stop}}},
			Observers: []killswitch.Observer{&killswitchtest.Observer{Called: "container.look", Thing: thing}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	w := newWorld(t, func(c *remote.Config) {
		c.Switch = firer(func(ctx context.Context, reason string) (*killswitch.Receipt, error) {
			if asked.Add(1) == many {
				time.AfterFunc(100*time.Millisecond, func() { close(all) })
			}
			return s.Fire(ctx, reason)
		})
	})
	texts := make([]string, many)
	for i := range texts {
		c := command()
		c.Reason = fmt.Sprintf("wish %d", i)
		texts[i] = sign(t, w.ann, c)
	}
	var wg sync.WaitGroup
	receipts := make([]*killswitch.Receipt, many)
	for i, text := range texts {
		wg.Go(func() {
			_, a := do(t, w.handler, http.MethodPost, "/v1/command", text)
			r, err := killswitch.VerifyReceipt(a.Receipt, key.Public())
			if err != nil || !r.Off() || r.Request.By != "operator/ann" || !strings.HasPrefix(r.Request.Reason, fmt.Sprintf("wish %d ", i)) {
				t.Errorf("%d: %v %+v", i, err, a)
			}
			receipts[i] = r
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for _, r := range receipts {
		if r.Epoch != receipts[0].Epoch || !r.Fired.Equal(receipts[0].Fired) {
			t.Fatalf("two kills: %+v and %+v", r, receipts[0])
		}
	}
	if stop.Calls() != 1 || kills.Load() == 0 {
		t.Errorf("the actuator was called %d times, and the trail has %d events", stop.Calls(), kills.Load())
	}
}

type firer func(context.Context, string) (*killswitch.Receipt, error)

func (f firer) Fire(ctx context.Context, reason string) (*killswitch.Receipt, error) {
	return f(ctx, reason)
}

// The client gets what it asked for, and knows that it is the server's.
func TestClient(t *testing.T) {
	w := newWorld(t)
	s, err := w.client().State(t.Context())
	if err != nil || s.Stopped {
		t.Errorf("%+v %v", s, err)
	}
	r, err := w.client().Fire(t.Context(), "it deletes mail")
	if err != nil || !r.Off() || !strings.HasPrefix(r.Reason, "it deletes mail (by a signed command from 127.0.0.1:") {
		t.Errorf("%+v %v", r, err)
	}
	if s, err := w.client().State(t.Context()); err != nil || !s.Stopped {
		t.Errorf("%+v %v", s, err)
	}
	c := w.client()
	c.Key = remote.GenerateKey()
	_, err = c.Fire(t.Context(), "")
	refused(t, err, remote.CodeUnauthorized)
	c = w.client()
	c.Agent = "other"
	_, err = c.Fire(t.Context(), "")
	refused(t, err, remote.CodeElsewhere)
	for _, u := range []string{"", "ftp://x", "http://", "http://u:p@x", "http://x/?a", "://"} {
		c = w.client()
		c.URL = u
		if _, err := c.Fire(t.Context(), ""); err == nil || strings.Contains(err.Error(), "u:p") {
			t.Errorf("%q: %v", u, err)
		}
	}
}

// A client whose clock is wrong signs a challenge.
func TestClientWithoutAClock(t *testing.T) {
	w := newWorld(t)
	commands := 0
	// What stands between sends the first command again, years later, as it
	// would be for a client whose clock is wrong: it replaces it by one that
	// the same key has signed.
	proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method == http.MethodPost {
			if commands++; commands == 1 {
				c := command()
				c.Issued, c.Expires = c.Issued.Add(-time.Hour), c.Expires.Add(-time.Hour)
				body = []byte(sign(t, w.ann, c))
			}
		}
		w.handler.ServeHTTP(rw, httptest.NewRequestWithContext(r.Context(), r.Method, r.URL.Path, bytes.NewReader(body)))
	}))
	defer proxy.Close()
	c := w.client()
	c.URL = proxy.URL
	if r, err := c.Fire(t.Context(), ""); err != nil || r == nil || commands != 2 {
		t.Errorf("%v %v, %d commands", r, err, commands)
	}
}

// A server without its key fires, and the client says that it cannot tell who
// answered. Whoever stands between can do no more than that.
func TestClientTrustsNobody(t *testing.T) {
	w := newWorld(t)
	r, err := w.client().Fire(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	w.config.Key = nil
	w.start()
	if r, err := w.client().Fire(t.Context(), ""); !errors.Is(err, remote.ErrUnverified) || r == nil || w.counter.fires.Load() != 2 {
		t.Errorf("without a key: %v %v", r, err)
	}
	w.config.Key = remote.GenerateKey()
	w.start()
	if r, err := w.client().Fire(t.Context(), ""); !errors.Is(err, remote.ErrUnverified) || r == nil || w.counter.fires.Load() != 3 {
		t.Errorf("with another key: %v %v", r, err)
	}
	w.config.Key = w.own
	w.start()
	// The answer to another command, which was true.
	_ = r
	var kept []byte
	var header http.Header
	proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if kept == nil {
			rec := httptest.NewRecorder()
			w.handler.ServeHTTP(rec, r)
			kept, header = rec.Body.Bytes(), rec.Header()
		}
		maps.Copy(rw.Header(), header)
		_, _ = rw.Write(kept)
	}))
	defer proxy.Close()
	c := w.client()
	c.URL = proxy.URL
	if _, err := c.Fire(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Fire(t.Context(), ""); !errors.Is(err, remote.ErrUnverified) {
		t.Errorf("an old answer: %v", err)
	}
	if _, err := c.State(t.Context()); !errors.Is(err, remote.ErrUnverified) {
		t.Errorf("an answer to something else: %v", err)
	}
	if err := c.Renew(t.Context()); err == nil {
		t.Error("an answer to something else renews")
	}
	key, err := killswitch.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	c = w.client()
	c.Receipts = key.Public()
	if _, err := c.Fire(t.Context(), ""); !errors.Is(err, remote.ErrUnverified) {
		t.Errorf("a receipt that the switch has not signed: %v", err)
	}
}

// The client tries again where that may help, and each try is its own command.
func TestClientTriesAgain(t *testing.T) {
	w := newWorld(t)
	var n atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch n.Add(1) {
		case 1:
			http.Error(rw, "bad gateway", http.StatusBadGateway)
		case 2:
			w.handler.ServeHTTP(httptest.NewRecorder(), r) // it fires, and nobody hears
			panic(http.ErrAbortHandler)
		case 3:
			http.Redirect(rw, r, "/elsewhere", http.StatusTemporaryRedirect)
		default:
			w.handler.ServeHTTP(rw, r)
		}
	}))
	defer proxy.Close()
	c := w.client()
	c.URL, c.Tries = proxy.URL, 0
	r, err := c.Fire(t.Context(), "")
	if err != nil || r == nil || n.Load() != 4 || w.counter.fires.Load() != 2 {
		t.Errorf("%v %v, %d requests, fired %d times", r, err, n.Load(), w.counter.fires.Load())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	c.URL = "http://127.0.0.1:1"
	if _, err := c.Fire(ctx, ""); err == nil {
		t.Error("nobody was there")
	}
}

// A lease stands for one that is renewed.
type lease struct {
	by  []string
	err error
}

func (l *lease) Renew(_ context.Context, by string) error {
	l.by = append(l.by, by)
	return l.err
}

// A lease is renewed by a challenge that was signed, once; everything in doubt
// is refused.
func TestRenew(t *testing.T) {
	l := new(lease)
	w := newWorld(t, func(c *remote.Config) { c.Lease = l })
	if err := w.client().Renew(t.Context()); err != nil || len(l.by) != 1 || l.by[0] != "operator/ann" {
		t.Errorf("%v %q", err, l.by)
	}
	c := command()
	c.Action = remote.Renew
	_, a := w.do(http.MethodPost, "/v1/command", sign(t, w.ann, c))
	if a.Code != remote.CodeStale {
		t.Errorf("without a challenge: %+v", a)
	}
	_, given := w.do(http.MethodGet, "/v1/challenge", "")
	c.Challenge = given.Challenge
	text := sign(t, w.ann, c)
	for i, want := range []remote.Code{"", remote.CodeReplayed} {
		if _, a := w.do(http.MethodPost, "/v1/command", text); a.Code != want {
			t.Errorf("%d: %+v", i, a)
		}
	}
	c.Nonce = [16]byte{1}
	if _, a := w.do(http.MethodPost, "/v1/command", sign(t, w.ann, c)); a.Code != remote.CodeReplayed {
		t.Errorf("the challenge again: %+v", a)
	}
	w.start()
	if _, a := w.do(http.MethodPost, "/v1/command", text); a.Code != remote.CodeStale {
		t.Errorf("after a restart: %+v", a)
	}
	if len(l.by) != 2 || w.counter.fires.Load() != 0 {
		t.Errorf("%q", l.by)
	}
	l.err = killswitch.ErrExpired
	refused(t, w.client().Renew(t.Context()), remote.CodeLease)
}

// Keys are written for their owner alone, read back, and printed by no verb.
func TestKeys(t *testing.T) {
	k := remote.GenerateKey()
	file := filepath.Join(t.TempDir(), "key")
	if err := k.WriteFile(file); err != nil {
		t.Fatal(err)
	}
	if err := k.WriteFile(file); !errors.Is(err, os.ErrExist) {
		t.Errorf("overwritten: %v", err)
	}
	got, err := remote.ReadKey(file)
	if err != nil || got.Public() != k.Public() {
		t.Fatalf("%v %v", got, err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.TrimSpace(string(data[strings.LastIndexByte(string(data), ':')+1:]))
	link, _ := remote.NewLink()
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", k, "link", link, "config", remote.Client{Key: k})
	j, _ := json.Marshal([]any{k, link})
	for _, text := range []string{
		fmt.Sprintf("%v %+v %#v %s %q %x %d", k, k, k, k, k, k, k), fmt.Sprintf("%v %+v %#v %s %q %x %d", link, link, link, link, link, link, link),
		log.String(), string(j), fmt.Sprintf("%+v", remote.Client{Key: k}), fmt.Sprintf("%#v", []remote.Link{link}),
	} {
		if strings.Contains(text, secret) || strings.Contains(text, link.Reveal()) || strings.Contains(text, link.Reveal()[4:]) {
			t.Errorf("it shows a secret: %s", text)
		}
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := remote.ReadKey(file); !errors.Is(err, remote.ErrKey) {
		t.Errorf("others may read it: %v", err)
	}
	for _, text := range []string{"", "x", secret, "hardshell-remote-key:ed25519:" + secret[1:], "hardshell-remote-key:ed25519:" + secret + "\n\n"} {
		bad := filepath.Join(t.TempDir(), "bad")
		if err := os.WriteFile(bad, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := remote.ReadKey(bad); !errors.Is(err, remote.ErrKey) || strings.Contains(err.Error(), secret[1:]) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if p, err := remote.ParsePublicKey(k.Public().String()); err != nil || p != k.Public() {
		t.Errorf("%v %v", p, err)
	}
}

// One line of the list of operators that is wrong disarms nobody else.
func TestParseOperators(t *testing.T) {
	a, b := remote.GenerateKey().Public(), remote.GenerateKey().Public()
	_, hash := remote.NewLink()
	all, err := remote.ParseOperators("# who\n\nann " + a.String() + "\nann  " + hash.String() + "\nbob " + b.String() + "\r\neve hsk_secret\nmallory\n")
	if err == nil || strings.Contains(err.Error(), "hsk_secret") || !strings.Contains(err.Error(), "line 6") || !strings.Contains(err.Error(), "line 7") {
		t.Errorf("%v", err)
	}
	if len(all) != 2 || all[0].Name != "ann" || len(all[0].Keys) != 1 || all[0].Links[0] != hash || all[1].Name != "bob" || all[1].Keys[0] != b {
		t.Errorf("%+v", all)
	}
}

// What parses is written in one way.
func FuzzCommand(f *testing.F) {
	k := remote.GenerateKey()
	c := command()
	for _, reason := range []string{"", "it deletes mail", "\"\\\n\x00é€😀"} {
		c.Reason = reason
		data, err := c.Sign(k)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(strings.Repeat("hardshell.killswitch.command/v1\n", 20)))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, again, ok := remote.ParseCommand(data)
		if !ok {
			return
		}
		if !bytes.HasPrefix(data, again) || len(data) > remote.MaxCommand {
			t.Errorf("%q is written again as %q", data, again)
		}
		signed, err := c.Sign(k)
		if err != nil {
			t.Fatalf("what was read cannot be signed: %v", err)
		}
		if d, _, ok := remote.ParseCommand(signed); !ok || c.Nonce != [16]byte{} && d.Nonce != c.Nonce || d.Reason != c.Reason || !d.Issued.Equal(c.Issued) {
			t.Errorf("%+v and %+v", c, d)
		}
	})
}
