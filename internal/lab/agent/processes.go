//go:build linux

package main

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

var processVerbs = map[string]verb{
	"env": {": the environment", 0, func([]string) (any, error) {
		return os.Environ(), nil
	}},
	"whoami": {": identity and capabilities, from /proc/self/status", 0, func([]string) (any, error) {
		return status("/proc/self/status")
	}},
	"ps": {": processes that can be seen, pid to command line", 0, func([]string) (any, error) {
		entries, err := os.ReadDir("/proc")
		ps := map[string]string{}
		for _, e := range entries {
			if _, err := strconv.Atoi(e.Name()); err == nil {
				cmdline, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
				ps[e.Name()] = strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))
			}
		}
		return ps, err
	}},
	"exec": {"PROGRAM [ARG]...: run it and return its output", 1, func(args []string) (any, error) {
		cmd := exec.Command(args[0], args[1:]...)
		out, err := cmd.CombinedOutput()
		return map[string]any{"output": string(out), "exit": cmd.ProcessState.ExitCode()}, err
	}},
	"spawn": {"N [plain|setsid|orphan]: start N processes that sleep for an hour; " +
		"setsid in sessions of their own, orphan also with a parent that has gone", 1, spawn},
	"memory": {"MIB: allocate and touch", 1, func(args []string) (any, error) {
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return nil, err
		}
		for range n {
			block := make([]byte, 1<<20)
			for j := 0; j < len(block); j += 4096 {
				block[j] = 1
			}
			hog = append(hog, block)
		}
		return len(hog), nil
	}},
}

// hog keeps what the verb memory allocates.
var hog [][]byte

func spawn(args []string) (any, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return nil, err
	}
	kind := "plain"
	if len(args) > 1 {
		kind = args[1]
	}
	pids := []int{}
	for range n {
		argv := []string{"sleep", "3600"}
		if kind == "orphan" {
			// The child starts the grandchild and exits: a double fork.
			argv = []string{"do", "spawn", "1", "setsid"}
		}
		cmd := exec.Command("/proc/self/exe", argv...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: kind != "plain"}
		if err := cmd.Start(); err != nil {
			return pids, err
		}
		if kind == "orphan" {
			if err := cmd.Wait(); err != nil {
				return pids, err
			}
			continue
		}
		pids = append(pids, cmd.Process.Pid)
		go cmd.Wait()
	}
	return pids, nil
}

// status parses the lines of /proc/PID/status that say who a process is.
func status(file string) (map[string]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	m := map[string]string{}
	for line := range strings.SplitSeq(string(data), "\n") {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "Pid", "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp":
			m[key] = strings.Join(strings.Fields(value), " ")
		}
	}
	return m, nil
}
