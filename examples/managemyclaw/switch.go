package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/gateway"
	"github.com/managemyclaw/hardshell/composio/gateway/halted"
	"github.com/managemyclaw/hardshell/firewall/egress"
	"github.com/managemyclaw/hardshell/harden/access"
	"github.com/managemyclaw/hardshell/harden/container/halt"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/harden/openclaw/softstop"
	"github.com/managemyclaw/hardshell/killswitch"
)

// revokeTime is for a project with thousands of accounts: 2,000 requests a
// minute are allowed, and an account takes four.
const revokeTime = 15 * time.Minute

// switchFlags adds the flags that say what there is to stop.
func (p *program) switchFlags(fs *flag.FlagSet) {
	p.accessFlags(fs)
	fs.StringVar(&p.openclawURL, "openclaw-url", "", "`URL` of OpenClaw's own gateway, such as ws://127.0.0.1:18789, which is asked to end what it\ndoes, and not waited for")
	fs.StringVar(&p.openclawToken, "openclaw-token-file", "", "`FILE` with the token of OpenClaw's own gateway")
	fs.StringVar(&p.dataRoot, "data-root", "", "`DIR` where the engine keeps its containers, if it cannot say")
}

// agentName returns which agent is meant.
func (p *program) agentName() (string, error) {
	if p.agent != "" {
		return p.agent, nil
	}
	if p.policy != "" {
		policy, err := gateway.ReadPolicy(p.policy)
		if err != nil {
			return "", usageError(err.Error())
		}
		if names := slices.Sorted(maps.Keys(policy.Agents)); len(names) > 1 {
			return "", usageError("the policy has several agents: say which with --agent " + strings.Join(names, ", or "))
		} else if len(names) == 1 {
			return names[0], nil
		}
	}
	if len(p.containers) == 1 {
		return p.containers[0], nil
	}
	return "", usageError("say which agent is meant, with --agent, or with --policy or --container if there is but one")
}

// switches are the kill switches to look at: the agent's, if it ever was armed.
func (p *program) switches() ([]access.KillSwitch, error) {
	name := p.switchPublic()
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, usageError(err.Error())
	}
	key, err := killswitch.ParsePublicKey(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, usageError(fmt.Sprintf("%s: %v", name, err))
	}
	agent, err := p.agentName()
	if err != nil {
		return nil, nil //nolint:nilerr // nobody can say whose switch it would be
	}
	return []access.KillSwitch{{Dir: filepath.ToSlash(p.stateDir), Agent: agent, Key: key, Owner: uint32(max(0, os.Geteuid()))}}, nil
}

// switchPublic is the file with what verifies the switch; see --pins.
func (p *program) switchPublic() string {
	return filepath.Join(cmp.Or(p.pins, p.stateDir), "switch.pub")
}

// A killSwitch is the switch of an agent, and what it acts through.
type killSwitch struct {
	*killswitch.Switch

	dir string

	tracker *halt.Tracker
	written *halt.Tracker // of the lock, asks no engine
	lock    *egress.Lock
	keep    *halt.KeepDown

	// What the observers have of their own, and which asks no engine.
	witness *halt.Tracker
	prober  *egress.Prober
}

// killSwitch returns the switch that the flags describe. What cannot be had for
// it is said, and stops nothing: the rest is stopped without.
func (p *program) killSwitch(agent string, log *slog.Logger) (*killSwitch, error) {
	s := &killSwitch{dir: p.stateDir}
	key, err := p.switchKey()
	if err != nil {
		log.Warn("receipts are not signed", "err", err)
	}
	targets := s.containers(p, p.containers, p.engine)
	s.lock.Label = lockLabel("agent", agent)
	soft, err := p.softStop()
	if err != nil {
		return nil, err
	}
	if soft != nil {
		for i := range targets {
			if targets[i].Name == processesTarget {
				first := killswitch.Rung{Actuators: []killswitch.Actuator{soft}, Patience: killswitch.NoWait}
				targets[i].Ladder = append([]killswitch.Rung{first}, targets[i].Ladder...)
			}
		}
	}
	if t, err := p.gatewayTarget(agent, p.probeToken); err != nil {
		log.Warn("nobody will confirm that the gateway denies", "err", err)
	} else if t != nil {
		targets = append(targets, *t)
	}
	if t, err := p.composioTarget(nil); err != nil {
		log.Warn("nothing will be revoked at Composio", "err", err)
	} else if t != nil {
		targets = append(targets, *t)
	}
	s.Switch, err = killswitch.New(killswitch.Config{Agent: agent, Dir: p.stateDir, Targets: targets, Trail: p.trail(), Key: key, Logger: log})
	if err != nil {
		return nil, usageError(err.Error())
	}
	return s, nil
}

// lockLabel tells the lock of an agent, or of a canary, from others' on the
// machine. It is the same in each process.
func lockLabel(kind, name string) string {
	sum := sha256.Sum256([]byte(kind + "\x00" + name))
	return hex.EncodeToString(sum[:4])
}

// containers are the targets on this machine. Each is stopped by the kernel,
// and by the engine where that does not do.
func (s *killSwitch) containers(p *program, names []string, engine halt.Engine) []killswitch.Target {
	agent := halt.Agent{Names: names}
	root := p.engineRoot()
	s.tracker = &halt.Tracker{Agent: agent, Engine: engine, DataRoot: root}
	s.lock = &egress.Lock{Source: workloads(s.tracker, sourceTime), NetNS: p.netns}
	s.written = &halt.Tracker{Agent: agent, DataRoot: root}
	if !engine.Remote() {
		// It is busy with what others ask of it just when the lock looks for
		// what is new, and has written that down.
		s.lock.Quick = workloads(s.written, sourceTime)
	}
	s.witness = &halt.Tracker{Agent: agent, DataRoot: root}
	s.prober = &egress.Prober{Source: workloads(s.witness, sourceTime), NetNS: p.netns}
	if self, err := os.Executable(); err == nil {
		s.prober.Helper = []string{self, helperCommand}
	}
	rung := func(step halt.Step) killswitch.Rung { return one(&halt.Rung{Tracker: s.tracker, Step: step}) }
	local := host.Local()
	s.keep = &halt.KeepDown{Tracker: s.tracker, Host: local, StateFile: p.formerFile()}
	return []killswitch.Target{
		{
			Name:      egressTarget,
			Ladder:    []killswitch.Rung{one(s.lock), rung(halt.StepDisconnect)},
			Observers: []killswitch.Observer{s.prober},
		},
		{
			Name:      frozenTarget,
			Ladder:    []killswitch.Rung{one(&halt.Freeze{Tracker: s.tracker}), rung(halt.StepPause)},
			Observers: []killswitch.Observer{&halt.Frozen{Agent: agent, DataRoot: root}},
		},
		{
			Name:      processesTarget,
			Ladder:    []killswitch.Rung{one(&halt.Kill{Tracker: s.tracker}), rung(halt.StepKill), rung(halt.StepStop)},
			Observers: []killswitch.Observer{&halt.Processes{Agent: agent, DataRoot: root}},
		},
		{
			Name:      restartsTarget,
			Ladder:    []killswitch.Rung{one(s.keep), rung(halt.StepRestartPolicy)},
			Observers: []killswitch.Observer{&halt.Restarts{Agent: agent, DataRoot: root, View: &local.View}},
		},
	}
}

// engineRoot is where the engine keeps its containers: observers read there,
// since an engine can hang. What it says is written down for when it does.
func (p *program) engineRoot() string {
	if p.dataRoot != "" {
		return p.dataRoot
	}
	const moment = 200 * time.Millisecond
	ctx, cancel := context.WithTimeout(context.Background(), moment)
	defer cancel()
	name := filepath.Join(p.stateDir, "engine-root")
	if info, err := p.engine.Info(ctx); err == nil && info.DataRoot != "" {
		if known, err := os.ReadFile(name); err != nil || strings.TrimSpace(string(known)) != info.DataRoot {
			_ = writeAtomic(name, info.DataRoot+"\n", 0o600) // else it is asked for again
		}
		return info.DataRoot
	}
	known, err := os.ReadFile(name)
	if err != nil {
		return "" // the usual place
	}
	return strings.TrimSpace(string(known))
}

// Targets that others ask for by name.
const (
	egressTarget    = "egress"
	frozenTarget    = "frozen"
	processesTarget = "processes"
	restartsTarget  = "restarts"
	composioTarget  = "composio"
)

// softStop is what has OpenClaw itself end what it does, so that it does not take
// it up again when it is started; nil if nobody says where it is. It is the
// gentlest step, and the first to be frozen: see --soft of kill.
func (p *program) softStop() (*softstop.Stopper, error) {
	if p.openclawURL == "" {
		return nil, nil //nolint:nilnil // there is none
	}
	token, _, err := readSecret(p.openclawToken)
	if err != nil {
		return nil, usageError("--openclaw-token-file: " + err.Error())
	}
	s, err := softstop.New(softstop.Config{URL: p.openclawURL, Token: token})
	if err != nil {
		return nil, usageError("--openclaw-url: " + err.Error())
	}
	return s, nil
}

// helperCommand is the hidden command that the observer of the network runs.
const helperCommand = "egress-helper"

func one(a killswitch.Actuator) killswitch.Rung {
	return killswitch.Rung{Actuators: []killswitch.Actuator{a}}
}

func (p *program) formerFile() string { return filepath.Join(p.stateDir, "restart-policies.json") }

// workloads are the containers that a tracker knows, as package egress has them.
// The engine has so long to say which they are.
func workloads(tracker *halt.Tracker, most time.Duration) egress.Source {
	return func(ctx context.Context) ([]egress.Workload, error) {
		ctx, cancel := context.WithTimeout(ctx, most)
		defer cancel()
		err := tracker.Arm(ctx) // knows what it knew, if the engine hangs
		var all []egress.Workload
		for _, c := range tracker.Containers() {
			all = append(all, workload(c))
		}
		return all, err
	}
}

func workload(c halt.Container) egress.Workload {
	w := egress.Workload{Name: c.Name, Bridges: c.Bridges, HostNetwork: c.HostNetwork, Cgroup: c.Unified}
	if c.Running {
		w.PID, w.NetNS = c.PID, c.NetNS
	}
	for _, socket := range c.Sockets {
		if w.Beyond == nil {
			w.Beyond = make(map[string]string)
		}
		w.Beyond[socket] = "it is mounted into the container, and who serves it may have other ways out"
	}
	return w
}

// How long an engine is asked for the agent's containers: by what stops them; and
// by what lets them go, for which an engine was seen to say nothing for over 2 s
// of one that had just ended.
const (
	sourceTime  = 2 * time.Second
	releaseTime = 8 * time.Second
)

// gatewayTarget is the denial of the gateway, nil if nobody says where it is and
// with what token to ask it. What makes it deny is the fence, which both read.
func (p *program) gatewayTarget(agent, tokenFile string) (*killswitch.Target, error) {
	if p.gatewayURL == "" || tokenFile == "" {
		return nil, nil //nolint:nilnil // there is none
	}
	token, _, err := readSecret(tokenFile)
	if err != nil {
		return nil, err
	}
	doors, err := halted.New(halted.Config{URL: p.gatewayURL, Token: token, Dial: new(net.Dialer).DialContext})
	if err != nil {
		return nil, err
	}
	fence, err := p.fence()
	if err != nil {
		return nil, err
	}
	return &killswitch.Target{
		Name:      "gateway",
		Ladder:    []killswitch.Rung{one(&denial{p, fence, agent})},
		Observers: []killswitch.Observer{doors},
	}, nil
}

// A denial is the fence, as what makes the gateway deny.
type denial struct {
	p     *program
	fence *killswitch.Fence
	agent string
}

func (d *denial) Name() string { return "gateway.fence" }

func (d *denial) Do(ctx context.Context) error {
	_, err := d.fence.Engage(ctx, d.agent, "the kill switch was fired")
	return err
}

// composioTarget is every account at Composio, or those of users; nil if no key
// is given.
func (p *program) composioTarget(users []string) (*killswitch.Target, error) {
	if p.composioKey == "" {
		return nil, nil
	}
	client, _, _, err := p.composio()
	if err != nil {
		return nil, err
	}
	witness, _, _, err := p.composio() // with connections of its own
	if err != nil {
		return nil, err
	}
	return &killswitch.Target{
		Name:      composioTarget,
		Ladder:    []killswitch.Rung{one(&composio.Revoker{Client: client, UserIDs: users, EnableInactive: true})},
		Observers: []killswitch.Observer{&accounts{&composio.Revoker{Client: witness, UserIDs: users}}},
		Timeout:   revokeTime,
	}, nil
}

// accounts is the Revoker's second pair of eyes.
type accounts struct{ revoker *composio.Revoker }

func (a *accounts) Name() string { return "composio.accounts" }

func (a *accounts) Remaining(ctx context.Context) (map[string]string, error) {
	return a.revoker.Remaining(ctx)
}

// switchKey returns the key that signs receipts, which is made when it is first
// used.
func (p *program) switchKey() (*killswitch.Key, error) {
	name := filepath.Join(p.stateDir, "switch.key")
	key, err := killswitch.ReadKey(name)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = p.makeSwitchKey(name)
	}
	if err != nil {
		return nil, err
	}
	if absent(p.switchPublic()) { // or whoever made the key was cut off
		err = writeAtomic(p.switchPublic(), key.Public().String()+"\n", 0o644)
	}
	return key, err
}

// makeSwitchKey makes the key. Of two who do so at once, both get the same.
func (p *program) makeSwitchKey(name string) (*killswitch.Key, error) {
	if err := os.MkdirAll(p.stateDir, 0o700); err != nil {
		return nil, err
	}
	key, err := killswitch.GenerateKey()
	if err != nil {
		return nil, err
	}
	if err := keepKey(name, key.WriteFile); err != nil {
		return nil, err
	}
	return killswitch.ReadKey(name)
}

// follow has the lock cover what is new while it is engaged, and tells changed,
// whenever the containers change.
func (s *killSwitch) follow(ctx context.Context, changed chan<- struct{}) {
	for range s.tracker.Engine.Changes(ctx) {
		if err := s.lock.Refresh(ctx); err != nil && ctx.Err() == nil {
			continue // Hold looks, and tries again
		}
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}

// close lets go of what the switch holds. What it has done stays.
func (s *killSwitch) close() {
	s.lock.Close()
	s.prober.Close()
	s.tracker.Close()
	s.written.Close()
	s.witness.Close()
}
