//go:build openclaw && linux

package softstop

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/composio"
)

// These tests run OpenClaw itself, from the directory in OPENCLAW_DIR that
// scripts/install-openclaw fills: make openclaw. All of it is in a network of
// its own with nothing but loopback, so OpenClaw phones nobody.

const inside = "SOFTSTOP_TEST_INSIDE"

func TestMain(m *testing.M) {
	if os.Getenv(inside) != "" {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "loopback: %v: %s\n", err, out)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if uid := os.Getuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A claw is OpenClaw with a model that does what it is told.
type claw struct {
	t     *testing.T
	home  string
	port  int
	model *modelServer
	cmd   *exec.Cmd
	log   *os.File
}

const clawToken = "0123456789abcdef0123456789abcdef0123456789abcdef"

// newClaw returns OpenClaw, not started, with a home of its own.
func newClaw(t *testing.T) *claw {
	t.Helper()
	if os.Getenv("OPENCLAW_DIR") == "" {
		t.Fatal("OPENCLAW_DIR is not set: run make openclaw")
	}
	c := &claw{t: t, home: t.TempDir(), model: newModelServer(t), port: freePort(t)}
	config := map[string]any{
		"gateway": map[string]any{"mode": "local", "port": c.port, "bind": "loopback", "auth": map[string]any{"mode": "token", "token": clawToken}},
		"tools":   map[string]any{"profile": "full"},
		"agents":  map[string]any{"defaults": map[string]any{"workspace": filepath.Join(c.home, "workspace"), "model": map[string]any{"primary": "fake/m1"}}},
		"models": map[string]any{"providers": map[string]any{"fake": map[string]any{
			"baseUrl": c.model.url + "/v1", "apiKey": "x", "api": "openai-completions", "models": []any{map[string]any{"id": "m1", "name": "m1"}},
		}}},
	}
	data, err := json.MarshalIndent(config, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(c.home, ".openclaw")
	for _, d := range []string{dir, filepath.Join(c.home, "workspace"), filepath.Join(c.home, "tmp")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "openclaw.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if c.log, err = os.Create(filepath.Join(c.home, "log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.kill()
		if t.Failed() {
			tail(t, c.log.Name())
		}
		c.log.Close()
	})
	return c
}

func tail(t *testing.T, name string) {
	data, _ := os.ReadFile(name)
	t.Logf("OpenClaw's log ends:\n%s", data[max(0, len(data)-6000):])
}

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// start starts the gateway and waits until it is ready.
func (c *claw) start() *claw {
	c.t.Helper()
	begin := time.Now()
	modules := filepath.Join(os.Getenv("OPENCLAW_DIR"), "node_modules")
	nodes, _ := filepath.Glob(filepath.Join(modules, "node-linux-*/bin/node"))
	if len(nodes) == 0 {
		c.t.Fatal("OPENCLAW_DIR has no Node.js")
	}
	c.cmd = exec.Command(nodes[0], filepath.Join(modules, "openclaw/openclaw.mjs"), "gateway", "run", "--port", strconv.Itoa(c.port), "--bind", "loopback")
	c.cmd.Dir = c.home
	c.cmd.Env = []string{
		"HOME=" + c.home, "TMPDIR=" + filepath.Join(c.home, "tmp"), "OPENCLAW_DISABLE_BONJOUR=1", "NO_COLOR=1",
		"PATH=" + filepath.Dir(nodes[0]) + ":" + os.Getenv("PATH"),
	}
	c.cmd.Stdout, c.cmd.Stderr = c.log, c.log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := c.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	client := &http.Client{Timeout: 2 * time.Second}
	for end := time.Now().Add(5 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/readyz", c.port))
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Now().After(end) {
			tail(c.t, c.log.Name())
			c.t.Fatal("OpenClaw does not start")
		}
	}
	c.t.Logf("OpenClaw is ready after %v", time.Since(begin).Round(100*time.Millisecond))
	return c
}

// kill kills the gateway as a crash does, and then what it has left behind.
func (c *claw) kill() {
	if c.cmd == nil {
		return
	}
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
	c.cmd = nil
	for _, pid := range c.descendants("") {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// descendants returns the processes that have this home in their environment
// and word among their arguments.
func (c *claw) descendants(word string) []int {
	var pids []int
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range names {
		env, err := os.ReadFile(name + "/environ")
		if err != nil || !strings.Contains(string(env), "HOME="+c.home+"\x00") {
			continue
		}
		args, _ := os.ReadFile(name + "/cmdline")
		if pid, _ := strconv.Atoi(filepath.Base(name)); pid != os.Getpid() && strings.Contains(string(args), word) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (c *claw) config() Config {
	return Config{URL: fmt.Sprintf("ws://127.0.0.1:%d", c.port), Token: composio.NewSecret(clawToken), Timeout: 15 * time.Second}
}

func (c *claw) asked(message string) int { return c.model.asked(message) }
func (c *claw) waitingForModel() int     { return c.model.waiting() }
func (c *claw) commands() int            { return len(c.descendants(sleepCommand)) }

const sleepCommand = "sleep\x0086399"

// A modelServer is a model behind an API like OpenAI's.
type modelServer struct {
	url string

	mu      sync.Mutex
	prompts []string
	held    int
}

func newModelServer(t *testing.T) *modelServer {
	m := new(modelServer)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: m}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	m.url = "http://" + l.Addr().String()
	return m
}

func (m *modelServer) asked(message string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, p := range m.prompts {
		if p == message {
			n++
		}
	}
	return n
}

func (m *modelServer) calls() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.prompts)
}

func (m *modelServer) waiting() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held
}

var ask = regexp.MustCompile(`(` + askHang + `|` + askForeground + `|` + askBackground + `|` + askNothing + `) \d+\.`)

func (m *modelServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var q struct {
		Messages []struct {
			Role    string
			Content json.RawMessage
		}
	}
	_ = json.Unmarshal(body, &q)
	// The last message that is one of ours, and whether a tool has answered
	// since.
	prompt, answered := "", false
	for _, msg := range q.Messages {
		if found := ask.FindAllString(string(msg.Content), -1); msg.Role == "user" && found != nil {
			prompt, answered = found[len(found)-1], false
		} else if msg.Role == "tool" {
			answered = true
		}
	}
	m.mu.Lock()
	m.prompts = append(m.prompts, prompt)
	m.mu.Unlock()
	w.Header().Set("Content-Type", "text/event-stream")
	chunk := func(delta any, finish any) {
		data, _ := json.Marshal(map[string]any{
			"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m1",
			"choices": []any{map[string]any{"index": 0, "delta": delta, "finish_reason": finish}},
		})
		fmt.Fprintf(w, "data: %s\n\n", data)
		w.(http.Flusher).Flush()
	}
	run := func(arguments string) {
		call := map[string]any{"index": 0, "id": "call_" + strconv.FormatInt(time.Now().UnixNano(), 36), "type": "function", "function": map[string]any{"name": "exec", "arguments": arguments}}
		chunk(map[string]any{"role": "assistant", "tool_calls": []any{call}}, nil)
		chunk(map[string]any{}, "tool_calls")
	}
	switch {
	case answered || strings.HasPrefix(prompt, askNothing) || prompt == "":
		chunk(map[string]any{"role": "assistant", "content": "done"}, nil)
		chunk(map[string]any{}, "stop")
	case strings.HasPrefix(prompt, askHang):
		m.hold(r.Context())
		return
	case strings.HasPrefix(prompt, askForeground):
		run(`{"command":"sleep 86399"}`)
	default:
		run(`{"command":"sleep 86399","background":true}`)
	}
	fmt.Fprint(w, "data: [DONE]\n\n")
}

func (m *modelServer) hold(ctx context.Context) {
	m.mu.Lock()
	m.held++
	m.mu.Unlock()
	<-ctx.Done()
	m.mu.Lock()
	m.held--
	m.mu.Unlock()
}

// OpenClaw does what the fake does.
func TestOpenClaw(t *testing.T) {
	c := newClaw(t).start()
	cases(t, func(*testing.T) machine { return c })
}

// A gateway that is killed in the middle of a turn takes it up again when it is
// started, and after a soft stop it does not.
func TestRestart(t *testing.T) {
	for _, message := range []string{askHang, askForeground} {
		took := 30 * time.Second // until it takes a turn up
		for _, soft := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, soft stop %v", message, soft), func(t *testing.T) {
				c := newClaw(t).start()
				s, err := New(c.config())
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				if err := s.Arm(t.Context()); err != nil {
					t.Fatal(err)
				}
				site := &site{machine: c, t: t, stopper: s, driver: s.warm}
				unique := site.mustAsk("agent:main:main", message)
				site.until("it is under way", func() bool { return c.asked(unique) > 0 && c.waitingForModel()+c.commands() > 0 })
				if soft {
					start := time.Now()
					if err := s.Do(t.Context()); err != nil {
						t.Fatal(err, open(err))
					}
					t.Logf("Do took %v", time.Since(start).Round(time.Millisecond))
				}
				c.kill()
				before := c.model.calls()
				c.start()
				limit := 3 * took
				start := time.Now()
				for c.model.calls() == before && time.Since(start) < limit {
					time.Sleep(50 * time.Millisecond)
				}
				resumed := c.model.calls() > before
				t.Logf("after the restart: the model was asked: %v, after %v", resumed, time.Since(start).Round(time.Millisecond))
				if resumed {
					took = max(time.Since(start), 10*time.Second)
				}
				if resumed == soft {
					t.Errorf("resumed: %v", resumed)
				}
			})
		}
	}
}
