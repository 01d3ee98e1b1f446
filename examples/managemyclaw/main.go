// Command managemyclaw locks down a machine that runs an OpenClaw agent, and
// shows that the lock holds. It is the reference program of the hardshell SDK:
// everything it does is a few calls of the packages that it imports.
//
//	managemyclaw security-audit [--full] [--format text|json|sarif|junit]
//	managemyclaw harden [--plan]
//
// It exits with 0 if every check passes, 1 if one fails or a change could not
// be made, 2 for wrong usage, and 3 if nothing fails but something could not be
// determined.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/audit/report"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container/docker"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/harden/openclaw"
)

// Exit codes.
const (
	exitPass    = 0
	exitFail    = 1
	exitUsage   = 2
	exitUnknown = 3
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

const usage = `usage: managemyclaw COMMAND [flags]

  security-audit   judge the machine by the 14 points
  harden           close what can be closed, and audit again; --plan only shows it

Flags of a command: managemyclaw COMMAND -h
Exit status: 0 all pass, 1 something fails, 2 wrong usage, 3 nothing fails but something is unknown
`

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	p := &program{stdout: stdout, stderr: stderr, getenv: getenv}
	commands := map[string]func(context.Context, []string) (int, error){
		"security-audit": p.audit,
		"harden":         p.harden,
	}
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		fmt.Fprint(stderr, usage)
		return exitUsage
	}
	command, ok := commands[args[0]]
	if !ok {
		fmt.Fprintf(stderr, "managemyclaw: unknown command %q\n%s", args[0], usage)
		return exitUsage
	}
	code, err := command(ctx, args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return exitUsage
	}
	if err != nil {
		fmt.Fprintf(stderr, "managemyclaw: %v\n", err)
	}
	return code
}

// A program is one run of the command.
type program struct {
	stdout, stderr io.Writer
	getenv         func(string) string

	// Flags
	dockerHost string
	containers string
	stateDir   string
	waivers    string
	format     string
	full       bool
	timeout    time.Duration
	plan       bool
}

var formats = map[string]func(io.Writer, *audit.Report) error{
	"text": nil, // as wide and colourful as the terminal
	"json": report.JSON, "sarif": report.SARIF, "junit": report.JUnit,
}

// parse reads the flags that all commands have, and those that more adds.
func (p *program) parse(name string, args []string, more func(*flag.FlagSet)) error {
	fs := flag.NewFlagSet("managemyclaw "+name, flag.ContinueOnError)
	fs.SetOutput(p.stderr)
	dockerHost := p.getenv("DOCKER_HOST")
	if dockerHost == "" {
		dockerHost = "unix:///var/run/docker.sock"
	}
	fs.StringVar(&p.dockerHost, "docker-host", dockerHost, "`URL` of the container engine")
	fs.StringVar(&p.containers, "container", "", "`NAME` of the agent's container, or several with commas; all that run if empty")
	fs.StringVar(&p.stateDir, "state-dir", "/var/lib/hardshell", "`DIR`ectory for journals and the record of changes")
	fs.StringVar(&p.waivers, "waivers", "", "`FILE` of violations that somebody answers for")
	fs.StringVar(&p.format, "format", "text", "text, json, sarif or junit")
	fs.BoolVar(&p.full, "full", false, "show every point, every check and what was seen")
	fs.DurationVar(&p.timeout, "timeout", harden.DefaultTimeout, "time for each check")
	if more != nil {
		more(fs)
	}
	if err := fs.Parse(args); err != nil {
		return err // the flag set has said so already
	}
	switch _, known := formats[p.format]; {
	case fs.NArg() > 0:
		return usageError("unexpected argument %q", fs.Arg(0))
	case !known:
		return usageError("unknown format %q: use text, json, sarif or junit", p.format)
	case p.timeout <= 0:
		return usageError("the timeout must be positive")
	}
	return nil
}

type usageErr string

func (e usageErr) Error() string { return string(e) }

func usageError(format string, args ...any) error { return usageErr(fmt.Sprintf(format, args...)) }

// failed returns the exit code for an error before there is a report.
func failed(err error) (int, error) {
	if _, ok := errors.AsType[usageErr](err); ok || errors.Is(err, flag.ErrHelp) {
		return exitUsage, err
	}
	return exitFail, err
}

// deployment returns the agent's deployment as the flags name it.
func (p *program) deployment() (*openclaw.Deployment, error) {
	engine, err := docker.Open(p.dockerHost)
	if err != nil {
		return nil, usageError("%v", err)
	}
	var names []string
	for name := range strings.SplitSeq(p.containers, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return &openclaw.Deployment{
		Engine:     engine,
		Containers: slices.Compact(names),
		Profile:    openclaw.Profile(),
		Control:    engine,
		StateDir:   filepath.Join(p.stateDir, "recreate"),
	}, nil
}

// audit is the command security-audit.
func (p *program) audit(ctx context.Context, args []string) (int, error) {
	if err := p.parse("security-audit", args, nil); err != nil {
		return failed(err)
	}
	d, err := p.deployment()
	if err != nil {
		return failed(err)
	}
	return p.report(ctx, d)
}

// report audits a deployment and writes the report.
func (p *program) report(ctx context.Context, d *openclaw.Deployment) (int, error) {
	auditor := &audit.Auditor{Timeout: p.timeout}
	if p.waivers != "" {
		f, err := os.Open(p.waivers)
		if err != nil {
			return exitUsage, err
		}
		defer f.Close()
		if auditor.Waivers, err = audit.ParseWaivers(f); err != nil {
			return exitUsage, fmt.Errorf("%s: %w", p.waivers, err)
		}
	}
	checks := d.Checks()
	progress := newProgress(p.stderr, len(checks))
	auditor.Progress = progress.done
	r, err := auditor.Run(ctx, &host.Local().View, checks...)
	progress.clear()
	if err != nil {
		return exitUsage, err
	}
	if err := p.encode(r); err != nil {
		return exitFail, fmt.Errorf("write the report: %w", err)
	}
	switch r.Worst() {
	case harden.StatusPass:
		return exitPass, nil
	case harden.StatusUnknown:
		return exitUnknown, nil
	}
	return exitFail, nil
}

func (p *program) encode(r *audit.Report) error {
	if encode := formats[p.format]; encode != nil {
		return encode(p.stdout, r)
	}
	width, terminal := terminalWidth(p.stdout)
	return report.TextOptions{
		Color: terminal && p.getenv("NO_COLOR") == "", // https://no-color.org
		Full:  p.full,
		Width: width,
	}.Encode(p.stdout, r)
}
