package softstop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/managemyclaw/hardshell/composio"
)

func TestFake(t *testing.T) {
	cases(t, func(t *testing.T) machine { return newFake(t) })
}

func stopper(t *testing.T, cfg Config) *Stopper {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func observer(t *testing.T, cfg Config) *Observer {
	t.Helper()
	o, err := NewObserver(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// However many sessions and tasks there are, and in agents' global sessions
// too.
func TestManyPages(t *testing.T) {
	f := newFake(t)
	for n := range 257 {
		f.begin(session(n), askHang)
		f.begin(session(n+1000), askBackground)
	}
	f.begin("global", askHang)
	left, err := observer(t, f.config()).Remaining(t.Context())
	if err != nil || len(left) != 257+257+1+1 || left["session/global@main"] == "" {
		t.Errorf("%d remain, %v", len(left), err)
	}
	if err := stopper(t, f.config()).Do(t.Context()); err != nil {
		t.Fatal(err, open(err))
	}
	if n := f.waitingForModel() + f.commands(); n != 0 {
		t.Errorf("%d are left", n)
	}
}

// A connection that was good when it was made and is not any more costs a new
// one, and not the stop.
func TestWarmConnection(t *testing.T) {
	f := newFake(t)
	s := stopper(t, f.config())
	if err := s.Arm(t.Context()); err != nil {
		t.Fatal(err)
	}
	warm := s.warm
	if err := s.Arm(t.Context()); err != nil || s.warm != warm {
		t.Fatal("a good connection was made anew", err)
	}
	f.begin(session(1), askHang)
	f.drop()
	if err := s.Do(t.Context()); err != nil || f.waitingForModel() != 0 {
		t.Fatal(err, open(err))
	}
	// Silent for longer than the gateway is between its ticks.
	s.warm.mu.Lock()
	s.warm.heard = time.Now().Add(-time.Minute)
	s.warm.mu.Unlock()
	stale := s.warm
	if err := s.Do(t.Context()); err != nil || s.warm == stale {
		t.Error("the stale connection was used", err)
	}
	// Broken by the request itself.
	f.mu.Lock()
	f.held = nil
	f.after["sessions.list"] = func() {
		f.mu.Lock()
		delete(f.after, "sessions.list")
		f.mu.Unlock()
		f.drop()
	}
	f.mu.Unlock()
	f.begin(session(1), askHang)
	if err := s.Do(t.Context()); err != nil || f.waitingForModel() != 0 {
		t.Error(err, open(err))
	}
}

// Whatever does not answer, each method returns soon after its time, and says
// what is open.
func TestSilence(t *testing.T) {
	for _, method := range []string{"connect", "sessions.list", "sessions.abort", "tasks.list", "gateway.suspend.prepare"} {
		t.Run(method, func(t *testing.T) {
			f := newFake(t)
			f.begin(session(1), askHang)
			f.silent[method] = true
			ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
			defer cancel()
			start := time.Now()
			err := stopper(t, f.config()).Do(ctx)
			if err == nil || time.Since(start) > 20*time.Second {
				t.Errorf("%v after %v", err, time.Since(start))
			}
			if method != "connect" && len(open(err)) == 0 {
				t.Errorf("%v: nothing is open", err)
			}
			cfg := f.config()
			cfg.Timeout = 150 * time.Millisecond
			if method != "sessions.abort" && method != "gateway.suspend.prepare" {
				if left, err := observer(t, cfg).Remaining(t.Context()); err == nil {
					t.Errorf("the observer has looked: %v", left)
				}
			}
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		f := newFake(t)
		f.server.Close()
		s, o := stopper(t, f.config()), observer(t, f.config())
		if err := s.Do(t.Context()); err == nil {
			t.Error("stopped")
		}
		if _, err := o.Remaining(t.Context()); err == nil {
			t.Error("looked")
		}
		if err := s.Release(t.Context()); err != nil {
			t.Error(err) // what it held is over
		}
		if err := s.Resume(t.Context()); err == nil {
			t.Error("resumed")
		}
	})
}

// A part that fails does not keep the others from being done, and is said.
func TestParts(t *testing.T) {
	no := func() (any, map[string]any) { return nil, refuse("UNAVAILABLE", "broken") }
	for _, method := range []string{"sessions.list", "tasks.list", "sessions.abort", "tasks.cancel", "gateway.suspend.prepare"} {
		t.Run(method, func(t *testing.T) {
			f := newFake(t)
			f.begin(session(1), askHang)
			f.begin(session(2), askBackground)
			f.answer[method] = no
			cfg := f.config()
			cfg.Timeout = 400 * time.Millisecond
			err := stopper(t, cfg).Do(t.Context())
			if err == nil || len(open(err)) == 0 {
				t.Fatalf("%v, open: %v", err, open(err))
			}
			hung, ran := f.waitingForModel(), f.commands()
			switch method {
			case "sessions.list", "sessions.abort":
				if ran != 0 {
					t.Error("the task was not canceled")
				}
			case "tasks.list", "tasks.cancel":
				if hung != 0 {
					t.Error("the run was not aborted")
				}
			default:
				if hung+ran != 0 {
					t.Error("not all was stopped")
				}
			}
		})
	}
}

// A gateway that is not what this package was made for is told so by Arm.
func TestArmSays(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*fake)
		says   string
	}{
		"another version of the protocol": {func(f *fake) { f.protocol = 5 }, "version 5"},
		"not all rights":                  {func(f *fake) { f.scopes = []string{"operator.read"} }, "operator.admin"},
		"no suspension":                   {func(f *fake) { f.methods = f.methods[:4] }, "gateway.suspend.prepare"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			test.change(f)
			if err := stopper(t, f.config()).Arm(t.Context()); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Error(err)
			}
		})
	}
}

// What is to be stopped may lie, and knows the token. Nothing that it says gets
// the token into a receipt, takes for ever, or is taken for a stop.
func TestMalice(t *testing.T) {
	endless := func() (any, map[string]any) {
		return map[string]any{"count": 1, "hasMore": true, "nextCursor": "x", "sessions": []any{map[string]any{"key": "k" + secret}}, "tasks": []any{map[string]any{"id": secret, "status": secret}}}, nil
	}
	close := func(status websocket.StatusCode) func(context.Context, *websocket.Conn) {
		return func(_ context.Context, c *websocket.Conn) { c.Close(status, secret) }
	}
	say := func(text string) func(context.Context, *websocket.Conn) {
		return func(ctx context.Context, c *websocket.Conn) {
			c.Write(ctx, websocket.MessageText, []byte(text))
			c.Read(ctx)
		}
	}
	for name, change := range map[string]func(*fake){
		"lists without end":      func(f *fake) { f.answer["sessions.list"], f.answer["tasks.list"] = endless, endless },
		"the token as a session": func(f *fake) { f.begin("agent:"+secret+"\n\x1b[2J", askHang); f.silent["sessions.abort"] = true },
		"the token in a refusal": func(f *fake) {
			f.answer["sessions.list"] = func() (any, map[string]any) { return nil, refuse(secret, secret) }
		},
		"the token in a close":   func(f *fake) { f.greeting = close(websocket.StatusPolicyViolation) },
		"no JSON":                func(f *fake) { f.greeting = say(secret) },
		"another greeting":       func(f *fake) { f.greeting = say(`{"type":"event","event":"` + secret + `"}`) },
		"an answer that is none": func(f *fake) { f.answer["sessions.list"] = func() (any, map[string]any) { return secret, nil } },
		"no list": func(f *fake) {
			f.answer["sessions.list"] = func() (any, map[string]any) { return map[string]any{}, nil }
		},
		"a suspension without word": func(f *fake) {
			f.answer["gateway.suspend.prepare"] = func() (any, map[string]any) { return map[string]any{}, nil }
		},
		"a suspension that drains": func(f *fake) {
			f.answer["gateway.suspend.prepare"] = func() (any, map[string]any) { return map[string]any{"status": "draining", "suspensionId": secret}, nil }
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			change(f)
			cfg := f.config()
			cfg.Timeout = 300 * time.Millisecond
			start := time.Now()
			s, o := stopper(t, cfg), observer(t, cfg)
			err := s.Do(t.Context())
			left, looked := o.Remaining(t.Context())
			if err == nil {
				t.Error("stopped")
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
			out := fmt.Sprintln(err, open(err), left, looked, o.Objects())
			if strings.Contains(out, secret) || strings.Contains(out, "\x1b") || len(out) > 1<<20 {
				t.Errorf("printed: %.500s", out)
			}
		})
	}
}

// Leases are few a minute: a stop that goes on for long does not use them up
// at once.
func TestLeases(t *testing.T) {
	f := newFake(t)
	f.begin(session(1), askHang)
	f.answer["sessions.abort"] = func() (any, map[string]any) { return map[string]any{"ok": true}, nil } // and nothing
	cfg := f.config()
	cfg.Timeout = 5 * time.Second
	if err := stopper(t, cfg).Do(t.Context()); err == nil || !strings.Contains(open(err)["session/"+session(1)], "running") {
		t.Error(err, open(err))
	}
	if f.leases > 16 {
		t.Errorf("%d leases were asked for", f.leases)
	}
}

// A gateway that begins to drain while it is looked at says nothing of what is
// under way, and one that has been closed says that there is nothing.
func TestSuspendedWhileObserved(t *testing.T) {
	for phase, off := range map[string]bool{"draining": false, "prepared": true, "preparing": false, "": false} {
		for _, method := range []string{"sessions.list", "gateway.restart.preflight"} {
			f := newFake(t)
			f.answer[method] = func() (any, map[string]any) {
				p := refuse("UNAVAILABLE", "gateway-suspending")
				p["details"].(map[string]any)["phase"] = phase
				return nil, p
			}
			if left, err := observer(t, f.config()).Remaining(t.Context()); (err == nil) != off || len(left) != 0 {
				t.Errorf("%s in phase %q: %v, %v", method, phase, left, err)
			}
		}
	}
}

// The stopper does not let the gateway drain, not for a moment: nobody could
// abort anything meanwhile.
func TestNeverDrains(t *testing.T) {
	f := newFake(t)
	f.begin(session(1), askHang)
	var drained atomic.Bool
	f.after["gateway.suspend.prepare"] = func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		drained.Store(drained.Load() || f.held != nil && f.held.phase == "draining")
	}
	f.answer["sessions.abort"] = func() (any, map[string]any) { return map[string]any{"ok": true}, nil } // and nothing
	cfg := f.config()
	cfg.Timeout = 200 * time.Millisecond
	if err := stopper(t, cfg).Do(t.Context()); err == nil || drained.Load() {
		t.Errorf("drained: %v, %v", drained.Load(), err)
	}
}

func TestNewRefuses(t *testing.T) {
	ok := Config{URL: "ws://127.0.0.1:18789", Token: composio.NewSecret("x")}
	for name, change := range map[string]func(*Config){
		"no URL":             func(c *Config) { c.URL = "" },
		"another scheme":     func(c *Config) { c.URL = "http://127.0.0.1" },
		"a credential":       func(c *Config) { c.URL = "ws://a:b@127.0.0.1" },
		"clear text":         func(c *Config) { c.URL = "ws://192.0.2.1:80" },
		"no token":           func(c *Config) { c.Token = composio.Secret{} },
		"a negative timeout": func(c *Config) { c.Timeout = -1 },
	} {
		cfg := ok
		change(&cfg)
		_, err := New(cfg)
		if _, oerr := NewObserver(cfg); err == nil || oerr == nil || strings.Contains(err.Error(), "a:b") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, u := range []string{"ws://127.0.0.1:18789", "ws://[::1]:18789", "ws://localhost:1", "wss://gateway.example"} {
		ok.URL = u
		if _, err := New(ok); err != nil {
			t.Error(err)
		}
	}
}

// The connection is made by Config.Dial.
func TestDial(t *testing.T) {
	f := newFake(t)
	cfg := f.config()
	dialed := ""
	cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialed = address
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	if err := stopper(t, cfg).Do(t.Context()); err != nil || !strings.HasSuffix(cfg.URL, dialed) {
		t.Error(dialed, err)
	}
	refused := errors.New("no such container")
	cfg.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, refused }
	if err := stopper(t, cfg).Do(t.Context()); !errors.Is(err, refused) {
		t.Error(err)
	}
}

// No frame crashes, and what of a refusal is shown is a word.
func FuzzFrame(f *testing.F) {
	for _, s := range []string{
		`{"type":"event","event":"connect.challenge","payload":{"nonce":"n","ts":1}}`,
		`{"type":"res","id":"1","ok":false,"error":{"code":"UNAVAILABLE","message":"m","details":{"reason":"gateway-suspending","phase":"draining"}}}`,
		`{"type":"res","id":"1","ok":true,"payload":{"type":"hello-ok","protocol":4,"auth":{"scopes":["operator.admin"]},"snapshot":{"suspension":{"phase":"prepared"}}}}`,
		`{"type":"res","id":"1","ok":false,"error":{"code":7}}`, `null`, `[]`, `"x"`,
	} {
		f.Add([]byte(s))
	}
	e := &endpoint{token: composio.NewSecret(secret)}
	f.Fuzz(func(t *testing.T, data []byte) {
		fr, err := decodeFrame(data)
		if err != nil {
			return
		}
		var h hello
		if json.Unmarshal(fr.Payload, &h) == nil {
			_ = h.check()
		}
		var l lease
		if json.Unmarshal(fr.Payload, &l) == nil {
			_ = l.busy()
		}
		if text := fr.Error.refused("m", e.hide).Error(); len(text) > 200 || strings.ContainsAny(text, "\x1b\n\"") {
			t.Errorf("%q", text)
		}
		if name := e.hide(string(data) + secret); strings.Contains(name, secret) || strings.ContainsAny(name, "\x1b\n") || len(name) > 2*maxName {
			t.Errorf("%q", name)
		}
	})
}

func ExampleStopper() {
	f := newFake(new(testing.T))
	defer f.server.Close()
	defer f.drop()
	f.begin("agent:main:main", askHang) // a turn is under way

	cfg := Config{URL: f.config().URL, Token: composio.NewSecret(secret)} // such as ws://127.0.0.1:18789
	watch, err := NewObserver(cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	stop, err := New(cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop.Close()

	ctx := context.Background()
	left, _ := watch.Remaining(ctx)
	delete(left, "gateway")
	fmt.Println("before:", maps.Collect(maps.All(left)))
	fmt.Println("stopped:", stop.Do(ctx))
	left, err = watch.Remaining(ctx)
	fmt.Println("after:", left, err)
	// Output:
	// before: map[session/agent:main:main:running or queued]
	// stopped: <nil>
	// after: map[] <nil>
}
