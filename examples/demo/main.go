//go:build linux

// Command demo shows on a real container engine what hardshell does for an
// agent that is run as people run agents. It builds a small world in network
// namespaces (a host with a dockerd of its own, and an internet), starts the
// agent there, and then: audits, attacks, hardens, and attacks again.
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
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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
// One line each, for those who read it.
var careless = [][]string{
	{"run", "-d", "--name", agent, "--restart", "unless-stopped"},
	{"--user", "0"},
	{"-p", "18789:18789"},
	{"-v", "/var/run/docker.sock:/var/run/docker.sock"},
	{"-v", "/etc:/host/etc"},
	{"-v", "openclaw-state:/home/node/.openclaw"},
	{"-e", "OPENAI_API_KEY=not-a-real-key"},
	{"-e", tokenVariable + "=…"},
	{lab.PickyImage},
}

// A demo is one performance.
type demo struct {
	w       io.Writer
	lab     *lab.Lab
	program string // the reference program
	state   string // where it keeps its state, on the host
	session net.Conn
	office  office
	sink    *lab.Sink // what a runaway agent tells the internet
	standby *service  // what holds a stopped agent
}

// turns lets several write, one after the other: the program, and the owner's
// second session.
type turns struct {
	mu sync.Mutex
	w  io.Writer
}

func (t *turns) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.w.Write(p)
}

func run(ctx context.Context, w io.Writer) (err error) {
	began := time.Now()
	cfg := lab.Config{UFW: true, Dockerd: os.Getenv("HARDSHELL_DOCKERD"), Runc: os.Getenv("HARDSHELL_RUNC")}
	if missing := lab.Missing(cfg); len(missing) > 0 {
		return fmt.Errorf("it cannot run here: %s", strings.Join(missing, "; "))
	}
	dir, err := os.MkdirTemp("", "hardshell-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d := &demo{w: &turns{w: w}, program: filepath.Join(dir, "managemyclaw"), state: "/run/hardshell"}

	d.chapter("1 A machine to attack")
	build := exec.CommandContext(ctx, "go", "build", "-o", d.program, "github.com/managemyclaw/hardshell/examples/managemyclaw")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the reference program: %w\n%s", err, out)
	}
	if d.lab, err = lab.Start(ctx, cfg); err != nil {
		return err
	}
	defer func() { // and it is said last, when it is true
		err = errors.Join(err, d.lab.Close())
		if err == nil {
			d.say("\nDone in %.0f seconds. Nothing is left behind.\n", time.Since(began).Seconds())
		}
	}()
	d.say("A host with a Docker engine of its own (%s), at %v, and\n"+
		"an internet, at %v, both in namespaces: this machine's own Docker\n"+
		"and firewall are not touched.\n", d.lab.EngineVersion(), d.lab.Host.Addr4, d.lab.Internet.Addr4)
	return d.play(ctx)
}

// play is the demo on a machine that is there.
func (d *demo) play(ctx context.Context) error {
	d.chapter("2 An agent, run as people run them")
	if _, err := d.lab.Docker(ctx, "run", "-d", "--name", "bystander", lab.UserImage); err != nil {
		return err
	}
	if err := d.office.open(ctx, d.lab, filepath.Dir(d.program)); err != nil {
		return err
	}
	var args, shown []string
	for _, line := range careless {
		args = append(args, line...)
		shown = append(shown, strings.Join(line, " "))
	}
	d.say("$ docker %s\n", strings.Join(shown, " \\\n    "))
	args[slices.Index(args, tokenVariable+"=…")] = tokenVariable + "=" + d.office.token.Reveal()
	if _, err := d.lab.Docker(ctx, args...); err != nil {
		return err
	}
	if err := d.services(ctx); err != nil {
		return err
	}
	d.say("\nThe image holds a stand-in for OpenClaw, which does what it is told, also by\n" +
		"those who should not tell it. Beside it run a container of somebody else's, and\n" +
		"a database that nobody remembers, on port 5432 of the host. Its owner is logged\n" +
		"in from the internet, by a stand-in for SSH.\n")
	if err := d.ready(ctx); err != nil {
		return err
	}
	if err := d.remember(ctx); err != nil {
		return err
	}

	d.chapter("3 The audit says what is wrong")
	if err := d.managemyclaw(ctx, "security-audit", 1); err != nil {
		return err
	}
	d.chapter("4 The attack shows that it matters")
	d.say("From the internet, and from inside the agent, which obeys an attacker now:\n\n")
	if err := d.attack(ctx, true); err != nil {
		return err
	}
	d.chapter("5 A gateway for its tools")
	d.say("The agent works with its owner's accounts at Composio, which is a stand-in here.\n" +
		"The gateway holds Composio's key, and lets through what the policy names:\n\n")
	if err := d.tools(ctx); err != nil {
		return err
	}
	d.chapter("6 Hardening")
	d.say("In the owner's session. Each change of the firewall undoes itself unless the\n" +
		"owner can log in anew after it, and says so there:\n\n")
	// It audits at the end: the tailnet is missing here, and so point 9 fails.
	if err := d.managemyclaw(ctx, "harden", 1, d.office.probing()...); err != nil {
		return err
	}
	d.chapter("7 The same attack again")
	if err := d.ready(ctx); err != nil {
		return err
	}
	if err := d.attack(ctx, false); err != nil {
		return err
	}
	if err := d.works(ctx); err != nil {
		return err
	}
	d.chapter("8 A kill switch, rehearsed and armed")
	if err := d.rehearse(ctx); err != nil {
		return err
	}
	d.chapter("9 The agent runs away")
	if err := d.runAway(ctx); err != nil {
		return err
	}
	d.chapter("10 One click")
	return d.click(ctx)
}

// say writes to the audience.
func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.w, format, args...) }

func (d *demo) chapter(title string) {
	d.say("\n━━ %s %s\n\n", title, strings.Repeat("━", max(0, 76-len(title))))
}

// managemyclaw runs the reference program, as a user would, and wants a certain
// exit status.
func (d *demo) managemyclaw(ctx context.Context, command string, want int, more ...string) error {
	d.say("$ managemyclaw %s --container %s%s\n", command, agent, shown(more))
	confirm := &confirmer{demo: d, ctx: ctx}
	cmd := d.onHost(ctx, d.session, append([]string{command, "--container", agent}, more...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // so that it can undo what it has begun
	cmd.WaitDelay = time.Minute
	cmd.Stdout, cmd.Stderr = d.w, confirm
	err := cmd.Run()
	confirm.running.Wait()
	if cmd.ProcessState == nil {
		return err
	}
	if got := cmd.ProcessState.ExitCode(); got != want || ctx.Err() != nil || confirm.err != nil {
		return fmt.Errorf("managemyclaw %s ended with status %d, want %d: %w", command, got, want, errors.Join(err, ctx.Err(), confirm.err))
	}
	return nil
}

const memory = "what the agent remembers"

// remember gives the agent something to lose, and its configuration.
func (d *demo) remember(ctx context.Context) error {
	for name, text := range map[string]string{"memory": memory, "openclaw.json": d.office.config()} {
		a, err := d.lab.Do(ctx, agent, "write", "/home/node/.openclaw/"+name, text)
		if err == nil && !a.OK {
			err = fmt.Errorf("the agent cannot remember: %v", a)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// works makes sure that the agent is of use still: ready says that it serves.
func (d *demo) works(ctx context.Context) error {
	a, err := d.lab.Do(ctx, agent, "read", "/home/node/.openclaw/memory")
	if err != nil {
		return err
	}
	if !strings.Contains(string(a.Result), memory) {
		return fmt.Errorf("the agent has lost its memory: %v", a)
	}
	d.say("✓ works   it answers on the host's loopback, and remembers what it knew\n")
	for _, call := range []struct{ tool, want, says string }{
		{readMail, "200", "reads mail, as the policy allows"},
		{postSlack, "403", "cannot write to Slack, which the policy does not name"},
	} {
		status, err := d.tool(ctx, call.tool)
		if err != nil {
			return fmt.Errorf("%s: %w", call.tool, err)
		}
		if status != call.want {
			return fmt.Errorf("%s through the gateway: status %s, want %s", call.tool, status, call.want)
		}
		d.say("✓ works   it %s\n", call.says)
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
