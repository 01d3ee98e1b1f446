package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/composio/composiotest"
	"github.com/managemyclaw/hardshell/harden/container/docker"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/killswitch"
)

// A stage is a lab with an agent that streams, for one kill after another.
type stage struct {
	*runaway

	agent   string // the lab's program
	root    string // where the engine keeps its containers
	proxy   *engineProxy
	disk    *loftDisk
	id      string // of the container
	freezer freezer
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{runaway: newRunaway(t)}
	s.agent = must(lab.AgentBinary(t.Context()))
	s.root = s.docker(t, "info", "-f", "{{.DockerRootDir}}")
	s.proxy = newEngineProxy(t, s.Lab)
	s.disk = newLoftDisk(t)
	s.know(t)
	return s
}

// know learns which container it is.
func (s *stage) know(t *testing.T) {
	t.Helper()
	s.id = s.docker(t, "inspect", "-f", "{{.Id}}", runawayName)
	var err error
	if s.freezer, err = freezerOf(s.pid); err != nil {
		t.Fatal(err)
	}
}

// renew has a container as new, whatever has become of the one before.
func (s *stage) renew(t *testing.T) {
	t.Helper()
	s.freezer.thaw()
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if _, err = s.Lab.Docker(t.Context(), "rm", "-f", runawayName); err == nil || strings.Contains(err.Error(), "No such container") {
			err = nil
			break
		}
		s.freezer.thaw()
	}
	if err != nil {
		t.Fatal(err)
	}
	s.docker(t, "run", "-d", "--name", runawayName, "--user", "1000", "--restart", "always", "-p", "127.0.0.1:18789:18789", lab.AgentImage)
	s.run(t)
	s.know(t)
}

// A trial is one kill under faults.
type trial struct {
	*stage

	t         *testing.T
	office    *office
	gateway   *service
	front     *composioFront
	door      *gatewayDoor
	program   *program
	trail     *faultyTrail
	actuators map[string]*faultyActuator
	observers map[string]*faultyObserver // by target
	agentHTTP *http.Client
	undo      []func()
	first     []int         // its processes before the kill
	let       chan struct{} // closed in the end, so that what hangs can end
}

// lift takes the faults away, the last first.
func (r *trial) lift() {
	for len(r.undo) > 0 {
		last := len(r.undo) - 1
		r.undo[last]()
		r.undo = r.undo[:last]
	}
}

func (r *trial) onLift(f func()) { r.undo = append(r.undo, f) }

// try fires the switch under faults, and compares what it says with what is.
func (s *stage) try(t *testing.T, with setting) {
	r := &trial{stage: s, t: t, let: make(chan struct{}), actuators: make(map[string]*faultyActuator), observers: make(map[string]*faultyObserver)}
	end := func() {}
	t.Cleanup(func() { end() })
	t.Cleanup(func() { r.lift() })
	r.build(t)
	kill, sw := r.newSwitch(t)
	end = sync.OnceFunc(func() {
		close(r.let)
		if err := kill.lock.Release(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	if !with.cold {
		if _, err := sw.Arm(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if why := r.letsIn(t, 10*time.Second); why == "" {
		t.Fatal("the gateway does not let it in to begin with")
	}
	r.flowing(t)
	r.first = r.processes()
	for _, f := range with.set {
		f.strike(r)
	}

	fired := time.Now()
	receipt, err := sw.Fire(t.Context(), "a test")
	took := time.Since(fired)
	w := r.look(t, fired, took)
	r.lift()
	if policy := s.docker(t, "inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", runawayName); policy != "no" {
		w.on[restartsTarget] = "its restart policy is " + policy
	}
	with.judge(t, receipt, err, w)
	if why := r.letsIn(t, letsInTime); why != "" && receipt.Fence.Durable {
		t.Errorf("the fence is durable, and once all is well again, %s", why)
	}
	end()
	s.renew(t)
}

// build makes what there is beside the agent: Composio, a gateway, a state
// directory.
func (r *trial) build(t *testing.T) {
	t.Helper()
	r.office = newOffice(t)
	for _, id := range []string{"ca_drive", "ca_notes"} {
		r.office.composio.AddAccount(composiotest.Account{ID: id, UserID: "ann", Toolkit: "gmail"})
	}
	r.office.state = r.disk.dir(t)
	r.front = newComposioFront(t, r.office.composio)
	r.gateway = r.open(r.office)
	r.door = newGatewayDoor(t, r.gateway.url)
	r.agentHTTP = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
}

// newSwitch is the switch of the program, with its targets as they are, in which
// what the kernel does and what the observers see can be made to fail.
func (r *trial) newSwitch(t *testing.T) (*killSwitch, *killswitch.Switch) {
	t.Helper()
	engine, err := docker.Open(r.proxy.host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { engine.Close() })
	p := r.runaway.program(t)
	p.engine, p.stateDir, p.dataRoot = engine, r.office.state, r.root
	p.composioKey, p.composioURL = r.office.keyFile, r.front.url
	p.gatewayURL, p.probeToken = r.door.url, filepath.Join(r.office.dir, "probe")
	r.office.file(t, p.probeToken, r.office.probe.Reveal(), 0o600)
	r.program = p
	key, err := p.switchKey()
	if err != nil {
		t.Fatal(err)
	}
	kill := &killSwitch{dir: p.stateDir}
	targets := kill.containers(p, p.containers, p.engine)
	t.Cleanup(kill.close)
	for _, more := range []func() (*killswitch.Target, error){
		func() (*killswitch.Target, error) { return p.gatewayTarget("inbox", p.probeToken) },
		func() (*killswitch.Target, error) { return p.composioTarget(nil) },
	} {
		target, err := more()
		if err != nil {
			t.Fatal(err)
		}
		targets = append(targets, *target)
	}
	for i := range targets {
		r.handle(&targets[i])
	}
	r.trail = &faultyTrail{Recorder: p.trail(), let: r.let}
	sw, err := killswitch.New(killswitch.Config{
		Agent: "inbox", Dir: p.stateDir, Targets: targets, Trail: r.trail, Key: key, Logger: slog.New(slog.DiscardHandler),
		LookTimeout: faultLook, FenceTimeout: faultFence, TrailTimeout: faultTrail,
	})
	if err != nil {
		t.Fatal(err)
	}
	return kill, sw
}

// handle gives a target its times, and puts what can be made to fail around
// what it consists of.
func (r *trial) handle(target *killswitch.Target) {
	target.Timeout = faultTimeout
	for i := range target.Ladder {
		if i < len(target.Ladder)-1 {
			target.Ladder[i].Patience = faultPatience
		}
		for j, a := range target.Ladder[i].Actuators {
			f := &faultyActuator{Actuator: a, let: r.let}
			r.actuators[a.Name()] = f
			target.Ladder[i].Actuators[j] = f
		}
	}
	f := &faultyObserver{Observer: target.Observers[0], let: r.let}
	r.observers[target.Name] = f
	target.Observers[0] = f
}

// How what is around something fails.
const (
	fails = "fails"
	hangs = "hangs"
	lies  = "lies"
)

// A faulty is what makes something fail once it is told to: at the call, as the
// kernel refuses; for good, whatever the context says; or by saying that all is
// well without doing anything.
type faulty struct{ atomic.Value }

func (f *faulty) happens(let <-chan struct{}) (err error, happened bool) {
	switch f.Load() {
	case fails:
		return fmt.Errorf("it was told to fail: %w", syscall.EPERM), true
	case hangs:
		<-let
		return errors.New("it hung"), true
	case lies:
		return nil, true
	}
	return nil, false
}

type faultyActuator struct {
	killswitch.Actuator

	fault faulty
	let   <-chan struct{}
	after func() // of what it does
}

func (a *faultyActuator) Do(ctx context.Context) error {
	if err, happened := a.fault.happens(a.let); happened {
		return err
	}
	err := a.Actuator.Do(ctx)
	if a.after != nil {
		a.after()
	}
	return err
}

func (a *faultyActuator) Arm(ctx context.Context) error {
	if armer, ok := a.Actuator.(killswitch.Armer); ok {
		return armer.Arm(ctx)
	}
	return nil
}

type faultyObserver struct {
	killswitch.Observer

	fault faulty
	let   <-chan struct{}
}

func (o *faultyObserver) Remaining(ctx context.Context) (map[string]string, error) {
	if err, happened := o.fault.happens(o.let); happened {
		return nil, err
	}
	return o.Observer.Remaining(ctx)
}

func (o *faultyObserver) Arm(ctx context.Context) error {
	if armer, ok := o.Observer.(killswitch.Armer); ok {
		return armer.Arm(ctx)
	}
	return nil
}

func (o *faultyObserver) Objects() []string {
	if lister, ok := o.Observer.(killswitch.Lister); ok {
		return lister.Objects()
	}
	return nil
}

type faultyTrail struct {
	trail.Recorder

	fault faulty
	let   <-chan struct{}
}

func (r *faultyTrail) Record(ctx context.Context, e trail.Event) error {
	if err, happened := r.fault.happens(r.let); happened {
		return err
	}
	return r.Recorder.Record(ctx, e)
}

// A loftDisk is a small disk in a mount namespace of its own, where it can be
// filled, made read-only, and covered by one that never answers.
type loftDisk struct {
	process *exec.Cmd
	at      string // in that namespace
	root    string // of it, as seen from here
	dirs    int
}

func newLoftDisk(t *testing.T) *loftDisk {
	t.Helper()
	d := &loftDisk{at: t.TempDir()}
	d.process = exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", `mount -t tmpfs -o size=16m,mode=700 state "$0" && echo && exec sleep infinity`, d.at)
	said, err := d.process.StdoutPipe()
	if err == nil {
		err = d.process.Start()
	}
	if err == nil {
		_, err = said.Read(make([]byte, 1))
	}
	if err != nil {
		t.Fatalf("a disk of its own: %v", err)
	}
	t.Cleanup(func() { d.process.Process.Kill(); d.process.Wait() })
	d.root = filepath.Join(fmt.Sprintf("/proc/%d/root", d.process.Process.Pid), d.at)
	return d
}

// dir returns a new directory on the disk.
func (d *loftDisk) dir(t *testing.T) string {
	t.Helper()
	d.dirs++
	name := filepath.Join(d.root, fmt.Sprint("state", d.dirs))
	if err := os.Mkdir(name, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(name) })
	return name
}

// mount runs a command where the disk is.
func (d *loftDisk) command(t *testing.T, files []*os.File, args ...string) {
	t.Helper()
	cmd := exec.Command("nsenter", append([]string{fmt.Sprintf("--mount=/proc/%d/ns/mnt", d.process.Process.Pid), "--"}, args...)...)
	cmd.ExtraFiles = files
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%q: %v: %s", args, err, out)
	}
}

func listenLoopback(t *testing.T, h http.Handler) (url string, srv *http.Server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv = &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return "http://" + l.Addr().String(), srv
}
