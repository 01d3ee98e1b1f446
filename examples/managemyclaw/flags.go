package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/audit/report"
	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container/docker"
	"github.com/managemyclaw/hardshell/harden/openclaw"
)

// A program is one run of the command.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string

	// What the flags say.
	dockerHost string
	engine     *docker.Engine
	containers []string
	writable   []string
	allow      []firewall.Allow
	publish    []netip.Prefix
	stateDir   string
	pins       string
	waivers    []audit.Waiver
	format     string
	full       bool
	timeout    time.Duration

	// Of harden.
	plan    bool
	console bool
	window  time.Duration

	// Of the gateway, and of what is looked at of it.
	policy      string
	composioKey string
	composioURL string
	gatewayURL  string
	probeToken  string

	// Of the kill switch.
	agent                      string
	dataRoot                   string
	openclawURL, openclawToken string
	netns                      string // the host's, where that is not the program's own

	composioVia func() http.RoundTripper // of a drill; nil means the client's own way
}

const defaultStateDir = "/var/lib/hardshell"

// A usageError is a command line that makes no sense.
type usageError string

func (e usageError) Error() string { return string(e) }

var formats = map[string]func(io.Writer, *audit.Report) error{
	"text": nil, // as wide and colourful as the terminal
	"json": report.JSON, "sarif": report.SARIF, "junit": report.JUnit,
}

// parse reads the flags that all commands have, and those that more adds. Its
// error is a usageError or [flag.ErrHelp].
func (p *program) parse(command string, args []string, more func(*flag.FlagSet)) error {
	var waivers string
	fs := flag.NewFlagSet("managemyclaw "+command, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // run says what is wrong
	fs.StringVar(&p.dockerHost, "docker-host", cmp.Or(p.getenv("DOCKER_HOST"), docker.DefaultHost), "`URL` of the container engine")
	fs.Func("container", "`NAME` of the agent's container; may be given several times, or several\nnames with commas; without it, the containers that run", p.addContainers)
	fs.Func("writable", "`PATH` in the container that may be writable beside OpenClaw's own state; may be\ngiven several times", p.addWritable)
	fs.Func("allow", "`PORT[/PROTOCOL][@SENDER][%INTERFACE]` of a container that may be reached from outside, such\nas 443, or 18789/tcp@100.64.0.0/10%tailscale0; may be given several times", p.addAllow)
	fs.Func("publish", "`ADDRESS` besides loopback that the agent's ports may be published on, such as this\nmachine's own in the tailnet; may be given several times", p.addPublish)
	fs.StringVar(&p.stateDir, "state-dir", defaultStateDir, "`DIR` for journals, and for the trails in which everything is recorded")
	fs.StringVar(&p.pins, "pins", "", "`DIR` for the checkpoints that pin the trails, and the public keys to verify them by: best\non another machine's disk; without it, the one of --state-dir")
	fs.StringVar(&waivers, "waivers", "", "`FILE` of violations that somebody answers for; harden closes them all the same")
	fs.StringVar(&p.format, "format", "text", "text, json, sarif or junit")
	fs.BoolVar(&p.full, "full", false, "show every point, every check and what was seen")
	fs.DurationVar(&p.timeout, "timeout", harden.DefaultTimeout, "time for each check")
	if more != nil {
		more(fs)
	}
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		fs.SetOutput(p.stdout)
		fs.Usage()
		return err
	} else if err != nil {
		return usageError(fmt.Sprintf("%v (see managemyclaw %s -h)", err, command))
	}
	_, known := formats[p.format]
	switch {
	case fs.NArg() > 0:
		return usageError(fmt.Sprintf("unexpected argument %q", fs.Arg(0)))
	case !known:
		return usageError(fmt.Sprintf("unknown format %q: use text, json, sarif or junit", p.format))
	case p.timeout <= 0:
		return usageError("the timeout must be positive")
	}
	var err error
	if p.engine, err = docker.Open(p.dockerHost); err != nil {
		return usageError(err.Error())
	}
	if waivers != "" {
		if p.waivers, err = readWaivers(waivers); err != nil {
			return usageError(err.Error())
		}
	}
	return nil
}

// addContainers adds the names in a value of --container. An empty one, as of
// an unset variable in a script, must not come to mean every container.
func (p *program) addContainers(names string) error {
	for name := range strings.SplitSeq(names, ",") {
		if name = strings.TrimSpace(name); name == "" {
			return errors.New("a name is missing")
		}
		if !slices.Contains(p.containers, name) {
			p.containers = append(p.containers, name)
		}
	}
	return nil
}

// addWritable adds the value of --writable.
func (p *program) addWritable(name string) error {
	if !path.IsAbs(name) || path.Clean(name) == "/" {
		return errors.New("it must be an absolute path below the root")
	}
	p.writable = append(p.writable, path.Clean(name))
	return nil
}

// addPublish adds the value of --publish.
func (p *program) addPublish(text string) error {
	prefix, err := prefixOf(text)
	if err != nil {
		return err
	}
	p.publish = append(p.publish, prefix)
	return nil
}

// addAllow adds the value of --allow.
func (p *program) addAllow(text string) error {
	rest, in, _ := strings.Cut(text, "%")
	rest, from, limited := strings.Cut(rest, "@")
	number, protocol, named := strings.Cut(rest, "/")
	a := firewall.Allow{Port: firewall.Port{Protocol: firewall.TCP}, In: in}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is not the number of a port", number)
	}
	a.Number = uint16(n)
	if named {
		if err := a.Protocol.UnmarshalText([]byte(protocol)); err != nil {
			return err
		}
	}
	if limited {
		prefix, err := prefixOf(from)
		if err != nil {
			return err
		}
		a.From = []netip.Prefix{prefix}
	}
	if err := (firewall.Policy{Allow: []firewall.Allow{a}}).Validate(); err != nil {
		return err
	}
	p.allow = append(p.allow, a)
	return nil
}

// prefixOf reads a range of addresses, or a single one.
func prefixOf(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(text)
}

func readWaivers(name string) ([]audit.Waiver, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("waivers: %w", err)
	}
	defer f.Close()
	waivers, err := audit.ParseWaivers(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return waivers, nil
}

// deployment returns the agent's deployment as the flags name it.
func (p *program) deployment() (*openclaw.Deployment, error) {
	access, err := p.accessConfig()
	if err != nil {
		return nil, err
	}
	profile := openclaw.Profile()
	profile.Writable = append(profile.Writable, p.writable...)
	profile.Publish = append(profile.Publish, p.publish...)
	return &openclaw.Deployment{
		Engine:     p.engine,
		Containers: p.containers,
		Profile:    profile,
		Control:    p.engine,
		StateDir:   filepath.Join(p.stateDir, "recreate"),
		Network:    p.network(),
		Access:     access,
		MayStart:   p.mayStart,
	}, nil
}
