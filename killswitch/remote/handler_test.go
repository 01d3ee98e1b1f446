package remote_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/killswitch/remote"
)

// An answer is what the tests read of one.
type answer struct {
	Outcome, Message, By, Challenge, Problems string
	Code                                      remote.Code
	Receipt                                   json.RawMessage
}

func post(t *testing.T, c *http.Client, url, body string) (int, answer) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/command", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var a answer
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, a
}

func do(t *testing.T, h http.Handler, method, target, body string) (int, answer) {
	t.Helper()
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body)))
	var a answer
	if err := json.Unmarshal(rec.Body.Bytes(), &a); err != nil {
		t.Fatalf("%v: %s", err, rec.Body)
	}
	return rec.Code, a
}

// A command that an operator signed fires once, whoever sends it how often.
func TestReplay(t *testing.T) {
	w := newWorld(t)
	text := sign(t, w.ann, command())
	if status, code := w.post(text); status != http.StatusOK {
		t.Fatalf("%d %s", status, code)
	}
	for range 3 {
		if status, code := w.post(text); status != http.StatusConflict || code != remote.CodeReplayed {
			t.Errorf("again: %d %s", status, code)
		}
	}
	w.start() // a restart remembers
	if status, code := w.post(text); status != http.StatusConflict || code != remote.CodeReplayed {
		t.Errorf("after a restart: %d %s", status, code)
	}
	if n := w.counter.fires.Load(); n != 1 {
		t.Errorf("fired %d times", n)
	}
	if err := w.handler.Problems(); err != nil {
		t.Error(err)
	}
	// The same at once.
	text = sign(t, w.ann, command())
	var fired, replayed sync.Map
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			switch status, a := do(t, w.handler, http.MethodPost, "/v1/command", text); {
			case status == http.StatusOK:
				fired.Store(i, true)
			case a.Code == remote.CodeReplayed:
				replayed.Store(i, true)
			}
		})
	}
	wg.Wait()
	count := func(m *sync.Map) (n int) {
		m.Range(func(any, any) bool { n++; return true })
		return n
	}
	if count(&fired) != 1 || count(&replayed) != 63 {
		t.Errorf("%d fired and %d replayed", count(&fired), count(&replayed))
	}
}

// No byte of a command can be changed, left out, or added.
func TestTampered(t *testing.T) {
	w := newWorld(t)
	text := sign(t, w.ann, command())
	tried := 0
	try := func(what, changed string) {
		tried++
		status, a := w.do(http.MethodPost, "/v1/command", changed)
		if status/100 != 4 || a.Outcome != "refused" {
			t.Errorf("%s: %d %+v", what, status, a)
		}
	}
	for i := range len(text) {
		for _, flip := range []byte{1, 2, 4, 8, 16, 32, 64, 128} {
			b := []byte(text)
			b[i] ^= flip
			try(fmt.Sprintf("bit %d of byte %d", flip, i), string(b))
		}
		try(fmt.Sprintf("without byte %d", i), text[:i]+text[i+1:])
		try(fmt.Sprintf("cut at %d", i), text[:i])
		try(fmt.Sprintf("one more at %d", i), text[:i]+text[i:i+1]+text[i:])
	}
	try("a line more", text+"x\n")
	try("a newline more", text+"\n")
	try("carriage returns", strings.ReplaceAll(text, "\n", "\r\n"))
	try("a carriage return in the signature", text[:len(text)-2]+"\r"+text[len(text)-2:])
	if n := w.counter.fires.Load(); n != 0 {
		t.Fatalf("fired %d times of %d tries", n, tried)
	}
	// It was good, and nothing of this has used it up.
	if status, a := w.do(http.MethodPost, "/v1/command", text); status != http.StatusOK {
		t.Errorf("%d %+v", status, a)
	}
}

// What is not meant for this switch, or not by an operator, does nothing.
func TestRefused(t *testing.T) {
	w := newWorld(t)
	stranger := remote.GenerateKey()
	with := func(k *remote.Key, f func(*remote.Command)) string {
		c := command()
		f(&c)
		return sign(t, k, c)
	}
	none := func(*remote.Command) {}
	good := with(w.ann, none)
	body, _, _ := strings.Cut(good, "signature ")
	_, foreign, _ := strings.Cut(with(stranger, none), "signature ")
	_, otherSig, _ := strings.Cut(with(w.ann, none), "signature ")
	for situation, tt := range map[string]struct {
		text string
		code remote.Code
	}{
		"a stranger's key":                {with(stranger, none), remote.CodeUnauthorized},
		"the server's own key":            {with(w.own, none), remote.CodeUnauthorized},
		"an operator's, by another's key": {body + "signature " + foreign, remote.CodeUnauthorized},
		"the signature of another":        {body + "signature " + otherSig, remote.CodeUnauthorized},
		"another switch":                  {with(w.ann, func(c *remote.Command) { c.Switch = "prod-2" }), remote.CodeElsewhere},
		"another agent":                   {with(w.ann, func(c *remote.Command) { c.Agent = "openclaw2" }), remote.CodeElsewhere},
		"no lease":                        {with(w.ann, func(c *remote.Command) { c.Action = remote.Renew }), remote.CodeStale},
		"nothing":                         {"", remote.CodeMalformed},
		"something else":                  {"kill openclaw", remote.CodeMalformed},
		"too much":                        {good + strings.Repeat("x", remote.MaxCommand), remote.CodeMalformed},
		"a made-up challenge":             {with(w.ann, func(c *remote.Command) { c.Challenge = strings.Repeat("A", 55) }), remote.CodeStale},
	} {
		t.Run(situation, func(t *testing.T) {
			if _, a := w.do(http.MethodPost, "/v1/command", tt.text); a.Code != tt.code {
				t.Errorf("%+v, want %s", a, tt.code)
			}
		})
	}
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodOptions} {
		rec := httptest.NewRecorder()
		w.handler.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), method, "/v1/command", strings.NewReader(good)))
		if rec.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, rec.Code)
		}
	}
	if n := w.counter.fires.Load(); n != 0 {
		t.Errorf("fired %d times", n)
	}
}

// A command is good from a little before it was issued until a little after it
// expires; with a challenge, whatever the clocks say, for a minute.
func TestFresh(t *testing.T) {
	for situation, tt := range map[string]struct {
		off       time.Duration // of the operator's clock
		later     time.Duration // when it arrives
		challenge bool
		fires     bool
	}{
		"at once":                                  {fires: true},
		"just before it expires":                   {later: time.Minute + remote.DefaultSkew - time.Millisecond, fires: true},
		"when it has expired":                      {later: time.Minute + remote.DefaultSkew},
		"a day later":                              {later: 24 * time.Hour},
		"a clock a little ahead":                   {off: remote.DefaultSkew, fires: true},
		"a clock further ahead":                    {off: remote.DefaultSkew + time.Millisecond},
		"a clock years ahead":                      {off: 3 * 365 * 24 * time.Hour},
		"a clock years behind":                     {off: -3 * 365 * 24 * time.Hour},
		"a clock years ahead, and a challenge":     {off: 3 * 365 * 24 * time.Hour, challenge: true, fires: true},
		"a clock years behind, and a challenge":    {off: -3 * 365 * 24 * time.Hour, challenge: true, fires: true},
		"a challenge a minute old":                 {later: time.Minute, challenge: true, fires: true},
		"a challenge older than that":              {later: time.Minute + time.Millisecond, challenge: true},
		"a challenge too old, and a clock in time": {off: time.Minute, later: time.Minute + time.Millisecond, challenge: true},
	} {
		t.Run(situation, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := new(counter)
				ann := remote.GenerateKey()
				h, err := remote.New(remote.Config{Name: theSwitch, Agent: theAgent, Switch: c, Operators: []remote.Operator{{Name: "ann", Keys: []remote.PublicKey{ann.Public()}}}})
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
				cmd := command()
				cmd.Issued, cmd.Expires = cmd.Issued.Add(tt.off), cmd.Expires.Add(tt.off)
				if tt.challenge {
					_, a := do(t, h, http.MethodGet, "/v1/challenge", "")
					cmd.Challenge = a.Challenge
				}
				text := sign(t, ann, cmd)
				time.Sleep(tt.later)
				_, a := do(t, h, http.MethodPost, "/v1/command", text)
				if got := a.Outcome == "fired"; got != tt.fires || !got && a.Code != remote.CodeStale || got != (c.fires.Load() == 1) {
					t.Errorf("%+v, want it to fire: %v", a, tt.fires)
				}
				if tt.fires {
					if _, a := do(t, h, http.MethodPost, "/v1/command", text); a.Code != remote.CodeReplayed {
						t.Errorf("again: %+v", a)
					}
				}
			})
		})
	}
}

// A challenge ends with the process that gave it, and is good nowhere else.
func TestChallengeOfAnother(t *testing.T) {
	w := newWorld(t)
	_, a := w.do(http.MethodGet, "/v1/challenge", "")
	w.start()
	c := command()
	c.Challenge = a.Challenge
	if _, a := w.do(http.MethodPost, "/v1/command", sign(t, w.ann, c)); a.Code != remote.CodeStale {
		t.Errorf("%+v", a)
	}
}

// The memory of used commands keeps no command from firing, whatever happens to
// it, and says what is wrong.
func TestMemoryThatFails(t *testing.T) {
	used := sign(t, remote.GenerateKey(), command()) // something
	for situation, prepare := range map[string]func(t *testing.T, file string) string{
		"its directory is not there": func(_ *testing.T, file string) string { return filepath.Join(file, "no", "where") },
		"it is a directory": func(t *testing.T, file string) string {
			if err := os.MkdirAll(filepath.Join(file, "x"), 0o700); err != nil {
				t.Fatal(err)
			}
			return file
		},
		"it is damaged": func(t *testing.T, file string) string {
			if err := os.WriteFile(file, []byte(used), 0o600); err != nil {
				t.Fatal(err)
			}
			return file
		},
		"it is empty": func(t *testing.T, file string) string {
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return file
		},
		"it is huge": func(t *testing.T, file string) string {
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(file, 1<<40); err != nil {
				t.Fatal(err)
			}
			return file
		},
	} {
		t.Run(situation, func(t *testing.T) {
			file := prepare(t, filepath.Join(t.TempDir(), "nonces"))
			w := newWorld(t, func(c *remote.Config) { c.Nonces = file })
			if w.handler.Problems() == nil {
				t.Error("nothing is said")
			}
			text := sign(t, w.ann, command())
			if status, code := w.post(text); status != http.StatusOK {
				t.Errorf("%d %s", status, code)
			}
			if _, code := w.post(text); code != remote.CodeReplayed {
				t.Errorf("again: %s", code)
			}
		})
	}
}

// Of what a crash left half written, the rest is still remembered.
func TestMemoryTornOff(t *testing.T) {
	w := newWorld(t)
	first, second := sign(t, w.ann, command()), sign(t, w.ann, command())
	w.post(first)
	w.post(second)
	info, err := os.Stat(w.config.Nonces)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info, err)
	}
	if err := os.Truncate(w.config.Nonces, info.Size()-7); err != nil {
		t.Fatal(err)
	}
	w.start()
	if _, code := w.post(first); code != remote.CodeReplayed {
		t.Errorf("the one before: %s", code)
	}
	if w.handler.Problems() == nil {
		t.Error("nothing is said")
	}
	third := sign(t, w.ann, command())
	w.post(third)
	w.start()
	if _, code := w.post(third); code != remote.CodeReplayed {
		t.Errorf("the one after: %s", code)
	}
	if err := w.handler.Problems(); err != nil {
		t.Errorf("what was put right is still said: %v", err)
	}
}

// More commands than are remembered fire all the same, and the file stays
// bounded.
func TestMemoryThatIsFull(t *testing.T) {
	const most = 4096
	n, per := remote.NewNonces(filepath.Join(t.TempDir(), "nonces"), remote.GenerateKey().Public())
	for i := range 3*most + 7 {
		if !n(i) {
			t.Fatalf("%d was refused", i)
		}
	}
	for i := 2*most + 7; i < 3*most+7; i++ {
		if n(i) {
			t.Fatalf("%d was not remembered", i)
		}
	}
	if size, err := per(); err != nil || size > 66*2*most+4096 {
		t.Errorf("the file has %d bytes, %v", size, err)
	}
}

// A client that goes away ends nothing.
func TestClientGoesAway(t *testing.T) {
	w := newWorld(t)
	w.counter.hold = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := w.client().Fire(ctx, "")
		gone <- err
	}()
	for w.counter.fires.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	time.Sleep(20 * time.Millisecond) // for the server to see that nobody is there
	close(w.counter.hold)
	for len(w.ended()) == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := w.ended()[0]; err != nil {
		t.Errorf("the kill's context: %v", err)
	}
}

func (w *world) ended() []error {
	w.counter.mu.Lock()
	defer w.counter.mu.Unlock()
	return w.counter.ended
}

// Those who send slowly, and those who send what is wrong, keep out nobody who
// does not; also from the same address.
func TestStrangersKeepNobodyOut(t *testing.T) {
	w := newWorld(t)
	addr := w.server.Listener.Addr().String()
	for range 40 { // more than may read from one source
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST /v1/command HTTP/1.1\r\nHost: x\r\nContent-Length: 700\r\n\r\nhardshell")
	}
	many := 0
	for range 100 {
		if _, code := w.post("garbage"); code == remote.CodeTooMany {
			many++
		}
	}
	if many < 50 {
		t.Errorf("only %d of 100 refusals were cut short", many)
	}
	start := time.Now()
	if _, err := w.client().Fire(t.Context(), ""); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("it took %v", d)
	}
}

// A body that does not arrive is not waited for.
func TestSlowBody(t *testing.T) {
	w := newWorld(t)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", w.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	text := sign(t, w.ann, command())
	fmt.Fprintf(conn, "POST /v1/command HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", len(text))
	start := time.Now()
	go func() {
		for i := range len(text) {
			if _, err := conn.Write([]byte(text[i : i+1])); err != nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	data, _ := io.ReadAll(conn)
	if d := time.Since(start); d > 8*time.Second || w.counter.fires.Load() != 0 || !strings.Contains(string(data), "malformed") {
		t.Errorf("after %v: %.200s", d, data)
	}
}

// Nothing that the switch does wrong brings the handler down.
func TestSwitchThatFails(t *testing.T) {
	for situation, f := range map[string]func(*world){
		"it returns an error": func(w *world) { w.counter.err = errors.New("out of order") },
		"it crashes":          func(w *world) { w.config.Switch = nilSwitch(); w.start() },
	} {
		t.Run(situation, func(t *testing.T) {
			w := newWorld(t)
			f(w)
			if status, a := w.do(http.MethodPost, "/v1/command", sign(t, w.ann, command())); status != http.StatusInternalServerError || a.Outcome != "failed" || a.Message == "" {
				t.Errorf("%d %+v", status, a)
			}
		})
	}
}

func nilSwitch() remote.Switch { return (*counter)(nil) }

// The trail has who asked for what, and is not waited for.
func TestTrail(t *testing.T) {
	events := make(chan trail.Event, 100)
	hung := make(chan struct{})
	defer close(hung)
	w := newWorld(t, func(c *remote.Config) {
		c.Trail = recorder(func(ctx context.Context, e trail.Event) error {
			events <- e
			<-hung // for ever
			return nil
		})
	})
	start := time.Now()
	if _, err := w.client().Fire(t.Context(), "it deletes mail"); err != nil {
		t.Fatal(err)
	}
	w.post("garbage")
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("it took %v", d)
	}
	if e := <-events; e.Kind != "kill.command" || e.Actor != "operator/ann" || e.Decision != trail.DecisionAllow || e.Message != "it deletes mail" || e.Validate() != nil {
		t.Errorf("%+v: %v", e, e.Validate())
	}
	if e := <-events; e.Decision != trail.DecisionDeny || e.Actor != "" || e.Validate() != nil {
		t.Errorf("%+v: %v", e, e.Validate())
	}
}

type recorder func(context.Context, trail.Event) error

func (r recorder) Record(ctx context.Context, e trail.Event) error { return r(ctx, e) }

// What could fire nothing is an error.
func TestNewRefuses(t *testing.T) {
	k := remote.GenerateKey().Public()
	good := remote.Config{Name: "a", Agent: "b", Switch: new(counter), Operators: []remote.Operator{{Name: "ann", Keys: []remote.PublicKey{k}}}}
	for situation, f := range map[string]func(*remote.Config){
		"no switch":          func(c *remote.Config) { c.Switch = nil },
		"no name":            func(c *remote.Config) { c.Name = "" },
		"a name of two":      func(c *remote.Config) { c.Name = "a b" },
		"no agent":           func(c *remote.Config) { c.Agent = "" },
		"nobody":             func(c *remote.Config) { c.Operators = nil },
		"somebody with none": func(c *remote.Config) { c.Operators = []remote.Operator{{Name: "ann"}} },
		"a key of two": func(c *remote.Config) {
			c.Operators = append(c.Operators, remote.Operator{Name: "bob", Keys: []remote.PublicKey{k}})
		},
		"twice": func(c *remote.Config) { c.Operators = append(c.Operators, c.Operators[0]) },
		"an empty key": func(c *remote.Config) {
			c.Operators = []remote.Operator{{Name: "ann", Keys: make([]remote.PublicKey, 1)}}
		},
		"much skew": func(c *remote.Config) { c.Skew = time.Hour },
	} {
		c := good
		f(&c)
		if h, err := remote.New(c); err == nil || h != nil {
			t.Errorf("%s: %v", situation, err)
		}
	}
	if _, err := remote.New(good); err != nil {
		t.Error(err)
	}
}
