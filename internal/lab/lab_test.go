//go:build linux

package lab_test

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		ownerToBeKilled()
		return
	}
	os.Exit(m.Run())
}

// Every machine reaches what it would reach outside the lab, by IPv4 and IPv6.
func TestNetwork(t *testing.T) {
	t.Parallel()
	l := labtest.Start(t, lab.Config{NoDocker: true})
	for _, m := range []*lab.Machine{l.Host, l.Internet, l.Neighbour} {
		serve(t, m)
	}
	for _, test := range []struct {
		from *lab.Machine
		to   netip.Addr
		name string // of the machine that answers
	}{
		{l.Internet, lab.HostAddr4, "host"},
		{l.Internet, lab.HostAddr6, "host"},
		{l.Neighbour, lab.HostAddr4, "host"},
		{l.Neighbour, lab.HostAddr6, "host"},
		{l.Host, lab.InternetAddr4, "internet"},
		{l.Host, lab.InternetAddr6, "internet"},
		{l.Host, lab.FarAddr4, "internet"},
		{l.Host, lab.FarAddr6, "internet"},
		{l.Host, lab.NeighbourAddr4, "neighbour"},
		{l.Host, lab.NeighbourAddr6, "neighbour"},
		{l.Neighbour, lab.FarAddr4, "internet"},
		{l.Host, netip.MustParseAddr("127.0.0.1"), "host"},
		{l.Neighbour, netip.MustParseAddr("::1"), "neighbour"},
	} {
		got, err := get(test.from, test.to, 80, "/")
		if err != nil || got != test.name {
			t.Errorf("%s to %s: %q, %v, want %q", test.from.Name, test.to, got, err, test.name)
		}
	}
	if _, err := l.Host.Dial(t.Context(), "tcp", "example.com:80"); err == nil {
		t.Error("Dial looked a name up outside the lab")
	}
	if c, err := net.DialTimeout("tcp", lab.HostAddr4.String()+":80", 300*time.Millisecond); err == nil {
		c.Close()
		t.Error("the lab's host can be reached from outside the lab")
	}
}

// The engine is a real one: containers run, publish ports and reach the
// internet; the kill of an engine leaves them running.
func TestEngine(t *testing.T) {
	t.Parallel()
	l := labtest.Start(t, lab.Config{
		DockerdArgs: []string{"--ipv6", "--fixed-cidr-v6=fd00:d0c::/64", "--ip6tables", "--experimental", "--live-restore"},
	})
	t.Logf("dockerd %s", l.EngineVersion())
	if l.EngineVersion() == "" {
		t.Error("no engine version")
	}
	docker(t, l, "run", "-d", "--name=agent", "-p", "8080:18789", lab.UserImage)
	waitAgent(t, l, lab.HostAddr4, 8080)

	for _, from := range []*lab.Machine{l.Internet, l.Neighbour, l.Host} {
		for _, to := range []netip.Addr{lab.HostAddr4, lab.HostAddr6} {
			// The container's IPv6 address is not usable at once.
			var err error
			if !poll(5*time.Second, func() bool { _, err = get(from, to, 8080, "/healthz"); return err == nil }) {
				t.Errorf("published port, %s to %s: %v", from.Name, to, err)
			}
		}
	}
	serve(t, l.Internet)
	for _, to := range []netip.Addr{lab.FarAddr4, lab.FarAddr6} {
		a := do(t, l, "agent", "get", "http://"+netip.AddrPortFrom(to, 80).String())
		if !a.OK || !strings.Contains(string(a.Result), "internet") {
			t.Errorf("container to %s: %v", to, a)
		}
	}

	// A stream from the container goes on while the engine is away.
	sink, err := l.Internet.Sink(t.Context(), "tcp", ":9000")
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	addr := netip.AddrPortFrom(lab.HostAddr4, 8080).String()
	if a, err := lab.Ask(t.Context(), l.Internet.Client(5*time.Second), addr, "stream-start", lab.FarAddr4.String()+":9000"); err != nil || !a.OK {
		t.Fatal(a, err)
	}
	flows := func() bool {
		before := sink.Bytes()
		return poll(5*time.Second, func() bool { return sink.Bytes() > before })
	}
	if !flows() {
		t.Fatal("nothing arrived")
	}
	if err := l.KillDockerd(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l.DockerdPID() != 0 {
		t.Error("dockerd has a process number after its death")
	}
	if err := l.StopDockerd(t.Context()); err == nil {
		t.Error("a dead engine could be stopped")
	}
	if !flows() {
		t.Error("the stream ended with the engine")
	}
	if err := l.StartDockerd(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.StartDockerd(t.Context()); err == nil {
		t.Error("two engines could be started")
	}
	if err := l.RestartDockerd(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := docker(t, l, "inspect", "-f", "{{.State.Running}}", "agent"); got != "true" {
		t.Errorf("running: %s", got)
	}
	if sink.Conns() != 1 || sink.Last().IsZero() || !flows() {
		t.Errorf("%d connections, last byte %v", sink.Conns(), sink.Last())
	}

	_, err = l.Docker(t.Context(), "run", "hardshell/no-such-image")
	if err == nil || !strings.Contains(err.Error(), "no-such-image") {
		t.Errorf("the error does not say what was wrong: %v", err)
	}
}

// The images differ in what they say they differ in.
func TestImages(t *testing.T) {
	t.Parallel()
	l := labtest.Start(t, lab.Config{})
	for image, uid := range map[string]string{
		lab.AgentImage: "0 0 0 0", lab.UserImage: "1000 1000 1000 1000", lab.ToorImage: "0 0 0 0", lab.VolumeImage: "1000 1000 1000 1000",
	} {
		out := docker(t, l, "run", "--rm", image, "do", "whoami")
		var a lab.Answer
		var who struct{ Uid string }
		if err := errors.Join(json.Unmarshal([]byte(out), &a), json.Unmarshal(a.Result, &who)); err != nil {
			t.Fatalf("%s: %v: %s", image, err, out)
		}
		if who.Uid != uid {
			t.Errorf("%s runs as %q, want %q", image, who.Uid, uid)
		}
	}
	if out := docker(t, l, "inspect", "-f", "{{.Config.User}}", lab.ToorImage); out != "toor" {
		t.Errorf("toor's image has the user %q", out)
	}
	if out := docker(t, l, "inspect", "-f", "{{.Config.Volumes}}", lab.VolumeImage); out != "map[/data:{}]" {
		t.Errorf("volumes: %s", out)
	}

	// Confined, the agent cannot change its own code, and says why.
	docker(t, l, "run", "-d", "--name=open", lab.UserImage)
	docker(t, l, "run", "-d", "--name=confined", "--read-only", "--tmpfs=/tmp", lab.UserImage)
	if a := do(t, l, "open", "write", "/app/skills", "bad"); !a.OK {
		t.Error(a)
	}
	if a := do(t, l, "confined", "write", "/app/skills", "bad"); a.OK || a.Errno != "EROFS" {
		t.Error(a)
	}
	if a := do(t, l, "open", "spawn", "2", "orphan"); !a.OK {
		t.Error(a)
	}
	if got := docker(t, l, "top", "open", "-o", "pid,args"); strings.Count(got, "sleep 3600") != 2 {
		t.Errorf("orphans:\n%s", got)
	}

	// The picky agent.
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--read-only"}, "1"},
		{[]string{"--read-only", "--tmpfs=/tmp"}, "78"},
		{[]string{"--read-only", "--tmpfs=/tmp", "--tmpfs=/state:uid=1000", "-e", "XDG_CACHE_HOME=/state/cache"}, "running"},
		{nil, "running"},
	} {
		id := docker(t, l, append(append([]string{"run", "-d"}, test.args...), lab.PickyImage)...)
		got := ""
		poll(5*time.Second, func() bool {
			got = docker(t, l, "inspect", "-f", "{{if .State.Running}}running{{else}}{{.State.ExitCode}}{{end}}", id)
			return got == test.want
		})
		if got != test.want {
			t.Errorf("picky agent with %q: %s, want %s", test.args, got, test.want)
		}
	}

	// Health.
	docker(t, l, "run", "-d", "--name=health", lab.HealthImage)
	docker(t, l, "run", "-d", "--name=unwell", lab.UnwellImage)
	health := func(name, want string) {
		t.Helper()
		if !poll(10*time.Second, func() bool { return docker(t, l, "inspect", "-f", "{{.State.Health.Status}}", name) == want }) {
			t.Errorf("%s does not become %s", name, want)
		}
	}
	health("health", "healthy")
	health("unwell", "unhealthy")
	if a := do(t, l, "health", "write", "/tmp/unwell", ""); !a.OK {
		t.Error(a)
	}
	health("health", "unhealthy")
}

// Containers' processes and their root can be inspected from outside, as an
// auditor on the host would.
func TestContainersAreVisible(t *testing.T) {
	t.Parallel()
	l := labtest.Start(t, lab.Config{})
	docker(t, l, "run", "-d", "--name=agent", "-v", "/run/docker.sock:/var/run/docker.sock", lab.AgentImage)
	pid := docker(t, l, "inspect", "-f", "{{.State.Pid}}", "agent")
	data, err := os.ReadFile("/proc/" + pid + "/root/etc/passwd")
	if err != nil || !strings.Contains(string(data), "toor") {
		t.Errorf("/proc/%s/root: %q, %v", pid, data, err)
	}
	// The mistake that the socket's mount is works as it does elsewhere.
	if a := do(t, l, "agent", "unix", "/var/run/docker.sock", "/_ping"); !a.OK {
		t.Errorf("Docker's socket in the container: %v", a)
	}
}

// A privileged container starts, also where the machine itself lacks
// capabilities, and is privileged.
func TestPrivileged(t *testing.T) {
	t.Parallel()
	l := labtest.Start(t, lab.Config{})
	docker(t, l, "run", "-d", "--name=free", "--privileged", lab.AgentImage)
	docker(t, l, "run", "-d", "--name=plain", "--cap-add=ALL", lab.AgentImage)
	for _, test := range []struct {
		container, verb string
		args            []string
		ok              bool
	}{
		{"free", "mount", []string{"/tmp"}, true},
		{"free", "stat", []string{"/dev/kmsg"}, true}, // it has the machine's devices
		{"free", "unshare", []string{"net"}, true},
		{"plain", "hostname", []string{"renamed"}, true},
		{"plain", "stat", []string{"/dev/kmsg"}, false},
	} {
		if a := do(t, l, test.container, test.verb, test.args...); a.OK != test.ok {
			t.Errorf("%s: %s %q: %v", test.container, test.verb, test.args, a)
		}
	}
	if out := docker(t, l, "exec", "--privileged", "plain", "/agent", "do", "whoami"); !strings.Contains(out, `"ok":true`) {
		t.Error(out)
	}
	if out := docker(t, l, "inspect", "-f", "{{.HostConfig.Privileged}} {{.HostConfig.Runtime}}", "free"); out != "true runc" {
		t.Error(out)
	}
}

// Two labs, in the same process, have the same addresses and nothing else in
// common.
func TestTwoLabs(t *testing.T) {
	t.Parallel()
	a := labtest.Start(t, lab.Config{})
	b := labtest.Start(t, lab.Config{})
	if a.ID() == b.ID() || a.Dir() == b.Dir() || a.DockerHost() == b.DockerHost() {
		t.Fatalf("%s and %s share a name", a.ID(), b.ID())
	}
	docker(t, a, "run", "-d", "--name=agent", "-p", "8080:18789", lab.AgentImage)
	waitAgent(t, a, lab.HostAddr4, 8080)
	if out := docker(t, b, "ps", "-aq"); out != "" {
		t.Errorf("b has a's container: %s", out)
	}
	if _, err := get(b.Internet, lab.HostAddr4, 8080, "/healthz"); err == nil {
		t.Error("b reaches a's container")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := get(a.Internet, lab.HostAddr4, 8080, "/healthz"); err != nil {
		t.Errorf("the end of b harmed a: %v", err)
	}
}

// Labs start, sweep and close at the same time without harm to each other.
func TestManyLabs(t *testing.T) {
	t.Parallel()
	cfg := labtest.Require(t, lab.Config{NoDocker: true})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				l, err := lab.Start(t.Context(), cfg)
				if err != nil {
					t.Error(err)
					return
				}
				if out, err := l.Host.Command(t.Context(), "cat", "/etc/resolv.conf").Output(); err != nil || !strings.Contains(string(out), "198.51.100.10") {
					t.Errorf("%q, %v", out, err)
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
				if left := remains(l.ID()); len(left) > 0 {
					t.Errorf("left: %q", left)
				}
			}
		})
	}
	wg.Wait()
}

// Whatever happens in a lab, the machine it runs on stays as it was. Not
// parallel, so that what changes is the lab's doing; other labs change nothing
// either.
func TestTheMachineIsUntouched(t *testing.T) {
	before := machineState(t)
	l := labtest.Start(t, lab.Config{UFW: true})
	docker(t, l, "network", "create", "more")
	docker(t, l, "run", "-d", "--name=agent", "-p", "8080:18789", lab.AgentImage)
	waitAgent(t, l, lab.HostAddr4, 8080)
	serve(t, l.Host)
	if _, err := get(l.Internet, lab.HostAddr4, 80, "/"); err != nil {
		t.Errorf("before ufw: %v", err)
	}
	for _, args := range []string{"default deny incoming", "deny 8080/tcp", "--force enable"} {
		if out, err := l.Host.Command(t.Context(), "ufw", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ufw %s: %v: %s", args, err, out)
		}
	}
	if out, err := l.Host.Command(t.Context(), "ufw", "status").Output(); err != nil || !strings.Contains(string(out), "Status: active") {
		t.Errorf("ufw status: %v: %s", err, out)
	}
	// This is real UFW with a real Docker: it guards the host's services, and
	// Docker's ports go around it.
	if _, err := get(l.Internet, lab.HostAddr4, 80, "/"); err == nil {
		t.Error("ufw let a connection to a host service through")
	}
	if _, err := get(l.Internet, lab.HostAddr4, 8080, "/healthz"); err != nil {
		t.Errorf("ufw holds for a published port, which would be news: %v", err)
	}
	if err := os.WriteFile(l.HostPath("/etc/docker/daemon.json"), []byte(`{"labels":["set=here"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.RestartDockerd(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := docker(t, l, "info", "-f", "{{.Labels}}"); out != "[set=here]" {
		t.Errorf("the engine did not read the host's daemon.json: %s", out)
	}
	compare(t, "while the lab runs", before, machineState(t))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	compare(t, "after the lab", before, machineState(t))
}

// machineState is all of the machine that a lab could harm.
func machineState(t *testing.T) map[string]string {
	t.Helper()
	state := map[string]string{}
	for _, argv := range [][]string{
		{"ip", "-o", "link"}, {"ip", "netns"}, {"nft", "list", "ruleset"}, {"iptables-save"},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err == nil {
			state[strings.Join(argv, " ")] = string(out)
		}
	}
	for _, name := range []string{
		"/proc/self/mountinfo", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding",
		"/proc/sys/net/ipv4/conf/all/route_localnet", "/proc/sys/net/bridge/bridge-nf-call-iptables",
		"/proc/sys/kernel/keys/root_maxkeys", "/proc/sys/kernel/hostname",
	} {
		if data, err := os.ReadFile(name); err == nil {
			state[name] = string(data)
		}
	}
	err := filepath.WalkDir("/etc", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		line := fmt.Sprint(info.Mode(), info.ModTime())
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %x", sha256.Sum256(data))
		}
		state[path] = line
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/run", "/var/lib"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() != "hardshell-lab" { // other labs may be about
				state[filepath.Join(dir, e.Name())] = "exists"
			}
		}
	}
	return state
}

func compare(t *testing.T, when string, before, after map[string]string) {
	t.Helper()
	keys := slices.Sorted(maps.Keys(before))
	for key := range after {
		if _, ok := before[key]; !ok {
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		if before[key] != after[key] {
			t.Errorf("%s, %s changed:\n%s\nto\n%s", when, key, before[key], after[key])
		}
	}
}

// serve answers on port 80 of the machine with its name.
func serve(t *testing.T, m *lab.Machine) {
	t.Helper()
	ln, err := m.Listen(t.Context(), "tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, m.Name) })}
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
}

func get(from *lab.Machine, to netip.Addr, port uint16, path string) (string, error) {
	resp, err := from.Client(time.Second).Get("http://" + netip.AddrPortFrom(to, port).String() + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var body [100]byte
	n, _ := resp.Body.Read(body[:])
	return string(body[:n]), nil
}

func docker(t *testing.T, l *lab.Lab, args ...string) string {
	t.Helper()
	out, err := l.Docker(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func do(t *testing.T, l *lab.Lab, container, verb string, args ...string) lab.Answer {
	t.Helper()
	a, err := l.Do(t.Context(), container, verb, args...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func waitAgent(t *testing.T, l *lab.Lab, to netip.Addr, port uint16) {
	t.Helper()
	var err error
	if !poll(10*time.Second, func() bool { _, err = get(l.Internet, to, port, "/healthz"); return err == nil }) {
		t.Fatal(err)
	}
}

// poll calls f until it returns true, and returns whether it did in time.
func poll(limit time.Duration, f func() bool) bool {
	for deadline := time.Now().Add(limit); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}
