package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What stops an agent comes before it at every processor, all of its threads, and
// is not ended for want of memory.
func TestUrgent(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may have a higher priority")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	spared := neverForMemory
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1"), 0); err != nil {
		t.Logf("what is spared when memory runs out is not seen here: %v", err) // CAP_SYS_RESOURCE is missing
		spared = "0"
	} else if err := os.WriteFile("/proc/self/oom_score_adj", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	const hung = "/hung.sock"
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), self, "standby", "--container", "nobody", "--state-dir", dir, "--docker-host", "unix://"+dir+hung)
	cmd.Env = []string{mainVar + "=1"}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, out)
	defer cmd.Wait()
	defer cmd.Process.Kill()
	proc := filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid))
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		memory, err := os.ReadFile(proc + "/oom_score_adj")
		if err != nil {
			t.Fatal(err)
		}
		threads, err := filepath.Glob(proc + "/task/*/stat")
		if err != nil {
			t.Fatal(err)
		}
		others := 0
		for _, name := range threads {
			data, err := os.ReadFile(name)
			if err != nil {
				continue // it has ended
			}
			_, rest, _ := strings.Cut(string(data), ") ")
			if f := strings.Fields(rest); f[16] != "-20" { // nice; proc_pid_stat(5)
				others++
			}
		}
		if strings.TrimSpace(string(memory)) == spared && others == 0 && len(threads) > 4 {
			return
		}
		if time.Since(began) > 20*time.Second {
			t.Fatalf("%d of %d threads have another priority; memory %s", others, len(threads), memory)
		}
	}
}
