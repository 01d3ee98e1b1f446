package softstop

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/composio"
)

// What an agent is asked to do.
const (
	askHang       = "HANG"       // wait for a model that does not answer
	askForeground = "FOREGROUND" // wait for a command that does not end
	askBackground = "BACKGROUND" // start a command that does not end
	askNothing    = "NOTHING"    // answer
)

// A machine is OpenClaw with a model.
type machine interface {
	config() Config
	asked(message string) int // how often the model was asked with message
	waitingForModel() int     // calls of the model that are open
	commands() int            // commands of agents that run
}

var messages atomic.Int64

// A site is a machine in one case.
type site struct {
	machine
	t       *testing.T
	stopper *Stopper
	watch   *Observer
	driver  *conn
}

func newSite(t *testing.T, m machine) *site {
	t.Helper()
	s := &site{machine: m, t: t}
	var err error
	if s.stopper, err = New(m.config()); err != nil {
		t.Fatal(err)
	}
	if s.watch, err = NewObserver(m.config()); err != nil {
		t.Fatal(err)
	}
	if s.driver, err = s.stopper.at.dial(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := s.stopper.Do(ctx); err != nil {
			t.Errorf("cleanup: %v", err)
		}
		if err := s.stopper.Resume(ctx); err != nil {
			t.Errorf("cleanup: %v", err)
		}
		s.stopper.Close()
		s.driver.close()
	})
	return s
}

// ask sends an agent a message.
func (s *site) ask(session, message string) (unique string, err error) {
	unique = message + " " + strconv.FormatInt(messages.Add(1), 10) + "."
	var r struct{}
	err = s.driver.call(s.t.Context(), "chat.send", map[string]any{"sessionKey": session, "message": unique, "idempotencyKey": "k" + strconv.FormatInt(time.Now().UnixNano(), 36)}, &r)
	return unique, err
}

func (s *site) mustAsk(session, message string) string {
	s.t.Helper()
	unique, err := s.ask(session, message)
	if err != nil {
		s.t.Fatal(err)
	}
	return unique
}

func (s *site) until(what string, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(5 * time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("not within five minutes: %s", what)
		}
	}
}

func (s *site) remaining() map[string]string {
	s.t.Helper()
	left, err := s.watch.Remaining(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return left
}

// stop stops, and checks what is so after every stop.
func (s *site) stop() {
	s.t.Helper()
	start := time.Now()
	if err := s.stopper.Do(s.t.Context()); err != nil {
		s.t.Fatalf("%v; open: %v", err, open(err))
	}
	done := time.Since(start)
	if left := s.remaining(); len(left) > 0 {
		s.t.Errorf("the observer still sees %v", left)
	}
	s.until("nobody waits for the model", func() bool { return s.waitingForModel() == 0 })
	s.until("no command runs", func() bool { return s.commands() == 0 })
	s.t.Logf("Do took %v, and all was gone after %v", done.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
	if _, err := s.ask(session(0), askNothing); err == nil {
		s.t.Error("work is admitted after the stop")
	}
}

// keepAsking sends messages to three sessions until the function that it
// returns is called, which returns how many were admitted.
func (s *site) keepAsking(every time.Duration) (stop func() int) {
	s.t.Helper()
	unique := s.mustAsk(session(20), askHang)
	s.until("it is under way", func() bool { return s.asked(unique) > 0 })
	ctx, cancel := context.WithCancel(s.t.Context())
	sent := make(chan int, 1)
	go func() {
		n := 0
		for ctx.Err() == nil {
			if _, err := s.ask(session(20+n%3), askHang); err == nil {
				n++
			}
			time.Sleep(every)
		}
		sent <- n
	}()
	time.Sleep(200 * time.Millisecond)
	return func() int {
		cancel()
		return <-sent
	}
}

func session(n int) string { return "agent:main:s" + strconv.Itoa(n) }

func open(err error) map[string]string {
	if o, ok := errors.AsType[interface {
		error
		Open() map[string]string
	}](err); ok {
		return o.Open()
	}
	return nil
}

// cases are what must be so of the fake and of OpenClaw itself.
func cases(t *testing.T, start func(*testing.T) machine) {
	t.Run("nothing is under way", func(t *testing.T) {
		s := newSite(t, start(t))
		if err := s.stopper.Arm(t.Context()); err != nil {
			t.Fatal(err)
		}
		// It may still be busy with its own start.
		s.until("it is idle", func() bool { return len(s.remaining()) == 0 })
		s.stop()
		s.stop() // again
		if err := s.stopper.Release(t.Context()); err == nil {
			t.Error("the release does not say that the gateway still admits nothing")
		}
		if _, err := s.ask(session(1), askNothing); err == nil {
			t.Error("the release has opened admission")
		}
		for range 2 {
			if err := s.stopper.Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.stopper.Release(t.Context()); err != nil {
			t.Error(err)
		}
		unique := s.mustAsk(session(1), askNothing)
		s.until("the model is asked", func() bool { return s.asked(unique) > 0 })
	})

	for name, message := range map[string]string{
		"a turn that waits for its model":   askHang,
		"a turn that waits for its command": askForeground,
		"a command that a turn left behind": askBackground,
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, start(t))
			unique := s.mustAsk(session(2), message)
			s.until("it is under way", func() bool { return s.asked(unique) > 0 && s.waitingForModel()+s.commands() > 0 })
			s.until("the observer sees it", func() bool {
				left := s.remaining()
				return slices.ContainsFunc(slices.Collect(maps.Keys(left)), func(name string) bool {
					return strings.HasPrefix(name, "session/"+session(2)) || strings.HasPrefix(name, "task/")
				})
			})
			s.stop()
			if len(s.watch.Objects()) == 0 {
				t.Error("the observer has forgotten what it saw")
			}
		})
	}

	t.Run("a message that waits behind a turn is not taken up", func(t *testing.T) {
		s := newSite(t, start(t))
		unique := s.mustAsk(session(3), askHang)
		s.until("it is under way", func() bool { return s.asked(unique) > 0 && s.waitingForModel() > 0 })
		behind := s.mustAsk(session(3), askNothing)
		s.stop()
		if err := s.stopper.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		next := s.mustAsk(session(4), askNothing)
		s.until("another is", func() bool { return s.asked(next) > 0 })
		if s.asked(behind) > 0 {
			t.Error("it was")
		}
	})

	t.Run("several sessions with all of it", func(t *testing.T) {
		s := newSite(t, start(t))
		for n, message := range []string{askHang, askForeground, askBackground, askHang, askForeground} {
			unique := s.mustAsk(session(10+n), message)
			s.until("it is under way", func() bool { return s.asked(unique) > 0 })
		}
		s.until("all are", func() bool { return s.waitingForModel() >= 2 && s.commands() >= 3 })
		s.stop()
	})

	t.Run("messages keep coming", func(t *testing.T) {
		s := newSite(t, start(t))
		sent := s.keepAsking(500 * time.Millisecond)
		s.stop()
		t.Logf("%d messages before admission was closed", sent())
		if left := s.remaining(); len(left) > 0 {
			t.Error(left)
		}
	})

	// More of them than can be aborted is nothing that a soft stop can do
	// something about. But it must not say that it has.
	t.Run("messages flood in", func(t *testing.T) {
		s := newSite(t, start(t))
		sent := s.keepAsking(20 * time.Millisecond)
		err := s.stopper.Do(t.Context())
		left, looked := s.watch.Remaining(t.Context())
		t.Logf("%v; open: %v; the observer: %v, %v; %d messages", err, open(err), left, looked, sent())
		if err == nil && (looked != nil || len(left) > 0) {
			t.Error("the stop says that it was done")
		}
		if err != nil && len(open(err)) == 0 {
			t.Error("the error does not say what is open")
		}
		s.until("it can be stopped when they cease", func() bool { return s.stopper.Do(t.Context()) == nil })
	})

	t.Run("somebody else lets the gateway drain", func(t *testing.T) {
		s := newSite(t, start(t))
		unique := s.mustAsk(session(30), askHang)
		s.until("it is under way", func() bool { return s.asked(unique) > 0 && s.waitingForModel() > 0 })
		var l lease
		if err := s.driver.call(t.Context(), "gateway.suspend.prepare", map[string]any{"requestId": "other", "drain": true}, &l); err != nil || l.Status != "draining" {
			t.Fatal(l, err)
		}
		err := s.stopper.Do(t.Context())
		if err == nil || open(err)[objGateway] == "" {
			t.Errorf("error %v, open: %v", err, open(err))
		}
		if left, err := s.watch.Remaining(t.Context()); err == nil {
			t.Errorf("the observer has looked: %v", left)
		}
		if err := s.stopper.Resume(t.Context()); err == nil {
			t.Error("another's suspension was ended")
		}
		if err := s.driver.resume(t.Context(), l.ID); err != nil {
			t.Fatal(err)
		}
		if s.waitingForModel() == 0 {
			t.Error("the turn has ended: nothing was shown")
		}
		s.stop()
	})

	t.Run("somebody else has it suspended", func(t *testing.T) {
		s := newSite(t, start(t))
		var l lease
		if err := s.driver.call(t.Context(), "gateway.suspend.prepare", map[string]any{"requestId": "other"}, &l); err != nil || l.Status != "ready" {
			t.Fatal(l, err)
		}
		if err := s.stopper.Do(t.Context()); err == nil || open(err)[objGateway] == "" {
			t.Errorf("error %v, open: %v", err, open(err))
		}
		if left := s.remaining(); len(left) > 0 {
			t.Error(left)
		}
		if err := s.driver.resume(t.Context(), l.ID); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("the token is wrong", func(t *testing.T) {
		cfg := start(t).config()
		const wrong = "this-is-not-the-token-but-nobody-must-see-it"
		cfg.Token = composio.NewSecret(wrong)
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		o, err := NewObserver(cfg)
		if err != nil {
			t.Fatal(err)
		}
		_, seen := o.Remaining(t.Context())
		for _, err := range []error{s.Arm(t.Context()), s.Do(t.Context()), seen} {
			if err == nil || strings.Contains(err.Error(), wrong) || !strings.Contains(err.Error(), "AUTH_TOKEN_MISMATCH") {
				t.Error(err)
			}
		}
		if out := fmt.Sprintf("%+v %#v", s, cfg); strings.Contains(out, wrong) {
			t.Error("the token is printed")
		}
	})
}
