package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/firewall"
)

// A process is one of the machine's: its number and when it started, in ticks
// since the machine did, which tells it from a later one with the same number.
type process struct {
	PID   int    `json:"pid"`
	Start string `json:"start"`

	session int
}

// running is what a watchdog writes when it starts.
type running struct {
	process
	deadline int64  // hundredths of a second since the machine started; 0 if it restores at once
	boot     string // of the machine
}

func readRunning(dir string) (running, error) {
	data, err := os.ReadFile(filepath.Join(dir, runningFile))
	if err != nil {
		return running{}, fmt.Errorf("guard: %w", err)
	}
	f := strings.Fields(string(data))
	if len(f) != 4 {
		return running{}, fmt.Errorf("guard: %s/%s: %q is not what a watchdog writes", dir, runningFile, data)
	}
	pid, err := strconv.Atoi(f[0])
	deadline, err2 := strconv.ParseInt(f[2], 10, 64)
	if err := errors.Join(err, err2); err != nil {
		return running{}, fmt.Errorf("guard: %s/%s: %w", dir, runningFile, err)
	}
	return running{process{PID: pid, Start: f[1]}, deadline, f[3]}, nil
}

// process looks at a process; alive is false if there is none.
func (g *Guard) process(ctx context.Context, pid int) (p process, alive bool, err error) {
	out, err := g.Run.Run(ctx, nil, "cat", "/proc/"+strconv.Itoa(pid)+"/stat")
	if exit, ok := errors.AsType[*firewall.ExitError](err); ok &&
		(strings.Contains(exit.Stderr, "No such file") || strings.Contains(exit.Stderr, "No such process")) {
		return process{}, false, nil
	}
	if err != nil {
		return process{}, false, fmt.Errorf("guard: look for process %d: %w", pid, err)
	}
	return parseStat(pid, string(out))
}

// parseStat reads /proc/PID/stat (proc_pid_stat(5)).
func parseStat(pid int, text string) (p process, alive bool, err error) {
	// The name is in parentheses and may contain anything.
	i := strings.LastIndexByte(text, ')')
	f := strings.Fields(text[i+1:])
	if i < 0 || len(f) < 20 {
		return p, false, fmt.Errorf("guard: /proc/%d/stat: %q", pid, text)
	}
	p = process{PID: pid, Start: f[19]}
	if p.session, err = strconv.Atoi(f[3]); err != nil {
		return p, false, fmt.Errorf("guard: /proc/%d/stat: %w", pid, err)
	}
	return p, f[0] != "Z" && f[0] != "X", nil
}

// self is this process.
func (g *Guard) self(ctx context.Context) (process, error) {
	p, _, err := g.process(ctx, os.Getpid())
	return p, err
}

func (g *Guard) alive(ctx context.Context, p process) (bool, error) {
	now, alive, err := g.process(ctx, p.PID)
	return alive && now.Start == p.Start, err
}

func (g *Guard) bootID(ctx context.Context) (string, error) {
	out, err := g.Run.Run(ctx, nil, "cat", "/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("guard: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// left is how much of the window is left.
func (g *Guard) left(ctx context.Context, run running) (time.Duration, error) {
	out, err := g.Run.Run(ctx, nil, "cat", "/proc/uptime")
	if err != nil {
		return 0, fmt.Errorf("guard: %w", err)
	}
	word, _, _ := strings.Cut(string(out), " ")
	now, err := strconv.ParseInt(strings.Replace(word, ".", "", 1), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("guard: /proc/uptime: %w", err)
	}
	return time.Duration(run.deadline-now) * 10 * time.Millisecond, nil
}
