package access_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/access"
	"github.com/managemyclaw/hardshell/harden/access/gitleaks"
	"github.com/managemyclaw/hardshell/harden/access/netns"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/container/docker"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// inLab connects from the lab: the machine's own network is the lab host's.
type inLab struct{ lab *lab.Lab }

func (i inLab) DialFrom(ctx context.Context, pid int, network, address string) (net.Conn, error) {
	if pid == 0 {
		return i.lab.Host.Dial(ctx, network, address)
	}
	return netns.Dialer{}.DialFrom(ctx, pid, network, address)
}

// TestLive runs real containers that hold credentials in many ways, with the
// internet of the lab for Composio.
func TestLive(t *testing.T) {
	l := labtest.Start(t, lab.Config{})
	ctx := t.Context()
	engine, err := docker.Open(l.DockerHost())
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	general, err := gitleaks.New()
	if err != nil {
		t.Fatal(err)
	}
	sink, err := l.Internet.Sink(ctx, "tcp", net.JoinHostPort(lab.FarAddr4.String(), "443"))
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	docker := func(args ...string) string {
		t.Helper()
		out, err := l.Docker(ctx, args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	shared := l.HostPath("/var/lib/labshared")
	if err := os.MkdirAll(shared, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(shared, "tool.env"), []byte("A=1\nB="+projectKey+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}

	do := func(verb string, args ...string) func(string) {
		return func(name string) {
			t.Helper()
			if a, err := l.Do(ctx, name, verb, args...); err != nil || !a.OK {
				t.Fatalf("%s: %s: %v, %v", name, verb, a, err)
			}
		}
	}
	undo := func() {}
	cut := func(name string) {
		t.Helper()
		addr := docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", name)
		how := "REJECT"
		if strings.HasSuffix(name, "-clean") {
			how = "DROP" // silence takes as long as the attempt waits
		}
		rule := func(op string) {
			if out, err := l.Host.Command(context.WithoutCancel(ctx), "iptables", op, "DOCKER-USER", "-s", addr, "-d", lab.FarAddr4.String(), "-j", how).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		}
		rule("-I")
		undo = func() { rule("-D") } // the address will be another container's
	}
	claw := "/home/app/.openclaw"
	github := "ghp_" + "kR8vT2xW5yZ1aB4cD7eF0gH3jK6lM9nP2qS5"
	clean := []string{"--read-only", "-v", claw, "--tmpfs", "/tmp:mode=1777", "-e", "HOME=/home/app", "-e", "TOOLS_TOKEN=" + agentToken, "-e", "OPENCLAW_GATEWAY_TOKEN=3f9a8c7be10d42aa"}
	config := func(text string) func(string) {
		return func(name string) {
			t.Helper()
			// The volume belongs to root, and so does who writes to it.
			if out, err := l.Docker(ctx, "exec", "-u", "0", name, "/agent", "do", "write", claw+"/openclaw.json", text); err != nil {
				t.Fatal(out, err)
			}
		}
	}
	rootDo := func(args ...string) func(string) {
		return func(name string) {
			t.Helper()
			if out, err := l.Docker(ctx, append([]string{"exec", "-u", "0", name, "/agent", "do"}, args...)...); err != nil {
				t.Fatal(out, err)
			}
		}
	}
	exec := func(opts []string, args ...string) func(string) {
		return func(name string) {
			t.Helper()
			docker(slices.Concat([]string{"exec", "-d"}, opts, []string{name, "/agent"}, args)...)
		}
	}

	for i, c := range []struct {
		name  string
		args  []string // of docker run, beside those that make it clean
		all   []string // instead of them
		after []func(string)
		open  bool              // Composio is not closed off
		want  map[string]string // what does not pass, and the finding's kind or "unknown"
	}{
		{name: "clean", want: map[string]string{}},
		{name: "open", open: true, want: map[string]string{"gateway_only": "open"}},
		{name: "env", args: []string{"-e", "X=" + consumerKey}, want: map[string]string{"agent_credentials": "composio_key"}},
		{name: "env-base64", args: []string{"-e", "X=" + base64.StdEncoding.EncodeToString([]byte("k:"+consumerKey))}, want: map[string]string{"agent_credentials": "composio_key"}},
		{name: "env-other-service", args: []string{"-e", "GH=" + github}, want: map[string]string{"agent_credentials": "github_pat"}},
		{name: "env-exec", after: []func(string){exec([]string{"-e", "LANG=" + projectKey}, "sleep", "600")}, want: map[string]string{"agent_credentials": "known_credential"}},
		{name: "arg-split", args: []string{"-e", "A=" + projectKey[:12]}, after: []func(string){exec(nil, "sleep", "600.0"+projectKey[12:])}, want: map[string]string{"agent_credentials": "known_credential"}},
		{name: "volume", after: []func(string){rootDo("write", claw+"/.env", "K="+projectKey)}, want: map[string]string{"agent_credentials": "known_credential"}},
		{name: "tmpfs", after: []func(string){do("write", "/tmp/.k", consumerKey)}, want: map[string]string{"agent_credentials": "composio_key"}},
		{name: "shm", after: []func(string){do("write", "/dev/shm/k", consumerKey)}, want: map[string]string{"agent_credentials": "composio_key"}},
		{name: "bind", args: []string{"-v", "/var/lib/labshared:/opt/shared:ro"}, want: map[string]string{"agent_credentials": "known_credential"}},
		{
			name: "layer", all: []string{"-u", "0", "-v", claw, "-e", "HOME=/home/app", "-e", "TOOLS_TOKEN=" + agentToken},
			after: []func(string){rootDo("write", "/etc/agent.conf", "K="+projectKey), rootDo("mkdir", "/opt/deep/er"), rootDo("write", "/opt/deep/er/k", consumerKey)},
			want:  map[string]string{"agent_credentials": "composio_key"},
		},
		{name: "store", after: []func(string){rootDo("mkdir", claw+"/state"), rootDo("write", claw+"/state/openclaw.sqlite", `SQLite format 3 {"tokens":{"access_token":"`+oauthToken+`"}}`)}, want: map[string]string{"agent_credentials": "oauth_token", "tokens_at_rest": "oauth_token"}},
		{name: "config-plugin", after: []func(string){config(`{plugins:{entries:{composio:{config:{consumerKey:"${CK}"}}}}}`)}, args: []string{"-e", "CK=plain-looking-value"}, want: map[string]string{"openclaw_config": "composio", "gateway_only": "configured"}},
		{name: "config-comment", after: []func(string){config("{ // " + consumerKey + "\n}")}, want: map[string]string{"openclaw_config": "composio_key", "agent_credentials": "composio_key"}},
		{name: "host-network", all: append(slices.Clone(clean), "--network", "host"), open: true, want: map[string]string{"gateway_only": "open"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := fmt.Sprintf("a%02d-%s", i, c.name)
			args := c.all
			if args == nil {
				args = append(slices.Clone(clean), c.args...)
			}
			if c.name == "host-network" {
				docker(slices.Concat([]string{"run", "-d", "--name", name}, args, []string{lab.UserImage, "serve", "-port", "19999"})...)
			} else {
				docker(slices.Concat([]string{"run", "-d", "--name", name}, args, []string{lab.UserImage})...)
			}
			defer docker("rm", "-f", name)
			config(gatewayConfig)(name)
			for _, f := range c.after {
				f(name)
			}
			if !c.open {
				cut(name)
				defer func() { undo() }()
			}
			cfg := access.Config{
				Containers: container.NewSource(engine, name),
				Detector:   general,
				Known:      access.Secrets(projectKey),
				Tokens:     [][sha256.Size]byte{sha256.Sum256([]byte(agentToken))},
				Own:        []string{"OPENCLAW_GATEWAY_TOKEN"},
				Gateway:    access.Gateway{URL: "http://172.17.0.1:7080"},
				Direct:     []access.Destination{{Name: "backend.composio.dev", Addrs: []netip.Addr{lab.FarAddr4}}},
				Inside:     inLab{l},
			}
			view := &labtest.Host(t, l).View
			checks := access.Checks(cfg)
			looked, done := harden.Share(ctx) // at each thing once
			defer done()
			for _, id := range []string{"agent_credentials", "openclaw_config", "gateway_only", "tokens_at_rest"} {
				at := slices.IndexFunc(checks, func(c harden.Check) bool { return c.Info().ID == "access."+id })
				r := harden.Evaluate(looked, view, checks[at], 0)
				want, bad := c.want[id]
				switch {
				case !bad && r.Status != harden.StatusPass, bad && r.Status != harden.StatusFail:
					t.Errorf("%s: %v (%s) %+v", id, r.Status, r.Detail, r.Findings)
				case bad && !slices.ContainsFunc(r.Findings, func(f harden.Finding) bool { return f.ID == "access."+id+"."+want }):
					t.Errorf("%s: no finding %s: %+v", id, want, r.Findings)
				}
				if c.name == "clean" {
					t.Logf("%s: %v %+v", id, r.Elapsed, r.Evidence)
				}
				for _, secret := range []string{projectKey, consumerKey, agentToken, oauthToken, github, "3f9a8c7be10d42aa", "plain-looking-value"} {
					if strings.Contains(fmt.Sprintf("%+v %#v", r, r), secret) {
						t.Errorf("%s shows a credential", id)
					}
				}
			}
		})
	}
}
