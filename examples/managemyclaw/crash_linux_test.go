package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/killswitch"
)

// A victim is a runaway agent, and what its operator has.
type victim struct {
	*runaway

	state     string // the directory
	container string // the id
	secret    string // the file with the second secret
}

const victimAgent = "inbox"

func newVictim(t testing.TB, args ...string) *victim {
	t.Helper()
	v := &victim{runaway: newRunaway(t, args...)}
	v.container = v.docker(t, "inspect", "-f", "{{.Id}}", runawayName)
	v.fresh(t)
	t.Cleanup(func() {
		if t.Failed() {
			state, err := v.Lab.Docker(context.WithoutCancel(t.Context()), "inspect", "-f", "{{json .State}} {{json .HostConfig.RestartPolicy}}", runawayName)
			events, _ := v.Lab.Docker(context.WithoutCancel(t.Context()), "events", "--since", "1m", "--until", "0s", "--format", "{{.TimeNano}} {{.Type}} {{.Action}}")
			t.Logf("the container: %s, %v\n%s", state, err, events)
		}
	})
	return v
}

// fresh gives it a state directory in which nothing was ever stopped.
func (v *victim) fresh(t testing.TB) {
	t.Helper()
	dir := t.TempDir()
	v.state, v.secret = filepath.Join(dir, "state"), filepath.Join(dir, "second-secret")
	const secret = "the-second-secret"
	if err := os.WriteFile(v.secret, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(v.state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := killswitch.SetResetSecret(v.state, victimAgent, secret); err != nil {
		t.Fatal(err)
	}
}

func (v *victim) args(command string, more ...string) []string {
	return append([]string{command, "--container", runawayName, "--agent", victimAgent, "--state-dir", v.state}, more...)
}

func (v *victim) fence(t testing.TB) (killswitch.FenceState, error) {
	t.Helper()
	f, err := killswitch.OpenFence(filepath.Join(v.state, "fence"))
	if err != nil {
		t.Fatal(err)
	}
	return f.State(victimAgent)
}

func (v *victim) receipt(t testing.TB) *killswitch.Receipt {
	t.Helper()
	r, err := killswitch.LastReceipt(v.state, victimAgent, killswitch.PublicKey{})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// phase is how far a kill has come, by what is on disk.
func (v *victim) phase(t testing.TB, before uint64) string {
	t.Helper()
	s, err := v.fence(t)
	if err != nil {
		return "the fence is damaged"
	}
	if s.Released {
		return "no fence"
	}
	r := v.receipt(t)
	if r == nil || r.Epoch <= before {
		return "the fence alone"
	}
	if r.Off() {
		return "a whole receipt"
	}
	confirmed := 0
	for _, res := range r.Targets {
		if res.State == killswitch.Confirmed {
			confirmed++
		}
	}
	return fmt.Sprintf("%d of %d confirmed", confirmed, len(r.Targets))
}

// untouched asserts that nothing was done to the agent: neither its process nor
// its network, nor what restarts it.
func (v *victim) untouched(t *testing.T, when string) {
	t.Helper()
	if !v.alive() {
		t.Errorf("%s: its process is gone", when)
	}
	v.flowing(t)
	if got := v.docker(t, "inspect", "-f", "{{.State.Status}} {{.State.Pid}} {{.HostConfig.RestartPolicy.Name}}", runawayName); got != fmt.Sprintf("running %d always", v.pid) {
		t.Errorf("%s: the container is %s", when, got)
	}
	if o := runProgram(t, v.args("fence")...); o.code != exitPass {
		t.Errorf("%s: it may not be started: %s", when, o.stderr)
	}
}

// off asserts that the agent is stopped: for those who look from outside, and by
// a receipt that all can verify.
func (v *victim) off(t *testing.T, when string, epoch uint64) {
	t.Helper()
	v.silent(t)
	if left := v.processes(t, v.container); len(left) > 0 {
		t.Errorf("%s: processes %v are alive", when, left)
	}
	if got := v.docker(t, "inspect", "-f", "{{.State.Running}} {{.HostConfig.RestartPolicy.Name}}", runawayName); got != "false no" {
		t.Errorf("%s: the container is %s", when, got)
	}
	s, err := v.fence(t)
	if err != nil || !s.Engaged() || s.Epoch != cmp.Or(epoch, s.Epoch) {
		t.Errorf("%s: the fence is %+v, %v, want epoch %d", when, s, err, epoch)
	}
	text, err := os.ReadFile(filepath.Join(v.state, "switch.pub"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := killswitch.ParsePublicKey(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	r, err := killswitch.LastReceipt(v.state, victimAgent, key)
	if err != nil || r.Epoch != s.Epoch || !r.Off() || !r.Fence.Durable || !r.Trail.Recorded {
		t.Errorf("%s: the receipt: %+v, %v", when, r, err)
	}
	if o := runProgram(t, v.args("fence")...); o.code != exitFail || !strings.Contains(o.stderr, "engaged") {
		t.Errorf("%s: it may be started: %d %s", when, o.code, o.stderr)
	}
}

// again resets the agent as its operator would, and has it run and send.
func (v *victim) again(t *testing.T) {
	t.Helper()
	s, err := v.fence(t)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		o := v.here(t, v.args("reset", "--epoch", strconv.FormatUint(s.Epoch, 10), "--secret-file", v.secret)...)
		if strings.Contains(o.stderr, "nobody can tell") && time.Now().Before(deadline) {
			continue // the machine is too slow for those who look
		}
		if o.want(t, exitPass, "Nothing was started", ""); t.Failed() {
			t.FailNow()
		}
		break
	}
	v.docker(t, "update", "--restart", "always", runawayName)
	if v.docker(t, "inspect", "-f", "{{len .NetworkSettings.Networks}}", runawayName) == "0" { // a slow machine had the engine disconnect it
		v.docker(t, "network", "connect", "bridge", runawayName)
	}
	v.docker(t, "start", runawayName)
	v.run(t)
}

// Ways in which a kill that was cut off is completed.
var recoveries = map[string]func(*testing.T, *victim){
	"kill": func(t *testing.T, v *victim) {
		if o := v.here(t, v.args("kill", "--reason", "once more")...); !strings.Contains(o.stdout, "▸ Off") {
			t.Errorf("%d:\n%s%s", o.code, o.stdout, o.stderr)
		}
	},
	"standby --once": func(t *testing.T, v *victim) {
		if o := v.here(t, v.args("standby", "--once")...); !strings.Contains(o.stdout, "is stopped, and is kept down") {
			t.Errorf("%d:\n%s%s", o.code, o.stdout, o.stderr)
		}
	},
	"standby": func(t *testing.T, v *victim) {
		cmd := v.command(v.args("standby")...)
		out := newSaid()
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		out.await(t, "is stopped, and is kept down")
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, out.text())
		}
	},
}

// TestKill9 kills the command kill at its steps: before whatever others could
// notice, in whichever thread. Either the agent is stopped, and whoever comes
// next completes the kill in the same epoch; or nothing has happened to it, and
// nobody was told so.
//
// With HARDSHELL_KILLS=n it is killed n times, at steps from the first to the last
// in turn, of which there are about 150.
func TestKill9(t *testing.T) {
	v := newVictim(t)
	kill := v.args
	ways := slices.Sorted(maps.Keys(recoveries))
	phases, seen := make(map[string]int), make(map[string]int)
	rounds := 0

	// one kills at the first step for which end is true, and reports whether
	// there was one.
	one := func(name string, end func(n int, step string) bool) bool {
		t.Helper()
		old, err := v.fence(t)
		if err != nil {
			t.Fatal(err)
		}
		n, at := 0, ""
		o := step(t, v.command(kill("kill", "--reason", "it deletes mail")...), v.state, func(s string) bool {
			if n++; end(n, s) {
				at = s
			}
			return at == ""
		}, nil)
		when := fmt.Sprintf("%s, before step %d, %s", name, n, at)
		if at == "" {
			if o.code < 0 || !strings.Contains(o.stdout, "▸ Off") {
				t.Errorf("%s: %d:\n%s%s", name, o.code, o.stdout, o.stderr)
			}
			v.off(t, name+", not killed", old.Epoch+1)
			v.again(t)
			return false
		}
		phase := v.phase(t, old.Epoch)
		phases[phase]++
		seen[at]++
		if o.code != -1 || o.stdout != "" {
			t.Errorf("%s: it says %d, %q", when, o.code, o.stdout)
		}
		var epoch uint64 // not known if the record is damaged
		if phase == "no fence" {
			v.untouched(t, when)
		} else if s, err := v.fence(t); err == nil {
			if epoch = s.Epoch; epoch != old.Epoch+1 || s.Reason != "it deletes mail" {
				t.Errorf("%s: it is stopped in epoch %d, after %d, because %s", when, epoch, old.Epoch, s.Reason)
			}
		}
		way := ways[rounds%len(ways)]
		if phase == "no fence" {
			way = "kill" // there is nothing to complete
		}
		rounds++
		recoveries[way](t, v)
		v.off(t, fmt.Sprintf("%s (%s), then %s", when, phase, way), epoch)
		if t.Failed() {
			t.Fatalf("%s; stderr: %s", when, o.stderr)
		}
		v.again(t)
		return true
	}
	first := func(what string) func(int, string) bool {
		return func(_ int, step string) bool { return strings.HasPrefix(step, what) }
	}
	all, err := strconv.Atoi(os.Getenv("HARDSHELL_KILLS"))
	if err != nil {
		for _, what := range []struct {
			name string
			end  func(int, string) bool
		}{
			{"never stopped, the record not in place", first("rename STATE/fence/")},
			{"stopped before, the record not written", first("write STATE/fence/")},
			{"the record not synced", first("sync STATE/fence/")},
			{"not frozen", first("write /sys/fs/cgroup/")},
			{"restart policies about to be kept", first("rename STATE/restart-policies.json")},
		} {
			if strings.HasPrefix(what.name, "restart policies") {
				v.fresh(t)
			}
			if !one(what.name, what.end) {
				t.Errorf("%s: there is no such step", what.name)
			}
		}
	}
	if all > 0 {
		v.fresh(t)
		steps := 0
		if one("the steps are counted", func(n int, _ string) bool { steps = n; return false }) {
			t.Fatal("it was killed")
		}
		for i := range all {
			if i%4 != 3 {
				v.fresh(t) // and else one in which the agent was stopped before
			}
			at := 1 + i*steps/all%steps
			one(fmt.Sprintf("%d of %d", i+1, all), func(n int, _ string) bool { return n == at })
		}
	}
	t.Logf("killed %d times; what was on disk: %v; before: %v", rounds, phases, seen)
	for _, phase := range []string{"no fence", "the fence alone"} {
		if phases[phase] == 0 && all == 0 {
			t.Errorf("never killed when there was %s", phase)
		}
	}
}

// Whoever makes the key may be cut off before others can verify by it: the next
// makes that good.
func TestKeyHalfMade(t *testing.T) {
	p := &program{stateDir: t.TempDir()}
	made, err := p.switchKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(p.switchPublic()); err != nil {
		t.Fatal(err)
	}
	again, err := p.switchKey()
	if err != nil || again.Public() != made.Public() {
		t.Fatalf("%v, was %v, %v", again.Public(), made.Public(), err)
	}
	if text, err := os.ReadFile(p.switchPublic()); err != nil || strings.TrimSpace(string(text)) != made.Public().String() {
		t.Errorf("%s: %v, want %v", text, err, made.Public())
	}
	if all, err := filepath.Glob(filepath.Join(p.stateDir, "switch.*")); err != nil || len(all) != 2 {
		t.Errorf("there are %v, %v", all, err)
	}
}
