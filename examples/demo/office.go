//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/composiotest"
	"github.com/managemyclaw/hardshell/composio/gateway"
	"github.com/managemyclaw/hardshell/internal/lab"
)

const (
	user        = "ann"
	toolVersion = "20260902_00"
	readMail    = "GMAIL_FETCH_EMAILS"
	deleteMail  = "GMAIL_DELETE_MESSAGE"
	readSlack   = "SLACK_LIST_CHANNELS"
	postSlack   = "SLACK_SEND_MESSAGE"
	readEvents  = "GOOGLECALENDAR_EVENTS_LIST"

	composioAddress = "127.0.0.1:9400"
	gatewayAddress  = "172.17.0.1:8787"
)

// An office is what the agent works with: its owner's accounts, at a stand-in
// for Composio, and the gateway that stands before it.
type office struct {
	composio *composiotest.Server
	dir      string
	token    composio.Secret // the agent's
	flags    []string        // that tell the reference program of it
}

// open sets it up on the lab's host.
func (o *office) open(ctx context.Context, l *lab.Lab, dir string) error {
	o.dir = dir
	o.composio = composiotest.New(composiotest.Config{Latency: 20 * time.Millisecond})
	for slug, tag := range map[string]string{readMail: "readOnlyHint", deleteMail: "destructiveHint", readSlack: "readOnlyHint", postSlack: "createHint", readEvents: "readOnlyHint"} {
		o.composio.AddTool(composiotest.Tool{Slug: slug, Version: toolVersion, Tags: []string{tag}, Input: map[string]any{"type": "object", "properties": map[string]any{}}})
	}
	accounts := map[string]string{"gmail": "ca_mail", "slack": "ca_slack", "googlecalendar": "ca_calendar"}
	for toolkit, id := range accounts {
		o.composio.AddAccount(composiotest.Account{ID: id, UserID: user, Toolkit: toolkit})
	}
	o.composio.AddAccount(composiotest.Account{ID: "ca_canary", UserID: canary, Toolkit: "gmail"})
	ln, err := l.Host.Listen(ctx, "tcp", composioAddress)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: o.composio, ReadHeaderTimeout: time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	context.AfterFunc(ctx, func() { server.Close() })
	go server.Serve(ln) //nolint:errcheck // ends with ctx

	token, hash := gateway.NewToken()
	probe, probeHash := gateway.NewToken()
	tame, tameHash := gateway.NewToken()
	o.token = token
	policy, err := json.Marshal(&gateway.Policy{Agents: map[string]gateway.Agent{canary: {
		Tokens: []gateway.TokenHash{tameHash}, UserID: canary, Accounts: map[string]string{"gmail": "ca_canary"},
		Tools: map[string]gateway.Grant{readMail: {Version: toolVersion, Class: composio.ClassRead}},
	}, agent: {
		Tokens: []gateway.TokenHash{hash, probeHash}, UserID: user, Accounts: accounts,
		Tools: map[string]gateway.Grant{
			readMail:   {Version: toolVersion, Class: composio.ClassRead},
			deleteMail: {Version: toolVersion, Class: composio.ClassDestructive},
			readSlack:  {Version: toolVersion, Class: composio.ClassRead},
			readEvents: {Version: toolVersion, Class: composio.ClassRead},
		},
		Breaker: gateway.Limit{Calls: 10_000, Per: time.Hour}, // so that the kill switch is what stops it
	}}})
	if err != nil {
		return err
	}
	files := map[string]string{"policy.json": string(policy), "composio.key": composiotest.ProjectKey, "probe.token": probe.Reveal(), "canary.token": tame.Reveal()}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	o.flags = []string{
		"--policy", filepath.Join(dir, "policy.json"), "--composio-key-file", filepath.Join(dir, "composio.key"), "--composio-url", "http://" + composioAddress,
	}
	return nil
}

// probing are the flags with which the program asks the gateway.
func (o *office) probing() []string {
	return append(o.flags[:len(o.flags):len(o.flags)], "--gateway-url", "http://"+gatewayAddress, "--probe-token-file", filepath.Join(o.dir, "probe.token"))
}

const tokenVariable = "COMPOSIO_TOKEN"

// config is the agent's, and has its tools come from the gateway.
func (o *office) config() string {
	return `{"mcp":{"servers":{"tools":{"url":"http://` + gatewayAddress + `/mcp","headers":{"x-api-key":"${` + tokenVariable + `}"}}}}}`
}

// deleted is how many messages are gone.
func (o *office) deleted() int {
	n := 0
	for _, e := range o.composio.Executions() {
		if e.Tool == deleteMail && !e.Failed {
			n++
		}
	}
	return n
}

// A service is the reference program while it runs as one.
type service struct {
	cmd  *exec.Cmd
	mu   sync.Mutex
	said bytes.Buffer
	done chan struct{}
}

func (s *service) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said.Write(p)
}

func (s *service) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said.String()
}

// serve starts a command that goes on, and waits until it has said something.
func (d *demo) serve(ctx context.Context, ready, command string, args ...string) (*service, error) {
	s := &service{cmd: d.onHost(ctx, d.session, append([]string{command}, args...)...), done: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = s, s
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(os.Interrupt) }
	s.cmd.WaitDelay = 10 * time.Second
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		s.cmd.Wait() //nolint:errcheck // what it said tells more
		close(s.done)
	}()
	deadline := time.After(30 * time.Second)
	for !strings.Contains(s.text(), ready) {
		select {
		case <-s.done:
			return nil, fmt.Errorf("managemyclaw %s ended: %s", command, s.text())
		case <-deadline:
			return nil, fmt.Errorf("managemyclaw %s does not say %q: %s", command, ready, s.text())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return s, nil
}

// tool has the agent call a tool through the gateway.
func (d *demo) tool(ctx context.Context, name string) (status string, err error) {
	a, err := d.lab.Do(ctx, agent, "tool", "http://"+gatewayAddress, d.office.token.Reveal(), name, body)
	if err != nil {
		return "", err
	}
	if !a.OK {
		return "", errors.New(a.Error)
	}
	return string(a.Result), nil
}

var body = fmt.Sprintf(`{"user_id":%q,"version":%q,"arguments":{}}`, user, toolVersion)

// tools puts the gateway between the agent and Composio.
func (d *demo) tools(ctx context.Context) error {
	// The gateway is on the bridge, where the agent is; a firewall that lets
	// nobody in who is not named must name it.
	bridge, port, err := net.SplitHostPort(gatewayAddress)
	if err != nil {
		return err
	}
	ufw := []string{"ufw", "allow", "in", "on", "docker0", "to", bridge, "port", port, "proto", "tcp"}
	d.say("$ %s\n", strings.Join(ufw, " "))
	if out, err := d.lab.Host.Command(ctx, ufw[0], ufw[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("ufw: %w: %s", err, out)
	}
	more := []string{"--listen", gatewayAddress}
	d.say("$ managemyclaw gateway%s%s &\n", shown(more), shown(d.office.flags))
	_, err = d.serve(ctx, "serving", "gateway", append(more, d.office.flags...)...)
	return err
}

// shown is how flags are shown: a line each, and files without their directory.
func shown(flags []string) string {
	var b strings.Builder
	for i := 0; i+1 < len(flags); i += 2 {
		value := flags[i+1]
		if filepath.IsAbs(value) {
			value = filepath.Base(value)
		}
		fmt.Fprintf(&b, " \\\n    %s %s", flags[i], value)
	}
	return b.String()
}
