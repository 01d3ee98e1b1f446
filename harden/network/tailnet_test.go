package network

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/hardentest"
	"github.com/managemyclaw/hardshell/harden/network/tailscale"
)

// daemon answers on a unix socket as tailscaled did when its answers were
// recorded, with some of the text replaced.
func daemon(t testing.TB, status, prefs, config string, replace ...string) *tailscale.Client {
	t.Helper()
	answer := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join("tailscale", "testdata", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		return []byte(strings.NewReplacer(replace...).Replace(string(data)))
	}
	answers := map[string][]byte{"status": answer(status), "prefs": answer(prefs), "serve-config": answer(config)}
	socket := filepath.Join(t.TempDir(), "tailscaled.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "local-tailscaled.sock" || r.Method != http.MethodGet {
			http.Error(w, "invalid localapi request", http.StatusForbidden)
			return
		}
		w.Write(answers[strings.TrimPrefix(r.URL.Path, "/localapi/v0/")])
	})}
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
	return &tailscale.Client{Socket: socket}
}

func tailnetOf(t testing.TB, c *tailscale.Client) Machine {
	t.Helper()
	s, err := c.Read(t.Context())
	return Machine{Tailnet: s, TailnetErr: err}
}

const (
	good    = harden.StatusPass
	bad     = harden.StatusFail
	unknown = harden.StatusUnknown
	moot    = harden.StatusNotApplicable
)

// Recorded answers of a real tailscaled decide as they should.
func TestTailnet(t *testing.T) {
	operator := func(uid uint32) func(*Machine) { return func(m *Machine) { m.Operator = &uid } }
	agent := func(uids ...uint32) func(*Machine) {
		return func(m *Machine) {
			var k container.Kernel
			for i, uid := range uids {
				k.Processes = append(k.Processes, container.Process{PID: 100 + i, Name: "node", UIDs: [4]uint32{uid, uid, uid, uid}})
			}
			m.Agents = append(m.Agents, container.Container{Settings: container.Settings{Name: "openclaw"}, Kernel: &k})
		}
	}
	unseen := func(m *Machine) {
		m.Agents = append(m.Agents, container.Container{Settings: container.Settings{Name: "openclaw"}, KernelErr: container.ErrNotRunning})
	}
	socket := func(path, owner string) func(*Machine) {
		return func(m *Machine) {
			agent(1000)(m)
			m.Agents[0].Kernel.Sockets = []container.ReachableSocket{{HostPath: path, Path: "/x.sock", Owner: owner}}
		}
	}
	const is = `"RemoteConfig": false`
	const op = `"OperatorUser": "agent", "RemoteConfig": false`
	soon := time.Now().Add(72 * time.Hour).UTC().Format(time.RFC3339)
	later := time.Now().Add(30 * 24 * time.Hour).UTC().Format(time.RFC3339)
	past := time.Now().Add(-time.Second).UTC().Format(time.RFC3339)
	const expiry = "2026-11-25T11:14:55Z" // of the recorded state with three days left

	for _, tt := range []struct {
		name                    string
		status, prefs, serve    string // recorded; the first, default and none if empty
		replace                 []string
		facts                   []func(*Machine)
		users                   []string
		up, funnel, oper, prefV harden.Status
	}{
		{name: "in its tailnet", up: good, funnel: good, oper: good, prefV: good},
		{name: "stopped", status: "status-stopped", up: bad, funnel: good, oper: good, prefV: good},
		{name: "never logged in", status: "status-needslogin", up: bad, funnel: good, oper: good, prefV: good},
		{name: "key expired, and still online", status: "status-expired", up: bad, funnel: good, oper: good, prefV: good},
		{name: "key expires in three days", status: "status-keyexpiry-72h", replace: []string{expiry, soon}, up: bad, funnel: good, oper: good, prefV: good},
		{name: "key expires in a month", status: "status-keyexpiry-72h", replace: []string{expiry, later}, up: good, funnel: good, oper: good, prefV: good},
		{name: "key expired a second ago", status: "status-keyexpiry-72h", replace: []string{expiry, past}, up: bad, funnel: good, oper: good, prefV: good},
		{name: "Funnel by the daemon", serve: "serve-funnel", up: good, funnel: bad, oper: good, prefV: good},
		{name: "Funnel in the foreground too", serve: "serve-foreground", up: good, funnel: bad, oper: good, prefV: good},
		{name: "Funnel in the foreground alone", serve: "serve-foreground", replace: []string{`:8443":true`, `:8443":false`}, up: good, funnel: bad, oper: good, prefV: good},
		{name: "served to the tailnet", serve: "serve-tailnet-only", up: good, funnel: good, oper: good, prefV: good},
		{name: "Tailscale SSH and shields up", prefs: "prefs-ssh-shields", up: good, funnel: good, oper: good, prefV: good},
		{name: "remote configuration", replace: []string{is, `"RemoteConfig": true`}, up: good, funnel: good, oper: good, prefV: bad},
		{name: "web interface", replace: []string{`"RunWebClient": false`, `"RunWebClient": true`}, up: good, funnel: good, oper: good, prefV: bad},
		{name: "operator is the agent by name", replace: []string{is, op}, users: []string{"agent"}, up: good, funnel: good, oper: bad, prefV: good},
		{name: "operator is the agent by number", replace: []string{is, op}, facts: []func(*Machine){operator(1001)}, users: []string{"1001"}, up: good, funnel: good, oper: bad, prefV: good},
		{name: "operator's number is that of a container's process", replace: []string{is, op}, facts: []func(*Machine){operator(1000), agent(999, 1000)}, up: good, funnel: good, oper: bad, prefV: good},
		{name: "operator is somebody else", replace: []string{is, op}, facts: []func(*Machine){operator(1001), agent(1000)}, up: good, funnel: good, oper: good, prefV: good},
		{name: "operator is nobody known", replace: []string{is, op}, facts: []func(*Machine){agent(1000)}, up: good, funnel: good, oper: unknown, prefV: good},
		{name: "operator, and a container that cannot be seen", replace: []string{is, op}, facts: []func(*Machine){operator(1001), unseen}, up: good, funnel: good, oper: unknown, prefV: good},
		{name: "the socket in a container", facts: []func(*Machine){socket("/run/tailscale/tailscaled.sock", "tailscaled")}, up: good, funnel: good, oper: bad, prefV: good},
		{name: "the socket in a container, its owner not known", facts: []func(*Machine){socket("/run/tailscale/tailscaled.sock", "")}, up: good, funnel: good, oper: bad, prefV: good},
		{name: "the socket in a container by another name", facts: []func(*Machine){socket("/srv/ts", "tailscaled")}, up: good, funnel: good, oper: bad, prefV: good},
		{name: "another socket in a container", facts: []func(*Machine){socket("/run/x.sock", "x")}, up: good, funnel: good, oper: good, prefV: good},
	} {
		t.Run(tt.name, func(t *testing.T) {
			or := func(s, otherwise string) string {
				if s == "" {
					return otherwise
				}
				return s
			}
			m := tailnetOf(t, daemon(t, or(tt.status, "status-running"), or(tt.prefs, "prefs-default"), or(tt.serve, "serve-none"), tt.replace...))
			if m.TailnetErr != nil {
				t.Fatal(m.TailnetErr)
			}
			for _, f := range tt.facts {
				f(&m)
			}
			c := &Config{AgentUsers: tt.users}
			for _, j := range []struct {
				name string
				judge
				want harden.Status
			}{
				{"up", c.judgeTailnetUp, tt.up},
				{"funnel", c.judgeFunnel, tt.funnel},
				{"operator", c.judgeOperator, tt.oper},
				{"prefs", c.judgePrefs, tt.prefV},
			} {
				v, err := j.judge(t.Context(), m)
				if v.Status() != j.want || (err != nil) != (j.want == unknown) {
					t.Errorf("%s: got %v (%v), %+v; want %v", j.name, v.Status(), err, v.Findings(), j.want)
				}
			}
		})
	}
}

// No tailscaled is a fact; one that cannot be asked is a gap.
func TestNoTailnet(t *testing.T) {
	c := new(Config)
	for _, tt := range []struct {
		name     string
		m        Machine
		up, rest harden.Status
	}{
		{"no tailscaled", tailnetOf(t, &tailscale.Client{Socket: filepath.Join(t.TempDir(), "none")}), bad, moot},
		{"a socket that may not be opened", Machine{TailnetErr: os.ErrPermission}, unknown, unknown},
		{"nobody to ask", Machine{TailnetErr: ErrNoTailscale}, unknown, unknown},
		{"the zero machine", Machine{}, unknown, unknown},
	} {
		for _, j := range []struct {
			judge
			want harden.Status
		}{{c.judgeTailnetUp, tt.up}, {c.judgeFunnel, tt.rest}, {c.judgeOperator, tt.rest}, {c.judgePrefs, tt.rest}} {
			if v, err := j.judge(t.Context(), tt.m); v.Status() != j.want || (err != nil) != (j.want == unknown) {
				t.Errorf("%s: got %v, %v; want %v", tt.name, v.Status(), err, j.want)
			}
		}
	}
}

func TestTailnetJudges(t *testing.T) {
	running := tailnetOf(t, daemon(t, "status-running", "prefs-default", "serve-none"))
	funnel := tailnetOf(t, daemon(t, "status-running", "prefs-default", "serve-foreground"))
	expired := tailnetOf(t, daemon(t, "status-expired", "prefs-default", "serve-none"))
	remote := tailnetOf(t, daemon(t, "status-running", "prefs-default", "serve-none", `"RemoteConfig": false`, `"RemoteConfig": true`))
	agents := tailnetOf(t, daemon(t, "status-running", "prefs-default", "serve-none", `"RemoteConfig": false`, `"OperatorUser": "agent"`))
	lost := []Machine{{TailnetErr: errors.New("hangs")}, {}}
	c := Config{AgentUsers: []string{"agent"}}
	infos := make(map[string]harden.Info)
	for _, check := range Checks(c) {
		infos[check.Info().ID] = check.Info()
	}
	for _, tt := range []struct {
		id    string
		judge func(context.Context, Machine) (harden.Verdict, error)
		bad   Machine
	}{
		{"network.tailscale_up", c.judgeTailnetUp, expired},
		{"network.tailscale_funnel", c.judgeFunnel, funnel},
		{"network.tailscale_operator", c.judgeOperator, agents},
		{"network.tailscale_prefs", c.judgePrefs, remote},
	} {
		t.Run(tt.id, func(t *testing.T) {
			hardentest.RunJudge(t, hardentest.JudgeSubject[Machine]{
				Info: infos[tt.id], Judge: tt.judge, Good: []Machine{running}, Bad: []Machine{tt.bad}, Unknown: lost,
				NoSecret: "what is kept of tailscaled's answers holds none",
			})
		})
	}
}
