package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// What stops an agent comes before it at every processor, all of its threads, and
// is not ended for want of memory, or says that it may be.
func TestUrgent(t *testing.T) {
	if os.Geteuid() != 0 {
		labtest.Skip(t, "not root: only root may have a higher priority")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), self, "standby", "--container", "nobody", "--state-dir", dir, "--docker-host", "unix://"+dir+"/nobody.sock")
	cmd.Env = []string{mainVar + "=1"}
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// It says nothing before it is urgent.
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Error(err)
	}
	proc := filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid))
	memory, err := os.ReadFile(proc + "/oom_score_adj")
	if err != nil {
		t.Error(err)
	}
	threads, err := filepath.Glob(proc + "/task/*/stat")
	if err != nil || len(threads) < 2 {
		t.Errorf("threads %v, %v", threads, err)
	}
	for _, name := range threads {
		data, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(data), ") ")
		if f := strings.Fields(rest); f[16] != "-20" { // nice; proc_pid_stat(5)
			t.Errorf("%s: its priority is %s", name, f[16])
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	spared := strings.TrimSpace(string(memory)) == neverForMemory
	if told := strings.Contains(said.String(), "uses all memory"); spared == told {
		t.Errorf("memory %s, and it says:\n%s", memory, &said)
	}
}
