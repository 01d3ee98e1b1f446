package firewall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// A Runner runs the programs that show and change packet filters, such as
// iptables-save and nft. Implementations may be called concurrently.
type Runner interface {
	// Run runs a program to its end and returns what it wrote to its
	// standard output. The error wraps an [*ExitError] if the program ended
	// with a status other than zero, [exec.ErrNotFound] if it is not
	// installed, and the error of ctx if that ended first, in which case the
	// program has been killed.
	Run(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error)
}

// An ExitError reports a program that ended with a status other than zero.
type ExitError struct {
	Name   string
	Code   int    // -1 if a signal ended it
	Stderr string // the beginning of what it wrote there
}

func (e *ExitError) Error() string {
	msg := fmt.Sprintf("%s: exit status %d", e.Name, e.Code)
	if e.Stderr != "" {
		msg += ": " + e.Stderr
	}
	return msg
}

// Programs is a Runner that runs the programs of this machine, in the network
// namespace of the calling process. The zero Programs is ready for use.
type Programs struct {
	// Timeout ends a program that takes longer. Zero means DefaultTimeout.
	Timeout time.Duration
}

// DefaultTimeout is how long a program may take. UFW and the older iptables wait
// for their locks without limit.
const DefaultTimeout = 10 * time.Second

// maxStderr is how much is kept of what a failing program complained about.
const maxStderr = 4 << 10

// Run implements [Runner]. The programs speak English: gettext looks at
// LANGUAGE before LC_ALL.
func (p Programs) Run(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	timeout := p.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(cmd.Environ(), "LC_ALL=C", "LANGUAGE=C")
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.WaitDelay = time.Second // a descendant that holds on to the output
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err == nil {
		return stdout.Bytes(), nil
	}
	if ctx.Err() != nil {
		return stdout.Bytes(), fmt.Errorf("%s: %w", name, ctx.Err())
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		text := strings.TrimSpace(string(stderr.Bytes()[:min(stderr.Len(), maxStderr)]))
		return stdout.Bytes(), &ExitError{Name: name, Code: exit.ExitCode(), Stderr: text}
	}
	return stdout.Bytes(), fmt.Errorf("%s: %w", name, err)
}
