package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/composio/composiotest"
	"github.com/managemyclaw/hardshell/harden/container/docker"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
	"github.com/managemyclaw/hardshell/killswitch"
)

// runaway is an agent in a lab that talks to the internet and does not stop.
type runaway struct {
	*lab.Lab

	sink *lab.Sink
	pid  int
}

const runawayName = "runaway"

func newRunaway(t testing.TB, args ...string) *runaway {
	t.Helper()
	r := &runaway{Lab: labtest.Start(t, lab.Config{})}
	var err error
	if r.sink, err = r.Internet.Sink(t.Context(), "tcp", net4(lab.FarAddr4.String(), 443)); err != nil {
		t.Fatal(err)
	}
	r.docker(t, slices.Concat([]string{"run", "-d", "--name", runawayName, "--user", "1000", "--restart", "always", "-p", "127.0.0.1:18789:18789"}, args, []string{lab.AgentImage})...)
	r.run(t)
	return r
}

func net4(addr string, port int) string { return addr + ":" + strconv.Itoa(port) }

func (r *runaway) docker(t testing.TB, args ...string) string {
	t.Helper()
	out, err := r.Lab.Docker(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// run has the agent begin to send.
func (r *runaway) run(t testing.TB) {
	t.Helper()
	client := r.Host.Client(time.Second)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		a, err := lab.Ask(t.Context(), client, "127.0.0.1:18789", "stream-start", net4(lab.FarAddr4.String(), 443))
		if err == nil && a.OK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the agent does not stream: %v %v", a, err)
		}
	}
	r.flowing(t)
	pid, err := strconv.Atoi(r.docker(t, "inspect", "-f", "{{.State.Pid}}", runawayName))
	if err != nil {
		t.Fatal(err)
	}
	r.pid = pid
}

func (r *runaway) flowing(t testing.TB) {
	t.Helper()
	for want, deadline := r.sink.Bytes()+64*20, time.Now().Add(10*time.Second); r.sink.Bytes() < want; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing arrives")
		}
	}
}

// silent waits until nothing more has arrived for a while, and returns when the
// last byte did.
func (r *runaway) silent(t testing.TB) time.Time {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Since(r.sink.Last()) < 100*time.Millisecond; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it still streams")
		}
	}
	return r.sink.Last()
}

// alive reports what the kernel has of the first process.
func (r *runaway) alive() bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.pid))
	return err == nil && !strings.Contains(string(text), ") Z ")
}

// program returns the reference program as it would be on the lab's host.
func (r *runaway) program(t testing.TB) *program {
	t.Helper()
	engine, err := docker.Open(r.DockerHost())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { engine.Close() })
	return &program{
		stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, getenv: func(string) string { return "" },
		engine: engine, containers: []string{runawayName}, stateDir: filepath.Join(t.TempDir(), "state"), netns: r.Host.NetNS(), timeout: time.Minute, format: "text",
	}
}

func (p *program) newSwitch(t testing.TB) *killSwitch {
	t.Helper()
	s, err := p.killSwitch(runawayName, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

func target(t testing.TB, r *killswitch.Receipt, name string) killswitch.TargetResult {
	t.Helper()
	for _, res := range r.Targets {
		if res.Name == name {
			return res
		}
	}
	t.Fatalf("no target %s: %v", name, r)
	return killswitch.TargetResult{}
}

// While the engine hangs, Composio hangs and the trail hangs, what is in the
// kernel is stopped and confirmed; and of what could not be stopped nothing is
// called confirmed.
func TestKillWhileTheRestHangs(t *testing.T) {
	r := newRunaway(t)
	c := composiotest.New(composiotest.Config{Fault: func(*http.Request) composiotest.Fault { return composiotest.Fault{Hang: true} }})
	c.AddAccount(composiotest.Account{ID: "ca_mail", UserID: "ann"})
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })

	p := r.program(t)
	p.dataRoot = p.engineRoot()
	s := &killSwitch{}
	targets := s.containers(p, p.containers, p.engine)
	t.Cleanup(s.close)
	p.composioURL, p.composioKey = c.URL, filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(p.composioKey, []byte(composiotest.ProjectKey), 0o600); err != nil {
		t.Fatal(err)
	}
	revoke, err := p.composioTarget(nil)
	if err != nil {
		t.Fatal(err)
	}
	targets = append(targets, *revoke)
	for i := range targets {
		targets[i].Timeout = 5 * time.Second
	}
	sw, err := killswitch.New(killswitch.Config{Agent: runawayName, Dir: p.stateDir, Targets: targets, Trail: hungTrail{}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	arm, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := s.tracker.Arm(arm); err != nil {
		t.Fatal(err)
	}
	if err := s.lock.Arm(arm); err != nil {
		t.Logf("armed, but for: %v", err)
	}
	engine := r.DockerdPID()
	if err := syscall.Kill(engine, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(engine, syscall.SIGCONT)

	fired := time.Now()
	receipt, err := sw.Fire(t.Context(), "a test")
	if err == nil {
		t.Error("all is well, it says")
	}
	t.Logf("last byte after %v", r.silent(t).Sub(fired.Round(0)))
	for _, name := range []string{"egress", "frozen", "processes"} {
		res := target(t, receipt, name)
		t.Logf("%s: %v after %v", name, res.State, res.ConfirmedAfter)
		if res.State != killswitch.Confirmed {
			t.Errorf("%s: %+v", name, res)
		}
	}
	for _, name := range []string{"restarts", "composio"} {
		if res := target(t, receipt, name); res.State == killswitch.Confirmed {
			t.Errorf("%s is confirmed, and cannot be: %+v", name, res)
		}
	}
	if receipt.Off() || receipt.Trail.Recorded || !receipt.Fence.Durable {
		t.Errorf("off %v, recorded %v, durable %v", receipt.Off(), receipt.Trail.Recorded, receipt.Fence.Durable)
	}
	if r.alive() {
		t.Error("its process is alive")
	}
}

// hungTrail never answers.
type hungTrail struct{}

func (hungTrail) Record(ctx context.Context, _ trail.Event) error {
	<-ctx.Done()
	return ctx.Err()
}

// A fence that anybody engages, as the gateway's breaker does, has standby stop
// the agent, and keep it down whoever starts it; after a reset it may run, and
// has its network back.
func TestStandby(t *testing.T) {
	r := newRunaway(t)
	p := r.program(t)
	s := p.newSwitch(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.stand(ctx, slog.New(slog.DiscardHandler))
	}()
	t.Cleanup(func() { cancel(); <-ended })
	fence, err := p.fence()
	if err != nil {
		t.Fatal(err)
	}
	r.flowing(t)
	epoch, err := fence.Engage(t.Context(), runawayName, "the breaker tripped")
	if err != nil {
		t.Fatal(err)
	}
	down := func() {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); r.docker(t, "inspect", "-f", "{{.State.Running}}", runawayName) != "false"; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("it runs")
			}
		}
	}
	down()
	r.silent(t)
	if r.alive() {
		t.Error("its process is alive")
	}
	r.docker(t, "start", runawayName)
	down()

	const secret = "a second secret"
	if err := killswitch.SetResetSecret(p.stateDir, runawayName, secret); err != nil {
		t.Fatal(err)
	}
	if err := s.Reset(t.Context(), epoch, "another"); err == nil {
		t.Error("reset with a wrong secret")
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		err := s.Reset(t.Context(), epoch, secret)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if r.docker(t, "inspect", "-f", "{{.State.Running}}", runawayName) != "false" {
		t.Error("a reset has started it")
	}
	// On a machine that was busy the engine may have been asked to cut it off too.
	former, err := s.keep.Former()
	if err != nil || !strings.Contains(former["container/"+runawayName], "docker update --restart=always "+runawayName) {
		t.Errorf("%v, %v", former, err)
	}
	if connect := "docker network connect bridge " + runawayName; strings.Contains(former["container/"+runawayName], connect) {
		r.docker(t, "network", "connect", "bridge", runawayName)
	}
	r.docker(t, "start", runawayName)
	r.run(t)
}

// To revoke a thousand accounts delays nothing else.
func TestKillThousandAccounts(t *testing.T) {
	r := newRunaway(t)
	const accounts = 1000
	c := composiotest.New(composiotest.Config{Latency: 5 * time.Millisecond})
	for i := range accounts {
		c.AddAccount(composiotest.Account{ID: fmt.Sprintf("ca_%d", i), UserID: "ann"})
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	p := r.program(t)
	p.composioURL, p.composioKey = c.URL, filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(p.composioKey, []byte(composiotest.ProjectKey), 0o600); err != nil {
		t.Fatal(err)
	}
	s := p.newSwitch(t)
	if _, err := s.Arm(t.Context()); err != nil {
		t.Fatal(err)
	}
	fired := time.Now()
	receipt, err := s.Fire(t.Context(), "a test")
	if err != nil {
		t.Error(err)
	}
	t.Logf("last byte after %v", r.silent(t).Sub(fired.Round(0)))
	revoked := target(t, receipt, "composio")
	for _, res := range receipt.Targets {
		t.Logf("%s: %v after %v", res.Name, res.State, res.ConfirmedAfter)
		if res.State != killswitch.Confirmed {
			t.Errorf("%+v", res)
		}
		if res.Name != "composio" && res.ConfirmedAfter > revoked.ConfirmedAfter {
			t.Errorf("%s was confirmed after all accounts were", res.Name)
		}
	}
	for _, a := range c.Accounts() {
		if len(a.Live) > 0 {
			t.Fatalf("account %s: %v", a.ID, a.Live)
		}
	}
	if r.alive() {
		t.Error("its process is alive")
	}
}

// BenchmarkKill measures from the call to the last byte that arrives from an
// established stream of 64 bytes a millisecond, and to what the switch's
// observers confirm, beside what people use instead. Run it with -benchtime
// 200x. What is between the rounds is not measured.
func BenchmarkKill(b *testing.B) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	collectLate()
	r := newRunaway(b)
	docker := func(args ...string) func() { return func() { b.Helper(); r.docker(b, args...) } }
	host := func(args ...string) func() {
		return func() {
			if out, err := r.Host.Command(b.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
				b.Fatalf("%v: %v: %s", args, err, out)
			}
		}
	}
	b.Run("switch", func(b *testing.B) { r.fires(b, (*program).newSwitch, nil) })
	b.Run("switch-while-the-rest-hangs", r.firesAlone)
	for _, way := range []struct {
		name       string
		fire, undo func()
	}{
		{"iptables-I-DOCKER-USER", host("iptables", "-w", "-I", "DOCKER-USER", "-j", "DROP"), host("iptables", "-w", "-D", "DOCKER-USER", "-j", "DROP")},
		{"docker-pause", docker("pause", runawayName), docker("unpause", runawayName)},
		{"docker-kill", docker("kill", runawayName), docker("start", runawayName)},
		{"docker-network-disconnect", docker("network", "disconnect", "-f", "bridge", runawayName), docker("network", "connect", "bridge", runawayName)},
	} {
		b.Run(way.name, func(b *testing.B) {
			var last []time.Duration
			for range b.N {
				b.StopTimer()
				r.run(b)
				start := time.Now()
				b.StartTimer()
				way.fire()
				b.StopTimer()
				last = append(last, max(0, r.silent(b).Sub(start.Round(0))))
				way.undo()
				b.StartTimer()
			}
			percentiles(b, "last-byte", last)
		})
	}
}

// firesAlone measures the switch while Composio and the engine hang.
func (r *runaway) firesAlone(b *testing.B) {
	var hung atomic.Bool
	c := composiotest.New(composiotest.Config{Fault: func(*http.Request) composiotest.Fault { return composiotest.Fault{Hang: hung.Load()} }})
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	key := filepath.Join(b.TempDir(), "key")
	if err := os.WriteFile(key, []byte(composiotest.ProjectKey), 0o600); err != nil {
		b.Fatal(err)
	}
	signal := func(s syscall.Signal) {
		if err := syscall.Kill(r.DockerdPID(), s); err != nil {
			b.Error(err)
		}
	}
	c.AddAccount(composiotest.Account{ID: "ca_mail", UserID: "ann"})
	build := func(p *program, t testing.TB) *killSwitch {
		p.composioURL, p.composioKey = c.URL, key
		s := &killSwitch{}
		targets := s.containers(p, p.containers, p.engine)
		revoke, err := p.composioTarget(nil)
		if err != nil {
			b.Fatal(err)
		}
		targets = append(targets, *revoke)
		for i := range targets {
			targets[i].Timeout = 3 * time.Second // what hangs is not waited for here
		}
		s.Switch, err = killswitch.New(killswitch.Config{Agent: runawayName, Dir: p.stateDir, Targets: targets, Trail: p.trail(), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		t.Cleanup(s.close)
		return s
	}
	r.fires(b, build, func(hang bool) {
		hung.Store(hang)
		if hang {
			signal(syscall.SIGSTOP)
		} else {
			signal(syscall.SIGCONT)
		}
	})
}

// fires measures a switch, while things hang, if they do: then only what is in
// the kernel is confirmed.
func (r *runaway) fires(b *testing.B, build func(*program, testing.TB) *killSwitch, hang func(bool)) {
	all := map[string][]time.Duration{}
	for range b.N {
		b.StopTimer()
		s := build(r.program(b), b)
		r.run(b)
		if _, err := s.Arm(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := prefer(); err != nil {
			b.Fatal(err)
		}
		local := []string{egressTarget, frozenTarget, processesTarget}
		if hang != nil {
			hang(true)
		} else {
			local = append(local, restartsTarget)
		}
		start := time.Now()
		b.StartTimer()
		receipt, err := s.Fire(b.Context(), "a benchmark")
		b.StopTimer()
		if hang != nil {
			hang(false)
		} else if err != nil {
			b.Fatal(err, receipt)
		}
		all["last-byte"] = append(all["last-byte"], max(0, r.silent(b).Sub(start.Round(0))))
		all["fence"] = append(all["fence"], receipt.Fence.EngagedAfter)
		for _, t := range receipt.Targets {
			if slices.Contains(local, t.Name) {
				if t.State != killswitch.Confirmed {
					b.Fatalf("%+v", t)
				}
				all[t.Name] = append(all[t.Name], t.ConfirmedAfter)
			}
		}
		if err := s.lock.Release(b.Context()); err != nil {
			b.Fatal(err)
		}
		s.close()
		r.docker(b, "stop", "-t", "0", runawayName) // an engine that hung may be about to start it, later each time
		r.docker(b, "update", "--restart", "always", runawayName)
		r.docker(b, "start", runawayName)
		b.StartTimer()
	}
	for name, times := range all {
		percentiles(b, name, times)
	}
}

func percentiles(b *testing.B, name string, times []time.Duration) {
	slices.Sort(times)
	at := func(q float64) float64 { return float64(times[int(q*float64(len(times)-1))].Microseconds()) / 1000 }
	b.ReportMetric(at(0.5), name+"-p50-ms")
	b.ReportMetric(at(0.99), name+"-p99-ms")
}
