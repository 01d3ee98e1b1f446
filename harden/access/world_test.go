package access_test

import (
	"context"
	"crypto/sha256"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/access"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/harden/host/hosttest"
)

// root is where the files of the container in memory are.
const root = "/proc/100/task/100/root"

const gatewayConfig = `{
  // tools come from the gateway
  mcp: { servers: { tools: {
    url: "http://172.17.0.1:7080/mcp", transport: "streamable-http",
    headers: { "x-api-key": "${TOOLS_TOKEN}" },
  } } },
  gateway: { auth: { mode: "token", token: "${OPENCLAW_GATEWAY_TOKEN}" } },
}`

// machine returns a machine with an agent's container as it should be.
func machine() *hosttest.Machine {
	m := new(hosttest.Machine)
	process(m, 100, []string{"node", "openclaw.mjs", "gateway"}, "HOME=/home/node", "PATH=/bin", "TOOLS_TOKEN="+agentToken, "OPENCLAW_GATEWAY_TOKEN=3f9a8c7be10d42")
	process(m, 101, []string{"sh"}, "HOME=/home/node")
	m.File(root+"/home/node/.openclaw/openclaw.json", gatewayConfig)
	m.File(root+"/home/node/.openclaw/workspace/notes.md", "# Notes\nbuy milk\n")
	m.FileMode(root+"/home/node/.openclaw/state/openclaw.sqlite", "SQLite format 3\x00"+strings.Repeat("\x00row", 100), 0o600)
	m.Dir(root+"/tmp", 0o777)
	m.Dir(root+"/etc", 0o755)
	m.File("/var/lib/docker/overlay2/x/diff/home/node/.cache/x", "cached")
	return m
}

func process(m *hosttest.Machine, pid int, args []string, env ...string) {
	dir := "/proc/" + strconv.Itoa(pid)
	m.File(dir+"/environ", strings.Join(env, "\x00")+"\x00")
	m.File(dir+"/cmdline", strings.Join(args, "\x00")+"\x00")
	m.Dir(dir+"/fd", 0o500)
	m.Symlink(dir+"/cwd", "/app")
}

// containers lists the one container of a machine.
func containers(change ...func(*container.Container)) *harden.Source[container.Container] {
	return &harden.Source[container.Container]{
		Name:    "containers",
		Subject: func(c container.Container) string { return c.Subject() },
		List: func(context.Context, *host.View) ([]container.Container, error) {
			c := container.Container{Settings: container.Settings{ID: "1234", Name: "openclaw"}}
			c.Kernel = &container.Kernel{
				Processes: []container.Process{
					{PID: 100, TID: 100, UIDs: [4]uint32{1000, 1000, 1000, 1000}, Namespaces: map[string]uint64{"net": 7}},
					{PID: 100, TID: 110, UIDs: [4]uint32{1000, 1000, 1000, 1000}, Namespaces: map[string]uint64{"net": 7}},
					{PID: 101, TID: 101, UIDs: [4]uint32{1000, 1000, 1000, 1000}, Namespaces: map[string]uint64{"net": 7}},
				},
				Trees: []container.Tree{{Source: "/proc/100/task/100/mountinfo", Mounts: []container.MountPoint{
					{Path: "/", FSType: "overlay", Device: "0:50", Root: "/", ReadOnly: true, Super: []string{"rw", "lowerdir=/l", "upperdir=/var/lib/docker/overlay2/x/diff", "workdir=/w"}},
					{Path: "/proc", FSType: "proc", Device: "0:51", Root: "/"},
					{Path: "/tmp", FSType: "tmpfs", Device: "0:52", Root: "/"},
					{Path: "/home/node/.openclaw", FSType: "ext4", Device: "8:1", Root: "/var/lib/docker/volumes/state/_data", HostPaths: []string{"/var/lib/docker/volumes/state/_data"}},
				}}},
			}
			for _, f := range change {
				f(&c)
			}
			return []container.Container{c}, nil
		},
	}
}

// A wire says what each network reaches: the machine's own is 0.
type wire struct {
	mu    sync.Mutex
	open  map[int][]string
	err   map[int]error // instead of a refusal
	reply string        // what whoever answers says
	heard []string
}

func (w *wire) DialFrom(_ context.Context, pid int, network, address string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if slices.Contains(w.open[pid], address) {
		here, there := net.Pipe()
		go func() {
			defer there.Close()
			buf := make([]byte, 4096)
			n, _ := there.Read(buf)
			w.mu.Lock()
			w.heard = append(w.heard, string(buf[:n]))
			w.mu.Unlock()
			there.Write([]byte(w.reply))
		}()
		return here, nil
	}
	if err := w.err[pid]; err != nil {
		return nil, err
	}
	return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
}

// nothing is a general detector that finds nothing: these tests are about what
// is given to it.
type nothing struct{}

func (nothing) Detect(context.Context, []byte) ([]access.Match, error) { return nil, nil }

const composioAddr = "198.51.100.10:443"

func config(change ...func(*access.Config)) access.Config {
	c := access.Config{
		Containers: containers(),
		Detector:   nothing{},
		Tokens:     [][sha256.Size]byte{sha256.Sum256([]byte(agentToken))},
		Own:        []string{"OPENCLAW_GATEWAY_TOKEN"},
		Gateway:    access.Gateway{URL: "http://172.17.0.1:7080"},
		Direct:     []access.Destination{{Name: "backend.composio.dev", Addrs: addrs("198.51.100.10")}},
		Inside:     &wire{open: map[int][]string{0: {composioAddr}}},
	}
	for _, f := range change {
		f(&c)
	}
	return c
}

// evaluate runs one check of a configuration.
func evaluate(t *testing.T, c access.Config, v *host.View, id string) harden.Result {
	t.Helper()
	return harden.Evaluate(t.Context(), v, check(t, c, id), 0)
}

func check(t *testing.T, c access.Config, id string) harden.Check {
	t.Helper()
	for _, check := range access.Checks(c) {
		if check.Info().ID == id {
			return check
		}
	}
	t.Fatalf("no check %s", id)
	return nil
}
