//go:build linux

package container_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/container/containertest"
	"github.com/managemyclaw/hardshell/harden/container/docker"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// TestLabRecreate recreates containers of a real engine, and lets everything
// go wrong meanwhile.
func TestLabRecreate(t *testing.T) {
	if os.Getenv(childVar) != "" {
		child(t)
		return
	}
	w := &world{Lab: labtest.Start(t, lab.Config{})}
	var err error
	if w.engine, err = docker.Open(w.DockerHost()); err != nil {
		t.Fatal(err)
	}
	defer w.engine.Close()
	t.Run("behaves as Control says", func(t *testing.T) {
		containertest.TestControl(t, w.engine, func(t *testing.T, name string, files map[string]string) {
			w.docker(t, "run", "-d", "--name", name, "--restart", "always", "-v", "/data", lab.AgentImage)
			for file, content := range files {
				w.say(t, name, "mkdir", filepath.Dir(file))
				w.say(t, name, "write", file, content)
			}
		}, func(t *testing.T, name, file string) string {
			var answer struct{ Result string }
			if err := json.Unmarshal([]byte(w.say(t, name, "read", file)), &answer); err != nil {
				t.Error(err)
			}
			return answer.Result
		})
	})
	t.Run("group", func(t *testing.T) { // so that the lab outlives what is parallel
		for name, test := range map[string]func(*testing.T){
			"keeps everything":         w.keepsEverything,
			"needs":                    w.needs,
			"lacks its needs":          w.lacksItsNeeds,
			"never healthy":            w.neverHealthy,
			"calls that fail":          w.callsThatFail,
			"kill -9":                  w.killed,
			"host network and devices": w.hostNetwork,
			"one that others join":     w.joined,
		} {
			if test != nil {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					test(t)
				})
			}
		}
	})
	t.Run("engine restarts between", w.engineRestarts)
}

var labProfile = container.Profile{
	User:     "1000:1000",
	Writable: []string{"/state", "/data"},
	Tmpfs:    []container.Tmpfs{{Path: "/tmp"}},
	Env:      []string{"XDG_CACHE_HOME=/state/cache"},
	Memory:   128 << 20,
}

type world struct {
	*lab.Lab

	engine *docker.Engine
}

func (w *world) docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := w.Docker(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (w *world) inspect(t *testing.T, name string) map[string]any {
	t.Helper()
	var all []map[string]any
	if err := json.Unmarshal([]byte(w.docker(t, "inspect", name)), &all); err != nil {
		t.Fatal(err)
	}
	return all[0]
}

func recreator(ctl container.Control, p container.Profile, stateDir, name string) *container.Recreator {
	r := &container.Recreator{
		Control: ctl, Profile: p, StateDir: stateDir, Grace: time.Second,
		Settle: 300 * time.Millisecond, HealthTimeout: 20 * time.Second,
		Source: container.NewSource(ctl, name),
	}
	r.Tune(nil, 20*time.Millisecond, 100*time.Millisecond)
	return r
}

// fix hardens with all checks, or those with the ids.
func fix(ctx context.Context, r *container.Recreator, ids ...string) ([]harden.Fix, error) {
	var checks []harden.Check
	for _, c := range container.Checks(r.Source, r.Profile) {
		if len(ids) == 0 || slices.Contains(ids, c.Info().ID) {
			checks = append(checks, r.Remedy(c))
		}
	}
	f := harden.Fixer{Trail: trail.Discard}
	return f.Fix(ctx, host.Local(), nil, checks...)
}

// quick is the check that most tests fix: any will do.
const quick = "container.read_only_root"

// failing returns what fails of a container, or is not known.
func failing(ctx context.Context, e container.Engine, p container.Profile, name string) []string {
	ctx, done := harden.Share(ctx)
	defer done()
	var bad []string
	for _, c := range container.Checks(container.NewSource(e, name), p) {
		res := harden.Evaluate(ctx, &host.Local().View, c, 0)
		known := res.Status != harden.StatusUnknown || res.Info.ID == "container.loopback_leak"
		if res.Status == harden.StatusFail || !known {
			bad = append(bad, fmt.Sprint(res.Info.ID, " ", res.Status, " ", res.Detail, " ", res.Findings))
		}
	}
	return bad
}

// hardened asserts that a container is.
func (w *world) hardened(t *testing.T, p container.Profile, name string) {
	t.Helper()
	if bad := failing(t.Context(), w.engine, p, name); len(bad) > 0 {
		t.Errorf("%s is not hardened:\n%s", name, strings.Join(bad, "\n"))
	}
}

// fixed asserts that exactly one plan was carried out, and no fix failed.
func fixed(t *testing.T, fixes []harden.Fix, err error) {
	t.Helper()
	changed := 0
	for _, f := range fixes {
		if f.Err != nil {
			t.Errorf("%s: %v", f.Before.Info.ID, f.Err)
		}
		if f.Changed {
			changed++
		}
	}
	if err != nil || changed != 1 {
		t.Errorf("%d changes, want 1; %v", changed, err)
	}
}

// alone asserts that there is exactly one container whose name begins with
// name, and that nothing is written down.
func (w *world) alone(t *testing.T, name, stateDir string) {
	t.Helper()
	if all := w.docker(t, "ps", "-a", "--format", "{{.Names}}", "--filter", "name=^"+name+"($|-before|-hardened)"); all != name {
		t.Errorf("containers %q, want only %s", strings.Fields(all), name)
	}
	left, err := os.ReadDir(stateDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) || len(left) > 0 {
		t.Errorf("left in the state directory: %v %v", left, err)
	}
}

func (w *world) say(t *testing.T, name string, args ...string) string {
	t.Helper()
	return w.docker(t, append([]string{"exec", name, "/agent", "do"}, args...)...)
}

// Everything but what is hardened is as it was.
func (w *world) keepsEverything(t *testing.T) {
	const name = "keeps"
	bind := t.TempDir()
	if err := errors.Join(os.Chmod(bind, 0o755), os.WriteFile(filepath.Join(bind, "theirs"), []byte("bind"), 0o640),
		os.Symlink("/etc/passwd", filepath.Join(bind, "link")), os.Mkdir(filepath.Join(bind, "dir"), 0o700),
		os.WriteFile(filepath.Join(bind, "dir", "deep"), nil, 0o755), os.Chmod(filepath.Join(bind, "dir", "deep"), 0o755|os.ModeSetuid), os.Chown(filepath.Join(bind, "theirs"), 33, 33)); err != nil {
		t.Fatal(err)
	}
	w.docker(t, "network", "create", "--subnet", "10.77.0.0/24", "net-a")
	w.docker(t, "network", "create", "net-b")
	w.docker(t, "volume", "create", "named")
	w.docker(t, "run", "-d", "--name", name, "--hostname", "box", "--network", "net-a", "--ip", "10.77.0.77", "--network-alias", "gateway",
		"-e", "SECRET=s3cr3t s3cr3t", "-e", "EMPTY=", "--label", "team=red", "--restart", "on-failure:3",
		"--stop-signal", "SIGINT", "--stop-timeout", "2", "--ulimit", "nofile=1000:2000", "--dns", "10.1.1.1", "--dns-search", "example.org",
		"--add-host", "db:10.9.9.9", "--init", "--log-driver", "json-file", "--log-opt", "max-size=1m", "--workdir", "/app", "--shm-size", "32m",
		"--sysctl", "net.ipv4.ping_group_range=0 0", "--cpus", "0.5", "-p", "28789:18789", "--tmpfs", "/scratch", "-v", "named:/data", "-v", bind+":/state", "-v", "/state/anonymous",
		"--health-interval", "1s", "--health-retries", "4", lab.HealthImage, "serve", "-bind", "lan")
	w.docker(t, "network", "connect", "--alias", "second", "net-b", name)
	w.say(t, name, "write", "/data/file", "volume")
	w.say(t, name, "write", "/state/anonymous/file", "anonymous")
	before := w.inspect(t, name)

	state := t.TempDir()
	r := recreator(w.engine, labProfile, state, name)
	fixes, err := fix(t.Context(), r)
	fixed(t, fixes, err)
	w.hardened(t, labProfile, name)
	w.alone(t, name, state)
	after := w.inspect(t, name)

	differ := differences("", before, after)
	for _, want := range []string{ // what differs for another container, and what was hardened
		`^\.Id$`, `^\.Created$`, `^\.State\.(Pid|StartedAt|FinishedAt|Health)`, `Path$`, `^\.GraphDriver`, `^\.NetworkSettings\.(Sandbox|Endpoint)`,
		`^\.NetworkSettings\.Networks\.[a-z-]+\.(EndpointID|DNSNames|Aliases\.\d|Aliases)$`, `^\.NetworkSettings\.Networks\.net-b\.(MacAddress|IPAddress)`,
		`^\.AppArmorProfile$`, `^\.ResolvConfPath$`,
		`^\.HostConfig\.(Cap|CgroupnsMode|Memory|PidsLimit|ReadonlyRootfs|SecurityOpt|Tmpfs|PortBindings)`, `^\.NetworkSettings\.Ports`,
		`^\.HostConfig\.(MaskedPaths|ReadonlyPaths|MemorySwap)`,
		`^\.Config\.(User|Env\.\d+|Env|Volumes)$`, `^\.HostConfig\.Mounts`, `^\.Config\.Volumes`,
		`^\.Mounts`, `^\.HostConfig\.OomKillDisable$`,
		`^\.ExecIDs`,             // of health checks
		`^\.Config\.MacAddress$`, // engine 29 shows one of its own making there
	} {
		differ = slices.DeleteFunc(differ, regexp.MustCompile(want).MatchString)
	}
	if len(differ) > 0 {
		t.Errorf("changed: %s", strings.Join(differ, "\n"))
		b, _ := json.MarshalIndent(after, "", " ")
		t.Logf("%s", b)
	}
	env := func(c map[string]any) []any { return c["Config"].(map[string]any)["Env"].([]any) }
	if want := append(slices.Clone(env(before)), "XDG_CACHE_HOME=/state/cache"); !slices.Equal(env(after), want) {
		t.Errorf("environment %q, want %q", env(after), want)
	}
	volumes := func(c map[string]any) (all []string) {
		for _, m := range c["Mounts"].([]any) {
			m := m.(map[string]any)
			all = append(all, fmt.Sprint(m["Type"], m["Name"], m["Source"], m["Destination"]))
		}
		slices.Sort(all)
		return slices.DeleteFunc(all, func(s string) bool { return strings.HasPrefix(s, "tmpfs") })
	}
	if b, a := volumes(before), volumes(after); !slices.Equal(b, a) {
		t.Errorf("mounts were\n%q and are\n%q", b, a)
	}
	endpoints := after["NetworkSettings"].(map[string]any)["Networks"].(map[string]any)
	a := endpoints["net-a"].(map[string]any)
	if a["IPAddress"] != "10.77.0.77" || !strings.Contains(fmt.Sprint(a["Aliases"]), "gateway") ||
		!strings.Contains(fmt.Sprint(endpoints["net-b"].(map[string]any)["Aliases"]), "second") {
		t.Errorf("networks %v", endpoints)
	}
	// What it is for: names resolve, data is there and can be written.
	w.docker(t, "run", "--rm", "--network", "net-a", lab.AgentImage, "do", "get", "http://gateway:18789/healthz")
	w.docker(t, "run", "--rm", "--network", "net-b", lab.AgentImage, "do", "get", "http://second:18789/healthz")
	w.docker(t, "run", "--rm", "--network", "net-b", lab.AgentImage, "do", "get", "http://"+name+":18789/healthz")
	for path, content := range map[string]string{"/data/file": "volume", "/state/theirs": "bind", "/state/anonymous/file": "anonymous"} {
		if got := w.say(t, name, "read", path); !strings.Contains(got, `"`+content+`"`) {
			t.Errorf("%s: %s", path, got)
		}
		w.say(t, name, "write", path, content)
	}
	// What a link of the agent's points to is not given to it.
	if st := stat(t, "/etc/passwd"); st.Uid != 0 {
		t.Errorf("/etc/passwd belongs to %d", st.Uid)
	}
	if st := stat(t, filepath.Join(bind, "dir", "deep")); st.Uid != 1000 || st.Mode&0o7000 != 0 {
		t.Errorf("a setuid file has owner %d and mode %o", st.Uid, st.Mode)
	}

	// Again: there is nothing to do.
	fixes, err = fix(t.Context(), r)
	if err != nil || len(fixes) > 0 {
		t.Errorf("a hardened container is fixed again: %+v, %v", fixes, err)
	}
}

func stat(t *testing.T, name string) *syscall.Stat_t {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Lstat(name, &st); err != nil {
		t.Fatal(err)
	}
	return &st
}

// differences returns the paths at which two JSON values differ.
func differences(at string, a, b any) []string {
	am, aok := a.(map[string]any)
	bm, bok := b.(map[string]any)
	if aok && bok {
		var all []string
		keys := maps.Clone(am)
		maps.Copy(keys, bm)
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			all = append(all, differences(at+"."+k, am[k], bm[k])...)
		}
		return all
	}
	if reflect.DeepEqual(a, b) || fmt.Sprint(a) == "[]" && b == nil || a == nil && fmt.Sprint(b) == "[]" ||
		fmt.Sprint(a) == "map[]" && b == nil || a == nil && fmt.Sprint(b) == "map[]" {
		return nil
	}
	return []string{at}
}

// An agent that is hard to confine, with state in its writable layer, runs
// hardened with what the profile says it needs.
func (w *world) needs(t *testing.T) {
	const name = "picky"
	p := labProfile
	p.Writable = []string{"/state"}
	w.docker(t, "run", "-d", "--name", name, lab.PickyImage)
	w.say(t, name, "mkdir", "/state/deep/er")
	w.say(t, name, "write", "/state/deep/er/file", "kept")
	w.say(t, name, "write", "/home/app/elsewhere", "not declared")
	state := t.TempDir()
	fixes, err := fix(t.Context(), recreator(w.engine, p, state, name))
	fixed(t, fixes, err)
	w.hardened(t, p, name)
	if got := w.say(t, name, "read", "/state/deep/er/file"); !strings.Contains(got, "kept") {
		t.Error(got)
	}
	w.say(t, name, "write", "/state/deep/er/file", "writable")
	// What was not declared was said, and is not lost.
	if notes := fmt.Sprint(fixes[0].Plan.Notes); !strings.Contains(notes, "/home/app/elsewhere") {
		t.Errorf("notes %s", notes)
	}
	kept := strings.Fields(w.docker(t, "ps", "-a", "--format", "{{.Names}}", "--filter", "name=^"+name+"-before-hardening-"))
	if len(kept) != 1 {
		t.Fatalf("kept %q", kept)
	}
	old := w.inspect(t, kept[0])
	if old["State"].(map[string]any)["Running"] != false || !strings.Contains(fmt.Sprint(old["HostConfig"].(map[string]any)["RestartPolicy"]), "no") {
		t.Errorf("the old container: %v", old["State"])
	}
	w.docker(t, "rm", kept[0])
	w.alone(t, name, state)
}

// Without what it needs, it is back as it was.
func (w *world) lacksItsNeeds(t *testing.T) {
	const name = "lacking"
	w.docker(t, "run", "-d", "--name", name, "--restart", "always", lab.PickyImage)
	id := w.docker(t, "inspect", "-f", "{{.Id}}", name)
	p := labProfile
	p.Env, p.Writable = nil, []string{"/state"}
	state := t.TempDir()
	fixes, err := fix(t.Context(), recreator(w.engine, p, state, name), quick)
	if err != nil || len(fixes) != 1 || fixes[0].Changed {
		t.Fatalf("%+v %v", fixes, err)
	}
	if text := fixes[0].Err.Error(); !strings.Contains(text, "exited") || !strings.Contains(text, "everything was undone") {
		t.Error(text)
	}
	w.backAgain(t, name, id, state, "always")
}

// backAgain asserts that the container with an id is as it was before.
func (w *world) backAgain(t *testing.T, name, id, state, policy string) {
	t.Helper()
	w.alone(t, name, state)
	got := w.docker(t, "inspect", "-f", "{{.Id}} {{.State.Running}} {{.HostConfig.RestartPolicy.Name}}", name)
	if want := id + " true " + policy; got != want {
		t.Errorf("the container is %s, want %s", got, want)
	}
	if left := w.docker(t, "volume", "ls", "-q", "--filter", "name=^"+name+"_"); left != "" {
		t.Errorf("volumes %s are left", left)
	}
}

// A new container that does not become healthy is not kept.
func (w *world) neverHealthy(t *testing.T) {
	for name, interval := range map[string]string{"unhealthy": "2s", "starting": "1h"} {
		id := w.docker(t, "run", "-d", "--name", name, "--health-interval", interval, lab.HealthImage)
		ctl := &containertest.Interceptor{Control: w.engine}
		ctl.After = func(_ context.Context, c containertest.Call) error {
			if c.Method == "Start" && c.ID != id && name == "unhealthy" { // before it is asked how it is
				return os.WriteFile(w.root(t, c.ID)+"/tmp/unwell", nil, 0o644)
			}
			return nil
		}
		state := t.TempDir()
		r := recreator(ctl, labProfile, state, name)
		if name == "starting" {
			r.HealthTimeout = time.Second
		}
		fixes, err := fix(t.Context(), r, quick)
		if err != nil || len(fixes) != 1 || fixes[0].Changed || fixes[0].Err == nil || !strings.Contains(fixes[0].Err.Error(), name) {
			t.Errorf("%s: %+v %v", name, fixes, err)
		}
		w.backAgain(t, name, id, state, "no")
	}
}

func (w *world) hostNetwork(t *testing.T) {
	const name = "hostnet"
	w.docker(t, "run", "-d", "--name", name, "--network", "host", "--pid", "host", "--ipc", "host", "--uts", "host", "--privileged",
		"--security-opt", "apparmor=unconfined", "--security-opt", "seccomp=unconfined", "-v", "/:/host", "-v", "/run:/run2", "-e", "DOCKER_HOST=tcp://192.0.2.1:2375",
		lab.AgentImage, "serve", "-port", "31999")
	state := t.TempDir()
	fixes, err := fix(t.Context(), recreator(w.engine, labProfile, state, name))
	fixed(t, fixes, err)
	w.hardened(t, labProfile, name)
	w.alone(t, name, state)
	if out, err := w.Host.Command(t.Context(), "curl", "-sf", "-m", "5", "http://127.0.0.1:31999/healthz").CombinedOutput(); err != nil {
		t.Logf("curl: %v %s", err, out)
	}
}

func (w *world) joined(t *testing.T) {
	w.docker(t, "run", "-d", "--name", "main-one", lab.AgentImage)
	w.docker(t, "run", "-d", "--name", "side-car", "--network", "container:main-one", "--entrypoint", "/agent", lab.AgentImage, "sleep", "1000")
	fixes, err := fix(t.Context(), recreator(w.engine, labProfile, t.TempDir(), "main-one"), quick)
	if err != nil || len(fixes) != 1 || fixes[0].Changed || !strings.Contains(fmt.Sprint(fixes[0].Plan.Manual), "side-car") {
		t.Errorf("%+v %v", fixes, err)
	}
	// The other way round it can be done.
	fixes, err = fix(t.Context(), recreator(w.engine, labProfile, t.TempDir(), "side-car"), quick)
	fixed(t, fixes, err)
}

var errInjected = errors.New("injected")

// root is the root of a running container, as seen from here: much quicker
// than docker exec.
func (w *world) root(t *testing.T, name string) string {
	t.Helper()
	all, err := w.engine.Containers(t.Context(), name)
	if err != nil || !all[0].Running() {
		t.Fatalf("%s does not run: %+v %v", name, all, err)
	}
	return fmt.Sprintf("/proc/%d/root", all[0].PID)
}

var subjectFiles = map[string]string{"/data/file": "in the volume", "/state/file": "in the layer"}

// subject starts a container for a fault.
func (w *world) subject(t *testing.T, name string) (id string) {
	t.Helper()
	id = w.docker(t, "run", "-d", "--name", name, "--restart", "always", "-v", name+"-data:/data", lab.AgentImage)
	root := w.root(t, name)
	for file, content := range subjectFiles {
		if err := os.WriteFile(root+file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return id
}

// intact asserts that one container of the name runs, with its data.
func (w *world) intact(t *testing.T, name string) {
	t.Helper()
	w.notBoth(t, name)
	root := w.root(t, name)
	for file, want := range subjectFiles {
		if got, err := os.ReadFile(root + file); err != nil || string(got) != want {
			t.Errorf("%s: %s is %q, %v", name, file, got, err)
		}
	}
}

// owns asserts that the hardened agent can change its state.
func (w *world) owns(t *testing.T, name string) {
	t.Helper()
	root := w.root(t, name)
	for _, file := range []string{"/data", "/data/file", "/state", "/state/file"} {
		if st := stat(t, root+file); st.Uid != 1000 {
			t.Errorf("%s: %s belongs to %d", name, file, st.Uid)
		}
	}
}

func (w *world) discard(t *testing.T, name string) {
	t.Helper()
	w.docker(t, "rm", "-f", name)
}

// Each call that changes something fails once, before it takes effect and
// after. Then one container runs, with its data; and the next run hardens it.
func (w *world) callsThatFail(t *testing.T) {
	{
		// In memory, all calls fail in both ways; see TestFaults.
		for n := 1; ; n++ {
			after := n%2 == 0
			name := fmt.Sprintf("fails-%t-%d", after, n)
			w.subject(t, name)
			state := t.TempDir()
			count := 0
			var hit string
			fail := func(_ context.Context, c containertest.Call) error {
				if c.Changes() {
					if count++; count == n {
						hit = c.Method
						return errInjected
					}
				}
				return nil
			}
			ctl := &containertest.Interceptor{Control: w.engine}
			if after {
				ctl.After = fail
			} else {
				ctl.Before = fail
			}
			fixes, err := fix(t.Context(), recreator(ctl, labProfile, state, name), quick)
			if hit == "" {
				fixed(t, fixes, err)
				if n < 10 {
					t.Errorf("only %d calls", n-1)
				}
				w.discard(t, name)
				break
			}
			if err != nil || len(fixes) != 1 || !errors.Is(fixes[0].Err, errInjected) {
				t.Errorf("%s of %s: %+v %v", hit, name, fixes, err)
			}
			w.intact(t, name)
			if !fixes[0].Changed {
				w.backAgainAnyID(t, name, state)
			}
			w.rerun(t, name, state)
			w.discard(t, name)
		}
	}
}

func (w *world) backAgainAnyID(t *testing.T, name, state string) {
	t.Helper()
	w.backAgain(t, name, w.docker(t, "inspect", "-f", "{{.Id}}", name), state, "always")
}

// rerun hardens what an earlier run may have left.
func (w *world) rerun(t *testing.T, name, state string) {
	t.Helper()
	r := recreator(w.engine, labProfile, state, name)
	if _, err := fix(t.Context(), r, quick); err != nil {
		t.Error(err)
	}
	w.intact(t, name)
	w.owns(t, name)
	w.hardened(t, labProfile, name)
	w.alone(t, name, state)
	if all, err := w.engine.Containers(t.Context(), name); err != nil || all[0].RestartPolicy != "always" {
		t.Errorf("restart policy: %+v %v", all, err)
	}
}

const childVar = "HARDSHELL_TEST_RECREATE"

// child is a process that is killed right before or right after its n-th call
// that changes something.
func child(t *testing.T) {
	args := strings.Split(os.Getenv(childVar), "|")
	hostName, name, state, after := args[0], args[1], args[2], args[4] == "true"
	n, err := strconv.Atoi(args[3])
	if err != nil {
		t.Fatal(err)
	}
	e, err := docker.Open(hostName)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	kill := func(_ context.Context, c containertest.Call) error {
		if c.Changes() {
			if count++; count == n {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		}
		return nil
	}
	ctl := &containertest.Interceptor{Control: e}
	if after {
		ctl.After = kill
	} else {
		ctl.Before = kill
	}
	fixes, err := fix(t.Context(), recreator(ctl, labProfile, state, name), quick)
	fixed(t, fixes, err)
}

func (w *world) killAt(t *testing.T, name, state string, n int, after bool) (killed bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestLabRecreate$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s|%s|%s|%d|%t", childVar, w.DockerHost(), name, state, n, after))
	out, err := cmd.CombinedOutput()
	if err == nil {
		return false
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("%v\n%s", err, out)
	}
	return true
}

// notBoth asserts that at most one of a container's incarnations runs.
func (w *world) notBoth(t *testing.T, name string) {
	t.Helper()
	all, err := w.engine.Containers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var running []string
	for _, s := range all {
		if s.Name == name || strings.HasPrefix(s.Name, name+"-before") || strings.HasPrefix(s.Name, name+"-hardened") {
			running = append(running, s.Name)
		}
	}
	if len(running) > 1 {
		t.Errorf("%q run at once", running)
	}
}

func (w *world) killed(t *testing.T) {
	var wait sync.WaitGroup
	for _, after := range []bool{false, true} {
		wait.Go(func() {
			for n := 1; ; n++ {
				name := fmt.Sprintf("killed-%t-%d", after, n)
				w.subject(t, name)
				state := t.TempDir()
				killed := w.killAt(t, name, state, n, after)
				w.notBoth(t, name)
				if killed {
					w.rerun(t, name, state)
				} else if n < 10 {
					t.Errorf("only %d calls", n-1)
				}
				w.discard(t, name)
				if !killed {
					return
				}
			}
		})
	}
	wait.Wait()
}

// The engine is restarted between the steps: it must not start both, nor the
// wrong one.
func (w *world) engineRestarts(t *testing.T) {
	for _, n := range []int{3, 6, 9} {
		name := fmt.Sprintf("restarts-%d", n)
		w.subject(t, name)
		state := t.TempDir()
		if !w.killAt(t, name, state, n, true) {
			t.Fatal("was not killed")
		}
		if err := w.RestartDockerd(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.notBoth(t, name)
		w.rerun(t, name, state)
		w.discard(t, name)
	}
}
