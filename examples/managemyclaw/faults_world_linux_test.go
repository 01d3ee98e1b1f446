package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/killswitch"
)

// A sight is what is on after a kill, as the lab has it: by name of the target
// or object, what it does in words.
type sight struct {
	took    time.Duration
	on      map[string]string
	streams string

	// again says that there is a process that was not there before the kill, so
	// that the engine has started the container again.
	again bool
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func encodeReceipt(r *killswitch.Receipt) ([]byte, error) { return json.Marshal(r) }

// look finds out what is on, asking neither the switch nor its engine.
func (r *trial) look(t *testing.T, fired time.Time, took time.Duration) *sight {
	t.Helper()
	w := &sight{took: took, on: make(map[string]string)}
	before := r.sink.Bytes()
	ran := r.switches()
	time.Sleep(100 * time.Millisecond)
	if more := r.sink.Bytes() - before; more > 0 {
		w.streams = fmt.Sprintf("%d bytes have arrived from it in 100 ms", more)
	} else if last := r.sink.Last().Sub(fired.Round(0)); last > faultTimeout {
		w.streams = fmt.Sprintf("its last byte arrived after %v", last)
	}
	now := r.switches()
	for pid, n := range now {
		w.on[processesTarget] = fmt.Sprintf("process %d is there", pid)
		if why := r.opens(t, pid); why != "" {
			w.on["egress"] = why
		}
		if was, seen := ran[pid]; !seen || was != n {
			w.on["frozen"] = fmt.Sprintf("process %d runs", pid)
		} else if !r.freezer.frozen() {
			w.on["frozen"] = fmt.Sprintf("process %d is not frozen", pid)
		}
		w.again = w.again || !slices.Contains(r.first, pid)
	}
	if w.streams != "" && before < r.sink.Bytes() {
		w.on["egress"] = w.streams
	}
	for _, a := range r.office.composio.Accounts() {
		if len(a.Live) > 0 {
			w.on[aComposio] = fmt.Sprintf("the tokens of %s are live: %v", a.ID, a.Live)
			w.on["account/"+a.ID] = w.on[aComposio]
		}
	}
	if why := r.letsIn(t, letsInTime); why != "" {
		w.on[aGateway] = why
	}
	return w
}

// processes returns the processes of the container, as the kernel shows them.
func (r *trial) processes() (pids []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, name := range dirs {
		data, err := os.ReadFile(name)
		if err != nil || !strings.Contains(string(data), r.id) {
			continue
		}
		dir := filepath.Dir(name)
		stat, err := os.ReadFile(dir + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") || strings.Contains(string(stat), ") X ") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// switches returns how often each process of the container has been given a
// processor: one that runs gets on.
func (r *trial) switches() map[int]int {
	all := make(map[int]int)
	for _, pid := range r.processes() {
		all[pid] = 0
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		for _, name := range threads {
			data, err := os.ReadFile(name)
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(data)) {
				if key, value, ok := strings.Cut(line, ":"); ok && strings.HasSuffix(key, "ctxt_switches") {
					n, _ := strconv.Atoi(strings.TrimSpace(value))
					all[pid] += n
				}
			}
		}
	}
	return all
}

// opens tries to reach the internet from where a process is, and returns what
// came of it if it did.
func (r *trial) opens(t *testing.T, pid int) string {
	t.Helper()
	before := r.sink.Conns()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	cmd := r.Host.Command(ctx, "nsenter", "-t", strconv.Itoa(pid), "-n", r.stage.agent, "dial", "tcp", net4(lab.FarAddr4.String(), 443))
	_ = cmd.Run() // it is the sink that tells
	if r.sink.Conns() > before {
		return fmt.Sprintf("a connection from where process %d is has arrived", pid)
	}
	return ""
}

// letsInTime is how long a call through the gateway may take before it counts for
// nothing, as it does where the gateway hangs.
const letsInTime = time.Second

// letsIn calls through the gateway as the agent does, and returns what came of
// it if it was let in.
func (r *trial) letsIn(t *testing.T, patience time.Duration) string {
	t.Helper()
	arrived := r.front.calls.Load()
	ask := func(path, body string) int {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		req := must(http.NewRequestWithContext(ctx, http.MethodPost, r.door.url+path, strings.NewReader(body)))
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Accept", "application/json, text/event-stream")
		req.Header.Set("X-Api-Key", r.office.token.Reveal())
		resp, err := r.agentHTTP.Do(req)
		if err != nil {
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	status := ask("/api/v3.1/tools/execute/GMAIL_FETCH_EMAILS", fmt.Sprintf(`{"user_id":"ann","version":%q,"arguments":{}}`, toolVersion))
	if n := r.front.calls.Load() - arrived; n > 0 || status == http.StatusOK {
		return fmt.Sprintf("a call was sent on (%d), HTTP %d", n, status)
	}
	if status := ask("/mcp", `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"agent","version":"1"}}}`); status == http.StatusOK {
		return "MCP lets it in"
	}
	return ""
}

// A freezer is where the kernel freezes a container: its cgroups of version 1
// and 2, as many as the machine has.
type freezer struct{ v1, v2 string }

func freezerOf(pid int) (f freezer, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return f, err
	}
	is := func(name string) bool { _, err := os.Stat(name); return err == nil }
	for line := range strings.Lines(string(data)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if dir := filepath.Join("/sys/fs/cgroup/freezer", parts[2]); parts[1] == "freezer" && is(dir+"/freezer.state") {
			f.v1 = dir
		}
		for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
			if dir := filepath.Join(mount, parts[2]); parts[0] == "0" && is(dir+"/cgroup.freeze") {
				f.v2 = dir
			}
		}
	}
	if f.v1 == "" && f.v2 == "" {
		return f, fmt.Errorf("process %d is in no cgroup that can be frozen: %s", pid, data)
	}
	return f, nil
}

// thaw undoes what anybody has frozen. A cgroup that has gone needs none.
func (f freezer) thaw() {
	_ = os.WriteFile(f.v1+"/freezer.state", []byte("THAWED"), 0)
	_ = os.WriteFile(f.v2+"/cgroup.freeze", []byte("0"), 0)
}

// frozen reports whether the kernel says that all in one of the cgroups are.
func (f freezer) frozen() bool {
	one, _ := os.ReadFile(f.v1 + "/freezer.state")
	two, _ := os.ReadFile(f.v2 + "/cgroup.events")
	return strings.TrimSpace(string(one)) == "FROZEN" || strings.Contains("\n"+string(two), "\nfrozen 1\n")
}
