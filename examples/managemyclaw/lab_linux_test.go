package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/audit/report"
	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/openclaw"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// The program on a real engine, with containers as people run them.
func TestLab(t *testing.T) {
	w := &world{labtest.Start(t, lab.Config{})}
	t.Run("containers", func(t *testing.T) { // so that the lab outlives what is parallel
		for name, test := range map[string]func(*testing.T){
			"audit":               w.audit,
			"waivers":             w.waivers,
			"writable":            w.writable,
			"no such container":   w.noSuchContainer,
			"stopped":             w.stopped,
			"vanishes":            w.vanishes,
			"not root":            w.notRoot,
			"plan":                w.plan,
			"harden":              w.harden,
			"no place for state":  w.noPlaceForState,
			"several containers":  w.severalContainers,
			"never well":          w.neverWell,
			"kill -9":             w.killed,
			"interrupt":           w.interrupted,
			"text for a terminal": w.terminal,
			"credentials":         w.credentials,
			"gateway":             w.gateway,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t)
			})
		}
	})
}

type world struct{ *lab.Lab }

// A container that was hardened by hand passes points 1 to 5, once what it may
// write is declared.
func (w *world) writable(t *testing.T) {
	const name = "strict"
	w.docker(t, "run", "-d", "--name", name, "--user", "1000:1000", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
		"--tmpfs", "/tmp:size=16m", "--pids-limit", "100", "--memory", "128m", "-v", "/data", lab.UserImage)
	r := parse(t, w.program(t, "security-audit", name, "--format", "json").stdout)
	if r.Points[harden.PointReadOnlyFS-1].Status != harden.StatusFail {
		t.Errorf("what is writable and not declared: %+v", r.Points)
	}
	r = parse(t, w.program(t, "security-audit", name, "--format", "json", "--writable", "/data").stdout)
	for i := range 5 {
		if r.Points[i].Status != harden.StatusPass {
			t.Errorf("point %d is %v", i+1, r.Points[i].Status)
		}
	}
}

func (w *world) docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := w.Docker(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// secret must not be in any output: it is where secrets are, and where they
// should not be.
const secret = "canary-7f3a"

// run starts a container as people do. It has a health check, so that nobody
// waits for it longer than it takes.
func (w *world) run(t *testing.T, name string, more ...string) {
	t.Helper()
	args := append([]string{
		"run", "-d", "--name", name, "--restart", "unless-stopped", "-v", name + "-state:" + openclaw.StateDir,
		"-e", "OPENAI_API_KEY=" + secret, "--label", "token=" + secret,
	}, more...)
	w.docker(t, append(args, lab.HealthImage)...)
}

// program runs the program against the lab's engine and a container.
func (w *world) program(t *testing.T, command, container string, more ...string) outcome {
	t.Helper()
	o := runProgram(t, w.args(command, container, t.TempDir(), more...)...)
	if strings.Contains(o.stdout+o.stderr, secret) {
		t.Errorf("%s shows a secret:\n%s%s", command, o.stdout, o.stderr)
	}
	return o
}

func (w *world) args(command, container, state string, more ...string) []string {
	return append([]string{command, "--docker-host", w.DockerHost(), "--container", container, "--state-dir", state}, more...)
}

func parse(t *testing.T, text string) *audit.Report {
	t.Helper()
	r, err := report.ParseJSON(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	return r
}

// hardened asserts that a container is: points 1 to 5 pass by what the kernel
// says, nothing fails, and it is the only one of that name.
func (w *world) hardened(t *testing.T, name, state string) {
	t.Helper()
	o := runProgram(t, w.args("security-audit", name, state, "--format", "json")...)
	r := parse(t, o.stdout)
	for _, res := range r.Results {
		if res.Status == harden.StatusFail && !ofNetwork(res) {
			t.Errorf("%s fails: %v", res.Info.ID, res.Findings)
		}
		if p := res.Info.Point; p >= 1 && p <= 5 && res.Status != harden.StatusNotApplicable && (res.Status != harden.StatusPass || res.Level < harden.LevelInspected) {
			t.Errorf("%s: %v at level %v: %s", res.Info.ID, res.Status, res.Level, res.Detail)
		}
	}
	if r.Score.Passed < 5 || o.code == exitPass {
		t.Errorf("score %+v, status %d", r.Score, o.code)
	}
	if all := w.docker(t, "ps", "-a", "--format", "{{.Names}} {{.State}}", "--filter", "name="+name); all != name+" running" {
		t.Errorf("containers: %q", all)
	}
}

// ofNetwork reports whether a result is of the network of the machine that runs
// the test, which is not the engine's; see TestLabNetwork.
func ofNetwork(res audit.Result) bool { return strings.HasPrefix(res.Info.ID, "network.") }

func (w *world) audit(t *testing.T) {
	const name = "audited"
	w.run(t, name)
	o := w.program(t, "security-audit", name, "--format", "json")
	o.want(t, exitFail, "", "")
	r := parse(t, o.stdout)
	if o.stderr != "" || len(r.Points) != harden.NumPoints {
		t.Errorf("%d points; stderr: %s", len(r.Points), o.stderr)
	}
	for _, p := range r.Points {
		covered := slices.ContainsFunc(r.Results, func(res audit.Result) bool { return res.Info.Point == p.Point })
		if !covered && (p.Status != harden.StatusUnknown || p.Reason != harden.ReasonNotImplemented) {
			t.Errorf("%v: %v %s, and nothing looks at it", p.Point, p.Status, p.Reason)
		}
	}
	for _, p := range r.Points[:3] {
		if p.Status != harden.StatusFail {
			t.Errorf("%v: %v", p.Point, p.Status)
		}
	}

	w.program(t, "security-audit", name).want(t, exitFail, "▸ Security score: ", "")
	brief, full := w.program(t, "security-audit", name), w.program(t, "security-audit", name, "--full")
	full.want(t, exitFail, "container.capabilities", "")
	if len(full.stdout) <= len(brief.stdout) {
		t.Error("--full shows no more")
	}
	for line := range strings.Lines(brief.stdout) {
		if n := len([]rune(line)); n > report.DefaultWidth+1 {
			t.Errorf("%d columns: %s", n, line)
		}
	}

	o = w.program(t, "security-audit", name, "--format", "sarif")
	var sarif struct {
		Version string
		Runs    []struct{ Results []json.RawMessage }
	}
	if err := json.Unmarshal([]byte(o.stdout), &sarif); err != nil || o.code != exitFail || sarif.Version != "2.1.0" || len(sarif.Runs) != 1 || len(sarif.Runs[0].Results) == 0 {
		t.Errorf("SARIF: status %d, %v:\n%s", o.code, err, o.stdout)
	}
	o = w.program(t, "security-audit", name, "--format", "junit")
	var junit struct {
		XMLName xml.Name
		Suites  []struct{} `xml:"testsuite"`
	}
	if err := xml.Unmarshal([]byte(o.stdout), &junit); err != nil || o.code != exitFail || junit.XMLName.Local != "testsuites" || len(junit.Suites) < harden.NumPoints {
		t.Errorf("JUnit: status %d, %d suites, %v", o.code, len(junit.Suites), err)
	}
}

// With a waiver for all that fails, nothing fails: what remains is unknown.
func (w *world) waivers(t *testing.T) {
	const name = "waived"
	w.run(t, name)
	var waivers []audit.Waiver
	for _, res := range parse(t, w.program(t, "security-audit", name, "--format", "json").stdout).Results {
		if res.Status == harden.StatusFail {
			scope := "container/" + name
			if ofNetwork(res) {
				scope = "*"
			}
			waivers = append(waivers, audit.Waiver{ID: res.Info.ID, Scope: scope, Owner: "ops@example.com", Reason: "a test", Expires: time.Now().Add(time.Hour)})
		}
	}
	write := func() string {
		text, err := json.Marshal(waivers)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "waivers.json")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	o := w.program(t, "security-audit", name, "--format", "json", "--waivers", write())
	o.want(t, exitUnknown, "", "")
	if r := parse(t, o.stdout); r.Score.Failed != 0 || r.Score.Waived < 3 {
		t.Errorf("score %+v", r.Score)
	}
	// They are on record where there is one; an audit begins none.
	d := newDesk(t, 1)
	runProgram(t, w.args("security-audit", name, d.state, "--waivers", write())...).want(t, exitFail, "", "")
	counted := 0
	recs := records(t, d.state)
	for _, rec := range recs {
		if e := rec.Event; e.Kind == trail.KindWaiver && e.Attrs["owner"] == "ops@example.com" && e.Message == "a test" && e.Subject != "" {
			counted++
		}
	}
	if counted < 3 || recs[len(recs)-1].Event.Kind != trail.KindAudit {
		t.Errorf("%d waivers on record: %+v", counted, recs)
	}
	before := len(recs)
	runProgram(t, w.args("harden", name, d.state, "--plan")...)
	if recs = records(t, d.state); len(recs) == before || recs[before].Event.Kind != trail.KindRemedyPlan {
		t.Error("the plan that was shown is not on record")
	}
	waivers[0].Expires = time.Now().Add(-time.Hour)
	w.program(t, "security-audit", name, "--waivers", write()).want(t, exitFail, "expired", "")
}

func (w *world) noSuchContainer(t *testing.T) {
	w.run(t, "there-is")
	w.program(t, "security-audit", "openclwa", "--timeout", "20s").want(t, notPass, "there-is", "")
	w.program(t, "harden", "openclwa", "--plan").want(t, exitFail, "", "there-is")
	o := w.program(t, "harden", "openclwa")
	o.want(t, exitFail, "", `"openclwa"`)
	o.want(t, exitFail, "", "there-is")
}

func (w *world) stopped(t *testing.T) {
	const name = "stopped"
	w.docker(t, "create", "--name", name, lab.UserImage, "serve", "--token", secret)
	// What is asked for is wrong enough to fail; the rest nobody can see.
	w.program(t, "security-audit", name).want(t, exitFail, "the container is not running", "")
	w.program(t, "harden", name, "--plan").want(t, exitFail, "start it", "")
}

// A container that goes away between two questions makes results unknown.
func (w *world) vanishes(t *testing.T) {
	const name = "vanishes"
	w.run(t, name)
	var once sync.Once
	host := w.proxy(t, func(r *http.Request) {
		if strings.Contains(r.URL.Path, "/containers/") && strings.HasSuffix(r.URL.Path, "/json") && !strings.HasSuffix(r.URL.Path, "/containers/json") {
			once.Do(func() {
				if _, err := w.Docker(context.WithoutCancel(r.Context()), "rm", "-f", name); err != nil {
					t.Error(err)
				}
			})
		}
	})
	o := runProgram(t, "security-audit", "--docker-host", host, "--container", name)
	o.want(t, notPass, name, "")
}

// proxy passes requests on to the lab's engine after seen has seen them.
func (w *world) proxy(t *testing.T, seen func(*http.Request)) (host string) {
	t.Helper()
	engine := strings.TrimPrefix(w.DockerHost(), "unix://")
	pass := &httputil.ReverseProxy{
		ErrorLog: log.New(io.Discard, "", 0),
		Rewrite:  func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "docker" },
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", engine)
		}},
	}
	return fakeEngine(t, func(rw http.ResponseWriter, r *http.Request) {
		seen(r)
		pass.ServeHTTP(rw, r)
	})
}

// Whoever is not root sees less, is told so, and changes nothing.
func (w *world) notRoot(t *testing.T) {
	const name, nobody = "not-root", 65534
	w.run(t, name)
	id := w.docker(t, "inspect", "-f", "{{.Id}}", name)
	exe := executable(t)
	as := func(host string, args ...string) outcome {
		cmd := exec.CommandContext(t.Context(), exe, append(args, "--docker-host", host, "--container", name)...)
		cmd.Env = []string{mainVar + "=1"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		return finish(t, cmd)
	}
	as(w.DockerHost(), "security-audit").want(t, notPass, "permission denied", "")
	as(w.DockerHost(), "harden").want(t, exitFail, "", "permission denied")

	host := w.proxy(t, func(*http.Request) {})
	open := strings.TrimPrefix(host, "unix://")
	if err := errors.Join(os.Chmod(filepath.Dir(open), 0o755), os.Chmod(open, 0o666)); err != nil {
		t.Fatal(err)
	}
	o := as(host, "security-audit")
	o.want(t, exitFail, "root", "") // the engine says so, though the kernel does not
	o = as(host, "security-audit", "--format", "json")
	for _, p := range parse(t, o.stdout).Points[:5] {
		if p.Status == harden.StatusPass {
			t.Errorf("%v passes", p.Point)
		}
	}
	as(host, "harden", "--state-dir", "/var/lib/nobody/s").want(t, exitFail, "", "permission denied (name another directory with --state-dir)")
	if now := w.docker(t, "inspect", "-f", "{{.Id}}", name); now != id {
		t.Error("the container was changed")
	}
}

// executable returns a copy of the test binary that everybody may execute.
func executable(t *testing.T) string {
	t.Helper()
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	dir := filepath.Dir(socket(t))
	name := filepath.Join(dir, "managemyclaw")
	out, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close(), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return name
}

// finish runs a command to its end.
func finish(t *testing.T, cmd *exec.Cmd) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// A plan names every change and makes none.
func (w *world) plan(t *testing.T) {
	const name = "planned"
	w.run(t, name, "--user", "0", "-v", "/var/run/docker.sock:/var/run/docker.sock", "--pid", "host")
	state := func() string {
		return w.docker(t, "inspect", "-f", "{{json .Id}} {{json .HostConfig}} {{json .Config}} {{.State.Pid}} {{.State.StartedAt}} {{.RestartCount}}", name)
	}
	before, all := state(), w.docker(t, "ps", "-aq", "--no-trunc", "--filter", "name="+name)
	o := w.program(t, "harden", name, "--plan")
	for _, want := range []string{"recreate it hardened", "user: 0 → 1000:1000", "read-only root: false → true", "drop ALL", "no-new-privileges: false → true", "/var/run/docker.sock", "pid namespace: host → private", "Nothing was changed"} {
		if !strings.Contains(unwrapped(o.stdout), want) {
			t.Errorf("not in the plan: %q", want)
		}
	}
	for line := range strings.Lines(o.stdout) {
		if n := len([]rune(line)); n > report.DefaultWidth+1 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if o.code == exitUsage || o.stderr != "" {
		t.Errorf("status %d, stderr %s", o.code, o.stderr)
	}
	t.Log(o.stdout)
	asJSON := w.program(t, "harden", name, "--plan", "--format", "json")
	var plan struct {
		Schema    string
		Proposals []struct {
			ID      string
			Changes []harden.Change
		}
	}
	if err := json.Unmarshal([]byte(asJSON.stdout), &plan); err != nil || plan.Schema != "hardshell.plan/v1" || len(plan.Proposals) < 5 || len(plan.Proposals[0].Changes) != 1 || asJSON.code != o.code {
		t.Errorf("status %d, %v:\n%s", asJSON.code, err, asJSON.stdout)
	}
	if now := state(); now != before {
		t.Errorf("before %s\nafter  %s", before, now)
	}
	if now := w.docker(t, "ps", "-aq", "--no-trunc", "--filter", "name="+name); now != all {
		t.Errorf("containers %q, before %q", now, all)
	}

	// What no program can do is for a person.
	w.docker(t, "run", "-d", "--name", "by-hand", "--rm", "--user", "0", lab.AgentImage)
	w.program(t, "harden", "by-hand", "--plan").want(t, exitFail, "by hand: ", "")
	w.program(t, "harden", "by-hand").want(t, exitFail, "▸ Security score", "by hand: ")
}

// Hardening once is enough, keeps the data, and is on record.
func (w *world) harden(t *testing.T) {
	const name = "hardened"
	w.run(t, name, "--user", "0", "-v", "/etc:/host/etc")
	if a, err := w.Do(t.Context(), name, "write", openclaw.StateDir+"/memory", "what it remembers"); err != nil || !a.OK {
		t.Fatal(a, err)
	}
	id := func() string { return w.docker(t, "inspect", "-f", "{{.Id}}", name) }
	first, state := id(), filepath.Join(t.TempDir(), "state")
	o := runProgram(t, w.args("harden", name, state)...)
	o.want(t, notPass, "▸ Security score: 5/14", "✓ container.non_root: done")
	second := id()
	if second == first {
		t.Error("it is the same container")
	}
	w.hardened(t, name, state)
	if a, err := w.Do(t.Context(), name, "read", openclaw.StateDir+"/memory"); err != nil || !strings.Contains(string(a.Result), "what it remembers") {
		t.Errorf("the data: %v %v", a, err)
	}
	again := runProgram(t, w.args("harden", name, state, "--format", "json")...)
	again.want(t, notPass, "", "")
	parse(t, again.stdout)
	if id() != second || strings.Contains(again.stderr, "▸") {
		t.Errorf("it was hardened again:\n%s", again.stderr)
	}
	if o := w.program(t, "harden", name, "--plan"); strings.Contains(o.stdout, "✗ container.") || strings.Contains(o.stdout, "▸") {
		t.Errorf("there is something to do again:\n%s", o.stdout)
	}
	recs := records(t, state)
	var events []string
	for _, rec := range recs {
		e := rec.Event
		if strings.HasPrefix(string(e.Kind), "remedy.") {
			events = append(events, fmt.Sprintf("%s %s %s", e.Kind, e.Subject, e.Outcome))
		}
	}
	if got, want := strings.Join(events, ", "), "remedy.plan container/hardened , remedy.apply container/hardened begin, remedy.apply container/hardened ok, remedy.commit container/hardened ok"; got != want {
		t.Errorf("trail: %s", got)
	}
	if last := recs[len(recs)-1].Event; last.Kind != trail.KindAudit {
		t.Errorf("the audit at the end is not on record: %+v", last)
	}
	info, err := os.Stat(filepath.Join(state, "trail.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	text, err := json.Marshal(recs)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text)+o.stdout+o.stderr+again.stderr, secret) {
		t.Error("a secret is shown")
	}
}

// Nothing is changed that cannot be written down.
func (w *world) noPlaceForState(t *testing.T) {
	const name = "no-state"
	w.run(t, name)
	id := w.docker(t, "inspect", "-f", "{{.Id}} {{.State.StartedAt}}", name)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	runProgram(t, w.args("harden", name, filepath.Join(file, "state"))...).want(t, exitFail, "", "--state-dir")
	runProgram(t, w.args("harden", name, "/proc/nowhere")...).want(t, exitFail, "", "--state-dir")

	// Nor where the record of what was done before is not sound.
	cut := newDesk(t, 3)
	segment, data := cut.segment(t)
	put(t, segment, data[:len(data)/2])
	runProgram(t, w.args("harden", name, cut.state)...).want(t, exitFail, "", "nothing is changed, for it cannot be recorded: trail: ")
	full := t.TempDir()
	put(t, filepath.Join(full, "trail"), nil)
	runProgram(t, w.args("harden", name, full)...).want(t, exitFail, "", "nothing is changed")
	if now := w.docker(t, "inspect", "-f", "{{.Id}} {{.State.StartedAt}}", name); now != id {
		t.Errorf("it was changed: %s, before %s", now, id)
	}
}

// Without a name, hardening does not take it on itself to say which is meant.
func (w *world) severalContainers(t *testing.T) {
	w.run(t, "one-of-several")
	w.run(t, "other-of-several")
	for _, more := range [][]string{nil, {"--plan"}} {
		o := runProgram(t, append([]string{"harden", "--docker-host", w.DockerHost(), "--state-dir", t.TempDir()}, more...)...)
		o.want(t, exitUsage, "", "one-of-several")
		o.want(t, exitUsage, "", "--container")
	}
}

// A container that does not get well in its new form gets its old one back, and
// is not tried again for each check that fails.
func (w *world) neverWell(t *testing.T) {
	const name = "never-well"
	w.docker(t, "run", "-d", "--name", name, "--user", "0", "-e", "XDG_CACHE_HOME=/cache", lab.PickyImage)
	id := w.docker(t, "inspect", "-f", "{{.Id}}", name)
	state := t.TempDir()
	o := runProgram(t, w.args("harden", name, state)...)
	o.want(t, exitFail, "▸ Security score: ", "everything was undone")
	if now := w.docker(t, "inspect", "-f", "{{.Id}} {{.State.Status}}", name); now != id+" running" {
		t.Errorf("now %s, before %s", now, id)
	}
	attempts := 0
	for _, rec := range records(t, state) {
		if rec.Event.Outcome == trail.OutcomeBegin {
			attempts++
		}
	}
	if attempts != 1 {
		t.Errorf("%d attempts", attempts)
	}
}

// cutOff runs harden in a process of its own, and sends it a signal when the old
// container has given up its name, and the new one has not got it yet.
func (w *world) cutOff(t *testing.T, name, state string, sig os.Signal) (output string, exit *exec.ExitError) {
	t.Helper()
	var cmd *exec.Cmd
	started := make(chan struct{})
	var once sync.Once
	host := w.proxy(t, func(r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/rename") || r.FormValue("name") != name {
			return
		}
		once.Do(func() { // it may give the old one its name back
			<-started
			if err := cmd.Process.Signal(sig); err != nil {
				t.Error(err)
			}
			select { // the request comes to nothing
			case <-r.Context().Done():
			case <-time.After(30 * time.Second):
				t.Error("the program goes on")
			}
		})
	})
	cmd = exec.CommandContext(t.Context(), "/proc/self/exe", "harden", "--docker-host", host, "--container", name, "--state-dir", state)
	cmd.Env = []string{mainVar + "=1"}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	close(started)
	err := cmd.Wait()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		t.Fatalf("it was not cut off: %v\n%s", err, &out)
	}
	return out.String(), exit
}

// A run that is killed in the middle is made good by the next.
func (w *world) killed(t *testing.T) {
	const name = "killed"
	w.run(t, name, "--user", "0")
	state := t.TempDir()
	w.cutOff(t, name, state, syscall.SIGKILL)
	if _, err := w.Docker(t.Context(), "inspect", name); err == nil {
		t.Error("it was not killed when there was no container of that name")
	}
	// What it was about to do is on record, and that is all there is of it.
	recs := records(t, state)
	if last := recs[len(recs)-1].Event; last.Kind != trail.KindRemedyApply || last.Outcome != trail.OutcomeBegin {
		t.Errorf("the last record: %+v", last)
	}
	runProgram(t, w.args("security-audit", name, state)...).want(t, exitFail, "cut off", "")
	runProgram(t, w.args("harden", name, state, "--plan")...).want(t, exitFail, "cut off", "")
	runProgram(t, w.args("harden", name, state)...).want(t, notPass, "▸ Security score: 5/14", "✓ ")
	w.hardened(t, name, state)
}

// An interrupt undoes what was begun.
func (w *world) interrupted(t *testing.T) {
	const name = "interrupted"
	w.run(t, name, "--user", "0")
	id := w.docker(t, "inspect", "-f", "{{.Id}}", name)
	out, exit := w.cutOff(t, name, t.TempDir(), syscall.SIGINT)
	if exit.ExitCode() != exitFail || !strings.Contains(unwrapped(out), "everything was undone") || !strings.HasSuffix(out, "managemyclaw: interrupted\n") {
		t.Errorf("%v:\n%s", exit, out)
	}
	if all := w.docker(t, "ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.State}}", "--filter", "name="+name); all != fmt.Sprintf("%s %s running", id, name) {
		t.Errorf("containers: %q, want %s", all, id)
	}
}
