package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
)

const (
	highestPriority = -20 // setpriority(2)
	neverForMemory  = "-1000"
)

// urgent has the kernel prefer this process to others, and what it starts, since
// an agent may keep every processor busy, and use all memory.
func urgent() error {
	err := os.WriteFile("/proc/self/oom_score_adj", []byte(neverForMemory), 0)
	if err != nil {
		err = fmt.Errorf("an agent that uses all memory may have this program ended: %w", err)
	}
	return errors.Join(err, prefer())
}

// prefer gives each thread the highest priority that there is. Threads have what
// the one has that starts them, so that it goes on until there is none without.
func prefer() error {
	for more := true; more; {
		more = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil {
				continue
			}
			// The call itself, unlike the library's, returns 20 less what it is.
			if now, err := syscall.Getpriority(syscall.PRIO_PROCESS, tid); err != nil || now == 20-highestPriority {
				continue
			}
			if err := syscall.Setpriority(syscall.PRIO_PROCESS, tid, highestPriority); errors.Is(err, syscall.ESRCH) {
				continue
			} else if err != nil {
				return fmt.Errorf("an agent that keeps the processors busy may hold this program up: %w", err)
			}
			more = true
		}
	}
	return nil
}

// hurry is urgent as far as it may be, and says what it may not.
func hurry(stderr io.Writer) {
	if err := urgent(); err != nil {
		width, _ := terminalWidth(stderr)
		wrap(stderr, width, "", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}
