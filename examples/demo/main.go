//go:build linux

// Command demo shows on a real container engine what hardshell does for an
// agent that is run as people run agents. It builds a small world in network
// namespaces (a host with a dockerd of its own, and an internet), starts the
// agent there, and then: audits, attacks, hardens, audits, attacks.
//
// It touches neither the machine's own Docker nor its firewall, leaves nothing
// behind, and exits with 0 only if every attack succeeded before and failed
// after.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/managemyclaw/hardshell/internal/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

const agent = "openclaw"

// careless is how agents are run: as root, on every address, with the engine's
// socket and the host's configuration at hand, and a key in the environment.
var careless = []string{
	"run", "-d", "--name", agent, "--restart", "unless-stopped",
	"--user", "0",
	"-p", "18789:18789",
	"-v", "/var/run/docker.sock:/var/run/docker.sock",
	"-v", "/etc:/host/etc",
	"-v", "openclaw-state:/home/node/.openclaw",
	"-e", "OPENAI_API_KEY=not-a-real-key",
	lab.PickyImage,
}

func run(ctx context.Context, w io.Writer) (err error) {
	began := time.Now()
	cfg := lab.Config{Dockerd: os.Getenv("HARDSHELL_DOCKERD"), Runc: os.Getenv("HARDSHELL_RUNC")}
	if missing := lab.Missing(cfg); len(missing) > 0 {
		return fmt.Errorf("it cannot run here: %s", strings.Join(missing, "; "))
	}
	d := &demo{w: w}
	dir, err := os.MkdirTemp("", "hardshell-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d.state = filepath.Join(dir, "state")

	d.chapter("A machine of its own")
	d.program = filepath.Join(dir, "managemyclaw")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", d.program, "github.com/managemyclaw/hardshell/examples/managemyclaw").CombinedOutput(); err != nil {
		return fmt.Errorf("build the reference program: %w\n%s", err, out)
	}
	if d.lab, err = lab.Start(ctx, cfg); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.lab.Close()) }()
	fmt.Fprintf(w, "A host (%v) with a dockerd %s, and an internet (%v), in namespaces.\n", d.lab.Host.Addr4, d.lab.EngineVersion(), d.lab.Internet.Addr4)

	d.chapter("The agent as people run it")
	if _, err := d.lab.Docker(ctx, "run", "-d", "--name", "bystander", lab.UserImage); err != nil {
		return err
	}
	if _, err := d.lab.Docker(ctx, careless...); err != nil {
		return err
	}
	fmt.Fprintf(w, "$ docker %s\n", strings.Join(careless, " "))
	if err := d.ready(ctx); err != nil {
		return err
	}
	if _, err := d.lab.Do(ctx, agent, "write", "/home/node/.openclaw/memory", "what the agent remembers"); err != nil {
		return err
	}

	d.chapter("Audit")
	if err := d.audit(ctx, 1); err != nil {
		return err
	}
	d.chapter("Attack")
	if err := d.attack(ctx, true); err != nil {
		return err
	}
	d.chapter("Harden")
	if err := d.managemyclaw(ctx, "harden", "--container", agent); err != nil {
		// It audits at the end, and points that nothing looks at yet are unknown.
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 3 {
			return err
		}
	}
	d.chapter("Attack again")
	if err := d.ready(ctx); err != nil {
		return err
	}
	if err := d.attack(ctx, false); err != nil {
		return err
	}
	a, err := d.lab.Do(ctx, agent, "read", "/home/node/.openclaw/memory")
	if err != nil {
		return err
	}
	if !strings.Contains(string(a.Result), "what the agent remembers") {
		return fmt.Errorf("the agent has lost its memory: %v", a)
	}
	fmt.Fprintf(w, "✓ and the agent works: it serves on the host's loopback, and remembers what it knew\n")
	fmt.Fprintf(w, "\nDone in %.1f s. Nothing is left behind.\n", time.Since(began).Seconds())
	return nil
}

type demo struct {
	w       io.Writer
	lab     *lab.Lab
	program string
	state   string
}

func (d *demo) chapter(title string) {
	fmt.Fprintf(d.w, "\n━━ %s %s\n\n", title, strings.Repeat("━", max(0, 74-len(title))))
}

// managemyclaw runs the reference program, as a user would.
func (d *demo) managemyclaw(ctx context.Context, args ...string) error {
	args = append(args, "--docker-host", d.lab.DockerHost(), "--state-dir", d.state)
	fmt.Fprintf(d.w, "$ managemyclaw %s …\n", strings.Join(args[:len(args)-4], " "))
	cmd := exec.CommandContext(ctx, d.program, args...)
	cmd.Stdout, cmd.Stderr = d.w, d.w
	return cmd.Run()
}

// audit runs the audit and wants a certain exit status.
func (d *demo) audit(ctx context.Context, want int) error {
	err := d.managemyclaw(ctx, "security-audit", "--container", agent)
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != want {
		return fmt.Errorf("the audit ended with %v, want status %d", err, want)
	}
	return nil
}

// ready waits until the agent answers on the host.
func (d *demo) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	client := d.lab.Host.Client(time.Second)
	for {
		a, err := lab.Ask(ctx, client, "127.0.0.1:18789", "whoami")
		if err == nil && a.OK {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the agent does not answer: %w", errors.Join(err, ctx.Err()))
		case <-time.After(50 * time.Millisecond):
		}
	}
}
