package access_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/access"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/host/hosttest"
)

func addrs(all ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range all {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// agentCases are situations of an agent's container, with what a check says.
var agentCases = []struct {
	name    string
	machine func(*hosttest.Machine)
	config  func(*access.Config)
	check   string
	status  harden.Status
	finding string // id, without the check's
	detail  string // part of the message or the detail
}{
	{name: "as it should be", check: "agent_credentials", status: harden.StatusPass},
	{name: "as it should be", check: "openclaw_config", status: harden.StatusPass},
	{name: "as it should be", check: "gateway_only", status: harden.StatusPass},
	{name: "as it should be", check: "tokens_at_rest", status: harden.StatusPass},

	// What the processes have.
	{
		name: "a key in the environment", check: "agent_credentials", status: harden.StatusFail, finding: "composio_key", detail: "environ COMPOSIO",
		machine: func(m *hosttest.Machine) { process(m, 100, nil, "COMPOSIO_API_KEY="+projectKey) },
	},
	{
		name: "a key under a harmless name in the second process alone", check: "agent_credentials", status: harden.StatusFail, finding: "composio_key", detail: "/proc/101/environ LANG",
		machine: func(m *hosttest.Machine) { process(m, 101, nil, "LANG="+consumerKey) },
	},
	{
		name: "a key in the arguments", check: "agent_credentials", status: harden.StatusFail, finding: "composio_key", detail: "cmdline",
		machine: func(m *hosttest.Machine) { process(m, 101, []string{"curl", "-H", "x:" + consumerKey}) },
	},
	{
		name: "a header in two arguments", check: "agent_credentials", status: harden.StatusFail, finding: "api_key_header",
		machine: func(m *hosttest.Machine) {
			process(m, 101, []string{"mcp-remote", "--header", "x-api-key:", "abcdefgh12345678"})
		},
	},
	{
		name: "a key in base64", check: "agent_credentials", status: harden.StatusFail, finding: "composio_key",
		machine: func(m *hosttest.Machine) {
			process(m, 100, nil, "CONF="+base64.StdEncoding.EncodeToString([]byte(`{"k":"`+projectKey+`"}`)))
		},
	},
	{
		name: "a key cut in two, between the environment and an argument", check: "agent_credentials", status: harden.StatusFail, finding: "known_credential", detail: "cmdline",
		config:  func(c *access.Config) { c.Known = access.Secrets(projectKey) },
		machine: func(m *hosttest.Machine) { process(m, 101, []string{"x", projectKey[10:]}, "A="+projectKey[:7]) },
	},
	{
		name: "OpenClaw's own token in another variable", check: "agent_credentials", status: harden.StatusFail, finding: "openclaw_token",
		machine: func(m *hosttest.Machine) { process(m, 101, nil, "OTHER=OPENCLAW_GATEWAY_TOKEN=3f9a8c7be10d42") },
	},
	{
		name: "a variable with a name like that of OpenClaw's own", check: "agent_credentials", status: harden.StatusFail, finding: "composio_key",
		machine: func(m *hosttest.Machine) { process(m, 101, nil, "MY_OPENCLAW_GATEWAY_TOKEN="+consumerKey) },
	},
	{
		name: "another agent's token", check: "agent_credentials", status: harden.StatusFail, finding: "agent_token",
		machine: func(m *hosttest.Machine) { process(m, 101, nil, "T="+strings.Replace(agentToken, "M3", "N4", 1)) },
	},
	{
		name: "a variable without a name", check: "agent_credentials", status: harden.StatusFail, finding: "composio_key",
		machine: func(m *hosttest.Machine) { process(m, 101, nil, consumerKey) },
	},
	{
		name: "an environment that cannot be read", check: "agent_credentials", status: harden.StatusUnknown, detail: "/proc/101/environ was not read",
		machine: func(m *hosttest.Machine) { m.Deny("/proc/101/environ") },
	},

	// What is in files.
	{
		name: "a key in a file of a volume", check: "agent_credentials", status: harden.StatusFail, finding: "composio_key", detail: "/home/node/.openclaw/workspace/deep/er/.env:2",
		machine: func(m *hosttest.Machine) {
			m.File(root+"/home/node/.openclaw/workspace/deep/er/.env", "A=1\nKEY="+projectKey+"\n")
		},
	},
	{
		name: "a key far into a large file, over the end of a piece", check: "agent_credentials", status: harden.StatusFail, finding: "composio_key",
		machine: func(m *hosttest.Machine) { m.File(root+"/tmp/big", strings.Repeat("a\n", 1<<19-4)+projectKey+"\n") },
	},
	{
		name: "a key that the container wrote over its image", check: "agent_credentials", status: harden.StatusFail, finding: "composio_key",
		machine: func(m *hosttest.Machine) { m.File("/var/lib/docker/overlay2/x/diff/opt/.x", consumerKey) },
	},
	{
		name: "a key in the image, in the home", check: "agent_credentials", status: harden.StatusFail, finding: "composio_key",
		machine: func(m *hosttest.Machine) {
			m.File(root+"/home/node/.composio/user_data.json", `{"k":"`+projectKey+`"}`)
		},
	},
	{
		name: "a key in the image, in the working directory", check: "agent_credentials", status: harden.StatusFail, finding: "composio_key",
		machine: func(m *hosttest.Machine) { m.File(root+"/app/.env", consumerKey) },
	},
	{
		name: "a key in the name of a file", check: "agent_credentials", status: harden.StatusFail, finding: "composio_key", detail: "a name that holds a credential",
		machine: func(m *hosttest.Machine) { m.File(root+"/tmp/"+consumerKey, "") },
	},
	{
		name: "a key in the target of a link", check: "agent_credentials", status: harden.StatusFail, finding: "composio_key",
		machine: func(m *hosttest.Machine) { m.Symlink(root+"/tmp/l", "/"+consumerKey) },
	},
	{
		name: "a deleted file that is held open", check: "agent_credentials", status: harden.StatusFail, finding: "composio_key", detail: "open file",
		machine: func(m *hosttest.Machine) {
			m.File("/tmp/x (deleted)", consumerKey)
			m.Symlink("/proc/101/fd/5", "/tmp/x (deleted)")
		},
	},
	{
		name: "a file that cannot be read", check: "agent_credentials", status: harden.StatusUnknown, detail: "/tmp/secret was not read",
		machine: func(m *hosttest.Machine) { m.File(root+"/tmp/secret", "x").Deny(root + "/tmp/secret") },
	},
	{
		name: "a directory that cannot be read", check: "agent_credentials", status: harden.StatusUnknown, detail: "/tmp/d",
		machine: func(m *hosttest.Machine) { m.Dir(root+"/tmp/d", 0o700).Deny(root + "/tmp/d") },
	},
	{
		name: "a file that breaks off", check: "agent_credentials", status: harden.StatusUnknown, detail: "/tmp/f",
		machine: func(m *hosttest.Machine) { m.File(root+"/tmp/f", "x").FailRead(root+"/tmp/f", syscall.EIO) },
	},
	{
		name: "what was written cannot be found", check: "agent_credentials", status: harden.StatusUnknown, detail: "over its image",
		machine: func(m *hosttest.Machine) { m.Deny("/var/lib/docker") },
	},
	{
		name: "more files than are read", check: "agent_credentials", status: harden.StatusUnknown, detail: "Config.Limits",
		config: func(c *access.Config) { c.Limits.Files = 2 },
	},
	{
		name: "more bytes than are read", check: "agent_credentials", status: harden.StatusUnknown, detail: "Config.Limits",
		config: func(c *access.Config) { c.Limits.Bytes = 300 },
	},
	{
		name: "more time than there is", check: "agent_credentials", status: harden.StatusUnknown,
		config: func(c *access.Config) { c.Limits.Time = time.Nanosecond },
	},
	{
		name: "a key beyond the limit, and one before it", check: "agent_credentials", status: harden.StatusFail, finding: "composio_key",
		config:  func(c *access.Config) { c.Limits.Files = 1 },
		machine: func(m *hosttest.Machine) { process(m, 101, nil, "LANG="+consumerKey) },
	},
	{
		name: "a directory that is not to be read", check: "agent_credentials", status: harden.StatusPass, detail: "/tmp/cache",
		config:  func(c *access.Config) { c.Skip = []string{"/tmp/cache/"} },
		machine: func(m *hosttest.Machine) { m.File(root+"/tmp/cache/x", consumerKey) },
	},
	{
		name: "a directory whose name begins like that of one that is not to be read", check: "agent_credentials", status: harden.StatusFail, finding: "composio_key",
		config:  func(c *access.Config) { c.Skip = []string{"/tmp/cache"} },
		machine: func(m *hosttest.Machine) { m.File(root+"/tmp/cache2/x", consumerKey) },
	},
	{
		name: "without a general detector", check: "agent_credentials", status: harden.StatusUnknown, detail: "gitleaks",
		config: func(c *access.Config) { c.Detector = nil },
	},
	{
		name: "a detector that fails", check: "agent_credentials", status: harden.StatusUnknown, detail: "out of order",
		config: func(c *access.Config) { c.Detector = broken{} },
	},
	{
		name: "a kernel that shows nothing", check: "agent_credentials", status: harden.StatusUnknown,
		config: func(c *access.Config) {
			c.Containers = containers(func(c *container.Container) { c.Kernel, c.KernelErr = nil, container.ErrRemote })
		},
	},
	{
		name: "a second mount namespace", check: "agent_credentials", status: harden.StatusFail, finding: "composio_key",
		config: func(c *access.Config) {
			c.Containers = containers(func(c *container.Container) {
				c.Kernel.Trees = append(c.Kernel.Trees, container.Tree{Source: "/proc/101/task/101/mountinfo", Mounts: []container.MountPoint{{Path: "/mnt", FSType: "tmpfs", Device: "0:99", Root: "/"}}})
			})
		},
		machine: func(m *hosttest.Machine) { m.File("/proc/101/task/101/root/mnt/k", consumerKey) },
	},

	// What OpenClaw's configuration says.
	{
		name: "the plugin's key", check: "openclaw_config", status: harden.StatusFail, finding: "composio", detail: "plugins.entries.composio.config.consumerKey",
		machine: settings(`{plugins:{entries:{composio:{config:{consumerKey:"x1234567890"}}}}}`),
	},
	{
		name: "a header of a server", check: "openclaw_config", status: harden.StatusFail, finding: "composio",
		machine: settings(`{mcp:{servers:{composio:{url:"https://connect.composio.dev/mcp",headers:{Authorization:"Bearer x"}}}}}`),
	},
	{
		name: "a header of a server with a harmless name", check: "openclaw_config", status: harden.StatusFail, finding: "composio",
		machine: settings(`{mcp:{servers:{mail:{url:"https://connect.composio.dev/mcp",headers:{"x-consumer-api-key":"short"}}}}}`),
	},
	{
		name: "a header from a variable", check: "openclaw_config", status: harden.StatusFail, finding: "composio", detail: "MAIL",
		machine: func(m *hosttest.Machine) {
			settings(`{mcp:{servers:{mail:{url:"https://connect.composio.dev/mcp",headers:{"x-consumer-api-key":"${MAIL}"}}}}}`)(m)
			process(m, 101, nil, "MAIL=anything")
		},
	},
	{
		name: "a header from a variable that nobody has", check: "openclaw_config", status: harden.StatusUnknown, detail: "no process has now",
		machine: settings(`{mcp:{servers:{mail:{url:"https://connect.composio.dev/mcp",headers:{"x-consumer-api-key":"${MAIL}"}}}}}`),
	},
	{
		name: "a key from a reference", check: "openclaw_config", status: harden.StatusFail, finding: "composio", detail: "exec",
		machine: settings(`{plugins:{entries:{composio:{config:{consumerKey:{source:"exec",provider:"vault",id:"k"}}}}}}`),
	},
	{
		name: "a key from a reference to a variable", check: "openclaw_config", status: harden.StatusFail, finding: "composio",
		machine: func(m *hosttest.Machine) {
			settings(`{plugins:{entries:{composio:{config:{consumerKey:{source:"env",provider:"default",id:"K"}}}}}}`)(m)
			process(m, 101, nil, "K=anything")
		},
	},
	{
		name: "a key in the query of a URL", check: "openclaw_config", status: harden.StatusFail, finding: "composio_mcp_url",
		machine: settings(`{mcp:{servers:{m:{url:"https://mcp.composio.dev/u?api_key=abcdefgh"}}}}`),
	},
	{
		name: "a key in a comment", check: "openclaw_config", status: harden.StatusFail, finding: "composio_key", detail: "openclaw.json:2",
		machine: settings("{\n// was " + consumerKey + "\n}"),
	},
	{
		name: "a key with escapes, over two lines", check: "openclaw_config", status: harden.StatusFail, finding: "setting",
		machine: settings(`{env:{X:"\x63k` + "\\\n" + `_` + consumerKey[3:] + `"}}`),
	},
	{
		name: "a member that a later one overrides", check: "openclaw_config", status: harden.StatusFail, finding: "setting",
		machine: settings(`{channels:{telegram:{botToken:"123456:abc",botToken:"${T}"}}}`),
	},
	{
		name: "a literal token of something else", check: "openclaw_config", status: harden.StatusFail, finding: "setting", detail: "gateway.auth.password",
		machine: settings(`{gateway:{auth:{password:12345678}}}`),
	},
	{
		name: "a key in a file that is included", check: "openclaw_config", status: harden.StatusFail, finding: "composio_key", detail: "more.json5",
		machine: func(m *hosttest.Machine) {
			settings(`{$include:["./conf/more.json5"]}`)(m)
			m.File(root+"/home/node/.openclaw/conf/more.json5", `{plugins:{entries:{composio:{config:{consumerKey:'`+consumerKey+`'}}}}}`)
		},
	},
	{
		name: "files that include each other", check: "openclaw_config", status: harden.StatusPass,
		machine: func(m *hosttest.Machine) {
			settings(`{$include:"a.json"}`)(m)
			m.File(root+"/home/node/.openclaw/a.json", `{x:{$include:"openclaw.json"}}`)
		},
	},
	{
		name: "a file that is included and missing", check: "openclaw_config", status: harden.StatusUnknown, detail: "gone.json",
		machine: settings(`{$include:"gone.json"}`),
	},
	{
		name: "what is included is a link to the root", check: "openclaw_config", status: harden.StatusFail, finding: "composio_key",
		machine: func(m *hosttest.Machine) {
			settings(`{$include:"l.json"}`)(m)
			m.Symlink(root+"/home/node/.openclaw/l.json", "/opt/real.json")
			m.File(root+"/opt/real.json", `{a:'`+consumerKey+`'}`)
		},
	},
	{name: "what is not JSON5", check: "openclaw_config", status: harden.StatusUnknown, detail: "line 1", machine: settings(`{a b}`)},
	{
		name: "no configuration", check: "openclaw_config", status: harden.StatusUnknown, detail: "StateDirs",
		config: func(c *access.Config) { c.Own = nil },
		machine: func(m *hosttest.Machine) {
			process(m, 100, nil, "HOME=/")
			process(m, 101, nil, "HOME=/")
		},
	},
	{
		name: "a configuration where a variable says", check: "openclaw_config", status: harden.StatusFail, finding: "composio_key",
		machine: func(m *hosttest.Machine) {
			process(m, 101, nil, "OPENCLAW_CONFIG_PATH=/tmp/c.json")
			m.File(root+"/tmp/c.json", `{a:'`+consumerKey+`'}`)
		},
	},

	// OpenClaw's databases.
	{
		name: "a token in a database", check: "tokens_at_rest", status: harden.StatusFail, finding: "oauth_token",
		machine: func(m *hosttest.Machine) {
			m.File(root+"/home/node/.openclaw/state/openclaw.sqlite", "SQLite format 3\x00\x01{\"tokens\":{\"access_token\":\""+oauthToken+"\"}}\x00")
		},
	},
	{
		name: "a token in what a database has not written back", check: "tokens_at_rest", status: harden.StatusFail, finding: "oauth_token",
		machine: func(m *hosttest.Machine) {
			m.File(root+"/home/node/.openclaw/agents/main/agent/openclaw-agent.sqlite-wal", "\x37\x7f{\"refresh_token\":\"1//0abcdefgh\"}")
		},
	},

	// The ways to Composio.
	{
		name: "a server that is not the gateway", check: "gateway_only", status: harden.StatusFail, finding: "configured", detail: "connect.composio.dev:443",
		machine: settings(`{mcp:{servers:{m:{url:"https://connect.composio.dev/mcp"}}}}`),
	},
	{
		name: "a server beside the gateway's port", check: "gateway_only", status: harden.StatusFail, finding: "configured",
		machine: settings(`{mcp:{servers:{composio:{url:"http://172.17.0.1:7081/mcp"}}}}`),
	},
	{
		name: "the plugin without a URL", check: "gateway_only", status: harden.StatusFail, finding: "configured",
		machine: settings(`{plugins:{entries:{composio:{}}}}`),
	},
	{
		name: "a server by a variable", check: "gateway_only", status: harden.StatusFail, finding: "configured",
		machine: func(m *hosttest.Machine) {
			settings(`{mcp:{servers:{composio:{url:"${U}"}}}}`)(m)
			process(m, 101, nil, "U=https://backend.composio.dev/v3/mcp/1")
		},
	},
	{
		name: "a base URL in the environment", check: "gateway_only", status: harden.StatusFail, finding: "configured", detail: "COMPOSIO_BASE_URL",
		machine: func(m *hosttest.Machine) { process(m, 101, nil, "COMPOSIO_BASE_URL=http://relay.example:8080") },
	},
	{
		name: "the gateway by another name", check: "gateway_only", status: harden.StatusPass,
		config:  func(c *access.Config) { c.Gateway.Aliases = []string{"tools:80"} },
		machine: func(m *hosttest.Machine) { process(m, 101, nil, "COMPOSIO_BASE_URL=http://tools") },
	},
	{
		name: "Composio can be reached", check: "gateway_only", status: harden.StatusFail, finding: "open", detail: composioAddr,
		config: func(c *access.Config) {
			c.Inside = &wire{open: map[int][]string{0: {composioAddr}, 100: {composioAddr}}}
		},
	},
	{
		name: "Composio can be reached from a second network", check: "gateway_only", status: harden.StatusFail, finding: "open",
		config: func(c *access.Config) {
			c.Inside = &wire{open: map[int][]string{0: {composioAddr}, 101: {composioAddr}}}
			c.Containers = containers(func(c *container.Container) { c.Kernel.Processes[2].Namespaces = map[string]uint64{"net": 8} })
		},
	},
	{
		name: "Composio can be reached through a proxy", check: "gateway_only", status: harden.StatusFail, finding: "open", detail: "proxy 10.0.0.1:3128",
		config: func(c *access.Config) {
			c.Inside = &wire{open: map[int][]string{0: {composioAddr}, 100: {"10.0.0.1:3128"}}, reply: "HTTP/1.1 200 Connection established\r\n\r\n"}
		},
		machine: func(m *hosttest.Machine) { process(m, 101, nil, "HTTPS_PROXY=http://u:p@10.0.0.1:3128") },
	},
	{
		name: "a proxy that refuses", check: "gateway_only", status: harden.StatusPass,
		config: func(c *access.Config) {
			c.Inside = &wire{open: map[int][]string{0: {composioAddr}, 100: {"10.0.0.1:3128"}}, reply: "HTTP/1.1 403 Forbidden\r\n\r\n"}
		},
		machine: func(m *hosttest.Machine) { process(m, 101, nil, "https_proxy=10.0.0.1:3128") },
	},
	{
		name: "a proxy that has a name alone", check: "gateway_only", status: harden.StatusUnknown, detail: "name alone",
		machine: func(m *hosttest.Machine) { process(m, 101, nil, "ALL_PROXY=http://proxy.internal:3128") },
	},
	{
		name: "the machine does not reach Composio either", check: "gateway_only", status: harden.StatusUnknown, detail: "proves nothing",
		config: func(c *access.Config) { c.Inside = &wire{} },
	},
	{
		name: "the network cannot be entered", check: "gateway_only", status: harden.StatusUnknown,
		config: func(c *access.Config) {
			c.Inside = &wire{open: map[int][]string{0: {composioAddr}}, err: map[int]error{100: fmt.Errorf("setns: %w", syscall.EPERM)}}
		},
	},
	{
		name: "silence", check: "gateway_only", status: harden.StatusPass,
		config: func(c *access.Config) {
			c.Inside = &wire{open: map[int][]string{0: {composioAddr}}, err: map[int]error{100: &net.OpError{Op: "dial", Err: syscall.ETIMEDOUT}}}
		},
	},
	{
		name: "nothing to try with", check: "gateway_only", status: harden.StatusUnknown, detail: "Config.Inside",
		config: func(c *access.Config) { c.Inside = nil },
	},
}

func settings(text string) func(*hosttest.Machine) {
	return func(m *hosttest.Machine) { m.File(root+"/home/node/.openclaw/openclaw.json", text) }
}

type broken struct{}

func (broken) Detect(context.Context, []byte) ([]access.Match, error) {
	return nil, errors.New("out of order")
}

func TestAgents(t *testing.T) {
	for _, c := range agentCases {
		t.Run(c.check+"/"+c.name, func(t *testing.T) {
			t.Parallel()
			m := machine()
			if c.machine != nil {
				c.machine(m)
			}
			cfg := config()
			if c.config != nil {
				c.config(&cfg)
			}
			r := evaluate(t, cfg, m.View(), "access."+c.check)
			if r.Status != c.status {
				t.Fatalf("%v (%s): %+v", r.Status, r.Detail, r.Findings)
			}
			var said strings.Builder
			said.WriteString(r.Detail)
			var ids strings.Builder
			for _, f := range r.Findings {
				said.WriteString("\n" + f.Message + f.Remedy)
				ids.WriteString(" " + f.ID)
				for _, e := range f.Evidence {
					said.WriteString("\n" + e.Source + e.Observed)
				}
			}
			for _, e := range r.Evidence {
				said.WriteString("\n" + e.Observed)
			}
			if c.finding != "" && !strings.Contains(ids.String()+" ", " access."+c.check+"."+c.finding+" ") {
				t.Errorf("no finding %s among%s", c.finding, ids.String())
			}
			if !strings.Contains(said.String(), c.detail) {
				t.Errorf("it does not say %q: %s", c.detail, said.String())
			}
		})
	}
}

func TestZeroConfigKnowsNothing(t *testing.T) {
	for _, check := range access.Checks(access.Config{}) {
		if r := harden.Evaluate(t.Context(), machine().View(), check, 0); r.Status != harden.StatusUnknown {
			t.Errorf("%s: %v", r.Info.ID, r.Status)
		}
	}
}
