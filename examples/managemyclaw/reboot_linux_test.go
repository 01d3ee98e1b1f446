package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
	"github.com/managemyclaw/hardshell/killswitch"
)

// cut loses power when the command kill is about to take a step, and starts the
// machine again, but not its engine. It returns the epoch.
func (v *victim) cut(t *testing.T, when func(step string) bool) (epoch uint64) {
	t.Helper()
	fenced := false
	var lost error
	o := step(t, v.command(v.args("kill", "--reason", "it deletes mail")...), v.state, func(s string) bool {
		if s == "sync STATE/fence" || s == "sync STATE/fence/"+victimAgent {
			fenced = true
			return true
		}
		return !fenced || !when(s)
	}, func(int) { lost = v.PowerOff(t.Context()) })
	if o.code != -1 || lost != nil {
		t.Fatalf("the kill ended by itself, with %d, or %v:\n%s%s", o.code, lost, o.stdout, o.stderr)
	}
	s, err := v.fence(t)
	if err != nil || !s.Engaged() {
		t.Fatalf("the fence: %+v, %v", s, err)
	}
	if err := v.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s.Epoch
}

// restless has the agent send whenever it runs, as one does that begins its work
// by itself, until the test ends.
func (v *victim) restless(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_, _ = lab.Ask(ctx, v.Host.Client(100*time.Millisecond), "127.0.0.1:18789", "stream-start", net4(lab.FarAddr4.String(), 443))
			pause(ctx, 5*time.Millisecond)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// A life is how long the agent's container ran.
type life struct{ began, ended time.Time }

// lives are those since a moment, as the engine tells.
func (v *victim) lives(t *testing.T, since time.Time) (all []life) {
	t.Helper()
	stamp := func(t time.Time) string { return strconv.FormatFloat(float64(t.UnixNano())/1e9, 'f', 9, 64) }
	out := v.docker(t, "events", "--since", stamp(since), "--until", stamp(time.Now()), "--filter", "container="+runawayName, "--filter", "event=start", "--filter", "event=die", "--format", "{{.Action}} {{.TimeNano}}")
	for line := range strings.Lines(out) {
		action, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		switch at := time.Unix(0, n); action {
		case "start":
			all = append(all, life{began: at})
		case "die":
			if len(all) > 0 {
				all[len(all)-1].ended = at
			}
		}
	}
	return all
}

// standby is the command of that name, as a unit starts it, until the test ends.
func (v *victim) standby(t *testing.T) *said {
	t.Helper()
	cmd := v.command(v.args("standby")...)
	out := newSaid()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		late := time.AfterFunc(10*time.Second, func() {
			t.Error("standby does not end")
			_ = cmd.Process.Signal(syscall.SIGQUIT) // and says where it is
		})
		_ = cmd.Wait()
		late.Stop()
		if t.Failed() {
			t.Logf("standby:\n%s", out.text())
		}
	})
	return out
}

// stopped waits until the agent is down, by the engine's own account, and cannot
// come back.
func (v *victim) stopped(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	for v.docker(t, "inspect", "-f", "{{.State.Running}} {{.HostConfig.RestartPolicy.Name}}", runawayName) != "false no" {
		if time.Since(began) > 90*time.Second {
			t.Fatal("it runs, or would")
		}
		time.Sleep(20 * time.Millisecond)
	}
	for r := v.receipt(t); r == nil || !r.Off(); r = v.receipt(t) {
		if time.Since(began) > 90*time.Second {
			t.Fatalf("not confirmed: %+v", r)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return time.Since(began)
}

// A blackout is a moment of a kill at which the power goes, and the order in
// which things start again.
type blackout struct {
	before string // a step after the fence was made durable; empty means the next
	engine bool   // starts before standby
	record string // of damages, done to the fence while nothing ran
}

// TestPowerLoss: the power goes while the agent is being stopped, before the
// engine knows that it is not to start it again. When the machine starts, so
// does the agent, and nobody but standby ends it: in the same epoch, and for
// good. Meanwhile nothing of ours acts for it or starts it.
//
// With HARDSHELL_KILLS=n all moments, orders and damages are tried, n times.
func TestPowerLoss(t *testing.T) {
	const update = "ask POST /containers/*/update"
	cases := []blackout{{before: update}, {engine: true, record: "random bytes"}}
	rounds := 1
	if n, err := strconv.Atoi(os.Getenv("HARDSHELL_KILLS")); err == nil {
		rounds = n
		cases = append(cases, blackout{}, blackout{before: update, engine: true})
		for _, record := range slices.Sorted(maps.Keys(damages)) {
			cases = append(cases, blackout{before: update, record: record, engine: len(record)%2 == 0})
		}
	}
	v := newVictim(t)
	for range rounds {
		for _, b := range cases {
			name := cmp.Or(strings.ReplaceAll(b.before, "/", " "), "at once") + map[bool]string{true: ", the engine first", false: ", standby first"}[b.engine]
			if b.record != "" {
				name += ", " + b.record
			}
			if !t.Run(name, func(t *testing.T) { v.survives(t, b) }) {
				return
			}
			v.again(t)
		}
	}
}

// survives has the agent's stop outlast a loss of power.
func (v *victim) survives(t *testing.T, b blackout) {
	epoch := v.cut(t, func(step string) bool { return strings.HasPrefix(step, b.before) })
	repair := func() {}
	if b.record != "" {
		repair, epoch = damages[b.record](t, v), 0
	}
	booted := time.Now()
	v.restless(t)
	before := v.sink.Bytes()
	var out *said
	if !b.engine {
		out = v.standby(t)
		out.await(t, victimAgent+" is stopped")
	}
	if err := v.StartDockerd(t.Context()); err != nil {
		t.Fatal(err)
	}
	acting := time.Now()
	if b.engine {
		for len(v.lives(t, booted)) == 0 {
			if time.Since(acting) > 30*time.Second {
				t.Fatal("the engine does not start it again: there is nothing to see here")
			}
			time.Sleep(10 * time.Millisecond)
		}
		v.refused(t)
		acting = time.Now()
		out = v.standby(t)
	}
	v.stopped(t)
	var ran time.Duration
	for _, l := range v.lives(t, booted) {
		if l.ended.IsZero() {
			t.Fatal("it runs")
		}
		t.Logf("it ran for %v, until %v after standby and the engine had been started", l.ended.Sub(l.began), l.ended.Sub(acting))
		ran += l.ended.Sub(l.began)
	}
	t.Logf("off for good after %v; %d bytes had got out", time.Since(acting), v.sink.Bytes()-before)
	if limit := 2 * time.Second; !b.engine && ran > limit {
		t.Errorf("with standby there before the engine it ran for %v, want at most %v", ran, limit)
	}
	repair()
	v.off(t, "after a loss of power", epoch)
	if t.Failed() {
		t.Logf("standby:\n%s", out.text())
	}
}

// refused asserts that nothing of ours acts for the agent, or starts it.
func (v *victim) refused(t *testing.T) {
	t.Helper()
	o := newOffice(t)
	o.state = v.state
	s := o.start(t)
	s.want(t, "GMAIL_FETCH_EMAILS", http.StatusForbidden)
	runProgram(t, v.args("fence")...).want(t, exitFail, "", "engaged")
	const same = "{{.Id}} {{.State.StartedAt}} {{.RestartCount}}"
	was := v.docker(t, "inspect", "-f", same, runawayName)
	if o := v.here(t, v.args("harden")...); o.code != exitFail || !strings.Contains(unwrapped(o.stderr), "the fence is engaged") {
		t.Errorf("harden: %d\n%s%s", o.code, o.stdout, o.stderr)
	}
	if now := v.docker(t, "inspect", "-f", same, runawayName); now != was {
		t.Errorf("harden has made it %s, from %s", now, was)
	}
	if code := s.stop(); code != exitPass {
		t.Errorf("the gateway ends with %d", code)
	}
}

// damages are ways in which the record of the fence can be unsound. Each returns
// what makes it possible again to write one.
var damages = map[string]func(*testing.T, *victim) (repair func()){
	"empty":        func(t *testing.T, v *victim) func() { return v.write(t, nil) },
	"random bytes": func(t *testing.T, v *victim) func() { return v.write(t, []byte("\x8f\x00\xff{]\n\x7fELF")) },
	"cut short": func(t *testing.T, v *victim) func() {
		data, err := os.ReadFile(v.record())
		if err != nil {
			t.Fatal(err)
		}
		return v.write(t, data[:len(data)/2])
	},
	"another agent's, who may run": func(t *testing.T, v *victim) func() { return v.write(t, v.releasedRecord(t, "other")) },
	"of a later version, released": func(t *testing.T, v *victim) func() {
		return v.write(t, bytes.Replace(v.releasedRecord(t, victimAgent), []byte("/v1 "), []byte("/v2 "), 1))
	},
	"a symbolic link to one that is released": func(t *testing.T, v *victim) func() {
		name := filepath.Join(t.TempDir(), victimAgent)
		if err := errors.Join(os.WriteFile(name, v.releasedRecord(t, victimAgent), 0o600), os.Remove(v.record()), os.Symlink(name, v.record())); err != nil {
			t.Fatal(err)
		}
		return func() {}
	},
	"a directory": func(t *testing.T, v *victim) func() {
		if err := errors.Join(os.Remove(v.record()), os.Mkdir(v.record(), 0o700)); err != nil {
			t.Fatal(err)
		}
		return func() { // by hand, and then it is fired once more
			if err := os.Remove(v.record()); err != nil {
				t.Error(err)
			}
			v.write(t, nil)
			recoveries["kill"](t, v)
		}
	},
}

func (v *victim) record() string { return filepath.Join(v.state, "fence", victimAgent) }

func (v *victim) write(t *testing.T, data []byte) func() {
	t.Helper()
	if err := os.WriteFile(v.record(), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return func() {}
}

// releasedRecord is a record that lets an agent run.
func (v *victim) releasedRecord(t *testing.T, agent string) []byte {
	t.Helper()
	dir := t.TempDir()
	s, err := killswitch.New(killswitch.Config{Agent: agent, Dir: dir, Trail: trail.Discard, Targets: []killswitch.Target{{
		Name: "nothing", Ladder: []killswitch.Rung{one(nothing{})}, Observers: []killswitch.Observer{gone{}},
	}}})
	if err == nil {
		_, err = s.Arm(t.Context()) // which prepares one
	}
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "fence", agent))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestDamagedRecord: whatever has become of the record, whoever asks is told that
// the agent is stopped.
func TestDamagedRecord(t *testing.T) {
	o := newOffice(t)
	v := &victim{}
	v.fresh(t)
	o.state = v.state
	s := o.start(t)
	p := &program{stateDir: v.state, agent: victimAgent}
	fence, err := p.fence()
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			if err := os.RemoveAll(v.record()); err != nil {
				t.Fatal(err)
			}
			s.want(t, "GMAIL_FETCH_EMAILS", http.StatusOK)
			if _, err := fence.Engage(t.Context(), victimAgent, "a test"); err != nil {
				t.Fatal(err)
			}
			s.want(t, "GMAIL_FETCH_EMAILS", http.StatusForbidden)
			damage(t, v)
			s.want(t, "GMAIL_FETCH_EMAILS", http.StatusForbidden)
			runProgram(t, v.args("fence")...).want(t, exitFail, "", "engaged")
			if err := p.mayStart(t.Context(), runawayName); !errors.Is(err, killswitch.ErrEngaged) {
				t.Errorf("harden may start it: %v", err)
			}
		})
	}
}

// Whoever may not read the record is told that the agent is stopped.
func TestUnreadableRecord(t *testing.T) {
	if os.Geteuid() != 0 {
		labtest.Skip(t, "not root: there is nobody else to be")
	}
	v := &victim{}
	v.fresh(t)
	fence, err := (&program{stateDir: v.state}).fence()
	if err == nil {
		err = os.WriteFile(v.record(), v.releasedRecord(t, victimAgent), 0o600)
	}
	for dir := filepath.Dir(v.record()); err == nil && dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		err = os.Chmod(dir, 0o755) //nolint:gosec // so that only the record is kept from others
	}
	if err == nil {
		err = fence.Fenced(t.Context(), victimAgent)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", v.args("fence")...)
	cmd.Env = []string{mainVar + "=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != exitFail || !strings.Contains(string(out), "it cannot be read, and so it holds") {
		t.Errorf("%v: %s", err, out)
	}
}
