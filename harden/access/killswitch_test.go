package access_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/access"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/hardentest"
	"github.com/managemyclaw/hardshell/harden/host/hosttest"
	"github.com/managemyclaw/hardshell/killswitch"
	"github.com/managemyclaw/hardshell/killswitch/killswitchtest"
)

const switchDir = "/var/lib/hardshell/switch"

// A switched is a real switch of things in memory, and where it keeps its state.
type switched struct {
	t      *testing.T
	dir    string
	key    *killswitch.Key
	sw     *killswitch.Switch
	config access.KillSwitch
	secret string
	files  fstest.MapFS // what is in dir
}

func thingTargets(names ...string) []killswitch.Target {
	var all []killswitch.Target
	for _, name := range names {
		thing := killswitchtest.NewThing(name + "/openclaw")
		stop := name + ".stop"
		if name == "container" {
			stop = "container.restarts"
		}
		all = append(all, killswitch.Target{
			Name:      name,
			Ladder:    []killswitch.Rung{{Actuators: []killswitch.Actuator{&killswitchtest.Actuator{Called: stop, Thing: thing}}}},
			Observers: []killswitch.Observer{&killswitchtest.Observer{Called: name + ".look", Thing: thing}},
		})
	}
	return all
}

// hung drills targets, of which the first has a way that hangs, and then one that
// serves, unless it fails too.
func (s *switched) hung(fault killswitchtest.Fault, names ...string) {
	targets := thingTargets(names...)
	t := &targets[0]
	stop := t.Ladder[0].Actuators[0].(*killswitchtest.Actuator)
	stop.Fault = fault
	broken := &killswitchtest.Actuator{Called: "engine.stop", Thing: stop.Thing, Fault: killswitchtest.Fails}
	t.Ladder, t.Timeout = append([]killswitch.Rung{{Actuators: []killswitch.Actuator{broken}}}, t.Ladder...), 2*time.Second
	s.drill(killswitch.Rehearsal{Variant: "docker-hung", Targets: targets, Broken: []string{broken.Called}})
}

// prepared is the state of a switch that is armed and drilled, made once.
var prepared = sync.OnceValues(func() (*switched, error) {
	dir, err := os.MkdirTemp("", "switch")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	s := &switched{dir: dir, files: make(fstest.MapFS), secret: killswitch.GenerateResetSecret()}
	if s.key, err = killswitch.GenerateKey(); err != nil {
		return nil, err
	}
	if err := killswitch.SetResetSecret(dir, "openclaw", s.secret); err != nil {
		return nil, err
	}
	if _, err := killswitch.OpenFence(filepath.Join(dir, "fence")); err != nil {
		return nil, err
	}
	if err := s.open(); err != nil {
		return nil, err
	}
	ctx := context.Background()
	if _, err := s.sw.Arm(ctx); err != nil {
		return nil, err
	}
	if _, err = s.sw.Drill(ctx, killswitch.Rehearsal{Variant: killswitch.VariantNormal, Targets: thingTargets("container", "egress")}); err != nil {
		return nil, err
	}
	return s, fs.WalkDir(os.DirFS(dir), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		file := &fstest.MapFile{Mode: fs.ModeDir | 0o700}
		if !e.IsDir() {
			file.Mode = 0o600
			file.Data, err = os.ReadFile(filepath.Join(dir, name))
		}
		s.files[name] = file
		return err
	})
})

func (s *switched) open() (err error) {
	s.sw, err = killswitch.New(killswitch.Config{Agent: "openclaw", Dir: s.dir, Key: s.key, Trail: new(taken), Targets: thingTargets("container", "egress")})
	return err
}

// newSwitched returns a switch that is armed and drilled.
func newSwitched(t *testing.T) *switched {
	t.Helper()
	of, err := prepared()
	if err != nil {
		t.Fatal(err)
	}
	s := &switched{t: t, dir: filepath.Join(t.TempDir(), "switch"), key: of.key, secret: of.secret}
	if err := os.CopyFS(s.dir, of.files); err != nil {
		t.Fatal(err)
	}
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	s.config = access.KillSwitch{Dir: switchDir, Agent: "openclaw", Key: s.key.Public()}
	return s
}

// taken is a trail that takes everything.
type taken struct{}

func (*taken) Record(context.Context, trail.Event) error { return nil }

func (s *switched) arm() {
	s.t.Helper()
	if _, err := killswitch.OpenFence(filepath.Join(s.dir, "fence")); err != nil {
		s.t.Fatal(err)
	}
	if a, err := s.sw.Arm(s.t.Context()); err != nil || len(a.Findings) > 0 {
		s.t.Fatalf("%v %+v", err, a)
	}
}

func (s *switched) drill(r killswitch.Rehearsal) {
	s.t.Helper()
	if _, err := s.sw.Drill(s.t.Context(), r); err != nil && !errors.Is(err, killswitch.ErrDrill) {
		s.t.Fatal(err)
	}
}

// machine returns a machine that has the state of the switch.
func (s *switched) machine() *hosttest.Machine {
	s.t.Helper()
	m := new(hosttest.Machine)
	err := filepath.WalkDir(s.dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(s.dir, name)
		if err != nil {
			return err
		}
		if e.IsDir() {
			m.Dir(filepath.Join(switchDir, rel), 0o700)
			return nil
		}
		data, err := os.ReadFile(name)
		if err == nil {
			m.FileMode(filepath.Join(switchDir, rel), string(data), 0o600)
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

// rewrite changes a document and signs it again, as whoever has the key can.
func rewrite[T any](s *switched, pattern string, change func(*T)) {
	s.t.Helper()
	names, err := filepath.Glob(filepath.Join(s.dir, pattern))
	if err != nil || len(names) == 0 {
		s.t.Fatalf("%s: %v", pattern, err)
	}
	name := names[len(names)-1]
	data, err := os.ReadFile(name)
	if err != nil {
		s.t.Fatal(err)
	}
	var doc T
	if err := json.Unmarshal(data, &doc); err != nil {
		s.t.Fatal(err)
	}
	change(&doc)
	if err := os.WriteFile(name, s.signed(doc), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// signed signs a document as package killswitch does.
func (s *switched) signed(doc any) []byte {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "key")
	if err := s.key.WriteFile(file); err != nil {
		s.t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	seed, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text[bytes.LastIndexByte(text, ':')+1:])))
	if err != nil {
		s.t.Fatal(err)
	}
	body, err := json.Marshal(doc)
	if err != nil {
		s.t.Fatal(err)
	}
	body, _, _ = bytes.Cut(body, []byte(`,"signature":"`))
	body = append(bytes.TrimSuffix(body, []byte("}")), '}')
	var kind struct{ Schema string }
	if err := json.Unmarshal(body, &kind); err != nil {
		s.t.Fatal(err)
	}
	sig := ed25519.Sign(ed25519.NewKeyFromSeed(seed), append([]byte(kind.Schema+"\x00"), body...))
	return append(bytes.TrimSuffix(body, []byte("}")), `,"signature":"`+base64.StdEncoding.EncodeToString(sig)+`"}`...)
}

type (
	armed = killswitch.Armed
	drill = killswitch.Drill
)

const (
	armedFile  = "armed/openclaw.json"
	drillFiles = "drills/openclaw/*.json"
)

// What makes each check of point 13 fail, or unknown, or pass.
func TestKillSwitch(t *testing.T) {
	const pass, fail, unknown = harden.StatusPass, harden.StatusFail, harden.StatusUnknown
	week := 7 * 24 * time.Hour
	for situation, tt := range map[string]struct {
		change  func(*switched)
		machine func(*hosttest.Machine)
		config  func(*access.KillSwitch)
		of      func(*container.Container)
		check   string
		want    harden.Status
		finding string // its id
		says    string
	}{
		"armed":                {check: "access.kill_armed", want: pass},
		"never armed":          {machine: remove("/armed/openclaw.json"), check: "access.kill_armed", want: fail, finding: "access.kill_armed.never"},
		"armed, and not by it": {change: func(s *switched) { s.foreign() }, check: "access.kill_armed", want: fail, finding: "access.kill_armed.unsigned"},
		"armed, and unsigned":  {change: func(s *switched) { unsign[armed](s, armedFile) }, check: "access.kill_armed", want: fail, finding: "access.kill_armed.unsigned"},
		"armed, and edited":    {change: func(s *switched) { edit(s, armedFile, `"elapsed_ns":`, `"elapsed_ns":1`) }, check: "access.kill_armed", want: fail, finding: "access.kill_armed.unsigned"},
		"armed, of another":    {change: func(s *switched) { rewrite(s, armedFile, func(a *armed) { a.Agent = "other" }) }, check: "access.kill_armed", want: fail, finding: "access.kill_armed.unsigned"},
		"no key is known":      {config: func(k *access.KillSwitch) { k.Key = killswitch.PublicKey{} }, check: "access.kill_armed", want: unknown},
		"armed long ago":       {change: func(s *switched) { rewrite(s, armedFile, func(a *armed) { a.Time = a.Time.Add(-time.Hour) }) }, check: "access.kill_armed", want: fail, finding: "access.kill_armed.stale", says: "arm again"},
		"armed in the future":  {change: func(s *switched) { rewrite(s, armedFile, func(a *armed) { a.Time = a.Time.Add(time.Hour) }) }, check: "access.kill_armed", want: fail, finding: "access.kill_armed.stale"},
		"a stale preparation": {change: func(s *switched) {
			rewrite(s, armedFile, func(a *armed) { a.Targets[0].Actuators[0].Prepared = time.Now().Add(-time.Hour) })
		}, check: "access.kill_armed", want: fail, finding: "access.kill_armed.stale"},
		"an unmade preparation": {change: func(s *switched) {
			rewrite(s, armedFile, func(a *armed) { a.Findings = append(a.Findings, "x is not prepared") })
		}, check: "access.kill_armed", want: fail, finding: "access.kill_armed.prepared"},
		"no observer": {change: func(s *switched) { rewrite(s, armedFile, func(a *armed) { a.Targets[1].Observers = nil }) }, check: "access.kill_armed", want: fail, finding: "access.kill_armed.observer"},
		"no actuator": {change: func(s *switched) { rewrite(s, armedFile, func(a *armed) { a.Targets[1].Actuators = nil }) }, check: "access.kill_armed", want: fail, finding: "access.kill_armed.actuator"},
		"no target":   {change: func(s *switched) { rewrite(s, armedFile, func(a *armed) { a.Targets = nil }) }, check: "access.kill_armed", want: fail, finding: "access.kill_armed.target"},
		"it confirms itself": {change: func(s *switched) {
			rewrite(s, armedFile, func(a *armed) { a.Targets[1].Observers[0].Name = a.Targets[1].Actuators[0].Name })
		}, check: "access.kill_armed", want: fail, finding: "access.kill_armed.observer"},
		"an observer is blind": {change: func(s *switched) {
			rewrite(s, armedFile, func(a *armed) { a.Targets[1].Observers[0].LookError = "blind" })
		}, check: "access.kill_armed", want: fail, finding: "access.kill_armed.observer"},
		"armed cannot be read":   {machine: func(m *hosttest.Machine) { m.Deny(switchDir + "/armed") }, check: "access.kill_armed", want: unknown},
		"a relative directory":   {config: func(k *access.KillSwitch) { k.Dir = "switch" }, check: "access.kill_armed", want: unknown},
		"an agent that is a way": {config: func(k *access.KillSwitch) { k.Agent = "../fence" }, check: "access.kill_fence", want: unknown},

		"the fence is open":            {check: "access.kill_fence", want: pass},
		"the fence is engaged":         {change: func(s *switched) { s.fire() }, of: stopped, check: "access.kill_fence", want: fail, finding: "access.kill_fence.engaged", says: "it deletes mail"},
		"the agent runs nevertheless":  {change: func(s *switched) { s.fire() }, check: "access.kill_fence", want: fail, finding: "access.kill_fence.revived"},
		"the fence was reset":          {change: func(s *switched) { s.fire(); s.reset() }, check: "access.kill_fence", want: pass},
		"the fence is damaged":         {change: func(s *switched) { s.fire(); edit(s, "fence/openclaw", `"released":false`, `"released":true`) }, check: "access.kill_fence", want: fail, finding: "access.kill_fence.damaged"},
		"the fence says two things":    {machine: func(m *hosttest.Machine) { m.File(switchDir+"/fence/openclaw", twofold) }, check: "access.kill_fence", want: fail, finding: "access.kill_fence.damaged"},
		"the fence is empty":           {machine: func(m *hosttest.Machine) { m.File(switchDir+"/fence/openclaw", "") }, check: "access.kill_fence", want: fail, finding: "access.kill_fence.damaged"},
		"the fence is a link":          {machine: func(m *hosttest.Machine) { m.Symlink(switchDir+"/fence/openclaw", "/dev/null") }, check: "access.kill_fence", want: fail, finding: "access.kill_fence.damaged"},
		"the fence cannot be read":     {machine: func(m *hosttest.Machine) { m.Deny(switchDir + "/fence") }, check: "access.kill_fence", want: unknown},
		"there is no fence":            {config: func(k *access.KillSwitch) { k.Dir = "/var/lib/other" }, check: "access.kill_fence", want: fail, finding: "access.kill_fence.missing"},
		"another agent's is engaged":   {machine: func(m *hosttest.Machine) { m.File(switchDir+"/fence/other", "") }, check: "access.kill_fence", want: pass},
		"the fence is somebody else's": {change: func(s *switched) { s.fire(); s.rename("fence/openclaw", "fence/other") }, config: func(k *access.KillSwitch) { k.Agent = "other"; k.Containers = []string{"other"} }, check: "access.kill_fence", want: fail, finding: "access.kill_fence.damaged"},

		"drilled":                 {check: "access.kill_drilled", want: pass},
		"never drilled":           {machine: removeDrills, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.never"},
		"a drill without the key": {change: func(s *switched) { unsign[drill](s, drillFiles) }, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.never", says: "not signed"},
		"a drill by flag only": {change: func(s *switched) {
			rewrite(s, drillFiles, func(d *drill) { d.Before, d.Targets = nil, nil })
		}, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.unproven"},
		"a drill whose target was left on": {change: func(s *switched) {
			rewrite(s, drillFiles, func(d *drill) { d.Targets[1].State = killswitch.Failed })
		}, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.unproven"},
		"a drill of what was off": {change: func(s *switched) {
			rewrite(s, drillFiles, func(d *drill) { d.Before[0].Observers[0].Remaining = 0 })
		}, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.unproven"},
		"a drill in which nothing was tried": {change: func(s *switched) {
			rewrite(s, drillFiles, func(d *drill) { d.Targets[0].Tried = nil })
		}, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.unproven"},
		"a drill in which nothing came to its end": {change: func(s *switched) {
			rewrite(s, drillFiles, func(d *drill) { d.Targets[0].Tried[0].Error = "killed" })
		}, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.unproven"},
		"a drill in which what acted names what it could not": {change: func(s *switched) {
			rewrite(s, drillFiles, func(d *drill) {
				d.Targets[0].Tried[0].Error = "one way is open"
				d.Targets[0].Open = []killswitch.Open{{What: "a way", Why: "nobody can", Said: d.Targets[0].Tried[0].Actuator}}
			})
		}, check: "access.kill_drilled", want: pass},
		"a drill at which nobody looked": {change: func(s *switched) {
			rewrite(s, drillFiles, func(d *drill) { d.Targets[0].Observers[0].Looks = 0 })
		}, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.unproven"},
		"a drill with another observer": {change: func(s *switched) {
			rewrite(s, drillFiles, func(d *drill) { d.Targets[0].Observers[0].Observer = "always.off" })
		}, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.unproven"},
		"a drill with another actuator": {change: func(s *switched) {
			rewrite(s, drillFiles, func(d *drill) { d.Targets[0].Tried[0].Actuator = "gentle.stop" })
		}, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.unproven"},
		"a drill that gave a target up": {change: func(s *switched) {
			rewrite(s, drillFiles, func(d *drill) { d.Lost = []string{d.Targets[0].Name} })
		}, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.unproven"},
		"a drill of some targets": {change: func(s *switched) {
			s.drill(killswitch.Rehearsal{Variant: killswitch.VariantNormal, Targets: thingTargets("egress")})
		}, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.unproven", says: "container"},
		"a drill long ago": {change: func(s *switched) {
			rewrite(s, drillFiles, func(d *drill) { d.Time = d.Time.Add(-5 * week) })
		}, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.old"},
		"a drill in the future": {change: func(s *switched) {
			rewrite(s, drillFiles, func(d *drill) { d.Time = d.Time.Add(week) })
		}, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.old"},
		"a drill that failed after one that passed": {change: func(s *switched) {
			targets := thingTargets("container", "egress")
			targets[0].Ladder[0].Actuators[0].(*killswitchtest.Actuator).Fault = killswitchtest.Lies
			targets[0].Timeout = 200 * time.Millisecond
			s.drill(killswitch.Rehearsal{Variant: killswitch.VariantNormal, Targets: targets})
		}, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.failed"},
		"a drill of another agent":      {change: func(s *switched) { rewrite(s, drillFiles, func(d *drill) { d.Agent = "other" }) }, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.never"},
		"something was left behind":     {change: func(s *switched) { rewrite(s, drillFiles, func(d *drill) { d.Left = []string{"a rule"} }) }, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.left"},
		"a canary, and that is too few": {config: func(k *access.KillSwitch) { k.Real = true }, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.canary"},
		"a variant that was never tried": {
			config: func(k *access.KillSwitch) { k.Variants = []string{"docker-hung"} }, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.never", says: "docker-hung",
		},
		"a variant that was asked for": {
			change: func(s *switched) { s.hung("", "container", "egress") },
			config: func(k *access.KillSwitch) { k.Variants = []string{"docker-hung"} }, check: "access.kill_drilled", want: pass,
		},
		"a variant that has nothing to do with a target": {
			change: func(s *switched) { s.hung("", "egress") },
			config: func(k *access.KillSwitch) { k.Variants = []string{"docker-hung"} }, check: "access.kill_drilled", want: pass,
		},
		"a variant of what is not armed": {
			change: func(s *switched) { s.hung("", "other") },
			config: func(k *access.KillSwitch) { k.Variants = []string{"docker-hung"} }, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.unproven", says: "nothing that is armed",
		},
		"a variant that failed, and nobody asks for": {change: func(s *switched) { s.hung(killswitchtest.Lies, "egress") }, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.failed", says: "docker-hung"},
		"a variant that failed, and then passed": {change: func(s *switched) {
			s.hung(killswitchtest.Lies, "egress")
			s.hung("", "egress")
		}, check: "access.kill_drilled", want: pass},
		"a variant long ago, that nobody asks for": {change: func(s *switched) {
			s.hung("", "egress")
			rewrite(s, drillFiles, func(d *drill) { d.Time = d.Time.Add(-5 * week) })
		}, check: "access.kill_drilled", want: pass},
		"a variant in which what was broken has worked": {change: func(s *switched) {
			s.hung("", "egress")
			rewrite(s, drillFiles, func(d *drill) { d.Targets[0].Tried[0].Error = "" })
		}, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.unproven", says: "engine.stop is said to be broken, and worked"},
		"a variant in which nothing was broken": {change: func(s *switched) {
			s.hung("", "egress")
			rewrite(s, drillFiles, func(d *drill) { d.Broken = nil })
		}, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.unproven", says: "nothing was broken"},
		"a variant in which who was blind has seen": {change: func(s *switched) {
			s.hung("", "egress")
			rewrite(s, drillFiles, func(d *drill) { d.Broken = append(d.Broken, d.Targets[0].Observers[0].Observer) })
		}, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.unproven", says: "egress.look is said to be broken, and worked"},
		"a variant in which what was lost is confirmed": {change: func(s *switched) {
			s.hung("", "egress", "container")
			rewrite(s, drillFiles, func(d *drill) { d.Lost = []string{d.Targets[0].Name} })
		}, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.unproven", says: "its last way is said to be broken"},
		"a variant in which a trail that was down has recorded": {change: func(s *switched) {
			s.hung("", "egress")
			rewrite(s, drillFiles, func(d *drill) { d.Broken = append(d.Broken, "trail") })
		}, check: "access.kill_drilled", want: fail, finding: "access.kill_drilled.unproven", says: "the trail is said to be broken"},
		"drills cannot be read":  {machine: func(m *hosttest.Machine) { m.Deny(switchDir + "/drills") }, check: "access.kill_drilled", want: unknown},
		"a drill, and no key":    {config: func(k *access.KillSwitch) { k.Key = killswitch.PublicKey{} }, check: "access.kill_drilled", want: unknown},
		"not armed, but drilled": {machine: remove("/armed/openclaw.json"), check: "access.kill_drilled", want: pass},
		"a forged one after the last": {machine: func(m *hosttest.Machine) {
			m.File(switchDir+"/drills/openclaw/20990101T000000.000000000Z-normal.json", "{}")
		}, check: "access.kill_drilled", want: pass},

		"nothing restarts it":                {check: "access.kill_restarts", want: pass},
		"a restart policy, armed against":    {of: always, check: "access.kill_restarts", want: pass},
		"a restart policy, and disarmed":     {of: always, machine: remove("/armed/openclaw.json"), check: "access.kill_restarts", want: fail, finding: "access.kill_restarts"},
		"a restart policy, armed by another": {of: always, change: func(s *switched) { s.foreign() }, check: "access.kill_restarts", want: fail, finding: "access.kill_restarts"},
		"a restart policy, armed long ago": {of: always, change: func(s *switched) {
			rewrite(s, armedFile, func(a *armed) { a.Time = a.Time.Add(-time.Hour) })
		}, check: "access.kill_restarts", want: fail, finding: "access.kill_restarts"},
		"a restart policy, and no actuator": {of: always, change: func(s *switched) {
			rewrite(s, armedFile, func(a *armed) { a.Targets[0].Actuators[0].Name = "container.kill" })
		}, check: "access.kill_restarts", want: fail, finding: "access.kill_restarts"},
		"a restart policy, and an actuator that failed": {of: always, change: func(s *switched) {
			rewrite(s, armedFile, func(a *armed) { a.Targets[0].Actuators[0].Error = "no engine" })
		}, check: "access.kill_restarts", want: fail, finding: "access.kill_restarts"},
		"a compose project, and disarmed": {of: func(c *container.Container) { c.ManagedBy = "compose project openclaw" }, machine: remove("/armed/openclaw.json"), check: "access.kill_restarts", want: fail, finding: "access.kill_restarts"},
		"no container of that name":       {config: func(k *access.KillSwitch) { k.Containers = []string{"gone"} }, check: "access.kill_restarts", want: unknown},
	} {
		t.Run(situation, func(t *testing.T) {
			s := newSwitched(t)
			if tt.change != nil {
				tt.change(s)
			}
			m := s.machine()
			if tt.machine != nil {
				tt.machine(m)
			}
			if tt.config != nil {
				tt.config(&s.config)
			}
			r := evaluate(t, s.access(tt.of), m.View(), tt.check)
			if r.Status != tt.want {
				t.Fatalf("%s: %+v, want %s", r.Status, r, tt.want)
			}
			found := tt.finding == ""
			for _, f := range r.Findings {
				found = found || f.ID == tt.finding && strings.Contains(f.Message, tt.says)
				if f.Remedy == "" || f.Message == "" || len(f.Evidence) == 0 {
					t.Errorf("it says too little: %+v", f)
				}
			}
			if !found || tt.want == pass && len(r.Findings) > 0 {
				t.Errorf("%+v, want %s", r.Findings, tt.finding)
			}
			if tt.want == pass && tt.check == "access.kill_drilled" && r.Level != harden.LevelProbed {
				t.Errorf("the level is %s", r.Level)
			}
		})
	}
}

func (s *switched) access(change func(*container.Container)) access.Config {
	of := []func(*container.Container){func(c *container.Container) { c.State = "running" }}
	if change != nil {
		of = append(of, change)
	}
	return access.Config{Containers: containers(of...), Switches: []access.KillSwitch{s.config}}
}

func always(c *container.Container)  { c.RestartPolicy = "always" }
func stopped(c *container.Container) { c.State = "exited" }

func remove(name string) func(*hosttest.Machine) {
	return func(m *hosttest.Machine) {
		if err := m.Host().Remove(switchDir + name); err != nil {
			panic(err)
		}
	}
}

// twofold is a record with the hash that belongs to it, which no fence writes.
var twofold = func() string {
	const body = `{"agent":"openclaw","epoch":1,"released":false,"released":true,"reason":"","time":"2026-01-01T00:00:00Z"}`
	return fmt.Sprintf("hardshell.fence/v1 %x %s\n", sha256.Sum256([]byte(body)), body)
}()

func removeDrills(m *hosttest.Machine) {
	entries, err := m.View().ReadDir(switchDir + "/drills/openclaw")
	if err != nil {
		panic(err)
	}
	for _, e := range entries {
		remove("/drills/openclaw/" + e.Name())(m)
	}
}

// foreign arms the agent by another switch, with a key of its own.
func (s *switched) foreign() {
	s.t.Helper()
	key, err := killswitch.GenerateKey()
	if err != nil {
		s.t.Fatal(err)
	}
	s.sw, err = killswitch.New(killswitch.Config{Agent: "openclaw", Dir: s.dir, Key: key, Trail: new(taken), Targets: thingTargets("container", "egress")})
	if err != nil {
		s.t.Fatal(err)
	}
	s.arm()
}

func unsign[T any](s *switched, pattern string) {
	s.t.Helper()
	rewrite(s, pattern, func(*T) {})
	names, _ := filepath.Glob(filepath.Join(s.dir, pattern))
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			s.t.Fatal(err)
		}
		data, _, _ = bytes.Cut(data, []byte(`,"signature"`))
		if err := os.WriteFile(name, append(data, '}'), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
}

func edit(s *switched, name, from, to string) {
	s.t.Helper()
	file := filepath.Join(s.dir, name)
	data, err := os.ReadFile(file)
	if err != nil || !bytes.Contains(data, []byte(from)) {
		s.t.Fatalf("%s: %v", data, err)
	}
	if err := os.WriteFile(file, bytes.Replace(data, []byte(from), []byte(to), 1), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *switched) rename(from, to string) {
	s.t.Helper()
	if err := os.Rename(filepath.Join(s.dir, from), filepath.Join(s.dir, to)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *switched) fire() {
	s.t.Helper()
	if r, err := s.sw.Fire(s.t.Context(), "it deletes mail"); err != nil || !r.Off() {
		s.t.Fatalf("%v %v", r, err)
	}
}

func (s *switched) reset() {
	s.t.Helper()
	r, err := killswitch.LastReceipt(s.dir, "openclaw", s.key.Public())
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.sw.Reset(s.t.Context(), r.Epoch, s.secret); err != nil {
		s.t.Fatal(err)
	}
}

// Nobody knows of a switch: that is unknown.
func TestNoKillSwitch(t *testing.T) {
	for _, id := range []string{"access.kill_armed", "access.kill_fence", "access.kill_drilled", "access.kill_restarts", "access.kill_private"} {
		if r := evaluate(t, access.Config{}, new(hosttest.Machine).View(), id); r.Status != harden.StatusUnknown {
			t.Errorf("%s: %s", id, r.Status)
		}
	}
}

// The fence is read here as package killswitch reads it.
func TestFenceIsReadAlike(t *testing.T) {
	s := newSwitched(t)
	fence, err := killswitch.OpenFence(filepath.Join(s.dir, "fence"))
	if err != nil {
		t.Fatal(err)
	}
	same := func(situation string) {
		t.Helper()
		// Another one, which has only what is on disk.
		other, err := killswitch.OpenFence(filepath.Join(s.dir, "fence"))
		if err != nil {
			t.Fatal(err)
		}
		want := other.Fenced(t.Context(), "openclaw")
		r := evaluate(t, s.access(stopped), s.machine().View(), "access.kill_fence")
		if (want == nil) != (r.Status == harden.StatusPass) || r.Status == harden.StatusUnknown {
			t.Errorf("%s: %v, and the check says %s %+v", situation, want, r.Status, r.Findings)
		}
	}
	same("never engaged")
	if _, err := fence.Engage(t.Context(), "openclaw", `why {"released":true} "x"`); err != nil {
		t.Fatal(err)
	}
	same("engaged")
	file := filepath.Join(s.dir, "fence", "openclaw")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for _, b := range [][]byte{good[:i], append(append([]byte(nil), good[:i]...), good[i+1:]...), flipped(good, i)} {
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			same(string(b))
		}
	}
}

func flipped(b []byte, i int) []byte {
	c := append([]byte(nil), b...)
	c[i] ^= 1
	return c
}

// The judges of point 13 keep the contract.
func TestSwitchJudgesKeepTheContract(t *testing.T) {
	s := newSwitched(t)
	all, err := access.NewSwitchSource(s.access(nil)).All(t.Context(), s.machine().View())
	if err != nil {
		t.Fatal(err)
	}
	good := all[0]
	with := func(f func(*access.SwitchReview)) access.SwitchReview {
		r := good
		f(&r)
		return r
	}
	late := with(func(r *access.SwitchReview) { r.Now = r.Now.Add(100 * 24 * time.Hour) })
	denied := with(func(r *access.SwitchReview) {
		r.Armed, r.Drills = nil, nil
		r.ArmedErr, r.DrillsErr, r.FenceErr, r.AgentsErr = fs.ErrPermission, fs.ErrPermission, fs.ErrPermission, fs.ErrPermission
	})
	for id, tt := range map[string]struct {
		judge func(context.Context, access.SwitchReview) (harden.Verdict, error)
		bad   access.SwitchReview
	}{
		"access.kill_armed":   {access.JudgeArmed, late},
		"access.kill_drilled": {access.JudgeDrilled, late},
		"access.kill_fence":   {access.JudgeFence, with(func(r *access.SwitchReview) { r.Fence.Released = false })},
		"access.kill_restarts": {access.JudgeRestarts, with(func(r *access.SwitchReview) {
			r.Armed = nil
			r.Agents = []container.Container{{Settings: container.Settings{RestartPolicy: "always"}}}
		})},
	} {
		kept(t, id, tt.judge, []access.SwitchReview{good}, []access.SwitchReview{tt.bad}, []access.SwitchReview{denied})
	}
	entry := access.Entry{Path: "/f", Mode: fs.ModeDir | 0o700}
	guard := access.Guard{Entries: []access.Entry{entry}}
	open := guard
	open.Entries = []access.Entry{{Path: "/f", Mode: fs.ModeDir | 0o777}}
	mounted := guard
	mounted.Mounts = []string{"container/openclaw at /state"}
	user := guard
	user.UIDs = []uint32{0}
	foreign := guard
	foreign.Entries = []access.Entry{{Path: "/f", Mode: fs.ModeDir | 0o700, Owner: 1000}}
	kept(t, "access.kill_private", access.JudgeSwitchGuard,
		[]access.SwitchGuard{{Fence: &guard}, {Fence: &guard, Switch: access.KillSwitch{Starters: []uint32{0}}}},
		[]access.SwitchGuard{{Fence: &open}, {Fence: &mounted}, {Fence: &user}, {Fence: &foreign}, {Fence: &guard, Record: &foreign}, {Fence: &guard, Switch: access.KillSwitch{Starters: []uint32{1000}}}},
		[]access.SwitchGuard{{}, {Fence: &access.Guard{Err: fs.ErrPermission}}, {Fence: &guard, Record: &access.Guard{Err: fs.ErrPermission}}, {Fence: &access.Guard{Entries: guard.Entries, AgentsErr: fs.ErrPermission}}})
}

// What is seen of a switch is the same a minute later: it says when, and not how
// long ago.
func TestSwitchVerdictsDoNotAge(t *testing.T) {
	s := newSwitched(t)
	all, err := access.NewSwitchSource(s.access(nil)).All(t.Context(), s.machine().View())
	if err != nil {
		t.Fatal(err)
	}
	for id, judge := range map[string]func(context.Context, access.SwitchReview) (harden.Verdict, error){
		"armed": access.JudgeArmed, "drilled": access.JudgeDrilled, "fence": access.JudgeFence, "restarts": access.JudgeRestarts,
	} {
		for name, age := range map[string]time.Duration{"fresh": 0, "old": 100 * 24 * time.Hour, "in the future": -time.Hour} {
			r := all[0]
			r.Now = r.Now.Add(age)
			first, err := judge(t.Context(), r)
			r.Now = r.Now.Add(61 * time.Second)
			again, againErr := judge(t.Context(), r)
			if !reflect.DeepEqual(first, again) || (err == nil) != (againErr == nil) {
				t.Errorf("%s, %s: %v, %v, and then %v, %v", id, name, first, err, again, againErr)
			}
		}
	}
}

// The checks of point 13 keep the contract on a machine in memory.
func TestSwitchChecksKeepTheContract(t *testing.T) {
	s := newSwitched(t)
	good := func() *hosttest.Machine { return s.machine().File("/canary", hardentest.Canary) }
	for id, bad := range map[string]func(*hosttest.Machine){
		"access.kill_armed":   remove("/armed/openclaw.json"),
		"access.kill_drilled": removeDrills,
		"access.kill_fence":   func(m *hosttest.Machine) { m.File(switchDir+"/fence/openclaw", hardentest.Canary) },
	} {
		reads := map[string]string{"access.kill_armed": "/armed/openclaw.json", "access.kill_drilled": "/drills/openclaw", "access.kill_fence": "/fence"}[id]
		hardentest.Run(t, hardentest.Subject{
			Check: check(t, s.access(nil), id), Good: good, Reads: []string{switchDir + reads},
			Bad: func() *hosttest.Machine { m := good(); bad(m); return m },
		})
	}
}
